"""A dirty file that continues the one of an earlier daemon."""

from ossfs_py.model import CommitRequest, ObjectVersion
from ossfs_py.writing.dirty import DirtyFile
from ossfs_py.writing.disk_content import DiskContent
from ossfs_py.writing.records import DirtyRecord
from ossfs_py.writing.staging import Staging
from ossfs_py.writing.vanished_content import VanishedContent


class InheritedFile(DirtyFile):
    """A dirty file that first takes over the state that an earlier daemon has left. Until then, and
    if nothing was left, it is an ordinary dirty file.
    """

    def adopt(self, record: DirtyRecord) -> None:
        """Take over the bytes in a staging file. Blocks shortly.

        Raises:
            OSError: it cannot be opened.
        """
        context = self._context
        staging, replayed = Staging.reopened(
            context.journal, context.local, context.room, self._contents.writer, record
        )
        content = self._contents.disk(self._content.base, changed=True)
        content.adopt(staging, replayed)
        self._content = content
        self._contents.unlinked = replayed.unlinked
        self.adopted = True

    def adopt_emptied(self) -> None:
        """Become empty: the file was truncated to nothing, and that is not stored."""
        self._replace(self._contents.memory(is_new=True))

    def adopt_vanished(self, size: int, request: CommitRequest | None) -> None:
        """Take over a file of ``size`` bytes that were only in the daemon's memory. If ``request``
        names its object, the file is reported as unsaved. Blocks shortly.

        Raises:
            OSError: the disk is full; it is not reported.
        """
        journal = self._context.journal
        self._replace(VanishedContent(journal, size, self._committer.owner))
        if request is not None:
            self.set_aside(request)

    async def is_in(self, version: ObjectVersion) -> bool | None:
        """Whether an object is the one that a commit of the earlier daemon would have made. None:
        it has the same size, and there are no bytes to compare.

        Raises:
            StoreError
        """
        content = self._content
        return isinstance(content, DiskContent) and await content.is_in(version)

    def found_stored(self, version: ObjectVersion) -> None:
        """The earlier daemon has committed the file, and died before it noted that."""
        self._committer.made(version)
        self._content = self._content.committed(version)
        self._seen = version

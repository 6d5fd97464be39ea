"""A dirty file that goes on where the daemon before ended."""

from ossfs_py.model import CommitRequest, ObjectVersion
from ossfs_py.writing.dirty import DirtyFile
from ossfs_py.writing.disk_content import DiskContent
from ossfs_py.writing.records import DirtyRecord
from ossfs_py.writing.staging import Staging
from ossfs_py.writing.vanished_content import VanishedContent


class InheritedFile(DirtyFile):
    """Becomes what an earlier daemon has left, before anything else is done with it; until then,
    and where nothing was left, it is any dirty file.
    """

    def adopt(self, record: DirtyRecord) -> None:
        """Be what is in a staging file. Blocks shortly.

        Raises:
            OSError: it cannot be opened.
        """
        context = self._context
        staging, replayed = Staging.reopened(
            context.journal, context.local, context.room, self._writer, record
        )
        content = self._new_disk(self._content.base, changed=True)
        content.adopt(staging, replayed)
        self._content = content
        self._unlinked = replayed.unlinked
        self.adopted = True

    def adopt_emptied(self) -> None:
        """Be empty: the file was cut to nothing, and that is not stored."""
        self._replace(self._new_memory(is_new=True))

    def adopt_vanished(self, size: int, request: CommitRequest | None) -> None:
        """Be a file whose bytes, so many, were in the daemon's memory only. Of what was to become
        ``request`` says, it is told as unsaved. Blocks shortly.

        Raises:
            OSError: the disk is full; it is not told.
        """
        journal = self._context.journal
        self._replace(VanishedContent(journal, size, self._committer.owner))
        if request is not None:
            self.set_aside(request)

    async def is_in(self, version: ObjectVersion) -> bool:
        """Whether an object is what a commit of the daemon before would have made of the file.

        Raises:
            StoreError
        """
        content = self._content
        return isinstance(content, DiskContent) and await content.is_in(version)

    def found_stored(self, version: ObjectVersion) -> None:
        """The daemon before has committed it, and did not live to know."""
        self._committer.made(version)
        self._content = self._content.committed(version)
        self._seen = version

"""How the contents of one dirty file are made, and what they ask about it."""

from pathlib import Path

from ossfs_py.model import CommitRequest
from ossfs_py.writing.content import Base, Committer, ReadBase
from ossfs_py.writing.context import WriteContext
from ossfs_py.writing.disk_content import DiskContent
from ossfs_py.writing.memory_content import MemoryContent, MemoryPlan
from ossfs_py.writing.parts import schedule_of
from ossfs_py.writing.small_content import SmallContent
from ossfs_py.writing.upload import PartsUpload


class Contents:
    """Makes the contents of a dirty file. Kept by its dirty file.

    They refer to this and not to the file, which refers to the present one of them: a circle would
    wait for Python's collector when the file is closed.
    """

    def __init__(
        self,
        context: WriteContext,
        read_base: ReadBase,
        committer: Committer,
        *,
        expects_rereads: bool,
    ) -> None:
        self.expects_rereads = expects_rereads
        """The written bytes will probably be read back before close."""
        self.unlinked = False
        """Nobody will commit the file any more."""
        self.kept: Path | None = None
        """Path of the bytes that were set aside."""
        self._context = context
        self._read_base = read_base
        self._committer = committer
        self._schedule = schedule_of(context.parts)

    @property
    def most_bytes(self) -> int:
        """The longest that the file can become."""
        return min(self._context.limits.parts.max_object, self._schedule.capacity)

    def target(self) -> CommitRequest | None:
        """The commit request for the file, as of now."""
        return None if self.unlinked or self.kept else self._committer.request()

    def writer(self) -> int:
        """The user whose bytes are being written."""
        return self._committer.writer

    def memory(self, *, is_new: bool) -> MemoryContent:
        """An empty content in memory; ``is_new``: the store has no object of it yet."""
        context = self._context
        plan = MemoryPlan(
            schedule_of(context.parts, context.limits.memory_part_bytes),
            self._schedule,
            self.target,
            self._upload,
            self.disk,
            self.writer,
        )
        return MemoryContent(context, plan, is_new=is_new)

    def small(self) -> SmallContent | DiskContent:
        """An empty content for bytes that survive the daemon."""
        limits = self._context.limits
        if not limits.small_bytes:
            # The file is not in the store yet, and has to be stored even if it stays empty.
            return self.disk(None, changed=True)
        longest_bytes = min(limits.small_bytes, self._schedule.span(1).size)
        return SmallContent(self._context, longest_bytes, self.target, self.disk, self.writer)

    def disk(self, base: Base | None, *, changed: bool, ident: str = "") -> DiskContent:
        """A content on disk, above ``base``."""
        return DiskContent(
            self._context,
            self._schedule,
            base,
            self._read_base,
            self.target,
            self.writer,
            self._committer,
            changed=changed,
            ident=ident,
        )

    def _upload(self) -> PartsUpload | None:
        """The upload for the parts of a stream."""
        request = self.target()
        if request is None:
            return None
        if self.expects_rereads or not self._committer.key_settled:
            hidden = CommitRequest(self._context.spill_key())
            return PartsUpload(self._context, hidden, hidden=True)
        return PartsUpload(self._context, request)

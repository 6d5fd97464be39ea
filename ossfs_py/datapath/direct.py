"""The ``direct`` data path: bytes live in memory only, under the mount's one budget.

Reading never touches a disk. Writing streams sequential bytes as multipart parts from memory and
spills to a staging file only when a write comes out of order.
"""

from ossfs_py.datapath.objectfile import CommittedHook, ObjectFile
from ossfs_py.model import ObjectVersion
from ossfs_py.reading.context import ReadContext
from ossfs_py.reading.readers import ReaderCache
from ossfs_py.reading.secondhome import BlockBackend
from ossfs_py.runtime.buffers import Buffer
from ossfs_py.writing.content import Committer
from ossfs_py.writing.context import WriteContext


class DirectDataPath:
    """Opens files whose readers have no second home for their bytes."""

    def __init__(
        self,
        reads: ReadContext,
        writes: WriteContext,
        on_committed: CommittedHook | None = None,
    ) -> None:
        self._readers = ReaderCache(reads, self._no_backend)
        self._writes = writes
        self._on_committed = on_committed

    def open(self, version: ObjectVersion | None, committer: Committer) -> ObjectFile:
        """An open file over ``version``; None for a file that is not in the store yet."""
        return ObjectFile(
            version,
            committer,
            self._readers,
            self._writes,
            memory_first=True,
            on_committed=self._on_committed,
        )

    def prefetch(self, version: ObjectVersion) -> int | None:
        """Begin to fetch a whole small object; see the protocol."""
        if self._writes.small.recall(version) is not None:
            return 0
        return self._readers.prefetch(version)

    def copied(self, version: ObjectVersion, copy: ObjectVersion) -> None:
        """What was written here lately is read back without a request; see the protocol."""
        self._writes.small.copied(version, copy)

    def room_to_land(self, size: int) -> Buffer | None:
        """Memory that a file which is written in order keeps; see the protocol."""
        return self._writes.memory.try_acquire(size, headroom_bytes=size)

    async def run(self) -> None:
        """Background work of the data path, until cancelled."""
        await self._readers.run()

    async def aclose(self) -> None:
        """Free everything."""
        self._readers.close()

    @staticmethod
    def _no_backend(_version: ObjectVersion) -> BlockBackend | None:
        return None

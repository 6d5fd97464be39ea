"""The ``temp`` data path: a sparse temporary file per open object version.

Fetched bytes are answered from memory at once and land in the file behind; later reads come from
the file. The file has no name: it is gone with the last close, or with the daemon. A file that was
written is kept for a moment, for who reads it back.
"""

import tempfile
from pathlib import Path

import trio

from ossfs_py.datapath.fileparts import FileParts, read_fully, write_fully
from ossfs_py.datapath.justwritten import JustWritten, LentBackend
from ossfs_py.datapath.objectfile import CommittedHook, ObjectFile
from ossfs_py.errors import is_disk_full
from ossfs_py.extents import ExtentSet
from ossfs_py.model import ObjectVersion
from ossfs_py.reading.context import ReadContext
from ossfs_py.reading.readers import ReaderCache
from ossfs_py.reading.secondhome import BlockLostError
from ossfs_py.runtime.buffers import Buffer
from ossfs_py.runtime.closing import close_behind
from ossfs_py.runtime.descriptors import Descriptors
from ossfs_py.runtime.diskroom import READERS, DiskRoom
from ossfs_py.runtime.pastpages import DIRECT_FROM_BYTES, DirectFile
from ossfs_py.writing.content import Committer
from ossfs_py.writing.context import WriteContext
from ossfs_py.writing.dirty import DirtyFile


class TempBackend(FileParts):
    """Bytes of one version in an unnamed file. Implements :class:`BlockBackend`."""

    def __init__(self, version: ObjectVersion, temp_dir: Path, room: DiskRoom) -> None:
        super().__init__(version, ExtentSet())
        self._room = room
        self._account = room.account()
        self._kept_bytes = 0
        # Unlinked at once, created owner-only: nothing is left behind after a crash.
        self._file = tempfile.TemporaryFile(dir=temp_dir, buffering=0)  # noqa: SIM115
        self._direct: DirectFile | None = None
        if version.size >= DIRECT_FROM_BYTES:
            self._direct = DirectFile(self._file.fileno())

    def load_into(self, start: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from the file.

        Raises:
            BlockLostError: the disk cannot read them any more.
        """
        done = self._direct.read(buffer, start) if self._direct is not None else 0
        try:
            done = read_fully(self._file.fileno(), buffer, start, done)
        except OSError as exc:
            self._lost(start, len(buffer), exc)
        if done < len(buffer):
            self._lost(start, len(buffer), None)

    def _lost(self, start: int, size: int, cause: OSError | None) -> None:
        raise BlockLostError(
            f"the temporary file of {self._version.key!r} lost {size} bytes at {start}"
        ) from cause

    def keep(self, start: int, view: memoryview) -> bool:
        """Write fetched bytes behind their readers; False when the disk is full, or its rest is
        left to others.
        """
        fd = self._file.fileno()
        with self._room.reserved(fd, READERS, len(view)) as has_room:
            if not has_room:
                return False
            done = self._direct.write(view, start) if self._direct is not None else 0
            try:
                write_fully(fd, view, start, done)
            except OSError as exc:
                if is_disk_full(exc):
                    return False
                raise
            return True

    def note_kept(self, start: int, end: int) -> None:
        """The run is in the file now."""
        self._present.add(start, end)
        self._kept_bytes += end - start
        self._account.is_now(self._kept_bytes, READERS)

    def note_skipped(self, size: int) -> None:
        """The disk is slower than the network: the run comes from the store again."""

    def close(self) -> None:
        """Give the disk space back."""
        if self._direct is not None:
            self._direct.close()
        close_behind(self._file.fileno(), self._file.close)
        self._account.close()


class TempDataPath:
    """Opens files whose readers keep their bytes in temporary files."""

    def __init__(
        self,
        reads: ReadContext,
        writes: WriteContext,
        temp_dir: Path,
        descriptors: Descriptors,
        on_committed: CommittedHook | None = None,
    ) -> None:
        """Without a descriptor to spare, bytes are kept in memory only."""
        self._descriptors = descriptors
        self._temp_dir = temp_dir
        self._small_bytes = reads.options.small_file_bytes
        self._readers = ReaderCache(reads, self._backend)
        self._writes = writes
        self._on_committed = on_committed
        self._just_written = JustWritten()

    def open(self, version: ObjectVersion | None, committer: Committer) -> ObjectFile:
        """An open file over ``version``; None for a file that is not in the store yet."""
        return ObjectFile(
            version,
            committer,
            self._readers,
            self._writes,
            memory_first=False,
            on_committed=self._committed,
        )

    def prefetch(self, version: ObjectVersion) -> int | None:
        """Begin to fetch a whole small object; see the protocol."""
        if self._writes.small.recall(version) is not None:
            return 0
        return self._readers.prefetch(version)

    def copied(self, version: ObjectVersion, copy: ObjectVersion) -> None:
        """What was written here lately is read back without a request; see the protocol."""
        self._writes.small.copied(version, copy)
        self._just_written.copied(version, copy)

    def room_to_land(self, size: int) -> Buffer | None:  # noqa: ARG002 - the protocol's
        """None: what is written goes to a file."""
        return None

    async def run(self) -> None:
        """Background work of the data path, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._readers.run)
            nursery.start_soon(self._just_written.run)

    async def aclose(self) -> None:
        """Free everything."""
        self._readers.close()
        self._just_written.close()

    def _committed(self, dirty: DirtyFile, version: ObjectVersion) -> None:
        if self._on_committed is not None:
            self._on_committed(dirty, version)
        if (
            version.size > self._writes.limits.small_bytes  # those are remembered in memory
            and self._just_written.wants(version)
            and self._descriptors.may_keep_file()
            and (lent := dirty.lend()) is not None
        ):
            self._just_written.keep(version, lent)

    def _backend(self, version: ObjectVersion) -> TempBackend | LentBackend | None:
        written = self._just_written.take(version)
        if written is not None:
            return written
        if version.size <= self._small_bytes:
            # A file costs more than to fetch these few bytes once more if memory runs short.
            return None
        if not self._descriptors.may_keep_file():
            return None
        return TempBackend(version, self._temp_dir, self._writes.room)

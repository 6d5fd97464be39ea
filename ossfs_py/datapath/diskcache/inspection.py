"""Metrics, rehash and clearing of a cache directory, for people."""

from collections.abc import Callable
from dataclasses import dataclass

from ossfs_py.datapath.diskcache import evictor
from ossfs_py.datapath.diskcache.blockfile import BlockFile
from ossfs_py.datapath.diskcache.store import BlockStore
from ossfs_py.errors import OssfsError
from ossfs_py.reading.secondhome import BlockLostError


class CacheUnavailableError(OssfsError):
    """The cache directory cannot be opened; the log says why."""


@dataclass(frozen=True, slots=True)
class CacheMetrics:
    """The content of a cache directory. Sizes in bytes.

    Hits and misses count since the directory was laid out, over all mounts; a running mount adds
    its own when it next writes to the cache.
    """

    used_bytes: int
    limit_bytes: int
    capacity_bytes: int
    """The size that it could have now: up to its limit, and up to what ``--min-free`` leaves of the
    disk."""
    files: int
    blocks: int
    hit_bytes: int
    miss_bytes: int

    @property
    def hit_ratio(self) -> float | None:
        """Share of bytes that came from disk; None before the first read."""
        total = self.hit_bytes + self.miss_bytes
        return self.hit_bytes / total if total else None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Outcome of a rehash."""

    files: int
    blocks: int
    damaged_blocks: int
    damaged_files: int


@dataclass(frozen=True, slots=True)
class VerifyProgress:
    """How far a rehash has come."""

    files_done: int
    files_total: int
    bytes_done: int


class CacheInspector:
    """Commands over a whole cache directory. Blocking; safe while mounts use the directory.

    Every method raises CacheUnavailableError if the directory cannot be opened, OSError if it
    fails meanwhile, LedgerBusyError if another process holds its lock.
    """

    def __init__(self, store: BlockStore) -> None:
        self._store = store
        attachment = store.disk.attachment()
        if attachment is None:
            raise CacheUnavailableError("the cache directory cannot be used")
        self._attachment = attachment

    def show(self) -> CacheMetrics:
        """Count files and blocks."""
        root = self._attachment.root
        self._store.note_metrics()
        with self._attachment.ledger.locked() as totals:
            used, hits, misses = totals.used_bytes, totals.hit_bytes, totals.miss_bytes
        files = blocks = 0
        for candidate in evictor.candidates(root, root.shelves()):
            file = BlockFile.look(root.fd, candidate.shelf, candidate.name)
            if file is not None:
                files += 1
                blocks += len(file.records) - file.records.count(0)
                file.close()
        capacity = self._store.capacity_bytes(self._attachment, used)
        return CacheMetrics(used, self._store.limit_bytes, capacity, files, blocks, hits, misses)

    def verify(self, progress: Callable[[VerifyProgress], None]) -> VerifyReport:
        """Read and check every block; damaged ones are forgotten, damaged files removed."""
        root = self._attachment.root
        found = evictor.candidates(root, root.shelves())
        files = blocks = damaged_blocks = damaged_files = bytes_done = 0
        for number, candidate in enumerate(found, 1):
            file = BlockFile.look(root.fd, candidate.shelf, candidate.name)
            if file is None:
                with self._attachment.ledger.locked() as totals:
                    freed = evictor.evict_file(root, candidate)
                    totals.used_bytes -= freed
                damaged_files += freed > 0
                continue
            try:
                files += 1
                for index, record in enumerate(file.records):
                    if record:
                        start, end = file.identity.span(index, index + 1)
                        blocks += 1
                        bytes_done += end - start
                        try:
                            file.read(start, memoryview(bytearray(end - start)))
                        except BlockLostError:
                            damaged_blocks += 1
                        progress(VerifyProgress(number - 1, len(found), bytes_done))
            finally:
                file.close()
            progress(VerifyProgress(number, len(found), bytes_done))
        return VerifyReport(files, blocks, damaged_blocks, damaged_files)

    def clear(self) -> int:
        """Evict everything that is not open; returns the bytes that stay."""
        root = self._attachment.root
        with self._attachment.ledger.locked() as totals:
            for candidate in evictor.candidates(root, root.shelves()):
                totals.used_bytes -= evictor.evict_file(root, candidate)
            self._attachment.ledger.recount(totals)
            return totals.used_bytes

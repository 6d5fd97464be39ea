"""One open version of the disk cache, as readers see it."""

import threading
from collections.abc import Callable

from ossfs_py.datapath.diskcache.blockfile import BlockFile
from ossfs_py.datapath.diskcache.layout import Identity
from ossfs_py.datapath.diskcache.store import BlockStore
from ossfs_py.reading.secondhome import BlockLostError


class CachedVersion:
    """Blocks of one version in the disk cache. Implements :class:`BlockBackend`.

    Which blocks are present is asked of a byte map in memory: one byte a block, so that the end of
    a run is found at memchr speed. The map belongs to the trio thread. What another mount adds
    while this object lives is seen by the next one.
    """

    def __init__(
        self, store: BlockStore, identity: Identity, closed: Callable[[], None] | None = None
    ) -> None:
        """Look the version up: one open(2) and one read of 8 bytes a block. ``closed`` is called
        when it is released.
        """
        self._on_closed = closed
        self.granularity_bytes = identity.block_size_bytes
        self._store = store
        self._identity = identity
        self._size = identity.version.size
        self._file: BlockFile | None = store.open(identity)
        self._making = threading.Lock()
        self._closed = False
        if self._file is not None:
            self._present = bytearray(map(bool, self._file.records))
        else:
            self._present = bytearray(identity.block_count)

    def present_until(self, offset: int) -> int:
        """End of the run on disk that holds ``offset``; ``offset`` itself if none."""
        index = offset // self.granularity_bytes
        if offset >= self._size or not self._present[index]:
            return offset
        gap = self._present.find(0, index)
        return self._size if gap < 0 else gap * self.granularity_bytes

    def next_present(self, offset: int) -> int | None:
        """The start of the first run on disk after ``offset``."""
        found = self._present.find(1, offset // self.granularity_bytes + 1)
        return None if found < 0 else found * self.granularity_bytes

    def load_into(self, start: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from disk, verified.

        Raises:
            BlockLostError: some of the bytes are damaged or gone; they are forgotten.
        """
        try:
            if self._file is None:
                raise BlockLostError(f"no block of {self._identity.version.key!r} is in the cache")
            self._file.read(start, buffer)
        except BlockLostError:
            self._store.metrics.cache_lost_reads.inc()
            raise
        self._store.count_hit(len(buffer))

    def keep(self, start: int, view: memoryview) -> bool:
        """Write the whole blocks of fetched bytes to disk; False if they were not kept."""
        first, last = self._identity.whole_blocks(start, start + len(view))
        if first == last:
            return False
        begin, end = self._identity.span(first, last)
        blocks = view[begin - start : end - start]
        if self._file is None:
            with self._making:
                if self._file is None:
                    self._file = self._store.keep(self._identity, None, first, blocks)
                    return self._file is not None
        return self._store.keep(self._identity, self._file, first, blocks) is not None

    def note_kept(self, start: int, end: int) -> None:
        """The whole blocks of the span are on disk now."""
        first, last = self._identity.whole_blocks(start, end)
        self._present[first:last] = b"\1" * (last - first)

    def note_lost(self, start: int, end: int) -> None:
        """No block of the span is to be read from disk."""
        first, last = start // self.granularity_bytes, -(-end // self.granularity_bytes)
        self._present[first:last] = bytes(last - first)

    def note_skipped(self, size: int) -> None:
        """The disk is slower than the network."""
        self._store.skip("slow_disk", size)

    def look_again(self) -> None:
        """Notice blocks of a written file that entered the cache past this object."""
        # While a thread makes the file, a few missed blocks are not worth a wait.
        if self._closed or not self._making.acquire(blocking=False):
            return
        try:
            found = self._store.open(self._identity)
            if found is None:
                return
            if self._file is None:
                self._file = found
            else:
                self._file.learn(found.records)
                found.close()
            self._present = bytearray(map(bool, self._file.records))
        finally:
            self._making.release()

    def close(self) -> None:
        """Let others evict the version."""
        self._closed = True
        file, self._file = self._file, None
        if file is not None:
            self._store.release(file)
        if self._on_closed is not None:
            self._on_closed()

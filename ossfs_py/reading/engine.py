"""What all readers of a mount share: store, threads, memory, and the choice of what to evict."""

from collections import OrderedDict
from dataclasses import dataclass, field

import trio

from ossfs_py.reading.behind import WriteBehind
from ossfs_py.reading.chunks import Chunk, DiskState
from ossfs_py.reading.hedging import LEAST_SECONDS, Hedging
from ossfs_py.reading.reader import VersionReader
from ossfs_py.reading.streams import StreamLimits
from ossfs_py.runtime.buffers import BufferPool
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import ObjectStore
from ossfs_py.telemetry.metrics import USED, WASTED, Labels, Metrics

MIB = 1024**2


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How bytes are fetched; sizes in bytes.

    ``random_fetch_bytes``: what a read that belongs to no stream fetches at least. 64 KiB take
    0.7 ms at 90 MB/s, little beside the 25 ms to the first byte.
    """

    block_size_bytes: int = 8 * MIB
    model_hints: bool = True
    """Use what is known of model files: suffixes, tensor bounds, the tail of zip archives."""
    random_fetch_bytes: int = 64 * 1024
    hedge_seconds: float = LEAST_SECONDS
    """A request is asked a second time when it takes longer, and much longer than others."""
    small_file_bytes: int = MIB
    """Files up to this size are fetched whole at the first touch: 1 MiB takes 12 ms at 90 MB/s,
    and a second request would wait 25 ms for its first byte."""
    streams: StreamLimits = field(default_factory=StreamLimits)


_READ_SHARE = 4
"""One part in this many of the budget keeps blocks that were read already: the kernel's page cache
holds the same bytes, so they matter only to readers that come back after it dropped them."""

_READ_KEPT_BYTES = 96 * MIB
"""How much of that is used until readers miss what was dropped: a kernel that is short of memory
drops pages a few seconds old, and of several readers of one file some lag far behind."""

_HEADROOM_SHARE = 4
"""Prefetch leaves one part in this many of the budget to readers that wait."""

_DISK_SHARE = 4
"""One part in this many of the budget is held for blocks that are being written to disk."""

_MAX_DISK_BYTES = 192 * MIB
"""What a disk may fall behind by before blocks are given up. A fast one never makes use of it; with
half as much, some first reads of 1 GiB gave up a few blocks on a disk of 1 to 3 GB/s."""

_SHARE_SECONDS = 0.2
"""How old the count of active streams may be when the budget is divided among them."""


class TransferEngine:
    """The shared side of reading. Everything here belongs to the trio thread."""

    def __init__(
        self,
        store: ObjectStore,
        network: Workers,
        files: Workers,
        pool: BufferPool,
        options: ReadOptions,
        metrics: Metrics,
    ) -> None:
        self.store = store
        self.network = network
        self.files = files
        self.pool = pool
        self.options = options
        self._answered = metrics.bytes_read.values
        self._read_ahead = metrics.prefetch_bytes.values
        self.hedging = Hedging(options.hedge_seconds)
        self.hedges = metrics.hedges.values
        self.headroom_bytes = pool.limit_bytes // _HEADROOM_SHARE
        self.behind = WriteBehind(
            files, min(pool.limit_bytes // _DISK_SHARE, _MAX_DISK_BYTES), self.unpinned
        )
        self._readers: set[VersionReader] = set()
        self._fresh: OrderedDict[Chunk, None] = OrderedDict()
        self._read: OrderedDict[Chunk, None] = OrderedDict()
        self._read_bytes = 0
        self._most_read_kept = pool.limit_bytes // _READ_SHARE
        self._read_limit = min(self._most_read_kept, _READ_KEPT_BYTES)
        self._window_cap = 0
        self._window_cap_until = 0.0
        pool.reclaim = self._reclaim

    def add_reader(self, reader: VersionReader) -> None:
        """Count a reader among those who share the budget."""
        self._readers.add(reader)

    def remove_reader(self, reader: VersionReader) -> None:
        """The reader has been closed."""
        self._readers.discard(reader)
        if not self._readers:
            self._read_limit = min(self._most_read_kept, _READ_KEPT_BYTES)

    def missed(self) -> None:
        """A reader came back for what was read and dropped: keep more."""
        self._read_limit = min(self._read_limit * 2, self._most_read_kept)

    def window_cap(self) -> int:
        """How far one stream may be read ahead so that all active ones get their share."""
        now = trio.current_time()
        if now >= self._window_cap_until:
            active = sum(reader.streams.active(now) for reader in self._readers)
            share = (self.pool.limit_bytes - self.headroom_bytes) // max(1, active)
            self._window_cap = max(share, MIB)
            self._window_cap_until = now + _SHARE_SECONDS
        return self._window_cap

    def landed(self, chunk: Chunk) -> None:
        """A chunk holds its bytes: it may be evicted from now on."""
        self._fresh[chunk] = None
        if chunk.pins == 0:
            self.pool.reclaimable()

    def unpinned(self, chunk: Chunk) -> None:
        """Nobody holds on to a chunk any more."""
        if chunk.ready:
            self.pool.reclaimable()

    def touched(self, chunk: Chunk, amount: int, source: Labels) -> None:
        """``amount`` bytes of a ready chunk were read; ``source`` says what they cost.

        The kernel asks for each byte once and keeps it, so a chunk that gave all its bytes has
        done its work; one whose last bytes went out of order still waits for the others.
        """
        self._answered[source] += amount
        if chunk.ahead:
            self._read_ahead[USED] += max(0, min(amount, chunk.size - chunk.given))
        chunk.given += amount
        if chunk in self._fresh:
            if chunk.given >= chunk.size:
                del self._fresh[chunk]
                self._read[chunk] = None
                self._read_bytes += chunk.size
                # What is held for the disk cannot be given up anyway.
                excess = self._read_bytes - self.behind.held_bytes - self._read_limit
                if excess > 0:
                    self._evict_read(excess)
            else:
                self._fresh.move_to_end(chunk)

    def forget(self, chunk: Chunk) -> None:
        """The chunk's memory is going back to the pool."""
        if chunk.ahead and chunk.ready and chunk.disk is not DiskState.KEPT:
            self._read_ahead[WASTED] += max(0, chunk.size - chunk.given)
        self.behind.forget(chunk)
        if chunk in self._read:
            del self._read[chunk]
            self._read_bytes -= chunk.size
        else:
            self._fresh.pop(chunk, None)

    def _evict_read(self, needed: int) -> int:
        """Free blocks that were read already, oldest first; returns the bytes freed."""
        return self._evict(self._read, needed)

    def _evict(self, queue: OrderedDict[Chunk, None], needed: int) -> int:
        freed = 0
        for chunk in list(queue):
            if freed >= needed:
                break
            if chunk.pins == 0 and chunk.buffer is not None:
                freed += chunk.buffer.capacity
                chunk.reader.drop(chunk)
        return freed

    def _reclaim(self, needed: int, *, for_prefetch: bool) -> None:
        freed = self._evict_read(needed)
        if freed < needed and not for_prefetch:
            # Blocks that were read ahead are given up only for somebody who waits now.
            self._evict(self._fresh, needed - freed)

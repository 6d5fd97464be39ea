"""The chunks in memory, and which of them are given up for others, under the mount's one budget."""

from collections import OrderedDict

from ossfs_py.reading.chunks import Chunk, DiskState
from ossfs_py.reading.secondhome import WriteBehind
from ossfs_py.reading.streams import MIB, StreamTable
from ossfs_py.runtime.workers import Workers
from ossfs_py.telemetry.metrics import MEMORY, USED, WASTED, Labels, Metrics

_READ_SHARE = 4
"""One part in this many of the budget keeps blocks that were read already: the kernel's page cache
holds the same bytes, so they matter only to readers that come back after it dropped them."""

_READ_KEPT_BYTES = 32 * MIB
"""How much of that is used until readers miss what was dropped: a kernel that is short of memory
drops pages a few seconds old, and of several readers of one file some lag far behind. All of it is
memory that is touched for the first time: a plain read of 992 MiB had 33,200 page faults of the
daemon, and 64,900 and 76,200 with 96 MiB."""

_NEAR_KEPT_BYTES = 16 * MIB
"""The same of blocks that came from other machines' memory or a store nearby, and can soon be had
from there again."""

_SMALL_BYTES = MIB
"""A smaller block, mostly a small file, has memory of its own (see ``runtime.buffers``). Each 4 KiB
of it cost a page fault, unless another such block was just given up."""

_SMALL_KEPT_BYTES = 8 * MIB
"""The same of small blocks. With 96 MiB, each of 1,000 files of 100 KB touched new memory."""

_HEADROOM_SHARE = 4
"""Prefetch leaves one part in this many of the budget to readers that wait."""

_DISK_SHARE = 4
"""One part in this many of the budget is held for blocks that are being written to disk."""

_MAX_DISK_BYTES = 192 * MIB
"""How far a disk may fall behind before blocks are given up. A fast disk never needs it; with
half as much, some first reads of 1 GiB gave up a few blocks on a disk of 1 to 3 GB/s."""

_SHARE_SECONDS = 0.2
"""How old the count of active streams may be when the budget is divided among them."""


class Resident:
    """The chunks of all versions that hold their bytes, in the order in which they are given up.

    The keeper of every chunk and the evictor of the pool whose budget of ``limit_bytes`` they take
    their memory from. Belongs to the trio thread.
    """

    def __init__(self, limit_bytes: int, files: Workers, metrics: Metrics) -> None:
        self.limit_bytes = limit_bytes
        self.headroom_bytes = limit_bytes // _HEADROOM_SHARE
        """Memory that reading ahead leaves to waiting readers."""
        self.behind = WriteBehind(files, min(limit_bytes // _DISK_SHARE, _MAX_DISK_BYTES))
        """Chunks that stay in memory until they are on disk."""
        self._answered = metrics.bytes_read.values
        self._read_ahead = metrics.prefetch_bytes.values
        self._versions = 0
        """How many are read, or were a moment ago."""
        self._streams: set[StreamTable] = set()
        """Of those that may be read ahead."""
        self._fresh: OrderedDict[Chunk, None] = OrderedDict()
        self._read: OrderedDict[Chunk, None] = OrderedDict()
        self._read_bytes = 0
        self._small: OrderedDict[Chunk, None] = OrderedDict()
        """As ``_read``, of small chunks."""
        self._small_bytes = 0
        self._most_read_kept = limit_bytes // _READ_SHARE
        self._read_limit = min(self._most_read_kept, _READ_KEPT_BYTES)
        self._near_limit = min(self._most_read_kept, _NEAR_KEPT_BYTES)
        self._small_limit = min(self._most_read_kept, _SMALL_KEPT_BYTES)
        self._window_cap = 0
        self._window_cap_until = 0.0

    # -- dividing the budget ----------------------------------------------------------------------

    def begin(self) -> None:
        """A version is read from now on. Pair with :meth:`end`."""
        self._versions += 1

    def share_with(self, streams: StreamTable) -> None:
        """Count the streams of a version among those who share the budget."""
        self._streams.add(streams)

    def end(self, streams: StreamTable | None) -> None:
        """A version has been closed, whose streams shared the budget or did not."""
        self._versions -= 1
        if streams is not None:
            self._streams.discard(streams)
        if not self._versions:
            self._read_limit = min(self._most_read_kept, _READ_KEPT_BYTES)
            self._near_limit = min(self._most_read_kept, _NEAR_KEPT_BYTES)
            self._small_limit = min(self._most_read_kept, _SMALL_KEPT_BYTES)

    def window_cap(self, now: float) -> int:
        """How far one stream may be read ahead so that all active ones get their share."""
        if now >= self._window_cap_until:
            active = sum(streams.active(now) for streams in self._streams)
            share = (self.limit_bytes - self.headroom_bytes) // max(1, active)
            self._window_cap = max(share, MIB)
            self._window_cap_until = now + _SHARE_SECONDS
        return self._window_cap

    # -- what becomes of chunks -------------------------------------------------------------------

    def landed(self, chunk: Chunk) -> None:
        """A chunk holds its bytes: it may be evicted from now on."""
        self._fresh[chunk] = None
        if chunk.pins == 0 and chunk.buffer is not None:
            chunk.buffer.reclaimable()

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
            if chunk.given >= chunk.size and chunk.size < _SMALL_BYTES:
                del self._fresh[chunk]
                self._small[chunk] = None
                self._small_bytes += chunk.size
                excess = self._small_bytes - self.behind.held_bytes - self._small_limit
                if excess > 0:
                    self._evict(self._small, excess)
            elif chunk.given >= chunk.size:
                del self._fresh[chunk]
                self._read[chunk] = None
                self._read_bytes += chunk.size
                # Chunks on their way to the disk cannot be given up anyway.
                limit = self._near_limit if chunk.near else self._read_limit
                excess = self._read_bytes - self.behind.held_bytes - limit
                if excess > 0:
                    self._evict(self._read, excess)
            else:
                self._fresh.move_to_end(chunk)

    def gave_more(self, chunk: Chunk, amount: int) -> bool:
        """As :meth:`touched` for bytes that were in memory, after others of the same chunk; False,
        and nothing happens, if those may be its last ones.
        """
        given = chunk.given + amount
        if given >= chunk.size:
            return False
        self._answered[MEMORY] += amount
        if chunk.ahead:
            self._read_ahead[USED] += amount
        chunk.given = given
        return True

    def missed(self) -> None:
        """A reader came back for what was read and dropped: keep more."""
        self._read_limit = min(self._read_limit * 2, self._most_read_kept)
        self._near_limit = min(self._near_limit * 2, self._most_read_kept)
        self._small_limit = min(self._small_limit * 2, self._most_read_kept)

    def left(self, chunk: Chunk, *, had_bytes: bool) -> None:
        """A chunk's memory is going back to the pool."""
        if chunk.ahead and had_bytes and chunk.disk is not DiskState.KEPT:
            self._read_ahead[WASTED] += max(0, chunk.size - chunk.given)
        self.behind.forget(chunk)
        if chunk in self._read:
            del self._read[chunk]
            self._read_bytes -= chunk.size
        elif chunk in self._small:
            del self._small[chunk]
            self._small_bytes -= chunk.size
        else:
            self._fresh.pop(chunk, None)

    # -- giving up --------------------------------------------------------------------------------

    def evict(self, needed_bytes: int, *, for_prefetch: bool) -> None:
        """Free memory for others: what was read already, oldest first, and for somebody who waits
        now also what was read ahead.
        """
        freed = self._evict(self._small, needed_bytes)
        if freed < needed_bytes:
            freed += self._evict(self._read, needed_bytes - freed)
        if freed < needed_bytes and not for_prefetch:
            self._evict(self._fresh, needed_bytes - freed)

    @staticmethod
    def _evict(queue: OrderedDict[Chunk, None], needed_bytes: int) -> int:
        freed = 0
        given_up = []
        for chunk in queue:
            if freed >= needed_bytes:
                break
            if chunk.pins == 0 and chunk.buffer is not None and not chunk.buffer.is_lent:
                freed += chunk.buffer.capacity
                given_up.append(chunk)
        for chunk in given_up:
            chunk.evict()
        return freed

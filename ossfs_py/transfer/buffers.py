"""One byte budget for the whole mount, and the buffers drawn from it.

Everything big lives here: blocks that were read ahead, buffers of requests in flight, parts that
wait for upload. Large buffers are anonymous mappings: they are reused while warm (a fresh 8 MiB
buffer costs 0.12 CPU-s per GiB in page faults) and go back to the system for certain when dropped,
which memory from malloc does not.
"""

import mmap
from collections import defaultdict, deque
from contextlib import suppress
from typing import Protocol

import trio

from ossfs_py.metrics import Metrics

_MAPPED_FROM_BYTES = 1024**2
"""Smaller buffers are plain bytearrays: a mapping costs two system calls and whole pages."""

_IDLE_SECONDS = 10.0
"""Unused buffers are unmapped after this long: memory is back within 30 s of the last close."""


class Reclaim(Protocol):
    """Frees at least ``needed`` bytes if it can; for prefetch, only what nobody may miss."""

    def __call__(self, needed: int, *, for_prefetch: bool) -> None:
        """Release buffers before returning."""
        ...


def _nothing_to_reclaim(needed: int, *, for_prefetch: bool) -> None:
    """The reclaim of a pool whose blocks nobody may evict."""


class Buffer:
    """``size`` bytes of budgeted memory. ``release`` gives them back; the view is dead then."""

    __slots__ = ("_memory", "_pool", "capacity", "view")

    def __init__(
        self, pool: "BufferPool", memory: "mmap.mmap | bytearray", capacity: int, size: int
    ) -> None:
        self._pool = pool
        self._memory: mmap.mmap | bytearray | None = memory
        self.capacity = capacity
        self.view = memoryview(memory)[:size]

    def release(self) -> None:
        """Return the memory to the pool; a second call does nothing."""
        memory, self._memory = self._memory, None
        if memory is not None:
            self.view = memoryview(b"")
            self._pool._give_back(memory, self.capacity)


class BufferPool:
    """Hands out buffers within ``limit_bytes``. Every method belongs to the trio thread.

    ``reclaim`` (set by the owner of evictable blocks) is asked to free at least so many bytes
    and releases what it can before it returns.
    """

    def __init__(self, limit_bytes: int, block_size_bytes: int, metrics: Metrics) -> None:
        self.limit_bytes = limit_bytes
        self.block_size_bytes = block_size_bytes
        self.reclaim: Reclaim = _nothing_to_reclaim
        self.used_bytes = 0
        self._idle: defaultdict[int, deque[tuple[float, mmap.mmap]]] = defaultdict(deque)
        self._idle_bytes = 0
        self._waiting: deque[tuple[int, trio.Event]] = deque()
        self._gauge = metrics.memory_bytes
        metrics.memory_limit_bytes.set(limit_bytes)

    @property
    def resident_bytes(self) -> int:
        """Budget in use plus the idle buffers kept for reuse."""
        return self.used_bytes + self._idle_bytes

    def try_acquire(self, size: int, *, headroom_bytes: int = 0) -> Buffer | None:
        """A buffer, evicting what may be evicted; None if the budget is taken.

        ``headroom_bytes`` of the budget are left to others (prefetch leaves room for readers).
        """
        if self._waiting and headroom_bytes:
            return None
        return self._take(size, headroom_bytes)

    async def acquire(self, size: int) -> Buffer:
        """A buffer of ``size`` bytes; waits, first come first served, while the budget is taken.

        Raises:
            ValueError: ``size`` exceeds the whole budget.
        """
        if size > self.limit_bytes:
            raise ValueError(f"a buffer of {size} bytes exceeds the memory limit")
        if not self._waiting:
            buffer = self._take(size, 0)
            if buffer is not None:
                return buffer
        turn = (size, trio.Event())
        self._waiting.append(turn)
        try:
            while True:
                await turn[1].wait()
                buffer = self._take(size, 0)
                if buffer is not None:
                    return buffer
                turn = (size, trio.Event())
                self._waiting[0] = turn
        finally:
            with suppress(ValueError):
                self._waiting.remove(turn)
            self._wake_next()

    def trim(self, now: float) -> None:
        """Unmap buffers that nobody used for a while."""
        for capacity, idle in self._idle.items():
            while idle and now - idle[0][0] > _IDLE_SECONDS:
                idle.popleft()
                self._idle_bytes -= capacity

    def _take(self, size: int, headroom_bytes: int) -> Buffer | None:
        capacity = self._capacity_for(size)
        room = self.limit_bytes - headroom_bytes
        if self.used_bytes + capacity > room:
            self.reclaim(self.used_bytes + capacity - room, for_prefetch=headroom_bytes > 0)
            if self.used_bytes + capacity > room:
                return None
        self.used_bytes += capacity
        self._gauge.set(self.used_bytes)
        if idle := self._idle.get(capacity):
            self._idle_bytes -= capacity
            return Buffer(self, idle.pop()[1], capacity, size)
        self._make_room()
        if capacity < _MAPPED_FROM_BYTES:
            return Buffer(self, bytearray(capacity), capacity, size)
        # Private: shared memory, mmap's default, has no huge pages and costs a fault a page.
        memory = mmap.mmap(-1, capacity, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # Huge pages take the page faults of a fresh 8 MiB buffer from 2,048 to 4.
        memory.madvise(mmap.MADV_HUGEPAGE)
        return Buffer(self, memory, capacity, size)

    def _make_room(self) -> None:
        """Unmap idle buffers, the longest unused of the largest kind first, to stay in budget."""
        while self._idle_bytes and self.resident_bytes > self.limit_bytes:
            capacity = max(size for size, idle in self._idle.items() if idle)
            self._idle[capacity].popleft()
            self._idle_bytes -= capacity

    def _capacity_for(self, size: int) -> int:
        """A power of two for what is mapped, so that few kinds of buffers serve again and again."""
        if size < _MAPPED_FROM_BYTES:
            return size
        if size <= self.block_size_bytes:
            return min(1 << (size - 1).bit_length(), self.block_size_bytes)
        return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE

    def _give_back(self, memory: "mmap.mmap | bytearray", capacity: int) -> None:
        self.used_bytes -= capacity
        self._gauge.set(self.used_bytes)
        if capacity <= self.block_size_bytes and isinstance(memory, mmap.mmap):
            self._idle[capacity].append((trio.current_time(), memory))
            self._idle_bytes += capacity
        self._wake_next()

    def reclaimable(self) -> None:
        """Something that could not be evicted before can be now: let the first waiter try."""
        self._wake_next()

    def _wake_next(self) -> None:
        if self._waiting:
            self._waiting[0][1].set()

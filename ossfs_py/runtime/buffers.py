"""One byte budget for the whole mount, and the buffers drawn from it.

Everything big lives here: blocks that were read ahead, buffers of requests in flight, parts that
wait for upload. Large buffers come from anonymous mappings (``slabs.py``): they are reused while
warm and go back to the system for certain when dropped, which memory from malloc does not.
"""

import math
import mmap
from collections import deque
from contextlib import suppress
from typing import Protocol

import trio

from ossfs_py.runtime.slabs import Loans, Slabs, Span, mapping
from ossfs_py.telemetry.metrics import Metrics

_MAPPED_FROM_BYTES = 1024**2
"""Smaller buffers are plain bytearrays: a mapping costs two system calls and whole pages."""

_IDLE_SECONDS = 10.0
"""Unused buffers are unmapped after this long: memory is back within 30 s of the last close."""


class Evictor(Protocol):
    """Knows which buffers may be given up for others."""

    def evict(self, needed_bytes: int, *, for_prefetch: bool) -> None:
        """Release at least ``needed_bytes`` of buffers before returning, or as many as there are.

        For prefetch, release only buffers that nobody needs.
        """
        ...


class NothingEvictable:
    """The evictor of a pool whose buffers are all in use until they are released."""

    def evict(self, needed_bytes: int, *, for_prefetch: bool) -> None:
        """Release nothing."""


class Buffer:
    """``size`` bytes of budgeted memory. ``release`` gives them back; the view is dead then."""

    __slots__ = ("_pool", "_span", "capacity", "view")

    def __init__(
        self, pool: "BufferPool", view: memoryview, capacity: int, span: Span | None
    ) -> None:
        self._pool: BufferPool | None = pool
        self._span = span
        self.capacity = capacity
        self.view = view

    def release(self) -> None:
        """Return the memory to the pool; a second call does nothing."""
        pool, self._pool = self._pool, None
        if pool is not None:
            self.view = memoryview(b"")
            pool._give_back(self._span, self.capacity)

    @property
    def is_lent(self) -> bool:
        """Whether an answer is still copied from this memory: to be released later, if possible."""
        if self._span is None:
            return False
        if self._span.slab.memory.lent and self._pool is not None:
            # Loans that are over are only counted when somebody asks.
            self._pool._settle()
        return self._span.slab.memory.lent > 0

    def reclaimable(self) -> None:
        """The pool's evictor could not release this before and can now: the first who waits for
        memory tries again.
        """
        if self._pool is not None:
            self._pool._wake_next()


class BufferPool:
    """Hands out buffers within ``limit_bytes``. Every method belongs to the trio thread.

    What is released while it is lent (:meth:`LentMemory.lend`) goes back when the loan is over.
    When the budget is taken, ``evictor`` is asked for memory. What it may not evict for now (a
    buffer that is being filled, one that somebody reads from) it says with
    :meth:`Buffer.reclaimable` later: whoever waits for memory is not told otherwise.
    """

    def __init__(
        self, limit_bytes: int, block_size_bytes: int, metrics: Metrics, evictor: Evictor
    ) -> None:
        self.limit_bytes = limit_bytes
        self._evictor = evictor
        self.used_bytes = 0
        self._slab_bytes = max(block_size_bytes, _MAPPED_FROM_BYTES)
        self._loans = Loans(self._settle)
        self._slabs = Slabs(self._slab_bytes, self._loans)
        self._held: list[tuple[Span, int]] = []
        """Released while it was lent, and what it counts in the budget."""
        self._waiting: deque[tuple[int, trio.Event]] = deque()
        metrics.memory_bytes.set_function(lambda: self.used_bytes)
        metrics.memory_limit_bytes.set(limit_bytes)

    @property
    def resident_bytes(self) -> int:
        """Budget in use plus the idle buffers kept for reuse."""
        return self.used_bytes + self._slabs.warm_free_bytes

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
        self._await_loans()
        try:
            while True:
                await turn[1].wait()
                buffer = self._take(size, 0)
                if buffer is not None:
                    return buffer
                turn = (size, trio.Event())
                self._waiting[0] = turn
                self._await_loans()
        finally:
            with suppress(ValueError):
                self._waiting.remove(turn)
            self._wake_next()

    def trim(self, now: float) -> None:
        """Unmap buffers that have not been used for a while."""
        self._slabs.unmap_free(now - _IDLE_SECONDS)

    def _take(self, size: int, headroom_bytes: int) -> Buffer | None:
        capacity = self._capacity_for(size)
        room = self.limit_bytes - headroom_bytes
        if self.used_bytes + capacity > room:
            self._settle()
            self._evictor.evict(self.used_bytes + capacity - room, for_prefetch=headroom_bytes > 0)
            if self.used_bytes + capacity > room:
                return None
        self.used_bytes += capacity
        span: Span | None = None
        if capacity < _MAPPED_FROM_BYTES:
            view = memoryview(bytearray(capacity))
        elif capacity <= self._slab_bytes:
            span = self._slabs.take(capacity)
            view = span.view
        else:
            view = memoryview(mapping(capacity))
        self._make_room()
        return Buffer(self, view[:size], capacity, span)

    def _make_room(self) -> None:
        """Give idle memory back, the longest unused first, to stay in budget."""
        excess = self.resident_bytes - self.limit_bytes
        if excess > 0:
            self._slabs.unmap_free(math.inf, at_most=excess)
            if self.resident_bytes > self.limit_bytes:
                self._slabs.cool()

    def _capacity_for(self, size: int) -> int:
        """A power of two for what comes from slabs."""
        if size < _MAPPED_FROM_BYTES:
            return size
        if size <= self._slab_bytes:
            return 1 << (size - 1).bit_length()
        return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE

    def _give_back(self, span: Span | None, capacity: int) -> None:
        if span is not None and span.slab.memory.lent:
            self._held.append((span, capacity))
            self._await_loans()
            return
        self.used_bytes -= capacity
        if span is not None:
            self._slabs.give_back(span, trio.current_time())
        self._wake_next()

    def _await_loans(self) -> None:
        """Hear of what comes back from now on, and see what came back before."""
        self._loans.want()
        self._settle()

    def _settle(self) -> None:
        """Return memory whose loan has ended, and wake the tasks that wait for memory."""
        if not self._loans.settle(is_wanted=bool(self._held or self._waiting)):
            return
        held, self._held = self._held, []
        for span, capacity in held:
            if span.slab.memory.lent:
                self._held.append((span, capacity))
            else:
                self._give_back(span, capacity)
        self._wake_next()

    def _wake_next(self) -> None:
        if self._waiting:
            self._waiting[0][1].set()

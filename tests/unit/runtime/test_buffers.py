"""The memory budget and the buffers drawn from it."""

import trio
import trio.testing

from ossfs_py.runtime.buffers import Buffer, BufferPool, NothingEvictable
from ossfs_py.runtime.slabs import LentMemory
from ossfs_py.telemetry.metrics import Metrics

MIB = 1024**2


def test_a_released_buffer_of_any_size_serves_again() -> None:
    """Fresh memory costs page faults, whatever the size of the piece."""

    async def main() -> None:
        pool = BufferPool(64 * MIB, 8 * MIB, Metrics(), NothingEvictable())
        for size in (MIB, 2 * MIB, 3 * MIB, 8 * MIB):
            first = pool.try_acquire(size)
            assert first is not None
            first.view[0] = 7
            first.release()
            again = pool.try_acquire(size)
            assert again is not None
            assert again.view[0] == 7
            again.release()
        assert pool.used_bytes == 0
        assert pool.resident_bytes == 8 * MIB

    trio.run(main)


def test_idle_buffers_give_way_to_other_sizes_within_the_budget() -> None:
    async def main() -> None:
        pool = BufferPool(16 * MIB, 8 * MIB, Metrics(), NothingEvictable())
        small = [pool.try_acquire(MIB) for _ in range(16)]
        assert all(small)
        for buffer in small:
            assert buffer is not None
            buffer.release()
        large = [pool.try_acquire(8 * MIB) for _ in range(2)]
        assert all(large)
        assert pool.resident_bytes <= 16 * MIB

    trio.run(main)


def test_idle_buffers_go_back_to_the_system() -> None:
    async def main() -> None:
        pool = BufferPool(16 * MIB, 8 * MIB, Metrics(), NothingEvictable())
        for size in (MIB, 8 * MIB):
            buffer = pool.try_acquire(size)
            assert buffer is not None
            buffer.release()
        pool.trim(trio.current_time() + 60)
        assert pool.resident_bytes == 0

    trio.run(main, clock=trio.testing.MockClock())


class Shelf:
    """An evictor of buffers that stand on it, some of them locked."""

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []
        self.locked = False
        self.asked: list[tuple[int, bool]] = []

    def evict(self, needed_bytes: int, *, for_prefetch: bool) -> None:
        self.asked.append((needed_bytes, for_prefetch))
        while self.buffers and not self.locked:
            self.buffers.pop().release()


def test_a_full_pool_asks_its_evictor_for_what_is_missing_and_says_for_whom() -> None:
    async def main() -> None:
        shelf = Shelf()
        pool = BufferPool(4000, MIB, Metrics(), shelf)
        held = pool.try_acquire(3000)
        assert held is not None
        shelf.buffers.append(held)
        shelf.locked = True
        assert pool.try_acquire(500, headroom_bytes=1000) is None
        assert pool.try_acquire(1500) is None
        shelf.locked = False
        assert pool.try_acquire(1500) is not None
        assert shelf.asked == [(500, True), (500, False), (500, False)]

    trio.run(main)


def test_who_waits_for_memory_is_told_when_a_buffer_can_be_evicted() -> None:
    async def main() -> None:
        shelf = Shelf()
        pool = BufferPool(4000, MIB, Metrics(), shelf)
        held = pool.try_acquire(3000)
        assert held is not None
        shelf.buffers.append(held)
        shelf.locked = True
        got: list[Buffer] = []

        async def waits() -> None:
            got.append(await pool.acquire(2000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(waits)
            await trio.testing.wait_all_tasks_blocked()
            assert not got
            shelf.locked = False
            held.reclaimable()
        assert got

    trio.run(main)


def test_memory_that_was_handed_back_is_not_lent_any_more_though_nobody_waits_for_it() -> None:
    """What was read would be kept up to the limit otherwise, as it may not be evicted."""

    async def main() -> None:
        pool = BufferPool(64 * MIB, 8 * MIB, Metrics(), NothingEvictable())
        buffer = pool.try_acquire(4 * MIB)
        assert buffer is not None
        memory = buffer.view.obj
        assert isinstance(memory, LentMemory)
        memory.lend()
        assert buffer.is_lent
        await trio.to_thread.run_sync(memory.hand_back)
        assert not buffer.is_lent

    trio.run(main)

"""The memory budget and the buffers drawn from it."""

import trio
import trio.testing

from ossfs_py.runtime.buffers import BufferPool
from ossfs_py.telemetry.metrics import Metrics

MIB = 1024**2


def test_a_released_buffer_of_any_size_serves_again() -> None:
    """Fresh memory costs page faults, whatever the size of the piece."""

    async def main() -> None:
        pool = BufferPool(64 * MIB, 8 * MIB, Metrics())
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
        pool = BufferPool(16 * MIB, 8 * MIB, Metrics())
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
        pool = BufferPool(16 * MIB, 8 * MIB, Metrics())
        for size in (MIB, 8 * MIB):
            buffer = pool.try_acquire(size)
            assert buffer is not None
            buffer.release()
        pool.trim(trio.current_time() + 60)
        assert pool.resident_bytes == 0

    trio.run(main, clock=trio.testing.MockClock())

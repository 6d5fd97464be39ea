"""What is given up when memory is short, and for whom."""

from ossfs_py.reading.chunks import Chunk, ChunkIndex
from ossfs_py.reading.resident import Resident
from ossfs_py.reading.streams import MIB, Stream, StreamLimits, StreamTable
from ossfs_py.runtime.buffers import BufferPool
from ossfs_py.runtime.slabs import LentMemory
from ossfs_py.runtime.workers import Workers
from ossfs_py.telemetry.metrics import MEMORY, Metrics
from tests.support.trio_tests import in_trio

SIZE = 100_000


class Memory:
    """Room for ``count`` chunks."""

    def __init__(self, count: int) -> None:
        metrics = Metrics()
        self.resident = Resident(count * SIZE, Workers("files", 1), metrics)
        self.pool = BufferPool(count * SIZE, 8 * MIB, metrics, self.resident)
        self.index = ChunkIndex(self.resident)
        self.count = 0

    def chunk(self) -> Chunk:
        """One more that is ready."""
        chunk = self.index.ask(self.count * SIZE, (self.count + 1) * SIZE)
        self.count += 1
        buffer = self.pool.try_acquire(SIZE)
        assert buffer is not None
        chunk.fetching(buffer)
        chunk.landed()
        return chunk

    def read(self, chunk: Chunk) -> Chunk:
        """Read all of a chunk."""
        self.resident.touched(chunk, chunk.size, MEMORY)
        return chunk


@in_trio
async def test_what_was_read_goes_first_the_oldest_of_it_before_the_others() -> None:
    memory = Memory(8)
    ahead = memory.chunk()
    older, younger = memory.read(memory.chunk()), memory.read(memory.chunk())
    memory.resident.evict(1, for_prefetch=False)
    assert (older.ready, younger.ready, ahead.ready) == (False, True, True)
    memory.resident.evict(2 * SIZE, for_prefetch=True)
    assert (younger.ready, ahead.ready) == (False, True)  # prefetch takes nothing read ahead
    memory.resident.evict(1, for_prefetch=False)
    assert not ahead.ready
    assert len(memory.index) == 0
    assert memory.pool.used_bytes == 0


@in_trio
async def test_what_somebody_holds_on_to_is_not_evicted() -> None:
    memory = Memory(4)
    held, other = memory.read(memory.chunk()), memory.chunk()
    held.pin()
    memory.resident.evict(4 * SIZE, for_prefetch=False)
    assert (held.ready, other.ready) == (True, False)


@in_trio
async def test_of_what_was_read_no_more_is_kept_than_its_share_until_readers_miss_it() -> None:
    memory = Memory(16)
    chunks = [memory.read(memory.chunk()) for _ in range(6)]
    assert [chunk.ready for chunk in chunks] == [False, False, True, True, True, True]


def read_and_answered(memory: Memory, count: int, *, near: bool) -> int:
    """Read so many blocks of 8 MiB as the kernel does; how many of them are kept."""
    chunks = []
    for number in range(count):
        chunk = memory.index.ask(number * 8 * MIB, (number + 1) * 8 * MIB)
        buffer = memory.pool.try_acquire(chunk.size)
        assert buffer is not None
        chunk.fetching(buffer)
        chunk.near = near
        chunk.landed()
        lent = chunk.view(chunk.start, chunk.end).obj
        assert isinstance(lent, LentMemory)
        chunk.pin()
        memory.read(chunk)
        lent.lend()
        chunk.unpin()
        lent.hand_back()  # another thread has copied it to the kernel
        chunks.append(chunk)
    return sum(chunk.ready for chunk in chunks)


@in_trio
async def test_what_was_read_and_answered_by_threads_goes_long_before_memory_is_short() -> None:
    """Memory that nobody touched before is the dearest: 32 MiB serve again and again."""
    memory = Memory(1024 * MIB // SIZE)
    assert read_and_answered(memory, 40, near=False) in (4, 5)
    assert memory.pool.resident_bytes <= 48 * MIB
    memory.resident.missed()
    assert read_and_answered(memory, 40, near=False) in (8, 9)


@in_trio
async def test_of_what_other_machines_have_in_memory_less_is_kept_until_readers_miss_it() -> None:
    memory = Memory(1024 * MIB // SIZE)
    assert read_and_answered(memory, 40, near=True) in (2, 3)
    assert memory.pool.resident_bytes <= 32 * MIB
    memory.resident.missed()
    assert read_and_answered(memory, 40, near=True) in (4, 5)


@in_trio
async def test_half_read_chunks_are_given_up_after_untouched_ones() -> None:
    memory = Memory(4)
    begun, untouched = memory.chunk(), memory.chunk()
    memory.resident.touched(begun, 10, MEMORY)
    memory.resident.evict(1, for_prefetch=False)
    assert (begun.ready, untouched.ready) == (True, False)


@in_trio
async def test_active_streams_share_what_the_headroom_leaves() -> None:
    resident = Resident(64 * MIB, Workers("files", 1), Metrics())
    assert resident.window_cap(100.0) == 48 * MIB
    table = StreamTable(StreamLimits())
    resident.begin()
    resident.share_with(table)
    for number in range(3):
        stream = Stream(number * MIB, MIB, 101.0)
        stream.window = MIB
        table.streams.append(stream)
    assert resident.window_cap(100.1) == 48 * MIB  # counted a moment ago
    assert resident.window_cap(101.0) == 16 * MIB
    resident.begin()
    resident.end(table)
    assert resident.window_cap(102.0) == 48 * MIB

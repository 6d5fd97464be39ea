"""A chunk's own rules: what may become of it, and that each change is a whole one."""

from collections.abc import Callable

import pytest

from ossfs_py.reading.chunks import Chunk, ChunkIndex, ChunkState, DiskState, Ending
from ossfs_py.runtime.buffers import Buffer, BufferPool
from ossfs_py.store.http.arrival import Arrival
from ossfs_py.telemetry.metrics import Metrics
from tests.support.trio_tests import in_trio

SIZE = 1000


class Told:
    """A keeper that notes what it is told; the evictor of a pool without anything to evict."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def landed(self, chunk: Chunk) -> None:
        assert chunk.ready
        self.events.append("landed")

    def left(self, chunk: Chunk, *, had_bytes: bool) -> None:
        assert not chunk.ready
        self.events.append("left with bytes" if had_bytes else "left without")

    def evict(self, needed_bytes: int, *, for_prefetch: bool) -> None:
        pass


class Held:
    """One chunk in an index, and the memory it may be given."""

    def __init__(self) -> None:
        self.told = Told()
        self.pool = BufferPool(4 * SIZE, SIZE, Metrics(), self.told)
        self.index = ChunkIndex(self.told)
        self.chunk = self.index.ask(0, SIZE)

    def buffer(self) -> Buffer:
        buffer = self.pool.try_acquire(SIZE)
        assert buffer is not None
        return buffer

    def fetching(self) -> Buffer:
        buffer = self.buffer()
        self.chunk.fetching(buffer)
        return buffer

    def ready(self) -> Chunk:
        self.end(self.fetching())
        return self.chunk

    def end(self, buffer: Buffer) -> None:
        assert self.chunk.answered(buffer, good=True) is not Ending.LET_GO
        self.chunk.landed()

    @property
    def is_gone(self) -> bool:
        """Nothing of it is left anywhere."""
        return self.index.at(0) is None and self.pool.used_bytes == 0


@in_trio
async def test_a_chunk_lands_and_is_evicted_with_all_that_belongs_to_it() -> None:
    held = Held()
    chunk = held.ready()
    assert (chunk.state, chunk.ready) == (ChunkState.READY, True)
    assert held.index.at(SIZE - 1) is chunk
    assert len(chunk.view(10, 20)) == 10
    chunk.evict()
    assert (chunk.state, chunk.ready) == (ChunkState.GONE, False)
    assert held.is_gone
    assert held.told.events == ["landed", "left with bytes"]


@in_trio
async def test_a_failed_chunk_leaves_its_memory_and_its_place() -> None:
    held = Held()
    buffer = held.fetching()
    assert held.chunk.answered(buffer, good=False) is Ending.COUNTS
    held.chunk.fail(OSError("reset"))
    assert held.chunk.state is ChunkState.FAILED
    assert isinstance(held.chunk.error, OSError)
    assert held.is_gone
    assert held.told.events == ["left without"]


ILLEGAL: dict[str, Callable[[Held], object]] = {
    "evicted before it was fetched": lambda held: held.chunk.evict(),
    "evicted while it is fetched": lambda held: (held.fetching(), held.chunk.evict()),
    "evicted twice": lambda held: (held.ready().evict(), held.chunk.evict()),
    "evicted under a reader": lambda held: (held.ready().pin(), held.chunk.evict()),
    "landed without a request": lambda held: held.chunk.landed(),
    "landed twice": lambda held: held.ready().landed(),
    "failed when ready": lambda held: held.ready().fail(OSError()),
    "failed twice": lambda held: (held.chunk.fail(OSError()), held.chunk.fail(OSError())),
    "two first requests": lambda held: (held.fetching(), held.fetching()),
    "a second request without a first": lambda held: held.chunk.asked_twice(held.buffer()),
    "three requests": lambda held: (
        held.fetching(),
        held.chunk.asked_twice(held.buffer()),
        held.chunk.asked_twice(held.buffer()),
    ),
    "from the store after it was ready": lambda held: held.ready().not_on_disk(),
    "queued for the disk before it is ready": lambda held: held.chunk.queue_for_disk(),
    "written without being queued": lambda held: held.ready().write_begins(),
    "queued twice": lambda held: (held.ready().queue_for_disk(), held.chunk.queue_for_disk()),
    "a write that ends without a beginning": lambda held: (
        held.ready().queue_for_disk(),
        held.chunk.write_ended(kept=True),
    ),
    "skipped while it is written": lambda held: (
        held.ready().queue_for_disk(),
        held.chunk.write_begins(),
        held.chunk.write_skipped(),
    ),
}


@pytest.mark.parametrize("act", ILLEGAL.values(), ids=ILLEGAL)
def test_what_cannot_be_is_refused(act: Callable[[Held], object]) -> None:
    @in_trio
    async def refused() -> None:
        with pytest.raises(AssertionError, match="not to become"):
            act(Held())

    refused()


@in_trio
async def test_of_two_requests_the_second_one_wins_when_it_ends_first() -> None:
    held = Held()
    first, second = held.fetching(), held.buffer()
    held.chunk.asked_twice(second)
    assert held.chunk.answered(second, good=True) is Ending.WINS
    held.chunk.landed()
    assert held.chunk.buffer is second
    assert held.pool.used_bytes == 2 * SIZE  # a thread still fills the first one's memory
    assert held.chunk.answered(first, good=True) is Ending.LET_GO
    assert held.pool.used_bytes == SIZE
    held.chunk.evict()
    assert held.is_gone


@in_trio
async def test_of_two_requests_the_first_one_counts_when_it_ends_first() -> None:
    held = Held()
    first, second = held.fetching(), held.buffer()
    held.chunk.asked_twice(second)
    held.end(first)
    held.chunk.evict()
    assert held.pool.used_bytes == SIZE  # the second one is still on its way
    assert held.chunk.answered(second, good=True) is Ending.LET_GO
    assert held.is_gone


@in_trio
async def test_when_one_of_two_fails_the_other_one_goes_on_in_either_order() -> None:
    for failing_first in (True, False):
        held = Held()
        requests = [held.fetching(), held.buffer()]
        held.chunk.asked_twice(requests[1])
        failing, other = requests if failing_first else requests[::-1]
        assert held.chunk.answered(failing, good=False) is Ending.LET_GO
        assert held.chunk.state is ChunkState.FETCHING
        held.end(other)
        assert held.chunk.buffer is other
        held.chunk.evict()
        assert held.is_gone


@in_trio
async def test_a_closed_chunk_keeps_its_memory_until_every_request_has_ended() -> None:
    for good in ((True, True), (True, False), (False, True), (False, False)):
        for in_order in (True, False):
            held = Held()
            requests = [held.fetching(), held.buffer()]
            held.chunk.asked_twice(requests[1])
            held.chunk.abandon(OSError("closed"))
            assert not held.chunk.pending
            ends = list(zip(requests, good, strict=True))
            for buffer, is_good in ends if in_order else ends[::-1]:
                assert held.pool.used_bytes >= SIZE
                assert len(buffer.view) == SIZE  # a thread writes into it
                if held.chunk.answered(buffer, good=is_good) is Ending.COUNTS:
                    if is_good:
                        held.chunk.landed()
                    else:
                        held.chunk.fail(OSError("reset"))
            assert held.is_gone
            assert not held.chunk.ready


@in_trio
async def test_a_chunk_closed_under_a_reader_is_freed_when_the_reader_has_looked() -> None:
    held = Held()
    chunk = held.ready()
    chunk.pin()
    chunk.abandon(OSError("closed"))
    assert chunk.ready
    assert chunk.error is not None
    chunk.unpin()
    assert held.is_gone


@in_trio
async def test_a_chunk_closed_before_it_found_memory_is_gone_at_once() -> None:
    held = Held()
    held.chunk.abandon(OSError("closed"))
    assert held.chunk.state is ChunkState.FAILED
    assert held.is_gone


@in_trio
async def test_a_write_to_disk_pins_the_chunk_and_a_close_waits_for_it() -> None:
    held = Held()
    chunk = held.ready()
    chunk.queue_for_disk()
    assert (chunk.pins, chunk.on_way_to_disk) == (0, True)
    chunk.write_begins()
    chunk.abandon(OSError("closed"))
    assert chunk.ready  # a thread reads from it
    chunk.write_ended(kept=True)
    assert chunk.disk is DiskState.KEPT
    assert held.is_gone


@in_trio
async def test_a_chunk_that_the_disk_refused_may_be_offered_again() -> None:
    held = Held()
    chunk = held.ready()
    chunk.queue_for_disk()
    chunk.write_skipped()
    assert (chunk.disk, chunk.on_way_to_disk) == (DiskState.REFUSED, False)
    chunk.queue_for_disk()
    chunk.write_begins()
    chunk.write_ended(kept=False)
    assert chunk.disk is DiskState.REFUSED
    assert chunk.pins == 0
    chunk.evict()
    assert held.is_gone


@in_trio
async def test_what_had_arrived_of_a_request_that_failed_is_not_there_in_the_other_one() -> None:
    held = Held()
    first, second = held.fetching(), held.buffer()
    chunk = held.chunk
    assert not chunk.has_until(10)
    chunk.arrival = Arrival(lambda: None)
    chunk.arrival.moved(10)
    assert chunk.has_until(10)
    assert not chunk.has_until(11)
    chunk.asked_twice(second)
    assert chunk.has_until(10)
    assert chunk.answered(first, good=False) is Ending.LET_GO
    assert not chunk.has_until(10)
    held.end(second)
    assert chunk.has_until(SIZE)

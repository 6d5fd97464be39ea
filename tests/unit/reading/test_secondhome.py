"""On the way to disk and back: nobody waits for it, and no file is closed under a thread."""

from threading import Event

import outcome
import trio

from ossfs_py.reading.chunks import Chunk, ChunkIndex, DiskState
from ossfs_py.reading.resident import Resident
from ossfs_py.reading.secondhome import DiskHome, WriteBehind
from ossfs_py.runtime.buffers import BufferPool
from ossfs_py.runtime.workers import Workers
from ossfs_py.telemetry.metrics import Metrics
from tests.support.trio_tests import in_trio

SIZE = 1000


class SlowDisk:
    """A backend whose writes and reads wait until they are let go."""

    granularity_bytes = 1

    def __init__(self) -> None:
        self.go_on = Event()
        self.kept: list[int] = []
        self.noted: list[tuple[int, int]] = []
        self.skipped = 0
        self.closed = False
        self.refuses = False
        self.error: Exception | None = None

    def present_until(self, offset: int) -> int:
        return offset

    def next_present(self, offset: int) -> int | None:
        return None

    def load_into(self, start: int, buffer: memoryview) -> None:
        self.go_on.wait(120)
        assert not self.closed
        buffer[:] = b"d" * len(buffer)

    def keep(self, start: int, view: memoryview) -> bool:
        self.go_on.wait(120)
        assert not self.closed
        if self.error is not None:
            raise self.error
        assert bytes(view) == b"x" * SIZE
        self.kept.append(start)
        return not self.refuses

    def note_kept(self, start: int, end: int) -> None:
        self.noted.append((start, end))

    def note_lost(self, start: int, end: int) -> None:
        raise AssertionError("nothing is lost here")

    def note_skipped(self, size: int) -> None:
        self.skipped += size

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class Homes:
    """One version's chunks and their disk; ``held`` of them are written at a time."""

    def __init__(self, held: int = 2) -> None:
        self.files = Workers("files", 4)
        metrics = Metrics()
        self.resident = Resident(4 * held * SIZE, self.files, metrics)
        self.behind: WriteBehind = self.resident.behind
        self.pool = BufferPool(4 * held * SIZE, 1024**2, metrics, self.resident)
        self.index = ChunkIndex(self.resident)
        self.disk = SlowDisk()
        self.home = DiskHome(self.disk, self.files, self.behind)
        self.count = 0

    def chunk(self) -> Chunk:
        """One more that is ready, on its way to disk."""
        chunk = self.index.ask(self.count * SIZE, (self.count + 1) * SIZE)
        self.count += 1
        buffer = self.pool.try_acquire(SIZE)
        assert buffer is not None
        buffer.view[:] = b"x" * SIZE
        chunk.fetching(buffer)
        chunk.landed()
        self.home.keep(chunk)
        return chunk

    async def let_go(self) -> None:
        """Until the disk has done everything."""
        self.disk.go_on.set()
        with trio.fail_after(120):
            while self.files.running or self.files.waiting:  # noqa: ASYNC110 - no event tells
                await trio.sleep(0.001)


@in_trio
async def test_blocks_beyond_the_limit_wait_for_the_disk_and_get_there() -> None:
    homes = Homes(held=2)
    chunks = [homes.chunk() for _ in range(5)]
    assert [chunk.disk for chunk in chunks] == [DiskState.WRITING] * 2 + [DiskState.QUEUED] * 3
    assert homes.behind.held_bytes == 2 * SIZE
    await homes.let_go()
    assert all(chunk.disk is DiskState.KEPT for chunk in chunks)
    assert sorted(homes.disk.noted) == [(n * SIZE, (n + 1) * SIZE) for n in range(5)]
    assert homes.behind.held_bytes == 0
    assert homes.disk.skipped == 0


@in_trio
async def test_a_block_whose_memory_is_needed_before_the_disk_has_time_is_given_up() -> None:
    homes = Homes(held=1)
    held, queued = homes.chunk(), homes.chunk()
    homes.resident.evict(2 * SIZE, for_prefetch=False)
    assert (held.ready, queued.ready) == (True, False)  # a thread reads the first one's memory
    assert homes.disk.skipped == SIZE
    await homes.let_go()
    assert homes.disk.kept == [held.start]


@in_trio
async def test_a_write_that_fails_or_is_refused_leaves_the_block_to_its_readers() -> None:
    for error in (None, OSError("broken")):
        homes = Homes()
        homes.disk.refuses, homes.disk.error = True, error
        chunk = homes.chunk()
        await homes.let_go()
        assert (chunk.disk, chunk.ready, chunk.pins) == (DiskState.REFUSED, True, 0)
        assert homes.disk.noted == []


@in_trio
async def test_the_file_is_closed_when_the_last_write_and_the_last_read_have_ended() -> None:
    homes = Homes(held=1)
    chunk, queued = homes.chunk(), homes.chunk()
    loaded: list[outcome.Outcome[None]] = []
    buffer = homes.pool.try_acquire(SIZE)
    assert buffer is not None
    homes.home.load(chunk, buffer.view, loaded.append, urgent=True)
    for each in homes.index:
        each.abandon(OSError("closed"))
    homes.home.close()
    assert not homes.disk.closed
    assert not queued.ready
    await homes.let_go()
    assert isinstance(loaded[0], outcome.Value)
    assert bytes(buffer.view) == b"d" * SIZE
    buffer.release()
    assert homes.disk.closed
    assert homes.disk.kept == [chunk.start]
    assert homes.disk.noted == []  # nobody is left who would read it
    assert homes.pool.used_bytes == 0


@in_trio
async def test_a_read_that_is_taken_back_does_not_keep_the_file_open() -> None:
    homes = Homes()
    chunk = homes.chunk()
    await homes.let_go()
    homes.disk.go_on.clear()
    for _ in range(homes.files.count):  # no thread is free
        homes.files.submit(lambda: homes.disk.go_on.wait(120), lambda _result: None)
    buffer = homes.pool.try_acquire(SIZE)
    assert buffer is not None
    job = homes.home.load(chunk, buffer.view, lambda _result: None, urgent=False)
    assert job.cancel()
    homes.home.load_cancelled()
    homes.home.close()
    assert homes.disk.closed
    await homes.let_go()

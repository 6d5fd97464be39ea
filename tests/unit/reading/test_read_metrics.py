"""Where answered bytes came from, and what reading ahead was good for, as the metrics tell it."""

import trio

from ossfs_py.model import CommitRequest
from ossfs_py.reading.context import ReadContext
from ossfs_py.reading.planning import ReadOptions
from ossfs_py.reading.reader import VersionReader
from ossfs_py.reading.resident import Resident
from ossfs_py.runtime.buffers import BufferPool
from ossfs_py.runtime.workers import Workers
from ossfs_py.telemetry.metrics import DISK, MEMORY, NETWORK, USED, WASTED, Labels, Metrics
from tests.support.fake_store import FakeStore
from tests.support.trio_tests import in_trio

MIB = 1024**2
STEP_BYTES = 128 * 1024


class Reading:
    """A reader over one object in memory, and the metrics it leaves."""

    def __init__(self, size: int) -> None:
        self.metrics = Metrics()
        self.network = Workers("network", 4)
        self.files = Workers("file", 1)
        store = FakeStore()
        self.version = store.put(CommitRequest("model"), bytes(size))
        resident = Resident(64 * MIB, self.files, self.metrics)
        self.memory = BufferPool(64 * MIB, MIB, self.metrics, resident)
        context = ReadContext(
            store=store,
            network=self.network,
            files=self.files,
            memory=self.memory,
            resident=resident,
            metrics=self.metrics,
            options=ReadOptions(block_size_bytes=MIB),
        )
        self.reader = VersionReader(context, self.version)

    async def read(self, start: int, end: int) -> None:
        if self.reader.read_nowait(start, end) is None:
            await self.reader.read(start, end)

    async def settle(self) -> None:
        """Until nothing is on its way any more."""
        while self.network.running or self.network.waiting:  # noqa: ASYNC110 - no event tells
            await trio.sleep(0.001)

    def answered(self, source: Labels) -> int:
        return self.metrics.bytes_read.values[source]

    def ahead(self, outcome: Labels) -> int:
        return self.metrics.prefetch_bytes.values[outcome]


@in_trio
async def test_bytes_that_were_waited_for_and_bytes_that_were_there() -> None:
    reading = Reading(4 * MIB)
    await reading.read(0, STEP_BYTES)
    assert (reading.answered(NETWORK), reading.answered(MEMORY)) == (STEP_BYTES, 0)
    await reading.read(0, STEP_BYTES)
    assert (reading.answered(NETWORK), reading.answered(MEMORY)) == (STEP_BYTES, STEP_BYTES)
    assert reading.answered(DISK) == 0
    reading.reader.close()


@in_trio
async def test_a_file_read_to_its_end_wastes_nothing() -> None:
    size = 12 * MIB
    reading = Reading(size)
    for start in range(0, size, STEP_BYTES):
        await reading.read(start, start + STEP_BYTES)
    reading.reader.close()
    assert reading.answered(NETWORK) + reading.answered(MEMORY) == size
    assert reading.ahead(USED) > size // 2
    assert reading.ahead(WASTED) == 0


@in_trio
async def test_what_was_read_ahead_and_never_asked_for_is_wasted() -> None:
    reading = Reading(64 * MIB)
    for start in range(0, 4 * STEP_BYTES, STEP_BYTES):
        await reading.read(start, start + STEP_BYTES)
    await reading.settle()
    reading.reader.close()
    assert reading.ahead(WASTED) > MIB
    assert reading.ahead(USED) + reading.ahead(WASTED) < 32 * MIB


@in_trio
async def test_what_arrives_after_the_last_close_is_wasted_too() -> None:
    reading = Reading(64 * MIB)
    for start in range(0, 4 * STEP_BYTES, STEP_BYTES):
        await reading.read(start, start + STEP_BYTES)
    reading.reader.close()
    await reading.settle()
    # Requests that had not begun are taken back and cost nothing.
    assert reading.ahead(WASTED) > 0
    assert reading.memory.used_bytes == 0


@in_trio
async def test_bytes_read_twice_are_used_once() -> None:
    reading = Reading(12 * MIB)
    for _ in range(2):
        for start in range(0, 12 * MIB, STEP_BYTES):
            await reading.read(start, start + STEP_BYTES)
    assert reading.ahead(USED) <= 12 * MIB
    assert reading.answered(NETWORK) + reading.answered(MEMORY) == 24 * MIB
    reading.reader.close()


@in_trio
async def test_a_small_file_that_was_asked_for_counts_as_waited_for() -> None:
    size = 100_000
    reading = Reading(size)
    came = trio.Event()
    assert reading.reader.ask(0, size, came.set)
    assert reading.reader.read_nowait(0, size) is None
    await came.wait()
    assert reading.reader.read_nowait(0, size) == bytes(size)
    assert (reading.answered(NETWORK), reading.answered(MEMORY)) == (size, 0)
    assert reading.reader.read_nowait(0, size) == bytes(size)
    assert (reading.answered(NETWORK), reading.answered(MEMORY)) == (size, size)
    reading.reader.close()
    assert reading.memory.used_bytes == 0

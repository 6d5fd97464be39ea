"""Reads in the middle of a chunk take a short cut, which changes nothing that can be seen."""

import random
from typing import Any

import pytest
import trio

from ossfs_py.model import CommitRequest, ObjectInfo, ObjectVersion
from ossfs_py.reading.context import ReadContext
from ossfs_py.reading.planning import ReadOptions
from ossfs_py.reading.reader import VersionReader
from ossfs_py.reading.resident import Resident
from ossfs_py.runtime.buffers import BufferPool
from ossfs_py.runtime.workers import Workers
from ossfs_py.telemetry.metrics import Metrics
from tests.support.fake_store import FakeStore
from tests.support.trio_tests import in_trio

MIB = 1024**2
SIZE = 48 * MIB + 12_345
CONTENT = random.Random(5).randbytes(SIZE)


class Forgetful(dict[int, Any]):
    """Nobody is remembered, so no read is short."""

    def __setitem__(self, key: int, value: Any) -> None:
        pass

    def __delitem__(self, key: int) -> None:
        pass


class Noting(FakeStore):
    """Notes which bytes it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, int]] = []

    def get_range_into(
        self, version: ObjectVersion, start: int, buffer: memoryview
    ) -> ObjectInfo | None:
        self.asked.append((start, len(buffer)))
        return super().get_range_into(version, start, buffer)


class Reading:
    """One version, and what reading it asks for and leaves."""

    def __init__(self, *, memory_bytes: int, short_cuts: bool) -> None:
        self.metrics = Metrics()
        self.network = Workers("network", 8)
        self.store = Noting()
        version = self.store.put(CommitRequest("file.bin"), CONTENT)
        resident = Resident(memory_bytes, Workers("file", 1), self.metrics)
        self.context = ReadContext(
            store=self.store,
            network=self.network,
            files=Workers("other", 1),
            memory=BufferPool(memory_bytes, 8 * MIB, self.metrics, resident),
            resident=resident,
            metrics=self.metrics,
            options=ReadOptions(),
        )
        self.reader = VersionReader(self.context, version)
        if not short_cuts:
            self.reader._running = Forgetful()
        self.short = 0
        gave = resident.gave

        def counted(*arguments: Any) -> None:
            self.short += 1
            gave(*arguments)

        resident.gave = counted  # type: ignore[method-assign]

    async def read(self, start: int, end: int) -> None:
        view = self.reader.read_nowait(start, end)
        if view is None:
            view = memoryview(await self.reader.read(start, end))
        assert bytes(view) == CONTENT[start:end]
        while self.network.running or self.network.waiting:  # noqa: ASYNC110 - no event tells
            await trio.sleep(0.0005)

    @property
    def seen(self) -> dict[str, Any]:
        """What can be seen from outside, but for times."""
        belief = self.reader._belief
        self.reader._catch_up(0)
        return {
            "requests": sorted(self.store.asked),
            "answered": dict(self.metrics.bytes_read.values),
            "read ahead": dict(self.metrics.prefetch_bytes.values),
            "memory": self.context.memory.used_bytes,
            "streams": [(s.position, s.window, s.ahead) for s in self.reader._streams.streams],
            "believed": (list(belief._read), belief._read_bytes, belief._frontier),
        }


def reads_of(seed: int) -> list[tuple[int, int]]:
    """Some programs in order, by turns, and a few reads anywhere."""
    chance = random.Random(seed)
    programs = [chance.choice([0, 0, SIZE // 3, SIZE // 2]) for _ in range(chance.randint(1, 3))]
    step = chance.choice([128 * 1024, MIB, MIB - 4096])
    reads = []
    while any(position < SIZE for position in programs):
        number = chance.randrange(len(programs))
        start = programs[number]
        if start >= SIZE:
            continue
        programs[number] = end = min(start + step, SIZE)
        reads.append((start, end))
        if chance.random() < 0.02:
            anywhere = chance.randrange(SIZE - 4096)
            reads.append((anywhere, anywhere + 4096))
    return reads


@pytest.mark.parametrize("seed", range(6))
@in_trio
async def test_the_short_cut_asks_for_the_same_and_leaves_the_same(seed: int) -> None:
    # With enough memory: how little is shared out depends on the clock.
    with_it = Reading(memory_bytes=1024 * MIB, short_cuts=True)
    without = Reading(memory_bytes=1024 * MIB, short_cuts=False)
    for start, end in reads_of(seed):
        await with_it.read(start, end)
        await without.read(start, end)
    assert not without.short
    assert with_it.seen == without.seen
    for reading in (with_it, without):
        reading.reader.close()
        assert reading.context.memory.used_bytes == 0


@pytest.mark.parametrize("seed", range(3))
@in_trio
async def test_chunks_that_make_room_for_others_are_not_read(seed: int) -> None:
    reading = Reading(memory_bytes=32 * MIB, short_cuts=True)
    for start, end in reads_of(seed):
        await reading.read(start, end)
    reading.reader.close()
    assert reading.context.memory.used_bytes == 0


@in_trio
async def test_most_reads_in_order_take_it() -> None:
    reading = Reading(memory_bytes=256 * MIB, short_cuts=True)
    step = 128 * 1024
    for start in range(0, 40 * MIB, step):
        await reading.read(start, start + step)
    assert reading.short > 40 * MIB // step // 2


@in_trio
async def test_a_chunk_that_is_given_up_meanwhile_is_not_read() -> None:
    reading = Reading(memory_bytes=256 * MIB, short_cuts=True)
    step = 128 * 1024
    position = 0
    while not reading.short or position < 20 * MIB:
        await reading.read(position, position + step)
        position += step
    chunk = reading.reader._index.at(position)
    assert chunk is not None
    chunk.evict()
    await reading.read(position, position + step)


@in_trio
async def test_whoever_closes_the_version_is_followed_by_no_read() -> None:
    reading = Reading(memory_bytes=256 * MIB, short_cuts=True)
    step = 128 * 1024
    position = 0
    while not reading.short:
        await reading.read(position, position + step)
        position += step
    reading.reader.close()
    assert reading.reader.read_nowait(position, position + step) is None

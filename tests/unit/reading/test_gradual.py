"""Readers that are answered while the rest of their request is still on its way."""

from collections.abc import Callable
from threading import Event

import pytest
import trio
import trio.testing

from ossfs_py.errors import StoreUnavailableError, VersionChangedError
from ossfs_py.model import ObjectVersion
from ossfs_py.reading.context import ReadContext
from ossfs_py.reading.leave import Grants, Leave
from ossfs_py.reading.reader import VersionReader
from ossfs_py.reading.streams import MIB
from ossfs_py.store.http.arrival import Arrival
from tests.support.pattern_store import PatternStore, pattern, reading_over
from tests.support.trio_tests import in_trio

BLOCK = 8 * MIB
VERSION = ObjectVersion("k", "e", 64 * MIB)


class HalfStore(PatternStore):
    """Requests for more than 1 MiB bring ``half`` bytes, and the others when they are let go."""

    def __init__(self, half: int = 2 * MIB) -> None:
        super().__init__()
        self.half = half
        self.go_on = Event()
        self.ending: Callable[[], Exception | None] = lambda: None
        self.held = 0

    def get_range_gradually(
        self, version: ObjectVersion, start: int, buffer: memoryview, arrival: Arrival
    ) -> None:
        with self.lock:
            self.spans.append((start, start + len(buffer)))
            self.held += 1
        half = min(self.half, len(buffer))
        buffer[half:] = b"?" * (len(buffer) - half)
        buffer[:half] = pattern(start, half)
        arrival.moved(half)
        assert self.go_on.wait(120)
        with self.lock:
            self.held -= 1
        error = self.ending()
        if error is not None:
            raise error
        buffer[half:] = pattern(start + half, len(buffer) - half)
        arrival.moved(len(buffer) - half)


def over(store: PatternStore, limit: int = 256 * MIB) -> ReadContext:
    return reading_over(store, limit, BLOCK, hedge_seconds=100.0)


async def drained(shared: ReadContext) -> None:
    while shared.network.running:
        await trio.lowlevel.checkpoint()


def large_request(reader: VersionReader) -> None:
    """One request for the rest of the first block, as it is made ahead of a reader."""
    span = reader._look().planner.request(0, BLOCK, urgent=False)
    assert reader._fetcher.fetch(span) is not None


@in_trio
async def test_a_reader_gets_its_bytes_before_those_behind_them() -> None:
    store = HalfStore()
    shared = over(store)
    reader = VersionReader(shared, VERSION)
    large_request(reader)
    assert bytes(await reader.read(MIB, 2 * MIB)) == pattern(MIB, MIB)
    view = reader.read_nowait(4096, 8192)
    assert view is not None
    assert bytes(view) == pattern(4096, 4096)
    assert store.held  # the rest of the block
    assert reader.read_nowait(2 * MIB, 2 * MIB + 1) is None
    store.go_on.set()
    assert bytes(await reader.read(2 * MIB, 3 * MIB)) == pattern(2 * MIB, MIB)
    await drained(shared)
    reader.close()
    assert shared.memory.used_bytes == 0


@in_trio
async def test_every_reader_is_answered_when_its_own_bytes_are_there() -> None:
    store = HalfStore()
    shared = over(store)
    reader = VersionReader(shared, VERSION)
    large_request(reader)
    done: list[int] = []

    async def read(start: int) -> None:
        assert bytes(await reader.read(start, start + MIB)) == pattern(start, MIB)
        done.append(start)

    async with trio.open_nursery() as nursery:
        for start in (3 * MIB, 0, MIB, MIB + 4096):
            nursery.start_soon(read, start)
        while len(done) < 2:
            await trio.lowlevel.checkpoint()
        assert sorted(done) == [0, MIB]
        store.go_on.set()
    assert len(done) == 4
    reader.close()


@in_trio
async def test_the_last_bytes_of_a_request_come_with_its_end() -> None:
    """Only then it is known what the store told of the object."""
    store = HalfStore(half=BLOCK)
    shared = over(store)
    reader = VersionReader(shared, ObjectVersion("k", "e", BLOCK))
    large_request(reader)
    assert bytes(await reader.read(6 * MIB, 7 * MIB)) == pattern(6 * MIB, MIB)
    with trio.move_on_after(0.05) as waiting:
        await reader.read(7 * MIB, BLOCK)
    assert waiting.cancelled_caught
    store.go_on.set()
    assert bytes(await reader.read(7 * MIB, BLOCK)) == pattern(7 * MIB, MIB)
    reader.close()


@pytest.mark.parametrize("error", [StoreUnavailableError("down"), VersionChangedError("changed")])
@in_trio
async def test_a_request_that_fails_later_fails_only_who_still_waits(error: Exception) -> None:
    store = HalfStore()
    store.ending = lambda: error
    shared = over(store)
    reader = VersionReader(shared, VERSION)
    large_request(reader)
    view = await reader.read(0, MIB)
    copied = bytes(view)

    async def fail() -> None:
        with pytest.raises(type(error)):
            await reader.read(4 * MIB, 5 * MIB)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        await trio.testing.wait_all_tasks_blocked(0.01)
        store.go_on.set()
    assert copied == pattern(0, MIB)
    await drained(shared)
    reader.close()
    assert shared.memory.used_bytes == 0


@in_trio
async def test_memory_in_which_bytes_still_arrive_is_given_to_nobody_else() -> None:
    store = HalfStore()
    shared = over(store, 4 * BLOCK)
    reader = VersionReader(shared, VERSION)
    large_request(reader)
    await reader.read(0, MIB)
    assert shared.memory.try_acquire(4 * BLOCK) is None
    reader.close()
    assert shared.memory.used_bytes == BLOCK  # until its thread has ended
    store.go_on.set()
    await drained(shared)
    assert shared.memory.used_bytes == 0


@in_trio
async def test_a_closed_reader_answers_nothing_of_what_had_arrived() -> None:
    store = HalfStore()
    shared = over(store)
    reader = VersionReader(shared, VERSION)
    large_request(reader)
    await reader.read(0, MIB)
    reader.close()
    assert reader.read_nowait(0, MIB) is None
    store.go_on.set()
    await drained(shared)


@in_trio
async def test_nothing_is_answered_early_as_long_as_leave_to_read_is_not_granted() -> None:
    store = HalfStore()
    shared = over(store)
    leave = Leave(VERSION, Grants(), store.get_range_into, shared.network)
    reader = VersionReader(shared, VERSION, leave=leave)
    large_request(reader)
    with trio.move_on_after(0.05) as waiting:
        await reader.read(0, MIB)
    assert waiting.cancelled_caught
    assert reader.read_nowait(0, MIB) is None
    store.go_on.set()
    assert bytes(await reader.read(0, MIB)) == pattern(0, MIB)
    reader.close()

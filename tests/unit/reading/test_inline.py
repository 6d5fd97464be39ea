"""Short requests that take no thread: which ones, how many at once, and what happens otherwise."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import outcome
import pytest
import trio
import trio.testing

from ossfs_py.errors import VersionChangedError
from ossfs_py.model import ObjectInfo, ObjectVersion
from ossfs_py.reading.fetching import INLINE_BYTES
from ossfs_py.reading.inline import receive
from ossfs_py.reading.reader import VersionReader
from ossfs_py.reading.streams import MIB
from ossfs_py.runtime.workers import Workers
from tests.support.pattern_store import PatternStore, pattern, reading_over
from tests.support.trio_tests import in_trio

INFO = ObjectInfo("k", 1000, "e", 0)


@dataclass
class _Asked:
    version: ObjectVersion
    start: int
    buffer: memoryview
    ended: Callable[[outcome.Outcome[Any]], None]
    gave_up: Callable[[], None]

    def answer(self) -> None:
        self.buffer[:] = pattern(self.start, len(self.buffer))
        self.ended(outcome.Value((lambda: INFO) if self.start == 0 else None))


@dataclass
class HeldReads:
    """Requests that are answered when the test says so."""

    asked: list[_Asked] = field(default_factory=list)
    refuses: bool = False
    looks: int = 0

    def __post_init__(self) -> None:
        self._arrived, self._sent = os.pipe()

    def fileno(self) -> int:
        return self._arrived

    def begin(self, *asked: Any) -> bool:
        if not self.refuses:
            self.asked.append(_Asked(*asked))
        return not self.refuses

    def arrive(self) -> None:
        os.write(self._sent, b"x")

    def receive(self) -> None:
        os.read(self._arrived, 1)
        self.asked.pop().answer()

    def look(self) -> None:
        self.looks += 1

    def close(self) -> None:
        os.close(self._arrived)
        os.close(self._sent)


@in_trio
async def test_a_small_file_is_read_without_a_thread() -> None:
    store, reads = PatternStore(), HeldReads()
    shared = replace(reading_over(store), inline=reads)
    reader = VersionReader(shared, ObjectVersion("k", "e", 100_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive, reads)
        reads.arrive()
        assert bytes(await reader.read(0, 100_000)) == pattern(0, 100_000)
        nursery.cancel_scope.cancel()
    assert not store.spans
    assert await reader.told() == INFO
    assert shared.network.running == 0
    reader.close()
    assert shared.memory.used_bytes == 0
    reads.close()


@in_trio
async def test_a_long_request_takes_a_thread() -> None:
    store, reads = PatternStore(), HeldReads()
    shared = replace(reading_over(store), inline=reads)
    reader = VersionReader(shared, ObjectVersion("k", "e", INLINE_BYTES + 1))
    assert len(await reader.read(0, 10)) == 10
    assert store.spans == [(0, INLINE_BYTES + 1)]
    assert not reads.asked
    reads.close()


@pytest.mark.parametrize("late", [False, True])
def test_what_cannot_be_done_without_a_thread_is_done_in_one(late: bool) -> None:
    async def main() -> None:
        store, reads = PatternStore(), HeldReads(refuses=not late)
        shared = replace(reading_over(store), inline=reads)
        reader = VersionReader(shared, ObjectVersion("k", "e", 100_000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.read, 0, 100_000)
            await trio.testing.wait_all_tasks_blocked()
            if late:
                reads.asked.pop().gave_up()
        assert bytes(await reader.read(0, 100_000)) == pattern(0, 100_000)
        assert store.spans == [(0, 100_000)]
        assert shared.network.running == 0
        reads.close()

    trio.run(main)


@in_trio
async def test_a_version_that_is_gone_is_an_error_at_once() -> None:
    store, reads = PatternStore(), HeldReads()
    reader = VersionReader(
        replace(reading_over(store), inline=reads), ObjectVersion("k", "e", 100_000)
    )

    async def answer() -> None:
        reads.asked.pop().ended(outcome.Error(VersionChangedError("changed", key="k")))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        with pytest.raises(VersionChangedError):
            await reader.read(0, 100_000)
    assert not store.spans
    reads.close()


@in_trio
async def test_memory_of_a_closed_file_stays_taken_until_its_request_has_ended() -> None:
    reads = HeldReads()
    shared = replace(reading_over(PatternStore()), inline=reads)
    reader = VersionReader(shared, ObjectVersion("k", "e", 100_000))
    with trio.move_on_after(0.01):
        await reader.read(0, 100_000)
    reader.close()
    assert shared.memory.used_bytes == 100_000
    reads.asked.pop().answer()
    assert shared.memory.used_bytes == 0
    reads.close()


@in_trio
async def test_requests_without_threads_count_among_those_at_once() -> None:
    workers, reads = Workers("network", 2), HeldReads()
    ended: list[int] = []
    memory = memoryview(bytearray(1))

    def submit(number: int) -> None:
        begin = partial(reads.begin, ObjectVersion("k", "e", 1), number, memory)
        workers.submit(lambda: None, lambda _: ended.append(number), inline=begin)

    for number in range(4):
        submit(number)
    assert (workers.running, workers.waiting, len(reads.asked)) == (2, 2, 2)
    reads.asked[0].answer()
    assert (workers.running, workers.waiting, len(reads.asked)) == (2, 1, 3)
    assert ended == [0]
    workers.close()
    reads.asked[1].gave_up()  # no thread begins any more
    assert ended == [0]
    reads.close()


@in_trio
async def test_what_stalls_is_looked_for() -> None:
    reads = HeldReads()
    with trio.move_on_after(1.5):
        await receive(reads)
    assert reads.looks == 1
    with trio.move_on_after(0.01):
        await receive(None)
    reads.close()


@in_trio
async def test_of_small_files_the_last_few_are_kept() -> None:
    store = PatternStore()
    shared = reading_over(store, limit=256 * MIB)
    readers = [
        VersionReader(shared, ObjectVersion(f"{number}", "e", 100_000)) for number in range(200)
    ]
    for reader in readers:
        await reader.read(0, 100_000)
    assert 7 * MIB < shared.memory.used_bytes <= 8 * MIB + 100_000
    for reader in readers:
        reader.close()
    assert shared.memory.used_bytes == 0

"""Readers over blocks that machines share: what is asked, handed on, forgone and pinned."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Lock

import trio
import trio.testing

from ossfs_py.errors import StoreUnavailableError
from ossfs_py.extents import ExtentSet
from ossfs_py.model import ObjectVersion
from ossfs_py.reading.context import ReadContext
from ossfs_py.reading.leave import Grants, Leave
from ossfs_py.reading.reader import VersionReader
from ossfs_py.reading.shared import HandingOn, LocalBytes, Owed, SharedAnswer
from ossfs_py.reading.streams import MIB
from ossfs_py.runtime.workers import Workers
from tests.support.pattern_store import PatternStore, pattern, reading_over

SIZE = 12 * MIB + 777
VERSION = ObjectVersion("k", "e", SIZE)


class Blocks:
    """Shared blocks in this process; what is missing comes from ``store`` and is owed."""

    block_bytes = MIB

    def __init__(self, store: PatternStore, *, owes: bool = True) -> None:
        self.store = store
        self.owes = owes
        self.kept: dict[int, bytes] = {}
        self.forgone: list[Owed] = []
        self.asked: list[tuple[int, int]] = []
        self.lock = Lock()

    def get_range_into(
        self, version: ObjectVersion, start: int, buffer: memoryview
    ) -> SharedAnswer:
        end = start + len(buffer)
        with self.lock:
            self.asked.append((start, end))
            indices = range(start // MIB, -(-end // MIB))
            if all(index in self.kept for index in indices):
                buffer[:] = b"".join(self.kept[index] for index in indices)
                return SharedAnswer(was_there=True)
        self.store.get_range_into(version, start, buffer)
        owed = (Owed(indices.start, indices.stop, start, end),) if self.owes else ()
        return SharedAnswer(None, from_store=True, owed=owed)

    def hand_on(self, version: ObjectVersion, owed: Owed, view: memoryview) -> None:
        for index in range(owed.first, owed.last):
            start = index * MIB - owed.start
            with self.lock:
                self.kept[index] = bytes(view[start : start + MIB])

    def forgo(self, version: ObjectVersion, owed: Owed) -> None:
        with self.lock:
            self.forgone.append(owed)


def sharing(store: PatternStore, blocks: Blocks, limit: int = 64 * MIB) -> ReadContext:
    context = reading_over(store)
    handing = HandingOn(blocks, Workers("sharing", 2), limit)
    options = replace(context.options, grain_bytes=MIB)
    return replace(context, shared=handing, options=options)


async def until(condition: Callable[[], bool]) -> None:
    """What a thread does has no event of its own."""
    for _ in range(20_000):
        if condition():
            return
        await trio.sleep(0.001)
    raise AssertionError("it never came")


async def read_all(reader: VersionReader) -> None:
    for start in range(0, SIZE, 128 * 1024):
        end = min(SIZE, start + 128 * 1024)
        data = reader.read_nowait(start, end)
        if data is None:
            data = await reader.read(start, end)
        assert bytes(data) == pattern(start, end - start)


def test_what_was_fetched_is_handed_on_behind_the_reader_and_serves_the_next() -> None:
    async def main() -> None:
        store = PatternStore()
        blocks = Blocks(store)
        for _ in range(2):
            context = sharing(store, blocks)
            reader = VersionReader(context, VERSION)
            await read_all(reader)
            assert context.shared is not None
            await context.shared.settled()
            reader.close()
            assert context.memory.used_bytes == 0
        assert store.served == SIZE
        assert b"".join(blocks.kept[index] for index in sorted(blocks.kept)) == pattern(0, SIZE)

    trio.run(main)


def test_requests_begin_and_end_on_whole_blocks() -> None:
    async def main() -> None:
        store = PatternStore()
        blocks = Blocks(store)
        reader = VersionReader(sharing(store, blocks), VERSION)
        for start in (5 * MIB + 4096, 100, SIZE - 10):
            assert bytes(await reader.read(start, start + 10)) == pattern(start, 10)
        await read_all(reader)
        assert all(a % MIB == 0 and (b % MIB == 0 or b == SIZE) for a, b in blocks.asked)
        reader.close()

    trio.run(main)


def test_what_exceeds_the_limit_is_forgone_once_its_memory_is_needed() -> None:
    async def main() -> None:
        store = PatternStore()
        blocks = Blocks(store)
        context = sharing(store, blocks, limit=1)
        shared = context.shared
        assert shared is not None
        shared.held_bytes = 1  # something is on its way
        reader = VersionReader(context, VERSION)
        await reader.read(0, 4096)
        assert context.memory.used_bytes == MIB
        reader.close()  # nothing but the limit kept it from being handed on
        assert context.memory.used_bytes == 0
        shared.held_bytes = 0
        shared._send_next()
        await until(lambda: bool(blocks.forgone))
        assert blocks.kept == {}
        assert context.memory.used_bytes == 0

    trio.run(main)


def test_what_exceeds_the_limit_is_handed_on_later() -> None:
    async def main() -> None:
        store = PatternStore()
        blocks = Blocks(store)
        context = sharing(store, blocks, limit=1)  # one after the other
        assert context.shared is not None
        reader = VersionReader(context, VERSION)
        await read_all(reader)
        await context.shared.settled()
        assert sorted(blocks.kept) == list(range(13))
        assert blocks.forgone == []
        reader.close()
        assert context.memory.used_bytes == 0

    trio.run(main)


def test_a_file_closed_under_its_requests_lets_others_fetch_what_it_owes() -> None:
    async def main() -> None:
        store = PatternStore()
        blocks = Blocks(store)
        context = sharing(store, blocks)
        reader = VersionReader(context, VERSION)
        store.lock.acquire()  # the request waits
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_refused, reader)
            await until(lambda: bool(blocks.asked))
            reader.close()
            store.lock.release()
        await until(lambda: bool(blocks.forgone))
        assert blocks.kept == {}
        assert context.memory.used_bytes == 0

    async def _refused(reader: VersionReader) -> None:
        try:
            await reader.read(0, 4096)
        except Exception as exc:  # noqa: BLE001 - any refusal will do
            assert "closed" in str(exc)

    trio.run(main)


def test_bytes_of_other_machines_are_no_leave_to_read_a_shared_disk() -> None:
    """Only the store says who may read; see ``leave``."""

    async def main() -> None:
        store = PatternStore()
        blocks = Blocks(store)
        blocks.kept = {index: pattern(index * MIB, MIB) for index in range(12)}
        blocks.kept[12] = pattern(12 * MIB, 777)
        context = sharing(store, blocks)
        store.fail = lambda _start: StoreUnavailableError("no")
        grants = Grants()
        leave = Leave(VERSION, grants, store.get_range_into, context.network)
        reader = VersionReader(context, VERSION, leave=leave)
        try:
            await reader.read(0, 4096)
        except StoreUnavailableError:
            pass
        else:
            raise AssertionError("the store was not asked")
        assert not grants.holds(VERSION)
        store.fail = lambda _start: None
        assert bytes(await reader.read(0, 4096)) == pattern(0, 4096)
        assert grants.holds(VERSION)
        assert store.spans[-1] == (0, 1)
        reader.close()

    trio.run(main)


def test_what_was_written_is_handed_on_in_whole_blocks_until_it_changes(tmp_path: Path) -> None:
    async def main() -> None:
        blocks = Blocks(PatternStore())
        shared = HandingOn(blocks, Workers("sharing", 1), MIB)
        path = tmp_path / "written"
        path.write_bytes(pattern(0, SIZE))
        given_back = []
        changes = iter([True] * 9 + [False])  # whether it is unchanged, block after block
        spans = ExtentSet()
        spans.add(0, 3 * MIB + 5)
        spans.add(4 * MIB, SIZE)
        with path.open("rb") as file:
            local = LocalBytes(file.fileno(), spans, lambda: next(changes))
            shared.take_in(VERSION, local, lambda: given_back.append(True))
            await shared.settled()
        assert given_back == [True]
        assert sorted(blocks.kept) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
        assert all(data == pattern(index * MIB, MIB) for index, data in blocks.kept.items())
        shared.take_in(ObjectVersion("k", "", SIZE), local, lambda: given_back.append(False))
        assert given_back == [True, False]

    trio.run(main)

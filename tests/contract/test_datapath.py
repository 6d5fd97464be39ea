"""What every data path promises about the bytes of an open file."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from ossfs_py.datapath.base import OpenFile
from ossfs_py.errors import (
    ConditionFailedError,
    FileTooLargeError,
    StoreUnavailableError,
    UnsavedDataError,
    VersionChangedError,
)
from ossfs_py.model import CommitRequest, Condition
from ossfs_py.writing.parts import PartLimits
from ossfs_py.writing.recovery import Recovery
from tests.support.data_paths import BLOCK_BYTES, MEMORY_BYTES, Bench, on_bench
from tests.support.fake_store import FakeStore
from tests.support.mounting import DATA_PATHS
from tests.support.writing import TINY, TINY_PARTS

KIB = 1024
DATA = random.Random(11).randbytes(10 * BLOCK_BYTES + 777)
REQUEST = CommitRequest("file", {"mode": "33188"})
DOWN = StoreUnavailableError("down")

Test = Callable[[Bench], Awaitable[None]]
Run = Callable[..., FakeStore]


@pytest.fixture(params=DATA_PATHS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Runs a test with each data path."""

    def run_one(test: Test, **options: object) -> FakeStore:
        return on_bench(request.param, tmp_path, test, **options)

    return run_one


async def read(file: OpenFile, offset: int, size: int) -> bytes:
    """As the file system reads: from memory if that can be."""
    data = file.read_nowait(offset, size)
    if data is None:
        data = await file.read(offset, size)
    return bytes(data)


async def read_all(file: OpenFile, step: int = 16 * KIB) -> bytes:
    pieces = []
    offset = 0
    while piece := await read(file, offset, step):
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces)


# -- reading -------------------------------------------------------------------------------


def test_any_range_is_read_and_clipped_at_the_end_of_file(run: Run) -> None:
    async def test(bench: Bench) -> None:
        file = bench.open(bench.store.seed("file", DATA))
        assert file.size == len(DATA)
        dice = random.Random(5)
        ranges = [(0, 1), (len(DATA) - 1, 1), (len(DATA) - 10, 100), (0, len(DATA) + 1)]
        ranges += [(dice.randrange(len(DATA)), dice.randrange(1, 200_000)) for _ in range(60)]
        for offset, size in ranges:
            assert await read(file, offset, size) == DATA[offset : offset + size]
        for offset in (len(DATA), len(DATA) + 1, 10**12):
            assert await read(file, offset, 4096) == b""
        await file.close()

    run(test)


def test_an_empty_object_reads_as_nothing_and_costs_no_request(run: Run) -> None:
    async def test(bench: Bench) -> None:
        file = bench.open(bench.store.seed("file"))
        assert await read(file, 0, 4096) == b""
        assert not file.dirty
        await file.close()

    assert not run(test).requests


def test_opening_and_closing_asks_the_store_nothing(run: Run) -> None:
    async def test(bench: Bench) -> None:
        await bench.open(bench.store.seed("file", DATA)).close()

    assert not run(test).requests


@pytest.mark.parametrize("step", [4 * KIB, 128 * KIB])
def test_a_sequential_reader_costs_each_byte_once(run: Run, step: int) -> None:
    async def test(bench: Bench) -> None:
        file = bench.open(bench.store.seed("file", DATA))
        assert await read_all(file, step) == DATA
        await file.close()

    assert run(test).bytes_read == len(DATA)


def test_many_readers_at_once_cost_each_byte_once(run: Run) -> None:
    async def test(bench: Bench) -> None:
        file = bench.open(bench.store.seed("file", DATA))

        async def reader() -> None:
            assert await read_all(file) == DATA

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(reader)
        await file.close()

    assert run(test).bytes_read == len(DATA)


def test_positions_interleaved_in_one_file_cost_each_byte_once(run: Run) -> None:
    async def test(bench: Bench) -> None:
        data = DATA * 2
        file = bench.open(bench.store.seed("file", data))
        lane = len(data) // 4
        for offset in range(0, lane, 16 * KIB):
            size = min(16 * KIB, lane - offset)
            for start in range(0, 4 * lane, lane):
                place = start + offset
                assert await read(file, place, size) == data[place : place + size]
        await file.close()

    # What is read ahead of one position may belong to the next, and have been dropped by then.
    assert run(test).bytes_read <= 2 * len(DATA) + 4 * BLOCK_BYTES


def test_readers_of_a_block_on_its_way_wait_for_it(run: Run) -> None:
    async def test(bench: Bench) -> None:
        file = bench.open(bench.store.seed("file", DATA))
        gate = bench.store.hold("get_range_into")
        answers = []

        async def reader() -> None:
            answers.append(await read(file, 1000, 100))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(reader)
            await trio.testing.wait_all_tasks_blocked()
            assert bench.store.requests["get_range_into"] <= 2  # the block, and what lies ahead
            gate.set()
        assert answers == [DATA[1000:1100]] * 20
        await file.close()

    assert run(test).bytes_read <= len(DATA)


def test_two_files_of_one_version_share_one_download(run: Run) -> None:
    async def test(bench: Bench) -> None:
        version = bench.store.seed("file", DATA)
        first, second = bench.open(version), bench.open(version)
        assert await read_all(first) == DATA
        assert await read_all(second) == DATA
        await first.close()
        await second.close()

    assert run(test).bytes_read == len(DATA)


def test_a_file_opened_again_at_once_finds_what_was_read(run: Run) -> None:
    async def test(bench: Bench) -> None:
        version = bench.store.seed("file", DATA)
        for _ in range(3):
            file = bench.open(version)
            assert await read_all(file) == DATA
            await file.close()

    assert run(test).bytes_read == len(DATA)


def test_a_file_larger_than_the_memory_budget_is_read_within_it(run: Run) -> None:
    data = DATA * 3

    async def test(bench: Bench) -> None:
        file = bench.open(bench.store.seed("file", data))
        for offset in range(0, len(data), 16 * KIB):
            assert await read(file, offset, 16 * KIB) == data[offset : offset + 16 * KIB]
            assert bench.writes.pool.used_bytes <= 8 * BLOCK_BYTES
        await file.close()

    store = run(test, memory_bytes=8 * BLOCK_BYTES)
    assert store.bytes_read == len(data)


def test_a_cancelled_reader_leaves_the_download_to_the_others(run: Run) -> None:
    async def test(bench: Bench) -> None:
        file = bench.open(bench.store.seed("file", DATA))
        gate = bench.store.hold("get_range_into")
        answers = []

        async def patient() -> None:
            answers.append(await read(file, 0, 100))

        async with trio.open_nursery() as nursery:
            hasty = trio.CancelScope()

            async def impatient() -> None:
                with hasty:
                    await read(file, 0, 100)

            nursery.start_soon(impatient)
            nursery.start_soon(patient)
            await trio.testing.wait_all_tasks_blocked()
            hasty.cancel()
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
        assert answers == [DATA[:100]]
        await file.close()

    run(test)


def test_a_failed_read_is_tried_again_by_the_next(run: Run) -> None:
    async def test(bench: Bench) -> None:
        file = bench.open(bench.store.seed("file", DATA))
        bench.store.fail("get_range_into", DOWN, times=50)
        with pytest.raises(StoreUnavailableError):
            await read(file, 0, 100)
        await bench.idle()
        bench.store.mend()
        assert await read_all(file) == DATA
        await file.close()

    run(test)


def test_bytes_of_two_versions_are_never_mixed(run: Run) -> None:
    async def test(bench: Bench) -> None:
        old = bench.store.seed("file", b"o" * len(DATA))
        file = bench.open(old)
        assert await read(file, 0, 100) == b"o" * 100
        await bench.idle()
        new = bench.store.seed("file", b"n" * len(DATA))
        seen = bytearray()
        with pytest.raises(VersionChangedError):
            for offset in range(0, len(DATA), 16 * KIB):
                seen += await read(file, offset, 16 * KIB)
        assert set(seen) <= set(b"o")
        with pytest.raises(VersionChangedError):
            await read(file, len(DATA) - 100, 100)
        later = bench.open(new)
        assert await read_all(later) == b"n" * len(DATA)
        await file.close()
        await later.close()

    run(test)


# -- writing -------------------------------------------------------------------------------


def test_a_new_file_is_dirty_until_committed_even_if_empty(run: Run) -> None:
    async def test(bench: Bench) -> None:
        file = bench.open(None)
        assert file.dirty
        assert file.version is None
        version = await file.commit(REQUEST)
        assert version is not None
        assert file.version == version
        assert not file.dirty
        assert await read(file, 0, 10) == b""
        await file.close()

    store = run(test)
    assert store.content("file") == b""
    assert store.metadata("file") == REQUEST.metadata


@pytest.mark.parametrize("size", [1, 7, 8, 9, 16, 100, 500])
def test_a_file_written_in_order_is_stored_whole(run: Run, size: int) -> None:
    async def test(bench: Bench) -> None:
        file = bench.open(None)
        for offset in range(0, size, 5):
            await file.write(offset, DATA[offset : min(size, offset + 5)])
        assert file.size == size
        version = await file.commit(REQUEST)
        assert version is not None
        assert version.size == size
        assert await read_all(file, 7) == DATA[:size]
        await file.close()

    store = run(test)
    assert store.content("file") == DATA[:size]
    assert store.metadata("file") == REQUEST.metadata
    assert store.keys() == ["file"]
    assert all(upload.result for upload in store.uploads.values())


@pytest.mark.parametrize("rereads", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_writes_at_any_offset_read_back_at_once_and_are_stored(
    run: Run, seed: int, rereads: bool
) -> None:
    dice = random.Random(seed)
    expected = bytearray(DATA[:200])

    async def test(bench: Bench) -> None:
        file = bench.open(bench.store.seed("file", bytes(expected)))
        if rereads:
            file.expect_rereads()
        for _ in range(60):
            kind = dice.random()
            if kind < 0.5:
                offset = dice.choice([dice.randrange(300), len(expected)])
                data = dice.randbytes(dice.randrange(1, 30))
                expected.extend(bytes(max(0, offset - len(expected))))
                expected[offset : offset + len(data)] = data
                assert await file.write(offset, data) == len(data)
            elif kind < 0.65:
                size = dice.choice([0, dice.randrange(300)])
                del expected[size:]
                expected.extend(bytes(size - len(expected)))
                await file.truncate(size)
            elif kind < 0.75:
                await file.commit(REQUEST)
                assert bench.store.content("file") == expected
            else:
                offset, size = dice.randrange(300), dice.randrange(1, 100)
                assert await read(file, offset, size) == expected[offset : offset + size]
            assert file.size == len(expected)
        await file.commit(REQUEST)
        assert await read_all(file, 50) == expected
        await file.close()

    store = run(test)
    assert store.content("file") == expected
    assert store.keys() == ["file"]


def test_a_gap_reads_as_zeros(run: Run) -> None:
    async def test(bench: Bench) -> None:
        file = bench.open(None)
        await file.write(0, b"begin")
        await file.write(100, b"end")
        assert await read(file, 0, 200) == b"begin" + bytes(95) + b"end"
        await file.truncate(120)
        assert await read(file, 90, 200) == bytes(10) + b"end" + bytes(17)
        await file.commit(REQUEST)
        await file.close()

    assert run(test).content("file") == b"begin" + bytes(95) + b"end" + bytes(17)


def test_what_was_cut_off_never_comes_back(run: Run) -> None:
    async def test(bench: Bench) -> None:
        file = bench.open(bench.store.seed("file", DATA[:100]))
        await file.truncate(10)
        await file.truncate(100)
        assert await read_all(file, 30) == DATA[:10] + bytes(90)
        await file.commit(REQUEST)
        await file.close()

    assert run(test).content("file") == DATA[:10] + bytes(90)


def test_changing_a_little_of_a_large_object_uploads_little(run: Run) -> None:
    async def test(bench: Bench) -> None:
        file = bench.open(bench.store.seed("file", DATA))
        await file.write(5000, b"changed")
        await file.commit(REQUEST)
        await file.close()

    # Part limits of bytes would make ten thousand parts of it.
    limits = replace(TINY, parts=PartLimits(min_part=5, first_part=4 * KIB, max_parts=100))
    store = run(test, limits=limits)
    assert store.content("file") == DATA[:5000] + b"changed" + DATA[5007:]
    assert store.bytes_written + store.bytes_read < 10 * KIB


def test_parts_leave_while_the_program_still_writes(run: Run) -> None:
    async def test(bench: Bench) -> None:
        file = bench.open(None)
        for offset in range(0, 100, 10):
            await file.write(offset, DATA[offset : offset + 10])
        await bench.idle()
        assert bench.store.requests["upload_part"] > 5
        assert not bench.store.objects
        await file.commit(REQUEST)
        await file.close()

    assert run(test).content("file") == DATA[:100]


def test_nothing_dirty_means_no_request(run: Run) -> None:
    async def test(bench: Bench) -> None:
        file = bench.open(bench.store.seed("file", DATA[:100]))
        assert not file.dirty
        assert await file.commit(REQUEST) is None
        await file.write(0, b"")
        await file.truncate(100)
        assert not file.dirty
        assert await file.commit(REQUEST) is None
        assert not bench.store.requests
        await file.write(0, b"x")
        assert await file.commit(REQUEST) is not None
        bench.store.take_requests()
        assert await file.commit(REQUEST) is None
        assert not bench.store.requests
        await file.close()

    run(test)


def test_commits_at_once_share_one_upload(run: Run) -> None:
    async def test(bench: Bench) -> None:
        file = bench.open(None)
        await file.write(0, b"data")
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(file.commit, REQUEST)
        await file.close()

    store = run(test)
    assert store.requests["put"] == 1


@pytest.mark.parametrize("size", [4, 100])
@pytest.mark.parametrize("method", ["put", "start_multipart", "upload_part", "complete"])
def test_a_failed_commit_keeps_the_data_and_the_next_one_succeeds(
    run: Run, method: str, size: int
) -> None:
    async def test(bench: Bench) -> None:
        bench.store.fail(method, DOWN, times=1000)
        file = bench.open(None)
        await file.write(0, DATA[:size])
        hit = (method == "put") == (size == 4)
        for _ in range(2):
            if hit:
                with pytest.raises(StoreUnavailableError):
                    await file.commit(REQUEST)
                assert file.dirty
                assert not bench.store.objects
        bench.store.mend()
        await file.commit(REQUEST)
        assert not file.dirty
        await file.close()

    store = run(test)
    assert store.content("file") == DATA[:size]
    assert store.keys() == ["file"]


def test_a_condition_that_does_not_hold_writes_nothing(run: Run) -> None:
    async def test(bench: Bench) -> None:
        bench.store.seed("file", b"somebody else's")
        file = bench.open(None)
        await file.write(0, b"mine")
        conditional = replace(REQUEST, condition=Condition(only_if_absent=True))
        with pytest.raises(ConditionFailedError):
            await file.commit(conditional)
        assert file.dirty
        assert bench.store.content("file") == b"somebody else's"
        await file.commit(REQUEST)
        await file.close()

    assert run(test).content("file") == b"mine"


def test_changes_to_an_object_that_was_replaced_are_refused_not_mixed(run: Run) -> None:
    async def test(bench: Bench) -> None:
        file = bench.open(bench.store.seed("file", DATA[:100]))
        await file.write(50, b"changed")
        bench.store.seed("file", b"n" * 100)
        with pytest.raises(VersionChangedError):
            await file.commit(REQUEST)
        assert file.dirty
        assert bench.store.content("file") == b"n" * 100
        file.abandon()
        await file.close()

    run(test)


def test_a_file_beyond_the_largest_object_is_refused_before_anything_is_taken(run: Run) -> None:
    async def test(bench: Bench) -> None:
        file = bench.open(None)
        await file.write(0, b"small")
        with pytest.raises(FileTooLargeError):
            await file.write(TINY_PARTS.max_object, b"x")
        with pytest.raises(FileTooLargeError):
            await file.truncate(TINY_PARTS.max_object + 1)
        await file.commit(REQUEST)
        await file.close()

    assert run(test).content("file") == b"small"


def test_readers_see_writes_of_the_same_file_while_it_is_committed(run: Run) -> None:
    async def test(bench: Bench) -> None:
        file = bench.open(bench.store.seed("file", DATA[:100]))
        await file.write(0, b"changed")
        gate = bench.store.hold("put")
        multipart = bench.store.hold("start_multipart")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.commit, REQUEST)
            await trio.testing.wait_all_tasks_blocked()
            assert await read(file, 0, 100) == b"changed" + DATA[7:100]
            gate.set()
            multipart.set()
        assert await read(file, 0, 100) == b"changed" + DATA[7:100]
        await file.close()

    run(test)


# -- giving up and letting go -----------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 100])
def test_abandoned_data_never_reaches_the_store(run: Run, size: int) -> None:
    async def test(bench: Bench) -> None:
        file = bench.open(None)
        file.expect_rereads()
        await file.write(0, DATA[:size])
        file.abandon()
        assert not file.dirty
        assert await file.commit(REQUEST) is None
        await file.write(size, b"more")
        assert await file.commit(REQUEST) is None
        await file.close()
        await bench.later()

    store = run(test)
    assert store.keys() == []
    assert store.uploads == {}


def test_a_clean_file_that_was_abandoned_takes_writes_and_never_stores_them(run: Run) -> None:
    async def test(bench: Bench) -> None:
        file = bench.open(bench.store.seed("file", DATA[:100]))
        file.abandon()
        await file.write(0, DATA[:100][::-1])
        await file.write(100, DATA[:100])
        assert not file.dirty
        assert await read(file, 0, 300) == DATA[:100][::-1] + DATA[:100]
        assert await file.commit(REQUEST) is None
        await bench.idle()
        assert not bench.store.uploads
        await file.close()

    assert run(test).content("file") == DATA[:100]


@pytest.mark.parametrize("size", [0, 4, 100])
def test_data_set_aside_can_be_recovered(run: Run, size: int) -> None:
    async def test(bench: Bench) -> None:
        bench.store.fail("put", DOWN, times=100)
        bench.store.fail("complete", DOWN, times=100)
        file = bench.open(None)
        await file.write(0, DATA[:size])
        with pytest.raises(StoreUnavailableError):
            await file.commit(REQUEST)
        kept = file.set_aside(REQUEST)
        assert kept is not None
        assert kept.startswith(str(bench.root / "state"))
        # Whoever has the file open still is never told that it is stored.
        assert file.dirty
        with pytest.raises(UnsavedDataError, match="is kept in"):
            await file.commit(REQUEST)
        await file.close()
        await bench.later()
        bench.store.mend()
        recovery = Recovery(bench.writes.journal, TINY_PARTS)
        (record,) = recovery.list()
        assert (record.key, record.size) == ("file", size)
        recovery.upload(record.ident, bench.store)
        assert recovery.list() == []

    store = run(test)
    assert store.content("file") == DATA[:size]
    assert store.metadata("file") == REQUEST.metadata


def test_a_preserved_file_reads_on_when_its_key_is_gone(run: Run) -> None:
    async def test(bench: Bench) -> None:
        version = bench.store.seed("file", DATA)
        file = bench.open(version)
        assert await read(file, 0, 100) == DATA[:100]
        copy = bench.store.copy(version, "hidden")
        await file.preserve(copy)
        bench.store.erase("file")
        assert file.version == copy
        assert await read_all(file) == DATA
        await file.close()

    run(test)


def test_a_preserved_file_keeps_its_changes(run: Run) -> None:
    async def test(bench: Bench) -> None:
        version = bench.store.seed("file", DATA[:100])
        file = bench.open(version)
        await file.write(50, b"changed")
        copy = bench.store.copy(version, "moved")
        await file.preserve(copy)
        bench.store.erase("file")
        expected = DATA[:50] + b"changed" + DATA[57:100]
        assert await read_all(file, 30) == expected
        await file.commit(replace(REQUEST, key="moved"))
        assert bench.store.content("moved") == expected
        await file.close()

    assert run(test).keys() == ["moved"]


def test_closing_gives_all_memory_and_every_temporary_file_back(run: Run) -> None:
    async def test(bench: Bench) -> None:
        reader = bench.open(bench.store.seed("read", DATA), "read")
        await read_all(reader)
        writer = bench.open(None, "written")
        for offset in range(0, 300, 10):
            await writer.write(offset, DATA[offset : offset + 10])
        await writer.commit(replace(REQUEST, key="written"))
        changer = bench.open(bench.store.seed("changed", DATA[:200]), "changed")
        await changer.write(3, b"x")
        await changer.truncate(50)
        await changer.commit(replace(REQUEST, key="changed"))
        abandoned = bench.open(None, "abandoned")
        await abandoned.write(100, b"x")
        abandoned.abandon()
        for file in (reader, writer, changer, abandoned):
            await file.close()
        await bench.later()
        assert bench.writes.pool.used_bytes == 0
        assert bench.visible_files() == []
        assert bench.open_files() == []

    store = run(test)
    assert store.keys() == ["changed", "read", "written"]


def test_closing_while_bytes_are_on_their_way_gives_everything_back(run: Run) -> None:
    async def test(bench: Bench) -> None:
        file = bench.open(bench.store.seed("file", DATA))
        gate = bench.store.hold("get_range_into")
        with trio.move_on_after(0):
            await file.read(0, 4096)
        await file.close()
        gate.set()
        await bench.later()
        assert bench.writes.pool.used_bytes == 0
        assert bench.open_files() == []

    run(test)


def test_direct_touches_no_file_while_reading_or_writing_in_order(tmp_path: Path) -> None:
    async def test(bench: Bench) -> None:
        def assert_no_file() -> None:
            # The journal notes uploads under way, in files of their own.
            uploads = str(bench.root / "state" / "uploads")
            names = [*bench.open_files(), *map(str, bench.visible_files())]
            assert [name for name in names if not name.startswith(uploads)] == []

        reader = bench.open(bench.store.seed("read", DATA), "read")
        for offset in range(0, len(DATA), 16 * KIB):
            await read(reader, offset, 16 * KIB)
            assert_no_file()
        writer = bench.open(None)
        for offset in range(0, 400, 10):
            await writer.write(offset, DATA[offset : offset + 10])
            assert_no_file()
        await writer.commit(REQUEST)
        assert_no_file()
        assert await read_all(writer, 100) == DATA[:400]
        assert_no_file()
        await reader.close()
        await writer.close()
        await bench.later()
        assert bench.visible_files() == []

    assert on_bench("direct", tmp_path, test).content("file") == DATA[:400]


def test_memory_is_enough_for_the_tests_that_count_bytes() -> None:
    """They would count bytes twice that were evicted for lack of room."""
    assert 2 * len(DATA) < MEMORY_BYTES

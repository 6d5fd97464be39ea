"""What others cached is answered once the store has given this mount a byte of it, not before."""

import threading

import pytest
import trio

from ossfs_py.errors import AccessDeniedError, BadHandleError, StoreUnavailableError
from ossfs_py.model import ObjectVersion
from ossfs_py.reading.leave import Grants, Leave
from ossfs_py.reading.reader import VersionReader
from tests.support.pattern_store import PatternStore, pattern, reading_over

MIB = 1024**2
VERSION = ObjectVersion("k", "e", 2 * MIB)


class Cached:
    """A disk that has the whole version, from somebody else."""

    granularity_bytes = MIB

    def present_until(self, _offset: int) -> int:
        return VERSION.size

    def next_present(self, offset: int) -> int | None:
        return 0 if offset < 0 else None

    def load_into(self, start: int, buffer: memoryview) -> None:
        buffer[:] = pattern(start, len(buffer))

    def keep(self, _start: int, _view: memoryview) -> bool:
        return True

    def note_kept(self, start: int, end: int) -> None: ...

    def note_lost(self, start: int, end: int) -> None: ...

    def note_skipped(self, size: int) -> None: ...

    def close(self) -> None: ...


class Half(Cached):
    """A disk that has the first half."""

    def present_until(self, offset: int) -> int:
        return max(offset, MIB)

    def next_present(self, _offset: int) -> int | None:
        return None


def reader_over(
    store: PatternStore, grants: Grants, backend: Cached | None = None
) -> VersionReader:
    context = reading_over(store)
    leave = Leave(VERSION, grants, store.get_range_into, context.network)
    return VersionReader(context, VERSION, backend or Cached(), leave=leave)


def test_one_byte_is_asked_for_and_no_more_by_anybody_who_reads_then() -> None:
    store, grants = PatternStore(), Grants()

    async def main() -> None:
        reader = reader_over(store, grants)
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(reader.read, 0, 4096)
        assert bytes(await reader.read(MIB, MIB + 10)) == pattern(MIB, 10)
        reader.close()
        again = reader_over(store, grants)
        assert bytes(await again.read(5, 10)) == pattern(5, 5)
        again.close()

    trio.run(main)
    assert store.spans == [(0, 1)]


def test_nothing_is_answered_from_memory_either_before_leave_is_given() -> None:
    store = PatternStore()
    refused = AccessDeniedError("no", key="k")
    store.fail = lambda _start: refused

    async def main() -> None:
        reader = reader_over(store, Grants())
        for _ in range(2):
            with pytest.raises(AccessDeniedError):
                await reader.read(0, 4096)
            assert reader.read_nowait(0, 4096) is None
        store.fail = lambda _start: None
        assert bytes(await reader.read(0, 4096)) == pattern(0, 4096)
        assert reader.read_nowait(0, 4096) is not None
        reader.close()

    trio.run(main)
    # A refusal that comes before the disk has answered is asked for once more by its reader.
    assert 3 <= len(store.spans) <= 6, "each read asks again, as it would without a cache"


def test_a_passing_failure_is_no_refusal() -> None:
    store = PatternStore()
    store.fail = lambda _start: StoreUnavailableError("down", key="k")

    async def main() -> None:
        reader = reader_over(store, Grants())
        with pytest.raises(StoreUnavailableError):
            await reader.read(0, 10)
        store.fail = lambda _start: None
        assert bytes(await reader.read(0, 10)) == pattern(0, 10)
        reader.close()

    trio.run(main)


def test_what_was_downloaded_is_leave_enough() -> None:
    store, grants = PatternStore(), Grants()

    async def main() -> None:
        reader = reader_over(store, grants, Half())
        assert bytes(await reader.read(MIB, MIB + 10)) == pattern(MIB, 10)
        assert bytes(await reader.read(0, 10)) == pattern(0, 10)
        reader.close()

    trio.run(main)
    assert (0, 1) not in store.spans
    assert grants.holds(VERSION)


def test_reading_ahead_asks_for_leave_and_counts_its_byte() -> None:
    store, grants = PatternStore(), Grants()

    async def main() -> None:
        reader = reader_over(store, grants)
        assert reader.fetch_head(VERSION.size) == 1
        assert bytes(await reader.read(0, 10)) == pattern(0, 10)
        assert reader.fetch_head(VERSION.size) == 0
        reader.close()

    trio.run(main)
    assert store.spans == [(0, 1)]


def test_a_reader_that_is_closed_lets_everybody_go() -> None:
    store = PatternStore()
    asked, answer = threading.Event(), threading.Event()

    def late(_start: int) -> None:
        asked.set()
        answer.wait()

    store.fail = late

    async def main() -> None:
        reader = reader_over(store, Grants())

        async def read() -> None:
            with pytest.raises(BadHandleError):
                await reader.read(0, 10)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.to_thread.run_sync(asked.wait)
            reader.close()
        answer.set()

    trio.run(main)


def test_only_so_many_are_remembered_and_a_version_is_more_than_its_key() -> None:
    grants = Grants(limit=3)
    for number in range(10):
        grants.add(ObjectVersion(f"k{number}", "e", 1))
    assert sum(grants.holds(ObjectVersion(f"k{n}", "e", 1)) for n in range(10)) == 3
    grants.add(VERSION)
    assert grants.holds(VERSION)
    for other in (("k", "f", 2 * MIB), ("k", "e", 1), ("l", "e", 2 * MIB)):
        assert not grants.holds(ObjectVersion(*other))

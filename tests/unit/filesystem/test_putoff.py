"""Removals that write-back owes: many by one request, nothing of others, nothing forgotten."""

from collections.abc import Awaitable, Callable, Sequence

import pytest
import trio

from ossfs_py.errors import AccessDeniedError, StoreUnavailableError, UnsavedDataError
from ossfs_py.filesystem.putoff import PutOffRemoval, PutOffRemovals
from ossfs_py.model import ObjectInfo
from ossfs_py.runtime.workers import Workers
from tests.support.fake_store import FakeStore


class Owed:
    """A removed file."""

    def __init__(self, key: str, etag: str) -> None:
        self.key = key
        self.lock = trio.Lock()
        self.is_over = False
        self._etag = etag

    def hides(self, info: ObjectInfo) -> bool:
        return info.etag == self._etag


class Bench:
    def __init__(self, store: FakeStore, workers: Workers) -> None:
        self.store = store
        self.put_off = PutOffRemovals(store, workers, self._forget)
        self.forgotten: list[str] = []
        self.refusals: list[OSError] = []

    async def _forget(self, removals: Sequence[PutOffRemoval]) -> None:
        if self.refusals:
            raise self.refusals.pop()
        self.forgotten.extend(removal.key for removal in removals)

    def removed(self, *keys: str) -> list[Owed]:
        """Files that are in the store and were removed here."""
        made = [Owed(key, self.store.seed(key, key.encode()).etag) for key in keys]
        self.store.take_requests()
        for each in made:
            self.put_off.add(each)
        return made


def on_bench(test: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        workers = Workers("network", 4)
        bench = Bench(FakeStore(), workers)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.put_off.run)
            with trio.fail_after(60):
                await test(bench)
            nursery.cancel_scope.cancel()
        workers.close()
        assert workers.join(60)

    trio.run(main)


def test_a_directory_of_files_goes_by_one_listing_and_one_request() -> None:
    async def test(bench: Bench) -> None:
        keys = [f"d/{number:03}" for number in range(200)]
        bench.removed(*keys)
        await bench.put_off.done()
        assert bench.store.keys() == []
        assert bench.forgotten == keys
        assert dict(bench.store.take_requests()) == {"list_page": 1, "delete_many": 1}

    on_bench(test)


def test_one_file_of_a_large_directory_lists_nothing() -> None:
    async def test(bench: Bench) -> None:
        bench.removed("d/one")
        await bench.put_off.done()
        assert dict(bench.store.take_requests()) == {"head": 1, "delete": 1}

    on_bench(test)


def test_what_others_stored_since_stays() -> None:
    async def test(bench: Bench) -> None:
        bench.removed("d/a", "d/b", "d/c")
        bench.store.seed("d/b", b"another's")
        await bench.put_off.done()
        assert bench.store.keys() == ["d/b"]
        assert sorted(bench.forgotten) == ["d/a", "d/b", "d/c"]

    on_bench(test)


def test_while_the_store_is_away_nothing_is_forgotten_and_who_waits_is_told() -> None:
    async def test(bench: Bench) -> None:
        bench.store.fail("list_page", StoreUnavailableError("down"))
        bench.removed("d/a", "d/b")
        with pytest.raises(UnsavedDataError, match="2 removed files are still in the bucket"):
            await bench.put_off.done()
        assert bench.forgotten == []
        assert len(bench.put_off) == 2
        await bench.put_off.done()  # it is back
        assert bench.store.keys() == []

    on_bench(test)


def test_a_key_that_the_store_keeps_holds_up_no_other_and_is_seen_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(bench: Bench) -> None:
        for _ in range(2):  # in the batch, and by itself
            bench.store.fail("delete", AccessDeniedError("no"), key="d/b")
        bench.removed("d/a", "d/b", "d/c")
        await bench.put_off.done()
        assert bench.store.keys() == ["d/b"]
        assert sorted(bench.forgotten) == ["d/a", "d/b", "d/c"]
        assert "'d/b' was removed here, but the store keeps it" in caplog.text

    on_bench(test)


def test_a_journal_that_cannot_be_written_ends_no_background_work() -> None:
    async def test(bench: Bench) -> None:
        bench.refusals.append(OSError(5, "disk"))
        bench.removed("d/a", "d/b")
        with pytest.raises(UnsavedDataError):
            await bench.put_off.done()
        await bench.put_off.done()
        assert sorted(bench.forgotten) == ["d/a", "d/b"]
        assert bench.store.keys() == []

    on_bench(test)


def test_what_somebody_else_sees_to_is_left_to_him() -> None:
    async def test(bench: Bench) -> None:
        (owed,) = bench.removed("d/a")
        owed.is_over = True
        await bench.put_off.done()
        assert bench.store.keys() == ["d/a"]
        assert bench.forgotten == []

    on_bench(test)

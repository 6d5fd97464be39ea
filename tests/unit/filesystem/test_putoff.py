"""Removals that write-back owes: many by one request, nothing of others, nothing forgotten."""

import time
from collections.abc import Awaitable, Callable, Sequence

import pytest
import trio

from ossfs_py.errors import (
    AccessDeniedError,
    QuotaExceededError,
    StoreUnavailableError,
    UnsavedDataError,
    UnsupportedByStoreError,
)
from ossfs_py.filesystem.putoff import PutOffRemoval, PutOffRemovals
from ossfs_py.filesystem.trash import Trash
from ossfs_py.model import ObjectInfo
from ossfs_py.runtime.workers import Workers
from ossfs_py.writing.kept import parse_kept
from tests.support.fake_store import FakeStore


class Owed:
    """A removed file."""

    def __init__(self, key: str, etag: str, trash: str = "") -> None:
        self.key = key
        self.lock = trio.Lock()
        self.is_over = False
        self.trash = trash
        self.removed_ns = 1_700_000_000 * 10**9
        self._etag = etag

    def hides(self, info: ObjectInfo) -> bool:
        return info.etag == self._etag


class Bench:
    def __init__(self, store: FakeStore, workers: Workers) -> None:
        self.store = store
        trash = Trash(store, workers, "trash/")
        self.put_off = PutOffRemovals(
            store, workers, self._forget, trash, self._came_back, self._before
        )
        self.begun: list[tuple[list[str], list[str]]] = []
        """The keys of each batch, and what the store had before it."""
        self.forgotten: list[str] = []
        self.came_back = 0
        self.refusals: list[OSError] = []

    async def _forget(self, removals: Sequence[PutOffRemoval]) -> None:
        if self.refusals:
            raise self.refusals.pop()
        self.forgotten.extend(removal.key for removal in removals)

    async def _before(self, keys: Sequence[str]) -> None:
        self.begun.append((sorted(keys), self.store.keys()))

    def _came_back(self) -> None:
        self.came_back += 1

    def removed(self, *keys: str, trash: str = "") -> list[Owed]:
        """Files that are in the store and were removed here."""
        made = [Owed(key, self.store.seed(key, key.encode()).etag, trash) for key in keys]
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


def test_what_must_come_before_a_batch_is_told_its_keys() -> None:
    async def test(bench: Bench) -> None:
        bench.removed("d/a", "d/b")
        await bench.put_off.done()
        assert bench.begun == [(["d/a", "d/b"], ["d/a", "d/b"])]

    on_bench(test)


def test_a_directory_of_files_goes_by_one_listing_and_one_request() -> None:
    async def test(bench: Bench) -> None:
        keys = [f"d/{number:03}" for number in range(200)]
        bench.removed(*keys)
        await bench.put_off.done()
        assert bench.store.keys() == []
        assert bench.forgotten == keys
        assert dict(bench.store.take_requests()) == {"list_page": 1, "delete_many": 1}

    on_bench(test)


def test_a_tree_goes_by_one_flat_listing_and_one_request() -> None:
    async def test(bench: Bench) -> None:
        keys = [f"t/d{number % 20}/{number:03}" for number in range(200)]
        bench.removed(*keys)
        await bench.put_off.done()
        assert bench.store.keys() == []
        assert sorted(bench.forgotten) == sorted(keys)
        assert dict(bench.store.take_requests()) == {"list_page": 1, "delete_many": 1}

    on_bench(test)


def test_what_is_scattered_among_others_is_asked_for_by_directory() -> None:
    async def test(bench: Bench) -> None:
        others = [f"t/d{number // 1000}/a{number:05}" for number in range(5000)]
        for key in others:
            bench.store.seed(key, b"")
        bench.removed("t/d0/a", "t/d2/a", "t/d4/b", "t/d4/c")
        bench.store.delete("t/d4/c")
        bench.store.take_requests()
        await bench.put_off.done()
        assert bench.store.keys() == others
        asked = dict(bench.store.take_requests())
        assert asked["list_page"] <= 2 + 2, "two flat pages, then at most as many as d4 lost files"
        assert asked["head"] >= 1

    on_bench(test)


def test_removals_gather_while_more_come() -> None:
    async def test(bench: Bench) -> None:
        for number in range(10):
            bench.removed(f"d/{number}", f"d/{number}-")
            await trio.sleep(0.05)
            assert "delete_many" not in bench.store.take_requests()
        await bench.put_off.done()
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


def test_a_store_without_batches_is_asked_to_delete_one_after_the_other() -> None:
    async def test(bench: Bench) -> None:
        bench.store.fail("delete_many", UnsupportedByStoreError("no DeleteObjects"))
        keys = [f"d{number % 3}/{number:02}" for number in range(30)]
        bench.removed(*keys)
        await bench.put_off.done()
        assert bench.store.keys() == []
        assert sorted(bench.forgotten) == sorted(keys)
        assert bench.store.take_requests()["delete"] == len(keys)

    on_bench(test)


def test_where_nothing_may_be_deleted_all_is_seen_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(bench: Bench) -> None:
        keys = [f"d/{number}" for number in range(20)]
        for key in keys:
            for _ in range(2):  # in the batch, and by itself
                bench.store.fail("delete", AccessDeniedError("no"), key=key)
        bench.removed(*keys)
        await bench.put_off.done()
        assert bench.store.keys() == sorted(keys)
        assert sorted(bench.forgotten) == sorted(keys)
        assert caplog.text.count("but the store keeps it") == len(keys)

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


def test_with_a_trash_nothing_is_deleted_before_its_copy_is_there() -> None:
    async def test(bench: Bench) -> None:
        keys = [f"d/{number:03}" for number in range(50)]
        bench.removed(*keys, trash="trash/")
        copies = bench.store.hold("copy")
        with trio.move_on_after(0.2):
            await bench.put_off.done()
        assert bench.store.keys() == keys, "copies are under way"
        copies.set()
        await bench.put_off.done()
        kept = [(parse_kept("trash/", key), key) for key in bench.store.objects]
        assert {each.key: bench.store.content(key) for each, key in kept if each is not None} == {
            key: key.encode() for key in keys
        }
        assert len(kept) == len(keys)
        assert bench.came_back == 0

    on_bench(test)


def test_what_cannot_be_kept_stays_and_what_may_be_later_waits() -> None:
    async def test(bench: Bench) -> None:
        bench.store.fail("copy", QuotaExceededError("full"), key="d/b")
        bench.store.fail("copy", StoreUnavailableError("down"), key="d/c")
        bench.removed("d/a", "d/b", "d/c", trash="trash/")
        with pytest.raises(UnsavedDataError, match="a removed file is still in the bucket"):
            await bench.put_off.done()
        assert [key for key in bench.store.objects if key.startswith("d/")] == ["d/b", "d/c"]
        assert sorted(bench.forgotten) == ["d/a", "d/b"]
        assert bench.came_back == 1
        await bench.put_off.done()
        assert [key for key in bench.store.objects if key.startswith("d/")] == ["d/b"]

    on_bench(test)


def test_a_directory_goes_after_copies_and_stays_with_what_cannot_be_kept() -> None:
    async def test(bench: Bench) -> None:
        for marker in ("d/", "e/", "f/"):
            bench.store.seed(marker, b"")
        bench.store.fail("copy", QuotaExceededError("full"), key="d/a")
        bench.store.fail("copy", StoreUnavailableError("down"), key="e/a")
        bench.removed("d/a", "e/a", "f/a", trash="trash/")
        for marker in ("d/", "e/", "f/"):
            bench.put_off.add(Owed(marker, bench.store.head(marker).etag))
        with pytest.raises(UnsavedDataError, match="2 removed files are still in the bucket"):
            await bench.put_off.done()
        left = [key for key in bench.store.objects if not key.startswith("trash/")]
        assert sorted(left) == ["d/", "d/a", "e/", "e/a"]
        await bench.put_off.done()
        left = [key for key in bench.store.objects if not key.startswith("trash/")]
        assert sorted(left) == ["d/", "d/a"]

    on_bench(test)


def test_what_others_stored_while_a_copy_was_made_is_not_deleted() -> None:
    """Copies are pinned, and looked after: one waits for those of its batch."""

    async def test(bench: Bench) -> None:
        bench.removed("d/a", "d/b", trash="trash/")
        store = bench.store

        def replace(method: str, key: str) -> None:
            if method != "copy":
                return
            if key == "d/a":
                while not any("/d/b~" in each for each in list(store.objects)):
                    time.sleep(0.001)
                store.seed("d/b", b"after its copy")
                store.seed("d/a", b"before its copy")
                store.on_request = None

        store.on_request = replace
        await bench.put_off.done()
        assert store.content("d/a") == b"before its copy"
        assert store.content("d/b") == b"after its copy"

    on_bench(test)

"""Listing ahead of a walk: when it is done, when it is left, and what it must not hide."""

import time

import pytest
import trio
import trio.testing

from ossfs_py.errors import DirectoryNotEmptyError, StoreUnavailableError
from ossfs_py.model import ListPage, ListQuery
from ossfs_py.namespace.namespace import Inode
from tests.support.fake_store import FakeStore
from tests.support.namespaces import Mounted, mounted
from tests.support.tree_order_store import TreeOrderStore


def tree(directories: int, files: int, *, deeper: str = "") -> FakeStore:
    store = FakeStore()
    for d in range(directories):
        for f in range(files):
            store.seed(f"d{d:02}/{deeper}f{f:04}", b"x")
    return store


async def walk(m: Mounted, directory: Inode) -> int:
    """Entries below a directory, visited as os.walk does."""
    found = await m.entries(directory)
    return len(found) + sum([await walk(m, i) for _, i in found if i.kind.value == "directory"])


async def settled(m: Mounted) -> None:
    """Wait until no page is on its way."""
    deadline = time.monotonic() + 60
    while (walk := m.namespace._tree.listings.walks._walk) and not walk.over and walk._under_way:
        assert time.monotonic() < deadline, "an answer of the store was lost"
        await trio.testing.wait_all_tasks_blocked()
        time.sleep(0.0001)  # noqa: ASYNC251 - lets the store's threads have the processor


def test_a_walk_of_nested_directories_costs_a_request_for_a_thousand_keys() -> None:
    store = tree(10, 90, deeper="sub/sub/")

    async def run(m: Mounted) -> None:
        assert await walk(m, m.root) == 10 * (1 + 2 + 90)
        assert m.store.take_requests() == {"list_page": 2}
        assert await walk(m, m.root) == 10 * (1 + 2 + 90)
        assert m.store.take_requests() == {}

    mounted(run, store)


@pytest.mark.parametrize("kind", [FakeStore, TreeOrderStore])
def test_a_walk_from_the_first_directory_on_brings_that_one_too(kind: type[FakeStore]) -> None:
    """Also where a store leaves out a directory behind its name without a slash."""
    store = kind()
    for d in range(10):
        for f in range(50):
            store.seed(f"d{d:02}/f{f:04}", b"x")

    async def run(m: Mounted) -> None:
        assert await walk(m, m.root) == 10 * (1 + 50)
        assert m.store.take_requests() == {"list_page": 2}

    mounted(run, store)


def test_one_directory_listed_in_the_middle_costs_one_ordinary_request() -> None:
    async def run(m: Mounted) -> None:
        names = dict(await m.entries(m.root))
        assert len(await m.names(names["d07"])) == 100
        assert m.store.take_requests() == {"list_page": 2}

    mounted(run, tree(20, 100))


def test_directories_larger_than_a_page_cost_no_more_than_without_walking() -> None:
    async def run(m: Mounted) -> None:
        for _, directory in await m.entries(m.root):
            assert len(await m.names(directory)) == 1500
        assert m.store.take_requests()["list_page"] <= 1 + 4 * 2 + 1

    mounted(run, tree(4, 1500))


def test_a_program_that_does_not_go_down_is_not_made_to_wait_for_what_is_below() -> None:
    """Two pages at most are read for a directory whose subdirectories are huge."""

    async def run(m: Mounted) -> None:
        for _, directory in await m.entries(m.root):
            assert await m.names(directory) == ["below"]
        assert m.store.take_requests()["list_page"] <= 1 + 3 + 2 * 2

    mounted(run, tree(3, 5000, deeper="below/"))


def test_walking_ahead_stops_two_pages_after_the_program() -> None:
    async def run(m: Mounted) -> None:
        names = dict(await m.entries(m.root))
        await m.names(names["d00"])
        assert m.store.take_requests()["list_page"] <= 1 + 4

    mounted(run, tree(99, 100))


def test_a_walk_that_removes_what_it_has_read_is_one_page_ahead() -> None:
    """What each directory holds is younger then, and its rmdir(2) need not ask again."""

    async def run(m: Mounted) -> None:
        asked = 0
        for number, (name, directory) in enumerate(await m.entries(m.root)):
            files = await m.names(directory)
            for file in files:
                m.namespace.note_unlinked(await m.namespace.lookup(directory, file))
            m.namespace.note_unlinked(directory)
            await settled(m)
            asked += m.store.take_requests().get("list_page", 0)
            assert asked <= 2 + 2 + number // 10, name

    mounted(run, tree(99, 100))


def test_files_made_and_removed_here_while_a_walk_is_ahead_are_seen_right() -> None:
    async def run(m: Mounted) -> None:
        names = dict(await m.entries(m.root))
        await m.names(names["d00"])
        m.commit(m.create(names["d05"], "new"), b"1")
        await m.namespace.unlink(names["d06"], "f0000")
        await m.namespace.remove_directory(m.root, (await empty(m)).name)
        assert "new" in await m.names(names["d05"])
        assert "f0000" not in await m.names(names["d06"])
        moved = await m.namespace.rename(m.root, "d07", m.root, "renamed")
        assert len(await m.names(moved)) == 100

    async def empty(m: Mounted) -> Inode:
        return await m.namespace.make_directory(m.root, "empty", 0o755, 0, 0)

    mounted(run, tree(20, 100))


def test_what_was_listed_ahead_is_believed_no_longer_than_any_answer() -> None:
    async def run(m: Mounted) -> None:
        names = dict(await m.entries(m.root))
        await m.names(names["d00"])
        m.store.seed("d05/by-another", b"x")
        m.clock.jump(61)
        assert "by-another" in await m.names(names["d05"])

    mounted(run, tree(20, 100))


def test_without_a_ttl_nothing_is_listed_ahead() -> None:
    async def run(m: Mounted) -> None:
        for _, directory in await m.entries(m.root):
            await m.names(directory)
        assert m.store.take_requests() == {"list_page": 5}

    mounted(run, tree(4, 10), metadata_ttl_seconds=0)


def test_a_walk_whose_flat_listing_fails_goes_on_without_it() -> None:
    class NoFlatListing(FakeStore):
        def list_page(self, query: ListQuery) -> ListPage:
            if not query.delimiter:
                raise StoreUnavailableError("no", operation="ListObjectsV2", key=query.prefix)
            return super().list_page(query)

    store = NoFlatListing()
    for d in range(3):
        store.seed(f"d{d}/f", b"x")

    async def run(m: Mounted) -> None:
        assert await walk(m, m.root) == 6

    mounted(run, store)


def test_a_store_that_lists_out_of_order_is_listed_directory_by_directory() -> None:
    class Shuffled(FakeStore):
        def list_page(self, query: ListQuery) -> ListPage:
            page = super().list_page(query)
            return ListPage(page.objects[::-1], page.prefixes[::-1], page.next_token)

    store = Shuffled()
    for d in range(4):
        for f in range(10):
            store.seed(f"d{d}/f{f}", b"x")

    async def run(m: Mounted) -> None:
        assert await walk(m, m.root) == 4 + 40

    mounted(run, store)


def test_odd_keys_on_a_walk_are_hidden_like_on_any_listing() -> None:
    store = tree(3, 5)
    for key in ("d01//x", "d01/../y", "d01/./z", "d01/a", "d01/a/", "d01/a/b", "d01/a-b", "d01/"):
        store.seed(key, b"c")
    store.seed(f"d01/{'n' * 300}", b"x")

    async def run(m: Mounted) -> None:
        ahead = dict(await m.entries(m.root))
        await m.names(ahead["d00"])
        assert await m.names(ahead["d01"]) == ["a", "a-b", *(f"f{n:04}" for n in range(5))]
        assert m.store.take_requests()["list_page"] == 2

    mounted(run, store)


def test_full_attributes_on_a_walk_are_asked_ahead_and_once() -> None:
    store = FakeStore()
    for d in range(5):
        for f in range(40):
            store.seed(f"d{d}/f{f:02}", b"x", metadata={"mode": "33152", "uid": "7"})

    async def run(m: Mounted) -> None:
        for _ in range(2):
            for _, directory in await m.entries(m.root):
                for _, inode in await m.entries(directory):
                    attributes = await m.namespace.attributes(inode)
                    assert (attributes.mode & 0o777, attributes.uid) == (0o600, 7)
        assert m.store.take_requests() == {"list_page": 2, "head": 5 + 200}

    mounted(run, store, posix_metadata=True)


def test_forgetting_answers_shows_changes_of_others_at_once() -> None:
    async def run(m: Mounted) -> None:
        names = dict(await m.entries(m.root))
        assert len(await m.names(names["d00"])) == 10
        m.store.seed("d00/by-another", b"x")
        m.store.erase("d01/f0000")
        m.store.seed("d01/f0001", b"longer")
        assert "by-another" not in await m.names(names["d00"])
        m.namespace.forget_answers(m.root)
        assert "by-another" in await m.names(await m.at("d00"))
        assert "f0000" not in await m.names(await m.at("d01"))
        assert (await m.namespace.attributes(await m.at("d01/f0001"))).size == 6

    mounted(run, tree(2, 10))


def test_a_walk_goes_on_while_what_it_has_passed_is_removed() -> None:
    """As rm -r does it: each directory is removed before the next one is listed."""

    async def run(m: Mounted) -> None:
        listings = 0
        for name, directory in await m.entries(m.root):
            m.store.take_requests()
            for file in await m.names(directory):
                await m.namespace.unlink(directory, file)
            listings += m.store.take_requests().get("list_page", 0)
            if name == "d15":
                m.store.seed("d15/by-another", b"x")
                with pytest.raises(DirectoryNotEmptyError):
                    await m.namespace.remove_directory(m.root, name)
            else:
                await m.namespace.remove_directory(m.root, name)
        assert listings <= 3
        assert m.store.keys() == ["d15/", "d15/by-another"]

    mounted(run, tree(20, 100))


def test_a_directory_made_again_behind_a_walk_is_listed_as_it_is() -> None:
    async def run(m: Mounted) -> None:
        names = dict(await m.entries(m.root))
        for file in await m.names(names["d00"]):
            await m.namespace.unlink(names["d00"], file)
        await m.namespace.remove_directory(m.root, "d00")
        again = await m.namespace.make_directory(m.root, "d00", 0o755, 0, 0)
        m.commit(m.create(again, "new"), b"1")
        m.store.seed("d00/by-another", b"x")
        assert len(await m.names(names["d01"])) == 100
        assert await m.names(again) == ["by-another", "new"]

    mounted(run, tree(20, 100))

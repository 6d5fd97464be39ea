"""Listings: pages, order, hidden and conflicting keys, local changes, offsets, caching."""

import logging
import random

import pytest
import trio
import trio.testing

from ossfs_py.errors import AccessDeniedError, StoreUnavailableError
from ossfs_py.model import ListPage, ListQuery, ObjectInfo
from ossfs_py.namespace.listing.merge import DIRECTORY, PageMerger
from ossfs_py.namespace.namespace import Inode, Kind
from ossfs_py.namespace.opendirectory import DirectoryListing
from tests.support.fake_store import FakeStore
from tests.support.namespaces import Mounted, mounted


def store_of(*keys: str, page_size: int = 1000) -> FakeStore:
    store = FakeStore(page_size=page_size)
    for key in keys:
        store.seed(key, b"x")
    return store


async def read_all(handle: DirectoryListing, offset: int = 0) -> list[str]:
    names: list[str] = []
    while batch := await handle.entries_from(offset):
        names += [name for _next, name, _inode in batch]
        offset = batch[-1][0]
    return names


def test_a_listing_shows_names_in_order_with_their_attributes_for_one_request_a_page() -> None:
    store = store_of("b", "a/x", "c/", "ä", page_size=2)

    async def run(m: Mounted) -> None:
        entries = await m.entries(m.root)
        assert [name for name, _ in entries] == ["a", "b", "c", "ä"]
        assert [inode.kind for _, inode in entries] == [
            Kind.DIRECTORY,
            Kind.FILE,
            Kind.DIRECTORY,
            Kind.FILE,
        ]
        assert all(m.namespace.attributes_nowait(inode) for _, inode in entries)
        assert all(inode.lookup_count == 0 for _, inode in entries)
        assert m.store.take_requests() == {"list_page": 2}

    mounted(run, store)


@pytest.mark.parametrize("page_size", [1, 2, 3, 1000])
def test_a_directory_hides_an_object_of_its_name_wherever_the_pages_break(
    page_size: int, caplog: pytest.LogCaptureFixture
) -> None:
    keys = ["a", "a ", "a-b", "a.b", "a/x", "a0", "b", "b!", "b!/y", "b/", "c"]
    store = store_of(*keys, page_size=page_size)

    async def run(m: Mounted) -> None:
        assert sorted(await m.names(m.root)) == ["a", "a ", "a-b", "a.b", "a0", "b", "b!", "c"]
        entries = dict(await m.entries(m.root))
        for name in ("a", "b", "b!"):
            assert entries[name].kind is Kind.DIRECTORY

    with caplog.at_level(logging.WARNING):
        mounted(run, store)
    assert len(caplog.records) == 3


def test_keys_that_no_path_can_name_are_hidden_counted_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = store_of("ok", "/", "//x", "./x", "../x", ".", "..", "a" * 256, "d//x", "d/../y")

    async def run(m: Mounted) -> None:
        assert await m.names(m.root) == ["d", "ok"]
        assert m.metrics.hidden_keys._value.get() == 6
        assert await m.names(await m.at("d")) == []
        assert m.metrics.hidden_keys._value.get() == 8
        m.clock.jump(61)
        assert await m.names(m.root) == ["d", "ok"]

    with caplog.at_level(logging.WARNING):
        mounted(run, store)
    assert len(caplog.records) == 8


def test_listing_again_within_the_ttl_costs_no_request() -> None:
    async def run(m: Mounted) -> None:
        await m.names(m.root)
        m.store.take_requests()
        assert await m.names(m.root) == ["a", "b"]
        assert m.store.take_requests() == {}
        m.store.seed("c")
        m.clock.jump(61)
        assert await m.names(m.root) == ["a", "b", "c"]

    mounted(run, store_of("a", "b"))


def test_what_was_found_by_its_name_is_listed_though_the_listing_is_older() -> None:
    """Else a program would see the name, and then not, until the listing's time is over."""

    async def run(m: Mounted) -> None:
        d = await m.at("d")
        assert await m.names(d) == ["a"]
        m.clock.jump(2)
        m.store.seed("d/b")
        m.store.seed("d/sub/c")
        before = m.namespace.attributes_known(d).mtime_ns
        await m.at("d/b")
        await m.at("d/sub")
        m.store.take_requests()
        assert await m.names(d) == ["a", "b", "sub"]
        assert m.store.take_requests() == {}
        assert d in m.attributes_changed
        assert m.namespace.attributes_known(d).mtime_ns > before

    mounted(run, store_of("d/a"), negative_ttl_seconds=1.0)


def test_what_was_found_behind_a_listing_s_back_is_in_it_once_it_is_complete() -> None:
    async def run(m: Mounted) -> None:
        first = m.namespace.list_directory(m.root)
        batch = await first.entries_from(0)
        m.clock.jump(1)
        m.store.seed("f00")
        await m.at("f00")
        await read_all(first, batch[-1][0])
        m.store.take_requests()
        assert sorted(await m.names(m.root)) == ["f0", "f00", *(f"f{n}" for n in range(1, 8))]
        assert m.store.take_requests() == {}

    mounted(run, store_of(*(f"f{n}" for n in range(8)), page_size=3))


def test_concurrent_listings_of_one_directory_share_one_answer() -> None:
    store = store_of(*(f"f{n:03}" for n in range(100)), page_size=10)
    gate = store.hold("list_page")

    async def run(m: Mounted) -> None:
        results: list[list[str]] = []

        async def read() -> None:
            results.append(await m.names(m.root))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
        assert results == [[f"f{n:03}" for n in range(100)]] * 5
        assert m.store.take_requests() == {"list_page": 10}

    mounted(run, store)


def test_the_next_page_is_asked_for_while_the_current_one_is_handed_out() -> None:
    store = store_of(*(f"f{n}" for n in range(9)), page_size=3)

    async def run(m: Mounted) -> None:
        handle = m.namespace.list_directory(m.root)
        batch = await handle.entries_from(0)
        assert [name for _, name, _ in batch] == ["f0", "f1"]
        while m.store.requests["list_page"] < 2:
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert m.store.requests["list_page"] == 2

    mounted(run, store)


def test_local_files_are_listed_before_they_are_stored() -> None:
    async def run(m: Mounted) -> None:
        early = m.create(m.root, "early")
        assert await m.names(m.root) == ["a", "early"]
        late = m.create(m.root, "late")
        assert dict(await m.entries(m.root)) == {
            "a": await m.at("a"),
            "early": early,
            "late": late,
        }
        m.namespace.drop_local(early)
        m.commit(late, b"123")
        m.store.take_requests()
        entries = dict(await m.entries(m.root))
        assert list(entries) == ["a", "late"]
        assert entries["late"] is late
        assert m.namespace.attributes_known(late).size == 3
        assert m.store.take_requests() == {}

    mounted(run, store_of("a"))


def test_changes_made_while_a_listing_is_under_way_are_applied_over_it() -> None:
    store = store_of(*(f"f{n}" for n in range(8)), page_size=3)

    async def run(m: Mounted) -> None:
        await m.at("f6")
        first = m.namespace.list_directory(m.root)
        batch = await first.entries_from(0)
        assert [name for _, name, _ in batch] == ["f0", "f1"]
        await m.namespace.unlink(m.root, "f1")
        await m.namespace.unlink(m.root, "f6")
        created = m.create(m.root, "f55")
        rest = await read_all(first, batch[-1][0])
        assert rest == ["f2", "f3", "f4", "f5", "f7", "f55"]
        assert sorted(await m.names(m.root)) == ["f0", "f2", "f3", "f4", "f5", "f55", "f7"]
        assert dict(await m.entries(m.root))["f55"] is created

    mounted(run, store)


def test_a_name_removed_and_made_again_during_a_listing_is_shown_once() -> None:
    store = store_of(*(f"f{n}" for n in range(6)), page_size=3)

    async def run(m: Mounted) -> None:
        slow = m.namespace.list_directory(m.root)
        batch = await slow.entries_from(0)
        for name in ("f1", "f5"):
            await m.namespace.unlink(m.root, name)
            m.commit(m.create(m.root, name), b"new")
        joining = m.namespace.list_directory(m.root)
        assert sorted(await read_all(joining)) == [f"f{n}" for n in range(6)]
        assert [name for _, name, _ in batch] == ["f0", "f1"]
        assert sorted(await read_all(slow, batch[-1][0])) == ["f1", "f2", "f3", "f4", "f5"]

    mounted(run, store)


def test_a_page_answered_before_a_local_commit_does_not_undo_it() -> None:
    store = store_of("a", "b")
    gate = store.hold("list_page")

    async def run(m: Mounted) -> None:
        async def read() -> None:
            result.append(await m.entries(m.root))

        result: list[list[tuple[str, Inode]]] = []
        created = m.create(m.root, "new")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            version = m.commit(created, b"12345")
            gate.set()
        assert dict(result[0])["new"] is created
        assert created.info is not None
        assert created.info.version == version

    mounted(run, store)


def test_offsets_stay_valid_while_entries_come_and_go() -> None:
    store = store_of(*(f"f{n:02}" for n in range(40)), page_size=7)

    async def run(m: Mounted) -> None:
        handle = m.namespace.list_directory(m.root)
        seen: list[str] = []
        offset = 0
        while batch := await handle.entries_from(offset):
            # The kernel takes three entries of each answer and asks on from there.
            for next_offset, name, _inode in batch[:3]:
                seen.append(name)
                offset = next_offset
                await m.namespace.unlink(m.root, name)
        assert seen == [f"f{n:02}" for n in range(40)]
        assert m.store.keys() == []

    mounted(run, store)


def test_offset_zero_begins_again_and_sees_what_changed() -> None:
    async def run(m: Mounted) -> None:
        handle = m.namespace.list_directory(m.root)
        assert await read_all(handle) == ["a", "b"]
        m.create(m.root, "c")
        assert await read_all(handle) == ["a", "b", "c"]
        handle.rewind()
        assert await read_all(handle) == ["a", "b", "c"]

    mounted(run, store_of("a", "b"))


def test_a_directory_larger_than_the_cache_streams_and_can_be_sought_in() -> None:
    names = [f"f{n:04}" for n in range(2000)]
    store = store_of(*names, page_size=100)

    async def run(m: Mounted) -> None:
        handle = m.namespace.list_directory(m.root)
        offsets: dict[str, int] = {}
        offset = 0
        while batch := await handle.entries_from(offset):
            offsets |= {name: next_offset for next_offset, name, _ in batch}
            offset = batch[-1][0]
        assert list(offsets) == names
        assert len(m.namespace._tree.table) <= 251
        again = await handle.entries_from(offsets["f0149"])
        assert again[0][1] == "f0150"
        assert await read_all(handle, offsets["f1149"]) == names[1150:]
        m.store.take_requests()
        assert await m.names(m.root) == names
        assert m.store.take_requests() == {"list_page": 20}

    mounted(run, store, max_entries=250)


def test_local_changes_show_in_a_listing_too_large_for_the_cache() -> None:
    names = [f"f{n:04}" for n in range(1000)]
    store = store_of(*names, page_size=100)

    async def run(m: Mounted) -> None:
        handle = m.namespace.list_directory(m.root)
        offset = 0
        for _ in range(5):
            batch = await handle.entries_from(offset)
            offset = batch[-1][0]
        await m.namespace.unlink(m.root, "f0900")
        m.create(m.root, "fresh")
        m.commit(await m.at("f0901"), b"changed")
        rest = await read_all(handle, offset)
        assert "f0900" not in rest
        assert rest.count("fresh") == 1
        assert rest.count("f0901") == 1

    mounted(run, store, max_entries=250)


def test_a_failed_page_is_asked_for_again_by_the_next_read() -> None:
    store = store_of(*(f"f{n}" for n in range(6)), page_size=2)

    async def run(m: Mounted) -> None:
        handle = m.namespace.list_directory(m.root)
        m.store.fail("list_page", StoreUnavailableError("503"))
        with pytest.raises(StoreUnavailableError):
            await handle.entries_from(0)
        batch = await handle.entries_from(0)
        m.store.fail("list_page", StoreUnavailableError("503"), times=2)
        await trio.testing.wait_all_tasks_blocked()
        seen = [name for _, name, _ in batch]
        offset = batch[-1][0]
        for _ in range(20):
            try:
                batch = await handle.entries_from(offset)
            except StoreUnavailableError:
                continue
            if not batch:
                break
            seen += [name for _, name, _ in batch]
            offset = batch[-1][0]
        assert seen == [f"f{n}" for n in range(6)]

    mounted(run, store)


def test_a_listing_that_goes_in_circles_ends_with_an_error() -> None:
    class Circling(FakeStore):
        def list_page(self, query: ListQuery) -> ListPage:
            info = ObjectInfo("a", 1, "e", 0)
            return ListPage((info,), (), "again")

    async def run(m: Mounted) -> None:
        handle = m.namespace.list_directory(m.root)
        with pytest.raises(StoreUnavailableError, match="circles"):
            await read_all(handle)

    mounted(run, Circling())


@pytest.mark.parametrize("limit", [10, 1000])
def test_a_store_that_gives_one_page_for_every_token_ends_with_an_error(limit: int) -> None:
    class Deaf(FakeStore):
        def list_page(self, query: ListQuery) -> ListPage:
            objects = tuple(ObjectInfo(f"f{n:03}", 1, "e", 0) for n in range(100))
            return ListPage(objects, (), f"{query.token or ''}1")

    async def run(m: Mounted) -> None:
        handle = m.namespace.list_directory(m.root)
        for _ in range(2):
            with pytest.raises(StoreUnavailableError, match="circles"):
                await read_all(handle)

    mounted(run, Deaf(), max_entries=limit)


def test_a_store_that_repeats_itself_and_mixes_the_order_up_shows_each_name_once() -> None:
    pages = {
        None: ListPage((ObjectInfo("b", 1, "e", 0), ObjectInfo("a", 1, "e", 0)), ("d/",), "1"),
        "1": ListPage(
            (ObjectInfo("a", 1, "e", 0), ObjectInfo("c/x", 1, "e", 0)), ("d/", "b/"), "2"
        ),
        "2": ListPage((ObjectInfo("z", 1, "e", 0), ObjectInfo("b", 1, "e", 0)), (), None),
    }

    class Confused(FakeStore):
        def list_page(self, query: ListQuery) -> ListPage:
            return pages[query.token]

    async def run(m: Mounted) -> None:
        names = await m.names(m.root)
        assert sorted(names) == ["a", "b", "c", "d", "z"]
        assert dict(await m.entries(m.root))["b"].kind is Kind.DIRECTORY

    mounted(run, Confused())


def test_answers_outside_the_prefix_are_ignored() -> None:
    merger = PageMerger(
        "p/", hidden=lambda _: None, conflict=lambda _: None, reserved=lambda _: False
    )
    page = ListPage((ObjectInfo("q", 1, "e", 0), ObjectInfo("p/x", 1, "e", 0)), ("q/",), None)
    assert list(merger.page(page)) == ["x"]


def test_merging_is_independent_of_where_pages_break() -> None:
    draw = random.Random(7)
    for _ in range(200):
        keys = sorted({"".join(draw.choices("ab!-./0", k=draw.randint(1, 5))) for _ in range(12)})
        shown: list[dict[str, bool]] = []
        for page_size in (1, 2, 3, 50):
            store = store_of(*keys, page_size=page_size)
            merger = PageMerger(
                "", hidden=lambda _: None, conflict=lambda _: None, reserved=lambda _: False
            )
            entries: dict[str, bool] = {}
            token = None
            while True:
                page = store.list_page(ListQuery("", token=token))
                for name, entry in merger.page(page).items():
                    assert name not in entries, keys
                    entries[name] = entry is DIRECTORY
                token = page.next_token
                if token is None:
                    break
            shown.append(entries)
        assert shown[0] == shown[1] == shown[2] == shown[3], keys


def test_pages_of_nothing_but_files_are_merged_as_all_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are taken in one step; without that, the same comes out, and the same is told."""
    draw = random.Random(11)
    odd = ["..", ".", "a/b", "a/", "\0", "n" * 70, "n" * 300, "hidden-x", "", "é" * 40, "\udcff"]

    def merged(pages: list[ListPage]) -> list[object]:
        told: list[object] = []
        merger = PageMerger(
            "p/",
            hidden=lambda key: told.append(("hidden", key)),
            conflict=lambda key: told.append(("conflict", key)),
            reserved=lambda name: name.startswith("hidden-"),
        )
        for page in pages:
            held = merger.held
            before = dict(held)
            told.append(list(merger.page(page).items()))
            assert held == before  # a reader may have to begin with this page once more
            told.append((dict(merger.held), merger.marker, merger.shows_all))
        return told

    for _ in range(300):
        keys = [f"p/{''.join(draw.choices('ab-.', k=draw.randint(1, 4)))}" for _ in range(12)]
        keys += [f"p/{name}" for name in odd if draw.random() < 0.1]
        keys += ["q"] * (draw.random() < 0.1)
        if draw.random() < 0.8:
            keys = sorted(set(keys))
        infos = [ObjectInfo(key, 1, f"e{number}", 0) for number, key in enumerate(keys)]
        prefixes = tuple(f"{key}/" for key in keys if draw.random() < 0.05)
        cut = draw.randint(0, len(keys))
        again = [ObjectInfo(keys[cut - 1], 2, "again", 0)] if draw.random() < 0.2 else []
        pages = [
            ListPage(tuple(infos[:cut]), prefixes, "more"),
            ListPage((*again, *infos[cut:]), (), None),
        ]
        at_once = merged(pages)
        with monkeypatch.context() as patched:
            patched.setattr(PageMerger, "_only_files", lambda *_: None)
            assert merged(pages) == at_once, keys


def test_zero_byte_objects_are_asked_whether_they_are_symlinks() -> None:
    store = store_of("file")
    store.seed("link", metadata={"symlink-target": "header:4:file"})
    store.seed("empty")

    async def run(m: Mounted) -> None:
        entries = dict(await m.entries(m.root))
        assert m.store.take_requests() == {"list_page": 1, "head": 2}
        assert entries["link"].kind is Kind.SYMLINK
        assert entries["empty"].kind is Kind.FILE
        assert m.namespace.attributes_known(entries["link"]).size == 4
        m.clock.jump(61)
        again = dict(await m.entries(m.root))
        assert again == entries
        assert m.store.take_requests() == {"list_page": 1}

    mounted(run, store)


def test_an_object_deleted_between_list_and_head_is_not_shown() -> None:
    store = store_of("file")
    store.seed("empty")

    async def run(m: Mounted) -> None:
        m.store.on_request = lambda method, key: m.store.erase(key) if method == "head" else None
        assert await m.names(m.root) == ["file"]

    mounted(run, store)


def test_an_object_that_may_be_listed_but_not_asked_is_shown_as_a_file() -> None:
    store = store_of("file")
    store.seed("empty")

    async def run(m: Mounted) -> None:
        m.store.fail("head", AccessDeniedError("no GetObject"))
        assert await m.names(m.root) == ["empty", "file"]

    mounted(run, store)


def test_2000_files_in_20_directories_cost_three_requests() -> None:
    store = store_of(*(f"d{d:02}/f{f:03}" for d in range(20) for f in range(100)))

    async def run(m: Mounted) -> None:
        total = 0
        for _, directory in await m.entries(m.root):
            for _, inode in await m.entries(directory):
                assert m.namespace.attributes_nowait(inode) is not None
                total += 1
        assert total == 2000
        assert m.store.take_requests() == {"list_page": 3}

    mounted(run, store)


def test_directories_removed_by_others_while_listed_do_not_break_the_listing() -> None:
    store = store_of("d/a", "d/b", "d/c", page_size=1)

    async def run(m: Mounted) -> None:
        d = await m.at("d")
        handle = m.namespace.list_directory(d)
        batch = await handle.entries_from(0)
        for key in ("d/a", "d/b", "d/c"):
            m.store.erase(key)
        assert len(await read_all(handle, batch[-1][0])) <= 2

    mounted(run, store)

"""Lookups and attributes: which requests they cost, and what they find."""

import logging
import stat
from collections.abc import Iterable

import pytest
import trio
import trio.testing

from ossfs_py.errors import (
    AccessDeniedError,
    BucketMissingError,
    NoSuchEntryError,
    NotADirectoryPathError,
    StaleInodeError,
    StoreUnavailableError,
)
from ossfs_py.namespace.namespace import Inode, Kind
from tests.support.fake_store import FakeStore
from tests.support.namespaces import Mounted, mounted


def test_lookup_of_a_file_asks_head_and_list_once_and_then_nothing() -> None:
    store = FakeStore()
    store.seed("a/b/c", b"12345")

    async def run(m: Mounted) -> None:
        c = await m.at("a/b/c")
        assert c.kind is Kind.FILE
        assert (await m.namespace.attributes(c)).size == 5
        assert m.store.take_requests() == {"head": 3, "list_page": 3}
        assert await m.at("a/b/c") is c
        assert (await m.namespace.refresh_version(c)).size == 5
        assert m.store.take_requests() == {}

    mounted(run, store)


def test_head_and_list_are_sent_at_once() -> None:
    store = FakeStore()
    store.seed("a", b"1")
    head, page = store.hold("head"), store.hold("list_page")

    async def run(m: Mounted) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(m.at, "a")
            while m.store.requests != {"head": 1, "list_page": 1}:
                await trio.lowlevel.checkpoint()
            head.set()
            page.set()

    mounted(run, store)


def test_concurrent_lookups_of_one_name_share_one_answer() -> None:
    store = FakeStore()
    store.seed("a", b"1")
    head = store.hold("head")

    async def run(m: Mounted) -> None:
        found: list[Inode] = []

        async def look() -> None:
            found.append(await m.at("a"))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(look)
            await trio.testing.wait_all_tasks_blocked()
            head.set()
        assert len(set(found)) == 1
        assert m.store.take_requests() == {"head": 1, "list_page": 1}

    mounted(run, store)


def test_a_name_asked_for_ahead_is_looked_up_without_a_request() -> None:
    store = FakeStore()
    store.seed("d/a", b"1")

    async def run(m: Mounted) -> None:
        d = await m.at("d")
        m.store.take_requests()
        m.namespace.lookup_ahead(d, "a")
        m.namespace.lookup_ahead(d, "absent")
        await m.answered()
        assert m.store.take_requests() == {"head": 2, "list_page": 2}
        assert (await m.at("d/a")).kind is Kind.FILE
        with pytest.raises(NoSuchEntryError):
            await m.at("d/absent")
        m.namespace.lookup_ahead(d, "a")
        m.namespace.lookup_ahead(d, "absent")
        assert m.store.take_requests() == {}

    mounted(run, store, negative_ttl_seconds=5)


def test_a_lookup_joins_the_question_asked_ahead() -> None:
    store = FakeStore()
    store.seed("a", b"1")
    head = store.hold("head")

    async def run(m: Mounted) -> None:
        m.namespace.lookup_ahead(m.root, "a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(m.at, "a")
            await trio.testing.wait_all_tasks_blocked(0.01)
            head.set()
        assert m.store.take_requests() == {"head": 1, "list_page": 1}

    mounted(run, store)


def test_an_answer_asked_for_ahead_is_not_believed_after_a_change_of_this_mount() -> None:
    store = FakeStore()
    store.seed("a", b"1")
    head = store.hold("head")

    async def run(m: Mounted) -> None:
        m.namespace.lookup_ahead(m.root, "new")
        inode = m.create(m.root, "new")
        head.set()
        await m.answered()
        assert await m.at("new") is inode

    mounted(run, store)


def test_an_error_met_ahead_of_a_lookup_is_left_to_the_lookup() -> None:
    store = FakeStore()
    store.seed("a", b"1")
    store.fail("head", StoreUnavailableError("later"))
    store.fail("list_page", StoreUnavailableError("later"))

    async def run(m: Mounted) -> None:
        m.namespace.lookup_ahead(m.root, "a")
        await m.answered()
        assert (await m.at("a")).kind is Kind.FILE

    mounted(run, store)


def test_a_cancelled_lookup_leaves_the_answer_to_the_others() -> None:
    store = FakeStore()
    store.seed("a", b"1")
    head = store.hold("head")

    async def run(m: Mounted) -> None:
        found: list[Inode] = []
        first = trio.CancelScope()

        async def look(scope: trio.CancelScope) -> None:
            with scope:
                found.append(await m.at("a"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look, first)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(look, trio.CancelScope())
            await trio.testing.wait_all_tasks_blocked()
            first.cancel()
            await trio.testing.wait_all_tasks_blocked()
            head.set()
        assert [inode.name for inode in found] == ["a"]
        assert m.store.take_requests() == {"head": 1, "list_page": 1}

    mounted(run, store)


def test_absent_name_is_asked_every_time_by_default() -> None:
    async def run(m: Mounted) -> None:
        for _ in range(2):
            with pytest.raises(NoSuchEntryError):
                await m.at("nothing")
        assert m.store.take_requests() == {"head": 2, "list_page": 2}

    mounted(run)


def test_an_absence_is_remembered_for_the_negative_ttl() -> None:
    async def run(m: Mounted) -> None:
        for _ in range(3):
            with pytest.raises(NoSuchEntryError):
                await m.at("nothing")
        assert m.store.take_requests() == {"head": 1, "list_page": 1}
        m.store.seed("nothing", b"now")
        m.clock.jump(11)
        assert (await m.at("nothing")).kind is Kind.FILE

    mounted(run, negative_ttl_seconds=10.0)


def test_a_fresh_listing_answers_lookups_without_a_request() -> None:
    store = FakeStore()
    for number in range(20):
        store.seed(f"d/f{number}", b"x")
    store.seed("d/e/x", b"x")

    async def run(m: Mounted) -> None:
        d = await m.at("d")
        await m.names(d)
        m.store.take_requests()
        for number in range(20):
            assert (await m.namespace.attributes(await m.at(f"d/f{number}"))).size == 1
        assert (await m.at("d/e")).kind is Kind.DIRECTORY
        assert m.store.take_requests() == {}
        with pytest.raises(NoSuchEntryError):
            await m.at("d/absent")
        assert m.store.take_requests() == {"head": 1, "list_page": 1}

    mounted(run, store)


def test_a_fresh_listing_answers_absence_within_the_negative_ttl() -> None:
    store = FakeStore()
    store.seed("d/f", b"x")

    async def run(m: Mounted) -> None:
        d = await m.at("d")
        await m.names(d)
        m.store.take_requests()
        with pytest.raises(NoSuchEntryError):
            await m.at("d/absent")
        assert m.store.take_requests() == {}
        m.clock.jump(6)
        m.store.seed("d/absent", b"x")
        assert (await m.at("d/absent")).kind is Kind.FILE

    mounted(run, store, negative_ttl_seconds=5.0)


def test_changes_by_others_are_seen_after_the_ttl() -> None:
    store = FakeStore()
    store.seed("a", b"1")
    store.seed("gone", b"1")

    async def run(m: Mounted) -> None:
        a, gone = await m.at("a"), await m.at("gone")
        m.store.seed("a", b"123")
        m.store.erase("gone")
        assert (await m.namespace.attributes(a)).size == 1
        assert m.changed == []
        m.clock.jump(61)
        assert m.namespace.attributes_nowait(a) is None
        assert (await m.namespace.attributes(a)).size == 3
        assert m.changed == [a]
        # So that the kernel looks the name up, which a program may have made anew.
        with pytest.raises(StaleInodeError):
            await m.namespace.attributes(gone)
        with pytest.raises(NoSuchEntryError):
            await m.at("gone")

    mounted(run, store)


def test_a_ttl_of_zero_asks_every_time() -> None:
    store = FakeStore()
    store.seed("a", b"1")

    async def run(m: Mounted) -> None:
        a = await m.at("a")
        assert m.namespace.attributes_known(a).size == 1
        assert m.namespace.fresh_seconds(a, trio.current_time()) == 0
        m.store.seed("a", b"12")
        assert (await m.namespace.attributes(a)).size == 2
        m.store.seed("a", b"123")
        assert (await m.namespace.refresh_version(a)).size == 3
        await m.names(m.root)
        m.store.seed("b", b"1")
        assert await m.names(m.root) == ["a", "b"]

    mounted(run, store, metadata_ttl_seconds=0.0)


def test_an_older_answer_does_not_undo_a_newer_one() -> None:
    store = FakeStore()
    store.seed("d/a", b"1")

    async def run(m: Mounted) -> None:
        d = await m.at("d")
        a = await m.at("d/a")
        m.clock.jump(30)
        await m.names(d)
        m.store.seed("d/a", b"12")
        m.clock.jump(31)
        a.fresh_until = 0.0  # the reader found out that its version is gone
        assert (await m.namespace.refresh_version(a)).size == 2
        assert dict(await m.entries(d))["a"] is a
        assert (await m.namespace.attributes(a)).size == 2

    mounted(run, store)


def test_an_open_file_deleted_by_others_answers_from_memory() -> None:
    store = FakeStore()
    store.seed("a", b"1")

    async def run(m: Mounted) -> None:
        a = await m.at("a")
        a.open_count = 1
        m.store.erase("a")
        m.clock.jump(61)
        assert (await m.namespace.attributes(a)).size == 1

    mounted(run, store)


def test_directory_wins_over_an_object_of_its_name(caplog: pytest.LogCaptureFixture) -> None:
    store = FakeStore()
    store.seed("a", b"object")
    store.seed("a/b", b"1")

    async def run(m: Mounted) -> None:
        for _ in range(2):
            assert (await m.at("a")).kind is Kind.DIRECTORY
            assert await m.names(m.root) == ["a"]
            m.clock.jump(61)

    with caplog.at_level(logging.WARNING):
        mounted(run, store)
    assert [record.getMessage() for record in caplog.records] == [
        "object 'a' is hidden: keys below 'a/' make a directory of its name"
    ]


def test_a_directory_shows_the_attributes_of_its_marker() -> None:
    store = FakeStore()
    store.seed("d/", metadata={"mode": str(stat.S_IFDIR | 0o700), "uid": "12"})

    async def run(m: Mounted) -> None:
        d = await m.at("d")
        attributes = await m.namespace.attributes(d)
        assert (attributes.mode, attributes.uid) == (stat.S_IFDIR | 0o700, 12)
        m.store.take_requests()
        m.clock.jump(61)
        await m.namespace.attributes(d)
        assert m.store.take_requests() == {"list_page": 1}

    mounted(run, store)


def test_defaults_of_the_mount_apply_where_the_store_says_nothing() -> None:
    store = FakeStore()
    store.seed("d/f", b"x")

    async def run(m: Mounted) -> None:
        d = await m.namespace.attributes(await m.at("d"))
        f = await m.namespace.attributes(await m.at("d/f"))
        assert (d.mode, d.uid, d.gid) == (stat.S_IFDIR | 0o750, 3, 4)
        assert (f.mode, f.uid, f.gid) == (stat.S_IFREG | 0o440, 3, 4)
        assert f.mtime_ns == m.store.objects["d/f"].info.mtime_ns
        root = await m.namespace.attributes(m.root)
        assert (root.ino, root.mode) == (1, stat.S_IFDIR | 0o750)

    mounted(run, store, uid=3, gid=4, file_mode=0o440, dir_mode=0o750)


def test_an_object_that_became_a_directory_is_a_new_inode() -> None:
    store = FakeStore()
    store.seed("a", b"1")

    async def run(m: Mounted) -> None:
        file = await m.at("a")
        m.store.erase("a")
        m.store.seed("a/b", b"1")
        m.clock.jump(61)
        directory = await m.at("a")
        assert directory.kind is Kind.DIRECTORY
        assert directory is not file
        assert file.removed

    mounted(run, store)


def test_a_file_that_became_a_symlink_is_stale() -> None:
    store = FakeStore()
    store.seed("a", b"1")

    async def run(m: Mounted) -> None:
        file = await m.at("a")
        m.store.seed("a", metadata={"symlink-target": "header:1:b"})
        m.clock.jump(61)
        with pytest.raises(StaleInodeError):
            await m.namespace.attributes(file)
        assert (await m.at("a")).kind is Kind.SYMLINK

    mounted(run, store)


def test_one_definite_answer_is_enough_when_the_other_is_refused() -> None:
    store = FakeStore()
    store.seed("f", b"1")
    store.seed("d/x", b"1")

    async def run(m: Mounted) -> None:
        m.store.fail("list_page", AccessDeniedError("no ListBucket"))
        assert (await m.at("f")).kind is Kind.FILE
        m.store.fail("head", AccessDeniedError("no GetObject"))
        assert (await m.at("d")).kind is Kind.DIRECTORY

    mounted(run, store)


def test_a_failed_question_is_not_taken_for_absence() -> None:
    async def run(m: Mounted) -> None:
        m.store.fail("head", StoreUnavailableError("503"))
        with pytest.raises(StoreUnavailableError):
            await m.at("f")
        m.store.fail("list_page", AccessDeniedError("forbidden"))
        with pytest.raises(AccessDeniedError):
            await m.at("f")

    mounted(run, negative_ttl_seconds=60.0)


def test_a_missing_bucket_tells_of_no_name_that_it_is_absent() -> None:
    async def run(m: Mounted) -> None:
        m.store.fail("list_page", BucketMissingError("NoSuchBucket"))
        with pytest.raises(BucketMissingError):
            await m.at("f")

    mounted(run)


def test_nothing_is_below_a_file() -> None:
    store = FakeStore()
    store.seed("f", b"1")

    async def run(m: Mounted) -> None:
        with pytest.raises(NotADirectoryPathError):
            await m.at("f/x")

    mounted(run, store)


def test_a_lookup_overtaken_by_a_local_creation_finds_the_local_file() -> None:
    head_store = FakeStore()
    head = head_store.hold("head")

    async def run(m: Mounted) -> None:
        found: list[Inode] = []

        async def look() -> None:
            found.append(await m.at("a"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await trio.testing.wait_all_tasks_blocked()
            created = m.create(m.root, "a")
            head.set()
        assert found == [created]

    mounted(run, head_store)


def test_a_lookup_overtaken_by_a_local_unlink_does_not_bring_the_file_back() -> None:
    store = FakeStore()
    store.seed("a", b"1")

    async def run(m: Mounted) -> None:
        a = await m.at("a")
        m.clock.jump(61)
        answered = m.store.hold("list_page")

        async def look() -> None:
            with pytest.raises(NoSuchEntryError):
                await m.at("a")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            while not m.store.requests["head"] > 1:
                await trio.lowlevel.checkpoint()
            await m.namespace.unlink(m.root, "a")
            answered.set()
        assert a.removed

    mounted(run, store, threads=8)


def test_posix_metadata_asks_each_object_once_per_version() -> None:
    store = FakeStore()
    for number in range(30):
        store.seed(f"d/f{number:02}", b"x", metadata={"mode": str(stat.S_IFREG | 0o600)})

    async def run(m: Mounted) -> None:
        d = await m.at("d")
        m.store.take_requests()
        for _name, inode in await m.entries(d):
            attributes = m.namespace.attributes_nowait(inode)
            assert attributes is not None
            assert attributes.mode == stat.S_IFREG | 0o600
        assert m.store.take_requests() == {"list_page": 1, "head": 30}
        m.store.seed("d/f07", b"y", metadata={"mode": str(stat.S_IFREG | 0o640)})
        m.clock.jump(61)
        entries = dict(await m.entries(d))
        assert m.store.take_requests() == {"list_page": 1, "head": 1}
        attributes = await m.namespace.attributes(entries["f07"])
        assert attributes.mode == stat.S_IFREG | 0o640

    mounted(run, store, posix_metadata=True)


def test_a_cached_listing_answers_for_inodes_that_were_displaced() -> None:
    store = FakeStore()
    for number in range(20):
        store.seed(f"d/f{number:02}", b"x")
        store.seed(f"d/g{number:02}/x", b"x")
    store.seed("d/empty")
    for number in range(60):
        store.seed(f"o{number:02}", b"x")

    async def run(m: Mounted) -> None:
        d = await m.at("d")
        m.namespace.remember(d)
        await m.names(d)
        for number in range(60):
            await m.at(f"o{number:02}")
        assert m.namespace.known_child(d, "f00") is None
        m.store.take_requests()
        assert (await m.at("d/f00")).size == 1
        assert (await m.at("d/g00")).kind is Kind.DIRECTORY
        assert m.store.take_requests() == {}
        assert (await m.at("d/empty")).kind is Kind.FILE
        assert m.store.take_requests() == {"head": 1, "list_page": 1}
        m.namespace.invalidate(await m.at("d/f00"))
        await m.at("d/f00")
        assert m.store.take_requests() == {"head": 1, "list_page": 1}

    mounted(run, store, max_entries=50)


async def look(m: Mounted, d: Inode, names: Iterable[str]) -> None:
    """What `ls -l` does after it has read the directory."""
    for name in names:
        assert (await m.namespace.lookup(d, name)).kind is Kind.FILE


NAMES = [f"{number:04}.bin" for number in range(2500)]


def large_directory() -> FakeStore:
    store = FakeStore(page_size=1000)
    for name in NAMES:
        store.seed(f"d/{name}", b"12345")
    return store


def test_a_look_at_each_name_of_a_listing_that_grew_old_costs_a_request_a_page() -> None:
    async def run(m: Mounted) -> None:
        d = await m.at("d")
        assert await m.names(d) == NAMES
        m.clock.jump(61)
        m.store.seed("d/0500.bin", b"of others")
        m.store.take_requests()
        await look(m, d, NAMES)
        counts = m.store.take_requests()
        assert counts["head"] <= 3
        assert counts["list_page"] <= 7
        assert (await m.namespace.attributes(await m.at("d/0500.bin"))).size == 9
        m.clock.jump(61)
        await look(m, d, NAMES[::10])
        counts = m.store.take_requests()
        assert counts["head"] <= 3
        assert counts["list_page"] <= 7

    mounted(run, large_directory(), metadata_ttl_seconds=60.0)


@pytest.mark.parametrize("ttl_seconds", [0.0, 60.0])
def test_names_that_no_program_has_listed_are_asked_one_by_one(ttl_seconds: float) -> None:
    """A HEAD tells more than a listing, which nobody has asked for."""

    async def run(m: Mounted) -> None:
        d = await m.at("d")
        if not ttl_seconds:  # listed, but nothing is believed
            await m.names(d)
        m.store.take_requests()
        await look(m, d, NAMES[:50])
        assert m.store.take_requests()["head"] == 50

    mounted(run, large_directory(), metadata_ttl_seconds=ttl_seconds)


def test_names_further_apart_than_a_page_cost_few_requests_more() -> None:
    async def run(m: Mounted) -> None:
        d = await m.at("d")
        await m.names(d)
        m.store.take_requests()
        for _ in range(20):
            m.clock.jump(61)
            await look(m, d, NAMES[::1200])
        counts = m.store.take_requests()
        assert counts["head"] == 60
        assert counts["list_page"] <= 62 + 2

    mounted(run, large_directory(), metadata_ttl_seconds=60.0)


def test_a_page_that_answers_for_old_names_hides_no_change_made_here() -> None:
    async def run(m: Mounted) -> None:
        d = await m.at("d")
        await m.names(d)
        m.clock.jump(61)
        await look(m, d, NAMES[:10])
        await m.namespace.unlink(d, NAMES[20])
        with pytest.raises(NoSuchEntryError):
            await m.at(f"d/{NAMES[20]}")
        m.commit(m.create(d, NAMES[20]), b"123")
        assert (await m.namespace.attributes(await m.at(f"d/{NAMES[20]}"))).size == 3
        m.store.take_requests()
        await look(m, d, NAMES[:900])
        assert m.store.take_requests() == {}

    mounted(run, large_directory(), metadata_ttl_seconds=60.0)


def test_objects_that_a_listing_tells_too_little_of_are_asked_for_without_pages() -> None:
    store = FakeStore(page_size=1000)
    for name in NAMES[:400]:
        store.seed(f"d/{name}", b"")  # may be symbolic links

    async def run(m: Mounted) -> None:
        d = await m.at("d")
        await m.names(d)
        m.clock.jump(61)
        m.store.take_requests()
        await look(m, d, NAMES[:400])
        counts = m.store.take_requests()
        assert counts["head"] <= 400
        assert counts["list_page"] <= 404

    mounted(run, store, metadata_ttl_seconds=60.0)

"""Modes that nobody asked the store for grant nothing to others, and are asked when looked at."""

import stat
from typing import Any

import pytest
import trio

from ossfs_py.errors import AccessDeniedError, StoreUnavailableError
from ossfs_py.namespace.metadata import encode
from tests.support.fake_store import FakeStore
from tests.support.namespaces import Mounted, mounted

OWNER, USER = 7, 1000
SHARED: dict[str, Any] = {"guessed_for_uid": OWNER, "uid": USER, "gid": USER, "dir_mode": 0o2775}
CLOSED = {"mode": str(0o100600), "uid": "5", "gid": "5"}


def shown(m: Mounted, inode: Any) -> tuple[int, int]:
    attributes = m.namespace.attributes_known(inode)
    return stat.S_IMODE(attributes.mode), attributes.uid


def bucket() -> FakeStore:
    store = FakeStore()
    store.seed("file", b"1", metadata=CLOSED)
    store.seed("plain", b"1")
    store.seed("dir/", b"", metadata={"mode": str(0o40700), "uid": "5", "gid": "5"})
    store.seed("dir/inside", b"1")
    store.seed("bare/inside", b"1")
    return store


def test_what_was_listed_only_is_the_owner_s_and_not_to_be_believed() -> None:
    async def run(m: Mounted) -> None:
        found = dict(await m.entries(m.root))
        assert m.store.take_requests() == {"list_page": 1}
        assert {name: shown(m, inode) for name, inode in found.items()} == {
            "file": (0o600, OWNER),
            "plain": (0o600, OWNER),
            "dir": (0o2700, OWNER),
            "bare": (0o2700, OWNER),
        }
        for inode in found.values():
            assert m.namespace.fresh_seconds(inode, trio.current_time()) == 0
            assert m.namespace.attributes_nowait(inode) is None
        assert shown(m, m.root) == (0o2775, USER)

    mounted(run, bucket(), **SHARED)


def test_who_looks_is_told_what_is_stored_for_one_request() -> None:
    async def run(m: Mounted) -> None:
        found = dict(await m.entries(m.root))
        m.store.take_requests()
        for name, expected in {
            "file": (0o600, 5),
            "plain": (0o644, USER),
            "dir": (0o700, 5),
            "bare": (0o2775, USER),
        }.items():
            for requests in ({"head": 1}, {}):
                attributes = await m.namespace.attributes(found[name])
                assert (stat.S_IMODE(attributes.mode), attributes.uid) == expected
                assert m.store.take_requests() == requests
            assert m.namespace.fresh_seconds(found[name], trio.current_time()) > 0

    mounted(run, bucket(), **SHARED)


def test_a_name_that_was_never_listed_costs_no_request_more() -> None:
    async def run(m: Mounted) -> None:
        file = await m.at("file")
        assert (await m.namespace.attributes(file)).uid == 5
        assert m.store.take_requests() == {"head": 1, "list_page": 1}

    mounted(run, bucket(), **SHARED)


def test_an_answer_that_crosses_a_listing_counts() -> None:
    store = bucket()
    head = store.hold("head")

    async def run(m: Mounted) -> None:
        found = dict(await m.entries(m.root))

        async def look(name: str) -> None:
            assert (await m.namespace.attributes(found[name])).uid == 5

        async with trio.open_nursery() as nursery:
            for name in ("file", "dir"):
                nursery.start_soon(look, name)
            await trio.testing.wait_all_tasks_blocked()
            m.clock.jump(1)
            m.namespace.invalidate(m.root)
            await m.entries(m.root)
            head.set()

    mounted(run, store, **SHARED)


def test_the_mode_of_a_directory_is_asked_anew_after_the_ttl_however_often_it_is_listed() -> None:
    async def run(m: Mounted) -> None:
        directory = dict(await m.entries(m.root))["bare"]
        assert (await m.namespace.attributes(directory)).uid == USER
        m.store.seed("bare/", b"", metadata={"mode": str(0o40700), "uid": "5"})
        asked_at = trio.current_time()
        while trio.current_time() - asked_at <= 60:
            m.clock.jump(7)
            m.namespace.invalidate(m.root)
            directory = dict(await m.entries(m.root))["bare"]
        assert shown(m, directory) == (0o2700, OWNER)
        attributes = await m.namespace.attributes(directory)
        assert (stat.S_IMODE(attributes.mode), attributes.uid) == (0o700, 5)

    mounted(run, bucket(), **SHARED)


def test_an_object_that_was_replaced_is_asked_about_anew() -> None:
    async def run(m: Mounted) -> None:
        file = dict(await m.entries(m.root))["plain"]
        assert (await m.namespace.attributes(file)).uid == USER
        m.store.seed("plain", b"2", metadata=CLOSED)
        m.namespace.invalidate(m.root)
        file = dict(await m.entries(m.root))["plain"]
        assert shown(m, file) == (0o600, OWNER)
        assert (await m.namespace.attributes(file)).uid == 5

    mounted(run, bucket(), **SHARED)


def test_what_may_not_be_asked_stays_the_owner_s_and_an_outage_is_told() -> None:
    store = bucket()

    async def run(m: Mounted) -> None:
        found = dict(await m.entries(m.root))
        store.fail("head", AccessDeniedError("no"))
        assert (await m.namespace.attributes(found["file"])).uid == OWNER
        store.fail("head", StoreUnavailableError("not now"))
        with pytest.raises(StoreUnavailableError):
            await m.namespace.attributes(found["dir"])

    mounted(run, store, **SHARED)


@pytest.mark.parametrize("kind", ["files", "directories"])
def test_looks_in_listing_order_are_asked_ahead_side_by_side(kind: str) -> None:
    store = FakeStore()
    names = [f"{number:03}" for number in range(300)]
    for name in names:
        store.seed(f"d/{name}" if kind == "files" else f"d/{name}/inside", b"1")

    async def run(m: Mounted) -> None:
        found = dict(await m.entries(await m.at("d")))
        m.store.take_requests()
        waited = 0
        for name in names:
            if m.namespace.attributes_nowait(found[name]) is None:
                waited += 1
                await m.namespace.attributes(found[name])
            if waited < 20:
                await m.answered()
        await m.answered()
        assert m.store.take_requests() == {"head": 300}
        assert waited < 30

    mounted(run, store, **SHARED)


def test_a_few_looks_in_any_order_ask_for_what_was_looked_at_only() -> None:
    store = FakeStore()
    for number in range(300):
        store.seed(f"d/{number:03}", b"1")

    async def run(m: Mounted) -> None:
        found = dict(await m.entries(await m.at("d")))
        m.store.take_requests()
        for number in (250, 10, 100):
            await m.namespace.attributes(found[f"{number:03}"])
            await m.answered()
        assert m.store.take_requests() == {"head": 3}
        for number in range(5, 300, 50):  # a loader, whatever its order
            await m.namespace.attributes(found[f"{number:03}"])
        await m.answered()
        assert m.store.take_requests() == {"head": 297}

    mounted(run, store, **SHARED)


def test_attributes_of_listed_files_are_asked_ahead_side_by_side() -> None:
    """As ls(1) of coreutils 9.6 does: it asks each file for the names of its attributes."""
    store = FakeStore()
    names = [f"{number:03}" for number in range(300)]
    for name in names:
        value = {"user.is": name.encode()}
        store.seed(f"d/{name}", b"1", metadata=encode(mode=0o100644, uid=0, gid=0, xattrs=value))

    async def run(m: Mounted) -> None:
        found = dict(await m.entries(await m.at("d")))
        m.store.take_requests()
        waited = 0
        for name in names:
            info = found[name].info
            assert info is not None
            waited += m.namespace._tree.metadata.complete(info).metadata is None
            assert await m.namespace.list_xattrs(found[name]) == [b"user.is"]
            assert await m.namespace.get_xattr(found[name], b"user.is") == name.encode()
            if waited < 20:
                await m.answered()
        await m.answered()
        assert m.store.take_requests() == {"head": 300}
        assert waited < 30

    mounted(run, store)


def test_who_asks_for_the_attributes_of_a_few_files_asks_for_no_others() -> None:
    store = FakeStore()
    for number in range(300):
        store.seed(f"d/{number:03}", b"1")

    async def run(m: Mounted) -> None:
        found = dict(await m.entries(await m.at("d")))
        m.store.take_requests()
        for number in range(5, 300, 20):
            await m.namespace.list_xattrs(found[f"{number:03}"])
        await m.answered()
        assert m.store.take_requests() == {"head": 15}

    mounted(run, store)

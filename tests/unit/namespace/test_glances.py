"""A new name in a small directory: the request that tells of it also tells what is in it."""

import threading
import time

import pytest
import trio
import trio.testing

from ossfs_py.errors import NoSuchEntryError, StoreError, StoreUnavailableError
from ossfs_py.model import ListPage, ListQuery
from ossfs_py.namespace.inode import Inode, Kind
from tests.support.fake_store import FakeStore
from tests.support.namespaces import Mounted, mounted

UID, GID = 7, 8


async def made_here(m: Mounted) -> Inode:
    """A directory in which others store something after this mount has made it."""
    with pytest.raises(NoSuchEntryError):
        await m.namespace.lookup(m.root, "d")
    return await m.namespace.make_directory(m.root, "d", 0o755, UID, GID)


def seed(m: Mounted, directory: str, count: int) -> None:
    for number in range(count):
        m.store.seed(f"{directory}/{number:05}", b"x")


def test_a_new_directory_is_found_and_listed_by_three_requests_at_once() -> None:
    async def run(m: Mounted) -> None:
        d = await made_here(m)
        seed(m, "d/old", 200)
        m.store.seed("d/old/sub/file", b"x")
        m.store.seed("d/old/", b"", metadata={"mode": "16832"})
        m.store.seed("d/file", b"x")
        m.clock.jump(2)
        m.store.take_requests()
        old = await m.namespace.lookup(d, "old")
        assert (await m.namespace.attributes(old)).mode & 0o777 == 0o700
        assert len(await m.names(old)) == 201
        assert await m.names(dict(await m.entries(old))["sub"]) == ["file"]
        assert await m.names(d) == ["file", "old"]
        assert m.store.take_requests() == {"head": 1, "list_page": 2}

    mounted(run, negative_ttl_seconds=1.0)


def test_a_new_file_and_an_absent_name_cost_no_more() -> None:
    async def run(m: Mounted) -> None:
        d = await made_here(m)
        m.store.seed("d/file", b"x")
        m.clock.jump(2)
        m.store.take_requests()
        with pytest.raises(NoSuchEntryError):
            await m.namespace.lookup(d, "absent")
        await m.answered()
        assert m.store.take_requests() == {"head": 1, "list_page": 2}
        m.clock.jump(2)
        assert (await m.namespace.lookup(d, "file")).kind is Kind.FILE
        assert m.store.take_requests() == {"head": 1, "list_page": 1}

    mounted(run, negative_ttl_seconds=1.0)


async def asked_on(m: Mounted) -> None:
    """Wait until a page is asked for that nobody waits for."""
    with trio.fail_after(60):
        while not m.store.requests["list_page"]:
            await trio.to_thread.run_sync(time.sleep, 0.001)
    await m.answered()
    assert m.store.take_requests() == {"list_page": 1}


def test_who_goes_through_the_directories_of_a_page_does_not_wait_behind_it() -> None:
    """The walk is at the page's end before the program: also if it removes what it has listed."""

    async def run(m: Mounted) -> None:
        d = await made_here(m)
        for number in range(15):
            seed(m, f"d/old/{number:02}", 100)
        m.clock.jump(2)
        old = await m.namespace.lookup(d, "old")
        names = dict(sorted(await m.entries(old)))
        m.store.take_requests()
        for number, (name, directory) in enumerate(names.items()):
            listed = await m.entries(directory)
            assert len(listed) == 100
            if number == 0:
                await asked_on(m)
            if number in {3, 4}:
                for entry, inode in listed:
                    del m.store.objects[f"d/old/{name}/{entry}"]
                    m.namespace.note_unlinked(inode)
                m.namespace.note_unlinked(directory)
        assert m.store.take_requests() == {}

    mounted(run, negative_ttl_seconds=1.0)


def test_what_one_page_does_not_hold_is_listed_as_ever() -> None:
    """The directory is found by it, and what is whole in it is known; it is not asked so again."""

    async def run(m: Mounted) -> None:
        d = await made_here(m)
        seed(m, "d/old/a", 400)
        seed(m, "d/old/b", 1400)
        m.store.seed("d/z", b"x")
        m.clock.jump(2)
        m.store.take_requests()
        old = await m.namespace.lookup(d, "old")
        await m.answered()
        assert m.store.take_requests() == {"head": 1, "list_page": 2}
        names = dict(await m.entries(old))
        assert list(names) == ["a", "b"]
        assert m.store.take_requests() == {"list_page": 1}
        assert len(await m.names(names["a"])) == 400
        await asked_on(m)  # for who goes on to b
        assert len(await m.names(names["b"])) == 1400
        assert await m.names(d) == ["old", "z"]
        m.clock.jump(2)
        queries: list[ListQuery] = []
        ask = m.store.list_page

        def list_page(query: ListQuery) -> ListPage:
            queries.append(query)
            return ask(query)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(m.store, "list_page", list_page)
            with pytest.raises(NoSuchEntryError):
                await m.namespace.lookup(d, "absent")
        assert [query.delimiter for query in queries] == ["/"]

    mounted(run, negative_ttl_seconds=1.0)


def test_a_name_behind_the_page_is_asked_for_by_itself() -> None:
    async def run(m: Mounted) -> None:
        d = await made_here(m)
        seed(m, "d/old", 1400)
        m.store.seed("d/z/file", b"x")
        m.clock.jump(2)
        assert (await m.namespace.lookup(d, "z")).kind is Kind.DIRECTORY
        with pytest.raises(NoSuchEntryError):
            await m.namespace.lookup(d, "zz")
        assert await m.names(d) == ["old", "z"]

    mounted(run, negative_ttl_seconds=1.0)


@pytest.mark.parametrize("names", [3, 1400])
def test_a_page_out_of_order_is_not_used(names: int) -> None:
    class Shuffled(FakeStore):
        def list_page(self, query: ListQuery) -> ListPage:
            page = super().list_page(query)
            return ListPage(page.objects[::-1], page.prefixes[::-1], page.next_token)

    async def run(m: Mounted) -> None:
        d = await made_here(m)
        seed(m, "d/old", names)
        m.clock.jump(2)
        old = await m.namespace.lookup(d, "old")
        assert len(await m.names(old)) == names

    mounted(run, Shuffled(), negative_ttl_seconds=1.0)


class FlatIsLate(FakeStore):
    """Whose answers about whole trees wait for :attr:`let_go`, or fail."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()
        self.error: StoreError | None = None

    def list_page(self, query: ListQuery) -> ListPage:
        page = super().list_page(query)
        if not query.delimiter and query.max_keys > 1:
            assert self.let_go.wait(60)
            if self.error is not None:
                raise self.error
        return page


def test_who_wants_only_the_name_does_not_wait_for_what_is_in_the_directory() -> None:
    """rename(2): a flat page tells of up to a thousand keys, and takes longer to come."""
    store = FlatIsLate()

    async def run(m: Mounted) -> None:
        d = await made_here(m)
        seed(m, "d/old", 3)
        m.clock.jump(2)
        with trio.fail_after(60):
            assert (await m.namespace.lookup(d, "old")).kind is Kind.DIRECTORY
            with pytest.raises(NoSuchEntryError):
                await m.namespace.lookup(d, "new")
        store.let_go.set()

    mounted(run, store, negative_ttl_seconds=1.0)


@pytest.mark.parametrize("error", [None, StoreUnavailableError("down")])
def test_who_lists_it_waits_for_the_page_that_is_on_its_way(error: StoreError | None) -> None:
    """Or asks for it, should that page not come."""
    store = FlatIsLate()

    async def run(m: Mounted) -> None:
        d = await made_here(m)
        seed(m, "d/old", 3)
        m.clock.jump(2)
        old = await m.namespace.lookup(d, "old")
        m.store.take_requests()
        store.error = error
        async with trio.open_nursery() as nursery:
            names: list[str] = []

            async def read() -> None:
                names.extend(await m.names(old))

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            assert not names
            store.let_go.set()
        assert len(names) == 3
        assert m.store.take_requests() == ({} if error is None else {"list_page": 1})

    mounted(run, store, negative_ttl_seconds=1.0)


def test_a_page_that_does_not_come_leaves_the_question_to_others() -> None:
    async def run(m: Mounted) -> None:
        d = await made_here(m)
        seed(m, "d/old", 3)
        m.clock.jump(2)
        m.store.fail("list_page", StoreUnavailableError("down"))
        assert len(await m.names(await m.namespace.lookup(d, "old"))) == 3

    mounted(run, negative_ttl_seconds=1.0)


def test_what_this_mount_makes_or_removes_meanwhile_is_seen() -> None:
    async def run(m: Mounted) -> None:
        d = await made_here(m)
        seed(m, "d/old", 3)
        m.clock.jump(2)
        found: list[Inode] = []

        async def look() -> None:
            found.append(await m.namespace.lookup(d, "old"))

        async with trio.open_nursery() as nursery:
            with m.store.holding("list_page"):
                nursery.start_soon(look)
                await trio.testing.wait_all_tasks_blocked()
                m.commit(m.create(d, "mine"), b"1")
        assert await m.names(d) == ["mine", "old"]
        (old,) = found
        await m.namespace.unlink(old, "00001")
        m.commit(m.create(old, "new"), b"1")
        assert await m.names(old) == ["00000", "00002", "new"]

    mounted(run, negative_ttl_seconds=1.0)


def test_what_was_told_with_a_name_is_believed_no_longer_than_any_listing() -> None:
    async def run(m: Mounted) -> None:
        d = await made_here(m)
        seed(m, "d/old", 3)
        m.clock.jump(2)
        await m.namespace.lookup(d, "old")
        m.store.seed("d/old/later", b"x")
        m.clock.jump(61)
        assert "later" in await m.names(await m.namespace.lookup(d, "old"))

    mounted(run, negative_ttl_seconds=1.0)

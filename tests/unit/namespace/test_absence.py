"""What is said of names that are not there, at what cost, and for how long it is believed."""

import pytest
import trio
import trio.testing

from ossfs_py.errors import NoSuchEntryError, StoreUnavailableError
from ossfs_py.model import ListPage, ListQuery
from ossfs_py.namespace.inode import Kind
from tests.support.fake_store import FakeStore
from tests.support.namespaces import Mounted, mounted

UID, GID = 7, 8


async def absent(m: Mounted, path: str) -> None:
    with pytest.raises(NoSuchEntryError):
        await m.at(path)


def stored(*keys: str, page_size: int = 1000) -> FakeStore:
    store = FakeStore(page_size=page_size)
    for key in keys:
        store.seed(key, b"x")
    return store


def test_a_directory_made_here_says_what_is_not_in_it() -> None:
    async def run(m: Mounted) -> None:
        await absent(m, "d")
        d = await m.namespace.make_directory(m.root, "d", 0o755, UID, GID)
        m.store.take_requests()
        for name in ("a", "b", "c"):
            await absent(m, f"d/{name}")
            m.commit(m.create(d, name), b"x")
        await m.namespace.make_directory(d, "e", 0o755, UID, GID)
        await absent(m, "d/e/f")
        assert m.store.take_requests() == {"put": 1}
        assert sorted(await m.names(d)) == ["a", "b", "c", "e"]

    mounted(run, negative_ttl_seconds=1.0)


@pytest.mark.parametrize("negative_ttl_seconds", [0.0, 1.0, 3600.0])
def test_who_lists_a_directory_made_here_is_told_what_others_stored_in_it(
    negative_ttl_seconds: float,
) -> None:
    async def run(m: Mounted) -> None:
        await absent(m, "d")
        d = await m.namespace.make_directory(m.root, "d", 0o755, UID, GID)
        m.commit(m.create(d, "ours"), b"x")
        m.store.seed("d/theirs", b"x")
        assert sorted(await m.names(d)) == ["ours", "theirs"]
        m.store.take_requests()
        assert sorted(await m.names(d)) == ["ours", "theirs"]
        assert m.store.take_requests() == {}

    mounted(run, negative_ttl_seconds=negative_ttl_seconds)


def test_a_directory_made_here_is_believed_no_longer_than_what_said_that_it_was_free() -> None:
    async def run(m: Mounted) -> None:
        await absent(m, "d")
        m.clock.jump(0.9)
        m.store.seed("d/others", b"x")
        await m.namespace.make_directory(m.root, "d", 0o755, UID, GID)
        m.clock.jump(0.2)
        assert (await m.at("d/others")).kind is Kind.FILE

    mounted(run, negative_ttl_seconds=1.0)


def test_a_burst_of_absent_names_is_answered_by_one_listing() -> None:
    async def run(m: Mounted) -> None:
        d = await m.at("d")
        m.store.take_requests()
        await absent(m, "d/new0")
        assert m.store.take_requests() == {"head": 1, "list_page": 1}
        for number in range(1, 20):
            await absent(m, f"d/new{number}")
            m.commit(m.create(d, f"new{number}"), b"x")
        assert m.store.take_requests() == {"list_page": 1}

    mounted(run, stored("d/f", "d/e/g"), negative_ttl_seconds=1.0)


def test_a_burst_that_goes_on_costs_one_listing_for_each_lifetime() -> None:
    async def run(m: Mounted) -> None:
        await absent(m, "d/x")
        m.store.take_requests()
        for number in range(50):
            m.clock.jump(0.1)
            await absent(m, f"d/new{number}")
        assert 5 <= m.store.take_requests()["list_page"] <= 6

    mounted(run, stored("d/f"), negative_ttl_seconds=1.0)


def test_a_large_directory_is_asked_name_by_name_with_one_request() -> None:
    keys = [f"d/f{number}" for number in range(9)] + ["d/same", "d/same-1", "d/same/below"]

    async def run(m: Mounted) -> None:
        await m.at("d")
        await absent(m, "d/new")
        m.store.take_requests()
        await absent(m, "d/first")
        assert m.store.take_requests() == {"list_page": 2}  # it is found to be large
        for number in range(5):
            await absent(m, f"d/new{number}")
        assert m.store.take_requests() == {"list_page": 5}
        assert (await m.at("d/f3")).kind is Kind.FILE
        assert (await m.at("d/same")).kind is Kind.DIRECTORY
        assert (await m.at("d/same-1")).kind is Kind.FILE

    mounted(run, stored(*keys, page_size=4), negative_ttl_seconds=1.0)


def test_names_that_begin_alike_hide_no_directory_of_a_large_one() -> None:
    """``n/`` comes after ``n-00`` to ``n-39`` in every listing."""
    keys = [f"d/n-{number:02}" for number in range(40)] + ["d/n/below"]

    async def run(m: Mounted) -> None:
        await absent(m, "d/x")
        await absent(m, "d/y")
        assert (await m.at("d/n")).kind is Kind.DIRECTORY

    mounted(run, stored(*keys, page_size=20), negative_ttl_seconds=1.0)


def test_what_is_in_a_directory_listed_for_absences_shows_what_is_stored_with_it() -> None:
    store = stored("d/f")
    store.seed("d/tool", b"x", metadata={"mode": str(0o100755)})

    async def run(m: Mounted) -> None:
        await absent(m, "d/a")
        await absent(m, "d/b")
        tool = await m.at("d/tool")
        assert (await m.namespace.attributes(tool)).mode & 0o777 == 0o755

    mounted(run, store, negative_ttl_seconds=1.0)


def test_a_name_that_others_make_is_seen_within_its_lifetime() -> None:
    async def run(m: Mounted) -> None:
        await absent(m, "d/a")
        await absent(m, "d/b")
        m.clock.jump(0.9)
        m.store.seed("d/b", b"x")
        await absent(m, "d/b")
        m.clock.jump(0.2)
        assert (await m.at("d/b")).kind is Kind.FILE

    mounted(run, stored("d/f"), negative_ttl_seconds=1.0)


def test_a_listing_slower_than_the_lifetime_answers_once() -> None:
    store = stored("d/f")

    async def run(m: Mounted) -> None:
        await absent(m, "d/a")
        m.store.take_requests()
        gate = store.hold("list_page")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(absent, m, "d/b")
            await trio.testing.wait_all_tasks_blocked(0.01)
            m.clock.jump(1.5)
            gate.set()
        assert m.store.take_requests() == {"list_page": 1}

    mounted(run, store, negative_ttl_seconds=1.0)


def test_a_burst_that_cannot_be_listed_is_asked_as_ever() -> None:
    async def run(m: Mounted) -> None:
        await absent(m, "d/a")
        m.store.fail("list_page", StoreUnavailableError("later"))
        await absent(m, "d/b")
        m.store.fail("list_page", StoreUnavailableError("later"), times=3)
        m.clock.jump(1.5)
        with pytest.raises(StoreUnavailableError):
            await m.at("d/c")

    mounted(run, stored("d/f"), negative_ttl_seconds=1.0)


def test_a_file_made_here_while_the_burst_is_listed_is_there() -> None:
    store = stored("d/f")

    async def run(m: Mounted) -> None:
        d = await m.at("d")
        await absent(m, "d/a")
        gate = store.hold("list_page")
        found: list[Kind] = []

        async def look() -> None:
            found.append((await m.at("d/b")).kind)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await trio.testing.wait_all_tasks_blocked(0.01)
            m.create(d, "b")
            gate.set()
        assert found == [Kind.FILE]

    mounted(run, store, negative_ttl_seconds=1.0)


def test_with_a_lifetime_of_zero_every_absence_is_asked_for() -> None:
    async def run(m: Mounted) -> None:
        await absent(m, "d")
        await m.namespace.make_directory(m.root, "d", 0o755, UID, GID)
        m.store.take_requests()
        for _ in range(3):
            await absent(m, "d/a")
        assert m.store.take_requests() == {"head": 3, "list_page": 3}
        assert m.namespace.tell_absent(await m.at("d"), "a") == 0

    mounted(run, negative_ttl_seconds=0.0)


def test_the_kernel_is_told_of_an_absence_for_what_is_left_of_its_lifetime() -> None:
    async def run(m: Mounted) -> None:
        await absent(m, "a")
        assert m.namespace.tell_absent(m.root, "a") == pytest.approx(10.0)
        m.clock.jump(4)
        assert m.namespace.tell_absent(m.root, "a") == pytest.approx(6.0)
        m.clock.jump(7)
        assert m.namespace.tell_absent(m.root, "a") == 0

    mounted(run, negative_ttl_seconds=10.0)


def test_an_absence_that_a_listing_disproves_is_taken_back_from_the_kernel() -> None:
    async def run(m: Mounted) -> None:
        await absent(m, "d/a")
        d = await m.at("d")
        assert m.namespace.tell_absent(d, "a") > 0
        m.store.seed("d/a", b"x")
        await m.names(d)
        assert m.appeared == [(d, "a")]

    mounted(run, stored("d/f"), negative_ttl_seconds=60.0)


def test_an_absence_is_not_taken_back_where_the_kernel_made_or_asked_for_the_name_itself() -> None:
    async def run(m: Mounted) -> None:
        await absent(m, "d/a")
        await absent(m, "d/b")
        d = await m.at("d")
        for name in ("a", "b"):
            m.namespace.tell_absent(d, name)
        m.commit(m.create(d, "a"), b"x")
        m.store.seed("d/b", b"x")
        m.namespace.kernel_asks(d, "b")
        await m.names(d)
        assert m.appeared == []

    mounted(run, stored("d/f"), negative_ttl_seconds=60.0)


def test_refresh_takes_all_absences_back() -> None:
    async def run(m: Mounted) -> None:
        await absent(m, "a")
        m.namespace.tell_absent(m.root, "a")
        m.namespace.forget_answers(m.root)
        assert m.appeared == [(m.root, "a")]
        m.store.seed("a", b"x")
        assert (await m.at("a")).kind is Kind.FILE

    mounted(run, negative_ttl_seconds=60.0)


def test_the_two_names_of_a_rename_are_told_by_one_listing_of_a_small_directory() -> None:
    """Beside a HEAD, at the same time, that tells the mode of the one that is there."""

    async def run(m: Mounted) -> None:
        m.store.seed("d/other", b"x")
        d = await m.at("d")
        assert await m.names(d) == ["other"]
        m.store.seed("d/old/", b"", metadata={"mode": "16832"})
        m.store.seed("d/old/file", b"x")
        m.clock.jump(2)
        m.store.take_requests()
        old = await m.namespace.lookup(d, "old")
        assert (await m.namespace.attributes(old)).mode & 0o777 == 0o700
        await absent(m, "d/new")
        # One of the two that are sent at once tells what is in it, should it be listed next.
        assert m.store.take_requests() == {"head": 1, "list_page": 2}
        m.store.seed("d/new", b"x")
        m.clock.jump(1.1)
        assert (await m.namespace.lookup(d, "new")).kind is Kind.FILE

    mounted(run, negative_ttl_seconds=1.0)


@pytest.mark.parametrize("names", [100, 101])
def test_a_name_of_a_larger_directory_is_asked_for_by_itself(names: int) -> None:
    async def run(m: Mounted) -> None:
        assert len(await m.names(m.root)) == names
        m.clock.jump(2)
        m.store.take_requests()
        pages: list[ListQuery] = []
        ask = m.store.list_page

        def list_page(query: ListQuery) -> ListPage:
            pages.append(query)
            return ask(query)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(m.store, "list_page", list_page)
            await absent(m, "absent")
        assert [page.max_keys for page in pages] == ([1000, 1000] if names <= 100 else [1])
        assert m.store.take_requests()["head"] == 1

    mounted(run, stored(*(f"{number:03}" for number in range(names))), negative_ttl_seconds=1.0)


def test_a_name_is_asked_for_where_its_directory_cannot_be_listed_or_has_an_object_of_it() -> None:
    async def run(m: Mounted) -> None:
        await absent(m, "d")
        d = await m.namespace.make_directory(m.root, "d", 0o755, UID, GID)
        m.store.seed("d/file", b"x", metadata={"mode": "33152"})
        m.clock.jump(2)
        m.store.fail("list_page", StoreUnavailableError("down"))
        file = await m.namespace.lookup(d, "file")
        assert (await m.namespace.attributes(file)).mode & 0o777 == 0o600
        m.store.seed("d/other", b"x", metadata={"mode": "33152"})
        m.clock.jump(2)
        other = await m.namespace.lookup(d, "other")
        assert (await m.namespace.attributes(other)).mode & 0o777 == 0o600

    mounted(run, negative_ttl_seconds=1.0)

"""Directories that this mount made: one request tells for a whole tree what others stored in it."""

import pytest
import trio
import trio.testing

from ossfs_py.errors import DirectoryNotEmptyError, NoSuchEntryError, StoreUnavailableError
from ossfs_py.namespace.inode import Inode
from tests.support.fake_store import FakeStore
from tests.support.namespaces import Mounted, mounted
from tests.support.tree_order_store import TreeOrderStore

UID, GID = 7, 8
DIRECTORIES = tuple(f"e{number}" for number in range(6))


async def absent(m: Mounted, path: str) -> None:
    with pytest.raises(NoSuchEntryError):
        await m.at(path)


async def made(m: Mounted, parent: Inode, name: str, *, put_off: bool = False) -> Inode:
    with pytest.raises(NoSuchEntryError):
        await m.namespace.lookup(parent, name)
    return await m.namespace.make_directory(parent, name, 0o755, UID, GID, put_off=put_off)


async def tree(m: Mounted, *, put_off: bool = False) -> list[Inode]:
    """A directory made here with some more in it, each with a file; no request is counted."""
    d = await made(m, m.root, "d", put_off=put_off)
    below = [await made(m, d, name, put_off=put_off) for name in DIRECTORIES]
    for directory in below:
        m.commit(m.create(directory, "f"), b"x")
    m.store.take_requests()
    return [d, *below]


@pytest.mark.parametrize("put_off", [False, True])
def test_one_request_tells_of_absent_names_in_all_directories_of_a_tree(put_off: bool) -> None:
    async def run(m: Mounted) -> None:
        await tree(m, put_off=put_off)
        for _ in range(3):
            m.clock.jump(1.1)
            for name in DIRECTORIES:
                await absent(m, f"d/{name}/a")
                await absent(m, f"d/{name}/b")
            await absent(m, "d/c")
            assert m.store.take_requests() == {"list_page": 1}

    mounted(run, negative_ttl_seconds=1.0)


def test_what_others_store_in_such_a_tree_is_found_within_the_lifetime() -> None:
    async def run(m: Mounted) -> None:
        await tree(m)
        m.clock.jump(1.1)
        await absent(m, "d/e0/a")
        for name in DIRECTORIES:
            m.store.seed(f"d/{name}/theirs", b"x")
        m.store.seed("d/e1/deep/theirs", b"x")
        m.clock.jump(1.1)
        for name in DIRECTORIES:
            await m.at(f"d/{name}/theirs")
        await m.at("d/e1/deep/theirs")
        m.store.seed("d/later/theirs", b"x")
        m.clock.jump(1.1)
        await m.at("d/later/theirs")

    mounted(run, negative_ttl_seconds=1.0)


def test_with_a_lifetime_of_zero_each_directory_of_a_tree_is_asked() -> None:
    async def run(m: Mounted) -> None:
        await tree(m)
        for name in DIRECTORIES:
            await absent(m, f"d/{name}/a")
        assert m.store.take_requests() == {"head": 6, "list_page": 6}

    mounted(run, negative_ttl_seconds=0.0)


@pytest.mark.parametrize("put_off", [False, True])
def test_one_request_tells_what_is_in_the_directories_of_a_tree(put_off: bool) -> None:
    async def run(m: Mounted) -> None:
        d, *below = await tree(m, put_off=put_off)
        assert sorted(await m.names(d)) == list(DIRECTORIES)
        for directory in below:
            assert await m.names(directory) == ["f"]
        assert m.store.take_requests() == {"list_page": 1}

    mounted(run, negative_ttl_seconds=1.0)


def test_who_lists_a_directory_of_a_tree_is_told_what_others_did_in_it() -> None:
    async def run(m: Mounted) -> None:
        _d, *below = await tree(m)
        m.store.seed("d/e0/theirs", b"x")
        m.store.seed("d/e1/f", b"longer")
        m.store.erase("d/e2/f")
        assert sorted(await m.names(below[0])) == ["f", "theirs"]
        assert await m.names(below[1]) == ["f"]
        assert (await m.at("d/e1/f")).size == 6
        assert await m.names(below[2]) == []
        assert await m.names(below[3]) == ["f"]

    mounted(run, negative_ttl_seconds=60.0)


def test_who_lists_a_second_later_is_told_what_others_stored_since() -> None:
    async def run(m: Mounted) -> None:
        _d, *below = await tree(m)
        assert await m.names(below[0]) == ["f"]
        m.store.seed("d/e4/theirs", b"x")
        m.clock.jump(1.1)
        assert sorted(await m.names(below[4])) == ["f", "theirs"]
        m.store.take_requests()
        assert await m.names(below[0]) == ["f"]
        assert m.store.take_requests() == {}

    mounted(run, negative_ttl_seconds=60.0)


@pytest.mark.parametrize("kind", [FakeStore, TreeOrderStore])
def test_an_answer_of_several_pages_tells_of_those_that_it_reaches(kind: type[FakeStore]) -> None:
    async def run(m: Mounted) -> None:
        await tree(m)
        m.clock.jump(1.1)
        for name in reversed(DIRECTORIES):
            m.store.seed(f"d/{name}/theirs", b"x")
            await m.at(f"d/{name}/theirs")
            await absent(m, f"d/{name}/a")

    mounted(run, kind(page_size=3), negative_ttl_seconds=1.0)


@pytest.mark.parametrize("kind", [FakeStore, TreeOrderStore])
@pytest.mark.parametrize("page_size", range(1, 9))
def test_what_others_store_in_a_tree_of_several_pages_is_found(
    kind: type[FakeStore], page_size: int
) -> None:
    """Whatever order the store has keys in, and whatever directory is asked for first."""

    async def run(m: Mounted) -> None:
        names = ("d", "d-x", "d.y", "d0", "d01", "e")
        t = await made(m, m.root, "t")
        for name in names:
            directory = await made(m, t, name)
            m.commit(m.create(directory, "f"), b"x")
        for first in names:
            for theirs in names:
                m.clock.jump(1.1)
                await absent(m, f"t/{first}/a")
                m.store.seed(f"t/{theirs}/{first}", b"x")
                m.clock.jump(1.1)
                await absent(m, f"t/{first}/b")
                assert (await m.at(f"t/{theirs}/{first}")).size == 1
                m.store.erase(f"t/{theirs}/{first}")
                await m.namespace.make_directory(t, f"z{first}{theirs}", 0o755, UID, GID)

    mounted(run, kind(page_size=page_size), negative_ttl_seconds=1.0)


def test_a_marker_with_content_keeps_its_directory() -> None:
    async def run(m: Mounted) -> None:
        d = await made(m, m.root, "d")
        await made(m, d, "e")
        m.store.seed("d/e/", b"content")
        m.clock.jump(1.1)
        await absent(m, "d/a")
        await absent(m, "d/e/a")
        with pytest.raises(DirectoryNotEmptyError):
            await m.namespace.remove_directory(d, "e")

    mounted(run, negative_ttl_seconds=1.0)


def test_a_program_that_goes_on_asking_waits_for_no_further_answer() -> None:
    async def run(m: Mounted) -> None:
        await tree(m)
        waits = 0
        for _ in range(40):
            m.clock.jump(0.1)
            gate = m.store.hold("list_page")
            for name in DIRECTORIES:
                with trio.CancelScope() as scope, pytest.raises(NoSuchEntryError):
                    scope.cancel()  # whoever has to wait is found out
                    await m.at(f"d/{name}/a")
                waits += scope.cancelled_caught
            gate.set()
            await m.answered()
        assert not waits
        assert m.store.take_requests()["list_page"] <= 8

    mounted(run, negative_ttl_seconds=1.0)


def test_an_answer_slower_than_the_lifetime_answers_once() -> None:
    async def run(m: Mounted) -> None:
        await tree(m)
        m.clock.jump(1.1)
        gate = m.store.hold("list_page")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(absent, m, "d/e0/a")
            nursery.start_soon(absent, m, "d/e1/a")
            await trio.testing.wait_all_tasks_blocked(0.01)
            m.clock.jump(1.5)
            gate.set()
        assert m.store.take_requests() == {"list_page": 1}

    mounted(run, negative_ttl_seconds=1.0)


def test_a_name_that_is_made_here_meanwhile_is_there() -> None:
    async def run(m: Mounted) -> None:
        _d, *below = await tree(m)
        m.clock.jump(1.1)
        gate = m.store.hold("list_page")
        found: list[str] = []

        async def look(path: str) -> None:
            found.append((await m.at(path)).name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look, "d/e0/made")
            await trio.testing.wait_all_tasks_blocked(0.01)
            m.create(below[0], "made")
            gate.set()
        assert found == ["made"]

    mounted(run, negative_ttl_seconds=1.0)


def test_a_failed_answer_leaves_the_directories_to_be_asked() -> None:
    async def run(m: Mounted) -> None:
        await tree(m)
        m.clock.jump(1.1)
        m.store.fail("list_page", StoreUnavailableError("away"), times=1)
        await absent(m, "d/e0/a")
        await absent(m, "d/e1/a")

    mounted(run, negative_ttl_seconds=1.0)

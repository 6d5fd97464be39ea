"""Files of a listing are told together where nothing else is known of them, and look the same."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from ossfs_py.errors import StoreUnavailableError
from ossfs_py.filesystem.replies import EntryReply
from ossfs_py.namespace.inode import ROOT_NUMBER
from tests.support.fake_store import FakeStore
from tests.support.filesystems import METADATA_TTL_SECONDS, Mounted, Taken, on_mount
from tests.support.writing import TINY_PARTS

KEYS = [*(f"{number:03}" for number in range(40)), "d/x", "é", "é" * 40, "zz"]


def store_of(*keys: str, page_size: int = 1000) -> FakeStore:
    store = FakeStore(page_size=page_size, min_part_bytes=TINY_PARTS.min_part)
    for key in keys:
        store.seed(key, key.encode())
    return store


async def listed(m: Mounted, room: int, *, singly: bool = False) -> Taken:
    """The root's entries, and the kernel keeps its references."""
    taken = Taken()
    handle = m.fs.open_directory(ROOT_NUMBER)
    while not taken.room:
        taken.room = room
        await m.fs.read_directory(handle, taken.offset, taken.__call__ if singly else taken)
    m.fs.release_directory(handle)
    return taken


def lasting(replies: list[EntryReply]) -> list[EntryReply]:
    """Without what depends on when they were made."""
    return [reply._replace(name_seconds=0, attributes_seconds=0) for reply in replies]


@pytest.mark.parametrize("room", [1, 7, 1000])
@pytest.mark.parametrize("page_size", [3, 1000])
def test_entries_look_the_same_told_together_or_one_by_one(
    tmp_path: Path, page_size: int, room: int
) -> None:
    seen: list[tuple[list[str], list[EntryReply]]] = []

    async def test(m: Mounted) -> None:
        m.store.seed("empty", b"")
        taken = await listed(m, room, singly=bool(seen))
        is_together = page_size == 3 and not seen  # a page of more than files is told singly
        assert bool(taken.together) is is_together
        seen.append((taken.names, lasting(taken.replies)))
        for number, reply in zip(taken.numbers, taken.replies, strict=True):
            known = await m.fs.attributes(number)
            assert lasting([known]) == lasting([reply])
            assert 0 < reply.name_seconds == reply.attributes_seconds
            assert (await m.fs.lookup(ROOT_NUMBER, taken.names[0].encode())).inode
        again = await listed(m, room, singly=bool(seen))
        assert (again.names, lasting(again.replies)) == seen[-1]

    for _ in range(2):
        store = store_of(*KEYS, page_size=page_size)
        on_mount("direct", tmp_path, test, store=store)
    (names, replies), (others, their_replies) = seen
    assert names == others == sorted({*(key.partition("/")[0] for key in KEYS), "empty"})
    for reply, other in zip(replies, their_replies, strict=True):
        assert (reply.inode, reply.generation) == (other.inode, other.generation)
        assert reply.attributes[1:5] == other.attributes[1:5]


def test_the_kernel_has_one_reference_to_each_file_that_it_was_told_of(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        taken = await listed(m, 7)
        assert taken.together == len(taken.names) == 40
        table = m.fs._namespace.inodes
        assert [table.get(number).lookup_count for number in taken.numbers] == [1] * 40
        again = await listed(m, 7)
        assert (again.names, again.numbers, again.together) == (taken.names, taken.numbers, 0)
        m.fs.forget([(number, 2) for number in taken.numbers])
        assert [table.get(number).lookup_count for number in taken.numbers] == [0] * 40

    on_mount("direct", tmp_path, test, store=store_of(*KEYS[:40]))


def test_what_the_mount_knows_of_a_file_is_not_lost_by_telling_of_others(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        before = await m.stat(("005",))
        await m.change(("007",), mode=0o600)
        await m.write_file(("006",), b"written here")
        await m.write_file(("0055",), b"new")
        taken = await listed(m, 1000)
        shown = {
            name: reply.attributes for name, reply in zip(taken.names, taken.replies, strict=True)
        }
        assert taken.names == sorted(taken.names) and len(shown) == 41
        assert taken.together
        assert shown["005"] == before
        assert shown["006"].size == len(b"written here")
        assert shown["0055"].size == 3
        assert shown["007"].mode & 0o7777 == 0o600

    on_mount("direct", tmp_path, test, store=store_of(*KEYS[:40]))


def test_a_name_that_the_kernel_takes_for_absent_is_announced(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        assert not await m.exists(("new",))
        assert m.channel.absent
        m.store.seed("new", b"by others")
        assert "new" in (await listed(m, 1000)).names
        assert not m.channel.absent
        assert (await m.stat(("new",))).size == len(b"by others")

    on_mount("direct", tmp_path, test, store=store_of(*KEYS[:40]), negative_ttl_seconds=60.0)


@pytest.mark.parametrize("singly", [True, False])
def test_entries_before_a_page_that_cannot_be_had_are_told(tmp_path: Path, *, singly: bool) -> None:
    """Or the kernel would never forget them: it was not told of them, and they count as told."""

    async def test(m: Mounted) -> None:
        pages = 0

        def ends(method: str, _key: str) -> None:
            nonlocal pages
            pages += method == "list_page"
            if pages > 2:
                raise StoreUnavailableError("down")

        m.store.on_request = ends
        table = m.fs._namespace.inodes
        taken = Taken()
        handle = m.fs.open_directory(ROOT_NUMBER)
        take = taken.__call__ if singly else taken
        taken.room = 1000
        await m.fs.read_directory(handle, 0, take)
        assert taken.names == KEYS[:5]  # more may belong to the sixth name
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                await m.fs.read_directory(handle, taken.offset, take)
        m.store.on_request = None
        await m.fs.read_directory(handle, taken.offset, take)
        assert taken.names == KEYS[:40]
        assert [table.get(number).lookup_count for number in taken.numbers] == [1] * 40
        m.fs.release_directory(handle)

    on_mount("direct", tmp_path, test, store=store_of(*KEYS[:40], page_size=3))


def test_a_refresh_tells_the_kernel_of_what_it_knows(tmp_path: Path) -> None:
    """Nothing would ever be forgotten of other files: the kernel does not forget them again."""

    async def test(m: Mounted) -> None:
        await m.names()
        async with m.at(("007",)) as number:
            m.channel.expired.clear()
            assert (await m.fs.refresh("")).forgotten_entries == 41
            assert m.channel.expired == {ROOT_NUMBER, number}
        assert m.fs._kernel._expiries.keys() <= {ROOT_NUMBER}

    on_mount("direct", tmp_path, test, store=store_of(*KEYS[:40]))


def test_listings_that_grow_by_what_is_made_here_stay_within_their_bound(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        for directory in ("a", "b"):
            await m.mkdir((directory,))
            for number in range(80):
                await m.write_file((directory, f"{number}"), b"made here")
        root, listings = m.fs._namespace.root, m.fs._namespace._tree.listings
        kept = [listings.complete(directory) for directory in root.children.values()]
        assert any(kept)
        assert sum(1 + len(listing.index or ()) for listing in kept if listing is not None) <= 100
        assert len(await m.names(("a",))) == len(await m.names(("b",))) == 80

    on_mount("direct", tmp_path, test, store=store_of(), max_entries=100)


@pytest.mark.parametrize("by_others", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.mkdir(("d", "new")),
        lambda m: m.symlink(b"old", ("d", "new")),
        lambda m: m.unlink(("d", "old")),
        lambda m: m.rename(("d", "sub"), ("d", "new")),
        lambda m: m.rename(("d", "sub"), ("e", "new")),
        lambda m: m.change(("d", "sub"), mode=0o700),
    ],
    ids=[
        "mkdir",
        "symlink",
        "unlink",
        "rename of a directory",
        "rename away",
        "chmod of a directory",
    ],
)
def test_a_directory_s_time_is_that_of_the_change_here_not_of_the_next_listing(
    tmp_path: Path, change: Callable[[Mounted], Awaitable[None]], *, by_others: bool
) -> None:
    """rsync looks at the time of a directory before it lists it, and keeps that one."""

    async def test(m: Mounted) -> None:
        await m.names(("d",))
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        clock.jump(METADATA_TTL_SECONDS + 1)
        await m.names(("e",))  # nobody keeps the other listing any more
        await change(m)
        if by_others:
            m.store.seed("d/foreign", b"by others")
        before = (await m.stat(("d",))).mtime_ns
        names = await m.names(("d",))
        assert ("foreign" in names) is by_others
        assert ((await m.stat(("d",))).mtime_ns != before) is by_others

    store = store_of("d/keep", "d/old", "d/sub/x", "e/keep")
    on_mount("direct", tmp_path, test, store=store, posix_metadata=True)

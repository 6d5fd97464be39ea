"""What the kernel is answered about inodes, and which references that gives it."""

import os
from pathlib import Path

import pytest
import trio

from ossfs_py.errors import (
    BadHandleError,
    InvalidArgumentError,
    StaleInodeError,
)
from ossfs_py.filesystem.replies import EntryReply
from ossfs_py.namespace.inode import ROOT_NUMBER
from tests.support.filesystems import METADATA_TTL_SECONDS, Mounted, on_mount


async def listed(m: Mounted, handle: int, start: int, room: int) -> list[tuple[bytes, int, int]]:
    """Names, inodes and next offsets that one answer to the kernel has room for."""
    found: list[tuple[bytes, int, int]] = []

    def take(name: bytes, entry: EntryReply, following: int) -> bool:
        if len(found) == room:
            return False
        found.append((name, entry.inode, following))
        return True

    await m.fs.read_directory(handle, start, take)
    return found


def test_a_reply_lives_as_long_as_what_it_tells(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        entry = await m.fs.lookup(ROOT_NUMBER, b"file")
        assert entry.attributes.size == 7
        assert entry.name_seconds == entry.attributes_seconds
        assert METADATA_TTL_SECONDS - 1 < entry.name_seconds <= METADATA_TTL_SECONDS
        trio.lowlevel.current_clock().jump(METADATA_TTL_SECONDS / 2)  # type: ignore[attr-defined]
        later = await m.fs.attributes(entry.inode)
        assert later.attributes == entry.attributes
        assert later.name_seconds <= METADATA_TTL_SECONDS / 2
        m.drop(entry)

    on_mount("direct", tmp_path, test)


def test_names_looked_up_made_and_listed_are_known_until_they_are_forgotten(
    tmp_path: Path,
) -> None:
    async def test(m: Mounted) -> None:
        fs = m.fs
        made = await fs.make_directory(ROOT_NUMBER, b"d", 0o755, 0, 0)
        link = await fs.make_symlink(ROOT_NUMBER, b"link", b"d", 0, 0)
        node = await fs.make_node(ROOT_NUMBER, b"node", 0o100644, 0, 0)
        opened, created = await fs.create(ROOT_NUMBER, b"file", 0o644, 1, 0, 0)
        await fs.flush(opened.handle)
        await fs.release(opened.handle)
        numbers = [each.inode for each in (made, link, node, created)]
        assert [fs.path(number) for number in numbers] == ["/d", "/link", "/node", "/file"]
        handle = fs.open_directory(ROOT_NUMBER)
        entries = await listed(m, handle, 2, 100)
        assert sorted(number for _name, number, _next in entries) == sorted(numbers)
        # Each was given twice, and goes when both references are back and its name is gone.
        await fs.unlink(ROOT_NUMBER, b"node")
        fs.forget([(node.inode, 1)])
        assert fs.path(node.inode) == "/node"
        fs.forget([(node.inode, 1)])
        with pytest.raises(StaleInodeError):
            fs.path(node.inode)

    on_mount("direct", tmp_path, test)


def test_a_listing_goes_on_where_an_answer_was_full(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        for name in ("a", "b", "d/x"):
            m.store.seed(name, b"")
        async with m.at(("d",)) as number:
            handle = m.fs.open_directory(number)
            dots = await listed(m, handle, 0, 2)
            assert dots == [(b".", number, 1), (b"..", ROOT_NUMBER, 2)]
            assert [name for name, _, _ in await listed(m, handle, 2, 9)] == [b"x"]
            m.fs.release_directory(handle)
        handle = m.fs.open_directory(ROOT_NUMBER)
        names: list[bytes] = []
        offset = 0
        while part := await listed(m, handle, offset, 1):
            ((name, _inode, offset),) = part
            names.append(name)
        assert names == [b".", b"..", b"a", b"b", b"d"]
        m.fs.release_directory(handle)
        with pytest.raises(BadHandleError):
            await listed(m, handle, 0, 1)

    on_mount("direct", tmp_path, test)


def test_what_had_no_room_in_an_answer_gives_no_reference(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("a", b"")
        m.store.seed("b", b"")
        handle = m.fs.open_directory(ROOT_NUMBER)
        refused: list[int] = []

        def take(name: bytes, entry: EntryReply, _following: int) -> bool:
            if name == b"b":
                refused.append(entry.inode)
                return False
            return True

        await m.fs.read_directory(handle, 0, take)
        (number,) = refused
        await m.fs.unlink(ROOT_NUMBER, b"b")
        with pytest.raises(StaleInodeError):
            m.fs.path(number)

    on_mount("direct", tmp_path, test)


def test_paths_are_those_of_now(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        await m.mkdir(("d",))
        opened = await m.open(("d", "file"), 0o101)
        async with m.at(("d",)) as number:
            handle = m.fs.open_directory(number)
            await m.rename(("d",), ("e",))
            assert m.fs.path(ROOT_NUMBER) == "/"
            assert m.fs.path(number) == m.fs.path_of_directory(handle) == "/e"
            assert m.fs.path_of_handle(opened.handle) == "/e/file"
        await m.close(opened)
        with pytest.raises(BadHandleError):
            m.fs.path_of_handle(opened.handle)

    on_mount("direct", tmp_path, test)


def test_a_description_says_what_the_store_has_and_what_is_open(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        await m.write_file(("file",), b"content")
        found = await m.fs.describe("file")
        assert (found.kind, found.key, found.attributes.size) == ("file", "file", 7)
        assert found.info is not None
        assert found.metadata is not None
        assert (found.is_open, found.open_handles, found.unsaved) == (False, 0, False)
        assert await m.fs.version_at("./file") == found.info.version
        opened = await m.open(("file",), 0o2)
        await m.write(opened, 0, b"C")
        found = await m.fs.describe("file")
        assert (found.is_open, found.open_handles, found.unsaved) == (True, 1, True)
        await m.close(opened)
        assert (await m.fs.describe("")).kind == "directory"

    on_mount("direct", tmp_path, test)


@pytest.mark.parametrize("path", ["/file", "d/../file"])
def test_paths_from_outside_the_mount_are_refused(tmp_path: Path, path: str) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"")
        for ask in (m.fs.describe, m.fs.version_at, m.fs.refresh):
            with pytest.raises(InvalidArgumentError, match="not a path below the mountpoint"):
                await ask(path)
        with pytest.raises(InvalidArgumentError, match="no file"):
            await m.fs.version_at("")

    on_mount("direct", tmp_path, test)


def test_what_is_known_is_told_without_waiting_and_nothing_else_is(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        fs = m.fs
        m.store.seed("d/file", b"content")
        m.store.seed("d/gone", b"content")
        m.store.seed(".ossfs-py-x", b"")
        lookup, attributes = fs.replies.lookup_nowait, fs.replies.attributes_nowait
        assert lookup(ROOT_NUMBER, b"d") is None
        directory = await fs.lookup(ROOT_NUMBER, b"d")
        assert lookup(directory.inode, b"file") is None
        entry = await fs.lookup(directory.inode, b"file")
        gone = await fs.lookup(directory.inode, b"gone")
        requests = m.store.requests.total()
        known = lookup(directory.inode, b"file")
        assert isinstance(known, EntryReply)
        assert known.attributes == entry.attributes
        assert attributes(entry.inode) is not None
        assert m.store.requests.total() == requests
        fs.forget([(entry.inode, 1)])
        assert fs.path(entry.inode) == "/d/file"  # the second answer gave a reference, too
        for parent, name in (
            (directory.inode, b"."),
            (directory.inode, b".."),
            (directory.inode, b"absent"),
            (directory.inode, b"\xff"),
            (directory.inode, b"n" * 256),
            (entry.inode, b"file"),
            (12345, b"file"),
            (ROOT_NUMBER, b".ossfs-py-x"),
        ):
            assert lookup(parent, name) is None
        assert attributes(12345) is None
        m.store.erase("d/gone")
        trio.lowlevel.current_clock().jump(METADATA_TTL_SECONDS + 1)  # type: ignore[attr-defined]
        assert lookup(directory.inode, b"file") is None
        assert attributes(entry.inode) is None
        with pytest.raises(StaleInodeError):
            await fs.attributes(gone.inode)
        assert attributes(gone.inode) is None
        assert lookup(directory.inode, b"gone") is None

    on_mount("direct", tmp_path, test)


def test_a_name_that_is_known_to_be_absent_is_told_so_without_waiting(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        fs = m.fs
        made = await fs.make_directory(ROOT_NUMBER, b"made", 0o755, 7, 8)
        look = fs.replies.lookup_nowait
        requests = m.store.requests.total()
        seconds = look(made.inode, b"new")
        assert isinstance(seconds, float)
        assert 0 < seconds <= 5
        assert look(made.inode, b"n" * 256) is None
        opened, entry = await fs.create(made.inode, b"new", 0o644, os.O_CREAT | os.O_WRONLY, 7, 8)
        assert isinstance(look(made.inode, b"new"), EntryReply)
        assert isinstance(look(made.inode, b"another"), float)
        assert m.store.requests.total() == requests
        m.channel.absent[made.inode, b"another"] = trio.current_time() + 5
        m.store.seed("made/another", b"x")
        trio.lowlevel.current_clock().jump(6)  # type: ignore[attr-defined]
        assert look(made.inode, b"another") is None  # the store has to be asked now
        found = await fs.lookup(made.inode, b"another")
        assert found.attributes.size == 1
        fs.forget([(entry.inode, 2), (found.inode, 1)])
        await fs.flush(opened.handle)
        await fs.release(opened.handle)

    on_mount("temp", tmp_path, test, negative_ttl_seconds=5.0)


def test_what_others_make_under_a_name_told_absent_is_told_to_the_kernel(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        made = await m.fs.make_directory(ROOT_NUMBER, b"made", 0o755, 7, 8)
        seconds = m.fs.replies.lookup_nowait(made.inode, b"theirs")
        assert isinstance(seconds, float)
        m.channel.absent[made.inode, b"theirs"] = trio.current_time() + seconds
        m.store.seed("made/theirs", b"x")
        trio.lowlevel.current_clock().jump(2)  # type: ignore[attr-defined]
        assert sorted(await m.names(("made",))) == ["theirs"]
        assert not m.channel.absent  # it was taken back when the name was listed

    on_mount("temp", tmp_path, test, negative_ttl_seconds=5.0)

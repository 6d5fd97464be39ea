"""A daemon with write-back that dies with closed files, directories, links and removals that the
store has not heard of: all that was acknowledged is seen at once, and comes to the store."""

import os
import stat
from functools import partial
from pathlib import Path

import pytest
import trio

from ossfs_py.filesystem.surviving import SurvivingFilesystem
from ossfs_py.model import AttributeChange
from ossfs_py.namespace.inode import ROOT_NUMBER
from tests.support.dying import (
    BEFORE,
    GID,
    UID,
    Case,
    WatchedStore,
    dies,
    life,
    names,
    written,
)
from tests.support.trio_tests import in_trio

behind = partial(dies, write_back=True)
FORGOTTEN = pytest.mark.parametrize("forgotten", [False, True], ids=["known", "forgotten"])


async def made(case: Case, parent: int, name: bytes, content: bytes) -> int:
    """Make a file as programs do; its inode."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    reply, entry = await case.fs.create(parent, name, 0o640, flags, UID, GID)
    await written(case, reply.handle, 0, content)
    await case.fs.flush(reply.handle)
    await case.fs.release(reply.handle)
    return entry.inode


async def stored(case: Case) -> None:
    """What was acknowledged before comes to the store; nothing is asked again of the mount."""
    if case.since_ns is None:
        await case.fs.sync()


async def whole(case: Case, inode: int) -> bytes:
    reply = await case.fs.open(inode, os.O_RDONLY, UID)
    data = bytes(await case.fs.read(reply.handle, 0, 1 << 20))
    await case.fs.release(reply.handle)
    return data


@FORGOTTEN
def test_what_was_made_is_seen_at_once_and_comes_to_the_store(
    forgotten: bool, tmp_path: Path
) -> None:
    async def prepare(case: Case) -> None:
        fs = case.fs
        directory = (await fs.make_directory(ROOT_NUMBER, b"d", 0o750, UID, GID)).inode
        link = (await fs.make_symlink(directory, b"link", b"file", UID, GID)).inode
        inode = await made(case, directory, b"file", BEFORE)
        await fs.set_attributes(inode, AttributeChange(mode=0o600), None, None)
        if forgotten:
            fs.forget([(inode, 1), (link, 1), (directory, 1)])

    async def check(case: Case) -> None:
        fs = case.fs
        assert await names(case) == ["d"]
        directory = await fs.lookup(ROOT_NUMBER, b"d")
        assert stat.S_IMODE(directory.attributes.mode) == 0o750
        link = await fs.lookup(directory.inode, b"link")
        assert await fs.read_link(link.inode) == b"file"
        file = await fs.lookup(directory.inode, b"file")
        assert (stat.S_IMODE(file.attributes.mode), file.attributes.size) == (0o600, len(BEFORE))
        assert await whole(case, file.inode) == BEFORE
        await fs.sync()
        assert case.store.keys() == ["d/", "d/file", "d/link"]
        assert case.store.content("d/file") == BEFORE
        assert case.store.metadata("d/file")["mode"] == str(stat.S_IFREG | 0o600)
        await fs.unlink(directory.inode, b"file")
        await fs.unlink(directory.inode, b"link")
        await fs.remove_directory(ROOT_NUMBER, b"d")
        await fs.sync()
        assert case.store.keys() == []

    assert behind(tmp_path, prepare, stored, check, {}) > 5


@FORGOTTEN
def test_what_was_renamed_and_removed_stays_so(forgotten: bool, tmp_path: Path) -> None:
    async def prepare(case: Case) -> None:
        fs = case.fs
        for name in (b"there", b"e"):
            await fs.lookup(ROOT_NUMBER, name)
        inode = await made(case, ROOT_NUMBER, b"first", BEFORE)
        await fs.rename(ROOT_NUMBER, b"first", ROOT_NUMBER, b"second", no_replace=False)
        gone = await made(case, ROOT_NUMBER, b"gone", b"gone")
        await fs.unlink(ROOT_NUMBER, b"gone")
        await fs.unlink(ROOT_NUMBER, b"there")
        await fs.remove_directory(ROOT_NUMBER, b"e")
        if forgotten:
            fs.forget([(inode, 1), (gone, 1)])

    async def check(case: Case) -> None:
        assert await names(case) == ["second"]
        entry = await case.fs.lookup(ROOT_NUMBER, b"second")
        assert await whole(case, entry.inode) == BEFORE
        await case.fs.sync()
        assert case.store.keys() == ["second"]
        assert case.store.content("second") == BEFORE

    objects = {"there": b"there", "e/": b""}
    assert behind(tmp_path, prepare, stored, check, objects) > 2


def test_what_was_closed_and_is_read_again_comes_to_the_store(tmp_path: Path) -> None:
    async def prepare(case: Case) -> None:
        inode = await made(case, ROOT_NUMBER, b"file", BEFORE)
        case.numbers["file"] = (await case.fs.open(inode, os.O_RDONLY, UID)).handle

    async def check(case: Case) -> None:
        handle = case.numbers["file"]
        assert bytes(await case.fs.read(handle, 0, 1 << 20)) == BEFORE
        await case.fs.release(handle)
        await case.fs.sync()
        assert case.store.content("file") == BEFORE

    assert behind(tmp_path, prepare, stored, check, {}) > 2


def test_a_closed_file_is_renamed_by_the_next_daemon_and_survives_that_one(tmp_path: Path) -> None:
    async def prepare(case: Case) -> None:
        await made(case, ROOT_NUMBER, b"old", BEFORE)

    async def call(case: Case) -> None:
        where = (ROOT_NUMBER, b"old", ROOT_NUMBER, b"new")
        if case.since_ns is None:
            await case.fs.rename(*where, no_replace=False)
            await case.fs.sync()
        else:
            await case.fs.repeated.rename(*where, no_replace=False, since_ns=case.since_ns)

    async def check(case: Case) -> None:
        assert await names(case) == ["new"]
        await case.fs.sync()
        assert case.store.keys() == ["new"]
        assert case.store.content("new") == BEFORE

    assert behind(tmp_path, prepare, call, check, {}) > 2


@FORGOTTEN
def test_what_is_removed_at_once_by_the_next_daemon_stays_removed(
    forgotten: bool, tmp_path: Path
) -> None:
    """The dead daemon may have stored it, without noting that."""

    async def prepare(case: Case) -> None:
        fs = case.fs
        directory = (await fs.make_directory(ROOT_NUMBER, b"d", 0o750, UID, GID)).inode
        link = (await fs.make_symlink(directory, b"link", b"file", UID, GID)).inode
        inode = await made(case, directory, b"file", BEFORE)
        if forgotten:
            fs.forget([(inode, 1), (link, 1), (directory, 1)])

    async def check(case: Case) -> None:
        fs = case.fs
        directory = (await fs.lookup(ROOT_NUMBER, b"d")).inode
        await fs.unlink(directory, b"link")
        await fs.unlink(directory, b"file")
        await fs.remove_directory(ROOT_NUMBER, b"d")
        assert await names(case) == []
        await fs.sync()
        assert case.store.keys() == []

    assert behind(tmp_path, prepare, stored, check, {}) > 5


@FORGOTTEN
def test_what_is_renamed_at_once_by_the_next_daemon_has_its_new_name_only(
    forgotten: bool, tmp_path: Path
) -> None:
    async def prepare(case: Case) -> None:
        fs = case.fs
        link = (await fs.make_symlink(ROOT_NUMBER, b"link", b"file", UID, GID)).inode
        inode = await made(case, ROOT_NUMBER, b"file", BEFORE)
        if forgotten:
            fs.forget([(inode, 1), (link, 1)])

    async def check(case: Case) -> None:
        fs = case.fs
        for name in (b"link", b"file"):
            await fs.rename(ROOT_NUMBER, name, ROOT_NUMBER, b"new " + name, no_replace=False)
        assert await names(case) == ["new file", "new link"]
        await fs.sync()
        assert case.store.keys() == ["new file", "new link"]
        assert case.store.content("new file") == BEFORE

    assert behind(tmp_path, prepare, stored, check, {}) > 3


@in_trio
async def test_a_directory_is_not_renamed_before_what_is_owed_is_in_it(tmp_path: Path) -> None:
    """The kernel knows the directory, so it looks nothing up first."""
    memory, store = os.memfd_create("test"), WatchedStore()
    async with life(memory, tmp_path / "first", store, write_back=True) as (_, fs):
        directory = (await fs.make_directory(ROOT_NUMBER, b"d", 0o750, UID, GID)).inode
        await fs.sync()
        inode = await made(Case(fs, store), directory, b"file", BEFORE)
        fs.forget([(inode, 1)])
    is_renamed = trio.Event()

    async def rename(fs: SurvivingFilesystem) -> None:
        await fs.rename(ROOT_NUMBER, b"d", ROOT_NUMBER, b"m", no_replace=False)
        is_renamed.set()

    async with trio.open_nursery() as nursery:

        async def between(fs: SurvivingFilesystem) -> None:
            nursery.start_soon(rename, fs)
            with trio.move_on_after(1):
                await is_renamed.wait()

        async with life(memory, tmp_path / "first", store, write_back=True, between=between) as (
            _,
            fs,
        ):
            await is_renamed.wait()
            await fs.sync()
            assert await names(Case(fs, store)) == ["m"]
        assert store.keys() == ["m/", "m/file"]
    os.close(memory)

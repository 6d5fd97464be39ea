"""Open files and names that change under them, other clients, failing stores: no kernel needed."""

import contextlib
import errno
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from ossfs_py.errors import (
    AccessDeniedError,
    ConditionFailedError,
    NoAttributeError,
    NotPermittedError,
    OperationUnsupportedError,
    OssfsError,
    ReadOnlyError,
    StoreUnavailableError,
    UnsavedDataError,
    VersionChangedError,
    errno_of,
)
from ossfs_py.model import NO_CHANGE
from ossfs_py.namespace.inode import ROOT_NUMBER
from ossfs_py.namespace.keys import RESERVED_PREFIX
from ossfs_py.namespace.metadata import decode
from ossfs_py.writing.recovery import Recovery, tidy_leftovers
from tests.support.fake_store import FakeStore
from tests.support.filesystems import UID, Mounted, Names, on_mount
from tests.support.mounting import DATA_PATHS
from tests.support.writing import TINY_PARTS

DOWN = StoreUnavailableError("down")
CREATE = os.O_WRONLY | os.O_CREAT
EXCLUSIVE = CREATE | os.O_EXCL

Test = Callable[[Mounted], Awaitable[None]]
Run = Callable[..., FakeStore]

FILE: Names = ("file",)
OTHER: Names = ("other",)
DIRECTORY: Names = ("dir",)
INSIDE: Names = ("dir", "file")


@pytest.fixture(params=DATA_PATHS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Runs a test on a mount over each data path; no hidden object may be left by it."""

    def run_one(test: Test, **options: Any) -> FakeStore:
        store = on_mount(request.param, tmp_path, test, **options)
        assert not [key for key in store.objects if RESERVED_PREFIX in key]
        return store

    return run_one


def unsaved(m: Mounted) -> Recovery:
    return Recovery(m.bench.writes.journal, TINY_PARTS)


# -- read --------------------------------------------------------------------------------------


def test_bytes_in_memory_are_answered_at_once_to_whoever_opens_the_file_next(run: Run) -> None:
    """Most small files are fetched ahead: their first READ would take a task of its own."""

    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        assert await m.read_file(FILE) == b"content"
        opened = await m.open(FILE)
        assert m.fs.read_nowait(opened.handle, 0, 7) == b"content"
        await m.close(opened)

    run(test)


def test_a_small_file_just_written_is_read_back_without_a_request(run: Run) -> None:
    async def test(m: Mounted) -> None:
        await m.write_file(FILE, b"core")
        m.store.take_requests()
        assert await m.read_file(FILE) == b"core"
        assert m.store.take_requests() == {}

    run(test)


def test_a_label_is_known_to_be_absent_while_its_inode_is_known(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        number = (await m.fs.lookup(1, b"file")).inode
        for name, error in (
            (b"security.selinux", OperationUnsupportedError),
            (b"security.capability", NoAttributeError),
            (b"user.key", type(None)),
        ):
            assert type(m.fs.lacks_xattr(number, name)) is error
            assert m.fs.lacks_xattr(number + 1, name) is None  # ESTALE is get_xattr's to say
        m.fs.forget([(number, 1)])

    run(test)


def test_only_who_leaves_nothing_to_do_is_let_go_of_without_a_shield(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        reading = await m.open(FILE)
        assert m.fs.only_reads(reading.handle)
        writing = await m.open(FILE, os.O_RDWR)
        assert not m.fs.only_reads(reading.handle)
        await m.write(writing, 0, b"C")
        await m.close(writing)
        assert not m.fs.only_reads(reading.handle), "what was written may be in a file of its own"
        await m.close(reading)
        removed = await m.open(FILE)
        await m.unlink(FILE)
        assert not m.fs.only_reads(removed.handle)
        await m.close(removed)

    run(test)


@pytest.mark.parametrize("is_stored", [False, True])
@pytest.mark.parametrize("size", [100, 2000])
def test_a_file_truncated_while_the_kernel_drops_its_pages_is_read_to_its_end(
    run: Run, *, is_stored: bool, size: int
) -> None:
    """The reader was told that others had replaced it, and the writer that it had no name."""

    async def test(m: Mounted) -> None:
        m.store.seed("file", b"o" * 1000)
        writer = await m.open(FILE, os.O_WRONLY)
        reader = await m.open(FILE)
        assert writer.past_pages
        assert await m.read(reader, 0, 10) == b"o" * 10

        async def truncate(inode: int) -> None:
            m.channel.on_drop = None
            assert inode == writer.inode
            await m.truncate(writer, size)

        m.channel.on_drop = truncate
        await m.write(writer, 0, b"n")
        if is_stored:
            await m.fsync(writer)
        content = (b"n" + b"o" * 999)[:size].ljust(size, b"\0")
        assert bytes(await m.fs.read(reader.handle, 0, 4096)) == content
        await m.write(writer, 0, b"more")
        await m.close(writer)
        await m.close(reader)
        assert m.store.content("file") == b"more" + content[4:]

    run(test)


# -- unlinked and replaced while open ---------------------------------------------------------


@pytest.mark.parametrize("size", [4, 100])
def test_an_unlinked_file_is_read_and_written_by_its_openers_and_never_comes_back(
    run: Run, size: int
) -> None:
    async def test(m: Mounted) -> None:
        opened = await m.open(FILE, os.O_RDWR | os.O_CREAT)
        await m.write(opened, 0, b"x" * size)
        await m.unlink(FILE)
        assert not await m.exists(FILE)
        assert await m.read(opened) == b"x" * size
        await m.write(opened, size, b"y" * 50)
        await m.fsync(opened)
        assert await m.read(opened) == b"x" * size + b"y" * 50
        assert (await m.fs.attributes(opened.inode)).attributes.size == size + 50
        await m.close(opened)

    store = run(test)
    assert store.keys() == []
    assert all(upload.result for upload in store.uploads.values())


def test_a_stored_file_that_is_unlinked_stays_readable_until_the_last_close(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        first, second = await m.open(FILE), await m.open(FILE, os.O_RDWR)
        await m.unlink(FILE)
        m.store.seed("file", b"another")
        await m.write(second, 0, b"C")
        await m.close(second)
        assert await m.read(first) == b"Content"
        await m.close(first)
        await m.expire()
        assert await m.read_file(FILE) == b"another"

    assert run(test).content("file") == b"another"


def test_a_large_file_that_is_unlinked_stays_in_the_bucket_until_the_last_close(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        first, second = await m.open(FILE), await m.open(FILE, os.O_RDWR)
        await m.unlink(FILE)
        await m.expire()
        assert not await m.exists(FILE)
        assert await m.names() == []
        await m.write(second, 0, b"C")
        await m.close(second)
        assert await m.read(first) == b"Content"
        assert m.store.keys() == ["file"]
        await m.close(first)

    assert run(test, copied_bytes=0).keys() == []


def test_what_others_store_under_the_name_of_a_removed_open_file_is_theirs(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        opened = await m.open(FILE)
        await m.unlink(FILE)
        m.store.seed("file", b"another")
        await m.expire()
        assert await m.read_file(FILE) == b"another"
        with pytest.raises(VersionChangedError):
            await m.read(opened)
        await m.close(opened)

    assert run(test, copied_bytes=0).content("file") == b"another"


def test_what_was_replaced_by_another_client_can_be_unlinked_by_who_has_it_open(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        opened = await m.open(FILE)
        m.store.seed("file", b"another")
        await m.unlink(FILE)
        await m.close(opened)

    assert run(test).keys() == []


@pytest.mark.parametrize("operation", ["head", "delete"])
def test_a_failed_unlink_leaves_the_file_to_its_openers_and_to_everybody(
    run: Run, operation: str
) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        opened = await m.open(FILE, os.O_RDWR)
        if operation == "delete":
            m.store.seed("file", b"replaced")
        m.store.fail(operation, AccessDeniedError("no"), key="file")
        with pytest.raises(AccessDeniedError):
            await m.unlink(FILE)
        if operation == "head":
            await m.write(opened, 0, b"C")
        await m.close(opened)

    content = b"Content" if operation == "head" else b"replaced"
    assert run(test).content("file") == content


def test_a_removed_file_that_the_store_will_not_delete_is_seen_again_and_told(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        opened = await m.open(FILE)
        await m.unlink(FILE)
        m.store.fail("delete", AccessDeniedError("no"), key="file")
        await m.close(opened)
        await m.expire()
        assert await m.read_file(FILE) == b"content"
        assert m.bench.writes.journal.leftover_removals() == []

    assert run(test, copied_bytes=0).content("file") == b"content"
    assert "'file' was removed here, but the store keeps it" in caplog.text


def test_a_removed_file_that_cannot_be_deleted_now_stays_removed_for_the_next_mount(
    run: Run, tmp_path: Path
) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        opened = await m.open(FILE)
        await m.unlink(FILE)
        m.store.fail("delete", DOWN, key="file", times=2)
        await m.close(opened)
        await m.expire()
        assert not await m.exists(FILE)
        journal = m.bench.writes.journal
        assert tidy_leftovers(journal, m.store) == 0
        m.fs.take_over()
        assert not await m.exists(FILE)
        assert tidy_leftovers(journal, m.store) == 1
        assert journal.leftover_removals() == []

    assert run(test, copied_bytes=0).keys() == []


def test_a_file_renamed_over_an_open_one_leaves_its_openers_the_old_content(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"old")
        m.store.seed("other", b"new!")
        opened = await m.open(FILE, os.O_RDWR)
        await m.rename(OTHER, FILE)
        assert await m.read(opened) == b"old"
        await m.write(opened, 3, b"er")
        await m.close(opened)
        assert await m.read_file(FILE) == b"new!"

    store = run(test)
    assert store.keys() == ["file"]
    assert store.content("file") == b"new!"


def test_dirty_data_of_a_replaced_file_is_gone_for_all_but_its_openers(run: Run) -> None:
    async def test(m: Mounted) -> None:
        target = await m.open(FILE, os.O_RDWR | os.O_CREAT)
        await m.write(target, 0, b"t" * 100)
        await m.write_file(OTHER, b"new")
        await m.rename(OTHER, FILE)
        assert await m.read(target) == b"t" * 100
        await m.close(target)

    assert run(test).content("file") == b"new"


def test_hidden_copies_are_known_to_the_journal_until_they_are_deleted(run: Run) -> None:
    async def test(m: Mounted) -> None:
        journal = m.bench.writes.journal
        m.store.seed("file", b"content")
        opened = await m.open(FILE)
        await m.unlink(FILE)
        (key,) = journal.leftover_scratch()
        assert m.store.keys() == [key]
        assert await m.names() == []
        await m.close(opened)
        assert journal.leftover_scratch() == []

    assert run(test).keys() == []


def test_a_mount_that_ends_deletes_the_hidden_copies_of_open_files(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        await m.open(FILE)
        await m.unlink(FILE)

    assert run(test).keys() == []


# -- renamed while open or being stored -------------------------------------------------------


@pytest.mark.parametrize("stored", [False, True])
def test_an_open_dirty_file_moves_with_its_directory(run: Run, stored: bool) -> None:
    async def test(m: Mounted) -> None:
        await m.mkdir(DIRECTORY)
        if stored:
            await m.write_file(INSIDE, b"old")
        opened = await m.open(INSIDE, os.O_RDWR | os.O_CREAT)
        await m.write(opened, 0, b"n" * 100)
        await m.rename(DIRECTORY, OTHER)
        await m.write(opened, 100, b"more")
        assert await m.read(opened) == b"n" * 100 + b"more"
        await m.close(opened)

    store = run(test)
    assert store.content("other/file") == b"n" * 100 + b"more"
    assert not [key for key in store.objects if key.startswith("dir")]


def test_a_close_during_the_rename_of_a_directory_stores_under_the_new_name(run: Run) -> None:
    async def test(m: Mounted) -> None:
        await m.mkdir(DIRECTORY)
        await m.write_file(INSIDE, b"old")
        opened = await m.open(INSIDE, os.O_RDWR)
        gate = m.store.hold("copy")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(m.rename, DIRECTORY, OTHER)
            await trio.testing.wait_all_tasks_blocked()
            await m.write(opened, 0, b"new")
            nursery.start_soon(m.close, opened)
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
        assert await m.read_file(("other", "file")) == b"new"

    store = run(test)
    assert store.content("other/file") == b"new"
    assert not [key for key in store.objects if key.startswith("dir")]


def test_a_rename_waits_for_the_upload_of_a_new_file_below(run: Run) -> None:
    async def test(m: Mounted) -> None:
        await m.mkdir(DIRECTORY)
        opened = await m.open(INSIDE, CREATE)
        await m.write(opened, 0, b"new")
        gate = m.store.hold("put")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(m.close, opened)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(m.rename, DIRECTORY, OTHER)
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
        assert await m.read_file(("other", "file")) == b"new"
        assert await m.names() == ["other"]

    assert run(test).content("other/file") == b"new"


def test_a_file_streamed_and_read_while_its_directory_moves_leaves_nothing_under_its_old_name(
    run: Run,
) -> None:
    """The bytes that leave memory meanwhile must not need the old key to be readable again."""

    async def test(m: Mounted) -> None:
        await m.mkdir(DIRECTORY)
        await m.write_file(("dir", "stored"), b"content")
        opened = await m.open(INSIDE, CREATE)
        reader = await m.open(INSIDE)
        gate = m.store.hold("copy")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(m.rename, DIRECTORY, OTHER)
            while not m.store.requests["copy"]:
                await trio.lowlevel.checkpoint()  # until the move is under way
            await m.write(opened, 0, bytes(range(100)))
            while m.fs.read_nowait(reader.handle, 33, 4) is not None:
                await trio.lowlevel.checkpoint()  # until the store has them
            assert await m.read(reader, 30, 20) == bytes(range(30, 50))
            assert "dir/file" not in m.store.objects
            gate.set()
        await m.close(opened)
        await m.close(reader)
        assert await m.read_file(("other", "file")) == bytes(range(100))

    assert run(test).keys() == ["other/", "other/file", "other/stored"]


def test_names_made_and_removed_during_a_rename_of_their_directory_follow_it(run: Run) -> None:
    async def test(m: Mounted) -> None:
        await m.mkdir(DIRECTORY)
        await m.write_file(INSIDE, b"content")
        await m.write_file(("dir", "victim"), b"content")
        async with m.at(DIRECTORY) as number:
            gate = m.store.hold("copy")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(m.rename, DIRECTORY, OTHER)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(m.fs.make_directory, number, b"sub", 0o755, 0, 0)
                nursery.start_soon(m.fs.make_symlink, number, b"link", b"file", 0, 0)
                nursery.start_soon(m.fs.unlink, number, b"victim")
                await trio.testing.wait_all_tasks_blocked()
                gate.set()
        assert sorted(await m.names(OTHER)) == ["file", "link", "sub"]

    store = run(test)
    assert store.keys() == ["other/", "other/file", "other/link", "other/sub/"]


def test_renames_that_cross_end_with_both_files(run: Run) -> None:
    async def test(m: Mounted) -> None:
        for name in ("a", "b"):
            await m.mkdir((name,))
            await m.write_file((name, "file"), name.encode())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(m.rename, ("a", "file"), ("b", "moved"))
            nursery.start_soon(m.rename, ("b", "file"), ("a", "moved"))
        assert await m.read_file(("b", "moved")) == b"a"
        assert await m.read_file(("a", "moved")) == b"b"

    run(test)


def test_an_exclusively_created_file_may_be_renamed_over_another_before_it_is_closed(
    run: Run,
) -> None:
    async def test(m: Mounted) -> None:
        await m.write_file(FILE, b"old")
        opened = await m.open(("temporary",), EXCLUSIVE)
        await m.write(opened, 0, b"new")
        await m.rename(("temporary",), FILE)
        await m.close(opened)
        assert await m.read_file(FILE) == b"new"

    store = run(test, fail_on_conflict=True)
    assert store.keys() == ["file"]
    assert store.content("file") == b"new"


# -- other clients ----------------------------------------------------------------------------


def test_a_reader_keeps_the_version_it_began_with_or_is_told_whoever_reads_the_new_one(
    run: Run,
) -> None:
    old_bytes, new_bytes = b"old" * 300_000, b"a new one"

    async def test(m: Mounted) -> None:
        m.store.seed("file", old_bytes)
        old = await m.open(FILE)
        assert await m.fs.read(old.handle, 0, 3) == b"old"
        m.store.seed("file", new_bytes)
        await m.expire()
        new = await m.open(FILE)
        assert new.inode != old.inode  # the kernel keeps sizes and pages by number
        assert await m.read(new) == new_bytes
        assert (await m.fs.attributes(old.inode)).attributes.size == len(old_bytes)
        assert await m.fs.read(old.handle, len(old_bytes), 10) == b""
        with contextlib.suppress(VersionChangedError):  # not at hand any more
            assert await m.fs.read(old.handle, 0, 3) == b"old"
        with pytest.raises(VersionChangedError):
            await m.fs.read(old.handle, 500_000, 3)
        with pytest.raises(VersionChangedError):
            await m.fs.write(old.handle, 0, b"lost")
        assert m.store.content("file") == new_bytes
        await m.close(old)
        await m.close(new)
        assert m.store.content("file") == new_bytes

    run(test)


def test_closing_a_file_that_was_only_made_or_emptied_stores_it(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        emptied = await m.open(FILE, os.O_RDONLY | os.O_TRUNC)
        await m.flush(emptied)
        assert m.store.content("file") == b""
        made = await m.open(OTHER, os.O_RDONLY | os.O_CREAT)
        await m.flush(made)
        assert m.store.content("other") == b""
        await m.release(made)
        await m.release(emptied)

    run(test)


def test_whoever_opens_a_file_after_a_reader_found_it_replaced_gets_the_new_one(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"o" * 900_000)
        reader = await m.open(FILE)
        assert await m.read(reader, 0, 100) == b"o" * 100
        m.store.seed("file", b"the new one")
        with pytest.raises(VersionChangedError):
            await m.read(reader, 700_000, 100)
        opened = await m.open(FILE)
        assert await m.read(opened, 0, 100) == b"the new one"
        assert await m.read_file(FILE) == b"the new one"
        await m.close(opened)
        await m.close(reader)

    run(test)


def test_the_kernel_keeps_pages_of_the_same_version_only(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"old")

        async def keeps() -> bool:
            opened = await m.open(FILE)
            keep = opened.keep_cache
            await m.fs.read(opened.handle, 0, 100)
            await m.close(opened)
            return keep

        async with m.at(FILE):
            assert [await keeps(), await keeps()] == [True, True], "at first there is no page"
            m.store.seed("file", b"new")
            await m.expire()
            await m.stat(FILE)
            assert not m.channel.invalidated, "the next open drops them"
            assert [await keeps(), await keeps()] == [False, True]
            await m.write_file(FILE, b"mine")
            assert [await keeps(), await keeps()] == [False, True]

    run(test)


def test_what_the_kernel_forgot_before_a_file_was_let_go_is_not_remembered(run: Run) -> None:
    """As with write-back, which holds a file for longer than the kernel knows its inode."""

    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        opened = await m.open(FILE)
        await m.fs.read(opened.handle, 0, 100)
        m.fs.forget([(opened.inode, 1)])
        await m.fs.release(opened.handle)
        m.store.seed("file", b"of others")
        await m.expire()
        again = await m.open(FILE)
        assert again.inode == opened.inode
        assert again.keep_cache, "the kernel has no page of it"
        await m.close(again)

    run(test)


def test_writes_go_past_the_pages_of_a_file_that_is_open_for_nothing_else(run: Run) -> None:
    async def test(m: Mounted) -> None:
        async def past_pages(flags: int) -> bool:
            opened = await m.open(FILE, flags)
            past = opened.past_pages
            await m.close(opened)
            return past

        assert await past_pages(CREATE)
        assert await past_pages(os.O_WRONLY | os.O_APPEND)
        assert not await past_pages(os.O_RDWR)
        assert not await past_pages(os.O_RDONLY)
        assert not await past_pages(os.O_WRONLY | os.O_SYNC)
        assert not await past_pages(os.O_WRONLY | os.O_DSYNC)
        await m.change(FILE, mode=0o4755)
        assert not await past_pages(os.O_WRONLY)
        await m.change(FILE, mode=0o755)
        reader = await m.open(FILE)
        assert not await past_pages(os.O_WRONLY)
        await m.close(reader)
        assert await past_pages(os.O_WRONLY)

    run(test)


@pytest.mark.parametrize("how", ["open", "truncate", "ftruncate"])
def test_the_time_of_an_empty_file_changes_when_it_is_emptied_again(run: Run, how: str) -> None:
    """A shell's "> stamp", for make(1)."""

    async def test(m: Mounted) -> None:
        await m.write_file(FILE, b"")
        await m.change(FILE, mtime_ns=10**18)
        if how == "truncate":
            async with m.at(FILE) as number:
                await m.fs.set_attributes(number, NO_CHANGE, 0, None)
        else:
            opened = await m.open(FILE, os.O_WRONLY | (os.O_TRUNC if how == "open" else 0))
            if how == "ftruncate":
                await m.truncate(opened, 0)
            await m.close(opened)
        shown = (await m.stat(FILE)).mtime_ns
        assert shown > 10**18
        told = decode(m.store.objects["file"].info.metadata or {})
        assert told.mtime_ns is not None
        assert abs(told.mtime_ns - shown) < 10**9

    run(test, posix_metadata=True)


def test_set_id_bits_are_gone_when_somebody_else_than_root_has_emptied_a_file(run: Run) -> None:
    """The lane is told whose; without it, the kernel leaves them to whoever opens."""

    async def test(m: Mounted) -> None:
        await m.write_file(FILE, b"content")
        for uid, left in ((0, 0o6755), (UID, 0o755)):
            await m.change(FILE, mode=0o6755)
            async with m.at(FILE) as number:
                reply = await m.fs.open(number, os.O_WRONLY | os.O_TRUNC, uid)
                assert stat.S_IMODE((await m.stat(FILE)).mode) == left
                await m.fs.flush(reply.handle)
                await m.fs.release(reply.handle)

    run(test, special_modes=True)


def test_pages_of_readers_are_gone_before_a_write_past_them_returns(run: Run) -> None:
    """The kernel does that by itself from Linux 6.6 on only."""

    async def test(m: Mounted) -> None:
        dropped: list[tuple[int, bytes]] = []

        async def drop_pages(number: int) -> None:
            dropped.append((number, bytes(await m.fs.read(writer.handle, 0, 100))))

        m.channel.on_drop = drop_pages
        writer = await m.open(FILE, CREATE)
        await m.write(writer, 0, b"nobody reads")
        assert dropped == []
        reader = await m.open(FILE)
        await m.write(writer, 0, b"somebody")
        assert [content for _, content in dropped] == [b"somebodyeads"]
        await m.close(reader)
        # Its pages are still there for the next reader.
        await m.write(writer, 0, b"S")
        async with m.at(FILE) as number:
            assert dropped == [(number, b"somebodyeads"), (number, b"Somebodyeads")]
        await m.close(writer)

    run(test)


@pytest.mark.parametrize("change", ["chmod", "xattr", "rename"])
def test_a_reader_never_gets_bytes_of_a_version_that_it_did_not_open(run: Run, change: str) -> None:
    size = 300_000

    async def test(m: Mounted) -> None:
        m.store.seed("file", b"o" * size)
        opened = await m.open(FILE)
        assert await m.read(opened, 0, 100) == b"o" * 100
        m.store.seed("file", b"n" * size)
        await m.expire()
        if change == "chmod":
            await m.change(FILE, mode=0o600)
        elif change == "xattr":
            await m.set_xattr(FILE, "user.a", b"value")
        else:
            await m.rename(FILE, OTHER)
        seen = set()
        try:
            for offset in range(0, size, 10_000):
                seen |= set(await m.read(opened, offset, 10_000))
        except OssfsError as exc:
            assert errno_of(exc) in {errno.ESTALE, errno.ENOENT}
        assert seen <= set(b"o")
        await m.close(opened)

    run(test)


@pytest.mark.parametrize("change", ["chmod", "xattr", "rename"])
def test_a_reader_reads_on_after_this_mount_rewrote_the_metadata(run: Run, change: str) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        opened = await m.open(FILE, os.O_RDWR)
        if change == "chmod":
            await m.change(FILE, mode=0o600)
        elif change == "xattr":
            await m.set_xattr(FILE, "user.a", b"value")
        else:
            await m.rename(FILE, OTHER)
        assert await m.read(opened) == b"content"
        await m.write(opened, 0, b"C")
        await m.close(opened)

    store = run(test, fail_on_conflict=True)
    assert store.content("other" if change == "rename" else "file") == b"Content"


def test_exclusive_creation_is_refused_by_the_store_if_another_client_was_faster(run: Run) -> None:
    async def test(m: Mounted) -> None:
        opened = await m.open(FILE, EXCLUSIVE)
        await m.write(opened, 0, b"mine")
        m.store.seed("file", b"theirs")
        with pytest.raises(ConditionFailedError):
            await m.close(opened)
        (record,) = unsaved(m).list()
        assert record.key == "file"

    assert run(test).content("file") == b"theirs"


@pytest.mark.parametrize("fail", [False, True])
def test_the_last_close_wins_unless_conflicts_are_to_fail(run: Run, fail: bool) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"original")
        opened = await m.open(FILE, os.O_WRONLY | os.O_TRUNC)
        await m.write(opened, 0, b"mine")
        m.store.seed("file", b"theirs")
        if fail:
            with pytest.raises(ConditionFailedError):
                await m.close(opened)
        else:
            await m.close(opened)

    assert run(test, fail_on_conflict=fail).content("file") == (b"theirs" if fail else b"mine")


def test_what_other_tools_stored_beside_the_bytes_survives_rewriting_them(run: Run) -> None:
    async def test(m: Mounted) -> None:
        await m.names()
        await m.write_file(FILE, b"new")

    store = FakeStore(min_part_bytes=TINY_PARTS.min_part)
    store.seed("file", b"old", metadata={"license": "MIT", "mode": "33024"})
    run(test, store=store)
    assert store.metadata("file")["license"] == "MIT"
    assert store.metadata("file")["mode"] == "33024"


# -- failing stores ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 100])
def test_a_program_that_gives_up_leaves_its_data_to_be_recovered(run: Run, size: int) -> None:
    async def test(m: Mounted) -> None:
        for method in ("put", "upload_part", "complete"):
            m.store.fail(method, DOWN, times=100)
        opened = await m.open(FILE, CREATE)
        await m.write(opened, 0, b"x" * size)
        with pytest.raises(StoreUnavailableError):
            await m.flush(opened)
        with pytest.raises(StoreUnavailableError):
            await m.fsync(opened)
        await m.release(opened)
        assert not await m.exists(FILE)
        m.store.mend()
        recovery = unsaved(m)
        (record,) = recovery.list()
        recovery.upload(record.ident, m.store)
        await m.expire()
        assert await m.read_file(FILE) == b"x" * size

    run(test)


def test_a_file_opened_again_while_its_last_upload_fails_is_not_taken_away(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"old")
        first = await m.open(FILE, os.O_RDWR)
        await m.write(first, 0, b"new")
        gate = m.store.hold("put")
        m.store.fail("put", DOWN)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(m.release, first)
            await trio.testing.wait_all_tasks_blocked()
            second = await m.open(FILE, os.O_RDWR)
            gate.set()
        assert unsaved(m).list() == []
        assert await m.read(second) == b"new"
        await m.close(second)

    assert run(test).content("file") == b"new"


def test_what_is_written_while_the_last_upload_runs_is_stored_too(run: Run) -> None:
    async def test(m: Mounted) -> None:
        first = await m.open(FILE, CREATE)
        await m.write(first, 0, b"first")
        gate = m.store.hold("put")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(m.release, first)
            await trio.testing.wait_all_tasks_blocked()
            second = await m.open(FILE, os.O_RDWR)
            nursery.start_soon(m.write, second, 5, b" second")
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
        await m.release(second)

    assert run(test).content("file") == b"first second"


@pytest.mark.parametrize("method", ["put", "get_range_into"])
def test_a_failed_truncate_changes_nothing_and_leaves_nothing_behind(run: Run, method: str) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        m.store.fail(method, DOWN, times=10)
        with pytest.raises(StoreUnavailableError):
            await m.change(FILE, 3)
        m.store.mend()
        assert (await m.stat(FILE)).size == 7
        assert await m.read_file(FILE) == b"content"
        assert unsaved(m).list() == []

    assert run(test).content("file") == b"content"


def test_a_failed_mknod_leaves_nothing_behind(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.fail("put", DOWN)
        root = ROOT_NUMBER
        with pytest.raises(StoreUnavailableError):
            await m.fs.make_node(root, b"file", 0o100644, 0, 0)
        assert not await m.exists(FILE)
        assert unsaved(m).list() == []
        await m.fs.make_node(root, b"file", 0o100644, 0, 0)

    assert run(test).content("file") == b""


def test_draining_stores_what_is_dirty_and_sets_the_rest_aside(run: Run) -> None:
    async def test(m: Mounted) -> None:
        for name in ("good", "bad", "worse"):
            opened = await m.open((name,), CREATE)
            await m.write(opened, 0, name.encode())
        for name in ("bad", "worse"):
            m.store.fail("put", DOWN, key=name, times=10)
        with pytest.raises(UnsavedDataError):
            await m.fs.drain()
        assert m.store.keys() == ["good"]
        assert {record.key for record in unsaved(m).list()} == {"bad", "worse"}
        await m.fs.drain()

    run(test)


def test_a_failed_rename_leaves_the_open_target_as_it_was(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"old")
        m.store.seed("other", b"new")
        opened = await m.open(FILE, os.O_RDWR)
        m.store.fail("copy", DOWN, key="other", times=10)
        with pytest.raises(StoreUnavailableError):
            await m.rename(OTHER, FILE)
        m.store.mend()
        assert await m.read(opened) == b"old"
        await m.write(opened, 0, b"O")
        await m.fsync(opened)
        assert m.store.content("file") == b"Old"
        await m.rename(OTHER, FILE)
        assert await m.read(opened) == b"Old"
        await m.close(opened)

    assert run(test).content("file") == b"new"


# -- what the mount does not offer ------------------------------------------------------------


def test_device_nodes_are_not_permitted(run: Run) -> None:
    async def test(m: Mounted) -> None:
        for type_bits in (stat.S_IFCHR, stat.S_IFBLK):
            with pytest.raises(NotPermittedError):
                await m.fs.make_node(ROOT_NUMBER, b"device", type_bits | 0o644, 0, 0)

    run(test)


def test_a_read_only_mount_refuses_every_change_without_a_request(run: Run) -> None:
    store = FakeStore()
    store.seed("file", b"content")
    store.seed("dir/")

    async def test(m: Mounted) -> None:
        assert await m.read_file(FILE) == b"content"
        await m.stat(DIRECTORY)
        store.take_requests()
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: m.open(FILE, os.O_RDWR),
            lambda: m.open(("new",), CREATE),
            lambda: m.mkdir(("new",)),
            lambda: m.rmdir(DIRECTORY),
            lambda: m.unlink(FILE),
            lambda: m.rename(FILE, OTHER),
            lambda: m.symlink(b"x", ("link",)),
            lambda: m.change(FILE, mode=0o600),
            lambda: m.change(FILE, 0),
            lambda: m.set_xattr(FILE, "user.a", b"x"),
            lambda: m.remove_xattr(FILE, "user.a"),
            lambda: m.fs.make_node(ROOT_NUMBER, b"n", 0o100644, 0, 0),
        ]
        for call in calls:
            with pytest.raises(ReadOnlyError):
                await call()
        changed = {"put", "copy", "delete", "start_multipart"} & set(store.take_requests())
        assert not changed

    run(test, store=store, read_only=True)

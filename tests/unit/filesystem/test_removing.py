"""Removing while files are read, written and stored: what rm waits for, and what comes behind."""

import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from ossfs_py.errors import NoSuchEntryError, StoreUnavailableError
from ossfs_py.filesystem.removals import COPIED_BYTES
from ossfs_py.namespace.keys import RESERVED_PREFIX
from ossfs_py.writing.recovery import tidy_leftovers
from tests.support.fake_store import FakeStore
from tests.support.filesystems import Mounted, Names, on_mount
from tests.support.mounting import DATA_PATHS

Test = Callable[[Mounted], Awaitable[None]]
Run = Callable[..., FakeStore]

DOWN = StoreUnavailableError("down")
CREATE = os.O_WRONLY | os.O_CREAT
FILE: Names = ("file",)
OTHER: Names = ("other",)
DIRECTORY: Names = ("dir",)
INSIDE: Names = ("dir", "file")
PATIENCE_SECONDS = 30.0


@pytest.fixture(params=[0, COPIED_BYTES], ids=["left", "copied"])
def copied_bytes(request: pytest.FixtureRequest) -> int:
    """Whether an object that is still read stays where it is or is copied, in turn."""
    return int(request.param)


@pytest.fixture(params=DATA_PATHS)
def run(request: pytest.FixtureRequest, tmp_path: Path, copied_bytes: int) -> Run:
    """Runs a test on a mount over each data path; no hidden object and no record is left by it."""

    def run_one(test: Test, **options: Any) -> FakeStore:
        options.setdefault("copied_bytes", copied_bytes)

        async def checked(m: Mounted) -> None:
            await test(m)
            await m.fs.close()
            await m.bench.idle()
            journal = m.bench.writes.journal
            assert journal.leftover_removals() == []
            assert journal.leftover_scratch() == []
            assert journal.leftover_uploads() == []

        store = on_mount(request.param, tmp_path, checked, **options)
        assert not [key for key in store.objects if RESERVED_PREFIX in key]
        return store

    return run_one


async def reached(m: Mounted, method: str, count: int = 1) -> None:
    """Until the store was asked for it."""
    while m.store.requests[method] < count:
        await trio.lowlevel.checkpoint()


async def at_once(call: Awaitable[Any]) -> Any:
    """The result of a call that must not wait for the store's gates."""
    with trio.fail_after(PATIENCE_SECONDS):
        return await call


# -- an upload is under way -------------------------------------------------------------------


@pytest.mark.parametrize("method", ["put", "upload_part", "complete"])
def test_a_file_is_removed_at_once_while_its_upload_hangs(run: Run, method: str) -> None:
    async def test(m: Mounted) -> None:
        await m.mkdir(DIRECTORY)
        gate = m.store.hold(method)
        opened = await m.open(INSIDE, CREATE)
        await m.write(opened, 0, b"x" * (4 if method == "put" else 60))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(m.close, opened)
            await reached(m, method)
            await at_once(m.unlink(INSIDE))
            assert await at_once(m.names(DIRECTORY)) == []
            assert not await at_once(m.exists(INSIDE))
            await at_once(m.rmdir(DIRECTORY))
            assert await at_once(m.names()) == []
            gate.set()
        await m.bench.idle()
        await m.expire()
        assert await m.names() == []

    assert run(test).keys() == []


def test_closing_a_file_that_was_removed_meanwhile_waits_for_no_upload(
    tmp_path: Path,
) -> None:
    """On disk all bytes are here, so that nobody needs what is under way."""

    async def test(m: Mounted) -> None:
        gate = m.store.hold("upload_part")
        opened = await m.open(FILE, CREATE)
        await m.write(opened, 0, b"x" * 60)
        with trio.fail_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(m.flush, opened)
                await reached(m, "upload_part")
                await m.unlink(FILE)
        assert m.store.requests["complete"] == 0
        gate.set()
        await m.release(opened)

    assert on_mount("temp", tmp_path, test).keys() == []


def test_what_is_only_in_a_removed_files_upload_is_read_on(run: Run) -> None:
    """``direct`` has sent its bytes from memory: the upload ends under the hidden name."""

    async def test(m: Mounted) -> None:
        content = bytes(range(100))
        writer = await m.open(FILE, CREATE)
        reader = await m.open(FILE)
        await m.write(writer, 0, content)
        await m.bench.idle()
        gate = m.store.hold("complete")
        await at_once(m.unlink(FILE))
        assert await at_once(m.names()) == []
        gate.set()
        assert await m.read(reader) == content
        await m.write(writer, 100, b"more")
        await m.close(writer)
        assert await m.read(reader) == content + b"more"
        assert not await m.exists(FILE)
        await m.close(reader)

    assert run(test).keys() == []


def test_an_upload_that_ends_after_the_name_was_used_again_does_not_replace_the_new_file(
    run: Run,
) -> None:
    async def test(m: Mounted) -> None:
        gate = m.store.hold("put")
        old = await m.open(FILE, CREATE)
        await m.write(old, 0, b"old")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(m.close, old)
            await reached(m, "put")
            await at_once(m.unlink(FILE))
            new = await at_once(m.open(FILE, CREATE | os.O_EXCL))
            await m.write(new, 0, b"new!")
            nursery.start_soon(m.close, new)
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
        assert await m.read_file(FILE) == b"new!"

    assert run(test).content("file") == b"new!"


def test_an_upload_whose_end_was_never_heard_of_does_not_bring_the_file_back(run: Run) -> None:
    async def test(m: Mounted) -> None:
        gate = m.store.hold("put")
        m.store.fail("put", DOWN)
        opened = await m.open(FILE, CREATE)
        await m.write(opened, 0, b"old")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(m.close, opened)
            await reached(m, "put")
            await at_once(m.unlink(FILE))
            m.store._clock_ns = time.time_ns()
            m.store.seed("file", b"old")  # the request was carried out, its answer lost
            assert not await at_once(m.exists(FILE))
            gate.set()

    assert run(test).keys() == []


# -- an object is read ------------------------------------------------------------------------


def test_removing_a_file_that_is_read_copies_nothing(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"x" * 1000)
        opened = await m.open(FILE)
        await m.names()
        m.store.take_requests()
        await m.unlink(FILE)
        assert m.store.take_requests() == {"head": 1}
        assert await m.read(opened) == b"x" * 1000
        m.store.take_requests()
        await m.close(opened)
        assert m.store.take_requests() == {"head": 1, "delete": 1}

    assert run(test, copied_bytes=0).keys() == []


@pytest.mark.parametrize("flags", [CREATE, CREATE | os.O_EXCL, CREATE | os.O_APPEND])
def test_a_name_is_used_again_while_the_removed_file_is_read(run: Run, flags: int) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"old" * 30)
        reader = await m.open(FILE)
        await m.unlink(FILE)
        new = await m.open(FILE, flags)
        await m.write(new, 0, b"new" * 40)
        await m.close(new)
        assert await m.read(reader) == b"old" * 30
        assert await m.read_file(FILE) == b"new" * 40
        await m.close(reader)
        await m.expire()
        assert await m.read_file(FILE) == b"new" * 40

    assert run(test).content("file") == b"new" * 40


def test_what_is_written_again_is_kept_while_the_old_object_cannot_be_moved_away(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"old" * 30)
        reader = await m.open(FILE)
        await m.unlink(FILE)
        new = await m.open(FILE, CREATE)
        await m.write(new, 0, b"new")
        m.store.fail("copy", DOWN)
        with pytest.raises(StoreUnavailableError):
            await m.flush(new)
        assert await m.read(reader) == b"old" * 30
        await m.fsync(new)
        await m.release(new)
        assert await m.read(reader) == b"old" * 30
        await m.close(reader)

    assert run(test, copied_bytes=0).content("file") == b"new"


@pytest.mark.parametrize("special", [False, True])
def test_a_name_goes_to_another_file_or_link_while_the_removed_one_is_read(
    run: Run, special: bool
) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"old" * 30)
        reader = await m.open(FILE)
        await m.unlink(FILE)
        if special:
            await m.symlink(b"target", FILE)
            assert await m.readlink(FILE) == b"target"
        else:
            await m.write_file(OTHER, b"other")
            await m.rename(OTHER, FILE)
            assert await m.read_file(FILE) == b"other"
        assert await m.read(reader) == b"old" * 30
        await m.close(reader)

    assert run(test).keys() == ["file"]


def test_two_removals_in_a_row_leave_both_readers_their_own(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"first" * 10)
        first = await m.open(FILE)
        await m.unlink(FILE)
        await m.write_file(FILE, b"second" * 10)
        second = await m.open(FILE)
        await m.unlink(FILE)
        assert not await m.exists(FILE)
        assert await m.read(first) == b"first" * 10
        assert await m.read(second) == b"second" * 10
        await m.close(first)
        assert await m.read(second) == b"second" * 10
        assert not await m.exists(FILE)
        await m.close(second)

    assert run(test).keys() == []


@pytest.mark.parametrize("again", [False, True])
def test_a_directory_with_nothing_but_removed_files_is_empty_and_goes(
    run: Run, again: bool
) -> None:
    async def test(m: Mounted) -> None:
        await m.mkdir(DIRECTORY)
        await m.mkdir(("dir", "sub"))
        m.store.seed("dir/sub/file", b"content")
        m.store.seed("dir/file", b"content")
        readers = [await m.open(("dir", "sub", "file")), await m.open(INSIDE)]
        await m.unlink(("dir", "sub", "file"))
        await m.unlink(INSIDE)
        assert await m.names(("dir", "sub")) == []
        await m.rmdir(("dir", "sub"))
        await m.expire()
        assert await m.names(DIRECTORY) == []
        await m.rmdir(DIRECTORY)
        await m.expire()
        assert await m.names() == []
        assert not await m.exists(DIRECTORY)
        if again:
            await m.mkdir(DIRECTORY)
            assert await m.names(DIRECTORY) == []
        for reader in readers:
            assert await m.read(reader) == b"content"
            await m.close(reader)
        await m.expire()
        assert await m.names() == (["dir"] if again else [])

    assert run(test).keys() == (["dir/"] if again else [])


def test_a_directory_moves_over_one_whose_files_were_removed_while_they_are_read(run: Run) -> None:
    async def test(m: Mounted) -> None:
        await m.mkdir(DIRECTORY)
        m.store.seed("dir/file", b"old" * 30)
        reader = await m.open(INSIDE)
        await m.unlink(INSIDE)
        await m.mkdir(OTHER)
        await m.write_file(("other", "file"), b"new")
        await m.rename(OTHER, DIRECTORY)
        assert await m.read_file(INSIDE) == b"new"
        assert await m.read(reader) == b"old" * 30
        await m.close(reader)

    assert run(test).keys() == ["dir/", "dir/file"]


def test_a_directory_moves_away_from_a_removed_file_that_is_read(run: Run) -> None:
    async def test(m: Mounted) -> None:
        await m.mkdir(DIRECTORY)
        m.store.seed("dir/file", b"old" * 30)
        await m.write_file(("dir", "kept"), b"kept")
        reader = await m.open(INSIDE)
        await m.unlink(INSIDE)
        await m.rename(DIRECTORY, OTHER)
        await m.expire()
        assert await m.names() == ["other"]
        assert await m.names(OTHER) == ["kept"]
        assert await m.read(reader) == b"old" * 30
        await m.close(reader)

    assert run(test).keys() == ["other/", "other/kept"]


def test_the_last_close_during_the_copy_that_makes_room_leaves_no_hidden_object(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"old" * 30)
        reader = await m.open(FILE)
        await m.unlink(FILE)
        gate = m.store.hold("copy")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(m.write_file, FILE, b"new")
            await reached(m, "copy")
            nursery.start_soon(m.close, reader)
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
        assert await m.read_file(FILE) == b"new"

    assert run(test, copied_bytes=0).keys() == ["file"]


def test_the_last_close_during_a_rename_over_the_file_leaves_no_hidden_object(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"old" * 30)
        m.store.seed("other", b"new")
        reader = await m.open(FILE)
        gate = m.store.hold("copy")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(m.rename, OTHER, FILE)
            await reached(m, "copy")
            await m.close(reader)
            gate.set()
        assert await m.read_file(FILE) == b"new"

    assert run(test).keys() == ["file"]


def test_rm_does_not_wait_for_a_copy_that_hangs(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        reader = await m.open(FILE)
        gate = m.store.hold("copy")
        await at_once(m.unlink(FILE))
        assert not await at_once(m.exists(FILE))
        assert await at_once(m.names()) == []
        assert await m.read(reader) == b"content"
        gate.set()
        with trio.fail_after(PATIENCE_SECONDS):
            while "file" in m.store.objects:
                await trio.lowlevel.checkpoint()
        (key,) = m.store.keys()
        assert key.startswith(RESERVED_PREFIX)
        await m.close(reader)

    assert run(test, copied_bytes=COPIED_BYTES).keys() == []


def test_a_copy_that_fails_leaves_the_object_until_the_last_close(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        reader = await m.open(FILE)
        m.store.fail("copy", DOWN)
        await m.unlink(FILE)
        assert not await m.exists(FILE)
        assert await m.read(reader) == b"content"
        assert m.store.keys() == ["file"]
        await m.close(reader)

    assert run(test, copied_bytes=COPIED_BYTES).keys() == []


# -- killed in between ------------------------------------------------------------------------


def test_the_next_mount_finishes_what_was_removed_and_not_what_others_made_since(
    run: Run,
) -> None:
    async def test(m: Mounted) -> None:
        journal = m.bench.writes.journal
        await m.mkdir(DIRECTORY)
        for name in ("dir/file", "other"):
            m.store.seed(name, b"content")
        first, second = await m.open(INSIDE), await m.open(OTHER)
        await m.unlink(INSIDE)
        await m.rmdir(DIRECTORY)
        await m.unlink(OTHER)
        assert len(journal.leftover_removals()) == 2
        m.store.seed("dir/", b"")  # as a store that keeps a marker while the directory has keys
        m.store.seed("other", b"of others")
        assert tidy_leftovers(journal, m.store) == 1
        assert m.store.keys() == ["other"]
        await m.close(first)
        await m.close(second)

    assert run(test, copied_bytes=0).keys() == ["other"]


def test_a_removal_that_is_not_in_the_journal_has_not_happened(run: Run) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        opened = await m.open(FILE)
        removals = m.bench.writes.journal.directory / "removals"
        removals.rename(removals.with_name("away"))
        with pytest.raises(OSError, match="removals"):
            await m.unlink(FILE)
        removals.with_name("away").rename(removals)
        assert await m.read_file(FILE) == b"content"
        await m.unlink(FILE)
        with pytest.raises(NoSuchEntryError):
            await m.read_file(FILE)
        await m.close(opened)

    assert run(test).keys() == []

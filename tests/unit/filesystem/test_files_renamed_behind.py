"""Renames of stored files with write-back: done for programs at once, at the store afterwards."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from ossfs_py.errors import (
    AccessDeniedError,
    DirectoryNotEmptyError,
    StoreUnavailableError,
    UnsavedDataError,
)
from ossfs_py.writing.filerenames import FileRenameRecord
from ossfs_py.writing.journal import Journal
from ossfs_py.writing.recovery import tidy_leftovers
from ossfs_py.writing.removals import RemovalRecord
from tests.support.fake_store import FakeStore
from tests.support.filesystems import Mounted, on_mount
from tests.support.renaming import InBackground, fails, files, time_passes

DOWN = StoreUnavailableError("the store is down", operation="CopyObject")


def filled(**contents: bytes) -> FakeStore:
    store = FakeStore(min_part_bytes=16)
    for key, content in (contents or {"tmp": b"content", "other": b"o"}).items():
        store.seed(key.replace("__", "/"), content)
    return store


def run(
    root: Path, test: Callable[[Mounted], Awaitable[None]], store: FakeStore, **options: object
) -> FakeStore:
    return on_mount(
        "temp",
        root,
        test,
        store=store,
        **{"write_back": True, "negative_ttl_seconds": 1.0} | options,
    )


def next_mount(root: Path, store: FakeStore) -> None:
    """What it does first."""
    journal = Journal(root / "state")
    journal.claim_leftovers()
    tidy_leftovers(journal, store)
    left = journal.leftover_file_renames()
    journal.close()
    assert left == []


@pytest.mark.parametrize("is_known", [True, False])
def test_a_renamed_file_is_seen_under_its_new_name_alone_before_the_store_knows(
    tmp_path: Path, is_known: bool
) -> None:
    store = filled()

    async def test(m: Mounted) -> None:
        if is_known:
            assert await m.names() == ["other", "tmp"]
        with store.holding("copy") as gate:
            await m.rename(("tmp",), ("file",))
            for _ in range(3):
                assert sorted(await m.names()) == ["file", "other"]
                assert (await m.stat(("file",))).size == 7
                assert await m.read_file(("file",)) == b"content"
                assert not await m.exists(("tmp",))
                await time_passes()  # from now on, the store is asked
            assert files(store) == {"other": b"o", "tmp": b"content"}
            gate.set()
            await m.fs.sync()
            assert files(store) == {"other": b"o", "file": b"content"}
            assert sorted(await m.names()) == ["file", "other"]
            assert await m.read_file(("file",)) == b"content"

    run(tmp_path, test, store)


def test_a_file_that_is_read_meanwhile_is_read_on(tmp_path: Path) -> None:
    store = filled()

    async def test(m: Mounted) -> None:
        with store.holding("copy") as gate:
            await m.rename(("tmp",), ("file",))
            early = await m.open(("file",))
            late = await m.open(("file",))
            assert await m.read(early) == b"content"
            gate.set()
            await m.fs.sync()
            assert "tmp" not in store.objects
            assert await m.read(late) == b"content"
            for each in (early, late):
                await m.close(each)

    run(tmp_path, test, store)


CHANGES: dict[str, Callable[[Mounted], Awaitable[object]]] = {
    "unlink": lambda m: m.unlink(("file",)),
    "rename": lambda m: m.rename(("file",), ("there",)),
    "open to write": lambda m: m.open(("file",), os.O_RDWR),
    "chmod": lambda m: m.change(("file",), mode=0o600),
    "mkdir": lambda m: m.mkdir(("tmp",)),
    "create": lambda m: m.write_file(("tmp",), b"another"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_the_file_or_needs_its_old_name_waits(tmp_path: Path, change: str) -> None:
    store = filled(tmp=b"content")

    async def test(m: Mounted) -> None:
        with store.holding("copy") as gate:
            await m.rename(("tmp",), ("file",))
            async with trio.open_nursery() as nursery:
                waiting = InBackground(nursery, lambda: CHANGES[change](m))
                await time_passes(3)
                assert not waiting.is_done
                gate.set()
            await m.fs.sync()

    run(tmp_path, test, store)
    name = {"rename": "there"}.get(change, "file")
    left = {} if change == "unlink" else {name: b"content"}
    assert files(store) == left | ({"tmp": b"another"} if change == "create" else {})


def test_a_file_that_is_open_is_at_the_store_when_its_rename_returns(tmp_path: Path) -> None:
    """Its program may write to it, and the next mount could not tell on top of what."""
    store = filled()

    async def test(m: Mounted) -> None:
        opened = await m.open(("tmp",), os.O_RDWR)
        await m.rename(("tmp",), ("file",))
        assert store.content("file") == b"content"
        await m.write(opened, 0, b"C")
        await m.close(opened)
        await m.fs.sync()

    run(tmp_path, test, store)
    assert files(store) == {"other": b"o", "file": b"Content"}


def test_what_replaces_another_file_is_at_the_store_when_its_rename_returns(
    tmp_path: Path,
) -> None:
    store = filled()

    async def test(m: Mounted) -> None:
        await m.rename(("tmp",), ("other",))
        assert store.content("other") == b"content"
        await m.fs.sync()

    run(tmp_path, test, store)
    assert files(store) == {"other": b"content"}


def test_the_directories_around_cannot_go_before_the_store_knows(tmp_path: Path) -> None:
    store = filled(from__tmp=b"x", to__=b"")

    async def test(m: Mounted) -> None:
        with store.holding("copy") as gate:
            await m.rename(("from", "tmp"), ("to", "file"))
            assert await m.names(("from",)) == []
            assert await m.names(("to",)) == ["file"]
            await fails(lambda: m.rmdir(("to",)), DirectoryNotEmptyError)
            async with trio.open_nursery() as nursery:
                gone = InBackground(nursery, lambda: m.rmdir(("from",)))
                moved = InBackground(nursery, lambda: m.rename(("to",), ("there",)))
                await time_passes(3)
                assert not (gone.is_done or moved.is_done)
                gate.set()
            await m.fs.sync()

    run(tmp_path, test, store)
    assert files(store) == {"there/file": b"x"}


def test_the_directory_that_it_leaves_stays(tmp_path: Path) -> None:
    store = filled(from__tmp=b"x")

    async def test(m: Mounted) -> None:
        await m.rename(("from", "tmp"), ("file",))
        await m.fs.sync()
        await time_passes()
        assert await m.names() == ["file", "from"]

    run(tmp_path, test, store)
    assert files(store) == {"file": b"x"}


def test_a_rename_that_the_store_refuses_is_taken_back_and_told(tmp_path: Path) -> None:
    store = filled()

    async def test(m: Mounted) -> None:
        store.fail("copy", AccessDeniedError("not there"), times=1)
        await m.rename(("tmp",), ("file",))
        with pytest.raises(UnsavedDataError, match="'file' has its old name 'tmp' again: not the"):
            await m.fs.sync()
        assert await m.names() == ["other", "tmp"]
        assert await m.read_file(("tmp",)) == b"content"
        await m.fs.sync()

    run(tmp_path, test, store)
    assert files(store) == {"other": b"o", "tmp": b"content"}
    next_mount(tmp_path, store)
    assert files(store) == {"other": b"o", "tmp": b"content"}


def test_a_store_that_does_not_answer_is_tried_until_it_does(tmp_path: Path) -> None:
    store = filled()

    async def test(m: Mounted) -> None:
        store.fail("copy", DOWN, times=1000)
        await m.rename(("tmp",), ("file",))
        with pytest.raises(UnsavedDataError, match="a renamed file has the old name"):
            await m.fs.sync()
        assert m.fs.unsaved_files == 1
        assert await m.read_file(("file",)) == b"content"
        store.mend()
        await time_passes(6)
        await m.fs.sync()
        assert m.fs.unsaved_files == 0

    run(tmp_path, test, store)
    assert files(store) == {"other": b"o", "file": b"content"}


def test_a_mount_that_ends_while_the_store_is_down_leaves_it_to_the_next(tmp_path: Path) -> None:
    store = filled()

    async def test(m: Mounted) -> None:
        store.fail("copy", DOWN, times=1000)
        await m.rename(("tmp",), ("file",))
        with pytest.raises(UnsavedDataError, match="the next mount renames"):
            await m.fs.drain()

    run(tmp_path, test, store)
    assert files(store) == {"other": b"o", "tmp": b"content"}
    store.mend()
    next_mount(tmp_path, store)
    assert files(store) == {"other": b"o", "file": b"content"}


def test_a_file_that_others_delete_meanwhile_is_gone(tmp_path: Path) -> None:
    store = filled()

    async def test(m: Mounted) -> None:
        with store.holding("copy") as gate:
            await m.rename(("tmp",), ("file",))
            del store.objects["tmp"]
            gate.set()
            await m.fs.sync()
        await time_passes()
        assert await m.names() == ["other"]

    run(tmp_path, test, store)


def test_a_rename_that_the_journal_cannot_take_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled()

    def full_disk(*_: object) -> None:
        raise OSError("the disk is full")

    async def test(m: Mounted) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "record_file_rename", full_disk)
            with pytest.raises(OSError, match="full"):
                await m.rename(("tmp",), ("file",))
        assert await m.names() == ["other", "tmp"]
        await m.rename(("tmp",), ("file",))
        await m.fs.sync()

    run(tmp_path, test, store)
    assert files(store) == {"other": b"o", "file": b"content"}


@pytest.mark.parametrize(
    ("there", "removed", "left"),
    [
        ({"tmp": b"x"}, False, {"file": b"x"}),
        ({"tmp": b"x", "file": b"x"}, False, {"file": b"x"}),
        ({"tmp": b"x", "file": b"x"}, True, {"file": b"x"}),
        ({"file": b"x"}, False, {"file": b"x"}),
        ({"tmp": b"x", "file": b"since"}, False, {"file": b"since"}),
        ({}, False, {}),
    ],
)
def test_the_next_mount_does_what_is_left(
    tmp_path: Path, there: dict[str, bytes], removed: bool, left: dict[str, bytes]
) -> None:
    store = filled(**there) if there else FakeStore()
    etag = store.head("tmp").etag if "tmp" in there else "of before"
    journal = Journal(tmp_path / "state")
    journal.record_file_rename(FileRenameRecord("tmp", "file", etag))
    if removed:
        journal.record_removal(RemovalRecord("tmp", (etag,), whatever_was_there=True))
    journal.close()
    next_mount(tmp_path, store)
    journal = Journal(tmp_path / "state")
    for record in journal.leftover_removals():
        assert record.key == "tmp"
        del store.objects["tmp"]  # in the background
    journal.close()
    assert files(store) == left


def test_the_next_mount_leaves_alone_what_others_have_stored_since(tmp_path: Path) -> None:
    store = filled(tmp=b"another's")
    journal = Journal(tmp_path / "state")
    journal.record_file_rename(FileRenameRecord("tmp", "file", "ours"))
    journal.close()
    next_mount(tmp_path, store)
    assert files(store) == {"tmp": b"another's"}


def test_what_the_store_does_not_let_the_next_mount_rename_is_left_to_the_one_after(
    tmp_path: Path,
) -> None:
    store = filled()
    journal = Journal(tmp_path / "state")
    journal.record_file_rename(FileRenameRecord("tmp", "file", store.head("tmp").etag))
    journal.close()
    store.fail("copy", DOWN)
    with pytest.raises(AssertionError):
        next_mount(tmp_path, store)
    next_mount(tmp_path, store)
    assert files(store) == {"other": b"o", "file": b"content"}

"""Renames of directories with write-back: done for programs at once, at the store afterwards."""

import os
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from ossfs_py.errors import (
    AccessDeniedError,
    DirectoryNotEmptyError,
    EntryExistsError,
    NameTooLongError,
    NoSuchEntryError,
    StoreUnavailableError,
    UnsavedDataError,
)
from ossfs_py.writing.journal import Journal
from ossfs_py.writing.recovery import tidy_leftovers
from ossfs_py.writing.renames import RenameRecord
from ossfs_py.writing.statefiles import write_atomically
from tests.support.fake_store import FakeStore
from tests.support.filesystems import Mounted, on_mount
from tests.support.renaming import InBackground, fails, files, time_passes

DOWN = StoreUnavailableError("the store is down", operation="CopyObject")
CONTENTS = {"old/a": b"a", "old/b": b"bb", "old/deep/c": b"ccc", "old/deep/er/d": b"d"}


def filled(store: FakeStore | None = None, contents: dict[str, bytes] = CONTENTS) -> FakeStore:
    store = store or FakeStore(min_part_bytes=16)
    for key, content in contents.items():
        store.seed(key, content)
    return store


def moved(contents: dict[str, bytes] = CONTENTS) -> dict[str, bytes]:
    return {"new" + key.removeprefix("old"): content for key, content in contents.items()}


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


async def tree_of(m: Mounted, root: str) -> dict[str, bytes]:
    """The names and bytes that a program finds."""
    found: dict[str, bytes] = {}

    async def walk(path: tuple[str, ...]) -> None:
        for name in await m.names(path):
            below = (*path, name)
            if (await m.stat(below)).mode & 0o040000:
                await walk(below)
            else:
                found["/".join(below)] = await m.read_file(below)

    await walk((root,))
    return found


@pytest.mark.parametrize("held", ["copy", "delete_many"])
@pytest.mark.parametrize("is_known", [True, False])
def test_a_renamed_directory_is_seen_under_its_new_name_alone_before_the_store_knows(
    tmp_path: Path, held: str, is_known: bool
) -> None:
    store = filled()

    async def test(m: Mounted) -> None:
        if is_known:
            assert await tree_of(m, "old") == CONTENTS
        with store.holding(held) as gate:
            await m.rename(("old",), ("new",))
            for _ in range(3):
                assert await m.names() == ["new"]
                assert await tree_of(m, "new") == moved()
                assert not await m.exists(("old",))
                assert not await m.exists(("old", "a"))
                assert not await m.exists(("new", "nothing"))
                await time_passes()  # from now on, the store is asked
            gate.set()
            await m.fs.sync()
            assert files(store) == moved()
            assert await tree_of(m, "new") == moved()
            assert await m.names() == ["new"]

    run(tmp_path, test, store)


def test_a_directory_is_whole_at_every_moment_of_its_rename(tmp_path: Path) -> None:
    contents = {f"old/{number % 5}/{number}": b"%d" % number for number in range(40)}
    store = filled(contents=contents)
    rng = random.Random(1)

    def take_time(method: str, _key: str) -> None:
        time.sleep(rng.random() / 2000)

    async def test(m: Mounted) -> None:
        store.on_request = take_time
        looks = 0
        await m.rename(("old",), ("new",))
        while m.fs.unsaved_files:
            await time_passes()
            assert await tree_of(m, "new") == moved(contents)
            assert await m.names() == ["new"]
            looks += 1
        assert looks
        assert await tree_of(m, "new") == moved(contents)

    run(tmp_path, test, store)


def test_open_files_are_read_and_written_on_while_their_directory_moves(tmp_path: Path) -> None:
    store = filled()

    async def test(m: Mounted) -> None:
        reader = await m.open(("old", "deep", "c"))
        writer = await m.open(("old", "b"), os.O_RDWR)
        with store.holding("copy") as gate:
            await m.rename(("old",), ("new",))
            late = await m.open(("new", "a"))
            assert await m.read(reader) == b"ccc"
            await m.write(writer, 1, b"!")
            gate.set()
            await m.fs.sync()
            assert await m.read(late) == b"a"
            assert await m.read(reader) == b"ccc"
            assert await m.read(writer) == b"b!"
            for each in (reader, writer, late):
                await m.close(each)
            await m.fs.sync()

    run(tmp_path, test, store)
    assert files(store) == moved() | {"new/b": b"b!"}


def test_changes_below_and_of_the_old_name_wait_and_are_right_in_the_end(tmp_path: Path) -> None:
    store = filled()

    async def test(m: Mounted) -> None:
        with store.holding("copy") as gate:
            await m.rename(("old",), ("new",))
            async with trio.open_nursery() as nursery:
                waiting = [
                    InBackground(nursery, call)
                    for call in (
                        lambda: m.unlink(("new", "b")),
                        lambda: m.mkdir(("old",)),
                        lambda: m.rename(("new", "deep"), ("deep",)),
                        lambda: m.write_file(("new", "a"), b"other"),
                    )
                ]
                await time_passes(3)
                assert not any(call.is_done for call in waiting[:3])
                gate.set()
            await m.write_file(("old", "a"), b"another")
            await m.fs.sync()

    run(tmp_path, test, store)
    wanted = {"new/a": b"other", "old/a": b"another", "deep/c": b"ccc", "deep/er/d": b"d"}
    assert files(store) == wanted


def test_a_file_can_be_made_where_the_directory_was(tmp_path: Path) -> None:
    store = filled()

    async def test(m: Mounted) -> None:
        with store.holding("copy") as gate:
            await m.rename(("old",), ("new",))
            async with trio.open_nursery() as nursery:
                made = InBackground(nursery, lambda: m.write_file(("old",), b"file"))
                await time_passes(3)
                assert not made.is_done
                gate.set()
            await m.fs.sync()

    run(tmp_path, test, store)
    assert files(store) == moved() | {"old": b"file"}


def test_directories_change_their_names_with_one_another(tmp_path: Path) -> None:
    store = filled()
    store.seed("other/x", b"x")

    async def test(m: Mounted) -> None:
        for old, new in (
            ("old", "tmp"),
            ("other", "old"),
            ("tmp", "other"),
            ("old", "x"),
            ("x", "y"),
        ):
            await m.rename((old,), (new,))
        assert await m.names() == ["other", "y"]
        await m.fs.sync()

    run(tmp_path, test, store)
    assert files(store) == {
        "other" + key.removeprefix("old"): content for key, content in CONTENTS.items()
    } | {"y/x": b"x"}


def test_the_directories_around_cannot_go_before_the_store_knows(tmp_path: Path) -> None:
    store = filled(contents={"from/old/a": b"a", "to/": b""})

    async def test(m: Mounted) -> None:
        with store.holding("copy") as gate:
            await m.rename(("from", "old"), ("to", "new"))
            assert await m.names(("from",)) == []
            await fails(lambda: m.rmdir(("to",)), DirectoryNotEmptyError)
            async with trio.open_nursery() as nursery:
                gone = InBackground(nursery, lambda: m.rmdir(("from",)))
                await time_passes(3)
                assert not gone.is_done
                gate.set()
            await m.fs.sync()

    run(tmp_path, test, store)
    assert files(store) == {"to/new/a": b"a"}


def test_what_was_removed_before_is_not_there_again(tmp_path: Path) -> None:
    store = filled()

    async def test(m: Mounted) -> None:
        with store.holding("delete") as gate:
            await m.unlink(("old", "a"))
            await m.rename(("old",), ("new",))
            assert not await m.exists(("new", "a"))
            await time_passes()
            assert "a" not in await m.names(("new",))
            gate.set()
            await m.fs.sync()

    run(tmp_path, test, store)
    assert files(store) == {key: what for key, what in moved().items() if key != "new/a"}


def test_mistakes_are_told_at_once(tmp_path: Path) -> None:
    store = filled(contents=CONTENTS | {"full/x": b"x", "old/" + "d" * 200 + "/" + "n" * 200: b"x"})

    async def test(m: Mounted) -> None:
        await fails(lambda: m.rename(("nothing",), ("new",)), NoSuchEntryError)
        await fails(lambda: m.rename(("old",), ("full",)), DirectoryNotEmptyError)
        await fails(lambda: m.rename(("old",), ("full",), no_replace=True), EntryExistsError)
        await m.mkdir(("e" * 250,))
        await m.mkdir(("e" * 250, "f" * 250))
        await m.mkdir(("e" * 250, "f" * 250, "g" * 200))
        too_deep = ("e" * 250, "f" * 250, "g" * 200, "new")
        await fails(lambda: m.rename(("old",), too_deep), NameTooLongError)
        assert await m.names(("old", "deep")) == ["c", "er"]
        await m.fs.sync()

    before = files(store)
    run(tmp_path, test, store)
    assert files(store) == before
    assert Journal(tmp_path / "state").leftover_renames() == []


def test_a_rename_that_the_store_refuses_is_taken_back_and_told(tmp_path: Path) -> None:
    store = filled()

    async def test(m: Mounted) -> None:
        with store.holding("copy") as gate:
            store.fail("copy", AccessDeniedError("not below new"), times=len(CONTENTS))
            await m.rename(("old",), ("new",))
            waits = await m.open(("new", "deep", "c"))
            gate.set()
            with pytest.raises(
                UnsavedDataError, match="'new/' has its old name 'old/' again: not bel"
            ):
                await m.fs.sync()
            assert await m.names() == ["old"]
            assert await tree_of(m, "old") == CONTENTS
            assert not await m.exists(("new",))
            assert await m.read(waits) == b"ccc"
            await m.close(waits)
            store.mend()
            await m.fs.sync()
            await m.rename(("old",), ("new",))
            await m.fs.sync()

    run(tmp_path, test, store)
    assert files(store) == moved()


def test_what_the_store_refuses_to_delete_is_seen_again_and_told(tmp_path: Path) -> None:
    store = filled()

    async def test(m: Mounted) -> None:
        assert await m.names() == ["old"]
        for method in ("delete_many", "delete"):
            store.fail(method, AccessDeniedError("nothing goes"), times=100)
        await m.rename(("old",), ("new",))
        with pytest.raises(UnsavedDataError, match="'old/' was renamed, but the store keeps it: n"):
            await m.fs.sync()
        await time_passes(2)
        assert await m.names() == ["new", "old"]
        assert await tree_of(m, "old") == CONTENTS
        assert await tree_of(m, "new") == moved()

    run(tmp_path, test, store)
    assert files(store) == CONTENTS | moved()


def test_what_waits_in_a_directory_whose_rename_is_refused_is_stored_under_its_old_name(
    tmp_path: Path,
) -> None:
    store = filled()

    async def test(m: Mounted) -> None:
        store.fail("copy", AccessDeniedError("no"), times=len(CONTENTS))
        await m.write_file(("old", "waits"), b"w")
        await m.rename(("old",), ("new",))
        with pytest.raises(UnsavedDataError):
            await m.fs.sync()
        await m.fs.sync()

    run(tmp_path, test, store)
    assert files(store) == CONTENTS | {"old/waits": b"w"}


@pytest.mark.parametrize("failing", ["copy", "delete_many", "list_page"])
def test_a_store_that_does_not_answer_is_tried_until_it_does(tmp_path: Path, failing: str) -> None:
    store = filled()

    async def test(m: Mounted) -> None:
        assert await tree_of(m, "old") == CONTENTS
        assert await m.names() == ["old"]
        store.fail(failing, DOWN, times=1000)
        await m.rename(("old",), ("new",))
        with pytest.raises(UnsavedDataError, match="a renamed directory has the old name"):
            await m.fs.sync()
        assert m.fs.unsaved_files == 1
        assert await m.read_file(("new", "deep", "c")) == b"ccc"
        store.mend()
        await time_passes(6)
        await m.fs.sync()
        assert m.fs.unsaved_files == 0
        assert await tree_of(m, "new") == moved()

    run(tmp_path, test, store)
    assert files(store) == moved()


def test_a_mount_that_ends_while_the_store_is_down_leaves_it_to_the_next(tmp_path: Path) -> None:
    store = filled()

    async def test(m: Mounted) -> None:
        await m.names(("old",))
        store.fail("copy", DOWN, times=1000)
        await m.rename(("old",), ("new",))
        with pytest.raises(UnsavedDataError, match="the next mount renames"):
            await m.fs.drain()

    async def next_mount(m: Mounted) -> None:
        assert await m.names() == ["new"]
        assert await tree_of(m, "new") == moved()

    run(tmp_path, test, store)
    assert files(store) == CONTENTS
    store.mend()
    journal = Journal(tmp_path / "state")
    journal.claim_leftovers()
    tidy_leftovers(journal, store)
    journal.close()
    assert files(store) == moved()
    run(tmp_path, next_mount, store)


def test_a_mount_that_must_not_wait_any_longer_leaves_the_copies_to_the_next(
    tmp_path: Path,
) -> None:
    store = filled()

    async def test(m: Mounted) -> None:
        with store.holding("copy"):
            await m.rename(("old",), ("new",))
            with trio.move_on_after(0.1):
                await m.fs.drain()
            with trio.fail_after(30):
                await m.fs.close()

    run(tmp_path, test, store)
    journal = Journal(tmp_path / "state")
    journal.claim_leftovers()
    tidy_leftovers(journal, store)
    journal.close()
    assert files(store) == moved()


def test_the_next_mount_keeps_what_was_stored_under_the_new_name_since(tmp_path: Path) -> None:
    store = filled()
    store.seed("new/b", b"written since")
    journal = Journal(tmp_path)
    journal.write_rename(RenameRecord("old/", "new/", is_copied=False, is_promised=True))
    store.fail("copy", DOWN)
    assert tidy_leftovers(journal, store) == 0
    assert files(store).items() >= CONTENTS.items()
    assert tidy_leftovers(journal, store) == len(CONTENTS)
    assert files(store) == moved() | {"new/b": b"written since"}
    assert journal.leftover_renames() == []
    journal.close()


def test_without_write_back_a_rename_returns_when_the_store_has_it(tmp_path: Path) -> None:
    store = filled()

    async def test(m: Mounted) -> None:
        await m.rename(("old",), ("new",))
        assert files(store) == moved()

    run(tmp_path, test, store, write_back=False)


@pytest.mark.parametrize("write_back", [True, False])
def test_what_was_absent_under_a_name_is_there_when_a_directory_gets_that_name(
    tmp_path: Path, write_back: bool
) -> None:
    store = filled(contents=CONTENTS | {"new/x": b"x"})

    async def test(m: Mounted) -> None:
        assert not await m.exists(("new", "a"))
        assert not await m.exists(("new", "deep"))
        await m.rename(("new",), ("away",))
        await m.rename(("old",), ("new",))
        assert await m.read_file(("new", "a")) == b"a"
        assert await m.read_file(("new", "deep", "c")) == b"ccc"
        assert await m.names(("away",)) == ["x"]

    run(tmp_path, test, store, write_back=write_back, negative_ttl_seconds=60.0)


def test_a_directory_that_has_just_come_is_not_removed_for_empty(tmp_path: Path) -> None:
    """One answer tells of several directories that are removed one after the other."""
    store = filled(contents=CONTENTS | {f"to/{name}/": b"" for name in "abc"})

    async def test(m: Mounted) -> None:
        assert await m.names(("to",)) == ["a", "b", "c"]
        with store.holding("copy") as gate:
            await m.rename(("old",), ("to", "z"))
            await time_passes(2)
            for name in "abc":
                await m.rmdir(("to", name))
            gate.set()
            await m.fs.sync()
        await fails(lambda: m.rmdir(("to", "z", "deep")), DirectoryNotEmptyError)
        await fails(lambda: m.rmdir(("to", "z", "deep", "er")), DirectoryNotEmptyError)

    run(tmp_path, test, store, negative_ttl_seconds=30.0)


def test_a_rename_survives_a_power_loss_before_anything_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rename(2) itself waits for no disk."""
    records: list[bool] = []

    def write(path: Path, text: str, *, durable: bool = False) -> None:
        if path.parent.name == "renames":
            records.append(durable)
        write_atomically(path, text, durable=durable)

    async def test(m: Mounted) -> None:
        with m.store.holding("copy"):
            await m.rename(("old",), ("new",))
            assert not records[0]
        await m.fs.sync()
        assert records == [False, True, True]

    def request(method: str, _key: str) -> None:
        assert method not in {"copy", "delete_many"} or records[-1]

    monkeypatch.setattr("ossfs_py.writing.journal.write_atomically", write)
    store = filled()
    store.on_request = request
    run(tmp_path, test, store)
    assert files(store) == moved()

"""unlink(2) without a wait: of what write-back takes, and of nothing else."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from ossfs_py.errors import (
    FilesystemError,
    IsADirectoryPathError,
    NoSuchEntryError,
    NotPermittedError,
    ReadOnlyError,
)
from ossfs_py.filesystem import putoff
from ossfs_py.writing.journal import Journal
from ossfs_py.writing.removals import RemovalRecord
from tests.support.fake_store import FakeStore
from tests.support.filesystems import Mounted, Names, on_mount

LIFETIME_SECONDS = 1000.0
"""Of absences, so that the clock of a busy machine counts for nothing."""
INSIDE = ("d", "file")
Test = Callable[[Mounted], Awaitable[None]]


def on_write_back(root: Path, test: Test, **options: Any) -> FakeStore:
    asked = {"write_back": True, "negative_ttl_seconds": LIFETIME_SECONDS, **options}
    return on_mount("temp", root, test, store=stored(), **asked)


def stored() -> FakeStore:
    store = FakeStore()
    for key in ("d/", "d/file", "d/other", "bare/file", "bare/other", "lone/file", "file"):
        store.seed(key, b"" if key.endswith("/") else b"content")
    return store


async def at_once(m: Mounted, path: Names) -> bool:
    """Whether a name is removed without a wait."""
    await m.names(path[:-1])
    async with m.directory_at(path[:-1]) as parent:
        return m.fs.unlinking.unlink_nowait(parent, path[-1].encode())


async def left_alone(m: Mounted, path: Names) -> None:
    """A name is not removed without a wait, and nothing has happened by that."""
    shown = sorted(await m.names(path[:-1]))
    before = len(recorded(m))
    assert not await at_once(m, path)
    assert sorted(await m.names(path[:-1])) == shown
    assert len(recorded(m)) == before


def recorded(m: Mounted) -> list[RemovalRecord]:
    return m.bench.writes.journal.leftover_removals()


@pytest.mark.parametrize("path", [INSIDE, ("bare", "file"), ("file",)])
def test_a_stored_file_is_removed_at_once_and_from_the_store_behind(
    path: Names, tmp_path: Path
) -> None:
    key = "/".join(path)

    async def test(m: Mounted) -> None:
        assert await at_once(m, path)
        (record,) = recorded(m)
        assert (record.key, record.whatever_was_there) == (key, True)
        assert record.etags == (m.store.head(key).etag,)
        assert path[-1] not in await m.names(path[:-1])
        with pytest.raises(NoSuchEntryError):
            await m.stat(path)
        assert not await at_once(m, path)
        assert key in m.store.objects
        await m.fs.sync()
        assert recorded(m) == []

    store = on_write_back(tmp_path, test)
    assert key not in store.objects


@pytest.mark.parametrize("is_prompt", [True, False])
def test_a_tree_is_removed_alike_with_a_wait_and_without(is_prompt: bool, tmp_path: Path) -> None:
    """What is told, recorded and sent."""

    async def test(m: Mounted) -> None:
        m.asks_as_the_lane = is_prompt
        for path in (INSIDE, ("d", "other"), ("bare", "file"), ("bare", "other")):
            await m.names(path[:-1])
            await m.unlink(path)
        records = [(each.key, each.etags, each.trash) for each in recorded(m)]
        assert sorted(key for key, _, _ in records) == [
            "bare/file",
            "bare/other",
            "d/file",
            "d/other",
        ]
        assert all(len(etags) == 1 and not trash for _, etags, trash in records)
        assert await m.names(("bare",)) == await m.names(("d",)) == []
        await m.rmdir(("d",))
        with pytest.raises(NoSuchEntryError):
            await m.unlink(INSIDE)
        await m.fs.sync()

    store = on_write_back(tmp_path, test)
    assert sorted(store.objects) == ["bare/", "file", "lone/file"]


async def is_open(m: Mounted) -> Names:
    await m.open(INSIDE)
    return INSIDE


async def has_just_been_written(m: Mounted) -> Names:
    await m.write_file(("d", "new"), b"new")
    return ("d", "new")


async def hides_a_stored_file(m: Mounted) -> Names:
    await m.unlink(INSIDE)
    await m.write_file(INSIDE, b"new")
    return INSIDE


async def is_a_directory(_m: Mounted) -> Names:
    return ("d",)


async def is_a_new_link(m: Mounted) -> Names:
    await m.symlink(b"target", ("d", "link"))
    return ("d", "link")


async def is_the_last_of_a_directory_without_a_marker(_m: Mounted) -> Names:
    return ("lone", "file")


async def is_not_there(_m: Mounted) -> Names:
    return ("d", "absent")


@pytest.mark.parametrize(
    "prepare",
    [
        is_open,
        has_just_been_written,
        hides_a_stored_file,
        is_a_directory,
        is_a_new_link,
        is_the_last_of_a_directory_without_a_marker,
        is_not_there,
    ],
)
def test_what_takes_more_than_a_record_is_left_to_who_may_wait(
    prepare: Callable[[Mounted], Awaitable[Names]], tmp_path: Path
) -> None:
    async def test(m: Mounted) -> None:
        path = await prepare(m)
        await left_alone(m, path)
        if prepare is is_not_there:
            with pytest.raises(NoSuchEntryError):
                await m.unlink(path)
        elif prepare is is_a_directory:
            with pytest.raises(IsADirectoryPathError):
                await m.unlink(path)
        else:
            await m.unlink(path)
            assert path[-1] not in await m.names(path[:-1])
            assert path[:1] == ("d",) or path[0] in await m.names()

    on_write_back(tmp_path, test)


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"write_back": False}, None),
        ({"trash": ".trash/"}, None),
        ({"read_only": True}, ReadOnlyError),
        ({"protect": {"delete"}}, NotPermittedError),
    ],
)
def test_a_mount_that_keeps_asks_or_refuses_is_left_to_who_may_wait(
    options: dict[str, Any], refusal: type[FilesystemError] | None, tmp_path: Path
) -> None:
    async def test(m: Mounted) -> None:
        await left_alone(m, INSIDE)
        if refusal is None:
            await m.unlink(INSIDE)
            return
        with pytest.raises(refusal):
            await m.unlink(INSIDE)
        assert "file" in await m.names(("d",))

    on_write_back(tmp_path, test, **options)


def test_names_that_nobody_can_have_are_left_to_who_says_so(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        async with m.at(("d",)) as directory, m.at(("file",)) as file:
            for number, name in ((directory, b"\xff"), (directory, b"x" * 300), (file, b"file")):
                assert not m.fs.unlinking.unlink_nowait(number, name)
            assert not m.fs.unlinking.unlink_nowait(4711, b"file")

    on_write_back(tmp_path, test)


def test_nothing_is_removed_at_once_below_a_directory_that_moves(tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        await m.names(("bare",))
        with m.store.holding("copy"):
            await m.rename(("bare",), ("moved",))
            await left_alone(m, ("moved", "file"))
        await m.fs.sync()
        assert await at_once(m, ("moved", "file"))
        await m.fs.sync()

    store = on_write_back(tmp_path, test)
    assert {key for key in store.objects if key.startswith(("bare/", "moved/"))} == {"moved/other"}


def test_it_waits_where_too_many_removals_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(m: Mounted) -> None:
        assert await at_once(m, INSIDE)
        monkeypatch.setattr(putoff, "MAX_PUT_OFF", 1)
        await left_alone(m, ("d", "other"))
        with trio.fail_after(60):
            await m.unlink(("d", "other"))

    on_write_back(tmp_path, test)


def test_a_journal_that_is_slow_or_full_is_left_to_who_may_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    async def test(m: Mounted) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "is_slow", True)
            await left_alone(m, INSIDE)
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "record_removal", full)
            await left_alone(m, INSIDE)
            with pytest.raises(OSError, match="No space left"):
                await m.unlink(INSIDE)
        assert await at_once(m, INSIDE)

    on_write_back(tmp_path, test)

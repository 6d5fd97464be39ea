"""What is kept of what a mount deletes or overwrites: each way by which content could be lost."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ossfs_py.errors import NameTooLongError, QuotaExceededError
from ossfs_py.writing.kept import kept_key, parse_kept
from tests.support.fake_store import FakeStore
from tests.support.filesystems import Mounted, on_mount
from tests.support.mounting import DATA_PATHS

TRASH = ".ossfs-py-trash/"
Work = Callable[[Mounted], Awaitable[None]]


def kept(store: FakeStore) -> list[tuple[str, bytes]]:
    """Keys and contents of kept copies."""
    found = [(parse_kept(TRASH, key), store.content(key)) for key in sorted(store.objects)]
    return sorted((each.key, content) for each, content in found if each is not None)


async def _write(m: Mounted, content: bytes, flags: int = 0, offset: int = 0) -> None:
    opened = await m.open(("file",), os.O_WRONLY | flags)
    await m.write(opened, offset, content)
    await m.close(opened)


async def unlink(m: Mounted) -> None:
    await m.unlink(("file",))


async def unlink_open(m: Mounted) -> None:
    opened = await m.open(("file",))
    assert await m.read(opened) == b"content"
    await m.unlink(("file",))
    assert await m.read(opened) == b"content"
    await m.close(opened)


async def rename_over(m: Mounted) -> None:
    await m.write_file(("draft",), b"draft")
    await m.rename(("draft",), ("file",))


async def rename_over_open(m: Mounted) -> None:
    opened = await m.open(("file",))
    await rename_over(m)
    await m.close(opened)


async def rename_unsaved_over(m: Mounted) -> None:
    opened = await m.open(("draft",), os.O_WRONLY | os.O_CREAT)
    await m.write(opened, 0, b"draft")
    await m.rename(("draft",), ("file",))
    await m.close(opened)


async def rename_unsaved_over_and_remove(m: Mounted) -> None:
    opened = await m.open(("draft",), os.O_WRONLY | os.O_CREAT)
    await m.write(opened, 0, b"draft")
    await m.rename(("draft",), ("file",))
    await m.unlink(("file",))
    await m.close(opened)


async def rename_unsaved_over_and_away(m: Mounted, *, no_replace: bool = False) -> None:
    opened = await m.open(("draft",), os.O_WRONLY | os.O_CREAT)
    await m.write(opened, 0, b"draft")
    await m.rename(("draft",), ("file",))
    await m.rename(("file",), ("elsewhere",), no_replace=no_replace)
    await m.close(opened)


async def rename_unsaved_over_and_away_where_nothing_is(m: Mounted) -> None:
    await rename_unsaved_over_and_away(m, no_replace=True)


async def truncate_at_open(m: Mounted) -> None:
    await _write(m, b"other", os.O_TRUNC)


async def truncate(m: Mounted) -> None:
    await m.change(("file",), size=3)


async def write_in_the_middle(m: Mounted) -> None:
    await _write(m, b"X", offset=2)


async def save_twice(m: Mounted) -> None:
    opened = await m.open(("file",), os.O_WRONLY | os.O_TRUNC)
    for content in (b"once", b"twice"):
        await m.write(opened, 0, content)
        await m.fsync(opened)
    await m.close(opened)


LOSSES: list[Work] = [
    unlink,
    unlink_open,
    rename_over,
    rename_over_open,
    rename_unsaved_over,
    rename_unsaved_over_and_remove,
    rename_unsaved_over_and_away,
    rename_unsaved_over_and_away_where_nothing_is,
    truncate_at_open,
    truncate,
    write_in_the_middle,
    save_twice,
]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", DATA_PATHS)
def test_what_is_lost_is_kept_once_with_what_described_it(
    name: str, loss: Work, tmp_path: Path
) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content", metadata={"note": "mine"}, content_type="text/x-own")
        await loss(m)
        assert kept(m.store) == [("file", b"content")]
        (key,) = [key for key in m.store.objects if key.startswith(TRASH)]
        assert m.store.metadata(key) == {"note": "mine"}
        assert m.store.objects[key].info.content_type == "text/x-own"
        assert TRASH.rstrip("/") not in await m.names()

    on_mount(name, tmp_path, test, trash=TRASH)


async def append(m: Mounted) -> None:
    await _write(m, b" and more", os.O_APPEND)


async def rename(m: Mounted) -> None:
    await m.rename(("file",), ("other",))


async def chmod(m: Mounted) -> None:
    await m.change(("file",), mode=0o600)


async def make_and_remove(m: Mounted) -> None:
    """What was never stored under its name is nobody's loss."""
    opened = await m.open(("new",), os.O_WRONLY | os.O_CREAT)
    await m.write(opened, 0, b"new")
    await m.unlink(("new",))
    await m.close(opened)


@pytest.mark.parametrize("change", [append, rename, chmod, make_and_remove])
def test_where_all_bytes_are_still_there_nothing_is_kept(change: Work, tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        await change(m)
        assert kept(m.store) == []

    on_mount("temp", tmp_path, test, trash=TRASH)


@pytest.mark.parametrize("loss", [unlink, rename_over, truncate_at_open, truncate])
def test_without_room_for_the_copy_the_call_fails_and_the_file_is_what_it_was(
    loss: Work, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(m: Mounted) -> None:
        m.store.seed("file", b"content")
        m.store.fail("copy", QuotaExceededError("full"), key="file", times=3)
        with pytest.raises(QuotaExceededError):
            await loss(m)
        assert m.store.content("file") == b"content"
        assert "no copy of it can be kept" in caplog.text

    on_mount("temp", tmp_path, test, trash=TRASH)


def test_a_key_too_long_to_be_kept_is_not_removed(tmp_path: Path) -> None:
    name = "n" * 250
    path = (name, name, name, name[:230])

    async def test(m: Mounted) -> None:
        m.store.seed("/".join(path), b"content")
        with pytest.raises(NameTooLongError):
            await m.unlink(path)
        assert m.store.content("/".join(path)) == b"content"

    on_mount("temp", tmp_path, test, trash=TRASH)


def test_names_of_copies_tell_what_they_are_of() -> None:
    store = FakeStore()
    store.seed("a~1/b~2", b"")
    info = store.head("a~1/b~2")
    key = kept_key("t/", info, 1_700_000_000_123_000_000)
    assert key.startswith("t/2023-11-14/a~1/b~2~221320123-")
    told = parse_kept("t/", key)
    assert told is not None
    assert (told.key, told.removed_ns) == ("a~1/b~2", 1_700_000_000_123_000_000)
    assert told.mtime_ns == info.mtime_ns
    assert kept_key("t/", info, 1_700_000_000_123_000_000) != key
    for other in ("t/file", "t/2023-11-14/file", "t/2023-99-14/a~221320123-1-00000000"):
        assert parse_kept("t/", other) is None

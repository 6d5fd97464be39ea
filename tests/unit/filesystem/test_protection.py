"""What a mount that protects against changes of one kind refuses, and what it does not."""

import errno
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ossfs_py.errors import (
    ConditionFailedError,
    EntryExistsError,
    NotPermittedError,
    OssfsError,
    errno_of,
)
from ossfs_py.filesystem.protection import Protected
from tests.support.fake_store import FakeStore
from tests.support.filesystems import Mounted, on_mount

FILE, OTHER, DIRECTORY = ("file",), ("other",), ("empty",)
Change = Callable[[Mounted], Awaitable[object]]


async def open_and_close(fs: Mounted, flags: int) -> None:
    await fs.close(await fs.open(FILE, flags))


CHANGES: dict[str, tuple[set[Protected], Change]] = {
    "unlink": ({"delete"}, lambda fs: fs.unlink(FILE)),
    "rmdir": ({"delete"}, lambda fs: fs.rmdir(DIRECTORY)),
    "rename": ({"rename"}, lambda fs: fs.rename(FILE, ("new",))),
    "rename of a directory": ({"rename"}, lambda fs: fs.rename(DIRECTORY, ("new",))),
    "rename over": ({"rename", "overwrite"}, lambda fs: fs.rename(FILE, OTHER)),
    "open to write": ({"overwrite"}, lambda fs: open_and_close(fs, os.O_WRONLY)),
    "open to read and write": ({"overwrite"}, lambda fs: open_and_close(fs, os.O_RDWR)),
    "open to append": ({"overwrite"}, lambda fs: open_and_close(fs, os.O_WRONLY | os.O_APPEND)),
    "open to create": ({"overwrite"}, lambda fs: open_and_close(fs, os.O_WRONLY | os.O_CREAT)),
    "O_TRUNC": ({"overwrite"}, lambda fs: open_and_close(fs, os.O_WRONLY | os.O_TRUNC)),
    "O_TRUNC to read": ({"overwrite"}, lambda fs: open_and_close(fs, os.O_RDONLY | os.O_TRUNC)),
    "truncate": ({"overwrite"}, lambda fs: fs.change(FILE, size=1)),
    "chmod": ({"overwrite"}, lambda fs: fs.change(FILE, mode=0o600)),
    "chown": ({"overwrite"}, lambda fs: fs.change(FILE, uid=1)),
    "utimens": ({"overwrite"}, lambda fs: fs.change(FILE, mtime_ns=1)),
    "setxattr": ({"overwrite"}, lambda fs: fs.set_xattr(FILE, "user.note", b"new")),
    "removexattr": ({"overwrite"}, lambda fs: fs.remove_xattr(FILE, "user.kept")),
    "write": (set(), lambda fs: fs.write_file(("made",), b"whole")),
    "mkdir": (set(), lambda fs: fs.mkdir(("made",))),
    "symlink": (set(), lambda fs: fs.symlink(b"file", ("made",))),
}
KINDS: tuple[Protected, ...] = ("delete", "overwrite", "rename")


def filled() -> FakeStore:
    store = FakeStore()
    # "kept" as xattrs are stored by s3fs: names and values as JSON, the values in base64.
    store.seed("file", b"content", metadata={"xattr": '{"user.kept":"a2VwdA=="}'})
    store.seed("other", b"another")
    store.seed("empty/", b"")
    return store


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CHANGES)
def test_each_change_is_refused_by_the_kinds_of_protection_that_name_it(
    name: str, kind: Protected, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refused_by, change = CHANGES[name]
    store = filled()
    before = dict(store.objects)

    async def test(fs: Mounted) -> None:
        if kind not in refused_by:
            await change(fs)
            return
        with pytest.raises(NotPermittedError) as told:
            await change(fs)
        assert errno_of(told.value) == errno.EPERM
        assert store.objects == before
        (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert line.endswith(f"is refused: the mount is protected (--protect {kind})")

    with caplog.at_level(logging.WARNING, logger="ossfs_py.filesystem.protection"):
        on_mount("temp", tmp_path, test, store=store, protect={kind})
    if kind not in refused_by:
        assert store.objects != before or name.startswith("open")


def test_a_tree_that_is_removed_in_vain_is_told_once_for_each_directory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = FakeStore()
    for number in range(5):
        store.seed(f"tree/{number}", b"kept")

    async def test(fs: Mounted) -> None:
        for number in range(5):
            with pytest.raises(NotPermittedError):
                await fs.unlink(("tree", str(number)))

    with caplog.at_level(logging.INFO, logger="ossfs_py.filesystem.protection"):
        on_mount("temp", tmp_path, test, store=store, protect={"delete"})
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.WARNING] + [logging.INFO] * 4


def test_who_makes_a_file_may_write_it_until_he_closes_it(tmp_path: Path, data_path: str) -> None:
    async def test(fs: Mounted) -> None:
        made = await fs.open(("made",), os.O_WRONLY | os.O_CREAT)
        await fs.write(made, 0, b"half and more")
        await fs.fsync(made)
        await fs.truncate(made, 4)
        await fs.write(made, 4, b" again")
        await fs.change(("made",), mode=0o600)
        await fs.close(made)
        assert fs.store.content("made") == b"half again"
        assert int(fs.store.metadata("made")["mode"]) & 0o777 == 0o600
        with pytest.raises(NotPermittedError):
            await fs.open(("made",), os.O_WRONLY)

    on_mount(data_path, tmp_path, test, protect=set(KINDS))


def test_what_others_store_under_the_name_meanwhile_stays(tmp_path: Path) -> None:
    """The mount made both as absent; that they are not is found out by the store."""

    async def test(fs: Mounted) -> None:
        made = await fs.open(("made",), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        await fs.write(made, 0, b"ours")
        fs.store.seed("made", b"theirs")
        with pytest.raises(ConditionFailedError):
            await fs.close(made)
        await fs.write_file(("draft",), b"draft")
        await fs.exists(("final",))
        fs.store.seed("final", b"theirs")
        with pytest.raises(OssfsError) as told:
            await fs.rename(("draft",), ("final",))
        assert isinstance(told.value, NotPermittedError | EntryExistsError)
        assert fs.store.content("made") == fs.store.content("final") == b"theirs"

    on_mount("temp", tmp_path, test, protect={"overwrite"})

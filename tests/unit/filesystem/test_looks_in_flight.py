"""Looks at a file while this mount itself replaces or renames its object, and the store has done
that without an answer yet: what a look finds then is no change by others.
"""

import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
import trio.testing

from ossfs_py.model import ObjectVersion
from ossfs_py.writing.context import WriteLimits
from tests.support.fake_store import FakeStore
from tests.support.filesystems import METADATA_TTL_SECONDS, Descriptor, Mounted, Names, on_mount
from tests.support.mounting import DATA_PATHS

T = TypeVar("T")
Act = Callable[[Mounted, Descriptor], Awaitable[None]]
Look = Callable[[Mounted, Descriptor], Awaitable[Descriptor | None]]

DIRECTORY: Names = ("dir",)
FILE: Names = ("dir", "file")
OTHER: Names = ("dir", "other")
OLD = b"o" * 1000
PATIENCE_SECONDS = 60.0


class SlowStore(FakeStore):
    """A store whose first answer of a kind takes as long as a test wants."""

    def __init__(self, late: str) -> None:
        super().__init__()
        self.late = late
        self.done, self.answers = threading.Event(), threading.Event()

    def copy(self, source: ObjectVersion, key: str, **options: Any) -> ObjectVersion:
        return self._told_of("copy", super().copy(source, key, **options))

    def delete(self, key: str) -> None:
        self._told_of("delete", super().delete(key))

    def delete_many(self, keys: Sequence[str]) -> list[str]:
        return self._told_of("delete", super().delete_many(keys))

    def _told_of(self, what: str, answer: T) -> T:
        if what == self.late:
            self.done.set()
            assert self.answers.wait(PATIENCE_SECONDS)
        return answer


async def change_mode(m: Mounted, _writer: Descriptor) -> None:
    await m.change(FILE, mode=0o600)


async def set_xattr(m: Mounted, _writer: Descriptor) -> None:
    await m.set_xattr(FILE, "user.key", b"value")


async def rename(m: Mounted, _writer: Descriptor) -> None:
    await m.rename(FILE, OTHER)


async def rename_directory(m: Mounted, _writer: Descriptor) -> None:
    await m.rename(DIRECTORY, ("moved",))


async def rename_over(m: Mounted, _writer: Descriptor) -> None:
    await m.rename(OTHER, FILE)


async def opened_for_writing(m: Mounted, _writer: Descriptor) -> Descriptor:
    return await m.open(FILE, os.O_RDWR)


async def looked_up(m: Mounted, _writer: Descriptor) -> None:
    await m.stat(FILE)


async def described(m: Mounted, writer: Descriptor) -> None:
    await m.fs.attributes(writer.inode)


@pytest.mark.parametrize("data_path", DATA_PATHS)
@pytest.mark.parametrize("was_read", [False, True])
@pytest.mark.parametrize("look", [opened_for_writing, looked_up, described])
@pytest.mark.parametrize(
    ("change", "late", "key"),
    [
        (change_mode, "copy", "dir/file"),
        (set_xattr, "copy", "dir/file"),
        (rename, "copy", "dir/other"),
        (rename, "delete", "dir/other"),
        (rename_directory, "copy", "moved/file"),
        (rename_directory, "delete", "moved/file"),
        (rename_over, "copy", None),
        (rename_over, "delete", None),
    ],
)
def test_a_file_stays_the_one_that_is_open_while_its_object_is_changed_from_here(
    tmp_path: Path,
    data_path: str,
    was_read: bool,
    look: Look,
    change: Act,
    late: str,
    key: str | None,
) -> None:
    """Its writer got ESTALE from then on. ``key`` has what it writes: None if it lost its name."""
    store = SlowStore(late)

    async def test(m: Mounted) -> None:
        store.seed("dir/file", OLD)
        if key is None:
            store.seed("dir/other", b"other")
        writer = await m.open(FILE, os.O_RDWR)
        if was_read:
            assert await m.read(writer, 0, 10) == OLD[:10]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(change, m, writer)
            assert await trio.to_thread.run_sync(store.done.wait, PATIENCE_SECONDS)
            clock = trio.lowlevel.current_clock()
            assert isinstance(clock, trio.testing.MockClock)
            clock.jump(METADATA_TTL_SECONDS + 1)  # nothing remembered is believed
            try:
                second = await look(m, writer)
            finally:
                store.answers.set()
        await m.write(writer, 0, b"new")
        await m.fsync(writer)
        assert (await m.read(writer, 0, 5)) == b"newoo"
        await m.close(writer)
        if second is not None:
            await m.close(second)

    on_mount(data_path, tmp_path, test, store=store, limits=WriteLimits())
    if key is None:
        assert store.objects.keys() == {"dir/file"} | ({"dir/"} & store.objects.keys())
        assert store.content("dir/file") == b"other"
    else:
        assert store.content(key) == b"new" + OLD[3:]

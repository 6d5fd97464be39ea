"""copy_file_range(2) while the file that is copied becomes another one."""

import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from ossfs_py.model import Part
from ossfs_py.writing.context import WriteLimits
from ossfs_py.writing.parts import FIRST_PART_BYTES
from tests.support.fake_store import FakeStore
from tests.support.filesystems import Descriptor, Mounted, Names, on_mount
from tests.support.mounting import DATA_PATHS

SOURCE: Names = ("source",)
TARGET: Names = ("target",)
SIZE = FIRST_PART_BYTES + 1
"""Less is copied by the program itself."""
PATIENCE_SECONDS = 60.0


class SlowStore(FakeStore):
    """A store that begins to copy when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.copy_came, self.copies = threading.Event(), threading.Event()

    def copy_part(self, *args: Any) -> Part:
        self.copy_came.set()
        assert self.copies.wait(PATIENCE_SECONDS)
        return super().copy_part(*args)


async def stored_here(m: Mounted, writer: Descriptor) -> None:
    await m.truncate(writer, 0)
    await m.write(writer, 0, b"new")
    await m.fsync(writer)


async def replaced_by_others(m: Mounted, _writer: Descriptor) -> None:
    m.store.seed("source", b"new")


async def removed_by_others(m: Mounted, _writer: Descriptor) -> None:
    m.store.erase("source")


@pytest.mark.parametrize("data_path", DATA_PATHS)
@pytest.mark.parametrize("changed", [stored_here, replaced_by_others, removed_by_others])
def test_a_program_copies_by_itself_what_is_replaced_under_the_copy_of_the_store(
    tmp_path: Path, data_path: str, changed: Callable[[Mounted, Descriptor], Awaitable[None]]
) -> None:
    """The copy was refused as if others had taken its name, and could never be stored."""
    store = SlowStore()

    async def test(m: Mounted) -> None:
        store.seed("source", b"o" * SIZE)
        source, writer = await m.open(SOURCE), await m.open(SOURCE, os.O_RDWR)
        target = await m.open(TARGET, os.O_WRONLY | os.O_CREAT)
        copied: list[int] = []

        async def copy() -> None:
            copied.append(await m.fs.copy_range(target.handle, 0, source.handle, 0, SIZE))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy)
            assert await trio.to_thread.run_sync(store.copy_came.wait, PATIENCE_SECONDS)
            await changed(m, writer)
            store.copies.set()
        assert copied == [0]
        await m.write(target, 0, b"by itself")
        await m.close(target)
        for each in (source, writer):
            await m.close(each)

    on_mount(data_path, tmp_path, test, store=store, limits=WriteLimits())
    assert store.content("target") == b"by itself"

"""Which inodes the kernel reads by itself, as all descriptors of each must agree."""

import os
from types import SimpleNamespace
from typing import cast

import pytest
import trio

from ossfs_py.datapath.base import PlainFile
from ossfs_py.errors import StaleInodeError
from ossfs_py.filesystem.kernelcache import KernelCache
from ossfs_py.filesystem.openinode import OpenInode
from ossfs_py.filesystem.passthrough import Passthrough


class Kernel:
    """Takes local files, or refuses them."""

    def __init__(self) -> None:
        self.has: set[int] = set()
        self.refuses = False

    def reads_itself(self, fd: int) -> int | None:
        if self.refuses:
            return None
        self.has.add(fd + 100)
        return fd + 100

    def reads_no_more(self, local: int) -> None:
        self.has.remove(local)


class Opened:
    """An open inode whose file is on disk, or not."""

    def __init__(self, number: int, *, has_plain: bool = True) -> None:
        self.inode = SimpleNamespace(number=number, name="f", settled=False)
        self.superseded = False
        self.file = self
        self.open_plain: list[PlainFile] = []
        self._has_plain = has_plain
        self.asked = trio.Event()
        self.go_on = trio.Event()
        self.go_on.set()

    async def plain(self) -> PlainFile | None:
        self.asked.set()
        await self.go_on.wait()
        if not self._has_plain:
            return None
        plain = PlainFile(5, 10, self.open_plain.remove)
        self.open_plain.append(plain)
        return plain


def made(*, is_on: bool = True) -> tuple[Passthrough, Kernel]:
    kernel = Kernel()
    return Passthrough(cast(KernelCache, kernel), is_on=is_on), kernel


async def join(through: Passthrough, opened: Opened, flags: int = os.O_RDONLY) -> int | None:
    local = await through.joined(cast(OpenInode, opened), flags)
    if local is None:
        through.asks(cast(OpenInode, opened))
    return local


def leave(through: Passthrough, opened: Opened, local: int | None) -> None:
    through.left(cast(OpenInode, opened), local)


def test_the_first_decides_and_the_last_ends_it() -> None:
    async def run() -> None:
        through, kernel = made()
        opened = Opened(7)
        assert await join(through, opened) == 105
        assert opened.inode.settled
        # Also one that asks for each read: its mappings are the kernel's.
        assert await join(through, opened, os.O_RDONLY | os.O_DIRECT) == 105
        leave(through, opened, 105)
        assert kernel.has == {105}
        leave(through, opened, 105)
        assert kernel.has == set()
        assert opened.open_plain == []

    trio.run(run)


@pytest.mark.parametrize("flags", [os.O_DIRECT, os.O_WRONLY, os.O_RDWR, os.O_TRUNC, os.O_APPEND])
def test_while_one_asks_all_ask(flags: int) -> None:
    async def run() -> None:
        through, kernel = made()
        opened = Opened(7)
        assert await join(through, opened, flags) is None
        assert await join(through, opened) is None
        leave(through, opened, None)
        assert await join(through, opened) is None
        leave(through, opened, None)
        leave(through, opened, None)
        assert kernel.has == set()
        assert await join(through, opened) == 105

    trio.run(run)


def test_who_opens_while_the_store_is_asked_decides() -> None:
    async def run() -> None:
        through, kernel = made()
        opened = Opened(7)
        opened.go_on = trio.Event()
        got: list[int | None] = []

        async def first() -> None:
            got.append(await join(through, opened))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            await opened.asked.wait()
            assert await join(through, opened, os.O_DIRECT) is None
            opened.go_on.set()
        assert got == [None]
        assert kernel.has == set()
        assert opened.open_plain == []

    trio.run(run)


def test_two_at_once_get_one_file() -> None:
    async def run() -> None:
        through, kernel = made()
        opened = Opened(7)
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(join, through, opened)
        assert kernel.has == {105}
        assert len(opened.open_plain) == 1
        through.close()
        assert (kernel.has, opened.open_plain) == (set(), [])

    trio.run(run)


def test_another_version_of_what_the_kernel_reads_is_another_inode() -> None:
    async def run() -> None:
        through, _kernel = made()
        assert await join(through, Opened(7)) == 105
        with pytest.raises(StaleInodeError):
            await join(through, Opened(7))
        assert await join(through, Opened(8, has_plain=False)) is None

    trio.run(run)


def test_a_kernel_that_refuses_and_a_mount_that_does_not_want_it_ask() -> None:
    async def run() -> None:
        through, kernel = made()
        kernel.refuses = True
        opened = Opened(7)
        assert await join(through, opened) is None
        assert opened.open_plain == []
        through, _ = made(is_on=False)
        opened = Opened(7)
        assert await join(through, opened) is None
        assert not opened.asked.is_set()
        leave(through, opened, None)

    trio.run(run)

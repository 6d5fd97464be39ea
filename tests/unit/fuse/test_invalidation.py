"""The threads that make the kernel forget."""

import threading

import pytest
import trio

from ossfs_py.fuse import invalidation
from ossfs_py.fuse.invalidation import KernelInvalidation


class SlowKernel:
    """Takes until told for the pages of inode 1; knows no inode 3."""

    def __init__(self) -> None:
        self.done: list[tuple[str, int]] = []
        self.free = threading.Event()

    def forget_inode(self, inode: int, *, attributes_only: bool) -> None:
        if inode == 1 and not attributes_only:
            assert self.free.wait(60)
        if inode == 3:
            raise FileNotFoundError(inode)
        self.done.append(("attributes" if attributes_only else "pages", inode))

    def forget_entry(self, directory: int, name: bytes) -> None:
        self.done.append((name.decode(), directory))

    def store(self, inode: int, offset: int, data: bytes) -> None:
        if inode == 1:
            assert self.free.wait(60)
        if inode == 3:
            raise FileNotFoundError(inode)
        self.done.append((data.decode(), offset))


def test_who_asks_hears_when_it_is_done_and_nothing_waits_for_the_pages_of_one_file() -> None:
    kernel = SlowKernel()

    async def run() -> None:
        channel = KernelInvalidation(kernel)
        heard: list[int] = []
        channel.invalidate_pages(1, lambda: heard.append(1))
        for inode, ask in ((2, channel.invalidate_pages), (3, channel.invalidate_attributes)):
            over = trio.Event()
            ask(inode, over.set)
            with trio.fail_after(60):
                await over.wait()
        channel.invalidate_entry(4, b"name")
        await channel.expire_attributes(1)
        assert not heard
        assert kernel.done[0] == ("pages", 2)
        kernel.free.set()
        await channel.told()
        assert heard == [1]
        assert sorted(kernel.done) == [("attributes", 1), ("name", 4), ("pages", 1), ("pages", 2)]
        channel.close()

    trio.run(run)


def test_a_kernel_that_is_busy_for_longer_than_the_mount_lives_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = SlowKernel()
    monkeypatch.setattr(invalidation, "_TOLD_SECONDS", 0.01)

    async def run() -> KernelInvalidation:
        channel = KernelInvalidation(kernel)
        channel.invalidate_pages(1, lambda: None)
        await channel.told()
        return channel

    channel = trio.run(run)
    kernel.free.set()
    channel.close()
    assert kernel.done == [("pages", 1)]


def test_a_reader_waits_until_the_kernel_knows_a_size_but_not_for_a_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = SlowKernel()

    async def run() -> None:
        channel = KernelInvalidation(kernel)
        await channel.lengthen(2, 13, b"!")
        assert kernel.done == [("!", 12)]
        await channel.lengthen(3, 13, b"!")
        assert kernel.done == [("!", 12)]
        monkeypatch.setattr(invalidation, "_waits_for_page", lambda _thread: True)
        await channel.lengthen(1, 20, b".")
        assert kernel.done == [("!", 12)]
        kernel.free.set()
        await channel.told()
        assert kernel.done[1:] == [(".", 19)]
        channel.close()

    trio.run(run)


def test_a_thread_that_runs_waits_for_no_page() -> None:
    assert not invalidation._waits_for_page(threading.get_native_id())

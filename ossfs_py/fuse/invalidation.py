"""Invalidates the kernel's caches: names, attributes and pages. Tells it of longer files."""

import logging
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias

import pyfuse3
import trio

from ossfs_py.fuse import wire
from ossfs_py.fuse.backing import Backings

log = logging.getLogger(__name__)


_TOLD_SECONDS = 5.0
"""Longest wait for a directory or pages that the kernel is busy with: a person may wait, too."""
_LENGTHENED_SECONDS = 1.0
"""Longest wait of a READ for the kernel to learn a size, which takes it microseconds."""
_LOOK_SECONDS = 0.0005
_PAGE_THREADS = 4
"""Each may be blocked by the READs of one file, which wait for the store."""
_Task: TypeAlias = tuple[Callable[[], None], Callable[[], None]]
"""The task, and the function for the trio thread after it."""
_Queue: TypeAlias = "queue.SimpleQueue[_Task | None]"


class Notices(Protocol):
    """Sends notices to the kernel; each call waits for it, and raises OSError for its errors."""

    def forget_inode(self, inode: int, *, attributes_only: bool) -> None:
        """Drop the attributes, and the pages unless ``attributes_only``."""
        ...

    def forget_entry(self, directory: int, name: bytes) -> None:
        """Make the kernel look a name up again."""
        ...

    def store(self, inode: int, offset: int, data: bytes) -> None:
        """Put bytes into the pages; the file ends behind them if it was shorter."""
        ...


class NoticesByPyfuse3:
    """Through pyfuse3's session."""

    def forget_inode(self, inode: int, *, attributes_only: bool) -> None:
        """Drop the attributes, and the pages unless ``attributes_only``."""
        pyfuse3.invalidate_inode(inode, attr_only=attributes_only)

    def forget_entry(self, directory: int, name: bytes) -> None:
        """Make the kernel look a name up again."""
        pyfuse3.invalidate_entry(directory, name)

    def store(self, inode: int, offset: int, data: bytes) -> None:
        """Put bytes into the pages; the file ends behind them if it was shorter."""
        pyfuse3.notify_store(inode, offset, data)


class NoticesByDevice:
    """Sends notices to the kernel's descriptor: the socket that pyfuse3 has instead reports no
    error, and returns before the kernel has read anything.
    """

    def __init__(self, device: int) -> None:
        self._device = device

    def forget_inode(self, inode: int, *, attributes_only: bool) -> None:
        """Drop the attributes, and the pages unless ``attributes_only``."""
        forget = wire.forget_attributes if attributes_only else wire.forget_pages
        os.write(self._device, forget(inode))

    def forget_entry(self, directory: int, name: bytes) -> None:
        """Make the kernel look a name up again."""
        os.write(self._device, wire.forget_name(directory, name))

    def store(self, inode: int, offset: int, data: bytes) -> None:
        """Put bytes into the pages; the file ends behind them if it was shorter."""
        os.write(self._device, wire.store(inode, offset, data))


class _Lengthening:
    """Tells the kernel that a file is longer, in a thread that asks for nothing else meanwhile.

    The kernel changes the size first. Then it waits for the page of the last byte, which may be one
    that a READ in progress will fill.
    """

    def __init__(self, notices: Notices, inode: int, size_bytes: int, last: bytes) -> None:
        self._notices = notices
        self._inode, self._size_bytes, self._last = inode, size_bytes, last
        self._thread = 0
        self._is_over = False

    def __call__(self) -> None:
        self._thread = threading.get_native_id()
        try:
            self._notices.store(self._inode, self._size_bytes - len(self._last), self._last)
        except OSError as exc:
            log.debug("inode %d not lengthened: %s", self._inode, exc)
        finally:
            self._is_over = True

    @property
    def is_known(self) -> bool:
        """Whether the kernel has changed the size."""
        return self._is_over or (self._thread != 0 and _waits_for_page(self._thread))


def _waits_for_page(thread: int) -> bool:
    """Whether the kernel lets a thread wait where no signal reaches it, as for a locked page."""
    status = Path(f"/proc/self/task/{thread}/stat").read_text()
    return status.rpartition(")")[2].split()[0] == "D"


class KernelInvalidation:
    """Implements :class:`ossfs_py.filesystem.kernelcache.KernelChannel` with ``notices``.
    Belongs to the trio thread that makes it.

    Pages wait for READs in flight on them, names for running calls in their directory. So the trio
    thread, which answers those, must never drop them. Pages and names must not wait for each other,
    nor attributes for either, as attributes wait for nothing. So each kind has threads of its own.
    """

    def __init__(self, notices: Notices, backings: Backings | None = None) -> None:
        self._notices = notices
        self._backings = backings
        self._token = trio.lowlevel.current_trio_token()
        self._under_way: set[trio.Event] = set()
        self._attributes: _Queue = queue.SimpleQueue()
        self._pages: _Queue = queue.SimpleQueue()
        self._entries: _Queue = queue.SimpleQueue()
        self._threads: list[tuple[threading.Thread, _Queue]] = []
        for tasks, name, count in (
            (self._attributes, "attribute-invalidator", 1),
            (self._pages, "page-invalidator", _PAGE_THREADS),
            (self._entries, "entry-invalidator", 1),
        ):
            for _ in range(count):
                thread = threading.Thread(target=self._work, args=(tasks,), name=name, daemon=True)
                self._threads.append((thread, tasks))
                thread.start()

    def invalidate_pages(self, inode: int, done: Callable[[], None]) -> None:
        """Ask for the pages and the attributes of an inode to be dropped soon; never blocks.

        ``done`` is called on the trio thread after that: pages wait for READs in flight.
        """
        self._ask(self._pages, partial(self._forget_inode, inode), done)

    def invalidate_attributes(self, inode: int, done: Callable[[], None]) -> None:
        """Ask for the attributes of an inode to be dropped soon; never blocks, its pages stay.

        ``done`` is called on the trio thread after that.
        """
        self._ask(self._attributes, partial(self._forget_inode, inode, attributes_only=True), done)

    async def expire_attributes(self, inode: int) -> None:
        """Return when the kernel will ask for an inode's attributes before it uses them."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(partial(self._forget_inode, inode, attributes_only=True))

    async def lengthen(self, inode: int, size_bytes: int, last: bytes) -> None:
        """Return when the kernel knows that the file is ``size_bytes`` long, or takes too long.
        ``last`` are its last bytes.
        """
        lengthening = _Lengthening(self._notices, inode, size_bytes, last)
        self._ask(self._pages, lengthening)
        with trio.move_on_after(_LENGTHENED_SECONDS):
            while not lengthening.is_known:  # noqa: ASYNC110 - the kernel does not tell
                await trio.sleep(_LOOK_SECONDS)

    def invalidate_entry(self, directory: int, name: bytes) -> None:
        """Ask for a name in a directory to be forgotten soon; never blocks."""
        self._ask(self._entries, partial(self._forget_entry, directory, name))

    async def told(self) -> None:
        """Return when everything asked for up to now is done, or takes too long to wait for."""
        with trio.move_on_after(_TOLD_SECONDS):
            for over in tuple(self._under_way):
                await over.wait()

    async def drop_pages(self, inode: int) -> None:
        """Return when the kernel has no page of an inode that it was given before the call.

        Waits for READs in flight, so the caller must not hold a lock that a READ needs.
        """
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._forget_inode, inode)

    def back(self, fd: int) -> int | None:
        """Register a local file that the kernel reads itself for programs. Returns the kernel's
        number for it; None if the kernel refuses.
        """
        return None if self._backings is None else self._backings.open(fd)

    def unback(self, local: int) -> None:
        """Release the local file of that number: no later open uses it."""
        if self._backings is not None:
            self._backings.close(local)

    def close(self) -> None:
        """End the threads; call before the session is closed."""
        for _, tasks in self._threads:
            tasks.put(None)
        for thread, _ in self._threads:
            thread.join(timeout=5)

    def _ask(
        self, tasks: _Queue, call: Callable[[], None], done: Callable[[], None] | None = None
    ) -> None:
        over = trio.Event()
        self._under_way.add(over)

        def afterwards() -> None:
            self._under_way.discard(over)
            over.set()
            if done is not None:
                done()

        tasks.put((call, afterwards))

    def _work(self, tasks: _Queue) -> None:
        """The loop of each thread, until it is closed."""
        while (task := tasks.get()) is not None:
            call, afterwards = task
            call()
            with suppress(trio.RunFinishedError):  # the mount ended while the kernel was busy
                self._token.run_sync_soon(afterwards)

    def _forget_entry(self, directory: int, name: bytes) -> None:
        try:
            self._notices.forget_entry(directory, name)
        except OSError as exc:
            # ENOENT: the kernel does not know the name.
            log.debug("name %r in directory %d not invalidated: %s", name, directory, exc)

    def _forget_inode(self, inode: int, *, attributes_only: bool = False) -> None:
        try:
            self._notices.forget_inode(inode, attributes_only=attributes_only)
        except OSError as exc:
            # ENOENT: the kernel has forgotten the inode, and its pages with it.
            log.debug("pages of inode %d not invalidated: %s", inode, exc)

"""Makes the kernel forget what it was told or given: names, attributes and pages."""

import logging
import os
import queue
import struct
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import pyfuse3
import trio

from ossfs_py.fuse.tuning import connections

log = logging.getLogger(__name__)


_TOLD_SECONDS = 5.0
"""Longest wait for a directory or pages that the kernel is busy with: a person waits, too."""
_NOTIFICATION = struct.Struct("=IiQQqq")
_INVALIDATE_INODE = 2
"""FUSE_NOTIFY_INVAL_INODE."""

_Queue: TypeAlias = "queue.SimpleQueue[Callable[[], None] | None]"


class KernelInvalidation:
    """Implements :class:`ossfs_py.filesystem.kernelcache.KernelChannel` for pyfuse3's session.

    Pages wait for READs in flight on them, names for calls under way in their directory. So the
    trio thread, which answers those, must never do it, and the two do not wait for each other:
    each has a thread of its own.
    """

    def __init__(self) -> None:
        self._inodes: _Queue = queue.SimpleQueue()
        self._entries: _Queue = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=_work, args=(asked,), name=name, daemon=True)
            for asked, name in (
                (self._inodes, "page-invalidator"),
                (self._entries, "entry-invalidator"),
            )
        ]
        for thread in self._threads:
            thread.start()

    def invalidate_pages(self, inode: int) -> None:
        """Ask for the pages and the attributes of an inode to be dropped soon; never blocks."""
        self._inodes.put(partial(_invalidate, inode))

    def invalidate_span(self, inode: int, start: int, end: int) -> None:
        """Ask for an inode's pages of ``[start, end)`` to be dropped soon; never blocks."""
        self._inodes.put(partial(_invalidate_span, inode, start, end))

    def invalidate_attributes(self, inode: int) -> None:
        """Ask for the attributes of an inode to be dropped soon; never blocks, its pages stay."""
        self._inodes.put(partial(_invalidate, inode, attributes_only=True))

    async def expire_attributes(self, inode: int) -> None:
        """Return when the kernel will ask for an inode's attributes before it uses them."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(partial(_invalidate, inode, attributes_only=True))

    def invalidate_entry(self, directory: int, name: bytes) -> None:
        """Ask for a name in a directory to be forgotten soon; never blocks."""
        self._entries.put(partial(_invalidate_entry, directory, name))

    async def told(self) -> None:
        """Return when everything asked for up to now is done, or takes too long to wait for."""
        token = trio.lowlevel.current_trio_token()
        with trio.move_on_after(_TOLD_SECONDS):
            for asked in (self._inodes, self._entries):
                done = trio.Event()
                asked.put(partial(token.run_sync_soon, done.set))
                await done.wait()

    async def drop_pages(self, inode: int) -> None:
        """Return when the kernel has no page of an inode that it was given before the call.

        Waits for READs in flight, so whoever calls must not hold what a READ needs.
        """
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_invalidate, inode)

    def close(self) -> None:
        """End the threads; call before the session is closed."""
        self._inodes.put(None)
        self._entries.put(None)
        for thread in self._threads:
            thread.join(timeout=5)


def _invalidate_span(inode: int, start: int, end: int) -> None:
    """pyfuse3 knows whole inodes only; the message is fuse_notify_inval_inode_out of
    include/uapi/linux/fuse.h behind its fuse_out_header, whose error names the notice.
    """
    about = (_NOTIFICATION.size, _INVALIDATE_INODE, 0, inode, start, end - start)
    for descriptor in connections():
        try:
            os.write(descriptor, _NOTIFICATION.pack(*about))
        except OSError as exc:
            log.debug("pages of inode %d not invalidated: %s", inode, exc)


def _work(asked: "_Queue") -> None:
    while (call := asked.get()) is not None:
        call()


def _invalidate_entry(directory: int, name: bytes) -> None:
    try:
        pyfuse3.invalidate_entry(directory, name)
    except OSError as exc:
        # ENOENT: the kernel does not know the name.
        log.debug("name %r in directory %d not invalidated: %s", name, directory, exc)


def _invalidate(inode: int, *, attributes_only: bool = False) -> None:
    try:
        pyfuse3.invalidate_inode(inode, attr_only=attributes_only)
    except OSError as exc:
        # ENOENT: the kernel has forgotten the inode, and its pages with it.
        log.debug("pages of inode %d not invalidated: %s", inode, exc)

"""Makes the kernel forget what it was told or given: names, attributes and pages."""

import logging
import queue
import threading
from functools import partial

import pyfuse3
import trio

log = logging.getLogger(__name__)


class KernelInvalidation:
    """Implements :class:`ossfs_py.filesystem.kernelcache.KernelChannel` for pyfuse3's session.

    Pages wait for READs in flight on them, names for calls under way in their directory. So the
    trio thread, which answers those, must never do it, and the two do not wait for each other:
    each has a thread of its own.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[int, bool] | None] = queue.SimpleQueue()
        self._entries: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name="page-invalidator", daemon=True),
            threading.Thread(target=self._run_entries, name="entry-invalidator", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def invalidate_pages(self, inode: int) -> None:
        """Ask for the pages and the attributes of an inode to be dropped soon; never blocks."""
        self._queue.put((inode, False))

    def invalidate_attributes(self, inode: int) -> None:
        """Ask for the attributes of an inode to be dropped soon; never blocks, its pages stay."""
        self._queue.put((inode, True))

    async def expire_attributes(self, inode: int) -> None:
        """Return when the kernel will ask for an inode's attributes before it uses them."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(partial(_invalidate, inode, attributes_only=True))

    def invalidate_entry(self, directory: int, name: bytes) -> None:
        """Ask for a name in a directory to be forgotten soon; never blocks."""
        self._entries.put((directory, name))

    async def drop_pages(self, inode: int) -> None:
        """Return when the kernel has no page of an inode that it was given before the call.

        Waits for READs in flight, so whoever calls must not hold what a READ needs.
        """
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_invalidate, inode)

    def close(self) -> None:
        """End the threads; call before the session is closed."""
        self._queue.put(None)
        self._entries.put(None)
        for thread in self._threads:
            thread.join(timeout=5)

    def _run_entries(self) -> None:
        while (asked := self._entries.get()) is not None:
            _invalidate_entry(*asked)

    def _run(self) -> None:
        while (asked := self._queue.get()) is not None:
            inode, attributes_only = asked
            _invalidate(inode, attributes_only=attributes_only)


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

"""Makes the kernel forget what it was told or given: attributes and pages."""

import logging
import queue
import threading

import pyfuse3
import trio

log = logging.getLogger(__name__)


class KernelInvalidation:
    """Implements :class:`ossfs_py.filesystem.kernelcache.KernelChannel` for pyfuse3's session.

    Invalidation waits for READs in flight on the same pages, so the trio thread, which answers
    those, must never do it: a thread of its own does.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[int, bool] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="page-invalidator", daemon=True)
        self._thread.start()

    def invalidate_pages(self, inode: int) -> None:
        """Ask for the pages and the attributes of an inode to be dropped soon; never blocks."""
        self._queue.put((inode, False))

    def invalidate_attributes(self, inode: int) -> None:
        """Ask for the attributes of an inode to be dropped soon; never blocks, its pages stay."""
        self._queue.put((inode, True))

    async def drop_pages(self, inode: int) -> None:
        """Return when the kernel has no page of an inode that it was given before the call.

        Waits for READs in flight, so whoever calls must not hold what a READ needs.
        """
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_invalidate, inode)

    def close(self) -> None:
        """End the thread; call before the session is closed."""
        self._queue.put(None)
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while (asked := self._queue.get()) is not None:
            inode, attributes_only = asked
            _invalidate(inode, attributes_only=attributes_only)


def _invalidate(inode: int, *, attributes_only: bool = False) -> None:
    try:
        pyfuse3.invalidate_inode(inode, attr_only=attributes_only)
    except OSError as exc:
        # ENOENT: the kernel has forgotten the inode, and its pages with it.
        log.debug("pages of inode %d not invalidated: %s", inode, exc)

"""What the kernel can be told about the mount besides answers: readahead, queue, page cache."""

import logging
import math
import queue
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyfuse3
import trio

from ossfs_py.host.mountpoint import THIS_MACHINE

log = logging.getLogger(__name__)

_DEVICE = Path("/dev/fuse")
_DESCRIPTORS = Path("/proc/self/fd")
_CONNECTIONS = Path("/sys/fs/fuse/connections")
_MAX_BACKGROUND = 128
"""Asynchronous READs the kernel keeps in flight; its default of 12 starves parallel readers."""


def device_of(mountpoint: Path) -> str | None:
    """``major:minor`` of the topmost mount at ``mountpoint``, without asking the mount itself."""
    mounted = THIS_MACHINE.mounts_at(mountpoint)
    return mounted[-1].device if mounted else None


async def connection_gone() -> None:
    """Wait until the kernel has let go of the mount: unmounted, and nobody has a file open."""
    with select.epoll() as events:
        for descriptor in _descriptors_of(_DEVICE):
            # Nothing is asked for: an error, the end of the connection, is always told.
            events.register(descriptor, 0)
        await trio.lowlevel.wait_readable(events.fileno())


def _descriptors_of(path: Path) -> list[int]:
    found = []
    for entry in _DESCRIPTORS.iterdir():
        with suppress(OSError):  # closed meanwhile
            if entry.readlink() == path:
                found.append(int(entry.name))
    return found


def tune(mountpoint: Path, readahead_bytes: int) -> None:
    """Raise the mount's readahead and queue where permitted; say so in the log where not."""
    device = device_of(mountpoint)
    if device is None:
        log.warning("the mount at %s was not found in the mount table", mountpoint)
        return
    _write(
        Path("/sys/class/bdi") / device / "read_ahead_kb",
        readahead_bytes // 1024,
        "readahead stays at the kernel's default",
    )
    connection = _CONNECTIONS / device.partition(":")[2]
    if connection.is_dir():
        _write(connection / "max_background", _MAX_BACKGROUND, "the kernel's queue stays short")
        threshold = _MAX_BACKGROUND * 3 // 4
        _write(connection / "congestion_threshold", threshold, "the kernel's queue stays short")


def waiting_requests(mountpoint: Path) -> Callable[[], float]:
    """What tells how many requests the kernel waits for; NaN where it does not say.

    It does not where the fusectl file system is not mounted, as in most containers.
    """
    device = device_of(mountpoint)
    path = _CONNECTIONS / (device or "0:0").partition(":")[2] / "waiting"

    def ask() -> float:
        try:
            return float(path.read_text())
        except OSError:
            return math.nan

    return ask


def _write(path: Path, value: int, consequence: str) -> None:
    try:
        path.write_text(str(value))
    except OSError as exc:
        log.info("%s not set to %d (%s): %s", path, value, exc.strerror, consequence)


async def drop_pages(inode: int) -> None:
    """Return when the kernel has no page of ``inode`` left that it was given before the call.

    Waits for READs in flight, so whoever calls must not hold what a READ needs.
    """
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(_drop_pages, inode)


def _drop_pages(inode: int, *, attributes_only: bool = False) -> None:
    try:
        pyfuse3.invalidate_inode(inode, attr_only=attributes_only)
    except OSError as exc:
        # ENOENT: the kernel has forgotten the inode, and its pages with it.
        log.debug("pages of inode %d not invalidated: %s", inode, exc)


class PageInvalidator:
    """Drops the kernel's pages of inodes, from a thread of its own.

    Invalidation waits for READs in flight on the same pages, so the trio thread, which answers
    those, must never do it.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[int, bool] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="page-invalidator", daemon=True)
        self._thread.start()

    def invalidate(self, inode: int) -> None:
        """Ask for the pages of an inode to be dropped soon; never blocks."""
        self._queue.put((inode, False))

    def invalidate_attributes(self, inode: int) -> None:
        """Ask for the attributes of an inode to be dropped soon; its pages stay."""
        self._queue.put((inode, True))

    def close(self) -> None:
        """End the thread; call before the session is closed."""
        self._queue.put(None)
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while (asked := self._queue.get()) is not None:
            inode, attributes_only = asked
            _drop_pages(inode, attributes_only=attributes_only)

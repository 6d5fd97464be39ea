"""Settings of the mount in the kernel beside answers: readahead and its queue."""

import logging
import math
import select
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import trio

from ossfs_py.host.kernelside import is_kernels_side
from ossfs_py.host.mountpoint import THIS_MACHINE

log = logging.getLogger(__name__)

_DESCRIPTORS = Path("/proc/self/fd")
_CONNECTIONS = Path("/sys/fs/fuse/connections")
MAX_BACKGROUND = 128
"""Asynchronous READs the kernel keeps in flight; its default of 12 starves parallel readers."""
CONGESTED_BACKGROUND = MAX_BACKGROUND * 3 // 4
"""With this many READs in flight, the kernel stops reading ahead, and reads a file page by page.
Its default is 9: with that, 16 readers of files of 100 KB sent 25 READs instead of one for each
sixth file.

The lane sets both in its answer to INIT. If pyfuse3 alone answers, this needs fusectl, which most
containers have not mounted."""


def device_of(mountpoint: Path) -> str | None:
    """``major:minor`` of the topmost mount at ``mountpoint``, without asking the mount itself."""
    mounted = THIS_MACHINE.mounts_at(mountpoint)
    return mounted[-1].device if mounted else None


async def connection_gone() -> None:
    """Wait until the kernel has released the mount: it is unmounted, and no file is open."""
    with select.epoll() as events:
        for descriptor in fuse_descriptors():
            # No event is requested: an error, the end of the connection, is always reported.
            events.register(descriptor, 0)
        await trio.lowlevel.wait_readable(events.fileno())


def fuse_descriptors() -> list[int]:
    """Every open descriptor of this process that belongs to the kernel's side of a mount."""
    found = []
    for entry in _DESCRIPTORS.iterdir():
        with suppress(OSError):  # it was closed in the meantime
            if is_kernels_side(int(entry.name)):
                found.append(int(entry.name))
    return found


def tune(mountpoint: Path, readahead_bytes: int) -> None:
    """Raise the mount's readahead and queue if permitted; log it if not."""
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
        for name, value in (
            ("max_background", MAX_BACKGROUND),
            ("congestion_threshold", CONGESTED_BACKGROUND),
        ):
            _write(connection / name, value, "the kernel's queue stays short")


def waiting_requests(mountpoint: Path) -> Callable[[], float]:
    """A function that returns the number of waiting requests in the kernel; NaN if not known.

    It is not known if the fusectl file system is not mounted, as in most containers.
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

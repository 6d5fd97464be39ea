"""Takes the kernel's descriptor from libfuse, and gives it one end of a socket instead.

libfuse mounts as always, directly as root and otherwise with fusermount3. It unmounts in the same
way at the end, when it has its descriptor back.
"""

import fcntl
import logging
import os
import platform
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ossfs_py.fuse.relay import socket_pair
from ossfs_py.fuse.tuning import fuse_descriptors

log = logging.getLogger(__name__)

_LEAST_KERNEL = (5, 4)
"""The first long-term kernel with the protocol of ``wire`` (FUSE 7.31)."""
_MAX_PAGES_LIMIT = Path("/proc/sys/fs/fuse/max_pages_limit")


class NoLaneError(Exception):
    """The reason why the lane is not available here; pyfuse3 then answers everything."""


@contextmanager
def taken_over(descriptor: int) -> Iterator[tuple[int, socket.socket]]:
    """Inside the block: the kernel's descriptor, non-blocking, and our end of the socket that has
    its number.
    """
    device = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 0)
    try:
        ours, theirs = socket_pair()
        with ours:
            with theirs:
                os.dup2(theirs.fileno(), descriptor, inheritable=False)
            os.set_blocking(device, False)
            try:
                yield device, ours
            finally:
                os.dup2(device, descriptor, inheritable=False)
    finally:
        os.close(device)


def check_lane() -> None:
    """Check whether the kernel supports the lane.

    Raises:
        NoLaneError: it does not.
    """
    release = platform.release()
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < _LEAST_KERNEL:
        raise NoLaneError(f"Linux {release} is too old")
    if not _splices_packets():
        raise NoLaneError("packets of a socket cannot be spliced, as libfuse does")


def session_descriptor(before: list[int]) -> int:
    """The kernel's descriptor that libfuse has opened since ``before`` was the full list.

    Raises:
        NoLaneError: it is not clear which one it is.
    """
    new = set(fuse_descriptors()) - set(before)
    if len(new) != 1:
        raise NoLaneError(f"libfuse opened {len(new)} descriptors of the kernel")
    return new.pop()


def page_limit() -> int:
    """The most pages that the kernel allows in a request; 0 if it does not say (before 6.13)."""
    try:
        return int(_MAX_PAGES_LIMIT.read_text())
    except (OSError, ValueError):
        return 0


def _splices_packets() -> bool:
    """Whether splice(2) takes exactly one packet of a socket, as a read does."""
    packets = (b"first", b"second")
    ours, theirs = socket_pair()
    reading, writing = os.pipe()
    try:
        with ours, theirs, suppress(OSError):
            for packet in packets:
                ours.send(packet)
            taken = os.splice(theirs.fileno(), writing, 4096)
            return os.read(reading, taken) == packets[0] if taken else False
        return False
    finally:
        os.close(reading)
        os.close(writing)

"""The kernel's descriptor taken over from libfuse, which is given one end of a socket for it.

libfuse mounts as it always does, as root by itself and otherwise with fusermount3, and unmounts so
at the end, when it has its descriptor back.
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

from ossfs_py.fuse.lane import socket_pair
from ossfs_py.fuse.tuning import fuse_descriptors

log = logging.getLogger(__name__)

_LEAST_KERNEL = (5, 4)
"""The first with long support that speaks what ``wire`` does (FUSE 7.31)."""
_MAX_PAGES_LIMIT = Path("/proc/sys/fs/fuse/max_pages_limit")


class NoLaneError(Exception):
    """Why the lane cannot be had here; pyfuse3 answers everything then."""


@contextmanager
def taken_over(descriptor: int) -> Iterator[tuple[int, socket.socket]]:
    """The kernel's descriptor, non-blocking, and our end of the socket that has its number in the
    block.
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
    """Whether the kernel allows it.

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
    """The kernel's descriptor that libfuse opened since ``before`` was all of them.

    Raises:
        NoLaneError: it cannot be told which.
    """
    new = set(fuse_descriptors()) - set(before)
    if len(new) != 1:
        raise NoLaneError(f"libfuse opened {len(new)} descriptors of the kernel")
    return new.pop()


def page_limit() -> int:
    """The most pages that the kernel lets a request have; 0 if it does not tell (before 6.13)."""
    try:
        return int(_MAX_PAGES_LIMIT.read_text())
    except (OSError, ValueError):
        return 0


def _splices_packets() -> bool:
    """Whether splice(2) takes one packet of a socket, and no more, as a read does."""
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

"""The kernel's side of a mount: a descriptor of /dev/fuse, opened here or by somebody else.

CSI drivers and init containers hand mounts, as ``/dev/fd/N``, to processes that may not mount.
Unmounting is theirs, too.
"""

import os
import re
import select
import stat
from pathlib import Path

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.host.mountpoint import THIS_MACHINE, Machine

_NAMED = re.compile(r"/(?:dev|proc/self)/fd/(\d{1,9})")
_FUSE_DEVICE = os.makedev(10, 229)
"""The number of /dev/fuse everywhere (linux/miscdevice.h)."""


def given_descriptor(mountpoint: Path) -> int | None:
    """The descriptor that a mountpoint stands for; None for a directory."""
    named = _NAMED.fullmatch(str(mountpoint))
    return None if named is None else int(named[1])


def is_kernels_side(descriptor: int) -> bool:
    """Whether an open descriptor is of /dev/fuse."""
    found = os.fstat(descriptor)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == _FUSE_DEVICE


def is_gone(descriptor: int) -> bool:
    """Whether the kernel has let go of the mount, or there was none."""
    return _tells(descriptor, 0)


def _tells(descriptor: int, events: int) -> bool:
    """Whether one of the events is there, or an error, which always counts."""
    poll = select.poll()
    poll.register(descriptor, events)
    return bool(poll.poll(0))


def check_given(descriptor: int, *, is_new: bool) -> None:
    """See whether a mount can be served over a descriptor; ``is_new``: by its first daemon.

    Raises:
        EnvironmentProblemError: it cannot, and why.
    """
    name = f"/dev/fd/{descriptor}"
    try:
        is_fuse = is_kernels_side(descriptor)
    except OSError:
        raise EnvironmentProblemError(
            f"{name} is not open: the program that starts ossfs-py must pass the descriptor"
        ) from None
    if not is_fuse:
        raise EnvironmentProblemError(f"{name} is open, but not for /dev/fuse")
    if is_gone(descriptor):
        raise EnvironmentProblemError(
            f"{name} has no mount: call mount(2) with fd={descriptor} before ossfs-py is started"
        )
    if is_new and not _tells(descriptor, select.POLLIN):
        # The first request waits there from the moment of mounting.
        raise EnvironmentProblemError(
            f"{name} was served before: a mount cannot be started twice, so mount it again"
        )


def mountpoint_of(descriptor: int, machine: Machine = THIS_MACHINE) -> Path:
    """Where it is mounted; where the kernel does not say (older ones, another mount namespace),
    a path that nobody else's mount has.
    """
    with Path(f"/proc/self/fdinfo/{descriptor}").open() as lines:
        told = dict(line.split(":", 1) for line in lines if ":" in line)
    device = f"0:{told.get('fuse_connection', '').strip()}"
    found = [entry.mountpoint for entry in machine.mounts() if entry.device == device]
    return found[0] if found else Path(f"/proc/{os.getpid()}/fd/{descriptor}")

"""Whether the kernel may read local files for the programs of a mount (FUSE passthrough)."""

import re

from ossfs_py.host.mountpoint import Machine, root_may_mount

_LEAST_KERNEL = (6, 9)


def why_not(machine: Machine, release: str, user: int) -> str | None:
    """Why the kernel cannot do it for this user; None if it may."""
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < _LEAST_KERNEL:
        return f"Linux {release} cannot, 6.9 or newer can"
    if user != 0 or not root_may_mount(machine):
        return "only root may let it (CAP_SYS_ADMIN)"
    return None

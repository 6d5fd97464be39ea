"""``ossfs-py health``."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ossfs_py.errors import EnvironmentProblemError

if TYPE_CHECKING:
    from ossfs_py.host.standing import Seen


@click.command(
    epilog="""\b
Examples:
  ossfs-py health                     (in a container: HEALTHCHECK, probes)
  ossfs-py health /mnt/models
"""
)
@click.argument("mountpoint", required=False, metavar="[MOUNTPOINT]")
def health(mountpoint: str | None) -> int:
    """Check whether the mount at MOUNTPOINT is there and answers. Without MOUNTPOINT, check
    each mount of this user in this container or on this machine.

    The store is not asked. A mount recovers by itself when its store is back, and a restart
    would break open files. Exit code 0 means healthy; any other means not healthy.
    """
    from ossfs_py.host.mountpoint import real_path
    from ossfs_py.host.standing import Standing, look_at

    # Not Path.resolve, which may hang.
    named = real_path(Path(os.path.abspath(mountpoint))) if mountpoint else None  # noqa: PTH100
    places = [named] if named else _served()
    if not places:
        raise EnvironmentProblemError("no mount is served here")
    seen = [look_at(place) for place in places]
    if not named and any(one.standing is Standing.FREE for one in seen):
        # Mounts that ended by themselves while others were asked are none of this machine's now.
        served = _served()
        seen = [s for s in seen if s.standing is not Standing.FREE or s.mountpoint in served]
    if problems := [problem for one in seen if (problem := _problem(one))]:
        raise EnvironmentProblemError("\n".join(problems))
    return 0


def _served() -> list[Path]:
    """The mountpoints that daemons of this user serve."""
    from ossfs_py.host.running import running_mounts

    return [Path(mount.mountpoint) for mount in running_mounts()]


def _problem(seen: "Seen") -> str:
    """The reason why a mount is not healthy, or nothing."""
    from ossfs_py.host.standing import Standing

    return {
        Standing.FREE: f"nothing is mounted at {seen.mountpoint}",
        Standing.FOREIGN: f"another file system is mounted at {seen.mountpoint}",
        Standing.DEAD: f"the daemon of the mount at {seen.mountpoint} is gone",
        Standing.SILENT: f"the mount at {seen.mountpoint} {seen.problem}",
        Standing.HIDDEN: f"the mount at {seen.mountpoint} belongs to another user",
    }.get(seen.standing, "")

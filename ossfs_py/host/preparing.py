"""How a mountpoint is made ready: what dead daemons left is taken away, what lives is respected."""

import logging
import os
import stat
from pathlib import Path

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.host.mountpoint import THIS_MACHINE, Machine, unmount
from ossfs_py.host.standing import ANSWER_SECONDS, Seen, Standing, look_at

log = logging.getLogger(__name__)

_STACKED_LIMIT = 16
"""A restart loop leaves a few dead mounts on one another; more than this is no such thing."""


def prepare_mountpoint(
    mountpoint: Path, *, nonempty: bool, machine: Machine = THIS_MACHINE
) -> None:
    """See whether ``mountpoint`` can be mounted over; remove what a crashed daemon left there.

    Raises:
        EnvironmentProblemError: it is missing, no directory, busy, not empty, not ours to use.
    """
    if (alive := clear_dead_mounts(mountpoint, machine).entry) is not None:
        raise EnvironmentProblemError(
            f"the mountpoint {mountpoint} is busy: {alive.source} is mounted there"
            f" ({alive.filesystem_type})"
        )
    try:
        mode = mountpoint.stat().st_mode
        hidden = next(mountpoint.iterdir(), None) if stat.S_ISDIR(mode) else None
    except FileNotFoundError:
        raise EnvironmentProblemError(
            f"the mountpoint {mountpoint} does not exist: create the directory first"
        ) from None
    except OSError as exc:
        raise EnvironmentProblemError(
            f"the mountpoint {mountpoint} cannot be used: {exc.strerror}"
        ) from exc
    if not stat.S_ISDIR(mode):
        raise EnvironmentProblemError(f"the mountpoint {mountpoint} is not a directory")
    if hidden is not None and not nonempty:
        raise EnvironmentProblemError(
            f"the mountpoint {mountpoint} is not empty: mount elsewhere, or over it with --nonempty"
        )
    if hidden is not None:
        log.warning(
            "the mountpoint %s is not empty: the mount hides %r and whatever else is in it",
            mountpoint,
            hidden.name,
        )
    if os.geteuid() != 0 and not os.access(mountpoint, os.W_OK):
        raise EnvironmentProblemError(
            f"the mountpoint {mountpoint} is not writable for this user,"
            " as fusermount3 asks of users other than root"
        )


def clear_dead_mounts(
    mountpoint: Path,
    machine: Machine = THIS_MACHINE,
    patience_seconds: float = ANSWER_SECONDS,
) -> Seen:
    """Unmount what daemons that are gone have left at ``mountpoint``; what is there then. A mount
    that does not answer within ``patience_seconds`` is left alone.

    Raises:
        EnvironmentProblemError: one cannot be unmounted.
    """
    for _ in range(_STACKED_LIMIT):
        seen = look_at(mountpoint, machine, patience_seconds)
        if seen.standing is not Standing.DEAD or seen.entry is None:
            return seen
        log.warning(
            "%s was left behind by a daemon that is gone (%s): unmounting it",
            mountpoint,
            seen.entry.filesystem_type,
        )
        unmount(mountpoint, lazy=True)
    raise EnvironmentProblemError(f"the mountpoint {mountpoint} has too many dead mounts on it")

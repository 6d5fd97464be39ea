"""State of a mountpoint: the mount there, and whether it lives. Every command uses this answer.

The kernel knows the mounts and whether somebody serves them (statvfs(2)), the register which of
them a daemon of this machine serves (its lock, its socket). No process id is compared with
another namespace's: a daemon in a container, or outside of it, is alive when the kernel says so.
"""

import contextlib
import enum
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ossfs_py.errors import is_dead_mount, is_refused
from ossfs_py.host.mountpoint import FILESYSTEM_TYPE, THIS_MACHINE, Machine
from ossfs_py.host.mounttable import MountEntry
from ossfs_py.host.running import RunningMount, find_daemon

ANSWER_SECONDS = 5.0
"""A daemon answers statvfs(2) from memory; on a machine that swaps this takes seconds."""
_REAP_SECONDS = 0.5
_NO_QUESTION = 250
"""Exit code of the process that asks when it could not become the mount's owner."""
_NOT_FOR_US = 251
"""Exit code when the kernel answered by itself: FUSE shows others an empty file system, alive or
dead (fuse_statfs in fs/fuse/inode.c)."""
_ASK = f"""
import os, sys
path, owner, group = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if owner > 0 and os.geteuid() == 0:
    # A mount without allow_other is shown to its owner alone: not even to root. Its group counts
    # as well (fuse_allow_current_process in fs/fuse/dir.c).
    try:
        os.setresgid(group, group, group)
        os.setresuid(owner, owner, owner)
    except OSError:
        sys.exit({_NO_QUESTION})
try:
    sys.exit(0 if os.statvfs(path).f_namemax else {_NOT_FOR_US})
except OSError as exc:
    sys.exit(exc.errno)
"""


class Standing(enum.Enum):
    """How a mountpoint stands."""

    FREE = "nothing is mounted there"
    SERVED = "a daemon of this machine serves it, and it answers"
    SERVED_ELSEWHERE = "it answers; its daemon runs in another container, or outside of this one"
    SILENT = "it does not answer in time"
    DEAD = "its daemon is gone"
    HIDDEN = "it belongs to another user, and only that user may query it"
    FOREIGN = "another file system is mounted there"


@dataclass(frozen=True, slots=True)
class Seen:
    """What is at a mountpoint. ``entry`` is the visible mount, ``record`` what its daemon says of
    itself where that runs on this machine and for a user whom the caller may ask.
    """

    mountpoint: Path
    standing: Standing
    entry: MountEntry | None = None
    record: RunningMount | None = None
    problem: str = ""
    """Why it counts as silent."""

    @property
    def is_alive(self) -> bool:
        """Whether a daemon serves it and answers."""
        return self.standing in (Standing.SERVED, Standing.SERVED_ELSEWHERE)


def look_at(
    mountpoint: Path,
    machine: Machine = THIS_MACHINE,
    patience_seconds: float = ANSWER_SECONDS,
) -> Seen:
    """How the mountpoint stands, which must be a path as the kernel knows it (``real_path``).

    Takes ``patience_seconds`` at most where a daemon hangs; nothing hangs with it.
    """
    mounted = machine.mounts_at(mountpoint)
    if not mounted:
        return Seen(mountpoint, Standing.FREE)
    top = mounted[-1]
    if not top.is_fuse:
        return Seen(mountpoint, Standing.FOREIGN, top)
    answer = _asked(mountpoint, top, patience_seconds)
    if machine.mounts_at(mountpoint) != mounted:
        # The directory below the mount may have answered.
        return look_at(mountpoint, machine, patience_seconds)
    standing = _standing(top, answer)
    record = None if standing is Standing.FOREIGN else _record_of(top)
    if standing is Standing.SERVED and record is None:
        standing = Standing.SERVED_ELSEWHERE
    if standing is Standing.HIDDEN and record is not None:
        standing = Standing.SERVED  # the lock on its record says so
    problem = ""
    if standing is Standing.SILENT:
        told = f"does not answer within {patience_seconds:g} s"
        problem = told if answer is None else f"says: {os.strerror(answer)}"
    return Seen(mountpoint, standing, top, record, problem)


def _standing(top: MountEntry, answer: int | None) -> Standing:
    """The meaning of a FUSE mount's answer to statvfs(2)."""
    error = OSError(answer or 0, "")
    if is_dead_mount(error):
        return Standing.DEAD
    if top.filesystem_type != FILESYSTEM_TYPE:
        return Standing.FOREIGN
    if answer == 0:
        return Standing.SERVED
    if answer in (_NOT_FOR_US, _NO_QUESTION) or is_refused(error):
        return Standing.HIDDEN
    return Standing.SILENT


def _asked(mountpoint: Path, top: MountEntry, patience_seconds: float) -> int | None:
    """The outcome of statvfs(2) on the mount: 0, an error number, or None for no answer in time.

    Not stat(2): of a mount that is dead it is answered from the kernel's memory for as long as
    its daemon had allowed. Another process asks, as one that a hanging mount has taken hold of
    cannot end; such a process is left behind.
    """
    identity = [str(number or 0) for number in (top.owner, top.group)]
    asking = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _ASK, str(mountpoint), *identity],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return asking.wait(patience_seconds)
    except subprocess.TimeoutExpired:
        asking.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            asking.wait(_REAP_SECONDS)
        return None


def _record_of(entry: MountEntry) -> RunningMount | None:
    daemon = find_daemon(entry.mountpoint, entry.owner)
    if daemon is None:
        return None
    daemon.close()
    return daemon.mount

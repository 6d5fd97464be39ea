"""Conditions for mounting on a machine, and cleaning up a mountpoint.

Reads the kernel's mount table before it touches a mountpoint: stat(2) on a dead FUSE mount fails
and on a hanging one never returns.
"""

import os
import pwd
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.host.mounttable import MountEntry, read_mount_table

SUBTYPE = "ossfs-py"
"""Mounts show as type ``fuse.ossfs-py``."""
FILESYSTEM_TYPE = f"fuse.{SUBTYPE}"

_CAP_SYS_ADMIN = 1 << 21
"""Bit of CAP_SYS_ADMIN in the masks of /proc/self/status (linux/capability.h)."""
_UMOUNT_SECONDS = 30.0
_PROGRAM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Not the caller's: root must not run whatever somebody has put into PATH."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The places of the machine that decide whether a mount is possible."""

    fuse_device: Path = Path("/dev/fuse")
    fuse_conf: Path = Path("/etc/fuse.conf")
    mount_table: Path = Path("/proc/self/mountinfo")
    status: Path = Path("/proc/self/status")
    program_path: str = _PROGRAM_PATH

    def mounts_at(self, path: Path) -> list[MountEntry]:
        """The mounts whose mountpoint is exactly ``path``, the visible one last."""
        return [entry for entry in self.mounts() if entry.mountpoint == path]

    def mounts(self) -> list[MountEntry]:
        """The mount table of this process, in the order of mounting."""
        return read_mount_table(self.mount_table)


THIS_MACHINE = Machine()


def real_path(mountpoint: Path) -> Path:
    """The path under which the kernel knows a mountpoint, without touching the mount itself.

    Raises:
        EnvironmentProblemError: its links go in circles.
    """
    try:
        path = mountpoint.parent.resolve() / mountpoint.name
        if THIS_MACHINE.mounts_at(path):
            return path
        return path.resolve()
    except RuntimeError:  # what Python up to 3.12 raises where the kernel says ELOOP
        raise EnvironmentProblemError(
            f"the mountpoint {mountpoint} cannot be used: its symbolic links go in circles"
        ) from None


def check_machine(allow_other: bool, machine: Machine = THIS_MACHINE) -> None:
    """See whether this user may mount FUSE file systems here.

    Raises:
        EnvironmentProblemError: what is missing and what to do about it.
    """
    if not machine.fuse_device.exists():
        raise EnvironmentProblemError(
            f"{machine.fuse_device} is missing: load the kernel module (modprobe fuse), or start"
            " the container with --device /dev/fuse --cap-add SYS_ADMIN"
        )
    try:
        os.close(os.open(machine.fuse_device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as exc:
        raise EnvironmentProblemError(
            f"{machine.fuse_device} cannot be opened ({exc.strerror}): allow it with chmod 666, in"
            " a container with --device /dev/fuse"
        ) from exc
    if os.geteuid() == 0:
        _check_as_root(machine)
    else:
        _check_as_user(machine, allow_other)


def root_may_mount(machine: Machine) -> bool:
    """Whether this process, which is root's, has the capability to mount (not so in containers)."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", machine.status.read_text(), re.MULTILINE)
    return match is None or bool(int(match[1], 16) & _CAP_SYS_ADMIN)


def _check_as_root(machine: Machine) -> None:
    if not root_may_mount(machine):
        raise EnvironmentProblemError(
            "root may not mount here: the capability CAP_SYS_ADMIN is missing"
            " (start the container with --cap-add SYS_ADMIN)"
        )


def _check_as_user(machine: Machine, allow_other: bool) -> None:
    helper = shutil.which("fusermount3", path=machine.program_path)
    if helper is None:
        raise EnvironmentProblemError(
            "fusermount3 is missing, which users other than root need to mount:"
            " install the package fuse3"
        )
    if not _has_a_name(os.geteuid()):
        raise EnvironmentProblemError(
            f"the user {os.geteuid()} has no name on this machine, which fusermount3 asks for:"
            " add one to /etc/passwd, or mount as another user"
        )
    mode = Path(helper).stat()
    if not mode.st_mode & stat.S_ISUID or mode.st_uid != 0:
        raise EnvironmentProblemError(
            f"{helper} is not set-uid root, so only root can mount here:"
            " reinstall the package fuse3, or mount as root"
        )
    if allow_other and not _others_allowed(machine.fuse_conf):
        raise EnvironmentProblemError(
            f"--allow-other is not permitted: only root may use it unless {machine.fuse_conf}"
            " has a line user_allow_other"
        )


def _has_a_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _others_allowed(conf: Path) -> bool:
    try:
        lines = conf.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


class BusyMountError(EnvironmentProblemError):
    """The mount cannot be removed while programs use it."""


def unmount(mountpoint: Path, *, lazy: bool = False, force: bool = False) -> None:
    """Take the topmost mount off ``mountpoint``; lazily, it goes when its last user does.

    Blocks until the kernel is done (at most 30 s). Uses fusermount3 as a user, umount as root.

    Raises:
        BusyMountError: programs use it.
        EnvironmentProblemError: any other reason.
    """
    if os.geteuid() == 0:
        # -i: no helper program, -n: no mtab.
        argv = ["umount", "-i", "-n", *(["-l"] if lazy else []), *(["-f"] if force else [])]
    else:
        argv = ["fusermount3", "-u", *(["-z"] if lazy or force else [])]
    try:
        done = subprocess.run(
            [*argv, "--", str(mountpoint)],
            capture_output=True,
            text=True,
            timeout=_UMOUNT_SECONDS,
            check=False,
            # Plain English, as the reason is looked for in what they say.
            env={"PATH": _PROGRAM_PATH, "LC_ALL": "C"},
        )
    except FileNotFoundError as exc:
        raise EnvironmentProblemError(f"{argv[0]} is missing") from exc
    except subprocess.TimeoutExpired as exc:
        raise BusyMountError(f"unmounting {mountpoint} does not finish") from exc
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        kind = BusyMountError if "busy" in reason.lower() else EnvironmentProblemError
        raise kind(f"cannot unmount {mountpoint}: {reason.rpartition(': ')[2]}")

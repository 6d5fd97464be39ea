"""Checks of the mountpoint, and of the mount that is there already."""

import os
from collections.abc import Iterator
from pathlib import Path

from ossfs_py.doctor.findings import Finding, failed, good, skipped, warning
from ossfs_py.host.mountpoint import THIS_MACHINE, Machine, real_path
from ossfs_py.host.standing import Seen, Standing, look_at

_READAHEAD_KIB = 1024
"""The readahead that a mount sets. The kernel's own 128 KiB costs half the speed of reading."""
_DEVICES = Path("/sys/class/bdi")


def check_mountpoint(
    path: Path, *, nonempty: bool, machine: Machine = THIS_MACHINE, devices: Path = _DEVICES
) -> Iterator[Finding]:
    """Whether ``path`` can be mounted on, or how the mount that is there does."""
    where = path if machine is not THIS_MACHINE else real_path(path)
    seen = look_at(where, machine)
    if seen.standing is Standing.FREE:
        yield _free(path, nonempty=nonempty)
        yield skipped("readahead", "nothing is mounted there")
        return
    yield _alive(path, seen)
    if not seen.is_alive:
        yield skipped("readahead", "as the mount does not answer")
        return
    yield readahead(path, devices)


def _free(path: Path, *, nonempty: bool) -> Finding:
    name = "mountpoint"
    try:
        occupied = any(path.iterdir())
    except FileNotFoundError:
        return failed(name, f"{path} does not exist", f"mkdir -p {path}")
    except NotADirectoryError:
        return failed(name, f"{path} is not a directory", "name another one")
    except OSError as exc:
        return failed(name, f"{path} cannot be read: {exc.strerror}", "name another one")
    if occupied and not nonempty:
        return failed(name, f"{path} is not empty", "name another one, or mount with --nonempty")
    if not os.access(path, os.W_OK):
        return failed(name, f"{path} is not writable for this user", f"chown $USER {path}")
    return good(name, f"{path} can be used as a mountpoint")


def _alive(path: Path, seen: Seen) -> Finding:
    name, entry = "mountpoint", seen.entry
    if seen.standing is Standing.FOREIGN and entry is not None:
        told = f"{entry.source} is mounted at {path} ({entry.filesystem_type})"
        return failed(name, told, f"umount {path}, or name another directory")
    if seen.standing is Standing.DEAD:
        told = f"the mount at {path} was left by a daemon that is gone"
        return failed(name, told, f"ossfs-py umount --force {path}")
    if seen.standing is Standing.SILENT:
        fix = f"ossfs-py umount --force {path}"
        return failed(name, f"the mount at {path} {seen.problem}", fix)
    if seen.standing is Standing.SERVED and seen.record is not None:
        mount = seen.record
        told = f"{mount.source} is mounted and answers ({mount.data_path}, pid {mount.pid})"
        return good(name, told)
    if entry is not None and os.geteuid() not in (0, entry.owner):
        told = f"the mount at {path} belongs to another user"
        return warning(name, told, f"run it as its owner: sudo ossfs-py doctor {path}")
    told = f"the mount at {path} answers; its daemon runs in another container, or outside this one"
    return good(name, told)


def readahead(path: Path, devices: Path = _DEVICES) -> Finding:
    """How far the kernel reads ahead on a mount."""
    name = "readahead"
    device = path.stat().st_dev
    setting = devices / f"{os.major(device)}:{os.minor(device)}" / "read_ahead_kb"
    try:
        kib = int(setting.read_text())
    except (OSError, ValueError):
        return skipped(name, f"{setting} cannot be read here")
    if kib < _READAHEAD_KIB:
        fix = f"echo {_READAHEAD_KIB} | sudo tee {setting}, or mount as root"
        if os.statvfs(devices).f_flag & os.ST_RDONLY:
            fix = "/sys is read-only here: give the container /sys/devices/virtual/bdi as a volume"
        return warning(name, f"the kernel reads only {kib} KiB ahead", fix)
    return good(name, f"{kib} KiB")

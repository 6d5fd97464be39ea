"""Checks of this machine: kernel, FUSE, limits."""

import os
import platform
import re
import resource
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ossfs_py.doctor.findings import Finding, failed, good, skipped, warning
from ossfs_py.host.mountpoint import THIS_MACHINE, Machine, root_may_mount
from ossfs_py.host.passthrough import why_not

_OLDEST_KERNEL = (4, 18)
"""Ordinary users of containers can mount FUSE from 4.18 on, and older ones lack copies of it."""
_GOOD_KERNEL = (4, 20)
"""Requests of up to 1 MiB (max_pages); before, a READ brings 128 KiB."""
_HANDING_KERNEL = (6, 9)
"""The next daemon is sent again what a dead one had not answered (FUSE_NOTIFY_RESEND)."""
_LEAST_FILES = 256
_GOOD_FILES = 1024
"""A connection and a file each for --concurrency and every open file of the temp data path."""

_PACKAGE_FIX = "install the package fuse3 (apt-get install fuse3)"


@dataclass(frozen=True, slots=True)
class Host:
    """The parts of the machine that are checked; tests replace them."""

    machine: Machine = THIS_MACHINE
    release: str = field(default_factory=platform.release)
    filesystems: Path = Path("/proc/filesystems")
    user: int = field(default_factory=os.geteuid)
    file_limits: tuple[int, int] = field(
        default_factory=lambda: resource.getrlimit(resource.RLIMIT_NOFILE)
    )


def check_host(host: Host, *, allow_other: bool, has_lane: bool) -> Iterator[Finding]:
    """Everything about the machine, in the order in which a mount needs it."""
    yield kernel(host)
    yield fuse_device(host)
    yield privilege(host)
    yield fusermount(host)
    yield others_allowed(host, wanted=allow_other)
    yield open_files(host)
    yield restarts(host, has_lane=has_lane)
    yield passthrough(host)


def kernel(host: Host) -> Finding:
    """Old enough kernels lack what is needed, or what makes it fast."""
    name = "kernel"
    version = _version(host)
    if version is None:
        return warning(name, f"{host.release!r} is not a Linux version", "use Linux 4.20 or newer")
    if version < _OLDEST_KERNEL:
        return failed(name, f"Linux {host.release} is too old", "use Linux 4.20 or newer")
    if version < _GOOD_KERNEL:
        told = f"Linux {host.release} reads 128 KiB at a time"
        return warning(name, told, "use Linux 4.20 or newer, which reads 1 MiB at a time")
    return good(name, f"Linux {host.release}")


def restarts(host: Host, *, has_lane: bool) -> Finding:
    """Whether a mount can outlive its daemon; most do not ask for it."""
    name = "restarts"
    if not has_lane:
        told = "--restarts and 'ossfs-py upgrade' need the fast lane, and --fuse-lane is off"
        return skipped(name, told)
    version = _version(host)
    if version is None or version < _HANDING_KERNEL:
        return skipped(name, "--restarts and 'ossfs-py upgrade' need Linux 6.9 or newer")
    return good(name, "a mount with --restarts N survives its daemon here")


def passthrough(host: Host) -> Finding:
    """Whether the kernel may read cached files itself."""
    name = "passthrough"
    if host.user != 0:
        return good(name, "not root: the mount itself answers from its cache")
    reason = why_not(host.machine, host.release, host.user)
    if reason is not None:
        return skipped(name, f"the kernel does not read cached files itself: {reason}")
    return good(name, "the kernel may read whole cached files itself, on read-only mounts")


def _version(host: Host) -> tuple[int, int] | None:
    match = re.match(r"(\d+)\.(\d+)", host.release)
    return None if match is None else (int(match[1]), int(match[2]))


def fuse_device(host: Host) -> Finding:
    """/dev/fuse is there and may be opened."""
    name, device = "fuse device", host.machine.fuse_device
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        loaded = _knows_fuse(host.filesystems)
        fix = "start the container with --device /dev/fuse" if loaded else "modprobe fuse"
        return failed(name, f"{device} is missing", fix)
    except OSError as exc:
        fix = f"chmod 666 {device}; in a container: --device /dev/fuse --cap-add SYS_ADMIN"
        return failed(name, f"{device} cannot be opened: {exc.strerror}", fix)
    return good(name, f"{device} can be opened")


def _knows_fuse(filesystems: Path) -> bool:
    try:
        return "fuse" in filesystems.read_text().split()
    except OSError:
        return False


def privilege(host: Host) -> Finding:
    """Root may mount by itself; others have fusermount3 for it."""
    name = "privilege"
    if host.user != 0:
        return good(name, "not root: fusermount3 mounts for this user")
    if not root_may_mount(host.machine):
        fix = "start the container with --cap-add SYS_ADMIN"
        return failed(name, "root lacks the capability CAP_SYS_ADMIN here", fix)
    return good(name, "root may mount")


def fusermount(host: Host) -> Finding:
    """The set-uid helper that mounts for users other than root."""
    name = "fusermount3"
    found = shutil.which("fusermount3", path=host.machine.program_path)
    if found is None:
        if host.user == 0:
            return warning(name, "missing; only root can mount", _PACKAGE_FIX)
        return failed(name, "missing; users other than root need it", _PACKAGE_FIX)
    info = Path(found).stat()
    if not info.st_mode & stat.S_ISUID or info.st_uid != 0:
        told = f"{found} is not set-uid root; only root can mount"
        fix = f"chown root {found} && chmod u+s {found}"
        return warning(name, told, fix) if host.user == 0 else failed(name, told, fix)
    return good(name, found)


def others_allowed(host: Host, *, wanted: bool) -> Finding:
    """user_allow_other, which --allow-other of users other than root needs."""
    name, conf = "user_allow_other", host.machine.fuse_conf
    try:
        lines = [line.strip() for line in conf.read_text(errors="replace").splitlines()]
    except OSError:
        lines = []
    if "user_allow_other" in lines:
        return good(name, f"{conf} permits --allow-other to everybody")
    if host.user == 0:
        return good(name, "root needs no permission for --allow-other")
    told = f"{conf} does not permit --allow-other to users other than root"
    if wanted:
        return failed(name, told, f"echo user_allow_other | sudo tee -a {conf}")
    return skipped(name, f"{told}; it is not requested")


def open_files(host: Host) -> Finding:
    """RLIMIT_NOFILE leaves room for connections and files."""
    name, (soft, hard) = "open files", host.file_limits
    if soft == resource.RLIM_INFINITY or soft >= _GOOD_FILES:
        return good(name, "unlimited" if soft == resource.RLIM_INFINITY else f"up to {soft}")
    told = f"only {soft} may be open at once (hard limit {hard})"
    fix = "raise it: ulimit -n 65536, or LimitNOFILE=65536 in the service"
    return failed(name, told, fix) if soft < _LEAST_FILES else warning(name, told, fix)

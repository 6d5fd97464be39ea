"""Checks of the mountpoint, and of the mount that is there already."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ossfs_py.control.client import ControlClient, DaemonGoneError
from ossfs_py.doctor.findings import Finding, Status, failed, good, skipped, warning
from ossfs_py.host.mountpoint import FILESYSTEM_TYPE, THIS_MACHINE, Machine, real_path
from ossfs_py.host.mounttable import MountEntry

_ANSWER_SECONDS = 3.0
_REAP_SECONDS = 0.5
_GONE = "Transport endpoint is not connected"
"""ENOTCONN in the C locale."""
_READAHEAD_KIB = 1024
"""What a mount asks for; the kernel's own 128 KiB costs half the speed of reading."""
_DEVICES = Path("/sys/class/bdi")


def check_mountpoint(
    path: Path, *, nonempty: bool, machine: Machine = THIS_MACHINE, devices: Path = _DEVICES
) -> Iterator[Finding]:
    """Whether ``path`` can be mounted on, or how the mount that is there does."""
    entries = machine.mounts_at(path if machine is not THIS_MACHINE else real_path(path))
    if not entries:
        yield _free(path, nonempty=nonempty)
        yield skipped("readahead", "nothing is mounted there")
        return
    answer = _alive(path, entries[-1])
    yield answer
    if answer.status is Status.FAILED or entries[-1].filesystem_type != FILESYSTEM_TYPE:
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
    return good(name, f"{path} can be mounted on")


def _alive(path: Path, entry: MountEntry) -> Finding:
    name = "mountpoint"
    if entry.filesystem_type != FILESYSTEM_TYPE:
        told = f"{entry.source} is mounted at {path} ({entry.filesystem_type})"
        return failed(name, told, f"umount {path}, or name another directory")
    problem = answers(path)
    if problem is not None:
        return failed(name, f"the mount at {path} {problem}", f"ossfs-py umount --force {path}")
    try:
        with ControlClient.of(entry) as client:
            mount = client.mount
    except DaemonGoneError as exc:
        return warning(name, str(exc), f"ask as its owner: sudo ossfs-py doctor {path}")
    return good(name, f"{mount.source} is mounted and answers ({mount.data_path}, pid {mount.pid})")


def answers(
    path: Path,
    patience_seconds: float = _ANSWER_SECONDS,
    question: tuple[str, ...] = ("stat", "--file-system"),
) -> str | None:
    """None if the file system at ``path`` answers, or what is wrong with it.

    Another process asks: the kernel lets nobody take back a question that a FUSE daemon has taken
    up, not even by ending. One that hangs is left behind.
    """
    with tempfile.TemporaryFile("w+") as said:
        asking = subprocess.Popen(
            [*question, "--", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={"PATH": THIS_MACHINE.program_path, "LC_ALL": "C"},
        )
        try:
            if asking.wait(patience_seconds) == 0:
                return None
        except subprocess.TimeoutExpired:
            asking.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                asking.wait(_REAP_SECONDS)
            return f"does not answer within {patience_seconds:g} s"
        said.seek(0)
        reason = said.read().strip().rpartition(": ")[2]
    if reason == _GONE:
        return "was left by a daemon that is gone"
    return f"says: {reason}"


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
        return warning(name, f"the kernel reads only {kib} KiB ahead", fix)
    return good(name, f"{kib} KiB")

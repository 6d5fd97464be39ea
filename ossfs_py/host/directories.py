"""The local directories a mount needs: there, ours, writable and with room."""

import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ossfs_py.errors import EnvironmentProblemError, is_disk_full

_PROBE_BYTES = 1024**2
"""Enough to find out whether a disk, quota or small tmpfs has any room left at all."""
_PRIVATE = 0o700
_WRITABLE_FOR_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_GROUP_USES = stat.S_IWGRP | stat.S_IXGRP


@dataclass(frozen=True, slots=True)
class OwnDirectory:
    """A directory that belongs to the user who mounts, and to nobody else.

    ``option`` is what names it on the command line. A default one may be made with its parents.
    """

    option: str
    path: Path
    is_default: bool


@dataclass(frozen=True, slots=True)
class LocalDirectories:
    """The directories of one mount. ``cache`` is None where it has no disk cache."""

    temp: Path
    cache: OwnDirectory | None
    state: OwnDirectory
    writes_temp: bool
    writes_state: bool


def prepare_directories(directories: LocalDirectories, *, may_be_full: bool = False) -> None:
    """Check, and where allowed make, the directories this mount will write to.

    The temporary directory must exist. The cache and the state directory are made (mode 0700)
    when their parent exists; the default ones are made with all their parents. ``may_be_full``:
    the mount has programs already, which can read on, and are told of a full disk when they write.

    Raises:
        EnvironmentProblemError: one sentence that names the option and the directory.
    """
    if directories.writes_temp:
        _check_writable("temp-dir", directories.temp, may_be_full=may_be_full)
    if directories.cache is not None:
        prepare_own(directories.cache)
        # Others may have filled its disk: the mount then reads on from the store.
        _check_writable(directories.cache.option, directories.cache.path, may_be_full=True)
    if directories.writes_state:
        prepare_own(directories.state)
        _check_writable(directories.state.option, directories.state.path, may_be_full=may_be_full)


def prepare_own(directory: OwnDirectory) -> None:
    """Make the directory where it is missing and see that nobody else can tamper with it.

    Raises:
        EnvironmentProblemError: it cannot be made, is somebody else's, or writable for others.
    """
    option, path = directory.option, directory.path
    try:
        path.mkdir(_PRIVATE, parents=directory.is_default, exist_ok=True)
    except FileNotFoundError:
        raise EnvironmentProblemError(
            f"--{option}: neither {path} nor its parent directory exists"
        ) from None
    except FileExistsError:
        raise EnvironmentProblemError(f"--{option}: {path} is not a directory") from None
    except OSError as exc:
        raise EnvironmentProblemError(f"--{option}: cannot create {path}: {exc.strerror}") from exc
    info = path.stat()
    if _is_given_volume(path, info):
        return
    # A link in a directory that everybody writes to may lead anywhere: its owner counts as well.
    if info.st_uid != os.geteuid() or path.lstat().st_uid not in (0, os.geteuid()):
        raise EnvironmentProblemError(f"--{option}: {path} belongs to another user{_advice(path)}")
    if info.st_mode & _WRITABLE_FOR_OTHERS:
        raise EnvironmentProblemError(
            f"--{option}: others can write to {path}; close it with chmod go-w{_advice(path)}"
        )


def _is_given_volume(path: Path, info: os.stat_result) -> bool:
    """Whether root has mounted a volume there for a group of this process, as Kubernetes does for
    a pod with an fsGroup. What is kept in it lies in private directories below, whose owner is
    looked at each time.
    """
    return (
        path.is_mount()
        and not path.is_symlink()
        and info.st_uid in (0, os.geteuid())
        and info.st_gid in (os.getegid(), *os.getgroups())
        and info.st_mode & _GROUP_USES == _GROUP_USES
        and not info.st_mode & stat.S_IWOTH
    )


def _advice(path: Path) -> str:
    """Advice about a directory that is a volume, whose owner the user may be unable to change."""
    if not path.is_mount():
        return ""
    return f" (of a volume, name a directory in it, such as {path}/ossfs-py, or chown it)"


def _check_writable(option: str, path: Path, *, may_be_full: bool = False) -> None:
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            raise EnvironmentProblemError(f"--{option}: {path} is not a directory")
        with tempfile.TemporaryFile(dir=path, prefix=".ossfs-py-") as probe:
            os.posix_fallocate(probe.fileno(), 0, _PROBE_BYTES)
    except FileNotFoundError:
        raise EnvironmentProblemError(f"--{option}: {path} does not exist") from None
    except OSError as exc:
        if may_be_full and is_disk_full(exc):
            return
        problem = "is full" if is_disk_full(exc) else f"is not writable: {exc.strerror}"
        raise EnvironmentProblemError(f"--{option}: {path} {problem}") from exc

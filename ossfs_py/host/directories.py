"""The local directories a mount needs: there, ours, writable and with room."""

import os
import stat
import tempfile
from pathlib import Path

from ossfs_py.config import Settings
from ossfs_py.errors import EnvironmentProblemError, is_disk_full

_PROBE_BYTES = 1024**2
"""Enough to find out whether a disk, quota or small tmpfs has any room left at all."""
_PRIVATE = 0o700
_WRITABLE_FOR_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def prepare_directories(settings: Settings) -> None:
    """Check, and where allowed make, the directories this mount will write to.

    The temporary directory must exist. The cache and the state directory are made (mode 0700)
    when their parent exists; the default ones are made with all their parents.

    Raises:
        EnvironmentProblemError: one sentence that names the option and the directory.
    """
    if settings.data_path == "temp" or not settings.read_only:
        # The direct data path needs it for writes that are out of order only.
        _check_writable("temp-dir", settings.temp_dir)
    if settings.data_path == "cache":
        _make_private("cache-dir", settings.cache_dir, "cache_dir" not in settings.model_fields_set)
        # Others may have filled its disk: the mount then reads on from the store.
        _check_writable("cache-dir", settings.cache_dir, may_be_full=True)
    if not settings.read_only:
        prepare_state_directory(settings)
        _check_writable("state-dir", settings.state_dir)


def prepare_state_directory(settings: Settings) -> None:
    """Make the state directory and see that nobody else can tamper with it.

    Raises:
        EnvironmentProblemError: it is missing, somebody else's, or writable for others.
    """
    _make_private("state-dir", settings.state_dir, "state_dir" not in settings.model_fields_set)


def _make_private(option: str, path: Path, with_parents: bool) -> None:
    try:
        path.mkdir(_PRIVATE, parents=with_parents, exist_ok=True)
    except FileNotFoundError:
        raise EnvironmentProblemError(
            f"--{option}: neither {path} nor its parent directory exists"
        ) from None
    except FileExistsError:
        raise EnvironmentProblemError(f"--{option}: {path} is not a directory") from None
    except OSError as exc:
        raise EnvironmentProblemError(f"--{option}: cannot create {path}: {exc.strerror}") from exc
    info = path.stat()
    # A link in a directory that everybody writes to may lead anywhere: its owner counts as well.
    if info.st_uid != os.geteuid() or path.lstat().st_uid not in (0, os.geteuid()):
        raise EnvironmentProblemError(f"--{option}: {path} belongs to another user")
    if info.st_mode & _WRITABLE_FOR_OTHERS:
        raise EnvironmentProblemError(
            f"--{option}: others can write to {path}; close it with chmod go-w"
        )


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

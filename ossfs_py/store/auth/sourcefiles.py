"""Checks of the files with credentials: their owner, and who else can read or change them.

These files are refused, or only reported:

- A password file must be accessible to its owner only, as with ossfs and s3fs.
- The shared AWS files are refused if they belong to neither the mounting user nor root: their owner
decides which key is used and, with ``credential_process``, which program runs.
- The shared credentials file is refused if others can read or change it. If its group can, the log
says so: Kubernetes hands out secrets with mode 0440 and a group of the pod's, and a pod cannot get
mode 0400 and read the file.
- The shared configuration file is readable by everybody in most homes, as it seldom has a secret:
it is refused if others can read a secret in it, or can change it.
"""

import os
import re
import stat
from pathlib import Path

from ossfs_py.errors import EnvironmentProblemError

_SECRET = re.compile(rb"^\s*aws_(secret_access_key|session_token)\s*[=:]", re.I | re.M)
_OTHERS_CHANGE = stat.S_IWOTH
_OTHERS_READ = stat.S_IROTH | stat.S_IWOTH
_GROUP = stat.S_IRGRP | stat.S_IWGRP
_ROOT = 0


def check_owner(what: str, info: os.stat_result) -> None:
    """Accept a file of the mounting user or root; ``what`` names the file.

    Raises:
        EnvironmentProblemError: it belongs to another user.
    """
    if info.st_uid not in (_ROOT, os.geteuid()):
        raise EnvironmentProblemError(
            f"{what} belongs to another user (uid {info.st_uid}), who could put other keys into"
            f" it: it must belong to root or to uid {os.geteuid()}"
        )


def check_shared_credentials(path: Path) -> str | None:
    """Check AWS's shared credentials file; returns a warning, None if there is none.

    Raises:
        EnvironmentProblemError: it must not be used.
    """
    what = f"the shared credentials file {path}"
    info = _stat(path)
    if info is None:
        return None
    check_owner(what, info)
    _refuse(what, info, _OTHERS_READ)
    return _told(what, info)


def check_shared_configuration(path: Path) -> str | None:
    """Check AWS's shared configuration file, as :func:`check_shared_credentials` does."""
    what = f"the shared configuration file {path}"
    info = _stat(path)
    if info is None:
        return None
    check_owner(what, info)
    try:
        is_secret = _SECRET.search(path.read_bytes()) is not None
    except OSError:
        return None  # botocore cannot read it either
    _refuse(what, info, _OTHERS_READ if is_secret else _OTHERS_CHANGE)
    return _told(what, info) if is_secret or info.st_mode & stat.S_IWGRP else None


def _stat(path: Path) -> os.stat_result | None:
    """None if there is no file, or one that keeps no content: /dev/null, a pipe."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info if stat.S_ISREG(info.st_mode) else None


def _refuse(what: str, info: os.stat_result, bits: int) -> None:
    if info.st_mode & bits:
        doing = "changed" if info.st_mode & stat.S_IWOTH else "read"
        raise EnvironmentProblemError(
            f"{what} can be {doing} by others (mode {stat.S_IMODE(info.st_mode):04o}):"
            " run chmod 600"
        )


def _told(what: str, info: os.stat_result) -> str | None:
    if info.st_mode & _GROUP == 0:
        return None
    doing = "changed" if info.st_mode & stat.S_IWGRP else "read"
    return (
        f"{what} can be {doing} by its group {info.st_gid}"
        f" (mode {stat.S_IMODE(info.st_mode):04o}): is that meant?"
    )

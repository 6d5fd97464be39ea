"""The secret that those who share blocks have in common."""

import os
import stat
from pathlib import Path

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.store.auth.sourcefiles import check_owner

_LEAST_BYTES = 16
_MOST_BYTES = 64
"""The longest key that blake2b takes."""


def read_secret(path: Path) -> bytes:
    """The secret in a file: its bytes without spaces and line ends around them.

    Raises:
        EnvironmentProblemError: unreadable, somebody else's, readable by others, too short or too
            long.
    """
    what = f"the shared cache's secret file {path}"
    try:
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            secret = file.read(4096).strip()
    except OSError as exc:
        raise EnvironmentProblemError(f"{what} cannot be read: {exc.strerror}") from None
    check_owner(what, info)
    mode = stat.S_IMODE(info.st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise EnvironmentProblemError(
            f"{what} can be read by others (mode {mode:04o}): run chmod 600"
        )
    if not _LEAST_BYTES <= len(secret) <= _MOST_BYTES:
        raise EnvironmentProblemError(
            f"{what} must hold {_LEAST_BYTES} to {_MOST_BYTES} bytes: make one with "
            "'openssl rand -base64 32'"
        )
    return secret

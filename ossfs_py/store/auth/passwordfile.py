"""Password files of ossfs and s3fs: an id and a secret a line, for one bucket or for all.

If an id or a secret contains a colon (ids of Swift do), spaces separate the two.
"""

import os
import stat
from pathlib import Path

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.store.auth.signing import AccessKey
from ossfs_py.store.auth.sourcefiles import check_owner


def read_password_file(path: Path, bucket: str) -> AccessKey:
    """The entry for ``bucket`` of an ossfs/s3fs password file; a line without a bucket fits all.

    Raises:
        EnvironmentProblemError: the file is unreadable, belongs to another user, is readable by
            others, has a broken line or no entry. The message names the line, never its content.
    """
    try:
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            text = file.read().decode()
    except UnicodeDecodeError:
        raise EnvironmentProblemError(f"the credentials file {path} is not a text file") from None
    except OSError as exc:
        raise EnvironmentProblemError(
            f"the credentials file {path} cannot be read: {exc.strerror}"
        ) from None
    check_owner(f"the credentials file {path}", info)
    mode = stat.S_IMODE(info.st_mode)
    if mode & stat.S_IRWXO or (mode & stat.S_IRWXG and not _handed_out(info)):
        raise EnvironmentProblemError(
            f"the credentials file {path} can be read by others (mode {mode:04o}): run chmod 600"
        )
    default: AccessKey | None = None
    special: AccessKey | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        spaced = line.split()
        fields = spaced if len(spaced) > 1 else line.split(":")
        if len(fields) not in (2, 3) or any(f != f.strip(":") or not f for f in fields):
            raise EnvironmentProblemError(
                f"line {number} of the credentials file {path} is neither id:secret nor "
                "bucket:id:secret (with spaces instead of the colons where an id or a secret "
                "holds one)"
            )
        key = AccessKey(fields[-2], fields[-1])
        if len(fields) == 2:
            default = default or key
        elif fields[0] == bucket:
            special = special or key
    found = special or default
    if found is None:
        raise EnvironmentProblemError(
            f"the credentials file {path} has no entry for the bucket {bucket!r}"
        )
    return found


def _handed_out(info: os.stat_result) -> bool:
    """Whether root has given the file to a group of this process, read-only: Kubernetes does so
    with secret files (0440) for a pod with an fsGroup, which has no other way to read them.
    """
    only_read = stat.S_IMODE(info.st_mode) == stat.S_IRUSR | stat.S_IRGRP
    return only_read and info.st_uid == 0 and info.st_gid in (os.getegid(), *os.getgroups())

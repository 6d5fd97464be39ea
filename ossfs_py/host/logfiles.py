"""Opening files that lines are added to, at paths where other users may have been first."""

import os
import stat
from pathlib import Path

_STARTERS_OWN = ("/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/self/fd/")
"""Descriptors that the parent process has opened, of any kind of file."""
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
_MODE = 0o600


class UnsafeFileError(OSError):
    """A file that lines must not be added to; ``strerror`` says why."""

    def __init__(self, why: str) -> None:
        super().__init__(0, why)


def open_for_appending(path: Path) -> int:
    """A descriptor that adds to the file, which is made (0600) where it is missing.

    It never waits. Links that root or this user made are followed, those of others are not. The
    file must be root's or this user's, with one name, or a character device of root's.

    Raises:
        UnsafeFileError: it is not such a file, or a link of somebody else leads there.
        OSError: it cannot be opened.
    """
    if str(path).startswith(_STARTERS_OWN):
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    path = path.absolute()
    for part in (*reversed(path.parents), path):
        if part.is_symlink() and not _is_trusted(part.lstat()):
            raise UnsafeFileError(f"{part} is a link that another user made")
    try:
        target = path.resolve()
    except RuntimeError:
        raise UnsafeFileError("its links lead in a circle") from None
    # The target of our link must not be another link that was created in the meantime.
    fd = os.open(target, _FLAGS | os.O_NOFOLLOW | os.O_NONBLOCK, _MODE)
    try:
        _check(os.fstat(fd))
        os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check(found: os.stat_result) -> None:
    if stat.S_ISCHR(found.st_mode) and found.st_uid == 0:
        return
    if not stat.S_ISREG(found.st_mode):
        raise UnsafeFileError("it is not a regular file")
    if not _is_trusted(found):
        raise UnsafeFileError("it belongs to another user")
    if found.st_nlink > 1:
        raise UnsafeFileError("it has other names, which may belong to another user")


def _is_trusted(found: os.stat_result) -> bool:
    return found.st_uid in (0, os.geteuid())

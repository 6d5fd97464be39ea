"""Files of the state directory: owner-only, whole or absent, and on the disk when it matters."""

import contextlib
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.extents import ExtentSet

R = TypeVar("R")

_NO_RECORD = (ValueError, LookupError, TypeError, AttributeError)
"""Raised for a text that is no record."""


def data_in(fd: int, size: int) -> ExtentSet:
    """The written spans of a file, in whole blocks except at its end."""
    found, end = ExtentSet(), 0
    with contextlib.suppress(OSError):  # ENXIO: no data follows
        while True:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
            found.add(start, end)
    found.truncate(size)
    return found


def unlink(path: str) -> None:
    """Remove a file, or do nothing if there is none."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 - twice for each file that is written


def private_directory(path: Path) -> None:
    """Make a directory that only this user may enter, or restrict an existing one.

    Raises:
        EnvironmentProblemError: it belongs to another user, or is no directory.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise EnvironmentProblemError(f"{path} is not a directory of this user")
    if status.st_mode & 0o077:
        path.chmod(0o700)


def write_atomically(path: Path, text: str, *, durable: bool = False) -> None:
    """Write ``text`` as a file's content: whole or not at all, also after a power loss if
    ``durable``.
    """
    # Twice for each file that is written: file objects and paths would take as long again.
    temporary = os.path.splitext(path)[0] + ".tmp"  # noqa: PTH122
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600)
    try:
        left = memoryview(text.encode())
        while left:
            left = left[os.write(fd, left) :]
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)  # noqa: PTH104
    if durable:
        sync_path(path.parent)


def write_durably(path: Path, data: bytes) -> None:
    """Write ``data`` as a file's content; durable once its directory is synced."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_path(path: Path) -> None:
    """Sync a file, or the names in a directory, to disk."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def records_in(directory: Path, read: Callable[[str], R]) -> list[R]:
    """The records of a directory, each in a file of its own; those that are none are deleted."""
    found = []
    for path in sorted(directory.glob("*.json")):
        try:
            found.append(read(path.read_text()))
        except _NO_RECORD:
            path.unlink()
    return found


def records_of(texts: Iterable[str], read: Callable[[str], R]) -> list[R]:
    """The records that some texts are."""
    found = []
    for text in texts:
        with contextlib.suppress(*_NO_RECORD):
            found.append(read(text))
    return found

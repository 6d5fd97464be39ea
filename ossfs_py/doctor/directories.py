"""Checks of the local directories a mount writes to. Makes none of them."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ossfs_py.doctor.findings import Finding, failed, good, warning
from ossfs_py.host.directories import LocalDirectories

GIB = 1024**3

_LITTLE_BYTES = GIB
"""A part of a checkpoint that is written out of order, or a few blocks of the cache."""


def check_directories(directories: LocalDirectories) -> Iterator[Finding]:
    """Each one that such a mount would use."""
    yield directory("temp-dir", directories.temp, made=None)
    for own in (directories.state, directories.cache):
        if own is not None:
            yield directory(own.option, own.path, made=own.is_default)


def directory(option: str, path: Path, *, made: bool | None) -> Finding:
    """Whether the directory can be used. ``made``: it is made if it is missing, with all its
    parents (True) or in an existing one (False); None: it has to be there.
    """
    fix = f"name another one with --{option}"
    place = path
    if made is not None:
        while not place.exists() and place != place.parent and (made or place == path):
            place = place.parent
    try:
        if not stat.S_ISDIR(place.stat().st_mode):
            return failed(option, f"{place} is not a directory", fix)
        room = os.statvfs(place)
    except FileNotFoundError:
        return failed(option, f"{place} does not exist", f"mkdir -p {place}, or {fix}")
    except OSError as exc:
        return failed(option, f"{place} cannot be used: {exc.strerror}", fix)
    if not os.access(place, os.W_OK | os.X_OK):
        return failed(option, f"{place} is not writable for this user", fix)
    free_bytes = room.f_bavail * room.f_frsize
    told = f"{path}{'' if place == path else ' will be made'}, {free_bytes / GIB:.1f} GiB free"
    if free_bytes < _LITTLE_BYTES:
        return warning(option, told, f"free space, or {fix}")
    return good(option, told)

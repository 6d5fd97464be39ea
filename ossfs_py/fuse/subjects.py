"""The subject of a request in words for people: the path, the offset, the size."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from ossfs_py.errors import OssfsError
from ossfs_py.filesystem.operations import Filesystem

_NUMBERS = {"off": "offset", "size": "size", "flags": "flags"}
"""Arguments of handlers that are shown as they are, and their names there."""


class Subject:
    """Reads the arguments of one handler of pyfuse3."""

    def __init__(self, handler: Callable[..., Any]) -> None:
        self.operation = handler.__name__
        self._names = tuple(inspect.signature(handler).parameters)[1:]

    def path(self, filesystem: Filesystem, arguments: Sequence[Any]) -> str:
        """The path below the mountpoint, ``""`` if it is not known any more."""
        given = dict(zip(self._names, arguments, strict=False))
        try:
            if "fh" in given and given["fh"] is not None:
                return self._path_of_handle(filesystem, given["fh"])
            if "inode" in given:
                return filesystem.path(given["inode"])
            for parent, name in (("parent_inode", "name"), ("parent_inode_old", "name_old")):
                if parent in given:
                    return _child(filesystem, given[parent], given[name])
        except OssfsError:
            # A stale inode or handle has no name.
            return ""
        return ""

    def details(self, filesystem: Filesystem, arguments: Sequence[Any]) -> dict[str, Any]:
        """Other details: numbers, the new name, the caller."""
        given = dict(zip(self._names, arguments, strict=False))
        told = {_NUMBERS[name]: given[name] for name in _NUMBERS if name in given}
        if "mode" in given:
            told["mode"] = f"{given['mode']:o}"
        if "buf" in given:
            told["size"] = len(given["buf"])
        for parent, name in (("parent_inode_new", "name_new"), ("new_parent_inode", "new_name")):
            if parent in given:
                try:
                    told["new_path"] = _child(filesystem, given[parent], given[name])
                except OssfsError as exc:
                    told["new_path"] = f"({exc})"
        if "ctx" in given:
            told["pid"], told["uid"] = given["ctx"].pid, given["ctx"].uid
        return told

    def _path_of_handle(self, filesystem: Filesystem, number: int) -> str:
        if self.operation in ("readdir", "releasedir", "fsyncdir"):
            return filesystem.path_of_directory(number)
        return filesystem.path_of_handle(number)


def _child(filesystem: Filesystem, parent: int, name: bytes) -> str:
    directory = filesystem.path(parent)
    return f"{directory.rstrip('/')}/{name.decode(errors='backslashreplace')}"

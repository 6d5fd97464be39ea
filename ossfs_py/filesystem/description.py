"""Descriptions of one file for people: paths, and everything that a mount knows of the file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ossfs_py.model import Attributes, ObjectInfo
from ossfs_py.namespace.inode import Inode


@dataclass(frozen=True, slots=True)
class FileDescription:
    """One path of a mount."""

    kind: str
    """``file``, ``directory`` or ``symlink``."""
    key: str
    attributes: Attributes
    info: ObjectInfo | None
    """The latest information from the store; None for a directory without a marker or an unstored
    file.
    """
    metadata: Mapping[str, str] | None
    """User metadata of the object; None if it could not be read."""
    is_open: bool
    open_handles: int
    unsaved: bool

    @property
    def is_file(self) -> bool:
        """A regular file."""
        return self.kind == "file"


class Refreshed(NamedTuple):
    """The result for a path after the mount dropped everything it had cached about it."""

    forgotten_entries: int
    is_gone: bool
    """The path was known, and does not exist any more."""


def path_of(inode: Inode) -> str:
    """``/a/b`` for an inode with the key ``a/b`` below the mount's prefix; the root is ``/``."""
    names = []
    node: Inode | None = inode
    while node is not None and node.parent is not None:
        names.append(node.name)
        node = node.parent
    return "/" + "/".join(reversed(names))


def path_in(directory: Inode, name: str) -> str:
    """The path below the mountpoint of a name in a directory."""
    return f"{path_of(directory).rstrip('/')}/{name}"

"""What people are told of one file: paths, and everything a mount knows."""

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
    """What the store last said; None of a directory without a marker and a file never stored."""
    metadata: Mapping[str, str] | None
    """User metadata of the object; None where it could not be asked."""
    is_open: bool
    open_handles: int
    unsaved: bool

    @property
    def is_file(self) -> bool:
        """A regular file."""
        return self.kind == "file"


class Refreshed(NamedTuple):
    """What became of a path of which nothing was to be believed any more."""

    forgotten_entries: int
    is_gone: bool
    """It was known, and is not there."""


def path_of(inode: Inode) -> str:
    """``/a/b`` for what the key ``a/b`` is below the mount's prefix; the root is ``/``."""
    names = []
    node: Inode | None = inode
    while node is not None and node.parent is not None:
        names.append(node.name)
        node = node.parent
    return "/" + "/".join(reversed(names))


def path_in(directory: Inode, name: str) -> str:
    """The path below the mountpoint of a name in a directory."""
    return f"{path_of(directory).rstrip('/')}/{name}"

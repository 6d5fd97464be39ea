"""Paths and keys: which key an inode's bytes are under, inside one prefix. Pure."""

from ossfs_py.errors import NameTooLongError
from ossfs_py.namespace.inode import Inode

MAX_KEY_BYTES = 1024
"""Longest key of S3 and OSS, in bytes of UTF-8, the mount's prefix included."""

RESERVED_PREFIX = ".ossfs-py-"
"""Names that begin so, directly under the mount's prefix, are the mount's own scratch objects."""


class KeyMap:
    """The mapping of one mount: ``prefix`` is empty or ends with a slash."""

    def __init__(self, prefix: str) -> None:
        if prefix and not prefix.endswith("/"):
            raise ValueError(f"the prefix {prefix!r} does not end with a slash")
        self.prefix = prefix

    def key_of(self, inode: Inode) -> str:
        """The key of a file or symlink (for a directory: its marker's, without the slash)."""
        names = []
        node: Inode | None = inode
        while node is not None and node.parent is not None:
            names.append(node.name)
            node = node.parent
        return self.prefix + "/".join(reversed(names))

    def marker_key_of(self, directory: Inode) -> str:
        """The key of a directory's marker, which is also the prefix of everything in it."""
        if directory.parent is None:
            return self.prefix
        return self.key_of(directory) + "/"

    def child_key(self, parent: Inode, name: str) -> str:
        """The key of ``name`` in ``parent``.

        Raises:
            NameTooLongError: over 1,024 bytes.
        """
        return require_key(self.marker_key_of(parent) + name)

    def is_reserved(self, parent: Inode, name: str) -> bool:
        """Whether the name belongs to the mount itself and is hidden."""
        return parent.parent is None and name.startswith(RESERVED_PREFIX)


def fits(key: str) -> bool:
    """Whether a store can have this key."""
    if len(key) <= MAX_KEY_BYTES // 4:  # no character takes more than four bytes
        return True
    return len(key.encode("utf-8", "surrogatepass")) <= MAX_KEY_BYTES


def require_key(key: str) -> str:
    """``key`` itself.

    Raises:
        NameTooLongError: over 1,024 bytes.
    """
    if not fits(key):
        raise NameTooLongError(f"the key {key[:64]!r}… is over {MAX_KEY_BYTES} bytes")
    return key

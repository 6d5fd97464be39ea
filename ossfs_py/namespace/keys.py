"""Paths and keys: which key an inode's bytes are under, inside one prefix. Pure."""

from ossfs_py.errors import NameTooLongError
from ossfs_py.namespace.inode import Inode

MAX_KEY_BYTES = 1024
"""Longest key of S3 and OSS, in bytes of UTF-8, the mount's prefix included."""

RESERVED_PREFIX = ".ossfs-py-"
"""Names that begin so, directly under the mount's prefix, are the mount's own scratch objects."""

_MAX_KNOWN = 4096
"""Directories whose keys are remembered: some hundred bytes each."""


class KeyMap:
    """The mapping of one mount: ``prefix`` is empty or ends with a slash."""

    def __init__(self, prefix: str) -> None:
        if prefix and not prefix.endswith("/"):
            raise ValueError(f"the prefix {prefix!r} does not end with a slash")
        self.prefix = prefix
        self._known: dict[Inode, str] = {}
        """The keys of markers, which every request asks for ten times."""

    def key_of(self, inode: Inode) -> str:
        """The key of a file or symlink (for a directory: its marker's, without the slash)."""
        parent = inode.parent
        return self.prefix if parent is None else self.marker_key_of(parent) + inode.name

    def marker_key_of(self, directory: Inode) -> str:
        """The key of a directory's marker, which is also the prefix of everything in it."""
        known = self._known.get(directory)
        return self._learned(directory) if known is None else known

    def moved(self) -> None:
        """A directory has another place or name, and with it all that are in it."""
        self._known.clear()

    def _learned(self, directory: Inode) -> str:
        if directory.parent is None:
            return self.prefix
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        names = []
        node: Inode = directory
        while node.parent is not None:
            names.append(node.name)
            node = node.parent
        key = self._known[directory] = f"{self.prefix}{'/'.join(reversed(names))}/"
        return key

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

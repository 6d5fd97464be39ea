"""A file system in plain Python objects: what a local disk would do."""

import errno
from collections.abc import Callable
from dataclasses import dataclass, field

Names = tuple[str, ...]

FILE_MODE, DIRECTORY_MODE = 0o644, 0o755
"""What objects show that carry no mode."""


class PosixError(Exception):
    """The call fails with this errno."""

    def __init__(self, code: int) -> None:
        super().__init__(errno.errorcode[code])
        self.code = code


@dataclass(eq=False)
class File:
    content: bytearray = field(default_factory=bytearray)
    mode: int = FILE_MODE
    mtime_ns: int | None = None
    """None: some time that nobody set."""
    xattrs: dict[str, bytes] = field(default_factory=dict)
    is_stored: bool = False
    """Whether the store has an object for it, as far as is certain."""
    hides_another: bool = False
    """Not stored since it was renamed over another file: the object of that name is the other's."""
    attributes_known: bool = True
    """Whether this mount has seen its metadata, or set it."""


@dataclass(eq=False)
class Link:
    target: bytes


@dataclass(eq=False)
class Directory:
    children: dict[str, "Node"] = field(default_factory=dict)
    mode: int = DIRECTORY_MODE
    attributes_known: bool = True


Node = File | Link | Directory


class Posix:
    """The tree and the operations that name something in it."""

    def __init__(self) -> None:
        self.root = Directory()

    # -- finding -----------------------------------------------------------------------------

    def directory(self, path: Names) -> Directory:
        node: Node = self.root
        for name in path:
            if not isinstance(node, Directory):
                raise PosixError(errno.ENOTDIR)
            if name not in node.children:
                raise PosixError(errno.ENOENT)
            node = node.children[name]
        if not isinstance(node, Directory):
            raise PosixError(errno.ENOTDIR)
        return node

    def node(self, path: Names) -> Node:
        if not path:
            return self.root
        children = self.directory(path[:-1]).children
        if path[-1] not in children:
            raise PosixError(errno.ENOENT)
        return children[path[-1]]

    def find(self, path: Names) -> Node | None:
        try:
            return self.node(path)
        except PosixError:
            return None

    def walk(self, path: Names = (), node: Node | None = None) -> list[tuple[Names, Node]]:
        """Everything below a path, parents first."""
        node = node if node is not None else self.node(path)
        found = [(path, node)] if path else []
        if isinstance(node, Directory):
            for name, child in node.children.items():
                found += self.walk((*path, name), child)
        return found

    # -- changing ----------------------------------------------------------------------------

    def mkdir(self, path: Names, mode: int) -> None:
        parent = self.directory(path[:-1])
        if path[-1] in parent.children:
            raise PosixError(errno.EEXIST)
        parent.children[path[-1]] = Directory(mode=mode)

    def rmdir(self, path: Names) -> None:
        node = self.node(path)
        if not isinstance(node, Directory):
            raise PosixError(errno.ENOTDIR)
        if node.children:
            raise PosixError(errno.ENOTEMPTY)
        self.detach(path)

    def symlink(self, target: bytes, path: Names) -> None:
        parent = self.directory(path[:-1])
        if path[-1] in parent.children:
            raise PosixError(errno.EEXIST)
        parent.children[path[-1]] = Link(target)

    def readlink(self, path: Names) -> bytes:
        node = self.node(path)
        if not isinstance(node, Link):
            raise PosixError(errno.EINVAL)
        return node.target

    def unlink(self, path: Names) -> None:
        if isinstance(self.node(path), Directory):
            raise PosixError(errno.EISDIR)
        self.detach(path)

    def rename(self, old: Names, new: Names, *, no_replace: bool) -> None:
        self.directory(old[:-1])
        self.directory(new[:-1])
        source = self.node(old)
        target = self.find(new)
        if target is source:
            return
        if target is not None and no_replace:
            raise PosixError(errno.EEXIST)
        if isinstance(source, Directory):
            if new[: len(old)] == old:
                raise PosixError(errno.EINVAL)
            if target is not None and not isinstance(target, Directory):
                raise PosixError(errno.ENOTDIR)
            if isinstance(target, Directory) and target.children:
                raise PosixError(errno.ENOTEMPTY)
        elif isinstance(target, Directory):
            raise PosixError(errno.EISDIR)
        if isinstance(source, File) and not source.is_stored:
            source.hides_another = target is not None
        self.detach(old)
        self.directory(new[:-1]).children[new[-1]] = source

    def create(self, path: Names, mode: int) -> File:
        file = File(mode=mode)
        self.directory(path[:-1]).children[path[-1]] = file
        return file

    def detach(self, path: Names) -> None:
        """Take a name away. A directory that is emptied so stays."""
        del self.directory(path[:-1]).children[path[-1]]

    # -- other clients -----------------------------------------------------------------------

    def vanish(self, path: Names, has_marker: Callable[[Names], bool]) -> None:
        """Another client deleted an object: directories that nothing shows any more go too."""
        del self.directory(path[:-1]).children[path[-1]]
        while path := path[:-1]:
            if self.directory(path).children or has_marker(path):
                return
            del self.directory(path[:-1]).children[path[-1]]

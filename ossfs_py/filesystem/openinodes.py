"""Open inodes: one open file for each, shared by all descriptors, and let go by the last.

``OpenInodes`` is the table, ``Opener`` fills and empties it. Readers take no lock. Whoever changes
an object's key or content at the store holds a claim on its place in the tree, then the lock of
its open inode.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import trio

from ossfs_py.datapath.base import DataPath, OpenFile
from ossfs_py.errors import OssfsError, VersionChangedError
from ossfs_py.filesystem.kernelcache import KernelCache
from ossfs_py.model import CommitRequest, ObjectVersion
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.namespace import Namespace


@dataclass(frozen=True, slots=True)
class HiddenCopy:
    """A copy under a hidden key that an open file reads from, to be deleted with it."""

    version: ObjectVersion
    source: ObjectVersion
    """What it is a copy of: still at its key if the removal failed after all."""


class OpenInode:
    """An inode that somebody has open, in one version. ``users`` counts who.

    It is the committer of its file (:class:`~ossfs_py.writing.content.Committer`).
    """

    __slots__ = (
        "_commits",
        "_users",
        "exclusive",
        "file",
        "has_pages",
        "hidden",
        "inode",
        "lock",
        "seen",
        "superseded",
    )

    def __init__(
        self,
        inode: Inode,
        version: ObjectVersion | None,
        data_path: DataPath,
        commits: "InodeCommits",
    ) -> None:
        self.inode = inode
        self._commits = commits
        self.file: OpenFile = data_path.open(version, self)
        self._users = 0
        self.lock = trio.Lock()
        self.has_pages = False
        """Somebody has, or had, it open through the kernel's page cache. Kept by the handles."""
        self.exclusive = False
        """Created with O_EXCL and not stored yet. Kept by the commits, as is ``seen``."""
        self.seen = version
        """The version a conflicting writer must not have replaced."""
        self.hidden: HiddenCopy | None = None
        """Kept by the preserved files."""
        self.superseded = False
        """Somebody has opened another version since. Kept by the opener."""

    @property
    def users(self) -> int:
        """Open descriptors, and calls that need the file just now."""
        return self._users

    @users.setter
    def users(self, count: int) -> None:
        self.inode.open_count += count - self._users
        self._users = count

    def is_of(self, version: ObjectVersion | None) -> bool:
        """Whether the file's clean bytes are those of ``version``."""
        base = self.file.version
        if base == version:
            return True
        hidden = self.hidden
        return hidden is not None and base == hidden.version and version == hidden.source

    @property
    def content(self) -> OpenFile:
        """The file, to read and write.

        Raises:
            VersionChangedError: superseded. The kernel has one page cache for all versions of an
                inode: bytes of an old one, even if we still have them, would be read as the new
                one's.
        """
        self.check_current()
        return self.file

    def check_current(self) -> None:
        """Raise VersionChangedError if superseded."""
        if self.superseded:
            raise VersionChangedError(
                "the object was replaced by another client", key=self.inode.name
            )

    @property
    def removed_here(self) -> bool:
        """Whether this mount unlinked the file: nobody wants what is written to it stored."""
        return self.inode.removed and not self.inode.stale

    def require_name(self) -> None:
        """Raise VersionChangedError if others took the name: no close could store a change."""
        if self.inode.stale:
            raise VersionChangedError(
                "the object was replaced or removed by another client", key=self.inode.name
            )

    def size(self) -> int:
        """Present size in bytes, uncommitted writes included."""
        return self.file.size

    @property
    def key_settled(self) -> bool:
        """Whether no rename of the file, or of a directory above it, is under way."""
        return not self._commits.moves(self.inode)

    def request(self) -> CommitRequest:
        """How the file would be committed now, for parts that leave before the commit."""
        return self._commits.request_so_far(self)

    def stored_early(self, version: ObjectVersion) -> None:
        """The object had to be completed before a commit asked for it."""
        self._commits.stored_so_far(self, version)

    def note_written(self) -> None:
        """The content changed just now, if a write that failed got far enough for that."""
        if self.file.dirty or self.inode.removed:
            self.inode.size_source = self.size
            self.inode.touch(time.time_ns())


class OpenInodes:
    """Every open inode of a mount. Belongs to the trio thread."""

    def __init__(self) -> None:
        self._current: dict[int, OpenInode] = {}
        self._all: set[OpenInode] = set()

    def __iter__(self) -> Iterator[OpenInode]:
        """All at this moment, in whatever version."""
        return iter(tuple(self._all))

    def __len__(self) -> int:
        """Files that are open, or written back; several handles of one file count once."""
        return len(self._all)

    @property
    def unsaved_count(self) -> int:
        """Files with changes that the bucket has not got yet."""
        return sum(1 for opened in self._all if opened.file.dirty)

    def current(self, inode: Inode) -> OpenInode | None:
        """What is open of an inode in its present version."""
        return self._current.get(inode.number)

    def knows(self, number: int) -> bool:
        """Whether the inode of that number is open in its present version."""
        return number in self._current

    def add(self, opened: OpenInode) -> None:
        """From now on its version is the present one of its inode."""
        self._current[opened.inode.number] = opened
        self._all.add(opened)

    def discard(self, opened: OpenInode) -> None:
        """Nobody has it open any more."""
        self._all.discard(opened)
        if self.current(opened.inode) is opened:
            del self._current[opened.inode.number]


class InodeCommits(Protocol):
    """What opening and letting go need of :class:`ossfs_py.filesystem.commits.Commits`."""

    def moves(self, inode: Inode) -> bool:
        """Whether the inode, or a directory above it, is being renamed."""
        ...

    def request_so_far(self, opened: OpenInode) -> CommitRequest:
        """How a file that is still written would be committed now."""
        ...

    def stored_so_far(self, opened: OpenInode, version: ObjectVersion) -> None:
        """A file that is still written had to be stored as ``version``."""
        ...

    async def commit(self, opened: OpenInode) -> None:
        """Bring what is dirty to the store."""
        ...

    def set_aside(self, opened: OpenInode, cause: Exception) -> bool:
        """Keep what could not be saved where ``ossfs-py recover`` finds it."""
        ...


class CopyKeeper(Protocol):
    """Keeps hidden copies for :class:`ossfs_py.filesystem.preserved.PreservedFiles`."""

    async def drop(self, opened: OpenInode) -> None:
        """The hidden copy that a file reads from, if it has one, is needed no more."""
        ...


class Opener:
    """Opens inodes and lets go of them. Belongs to the trio thread."""

    def __init__(
        self,
        opened: OpenInodes,
        namespace: Namespace,
        data_path: DataPath,
        kernel: KernelCache,
        commits: InodeCommits,
        copies: CopyKeeper,
    ) -> None:
        self._opened = opened
        self._namespace = namespace
        self._data_path = data_path
        self._kernel = kernel
        self._commits = commits
        self._copies = copies

    async def acquire(self, inode: Inode) -> OpenInode:
        """Open an inode in its present version, or join those who have; pair with release."""
        current = self._opened.current(inode)
        if not (inode.local or inode.removed) and (current is None or not current.file.dirty):
            await self._namespace.refresh_version(inode)
            current = self._opened.current(inode)
        version = inode.info.version if inode.info is not None else None
        if current is None or not (current.file.dirty or inode.removed or current.is_of(version)):
            if current is not None:
                current.superseded = True
            current = OpenInode(inode, version, self._data_path, self._commits)
            self._opened.add(current)
        current.users += 1
        return current

    async def release(self, opened: OpenInode) -> None:
        """One user of an open inode less; the last one commits what is left and frees it."""
        try:
            # Writes through a shared mapping arrive after the last flush. Whoever opens the file
            # while they are on their way may leave others behind.
            while opened.users == 1 and opened.file.dirty and not opened.removed_here:
                await self._commits.commit(opened)
        except (OssfsError, OSError) as exc:
            if opened.users == 1:
                self._commits.set_aside(opened, exc)
        opened.users -= 1
        if opened.users == 0:
            await self._forget(opened)

    def give_up(self, opened: OpenInode) -> None:
        """Drop the changes of a call that failed, unless others have the file open too."""
        if opened.users == 1:
            opened.file.abandon()

    async def _forget(self, opened: OpenInode) -> None:
        inode = opened.inode
        self._opened.discard(opened)
        if inode.size_source == opened.size:
            inode.size_source = None
        if not inode.open_count:
            inode.settled = False
        if inode.removed:
            opened.file.abandon()
        elif inode.local and opened.file.version is None:
            self._namespace.drop_local(inode)
        await opened.file.close()
        if self._namespace.forget(inode.number, 0) and not self._opened.knows(inode.number):
            self._kernel.forget(inode.number)
        await self._copies.drop(opened)

    async def close(self) -> None:
        """Free every open file; call :meth:`Commits.drain` first."""
        for opened in self._opened:
            await opened.file.close()
            await self._copies.drop(opened)
            self._opened.discard(opened)

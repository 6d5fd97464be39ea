"""Open inodes: one open file for each, shared by all descriptors, and let go by the last.

``OpenInodes`` is the table, ``Opener`` fills and empties it. Readers take no lock. Whoever changes
an object's key or content at the store holds a claim on its place in the tree, then the lock of
its open inode.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import trio

from ossfs_py.datapath.base import DataPath, OpenFile
from ossfs_py.errors import (
    NoSuchEntryError,
    OssfsError,
    StaleInodeError,
    VersionChangedError,
)
from ossfs_py.filesystem.kernelcache import KernelCache
from ossfs_py.filesystem.twins import Twins
from ossfs_py.model import CommitRequest, ObjectInfo, ObjectVersion
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.namespace import Namespace
from ossfs_py.runtime.locks import PromptLock


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
        "appended_from",
        "exclusive",
        "file",
        "found_gone",
        "has_pages",
        "hidden",
        "inode",
        "kernel_end",
        "lock",
        "made_here",
        "may_be_link",
        "readers",
        "seen",
        "spared",
        "superseded",
        "turns",
        "unlike",
        "unseen",
        "upload",
        "whole",
        "writer",
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
        self.readers = 0
        """Descriptors, of those in ``users``, that cannot change it. Kept by the handles."""
        self.lock = PromptLock()
        self.found_gone = False
        """Whether the store was asked before the first byte, and had no object any more."""
        self.has_pages = False
        """Somebody has, or had, it open through the kernel's page cache. Kept by the handles."""
        self.exclusive = False
        """Created with O_EXCL and not stored yet. Kept by the commits, as is ``seen``."""
        self.seen = version
        """The version a conflicting writer must not have replaced."""
        self.spared: ObjectVersion | None = None
        """What may be replaced without being kept: a copy is kept already, or it was made here.
        Kept by the commits, too."""
        self.hidden: HiddenCopy | None = None
        """Kept by the preserved files."""
        self.superseded = False
        """Somebody has opened another version since. Kept by the opener."""
        self.made_here = version is None
        """This mount made the file, and has had it open since."""
        self.unlike: str | None = None
        """The ETag of a later version that was found not to begin with the bytes of this one."""
        self.may_be_link = False
        """Nobody has looked yet whether its first bytes are the target of a symbolic link."""
        self.whole = version is None
        """All that a commit would store was written here: nothing is left of ``seen``."""
        self.unseen = False
        """Made as absent by a program that would have kept what is there, and not stored yet."""
        self.appended_from: int | None = None
        """Where the changes since the last commit begin, if all of them were appended."""
        self.kernel_end: int | None = None
        """Where the kernel believes the file ends, once bytes of others came before our own."""
        self.turns = Turns()
        self.writer = inode.uid or 0
        """The user who wrote last, or writes now. Kept by the handles."""
        self.upload: trio.CancelScope | None = None
        """Around a commit's wait for the store. Kept by the commits."""

    @property
    def users(self) -> int:
        """Open descriptors, and calls that need the file just now."""
        return self._users

    @users.setter
    def users(self, count: int) -> None:
        self.inode.open_count += count - self._users
        self._users = count

    @property
    def writers(self) -> int:
        """Users that may change the file, or bring to the store what was changed."""
        return self._users - self.readers

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
        """Whether the file keeps its key, and has it for itself, until it is committed next."""
        return self._commits.key_settled(self.inode)

    def twins(self, size: int) -> list[ObjectVersion]:
        """Objects of so many bytes that are known to lie beside it, if they are looked for."""
        return self._commits.twins.of_size(self.inode, size)

    def largest_twin(self) -> int:
        """Bytes of the largest object that is known to lie beside it, if it is looked for."""
        return self._commits.twins.largest(self.inode)

    def end_upload(self) -> None:
        """Let a commit under way end: nobody wants what it would store."""
        if self.upload is not None:
            self.upload.cancel()

    def begin_write(self, offset: int, size: int, *, appends: bool) -> int:
        """Where bytes that the kernel sends for ``offset`` go.

        To the end, if they are appended and the kernel does not know what others appended before.
        """
        end = self.file.size
        if appends and offset != end:
            if offset == self.kernel_end:
                self.kernel_end += size
                offset = end
            elif not self.has_pages:
                # Only mapped pages are written elsewhere through a descriptor that appends.
                offset = end
        appended = appends and offset == end
        if not appended:
            self.appended_from = None
        elif not self.file.dirty:
            self.appended_from = end
        return offset

    def go_back(self, file: OpenFile) -> OpenFile:
        """What was written since the last commit is nobody's to store: ``file`` is without it.
        Returns the one that was written, to be closed.
        """
        old, self.file = self.file, file
        self.seen = file.version
        self.exclusive = self.made_here = self.unseen = self.whole = False
        self.appended_from = self.kernel_end = None
        if self.inode.size_source == self.size:
            self.inode.size_source = None
        return old

    def begin_truncate(self, size: int) -> None:
        """The file is cut off, or extended."""
        self.appended_from = None
        self.whole = self.whole or size == 0
        self.unseen = self.unseen and size > 0

    def request(self) -> CommitRequest:
        """How the file would be committed now, for parts that leave before the commit."""
        return self._commits.request_so_far(self)

    async def before_replacing(self) -> None:
        """The object is about to be made before a commit asks for it."""
        await self._commits.before_replacing(self)

    def stored_early(self, version: ObjectVersion) -> None:
        """The object had to be completed before a commit asked for it."""
        self._commits.stored_so_far(self, version)

    def note_written(self) -> None:
        """The content changed just now, if a write that failed got far enough for that."""
        if self.file.dirty or self.inode.removed:
            self.inode.size_source = self.size
            self.inode.touch(time.time_ns())


class Turns:
    """Lets changes of a file end, and keeps new ones waiting, while its bytes move to another.

    Belongs to the trio thread. Costs no checkpoint while nothing moves.
    """

    __slots__ = ("_changes", "_idle", "_moved")

    def __init__(self) -> None:
        self._changes = 0
        self._idle: trio.Event | None = None
        self._moved: trio.Event | None = None

    def change(self) -> "Turns":
        """Change the file in the block."""
        return self

    async def __aenter__(self) -> None:
        """A change begins."""
        while self._moved is not None:
            await self._moved.wait()
        self._changes += 1

    async def __aexit__(self, *_exception: object) -> None:
        """It has ended."""
        self._changes -= 1
        if self._idle is not None and not self._changes:
            self._idle.set()

    @asynccontextmanager
    async def move(self) -> AsyncIterator[None]:
        """Nobody changes the file in the block. One at a time."""
        self._moved = trio.Event()
        try:
            if self._changes:
                self._idle = trio.Event()
                await self._idle.wait()
            yield
        finally:
            self._idle = None
            self._moved.set()
            self._moved = None


class OpenInodes:
    """Every open inode of a mount. Belongs to the trio thread."""

    def __init__(self) -> None:
        self._current: dict[int, OpenInode] = {}
        self._all: set[OpenInode] = set()

    def __iter__(self) -> Iterator[OpenInode]:
        """All at this moment, in whatever version."""
        return iter(tuple(self._all))

    def __contains__(self, opened: OpenInode) -> bool:
        """Whether somebody still has it open."""
        return opened in self._all

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

    @property
    def twins(self) -> Twins:
        """What may have the bytes of a file already."""
        ...

    def key_settled(self, inode: Inode) -> bool:
        """Whether nobody renames the inode, and nothing removed has its key."""
        ...

    def request_so_far(self, opened: OpenInode) -> CommitRequest:
        """How a file that is still written would be committed now."""
        ...

    def stored_so_far(self, opened: OpenInode, version: ObjectVersion) -> None:
        """A file that is still written had to be stored as ``version``."""
        ...

    async def before_replacing(self, opened: OpenInode) -> None:
        """A file that is still written is about to be stored."""
        ...

    async def commit(self, opened: OpenInode) -> None:
        """Bring what is dirty to the store."""
        ...

    def set_aside(self, opened: OpenInode, cause: Exception) -> bool:
        """Keep what could not be saved where ``ossfs-py recover`` finds it."""
        ...


class CopyKeeper(Protocol):
    """What letting go needs of :class:`ossfs_py.filesystem.removals.Removals`."""

    async def closed(self, opened: OpenInode) -> None:
        """Nobody has the file open any more: what only it was kept for goes."""
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
        self.on_moved: Callable[[OpenInode], None] | None = None
        """Told of an open file that became the one of another version."""

    async def acquire(self, inode: Inode) -> OpenInode:
        """Open an inode in its present version, or join those who have; pair with release."""
        current = self._opened.current(inode)
        if not (inode.local or inode.removed) and (current is None or not current.file.dirty):
            await self._namespace.refresh_version(inode)
            current = self._opened.current(inode)
        version = inode.info.version if inode.info is not None else None
        if current is not None and not inode.settled and version is not None:
            await self._move_on(current, version)
            current = self._opened.current(inode)
        if current is None or not (current.file.dirty or inode.removed or current.is_of(version)):
            if current is not None:
                current.superseded = True
            current = OpenInode(inode, version, self._data_path, self._commits)
            current.may_be_link = self._namespace.may_be_link(inode)
            self._opened.add(current)
        current.users += 1
        return current

    def adopt(self, inode: Inode, version: ObjectVersion) -> OpenInode:
        """The open file of an inode in a version that an earlier daemon had it open in.

        Called for the oldest descriptor first: the last version is the present one.
        """
        current = self._opened.current(inode)
        if current is not None and current.is_of(version):
            return current
        if current is not None:
            current.superseded = True
        opened = OpenInode(inode, version, self._data_path, self._commits)
        self._opened.add(opened)
        return opened

    def current(self, inode: Inode) -> OpenInode | None:
        """What is open of an inode in its present version."""
        return self._opened.current(inode)

    async def renew(self, opened: OpenInode) -> bool:
        """The store refused the version of a file before anybody was given a byte of it: go on with
        the one that it has; False if the file is not to be another one.

        Raises:
            NoSuchEntryError: the object is gone.
            StoreError
        """
        inode, before = opened.inode, opened.file.version
        if opened.found_gone:
            raise NoSuchEntryError(f"{inode.name!r} is gone from the store")
        if inode.stale or inode.settled or inode.removed or opened.file.dirty or opened.superseded:
            return False
        with self._kernel.postponed(inode):
            try:
                await self._namespace.ask_version(inode)
            except StaleInodeError as exc:
                opened.found_gone = True
                raise NoSuchEntryError(f"{inode.name!r} is gone from the store") from exc
        version = inode.info.version if inode.info is not None else None
        if inode.settled or version is None:
            return False
        await self._move_on(opened, version)
        if before is not None and version.size > before.size:
            # Or else it would take the end of the old version for the end of this one.
            await self._kernel.expire_attributes(inode.number)
        return opened.file.version != before

    async def become(self, opened: OpenInode, info: ObjectInfo) -> None:
        """What is open, and nobody was given a byte of, was a link: it is the file it leads to.

        Its own name leads to another inode already.
        """
        opened.inode.info = info
        opened.inode.metadata = info.metadata
        await self._move_on(opened, info.version)

    async def _move_on(self, opened: OpenInode, version: ObjectVersion) -> None:
        """Let a file of which nobody was given a byte be the one of another version."""
        if opened.file.dirty or opened.superseded or opened.is_of(version):
            return
        opened.may_be_link = self._namespace.may_be_link(opened.inode)
        await self._replace(opened, self._data_path.open(version, opened))

    def file_of(self, opened: OpenInode, version: ObjectVersion) -> OpenFile:
        """Another file for what is open, not in use yet; whoever asks for it closes it."""
        return self._data_path.open(version, opened)

    async def grow(self, opened: OpenInode, file: OpenFile, info: ObjectInfo) -> None:
        """What is open goes on as ``file``, which begins with all the bytes that it had."""
        opened.inode.info = info
        await self._replace(opened, file)

    async def _replace(self, opened: OpenInode, file: OpenFile) -> None:
        old, opened.file = opened.file, file
        opened.seen = file.version
        if self.on_moved is not None:
            self.on_moved(opened)
        await old.close()

    async def release(self, opened: OpenInode) -> None:
        """One user of an open inode less; the last one that may write commits what is left, and the
        last one frees it.
        """
        is_set_aside = False
        try:
            # Writes through a shared mapping arrive after the last flush. Whoever opens the file
            # while they are on their way may leave others behind.
            while opened.writers == 1 and opened.file.dirty and not opened.removed_here:
                await self._commits.commit(opened)
        except (OssfsError, OSError) as exc:
            if opened.writers == 1:
                self._commits.set_aside(opened, exc)
                is_set_aside = True
        opened.users -= 1
        if opened.users == 0:
            await self._forget(opened)
        elif is_set_aside:
            await self._go_back(opened)

    async def give_up(self, opened: OpenInode) -> None:
        """Drop the changes of a call that failed, unless others may write the file too."""
        if opened.writers == 1 and opened.file.dirty:
            opened.file.abandon()
            if opened.users > 1:
                await self._go_back(opened)

    async def _go_back(self, opened: OpenInode) -> None:
        """The store does not get what was written, and only readers are left: they, and whoever
        opens the file from now on, go on with what is there.

        Who was given a byte is refused: it may be one that never was in the store.
        """
        inode, version = opened.inode, opened.file.version
        was_given = inode.settled or self._kernel.was_given_bytes(inode)
        file = self._data_path.open(version, opened)
        if version is None:
            file.abandon()  # nobody wants it stored
        old = opened.go_back(file)
        self._kernel.contents_changed(inode)
        if was_given or version is None:
            opened.superseded = True
            self._namespace.note_outdated(inode)
        else:
            self._namespace.invalidate(inode)
        await old.close()

    async def _forget(self, opened: OpenInode) -> None:
        inode = opened.inode
        self._opened.discard(opened)
        if inode.size_source == opened.size:
            inode.size_source = None
        if not inode.open_count:
            inode.settled = False
            self._kernel.closed(inode)
        if opened.removed_here:
            opened.file.abandon()
        elif inode.local and opened.file.version is None:
            self._namespace.drop_local(inode)
        await opened.file.close()
        if self._namespace.forget(inode.number, 0) and not self._opened.knows(inode.number):
            self._kernel.forget(inode.number)
        await self._copies.closed(opened)

    async def close(self) -> None:
        """Free every open file; call :meth:`Commits.drain` first."""
        for opened in self._opened:
            self._opened.discard(opened)
            await opened.file.close()
            await self._copies.closed(opened)

"""One open inode: the file that all its descriptors share, and what is known of its way to the
store.

Readers take no lock. Whoever changes an object's key or content at the store holds a claim on its
place in the tree, then the lock of its open inode.
"""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import trio

from ossfs_py.datapath.base import DataPath, OpenFile
from ossfs_py.errors import VersionChangedError
from ossfs_py.filesystem.twins import Twins
from ossfs_py.model import CommitRequest, ObjectVersion
from ossfs_py.namespace.inode import Inode
from ossfs_py.runtime.locks import PromptLock

_COPY_BYTES = 1024**2


class InodeCommits(Protocol):
    """What opening and letting go need of :class:`ossfs_py.filesystem.commits.Commits`."""

    @property
    def twins(self) -> Twins:
        """What may have the bytes of a file already."""
        ...

    def key_settled(self, inode: Inode) -> bool:
        """Whether nobody renames the inode, and nothing removed has its key."""
        ...

    def request_so_far(self, opened: "OpenInode") -> CommitRequest:
        """How a file that is still written would be committed now."""
        ...

    def stored_so_far(self, opened: "OpenInode", version: ObjectVersion) -> None:
        """A file that is still written had to be stored as ``version``."""
        ...

    async def before_replacing(self, opened: "OpenInode") -> None:
        """A file that is still written is about to be stored."""
        ...

    async def commit(self, opened: "OpenInode") -> None:
        """Bring what is dirty to the store."""
        ...

    def set_aside(self, opened: "OpenInode", cause: Exception) -> bool:
        """Keep what could not be saved where ``ossfs-py recover`` finds it."""
        ...


@dataclass(frozen=True, slots=True)
class HiddenCopy:
    """A copy under a hidden key that an open file reads from, to be deleted with it."""

    version: ObjectVersion
    source: ObjectVersion
    """What it is a copy of: still at its key if the removal failed after all."""


class OpenWitness(Protocol):
    """Who writes down what is open, for a daemon that comes after this one."""

    def named(self, opened: "OpenInode") -> str:
        """What stands for an inode that was just opened."""
        ...

    def changed(self, opened: "OpenInode") -> None:
        """Something of it may be otherwise now."""
        ...

    def sending(self, opened: "OpenInode") -> None:
        """Its object is about to be made."""
        ...

    def made(self, opened: "OpenInode", version: ObjectVersion) -> None:
        """Its object is ``version``, with all its bytes."""
        ...

    def closed(self, opened: "OpenInode") -> None:
        """Nobody has it open any more."""
        ...


class OpenInode:
    """An inode that somebody has open, in one version. ``users`` counts who.

    It is the committer of its file (:class:`~ossfs_py.writing.content.Committer`).
    """

    __slots__ = (
        "_commits",
        "_users",
        "appended_from",
        "composes",
        "exclusive",
        "file",
        "found_gone",
        "has_pages",
        "hidden",
        "inode",
        "interrupted",
        "kernel_end",
        "lock",
        "made_here",
        "may_be_link",
        "name",
        "over",
        "readers",
        "rewrites",
        "seen",
        "sending",
        "spared",
        "superseded",
        "turns",
        "unlike",
        "unseen",
        "upload",
        "whole",
        "witness",
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
        self.witness: OpenWitness | None = None
        self.name = ""
        """What stands for it where it is written down. Kept by the opener."""
        self.interrupted: tuple[int, int, int] | None = None
        """Of an append that is not answered yet: its offset, size and place."""
        self.over: ObjectVersion | None = None
        """What others wrote, while our end is about to be stored behind it. Kept by the commits."""
        self.composes = self.rewrites = self.sending = False
        """Whether another file than its own is written in its name (kept by the commits, too),
        whether its object is being copied onto itself, with other metadata, and whether a commit is
        under way, or was when the daemon before died."""
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
    def owner(self) -> str:
        """See the protocol."""
        return self.name + "+" if self.composes else self.name

    def note(self) -> None:
        """Let what changed of it be written down, if it is to outlive the daemon."""
        if self.witness is not None:
            self.witness.changed(self)

    @contextmanager
    def rewriting(self) -> Iterator[None]:
        """In the block its object may be copied onto itself, with other metadata."""
        self.rewrites = True
        self.note()
        try:
            yield
        finally:
            self.rewrites = False

    @contextmanager
    def being_sent(self) -> Iterator[None]:
        """In the block a request may be under way that makes its object."""
        self.sending = True
        if self.witness is not None:
            self.witness.sending(self)
        try:
            yield
        finally:
            self.sending = False

    def made(self, version: ObjectVersion) -> None:
        """See the protocol."""
        if self.witness is not None:
            self.witness.made(self, version)

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
        begun, end = offset, self.file.size
        before = self.interrupted
        if appends and before is not None and before[:2] == (offset, size):
            # The daemon before did not answer it, and may have done it: never twice.
            return before[2]
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
        if appends and self.witness is not None:
            self.interrupted = (begun, size, offset)
            self.witness.changed(self)
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
        self.appended_from = self.interrupted = None
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


async def copy_end(source: OpenFile, start: int, target: OpenFile) -> None:
    """Append the bytes of ``source`` from ``start`` on to ``target``."""
    while start < source.size:
        data = bytes(await source.read(start, _COPY_BYTES))
        await target.write(target.size, data)
        start += len(data)


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

"""An open inode: the file that all its descriptors share, and the state of its commits.

Readers take no lock. To change an object's key or content at the store, a caller holds a claim on
its place in the tree, then the lock of its open inode.
"""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import trio

from ossfs_py.datapath.base import DataPath, OpenFile
from ossfs_py.errors import ObjectMissingError, VersionChangedError
from ossfs_py.filesystem.twins import Twins
from ossfs_py.model import CommitRequest, ObjectVersion
from ossfs_py.namespace.inode import Inode
from ossfs_py.runtime.locks import PromptLock

_COPY_BYTES = 1024**2


class InodeCommits(Protocol):
    """The part of :class:`ossfs_py.filesystem.commits.Commits` that opening and releasing need."""

    @property
    def twins(self) -> Twins:
        """Finds objects that may have the bytes of a file already."""
        ...

    def key_settled(self, inode: Inode) -> bool:
        """Whether no rename of the inode is running, and no removed object has its key."""
        ...

    def request_so_far(self, opened: "OpenInode") -> CommitRequest:
        """The commit request for a file that is still being written, as of now."""
        ...

    def stored_so_far(self, opened: "OpenInode", version: ObjectVersion) -> None:
        """A file that is still being written had to be stored as ``version``."""
        ...

    async def before_replacing(self, opened: "OpenInode") -> None:
        """A file is about to be stored while it is still being written."""
        ...

    async def commit(self, opened: "OpenInode") -> None:
        """Store the dirty bytes."""
        ...

    def set_aside(self, opened: "OpenInode", cause: Exception) -> bool:
        """Keep the unsaved bytes where ``ossfs-py recover`` finds them."""
        ...


@dataclass(frozen=True, slots=True)
class HiddenCopy:
    """A copy under a hidden key, from which an open file reads; it is deleted with the file."""

    version: ObjectVersion
    source: ObjectVersion
    """The copied version: still at its key if the removal failed."""


class OpenWitness(Protocol):
    """Records open files for the next daemon."""

    def named(self, opened: "OpenInode") -> str:
        """The name in the records of an inode that was just opened."""
        ...

    def changed(self, opened: "OpenInode") -> None:
        """Some of its state may have changed."""
        ...

    def sending(self, opened: "OpenInode") -> None:
        """Its object is about to be made."""
        ...

    def made(self, opened: "OpenInode", version: ObjectVersion) -> None:
        """Its object is ``version``, with all its bytes."""
        ...

    def closed(self, opened: "OpenInode") -> None:
        """Its last descriptor is closed."""
        ...


class OpenInode:
    """An open inode, in one version. ``users`` counts its users.

    It is the committer of its file (:class:`~ossfs_py.writing.content.Committer`).
    """

    __slots__ = (
        "__weakref__",
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
        """Its name in the records for the next daemon. Kept by the opener."""
        self.interrupted: tuple[int, int, int] | None = None
        """Offset, size and place of an append that is not answered yet."""
        self.over: ObjectVersion | None = None
        """The version that others wrote, while our end is about to be stored after it. Kept by the
        commits.
        """
        self.composes = self.rewrites = self.sending = False
        """``composes``: another file than its own is written in its name (kept by the commits,
        too). ``rewrites``: its object is being copied onto itself, with other metadata.
        ``sending``: a commit is running, or was when the earlier daemon died.
        """
        self._commits = commits
        self.file: OpenFile = data_path.open(version, self)
        self._users = 0
        self.readers = 0
        """Those of ``users`` that are descriptors and cannot change it. Kept by the handles."""
        self.lock = PromptLock()
        self.found_gone = False
        """Whether the store was asked before the first byte, and had no object any more."""
        self.has_pages = False
        """It is, or was, open through the kernel's page cache. Kept by the handles."""
        self.exclusive = False
        """Created with O_EXCL and not stored yet. Kept by the commits, as is ``seen``."""
        self.seen = version
        """The version a conflicting writer must not have replaced."""
        self.spared: ObjectVersion | None = None
        """The version that may be replaced without a copy: one exists already, or the file was made
        here. Kept by the commits, too.
        """
        self.hidden: HiddenCopy | None = None
        """Kept by the preserved files."""
        self.superseded = False
        """Another version was opened since. Kept by the opener."""
        self.made_here = version is None
        """This mount made the file, and has had it open since."""
        self.unlike: str | None = None
        """The ETag of a later version that does not begin with the bytes of this one."""
        self.may_be_link = False
        """Its first bytes may be the target of a symbolic link: nobody has checked yet."""
        self.whole = version is None
        """All bytes of the next commit were written here: none come from ``seen``."""
        self.unseen = False
        """Made, and not stored yet, by a program that believed it absent and would have kept an
        existing file.
        """
        self.appended_from: int | None = None
        """The start of the changes since the last commit, if all of them were appended."""
        self.kernel_end: int | None = None
        """The end of the file as the kernel knows it, once bytes of others came before our own."""
        self.turns = Turns()
        self.writer = inode.uid or 0
        """The user of the latest write. Kept by the handles."""
        self.upload: trio.CancelScope | None = None
        """The cancel scope around a commit's wait for the store. Kept by the commits."""

    @property
    def users(self) -> int:
        """Open descriptors, and calls that need the file now."""
        return self._users

    @users.setter
    def users(self, count: int) -> None:
        self.inode.open_count += count - self._users
        self._users = count

    @property
    def writers(self) -> int:
        """Users that may change the file, or commit its changes."""
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
                inode: it would show bytes of an old version, even if we still have them, as those
                of the new one.
        """
        self.check_current()
        return self.file

    def check_current(self) -> None:
        """Raise VersionChangedError if superseded."""
        if self.superseded:
            raise VersionChangedError(
                "the object was replaced by another client", key=self.inode.name
            )

    async def read(self, offset: int, size: int) -> memoryview | bytes:
        """Bytes, clipped at the end of file; valid until the caller's next checkpoint.

        A request on its way may meet a version that we replaced ourselves: by a commit or a copy
        that has ended since, or that the store has carried out and not answered yet. That is no
        change by others, and the bytes are read again.

        Raises:
            VersionChangedError, ObjectMissingError: others replaced or removed the object.
            StoreError, OSError: the bytes could not be read.
        """
        refused: ObjectVersion | None = None
        while True:
            file = self.content
            before = file, file.version, file.dirty
            try:
                data = await file.read(offset, size)
                if file is self.file:
                    return data  # or else it goes on with another version
            except (VersionChangedError, ObjectMissingError):
                is_replacing = self.lock.locked() and file.version != refused
                async with self.lock:
                    pass  # what was running is over, and the file knows its version
                if before == (self.file, self.file.version, self.file.dirty) and not is_replacing:
                    raise
                refused = before[1]

    @property
    def removed_here(self) -> bool:
        """Whether this mount unlinked the file: its writes need not be stored."""
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
        """Record its changes, if it is to outlive the daemon."""
        if self.witness is not None:
            self.witness.changed(self)

    @contextmanager
    def rewriting(self) -> Iterator[None]:
        """Inside the block its object may be copied onto itself, with other metadata."""
        self.rewrites = True
        self.note()
        try:
            yield
        finally:
            self.rewrites = False

    @contextmanager
    def being_sent(self) -> Iterator[None]:
        """Inside the block a request that makes its object may be running."""
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
        """Whether the file has its key for itself until its next commit."""
        return self._commits.key_settled(self.inode)

    def twins(self, size: int) -> list[ObjectVersion]:
        """Known objects of this many bytes beside it, if the mount looks for them."""
        return self._commits.twins.of_size(self.inode, size)

    def largest_twin(self) -> int:
        """Bytes of the largest known object beside it, if the mount looks for them."""
        return self._commits.twins.largest(self.inode)

    def end_upload(self) -> None:
        """End a running commit: nobody needs its object."""
        if self.upload is not None:
            self.upload.cancel()

    def begin_write(self, offset: int, size: int, *, appends: bool) -> int:
        """The offset for bytes that the kernel sends for ``offset``.

        It is the end of the file if they are appended and the kernel does not know of bytes that
        others appended before.
        """
        if not appends:
            self.appended_from = None
            return offset
        begun, end = offset, self.file.size
        before = self.interrupted
        if before is not None and before[:2] == (offset, size):
            # The earlier daemon did not answer it, and may have done it: never do it twice.
            return before[2]
        if offset != end:
            if offset == self.kernel_end:
                self.kernel_end += size
                offset = end
            elif not self.has_pages:
                # A descriptor that appends writes elsewhere only from mapped pages.
                offset = end
        if offset != end:
            self.appended_from = None
        elif not self.file.dirty:
            self.appended_from = end
        if self.witness is not None:
            self.interrupted = (begun, size, offset)
            self.witness.changed(self)
        return offset

    def go_back(self, file: OpenFile) -> OpenFile:
        """Drop the writes since the last commit: ``file`` is without them. Returns the file that
        was written, for the caller to close.
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
        """The commit request as of now, for parts that are sent before the commit."""
        return self._commits.request_so_far(self)

    async def before_replacing(self) -> None:
        """The object is about to be made before a commit."""
        await self._commits.before_replacing(self)

    def stored_early(self, version: ObjectVersion) -> None:
        """The object had to be completed before a commit."""
        self._commits.stored_so_far(self, version)

    def note_written(self) -> None:
        """Record a change of content, if a failed write got far enough for one."""
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
    """Lets changes of a file end, and holds new ones back, while its bytes move to another file.

    Belongs to the trio thread. Costs no checkpoint while nothing moves.
    """

    __slots__ = ("_changes", "_idle", "_moved")

    def __init__(self) -> None:
        self._changes = 0
        self._idle: trio.Event | None = None
        self._moved: trio.Event | None = None

    @property
    def are_held(self) -> bool:
        """Whether a new change has to wait."""
        return self._moved is not None

    def change(self) -> "Turns":
        """Change the file inside the block."""
        return self

    async def __aenter__(self) -> None:
        """Begin a change."""
        while self._moved is not None:
            await self._moved.wait()
        self._changes += 1

    async def __aexit__(self, *_exception: object) -> None:
        """End a change."""
        self._changes -= 1
        if self._idle is not None and not self._changes:
            self._idle.set()

    @asynccontextmanager
    async def move(self) -> AsyncIterator[None]:
        """Nobody changes the file inside the block. Only one move at a time."""
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

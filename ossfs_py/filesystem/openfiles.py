"""Open inodes: one open file for each, committed, kept readable, and let go.

Descriptors come and go; what they share lives here. A change of an object's key or content at the
store happens under a claim on its place in the tree, then under the lock of its open inode;
readers take neither.
"""

import logging
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from ossfs_py.datapath.base import DataPath, OpenFile
from ossfs_py.errors import (
    ObjectMissingError,
    OssfsError,
    StoreError,
    StoreUnavailableError,
    UnsavedDataError,
    VersionChangedError,
)
from ossfs_py.filesystem.writeback import QueuedFile, WriteBackQueue
from ossfs_py.model import CommitRequest, Condition, ObjectVersion
from ossfs_py.namespace.claims import Claims
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.namespace import Namespace
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import ObjectStore
from ossfs_py.writing.journal import Journal
from ossfs_py.writing.parts import FIRST_PART_BYTES

log = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 60.0
"""Between tries of an upload that nobody waits for; each has the store's own retry budget."""


@dataclass(frozen=True, slots=True)
class ConflictPolicy:
    """What a commit does about other writers.

    ``fail``: refuse to overwrite a version the writer never saw.
    ``scratch_prefix``: where copies of deleted but open objects live, hidden from listings.
    """

    fail: bool = False
    scratch_prefix: str = ".ossfs-py-deleted-"


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
        "inode",
        "lock",
        "preserved",
        "preserved_from",
        "seen",
        "superseded",
    )

    def __init__(
        self, inode: Inode, version: ObjectVersion | None, data_path: DataPath, commits: "OpenFiles"
    ) -> None:
        self.inode = inode
        self._commits = commits
        self.file: OpenFile = data_path.open(version, self)
        self._users = 0
        self.lock = trio.Lock()
        self.has_pages = False
        """Somebody has, or had, it open through the kernel's page cache."""
        self.exclusive = False
        """Created with O_EXCL and not stored yet."""
        self.seen = version
        """The version a conflicting writer must not have replaced."""
        self.preserved: ObjectVersion | None = None
        """A hidden copy that this file reads from, to be deleted with it."""
        self.preserved_from: ObjectVersion | None = None
        """What ``preserved`` is a copy of: still at its key if the removal failed after all."""
        self.superseded = False
        """Somebody has opened another version since."""

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
        return base == version or (
            base is not None and base == self.preserved and version == self.preserved_from
        )

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

    def size(self) -> int:
        """Present size in bytes, uncommitted writes included."""
        return self.file.size

    def request(self) -> CommitRequest:
        """How the file would be committed now, for parts that leave before the commit."""
        return self._commits.request_for(self, streaming=True)

    def stored_early(self, version: ObjectVersion) -> None:
        """The object had to be completed before a commit asked for it."""
        self._commits.note_stored(self, version, self.request())

    def note_written(self) -> None:
        """The content changed just now, if a write that failed got far enough for that."""
        if self.file.dirty or self.inode.removed:
            self.inode.size_source = self.size
            self.inode.touch(time.time_ns())


class OpenFiles:
    """Every open inode of a mount. Belongs to the trio thread."""

    def __init__(
        self,
        namespace: Namespace,
        data_path: DataPath,
        store: ObjectStore,
        workers: Workers,
        journal: Journal,
        policy: ConflictPolicy,
        write_back: WriteBackQueue | None = None,
    ) -> None:
        self._namespace = namespace
        self._data_path = data_path
        self._store = store
        self._workers = workers
        self._journal = journal
        self._policy = policy
        self._write_back = write_back
        self.claims = Claims()
        self._current: dict[int, OpenInode] = {}
        self._all: set[OpenInode] = set()
        self._cached_pages: dict[int, str] = {}

    # -- opening and letting go -----------------------------------------------------------------

    def current(self, inode: Inode) -> OpenInode | None:
        """What is open of an inode in its present version."""
        return self._current.get(inode.number)

    async def acquire(self, inode: Inode) -> OpenInode:
        """Open an inode in its present version, or join those who have; pair with release."""
        current = self.current(inode)
        if not (inode.local or inode.removed) and (current is None or not current.file.dirty):
            await self._namespace.refresh_version(inode)
            current = self.current(inode)
        version = inode.info.version if inode.info is not None else None
        if current is None or not (current.file.dirty or inode.removed or current.is_of(version)):
            if current is not None:
                current.superseded = True
            current = OpenInode(inode, version, self._data_path, self)
            self._current[inode.number] = current
            self._all.add(current)
        current.users += 1
        return current

    async def release(self, opened: OpenInode) -> None:
        """One user of an open inode less; the last one commits what is left and frees it."""
        try:
            # Writes through a shared mapping arrive after the last flush. Whoever opens the file
            # while they are on their way may leave others behind.
            while opened.users == 1 and opened.file.dirty and not opened.inode.removed:
                await self.commit(opened)
        except (OssfsError, OSError) as exc:
            if opened.users == 1:
                self._set_aside(opened, exc)
        opened.users -= 1
        if opened.users == 0:
            await self._forget(opened)

    def give_up(self, opened: OpenInode) -> None:
        """Drop the changes of a call that failed, unless others have the file open too."""
        if opened.users == 1:
            opened.file.abandon()

    async def _forget(self, opened: OpenInode) -> None:
        inode = opened.inode
        self._all.discard(opened)
        if self.current(inode) is opened:
            del self._current[inode.number]
        if inode.size_source == opened.size:
            inode.size_source = None
        if inode.removed:
            opened.file.abandon()
        elif inode.local and opened.file.version is None:
            self._namespace.drop_local(inode)
        await opened.file.close()
        self._namespace.forget(inode.number, 0)
        if opened.preserved is not None:
            await self._drop_copy(opened.preserved)

    # -- committing -----------------------------------------------------------------------------

    async def commit(self, opened: OpenInode) -> None:
        """Bring what is dirty to the store; returns when the object is complete there."""
        async with self.claims.place(opened.inode), opened.lock:
            await self._commit_locked(opened)

    async def flush(self, opened: OpenInode) -> None:
        """One descriptor is closed: commit, or with write-back keep on local disk and queue."""
        queue = self._write_back
        if queue is None or not opened.file.dirty or opened.inode.removed:
            await self.commit(opened)
            return
        await queue.wait_for_room()
        async with self.claims.place(opened.inode), opened.lock:
            try:
                safe = await opened.file.secure(self.request_for(opened, streaming=False))
            except OSError as exc:
                log.warning("write-back: no room on local disk (%s): uploading now", exc.strerror)
                safe = False
            if not safe:
                await self._commit_locked(opened)
                return
        if opened.file.dirty and opened not in queue:
            opened.users += 1
            queue.add(opened)

    async def run(self) -> None:
        """Upload what write-back has queued, until cancelled."""
        if self._write_back is not None:
            await self._write_back.run(self._upload_later)
        await trio.sleep_forever()

    async def _upload_later(self, pending: QueuedFile) -> None:
        opened = next(each for each in self._all if each is pending)
        pause_seconds = _FIRST_RETRY_SECONDS
        while True:
            try:
                await self.commit(opened)
                break
            except StoreUnavailableError as exc:
                log.warning("write-back: %s; tried again in %g s", exc, pause_seconds)
            except (OssfsError, OSError) as exc:
                # Nobody is left to be told.
                self._set_aside(opened, exc)
                break
            await trio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_RETRY_SECONDS)
        await self.release(opened)

    @property
    def open_count(self) -> int:
        """Files that are open, or written back; several handles of one file count once."""
        return len(self._all)

    @property
    def unsaved_count(self) -> int:
        """Files with changes that the bucket has not got yet."""
        return sum(1 for opened in self._all if opened.file.dirty)

    @property
    def pending_uploads(self) -> int:
        """Closed files that write-back has not uploaded yet."""
        return len(self._write_back) if self._write_back is not None else 0

    async def sync(self) -> None:
        """Commit every dirty file and wait for write-back.

        Raises:
            UnsavedDataError: some could not be brought to the store; they stay dirty.
        """
        failures = await self._commit_all()
        if failures:
            which = "a file is" if len(failures) == 1 else f"{len(failures)} files are"
            raise UnsavedDataError(f"{which} not in the bucket: {failures[0][1]}")
        if self._write_back is not None:
            await self._write_back.wait_empty()

    async def _commit_all(self) -> list[tuple[OpenInode, Exception]]:
        failures: list[tuple[OpenInode, Exception]] = []

        async def save(opened: OpenInode) -> None:
            try:
                await self.commit(opened)
            except (OssfsError, OSError) as exc:
                failures.append((opened, exc))

        async with trio.open_nursery() as nursery:
            for opened in tuple(self._all):
                nursery.start_soon(save, opened)
        return failures

    async def _commit_locked(self, opened: OpenInode) -> None:
        inode = opened.inode
        if inode.removed or not opened.file.dirty:
            return
        streaming = opened.file.size > FIRST_PART_BYTES
        request = self.request_for(opened, streaming=streaming)
        version = await opened.file.commit(request)
        if version is None:
            return
        self.note_stored(opened, version, request)
        if inode.metadata_dirty and not opened.file.dirty:
            await self._namespace.flush_attributes(inode)
            await self.follow(inode)

    def request_for(self, opened: OpenInode, *, streaming: bool) -> CommitRequest:
        """How the file would be committed now.

        An upload that streams carries its metadata from its first part on: the time of the last
        write is not known then, and left to the store unless a program set it.
        """
        inode = opened.inode
        condition = Condition()
        if opened.exclusive or (self._policy.fail and opened.seen is None):
            condition = Condition(only_if_absent=True)
        elif self._policy.fail and opened.seen is not None:
            condition = Condition(only_if_etag=opened.seen.etag)
        return CommitRequest(
            key=self._namespace.key_of(inode),
            metadata=self._namespace.commit_metadata(inode, explicit_mtime_only=streaming),
            condition=condition,
        )

    def note_stored(
        self, opened: OpenInode, version: ObjectVersion, request: CommitRequest
    ) -> None:
        """The file's bytes are in the store as ``version`` now."""
        inode = opened.inode
        opened.exclusive = False
        opened.seen = version
        self._cached_pages[inode.number] = version.etag
        if self.current(inode) is opened:
            self._namespace.note_commit(inode, version, request.metadata)
        if not opened.file.dirty:
            inode.size_source = None

    def _set_aside(self, opened: OpenInode, cause: Exception) -> None:
        """Keep what could not be saved where ``ossfs-py recover`` finds it."""
        request = self.request_for(opened, streaming=False)
        try:
            kept = opened.file.set_aside(request)
        except OSError as exc:
            log.critical(
                "%r could not be saved (%s) nor set aside: %s", request.key, cause, exc.strerror
            )
            return
        log.error(
            "%r could not be saved: %s; its data is kept in %s (see: ossfs-py recover)",
            request.key,
            cause,
            kept,
        )

    # -- keys that change under open files ------------------------------------------------------

    @asynccontextmanager
    async def changing(self, inode: Inode) -> AsyncIterator[None]:
        """Keep commits of an inode and changes of its name or metadata apart."""
        async with self.claims.place(inode):
            opened = self.current(inode)
            if opened is None:
                yield
                return
            async with opened.lock:
                yield

    @asynccontextmanager
    async def moving(
        self, inode: Inode, target: Inode | None, places: Iterable[Inode]
    ) -> AsyncIterator[None]:
        """Rename ``inode``, and all below it, over ``target`` and between directories.

        Dirty files are in the store, under their present keys, when this is entered; one that was
        never stored moves without a request, unless bytes of it have left for its present key.
        """
        trees = {inode} if target is None else {inode, target}
        async with self.claims.move(trees, places):
            for below in self._namespace.affected_by_rename(inode):
                opened = self.current(below)
                if (
                    opened is not None
                    and opened.file.dirty
                    and (opened.file.bound or not below.local)
                ):
                    async with opened.lock:
                        await self._commit_locked(opened)
            yield

    def defers(self, inode: Inode) -> bool:
        """Whether changed attributes travel with an upload that has to come anyway."""
        opened = self.current(inode)
        return inode.local or (opened is not None and opened.file.dirty)

    async def follow(self, inode: Inode) -> None:
        """Let an open file read on from the copy that a change of its metadata made."""
        if inode.info is not None and inode.copied_from is not None:
            await self.follow_copies([(inode, inode.copied_from, inode.info.version)])

    async def follow_copies(self, copies: list[tuple[Inode, ObjectVersion, ObjectVersion]]) -> None:
        """Let open files read on from server-side copies of the version they have open."""
        for inode, source, copy in copies:
            opened = self.current(inode)
            if opened is not None and opened.is_of(source) and source != copy:
                await opened.file.preserve(copy)
                opened.seen = copy
                self._cached_pages[inode.number] = copy.etag

    async def preserve(self, inode: Inode) -> None:
        """Before its key goes away, give an open object's readers a copy to read on from."""
        opened = self.current(inode)
        if opened is None:
            return
        if opened.file.bound:
            # What has left can be read and changed again as the finished object only.
            try:
                await self._commit_locked(opened)
            except (OssfsError, OSError) as exc:
                log.warning("bytes of the removed %r are gone: %s", inode.name, exc)
        version = opened.file.version
        if version is None or not version.size or version == opened.preserved:
            return
        key = f"{self._policy.scratch_prefix}{uuid.uuid4().hex}"
        try:
            copy = await self._workers.run(self._copy_noted, version, key)
        except (VersionChangedError, ObjectMissingError):
            return  # replaced or deleted by another client: there is nothing left to preserve
        earlier, opened.preserved = opened.preserved, copy
        opened.preserved_from = version
        await opened.file.preserve(copy)
        if earlier is not None:
            await self._drop_copy(earlier)

    def abandon(self, inode: Inode) -> None:
        """The inode has lost its name: nothing of it goes to the store any more."""
        opened = self.current(inode)
        if opened is not None:
            opened.file.abandon()

    def renamed(self, inode: Inode, replaced: Inode | None) -> None:
        """The inode has a name that it may take from ``replaced``, and from anybody else."""
        if replaced is not None:
            self.abandon(replaced)
        opened = self.current(inode)
        if opened is None:
            return
        opened.exclusive = False
        if opened.file.version is None and replaced is not None and replaced.info is not None:
            opened.seen = replaced.info.version

    def _copy_noted(self, version: ObjectVersion, key: str) -> ObjectVersion:
        """A hidden copy that the next mount deletes if this one cannot. On a worker thread."""
        self._journal.record_scratch(key)
        try:
            return self._store.copy(version, key)
        except (VersionChangedError, ObjectMissingError):
            self._journal.forget_scratch(key)
            raise

    async def _drop_copy(self, copy: ObjectVersion) -> None:
        try:
            await self._workers.run(self._delete_noted, copy.key)
        except (StoreError, OSError) as exc:
            log.warning("a hidden copy is left to the next mount: %s", exc)

    def _delete_noted(self, key: str) -> None:
        self._store.delete(key)
        self._journal.forget_scratch(key)

    # -- the kernel's page cache ----------------------------------------------------------------

    def keeps_pages(self, opened: OpenInode) -> bool:
        """Whether the kernel may keep its pages at an open; notes what they will be of."""
        number, version = opened.inode.number, opened.file.version
        etag = version.etag if version is not None else ""
        same = self._cached_pages.get(number) == etag
        self._cached_pages[number] = etag
        return same or opened.file.dirty

    def has_pages(self, inode: Inode, etag: str) -> bool:
        """Whether the kernel was given pages of that version since it knows the inode."""
        return self._cached_pages.get(inode.number) == etag

    def drop_pages_of_old(self, inode: Inode) -> bool:
        """Another client replaced the object: whether the kernel may have pages of the old one."""
        pages = self._cached_pages.get(inode.number)
        if inode.info is None or pages is None or pages == inode.info.etag:
            return False
        del self._cached_pages[inode.number]
        return True

    def forget_pages(self, number: int) -> None:
        """The kernel has forgotten the inode, and its pages with it."""
        if number not in self._current:
            self._cached_pages.pop(number, None)

    # -- the end ----------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Commit every dirty file.

        Raises:
            UnsavedDataError: some could not be brought to the store; they were set aside.
        """
        failures = await self._commit_all()
        for opened, exc in failures:
            self._set_aside(opened, exc)
        if failures:
            raise UnsavedDataError(f"{len(failures)} files could not be saved and were set aside")

    async def close(self) -> None:
        """Free every open file; call :meth:`drain` first."""
        for opened in tuple(self._all):
            await opened.file.close()
            if opened.preserved is not None:
                await self._drop_copy(opened.preserved)
        self._all.clear()
        self._current.clear()

"""Commits: they store dirty open files as objects, on conditions, and handle failures.

A commit holds a claim on the inode's place in the tree, then the lock of its open inode.
"""

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import trio

from ossfs_py.datapath.base import DataPath, OpenFile
from ossfs_py.errors import (
    ConditionFailedError,
    ObjectMissingError,
    OssfsError,
    StoreUnavailableError,
    UnsavedDataError,
    VersionChangedError,
)
from ossfs_py.filesystem.kernelcache import KernelCache
from ossfs_py.filesystem.openinode import OpenInode, copy_end
from ossfs_py.filesystem.openinodes import OpenInodes
from ossfs_py.filesystem.owedentries import OwedEntries
from ossfs_py.filesystem.slowcrowd import SlowCrowd
from ossfs_py.filesystem.trash import Trash
from ossfs_py.filesystem.twins import Twins
from ossfs_py.filesystem.writeback import WriteBackQueue
from ossfs_py.filesystem.writers import signed
from ossfs_py.model import (
    ALWAYS,
    IF_ABSENT,
    NO_METADATA,
    CommitRequest,
    Condition,
    ObjectInfo,
    ObjectVersion,
)
from ossfs_py.namespace.claims import Claims
from ossfs_py.namespace.contenttypes import content_type_of
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.metadata import decode
from ossfs_py.namespace.namespace import Namespace
from ossfs_py.writing.parts import FIRST_PART_BYTES

log = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 60.0
"""Pauses between tries of a background upload; each try has the store's own retry budget."""
_APPEND_TRIES = 50
_APPEND_PAUSE_SECONDS = 0.02
"""Longer for each try. Without it one host lost ten times in a row to another, in step with it."""
_CONFLICTS = (ConditionFailedError, VersionChangedError, ObjectMissingError)


@dataclass(frozen=True, slots=True)
class ConflictPolicy:
    """What a commit does about other writers.

    ``fail``: refuse to overwrite a version the writer never saw.
    """

    fail: bool = False


class Commits:
    """Commits open files to the store. Belongs to the trio thread.

    Without ``write_back``, close waits until the object is complete.
    """

    def __init__(
        self,
        opened: OpenInodes,
        namespace: Namespace,
        data_path: DataPath,
        claims: Claims,
        kernel: KernelCache,
        policy: ConflictPolicy,
        trash: Trash,
        twins: Twins,
        owed: OwedEntries,
        write_back: WriteBackQueue[OpenInode] | None = None,
        *,
        record_writer: bool = False,
    ) -> None:
        self.twins = twins
        """Finds objects that may have the bytes of a file already."""
        self._record_writer = record_writer
        self._opened = opened
        self._namespace = namespace
        self._data_path = data_path
        self._claims = claims
        self._kernel = kernel
        self._policy = policy
        self._trash = trash
        self._owed = owed
        self._write_back = write_back
        self.writes_back = write_back is not None
        """Whether close(2) returns when the local disk has the file."""
        self._slow_crowd = SlowCrowd()

    # -- one file -------------------------------------------------------------------------------

    async def commit(self, opened: OpenInode) -> None:
        """Commit the dirty bytes, after the directories above the file. Returns when the object is
        complete in the store.
        """
        if opened.file.dirty:
            await self._owed.store_above(opened.inode)
        async with self._claims.place(opened.inode), opened.lock:
            await self.commit_locked(opened)

    def flushes_at_once(self, opened: OpenInode) -> bool:
        """Whether :meth:`flush` waits only for the local disk, and needs no task of its own."""
        queue = self._write_back
        return (
            queue is not None
            and queue.has_room
            and opened.file.dirty
            and not opened.inode.removed
            and opened.file.size <= FIRST_PART_BYTES
            and not (opened.lock.locked() or self._claims.moves(opened.inode))
        )

    async def flush(self, opened: OpenInode) -> None:
        """A descriptor is closed: commit; with write-back, keep it on local disk and queue it."""
        queue = self._write_back
        if queue is None or not opened.file.dirty or opened.inode.removed:
            await self.commit(opened)
            return
        await queue.wait_for_room()
        async with self._claims.place(opened.inode), opened.lock:
            try:
                safe = await opened.file.secure(self._request(opened, streaming=False))
            except OSError as exc:
                log.warning("write-back: no room on local disk (%s): uploading now", exc.strerror)
                safe = False
            if not safe:
                await self.commit_locked(opened)
                return
        if opened.file.dirty and opened not in queue:
            opened.users += 1
            queue.add(opened)

    def flush_nowait(self, opened: OpenInode) -> bool:
        """As :meth:`flush`, if that waits for nothing; False: nothing has happened."""
        queue = self._write_back
        if (
            queue is None
            or not self.flushes_at_once(opened)
            or not opened.file.secure_nowait(self._request(opened, streaming=False))
        ):
            return False
        if opened not in queue:
            opened.users += 1
            queue.add(opened)
        return True

    async def redescribe(self, opened: OpenInode) -> None:
        """Record the present name and attributes of a file that write-back keeps in the journal.

        The caller holds a claim on the inode's place and the lock.

        Raises:
            StoreError, OSError: neither the journal nor the store took them.
        """
        if self._write_back is None or not opened.file.dirty:
            return
        try:
            await opened.file.redescribe(self._request(opened, streaming=False))
        except OSError as exc:
            log.warning("write-back: no room on local disk (%s): uploading now", exc.strerror)
            await self.commit_locked(opened)

    def redescribe_nowait(self, opened: OpenInode) -> bool:
        """As :meth:`redescribe`, if that waits for nothing; False: nothing has happened."""
        return self._write_back is None or opened.file.redescribe_nowait(
            self._request(opened, streaming=False)
        )

    async def commit_locked(self, opened: OpenInode) -> None:
        """As :meth:`commit`; the caller holds a claim on the inode's place and the lock."""
        inode = opened.inode
        if not opened.file.dirty:
            await self._flush_attributes(opened)
            return
        opened.require_name()
        if inode.removed:
            return
        request = self._request(opened, streaming=opened.file.size > FIRST_PART_BYTES)
        try:
            version = await self._upload(opened, request)
        except (ConditionFailedError, VersionChangedError, ObjectMissingError) as exc:
            if await self._was_stored_before(opened):
                await self._flush_attributes(opened)
                return
            if opened.exclusive or self._policy.fail:
                self._note_refused(opened, request, exc)
                raise
            start = 0 if opened.unseen and not opened.file.size else opened.appended_from
            if start is not None:
                await self._append_again(opened, start, request)
                return
            self._note_refused(opened, request, exc)
            if isinstance(exc, ConditionFailedError):
                raise VersionChangedError(
                    "another client replaced the object that a part of was changed here",
                    operation=exc.operation,
                    key=request.key,
                    request_id=exc.request_id,
                ) from exc
            raise
        if version is None:
            return
        self._stored(opened, version, request)
        await self._flush_attributes(opened)

    async def _flush_attributes(self, opened: OpenInode) -> None:
        """Store attributes that the upload, perhaps one of an earlier daemon, did not carry."""
        inode = opened.inode
        if inode.metadata_dirty and not (opened.file.dirty or inode.removed):
            with opened.rewriting():
                await self._namespace.flush_attributes(inode)
                await self.follow(inode)

    async def _was_stored_before(self, opened: OpenInode) -> bool:
        """Whether an earlier daemon's commit of the same bytes has arrived in the meantime."""
        if not opened.file.adopted:
            return False
        info = await self._namespace.version_in_store(opened.inode)
        if info is None or not await self.is_stored(opened, info):
            return False
        self.found_stored(opened, info)
        return True

    @staticmethod
    async def is_stored(opened: OpenInode, info: ObjectInfo) -> bool:
        """Whether the store has the dirty bytes already: an earlier daemon may have sent them.

        Raises:
            StoreError
        """
        found = await opened.file.is_in(info.version) if info.size or opened.file.size else None
        # Only the time of its change tells files without bytes of their own: empty, or only cut.
        made_ns = decode(info.metadata or NO_METADATA).mtime_ns if found is None else None
        return found or (made_ns is not None and made_ns == opened.inode.mtime_ns)

    def _note_refused(self, opened: OpenInode, request: CommitRequest, exc: OssfsError) -> None:
        """No commit will ever store the changes. Later opens of the name must not join the programs
        that made them, even before the kernel has reported the last close.
        """
        if isinstance(exc, ObjectMissingError) and request.condition.only_if_etag is None:
            return  # only the bucket is missing, and it may come back
        self._namespace.note_outdated(opened.inode)

    async def _upload(self, opened: OpenInode, request: CommitRequest) -> ObjectVersion | None:
        """Commit the file; None if it turned out that there is nothing to store."""
        with trio.CancelScope() as scope:
            opened.upload = scope
            try:
                await self._namespace.removed.make_room(request.key)
                await self._keep_replaced(opened, request)
                with opened.being_sent():
                    return await opened.file.commit(request)
            except (OssfsError, OSError) as exc:
                if not opened.removed_here:
                    raise
                log.info("%r was removed while it was stored: %s", request.key, exc)
            finally:
                opened.upload = None
        return None  # it was removed in the meantime

    async def before_replacing(self, opened: OpenInode) -> None:
        """A file is about to be stored while it is still being written."""
        await self._keep_replaced(opened, self.request_so_far(opened))

    async def _keep_replaced(self, opened: OpenInode, request: CommitRequest) -> None:
        """Give the object that a commit replaces to the trash.

        Raises:
            NameTooLongError, StoreError: it could not be copied.
        """
        condition, spared = request.condition, opened.spared
        if condition.only_if_absent or not self._trash.is_on:
            return
        known = None
        if condition.only_if_etag is not None:
            if opened.appended_from is not None:
                return  # all its bytes are still there afterwards
            if spared is not None and spared.etag == condition.only_if_etag:
                return
            info = opened.inode.info
            known = info if info is not None and info.etag == condition.only_if_etag else None
        kept = await self._trash.keep(request.key, known, spared=spared)
        if kept is not None:
            opened.spared = kept.version

    async def finish_removed(self, opened: OpenInode, request: CommitRequest) -> None:
        """Make an object of the bytes that are only in an unfinished upload to the file's key.

        The file was removed, and its key is hidden here. Returns at once if there are no such
        bytes, also if a commit that was running has made the object.

        Raises:
            StoreError, OSError: the bytes stay where they are.
        """
        async with opened.lock:
            if opened.file.lost:
                version = await opened.file.commit(request)
                if version is not None:
                    self._stored(opened, version, request)

    def key_settled(self, inode: Inode) -> bool:
        """Whether the inode keeps its key: no rename of it or of a directory above it is running,
        and no removed object that the store still has is in its way.
        """
        key = self._namespace.key_of(inode)
        return not (self._claims.moves(inode) or self._namespace.removed.hiding(key))

    async def _append_again(self, opened: OpenInode, start: int, request: CommitRequest) -> None:
        """Other hosts have written the object in the meantime: append the bytes appended here, from
        ``start`` on, to their version.

        Raises:
            VersionChangedError: others were faster in every try.
            StoreError, OSError: the append failed; the data is kept.
        """
        seen = opened.seen
        async with opened.turns.move():
            opened.composes = True
            try:
                for attempt in range(_APPEND_TRIES):
                    await trio.sleep(random.uniform(0, attempt * _APPEND_PAUSE_SECONDS))
                    if await self._appended_to_present(opened, start, request):
                        return
            except BaseException:
                opened.seen = seen  # the bytes in the file still follow that version
                raise
            finally:
                opened.composes, opened.over = False, None
            opened.seen = seen
        raise VersionChangedError(
            f"others replaced the object {_APPEND_TRIES} times while it was appended to",
            key=request.key,
        )

    async def _appended_to_present(
        self, opened: OpenInode, start: int, request: CommitRequest
    ) -> bool:
        """One try; False if others were faster."""
        there = await self._namespace.version_in_store(opened.inode)
        version = None if there is None else there.version
        opened.seen = opened.over = version
        opened.note()
        file = self._data_path.open(version, opened)
        condition = IF_ABSENT if version is None else Condition(only_if_etag=version.etag)
        if version is not None and opened.file.size == start:
            # Nothing to append: the program made an empty file where one exists already.
            await self.go_on_with(opened, file, version, request)
            self._namespace.invalidate(opened.inode)  # their attributes differ from the request's
            return True
        try:
            await copy_end(opened.file, start, file)
            stored = await file.commit(replace(request, condition=condition, like=there))
            if stored is None:
                raise RuntimeError("what was appended, or a file not in the store, is dirty")
        except BaseException as exc:
            file.abandon()
            with trio.CancelScope(shield=True):
                await file.close()
            bucket_gone = there is None and isinstance(exc, ObjectMissingError)
            if isinstance(exc, _CONFLICTS) and not bucket_gone:
                return False
            raise
        await self.go_on_with(opened, file, stored, request)
        return True

    async def go_on_with(
        self,
        opened: OpenInode,
        file: OpenFile,
        stored: ObjectVersion,
        request: CommitRequest | None = None,
    ) -> None:
        """The file now has the bytes that others wrote, and our own end after them."""
        inode = opened.inode
        if request is None:
            request = self._request(opened, streaming=True)
        old, opened.file = opened.file, file
        opened.kernel_end = old.size
        old.abandon()
        self._stored(opened, stored, request)
        self._kernel.contents_changed(inode)
        log.info("%r was appended to what another client had written meanwhile", request.key)
        if inode.settled:
            # Readers of the earlier version must not get bytes of this one.
            opened.superseded = True
            self._namespace.note_outdated(inode)
        await old.close()

    def request_so_far(self, opened: OpenInode) -> CommitRequest:
        """The commit request for a file that is still being written, as of now."""
        request = self._request(opened, streaming=True)
        if self._namespace.removed.hiding(request.key):
            # Some stores check the condition when an upload begins. The removed object goes by
            # then.
            return replace(request, condition=Condition())
        return request

    def found_stored(self, opened: OpenInode, info: ObjectInfo) -> None:
        """An earlier daemon has stored the dirty bytes, according to the store."""
        request = self._request(opened, streaming=True)
        opened.file.found_stored(info.version)
        self._stored(opened, info.version, replace(request, metadata=info.metadata or NO_METADATA))
        opened.note()

    def stored_so_far(self, opened: OpenInode, version: ObjectVersion) -> None:
        """A file that is still being written had to be stored as ``version``."""
        self._stored(opened, version, self.request_so_far(opened))

    def _request(self, opened: OpenInode, *, streaming: bool) -> CommitRequest:
        """The commit request for the file, as of now.

        An upload that streams carries its metadata from its first part on. The time of the last
        write is not known then, and is left to the store unless a program set it.
        """
        inode = opened.inode
        condition, seen = ALWAYS, opened.seen
        new = self._policy.fail or opened.unseen or opened.appended_from == 0
        if opened.exclusive or (seen is None and new):
            condition = IF_ABSENT
        elif seen is not None and (self._policy.fail or not opened.whole):
            condition = Condition(only_if_etag=seen.etag)
        info = inode.info
        described = self._namespace.commit_metadata(inode, explicit_mtime_only=streaming)
        return CommitRequest(
            key=self._namespace.key_of(inode),
            metadata=signed(described, opened.writer, record=self._record_writer),
            content_type=(info and info.content_type) or content_type_of(inode.name),
            condition=condition,
            like=info,
            replaces=seen,
        )

    def _stored(self, opened: OpenInode, version: ObjectVersion, request: CommitRequest) -> None:
        inode = opened.inode
        if opened.seen is None and self._write_back is None:
            self._slow_crowd.count_new()
        opened.exclusive = opened.unseen = opened.whole = False
        opened.seen = opened.spared = version
        if not opened.file.dirty:
            opened.appended_from = None
        self._kernel.note_pages(inode, version)
        if self._opened.current(inode) is opened:
            self._namespace.note_commit(inode, version, request.metadata)
        if not opened.file.dirty:
            inode.size_source = None

    def set_aside(self, opened: OpenInode, cause: Exception) -> bool:
        """Keep the unsaved bytes where ``ossfs-py recover`` finds them.

        False if they have been kept there before.
        """
        request = self._request(opened, streaming=False)
        try:
            kept = opened.file.set_aside(request)
        except OSError as exc:
            log.critical(
                "%r could not be saved (%s) nor set aside: %s", request.key, cause, exc.strerror
            )
            return True
        if kept is None:
            return False
        told = "%r could not be saved: %s; its data is kept in %s (see: ossfs-py recover)"
        log.error(told, request.key, cause, kept)
        return True

    # -- the version that a file is based on ----------------------------------------------------

    def expect_absent(self, opened: OpenInode) -> None:
        """The first to store an object under this name wins: O_EXCL."""
        opened.exclusive = True

    def renamed(self, inode: Inode, replaced: Inode | None) -> None:
        """The inode has a new name, perhaps that of ``replaced`` or of another client's object."""
        opened = self._opened.current(inode)
        if opened is None:
            return
        opened.exclusive = opened.unseen = False
        if opened.file.version is None:
            # Its object replaces the one that the name stood for, if that was stored.
            before = None if replaced is None else self._opened.current(replaced)
            if replaced is not None and replaced.info is not None:
                opened.seen = replaced.info.version
            else:
                opened.seen = None if before is None else before.seen

    async def follow(self, inode: Inode) -> None:
        """Let an open file continue from the copy that a change of its metadata made."""
        if inode.info is not None and inode.copied_from is not None:
            await self.follow_copies([(inode, inode.copied_from, inode.info.version)])

    async def follow_copies(self, copies: list[tuple[Inode, ObjectVersion, ObjectVersion]]) -> None:
        """Let open files continue from server-side copies of the versions that they have open."""
        for inode, source, copy in copies:
            opened = self._opened.current(inode)
            if opened is None or source == copy:
                continue
            if opened.is_of(source):
                await opened.file.preserve(copy)
                opened.seen = copy
                self._kernel.note_pages(inode, copy)
            elif opened.seen == source:
                opened.seen = copy  # the next commit replaces the copy
            opened.note()  # before the source is deleted

    # -- in the background, and all files -------------------------------------------------------

    async def run(self, release: Callable[[OpenInode], Awaitable[None]]) -> None:
        """Upload the files that write-back has queued, and ``release`` each, until cancelled."""
        if self._write_back is not None:
            await self._write_back.run(self._upload_later, release)
        await trio.sleep_forever()

    def resume(self, opened: OpenInode) -> None:
        """Queue a closed file that an earlier daemon had queued for write-back."""
        if self._write_back is not None and opened.file.dirty:
            opened.users += 1
            self._write_back.add(opened)

    async def _upload_later(self, opened: OpenInode) -> None:
        pause_seconds = _FIRST_RETRY_SECONDS
        while True:
            try:
                await self.commit(opened)
                break
            except StoreUnavailableError as exc:
                log.warning("write-back: %s; tried again in %g s", exc, pause_seconds)
            except (OssfsError, OSError) as exc:
                if opened.writers == 1:
                    self.set_aside(opened, exc)  # no program is left to get the error
                else:
                    log.warning("%s; left to those who have the file open again", exc)
                break
            await trio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_RETRY_SECONDS)

    def is_behind(self, opened: OpenInode) -> bool:
        """Whether write-back has the file, closed, and has not uploaded it yet."""
        return self._write_back is not None and self._write_back.holds(opened)

    @property
    def pending_uploads(self) -> int:
        """Closed files that write-back has not uploaded yet."""
        return len(self._write_back) if self._write_back is not None else 0

    async def sync(self) -> None:
        """Commit every dirty file and wait for write-back.

        Raises:
            UnsavedDataError: some files could not be stored; they stay dirty.
        """
        failures = await self._commit_all()
        if failures:
            which = "a file is" if len(failures) == 1 else f"{len(failures)} files are"
            raise UnsavedDataError(f"{which} not in the bucket: {failures[0][1]}")
        if self._write_back is not None:
            await self._write_back.wait_empty()

    async def drain(self) -> None:
        """Commit every dirty file.

        Raises:
            UnsavedDataError: some files could not be stored; they were set aside.
        """
        failures = await self._commit_all()
        count = sum(self.set_aside(opened, exc) for opened, exc in failures)
        if count:
            raise UnsavedDataError(f"{count} files could not be saved and were set aside")

    async def _commit_all(self) -> list[tuple[OpenInode, Exception]]:
        failures: list[tuple[OpenInode, Exception]] = []

        async def save(opened: OpenInode) -> None:
            try:
                await self.commit(opened)
            except (OssfsError, OSError) as exc:
                failures.append((opened, exc))
                return
            if self._write_back is not None and not opened.file.dirty:
                await self._write_back.was_stored(opened)

        async with trio.open_nursery() as nursery:
            for opened in self._opened:
                nursery.start_soon(save, opened)
        return failures

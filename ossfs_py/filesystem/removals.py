"""Removals: the name is gone at once, and the object is deleted at the store later.

rm waits for the deletion of a file that is not open: one request. With write-back or a trash, the
removal is recorded in the journal, and the object is deleted in the background, many by one request
(``putoff``). The removal of an open file is recorded in the journal, and its key is hidden here
from then on. Its readers continue: from a hidden copy if the object is small, so that other clients
see it gone as well; else from the object itself, which is deleted at the last close, or by the next
mount if this one is killed. A copy of a large object may take minutes. A running upload is given
up, unless some bytes are nowhere else: then it is finished under the hidden key. A program that
stores another object under the key waits until that is over, and until the object that is still
read has moved to a hidden copy.

    named -> hidden (an upload ends) -> hidden (the object is known) -> deleted at the last close
                                              |-> copied and deleted: small, or its name used again
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

import trio

from ossfs_py.errors import (
    AccessDeniedError,
    ObjectMissingError,
    OssfsError,
    QuotaExceededError,
    StoreError,
)
from ossfs_py.filesystem.behind import Behind
from ossfs_py.filesystem.openinode import OpenInode
from ossfs_py.filesystem.openinodes import OpenInodes
from ossfs_py.filesystem.owedentries import OwedEntries
from ossfs_py.filesystem.putoff import PutOffRemoval, PutOffRemovals
from ossfs_py.filesystem.removal import Removal, RemovedMarker
from ossfs_py.filesystem.trash import Trash
from ossfs_py.model import CommitRequest, ObjectInfo, ObjectVersion
from ossfs_py.namespace.inode import Inode, Kind
from ossfs_py.namespace.namespace import Namespace
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import ObjectStore
from ossfs_py.writing.groupsync import GroupSync
from ossfs_py.writing.journal import Journal
from ossfs_py.writing.removals import RemovalRecord, delete_removed

log = logging.getLogger(__name__)

COPIED_BYTES = 8 * 1024**2
"""Up to this size, an object that is still read is copied rather than left: a copy is quick."""
_COPY_SECONDS = 0.5
"""How long rm waits for the copy."""

Release = Callable[[OpenInode], Awaitable[None]]


class RemovedCommitter(Protocol):
    """The part of :class:`ossfs_py.filesystem.commits.Commits` that removing needs."""

    def request_so_far(self, opened: OpenInode) -> CommitRequest:
        """The commit request for the file, as of now."""
        ...

    async def finish_removed(self, opened: OpenInode, request: CommitRequest) -> None:
        """Make an object of bytes that are only in an unfinished upload to the file's key."""
        ...


class CopyMaker(Protocol):
    """The part of :class:`ossfs_py.filesystem.preserved.PreservedFiles` that removing needs."""

    async def copy(self, opened: OpenInode) -> None:
        """Let the readers of an open file continue from a hidden copy."""
        ...

    async def drop(self, opened: OpenInode) -> None:
        """Drop the hidden copy that a file reads from, if it has one."""
        ...


class Removals:
    """The removals of a mount. Belongs to the trio thread."""

    def __init__(
        self,
        opened: OpenInodes,
        namespace: Namespace,
        committer: RemovedCommitter,
        copies: CopyMaker,
        behind: Behind,
        store: ObjectStore,
        workers: Workers,
        journal: Journal,
        trash: Trash,
        owed: OwedEntries,
        group_sync: GroupSync | None = None,
        *,
        copied_bytes: int = COPIED_BYTES,
    ) -> None:
        """``group_sync``: no call waits for the deletion of a closed file, nor for its copy."""
        self._trash = trash
        self._owed = owed
        self._copied_bytes = copied_bytes
        self._group_sync = group_sync
        self.put_off = PutOffRemovals(
            store, workers, self._forget_all, trash, self._believe_nothing, owed.store_above_keys
        )
        """Deletions in the background."""
        self._opened = opened
        self._namespace = namespace
        self._removed = namespace.removed
        self._committer = committer
        self._copies = copies
        self._behind = behind
        self._store = store
        self._workers = workers
        self._journal = journal
        self._settled = trio.Event()
        """Of all removals that no request can make another object of."""
        self._settled.set()
        self._outstanding: dict[str, Removal] = {}
        self._of_open: dict[OpenInode, Removal] = {}
        self._once_open: dict[str, Removal] = {}
        """Those outstanding whose files were open, perhaps not any more: a few, where thousands of
        others wait."""

    def take_over(self) -> None:
        """Hide the objects that earlier mounts removed and could not delete; blocks shortly."""
        # In the order of removal: a directory after its contents.
        for record in sorted(self._journal.leftover_removals(), key=lambda each: each.at_ns):
            if record.ident not in self._outstanding:
                self._add_owed(record, is_old=True)

    def hide_put_off(self) -> None:
        """As :meth:`take_over`, for deferred removals whose names no directory has got since: names
        that were reported as removed stay hidden. Blocks shortly.
        """
        made_since = {record.key for record in self._journal.leftover_markers()}
        for record in sorted(self._journal.leftover_removals(), key=lambda each: each.at_ns):
            if record.whatever_was_there and record.key not in made_since:
                self._add_owed(record, is_old=True)

    def resume(self, opened: Iterable[OpenInode]) -> None:
        """Continue the removals of files ``opened`` by an earlier daemon; blocks shortly."""
        by_key: dict[str, OpenInode] = {}
        for each in opened:
            if each.file.version is not None:
                by_key[each.file.version.key] = each
            if each.hidden is not None:
                by_key[each.hidden.source.key] = each
        for record in self._journal.leftover_removals():
            reader = by_key.get(record.key)
            if reader is None or record.whatever_was_there:
                continue
            if not reader.removed_here:
                # The daemon was killed before the name was gone: the kernel repeats the removal.
                self._journal.forget_removal(record)
                continue
            removal = Removal(record, reader, self)
            removal.settled.set()
            self._add(removal)
            self._of_open[reader] = removal

    # -- names -----------------------------------------------------------------------------------

    async def unlink(self, directory: Inode, name: str, inode: Inode, release: Release) -> None:
        """Remove a file's name; ``release`` releases an open inode.

        The caller holds a claim on the file's place. Waits for no upload, copy or lock.

        Raises:
            OSError: the journal could not be written; nothing has changed.
            StoreError: the store did not delete a file that is not open, or did not describe the
                object of an open one; nothing has changed.
        """
        opened = self._opened.current(inode)
        if opened is None:
            if self._group_sync is None or not _can_wait(inode):
                if inode.kind is not Kind.DIRECTORY and (inode.shadows or not inode.local):
                    known = None if inode.shadows else inode.info
                    await self._trash.keep(self._namespace.key_of(inode), known)
                await self._namespace.unlink(directory, name)
            else:
                await self._put_off(directory, inode, self._group_sync)
            return
        if inode.shadows:
            # The object that had the name before this file is not needed here.
            await self._drop_shadowed(inode, opened)
            inode.shadows = False
        if opened.file.version is None and not (opened.lock.locked() or opened.file.lost):
            # Nothing of it is in the store, or on its way there.
            opened.file.abandon()
            self._namespace.note_unlinked(inode)
            return
        request = self._committer.request_so_far(opened)
        self._trash.require_room(request.key)
        told = RemovalRecord(request.key, (), trash=self._trash.prefix)
        record = await self._seen(_described(told, opened))
        is_known = False
        while not is_known:
            # The file is checked again after each wait: a commit may have begun, or made an object.
            record = _described(record, opened)
            await self._workers.run(self._journal.record_removal, record)
            is_known = _covers(record, opened)
        removal = Removal(record, opened, self)
        self._add(removal)
        self._of_open[opened] = removal
        self._namespace.note_unlinked(inode)
        if not _streams(opened):
            opened.file.abandon()
            opened.end_upload()
        if _may_make(opened):
            opened.users += 1
            self._behind.start(lambda: self._settle(removal, opened, request, release))
        else:
            removal.settled.set()
            await self._soon(removal)
        await self._owed.keep_visible(directory)

    def unlink_nowait(self, directory: Inode, inode: Inode) -> bool:
        """As :meth:`unlink`, of a file that is not open; False: that would wait, or might fail, and
        nothing has happened.
        """
        sync = self._group_sync
        if (
            sync is None
            or sync.is_slow
            or self._trash.is_on
            or self.put_off.is_full
            or not _can_wait(inode)
            or self._opened.current(inode) is not None
            or not self._namespace.stays_shown(directory, inode.name)
        ):
            return False
        record = _owed_record(self._namespace.key_of(inode), inode.info)
        try:
            sync.record_removal_nowait(record)
        except OSError:
            return False  # tried again, it is reported
        self._add_owed(record)
        self._namespace.note_unlinked(inode)
        return True

    async def put_off_moved(self, version: ObjectVersion) -> None:
        """Hide an object whose file was copied to its new name, and delete it in the background.

        Raises:
            OSError: the journal could not be written; nothing has changed.
        """
        assert self._group_sync is not None  # noqa: S101 - only write-back asks for this
        await self.put_off.wait_for_room()
        record = _owed_record(version.key, version)
        await self._group_sync.record_removal(record)
        self._add_owed(record)

    async def remove_directory(self, directory: Inode, name: str) -> None:
        """Remove an empty directory; removed objects that are still read do not count.

        With write-back or a trash its marker is deleted in the background, after the files below
        it.

        Raises:
            OSError: the journal could not be written; nothing has changed.
            As :meth:`Namespace.remove_directory`.
        """
        inode = self._namespace.known_child(directory, name)
        if inode is not None and await self._put_off_directory(directory, inode):
            return
        marker = None
        if inode is not None:
            key = self._namespace.marker_key_of(inode)
            await self.put_off.tried_below(key)
            inside = [each for each in self._outstanding.values() if each.key.startswith(key)]
            if inside:
                marker = RemovedMarker(key, inside, self)
                self._removed.add(marker)
        try:
            await self._namespace.remove_directory(directory, name)
        except BaseException:
            if marker is not None:
                self._removed.discard(marker)
            raise
        if marker is not None:
            for removal in marker.removals:
                removal.markers.append(marker)
                await self._write_down(
                    removal, replace(removal.record, markers=(*removal.record.markers, marker.key))
                )
            if self._drop_needless(marker):
                # The store may have kept it, if it was deleted before the last object.
                with suppress(StoreError):
                    await self._workers.run(self._store.delete, marker.key)

    # -- the object ------------------------------------------------------------------------------

    async def closed(self, opened: OpenInode) -> None:
        """The file is not open any more: delete its object and its hidden copy."""
        removal = self._of_open.pop(opened, None)
        if removal is not None:
            await self._delete(removal)
        await self._copies.drop(opened)

    async def give_way(self, removal: Removal) -> None:
        """Free the key; readers of the object continue from a hidden copy.

        Raises:
            StoreError: that failed; the object is where it was.
        """
        await removal.settled.wait()
        async with removal.lock:
            if removal.is_over:
                return
            opened = removal.opened
            if opened is not None and opened in self._of_open and removal.is_read():
                await self._copies.copy(opened)
            await self._workers.run(delete_removed, self._store, removal.record)
            await self._forget(removal)

    async def give_marker_way(self, marker: RemovedMarker) -> None:
        """The directory is about to exist again."""
        self._removed.discard(marker)
        for removal in marker.removals:
            if marker in removal.markers:
                removal.markers.remove(marker)
                left = tuple(key for key in removal.record.markers if key != marker.key)
                await self._write_down(removal, replace(removal.record, markers=left))

    # -- inside ----------------------------------------------------------------------------------

    async def _settle(
        self, removal: Removal, opened: OpenInode, request: CommitRequest, release: Release
    ) -> None:
        """Wait until nothing makes an object of the file any more, and record the object that
        exists.
        """
        try:
            if opened.file.lost and opened.users > 1:
                try:
                    await self._committer.finish_removed(opened, request)
                except (OssfsError, OSError) as exc:
                    log.warning("bytes of the removed %r are gone: %s", removal.key, exc)
            opened.file.abandon()
            opened.end_upload()
            async with opened.lock:
                # A running commit, or a copy with other metadata, has ended.
                opened.file.abandon()
            version = opened.file.version
            if version is not None and version.key == removal.key:
                known = removal.record.etags
                if version.etag not in known:
                    known = (*known, version.etag)
                    await self._write_down(
                        removal,
                        replace(removal.record, etags=known, unheard_size=None, mtime_ns=None),
                    )
        finally:
            removal.settled.set()
            if opened.users > 1:  # else the last close follows
                await self._soon(removal)
            await release(opened)

    async def _soon(self, removal: Removal) -> None:
        """Start the quick part of the work, and wait for it."""
        if not removal.is_read():
            call = self._behind.start(lambda: self._delete(removal))
        elif removal.size <= self._copied_bytes:
            call = self._behind.start(lambda: self._move_away(removal))
        else:
            return
        with trio.move_on_after(_COPY_SECONDS):
            await call.wait()

    async def _move_away(self, removal: Removal) -> None:
        try:
            await self.give_way(removal)
        except (StoreError, RuntimeError) as exc:
            log.info("%r, removed here, stays until its last close: %s", removal.key, exc)

    async def _seen(self, record: RemovalRecord) -> RemovalRecord:
        """Look up the present object; one that others stored since the file was opened goes at
        once.
        """
        try:
            info = await self._workers.run(self._store.head, record.key)
        except ObjectMissingError:
            return record
        if info.etag in record.etags:
            return replace(record, mtime_ns=info.mtime_ns)
        # Another version during an upload is probably the upload's own.
        if record.unheard_size is None:
            await self._trash.keep(record.key, info)
            await self._workers.run(self._store.delete, record.key)
        return record

    async def _put_off(self, directory: Inode, inode: Inode, group_sync: GroupSync) -> None:
        """Remove a closed file here, and from the store in the background."""
        await self._owe(self._namespace.key_of(inode), inode.info, group_sync)
        self._namespace.note_unlinked(inode)
        await self._owed.keep_visible(directory)

    async def _put_off_directory(self, parent: Inode, inode: Inode) -> bool:
        """Remove an empty directory here, and from the store in the background; False if that is
        not possible.
        """
        if self._group_sync is None or inode.kind is not Kind.DIRECTORY:
            return False
        key = self._namespace.marker_key_of(inode)
        if any(each.key.startswith(key) for each in self._once_open.values()):
            return False  # a removed file in it is still read
        await self._namespace.require_empty(inode)
        await self._owe(key, inode.info, self._group_sync)
        self._namespace.note_unlinked(inode)
        await self._owed.keep_visible(parent)
        return True

    async def _drop_shadowed(self, inode: Inode, opened: OpenInode) -> None:
        key = self._namespace.key_of(inode)
        if self._group_sync is None or self._trash.is_on:
            # In the background, it would be copied once more with the file's own object.
            await self._trash.keep(key)
            await self._workers.run(self._store.delete, key)
        else:
            await self._owe(key, opened.seen, self._group_sync)

    async def _owe(
        self, key: str, known: ObjectInfo | ObjectVersion | None, group_sync: GroupSync
    ) -> None:
        """Hide the object of a key, and delete it in the background; ``known`` is its last known
        state.
        """
        await self.put_off.wait_for_room()
        trash = self._trash.prefix
        if key.endswith("/") or await self._trash.before_removal(key):
            trash = ""  # a marker has nothing to keep; or the copy exists
        record = _owed_record(key, known, trash)
        await group_sync.record_removal(record)
        self._add_owed(record)

    def _add_owed(self, record: RemovalRecord, *, is_old: bool = False) -> None:
        removal = Removal(record, None, self, self._settled)
        self._add(removal)
        self.put_off.add(removal, is_old=is_old)

    def _add(self, removal: Removal) -> None:
        self._outstanding[removal.record.ident] = removal
        if removal.opened is not None:
            self._once_open[removal.record.ident] = removal
        self._removed.add(removal)

    async def _write_down(self, removal: Removal, record: RemovalRecord) -> None:
        removal.record = record
        if removal.is_over:
            return
        try:
            await self._workers.run(self._journal.record_removal, record)
        except OSError as exc:
            log.warning("the journal does not know all of the removed %r: %s", removal.key, exc)
        if removal.is_over:
            await self._workers.run(self._journal.forget_removal, record)

    async def _delete(self, removal: Removal) -> None:
        """Delete an object that is not needed. A failure is logged, and left to the next mount."""
        async with removal.lock:
            if removal.is_over:
                return
            try:
                await self._workers.run(delete_removed, self._store, removal.record)
            except (AccessDeniedError, QuotaExceededError) as exc:
                # If it stayed hidden, all clients would see it but those of the mount that could
                # handle it.
                log.error("%r was removed here, but the store keeps it: %s", removal.key, exc)  # noqa: TRY400
            except (StoreError, RuntimeError) as exc:
                log.warning("%r, removed here, is left to the next mount: %s", removal.key, exc)
                return
            await self._forget(removal)

    async def _forget(self, removal: Removal) -> None:
        self._end(removal)
        for marker in removal.markers:
            self._drop_needless(marker)
        await self._workers.run(self._journal.forget_removal, removal.record)

    def _end(self, removal: Removal) -> None:
        removal.is_over = True
        self._removed.discard(removal)
        self._outstanding.pop(removal.record.ident, None)
        self._once_open.pop(removal.record.ident, None)

    def _believe_nothing(self) -> None:
        """Files that were removed here exist again."""
        self._namespace.forget_answers(self._namespace.root)

    async def _forget_all(self, removals: Sequence[PutOffRemoval]) -> None:
        """Forget completed removals."""
        ours = [removal for removal in removals if isinstance(removal, Removal)]
        for removal in ours:
            self._end(removal)
        records = [removal.record for removal in ours]
        await self._workers.run(self._journal.forget_removals, records)
        for marker in {marker for removal in ours for marker in removal.markers}:
            if self._drop_needless(marker):
                with suppress(StoreError):
                    await self._workers.run(self._store.delete, marker.key)

    def _drop_needless(self, marker: RemovedMarker) -> bool:
        """Stop hiding the marker if no removed object is left in its directory."""
        is_needless = all(removal.is_over for removal in marker.removals)
        if is_needless:
            self._removed.discard(marker)
        return is_needless


def _can_wait(inode: Inode) -> bool:
    """Whether the file's own object is all that has to be deleted."""
    return inode.kind is not Kind.DIRECTORY and not (inode.local or inode.shadows)


def _owed_record(
    key: str, known: ObjectInfo | ObjectVersion | None, trash: str = ""
) -> RemovalRecord:
    """The record of a removal in the background; ``known`` is the last known state."""
    etags = () if known is None else (known.etag,)
    return RemovalRecord(key, etags, whatever_was_there=True, trash=trash)


def _streams(opened: OpenInode) -> bool:
    """Whether bytes were sent, or may be sent at any moment, in an upload to the file's key."""
    file = opened.file
    return file.lost or (file.bound and opened.lock.locked())


def _may_make(opened: OpenInode) -> bool:
    """Whether an upload to the file's key is running that may end as an object."""
    return opened.lock.locked() or opened.file.lost


def _covers(record: RemovalRecord, opened: OpenInode) -> bool:
    """Whether the record covers every object of the file that the store may have, or get."""
    version = opened.file.version
    if version is not None and version.etag not in record.etags:
        return False
    return record.unheard_size is not None or not _may_make(opened)


def _described(record: RemovalRecord, opened: OpenInode) -> RemovalRecord:
    versions = (opened.file.version, opened.inode.info, opened.seen)
    etags = dict.fromkeys(each.etag for each in versions if each is not None)
    unheard_size = opened.file.size if _may_make(opened) else record.unheard_size
    return replace(record, etags=tuple(etags), unheard_size=unheard_size)

"""The file system of a daemon that can be replaced by another one, or that replaces another one."""

import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import trio

from ossfs_py.errors import BadHandleError, OssfsError, UnsavedDataError
from ossfs_py.filesystem.description import path_of
from ossfs_py.filesystem.directories import TakeEntry
from ossfs_py.filesystem.filerecords import FileRecords, restore_inode, restore_opened
from ossfs_py.filesystem.handle import Handle
from ossfs_py.filesystem.openinode import OpenInode
from ossfs_py.filesystem.operations import Filesystem
from ossfs_py.filesystem.repeated import Repeated
from ossfs_py.filesystem.replies import EntryReply, OpenReply
from ossfs_py.filesystem.settling import Settlement
from ossfs_py.filesystem.survival import Survival, SurvivalError, sensible
from ossfs_py.model import AttributeChange, ObjectInfo
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.namespace import DirectoryListing
from ossfs_py.runtime.arrived import Written
from ossfs_py.writing.context import Streams
from ossfs_py.writing.markers import MarkerRecord
from ossfs_py.writing.records import DirtyRecord
from ossfs_py.writing.vanished_content import WHY

log = logging.getLogger(__name__)

_SETTLED_AT_ONCE = 16
"""Files that the store is asked about at once; write-back may have left a thousand."""
_LOOK_SECONDS = 0.05
"""Pause between checks whether a file that is streamed to the store is closed."""


class Resumed(NamedTuple):
    """Counts of what was taken over."""

    names: int
    files: int
    directories: int


class SurvivingFilesystem(Filesystem):
    """A mounted bucket whose state is recorded for the next daemon."""

    _unsure: frozenset[int] | set[int] = frozenset()
    """Inodes whose size the kernel has from an earlier daemon, of a version that is not known here.
    """
    _records: FileRecords | None = None
    """The records of open files; None on a read-only mount."""
    _settled: trio.Event | None = None
    """Set once the files stored by the earlier daemon are known; until then nothing is changed."""
    late_seconds = 1.0
    """How long requests of a dead daemon may take to be carried out. A PUT took effect 0.26 s after
    an upgrade, at a load of 14.
    """
    streams = Streams()
    """Whether files may be kept in memory only at first. Set where the mount is assembled."""
    stream_seconds = 30.0
    """How long another daemon waits for files that are streamed to the store."""
    sent_seconds = 3.0
    """Additional wait for a file that was being stored. One arrived 3 s late, at a load of 22."""
    drain_seconds = 30.0
    """How long the end of the mount waits for that while the store is away. A service manager waits
    for 90 s (systemd's DefaultTimeoutStopSec).
    """
    renames_behind = False  # another daemon would not know what has its new name here only
    _moved = False
    """Whether objects of open files may still move, as the earlier daemon was renaming."""

    def resume(
        self,
        survival: Survival,
        dirty: Mapping[str, DirtyRecord] = MappingProxyType({}),
        owed: Iterable[MarkerRecord] = (),
        *,
        is_all: bool = True,
    ) -> Resumed:
        """Continue after an earlier daemon, if there was one, and record changes from now on.
        ``dirty`` are the journal's records of its files, by owner, ``owed`` those of directories
        and links. On a mount for writing, :meth:`settle` follows. ``is_all``: whether these are all
        entries that must be visible and are not in the store; otherwise calls about names wait for
        :meth:`show_names`.

        Raises:
            SurvivalError: the records make no sense.
        """
        survival.begin(self._namespace.inodes)
        self._unsure = survival.numbers
        self._kernel.had_pages(self._unsure)
        is_new = survival.negotiated is None
        self._opener.on_moved = self._handles.moved_on
        with sensible():
            if self.protection.read_only:
                found = survival.files()
                files = sum(self._resume_file(number, told) for number, told in found.items())
                self._handles.witness = survival
            else:
                self._records = self._opener.witness = survival.writers
                files = self._resume_written(survival, dirty)
                if not (self._owed.resume(owed) and is_all):
                    self.replies.unseen = trio.Event()
                self._handles.witness = survival.writers
                self._settled = None if is_new else trio.Event()
            directories = sum(
                self._resume_directory(number, inode, names)
                for number, (inode, names) in survival.directories().items()
            )
        survival.forget_found()
        self.repeated = Repeated(self, self._namespace, self._ready, self._renaming.note_done)
        self._directories.witness = survival
        return Resumed(len(self._unsure), files, directories)

    def show_names(self) -> None:
        """All that an earlier daemon acknowledged is in the store, or reported as unsaved."""
        if self.replies.unseen is not None:
            self.replies.unseen.set()
            self.replies.unseen = None

    def read_keys(self) -> set[str]:
        """Keys of objects that programs have had open since an earlier daemon."""
        keys = set()
        for opened in self._opened:
            if opened.file.version is not None:
                keys.add(opened.file.version.key)
            if opened.hidden is not None:
                keys.add(opened.hidden.version.key)
        return keys

    async def settle(self, tidy: Callable[[], Awaitable[None]], *, renaming: bool) -> None:
        """Find out which files an earlier daemon had stored, after its leftovers were cleaned up;
        then accept changes. ``renaming``: the daemon was renaming; then reads wait, too.
        """
        if self._settled is None:
            return
        self._moved = renaming
        # A busy store may carry out a complete request of the earlier daemon a moment later.
        await trio.sleep(self.late_seconds)
        await tidy()
        settlement = Settlement(self._namespace, self._commits, self._opener, self.sent_seconds)
        limit = trio.CapacityLimiter(_SETTLED_AT_ONCE)

        async def settle(opened: OpenInode) -> None:
            async with limit:
                await settlement.settle(opened)

        async with trio.open_nursery() as nursery:
            for opened in self._opened:
                nursery.start_soon(settle, opened)
        self._settled.set()
        self._settled, self._moved = None, False

    async def drain(self) -> None:
        """See there. What the earlier daemon has stored is found out first: it would be stored
        again, or refused as somebody else's.
        """
        with trio.move_on_after(self.drain_seconds):
            await self._names_ready()
        await super().drain()

    async def leave_memory(self) -> None:
        """From now on, no writes of programs are only in the memory of this process.

        Files that can continue from disk do so. Files that are partly sent to the store are waited
        for, as an object of half a file would show under its name. :meth:`use_memory` ends this.

        Raises:
            UnsavedDataError: that takes longer than ``stream_seconds``.
        """
        self.streams.may_begin = False
        with trio.move_on_after(self.stream_seconds):
            while self._in_memory():
                await self._keep_on_disk()
        for opened in self._in_memory():
            raise UnsavedDataError(
                f"{path_of(opened.inode)} is sent to the store while it is written, and was not"
                f" closed within {self.stream_seconds:g} seconds; try again when it is"
            )

    def use_memory(self) -> None:
        """Files being written may be in memory only."""
        self.streams.may_begin = True

    def _in_memory(self) -> list[OpenInode]:
        return [
            opened
            for opened in self._opened
            if opened.file.fleeting
            and not opened.file.vanished
            and not (opened.removed_here and opened.file.lost)  # it cannot be read any more
        ]

    async def _keep_on_disk(self) -> None:
        for opened in self._in_memory():
            if opened.file.lost:
                continue
            try:
                await opened.file.stay_readable()
            except (OssfsError, OSError) as exc:
                log.warning("%r stays in memory: %s", opened.inode.name, exc)
            opened.note()
        await trio.sleep(_LOOK_SECONDS)

    def handle(self, number: int) -> Handle | None:
        """The handle of a descriptor; None if there is none."""
        try:
            return self._handles.get(number)
        except BadHandleError:
            return None

    async def _ready(self) -> None:
        if self._settled is not None:
            await self._settled.wait()

    async def _seen(self) -> None:
        if self.replies.unseen is not None:
            await self.replies.unseen.wait()

    async def _names_ready(self) -> None:
        """What is owed is stored in the background: a name that was removed or renamed meanwhile
        would come back.
        """
        await self._ready()
        await self._seen()

    # -- calls about names ----------------------------------------------------------------------

    async def lookup(self, parent: int, name: bytes) -> EntryReply:
        """The entry of a name."""
        await self._seen()
        return await super().lookup(parent, name)

    async def read_directory(self, handle: int, start: int, take: TakeEntry) -> None:
        """readdir(3)."""
        await self._seen()
        await super().read_directory(handle, start, take)

    async def run(self) -> None:
        """Background work, until cancelled; it begins once the stored files are known."""
        await self._ready()
        await super().run()

    # -- calls that change something --------------------------------------------------------------

    async def open(self, number: int, flags: int, uid: int) -> OpenReply:
        """open(2) by a user."""
        if number in self._unsure:
            # The file may be longer than the version whose size the kernel knows.
            await self._kernel.expire_attributes(number)
            self._unsure = self._unsure - {number}
        await self._ready()
        return await super().open(number, flags, uid)

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, uid: int, gid: int
    ) -> tuple[OpenReply, EntryReply]:
        """open(2) with O_CREAT."""
        await self._names_ready()
        return await super().create(parent, name, mode, flags, uid, gid)

    async def read(self, handle: int, offset: int, size: int) -> memoryview | bytes:
        """pread(2)."""
        if self._moved:
            await self._ready()
        return await super().read(handle, offset, size)

    async def write(self, handle: int, offset: int, data: Written) -> int:
        """pwrite(2)."""
        with self._noted(handle):
            await self._ready()
            return await super().write(handle, offset, data)

    async def take_rights(self, handle: int) -> None:
        """See there."""
        with self._noted(handle):
            await self._ready()
            await super().take_rights(handle)

    async def copy_range(self, target: int, start: int, source: int, begin: int, size: int) -> int:
        """copy_file_range(2)."""
        with self._noted(target):
            await self._ready()
            return await super().copy_range(target, start, source, begin, size)

    async def flush(self, handle: int) -> None:
        """close(2) of one descriptor."""
        with self._noted(handle):
            await self._ready()
            await super().flush(handle)

    async def fsync(self, handle: int) -> None:
        """fsync(2)."""
        with self._noted(handle):
            await self._ready()
            await super().fsync(handle)

    async def release(self, handle: int) -> None:
        """The last descriptor of an open(2) is gone."""
        if self._settled is not None and not self.only_reads(handle):
            await self._ready()
        with self._all_noted():
            await super().release(handle)

    async def make_directory(
        self, parent: int, name: bytes, mode: int, uid: int, gid: int
    ) -> EntryReply:
        """mkdir(2)."""
        await self._names_ready()
        return await super().make_directory(parent, name, mode, uid, gid)

    async def remove_directory(self, parent: int, name: bytes) -> None:
        """rmdir(2)."""
        await self._names_ready()
        await super().remove_directory(parent, name)

    async def make_node(
        self, parent: int, name: bytes, mode: int, uid: int, gid: int
    ) -> EntryReply:
        """mknod(2)."""
        await self._names_ready()
        return await super().make_node(parent, name, mode, uid, gid)

    async def make_symlink(
        self, parent: int, name: bytes, target: bytes, uid: int, gid: int
    ) -> EntryReply:
        """symlink(2)."""
        await self._names_ready()
        return await super().make_symlink(parent, name, target, uid, gid)

    async def unlink(self, parent: int, name: bytes) -> None:
        """unlink(2)."""
        with self._all_noted():
            await self._names_ready()
            await super().unlink(parent, name)

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, *, no_replace: bool
    ) -> None:
        """rename(2)."""
        with self._all_noted():
            await self._names_ready()
            await super().rename(parent, name, new_parent, new_name, no_replace=no_replace)

    async def set_attributes(
        self, number: int, change: AttributeChange, size: int | None, handle: int | None
    ) -> EntryReply:
        """chmod, chown, utimens and truncate in one."""
        with self._all_noted():
            await self._ready()
            return await super().set_attributes(number, change, size, handle)

    async def set_xattr(self, number: int, name: bytes, value: bytes) -> None:
        """setxattr(2)."""
        with self._all_noted():
            await self._ready()
            await super().set_xattr(number, name, value)

    async def remove_xattr(self, number: int, name: bytes) -> None:
        """removexattr(2)."""
        with self._all_noted():
            await self._ready()
            await super().remove_xattr(number, name)

    @contextmanager
    def _noted(self, handle: int) -> Iterator[None]:
        """Record the changes that the block makes to an open file, even if it fails."""
        opened = self._handles.get(handle).opened
        try:
            yield
        finally:
            if opened in self._opened:
                opened.note()

    @contextmanager
    def _all_noted(self) -> Iterator[None]:
        """Record the changes that the block makes to any open file, even if it fails."""
        try:
            yield
        finally:
            for opened in self._opened:
                opened.note()

    # -- taking over ------------------------------------------------------------------------------

    def _resume_opened(
        self,
        number: int,
        told: Mapping[str, Any],
        survival: Survival,
        dirty: Mapping[str, DirtyRecord],
    ) -> OpenInode | None:
        inode = self._namespace.inodes.find(told["inode"])
        if inode is None:
            return None
        restore_inode(inode, told)
        name = survival.writers.name_of(number)
        opened = restore_opened(told, partial(self._opener.adopt_written, inode, name))
        if name in dirty:
            try:
                opened.file.adopt(dirty[name])
            except OSError as exc:
                raise SurvivalError(f"dirty bytes of {inode.name!r}: {exc}") from None
        if opened.removed_here or (told["unstored"] and not told["dirty"]):
            opened.file.abandon()
        if told["fleeting"]:
            self._tell_vanished(opened, told["size"])
        elif told["unstored"] and name not in dirty:
            opened.file.adopt_emptied()
        if opened.file.dirty or inode.removed:
            inode.size_source = opened.size
            self._kernel.wrote(inode)
        inode.size_told = opened.file.size
        return opened

    def _resume_written(self, survival: Survival, dirty: Mapping[str, DirtyRecord]) -> int:
        found: dict[int, OpenInode] = {}
        for number, told in survival.left.opened.items():
            opened = self._resume_opened(number, told, survival, dirty)
            if opened is not None:
                found[number] = opened
        for number, each in survival.left.descriptors.items():
            self._numbers.skip(number)
            if each.opened in found:
                handle = Handle(
                    found[each.opened],
                    each.flags,
                    each.uid,
                    past_pages=each.past_pages,
                    writer=each.writer,
                )
                handle.makes = each.makes
                self._handles.adopt(number, handle)
        self._removals.resume(found.values())
        self._removals.hide_put_off()
        for opened in found.values():
            if opened.name in dirty and dirty[opened.name].complete:
                self._commits.resume(opened)
        for number, told in survival.left.closed.items():
            is_owed = survival.writers.name_of(number) in dirty
            closed = self._resume_opened(number, told, survival, dirty) if is_owed else None
            if closed is None:
                survival.writers.forget(number)
            else:
                self._commits.resume(closed)
        return len(survival.left.descriptors)

    def _tell_vanished(self, opened: OpenInode, size: int) -> None:
        request = None if opened.inode.removed else self._commits.request_so_far(opened)
        try:
            opened.file.adopt_vanished(size, request)
        except OSError as exc:
            log.critical("the state directory cannot be written: %s", exc.strerror)
        log.error("%r is not saved: %s", opened.inode.name, WHY)

    def _resume_file(self, number: int, told: dict[str, Any]) -> bool:
        self._numbers.skip(number)
        inode = self._namespace.inodes.find(told["inode"])
        if inode is None:
            return False
        inode.info = ObjectInfo(
            key=told["key"],
            size=told["size"],
            etag=told["etag"],
            mtime_ns=told["mtime_ns"],
            version_id=told["version_id"],
            pinned=told["version_id"] is not None,
        )
        inode.size_told = inode.info.size
        opened = self._opener.adopt(inode, inode.info.version)
        opened.may_be_link = told["may_be_link"]
        handle = Handle(opened, os.O_RDONLY, told["uid"], past_pages=False, writer=None)
        self._handles.adopt(number, handle)
        return True

    def _resume_directory(self, number: int, inode_number: int, names: dict[int, str]) -> bool:
        self._numbers.skip(number)
        inode = self._namespace.inodes.find(inode_number)
        if inode is None:
            return False
        listing = self._namespace.list_directory(inode)
        self._directories.adopt(number, ResumedListing(listing, names))
        return True


class ResumedListing:
    """An open directory of which an earlier daemon has handed out entries.

    The listing is started anew. ``names`` are the names before the offsets from which it may be
    read. The entry after that name is at the offset, whatever was added or removed before it. If
    the name itself has gone, the offset is counted from the beginning.
    """

    def __init__(self, listing: DirectoryListing, names: dict[int, str]) -> None:
        self._listing = listing
        self._names = names
        self._shift: int | None = None
        """How far an entry has moved since then; None if not known yet."""

    @property
    def directory(self) -> Inode:
        """The directory that is listed."""
        return self._listing.directory

    def rewind(self) -> None:
        """Start again; later changes are seen."""
        self._listing.rewind()
        self._shift = 0

    async def entries_from(self, offset: int) -> list[tuple[int, str, Inode]]:
        """A batch of (next offset, name, inode) from ``offset`` on; empty at the end.

        Raises:
            StoreError
        """
        if offset == 0:
            self.rewind()
        shift = self._shift
        if shift is None:
            shift = self._shift = await self._find(offset)
        batch = await self._listing.entries_from(max(0, offset + shift))
        return [(position - shift, name, inode) for position, name, inode in batch]

    async def new_files_from(self, _offset: int, _most: int) -> list[tuple[str, ObjectInfo]]:
        """None: a daemon that may be followed by another one tells of its files one by one."""
        return []

    def adopt(self, files: list[tuple[str, ObjectInfo]]) -> list[Inode]:
        """Not called, as no file is told of."""
        return self._listing.adopt(files)

    async def _find(self, offset: int) -> int:
        wanted = self._names.get(offset)
        position = 0
        while wanted is not None and (batch := await self._listing.entries_from(position)):
            for position, name, _inode in batch:
                if name == wanted:
                    return position - offset
        return 0

"""Descriptors: open(2) makes them, and reads and writes go through them.

Several descriptors of one inode share its open file; this module has the state of each descriptor.
"""

import os
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import trio
from cachetools import TTLCache

from ossfs_py.errors import (
    BadHandleError,
    IsADirectoryPathError,
    OssfsError,
    SourceChangedError,
    StaleInodeError,
    StoreError,
    VersionChangedError,
)
from ossfs_py.filesystem.behind import Behind
from ossfs_py.filesystem.changes import Changes
from ossfs_py.filesystem.commits import Commits
from ossfs_py.filesystem.handle import Handle, HandleWitness
from ossfs_py.filesystem.kernelcache import KernelCache
from ossfs_py.filesystem.openinode import OpenInode
from ossfs_py.filesystem.openinodes import Opener
from ossfs_py.filesystem.owedentries import OwedEntries
from ossfs_py.filesystem.passthrough import Passthrough
from ossfs_py.filesystem.reads import Reads
from ossfs_py.filesystem.replies import OpenReply
from ossfs_py.filesystem.siblings import OpenWatcher
from ossfs_py.model import AttributeChange, ObjectVersion
from ossfs_py.namespace.inode import Inode, Kind
from ossfs_py.namespace.namespace import Namespace
from ossfs_py.runtime.arrived import Written
from ossfs_py.runtime.descriptors import Descriptors
from ossfs_py.writing.parts import FIRST_PART_BYTES

_BACK_SECONDS = 1.0
"""After the kernel was told to look a path up again, it repeats the open within this time."""
_MAX_SENT_BACK = 4096
_LONG_BYTES = 64 * 1024
"""A file that grows beyond this has more to come, mostly."""
_WORTH_A_STEP_BYTES = 1024**3
"""A step below this size is part of a file: Linux before 6.18 asks for 2 GiB at a time."""


class Handles:
    """The descriptors of a mount. Belongs to the trio thread.

    ``numbers`` supplies handle numbers; ``foresight`` is told of every file that is opened for
    reading. ``descriptors`` limits those for writing.
    """

    def __init__(
        self,
        namespace: Namespace,
        opener: Opener,
        commits: Commits,
        changes: Changes,
        kernel: KernelCache,
        numbers: Iterator[int],
        foresight: Sequence[OpenWatcher],
        descriptors: Descriptors,
        behind: Behind,
        passthrough: Passthrough,
        owed: OwedEntries,
    ) -> None:
        self._behind, self._passthrough, self._owed = behind, passthrough, owed
        self._namespace = namespace
        self._opener = opener
        self._commits = commits
        self._changes = changes
        self._kernel = kernel
        self._numbers = numbers
        self._foresight = foresight
        self._descriptors = descriptors
        self._reads = Reads(namespace, opener, kernel, self._users_of)
        self._handles: dict[int, Handle] = {}
        self.witness: HandleWitness | None = None
        self._sent_back: TTLCache[int, bool] = TTLCache(
            _MAX_SENT_BACK, _BACK_SECONDS, timer=trio.current_time
        )
        """Inodes whose open(2) was told to look the path up again."""

    def get(self, number: int) -> Handle:
        """The handle behind a number.

        Raises:
            BadHandleError: the handle is unknown.
        """
        try:
            return self._handles[number]
        except KeyError:
            raise BadHandleError(f"unknown file handle {number}") from None

    # -- opening and releasing ------------------------------------------------------------------

    async def open(self, inode: Inode, flags: int, uid: int) -> OpenReply:
        """open(2) by a user."""
        if inode.kind is Kind.DIRECTORY:
            raise IsADirectoryPathError("a directory is not opened as a file")
        if flags & os.O_ACCMODE == os.O_RDONLY and not flags & os.O_TRUNC:
            return await self._open(inode, flags, uid, None)
        with self.as_writer(uid):
            return await self._open(inode, flags, uid, uid)

    @contextmanager
    def as_writer(self, uid: int) -> Iterator[None]:
        """Count a file opened in the block as open for writing, for good if the block succeeds."""
        self._descriptors.add_writer(uid)
        try:
            yield
        except BaseException:
            self._descriptors.remove_writer(uid)
            raise

    def open_nowait(self, inode: Inode, flags: int, uid: int) -> OpenReply | None:
        """As :meth:`open`, for reading, if nothing has to be waited for; None: nothing has
        happened.
        """
        if (
            flags & (os.O_ACCMODE | os.O_TRUNC)
            or self.witness is not None
            or self._passthrough.is_on
            or inode.kind is not Kind.FILE
            or self._kernel.is_behind(inode)
            or (opened := self._opener.acquire_nowait(inode)) is None
        ):
            return None
        for watcher in self._foresight:
            watcher.opened(inode, opened.file.version)
        return self._new(opened, flags, uid, None)

    async def _open(self, inode: Inode, flags: int, uid: int, writer: int | None) -> OpenReply:
        writing = flags & os.O_ACCMODE != os.O_RDONLY
        if writing and not flags & os.O_TRUNC:
            await self._see_present_version(inode)
        opened = await self._opener.acquire(inode)
        try:
            await self._kernel.caught_up(inode)
            if writing or flags & os.O_TRUNC:
                await self._prepare_writing(inode)
            if flags & os.O_TRUNC:
                await self._truncated(opened, 0)
                self._kernel.truncated(inode, 0)
                if uid and self._rights_lent(inode):
                    await self._take_rights(inode)  # without the lane the kernel leaves them
            local = await self._passthrough.joined(opened, flags)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._opener.release(opened)
            raise
        if not writing:
            for watcher in self._foresight:
                watcher.opened(inode, opened.file.version)
        return self._new(opened, flags, uid, writer, local=local)

    async def _see_present_version(self, inode: Inode) -> None:
        """Part of the file may be changed: get its version of now, not one of a minute ago.

        Raises:
            StaleInodeError: the kernel knows the size of another version, and would append there.
                It looks the path up again, and repeats the open.
        """
        current = self._opener.current(inode)
        if self._sent_back.pop(inode.number, False):
            return
        if current is None or not (current.file.dirty or current.made_here):
            await self._namespace.ask_version(inode)
        if self._kernel.is_behind(inode):
            self._sent_back[inode.number] = True
            raise StaleInodeError(f"{inode.name!r} is another version now")

    def make(
        self, directory: Inode, name: str, mode: int, flags: int, uid: int, gid: int
    ) -> tuple[OpenReply, Inode]:
        """open(2) of a file that it makes; see :meth:`Namespace.create_local`."""
        with self.as_writer(uid):  # a refused open must leave no file
            inode = self._namespace.create_local(directory, name, stat.S_IMODE(mode), uid, gid)
            opened = self._opener.acquire_new(inode)
            if flags & os.O_EXCL:
                self._commits.expect_absent(opened)
            opened.unseen = not flags & os.O_TRUNC
            if flags & os.O_APPEND:
                opened.appended_from = 0
            return self._new(opened, flags, uid, uid, makes=True), inode

    def is_making(self, number: int | None) -> bool:
        """Whether a descriptor is known, and made its file."""
        return number in self._handles and self._handles[number].makes

    def _new(
        self,
        opened: OpenInode,
        flags: int,
        uid: int,
        writer: int | None,
        *,
        makes: bool = False,
        local: int | None = None,
    ) -> OpenReply:
        if flags & os.O_ACCMODE == os.O_RDWR:
            opened.file.expect_rereads()
        if local is None:
            self._passthrough.asks(opened)
            past_pages = self._goes_past_pages(opened, flags)
        else:
            past_pages = bool(flags & os.O_DIRECT)
        opened.has_pages = opened.has_pages or not past_pages
        inode, file = opened.inode, opened.file
        keep = local is None and self._kernel.keeps_pages(inode, file.version, dirty=file.dirty)
        if keep and not past_pages and self._kernel.was_given_bytes(inode):
            inode.settled = True  # it may read bytes that earlier users of the file were given
        handle = Handle(opened, flags, uid, past_pages=past_pages, writer=writer)
        handle.makes, handle.local = makes, local
        number = next(self._numbers)
        self._handles[number] = handle
        opened.readers += not handle.changes
        if self.witness is not None:
            self.witness.opened(number, handle)
        return OpenReply(number, keep and not past_pages, past_pages, local)

    def _goes_past_pages(self, opened: OpenInode, flags: int) -> bool:
        """Whether writes through a descriptor should leave no pages in the kernel's page cache.

        The pages would be useless: the kernel drops them when the object has its final mtime. Not
        for a file that others have open: they may have changed pages by mmap. For such writes, the
        kernel neither syncs each one (O_SYNC, O_DSYNC) nor clears setuid bits.
        """
        return (
            flags & os.O_ACCMODE == os.O_WRONLY
            and not flags & (os.O_SYNC | os.O_DSYNC)
            and not opened.has_pages
            and not self._rights_lent(opened.inode)
        )

    def adopt(self, number: int, handle: Handle) -> None:
        """Add a descriptor that an earlier daemon made; bytes that it was given stay valid."""
        opened, inode = handle.opened, handle.opened.inode
        opened.users += 1
        opened.readers += not handle.changes
        if handle.writer is not None:
            self._descriptors.add_writer(handle.writer)
        self._kernel.keeps_pages(inode, opened.file.version, dirty=opened.file.dirty)
        if not handle.past_pages:
            opened.has_pages = inode.settled = True
            self._kernel.gave_bytes(inode)
        self._handles[number] = handle

    def moved_on(self, opened: OpenInode) -> None:
        """An open file continues with another version."""
        if self.witness is not None:
            for number, handle in self._handles.items():
                if handle.opened is opened:
                    self.witness.opened(number, handle)

    async def flush(self, number: int) -> None:
        """close(2) of one descriptor: returns when the object is complete in the bucket, or, with
        write-back, safe on local disk. If the call is cancelled, the work goes on.
        """
        handle = self.get(number)
        if handle.changes and self._commits.flushes_at_once(handle.opened):
            with self._opener.doubting(handle.opened):
                await self._commits.flush(handle.opened)
        elif handle.changes:
            await self._carried_on(handle.opened, self._commits.flush)

    def flush_nowait(self, number: int) -> bool:
        """As :meth:`flush`, if nothing has to be waited for; False: nothing has happened."""
        handle = self._handles.get(number)
        return handle is not None and handle.changes and self._commits.flush_nowait(handle.opened)

    async def fsync(self, number: int) -> None:
        """fsync(2): returns when the object is complete in the bucket. Goes on if cancelled."""
        await self._carried_on(self.get(number).opened, self._commits.commit)

    async def _carried_on(
        self, opened: OpenInode, commit: Callable[[OpenInode], Awaitable[None]]
    ) -> None:
        """Commit in a task of its own, which keeps the file open: its bytes must not be dropped
        because a waiting program is killed. If the commit then fails, the bytes are set aside.
        """
        if not (opened.file.dirty or opened.lock.locked()):
            with self._opener.doubting(opened):
                await commit(opened)
            return
        opened.users += 1

        async def carry_on() -> None:
            try:
                with self._opener.doubting(opened):
                    await commit(opened)
            except OssfsError:
                if opened.inode.stale:
                    await self._kernel.told_soon()  # or the program's next stat(2) shows its change
                raise
            finally:
                await self._opener.release(opened)

        await self._behind.start(carry_on).wait()

    def only_reads(self, number: int) -> bool:
        """Whether releasing a descriptor stores and removes nothing, and waits for nothing."""
        handle = self._handles.get(number)
        if handle is None:
            return True
        opened = handle.opened
        return not (
            handle.changes
            or opened.writers
            or opened.inode.removed
            or opened.hidden is not None
            or self._kernel.was_written(opened.inode)
        )

    async def release(self, number: int) -> None:
        """The last descriptor of an open(2) is gone; the kernel ignores any error from this."""
        handle = self._handles.pop(number, None)
        if handle is not None:
            handle.opened.readers -= not handle.changes
            self._passthrough.left(handle.opened, handle.local)
            try:
                await self._opener.release(handle.opened)
            finally:
                if self.witness is not None:
                    self.witness.released(number)  # until then the next daemon would keep it
                if handle.writer is not None:
                    self._descriptors.remove_writer(handle.writer)

    def release_nowait(self, number: int) -> bool:
        """As :meth:`release`, if that stores and removes nothing: it leaves the file open for
        others, as for write-back, or nobody has changed it; False: nothing has happened.
        """
        handle = self._handles.get(number)
        if handle is None or self.witness is not None:
            return False
        opened = handle.opened
        if opened.users < 2:
            if handle.local is not None or not self.only_reads(number):
                return False
            if not self._opener.release_nowait(opened):
                return False
        elif opened.writers < 2 and opened.file.dirty:
            return False
        else:
            opened.users -= 1
        del self._handles[number]
        opened.readers -= not handle.changes
        self._passthrough.left(opened, handle.local)
        if handle.writer is not None:
            self._descriptors.remove_writer(handle.writer)
        return True

    # -- bytes ----------------------------------------------------------------------------------

    def ask(self, number: int, offset: int, size: int, then: Callable[[], None]) -> bool:
        """Have bytes of a small file fetched, and ``then`` called once when
        :meth:`Filesystem.read_nowait` has them or :meth:`read` the error; see
        :meth:`OpenFile.ask`.
        """
        opened = self.get(number).opened
        return not opened.may_be_link and opened.content.ask(offset, size, then)

    async def read(self, number: int, offset: int, size: int) -> memoryview | bytes:
        """pread(2); the view is valid until the caller's next checkpoint."""
        return await self._reads.read(self.get(number), offset, size)

    async def settle_nameless(self, inode: Inode) -> None:
        """See :meth:`Reads.settle_nameless`."""
        opened = self._opener.current(inode)
        if opened is not None:
            await self._reads.settle_nameless(opened)

    def _users_of(self, opened: OpenInode) -> set[int]:
        return {handle.uid for handle in self._handles.values() if handle.opened is opened}

    async def write(self, number: int, offset: int, data: Written) -> int:
        """pwrite(2)."""
        handle = self.get(number)
        opened = handle.opened
        opened.require_name()
        if handle.past_pages and self._rights_lent(opened.inode):
            await self._take_rights(opened.inode)
        try:
            async with opened.turns.change():
                opened.check_current()
                if handle.writer is not None:
                    opened.writer = handle.writer
                place = opened.begin_write(offset, len(data), appends=handle.appends)
                if handle.appends and not place:
                    # It may have to be appended again, to bytes that others write now.
                    await opened.file.stay_readable()
                written = await opened.file.write(place, data)
            self._foresee(opened, place, written)
        finally:
            opened.note_written()
            self._kernel.wrote(opened.inode)
            if not handle.past_pages:
                self._kernel.gave_bytes(opened.inode)
            if handle.past_pages and opened.has_pages:
                # The file has readers. Pages from before this write are dropped before it returns
                # (Linux does so by itself only since 6.6); pages read from now on have the new
                # bytes.
                await self._kernel.drop_pages(opened.inode.number)
        return written

    def _foresee(self, opened: OpenInode, start: int, size: int) -> None:
        """A file has grown so long that its program takes a while for it, and perhaps waits for the
        store then, as git does with packs: the directories above it are stored meanwhile.
        """
        if start <= _LONG_BYTES < start + size and len(self._owed):
            self._behind.start(partial(self._owed.store_above, opened.inode))

    def write_nowait(self, number: int, offset: int, data: Written) -> bool:
        """As :meth:`write`, if nothing has to be waited for; False: nothing has happened."""
        handle = self._handles.get(number)
        if handle is None or self.witness is not None:
            return False
        opened = handle.opened
        inode = opened.inode
        if (
            inode.stale
            or opened.superseded
            or opened.turns.are_held
            or (handle.appends and not 0 < offset == opened.file.size)
            or (handle.past_pages and (opened.has_pages or self._rights_lent(inode)))
        ):
            return False
        if handle.writer is not None:
            opened.writer = handle.writer
        opened.begin_write(offset, len(data), appends=handle.appends)
        if not opened.file.write_nowait(offset, data):
            return False
        opened.note_written()
        self._kernel.wrote(inode)
        if not handle.past_pages:
            self._kernel.gave_bytes(inode)
        self._foresee(opened, offset, len(data))
        return True

    async def copy_range(self, target: int, start: int, source: int, begin: int, size: int) -> int:
        """copy_file_range(2): the number of bytes that the store copied, when the end of the source
        is reached and the object exists; 0 if the program has to read and write them instead.

        It is 0 unless a stored file of more than a part is copied whole, in order, into an empty
        file. If that takes several steps, each has to be long.
        """
        handle, read = self.get(target), self.get(source).opened
        opened, version = handle.opened, read.content.version
        opened.require_name()
        if version is None or version.size <= FIRST_PART_BYTES or read.file.dirty:
            return 0
        until = min(begin + size, version.size)
        if (
            begin != start
            or (opened.witness is not None and until - begin < version.size)
            or handle.appends
            or read is opened
            or read.inode.removed
            or opened.inode.removed
            or (until < version.size and until - begin < _WORTH_A_STEP_BYTES)
            or not await self._is_stored(read.inode, version)
        ):
            return 0
        if self._rights_lent(opened.inode):
            await self._take_rights(opened.inode)
        try:
            async with opened.turns.change():
                opened.check_current()
                if handle.writer is not None:
                    opened.writer = handle.writer
                opened.appended_from = None
                if not await opened.file.borrow(version, start, until):
                    return 0
        finally:
            opened.note_written()
            self._kernel.wrote(opened.inode)
        if until == version.size:
            try:
                await self._carried_on(opened, self._commits.commit)
            except (OssfsError, OSError) as exc:
                await opened.file.truncate(0)  # or close(2) would try to store it once more
                opened.note_written()
                if isinstance(exc, SourceChangedError) and not start:
                    return 0
                raise
        return until - begin

    async def _is_stored(self, inode: Inode, version: ObjectVersion) -> bool:
        """Whether the store has a version under the file's name now."""
        try:
            there = await self._namespace.version_in_store(inode)
        except StoreError:
            return False  # readers of the file get the error
        return there is not None and there.version == version

    async def truncate(self, inode: Inode, size: int, number: int | None) -> None:
        """ftruncate(2) of a descriptor, or truncate(2) where ``number`` is None or unknown."""
        if inode.kind is Kind.DIRECTORY:
            raise IsADirectoryPathError("a directory has no size to change")
        if number is not None and number in self._handles:
            opened = self._handles[number].opened
            opened.require_name()
            await self._truncated(opened, size)
            self._kernel.truncated(inode, size)
            return
        current = self._opener.current(inode)
        own = current is not None and (current.file.dirty or current.made_here)
        if size and not own and (current is not None or size == inode.size):
            # An open descriptor may be of an older version, which would be truncated, and refused.
            # And if the size stays the same, nothing is stored: no other request would notice.
            await self._namespace.ask_version(inode)
        async with self._stored_at_once(inode) as opened:
            await self._prepare_writing(inode)
            await self._truncated(opened, size)
        self._kernel.truncated(inode, size)

    async def _truncated(self, opened: OpenInode, size: int) -> None:
        try:
            async with opened.turns.change():
                opened.check_current()
                opened.begin_truncate(size)
                await opened.file.truncate(size)
        finally:
            opened.note_written()
            self._kernel.wrote(opened.inode)
        if not (size or opened.file.dirty or opened.inode.removed):
            # It was empty before: "> stamp" is how shells tell the time to make(1). Longer files of
            # that size are left alone: a copy of a large object takes minutes.
            now = AttributeChange(mtime_ns=time.time_ns())
            self._namespace.defer_attributes(opened.inode, now)

    async def store_new(self, inode: Inode) -> None:
        """mknod(2): store a file that was just made, or leave no trace of it."""
        async with self._stored_at_once(inode) as opened:
            opened.unseen = True

    @asynccontextmanager
    async def _stored_at_once(self, inode: Inode) -> AsyncIterator[OpenInode]:
        """Open, change and store in one call: if that fails, no program needs the data."""
        opened = await self._opener.acquire(inode)
        try:
            yield opened
            await self._commits.commit(opened)
        except BaseException as exc:
            with trio.CancelScope(shield=True):
                await self._opener.give_up(opened)
            if isinstance(exc, VersionChangedError):
                self._namespace.invalidate(inode)  # for the kernel's next try
            raise
        finally:
            with trio.CancelScope(shield=True):
                await self._opener.release(opened)

    async def _prepare_writing(self, inode: Inode) -> None:
        """Read the metadata that other tools stored, as it is kept when the bytes are replaced."""
        await self._changes.arrived(inode)
        info = inode.info
        unknown = inode.metadata is None or (info is not None and info.described is None)
        if info is not None and unknown and not inode.removed:
            await self._namespace.ensure_metadata(inode)

    # -- setuid and setgid bits -----------------------------------------------------------------

    async def take_rights(self, number: int) -> None:
        """Clear the setuid and setgid bits of an open file; the kernel knows then."""
        inode = self.get(number).opened.inode
        if self._rights_lent(inode):
            await self._take_rights(inode)

    def mode_without_rights(self, inode: Inode) -> int | None:
        """Permission bits without setuid and setgid; None if neither is set."""
        lent = self._rights_lent(inode)
        return stat.S_IMODE(self._namespace.mode_known(inode) & ~lent) if lent else None

    def _rights_lent(self, inode: Inode) -> int:
        """The setuid and setgid bits of a file: programs that run it get its owner's rights.

        A write clears them. The kernel does that for writes through pages, and leaves it to the
        lane (FUSE_HANDLE_KILLPRIV_V2) for others. The setgid bit without the group's execute bit
        means mandatory locking, and stays.
        """
        mode = inode.mode  # known of what was made here; each write asks
        if mode is None:
            mode = self._namespace.mode_known(inode)
        if inode.kind is Kind.DIRECTORY:
            return 0
        return mode & (stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0))

    async def _take_rights(self, inode: Inode) -> None:
        mode = self.mode_without_rights(inode)
        await self._changes.set_attributes(inode, AttributeChange(mode=mode))
        await self._kernel.expire_attributes(inode.number)

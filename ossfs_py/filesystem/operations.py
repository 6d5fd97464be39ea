"""POSIX operations in terms of the namespace and open files. Knows no pyfuse3 types.

Names come in as bytes and inodes as numbers; what goes out are the package's own types and
exceptions. Everything runs on the trio thread; state is looked at again after every await.
"""

import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import trio

from ossfs_py.errors import (
    BadHandleError,
    IsADirectoryPathError,
    NotPermittedError,
    ObjectMissingError,
    ReadOnlyError,
    VersionChangedError,
)
from ossfs_py.filesystem.openfiles import OpenFiles, OpenInode
from ossfs_py.filesystem.siblings import OpenWatcher
from ossfs_py.model import AttributeChange, Attributes
from ossfs_py.namespace import names
from ossfs_py.namespace.inode import Inode, Kind
from ossfs_py.namespace.namespace import DirectoryListing, Namespace


class Handle:
    """One open(2)."""

    __slots__ = ("changes", "keep_cache", "opened", "past_pages")

    def __init__(
        self, opened: OpenInode, flags: int, *, keep_cache: bool, past_pages: bool
    ) -> None:
        self.opened = opened
        self.changes = bool(
            flags & os.O_ACCMODE != os.O_RDONLY or flags & (os.O_CREAT | os.O_TRUNC)
        )
        """Whether close(2) has something to store: without writing, making and emptying do too."""
        self.keep_cache = keep_cache
        self.past_pages = past_pages
        """Whether its writes come without a copy in the kernel's page cache."""


class Filesystem:
    """One mounted bucket."""

    def __init__(
        self,
        namespace: Namespace,
        files: OpenFiles,
        *,
        read_only: bool = False,
        foresight: Sequence[OpenWatcher] = (),
    ) -> None:
        """``foresight`` is told of every file that is opened for reading."""
        self.namespace = namespace
        self._files = files
        self._read_only = read_only
        self._foresight = foresight
        self._handles: dict[int, Handle] = {}
        self._directories: dict[int, DirectoryListing] = {}
        self._next_handle = 1
        self.invalidate_pages: Callable[[int], None] = _nothing_cached
        self.drop_pages: Callable[[int], Awaitable[None]] = _nothing_dropped
        """Returns when the kernel has no page of an inode that it was given before the call."""
        self.invalidate_attributes: Callable[[int], None] = _nothing_cached

    # -- names --------------------------------------------------------------------------------

    async def lookup(self, parent: int, name: bytes) -> Inode:
        """The inode behind a name; the caller counts the reference with ``remember``."""
        directory = self.namespace.inode(parent)
        if name == b".":
            return directory
        if name == b"..":
            return directory.parent or directory
        return await self.namespace.lookup(directory, names.decode(name))

    async def attributes(self, number: int) -> Attributes:
        """stat(2) of an inode."""
        inode = self.namespace.inode(number)
        known = self.namespace.attributes_nowait(inode)
        return known if known is not None else await self.namespace.attributes(inode)

    async def set_attributes(
        self, number: int, change: AttributeChange, size: int | None, handle: int | None
    ) -> Attributes:
        """chmod, chown, utimens and truncate in one, as the kernel asks for them."""
        self._check_writable()
        inode = self.namespace.inode(number)
        if size is not None:
            await self._truncate(inode, size, handle)
        if change != AttributeChange():
            async with self._files.changing(inode):
                defer = self._files.defers(inode)
                await self.namespace.set_attributes(inode, change, defer=defer)
                await self._files.follow(inode)
        return await self.namespace.attributes(inode)

    async def _truncate(self, inode: Inode, size: int, handle: int | None) -> None:
        if inode.kind is Kind.DIRECTORY:
            raise IsADirectoryPathError("a directory has no size to change")
        if handle is not None and handle in self._handles:
            opened = self._handles[handle].opened
            try:
                await opened.content.truncate(size)
            finally:
                opened.note_written()
            return
        async with self._stored_at_once(inode) as opened:
            await self._prepare_writing(inode)
            await opened.content.truncate(size)
            opened.note_written()

    async def make_directory(
        self, parent: int, name: bytes, mode: int, uid: int, gid: int
    ) -> Inode:
        """mkdir(2)."""
        self._check_writable()
        directory = self.namespace.inode(parent)
        decoded = names.decode(name)
        async with self._files.claims.place(directory):
            return await self.namespace.make_directory(directory, decoded, mode, uid, gid)

    async def remove_directory(self, parent: int, name: bytes) -> None:
        """rmdir(2)."""
        self._check_writable()
        directory = self.namespace.inode(parent)
        decoded = names.decode(name)
        async with self._files.claims.place(directory):
            await self.namespace.remove_directory(directory, decoded)

    async def make_node(self, parent: int, name: bytes, mode: int, uid: int, gid: int) -> Inode:
        """mknod(2) of a regular file; the store has no other nodes."""
        self._check_writable()
        if not stat.S_ISREG(mode):
            raise NotPermittedError("an object store keeps no device nodes, pipes or sockets")
        inode = self.namespace.create_local(
            self.namespace.inode(parent), names.decode(name), stat.S_IMODE(mode), uid, gid
        )
        async with self._stored_at_once(inode):
            return inode

    async def make_symlink(
        self, parent: int, name: bytes, target: bytes, uid: int, gid: int
    ) -> Inode:
        """symlink(2)."""
        self._check_writable()
        directory = self.namespace.inode(parent)
        decoded = names.decode(name)
        async with self._files.claims.place(directory):
            return await self.namespace.make_symlink(directory, decoded, target, uid, gid)

    async def read_link(self, number: int) -> bytes:
        """readlink(2)."""
        return await self.namespace.read_link(self.namespace.inode(number))

    async def unlink(self, parent: int, name: bytes) -> None:
        """unlink(2); whoever has the file open goes on reading and writing it."""
        self._check_writable()
        directory = self.namespace.inode(parent)
        decoded = names.decode(name)
        gone = False
        while not gone:
            inode = await self.namespace.lookup(directory, decoded)
            async with self._files.changing(inode):
                if self.namespace.known_child(directory, decoded) is not inode:
                    continue  # renamed while we waited for our turn
                await self._files.preserve(inode)
                await self.namespace.unlink(directory, decoded)
                self._files.abandon(inode)
                gone = True

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, *, no_replace: bool
    ) -> None:
        """rename(2); open files move along, an open target stays readable to its openers."""
        self._check_writable()
        source_dir, target_dir = self.namespace.inode(parent), self.namespace.inode(new_parent)
        old, new = names.decode(name), names.decode(new_name)
        moved = False
        while not moved:
            inode = await self.namespace.lookup(source_dir, old)
            # Only a known target can be open, and only an open one needs care.
            target = self.namespace.known_child(target_dir, new)
            async with self._files.moving(inode, target, (source_dir, target_dir)):
                if (
                    self.namespace.known_child(source_dir, old) is not inode
                    or self.namespace.known_child(target_dir, new) is not target
                ):
                    continue  # changed while we waited for our turn
                if target is not None and target is not inode and not no_replace:
                    await self._files.preserve(target)
                await self.namespace.rename(
                    source_dir,
                    old,
                    target_dir,
                    new,
                    no_replace=no_replace,
                    on_copied=self._files.follow_copies,
                )
                if target is not inode:
                    self._files.renamed(inode, target)
                moved = True

    # -- open files ---------------------------------------------------------------------------

    async def open(self, number: int, flags: int) -> int:
        """open(2); returns a handle number."""
        writing = flags & os.O_ACCMODE != os.O_RDONLY
        if writing or flags & os.O_TRUNC:
            self._check_writable()
        inode = self.namespace.inode(number)
        if inode.kind is Kind.DIRECTORY:
            raise IsADirectoryPathError("a directory is not opened as a file")
        opened = await self._files.acquire(inode)
        try:
            if writing or flags & os.O_TRUNC:
                await self._prepare_writing(inode)
            if flags & os.O_TRUNC:
                await opened.content.truncate(0)
                opened.note_written()
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._files.release(opened)
            raise
        if not writing:
            for watcher in self._foresight:
                watcher.opened(inode, opened.file.version)
        return self._new_handle(opened, flags)

    async def _prepare_writing(self, inode: Inode) -> None:
        """What other tools stored beside the bytes is kept when the bytes are replaced."""
        if inode.info is not None and inode.metadata is None and not inode.removed:
            await self.namespace.ensure_metadata(inode)

    @asynccontextmanager
    async def _stored_at_once(self, inode: Inode) -> AsyncIterator[OpenInode]:
        """Open, change and store in one call: if that fails nobody waits for the data."""
        opened = await self._files.acquire(inode)
        try:
            yield opened
            await self._files.commit(opened)
        except BaseException:
            self._files.give_up(opened)
            raise
        finally:
            with trio.CancelScope(shield=True):
                await self._files.release(opened)

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, uid: int, gid: int
    ) -> tuple[int, Inode]:
        """open(2) with O_CREAT of a name that the kernel has just looked up in vain."""
        self._check_writable()
        directory = self.namespace.inode(parent)
        decoded = names.decode(name)
        known = self.namespace.known_child(directory, decoded)
        if known is not None and not flags & os.O_EXCL:
            return await self.open(known.number, flags), known
        inode = self.namespace.create_local(directory, decoded, stat.S_IMODE(mode), uid, gid)
        opened = await self._files.acquire(inode)
        opened.exclusive = bool(flags & os.O_EXCL)
        return self._new_handle(opened, flags), inode

    def _new_handle(self, opened: OpenInode, flags: int) -> int:
        if flags & os.O_ACCMODE == os.O_RDWR:
            opened.file.expect_rereads()
        number = self._next_handle
        self._next_handle += 1
        past_pages = self._goes_past_pages(opened, flags)
        opened.has_pages = opened.has_pages or not past_pages
        keep_cache = self._files.keeps_pages(opened) and not past_pages
        self._handles[number] = Handle(opened, flags, keep_cache=keep_cache, past_pages=past_pages)
        return number

    def _goes_past_pages(self, opened: OpenInode, flags: int) -> bool:
        """Whether what is written through a descriptor is to leave no pages behind.

        They serve nobody: the kernel drops them when the object has its final mtime. Not for a
        file that others have open, who may have changed pages by mmap. And past its pages the
        kernel neither syncs after each write (O_SYNC, O_DSYNC) nor takes away a program's rights.
        """
        return (
            flags & os.O_ACCMODE == os.O_WRONLY
            and not flags & (os.O_SYNC | os.O_DSYNC)
            and not opened.has_pages
            and not self._rights_lent(opened.inode)
        )

    def handle(self, number: int) -> Handle:
        """The handle behind a number.

        Raises:
            BadHandleError: unknown.
        """
        try:
            return self._handles[number]
        except KeyError:
            raise BadHandleError(f"unknown file handle {number}") from None

    def read_nowait(self, number: int, offset: int, size: int) -> memoryview | bytes | None:
        """The bytes if they are in memory; None if :meth:`read` has to wait for them."""
        return self.handle(number).opened.content.read_nowait(offset, size)

    async def read(self, number: int, offset: int, size: int) -> memoryview | bytes:
        """pread(2); the view is valid until the caller's next checkpoint."""
        opened = self.handle(number).opened
        with self._doubting(opened):
            data = await opened.content.read(offset, size)
        opened.check_current()
        return data

    @contextmanager
    def _doubting(self, opened: OpenInode) -> Iterator[None]:
        """Whoever opens a file that turned out to be replaced or gone is to see what is there."""
        try:
            yield
        except (VersionChangedError, ObjectMissingError):
            if not opened.superseded:
                self.namespace.invalidate(opened.inode)
                self.invalidate_attributes(opened.inode.number)
            raise

    async def write(self, number: int, offset: int, data: bytes) -> int:
        """pwrite(2)."""
        handle = self.handle(number)
        opened = handle.opened
        if handle.past_pages and self._rights_lent(opened.inode):
            await self._take_rights(opened.inode)
        try:
            return await opened.content.write(offset, data)
        finally:
            opened.note_written()
            if handle.past_pages and opened.has_pages:
                # Somebody reads it too. Pages read before this write go before it returns (Linux
                # itself sees to that from 6.6 on only); those read from now on have what it wrote.
                await self.drop_pages(opened.inode.number)

    def _rights_lent(self, inode: Inode) -> int:
        """The bits of a file's mode that lend its owner's rights to whoever runs it.

        A write takes them away; the kernel sees to that for writes through pages only.
        """
        return self.namespace.attributes_known(inode).mode & (stat.S_ISUID | stat.S_ISGID)

    async def _take_rights(self, inode: Inode) -> None:
        mode = self.namespace.attributes_known(inode).mode & ~self._rights_lent(inode)
        change = AttributeChange(mode=stat.S_IMODE(mode))
        await self.set_attributes(inode.number, change, None, None)
        self.invalidate_attributes(inode.number)

    async def flush(self, number: int) -> None:
        """close(2) of one descriptor: returns when the object is complete in the bucket, or safe
        on local disk with write-back.
        """
        handle = self.handle(number)
        if handle.changes:
            with self._doubting(handle.opened):
                await self._files.flush(handle.opened)

    async def fsync(self, number: int) -> None:
        """fsync(2): returns when the object is complete in the bucket."""
        opened = self.handle(number).opened
        with self._doubting(opened):
            await self._files.commit(opened)

    async def release(self, number: int) -> None:
        """The last descriptor of an open(2) is gone; the kernel ignores what this raises."""
        handle = self._handles.pop(number, None)
        if handle is not None:
            await self._files.release(handle.opened)

    # -- directories --------------------------------------------------------------------------

    def open_directory(self, number: int) -> int:
        """opendir(3); returns a handle number."""
        listing = self.namespace.list_directory(self.namespace.inode(number))
        handle = self._next_handle
        self._next_handle += 1
        self._directories[handle] = listing
        return handle

    def directory(self, handle: int) -> DirectoryListing:
        """The listing behind a directory handle.

        Raises:
            BadHandleError: unknown.
        """
        try:
            return self._directories[handle]
        except KeyError:
            raise BadHandleError(f"unknown directory handle {handle}") from None

    def release_directory(self, handle: int) -> None:
        """closedir(3)."""
        self._directories.pop(handle, None)

    # -- extended attributes ------------------------------------------------------------------

    async def get_xattr(self, number: int, name: bytes) -> bytes:
        """getxattr(2)."""
        return await self.namespace.get_xattr(self.namespace.inode(number), name)

    async def list_xattrs(self, number: int) -> list[bytes]:
        """listxattr(2)."""
        return await self.namespace.list_xattrs(self.namespace.inode(number))

    async def set_xattr(self, number: int, name: bytes, value: bytes) -> None:
        """setxattr(2)."""
        self._check_writable()
        inode = self.namespace.inode(number)
        async with self._files.changing(inode):
            defer = self._files.defers(inode)
            await self.namespace.set_xattr(inode, name, value, defer=defer)
            await self._files.follow(inode)

    async def remove_xattr(self, number: int, name: bytes) -> None:
        """removexattr(2)."""
        self._check_writable()
        inode = self.namespace.inode(number)
        async with self._files.changing(inode):
            await self.namespace.remove_xattr(inode, name, defer=self._files.defers(inode))
            await self._files.follow(inode)

    # -- life ---------------------------------------------------------------------------------

    def note_remote_change(self, inode: Inode) -> None:
        """Another client replaced the object: the kernel's pages of it are worth nothing."""
        if self._files.drop_pages_of_old(inode):
            self.invalidate_pages(inode.number)

    def refresh(self, path: str) -> int:
        """Believe nothing remembered at and below a path (relative to the mountpoint).

        The next look asks the store. Nothing is asked here; unsaved changes stay. Returns how
        many known entries that concerns.
        """
        inode = self.namespace.root
        for name in path.split("/"):
            known = self.namespace.known_child(inode, name)
            if known is None:
                break  # what is not known by name is known to its directory's listing at most
            inode = known
        numbers = self.namespace.forget_answers(inode)
        for number in numbers:
            self.invalidate_attributes(number)
        return len(numbers)

    def forget(self, references: list[tuple[int, int]]) -> None:
        """The kernel dropped references to inodes; never raises."""
        for number, count in references:
            if self.namespace.forget(number, count):
                self._files.forget_pages(number)

    async def sync(self) -> None:
        """sync(1) of this mount: returns when everything dirty is in the bucket.

        Raises:
            UnsavedDataError: some could not be brought there; it stays dirty.
        """
        await self._files.sync()

    @property
    def pending_uploads(self) -> int:
        """Closed files that write-back has not uploaded yet."""
        return self._files.pending_uploads

    async def drain(self) -> None:
        """Commit every dirty file.

        Raises:
            UnsavedDataError: some could not be brought to the store; they were set aside.
        """
        await self._files.drain()

    async def close(self) -> None:
        """Free every open file; call :meth:`drain` first."""
        await self._files.close()

    def _check_writable(self) -> None:
        if self._read_only:
            raise ReadOnlyError("the mount is read-only")


def _nothing_cached(_inode: int) -> None:
    """The page invalidation of a filesystem that no kernel has mounted."""


async def _nothing_dropped(_inode: int) -> None:
    await trio.lowlevel.checkpoint()

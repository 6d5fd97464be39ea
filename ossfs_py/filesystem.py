"""POSIX operations in terms of the namespace and open files. Knows no pyfuse3 types.

Names come in as bytes and inodes as numbers; what goes out are the package's own types and
exceptions. Everything runs on the trio thread; state is looked at again after every await.
"""

import logging
import os
import stat
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from ossfs_py.datapath.base import DataPath, OpenFile
from ossfs_py.errors import (
    BadHandleError,
    IsADirectoryPathError,
    NotPermittedError,
    OssfsError,
    ReadOnlyError,
    UnsavedDataError,
)
from ossfs_py.model import AttributeChange, Attributes, CommitRequest, Condition, ObjectVersion
from ossfs_py.namespace import names
from ossfs_py.namespace.inode import Inode, Kind
from ossfs_py.namespace.namespace import DirectoryListing, Namespace
from ossfs_py.store.base import MIN_PART_BYTES, ObjectStore
from ossfs_py.transfer.workers import Workers

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FilesystemOptions:
    """What the mount promises to its users.

    ``fail_on_conflict``: refuse to overwrite a version the writer never saw.
    ``scratch_prefix``: where copies of deleted but open objects live, hidden from listings.
    """

    read_only: bool = False
    fail_on_conflict: bool = False
    scratch_prefix: str = ".ossfs-py-deleted-"


class _Open:
    """An inode that somebody has open, in one version."""

    __slots__ = ("exclusive", "file", "handles", "inode", "lock", "preserved", "seen")

    def __init__(self, inode: Inode, file: OpenFile) -> None:
        self.inode = inode
        self.file = file
        self.handles = 0
        # Held while the object's key or content changes at the store, never by readers.
        self.lock = trio.Lock()
        self.exclusive = False
        self.seen = file.version
        self.preserved: ObjectVersion | None = None

    def size(self) -> int:
        """Present size in bytes, uncommitted writes included."""
        return self.file.size


class Handle:
    """One open(2)."""

    __slots__ = ("keep_cache", "opened", "readable", "writable")

    def __init__(self, opened: _Open, flags: int, *, keep_cache: bool) -> None:
        access = flags & os.O_ACCMODE
        self.opened = opened
        self.readable = access != os.O_WRONLY
        self.writable = access != os.O_RDONLY
        self.keep_cache = keep_cache


class Filesystem:
    """One mounted bucket."""

    def __init__(
        self,
        namespace: Namespace,
        data_path: DataPath,
        store: ObjectStore,
        workers: Workers,
        options: FilesystemOptions,
    ) -> None:
        self.namespace = namespace
        self._data_path = data_path
        self._store = store
        self._workers = workers
        self._options = options
        self._open: dict[int, _Open] = {}
        self._all_open: set[_Open] = set()
        self._handles: dict[int, Handle] = {}
        self._directories: dict[int, DirectoryListing] = {}
        self._next_handle = 1
        self._kernel_pages: dict[int, str] = {}
        self.invalidate_pages: Callable[[int], None] = _nothing_cached

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
            async with self._changing(inode):
                await self.namespace.set_attributes(inode, change, defer=self._defers(inode))
                await self._follow_version(inode)
        return await self.namespace.attributes(inode)

    def _defers(self, inode: Inode) -> bool:
        """Whether changed attributes travel with an upload that has to come anyway."""
        opened = self._open.get(inode.number)
        return inode.local or (opened is not None and opened.file.dirty)

    async def _truncate(self, inode: Inode, size: int, handle: int | None) -> None:
        if inode.kind is Kind.DIRECTORY:
            raise IsADirectoryPathError("a directory has no size to change")
        if handle is not None and handle in self._handles:
            opened = self._handles[handle].opened
            await opened.file.truncate(size)
            self._note_written(opened)
            return
        opened = await self._opened(inode)
        opened.handles += 1
        try:
            await opened.file.truncate(size)
            self._note_written(opened)
            await self._commit(opened)
        finally:
            await self._let_go(opened)

    async def make_directory(
        self, parent: int, name: bytes, mode: int, uid: int, gid: int
    ) -> Inode:
        """mkdir(2)."""
        self._check_writable()
        directory = self.namespace.inode(parent)
        return await self.namespace.make_directory(directory, names.decode(name), mode, uid, gid)

    async def remove_directory(self, parent: int, name: bytes) -> None:
        """rmdir(2)."""
        self._check_writable()
        await self.namespace.remove_directory(self.namespace.inode(parent), names.decode(name))

    async def make_node(self, parent: int, name: bytes, mode: int, uid: int, gid: int) -> Inode:
        """mknod(2) of a regular file; the store has no other nodes."""
        self._check_writable()
        if not stat.S_ISREG(mode):
            raise NotPermittedError("an object store keeps no device nodes, pipes or sockets")
        inode = self.namespace.create_local(
            self.namespace.inode(parent), names.decode(name), stat.S_IMODE(mode), uid, gid
        )
        opened = await self._opened(inode)
        opened.handles += 1
        try:
            await self._commit(opened)
        finally:
            await self._let_go(opened)
        return inode

    async def make_symlink(
        self, parent: int, name: bytes, target: bytes, uid: int, gid: int
    ) -> Inode:
        """symlink(2)."""
        self._check_writable()
        directory = self.namespace.inode(parent)
        return await self.namespace.make_symlink(directory, names.decode(name), target, uid, gid)

    async def read_link(self, number: int) -> bytes:
        """readlink(2)."""
        return await self.namespace.read_link(self.namespace.inode(number))

    async def unlink(self, parent: int, name: bytes) -> None:
        """unlink(2); whoever has the file open goes on reading and writing it."""
        self._check_writable()
        directory = self.namespace.inode(parent)
        decoded = names.decode(name)
        inode = await self.namespace.lookup(directory, decoded)
        async with self._changing(inode):
            await self._preserve(inode)
            await self.namespace.unlink(directory, decoded)

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, *, no_replace: bool
    ) -> None:
        """rename(2); open files move along, an open target stays readable to its openers."""
        self._check_writable()
        source_dir, target_dir = self.namespace.inode(parent), self.namespace.inode(new_parent)
        old, new = names.decode(name), names.decode(new_name)
        inode = await self.namespace.lookup(source_dir, old)
        await self._commit_below(inode)
        # Only a known target can be open, and only an open one needs care.
        target = self.namespace.known_child(target_dir, new)
        async with self._changing(inode):
            if target is not None and target is not inode and not no_replace:
                await self._preserve(target)
            await self.namespace.rename(
                source_dir,
                old,
                target_dir,
                new,
                no_replace=no_replace,
                on_copied=self._follow_copies,
            )

    async def _commit_below(self, inode: Inode) -> None:
        """Bring dirty open files at or below ``inode`` to the store under their present keys.

        A file that was never stored moves without a request, whatever it holds.
        """
        for below in self.namespace.affected_by_rename(inode):
            opened = self._open.get(below.number)
            if opened is not None and opened.file.dirty and not below.local:
                await self._commit(opened)

    # -- open files ---------------------------------------------------------------------------

    async def open(self, number: int, flags: int) -> int:
        """open(2); returns a handle number."""
        writing = flags & os.O_ACCMODE != os.O_RDONLY
        if writing or flags & os.O_TRUNC:
            self._check_writable()
        inode = self.namespace.inode(number)
        if inode.kind is Kind.DIRECTORY:
            raise IsADirectoryPathError("a directory is not opened as a file")
        opened = await self._opened(inode)
        opened.handles += 1
        try:
            if flags & os.O_TRUNC:
                await opened.file.truncate(0)
                self._note_written(opened)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._let_go(opened)
            raise
        return self._new_handle(opened, flags)

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
        opened = await self._opened(inode)
        opened.handles += 1
        opened.exclusive = bool(flags & os.O_EXCL)
        return self._new_handle(opened, flags), inode

    async def _opened(self, inode: Inode) -> _Open:
        if not inode.local and not inode.removed:
            current = self._open.get(inode.number)
            if current is None or not current.file.dirty:
                await self.namespace.refresh_version(inode)
        current = self._open.get(inode.number)
        version = inode.info.version if inode.info is not None else None
        if current is not None and (
            current.file.dirty or inode.removed or current.file.version == version
        ):
            return current
        opened = _Open(inode, self._data_path.open(version))
        opened.file.begin(
            lambda: self._request(opened, streaming=True),
            lambda stored: self._stored(opened, stored),
        )
        self._open[inode.number] = opened
        self._all_open.add(opened)
        return opened

    def _new_handle(self, opened: _Open, flags: int) -> int:
        inode = opened.inode
        if flags & os.O_ACCMODE == os.O_RDWR:
            opened.file.expect_rereads()
        version = opened.file.version
        etag = version.etag if version is not None else ""
        keep_cache = opened.file.dirty or self._kernel_pages.get(inode.number) == etag
        self._kernel_pages[inode.number] = etag
        inode.open_count += 1
        number = self._next_handle
        self._next_handle += 1
        self._handles[number] = Handle(opened, flags, keep_cache=keep_cache)
        return number

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
        return self.handle(number).opened.file.read_nowait(offset, size)

    async def read(self, number: int, offset: int, size: int) -> memoryview | bytes:
        """pread(2); the view is valid until the caller's next checkpoint."""
        return await self.handle(number).opened.file.read(offset, size)

    async def write(self, number: int, offset: int, data: bytes) -> int:
        """pwrite(2)."""
        opened = self.handle(number).opened
        written = await opened.file.write(offset, data)
        self._note_written(opened)
        return written

    async def flush(self, number: int) -> None:
        """close(2) of one descriptor: returns when the object is complete in the bucket."""
        handle = self.handle(number)
        if handle.writable:
            await self._commit(handle.opened)

    async def fsync(self, number: int) -> None:
        """fsync(2): returns when the object is complete in the bucket."""
        await self._commit(self.handle(number).opened)

    async def release(self, number: int) -> None:
        """The last descriptor of an open(2) is gone; the kernel ignores what this raises."""
        handle = self._handles.pop(number, None)
        if handle is not None:
            handle.opened.inode.open_count -= 1
            await self._let_go(handle.opened)

    def _note_written(self, opened: _Open) -> None:
        inode = opened.inode
        inode.size_source = opened.size
        inode.touch(time.time_ns())

    async def _commit(self, opened: _Open) -> None:
        async with opened.lock:
            await self._commit_locked(opened)

    async def _commit_locked(self, opened: _Open) -> None:
        inode = opened.inode
        if inode.removed or not opened.file.dirty:
            return
        if inode.info is not None and inode.metadata is None:
            # What other tools stored beside the bytes is kept when the bytes are replaced.
            await self.namespace.ensure_metadata(inode)
        request = self._request(opened, streaming=opened.file.size >= MIN_PART_BYTES)
        version = await opened.file.commit(request)
        if version is None:
            return
        self._stored(opened, version, request)
        if inode.metadata_dirty and not opened.file.dirty:
            await self.namespace.flush_attributes(inode)
            await self._follow_version(inode)

    def _stored(
        self, opened: _Open, version: ObjectVersion, request: CommitRequest | None = None
    ) -> None:
        """The inode's bytes are in the bucket as ``version``."""
        inode = opened.inode
        opened.exclusive = False
        opened.seen = version
        self._kernel_pages[inode.number] = version.etag
        if self._open.get(inode.number) is opened:
            metadata = (request or self._request(opened, streaming=True)).metadata
            self.namespace.note_commit(inode, version, metadata)
        if not opened.file.dirty:
            inode.size_source = None

    def _request(self, opened: _Open, *, streaming: bool) -> CommitRequest:
        """How the file would be committed now.

        An upload that streams carries its metadata from its first part on: the time of the last
        write is not known then, and left to the store unless a program set it.
        """
        inode = opened.inode
        condition = Condition()
        if opened.exclusive:
            condition = Condition(only_if_absent=True)
        elif self._options.fail_on_conflict:
            if opened.seen is None:
                condition = Condition(only_if_absent=True)
            else:
                condition = Condition(only_if_etag=opened.seen.etag)
        return CommitRequest(
            key=self.namespace.key_of(inode),
            metadata=self.namespace.commit_metadata(inode, explicit_mtime_only=streaming),
            condition=condition,
        )

    async def _let_go(self, opened: _Open) -> None:
        """One user of an open inode less; the last one commits what is left and frees it."""
        opened.handles -= 1
        if opened.handles:
            return
        try:
            # Writes through a shared mapping arrive after the last flush.
            await self._commit(opened)
        except OssfsError as exc:
            self._set_aside(opened, exc)
        except OSError as exc:
            self._set_aside(opened, exc)
        if opened.handles:
            return  # reopened while the last bytes were on their way
        await self._forget_open(opened)

    def _set_aside(self, opened: _Open, cause: Exception) -> None:
        request = self._request(opened, streaming=False)
        kept = opened.file.set_aside(request)
        log.error(
            "%r could not be saved: %s; its data is kept in %s (see: ossfs-py recover)",
            request.key,
            cause,
            kept,
        )

    async def _forget_open(self, opened: _Open) -> None:
        inode = opened.inode
        self._all_open.discard(opened)
        if self._open.get(inode.number) is opened:
            del self._open[inode.number]
            inode.size_source = None
        if inode.removed:
            opened.file.abandon()
        elif inode.local and opened.file.version is None:
            self.namespace.drop_local(inode)
        await opened.file.close()
        if opened.preserved is not None:
            await self._workers.run(self._store.delete, opened.preserved.key)
        self.namespace.forget(inode.number, 0)

    # -- keys that change under open files ------------------------------------------------------

    @asynccontextmanager
    async def _changing(self, inode: Inode) -> AsyncIterator[None]:
        """Keep commits of an inode and changes of its name or metadata apart."""
        opened = self._open.get(inode.number)
        if opened is None:
            yield
            return
        async with opened.lock:
            yield

    async def _follow_version(self, inode: Inode) -> None:
        """Let an open file read on from where its object is now, same bytes."""
        if inode.info is not None:
            await self._follow_copies([(inode, inode.info.version)])

    async def _follow_copies(self, copies: list[tuple[Inode, ObjectVersion]]) -> None:
        for inode, version in copies:
            opened = self._open.get(inode.number)
            before = opened.file.version if opened is not None else None
            if opened is None or before is None or before.size != version.size:
                continue
            if before != version:
                await opened.file.preserve(version)
                opened.seen = version
                self._kernel_pages[inode.number] = version.etag

    async def _preserve(self, inode: Inode) -> None:
        """Before its key goes away, give an open object's readers a copy to read on from."""
        opened = self._open.get(inode.number)
        if opened is None:
            return
        version = opened.file.version
        if version is None or version.size == 0 or opened.preserved is not None:
            return
        key = f"{self._options.scratch_prefix}{uuid.uuid4().hex}"
        copy = await self._workers.run(self._store.copy, version, key)
        opened.preserved = copy
        await opened.file.preserve(copy)

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
        async with self._changing(inode):
            await self.namespace.set_xattr(inode, name, value, defer=self._defers(inode))
            await self._follow_version(inode)

    async def remove_xattr(self, number: int, name: bytes) -> None:
        """removexattr(2)."""
        self._check_writable()
        inode = self.namespace.inode(number)
        async with self._changing(inode):
            await self.namespace.remove_xattr(inode, name, defer=self._defers(inode))
            await self._follow_version(inode)

    # -- life ---------------------------------------------------------------------------------

    def note_remote_change(self, inode: Inode) -> None:
        """Another client replaced the object: the kernel's pages of it are worth nothing."""
        info = inode.info
        pages = self._kernel_pages.get(inode.number)
        if info is not None and pages is not None and pages != info.etag:
            del self._kernel_pages[inode.number]
            self.invalidate_pages(inode.number)

    def forget(self, references: list[tuple[int, int]]) -> None:
        """The kernel dropped references to inodes; never raises."""
        for number, count in references:
            self.namespace.forget(number, count)
            if number not in self._open:
                self._kernel_pages.pop(number, None)

    async def drain(self) -> None:
        """Commit every dirty file.

        Raises:
            UnsavedDataError: some could not be brought to the store; they were set aside.
        """
        unsaved = 0

        async def save(opened: _Open) -> None:
            nonlocal unsaved
            try:
                await self._commit(opened)
            except (OssfsError, OSError) as exc:
                self._set_aside(opened, exc)
                unsaved += 1

        async with trio.open_nursery() as nursery:
            for opened in tuple(self._all_open):
                nursery.start_soon(save, opened)
        if unsaved:
            raise UnsavedDataError(f"{unsaved} files could not be saved and were set aside")

    async def close(self) -> None:
        """Free every open file; call :meth:`drain` first."""
        for opened in tuple(self._all_open):
            await opened.file.close()
        self._all_open.clear()
        self._open.clear()

    def _check_writable(self) -> None:
        if self._options.read_only:
            raise ReadOnlyError("the mount is read-only")


def _nothing_cached(_inode: int) -> None:
    """The page invalidation of a filesystem that no kernel has mounted."""

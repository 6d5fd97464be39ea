"""POSIX operations on the namespace and open files: the only way in. Knows no pyfuse3.

Names come in as bytes, inodes and handles as numbers. Plain values, replies and the package's
exceptions go out. Everything runs on the trio thread. State is checked again after every await.
"""

import logging
import os
import stat
from collections.abc import Sequence
from contextlib import AbstractContextManager

import trio

from ossfs_py.datapath.base import DataPath
from ossfs_py.errors import (
    FilesystemError,
    InvalidArgumentError,
    NoSuchEntryError,
    NotADirectoryPathError,
    StaleInodeError,
    StoreError,
)
from ossfs_py.filesystem.atonce import AtOnce
from ossfs_py.filesystem.behind import Behind
from ossfs_py.filesystem.changes import Changes
from ossfs_py.filesystem.commits import Commits
from ossfs_py.filesystem.description import FileDescription, Refreshed, path_in, path_of
from ossfs_py.filesystem.directories import Directories, TakeEntry
from ossfs_py.filesystem.handlenumbers import HandleNumbers
from ossfs_py.filesystem.handles import Handles
from ossfs_py.filesystem.kernelcache import KernelCache, KernelChannel
from ossfs_py.filesystem.openinode import OpenInode
from ossfs_py.filesystem.openinodes import Opener, OpenInodes
from ossfs_py.filesystem.options import FilesystemOptions
from ossfs_py.filesystem.owedentries import OwedEntries
from ossfs_py.filesystem.passthrough import Passthrough
from ossfs_py.filesystem.preserved import PreservedFiles
from ossfs_py.filesystem.promptness import Promptness
from ossfs_py.filesystem.protection import Protection
from ossfs_py.filesystem.removals import Removals
from ossfs_py.filesystem.renaming import Renaming
from ossfs_py.filesystem.replies import EntryReply, OpenReply, Replies
from ossfs_py.filesystem.siblings import OpenWatcher
from ossfs_py.filesystem.trash import Trash
from ossfs_py.filesystem.twins import Twins
from ossfs_py.filesystem.unlinking import Unlinking
from ossfs_py.filesystem.writeback import WriteBackQueue
from ossfs_py.model import NO_CHANGE, AttributeChange, ObjectVersion
from ossfs_py.namespace import names
from ossfs_py.namespace.claims import Claims
from ossfs_py.namespace.inode import Inode, Kind
from ossfs_py.namespace.namespace import Namespace
from ossfs_py.runtime.arrived import Written
from ossfs_py.runtime.descriptors import Descriptors
from ossfs_py.runtime.scattered import Answer
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import ObjectStore
from ossfs_py.writing.groupsync import GroupSync
from ossfs_py.writing.journal import Journal

log = logging.getLogger(__name__)


class Filesystem:
    """One mounted bucket.

    A reply about an inode that was looked up, made or listed gives the kernel a reference to it,
    which :meth:`forget` takes back.
    """

    renames_behind = True  # with write-back

    def __init__(
        self,
        namespace: Namespace,
        data_path: DataPath,
        store: ObjectStore,
        workers: Workers,
        journal: Journal,
        kernel: KernelCache,
        options: FilesystemOptions,
        *,
        write_back: WriteBackQueue[OpenInode] | None = None,
        group_sync: GroupSync | None = None,
        foresight: Sequence[OpenWatcher] = (),
        descriptors: Descriptors | None = None,
    ) -> None:
        """``namespace`` reports to ``kernel`` what others replaced; ``workers`` make store calls;
        ``write_back`` needs ``group_sync``, which alone defers removals; ``foresight`` is told of
        files opened for reading; ``descriptors``, if given, limits those for writing.
        """
        self._namespace = namespace
        self._kernel = kernel
        self.has_xattrs = options.xattrs
        """Whether extended attributes can be read and set."""
        self.protection = Protection(options.protect, read_only=options.read_only)
        self.trash = trash = Trash(store, workers, options.trash_prefix)
        claims, self._numbers = Claims(), HandleNumbers()
        self._opened = OpenInodes()
        self._owed = OwedEntries(namespace, claims, group_sync, write_back)
        self._commits = Commits(
            self._opened,
            namespace,
            data_path,
            claims,
            kernel,
            options.conflicts,
            trash,
            Twins(namespace, is_on=options.dedup),
            self._owed,
            write_back,
            record_writer=options.record_writer,
        )
        preserved = PreservedFiles(
            self._opened, self._commits, store, workers, journal, options.scratch_prefix
        )
        self._behind = Behind()
        self._removals = Removals(
            self._opened,
            namespace,
            self._commits,
            preserved,
            self._behind,
            store,
            workers,
            journal,
            trash,
            self._owed,
            group_sync,
            copied_bytes=options.copied_bytes,
        )
        self._opener = Opener(
            self._opened, namespace, data_path, kernel, self._commits, self._removals
        )
        self._changes = Changes(self._opened, namespace, claims, self._commits, self.protection)
        self.unlinking = Unlinking(
            namespace,
            self._changes,
            self.protection,
            self._removals,
            self._owed,
            self._opener.release,
        )
        behind = self._behind if self.renames_behind and write_back is not None else None
        if behind is not None:
            namespace.removed.put_off = self._removals.put_off_moved
        self._renaming = Renaming(
            self._opened,
            namespace,
            claims,
            self._commits,
            self._owed,
            preserved,
            trash,
            behind,
            group_sync,
            data_path.copied,
        )
        self.replies = Replies(namespace, kernel)
        self._passthrough = Passthrough(kernel, is_on=options.passthrough)
        self._handles = Handles(
            namespace,
            self._opener,
            self._commits,
            self._changes,
            kernel,
            self._numbers,
            foresight,
            descriptors or Descriptors(),
            self._behind,
            self._passthrough,
            self._owed,
        )
        self.ask = self._handles.ask
        """See :meth:`Handles.ask`."""
        self._directories = Directories(namespace, self.replies, self._numbers)
        opened, handles, changes, owed = self._opened, self._handles, self._changes, self._owed
        self.promptness = Promptness(namespace, opened, handles, self._commits, data_path)
        self.at_once = AtOnce(namespace, handles, changes, owed, kernel, self.replies)

    # -- names --------------------------------------------------------------------------------

    async def lookup(self, parent: int, name: bytes) -> EntryReply:
        """The entry of a name."""
        began = trio.current_time()
        directory = self._namespace.inode(parent)
        if name in (b".", b".."):
            shown = directory if name == b"." else directory.parent or directory
            return await self._introduced(shown, began)
        decoded = names.decode(name)
        self._namespace.kernel_asks(directory, decoded)
        return await self._introduced(await self._namespace.lookup(directory, decoded), began)

    def absent_seconds(self, parent: int, name: bytes) -> float:
        """How long the kernel may cache that a name is absent, which :meth:`lookup` did not find;
        0: it asks again. The kernel is told if the name appears in the meantime.
        """
        return self._namespace.tell_absent(self._namespace.inode(parent), names.decode(name))

    async def _introduced(self, inode: Inode, began: float) -> EntryReply:
        """A reply that gives the kernel a reference to the inode; its request came at ``began``."""
        reply = self.replies.fresh_nowait(inode, began) or await self.replies.fresh(inode, began)
        self._namespace.remember(inode)
        return reply

    def forget(self, references: Sequence[tuple[int, int]]) -> None:
        """The kernel dropped references to inodes; never raises."""
        for number, count in references:
            if self._namespace.forget(number, count) and not self._opened.knows(number):
                self._kernel.forget(number)

    async def make_directory(
        self, parent: int, name: bytes, mode: int, uid: int, gid: int
    ) -> EntryReply:
        """mkdir(2)."""
        self.protection.require_writable()
        began = trio.current_time()
        directory, decoded = self._namespace.inode(parent), names.decode(name)
        async with self._changes.within(directory):
            made = await self._owed.make_directory(directory, decoded, mode, uid, gid)
        return await self._introduced(made, began)

    async def remove_directory(self, parent: int, name: bytes) -> None:
        """rmdir(2)."""
        await self.unlinking.remove_directory(parent, name)

    async def make_node(
        self, parent: int, name: bytes, mode: int, uid: int, gid: int
    ) -> EntryReply:
        """mknod(2) of a regular file, a FIFO or a socket."""
        self.protection.require_writable()
        began = trio.current_time()
        directory, decoded = self._namespace.inode(parent), names.decode(name)
        if not stat.S_ISREG(mode):
            async with self._changes.within(directory):
                made = await self._namespace.make_special(directory, decoded, mode, uid, gid)
            return await self._introduced(made, began)
        await self._changes.vacated(directory, decoded)
        inode = self._namespace.create_local(directory, decoded, stat.S_IMODE(mode), uid, gid)
        await self._handles.store_new(inode)
        return await self._introduced(inode, began)

    async def make_symlink(
        self, parent: int, name: bytes, target: bytes, uid: int, gid: int
    ) -> EntryReply:
        """symlink(2)."""
        self.protection.require_writable()
        began = trio.current_time()
        directory, decoded = self._namespace.inode(parent), names.decode(name)
        async with self._changes.within(directory):
            made = await self._owed.make_symlink(directory, decoded, target, uid, gid)
        return await self._introduced(made, began)

    async def read_link(self, number: int) -> bytes:
        """readlink(2)."""
        return await self._namespace.read_link(self._namespace.inode(number))

    async def unlink(self, parent: int, name: bytes) -> None:
        """unlink(2); programs with the file open continue to read and write it."""
        await self.unlinking.unlink(parent, name)

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, *, no_replace: bool
    ) -> None:
        """rename(2); open files move along, an open target stays readable to its openers."""
        self.protection.require_writable()
        source_dir, target_dir = self._namespace.inode(parent), self._namespace.inode(new_parent)
        old, new = names.decode(name), names.decode(new_name)
        self.protection.refuse("rename", "rename", path_in(source_dir, old))
        if self.protection.forbids("overwrite") and not no_replace:
            await self._changes.refuse_replacing(source_dir, old, target_dir, new)
            no_replace = True  # not even a file that others store under the name in the meantime
        await self._renaming.rename(source_dir, old, target_dir, new, no_replace=no_replace)

    # -- attributes ---------------------------------------------------------------------------

    async def attributes(self, number: int) -> EntryReply:
        """stat(2) of an inode; gives no reference."""
        began = trio.current_time()
        inode = self._namespace.inode_or_stale(number)
        if inode.stale:
            await self._handles.settle_nameless(inode)
        return self.replies.fresh_nowait(inode, began) or await self.replies.fresh(inode, began)

    async def set_attributes(
        self, number: int, change: AttributeChange, size: int | None, handle: int | None
    ) -> EntryReply:
        """chmod, chown, utimens and truncate in one, as the kernel asks for them."""
        self.protection.require_writable()
        began = trio.current_time()
        inode = self._namespace.inode(number)
        if size is not None:
            if not self._handles.is_making(handle):
                self.protection.refuse("overwrite", "truncate", path_of(inode))
            await self._handles.truncate(inode, size, handle)
        if change != NO_CHANGE:
            self._changes.refuse_change("a change of attributes", inode)
            await self._changes.set_attributes(inode, change)
            await self._owed.changed(inode)
        return self.replies.fresh_nowait(inode, began) or await self.replies.fresh(inode, began)

    async def get_xattr(self, number: int, name: bytes) -> bytes:
        """getxattr(2)."""
        return await self._namespace.get_xattr(self._namespace.inode(number), name)

    def lacks_xattr(self, number: int, name: bytes) -> FilesystemError | None:
        """The error that :meth:`get_xattr` raises without waiting, if it is known to."""
        return self._namespace.lacks_xattr(number, name) if self.has_xattrs else None

    async def list_xattrs(self, number: int) -> list[bytes]:
        """listxattr(2)."""
        return await self._namespace.list_xattrs(self._namespace.inode(number))

    async def set_xattr(self, number: int, name: bytes, value: bytes) -> None:
        """setxattr(2)."""
        self.protection.require_writable()
        inode = self._namespace.inode(number)
        self._changes.refuse_change("setxattr", inode)
        async with self._changes.of_metadata(inode) as defer:
            await self._namespace.set_xattr(inode, name, value, defer=defer)
        await self._owed.changed(inode)

    async def remove_xattr(self, number: int, name: bytes) -> None:
        """removexattr(2)."""
        self.protection.require_writable()
        inode = self._namespace.inode(number)
        self._changes.refuse_change("removexattr", inode)
        async with self._changes.of_metadata(inode) as defer:
            await self._namespace.remove_xattr(inode, name, defer=defer)
        await self._owed.changed(inode)

    # -- open files ---------------------------------------------------------------------------

    async def open(self, number: int, flags: int, uid: int) -> OpenReply:
        """open(2) by a user."""
        if flags & (os.O_ACCMODE | os.O_TRUNC):
            self.protection.require_writable()
            self._changes.refuse_writing(self._namespace.inode(number))
        return await self._handles.open(self._namespace.inode(number), flags, uid)

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, uid: int, gid: int
    ) -> tuple[OpenReply, EntryReply]:
        """open(2) with O_CREAT of a name that the kernel has just looked up, and not found."""
        self.protection.require_writable()
        began = trio.current_time()
        directory, decoded = self._namespace.inode(parent), names.decode(name)
        await self._changes.vacated(directory, decoded)
        inode = self._namespace.known_child(directory, decoded)
        if inode is not None and not flags & os.O_EXCL:
            if flags & (os.O_ACCMODE | os.O_TRUNC):
                self._changes.refuse_writing(inode)
            opened = await self._handles.open(inode, flags, uid)
        else:
            opened, inode = self._handles.make(directory, decoded, mode, flags, uid, gid)
        return opened, await self._introduced(inode, began)

    def read_nowait(self, handle: int, offset: int, size: int) -> Answer | None:
        """The bytes if they are in memory; None if :meth:`read` would have to wait."""
        descriptor = self._handles.get(handle)  # directly: this is the most frequent call
        opened = descriptor.opened
        data = opened.content.read_nowait(offset, size)
        if data is not None:
            if len(data) < size and self._kernel.must_not_end(
                opened.inode, offset + len(data), trio.current_time(), descriptor.opened_at
            ):
                return None  # :meth:`read` raises the error
            if opened.may_be_link:
                return None  # the metadata of the first bytes is not checked yet
            if not opened.inode.settled:
                if self._opener.may_mix(opened):
                    return None  # :meth:`read` prevents it
                opened.inode.settled = True
            self._kernel.gave_bytes(opened.inode)
        return data

    async def read(self, handle: int, offset: int, size: int) -> memoryview | bytes:
        """pread(2); the view is valid until the caller's next checkpoint."""
        return await self._handles.read(handle, offset, size)

    async def write(self, handle: int, offset: int, data: Written) -> int:
        """pwrite(2); the caller may reuse ``data`` after the return."""
        return await self._handles.write(handle, offset, data)

    def mode_without_rights(self, number: int) -> int | None:
        """The mode of a file without setuid and setgid; None if neither is set."""
        return self._handles.mode_without_rights(self._namespace.inode(number))

    async def take_rights(self, handle: int) -> None:
        """Clear setuid and setgid: a user without the right to set them changes the file."""
        await self._handles.take_rights(handle)

    async def copy_range(self, target: int, start: int, source: int, begin: int, size: int) -> int:
        """copy_file_range(2) from handle to handle; see :meth:`Handles.copy_range`."""
        return await self._handles.copy_range(target, start, source, begin, size)

    async def flush(self, handle: int) -> None:
        """close(2) of one descriptor: its writes are in the bucket, or safe with write-back."""
        await self._handles.flush(handle)

    async def fsync(self, handle: int) -> None:
        """fsync(2): returns when the object is complete in the bucket."""
        await self._handles.fsync(handle)

    def only_reads(self, handle: int) -> bool:
        """Whether a release stores and removes nothing, and waits for nothing."""
        return self._handles.only_reads(handle)

    async def release(self, handle: int) -> None:
        """The last descriptor of an open(2) is gone; the kernel ignores what this raises."""
        await self._handles.release(handle)

    # -- directories --------------------------------------------------------------------------

    def open_directory(self, number: int) -> int:
        """opendir(3); returns a handle number."""
        return self._directories.open(self._namespace.inode(number))

    async def read_directory(self, handle: int, start: int, take: TakeEntry) -> None:
        """readdir(3) from an offset on, until the end or until ``take`` has no room.

        Each entry taken gives the kernel a reference, except ``.`` and ``..``.
        """
        await self._directories.read(handle, start, take)

    def release_directory(self, handle: int) -> None:
        """closedir(3)."""
        self._directories.release(handle)

    # -- requests of people -------------------------------------------------------------------

    def path(self, number: int) -> str:
        """The path below the mountpoint, from ``/`` on.

        Raises:
            StaleInodeError: the inode is not known.
        """
        return path_of(self._namespace.inode_or_stale(number))

    def path_of_handle(self, handle: int) -> str:
        """The path of an open file, as of now; BadHandleError if there is none."""
        return path_of(self._handles.get(handle).opened.inode)

    def path_of_directory(self, handle: int) -> str:
        """The path of an open directory, as of now; BadHandleError if there is none."""
        return path_of(self._directories.get(handle))

    async def describe(self, path: str) -> FileDescription:
        """Everything known of a path relative to the mountpoint; the store is asked.

        Raises:
            InvalidArgumentError: the path is not a relative one.
            NoSuchEntryError, NotADirectoryPathError, StoreError
        """
        inode = await self._find(path)
        attributes = await self._namespace.attributes(inode)
        if inode.info is not None:
            try:
                await self._namespace.ensure_metadata(inode)
            except StaleInodeError:
                # A name listed as a file turned out to be a link, or was replaced just now.
                inode = await self._find(path)
                attributes = await self._namespace.attributes(inode)
            except StoreError as exc:
                # The listed attributes are useful without the metadata.
                log.info("the metadata of %r stays unknown: %s", path, exc)
        opened = self._opened.current(inode)
        return FileDescription(
            kind=inode.kind.value,
            key=self._namespace.key_of(inode),
            attributes=attributes,
            info=inode.info,
            metadata=inode.metadata,
            is_open=opened is not None,
            open_handles=inode.open_count,
            unsaved=opened is not None and opened.file.dirty,
        )

    async def version_at(self, path: str) -> ObjectVersion:
        """The version that an open of a path, relative to the mountpoint, would read now.

        Raises:
            InvalidArgumentError: the path is not a relative one, or leads to no file.
            NoSuchEntryError, NotADirectoryPathError, StoreError
        """
        inode = await self._find(path)
        if inode.kind is not Kind.FILE:
            raise InvalidArgumentError("it is no file")
        return (await self._namespace.refresh_version(inode)).version

    async def _find(self, path: str) -> Inode:
        segments = [segment for segment in path.split("/") if segment not in {"", "."}]
        if path.startswith("/") or ".." in segments:
            raise InvalidArgumentError(f"{path!r} is not a path below the mountpoint")
        inode = self._namespace.root
        for segment in segments:
            inode = await self._namespace.lookup(inode, segment)
        return inode

    async def refresh(self, path: str) -> Refreshed:
        """Drop everything cached at and below a path relative to the mountpoint; unsaved changes
        stay. Then looks up the path itself, and returns when the kernel knows the result.

        Raises:
            InvalidArgumentError, NoSuchEntryError, NotADirectoryPathError, StoreError: the lookup
                failed; the cached state is dropped all the same. A path that was known, and is
                gone, is no error.
        """
        inode = self._namespace.root
        is_known = True
        for name in path.split("/"):
            known = self._namespace.known_child(inode, name)
            if known is None:
                # A path that is not known by name is at most in the listing of its directory.
                is_known = name in {"", "."}
                break
            inode = known
        nodes = self._namespace.forget_answers(inode)
        for node in filter(self._namespace.inodes.is_told, nodes):
            self._kernel.invalidate_attributes(node.number)
        is_gone = False
        try:
            await self._find(path)
        except (NoSuchEntryError, NotADirectoryPathError):
            if not is_known:
                raise
            is_gone = True
        await self._kernel.told()
        return Refreshed(len(nodes), is_gone)

    # -- life ---------------------------------------------------------------------------------

    def mounted_through(self, channel: KernelChannel) -> AbstractContextManager[None]:
        """Inside the block, a kernel has it mounted, and can be told to forget things."""
        return self._kernel.attached(channel)

    def take_over(self) -> None:
        """Hide objects that earlier mounts removed and the store still has; blocks shortly."""
        self._removals.take_over()

    async def run(self) -> None:
        """Background work, until cancelled: queued write-back, and deletions."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._removals.put_off.run)
            nursery.start_soon(self._owed.run)
            nursery.start_soon(self._commits.run, self._opener.release)

    async def removals_tried(self) -> None:
        """Wait until the store has deleted earlier removals, or has failed to."""
        await self._removals.put_off.tried()

    async def sync(self) -> None:
        """sync(1) of this mount: returns when all dirty files are in the bucket.

        Raises:
            UnsavedDataError: some files could not be stored; they stay dirty.
        """
        await self._namespace.moves.tried()
        await self._commits.sync()
        await self._removals.put_off.done()
        await self._owed.done()
        self._namespace.moves.require_none()

    @property
    def open_files(self) -> int:
        """Files that are open or wait for write-back; several handles of one file count once."""
        return len(self._opened)

    @property
    def unsaved_files(self) -> int:
        """Files with changes, directories, links and renames that are not in the bucket yet."""
        return self._opened.unsaved_count + len(self._owed) + len(self._namespace.moves)

    @property
    def pending_uploads(self) -> int:
        """Closed files that write-back has not uploaded yet."""
        return self._commits.pending_uploads

    async def drain(self) -> None:
        """Commit every dirty file.

        Raises:
            UnsavedDataError: some files could not be stored; they were set aside.
        """
        await self._namespace.moves.finish()
        try:
            await self._commits.drain()
        finally:
            await self._removals.put_off.tried()
            await self._owed.tried()
        self._namespace.moves.require_none("; the next mount renames them")
        self._owed.require_none("; the next mount makes them")

    async def close(self) -> None:
        """Free every open file; call :meth:`drain` first."""
        self._namespace.moves.give_up()
        await self._behind.settled()
        await self._opener.close()
        self._passthrough.close()

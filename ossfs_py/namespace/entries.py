"""Making and removing entries: directories, local files, symlinks, unlink."""

import logging
import stat
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress

from ossfs_py.errors import (
    ConditionFailedError,
    DirectoryNotEmptyError,
    EntryExistsError,
    InvalidArgumentError,
    IsADirectoryPathError,
    MetadataTooLargeError,
    NameTooLongError,
    NoSuchEntryError,
    NotADirectoryPathError,
    NotPermittedError,
    RangeTooLargeError,
    ReadOnlyError,
    StaleInodeError,
    StoreError,
    UnsupportedByStoreError,
)
from ossfs_py.model import (
    ALWAYS,
    IF_ABSENT,
    MARKER_CONTENT_TYPE,
    CommitRequest,
    Condition,
    ListQuery,
    ObjectInfo,
    ObjectVersion,
)
from ossfs_py.namespace import metadata
from ossfs_py.namespace.attributes import (
    KIND_OF_TYPE,
    SYMLINK_PERMISSIONS,
    full_mode,
    stored_metadata,
)
from ossfs_py.namespace.inode import Inode, Kind
from ossfs_py.namespace.keys import require_key
from ossfs_py.namespace.listing.merge import LOCAL
from ossfs_py.namespace.metadata import decode as decode_metadata
from ossfs_py.namespace.names import decode as decode_name
from ossfs_py.namespace.names import is_nameable, require_nameable
from ossfs_py.namespace.removed import RemovedKeys
from ossfs_py.namespace.resolver import Resolver
from ossfs_py.namespace.tree import LONGEST_TARGET_BYTES, Tree
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import InlineWrites, ObjectStore
from ossfs_py.store.putting import PutJob

log = logging.getLogger(__name__)

_PERMISSION_BITS = 0o7777
_MAX_LINKS = 40
"""Links that Linux follows in one path (MAXSYMLINKS)."""


def _segments(path: bytes) -> list[bytes]:
    """The steps of a relative path.

    Raises:
        NoSuchEntryError: it begins at the root, and who knows where that is from here.
    """
    if path.startswith(b"/"):
        raise NoSuchEntryError(f"{path!r} is no path relative to a directory of this mount")
    return [segment for segment in path.split(b"/") if segment not in (b"", b".")]


class Entries:
    """The operations that add and remove names."""

    def __init__(
        self,
        store: ObjectStore,
        workers: Workers,
        tree: Tree,
        resolver: Resolver,
        removed: RemovedKeys,
        puts: InlineWrites | None,
    ) -> None:
        self.removed = removed
        self._puts = puts
        self._store = store
        self._workers = workers
        self._tree = tree
        self._resolver = resolver

    # -- checks shared with rename ----------------------------------------------------------------

    def require_writable(self) -> None:
        """Raises ReadOnlyError on a read-only mount."""
        if self._tree.options.read_only:
            raise ReadOnlyError("the mount is read-only")

    def new_key(self, parent: Inode, name: str) -> str:
        """The key a new entry will have.

        Raises:
            NotADirectoryPathError, NoSuchEntryError, NameTooLongError, InvalidArgumentError,
            NotPermittedError: for the mount's own scratch names.
        """
        if parent.kind is not Kind.DIRECTORY:
            raise NotADirectoryPathError(f"{parent.name!r} is no directory")
        if parent.stale:
            raise StaleInodeError(f"directory {parent.name!r} was removed by others")
        if parent.removed:
            raise NoSuchEntryError(f"directory {parent.name!r} was removed")
        require_nameable(name)
        if self._tree.keys.is_reserved(parent, name):
            raise NotPermittedError(f"names like {name!r} are the mount's own")
        return self._tree.keys.child_key(parent, name)

    async def find(self, parent: Inode, name: str) -> Inode:
        """The entry to act on: as it is known, asking the store only for unknown names."""
        known = None if parent.removed else self._tree.table.child(parent, name)
        return known if known is not None else await self._resolver.lookup(parent, name)

    async def find_target(self, parent: Inode, name: str) -> Inode | None:
        """The inode that has the name now, or None; a lookup just before is not repeated."""
        if self._tree.may_be_created(parent, name) is not None:
            return None
        try:
            return await self._resolver.lookup(parent, name)
        except NoSuchEntryError:
            return None

    # -- making -----------------------------------------------------------------------------------

    def create_local(self, parent: Inode, name: str, mode: int, uid: int, gid: int) -> Inode:
        """A file that exists here and will be stored at its first commit. No request.

        Precondition: the caller has looked the name up and it is free.

        Raises:
            EntryExistsError, ReadOnlyError, and what :meth:`new_key` raises.
        """
        self.require_writable()
        self.new_key(parent, name)
        if self._tree.table.child(parent, name) is not None:
            raise EntryExistsError(f"{name!r} exists")
        inode = self._tree.table.new(parent, name, Kind.FILE)
        inode.local = inode.transient = True
        inode.mode = mode & _PERMISSION_BITS
        inode.uid = uid
        inode.gid = self._group_of_directory(parent, gid)
        inode.atime_ns = inode.mtime_ns = inode.ctime_ns = time.time_ns()
        self._tree.changed(inode, new=True)
        return inode

    async def make_directory(
        self, parent: Inode, name: str, mode: int, uid: int, gid: int, *, put_off: bool
    ) -> Inode:
        """Write a marker and show the directory. Cancelled, the marker may be there or not.

        ``put_off``: the marker is to come later.

        Raises:
            EntryExistsError, ReadOnlyError, StoreError, and what :meth:`new_key` raises.
        """
        stored = self._of_new_directory(parent, mode, uid, gid)
        return await self._make(parent, name, Kind.DIRECTORY, stored, put_off=put_off)

    def make_directory_nowait(
        self, parent: Inode, name: str, mode: int, uid: int, gid: int
    ) -> Inode | None:
        """As :meth:`make_directory`, whose marker is to come later, if nothing has to be asked or
        waited for; None: nothing has happened.
        """
        self.require_writable()
        require_key(self.new_key(parent, name) + "/")
        free_since = self._tree.may_be_created(parent, name)
        if free_since is None:
            return None
        stored = self._of_new_directory(parent, mode, uid, gid)
        return self._made(parent, name, Kind.DIRECTORY, stored, None, free_since)

    async def make_symlink(
        self,
        parent: Inode,
        name: str,
        target: bytes,
        uid: int,
        gid: int,
        *,
        put_off: bool = False,
    ) -> Inode:
        """Write a zero-byte object that carries ``target`` in its metadata.

        ``put_off``: the object is to come later.

        Raises:
            NameTooLongError: the target does not fit an object's metadata.
            EntryExistsError, ReadOnlyError, StoreError, and what :meth:`new_key` raises.
        """
        now_ns = time.time_ns()
        try:
            stored = metadata.encode(
                mode=stat.S_IFLNK | SYMLINK_PERMISSIONS,
                uid=uid,
                gid=self._group_of_directory(parent, gid),
                mtime_ns=now_ns,
                ctime_ns=now_ns,
                symlink_target=target,
            )
        except RangeTooLargeError as exc:
            raise NameTooLongError(f"a symlink target of {len(target)} bytes: {exc}") from exc
        try:
            return await self._make(parent, name, Kind.SYMLINK, stored, put_off=put_off)
        except MetadataTooLargeError as exc:
            log.warning("%s", exc)
            raise NameTooLongError(f"a symlink target of {len(target)} bytes: {exc}") from exc

    async def make_special(self, parent: Inode, name: str, mode: int, uid: int, gid: int) -> Inode:
        """Write a zero-byte object whose ``mode`` says that it is a FIFO or a socket.

        The kernel sees to what goes through it: programs on one host meet there, no others.

        Raises:
            NotPermittedError: another kind of node, which no bucket keeps.
            EntryExistsError, ReadOnlyError, StoreError, and what :meth:`new_key` raises.
        """
        kind = KIND_OF_TYPE.get(stat.S_IFMT(mode))
        if kind is not Kind.FIFO and kind is not Kind.SOCKET:
            raise NotPermittedError("an object store keeps no device nodes")
        now_ns = time.time_ns()
        stored = metadata.encode(
            mode=mode,
            uid=uid,
            gid=self._group_of_directory(parent, gid),
            mtime_ns=now_ns,
            ctime_ns=now_ns,
        )
        return await self._make(parent, name, kind, stored)

    async def read_link(self, inode: Inode) -> bytes:
        """A symlink's target.

        Raises:
            InvalidArgumentError: no symlink, or one without a usable target.
            NoSuchEntryError, StoreError
        """
        if inode.kind is not Kind.SYMLINK:
            raise InvalidArgumentError(f"{inode.name!r} is no symbolic link")
        await self._resolver.ensure_metadata(inode)
        target = inode.known_target
        if target is None:
            info = inode.info
            if info is None or not 0 < info.size <= LONGEST_TARGET_BYTES:
                raise InvalidArgumentError(f"symbolic link {inode.name!r} has no usable target")
            buffer = bytearray(info.size)
            await self._workers.run(self._store.get_range_into, info.version, 0, memoryview(buffer))
            # s3fs strips white space around the stored target, and so do we.
            target = inode.link_target = bytes(buffer).strip()
        return target

    async def follow(
        self, inode: Inode, told: ObjectInfo, content: bytes
    ) -> tuple[list[Inode], Inode]:
        """See :meth:`Namespace.follow`."""
        left = _MAX_LINKS
        node = inode.parent
        target = decode_metadata(told.metadata or {}).symlink_target or content.strip()
        passed: list[Inode] = []
        segments = deque(_segments(target))
        while node is not None and segments:
            if node.kind is Kind.DIRECTORY:
                passed.append(node)
            segment = segments.popleft()
            if segment == b"..":
                node = node.parent
                continue
            child = await self._resolver.lookup(node, decode_name(segment))
            if self._tree.may_be_link(child):
                # Its name leads to another inode from now on if it is one.
                with suppress(StaleInodeError):
                    await self._resolver.ensure_metadata(child)
                child = await self._resolver.lookup(node, decode_name(segment))
            if child.kind is not Kind.SYMLINK:
                node = child
                continue
            left -= 1
            if not left:
                break
            segments.extendleft(reversed(_segments(await self.read_link(child))))
        if node is None or node.kind is not Kind.FILE or not left:
            raise NoSuchEntryError(f"{inode.name!r} leads to no file of this mount")
        return passed, node

    # -- removing ---------------------------------------------------------------------------------

    async def unlink(self, parent: Inode, name: str) -> Inode:
        """Delete a file or symlink. A file that was never stored costs no request.

        Raises:
            IsADirectoryPathError, NoSuchEntryError, ReadOnlyError, StoreError
        """
        self.require_writable()
        inode = await self.find(parent, name)
        if inode.kind is Kind.DIRECTORY:
            raise IsADirectoryPathError(f"{name!r} is a directory")
        if inode.local and not inode.shadows:
            self._tree.unlinked(inode)
            return inode
        await self._workers.run(self._store.delete, self._tree.keys.key_of(inode))
        self._tree.unlinked(inode)
        await self.keep_visible(parent)
        return inode

    async def remove_directory(self, parent: Inode, name: str) -> None:
        """Delete an empty directory's marker.

        Raises:
            NotADirectoryPathError, DirectoryNotEmptyError, NoSuchEntryError, ReadOnlyError,
            StoreError
        """
        self.require_writable()
        inode = await self.find(parent, name)
        if inode.kind is not Kind.DIRECTORY:
            raise NotADirectoryPathError(f"{name!r} is no directory")
        await self.require_empty(inode)
        await self._workers.run(self._store.delete, self._tree.keys.marker_key_of(inode))
        self._tree.unlinked(inode)
        await self.keep_visible(parent)

    async def require_empty(self, directory: Inode) -> None:
        """Raises DirectoryNotEmptyError if anything is in it, here or in the store.

        What no listing shows is told in the log: the caller only sees an empty directory that
        cannot be removed.
        """
        prefix = self._tree.keys.marker_key_of(directory)
        await self.removed.make_room_of_moved(prefix)
        below = (node for node in self._tree.table.below(directory) if node is not directory)
        if any(node.local or node.moving for node in below):
            raise DirectoryNotEmptyError(f"directory {prefix!r} is not empty")
        found = await self._resolver.first_below(directory)
        if found is None:
            return
        if found == prefix:
            log.warning(
                "directory %r is not removed: its marker object has content, which would be lost."
                " Delete that object with another client",
                prefix,
            )
        elif not is_nameable(found[len(prefix) :].partition("/")[0]):
            log.warning(
                "directory %r is not removed: it holds keys that no path can name, such as %r."
                " Delete them with another client",
                prefix,
                found,
            )
        raise DirectoryNotEmptyError(f"directory {prefix!r} holds {found!r}")

    async def keep_visible(self, directory: Inode, *, put_off: bool = False) -> bool:
        """Write a marker if nothing else shows the directory any more; with ``put_off`` the
        directory is known here only instead, and True says that its marker is to come later.

        Asks the store only when neither a marker nor a fresh listing is known. A failure is
        logged, not raised: what the caller removed is removed.
        """
        try:
            if await self._is_shown(directory):
                return False
            if not put_off:
                await self.write_marker(directory)
            elif not (directory.local or directory.removed):
                stored = stored_metadata(directory, self._tree.options, with_times=True)
                self._known_here_only(directory, stored)
                return True
        except StoreError as exc:
            prefix = self._tree.keys.marker_key_of(directory)
            log.warning("directory %r may vanish now that it is empty: %s", prefix, exc)
        return False

    def stays_shown(self, directory: Inode, without: str) -> bool:
        """Whether it is known that a directory needs no new marker when an entry is removed."""
        return self._is_known_shown(directory, without) is True

    async def write_marker(self, inode: Inode) -> None:
        """Store the marker of a directory that has none, or a symlink that is known here only,
        with the attributes it shows.
        """
        stored = stored_metadata(inode, self._tree.options, with_times=True)
        is_directory = inode.kind is Kind.DIRECTORY
        try:
            version = await self._put(self.key_of_empty(inode), stored, inode.kind)
        except UnsupportedByStoreError:
            if not is_directory:
                raise
            self._known_here_only(inode, stored)
        else:
            self._tree.stored(inode, version, stored)
            if is_directory:
                inode.marker_made = version

    def key_of_empty(self, inode: Inode) -> str:
        """The key of the empty object that stands for a directory or a symlink."""
        keys = self._tree.keys
        return keys.marker_key_of(inode) if inode.kind is Kind.DIRECTORY else keys.key_of(inode)

    # -- inside -----------------------------------------------------------------------------------

    async def _is_shown(self, directory: Inode) -> bool:
        """Whether a directory needs no new marker to be there."""
        is_known = self._is_known_shown(directory)
        if is_known is not None:
            return is_known
        prefix = self._tree.keys.marker_key_of(directory)
        page = await self._resolver.list_page(ListQuery(prefix, max_keys=1))
        return bool(page.objects or page.prefixes)

    def _is_known_shown(self, directory: Inode, without: str = "") -> bool | None:
        """As :meth:`_is_shown`, by something other than one entry; None: ask the store."""
        if directory is self._tree.table.root or directory.removed or directory.info is not None:
            return True
        if directory.local:
            return True  # this mount shows it
        listing = self._tree.listings.complete(directory)
        if listing is None or listing.index is None:
            return None
        # From the end: rm takes the first ones, and each look would pass all their places.
        for name, entry in reversed(listing.index.items()):
            if entry is not LOCAL and name != without:
                return True
        return False

    @staticmethod
    def _known_here_only(inode: Inode, stored: Mapping[str, str]) -> None:
        """The store keeps no markers, or has not got this one, or this symlink, yet: the directory
        lasts as long as this mount, or as long as something is in it.
        """
        inode.metadata = stored
        inode.local = True

    def _of_new_directory(self, parent: Inode, mode: int, uid: int, gid: int) -> dict[str, str]:
        """The metadata of one that is made now."""
        now_ns = time.time_ns()
        hands_on = full_mode(parent, self._tree.options) & stat.S_ISGID
        return metadata.encode(
            mode=stat.S_IFDIR | (mode & _PERMISSION_BITS) | hands_on,
            uid=uid,
            gid=self._group_of_directory(parent, gid),
            mtime_ns=now_ns,
            ctime_ns=now_ns,
        )

    def _group_of_directory(self, parent: Inode, gid: int) -> int:
        """The group of a new entry: the maker's, or in a set-group-ID directory that one's.

        On local disks the kernel sees to that; of FUSE it is expected (inode(7)).
        """
        if not full_mode(parent, self._tree.options) & stat.S_ISGID:
            return gid
        return self._tree.attributes(parent).gid

    async def _make(
        self,
        parent: Inode,
        name: str,
        kind: Kind,
        stored: Mapping[str, str],
        *,
        put_off: bool = False,
    ) -> Inode:
        self.require_writable()
        key = self.new_key(parent, name)
        stored_key = require_key(key + "/" if kind is Kind.DIRECTORY else key)
        await self.removed.make_room_of_moved(key + "/")
        if await self.find_target(parent, name) is not None:
            raise EntryExistsError(f"{name!r} exists")
        free_since = self._tree.absent_since(parent, name)
        version: ObjectVersion | None = None
        # Others may have stored a file since the name was found absent.
        condition = ALWAYS if kind is Kind.DIRECTORY else IF_ABSENT
        if not put_off:
            try:
                version = await self._put(stored_key, stored, kind, condition)
            except ConditionFailedError as exc:
                raise EntryExistsError(str(exc)) from exc
            except UnsupportedByStoreError:
                if kind is not Kind.DIRECTORY:
                    raise
        return self._made(parent, name, kind, stored, version, free_since)

    def _made(
        self,
        parent: Inode,
        name: str,
        kind: Kind,
        stored: Mapping[str, str],
        version: ObjectVersion | None,
        free_since: float | None,
    ) -> Inode:
        """Show an entry whose object is ``version``; None: it is known here only."""
        inode = self._tree.table.child(parent, name)
        if inode is not None and inode.kind is not kind:
            self._tree.vanished(inode)
            inode = None
        new = inode is None
        if inode is None:
            inode = self._tree.table.new(parent, name, kind)
            inode.transient = True
        inode.metadata = stored
        inode.mtime_ns = inode.decoded.mtime_ns
        if version is None:
            self._known_here_only(inode, stored)
        else:
            self._tree.stored(inode, version, stored)
            if kind is Kind.DIRECTORY:
                inode.marker_made = version
        self._tree.changed(inode, new=new)
        if new and kind is Kind.DIRECTORY and free_since is not None:
            self._tree.listings.made(inode, free_since)
        return inode

    async def _put(
        self, key: str, stored: Mapping[str, str], kind: Kind, condition: Condition = ALWAYS
    ) -> ObjectVersion:
        await self.removed.make_room(key)
        content_type = MARKER_CONTENT_TYPE if kind is Kind.DIRECTORY else None
        request = CommitRequest(key, stored, content_type, condition)
        sending = PutJob(self._store, self._puts, request, b"")
        return await self._workers.run(sending.put, inline=sending.begin)

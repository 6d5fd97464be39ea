"""Open inodes: each has one open file, shared by all descriptors and freed with the last one.

``OpenInodes`` is the table, ``Opener`` fills and empties it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from ossfs_py.datapath.base import DataPath, OpenFile
from ossfs_py.errors import (
    NoSuchEntryError,
    ObjectMissingError,
    OssfsError,
    StaleInodeError,
    VersionChangedError,
)
from ossfs_py.filesystem.kernelcache import KernelCache
from ossfs_py.filesystem.openinode import InodeCommits, OpenInode, OpenWitness
from ossfs_py.model import ObjectInfo, ObjectVersion
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.namespace import Namespace


class OpenInodes:
    """Every open inode of a mount. Belongs to the trio thread."""

    def __init__(self) -> None:
        self._current: dict[int, OpenInode] = {}
        self._all: set[OpenInode] = set()

    def __iter__(self) -> Iterator[OpenInode]:
        """All at this moment, in any version."""
        return iter(tuple(self._all))

    def __contains__(self, opened: OpenInode) -> bool:
        """Whether it is still open."""
        return opened in self._all

    def __len__(self) -> int:
        """Files that are open or wait for write-back; several handles of one file count once."""
        return len(self._all)

    @property
    def unsaved_count(self) -> int:
        """Files with changes that are not in the bucket yet."""
        return sum(1 for opened in self._all if opened.file.dirty)

    def current(self, inode: Inode) -> OpenInode | None:
        """The open inode for an inode's present version."""
        return self._current.get(inode.number)

    def of_number(self, number: int) -> OpenInode | None:
        """As :meth:`current`, for the number of an inode."""
        return self._current.get(number)

    def knows(self, number: int) -> bool:
        """Whether the inode of that number is open in its present version."""
        return number in self._current

    def add(self, opened: OpenInode) -> None:
        """Make its version the present one of its inode."""
        self._current[opened.inode.number] = opened
        self._all.add(opened)

    def discard(self, opened: OpenInode) -> None:
        """Remove an open inode whose last user is gone."""
        self._all.discard(opened)
        if self.current(opened.inode) is opened:
            del self._current[opened.inode.number]


class CopyKeeper(Protocol):
    """The method of :class:`ossfs_py.filesystem.removals.Removals` that releasing needs."""

    async def closed(self, opened: OpenInode) -> None:
        """The file is not open any more: drop the copy that was kept for it."""
        ...


class Opener:
    """Opens and releases inodes. Belongs to the trio thread."""

    def __init__(
        self,
        opened: OpenInodes,
        namespace: Namespace,
        data_path: DataPath,
        kernel: KernelCache,
        commits: InodeCommits,
        copies: CopyKeeper,
    ) -> None:
        self._opened = opened
        self._namespace = namespace
        self._data_path = data_path
        self._kernel = kernel
        self._commits = commits
        self._copies = copies
        self.on_moved: Callable[[OpenInode], None] | None = None
        """Called when an open file continues with another version."""
        self.witness: OpenWitness | None = None

    async def acquire(self, inode: Inode) -> OpenInode:
        """Open an inode in its present version, or join its users; pair with release."""
        current = self._opened.current(inode)
        if not (inode.local or inode.removed) and (current is None or not current.file.dirty):
            await self._namespace.refresh_version(inode)
            current = self._opened.current(inode)
        if current is not None and self._namespace.changing.covers(inode):
            current.users += 1  # it may be of the new version already, which the inode is not
            return current
        version = inode.info.version if inode.info is not None else None
        if current is not None and not inode.settled and version is not None:
            await self._move_on(current, version)
        return self._joined(inode, version)

    def acquire_new(self, inode: Inode) -> OpenInode:
        """As :meth:`acquire`, for a file that was made just now: nothing has to be asked."""
        return self._joined(inode, None)

    def acquire_nowait(self, inode: Inode) -> OpenInode | None:
        """As :meth:`acquire`, if nothing has to be asked and no descriptor goes on with another
        version; None: nothing has happened.
        """
        version = self._namespace.version_nowait(inode)
        if version is None:
            return None
        current = self._opened.current(inode)
        if current is not None and (
            current.file.dirty
            or not current.is_of(version)
            or self._namespace.changing.covers(inode)
        ):
            return None
        return self._joined(inode, version)

    def _joined(self, inode: Inode, version: ObjectVersion | None) -> OpenInode:
        """The open inode for the version, with a user more."""
        current = self._opened.current(inode)
        if current is None or not (current.file.dirty or inode.removed or current.is_of(version)):
            if current is not None:
                current.superseded = True
            current = OpenInode(inode, version, self._data_path, self._commits)
            current.may_be_link = self._namespace.may_be_link(inode)
            if self.witness is not None:
                current.name = self.witness.named(current)
                current.witness = self.witness
            self._opened.add(current)
        current.users += 1
        return current

    def adopt(self, inode: Inode, version: ObjectVersion) -> OpenInode:
        """The open file of an inode, in the version that an earlier daemon had open.

        Called for the oldest descriptor first: the last version is the present one.
        """
        current = self._opened.current(inode)
        if current is not None and current.is_of(version):
            return current
        if current is not None:
            current.superseded = True
        opened = OpenInode(inode, version, self._data_path, self._commits)
        self._opened.add(opened)
        return opened

    def adopt_written(self, inode: Inode, name: str, version: ObjectVersion | None) -> OpenInode:
        """As :meth:`adopt`, for an inode that has a name in the records."""
        opened = OpenInode(inode, version, self._data_path, self._commits)
        opened.name, opened.witness = name, self.witness
        self._opened.add(opened)
        return opened

    def current(self, inode: Inode) -> OpenInode | None:
        """The open inode for an inode's present version."""
        return self._opened.current(inode)

    async def renew(self, opened: OpenInode, *, is_refused: bool = False) -> bool:
        """The store refused the version of a file before any byte of it was read: continue with the
        present version. False if the file must not change its version, or has the present one.

        ``is_refused``: True also if the store still has the version. Its answer to the READ was
        wrong then, or came through a proxy that was, and is asked for once more.

        The caller makes sure that the kernel does not take the end of the old version for the end
        of this one (:meth:`KernelCache.would_cut`).

        Raises:
            NoSuchEntryError: the object is gone.
            StoreError
        """
        inode, before = opened.inode, opened.file.version
        if opened.found_gone:
            raise NoSuchEntryError(f"{inode.name!r} is gone from the store")
        if inode.stale or inode.settled or inode.removed or opened.file.dirty or opened.superseded:
            return False
        with self._kernel.postponed(inode):
            try:
                await self._namespace.ask_version(inode)
            except StaleInodeError as exc:
                opened.found_gone = True
                raise NoSuchEntryError(f"{inode.name!r} is gone from the store") from exc
        version = inode.info.version if inode.info is not None else None
        if inode.settled or version is None:
            return False
        if is_refused and version == before == opened.file.version:
            # Another reader of it forgets the refusal.
            await self._replace(opened, self._data_path.open(version, opened))
            return True
        await self._move_on(opened, version)
        return opened.file.version != before

    def is_outdated(self, opened: OpenInode) -> bool:
        """Whether a request told meanwhile that others have replaced the object, and the file can
        go on with the new version: :meth:`keep_up`.

        For a file of which no byte was read: the kernel may know the size of that version already.
        """
        inode, info = opened.inode, opened.inode.info
        return not (
            info is None
            or opened.is_of(info.version)
            or opened.file.dirty
            or inode.size_source is not None
            or opened.superseded
            or inode.local
            or inode.removed
            or inode.stale
            or opened.lock.locked()  # a commit here makes the next version
            or self._namespace.changing.covers(inode)
        )

    def may_mix(self, opened: OpenInode) -> bool:
        """Whether the kernel may end the first bytes of a file where another version ends."""
        return self.is_outdated(opened) or self._kernel.would_cut(opened.inode, opened.file.size)

    async def keep_up(self, opened: OpenInode) -> None:
        """Continue with the version that the inode has; see :meth:`is_outdated`.

        Raises:
            NoSuchEntryError: the object is gone, or a symbolic link.
            StoreError
        """
        info = opened.inode.info
        if self._namespace.may_be_link(opened.inode):
            await self.renew(opened)  # a listing does not tell whether it is one
        elif info is not None:
            await self._move_on(opened, info.version)

    @contextmanager
    def doubting(self, opened: OpenInode) -> Iterator[None]:
        """If a file turns out to be replaced or gone, the next open sees the present state."""
        try:
            yield
        except (VersionChangedError, ObjectMissingError):
            if opened.file.dirty:
                self._namespace.invalidate(opened.inode)
                self._kernel.invalidate_attributes(opened.inode.number)
            elif not opened.superseded:
                self._namespace.note_outdated(opened.inode)
            raise

    async def become(self, opened: OpenInode, info: ObjectInfo) -> None:
        """An open inode, of which no byte was read, was a link: continue with the link's target.

        Its own name leads to another inode already.
        """
        opened.inode.info = info
        opened.inode.metadata = info.metadata
        await self._move_on(opened, info.version)

    async def _move_on(self, opened: OpenInode, version: ObjectVersion) -> None:
        """Give another version to a file of which no byte was read."""
        if opened.file.dirty or opened.superseded or opened.is_of(version):
            return
        opened.may_be_link = self._namespace.may_be_link(opened.inode)
        await self._replace(opened, self._data_path.open(version, opened))

    def file_of(self, opened: OpenInode, version: ObjectVersion) -> OpenFile:
        """Another file for an open inode, not in use yet; the caller closes it."""
        return self._data_path.open(version, opened)

    async def grow(self, opened: OpenInode, file: OpenFile, info: ObjectInfo) -> None:
        """Continue with ``file``, which begins with all the bytes of the present file."""
        opened.inode.info = info
        await self._replace(opened, file)

    async def _replace(self, opened: OpenInode, file: OpenFile) -> None:
        old, opened.file = opened.file, file
        opened.seen = file.version
        if self.on_moved is not None:
            self.on_moved(opened)
        await old.close()

    async def release(self, opened: OpenInode) -> None:
        """Remove a user of an open inode. The last one that may write commits the remaining
        changes, and the last of all frees the inode.
        """
        is_set_aside = False
        try:
            # Writes through a shared mapping arrive after the last flush. Another program that
            # opens the file at that moment may add more.
            while opened.writers == 1 and opened.file.dirty and not opened.removed_here:
                await self._commits.commit(opened)
        except (OssfsError, OSError) as exc:
            if opened.writers == 1:
                self._commits.set_aside(opened, exc)
                is_set_aside = True
        opened.users -= 1
        if opened.users == 0:
            await self._forget(opened)
        elif is_set_aside:
            await self._go_back(opened)

    async def give_up(self, opened: OpenInode) -> None:
        """Drop the changes of a failed call, unless others may write the file too."""
        if opened.writers == 1 and opened.file.dirty:
            opened.file.abandon()
            if opened.users > 1:
                await self._go_back(opened)

    async def _go_back(self, opened: OpenInode) -> None:
        """The changes will not be stored, and only readers are left: they, and later opens of the
        file, continue with the stored version.

        A descriptor that has read a byte gets an error: the byte may never have been in the store.
        """
        inode, version = opened.inode, opened.file.version
        was_given = inode.settled or self._kernel.was_given_bytes(inode)
        file = self._data_path.open(version, opened)
        if version is None:
            file.abandon()  # its changes are not to be stored
        old = opened.go_back(file)
        self._kernel.contents_changed(inode)
        if was_given or version is None:
            opened.superseded = True
            self._namespace.note_outdated(inode)
        else:
            self._namespace.invalidate(inode)
        await old.close()

    def release_nowait(self, opened: OpenInode) -> bool:
        """As :meth:`release`, of the last user of a file that nobody has changed, removed or
        copied; False: nothing has happened.
        """
        if opened.users != 1 or opened.witness is not None or not opened.file.close_nowait():
            return False
        opened.users = 0
        self._leave(opened)
        self._drop(opened)
        return True

    async def _forget(self, opened: OpenInode) -> None:
        self._leave(opened)
        inode = opened.inode
        if opened.removed_here:
            opened.file.abandon()
        elif inode.local and opened.file.version is None:
            self._namespace.drop_local(inode)
        await opened.file.close()
        if opened.witness is not None:
            opened.witness.closed(opened)
        self._drop(opened)
        await self._copies.closed(opened)

    def _leave(self, opened: OpenInode) -> None:
        inode = opened.inode
        self._opened.discard(opened)
        if inode.size_source == opened.size:
            inode.size_source = None
        if not inode.open_count:
            inode.settled = False
            self._kernel.closed(inode)

    def _drop(self, opened: OpenInode) -> None:
        number = opened.inode.number
        if self._namespace.forget(number, 0) and not self._opened.knows(number):
            self._kernel.forget(number)

    async def close(self) -> None:
        """Free every open file; call :meth:`Commits.drain` first."""
        for opened in self._opened:
            self._opened.discard(opened)
            await opened.file.close()
            await self._copies.closed(opened)

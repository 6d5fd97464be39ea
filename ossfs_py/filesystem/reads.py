"""Reading through a descriptor: bytes of one version, ended where that version ends."""

from collections.abc import Callable, Collection
from typing import Protocol

import trio

from ossfs_py.errors import FilesystemError, ObjectMissingError, StoreError, VersionChangedError
from ossfs_py.filesystem.growth import GrowthFollower
from ossfs_py.filesystem.kernelcache import KernelCache
from ossfs_py.filesystem.links import LinkFollower
from ossfs_py.filesystem.openinode import OpenInode
from ossfs_py.filesystem.openinodes import Opener
from ossfs_py.namespace.namespace import Namespace


class ReadHandle(Protocol):
    """What reading needs of a descriptor."""

    opened: OpenInode
    opened_at: float


class Reads:
    """Answers READs that have to wait. Belongs to the trio thread.

    ``users_of`` tells who has a file open.
    """

    def __init__(
        self,
        namespace: Namespace,
        opener: Opener,
        kernel: KernelCache,
        users_of: Callable[[OpenInode], Collection[int]],
    ) -> None:
        self._namespace = namespace
        self._opener = opener
        self._kernel = kernel
        self._users_of = users_of
        self._links = LinkFollower(namespace, opener, kernel)
        self._growth = GrowthFollower(namespace, opener)

    async def read(self, handle: ReadHandle, offset: int, size: int) -> memoryview | bytes:
        """pread(2); the view is valid until the caller's next checkpoint.

        Raises:
            VersionChangedError: the bytes of the version that the program has read from are gone,
                or the kernel would fill up their end with zeros.
            StoreError
        """
        opened = handle.opened
        began = trio.current_time()
        with self._opener.doubting(opened):
            try:
                if opened.may_be_link and await self._links.settle(opened, self._users_of(opened)):
                    await self._tell_of_more(opened)
                data = await self._read_uncut(opened, offset, size)
            except (VersionChangedError, ObjectMissingError):
                is_here = await self._opener.renew(opened, is_refused=True)
                if not (is_here or await self._grew(opened)):
                    raise
                data = await self._read_uncut(opened, offset, size)
            if self._ends_early(handle, began, offset, len(data), size):
                # The kernel knows of more bytes. A program that has read none may get them.
                if await self._opener.renew(opened):
                    data = await self._read_uncut(opened, offset, size)
                if self._ends_early(handle, began, offset, len(data), size):
                    raise VersionChangedError(
                        "the object was replaced by another client while it was opened",
                        key=opened.inode.name,
                    )
        opened.check_current()
        opened.inode.settled = True
        self._kernel.gave_bytes(opened.inode)
        return data

    async def settle_nameless(self, opened: OpenInode) -> None:
        """The kernel asks for the size of an open file that has lost its name. If the file is a
        link, the answer describes the target, or else the first READ would be cut. If others
        appended to the file, the answer has its present size.

        Nothing is expired here: the kernel would ignore the answer.
        """
        if not opened.may_be_link:
            await self._growth.follow(opened)
            return
        try:
            await self._links.settle(opened, self._users_of(opened))
        except (StoreError, FilesystemError):
            return  # the READ gets the error

    async def _read_uncut(self, opened: OpenInode, offset: int, size: int) -> memoryview | bytes:
        """Bytes that the kernel does not end where another version ends."""
        while True:
            data = await opened.read(offset, size)
            inode = opened.inode
            if inode.settled:
                return data
            if self._opener.is_outdated(opened):
                await self._opener.keep_up(opened)
            elif self._kernel.would_cut(inode, opened.file.size):
                await self._tell_of_more(opened)
            else:
                return data

    async def _tell_of_more(self, opened: OpenInode) -> None:
        """Return when the kernel does not end the file where another version ends."""
        inode, size_bytes = opened.inode, opened.file.size
        if self._kernel.is_too_short(inode, size_bytes):
            last = bytes(await opened.read(size_bytes - 1, 1))
            await self._kernel.lengthen(inode, size_bytes, last)
        await self._kernel.expire_attributes(inode.number)

    def _ends_early(
        self, handle: ReadHandle, began: float, offset: int, got_bytes: int, size: int
    ) -> bool:
        return got_bytes < size and self._kernel.must_not_end(
            handle.opened.inode, offset + got_bytes, began, handle.opened_at
        )

    async def _grew(self, opened: OpenInode) -> bool:
        """The store refused the version: whether it has one that continues where this one ends."""
        if not opened.superseded:
            self._namespace.note_outdated(opened.inode)
        return await self._growth.follow(opened)

"""Calls about names that the kernel repeats, as the daemon that took them up has died.

Each may have been carried out, in part or as a whole. Meanwhile the kernel holds the locks of the
directories, so nobody else on this machine has used the names. If a call turns out to be done, and
that daemon may have done it, the answer is success.
"""

from collections.abc import Awaitable, Callable

from ossfs_py.errors import (
    EntryExistsError,
    NoAttributeError,
    NoSuchEntryError,
)
from ossfs_py.filesystem.operations import Filesystem
from ossfs_py.filesystem.replies import EntryReply
from ossfs_py.namespace import names
from ossfs_py.namespace.inode import Inode, Kind
from ossfs_py.namespace.metadata import decode
from ossfs_py.namespace.namespace import Namespace


class Repeated:
    """Answers repeated calls. ``since_ns`` is the time when the request was first taken up, by this
    machine's clock; None if it never was, so that nothing can have been done.
    """

    def __init__(
        self,
        filesystem: Filesystem,
        namespace: Namespace,
        settled: Callable[[], Awaitable[None]],
        moved: Callable[[Inode], Awaitable[None]],
    ) -> None:
        """``settled`` returns when it is known what the earlier daemon has stored, and what it had
        half done is finished or undone. ``moved`` is told of directories that have a new name.
        """
        self._fs = filesystem
        self._namespace = namespace
        self._settled = settled
        self._moved = moved

    async def make(
        self,
        parent: int,
        name: bytes,
        uid: int,
        since_ns: int | None,
        make: Callable[[], Awaitable[EntryReply]],
    ) -> EntryReply:
        """mkdir(2), mknod(2) or symlink(2), which ``make`` does: the object under the name is ours
        if its owner says that it was made since then.
        """
        try:
            return await make()
        except EntryExistsError:
            if since_ns is None or not await self._was_made(parent, name, uid, since_ns):
                raise
        return await self._fs.lookup(parent, name)

    async def unlink(self, parent: int, name: bytes) -> None:
        """unlink(2): success if the name is gone."""
        try:
            await self._fs.unlink(parent, name)
        except NoSuchEntryError:
            return

    async def remove_directory(self, parent: int, name: bytes) -> None:
        """rmdir(2): success if the name is gone."""
        try:
            await self._fs.remove_directory(parent, name)
        except NoSuchEntryError:
            return

    async def remove_xattr(self, number: int, name: bytes) -> None:
        """removexattr(2): success if the attribute is gone."""
        try:
            await self._fs.remove_xattr(number, name)
        except NoAttributeError:
            return

    async def rename(
        self,
        parent: int,
        name: bytes,
        new_parent: int,
        new_name: bytes,
        *,
        no_replace: bool,
        since_ns: int | None,
    ) -> None:
        """rename(2): an entry that has only its new name was renamed. A copy under the new name,
        beside the source, is the first half of a rename.
        """
        # Before that, the store may have a directory under both names.
        await self._settled()
        source_dir, target_dir = self._namespace.inode(parent), self._namespace.inode(new_parent)
        old, new = names.decode(name), names.decode(new_name)
        if since_ns is not None:
            known = self._namespace.known_child(source_dir, old)
            if known is not None and await self._namespace.finish_rename(known, target_dir, new):
                if known.kind is Kind.DIRECTORY:
                    await self._moved(known)
                return
            if no_replace and await self._is_copy(source_dir, old, target_dir, new):
                no_replace = False
        try:
            await self._fs.rename(parent, name, new_parent, new_name, no_replace=no_replace)
        except NoSuchEntryError:
            if since_ns is None:
                raise
            await self._namespace.lookup(target_dir, new)

    async def _was_made(self, parent: int, name: bytes, uid: int, since_ns: int) -> bool:
        inode = await self._namespace.lookup(self._namespace.inode(parent), names.decode(name))
        told = decode(await self._namespace.metadata_in_store(inode))
        if told.mtime_ns is None and inode.kind is Kind.DIRECTORY:
            # Some stores show a directory whose marker was broken off.
            await self._namespace.require_empty(inode)
            return True
        return told.mtime_ns is not None and told.mtime_ns >= since_ns and told.uid == uid

    async def _is_copy(self, source_dir: Inode, old: str, target_dir: Inode, new: str) -> bool:
        try:
            source = await self._namespace.lookup(source_dir, old)
            target = await self._namespace.lookup(target_dir, new)
        except NoSuchEntryError:
            return False
        if source.kind is Kind.DIRECTORY or source.info is None or target.info is None:
            return False
        if source.info.size != target.info.size:
            return False
        if source.info.etag == target.info.etag:
            return True
        # Stores that encrypt give each copy another ETag; its metadata has the time of its making.
        described = await self._namespace.metadata_in_store(source)
        return bool(described) and described == await self._namespace.metadata_in_store(target)

"""unlink(2) and rmdir(2): who may remove a name now. What becomes of the object is decided by
``removals``.
"""

from ossfs_py.filesystem.changes import Changes
from ossfs_py.filesystem.description import path_in
from ossfs_py.filesystem.owedentries import OwedEntries
from ossfs_py.filesystem.protection import Protection
from ossfs_py.filesystem.removals import Release, Removals
from ossfs_py.namespace import names
from ossfs_py.namespace.namespace import Namespace


class Unlinking:
    """Removes names. Belongs to the trio thread. ``release`` releases an open inode."""

    def __init__(
        self,
        namespace: Namespace,
        changes: Changes,
        protection: Protection,
        removals: Removals,
        owed: OwedEntries,
        release: Release,
    ) -> None:
        self._namespace = namespace
        self._changes = changes
        self._protection = protection
        self._removals = removals
        self._owed = owed
        self._release = release

    async def unlink(self, parent: int, name: bytes) -> None:
        """unlink(2); programs with the file open continue to read and write it."""
        self._protection.require_writable()
        directory, decoded = self._namespace.inode(parent), names.decode(name)
        if self._protection.forbids("delete"):
            self._protection.refuse("delete", "unlink", path_in(directory, decoded))
        gone = False
        while not gone:
            inode = await self._namespace.lookup(directory, decoded)
            async with self._changes.within(inode):
                if self._namespace.known_child(directory, decoded) is not inode:
                    continue  # it was renamed while we waited for the lock
                async with self._owed.lock_of(inode):
                    await self._removals.unlink(directory, decoded, inode, self._release)
                    await self._owed.removed(inode)
                gone = True

    def unlink_nowait(self, parent: int, name: bytes) -> bool:
        """As :meth:`unlink`, of a stored file that nobody has open, if write-back takes it; False:
        nothing has happened, and :meth:`unlink` has to do it, or to find out what is wrong.

        rm -r asks for nothing else: without a coroutine, UNLINK takes a third less.
        """
        protection, namespace = self._protection, self._namespace
        directory = namespace.inodes.find(parent)
        if protection.read_only or protection.forbids("delete") or directory is None:
            return False
        try:
            text = name.decode()
        except UnicodeDecodeError:
            return False
        # A removed directory, or one that is stale, has no entries.
        inode = None if directory.removed else namespace.fresh_child(directory, text)
        if inode is None or self._changes.waits_within(inode) or self._owed.holds(inode):
            return False
        return self._removals.unlink_nowait(directory, inode)

    async def remove_directory(self, parent: int, name: bytes) -> None:
        """rmdir(2)."""
        self._protection.require_writable()
        directory, decoded = self._namespace.inode(parent), names.decode(name)
        self._protection.refuse("delete", "rmdir", path_in(directory, decoded))
        async with self._changes.within(directory):
            inode = self._namespace.known_child(directory, decoded)
            async with self._owed.lock_of(inode):
                await self._removals.remove_directory(directory, decoded)
                await self._owed.removed(inode)

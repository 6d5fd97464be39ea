"""Changes of names and metadata, kept apart from commits of the files they concern.

Callers take a claim on a place in the tree first, then the lock of the open inode; see ``Claims``.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from ossfs_py.errors import NoSuchEntryError
from ossfs_py.filesystem.commits import Commits
from ossfs_py.filesystem.description import path_in, path_of
from ossfs_py.filesystem.openinode import OpenInode
from ossfs_py.filesystem.openinodes import OpenInodes
from ossfs_py.filesystem.protection import Protection
from ossfs_py.model import AttributeChange
from ossfs_py.namespace.claims import Claims
from ossfs_py.namespace.inode import Inode, Kind
from ossfs_py.namespace.namespace import Namespace
from ossfs_py.namespace.setattr import SavedAttributes


class Changes:
    """Decides who may change a name or metadata now. Belongs to the trio thread."""

    def __init__(
        self,
        opened: OpenInodes,
        namespace: Namespace,
        claims: Claims,
        commits: Commits,
        protection: Protection,
    ) -> None:
        self._opened = opened
        self._namespace = namespace
        self._claims = claims
        self._commits = commits
        self.protection = protection

    async def vacated(self, directory: Inode, name: str) -> None:
        """Wait until the store has nothing of a directory that was renamed here and had the name.

        Raises:
            StoreError: it stays.
        """
        if self._namespace.moves.current:
            await self._namespace.moves.left(self._namespace.marker_key_of(directory) + name)

    async def arrived(self, inode: Inode) -> None:
        """Wait until the store has a file under the new name that it got here: what is written then
        is written on top of that.

        Raises:
            StoreError: it stays under the old one.
        """
        if inode.moving:
            await self._namespace.moves.arrived(self._namespace.key_of(inode))

    def within(self, directory: Inode) -> AbstractAsyncContextManager[None]:
        """Change names in a directory, while nothing above it moves."""
        return self._claims.place(directory)

    def waits_within(self, inode: Inode) -> bool:
        """Whether :meth:`within` would wait."""
        return self._claims.moves(inode)

    @asynccontextmanager
    async def of(self, inode: Inode) -> AsyncIterator[None]:
        """Change an inode's name, while nobody commits it."""
        async with self._claims.place(inode):
            opened = self._opened.current(inode)
            if opened is None:
                yield
                return
            async with opened.lock:
                yield

    @asynccontextmanager
    async def of_metadata(self, inode: Inode) -> AsyncIterator[bool]:
        """Change metadata; open readers continue from the copy that this makes of the object.

        Yields whether an upload that is due anyway can carry the change.
        """
        async with self.of(inode):
            opened = self._opened.current(inode)
            if opened is None:
                yield inode.local
                await self._commits.follow(inode)
                return
            with opened.rewriting():
                yield inode.local or opened.file.dirty
                await self._commits.follow(inode)
            await self._commits.redescribe(opened)

    async def set_attributes(self, inode: Inode, change: AttributeChange) -> None:
        """chmod, chown and utimens."""
        opened = self._opened.current(inode)
        if opened is not None and opened.file.dirty and not opened.lock.locked():
            # As below, where nothing can be copied: tar does it three times for each file, and the
            # blocks would take a quarter of its time.
            async with self._claims.place(inode), opened.lock:
                if self._opened.current(inode) is opened and opened.file.dirty:
                    is_told = self._is_told_at_once(opened, change)
                    self._namespace.defer_attributes(inode, change)
                    if is_told:
                        await self._commits.redescribe(opened)
                    return
        async with self.of_metadata(inode) as defer:
            await self._namespace.set_attributes(inode, change, defer=defer)

    def set_attributes_nowait(self, inode: Inode, change: AttributeChange) -> bool:
        """As :meth:`set_attributes`, of a file with changes that are not stored, if that waits for
        nothing; False: nothing has happened.
        """
        opened = self._opened.current(inode)
        if (
            opened is None
            or opened.witness is not None
            or not opened.file.dirty
            or opened.lock.locked()
            or self._claims.moves(inode)
        ):
            return False
        if not self._is_told_at_once(opened, change):
            self._namespace.defer_attributes(inode, change)
            return True
        before = SavedAttributes(inode)
        self._namespace.defer_attributes(inode, change)
        if not self._commits.redescribe_nowait(opened):
            before.restore(inode)
            return False
        return True

    def _is_told_at_once(self, opened: OpenInode, change: AttributeChange) -> bool:
        """Whether the journal has to know of a change at once: the next mount stores what was
        closed, and another daemon goes on with what is open. Of other files, of which bytes may be
        missing, the journal knows times that may be older, and a mode that may grant less; each
        close tells it all. Who recovers one by hand gives nobody more rights than its program did.
        """
        inode = opened.inode
        loses_rights = change.mode is not None and (
            inode.mode is None or bool(inode.mode & ~change.mode)
        )
        return (
            loses_rights
            or change.uid not in (None, inode.uid)
            or change.gid not in (None, inode.gid)
            or opened.witness is not None
            or self._commits.is_behind(opened)
        )

    def refuse_change(self, call: str, inode: Inode) -> None:
        """Refuse to change a stored object; a file that is not stored yet may change."""
        opened = self._opened.current(inode)
        if not inode.local and (opened is None or not opened.made_here):
            self.protection.refuse("overwrite", call, path_of(inode))

    def refuse_writing(self, inode: Inode) -> None:
        """As :meth:`refuse_change`, for opening a file for writing."""
        if inode.kind is not Kind.DIRECTORY:
            self.protection.refuse("overwrite", "open for writing", path_of(inode))

    async def refuse_replacing(
        self, source_dir: Inode, old: str, target_dir: Inode, new: str
    ) -> None:
        """Raises NotPermittedError if a rename would take a name that stands for something else."""
        try:
            target = await self._namespace.lookup(target_dir, new)
        except NoSuchEntryError:
            return
        if target is not await self._namespace.lookup(source_dir, old):
            self.protection.refuse("overwrite", "rename over", path_in(target_dir, new))

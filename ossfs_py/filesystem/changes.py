"""Changes of names and metadata, kept apart from commits of the files they concern.

A claim on a place in the tree comes first, then the lock of the open inode; see ``Claims``.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from ossfs_py.errors import NoSuchEntryError
from ossfs_py.filesystem.commits import Commits
from ossfs_py.filesystem.description import path_in, path_of
from ossfs_py.filesystem.openinodes import OpenInodes
from ossfs_py.filesystem.protection import Protection
from ossfs_py.filesystem.trash import Trash
from ossfs_py.model import AttributeChange
from ossfs_py.namespace.claims import Claims
from ossfs_py.namespace.inode import Inode, Kind
from ossfs_py.namespace.namespace import Namespace


class Changes:
    """Who may change a name or metadata now. Belongs to the trio thread."""

    def __init__(
        self,
        opened: OpenInodes,
        namespace: Namespace,
        claims: Claims,
        commits: Commits,
        protection: Protection,
        trash: Trash,
    ) -> None:
        self._trash = trash
        self._opened = opened
        self._namespace = namespace
        self._claims = claims
        self._commits = commits
        self._protection = protection

    def within(self, directory: Inode) -> AbstractAsyncContextManager[None]:
        """Change names in a directory, while nothing above it moves."""
        return self._claims.place(directory)

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
        """Change metadata; open readers go on from the copy that this makes of the object.

        Yields whether the change can be left to an upload that has to come anyway.
        """
        async with self.of(inode):
            opened = self._opened.current(inode)
            yield inode.local or (opened is not None and opened.file.dirty)
            await self._commits.follow(inode)
            if opened is not None:
                await self._commits.redescribe(opened)

    async def set_attributes(self, inode: Inode, change: AttributeChange) -> None:
        """chmod, chown and utimens."""
        async with self.of_metadata(inode) as defer:
            await self._namespace.set_attributes(inode, change, defer=defer)

    @asynccontextmanager
    async def moving(
        self, inode: Inode, target: Inode | None, places: Iterable[Inode]
    ) -> AsyncIterator[None]:
        """Rename ``inode``, and all below it, over ``target`` and between directories.

        Dirty files are in the store, under their present keys, when this is entered; one that was
        never stored moves without a request, unless part of it is uploaded under its present key.
        """
        trees = {inode} if target is None else {inode, target}
        async with self._claims.move(trees, places):
            for below in self._namespace.affected_by_rename(inode):
                opened = self._opened.current(below)
                if (
                    opened is not None
                    and opened.file.dirty
                    and (opened.file.bound or not below.local)
                ):
                    async with opened.lock:
                        await self._commits.commit_locked(opened)
            yield

    def refuse_change(self, call: str, inode: Inode) -> None:
        """What is stored with an object may not change; what is not stored yet may."""
        opened = self._opened.current(inode)
        if not inode.local and (opened is None or not opened.made_here):
            self._protection.refuse("overwrite", call, path_of(inode))

    def refuse_writing(self, inode: Inode) -> None:
        """As :meth:`refuse_change`, of opening a file for writing."""
        if inode.kind is not Kind.DIRECTORY:
            self._protection.refuse("overwrite", "open for writing", path_of(inode))

    async def refuse_replacing(
        self, source_dir: Inode, old: str, target_dir: Inode, new: str
    ) -> None:
        """Raises NotPermittedError if a rename would take a name that stands for something else."""
        try:
            target = await self._namespace.lookup(target_dir, new)
        except NoSuchEntryError:
            return
        if target is not await self._namespace.lookup(source_dir, old):
            self._protection.refuse("overwrite", "rename over", path_in(target_dir, new))

    async def keep_replaced(
        self, inode: Inode, target_dir: Inode, new: str, *, no_replace: bool
    ) -> None:
        """Before ``inode`` is renamed, let the trash have what that takes the place of.

        Raises:
            NameTooLongError, StoreError: it could not be copied.
        """
        if not self._trash.is_on or inode.kind is Kind.DIRECTORY:
            return
        if inode.local:
            if inode.shadows:  # what it hides now goes
                await self._trash.keep(self._namespace.key_of(inode))
            if inode.kind is Kind.FILE:
                return  # it replaces nothing before a commit, which keeps that
        if no_replace:
            return
        try:
            target = await self._namespace.lookup(target_dir, new)
        except NoSuchEntryError:
            return
        stored = target.shadows or not target.local
        if stored and target is not inode and target.kind is not Kind.DIRECTORY:
            known = None if target.shadows else target.info
            await self._trash.keep(self._namespace.key_of(target), known)

    def removed(self, inode: Inode) -> None:
        """The inode has lost its name: nothing of it goes to the store any more."""
        opened = self._opened.current(inode)
        if opened is not None:
            opened.file.abandon()

    async def renamed(self, inode: Inode, replaced: Inode | None) -> None:
        """The inode has a name that it may take from ``replaced``, and from anybody else; all below
        it have other keys.
        """
        self._commits.renamed(inode, replaced)
        for below in self._namespace.affected_by_rename(inode):
            opened = self._opened.current(below)
            if opened is not None:
                async with opened.lock:
                    await self._commits.redescribe(opened)
        if replaced is not None:
            self.removed(replaced)  # not before the journal has what takes its place

"""rename(2): dirty files move along, and the journal never has two names for one file.

With write-back, the rename of a directory, or of a stored file to a free name, returns when the
journal has it. It is carried out in the background, and whatever changes the file, or something
below the directory, waits for that. Renaming a waiting file changes its record. If the daemon is
killed in between, the next mount finds two records of one name, and takes the later one. The rename
of a directory is recorded until all records have their new names.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial

import trio

from ossfs_py.errors import NoSuchEntryError, OssfsError
from ossfs_py.filesystem.behind import Behind
from ossfs_py.filesystem.commits import Commits
from ossfs_py.filesystem.openinodes import OpenInodes
from ossfs_py.filesystem.owedentries import OwedEntries
from ossfs_py.filesystem.preserved import PreservedFiles
from ossfs_py.filesystem.trash import Trash
from ossfs_py.model import ObjectVersion
from ossfs_py.namespace.claims import Claims
from ossfs_py.namespace.inode import Inode, Kind
from ossfs_py.namespace.namespace import Namespace
from ossfs_py.namespace.promises import Promise
from ossfs_py.writing.filerenames import FileRenameRecord
from ossfs_py.writing.groupsync import GroupSync

log = logging.getLogger(__name__)


class _Told:
    """The outcome of a rename as its program is told: that it failed, is done, or will be.

    Implements :class:`~ossfs_py.namespace.promises.Promise`.
    """

    def __init__(self, group_sync: GroupSync) -> None:
        self._group_sync = group_sync
        self._ident = ""
        self._event = trio.Event()
        self._error: Exception | None = None

    def is_made(self) -> None:
        """It will be done; what becomes of it later is in the log."""
        self._event.set()

    async def keep_file(self, version: ObjectVersion, new_key: str) -> None:
        """See the protocol."""
        record = FileRenameRecord(version.key, new_key, version.etag)
        self._ident = record.ident
        await self._group_sync.record_file_rename(record)

    async def forget_file(self) -> None:
        """See the protocol."""
        await self._group_sync.forget_file_rename(self._ident)

    async def run(self, call: Callable[[], Awaitable[None]]) -> None:
        """Make the call. Raises what the program is not told any more."""
        try:
            await call()
        except Exception as exc:
            if self._event.is_set():
                raise
            self._error = exc
        finally:
            self._event.set()

    async def wait(self) -> None:
        """Wait until the program can be told. Raises what it is told."""
        await self._event.wait()
        if self._error is not None:
            raise self._error


class Renaming:
    """Moves names. Belongs to the trio thread."""

    def __init__(
        self,
        opened: OpenInodes,
        namespace: Namespace,
        claims: Claims,
        commits: Commits,
        owed: OwedEntries,
        preserved: PreservedFiles,
        trash: Trash,
        behind: Behind | None,
        group_sync: GroupSync | None,
        on_copied: Callable[[ObjectVersion, ObjectVersion], None],
    ) -> None:
        """``behind``: with write-back, where renames go on. ``on_copied`` is told of each file's
        version and its copy.
        """
        self._group_sync = group_sync
        self._on_copied = on_copied
        self._behind = behind
        self._opened = opened
        self._namespace = namespace
        self._claims = claims
        self._commits = commits
        self._owed = owed
        self._preserved = preserved
        self._trash = trash

    async def rename(
        self, source_dir: Inode, old: str, target_dir: Inode, new: str, *, no_replace: bool
    ) -> None:
        """Rename; open files move along, an open target stays readable to its openers.

        Raises:
            OSError: the journal cannot be written.
            As :meth:`Namespace.rename`.
        """
        if self._behind is not None and self._group_sync is not None:
            inode = await self._namespace.lookup(source_dir, old)
            if inode.kind is Kind.DIRECTORY or _is_at_rest(inode):
                told = _Told(self._group_sync)
                call = partial(
                    self._rename,
                    source_dir,
                    old,
                    target_dir,
                    new,
                    no_replace=no_replace,
                    promise=told,
                )
                self._behind.start(partial(told.run, call))
                await told.wait()
                return
        await self._rename(source_dir, old, target_dir, new, no_replace=no_replace)

    async def note_done(self, directory: Inode) -> None:
        """An earlier daemon has renamed a directory, and it has its new name here: so do now the
        records of what waits below it.
        """
        await self._note_moved(directory, None)

    # -- inside ----------------------------------------------------------------------------------

    async def _rename(
        self,
        source_dir: Inode,
        old: str,
        target_dir: Inode,
        new: str,
        *,
        no_replace: bool,
        promise: Promise | None = None,
    ) -> None:
        known = self._namespace.known_child
        moved = False
        while not moved:
            inode = await self._namespace.lookup(source_dir, old)
            # Only a known target can be open, and only an open one needs care.
            target = known(target_dir, new)
            async with self._moving(inode, target, (source_dir, target_dir)):
                if known(source_dir, old) is not inode or known(target_dir, new) is not target:
                    continue  # it changed while we waited for the lock
                if target is not None and target is not inode and not no_replace:
                    await self._give_way(inode, target)
                await self._keep_replaced(inode, target_dir, new, no_replace=no_replace)
                is_behind = promise is not None and (
                    inode.kind is Kind.DIRECTORY or (_is_at_rest(inode) and target is None)
                )
                await self._namespace.rename(
                    source_dir,
                    old,
                    target_dir,
                    new,
                    no_replace=no_replace,
                    on_copied=self._follow_copies if is_behind else self._follow,
                    on_moved=partial(self._note_moved, inode, target),
                    promise=promise if is_behind else None,
                )
                moved = True

    @asynccontextmanager
    async def _moving(
        self, inode: Inode, target: Inode | None, places: Iterable[Inode]
    ) -> AsyncIterator[None]:
        """Rename ``inode``, and all below it, over ``target`` and between directories.

        On entry, dirty files are in the store, under their present keys. A file that was never
        stored moves without a request, unless part of it is uploaded under its present key.
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

    async def _give_way(self, inode: Inode, target: Inode) -> None:
        """The present owner of the name is about to lose it."""
        if target.shadows or not target.local:
            await self._owed.store(inode)  # else the next mount would take it for the older one
        if not inode.local:
            # The store is about to get a copy under a name that the journal has a record of.
            await self._store_waiting(target)
        await self._preserved.preserve(target)

    async def _store_waiting(self, target: Inode) -> None:
        opened = self._opened.current(target)
        try:
            await self._owed.store(target)
            if opened is not None and self._commits.is_behind(opened):
                async with opened.lock:
                    await self._commits.commit_locked(opened)
        except (OssfsError, OSError) as exc:
            log.info("%r, renamed over, was not stored: %s", target.name, exc)

    async def _keep_replaced(
        self, inode: Inode, target_dir: Inode, new: str, *, no_replace: bool
    ) -> None:
        """Before ``inode`` is renamed, give the object that it replaces to the trash.

        Raises:
            NameTooLongError, StoreError: it could not be copied.
        """
        if not self._trash.is_on or inode.kind is Kind.DIRECTORY:
            return
        if inode.local:
            if inode.shadows:  # the object that it hides goes now
                await self._trash.keep(self._namespace.key_of(inode))
            if inode.kind is Kind.FILE:
                return  # it replaces nothing before a commit, which makes the copy
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

    async def _note_moved(self, inode: Inode, replaced: Inode | None) -> None:
        """The inode has a new name, perhaps that of ``replaced`` or of another client's object; all
        inodes below it have other keys.
        """
        self._commits.renamed(inode, replaced)
        await self._redescribe(self._namespace.affected_by_rename(inode))
        await self._owed.moved(inode)
        if replaced is None:
            return
        # Not before the journal has its replacement.
        opened = self._opened.current(replaced)
        if opened is not None:
            opened.file.abandon()
        await self._owed.removed(replaced)

    async def _follow(self, copies: list[tuple[Inode, ObjectVersion, ObjectVersion]]) -> None:
        for _, version, copy in copies:
            self._on_copied(version, copy)
        await self._commits.follow_copies(copies)

    async def _follow_copies(
        self, copies: list[tuple[Inode, ObjectVersion, ObjectVersion]]
    ) -> None:
        """As :meth:`Commits.follow_copies`, for files whose records have their new names."""
        await self._follow(copies)
        await self._redescribe([inode for inode, _, _ in copies])

    async def _redescribe(self, inodes: Iterable[Inode]) -> None:
        for inode in inodes:
            opened = self._opened.current(inode)
            if opened is not None:
                async with opened.lock:
                    await self._commits.redescribe(opened)


def _is_at_rest(inode: Inode) -> bool:
    """Whether it is a stored file that nobody has open."""
    return inode.kind is Kind.FILE and not (inode.local or inode.open_count)

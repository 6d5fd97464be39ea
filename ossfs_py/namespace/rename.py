"""Renaming: copies on the server, then deletes; of directories, everything below in parallel."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import trio

from ossfs_py.errors import (
    EntryExistsError,
    InvalidArgumentError,
    IsADirectoryPathError,
    NameTooLongError,
    NoSuchEntryError,
    NotADirectoryPathError,
    ObjectMissingError,
    StaleInodeError,
    StoreError,
    StoreUnavailableError,
    VersionChangedError,
)
from ossfs_py.model import ListQuery, ObjectVersion
from ossfs_py.namespace.attributes import stored_metadata
from ossfs_py.namespace.entries import Entries
from ossfs_py.namespace.inode import Inode, Kind
from ossfs_py.namespace.keys import require_key
from ossfs_py.namespace.moves import DirectoryMove, FileMove, Moves
from ossfs_py.namespace.promises import OnCopied, OnMoved, Promise, RenameLog
from ossfs_py.namespace.resolver import Resolver
from ossfs_py.namespace.tree import Tree
from ossfs_py.namespace.treecopy import Copies, TreeCopier
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import ObjectStore

log = logging.getLogger(__name__)


_COPY_TRIES = 3
_RETRY_SECONDS = 5.0
"""Pause between tries of what is promised; each has the store's own retry budget."""


@dataclass(frozen=True, slots=True)
class _Move:
    """One rename in progress."""

    source: Inode
    parent: Inode
    name: str
    key: str
    on_copied: OnCopied | None
    on_moved: OnMoved | None
    promise: Promise | None = None
    over_directory: bool = False
    """Whether it takes the place of an empty directory."""


class Renamer:
    """The rename operation."""

    def __init__(
        self,
        store: ObjectStore,
        copier: TreeCopier,
        workers: Workers,
        tree: Tree,
        resolver: Resolver,
        entries: Entries,
        moves: Moves,
        rename_log: RenameLog | None = None,
    ) -> None:
        self._store = store
        self._moves = moves
        self._log = rename_log
        self._workers = workers
        self._tree = tree
        self._resolver = resolver
        self._entries = entries
        self._copier = copier

    def affected(self, inode: Inode) -> list[Inode]:
        """The open inodes that a rename of ``inode`` takes along, itself included."""
        return [node for node in self._tree.table.below(inode) if node.open_count]

    async def rename(
        self,
        parent: Inode,
        name: str,
        new_parent: Inode,
        new_name: str,
        *,
        no_replace: bool = False,
        on_copied: OnCopied | None = None,
        on_moved: OnMoved | None = None,
        promise: Promise | None = None,
    ) -> Inode:
        """Give an entry another name; see :meth:`Namespace.rename`."""
        self._entries.require_writable()
        key = self._entries.new_key(new_parent, new_name)
        source = await self._entries.find(parent, name)
        target = await self._entries.find_target(new_parent, new_name)
        if target is source:
            return source
        if target is not None and no_replace:
            raise EntryExistsError(f"{new_name!r} exists")
        old_parent = source.parent
        move = _Move(
            source, new_parent, new_name, key, on_copied, on_moved, promise, target is not None
        )
        await self._entries.removed.make_room_of_moved(key + "/")
        if source.kind is Kind.DIRECTORY:
            if _is_inside(new_parent, source):
                raise InvalidArgumentError("a directory cannot be moved into itself")
            if target is not None:
                if target.kind is not Kind.DIRECTORY:
                    raise NotADirectoryPathError(f"{new_name!r} is no directory")
                await self._entries.require_empty(target)
            await self._entries.removed.make_room_below(key + "/")
            if promise is not None:
                await self._move_directory_behind(move, promise)
                return source
            await self._move_directory_remembered(move)
        else:
            if target is not None and target.kind is Kind.DIRECTORY:
                raise IsADirectoryPathError(f"{new_name!r} is a directory")
            if (
                promise is not None
                and target is None
                and await self._move_file_behind(move, promise)
            ):
                return source
            await self._move_file(move, target)
            if on_moved is not None:
                await on_moved()
        if old_parent is not None and old_parent is not new_parent:
            await self._entries.keep_visible(old_parent)
        return source

    async def finish(self, source: Inode, parent: Inode, name: str) -> bool:
        """See :meth:`Namespace.finish_rename`."""
        tree, resolver = self._tree, self._resolver
        info = None
        is_directory = source.kind is Kind.DIRECTORY
        # Of a directory that was not stored, the store may have more below it by now. Where the new
        # name was known before, that may be older than the call.
        is_unclear = not is_directory or tree.table.child(parent, name) is not None
        if source.removed or (source.local and is_unclear):
            return False
        if is_directory:
            marker = await resolver.head(tree.keys.marker_key_of(source))
            if marker is not None or await resolver.first_below(source) is not None:
                return False
            page = await resolver.list_page(
                ListQuery(tree.keys.child_key(parent, name) + "/", max_keys=1)
            )
            if not (page.objects or page.prefixes):
                return False
        else:
            if await resolver.head(tree.keys.key_of(source)) is not None:
                return False
            info = await resolver.head(tree.keys.child_key(parent, name))
            if info is None:
                return False
        tree.renamed(source, parent, name)
        if info is not None:
            source.info, source.metadata = info, info.metadata
        for node in tree.table.below(source):
            node.fresh_until = 0.0
        return True

    # -- files ------------------------------------------------------------------------------------

    async def _move_file(self, move: _Move, target: Inode | None) -> None:
        tree, source = self._tree, move.source
        old_key = tree.keys.key_of(source)
        if source.local:
            if source.shadows:
                await self._workers.run(self._store.delete, old_key)
            source.shadows = target is not None and (not target.local or target.shadows)
            tree.renamed(source, move.parent, move.name)
            return
        await self._entries.removed.make_room(move.key)
        with nullcontext() if target is None else tree.changing.during(target):
            before, version, stored = await self._copy_file(source, move.key)
            with tree.changing.during(source):
                try:
                    if move.on_copied is not None:
                        await move.on_copied([(source, before, version)])
                    put_off = self._entries.removed.put_off
                    if put_off is not None:
                        await put_off(before)
                    else:
                        await self._workers.run(self._store.delete, old_key)
                except BaseException:
                    self._both_exist(move)
                    raise
                tree.stored(source, version, stored)
                tree.renamed(source, move.parent, move.name)

    async def _copy_file(
        self, source: Inode, key: str
    ) -> tuple[ObjectVersion, ObjectVersion, Mapping[str, str] | None]:
        """The version that was copied, the copy, and its metadata as far as it is known."""
        for attempt in range(1, _COPY_TRIES + 1):
            await self._resolver.refresh(source)
            await self._resolver.ensure_described(source)
            info = source.info
            if info is None:
                raise NoSuchEntryError(f"{source.name!r} is not in the store")
            replacement = self._replacement(source)
            try:
                version = await self._workers.run(
                    partial(
                        self._store.copy,
                        info.version,
                        key,
                        metadata=replacement,
                        content_type=None if replacement is None else info.content_type,
                        like=info,
                    )
                )
            except VersionChangedError:
                if attempt == _COPY_TRIES:
                    raise
                source.fresh_until = 0.0
            except ObjectMissingError as exc:
                self._tree.vanished(source)
                raise NoSuchEntryError(f"{source.name!r} is gone from the store") from exc
            else:
                stored = source.metadata if replacement is None else replacement
                return info.version, version, stored
        raise AssertionError("the last attempt returns or raises")

    def _replacement(self, source: Inode) -> Mapping[str, str] | None:
        """Metadata for the copy; None to keep what is stored.

        A copy has a new Last-Modified. Who asked for full fidelity keeps the time by storing it;
        others keep it as long as the inode is known, and the copy one request cheaper.
        """
        lacks_time = self._tree.options.posix_metadata and source.decoded.mtime_ns is None
        if source.metadata_dirty or (lacks_time and source.metadata is not None):
            return stored_metadata(source, self._tree.options, with_times=True)
        return None

    def _both_exist(self, move: _Move) -> None:
        """The copies are made, the sources perhaps not deleted: believe nothing remembered."""
        tree = self._tree
        tree.changes.add(move.key)
        tree.absences.discard(move.key)
        tree.listings.drop(move.parent)
        if move.source.parent is not None:
            tree.listings.drop(move.source.parent)
        for node in tree.table.below(move.source):
            tree.listings.drop(node)
            node.fresh_until = 0.0

    # -- directories ------------------------------------------------------------------------------

    async def _move_directory_remembered(self, move: _Move) -> None:
        """Move; should the daemon die meanwhile, the next mount makes one of the two whole."""
        prefix = self._tree.keys.marker_key_of(move.source)
        await self._remember(move, prefix, {}, is_copied=False)
        try:
            await self._move_directory(move)
            if move.on_moved is not None:
                await move.on_moved()
        finally:
            await self._forget(prefix)

    async def _forget(self, prefix: str) -> None:
        if self._log is not None:
            with trio.CancelScope(shield=True):
                await self._workers.run(self._log.forget_rename, prefix)

    async def _remember(
        self,
        move: _Move,
        prefix: str,
        etags: Mapping[str, str],
        *,
        is_copied: bool,
        durable: bool = True,
    ) -> None:
        if self._log is not None:
            record = partial(
                self._log.record_rename,
                prefix,
                move.key + "/",
                is_copied=is_copied,
                over_directory=move.over_directory,
                etags=etags,
                is_promised=move.promise is not None,
                durable=durable,
            )
            await self._workers.run(record)

    async def _move_directory(self, move: _Move) -> None:
        tree, source = self._tree, move.source
        old_prefix = tree.keys.marker_key_of(source)
        new_prefix = move.key + "/"
        objects = await self._copier.everything_below(old_prefix)
        if not objects and not tree.holds_unstored(source):
            tree.vanished(source)
            raise NoSuchEntryError(f"{source.name!r} is gone from the store")
        for node in tree.table.below(source):
            require_key(new_prefix + tree.keys.key_of(node)[len(old_prefix) :])
        for info in objects:
            require_key(new_prefix + info.key[len(old_prefix) :])
        copies = await self._copier.copy_all(objects, old_prefix, new_prefix)
        tree.added(copy.key for _, copy in copies.values())
        keys = {node: self._stored_key(node) for node in tree.table.below(source)}
        with tree.changing.during(source):
            try:
                open_copies = [
                    (node, *copies[key])
                    for node, key in keys.items()
                    if node.open_count and key in copies
                ]
                if move.on_copied is not None and open_copies:
                    await move.on_copied(open_copies)
                etags = {copied.etag: copy.etag for _, copied, copy in open_copies}
                await self._remember(move, old_prefix, etags, is_copied=True)
                await self._copier.delete_all(list(copies), old_prefix)
            except BaseException:
                self._both_exist(move)
                raise
            tree.renamed(source, move.parent, move.name)
        for node, key in keys.items():
            copied = copies.get(key)
            if copied is not None and node.info is not None and copied[0] == node.info.version:
                tree.stored(node, copied[1], node.metadata)
            elif not node.local:
                node.fresh_until = 0.0  # not copied, or another version than the one known
        tree.refreshed(source, tree.now())

    # -- directories, behind ----------------------------------------------------------------------

    async def _move_directory_behind(self, move: _Move, promise: Promise) -> None:
        """Give the directory its new name here, and then at the store."""
        tree, source = self._tree, move.source
        old_prefix, new_prefix = tree.keys.marker_key_of(source), move.key + "/"
        for node in tree.table.below(source):
            require_key(new_prefix + tree.keys.key_of(node)[len(old_prefix) :])
        if len(new_prefix.encode()) > len(old_prefix.encode()):
            for info in await self._copier.everything_below(old_prefix):
                require_key(new_prefix + info.key[len(old_prefix) :])
        await self._remember(move, old_prefix, {}, is_copied=False, durable=False)
        carry_out = partial(self._carry_out, move, old_prefix, new_prefix)
        forget = partial(self._forget, old_prefix)
        parent = source.parent
        if await self._kept(
            move, promise, DirectoryMove(old_prefix, new_prefix), carry_out, forget
        ):
            assert parent is not None  # noqa: S101 - nobody renames the root
            tree.listings.drop(parent)  # if the store keeps the old one, it is seen again
            tree.absences.discard(old_prefix.removesuffix("/"))

    async def _move_file_behind(self, move: _Move, promise: Promise) -> bool:
        """As :meth:`_move_directory_behind`, of a stored file that nobody has open, to a free name.
        False, and nothing has happened, if it is another one: a program that has it open may write
        to it, and the next mount could not tell on top of what.
        """
        source = move.source
        await self._entries.removed.make_room(move.key)
        known, put_off = source.info, self._entries.removed.put_off
        if known is None or source.local or source.kind is not Kind.FILE or put_off is None:
            return False
        await promise.keep_file(known.version, move.key)
        if source.open_count or source.info is not known:
            await promise.forget_file()
            return False
        info = known._replace(key=move.key, stored_at=known.version.key)
        told = FileMove(known.version.key, move.key, info)
        carry_out = partial(self._carry_out_file, move, told.old_name, put_off)
        await self._kept(move, promise, told, carry_out, promise.forget_file)
        return True

    async def _kept(
        self,
        move: _Move,
        promise: Promise,
        told: DirectoryMove | FileMove,
        carry_out: Callable[[], Awaitable[None]],
        forget: Callable[[], Awaitable[None]],
    ) -> bool:
        """Rename here, then at the store; whether the store has it. If not, the next mount carries
        it out, or it is taken back.
        """
        tree, source = self._tree, move.source
        parent, name = source.parent, source.name
        assert parent is not None  # noqa: S101 - nobody renames the root
        scope = self._moves.begin(told)
        source.moving = True
        is_promised = False
        try:
            tree.renamed(source, move.parent, move.name)
            if move.on_moved is not None:
                await move.on_moved()
            is_promised = True
            promise.is_made()
            with scope:
                await carry_out()
            if scope.cancelled_caught:
                return False  # the next mount finds it in the journal
        except BaseException as exc:
            is_refused = isinstance(exc, StoreError | NameTooLongError)
            if is_promised and not is_refused:
                raise  # as above
            if is_promised:
                kind = "directory" if source.kind is Kind.DIRECTORY else "file"
                what = f"{kind} {told.new_name!r} has its old name {told.old_name!r} again: {exc}"
                log.error("%s", what)  # noqa: TRY400 - what was refused says it
                self._moves.refused(what)
            with trio.CancelScope(shield=True):
                await self._take_back(move, told.old_name, parent, name, forget)
            if not is_promised:
                raise
            return False
        if parent is not move.parent:
            await self._entries.keep_visible(parent)
        await forget()
        source.moving = False
        self._moves.end(told.old_name)
        return True

    async def _take_back(
        self,
        move: _Move,
        old_name: str,
        parent: Inode,
        name: str,
        forget: Callable[[], Awaitable[None]],
    ) -> None:
        """Give it its old name, and what waits in it."""
        tree, source = self._tree, move.source
        source.moving = False
        self._moves.end(old_name)
        tree.renamed_back(source, parent, name)
        for node in tree.table.below(source):
            node.fresh_until = 0.0
            tree.listings.drop(node)
        try:
            if move.on_moved is not None:
                await move.on_moved()
        finally:
            await forget()

    async def _carry_out_file(
        self, move: _Move, old_key: str, put_off: Callable[[ObjectVersion], Awaitable[None]]
    ) -> None:
        """As :meth:`_carry_out`."""
        tree, source = self._tree, move.source
        copied: tuple[Inode, ObjectVersion, ObjectVersion] | None = None
        while True:
            try:
                if copied is None:
                    before, version, stored = await self._copy_file(source, move.key)
                    copied = source, before, version
                    tree.stored(source, version, stored)
                    self._moves.copied(old_key)
                    tree.changed(source, new=False)  # answers on their way are not believed
                if move.on_copied is not None:
                    await move.on_copied([copied])
                await put_off(copied[1])
            except (NoSuchEntryError, StaleInodeError) as exc:
                log.info("%r, renamed, is not in the store any more: %s", move.key, exc)
                return
            except (StoreUnavailableError, OSError, RuntimeError) as exc:
                log.warning("%r has its old name in the bucket: %s", move.key, exc)
                await self._moves.wait_after_failure(old_key, _RETRY_SECONDS)
            else:
                return

    async def _carry_out(self, move: _Move, old_prefix: str, new_prefix: str) -> None:
        """Bring a promised rename to the store, as often as it takes.

        Raises:
            StoreError, NameTooLongError: it refuses the copies.
        """
        copies: Copies | None = None
        opened: list[tuple[Inode, ObjectVersion, ObjectVersion]] = []
        is_durable = is_recorded = False
        while True:
            try:
                if not is_durable:
                    # Behind, as a write that is waited for: a power loss costs a second at most.
                    await self._remember(move, old_prefix, {}, is_copied=False)
                    is_durable = True
                if copies is None:
                    objects = await self._copier.everything_below(old_prefix)
                    for info in objects:
                        require_key(new_prefix + info.key[len(old_prefix) :])
                    copies = await self._copier.copy_all(objects, old_prefix, new_prefix)
                    opened = self._switch(move.source, copies, old_prefix, new_prefix)
                if not is_recorded:
                    if move.on_copied is not None and opened:
                        await move.on_copied(opened)
                    etags = {copied.etag: copy.etag for _, copied, copy in opened}
                    await self._remember(move, old_prefix, etags, is_copied=True)
                    is_recorded = True
                    # Answers that were on their way told of the old keys.
                    self._settle(move.source, copies, old_prefix, new_prefix)
                await self._copier.delete_all(list(copies), old_prefix)
            except (StoreUnavailableError, OSError, RuntimeError) as exc:
                log.warning("%r has its old name in the bucket: %s", new_prefix, exc)
                await self._moves.wait_after_failure(old_prefix, _RETRY_SECONDS)
            except StoreError as exc:
                if copies is None:
                    raise
                # Hidden, it would be seen by all clients but those that could handle it.
                what = f"{old_prefix!r} was renamed, but the store keeps it: {exc}"
                log.error("%s", what)  # noqa: TRY400 - what was refused says it
                self._moves.refused(what)
                return
            else:
                return

    def _switch(
        self, source: Inode, copies: Copies, old_prefix: str, new_prefix: str
    ) -> list[tuple[Inode, ObjectVersion, ObjectVersion]]:
        """From now on, all is read from the copies; returns the inodes that are open."""
        tree = self._tree
        opened = self._settle(source, copies, old_prefix, new_prefix)
        tree.added(copy.key for _, copy in copies.values())
        self._moves.copied(old_prefix)
        for node in tree.table.below(source):
            tree.changes.add(tree.keys.key_of(node))  # answers on their way are not believed
            tree.listings.drop(node)
        return opened

    def _settle(
        self,
        source: Inode,
        copies: Copies,
        old_prefix: str,
        new_prefix: str,
    ) -> list[tuple[Inode, ObjectVersion, ObjectVersion]]:
        """Let the inodes of a directory stand for the copies; returns those that are open."""
        tree = self._tree
        opened = []
        for node in tree.table.below(source):
            copied = copies.get(old_prefix + self._stored_key(node)[len(new_prefix) :])
            if copied is not None and node.open_count:
                opened.append((node, *copied))
            info = node.info
            if info is None or not info.version.key.startswith(old_prefix):
                continue
            if copied is not None and copied[0] == info.version:
                tree.stored(node, copied[1], node.metadata)
            elif not node.local:
                node.fresh_until = 0.0  # not copied, or another version than the one known
        return opened

    def _stored_key(self, node: Inode) -> str:
        keys = self._tree.keys
        return keys.marker_key_of(node) if node.kind is Kind.DIRECTORY else keys.key_of(node)


def _is_inside(place: Inode, directory: Inode) -> bool:
    """Whether ``place`` is the directory or somewhere below it."""
    node: Inode | None = place
    while node is not None and node is not directory:
        node = node.parent
    return node is directory

"""Renaming: copies on the server, then deletes; of directories, everything below in parallel."""

import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

import trio

from ossfs_py.errors import (
    EntryExistsError,
    InvalidArgumentError,
    IsADirectoryPathError,
    NoSuchEntryError,
    NotADirectoryPathError,
    ObjectMissingError,
    StoreError,
    StoreUnavailableError,
    VersionChangedError,
)
from ossfs_py.model import CommitRequest, ListQuery, ObjectInfo, ObjectVersion
from ossfs_py.namespace.attributes import stored_metadata
from ossfs_py.namespace.entries import Entries
from ossfs_py.namespace.inode import Inode, Kind
from ossfs_py.namespace.keys import require_key
from ossfs_py.namespace.pending import map_bounded
from ossfs_py.namespace.removing import remove_all
from ossfs_py.namespace.resolver import Resolver
from ossfs_py.namespace.tree import Tree
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import ObjectStore

log = logging.getLogger(__name__)


class RenameLog(Protocol):
    """Remembers across a crash which directories are being renamed. Methods block shortly."""

    def record_rename(
        self,
        old_prefix: str,
        new_prefix: str,
        *,
        is_copied: bool,
        over_directory: bool,
        etags: Mapping[str, str],
    ) -> None:
        """Copies below ``new_prefix``, where nothing is yet but perhaps an empty directory, begin
        now; or ``is_copied``: they are made, and from now on the rename counts. ``etags`` has those
        of copies of what is open, by those of what was copied.
        """
        ...

    def forget_rename(self, old_prefix: str) -> None:
        """It is over, one way or the other."""
        ...


OnCopied: TypeAlias = Callable[[list[tuple[Inode, ObjectVersion, ObjectVersion]]], Awaitable[None]]
"""Called with inodes, the version that was copied, and the copy: the bytes are the same."""
OnMoved: TypeAlias = Callable[[], Awaitable[None]]
"""Told that an inode, and all below it, have their new names. A rename of a directory is
remembered until this has returned."""

_PROGRESS_KEYS = 1000
_COPY_TRIES = 3


@dataclass(frozen=True, slots=True)
class _Move:
    """One rename in progress."""

    source: Inode
    parent: Inode
    name: str
    key: str
    on_copied: OnCopied | None
    on_moved: OnMoved | None
    over_directory: bool = False
    """Whether it takes the place of an empty directory."""


class Renamer:
    """The rename operation."""

    def __init__(
        self,
        store: ObjectStore,
        workers: Workers,
        tree: Tree,
        resolver: Resolver,
        entries: Entries,
        rename_log: RenameLog | None = None,
    ) -> None:
        self._store = store
        self._log = rename_log
        self._workers = workers
        self._tree = tree
        self._resolver = resolver
        self._entries = entries
        # A quarter of the threads stays free for readers: a copy may take a minute.
        self._parallel = max(1, workers.count - workers.count // 4)

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
        move = _Move(source, new_parent, new_name, key, on_copied, on_moved, target is not None)
        if source.kind is Kind.DIRECTORY:
            if _is_inside(new_parent, source):
                raise InvalidArgumentError("a directory cannot be moved into itself")
            if target is not None:
                if target.kind is not Kind.DIRECTORY:
                    raise NotADirectoryPathError(f"{new_name!r} is no directory")
                await self._entries.require_empty(target)
            await self._entries.removed.make_room_below(key + "/")
            await self._move_directory_remembered(move)
        else:
            if target is not None and target.kind is Kind.DIRECTORY:
                raise IsADirectoryPathError(f"{new_name!r} is a directory")
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
        if source.local or source.removed:
            return False
        if source.kind is Kind.DIRECTORY:
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
        with nullcontext() if target is None else tree.changing(target):
            before, version, stored = await self._copy_file(source, move.key)
            with tree.changing(source):
                try:
                    if move.on_copied is not None and source.open_count:
                        await move.on_copied([(source, before, version)])
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

    def _replacement(self, source: Inode) -> dict[str, str] | None:
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
            if self._log is not None:
                with trio.CancelScope(shield=True):
                    await self._workers.run(self._log.forget_rename, prefix)

    async def _remember(
        self, move: _Move, prefix: str, etags: Mapping[str, str], *, is_copied: bool
    ) -> None:
        if self._log is not None:
            record = partial(
                self._log.record_rename,
                prefix,
                move.key + "/",
                is_copied=is_copied,
                over_directory=move.over_directory,
                etags=etags,
            )
            await self._workers.run(record)

    async def _move_directory(self, move: _Move) -> None:
        tree, source = self._tree, move.source
        old_prefix = tree.keys.marker_key_of(source)
        new_prefix = move.key + "/"
        objects = await self._everything_below(old_prefix)
        if not objects and not tree.holds_unstored(source):
            tree.vanished(source)
            raise NoSuchEntryError(f"{source.name!r} is gone from the store")
        for node in tree.table.below(source):
            require_key(new_prefix + tree.keys.key_of(node)[len(old_prefix) :])
        for info in objects:
            require_key(new_prefix + info.key[len(old_prefix) :])
        copies = await self._copy_all(objects, old_prefix, new_prefix)
        keys = {
            node: tree.keys.marker_key_of(node)
            if node.kind is Kind.DIRECTORY
            else tree.keys.key_of(node)
            for node in tree.table.below(source)
        }
        with tree.changing(source):
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
                await self._delete_all(list(copies), old_prefix)
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

    async def _everything_below(self, prefix: str) -> list[ObjectInfo]:
        objects: list[ObjectInfo] = []
        token: str | None = None
        used: set[str | None] = set()
        while token not in used:
            used.add(token)
            page = await self._resolver.list_page(ListQuery(prefix, delimiter="", token=token))
            objects += page.objects
            if page.next_token is None:
                return objects
            token = page.next_token
        raise StoreUnavailableError(
            "the listing goes in circles", operation="ListObjectsV2", key=prefix
        )

    async def _copy_all(
        self, objects: list[ObjectInfo], old_prefix: str, new_prefix: str
    ) -> dict[str, tuple[ObjectVersion, ObjectVersion]]:
        """Copy every object, or none; by key, what was copied and the copy.

        A failure takes back the copies already made: the half-filled target would stand in the
        way of the next try.
        """
        # Facts that a LIST lacks (encryption, a redirect) cost one request for each object. Only
        # --posix-metadata pays for them; otherwise the store's defaults for copies apply.
        asks = self._tree.options.posix_metadata
        made: list[str] = []  # list.append is atomic; the copies run on several threads

        def copy(info: ObjectInfo) -> tuple[ObjectVersion, ObjectVersion] | None:
            key = new_prefix + info.key[len(old_prefix) :]
            source = info.version
            try:
                try:
                    if key.endswith("/") and info.size == 0:
                        # SeaweedFS answers a copy of a marker with success and makes nothing.
                        marker = self._store.head(info.key)
                        said = CommitRequest(
                            key, marker.metadata or {}, marker.content_type, like=marker
                        )
                        version = self._store.put(said, b"")
                    else:
                        if asks:
                            info = self._store.head(info.key)
                        version = self._store.copy(source, key, like=info)
                except VersionChangedError:
                    info = self._store.head(info.key)
                    source = info.version
                    version = self._store.copy(source, key, like=info)
            except ObjectMissingError:
                return None  # deleted by another client meanwhile
            made.append(key)
            return source, version

        progress = self._progress("copied", old_prefix, len(objects))
        copies: dict[str, tuple[ObjectVersion, ObjectVersion]] = {}
        try:
            for level in _from_the_top(objects):
                done = await map_bounded(
                    self._workers, copy, level, limit=self._parallel, progress=progress
                )
                copies |= {
                    info.key: copied
                    for info, copied in zip(level, done, strict=True)
                    if copied is not None
                }
        except StoreError:
            log.warning("renaming %r failed; taking back %d copies", old_prefix, len(made))
            try:
                await remove_all(self._store, self._workers, made, limit=self._parallel)
            except StoreError as exc:
                log.warning("copies below %r are left behind: %s", new_prefix, exc)
            raise
        return copies

    async def _delete_all(self, keys: list[str], prefix: str) -> None:
        """Delete files first, then markers from the deepest up, also where none is known.

        SeaweedFS keeps a marker, silently, whose directory still has children, and it goes on
        listing an empty directory until a marker of it is deleted.
        """
        gone = {*keys, *_directories_of(keys, prefix)}
        progress = self._progress("deleted", prefix, len(gone))
        levels: dict[int, list[str]] = {}
        for key in gone:
            levels.setdefault(key.count("/") if key.endswith("/") else sys.maxsize, []).append(key)
        for level in sorted(levels, reverse=True):
            await remove_all(
                self._store, self._workers, levels[level], limit=self._parallel, progress=progress
            )

    @staticmethod
    def _progress(done: str, prefix: str, total: int) -> Callable[[int], None] | None:
        if total <= _PROGRESS_KEYS:
            return None

        def report(count: int) -> None:
            if count % _PROGRESS_KEYS == 0 or count == total:
                log.info("renaming %r: %s %d of %d objects", prefix, done, count, total)

        return report


def _from_the_top(objects: list[ObjectInfo]) -> list[list[ObjectInfo]]:
    """Markers, those of one depth together, then files: SeaweedFS loses a marker, at times, that
    comes while it makes the directory by itself for something in it.
    """
    levels: dict[int, list[ObjectInfo]] = {}
    for info in objects:
        depth = info.key.count("/") if info.key.endswith("/") else sys.maxsize
        levels.setdefault(depth, []).append(info)
    return [levels[depth] for depth in sorted(levels)]


def _directories_of(keys: list[str], prefix: str) -> set[str]:
    """The markers of all directories that ``keys`` are in, from ``prefix`` down."""
    markers: set[str] = set()
    for key in keys:
        marker = key[: key.rfind("/") + 1]
        while len(marker) >= len(prefix) and marker not in markers:
            markers.add(marker)
            marker = marker[: marker.rfind("/", 0, -1) + 1]
    return markers


def _is_inside(place: Inode, directory: Inode) -> bool:
    """Whether ``place`` is the directory or somewhere below it."""
    node: Inode | None = place
    while node is not None and node is not directory:
        node = node.parent
    return node is directory

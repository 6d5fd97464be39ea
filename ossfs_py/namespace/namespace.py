"""The names, inodes and attributes of one mount."""

import logging
import time
from collections.abc import Mapping

from ossfs_py.errors import (
    BucketMissingError,
    FilesystemError,
    NoSuchEntryError,
    ObjectMissingError,
    StaleInodeError,
    StoreError,
    StoreUnavailableError,
)
from ossfs_py.model import AttributeChange, Attributes, ObjectInfo, ObjectVersion
from ossfs_py.namespace.answers import MetadataMemory
from ossfs_py.namespace.attributes import full_mode, is_changed_since, stored_metadata
from ossfs_py.namespace.emptying import Emptying
from ossfs_py.namespace.entries import Entries
from ossfs_py.namespace.inode import Inode, InodeTable, Kind
from ossfs_py.namespace.listing.reading import Listed
from ossfs_py.namespace.modesahead import ModesAhead
from ossfs_py.namespace.moves import CatalogueOfMoved, Moves
from ossfs_py.namespace.news import NOBODY, KernelNews
from ossfs_py.namespace.opendirectory import DirectoryListing
from ossfs_py.namespace.past import PastCatalogue
from ossfs_py.namespace.policy import NamespaceOptions
from ossfs_py.namespace.promises import OnCopied, OnMoved, Promise, RenameLog
from ossfs_py.namespace.removed import CatalogueWithoutRemoved, RemovedKeys
from ossfs_py.namespace.rename import Renamer
from ossfs_py.namespace.resolver import Resolver
from ossfs_py.namespace.setattr import AttributeWriter, why_never
from ossfs_py.namespace.tree import Tree, kind_of
from ossfs_py.namespace.treecopy import TreeCopier
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import InlineWrites, ObjectStore
from ossfs_py.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

__all__ = ["DirectoryListing", "Inode", "Kind", "Namespace", "NamespaceOptions"]


class Namespace:
    """The mounted tree.

    All methods belong to the trio thread that constructed the object. Local changes are visible
    at once, changes by others within ``metadata_ttl_seconds``. Cancelling a method that changes
    something leaves the request it waits for running: the change may or may not happen. Every
    method that asks the store may raise StoreError.

    ``news`` is told what others changed of what the kernel may have cached.
    """

    def __init__(
        self,
        store: ObjectStore,
        workers: Workers,
        options: NamespaceOptions,
        metrics: Metrics,
        news: KernelNews = NOBODY,
        rename_log: RenameLog | None = None,
        puts: InlineWrites | None = None,
    ) -> None:
        """``puts``: makes empty objects without a thread."""
        self._options = options
        self.moves = Moves()
        """What was renamed here and has its old name in the store."""
        self.removed = RemovedKeys(self.moves)
        """Names that were removed here and are still in the store: they are hidden."""
        there = store if options.at_ns is None else PastCatalogue(store, options.at_ns)
        present = CatalogueWithoutRemoved(there, self.removed)
        seen = CatalogueOfMoved(present, self.moves)
        self._tree = Tree(seen, workers, options, metrics, self.moves, news)
        self.changing, self.version_nowait = self._tree.changing, self._tree.version_nowait
        self._resolver = Resolver(seen, workers, self._tree)
        self.entry_nowait = self._resolver.entry_nowait
        self._tree.listings.walks.on_found = lambda page: self._resolver.ask_ahead(page.objects)
        self._entries = Entries(store, workers, self._tree, self._resolver, self.removed, puts)
        self.fresh_child, self.stays_shown = self._tree.fresh_child, self._entries.stays_shown
        copier = TreeCopier(store, present, workers, asks=options.posix_metadata)
        rooms = self._tree, self._resolver, self._entries, self.moves
        self._renamer = Renamer(store, copier, workers, *rooms, rename_log)
        self.make_directory_nowait = self._entries.make_directory_nowait
        self._emptying = Emptying(store.list_page, workers, self._tree, self.removed)
        self._modes_ahead = ModesAhead(self._tree, self._resolver)
        self._writer = AttributeWriter(store, workers, self._tree, self._resolver, self._entries)
        self.defer_attributes = self._writer.defer

    @property
    def metadata_memory(self) -> MetadataMemory:
        """The known answers about object versions."""
        return self._tree.metadata

    # -- inodes -----------------------------------------------------------------------------------

    @property
    def root(self) -> Inode:
        """The mountpoint."""
        return self._tree.table.root

    @property
    def inodes(self) -> InodeTable:
        """Every inode that is known, for who keeps them beyond this process."""
        return self._tree.table

    def inode(self, number: int) -> Inode:
        """The inode of that number, to do something with its name or what is stored under it.

        Raises:
            StaleInodeError: not known, or others took its name. The kernel looks the path up again.
        """
        inode = self._tree.table.get(number)
        if inode.stale:
            raise StaleInodeError(f"{inode.name!r} was replaced or removed by others")
        return inode

    def inode_or_stale(self, number: int) -> Inode:
        """The inode of that number, also one that others took the name from.

        Raises:
            StaleInodeError: not known, or stale and nobody has it open.
        """
        inode = self._tree.table.get(number)
        if inode.stale and not inode.open_count:
            raise StaleInodeError(f"{inode.name!r} was replaced or removed by others")
        return inode

    def generation(self, inode: Inode) -> int:
        """The values that the kernel gets beside the inode's number."""
        return self._tree.table.generation(inode)

    def remember(self, inode: Inode, count: int = 1) -> None:
        """The kernel got ``count`` more references to the inode."""
        self._tree.table.remember(inode, count)

    def forget(self, number: int, count: int) -> bool:
        """The kernel dropped ``count`` references; whether it has none left. Never raises."""
        return self._tree.table.forget(number, count)

    def key_of(self, inode: Inode) -> str:
        """The key a file's bytes are, or will be, under."""
        return self._tree.keys.key_of(inode)

    # -- asking -----------------------------------------------------------------------------------

    async def lookup(self, parent: Inode, name: str) -> Inode:
        """The entry ``name`` of a directory; its lookup count is not touched.

        What a fresh listing or lookup knows costs no request, otherwise HEAD and LIST are sent at
        once and shared by everybody who asks meanwhile.

        Raises:
            NoSuchEntryError, NotADirectoryPathError, NameTooLongError
        """
        return await self._resolver.lookup(parent, name)

    def lookup_ahead(self, parent: Inode, name: str) -> None:
        """Ask for an entry that will be looked up soon; returns at once and never fails."""
        self._resolver.lookup_ahead(parent, name)

    def kernel_asks(self, parent: Inode, name: str) -> None:
        """The kernel believes nothing of the name any more."""
        self._tree.absences.untell(parent.number, name)

    def tell_absent(self, parent: Inode, name: str) -> float:
        """For how many seconds the kernel, to which this is told, may take the name for absent.

        ``news`` is told should it appear meanwhile.
        """
        seconds = self._tree.absent_seconds(parent, name)
        if seconds > 0:
            self._tree.absences.tell(parent.number, name)
        return seconds

    def known_child(self, parent: Inode, name: str) -> Inode | None:
        """The entry of that name, if this mount knows one, however old; no request."""
        return self._tree.table.child(parent, name)

    async def attributes(self, inode: Inode) -> Attributes:
        """Fresh attributes, from memory where those are fresh.

        Raises:
            StaleInodeError: gone from the store, or the name stands for another inode now, and
                nobody has this one open.
        """
        tree = self._tree
        try:
            await self._resolver.refresh(inode)
            if tree.lacks_metadata(inode):
                await self._resolver.ensure_metadata(inode)
            if tree.is_guess(inode):
                await self._ask_mode(inode)
        except StaleInodeError:
            if not inode.open_count:
                raise
        return tree.attributes(inode)

    async def _ask_mode(self, inode: Inode) -> None:
        """Ask who may do what; where that cannot be told, the guess grants nothing to others."""
        if self._tree.recall(inode):
            return
        self._modes_ahead.wanted(inode)
        try:
            await self._resolver.ask_mode(inode)
        except (StoreUnavailableError, ObjectMissingError, BucketMissingError):
            raise
        except StoreError as exc:
            log.info("who may do what with %r stays unknown: %s", inode.name, exc)

    def attributes_nowait(self, inode: Inode, now: float | None = None) -> Attributes | None:
        """Attributes without a request; None if the store has to be asked."""
        tree = self._tree
        if not tree.is_fresh(inode, now) or tree.lacks_metadata(inode):
            return None
        if tree.is_guess(inode) and not tree.recall(inode):
            return None
        return tree.attributes(inode)

    def attributes_known(self, inode: Inode) -> Attributes:
        """The attributes in memory, however old: for an inode looked up or listed just now."""
        return self._tree.attributes(inode)

    def mode_known(self, inode: Inode) -> int:
        """Type and permission bits, however old."""
        return full_mode(inode, self._options)

    def fresh_seconds(self, inode: Inode, now: float) -> float:
        """How long after ``now``, on trio's clock, the kernel may keep what it is told then.

        Not at all if it is told a guess: every use of the name asks, then.
        """
        if self._options.guessed_for_uid is not None and self._tree.is_guess(inode):
            return 0.0
        left, ttl_seconds = inode.fresh_until - now, self._options.metadata_ttl_seconds
        if left > ttl_seconds or inode.parent is None or inode.local or inode.removed:
            return ttl_seconds
        return left if left > 0.0 else 0.0

    async def refresh_version(self, inode: Inode) -> ObjectInfo:
        """The version a newly opened descriptor reads; no request while it is fresh.

        Raises:
            NoSuchEntryError: never stored.
            StaleInodeError: gone from the store, or the name stands for another inode now.
        """
        await self._resolver.refresh(inode)
        if inode.info is None:
            raise NoSuchEntryError(f"{inode.name!r} is not in the store")
        return inode.info

    async def ask_version(self, inode: Inode) -> None:
        """Learn which version of a file the store has at this moment; one request.

        Raises:
            StaleInodeError: it has none, or the name stands for another inode now.
        """
        await self._resolver.ask_again(inode)

    async def version_in_store(self, inode: Inode) -> ObjectInfo | None:
        """The object under a file's key at this moment, by any writer; one request.

        The answer is not remembered: the file is about to get another version.
        """
        return await self._resolver.head(self._tree.keys.key_of(inode))

    async def metadata_in_store(self, inode: Inode) -> Mapping[str, str]:
        """Metadata of an inode's object at this moment; empty if there is none. One request."""
        info = await self._resolver.head(self._entries.key_of_empty(inode))
        return {} if info is None or info.metadata is None else info.metadata

    async def ensure_metadata(self, inode: Inode) -> None:
        """Learn what describes a stored inode, so that overwriting it keeps what is there."""
        await self._resolver.ensure_described(inode)

    def invalidate(self, inode: Inode) -> None:
        """Believe nothing remembered of the inode, and nothing listed in or around it."""
        inode.fresh_until = 0.0
        self._tree.listings.drop(inode)
        if inode.parent is not None:
            self._tree.listings.drop(inode.parent)

    def forget_answers(self, inode: Inode) -> list[Inode]:
        """Believe nothing remembered of the inode and all below it; these inodes."""
        self.invalidate(inode)
        self._tree.believe_no_absence()
        nodes = list(self._tree.table.below(inode))
        for node in nodes:
            node.fresh_until = 0.0
            if node.kind is Kind.DIRECTORY:
                self._tree.listings.drop(node)
        return nodes

    def list_directory(self, directory: Inode) -> DirectoryListing:
        """A handle that hands out the directory's entries; nothing is asked yet."""
        return DirectoryListing(self._tree, self._resolver, directory)

    def listed(self, directory: Inode) -> Listed | None:
        """The objects of a directory in listing order, if a fresh listing is at hand."""
        listing = self._tree.listings.complete(directory)
        return None if listing is None else listing.listed()

    # -- making and removing ----------------------------------------------------------------------

    async def make_directory(
        self, parent: Inode, name: str, mode: int, uid: int, gid: int, *, put_off: bool = False
    ) -> Inode:
        """Write a marker with the attributes; ``put_off`` leaves that to :meth:`store_empty`.

        Raises:
            EntryExistsError, ReadOnlyError, NameTooLongError, NotPermittedError
        """
        return await self._entries.make_directory(parent, name, mode, uid, gid, put_off=put_off)

    async def store_empty(self, inode: Inode) -> None:
        """Write the marker of a directory, or the object of a symlink, that is known here only, as
        it is by then.

        Raises:
            StoreError
        """
        await self._entries.write_marker(inode)
        if not (inode.local or inode.removed):
            stored = inode.metadata or {}
            inode.metadata_dirty = is_changed_since(inode, stored, self._options)
            self._tree.changed(inode, new=False)
            await self.flush_attributes(inode)

    def key_of_empty(self, inode: Inode) -> str:
        """The key of the empty object that stands for a directory or a symlink."""
        return self._entries.key_of_empty(inode)

    async def remove_directory(self, parent: Inode, name: str) -> None:
        """Delete an empty directory.

        Raises:
            DirectoryNotEmptyError, NotADirectoryPathError, NoSuchEntryError, ReadOnlyError
        """
        await self._entries.remove_directory(parent, name)

    async def require_empty(self, directory: Inode) -> None:
        """Raise DirectoryNotEmptyError if anything is in a directory.

        One that was made or listed within ``negative_ttl`` says so by itself.
        """
        await self.removed.make_room_of_moved(self._tree.keys.marker_key_of(directory))
        if await self._emptying.is_empty(directory):
            return
        await self._entries.require_empty(directory)

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
        """Write a symbolic link; ``put_off`` as of :meth:`make_directory`.

        Raises:
            EntryExistsError, ReadOnlyError, NameTooLongError, NotPermittedError
        """
        return await self._entries.make_symlink(parent, name, target, uid, gid, put_off=put_off)

    async def make_special(self, parent: Inode, name: str, mode: int, uid: int, gid: int) -> Inode:
        """Write a FIFO or a socket; ``mode`` with its type bits.

        Raises:
            NotPermittedError: another kind of node.
            EntryExistsError, ReadOnlyError, NameTooLongError
        """
        return await self._entries.make_special(parent, name, mode, uid, gid)

    async def read_link(self, inode: Inode) -> bytes:
        """A symbolic link's target.

        Raises:
            InvalidArgumentError: not a link, or one without a usable target.
        """
        return await self._entries.read_link(inode)

    def create_local(self, parent: Inode, name: str, mode: int, uid: int, gid: int) -> Inode:
        """A file that is stored at its first commit; visible here at once.

        Precondition: the caller has looked the name up and it is free.

        Raises:
            EntryExistsError, ReadOnlyError, NameTooLongError, NotPermittedError
        """
        return self._entries.create_local(parent, name, mode, uid, gid)

    def drop_local(self, inode: Inode) -> None:
        """A file that was never stored is given up."""
        if inode.local:
            self._tree.unlinked(inode)

    def note_commit(
        self, inode: Inode, version: ObjectVersion, metadata: Mapping[str, str]
    ) -> None:
        """The inode's bytes are in the store as ``version``, with ``metadata``.

        ``metadata_dirty`` stays set if attributes changed while the upload was under way; call
        :meth:`flush_attributes` then.
        """
        if inode.mtime_ns is None:
            inode.touch(time.time_ns())
        self._tree.stored(inode, version, metadata)
        inode.link_target = None
        inode.metadata_dirty = not inode.removed and is_changed_since(
            inode, metadata, self._options
        )
        if inode.removed:
            return
        if version.key != self._tree.keys.key_of(inode):
            inode.fresh_until = 0.0
            return
        self._tree.changed(inode, new=False)  # the name was new when it was made

    def may_be_link(self, inode: Inode) -> bool:
        """Whether a file may turn out to be a symbolic link, because nobody has asked the store."""
        return self._tree.may_be_link(inode)

    def is_link(self, told: ObjectInfo) -> bool:
        """Whether that is what the store said of a symbolic link."""
        return kind_of(told) is Kind.SYMLINK

    def learn_kind(self, inode: Inode, told: ObjectInfo) -> None:
        """Take in the headers that came with a file's first bytes. If it is no file, its name gets
        another inode.
        """
        self._tree.learn_kind(inode, told)

    async def follow(
        self, inode: Inode, told: ObjectInfo, content: bytes
    ) -> tuple[list[Inode], Inode]:
        """The directories that a link's target passes, and the file it leads to.

        ``inode`` was taken for a file; the store told otherwise beside its content.

        Raises:
            NoSuchEntryError: it leads nowhere, out of the mount, or in a circle.
            FilesystemError, StoreError
        """
        return await self._entries.follow(inode, told, content)

    def note_outdated(self, inode: Inode) -> None:
        """The store refused the inode's version: it has another, or none. The next look asks."""
        self._tree.outdated(inode)

    async def unlink(self, parent: Inode, name: str) -> Inode:
        """Delete a file or symlink; the directory stays visible.

        Raises:
            IsADirectoryPathError, NoSuchEntryError, ReadOnlyError
        """
        return await self._entries.unlink(parent, name)

    def marker_key_of(self, directory: Inode) -> str:
        """The key of a directory's marker, with which all keys below it begin."""
        return self._tree.keys.marker_key_of(directory)

    def note_unlinked(self, inode: Inode) -> None:
        """The file has lost its name here; what the store has of it is the caller's to remove."""
        self._tree.unlinked(inode)

    async def keep_visible(self, directory: Inode, *, put_off: bool = False) -> bool:
        """Something in it was removed: the directory itself stays. Never fails.

        ``put_off``: its marker may come later; True: :meth:`store_empty` is to send one.
        """
        return await self._entries.keep_visible(directory, put_off=put_off)

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
        """Give an entry another name; returns its inode.

        Everything is copied before anything is deleted. ``on_copied`` is awaited between the two
        with the open inodes whose bytes are now also under another version, so that readers can
        go on from there; afterwards ``inode.info`` is that version. Files that are not in the
        store yet move without a request. ``on_moved`` is awaited when all have their new names,
        before a rename of a directory is forgotten.

        ``promise``: it has its new name here first, and this is told when the journal has it. After
        that, failures are logged: the store is tried again; if it refuses, it is taken back.

        Raises:
            NoSuchEntryError, EntryExistsError (``no_replace``), IsADirectoryPathError,
            NotADirectoryPathError, DirectoryNotEmptyError, InvalidArgumentError,
            NameTooLongError, NotPermittedError, ReadOnlyError
            StoreError: a failed copy leaves the source as it was; a failed delete leaves both.
        """
        return await self._renamer.rename(
            parent,
            name,
            new_parent,
            new_name,
            no_replace=no_replace,
            on_copied=on_copied,
            on_moved=on_moved,
            promise=promise,
        )

    async def finish_rename(self, inode: Inode, parent: Inode, name: str) -> bool:
        """Let an entry have the new name under which, and under no other, the store has it: an
        earlier daemon has renamed it. False, and nothing has changed, if that is not so.
        """
        return await self._renamer.finish(inode, parent, name)

    def affected_by_rename(self, inode: Inode) -> list[Inode]:
        """The open inodes that a rename of ``inode`` takes along, itself included."""
        return self._renamer.affected(inode)

    # -- attributes -------------------------------------------------------------------------------

    async def set_attributes(
        self, inode: Inode, change: AttributeChange, *, defer: bool
    ) -> Attributes:
        """Change mode, owner, group or times.

        ``defer`` (the file is dirty) leaves storing them to the upload, see
        :meth:`commit_metadata`. Otherwise the object is copied onto itself: same bytes, but
        ``inode.info`` may be another version afterwards, which open readers need.

        Raises:
            NoSuchEntryError, ReadOnlyError, StoreError: nothing was changed.
        """
        return await self._writer.set_attributes(inode, change, defer=defer)

    async def flush_attributes(self, inode: Inode) -> None:
        """Store deferred attributes that no upload has carried."""
        await self._writer.flush_attributes(inode)

    def commit_metadata(self, inode: Inode, *, explicit_mtime_only: bool) -> Mapping[str, str]:
        """Metadata that an upload of the inode has to store with the bytes.

        Times go along if a program set mtime or ``explicit_mtime_only`` is False; metadata that
        other tools wrote is kept as far as it is known.

        Raises:
            RangeTooLargeError: over 2 KiB.
        """
        with_times = inode.mtime_explicit or not explicit_mtime_only
        return stored_metadata(inode, self._options, with_times=with_times)

    async def get_xattr(self, inode: Inode, name: bytes) -> bytes:
        """One extended attribute.

        Raises:
            NoAttributeError: it is not set.
            OperationUnsupportedError: no file has attributes of that kind.
        """
        return await self._writer.get_xattr(inode, name)

    def lacks_xattr(self, number: int, name: bytes) -> FilesystemError | None:
        """The error of :meth:`get_xattr` if that is certain; None also for an unknown inode."""
        inode = self._tree.table.find(number)
        return None if inode is None or inode.stale else why_never(name)

    async def list_xattrs(self, inode: Inode) -> list[bytes]:
        """The names of the extended attributes that programs have set."""
        if inode.metadata is None and inode.xattrs is None and not inode.stale:
            self._modes_ahead.metadata_wanted(inode)
            self._tree.recall(inode)
        return await self._writer.list_xattrs(inode)

    async def set_xattr(
        self, inode: Inode, name: bytes, value: bytes, *, defer: bool = False
    ) -> None:
        """Set a ``user.`` attribute; ``defer`` as of :meth:`set_attributes`.

        Raises:
            OperationUnsupportedError: another kind of attribute.
            NotPermittedError: one of the read-only ``user.ossfs.`` attributes.
            RangeTooLargeError: over 2 KiB of metadata.
            ReadOnlyError
        """
        await self._writer.set_xattr(inode, name, value, defer=defer)

    async def remove_xattr(self, inode: Inode, name: bytes, *, defer: bool = False) -> None:
        """Remove a ``user.`` attribute.

        Raises:
            NoAttributeError, OperationUnsupportedError, NotPermittedError, ReadOnlyError
        """
        await self._writer.remove_xattr(inode, name, defer=defer)

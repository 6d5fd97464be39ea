"""Names and attributes that the mount knows, updated by answers of the store and its own changes.

No method waits: each is one step on the trio thread.
"""

import stat
import time
from collections.abc import Callable, Collection, Iterable, Mapping

import trio

from ossfs_py.model import NO_METADATA, Attributes, ObjectInfo, ObjectVersion
from ossfs_py.namespace import attributes
from ossfs_py.namespace.answers import CREATION_SECONDS, Absences, LocalChanges, MetadataMemory
from ossfs_py.namespace.changing import Changing
from ossfs_py.namespace.inode import Inode, InodeTable, Kind
from ossfs_py.namespace.keys import KeyMap
from ossfs_py.namespace.listing.merge import DIRECTORY, LOCAL, REMOVED, Entry, State
from ossfs_py.namespace.listing.shared import ListingEngine
from ossfs_py.namespace.metadata import decode
from ossfs_py.namespace.moves import Moves
from ossfs_py.namespace.news import KernelNews
from ossfs_py.namespace.policy import NamespaceOptions
from ossfs_py.namespace.removed import Catalogue
from ossfs_py.runtime.workers import Workers
from ossfs_py.telemetry.metrics import Metrics

LONGEST_TARGET_BYTES = 4096
"""PATH_MAX of Linux; a longer "link" is some other object."""


def kind_of(info: ObjectInfo) -> Kind:
    """The kind of an object, as far as its metadata is known."""
    if not info.metadata:
        return Kind.FILE
    told = decode(info.metadata)
    if told.is_symlink:
        return Kind.SYMLINK
    kind = attributes.KIND_OF_TYPE.get(stat.S_IFMT(told.mode or 0))
    if kind is not None and not info.size and kind in {Kind.FIFO, Kind.SOCKET}:
        return kind
    return Kind.FILE


class Tree:
    """The known part of the mounted tree and everything remembered about it."""

    def __init__(
        self,
        store: Catalogue,
        workers: Workers,
        options: NamespaceOptions,
        metrics: Metrics,
        moves: Moves,
        news: KernelNews,
    ) -> None:
        self._moves = moves
        self.options = options
        self.keys = KeyMap(options.prefix)
        self.table = InodeTable(options.max_entries, options.prefix)
        self.absences = Absences(options.max_entries, options.negative_ttl_seconds)
        self.metadata = MetadataMemory(options.max_entries)
        self.changes = LocalChanges()
        self.listings = ListingEngine(
            store,
            workers,
            self.keys,
            metrics,
            ttl_seconds=options.metadata_ttl_seconds,
            max_entries=options.max_entries,
            on_changed=self.entries_changed_by_others,
            on_listed=self._listed,
        )
        self._mounted_ns = time.time_ns()
        self._news = news
        self.changing = Changing()
        self.on_added: Callable[[str], None] | None = None
        """Called with the key of each entry that this mount makes or stores."""

    def now(self) -> float:
        """Seconds on trio's clock."""
        return trio.current_time()

    # -- reading what is known ------------------------------------------------------------------

    def attributes(self, inode: Inode) -> Attributes:
        """The attributes in memory, however old."""
        below = self._subdirectories(inode) if inode.kind is Kind.DIRECTORY else None
        return attributes.resolve(inode, self.options, self._mounted_ns, below)

    def is_fresh(self, inode: Inode, now: float | None = None) -> bool:
        """Whether the store need not be asked before answering for the inode. ``now``: on trio's
        clock, if it is known.
        """
        return (
            inode is self.table.root
            or inode.local
            or inode.removed
            or (trio.current_time() if now is None else now) < inode.fresh_until
        )

    def version_nowait(self, inode: Inode) -> ObjectVersion | None:
        """The version of a stored file, if the store need not be asked for it."""
        info = inode.info
        if info is None or inode.local or inode.removed or not self.is_fresh(inode):
            return None
        return info.version

    def is_guess(self, inode: Inode) -> bool:
        """Whether the inode's mode and owner are guessed, and somebody could mind."""
        return attributes.is_guess(inode, self.options) and not (inode.local or inode.removed)

    def recall(self, inode: Inode) -> bool:
        """Take in what is remembered of the metadata of the inode's version, if anything is."""
        if inode.info is None or inode.kind is Kind.DIRECTORY:
            return False
        info = self.metadata.complete(inode.info)
        if info.metadata is None or kind_of(info) is not inode.kind:
            return False
        inode.learn(info)
        return True

    def lacks_metadata(self, inode: Inode) -> bool:
        """Whether full fidelity asks for more than is known."""
        return (
            self.options.posix_metadata
            and inode.metadata is None
            and inode.info is not None
            and not (inode.local or inode.removed)
        )

    def fresh_child(self, parent: Inode, name: str) -> Inode | None:
        """The entry of that name, if nothing has to be asked to answer for it."""
        child = self.table.child(parent, name)
        if child is not None and self.is_fresh(child) and not self.lacks_metadata(child):
            return child
        listed = self.listings.entry(parent, name)
        if listed is None:
            return None
        entry, asked_at = listed
        if entry is LOCAL:
            return child
        if entry is DIRECTORY:
            return (
                None
                if self.options.posix_metadata
                else self.adopt_directory(parent, name, asked_at)
            )
        info = self.metadata.complete(entry)
        if self.must_ask(info):
            return None
        return self.adopt_object(parent, name, info, asked_at)

    def holds_unstored(self, inode: Inode) -> bool:
        """Whether the inode, or one below it, is not in the store yet."""
        return any(node.local for node in self.table.below(inode))

    def holds_unsaved(self, inode: Inode) -> bool:
        """Whether the inode, or one below it, has content that the store has not got yet, or is
        about to get another name.
        """
        return self.changing.covers(inode) or any(
            node.local or node.size_source is not None for node in self.table.below(inode)
        )

    def must_ask(self, info: ObjectInfo) -> bool:
        """Whether a listed object has to be asked for its metadata before it can be shown.

        Zero-byte objects may be symlinks.
        """
        if info.stored_at is not None and not self._moves.is_read(info.stored_at):
            return True  # listed before its directory was copied to where it belongs
        return info.metadata is None and (info.size == 0 or self.options.posix_metadata)

    def absent_since(self, parent: Inode, name: str) -> float | None:
        """When the store was last known to have nothing under the name, on trio's clock.

        A directory that was listed, or that this mount made, tells of every name that is not in it.
        """
        known = self.absences.since(self.keys.marker_key_of(parent) + name)
        listing = self.listings.complete(parent)
        if listing is None or listing.index is None or name in listing.index:
            return known
        return listing.started if known is None else max(known, listing.started)

    def absent_seconds(self, parent: Inode, name: str) -> float:
        """How long the name may be reported absent without a request; 0 if a request is needed."""
        ttl_seconds = self.options.negative_ttl_seconds
        since = self.absent_since(parent, name) if ttl_seconds > 0 else None
        return 0.0 if since is None else max(0.0, since + ttl_seconds - trio.current_time())

    def is_known_empty(self, directory: Inode) -> bool:
        """Whether nothing is in a directory that was made or listed within the lifetime of an
        absence.
        """
        listing = self.listings.complete(directory)
        if listing is None or not listing.is_empty:
            return False
        age_seconds = trio.current_time() - listing.started
        return age_seconds < self.options.negative_ttl_seconds

    def is_known_absent(self, parent: Inode, name: str) -> bool:
        """Whether a lookup may be told "absent" without asking."""
        return self.absent_seconds(parent, name) > 0

    def may_be_created(self, parent: Inode, name: str) -> float | None:
        """When the name was found absent by whoever creates it now; None: it has to be asked for.

        A lookup just before is not repeated.
        """
        if self.table.child(parent, name) is not None:
            return None
        since = self.absent_since(parent, name)
        window = max(self.options.negative_ttl_seconds, CREATION_SECONDS)
        return since if since is not None and trio.current_time() - since < window else None

    # -- taking in what the store says -----------------------------------------------------------

    def adopt_object(
        self,
        parent: Inode,
        name: str,
        info: ObjectInfo,
        asked_at: float,
        *,
        prefix: str | None = None,
    ) -> Inode:
        """The store has an object under the name; ``prefix`` is the parent's, where it is known
        (listings adopt thousands, and building it costs more than all the rest)."""
        child = self.table.child(parent, name)
        if child is not None and (
            child.info is info or self._is_newer(child, asked_at) or self.holds_unstored(child)
        ):
            return child
        info = self.metadata.complete(info)
        if (
            child is None
            and info.metadata is None
            and prefix is not None
            and info.key == prefix + name
        ):
            return self._new_file(parent, name, info, asked_at)
        if child is not None and child.size_source is not None:
            return self._learned(child, info, asked_at)
        child = self._of_kind(parent, name, self._kind_of(info, child))
        if info.key != (self.keys.marker_key_of(parent) if prefix is None else prefix) + name:
            # Listed before a rename of the directory: the copy's ETag may be another.
            child.fresh_until = 0.0
            return child
        return self._learned(child, info, asked_at)

    def adopt_directory(
        self,
        parent: Inode,
        name: str,
        asked_at: float,
        *,
        marker: ObjectInfo | None = None,
        marker_asked: bool = False,
    ) -> Inode:
        """The store has keys below the name; ``marker_asked`` if the answer mentioned a marker."""
        child = self.table.child(parent, name)
        if child is not None and (
            child.local
            or self._is_newer(child, asked_at)
            or (child.kind is not Kind.DIRECTORY and self.holds_unsaved(child))
        ):
            return child
        child = self._of_kind(parent, name, Kind.DIRECTORY)
        if marker is not None:
            self._learn(child, marker, asked_at)
        elif marker_asked:
            child.info = None
            child.metadata = NO_METADATA  # asked: there is none
        elif self._is_asked_directory(child):
            if self.is_fresh(child):
                return child  # that its name was listed makes no answer about its mode younger
            child.metadata = None
        self.refreshed(child, asked_at)
        return child

    def found(self, inode: Inode) -> Inode:
        """A program gets the inode's name: earlier listings must not miss it."""
        parent = inode.parent
        if parent is not None and self.listings.lacks(parent, inode.name):
            self.listings.note(parent, inode.name, self._state(inode), new=True)
            self.entries_changed_by_others(parent)
        return inode

    def marker_told(self, directory: Inode, marker: ObjectInfo | None) -> None:
        """The store was asked for a directory's marker; None if there is none."""
        if directory.metadata is not None or directory.removed:
            return
        if marker is None:
            directory.info = None
            directory.metadata = NO_METADATA
        else:
            self.metadata.remember(marker)
            directory.learn(marker)

    def relearn(self, inode: Inode, info: ObjectInfo, asked_at: float) -> Inode:
        """The store answered for a known inode; what its name stands for now."""
        if inode.parent is None or self._is_newer(inode, asked_at):
            return inode
        if self.table.child(inode.parent, inode.name) is None and inode.kind is kind_of(info):
            # Dropped from memory by a crowd of others; whoever asks has it in hand all the same.
            self._learn(inode, info, asked_at)
            return inode
        return self.adopt_object(inode.parent, inode.name, info, asked_at)

    def refreshed(self, inode: Inode, asked_at: float) -> None:
        """The known state of the inode was correct at that moment."""
        inode.fresh_until = max(inode.fresh_until, asked_at + self.options.metadata_ttl_seconds)

    def may_be_link(self, inode: Inode) -> bool:
        """Whether what looks like a file may be a symlink of s3fs, whose content is its target:
        nobody has asked, and LIST does not tell.
        """
        return (
            inode.kind is Kind.FILE
            and inode.metadata is None
            and inode.info is not None
            and 0 < inode.info.size <= LONGEST_TARGET_BYTES
            and inode.size_source is None
            and not (inode.local or inode.removed)
        )

    def learn_kind(self, inode: Inode, info: ObjectInfo) -> None:
        """The store told more of the inode's version than a listing does; if it is not of the
        inode's kind, its name is another inode's now.
        """
        known, parent = inode.info, inode.parent
        if (
            parent is None
            or inode.removed
            or known is None
            or known.version != info.version
            or inode.metadata is not None
        ):
            return
        self.metadata.remember(info)
        fresh_until = inode.fresh_until
        now = self._of_kind(parent, inode.name, kind_of(info))
        now.learn(info)
        now.fresh_until = fresh_until

    def vanished(self, inode: Inode) -> None:
        """The store no longer has what the inode stands for: its name is free, and it is stale."""
        if inode.parent is not None and not inode.removed:
            self.listings.note(inode.parent, inode.name, REMOVED)
            self.entries_changed_by_others(inode.parent)
            self._lose_name(inode)

    def outdated(self, inode: Inode) -> None:
        """The store has another version than the inode's, or none: the next look asks which."""
        if inode.parent is None or inode.removed:
            return
        self.listings.drop(inode.parent)
        self._lose_name(inode)

    # -- what this mount did itself ---------------------------------------------------------------

    def changed(self, inode: Inode, *, new: bool) -> None:
        """The inode's name belongs to it now, whatever answers in flight say."""
        if inode.parent is None or inode.removed:
            return
        key = self.keys.key_of(inode)
        if self.on_added is not None:
            self.on_added(key)
        self.changes.add(key)
        self.absences.discard(key)
        self.absences.untell(inode.parent.number, inode.name)  # the kernel made it itself
        self.listings.note(inode.parent, inode.name, self._state(inode), new=new)
        if new:
            self.entries_changed(inode.parent)

    def stored(
        self,
        inode: Inode,
        version: ObjectVersion,
        metadata: Mapping[str, str] | None,
        *,
        copied_from: ObjectVersion | None = None,
    ) -> None:
        """This mount itself wrote the inode's object; ``metadata`` None if that is not known.

        The time shown stays the one of this host's clock: the store has not told its own.
        """
        is_told = inode.info is not None or inode.mtime_ns is not None
        mtime_ns = attributes.mtime_of(inode) if is_told else None
        inode.mtime_ns = time.time_ns() if mtime_ns is None else mtime_ns
        before = inode.info
        if before is not None:
            self.metadata.forget(before)
        inode.info = ObjectInfo(
            key=version.key,
            size=version.size,
            etag=version.etag,
            mtime_ns=inode.mtime_ns,
            metadata=metadata,
            content_type=before.content_type if before else None,
            storage_class=before.storage_class if before else None,
            owner=before.owner if before else None,
            # This mount created the object, so it knows all metadata that a new PUT needs.
            described=before.described if before else NO_METADATA,
            tag_count=before.tag_count if before else 0,
        )
        inode.metadata = metadata
        inode.copied_from = copied_from
        inode.mtime_settled = False
        was_local, inode.local = inode.local, False
        inode.shadows = False
        if was_local and inode.kind is not Kind.FILE:
            self.table.note_stored(inode)
        self.refreshed(inode, trio.current_time())

    def unlinked(self, inode: Inode) -> None:
        """The inode's name was removed by this mount."""
        parent = inode.parent
        if parent is None or inode.removed:
            return
        self.changes.add(self.keys.key_of(inode))
        self.listings.note(parent, inode.name, REMOVED, before=self._state(inode))
        self._detach_all(inode, is_removed=True)
        self.entries_changed(parent)

    def renamed(self, inode: Inode, parent: Inode, name: str) -> None:
        """This mount gave the inode another name, replacing what had it."""
        old_parent = inode.parent
        if old_parent is None:
            return
        replaced = self.table.child(parent, name)
        if replaced is not None:
            # No word to the listings: the name stays, and readers who passed it have seen it.
            self._detach_all(replaced)
        self.changes.add(self.keys.key_of(inode))
        self.listings.note(old_parent, inode.name, REMOVED, before=self._state(inode))
        for node in self.table.below(inode):
            self.listings.drop(node)  # what they list has other keys now
        self.table.move(inode, parent, name)
        if inode.kind is Kind.DIRECTORY:
            self.keys.moved()
            self.absences.discard_below(self.keys.marker_key_of(inode))
        inode.ctime_ns = time.time_ns()
        self.entries_changed(old_parent)
        self.entries_changed(parent)
        self.changed(inode, new=replaced is None)

    def added(self, keys: Iterable[str]) -> None:
        """This mount has stored objects with these keys."""
        if self.on_added is not None:
            for key in keys:
                self.on_added(key)

    def renamed_back(self, inode: Inode, parent: Inode, name: str) -> None:
        """The store refused a rename that the kernel takes for done."""
        place, taken = inode.parent, inode.name
        if place is None or parent.removed or self.table.child(parent, name) is not None:
            self.vanished(inode)
            return
        self.renamed(inode, parent, name)
        self._news.name_taken(place, taken, inode)
        self._news.name_appeared(parent, name)

    def entries_changed(self, directory: Inode) -> None:
        """A directory's time is that of its last new, removed or renamed entry."""
        directory.mtime_ns = directory.ctime_ns = time.time_ns()

    def entries_changed_by_others(self, directory: Inode) -> None:
        """Something in it came, went or changed: who watches its time looks again."""
        self.entries_changed(directory)
        self._news.attributes_changed(directory)

    # -- inside -----------------------------------------------------------------------------------

    def _learned(self, inode: Inode, info: ObjectInfo, asked_at: float) -> Inode:
        """The store has ``info`` under the inode's name; the inode that has the name now."""
        parent, before = inode.parent, inode.info
        if (
            before is not None
            and parent is not None
            and (before.etag != info.etag or before.size != info.size)
        ):
            if inode.size_source is not None:
                # The file was written on top of the version known so far. If others have replaced
                # that version, the condition of the commit finds out.
                self.refreshed(inode, asked_at)
                return inode
            if self.changing.covers(inode):
                return inode
            if inode.settled and inode.open_count:
                self._lose_name(inode)
                inode = self.table.new(parent, inode.name, inode.kind)
        self._learn(inode, info, asked_at)
        return inode

    def _learn(self, inode: Inode, info: ObjectInfo, asked_at: float) -> None:
        self.metadata.remember(info)
        content_changed = inode.learn(info)
        self.refreshed(inode, asked_at)
        if content_changed and inode.kind is Kind.FILE:
            self._news.content_changed(inode)

    def _lose_name(self, inode: Inode) -> None:
        """Others took the name from the inode, and from all below it."""
        for node in self.table.below(inode):
            node.stale = True
        if inode.parent is not None:
            inode.lost_from = inode.parent
            self._news.name_taken(inode.parent, inode.name, inode)
        self._detach_all(inode)

    def _is_asked_directory(self, inode: Inode) -> bool:
        """Whether it is a directory whose mode was requested, and must be requested again in
        time."""
        return (
            self.options.guessed_for_uid is not None
            and inode.metadata is not None
            and not inode.metadata_dirty
        )

    def _is_newer(self, inode: Inode, asked_at: float) -> bool:
        """Whether the known state of the inode is younger than an answer that was requested
        then."""
        return inode.fresh_until > asked_at + self.options.metadata_ttl_seconds

    def _subdirectories(self, directory: Inode) -> int | None:
        """How many a directory has, where a listing at hand tells."""
        listing = self.listings.complete(directory)
        if listing is None or listing.index is None:
            return None
        return len(listing.directories())

    def _detach_all(self, inode: Inode, *, is_removed: bool = False) -> None:
        """``is_removed``: by this mount, with nothing in it."""
        forget = self.listings.removed if is_removed else self.listings.drop
        for node in reversed(list(self.table.below(inode))):  # a directory after what is in it
            if node.kind is Kind.DIRECTORY:
                forget(node)
            self.table.detach(node)

    def _of_kind(self, parent: Inode, name: str, kind: Kind) -> Inode:
        child = self.table.child(parent, name)
        if child is not None and child.kind is not kind:
            self._lose_name(child)
            child = None
        if child is not None:
            return child
        self._appeared(parent, name)
        return self.table.new(parent, name, kind)

    def _new_file(self, parent: Inode, name: str, info: ObjectInfo, asked_at: float) -> Inode:
        """What :meth:`_of_kind` and :meth:`_learned` do with a name that nothing is known of."""
        self._appeared(parent, name)
        inode = self.table.new(parent, name, Kind.FILE)
        inode.info = info
        inode.mtime_settled = True
        inode.fresh_until = asked_at + self.options.metadata_ttl_seconds
        return inode

    def _appeared(self, parent: Inode, name: str) -> None:
        """Others made the name; the kernel may believe that it is absent."""
        if self.absences.untell(parent.number, name):
            self._news.name_appeared(parent, name)

    def believe_no_absence(self) -> None:
        """Ask about every absent name again, and let the kernel do so."""
        for number, name in self.absences.clear():
            directory = self.table.find(number)
            if directory is not None:
                self._news.name_appeared(directory, name)

    def _listed(self, directory: Inode, index: Collection[str], started: float) -> None:
        """A directory was listed as a whole, and the store was asked at that time."""
        for name, child in directory.children.items():
            if name not in index and self._is_newer(child, started):
                self.found(child)
        for name in self.absences.told_in(directory.number):
            if name in index:
                self._appeared(directory, name)

    @staticmethod
    def _kind_of(info: ObjectInfo, child: Inode | None) -> Kind:
        """An answer without metadata does not unmake a symlink of the same version."""
        if (
            info.metadata is None
            and child is not None
            and child.info is not None
            and child.kind is not Kind.DIRECTORY
            and child.info.etag == info.etag
        ):
            return child.kind
        return kind_of(info)

    @staticmethod
    def _state(inode: Inode) -> State:
        state: Entry = DIRECTORY
        if inode.kind is not Kind.DIRECTORY:
            state = LOCAL if inode.local or inode.info is None else inode.info
        return state

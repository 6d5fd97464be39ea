"""One reading of a directory: fetched page by page, kept true to local changes."""

import math
from collections.abc import Callable

import trio

from ossfs_py.errors import StoreError, StoreUnavailableError
from ossfs_py.model import ListPage, ObjectInfo
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.listing.merge import DIRECTORY, LOCAL, REMOVED, Entry, PageMerger, State
from ossfs_py.namespace.listing.ranges import RangedPages, only_behind
from ossfs_py.namespace.listing.walks import PromisedPage, key_in
from ossfs_py.namespace.pending import Pending


class ListingPage:
    """Entries of one page, and where they stand in the listing.

    Pages are linked forwards only: those that every reader has passed are freed, so a listing
    too long to be kept streams in bounded memory.
    """

    __slots__ = (
        *("base", "carried", "changes", "following", "is_tail", "token"),
        *("_entries", "_names", "_only_files"),
    )

    def __init__(
        self,
        base: int,
        entries: dict[str, Entry],
        *,
        token: str | None = None,
        carried: dict[str, Entry] | None = None,
        is_tail: bool = False,
        changes: int = 0,
    ) -> None:
        self.base = base
        # A pair for each would be one object more that Python's garbage collector looks at.
        self._names = list(entries)
        self._entries = list(entries.values())
        self.token = token
        """The query of the page."""
        self.carried = carried or {}
        """Entries of the page before that only this one made certain."""
        self.is_tail = is_tail
        """Holds the entries that this mount created while the listing was in flight."""
        self.changes = changes
        """How many changes of the listing were noted before; the entries have them already."""
        self.following: ListingPage | None = None
        self._only_files: bool | None = None

    def has_only_files(self) -> bool:
        """Whether there are only objects of which a LIST tells enough: an empty one may be a
        link, and one that was listed before it was renamed has another version.
        """
        if self._only_files is None:
            self._only_files = all(
                isinstance(entry, ObjectInfo) and entry.size and entry.stored_at is None
                for entry in self._entries
            )
        return self._only_files

    def part(self, start: int, stop: int) -> list[tuple[str, Entry]]:
        """The names and entries from one position of the listing up to another, those of them that
        are on this page; ``start`` is not before it.
        """
        start, stop = start - self.base, stop - self.base
        return list(zip(self._names[start:stop], self._entries[start:stop], strict=True))

    @property
    def end(self) -> int:
        """Position after the last entry."""
        return self.base + len(self._names)


class Listed:
    """The entries of a directory by place and by name, for guessing what is wanted next.

    Made once for a listing; entries renamed since are a wrong guess, never a wrong answer.
    """

    __slots__ = ("entries", "names", "places")

    def __init__(self, index: dict[str, Entry]) -> None:
        self.names = list(index)
        self.places = {name: place for place, name in enumerate(self.names)}
        self.entries = {
            name: entry for name, entry in index.items() if isinstance(entry, ObjectInfo)
        }


class Listing:
    """One reading of a directory, shared by everyone who lists it meanwhile.

    Up to ``limit`` entries it keeps an index by name, can be joined from its beginning and cached
    when complete; beyond that it only streams.
    """

    def __init__(
        self,
        directory: Inode,
        merger: PageMerger,
        fetch: Callable[[str | None], Pending[ListPage]],
        ranges: RangedPages,
        limit: int,
        *,
        token: str | None = None,
        base: int = 0,
        first: Pending[ListPage] | PromisedPage | None = None,
        only_stored: bool = False,
    ) -> None:
        """``only_stored``: without the entries that this mount has created and not stored yet."""
        self.directory = directory
        self.started = trio.current_time()
        self.complete = False
        self.is_read = False
        """Whether a program lists the directory, not only this mount to learn what is absent."""
        self.made_here = False
        """Whether the store was not asked: this mount created the directory, and it was empty then.
        """
        self.confirmed_at = -math.inf
        """When the store last had, for a directory that was made here, what the index has."""
        self.index: dict[str, Entry] | None = {}
        self._head: ListingPage | None = ListingPage(base, {}, token=token)
        self._last = self._head
        self._merger = merger
        self._fetch = fetch
        self._limit = limit
        self._token = token
        self._tokens_used = {token}
        self._pending: Pending[ListPage] | PromisedPage | None = first
        self._overlay: dict[str, State] = {}
        self._tail: dict[str, None] = {}
        self._on_complete: Callable[[Listing], None] | None = None
        self._listed: Listed | None = None
        self._changes = 0
        """Number of changes of entries that were noted."""
        self._ranges = ranges
        self._begins_after = key_in(token)
        self._directories: dict[str, int] | None = None
        """Known once it is complete, and until a directory comes or goes."""
        if not only_stored:
            for name, child in directory.children.items():
                if child.local or child.moving:
                    self.note(name, LOCAL, new=True)

    def ask(self) -> None:
        """Ask for the first page."""
        if self._pending is None:
            self._pending = self._fetch(self._token)

    def take_over(self, page: ListPage, started: float) -> None:
        """The whole content, which was requested at that time."""
        self.started = started
        self._absorb(page)

    def begin_empty(self, started: float) -> None:
        """The directory was made here: at that time the store had nothing in it."""
        self.made_here = True
        self.started = started
        self.complete = True
        self._head = None
        self._overlay.clear()

    def when_complete(self, callback: Callable[["Listing"], None]) -> None:
        """Call back once, on the trio thread, when the last page is in."""
        self._on_complete = callback

    def current(self, name: str, listed: Entry, chunk: ListingPage) -> State:
        """The change of an entry since it was listed."""
        if not chunk.is_tail and name in self._tail:
            return REMOVED  # created anew meanwhile; the tail shows it
        if self.index is not None:
            return self.index.get(name, REMOVED)
        return self._overlay.get(name, listed)

    def is_as_listed(self, chunk: ListingPage) -> bool:
        """Whether no entry has changed since the chunk was made: :meth:`current` need not be asked
        about its entries.
        """
        return chunk.changes == self._changes

    def note(self, name: str, state: State, *, new: bool) -> None:
        """This mount changed an entry; ``new`` if the name was free before."""
        self._changes += 1
        if self.index is not None:
            before = self.index.get(name)
            new = before is None
            if (state is DIRECTORY) is not (before is DIRECTORY):
                self._note_directory(name, is_last=new)
        if not self.complete:
            self._overlay[name] = state
        if state is REMOVED:
            if self.index is not None:
                self.index.pop(name, None)
            self._tail.pop(name, None)
            return
        if self.index is not None:
            self.index[name] = state
        if new and not self.complete:
            self._tail[name] = None

    def _note_directory(self, name: str, *, is_last: bool) -> None:
        """A directory came, behind all others if ``is_last``, or went."""
        if is_last and self._directories is not None:
            self._directories[name] = len(self._directories)
        else:
            self._directories = None

    @property
    def is_empty(self) -> bool:
        """Whether it is complete, and there is nothing in the directory, seen or not."""
        is_known = self.complete and self.index is not None and self._merger.shows_all
        return is_known and not self.index

    def listed(self) -> Listed | None:
        """The objects in the order of the listing, if it is complete and kept."""
        if not self.complete or self.index is None:
            return None
        if self._listed is None or len(self._listed.names) != len(self.index):
            self._listed = Listed(self.index)
        return self._listed

    def directories(self) -> dict[str, int]:
        """The places of the subdirectories in the order of the listing, if it is complete."""
        if not self.complete or self.index is None:
            return {}
        if self._directories is None:
            names = [name for name, entry in self.index.items() if entry is DIRECTORY]
            self._directories = {name: place for place, name in enumerate(names)}
        return self._directories

    @property
    def joinable(self) -> bool:
        """Whether it can still be read from its beginning."""
        return self.index is not None and (self.complete or self._head is not None)

    def begin_reading(self) -> ListingPage:
        """The start of a reader: the first chunk, or all entries as they are now.

        Precondition: joinable, or nobody began to read it yet.
        """
        if self.complete and self.index is not None:
            return ListingPage(0, self.index, is_tail=True, changes=self._changes)
        head = self._head
        if head is None:
            raise RuntimeError("a streaming listing is read from its beginning once")
        if self.index is None:
            self._head = None
        return head

    def stream_only(self) -> None:
        """Keep nothing that has been read."""
        self.index = None

    async def after(self, chunk: ListingPage) -> ListingPage | None:
        """The chunk after this one, or None at the end.

        Cancelled, or failed with a StoreError, it can be called again and goes on where it was.
        """
        while chunk.following is None and not self.complete:
            if self._pending is None:
                self._pending = self._fetch(self._token)
            pending = self._pending
            page: ListPage | None = None
            try:
                page = await pending.wait()
            except Exception as exc:
                if self._pending is not pending and self._pending is not None:
                    continue  # another reader was told
                if not isinstance(exc, StoreError) or not self._ranges.is_in_doubt(pending):
                    self._pending = None
                    raise
            if self._pending is pending:
                page = self._ranges.take(pending, page)
                if page is None:
                    self._pending = self._ranges.next
                    continue
                if isinstance(pending, PromisedPage) and pending.started is not None:
                    self.started = min(self.started, pending.started)
                self._absorb(page)
        return chunk.following

    def _absorb(self, page: ListPage) -> None:
        if self._begins_after is not None:
            page = only_behind(page, self._begins_after)
        carried = self._merger.held
        entries = self._taken_in(self._merger.page(page))
        self._append(
            ListingPage(
                self._last.end, entries, token=self._token, carried=carried, changes=self._changes
            )
        )
        if self._merger.marker is not None and self.directory.info is None:
            self.directory.info = self._merger.marker
            self.directory.metadata = self._merger.marker.metadata
            self.directory.mtime_settled = True
        if page.next_token is None:
            self._finish()
            return
        if page.next_token in self._tokens_used:
            self._pending = None
            raise StoreUnavailableError(
                "the listing goes in circles", operation="ListObjectsV2", key=self.directory.name
            )
        self._tokens_used.add(page.next_token)
        self._token = page.next_token
        if self.index is not None and len(self.index) > self._limit:
            self.stream_only()
            self._head = None
        if not self.is_read:
            self._pending = None
            return
        # Asked for before anybody wants it: the next page travels while this one is handed out.
        self._pending = self._ranges.following(page)

    def _taken_in(self, listed: dict[str, Entry]) -> dict[str, Entry]:
        """Add a page's entries to the index, as they are after the changes that were noted."""
        if not self._overlay and (self.index is None or self.index.keys().isdisjoint(listed)):
            if self.index is not None:
                self.index.update(listed)
            return listed
        entries: dict[str, Entry] = {}
        for name, as_listed in listed.items():
            entry = as_listed
            if (changed := self._overlay.get(name)) is not None:
                if changed is REMOVED or name in self._tail:
                    continue
                entry = changed
            if self.index is not None:
                before = self.index.get(name)
                if before is not None:  # a store that repeats itself or mixes the order up
                    if entry is DIRECTORY:
                        self.index[name] = DIRECTORY
                        self._changes += 1
                    continue
                self.index[name] = entry
            entries[name] = entry
        return entries

    def _finish(self) -> None:
        tail: dict[str, Entry] = {
            name: state
            for name in self._tail
            if (state := self._overlay.get(name, REMOVED)) is not REMOVED
        }
        if tail:
            self._append(ListingPage(self._last.end, tail, is_tail=True))
        self.complete = True
        self._head = None
        self._pending = None
        if self.index is not None:
            self._overlay.clear()
        if self._on_complete is not None:
            self._on_complete(self)

    def _append(self, chunk: ListingPage) -> None:
        self._last.following = chunk
        self._last = chunk

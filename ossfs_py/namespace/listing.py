"""Listings of directories: fetched page by page, shared, cached, kept true to local changes."""

import logging
import weakref
from collections.abc import Callable
from functools import partial

import trio
from cachetools import TTLCache

from ossfs_py.errors import StoreUnavailableError
from ossfs_py.metrics import Metrics
from ossfs_py.model import ListPage
from ossfs_py.namespace.cache import Once
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.keys import KeyMap
from ossfs_py.namespace.merge import DIRECTORY, LOCAL, REMOVED, Entry, PageMerger, State
from ossfs_py.namespace.pending import Pending
from ossfs_py.store.base import ObjectStore
from ossfs_py.transfer.workers import Workers

log = logging.getLogger(__name__)


class Chunk:
    """Entries of one page, and where they stand in the listing.

    Chunks are linked forwards only: those that every reader has passed are freed, so a listing
    too long to be kept streams in bounded memory.
    """

    __slots__ = ("base", "carried", "entries", "following", "is_tail", "token")

    def __init__(
        self,
        base: int,
        entries: list[tuple[str, Entry]],
        *,
        token: str | None = None,
        carried: dict[str, Entry] | None = None,
        is_tail: bool = False,
    ) -> None:
        self.base = base
        self.entries = entries
        self.token = token
        """With which the page was asked for."""
        self.carried = carried or {}
        """Entries of the page before that only this one made certain."""
        self.is_tail = is_tail
        """Holds what this mount created while the listing was under way."""
        self.following: Chunk | None = None

    @property
    def end(self) -> int:
        """Position after the last entry."""
        return self.base + len(self.entries)


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
        limit: int,
        *,
        token: str | None = None,
        base: int = 0,
    ) -> None:
        self.directory = directory
        self.started = trio.current_time()
        self.complete = False
        self.index: dict[str, Entry] | None = {}
        self._head: Chunk | None = Chunk(base, [], token=token)
        self._last = self._head
        self._merger = merger
        self._fetch = fetch
        self._limit = limit
        self._token = token
        self._tokens_used = {token}
        self._pending: Pending[ListPage] | None = fetch(token)
        self._overlay: dict[str, State] = {}
        self._tail: dict[str, None] = {}
        self._on_complete: Callable[[Listing], None] | None = None
        for name, child in directory.children.items():
            if child.local:
                self.note(name, LOCAL, new=True)

    def when_complete(self, callback: Callable[["Listing"], None]) -> None:
        """Call back once, on the trio thread, when the last page is in."""
        self._on_complete = callback

    @property
    def marker_known(self) -> bool:
        """Whether the listing has seen the directory's marker."""
        return self._merger.marker is not None

    def current(self, name: str, listed: Entry, chunk: Chunk) -> State:
        """What became of an entry since it was listed."""
        if not chunk.is_tail and name in self._tail:
            return REMOVED  # created anew meanwhile; the tail shows it
        if self.index is not None:
            return self.index.get(name, REMOVED)
        return self._overlay.get(name, listed)

    def note(self, name: str, state: State, *, new: bool) -> None:
        """This mount changed an entry; ``new`` if the name was free before."""
        if self.index is not None:
            new = name not in self.index
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

    @property
    def joinable(self) -> bool:
        """Whether it can still be read from its beginning."""
        return self.index is not None and (self.complete or self._head is not None)

    def begin_reading(self) -> Chunk:
        """Where a reader starts: the first chunk, or all entries as they are now.

        Precondition: joinable, or nobody began to read it yet.
        """
        if self.complete and self.index is not None:
            return Chunk(0, list(self.index.items()), is_tail=True)
        head = self._head
        if head is None:
            raise RuntimeError("a streaming listing is read from its beginning once")
        if self.index is None:
            self._head = None
        return head

    def stream_only(self) -> None:
        """Keep nothing that has been read."""
        self.index = None

    async def after(self, chunk: Chunk) -> Chunk | None:
        """The chunk after this one, or None at the end.

        Cancelled, or failed with a StoreError, it can be called again and goes on where it was.
        """
        while chunk.following is None and not self.complete:
            if self._pending is None:
                self._pending = self._fetch(self._token)
            pending = self._pending
            try:
                page = await pending.wait()
            except Exception:
                if self._pending is pending:
                    self._pending = None
                raise
            if self._pending is pending:
                self._absorb(page)
        return chunk.following

    def _absorb(self, page: ListPage) -> None:
        entries: list[tuple[str, Entry]] = []
        carried = self._merger.held
        for name, listed in self._merger.page(page).items():
            entry = listed
            if (changed := self._overlay.get(name)) is not None:
                if changed is REMOVED or name in self._tail:
                    continue
                entry = changed
            if self.index is not None:
                before = self.index.get(name)
                if before is not None:  # a store that repeats itself or mixes the order up
                    if entry is DIRECTORY:
                        self.index[name] = DIRECTORY
                    continue
                self.index[name] = entry
            entries.append((name, entry))
        self._append(Chunk(self._last.end, entries, token=self._token, carried=carried))
        if self._merger.marker is not None and self.directory.info is None:
            self.directory.info = self._merger.marker
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
        # Asked for before anybody wants it: the next page travels while this one is handed out.
        self._pending = self._fetch(self._token)

    def _finish(self) -> None:
        tail = [
            (name, state)
            for name in self._tail
            if (state := self._overlay.get(name, REMOVED)) is not REMOVED
        ]
        if tail:
            self._append(Chunk(self._last.end, tail, is_tail=True))
        self.complete = True
        self._head = None
        self._pending = None
        if self.index is not None:
            self._overlay.clear()
        if self._on_complete is not None:
            self._on_complete(self)

    def _append(self, chunk: Chunk) -> None:
        self._last.following = chunk
        self._last = chunk


class ListingEngine:
    """All listings of one mount. Everything here belongs to the trio thread."""

    def __init__(
        self,
        store: ObjectStore,
        workers: Workers,
        keys: KeyMap,
        metrics: Metrics,
        *,
        ttl_seconds: float,
        max_entries: int,
    ) -> None:
        self._store = store
        self._workers = workers
        self._keys = keys
        self._metrics = metrics
        self._ttl_seconds = ttl_seconds
        self._max_entries = max_entries
        # By inode number, which a rename of the directory or of one above it does not change.
        self._complete: TTLCache[int, Listing] = TTLCache(
            max_entries,
            ttl_seconds,
            timer=trio.current_time,
            getsizeof=lambda listing: 1 + len(listing.index or ()),
        )
        # Weak: a listing under way lives as long as somebody reads it.
        self._in_flight: weakref.WeakValueDictionary[int, Listing] = weakref.WeakValueDictionary()
        self._unshared: weakref.WeakSet[Listing] = weakref.WeakSet()
        self._hidden_keys = Once()
        self._conflicts = Once()

    def open(self, directory: Inode) -> Listing:
        """A listing to read from its beginning: cached, joined in flight, or begun now."""
        listing = self._shared(directory)
        return listing if listing is not None else self._begin(directory)

    def resume(self, directory: Inode, page: Chunk) -> Listing:
        """Read a directory again from a page on that was read before."""
        listing = self._new(directory, page.token, page.base, page.carried)
        listing.stream_only()
        self._unshared.add(listing)
        return listing

    def entry(self, directory: Inode, name: str) -> tuple[Entry, float] | None:
        """What a fresh listing says of a name, and when it was asked; None if it says nothing."""
        listing = self._shared(directory)
        if listing is None or listing.index is None:
            return None
        found = listing.index.get(name)
        return None if found is None else (found, listing.started)

    def complete(self, directory: Inode) -> Listing | None:
        """The fresh, complete listing of a directory, if there is one."""
        listing = self._complete.get(directory.number)
        if listing is None or listing.started <= trio.current_time() - self._ttl_seconds:
            return None
        return listing

    def note(self, directory: Inode, name: str, state: State, *, new: bool = False) -> None:
        """This mount changed an entry: apply it to cached listings and those under way."""
        concerned = [self._complete.get(directory.number), self._in_flight.get(directory.number)]
        concerned += [other for other in self._unshared if other.directory is directory]
        for listing in concerned:
            if listing is not None:
                listing.note(name, state, new=new)

    def drop(self, directory: Inode) -> None:
        """Forget what was listed in a directory; readers go on with what they have."""
        self._complete.pop(directory.number, None)
        under_way = self._in_flight.pop(directory.number, None)
        if under_way is not None:
            self._unshared.add(under_way)

    def conflict(self, key: str) -> None:
        """Warn, once, that an object is hidden by a directory of its name."""
        if self._conflicts.first(key):
            log.warning(
                "object %r is hidden: keys below %r make a directory of its name", key, key + "/"
            )

    def _shared(self, directory: Inode) -> Listing | None:
        oldest = trio.current_time() - self._ttl_seconds
        for listing in (
            self._in_flight.get(directory.number),
            self._complete.get(directory.number),
        ):
            if listing is not None and listing.joinable and listing.started > oldest:
                return listing
        return None

    def _begin(self, directory: Inode) -> Listing:
        listing = self._new(directory, None, 0, {})
        listing.when_complete(self._completed)
        overtaken = self._in_flight.get(directory.number)
        if overtaken is not None:
            self._unshared.add(overtaken)
        self._in_flight[directory.number] = listing
        return listing

    def _new(
        self, directory: Inode, token: str | None, base: int, carried: dict[str, Entry]
    ) -> Listing:
        prefix = self._keys.marker_key_of(directory)
        merger = PageMerger(
            prefix,
            hidden=self._hidden,
            conflict=self.conflict,
            reserved=partial(self._keys.is_reserved, directory),
            held=carried,
        )
        fetch = partial(self._fetch, prefix)
        return Listing(directory, merger, fetch, self._max_entries, token=token, base=base)

    def _fetch(self, prefix: str, token: str | None) -> Pending[ListPage]:
        return Pending(self._workers, lambda: self._store.list_page(prefix, token=token))

    def _completed(self, listing: Listing) -> None:
        number = listing.directory.number
        if self._in_flight.get(number) is not listing:
            return  # dropped meanwhile: what it listed is no longer believed
        del self._in_flight[number]
        size = 1 + len(listing.index or ())
        if listing.index is not None and size <= self._max_entries:
            self._complete[number] = listing

    def _hidden(self, key: str) -> None:
        self._metrics.hidden_keys.inc()
        if self._hidden_keys.first(key):
            log.warning("key %r is hidden: no path can name it", key)

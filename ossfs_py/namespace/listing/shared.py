"""All listings of a mount: shared while in flight, cached when complete, read ahead on walks."""

import logging
import weakref
from collections.abc import Callable, Collection
from functools import partial

import trio
from cachetools import LRUCache

from ossfs_py.model import ListPage, ListQuery
from ossfs_py.namespace.answers import Once
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.keys import KeyMap
from ossfs_py.namespace.listing.merge import DIRECTORY, REMOVED, Entry, PageMerger, State
from ossfs_py.namespace.listing.ranges import Order, RangedPages
from ossfs_py.namespace.listing.reading import Listing, ListingPage
from ossfs_py.namespace.listing.seen import SeenContents
from ossfs_py.namespace.listing.walks import PromisedPage, Walks, key_in, token_after
from ossfs_py.namespace.listing.whole import WholeListings
from ossfs_py.namespace.pending import Pending
from ossfs_py.namespace.removed import Catalogue
from ossfs_py.runtime.recent import Recent
from ossfs_py.runtime.workers import Workers
from ossfs_py.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_MAX_PARTS = 16
"""Directories whose names are being asked in their order at once. Each part holds a page, which
``max_entries`` does not count."""
MADE_HERE_SECONDS = 1.0
"""Who lists a directory that this mount made is told what others had stored at most so long ago."""
_MAX_READ = 4096
"""Directories of which it is remembered that a program has listed them."""


class ListingEngine:
    """All listings of one mount. Everything here belongs to the trio thread."""

    def __init__(
        self,
        store: Catalogue,
        workers: Workers,
        keys: KeyMap,
        metrics: Metrics,
        *,
        ttl_seconds: float,
        max_entries: int,
        on_changed: Callable[[Inode], None],
        on_listed: Callable[[Inode, Collection[str], float], None],
    ) -> None:
        """``on_changed`` is told of directories in which others have changed something,
        ``on_listed`` of all names of a directory that was listed, and when it was asked for.
        """
        self._on_changed = on_changed
        self._on_listed = on_listed
        self._seen = SeenContents(max_entries)
        self._store = store
        self._workers = workers
        self._keys = keys
        self._metrics = metrics
        self._ttl_seconds = ttl_seconds
        self._max_entries = max_entries
        self._complete = WholeListings(max_entries, ttl_seconds)
        # Weak: a listing under way lives as long as somebody reads it.
        self._in_flight: weakref.WeakValueDictionary[int, Listing] = weakref.WeakValueDictionary()
        self._unshared: weakref.WeakSet[Listing] = weakref.WeakSet()
        self._parts: Recent[int, Listing] = Recent(_MAX_PARTS)
        """Pages that answer for names whose listing has grown old."""
        self._read: LRUCache[int, None] = LRUCache(_MAX_READ)
        self._order = Order()
        self._hidden_keys = Once()
        self._conflicts = Once()
        self.walks = Walks(
            self._fetch_flat,
            lambda: workers.closed,
            ttl_seconds=ttl_seconds,
            max_entries=max_entries,
        )
        self._opened_last: Inode | None = None

    def open(self, directory: Inode) -> Listing:
        """A listing to read from its beginning: cached, joined in flight, or begun now."""
        listing = self._shared(directory)
        if listing is None or not self.may_be_read(listing):
            listing = self._found_ahead(directory) or self._begin(directory)
        listing.is_read = True
        self._opened_last = directory
        self._read[directory.number] = None
        return listing

    def was_read(self, directory: Inode) -> bool:
        """Whether a program has listed the directory, however long ago."""
        return directory.number in self._read

    async def list_part(self, directory: Inode, after: str) -> list[str]:
        """List one page of a directory again, from the first name behind ``after`` on; the names
        that it answers for from now on, as a listing does. Cancelled, the next call goes on.

        Raises:
            StoreError
        """
        part = self._parts.get(directory.number)
        if (
            part is None
            or part.directory is not directory
            or part.index
            or part.complete
            or part.started <= trio.current_time() - self._ttl_seconds
        ):
            token = token_after(self._keys.marker_key_of(directory) + after)
            part = self._new(directory, token, only_stored=True)
            self._parts.put(directory.number, part)
            self._unshared.add(part)
        # Who asks meanwhile joins the request, whatever name it begins with.
        await part.after(part.begin_reading())
        return list(part.index or ())

    async def look(self, directory: Inode, oldest: float) -> Listing | None:
        """A complete listing begun at ``oldest`` or later, to learn what is not in the directory.

        None if it is more than a page. What is in it is not believed to be known by that: nobody
        has listed the directory, and what it holds may have more to tell than a listing does.

        Raises:
            StoreError
        """
        listing = await self._look(directory, oldest, lambda: None)
        return listing if listing.complete else None

    async def look_below(self, directory: Inode, oldest: float) -> Listing:
        """As :meth:`look`, for a name that others may have made since: if it is a directory, who
        asks for it often lists it next, and the same request tells what is in it, up to a page.
        The listing may not be complete.

        Raises:
            StoreError
        """
        prefix = self._keys.marker_key_of(directory)
        ordinary = partial(self._fetch, prefix, None)
        return await self._look(directory, oldest, lambda: self.walks.glance(prefix, ordinary))

    async def _look(
        self, directory: Inode, oldest: float, first: Callable[[], PromisedPage | None]
    ) -> Listing:
        listing = before = self._shared(directory)
        if listing is None or listing.started < oldest:
            listing = self._prepared(directory, first())
            listing.is_read = before is not None and before.is_read
            listing.ask()
        if not listing.complete:
            await listing.after(listing.begin_reading())
        return listing

    def made(self, directory: Inode, started: float) -> None:
        """This mount made the directory: at that time nothing was in it.

        That tells of absent names; who lists the directory is told what others stored since.
        """
        self._share_no_more(directory)
        listing = self._new(directory, None)
        listing.begin_empty(started)
        self._keep(listing)

    def may_be_read(self, listing: Listing) -> bool:
        """Whether a fresh listing is what a program that lists the directory may be told."""
        age_seconds = self._ttl_seconds if listing.is_read else MADE_HERE_SECONDS
        oldest = trio.current_time() - age_seconds
        return not listing.made_here or listing.confirmed_at > oldest

    def still_so(self, listing: Listing, asked_at: float) -> None:
        """A complete listing still holds all names: the store was asked at that time."""
        if asked_at > listing.started:
            listing.started = asked_at
            self._complete.put(listing.directory.number, listing)

    def resume(self, directory: Inode, page: ListingPage) -> Listing:
        """Read a directory again from a page on that was read before."""
        listing = self._new(directory, page.token, page.base, page.carried)
        listing.ask()
        listing.stream_only()
        self._unshared.add(listing)
        return listing

    def entry(self, directory: Inode, name: str) -> tuple[Entry, float] | None:
        """The answer of a fresh listing about a name, and when it was requested; None if there is
        none."""
        whole = self._shared(directory)
        if whole is not None and whole.index is not None and whole.is_read:
            found = whole.index.get(name)
            if found is not None:
                return found, whole.started
        part = self._parts.get(directory.number) if self._parts else None
        if part is not None and part.index is not None and part.directory is directory:
            found = part.index.get(name)
            if found is not None and part.started > trio.current_time() - self._ttl_seconds:
                return found, part.started
        return None

    def complete(self, directory: Inode) -> Listing | None:
        """The fresh, complete listing of a directory, if there is one."""
        listing = self._complete.get(directory.number)
        oldest = trio.current_time() - self._ttl_seconds
        if listing is None or listing.started <= oldest or listing.directory is not directory:
            return None
        return listing

    def lacks(self, directory: Inode, name: str) -> bool:
        """Whether the cached listing of a directory says that the name is not in it."""
        listing = self.complete(directory)
        return listing is not None and listing.index is not None and name not in listing.index

    def note(
        self,
        directory: Inode,
        name: str,
        state: State,
        *,
        new: bool = False,
        before: State | None = None,
    ) -> None:
        """This mount changed an entry: apply it to cached listings and those in flight. ``before``
        is what it was, as far as the caller knows.
        """
        if self.walks:
            self.walks.changed(self._keys.marker_key_of(directory))
        complete = self._complete.get(directory.number)
        if complete is not None and complete.index is not None:
            before = complete.index.get(name, REMOVED)
            self._seen.noted(directory.number, name, before, state)
        elif new or before is not None or state is DIRECTORY:
            # A directory that is not new was one before. Should the store have had another entry,
            # others have changed it, and the sum of the next listing differs, as it has to.
            was = before or (REMOVED if new else DIRECTORY)
            self._seen.noted(directory.number, name, was, state)
        else:
            self._seen.lost(directory.number)
        concerned = [complete, self._in_flight.get(directory.number)]
        if self._unshared:
            concerned += [other for other in self._unshared if other.directory is directory]
        for listing in concerned:
            if listing is not None:
                listing.note(name, state, new=new)
        if complete is not None:
            self._complete.changed(directory.number)

    def drop(self, directory: Inode) -> None:
        """Forget the listing of a directory; its readers continue with what they have."""
        if self.walks:
            self.walks.drop(self._keys.marker_key_of(directory))
        self._drop(directory)

    def removed(self, directory: Inode) -> None:
        """As :meth:`drop`, of a directory that this mount removed, in which nothing was left."""
        if self.walks:
            self.walks.removed(self._keys.marker_key_of(directory))
        self._drop(directory)

    def _drop(self, directory: Inode) -> None:
        self._complete.pop(directory.number)
        self._parts.pop(directory.number, None)
        self._share_no_more(directory)

    def _share_no_more(self, directory: Inode) -> None:
        """Whoever lists the directory from now on does not join those who do so already."""
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
            if (
                listing is not None
                and listing.directory is directory
                and listing.joinable
                and listing.started > oldest
            ):
                return listing
        return self._found_ahead(directory)

    def _found_ahead(self, directory: Inode) -> Listing | None:
        """What a walk has told of a directory, once."""
        found = self.walks.take(self._keys.marker_key_of(directory)) if self.walks else None
        if found is None:
            return None
        listing = self._prepared(directory, None)
        listing.is_read = True
        listing.take_over(found.page, found.started)
        return listing

    def _begin(self, directory: Inode) -> Listing:
        listing = self._prepared(directory, self._listed_ahead(directory))
        listing.ask()
        return listing

    def _listed_ahead(self, directory: Inode) -> PromisedPage | None:
        """Let a flat listing answer, where a program walks directory after directory."""
        if directory.parent is None:
            return None
        prefix = self._keys.marker_key_of(directory)
        ordinary = partial(self._fetch, prefix, None)
        promised = self.walks.expect(prefix, ordinary)
        if promised is None and self._is_walked(directory):
            self.walks.begin(self._keys.marker_key_of(directory.parent), prefix)
            promised = self.walks.expect(prefix, ordinary)
        return promised

    def _is_walked(self, directory: Inode) -> bool:
        """Whether the directory's listing looks like a step of a walk: it is the first one of a
        directory that was just listed, or comes after the one listed last."""
        if directory.parent is None:
            return False
        listing = self._shared(directory.parent)
        names = listing.directories() if listing is not None else {}
        place = names.get(directory.name)
        if place is None or len(names) == place + 1:
            return False
        before = self._opened_last
        while before is not None and before.parent is not directory.parent:
            before = before.parent  # the last one of the sibling before may be deep inside it
        return place == 0 or (before is not None and names.get(before.name) == place - 1)

    def _prepared(
        self, directory: Inode, first: Pending[ListPage] | PromisedPage | None
    ) -> Listing:
        listing = self._new(directory, None, first=first)
        listing.when_complete(self._completed)
        self._share_no_more(directory)
        self._in_flight[directory.number] = listing
        return listing

    def _new(
        self,
        directory: Inode,
        token: str | None,
        base: int = 0,
        carried: dict[str, Entry] | None = None,
        *,
        first: Pending[ListPage] | PromisedPage | None = None,
        only_stored: bool = False,
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
        workers = self._workers
        # Half of the requests are left to others.
        ranges = RangedPages(
            prefix,
            fetch,
            self._order,
            is_closed=lambda: workers.closed,
            at_once=workers.count // 2,
        )
        return Listing(
            directory,
            merger,
            fetch,
            ranges,
            self._max_entries,
            token=token,
            base=base,
            first=first,
            only_stored=only_stored,
        )

    def _fetch(self, prefix: str, token: str | None) -> Pending[ListPage]:
        after = key_in(token)
        if after is not None:
            return Pending(
                self._workers, lambda: self._store.list_page(ListQuery(prefix, start_after=after))
            )
        return Pending(self._workers, lambda: self._store.list_page(ListQuery(prefix, token=token)))

    def _fetch_flat(self, prefix: str, token: str | None, after: str | None) -> Pending[ListPage]:
        return Pending(
            self._workers,
            lambda: self._store.list_page(ListQuery(prefix, "", token, after)),
        )

    def _completed(self, listing: Listing) -> None:
        number = listing.directory.number
        if self._in_flight.get(number) is not listing:
            return  # dropped meanwhile: what it listed is no longer believed
        del self._in_flight[number]
        self._keep(listing)

    def _keep(self, listing: Listing) -> None:
        """A complete listing answers from now on, unless it was too long to be kept."""
        number = listing.directory.number
        if listing.index is None:
            return
        self._complete.put(number, listing)
        if self._seen.listed(number, listing.index):
            self._on_changed(listing.directory)
        self._on_listed(listing.directory, listing.index, listing.started)

    def _hidden(self, key: str) -> None:
        self._metrics.hidden_keys.inc()
        if self._hidden_keys.first(key):
            log.warning("key %r is hidden: no path can name it", key)

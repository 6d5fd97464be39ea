"""Listing ahead of a program that walks a tree: one flat LIST answers for many directories.

A walk over directories of a hundred files costs a request for each directory; without a delimiter
one request tells of a thousand keys, whatever directories they are in. So when the first
subdirectory of a listed directory is listed, or one after another, the keys from there on are
listed flat and sorted into the directories they belong to.

It is used only where it pays: a directory that fills a page by itself is listed as always, a
directory that the flat listing does not finish in two pages is listed by itself, and nothing runs
more than ``_PAGES_AHEAD`` pages ahead of the program.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import trio
from cachetools import TTLCache

from ossfs_py.errors import StoreError
from ossfs_py.model import ListPage, ObjectInfo
from ossfs_py.namespace.pending import Pending
from ossfs_py.store.keyorder import LAST_CHARACTER, just_before

_PAGE_KEYS = 1000
"""Most keys a LIST answer holds (S3 and OSS)."""
_PAGES_AHEAD = 2
"""Pages requested beyond the one that the program reads, and the one behind it: one is in flight
while one is used. The first directories of a walk ask for fewer.
"""
_PATIENCE_PAGES = 2
"""Pages after which a directory that is waited for is listed by itself."""
_MAX_REMEMBERED = 1024

_AFTER = "\0after:"

FetchFlat = Callable[[str, str | None, str | None], Pending[ListPage]]
"""Asks for a flat page below a prefix: from a token, or after a key."""


def token_after(key: str) -> str:
    """A continuation that names the last key instead of the store's token."""
    return _AFTER + key


def key_in(token: str | None) -> str | None:
    """The key of a token made by :func:`token_after`; None of the store's own tokens."""
    return token.removeprefix(_AFTER) if token is not None and token.startswith(_AFTER) else None


class PromisedPage:
    """The first page of a directory that a flat listing is expected to bring."""

    __slots__ = ("_event", "_ordinary", "_otherwise", "_page", "patience", "started")

    def __init__(self, otherwise: Callable[[], Pending[ListPage]]) -> None:
        self.patience = _PATIENCE_PAGES
        self.started: float | None = None
        """The time when the content of the flat listing was requested."""
        self._otherwise = otherwise
        self._event = trio.Event()
        self._page: ListPage | None = None
        self._ordinary: Pending[ListPage] | None = None

    def ask_beside(self) -> None:
        """Ask the ordinary way as well: whichever answer comes first is the page."""
        self._ordinary = ordinary = self._otherwise()
        asked_at = trio.current_time()

        def settled() -> None:
            if ordinary.error is None and not self._event.is_set():
                self.keep(ordinary.result(), asked_at)

        ordinary.when_settled(settled)

    async def wait(self) -> ListPage:
        """The page; it is requested separately if the flat listing does not bring it."""
        await self._event.wait()
        if self._page is not None:
            return self._page
        assert self._ordinary is not None  # noqa: S101 - one of the two ends the wait
        return await self._ordinary.wait()

    def keep(self, page: ListPage, started: float) -> None:
        """The flat listing brought the page, in an answer that was requested at that time."""
        if not self._event.is_set():
            self._page = page
            self.started = started
            self._event.set()

    def give_up(self) -> None:
        """The flat listing does not bring it: ask the ordinary way."""
        if not self._event.is_set():
            self._ordinary = self._ordinary or self._otherwise()
            self._event.set()


class _Directory:
    """The content of one directory, from the keys read so far."""

    __slots__ = ("objects", "page_number", "prefix", "prefixes", "started")

    def __init__(self, prefix: str, started: float, page_number: int) -> None:
        self.prefix = prefix
        self.started = started
        self.page_number = page_number
        self.objects: list[ObjectInfo] = []
        self.prefixes: list[str] = []


class FoundPage:
    """The whole content of a directory, when it was requested, and by which page of which walk, if
    it was one.
    """

    __slots__ = ("_page_number", "_read_on", "_walk", "page", "started")

    def __init__(
        self,
        page: ListPage,
        started: float,
        walk: "_Walk | None" = None,
        page_number: int = 0,
        read_on: Callable[[], None] | None = None,
    ) -> None:
        """``read_on``: begins a walk of what comes behind it."""
        self.page = page
        self.started = started
        self._walk = walk
        self._page_number = page_number
        self._read_on = read_on

    def taken(self) -> None:
        """The program has come to the directory."""
        if self._walk is not None:
            self._walk.used(self._page_number)
        elif self._read_on is not None:
            self._read_on()


class _FlatPage:
    """One flat page of a directory in flight, in the place of an ordinary one."""

    def __init__(self, base: str, page: PromisedPage, fetch: FetchFlat, walks: "Walks") -> None:
        self.base = base
        self.changed: set[str] = set()
        """As of a walk."""
        self.over = False
        self.promises: dict[str, PromisedPage] = {}
        """For directories in it that somebody waits for."""
        self._promised = page
        self._walks = walks
        self._is_read_on = False
        """Whether a walk has begun behind it."""
        self._asked_at = trio.current_time()
        pending = fetch(base, None, None)
        pending.when_settled(partial(self._settled, pending))

    def may_bring(self, prefix: str) -> bool:
        """Whether the page may tell all that is in a directory below ``base``."""
        is_below = prefix != self.base and prefix.startswith(self.base)
        return is_below and not self.over and prefix not in self.changed

    def _settled(self, pending: Pending[ListPage]) -> None:
        self._walks.glanced(self)
        if self._walks.is_closed():
            return
        try:
            self._take_in(pending)
        finally:
            for promise in (self._promised, *self.promises.values()):
                promise.give_up()  # unless it was kept

    def _take_in(self, pending: Pending[ListPage]) -> None:
        if pending.error is not None or self.over:
            return
        page = pending.result()
        keys = [info.key for info in page.objects]
        if self.base in self.changed or not all(a < b for a, b in pairwise(keys)):
            return
        last = keys[-1] if keys else ""
        for prefix, objects, prefixes in _by_directory(self.base, page):
            if prefix == self.base:
                token = None
                if page.next_token is not None:
                    self._walks.found_large(prefix)
                    slash = last.find("/", len(prefix))
                    token = token_after(last if slash < 0 else last[: slash + 1] + LAST_CHARACTER)
                self._promised.keep(ListPage(objects, prefixes, token), self._asked_at)
            elif prefix not in self.changed and (
                page.next_token is None or not last.startswith(prefix)
            ):
                read_on = self._reading_on(prefix, last) if page.next_token is not None else None
                told = ListPage(objects, prefixes, None)
                promise = self.promises.get(prefix)
                if promise is None:
                    self._walks.keep(prefix, FoundPage(told, self._asked_at, read_on=read_on))
                    continue
                promise.keep(told, self._asked_at)
                if read_on is not None:
                    read_on()

    def _reading_on(self, prefix: str, last: str) -> Callable[[], None] | None:
        """Begins a walk where the page ends, if that is in a directory beside ``prefix``."""
        above = prefix[: prefix.rfind("/", 0, -1) + 1]
        following = last[: last.find("/", len(above)) + 1]
        if not last.startswith(above) or not following:
            return None
        return partial(self._read_on, above, following)

    def _read_on(self, above: str, following: str) -> None:
        if not self._is_read_on:
            self._is_read_on = True
            self._walks.begin_behind(above, following)


def _by_directory(
    base: str, page: ListPage
) -> Iterator[tuple[str, tuple[ObjectInfo, ...], tuple[str, ...]]]:
    """The prefix of each directory that a flat page tells of, ``base`` first, and its objects and
    the prefixes of the directories in it.
    """
    found: dict[str, tuple[list[ObjectInfo], list[str]]] = {base: ([], [])}
    for info in page.objects:
        above, start = base, len(base)
        while (slash := info.key.find("/", start)) >= 0:
            start = slash + 1
            prefix = info.key[:start]
            if prefix not in found:
                found[prefix] = ([], [])
                found[above][1].append(prefix)
            above = prefix
        found[above][0].append(info)
    for prefix, (objects, prefixes) in found.items():
        yield prefix, tuple(objects), tuple(prefixes)


class _Walk:
    """One flat listing in flight, of the keys below ``base`` that come after ``after``."""

    def __init__(self, base: str, after: str, fetch: FetchFlat, walks: "Walks") -> None:
        self.base = base
        self.over = False
        self.promises: dict[str, PromisedPage] = {}
        self.changed: set[str] = set()
        """Directories this mount changed since: what was read of them is not believed."""
        self._fetch = fetch
        self._walks = walks
        self._position = self._began_after = after
        self._token: str | None = None
        self._pages = 0
        self._pages_wanted = 1
        self._ahead = 0
        """How many pages to read beyond the one behind the program's."""
        self._is_removed = False
        self._stack = [_Directory(base, 0.0, 0)]
        self._closed: set[str] = set()
        self._under_way: Pending[ListPage] | None = None
        self._asked_at = 0.0
        self._ask()

    def may_bring(self, prefix: str, oldest: float) -> bool:
        """Whether the keys below ``prefix`` are still to come, or coming, all of them fresh."""
        if self.over or prefix in self._closed or not prefix.startswith(self.base):
            return False
        return prefix > self._position or any(
            node.prefix == prefix and node.started > oldest for node in self._stack[1:]
        )

    def has_passed(self, prefix: str) -> bool:
        """Whether no key below ``prefix`` is still to come."""
        is_before = self.base < prefix < self._began_after and prefix.startswith(self.base)
        return is_before or prefix in self._closed

    def promise(self, prefix: str, page: PromisedPage) -> None:
        """Somebody waits for a directory."""
        self.promises[prefix] = page
        self._want(self._pages)

    def used(self, page_number: int) -> None:
        """The program has come to a directory of that page: read on."""
        self._want(page_number)
        if not self._is_removed:
            self._ahead = min(self._ahead + 1, _PAGES_AHEAD)

    def removed(self) -> None:
        """The program removes what it has read: it takes its time, and has to know each directory
        as it was within the lifetime of an absence. Read only one page ahead.
        """
        self._is_removed = True
        self._ahead = 0

    def _want(self, page_number: int) -> None:
        self._pages_wanted = max(self._pages_wanted, page_number + 1 + self._ahead)
        is_wanted = self._pages < self._pages_wanted or self.promises
        if is_wanted and not self.over and self._under_way is None:
            self._ask()

    def end(self) -> None:
        """Read no further; who waits is served the ordinary way."""
        self.over = True
        self._under_way = None
        self._stack = self._stack[:1]
        promises, self.promises = self.promises, {}
        for promise in promises.values():
            promise.give_up()

    def _ask(self) -> None:
        self._asked_at = trio.current_time()
        after = self._position if self._token is None else None
        self._under_way = self._fetch(self.base, self._token, after)
        self._under_way.when_settled(partial(self._settled, self._under_way))

    def _settled(self, pending: Pending[ListPage]) -> None:
        if self.over or self._walks.is_closed():
            return
        # Still "under way" while it is sorted: nobody asks for the next one in between.
        try:
            page = pending.result()
        except StoreError:
            # A waiting caller asks again, and gets the reason if that fails, too.
            self.end()
            return
        self._pages += 1
        goes_on = self._take_in(page)
        self._token = page.next_token
        if goes_on and self._token is None:
            while len(self._stack) > 1:
                self._close(self._stack.pop())
        if not goes_on or self._token is None or not self._pays():
            self.end()
            return
        self._under_way = None
        if self._pages < self._pages_wanted or self.promises:
            self._ask()

    def _take_in(self, page: ListPage) -> bool:
        """Sort the keys into their directories; False if the store mixes their order up."""
        stack = self._stack
        for info in page.objects:
            key = info.key
            if key < self._position or not key.startswith(self.base):
                return False
            self._position = key
            while not key.startswith(stack[-1].prefix):
                self._close(stack.pop())
            start = len(stack[-1].prefix)
            while (slash := key.find("/", start)) >= 0:
                start = slash + 1
                prefix = key[:start]
                stack[-1].prefixes.append(prefix)
                stack.append(_Directory(prefix, self._asked_at, self._pages))
            stack[-1].objects.append(info)
        return True

    def _close(self, node: _Directory) -> None:
        """All keys of a directory were read."""
        self._closed.add(node.prefix)
        promise = self.promises.pop(node.prefix, None)
        if node.prefix in self.changed:
            if promise is not None:
                promise.give_up()
            return
        page = ListPage(tuple(node.objects), tuple(node.prefixes), None)
        if promise is not None:
            promise.keep(page, node.started)
            self.used(node.page_number)
        else:
            self._walks.found(node.prefix, FoundPage(page, node.started, self, node.page_number))

    def _pays(self) -> bool:
        """Whether to read on after a page that was not the last; serves who waited long enough."""
        for node in self._stack[1:]:
            if len(node.objects) < _PAGE_KEYS:
                continue
            # As good as a page of its own. Its reader goes on from its last key by itself.
            promise = self.promises.pop(node.prefix, None)
            if promise is not None:
                if node.prefixes or node.prefix in self.changed:
                    promise.give_up()
                else:
                    last = node.objects[-1].key
                    page = ListPage(tuple(node.objects), (), token_after(last))
                    promise.keep(page, node.started)
            return False
        for prefix, promise in list(self.promises.items()):
            promise.patience -= 1
            if promise.patience <= 0:
                del self.promises[prefix]
                promise.give_up()
                self._walks.does_not_pay(self.base)
                return False
        return True


class Walks:
    """The flat listings of one mount, and what they found. Belongs to the trio thread."""

    def __init__(
        self,
        fetch: FetchFlat,
        is_closed: Callable[[], bool],
        *,
        ttl_seconds: float,
        max_entries: int,
    ) -> None:
        self._fetch = fetch
        self.is_closed = is_closed
        """Whether the mount is ending: no further request is made then."""
        self._ttl_seconds = ttl_seconds
        self._found: TTLCache[str, FoundPage] = TTLCache(
            max_entries,
            ttl_seconds,
            timer=trio.current_time,
            getsizeof=lambda found: 1 + len(found.page.objects) + len(found.page.prefixes),
        )
        self._useless: TTLCache[str, None] = TTLCache(
            _MAX_REMEMBERED, ttl_seconds, timer=trio.current_time
        )
        self._large: TTLCache[str, None] = TTLCache(
            _MAX_REMEMBERED, ttl_seconds, timer=trio.current_time
        )
        """Directories that hold more than a flat page tells."""
        self._walk: _Walk | None = None
        self._glances: set[_FlatPage] = set()
        self._has_found = False
        """False: nothing is in ``_found``."""
        self.on_found: Callable[[ListPage], None] | None = None
        """Called with every directory that was listed ahead."""

    def __bool__(self) -> bool:
        """Whether anything is being read, or was found and not taken."""
        if self._glances or (self._walk is not None and not self._walk.over):
            return True
        # Most mounts have found nothing; how much is there is slow to tell, and asked all the time.
        self._has_found = self._has_found and bool(self._found)
        return self._has_found

    def take(self, prefix: str) -> FoundPage | None:
        """The content that was found for a directory while it is fresh; the caller owns it then."""
        found: FoundPage | None = self._found.pop(prefix, None)
        if found is None or found.started <= trio.current_time() - self._ttl_seconds:
            return None
        found.taken()
        return found

    def expect(
        self, prefix: str, otherwise: Callable[[], Pending[ListPage]]
    ) -> PromisedPage | None:
        """The page of a directory that the listing in flight will bring."""
        for glance in self._glances:
            if glance.may_bring(prefix) and prefix not in glance.promises:
                promised = glance.promises[prefix] = PromisedPage(otherwise)
                return promised
        oldest = trio.current_time() - self._ttl_seconds
        if self._walk is None or not self._walk.may_bring(prefix, oldest):
            return None
        promised = PromisedPage(otherwise)
        self._walk.promise(prefix, promised)
        return promised

    def glance(self, base: str, otherwise: Callable[[], Pending[ListPage]]) -> PromisedPage | None:
        """The first page of a directory, and by a flat listing what is in the directories in it,
        too; None: there was too much of that.

        A flat page may have a thousand keys of a directory whose name alone is wanted, and takes
        that much longer: the page is asked for by itself as well.
        """
        if self._ttl_seconds <= 0 or base in self._large:
            return None
        promised = PromisedPage(otherwise)
        promised.ask_beside()
        self._glances.add(_FlatPage(base, promised, self._fetch, self))
        return promised

    def glanced(self, glance: _FlatPage) -> None:
        """It is over."""
        self._glances.discard(glance)

    def found_large(self, base: str) -> None:
        """A flat page does not hold all that is below a directory."""
        self._large[base] = None

    def begin(self, base: str, first: str) -> None:
        """List the subtree ``base`` flat from its directory ``first`` on, if that may pay."""
        if self._ttl_seconds <= 0 or base in self._useless:
            return
        if self._walk is not None:
            self._walk.end()
        self._walk = _Walk(base, just_before(first), self._fetch, self)

    def begin_behind(self, base: str, first: str) -> None:
        """As :meth:`begin`, before the program comes to ``first``, if no walk is on the way."""
        if self._walk is None or self._walk.over or self._walk.base != base:
            self.begin(base, first)

    def found(self, prefix: str, found: FoundPage) -> None:
        """A walk has read a whole directory."""
        if self.keep(prefix, found) and self.on_found is not None:
            self.on_found(found.page)

    def keep(self, prefix: str, found: FoundPage) -> bool:
        """The whole content of a directory is known; False if it is too much to be kept."""
        size = 1 + len(found.page.objects) + len(found.page.prefixes)
        if size > self._found.maxsize:
            return False
        self._found[prefix] = found
        self._has_found = True
        return True

    def does_not_pay(self, base: str) -> None:
        """The subtree's directories are not for flat listing."""
        self._useless[base] = None

    def changed(self, prefix: str) -> None:
        """This mount changed an entry of a directory."""
        self._found.pop(prefix, None)
        if self._walk is not None and not self._walk.over:
            self._walk.changed.add(prefix)
        for glance in self._glances:
            glance.changed.add(prefix)

    def removed(self, prefix: str) -> None:
        """This mount removed a directory, in which nothing was left: as :meth:`drop`. The walk goes
        on if it has passed it: rm -r removes each directory before it lists the next one.
        """
        if self._walk is None or self._walk.over or not self._walk.has_passed(prefix):
            self.drop(prefix)
        else:
            self._walk.removed()
            self._forget(prefix)

    def drop(self, prefix: str) -> None:
        """Forget a directory and all below it."""
        self._forget(prefix)
        walk = self._walk
        if walk is not None and (walk.base.startswith(prefix) or prefix.startswith(walk.base)):
            walk.end()
            self._walk = None

    def _forget(self, prefix: str) -> None:
        for known in [known for known in self._found if known.startswith(prefix)]:
            self._found.pop(known, None)
        for glance in self._glances:
            if glance.base.startswith(prefix) or prefix.startswith(glance.base):
                glance.over = True

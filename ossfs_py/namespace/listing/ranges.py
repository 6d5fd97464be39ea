"""Reads a large directory in several places at once.

A page can be asked for only when the page before has told where it ends, so a hundred pages cost a
hundred round trips. But a LIST may begin after any key. So once a directory has shown that it is
large, the names to come are guessed (``guessing.py``), and the pages that begin there are requested
meanwhile. One of them begins far ahead: if anything is there, everything before it is worth its
requests.

Nothing depends on a guess being right, or on a store that does what it was asked. Where a page
passes the beginning of the next one, it tells which keys follow. Only if the next one begins with
those it is used, and what follows is the same as without it. Otherwise the listing goes on as if
nobody had guessed. Guessed keys have no slash, so a common prefix is in one range only.

Requests are bounded in three ways: pages in flight, pages that no reader has taken yet, and
requests that were wasted, which a guess may add to only while they are few.
"""

import logging
import weakref
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter, lt

from ossfs_py.errors import StoreError
from ossfs_py.model import ListPage
from ossfs_py.namespace.listing.guessing import Names
from ossfs_py.namespace.listing.walks import token_after
from ossfs_py.namespace.pending import Pending
from ossfs_py.store.keyorder import LAST_CHARACTER, just_before

log = logging.getLogger(__name__)

_PAGES_BEFORE = 4
"""Pages after which a directory is large: none of up to 4,000 names costs one request more."""
_MIN_ENTRIES = 500
"""Shorter pages are no sign of a large directory."""
_AT_ONCE = 16
"""Most pages in flight: a processor takes in 80 pages a second, and a store takes up to 200 ms."""
_AHEAD = 24
"""Most pages that no reader has taken, in flight or here: 24,000 names take 10 MB."""
_FAR_PAGES = 32
"""How far ahead a page is requested to see whether the directory goes on."""
_LONG_STRIDE, _LITTLE = 4, 0.3
"""Pages from one guess to the next where guesses are bad, and half a page of each is lost; until
that much of a page is."""
_SPARE, _SPARE_SHARE = 4.0, 0.1
"""Wasted pages, and wasted pages for each one that was used, beyond which nothing is guessed."""
_GUESSES_KEPT = 8
_DOUBTS = 4
"""Pages in flight of which nobody knows whether the directory goes on to them."""
_MISFITS = 4
"""Guessed pages that did not fit, as of a store that does not begin where it was asked to, until
nothing is guessed any more."""

Fetch = Callable[[str | None], Pending[ListPage]]


class Order:
    """Whether a store begins pages where it is asked to, and has keys in order, as far as is known.
    Belongs to the trio thread.
    """

    def __init__(self) -> None:
        self.is_kept = True

    def is_broken(self, why: str) -> None:
        """It does not: directories are listed page after page from now on."""
        if self.is_kept:
            log.info("large directories are listed page after page, as this store %s", why)
        self.is_kept = False


class _Slot:
    """One page in flight, or here, of the keys after ``after``."""

    __slots__ = ("__weakref__", "after", "is_guess", "is_short", "last", "pending", "token")

    def __init__(self, after: str, pending: Pending[ListPage], *, is_guess: bool) -> None:
        self.after = after
        self.pending = pending
        self.is_guess = is_guess
        self.is_short = False
        """Whether one page probably has room for all up to the next slot."""
        self.last = after
        """The last key of the page, once it is here."""
        self.token: str | None = None
        """The token of the page after it."""


class RangedPages:
    """The pages of one listing that were requested ahead. Belongs to the trio thread.

    Nothing goes on when its owner has dropped it.
    """

    def __init__(
        self,
        prefix: str,
        fetch: Fetch,
        order: Order,
        *,
        is_closed: Callable[[], bool],
        at_once: int,
    ) -> None:
        """``is_closed``: whether the mount is ending; ``at_once``: most requests in flight."""
        self._prefix = prefix
        self._fetch = fetch
        self._order = order
        self._is_closed = is_closed
        self._at_once = min(at_once, _AT_ONCE)
        self._slots: list[_Slot] = []
        """In the order of keys. The first one is read next; each ends where the next begins."""
        self._rest: ListPage | None = None
        """What the page before the first slot told of the keys behind its beginning."""
        self._names = Names()
        self._usable = at_once > 1 and order.is_kept
        self._has_directories = False
        self._pages = 0
        self._size = 0
        """Entries of a full page."""
        self._known = ""
        """The last key that is known."""
        self._end = ""
        """A key behind which one page has room for all that there is; "": none is known."""
        self._spare = 0.0
        """Pages that were requested in vain."""
        self._lost = 0.0
        """Part of a page that a guess has lost of late, on average."""
        self._stride = 1
        """Pages from one guess to the next: where guesses are bad, half a page of each is lost."""
        self._fitted = self._misfits = 0

    # -- for the listing ----------------------------------------------------------------------

    def take(self, pending: object, page: ListPage | None) -> ListPage | None:
        """The page that was read next, as far as it goes before the page after it begins.

        ``page`` is None if it failed, after :meth:`is_in_doubt`. Returns None if there is nothing
        in it: wait for :attr:`next` instead.
        """
        if not self._slots or self._slots[0].pending is not pending:
            self._clear()
            return page
        slot = self._slots.pop(0)
        if slot.is_guess and not (page is not None and self._fits(page)):
            page = self._without()
        self._rest = None
        return self._cut(page, slot) if page is not None and self._slots else page

    def is_in_doubt(self, pending: object) -> bool:
        """Whether the page was requested by guess, so that there is another way to go on."""
        return bool(self._slots) and self._slots[0].pending is pending and self._slots[0].is_guess

    @property
    def next(self) -> Pending[ListPage]:
        """The page that is read next."""
        return self._slots[0].pending

    def following(self, page: ListPage) -> Pending[ListPage]:
        """The page after ``page``, which :meth:`take` has returned, and which is not the last."""
        self._pages += 1
        self._size = max(self._size, len(page.objects) + len(page.prefixes))
        names = self._usable and self._size >= _MIN_ENTRIES and _names(page, len(self._prefix))
        self._has_directories = len(page.prefixes) > len(page.objects)
        if names:
            self._names.note(names)
        if not self._slots:
            after = _last(page) or self._known
            self._slots.append(self._slot(after, page.next_token, is_guess=False))
        self._known = max(self._known, _last(page))
        if self._wastes():
            self._stride = _LONG_STRIDE
        elif self._lost < _LITTLE:
            self._stride = 1
        self._request()
        return self.next

    # -- what a page says ---------------------------------------------------------------------

    def _fits(self, page: ListPage) -> bool:
        """Whether a guessed page begins with all that the page before has told behind its key."""
        assert self._rest is not None  # noqa: S101 - the page before has passed the guess
        told = _keys(self._rest)
        keys = _keys(page)
        prefixes = self._rest.prefixes
        fits = (
            # The first: a name between the two must not be on neither.
            _first(page) == _first(self._rest)
            and keys[: len(told)] == told
            and page.prefixes[: len(prefixes)] == prefixes
            and _ascends(keys)
            and _ascends(page.prefixes)
        )
        self._fitted += fits
        return fits

    def _without(self) -> ListPage:
        """What the page before has told behind its key: as if nobody had guessed."""
        assert self._rest is not None  # noqa: S101 - as above
        while self._slots and not self._slots[0].is_guess:
            del self._slots[0]  # went on from there
        self._spare += 1
        self._misfits += 1
        if self._misfits >= _MISFITS:
            self._usable = False  # others may change the directory all the time
            if not self._fitted:
                self._order.is_broken("does not begin pages after the key that is asked for")
        return self._rest

    def _cut(self, page: ListPage, slot: _Slot) -> ListPage | None:
        """A page up to the slot that comes next."""
        following, last = self._slots[0], _last(page) or slot.after
        end = following.after
        if not following.is_guess:
            return page
        if last <= end:
            if page.next_token is None:
                self._clear()
            else:
                self._slots.insert(0, self._slot(last, page.next_token, is_guess=False))
            return page
        if not _is_in_order(page):
            self._usable = False
            self._order.is_broken("has keys in an order of its own")
            self._clear()
            return page
        self._rest = behind(page, end)
        objects = page.objects[: len(page.objects) - len(self._rest.objects)]
        prefixes = page.prefixes[: len(page.prefixes) - len(self._rest.prefixes)]
        kept = len(objects) + len(prefixes)
        lost = 1 - kept / max(self._size, 1)
        self._spare += lost
        self._lost += (lost - self._lost) / _GUESSES_KEPT
        return ListPage(objects, prefixes, token_after(end)) if kept else None

    def _clear(self) -> None:
        self._slots.clear()
        self._rest = None

    # -- what to request ----------------------------------------------------------------------

    def _slot(self, after: str, token: str | None, *, is_guess: bool) -> _Slot:
        pending = self._fetch(token_after(after) if is_guess else token)
        slot = _Slot(after, pending, is_guess=is_guess)
        pending.when_settled(_Wakes(self, slot))
        return slot

    def settled(self, slot: _Slot) -> None:
        """A page is here."""
        if slot not in self._slots:
            return
        try:
            page = slot.pending.result()
        except StoreError:
            self._usable = self._usable and not slot.is_guess
            return  # told, or gone round, when it is read
        if slot.is_guess and "" < _first(page) <= slot.after:
            self._usable = False
            self._order.is_broken("does not begin pages after the key that is asked for")
            return  # is found not to fit when it is read
        slot.last, slot.token = _last(page) or slot.after, page.next_token
        if slot.token is None and (not self._end or slot.after < self._end):
            self._end = slot.after
        if slot.after <= self._known or (slot.is_guess and self._goes_on(slot.after, page)):
            self._known = max(self._known, slot.last)
        self._request()

    def _request(self) -> None:
        """Request what is worth it, in the order of keys, as far as there is room."""
        if self._pages < _PAGES_BEFORE or not self._names.breadth or self._is_closed():
            return
        slots = self._slots
        room = min(
            _AHEAD - len(slots), self._at_once - sum(not slot.pending.settled for slot in slots)
        )
        place = 0
        while room > 0 and place < len(slots):
            slot = slots[place]
            place += 1
            end = slots[place].after if place < len(slots) else None
            new: _Slot | None = None
            if not slot.pending.settled:
                if not slot.is_short and (key := self._guess(slot, end)) is not None:
                    new = self._slot(key, None, is_guess=True)
            elif slot.token is None:
                return
            elif slot.last < end if end is not None else place > 1:
                new = self._slot(slot.last, slot.token, is_guess=False)
            if new is not None:
                slots.insert(place, new)
                room -= 1

    def _wastes(self) -> bool:
        """Whether too many pages are requested in vain, those on their way counted as the last
        ones were.
        """
        pages = self._pages + len(self._slots)
        spare = self._spare + self._lost * self._guesses()
        return spare > _SPARE + _SPARE_SHARE * pages

    def _guesses(self) -> int:
        return sum(slot.is_guess for slot in self._slots)

    def _goes_on(self, after: str, page: ListPage) -> bool:
        """Whether names go on around a guess, so that there are some before it, too."""
        start, names, first = len(self._prefix), self._names, _first(page)
        far = names.place(first[start:]) - names.place(after[start:])
        return bool(first) and far < names.breadth * self._size

    def _guess(self, slot: _Slot, end: str | None) -> str | None:
        """The key, before ``end``, at which to begin the page behind one that is in flight."""
        if not self._usable or self._guesses() * self._stride >= _AHEAD or self._wastes():
            return None
        names, start = self._names, len(self._prefix)
        room = names.breadth * self._size * self._stride
        # Not at the end of a page, as that would not tell which key follows.
        step = int(room - 1 if names.are_counted else room * names.filled)
        begin, steps = names.place(slot.after[start:]), 1
        if end is None:
            steps = max(1, min(self._pages + len(self._slots), _FAR_PAGES) // self._stride)
        elif names.place(end[start:]) - begin <= room:
            slot.is_short = True
            return None
        found = None
        while steps and not (found := names.name_at(begin + step * steps)):
            steps //= 2  # names seldom go on behind the last one that looks like them
        key = self._prefix + (found or "")
        if found and self._has_directories:
            # Behind its very name SeaweedFS leaves out a directory. Still no slash: see above.
            key = just_before(key + "/").replace("/" + LAST_CHARACTER, "." + LAST_CHARACTER)
        if not found or key <= slot.after or (end is not None and key >= end):
            return None
        if self._end and key >= self._end:
            return None
        doubts = sum(one.after >= self._known and not one.pending.settled for one in self._slots)
        return key if key < self._known or doubts <= min(1 + self._pages // 8, _DOUBTS) else None


class _Wakes:
    """Tells the owner of a slot that its page is here, if there still is one."""

    __slots__ = ("_owner", "_slot")

    def __init__(self, owner: RangedPages, slot: _Slot) -> None:
        self._owner = weakref.ref(owner)
        self._slot = weakref.ref(slot)

    def __call__(self) -> None:
        owner, slot = self._owner(), self._slot()
        if owner is not None and slot is not None:
            owner.settled(slot)


def behind(page: ListPage, key: str) -> ListPage:
    """What a page, in order, tells behind a key."""
    objects = bisect_right(page.objects, key, key=attrgetter("key"))
    prefixes = bisect_right(page.prefixes, key)
    if not objects and not prefixes:
        return page
    return replace(page, objects=page.objects[objects:], prefixes=page.prefixes[prefixes:])


def only_behind(page: ListPage, key: str) -> ListPage:
    """A page without what a store tells although it was asked for what comes behind a key."""
    if not "" < _first(page) <= key:
        return page
    objects = tuple(info for info in page.objects if info.key > key)
    return replace(page, objects=objects, prefixes=tuple(p for p in page.prefixes if p > key))


def _keys(page: ListPage) -> list[str]:
    return list(map(attrgetter("key"), page.objects))


def _first(page: ListPage) -> str:
    return min((*(info.key for info in page.objects[:1]), *page.prefixes[:1]), default="")


def _last(page: ListPage) -> str:
    return max((*(info.key for info in page.objects[-1:]), *page.prefixes[-1:]), default="")


def _is_in_order(page: ListPage) -> bool:
    return _ascends(_keys(page)) and _ascends(page.prefixes)


def _ascends(keys: Sequence[str]) -> bool:
    return all(map(lt, keys, keys[1:]))


def _names(page: ListPage, start: int) -> list[str]:
    """The names of a page, in order, without the slashes of directories."""
    names = [key[start:] for key in _keys(page)]
    if page.prefixes:
        names = sorted([*names, *(prefix[start:-1] for prefix in page.prefixes)])
    # The directory's own marker has none.
    return names if not names or names[0] else names[1:]

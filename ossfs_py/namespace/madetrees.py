"""Whether others have stored something in directories that this mount made: one request a tree.

A directory that was made here says what is not in it while that is younger than ``negative_ttl``.
Programs that clone or unpack make many, and come back to each of them for names that are absent,
and to list it. Each of these would then be a request that the program waits for. One flat LIST of
the whole tree answers for all of its directories: the store had nothing in them that it does not
name.

Nothing is believed for a directory in which the answer names anything that is not known here.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from itertools import pairwise

import trio
from cachetools import TTLCache

from ossfs_py.errors import StoreError
from ossfs_py.model import ListPage, ListQuery, ObjectInfo
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.listing.merge import DIRECTORY, LOCAL, Entry
from ossfs_py.namespace.listing.reading import Listing
from ossfs_py.namespace.listing.shared import MADE_HERE_SECONDS
from ossfs_py.namespace.pending import Pending
from ossfs_py.namespace.tree import Tree
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.keyorder import is_behind, just_before

_AHEAD = 0.3
"""The part of the lifetime at whose end the next answer is asked for: a program that goes on asking
need not wait for it."""
_USELESS_SECONDS = 5.0
"""A directory with names of others, or with more than a page behind it, is asked for by itself."""
_MAX_USELESS = 1024


class _TreeAnswer:
    """One page of a flat listing: the keys below ``base`` that come after ``after``."""

    def __init__(self, base: str, after: str | None) -> None:
        self.asked_at = trio.current_time()
        self.pending: Pending[ListPage] | None = None
        """Until it is here."""
        self._base = base
        self._after = after
        self._keys: list[str] = []
        self._page: ListPage | None = None

    def asks_for(self, prefix: str) -> bool:
        """Whether the keys below ``prefix`` were asked for."""
        return prefix.startswith(self._base) and (
            self._after is None or is_behind(prefix, self._after)
        )

    def take_in(self, page: ListPage) -> None:
        """The store's answer; it is not used if the store does not keep the order."""
        keys = [info.key for info in page.objects]
        if all(before < after for before, after in pairwise(keys)):
            self._keys, self._page = keys, page

    def entries(self, prefix: str) -> Mapping[str, Entry] | None:
        """What the store had in a directory; None if the answer does not tell."""
        page, keys = self._page, self._keys
        if page is None or not self.asks_for(prefix):
            return None
        found: dict[str, Entry] = {}
        place = bisect_left(keys, prefix)
        while place < len(keys) and keys[place].startswith(prefix):
            info = page.objects[place]
            name, slash, _ = info.key[len(prefix) :].partition("/")
            if slash:
                found[name] = DIRECTORY
                place = bisect_left(keys, prefix + name + _BEHIND_A_SLASH, place)
                continue
            if not name and info.size:
                return None  # a marker with content: the directory is not what it seems
            if name:
                found[name] = info
            place += 1
        is_whole = page.next_token is None or (place < len(keys) and is_behind(keys[-1], prefix))
        return found if is_whole else None


_BEHIND_A_SLASH = chr(ord("/") + 1)


class MadeTrees:
    """Asks for trees that were made here. Belongs to the trio thread."""

    def __init__(
        self, list_page: Callable[[ListQuery], ListPage], workers: Workers, tree: Tree
    ) -> None:
        """``list_page`` asks the store, on a thread."""
        self._list_page = list_page
        self._workers = workers
        self._tree = tree
        self._last: _TreeAnswer | None = None
        self._useless: TTLCache[int, None] = TTLCache(
            _MAX_USELESS, _USELESS_SECONDS, timer=trio.current_time
        )

    async def look(self, directory: Inode) -> bool:
        """Make what a directory says of absent names young again; False: it has to be asked for.

        Costs no request where a question about another directory of the tree has told of it.
        """
        answer = await self._answer(directory, self._tree.options.negative_ttl_seconds)
        return answer is not None and self._take_in(directory, answer) is not None

    def look_ahead(self, directory: Inode, left_seconds: float) -> bool:
        """What a directory says will be believed for so long: ask in time if that is short. Returns
        whether it is younger now.
        """
        ttl_seconds = self._tree.options.negative_ttl_seconds
        if left_seconds > _AHEAD * ttl_seconds or not self._may_tell(directory):
            return False
        prefix = self._tree.keys.marker_key_of(directory)
        answer = self._known(prefix, (1 - _AHEAD) * ttl_seconds)
        if answer is None:
            self._ask(directory, prefix)
            return False
        return answer.pending is None and self._take_in(directory, answer) is not None

    async def confirm(self, directory: Inode) -> None:
        """A program lists a directory: where it was made here, in a tree of others, what is known
        of it is compared with one answer for the tree.
        """
        listing = self._made(directory)
        if listing is None or self._tree.listings.may_be_read(listing):
            return
        age_seconds = min(MADE_HERE_SECONDS, self._tree.options.negative_ttl_seconds)
        last = self._last
        answer = await self._answer(directory, age_seconds)
        if answer is last and not self._confirms(directory, answer):
            # It may be older than what was stored here since: one that is younger tells of that,
            # and of all other directories of the tree.
            answer = await self._answer(directory, 0.0)
        if answer is not last:
            self._confirms(directory, answer)

    def _confirms(self, directory: Inode, answer: _TreeAnswer | None) -> bool:
        """Whether a directory may be listed as it is known: the store has just that."""
        found = None if answer is None else self._take_in(directory, answer)
        listing = self._made(directory)
        if (
            answer is None
            or found is None
            or listing is None
            or listing.index is None
            or not all(
                self._is_same(directory, name, entry, found.get(name))
                for name, entry in listing.index.items()
            )
        ):
            return False
        listing.confirmed_at = answer.asked_at
        return True

    # -- inside -----------------------------------------------------------------------------------

    def _made(self, directory: Inode) -> Listing | None:
        listing = self._tree.listings.complete(directory)
        return listing if listing is not None and listing.made_here else None

    def _may_tell(self, directory: Inode) -> bool:
        """Not of one that stands alone: it is asked for by itself, and once a second is enough."""
        listing = self._made(directory)
        return (
            self._tree.options.negative_ttl_seconds > 0
            and listing is not None
            and self._is_in_a_tree(directory, listing)
            and directory.number not in self._useless
        )

    def _is_in_a_tree(self, directory: Inode, listing: Listing) -> bool:
        parent = directory.parent
        return bool(listing.directories()) or (
            parent is not None and self._made(parent) is not None
        )

    async def _answer(self, directory: Inode, age_seconds: float) -> _TreeAnswer | None:
        """An answer that is no older, and may tell of a directory."""
        if not self._may_tell(directory):
            return None
        prefix = self._tree.keys.marker_key_of(directory)
        answer = self._known(prefix, age_seconds) or self._ask(directory, prefix)
        if answer.pending is not None:
            await answer.pending.wait_settled()
        return answer

    def _known(self, prefix: str, age_seconds: float) -> _TreeAnswer | None:
        answer = self._last
        if answer is None or not answer.asks_for(prefix):
            return None
        return answer if trio.current_time() - answer.asked_at < age_seconds else None

    def _ask(self, directory: Inode, prefix: str) -> _TreeAnswer:
        """Ask for the whole tree; if the answer before did not reach so far, from here on."""
        top = directory
        while top.parent is not None and self._made(top.parent) is not None:
            top = top.parent
        base, last = self._tree.keys.marker_key_of(top), self._last
        reaches = last is None or not last.asks_for(prefix) or last.entries(prefix) is not None
        after = None if reaches or prefix == base else just_before(prefix)
        answer = self._last = _TreeAnswer(base, after)
        query = ListQuery(base, delimiter="", start_after=after)
        pending = Pending(self._workers, partial(self._list_page, query))
        answer.pending = pending

        def settled() -> None:
            answer.pending = None
            with suppress(StoreError):  # who asks alone gets the reason if that fails, too
                answer.take_in(pending.result())

        pending.when_settled(settled)
        return answer

    def _take_in(self, directory: Inode, answer: _TreeAnswer) -> Mapping[str, Entry] | None:
        """What the store had in a directory, all of which is known here; None: it is not told."""
        listing = self._made(directory)
        if listing is None or listing.index is None:
            return None
        found = answer.entries(self._tree.keys.marker_key_of(directory))
        if found is None or not found.keys() <= listing.index.keys():
            self._useless[directory.number] = None
            return None
        self._tree.listings.still_so(listing, answer.asked_at)
        return found

    def _is_same(self, directory: Inode, name: str, known: Entry, told: Entry | None) -> bool:
        """Whether an entry is as the store told, or is not stored yet."""
        if isinstance(known, ObjectInfo) and isinstance(told, ObjectInfo):
            return known.etag == told.etag and known.size == told.size
        if known is LOCAL or known is told:
            return True
        child = self._tree.table.child(directory, name)
        return child is not None and child.local

"""Listings of a versioned bucket as it was at a moment, for a mount of the past.

Times are the store's, and most stores give whole seconds: within the second of the moment, the
newest version counts. A listing is read page by page. Between pages only the state of one key is
kept, however many keys and versions there are.
"""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from cachetools import LRUCache

from ossfs_py.errors import (
    AccessDeniedError,
    EnvironmentProblemError,
    ObjectMissingError,
    StoreError,
    StoreUnavailableError,
    UnsupportedByStoreError,
)
from ossfs_py.model import (
    HistoryEntry,
    HistoryMark,
    HistoryPage,
    HistoryQuery,
    ListPage,
    ListQuery,
    ObjectInfo,
)
from ossfs_py.store.base import ObjectStore

_NS_PER_SECOND = 10**9
_FULL_PAGE = 1000
_SMALL_PAGE = 50
"""Enough to find something that was there, in most places, for an answer of some 25 KiB."""
_CHECKS_AT_ONCE = 8
_REMEMBERED_PREFIXES = 100_000
_PROOF_PAGES = 10
"""Pages in which a mount looks for a version as old as its moment, at each level: some seconds."""


class PastCatalogue:
    """Implements :class:`~ossfs_py.namespace.removed.Catalogue`; all its objects are pinned."""

    def __init__(self, store: ObjectStore, at_ns: int) -> None:
        self._store = store
        self._at_ns = at_ns
        self._lock = threading.Lock()
        self._was_there: LRUCache[str, bool] = LRUCache(_REMEMBERED_PREFIXES)
        """Whether there was anything below a prefix. The past does not change."""

    def head(self, key: str) -> ObjectInfo:
        """See the protocol. One request for what has not changed since, else up to three."""
        try:
            info = self._store.head(key)
        except ObjectMissingError:
            pass
        else:
            # HEAD tells whole seconds, listings of some stores more.
            if info.mtime_ns + _NS_PER_SECOND <= self._at_ns:
                return info._replace(pinned=info.version_id is not None)
        entry = self._last_of(key)
        if entry is None or entry.info is None:
            raise ObjectMissingError("it was not there then", operation="HeadObject", key=key)
        return self._store.head(key, entry.version_id)

    def list_page(self, query: ListQuery) -> ListPage:
        """See the protocol. Up to a page more than ``max_keys`` may be told. A query for one key
        asks whether there is anything, and is not told all prefixes of the page.
        """
        mark, decided = _place(query)
        size = _SMALL_PAGE if query.max_keys < _FULL_PAGE else _FULL_PAGE
        while True:
            page = self._page(HistoryQuery(query.prefix, query.delimiter, mark, size))
            objects, decided = self._as_of(page, decided)
            if query.max_keys == 1:
                prefixes = () if objects else self._first_alive(page)
            else:
                prefixes = self._alive(page)
            mark, size = page.following, _FULL_PAGE
            if objects or prefixes or mark is None:
                return ListPage(objects, prefixes, _token(mark, decided))

    # -- inside -----------------------------------------------------------------------------------

    def _page(self, query: HistoryQuery) -> HistoryPage:
        """A page without what lies before its beginning, which some stores (moto) tell again."""
        page = self._store.list_versions(query)
        after = query.after
        if after is not None and page.following == after:
            raise StoreUnavailableError(
                "the listing goes in circles", operation="ListObjectVersions", key=query.prefix
            )
        if after is None or after.version_id is not None:
            return page
        return replace(
            page,
            entries=tuple(entry for entry in page.entries if entry.key > after.key),
            prefixes=tuple(prefix for prefix in page.prefixes if prefix > after.key),
        )

    def _as_of(self, page: HistoryPage, decided: str) -> tuple[tuple[ObjectInfo, ...], str]:
        """The content at that time, and the last key for which it is known."""
        found = []
        for entry in page.entries:
            if entry.key != decided and entry.mtime_ns <= self._at_ns:
                decided = entry.key
                if entry.info is not None:
                    found.append(entry.info)
        return tuple(found), decided

    def _last_of(self, key: str) -> HistoryEntry | None:
        """The last event of a key."""
        mark, size = None, _SMALL_PAGE
        while True:
            page = self._page(HistoryQuery(key, after=mark, max_entries=size))
            for entry in page.entries:
                if entry.key != key:
                    return None  # a key sorts before all that it is the beginning of
                if entry.mtime_ns <= self._at_ns:
                    return entry
            mark, size = page.following, _FULL_PAGE
            if mark is None:
                return None

    def _first_alive(self, page: HistoryPage) -> tuple[str, ...]:
        """One of the prefixes of a page below which anything was, if there is one."""
        return tuple(itertools.islice(filter(self._is_alive, page.prefixes), 1))

    def _alive(self, page: HistoryPage) -> tuple[str, ...]:
        """The prefixes of a page below which anything existed; a few are checked in parallel."""
        prefixes = page.prefixes
        if len(prefixes) < 2:
            return tuple(prefix for prefix in prefixes if self._is_alive(prefix))
        with ThreadPoolExecutor(_CHECKS_AT_ONCE, "past") as pool:
            return tuple(
                prefix
                for prefix, alive in zip(prefixes, pool.map(self._is_alive, prefixes), strict=True)
                if alive
            )

    def _is_alive(self, prefix: str) -> bool:
        with self._lock:
            known: bool | None = self._was_there.get(prefix)
        if known is None:
            page = self._page(HistoryQuery(prefix, max_entries=_SMALL_PAGE, sample=True))
            known = bool(self._as_of(page, "")[0])
            if not known and page.following is not None:
                known = bool(self.list_page(ListQuery(prefix, delimiter="", max_keys=1)).objects)
            with self._lock:
                self._was_there[prefix] = known
        return known


def _place(query: ListQuery) -> tuple[HistoryMark | None, str]:
    """The place at which a listing continues, and the key that is decided there."""
    if query.token is None:
        return HistoryMark(query.start_after) if query.start_after is not None else None, ""
    decided, version_id, key = query.token.split("\0")
    return HistoryMark(key, version_id or None), decided


def _token(mark: HistoryMark | None, decided: str) -> str | None:
    return None if mark is None else "\0".join((decided, mark.version_id or "", mark.key))


def check_history(store: ObjectStore, prefix: str, at_ns: int) -> str | None:
    """Whether a bucket can be mounted as it was; a warning where it may have forgotten some of it.

    Stores do not tell since when they keep versions, so a version that is as old as the moment
    has to prove it: below the prefix, or else in the bucket.

    Raises:
        EnvironmentProblemError: it cannot, in one sentence.
        StoreError
    """
    try:
        versioning = store.versioning()
    except AccessDeniedError:
        versioning = "on"  # not ours to ask; the versions tell
    except UnsupportedByStoreError:
        versioning = "off"
    if versioning == "off":
        raise EnvironmentProblemError(
            "the bucket keeps no versions (versioning is off), so it cannot be mounted with --at"
        )
    _require_proof(store, prefix, at_ns)
    if versioning == "suspended":
        return (
            "versioning of the bucket is suspended: what was overwritten or deleted since then is"
            " not in the mount"
        )
    return None


def _require_proof(store: ObjectStore, prefix: str, at_ns: int) -> None:
    """Raises EnvironmentProblemError unless something with a version's id happened by then."""
    for place in dict.fromkeys((prefix, "")):
        seen_all = False
        try:
            for page, is_end in _looked_through(store, place):
                if any(e.version_id != "null" and e.mtime_ns <= at_ns for e in page.entries):
                    return
                seen_all = is_end
        except StoreError:
            if place == prefix:
                raise
    if seen_all:
        raise EnvironmentProblemError(
            "the bucket has no version that is as old as --at says: its versioning was switched on"
            " later, or older versions were removed"
        )
    raise EnvironmentProblemError(
        "none of the bucket's versions that were looked at is as old as --at says, so nobody can"
        " tell whether it kept versions then: mount a prefix in which something was stored earlier"
    )


def _looked_through(store: ObjectStore, prefix: str) -> Iterator[tuple[HistoryPage, bool]]:
    """Pages of what happened below a prefix, and whether all of it has been seen with that.

    Of more than the first pages hold, a page of each directory is looked at, first of those at the
    top, then of those a level below, and so on: what is old lies together.
    """
    for level in (None, 1, 2, 3, 4):
        mark: HistoryMark | None = None
        for _ in range(_PROOF_PAGES):
            page = store.list_versions(HistoryQuery(prefix, after=mark, sample=True))
            mark = page.following
            yield page, mark is None and level is None
            if mark is None:
                break
            if level is not None:
                mark = _behind_directory(mark, prefix, level)
        if mark is None and level is None:
            return


def _behind_directory(mark: HistoryMark, prefix: str, level: int) -> HistoryMark:
    """The place behind the directory, ``level`` levels below a prefix, that a listing is in."""
    names = mark.key[len(prefix) :].split("/")
    directory = names[:-1][:level]
    if not directory:
        return mark
    # "0" is what follows the slash that all keys of the directory have after its name.
    return HistoryMark(prefix + "/".join(directory) + "0")

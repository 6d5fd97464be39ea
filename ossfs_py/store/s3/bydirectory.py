"""Listings of versions on servers that keep keys in directories, as SeaweedFS does.

Such a server walks a directory by the names in it, ``dir`` before ``dir-x``. After a mark, it
continues by comparing keys, of which ``dir-x`` is before ``dir/``. Keys between the two are on no
page (seen with SeaweedFS 4.48). So a flat listing of more than a page is combined here from those
of its directories. Where the listing of a directory continues, the skipped subdirectories are
requested: those whose name is a prefix of the mark, followed there by a character that sorts before
the slash.

A page is put in the order of keys only after it was collected in that of names. So where a page
ends with ``dir/``, ``dir-x`` may be on no page either: names that begin with ``dir`` are requested.

It costs one request for each directory, one for each such character in the last name of a page, and
one for each page that ends with a directory.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

from ossfs_py.errors import StoreUnavailableError
from ossfs_py.model import HistoryEntry, HistoryMark, HistoryPage, HistoryQuery

_SLASH = "/"


class ByDirectory:
    """Complete pages. Blocking; has no state, so safe for concurrent use.

    ``ask`` sends one request to the server. Its exceptions pass through.
    """

    def __init__(self, ask: Callable[[HistoryQuery], HistoryPage]) -> None:
        self._ask = ask

    def page(self, query: HistoryQuery) -> HistoryPage:
        """See :meth:`ObjectStore.list_versions`."""
        if query.delimiter:
            return self._of_directory(query)
        if query.after is None:
            page = self._ask(query)
            if page.following is None:
                return page
        found = list(islice(self._below(query.prefix, query.after), query.max_entries + 1))
        entries = found[: query.max_entries]
        is_last = len(entries) == len(found)
        following = None if is_last else HistoryMark(entries[-1].key, entries[-1].version_id)
        return HistoryPage(tuple(entries), (), following)

    def _of_directory(self, query: HistoryQuery) -> HistoryPage:
        return self._with_names_beside(query, self._with_passed(query, self._ask(query)))

    def _with_passed(self, query: HistoryQuery, page: HistoryPage) -> HistoryPage:
        """A page and the directories that the server skipped behind the mark."""
        after = query.after
        if after is None or not after.key.startswith(query.prefix):
            return page
        above = query.prefix[: query.prefix.rfind(_SLASH) + 1]
        name = after.key[len(above) :].partition(_SLASH)[0]
        passed = {
            f"{above}{name[:place]}{_SLASH}"
            for place, character in enumerate(name)
            if character < _SLASH and 0 < place >= len(query.prefix) - len(above)
        }
        lost = [
            directory
            for directory in passed.difference(page.prefixes)
            if (page.following is None or directory <= page.following.key)
            and self._ask(HistoryQuery(directory, max_entries=1)).entries
        ]
        return replace(page, prefixes=tuple(sorted((*page.prefixes, *lost)))) if lost else page

    def _with_names_beside(self, query: HistoryQuery, page: HistoryPage) -> HistoryPage:
        """A page and the names before the directory that ends it that the server tells later."""
        last = page.following
        if last is None or last.key not in page.prefixes:
            return page
        directory = last.key
        name = directory.removesuffix(_SLASH)
        first = query.after.key if query.after is not None else ""
        told = list(_told(page))
        known = {one[:2] for one in told}
        lost = [
            one
            for one in self._beside(name)
            if name < one[0] < directory and one[0] > first and one[:2] not in known
        ]
        if not lost:
            return page
        every = sorted((*told, *lost), key=lambda one: one[0])
        kept = every[: query.max_entries]
        entries = tuple(entry for _, _, entry in kept if entry is not None)
        prefixes = tuple(key for key, _, entry in kept if entry is None)
        key, version_id, _ = kept[-1]
        return HistoryPage(entries, prefixes, HistoryMark(key, version_id or None))

    def _beside(self, name: str) -> Iterator[tuple[str, str, HistoryEntry | None]]:
        """What is in one directory and begins with a name and a character before the slash."""
        whole = self._ask(HistoryQuery(name, _SLASH))
        if whole.following is None:
            yield from _told(whole)
            return
        for character in map(chr, range(ord(" "), ord(_SLASH))):
            mark: HistoryMark | None = None
            while True:
                page = self._of_directory(HistoryQuery(name + character, _SLASH, mark))
                yield from _told(page)
                if page.following is None:
                    break
                mark = page.following

    def _below(self, prefix: str, after: HistoryMark | None) -> Iterator[HistoryEntry]:
        """Everything below a prefix, or the part after a mark, in the order of keys."""
        mark = after if after is not None and after.key.startswith(prefix) else None
        if mark is not None:
            name, slash, _ = mark.key[len(prefix) :].partition(_SLASH)
            if slash:
                inside = f"{prefix}{name}{_SLASH}"
                yield from self._below(inside, mark)
                mark = HistoryMark(inside)
        while True:
            page = self._of_directory(HistoryQuery(prefix, _SLASH, mark))
            told: list[tuple[str, HistoryEntry | None]] = [(e.key, e) for e in page.entries]
            told += [(directory, None) for directory in page.prefixes]
            for key, entry in sorted(told, key=lambda one: one[0]):
                if mark is not None and mark.version_id is None and key <= mark.key:
                    continue
                if entry is None:
                    yield from self._below(key, None)
                else:
                    yield entry
            if page.following is None:
                return
            if page.following == mark:
                raise StoreUnavailableError(
                    "the listing goes in circles", operation="ListObjectVersions", key=prefix
                )
            mark = page.following


def _told(page: HistoryPage) -> Iterator[tuple[str, str, HistoryEntry | None]]:
    yield from ((entry.key, entry.version_id, entry) for entry in page.entries)
    yield from ((prefix, "", None) for prefix in page.prefixes)

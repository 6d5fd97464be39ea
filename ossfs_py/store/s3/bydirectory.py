"""Listings of versions on servers that keep keys in directories, as SeaweedFS does.

Such a server walks a directory by the names in it, ``dir`` before ``dir-x``. After a mark, it
continues by comparing keys, of which ``dir-x`` is before ``dir/``. Keys between the two are on no
page (seen with SeaweedFS 4.48). So a flat listing of more than a page is combined here from those
of its directories. Where the listing of a directory continues, the skipped subdirectories are
requested: those whose name is a prefix of the mark, followed there by a character that sorts before
the slash.

It costs one request for each directory, and one for each such character in the last name of a page.
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
        page = self._ask(query)
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

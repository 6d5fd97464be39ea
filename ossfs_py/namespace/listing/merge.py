"""From LIST pages to directory entries: names, order, hidden and conflicting keys. Pure."""

import enum
from collections.abc import Callable
from operator import attrgetter, itemgetter
from typing import Final, Literal, TypeAlias

from ossfs_py.errors import StoreUnavailableError
from ossfs_py.model import ListPage, ObjectInfo
from ossfs_py.namespace.names import all_plain, is_nameable


class Mark(enum.Enum):
    """An entry that is no object of the store."""

    DIRECTORY = "directory"
    LOCAL = "local"
    REMOVED = "removed"


DIRECTORY: Final = Mark.DIRECTORY
LOCAL: Final = Mark.LOCAL
REMOVED: Final = Mark.REMOVED

Entry: TypeAlias = ObjectInfo | Literal[Mark.DIRECTORY, Mark.LOCAL]
State: TypeAlias = Entry | Literal[Mark.REMOVED]


class PageMerger:
    """Turns the pages of one directory's LIST, in order, into entries.

    ``hidden`` is told every key that no path can name, ``conflict`` every name that is both an
    object and a directory; the directory is shown. ``reserved`` says which names are nobody's
    business.
    """

    def __init__(
        self,
        prefix: str,
        *,
        hidden: Callable[[str], None],
        conflict: Callable[[str], None],
        reserved: Callable[[str], bool],
        held: dict[str, Entry] | None = None,
    ) -> None:
        self._prefix = prefix
        self._hidden = hidden
        self._conflict = conflict
        self._reserved = reserved
        self.held: dict[str, Entry] = dict(held or {})
        """Objects of the last page whose directory of the same name may still come."""
        self.marker: ObjectInfo | None = None
        """The directory's own marker object, once a page brought it."""
        self.shows_all = True
        """Whether nothing was in the directory that the listing does not show."""
        self._before: ListPage | None = None

    def page(self, page: ListPage) -> dict[str, Entry]:
        """The entries that this page makes certain, in key order.

        Raises:
            StoreUnavailableError: the page before came again under another token, as from a store
                or proxy that does not go by tokens; there would be no end of it.
        """
        before, self._before = self._before, page
        if before is not None and page.next_token is not None and _says_the_same(page, before):
            raise StoreUnavailableError(
                "the listing goes in circles", operation="ListObjectsV2", key=self._prefix
            )
        start = len(self._prefix)
        if not page.objects and not page.prefixes and page.next_token is not None:
            return {}  # what is held is as open as before
        entries, self.held = dict(self.held), {}
        if (files := self._only_files(page)) is not None and entries.keys().isdisjoint(files):
            entries |= files
            if page.next_token is not None:
                self._hold_back(entries, page.objects[-1].key[start:])
            return entries
        merged: list[tuple[str, Entry]] = [(info.key, info) for info in page.objects]
        if page.prefixes:
            merged += [(prefix, DIRECTORY) for prefix in page.prefixes]
            merged.sort(key=itemgetter(0))
        self._sort_in(entries, merged)
        if page.next_token is not None and merged:
            self._hold_back(entries, merged[-1][0][start:])
        return entries

    def _sort_in(self, entries: dict[str, Entry], merged: list[tuple[str, Entry]]) -> None:
        start = len(self._prefix)
        for key, found in merged:
            if not key.startswith(self._prefix):
                continue  # a store that answers what it was not asked
            name, slash, _rest = key[start:].partition("/")
            if not name and not slash:
                if found is not DIRECTORY and found is not LOCAL:
                    self.marker = found
                    self.shows_all = self.shows_all and not found.size
                continue
            if not is_nameable(name):
                self.shows_all = False
                self._hidden(key)
            elif self._reserved(name):
                self.shows_all = False
            else:
                self._add(entries, name, DIRECTORY if slash else found)

    def _only_files(self, page: ListPage) -> dict[str, Entry] | None:
        """The entries of a page of nothing but files with names that need no second look, as most
        of a large directory's are; None for any other page.
        """
        if page.prefixes or not page.objects:
            return None
        prefix, start = self._prefix, len(self._prefix)
        keys = list(map(attrgetter("key"), page.objects))
        # What lies between two keys with the prefix has it as well.
        if not (min(keys).startswith(prefix) and max(keys).startswith(prefix)):
            return None
        entries: dict[str, Entry] = dict(
            zip([key[start:] for key in keys], page.objects, strict=True)
        )
        if (
            len(entries) != len(page.objects)
            or not all_plain(entries)
            or any(map(self._reserved, entries))
        ):
            return None
        return entries

    def _add(self, entries: dict[str, Entry], name: str, entry: Entry) -> None:
        before = entries.get(name)
        if before is None:
            entries[name] = entry
        elif (before is DIRECTORY) is not (entry is DIRECTORY):
            self._conflict(self._prefix + name)
            entries[name] = DIRECTORY

    def _hold_back(self, entries: dict[str, Entry], last: str) -> None:
        """Keep objects whose directory of the same name may still come.

        ``a/`` sorts after ``a``, but also after ``a-b``: between the two are the names that go
        on with a character below the slash. So only the beginnings of the page's last name are
        still open.
        """
        for end in range(1, len(last) + 1):
            if end < len(last) and last[end] >= "/":
                continue
            entry = entries.get(last[:end])
            if entry is not None and entry is not DIRECTORY:
                self.held[last[:end]] = entries.pop(last[:end])


def _says_the_same(page: ListPage, before: ListPage) -> bool:
    told = bool(page.objects or page.prefixes)
    return told and page.objects == before.objects and page.prefixes == before.prefixes

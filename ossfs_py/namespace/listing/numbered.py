"""Guessing where the next pages of a listing begin, in directories of numbered files.

A page can be asked for only when the page before has told where it ends, so a hundred pages cost
a hundred round trips. But most big directories hold names such as ``img-000123.jpg``: where every
name of a page is one more than the one before, the last name of the pages to come is known, and
they can be asked for at the same time. A guess that turns out wrong costs its request and nothing
else: a page is used only if it begins exactly where the one before has ended.
"""

import re
from collections.abc import Callable

from ossfs_py.model import ListPage
from ossfs_py.namespace.pending import Pending

_MAX_AHEAD = 6
"""Pages on their way at once: as many as one processor of a store makes in a round trip or two."""

_MIN_ENTRIES = 500
"""Shorter pages are no sign of a big directory."""

_NUMBER = re.compile(r"(.*?)(\d+)(\D*)", re.DOTALL | re.ASCII)


class NumberedPages:
    """The pages of one listing that were requested by guess."""

    def __init__(self, fetch_after: Callable[[str], Pending[ListPage]]) -> None:
        self._fetch_after = fetch_after
        self._asked: dict[str, Pending[ListPage]] = {}
        self._pages = 0
        self._usable = True

    def next_page(self, page: ListPage) -> Pending[ListPage] | None:
        """The page after ``page`` if it was requested; requests those that will follow it."""
        self._pages += 1
        last = page.objects[-1].key if page.objects else ""
        # The longer the listing has been, the longer it will go on.
        count = min(1 + self._pages // 4, _MAX_AHEAD) if self._usable else 0
        expected = _boundaries(page, count)
        if not expected:
            self._asked.clear()
            return None
        for key in expected:
            if key not in self._asked:
                self._asked[key] = self._fetch_after(key)
        found = self._asked.pop(last, None)
        for key in [key for key in self._asked if key not in expected]:
            del self._asked[key]
        return found

    def give_up(self) -> None:
        """The store does not begin where it was asked to begin: use no page that was requested by
        guess."""
        self._asked.clear()
        self._usable = False


def _boundaries(page: ListPage, count: int) -> list[str]:
    """The last keys of this page and of those expected after it; none if names are no numbers."""
    if count < 1 or page.prefixes or len(page.objects) < _MIN_ENTRIES:
        return []
    first, last = _NUMBER.fullmatch(page.objects[0].key), None
    if first is not None:
        last = _NUMBER.fullmatch(page.objects[-1].key)
    if first is None or last is None:
        return []
    stem, number, tail = last.groups()
    width, size = len(number), len(page.objects)
    if (first[1], len(first[2]), first[3]) != (stem, width, tail):
        return []
    if int(number) - int(first[2]) != size - 1:
        return []
    numbers = range(int(number), int(number) + count * size, size)
    return [f"{stem}{n:0{width}}{tail}" for n in numbers if n < 10**width]

"""Guessing where the next pages of a directory will end, from the names seen so far. Pure.

Most large directories hold names that somebody counted or drew: ``img-000123.jpg``, a hash, a time.
Each column of characters is taken as a digit of a number, with as much room for a character as it
has of the names. As far as the names of a page went, those of the next page will go.
"""

from collections import Counter, deque
from collections.abc import Sequence
from itertools import zip_longest
from statistics import fmean, median, pstdev
from typing import NamedTuple

_STRIDE = 17
"""One name in so many is looked at: a prime, so that a counter shows all of its digits."""
_FEW = 200
"""Names of which all are looked at."""
_COLUMNS_BELOW = 10
"""Columns behind the first one that differs within a page: as fine as any page needs."""
_PAGES_KEPT = 8
"""Pages whose breadth is averaged: drawn names vary by 3 % from one page of 1,000 to the next."""
_STRANGERS = 50
"""Share of a page's names, at either end, that may be others: ``.DS_Store``, ``_SUCCESS``."""
_OTHER = 2.0
"""Pages that are so many times as broad as the middle one, or as narrow, are others as well."""
_DEVIATIONS = 2.5
"""A page too long for its guess costs a request, one that is shorter only its share of one: less
than 2 % of pages are longer than was counted on.
"""
_FILLED = 0.8, 0.985
_FACTOR, _ENOUGH = 3, 8
"""Characters have equal room, but for those that are seen a third or three times as often as others
are, once these are seen so often: drawn characters vary as well.
"""


class _Column(NamedTuple):
    """The characters of a column, in order, and where the room of each begins."""

    characters: tuple[str, ...]
    begins: tuple[int, ...]
    room: int
    """Of all characters together."""


class Names:
    """The names of a listing so far, as numbers in their order."""

    def __init__(self) -> None:
        self._seen: list[Counter[str]] = []
        self._columns: list[_Column] = []
        self._room = 0
        """Of all names."""
        self._tail = ""
        self._kept: deque[tuple[str, str, int]] = deque(maxlen=_PAGES_KEPT)
        """Of pages, two names and how far the second is behind the first."""
        self.breadth = 0.0
        """How far a name is from the next one, on average; 0: nothing can be guessed."""
        self.are_counted = False
        """Whether the last page was without a gap: the distance is exact."""
        self.filled = 1.0
        """Part of a page that a guess may count on, as far as pages differ."""

    def note(self, names: Sequence[str]) -> None:
        """The names of the page that comes next, in order."""
        if len(names) < 2:
            return
        strangers = len(names) // _STRANGERS
        between = len(names) - 1 - 2 * strangers
        self._kept.append((names[strangers], names[strangers + between], between))
        lead = _common(self._kept[0][0], self._kept[-1][1])
        end = lead + _COLUMNS_BELOW
        looked_at = [name[:end] for name in names[:: 1 if len(names) < _FEW else _STRIDE]]
        for place, column in enumerate(zip_longest(*looked_at, fillvalue="")):
            if place == len(self._seen):
                self._seen.append(Counter())
            self._seen[place].update(column)
        self._measure(lead)

    def place(self, name: str) -> int:
        """The number of a name."""
        number, room = 0, self._room
        for place, (characters, begins, whole) in enumerate(self._columns):
            unit = room // whole
            character = name[place : place + 1]
            rank = 0
            for one in characters:
                if one >= character:
                    break
                rank += 1
            begin = begins[rank] if rank < len(begins) else whole
            number += begin * unit
            if rank == len(begins) or characters[rank] != character:
                break
            room = unit * ((begins[rank + 1] if rank + 1 < len(begins) else whole) - begin)
        return number

    def name_at(self, number: int) -> str | None:
        """A name with that number; None if there is none."""
        if not 0 <= number < self._room:
            return None
        found, room = "", self._room
        for characters, begins, whole in self._columns:
            unit = room // whole
            rank = len(begins) - 1
            while begins[rank] * unit > number:
                rank -= 1
            if not characters[rank]:
                return found
            found += characters[rank]
            number -= begins[rank] * unit
            room = unit * ((begins[rank + 1] if rank + 1 < len(begins) else whole) - begins[rank])
        return found + self._tail

    def _measure(self, lead: int) -> None:
        used = self._seen[: lead + _COLUMNS_BELOW]
        columns = [_column(seen, lead >= place) for place, seen in enumerate(used)]
        # Columns that a page goes through have shown all they have. Those before go on as the
        # column behind does: where a hash has shown 0 and 1, it will come to f.
        for place in range(min(lead, len(used) - 2), -1, -1):
            if set(columns[place].characters) <= set(columns[place + 1].characters):
                columns[place] = columns[place + 1]
        self._columns, self._room = columns, 1
        for column in columns:
            self._room *= column.room
        first, last = self._kept[0][0], self._kept[-1][1]
        self._tail = last[len(used) :] if last[len(used) :] == first[len(used) :] else ""
        spans = [(self.place(end) - self.place(begin), count) for begin, end, count in self._kept]
        self.are_counted = spans[-1][0] == spans[-1][1]
        each = [span / count for span, count in spans]
        middle = median(each)
        # There may be none: names that are out of order go backwards.
        usual = [one for one in each if middle / _OTHER <= one <= middle * _OTHER]
        if not usual or middle <= 0 or not all("".join(seen).isprintable() for seen in self._seen):
            self.breadth = 0.0
        elif self.are_counted:
            self.breadth = self.filled = 1.0
        else:
            self.breadth = fmean(usual)
            filled = 1 - _DEVIATIONS * pstdev(usual) / self.breadth
            self.filled = min(max(filled, _FILLED[0]), _FILLED[1])


def _column(seen: Counter[str], is_partial: bool) -> _Column:
    characters = tuple(sorted(seen))
    counts = [seen[one] for one in characters]
    mean = sum(counts) // len(counts)
    usual = mean // _FACTOR, mean * _FACTOR
    if is_partial or mean < _ENOUGH or (min(counts) >= usual[0] and max(counts) <= usual[1]):
        return _Column(characters, tuple(range(len(characters))), len(characters))
    begins, room = [], 0
    for count in counts:
        begins.append(room)
        room += mean if usual[0] <= count <= usual[1] else count
    return _Column(characters, tuple(begins), room)


def _common(first: str, last: str) -> int:
    for place, (one, other) in enumerate(zip(first, last, strict=False)):
        if one != other:
            return place
    return min(len(first), len(last))

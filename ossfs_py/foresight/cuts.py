"""The bounds of requests for a file, so that the starts of its parts can come first."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from ossfs_py.foresight.layout import Layout

_MIB = 1024**2
_AROUND_BYTES = _MIB
"""The kernel asks for this much before and after the touched start of a part."""
_LEAST_HEAD_BYTES = 3 * _MIB
"""Both of them, rounded out to multiples of 1 MiB."""


class Cuts:
    """Requests cross no cut. Without a layout, the cuts are the multiples of a block.

    With a layout, parts begin in short pieces, and small parts share one with what begins behind
    them. A program that first looks at the start of each part waits for the first bytes of such a
    piece, and for no blocks that it reads later.
    """

    def __init__(self, block_bytes: int, file_size: int, layout: Layout | None = None) -> None:
        """``block_bytes`` is the most that one request brings."""
        self._block_bytes = block_bytes
        self.follow_parts = layout is not None
        """Whether the bytes after a cut usually come with the start of a part."""
        self._places = [0]
        self.head_bytes = 0
        """Size of all pieces in which parts begin."""
        if layout is not None:
            self._cut([*_around(layout.starts), file_size])

    def _cut(self, bounds: list[int]) -> None:
        """``bounds`` are the offsets at which the kernel begins to read when a part is touched, in
        order, and the end of the file.
        """
        most = self._block_bytes
        opened = start = 0
        for end in bounds:
            if end - opened > most:
                first = self._first_cut(start, end)
                if start > opened and first - opened > most:
                    self._close(start, opened)
                    opened = start
                if end - start > most:
                    self._close(first, opened)
                    self._places.extend((*range(first + most, end, most), end))
                    opened = end
            start = end
        if bounds[-1] > opened:
            self._close(bounds[-1], opened)

    def _first_cut(self, start: int, end: int) -> int:
        """The end of the piece that a part begins in: the shorter, the sooner it is there, as long
        as the others are whole blocks.
        """
        most = self._block_bytes
        if end - start <= most:
            return end
        rest_bytes = (end - start - 1) % most + 1
        return start + max(rest_bytes, min(_LEAST_HEAD_BYTES, most))

    def _close(self, place: int, opened: int) -> None:
        self._places.append(place)
        self.head_bytes += place - opened

    def behind(self, position: int) -> int:
        """The first cut after ``position``."""
        number = bisect_right(self._places, position)
        if number < len(self._places):
            return self._places[number]
        return (position // self._block_bytes + 1) * self._block_bytes

    def of_parts_behind(self, position: int) -> int | None:
        """The first cut after ``position`` that comes from parts."""
        return self.behind(position) if self.follow_parts else None

    def around(self, start: int, end: int) -> tuple[int, int]:
        """The whole pieces that hold ``[start, end)``."""
        places = self._places
        if end > places[-1]:
            size = self._block_bytes
            return start // size * size, -(-end // size) * size
        return places[bisect_right(places, start) - 1], places[bisect_left(places, end)]


def _around(starts: Iterable[int]) -> Iterator[int]:
    for start in starts:
        place = (start - _AROUND_BYTES) // _MIB * _MIB
        if place > 0:
            yield place

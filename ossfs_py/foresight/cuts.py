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

    With a layout, a part of many blocks begins with a piece shorter than a block, and small parts
    share a piece. The number of requests for the file stays the same, and a program that first
    looks at the start of each part does not wait for whole blocks that it reads later.
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
        opened = start = 0
        for end, following in zip(bounds, [*bounds[1:], bounds[-1]], strict=True):
            if end - opened > self._block_bytes:
                if start > opened:
                    self._close(start, opened)
                opened = start
                if end - start > self._block_bytes:
                    opened = self._cut_long(start, end, following)
            start = end
        if bounds[-1] > opened:
            self._close(bounds[-1], opened)

    def _cut_long(self, start: int, end: int, following: int) -> int:
        """Cut a part of several blocks; returns the start of the piece that is still open then."""
        most = self._block_bytes
        last = start + (end - start - 1) // most * most
        if end < following <= last + most:
            # The rest of this part comes with the next one, which is small.
            self._places.extend(range(start + most, last + 1, most))
            self.head_bytes += most
            return last
        first = max(start + end - last, start + min(_LEAST_HEAD_BYTES, most))
        self._places.extend((*range(first, end, most), end))
        self.head_bytes += first - start
        return end

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

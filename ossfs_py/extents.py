"""A sorted set of byte spans: which bytes of a file are dirty, staged or missing."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from ossfs_py.model import ByteRange


class ExtentSet:
    """Half-open spans ``[start, end)`` in bytes, kept sorted, disjoint and never touching.

    Finding a byte is a bisection; a change costs that plus moving the spans behind it, and
    appending at the end (sequential writing) is constant. Empty spans are accepted and ignored.
    """

    __slots__ = ("_ends", "_starts")

    def __init__(self, spans: Iterable[ByteRange] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for span in spans:
            self.add(span.start, span.end)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __len__(self) -> int:
        """Number of separate spans."""
        return len(self._starts)

    def __iter__(self) -> Iterator[ByteRange]:
        return (ByteRange(s, e) for s, e in zip(self._starts, self._ends, strict=True))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ExtentSet):
            return NotImplemented
        return self._starts == other._starts and self._ends == other._ends

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        spans = ", ".join(f"{s}-{e}" for s, e in zip(self._starts, self._ends, strict=True))
        return f"ExtentSet({spans})"

    def copy(self) -> "ExtentSet":
        """An independent set with the same bytes."""
        twin = ExtentSet()
        twin._starts = self._starts.copy()
        twin._ends = self._ends.copy()
        return twin

    def clear(self) -> None:
        """Remove every byte."""
        self._starts.clear()
        self._ends.clear()

    def add(self, start: int, end: int) -> None:
        """Put ``[start, end)`` in, joining what it overlaps or touches."""
        if start >= end:
            return
        if self._ends and self._starts[-1] <= start <= self._ends[-1]:
            self._ends[-1] = max(end, self._ends[-1])
            return
        low = bisect_left(self._ends, start)
        high = bisect_right(self._starts, end)
        if low < high:
            start = min(start, self._starts[low])
            end = max(end, self._ends[high - 1])
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]

    def remove(self, start: int, end: int) -> None:
        """Take ``[start, end)`` out, splitting spans where needed."""
        if start >= end:
            return
        low = bisect_right(self._ends, start)
        high = bisect_left(self._starts, end)
        if low >= high:
            return
        starts: list[int] = []
        ends: list[int] = []
        if self._starts[low] < start:
            starts.append(self._starts[low])
            ends.append(start)
        if self._ends[high - 1] > end:
            starts.append(end)
            ends.append(self._ends[high - 1])
        self._starts[low:high] = starts
        self._ends[low:high] = ends

    def truncate(self, size: int) -> None:
        """Take out everything from byte ``size`` on."""
        if self._ends:
            self.remove(size, max(size, self._ends[-1]))

    def covers(self, start: int, end: int) -> bool:
        """Whether every byte of ``[start, end)`` is in; true for an empty span."""
        if start >= end:
            return True
        index = bisect_right(self._starts, start) - 1
        return index >= 0 and self._ends[index] >= end

    def run_at(self, position: int, end: int) -> tuple[bool, int]:
        """Whether byte ``position`` is in, and how far (at most ``end``) that stays so."""
        index = bisect_right(self._ends, position)
        if index == len(self._starts) or self._starts[index] >= end:
            return False, end
        if self._starts[index] <= position:
            return True, min(self._ends[index], end)
        return False, self._starts[index]

    def within(self, start: int, end: int) -> Iterator[ByteRange]:
        """The parts of ``[start, end)`` that are in, in order."""
        for index in range(bisect_right(self._ends, start), len(self._starts)):
            if self._starts[index] >= end:
                return
            yield ByteRange(max(start, self._starts[index]), min(end, self._ends[index]))

    def gaps(self, start: int, end: int) -> Iterator[ByteRange]:
        """The parts of ``[start, end)`` that are not in, in order."""
        position = start
        for span in self.within(start, end):
            if position < span.start:
                yield ByteRange(position, span.start)
            position = span.end
        if position < end:
            yield ByteRange(position, end)

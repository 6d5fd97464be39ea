"""Programs that read whole parts: in an order of their own, or from the last one to the first."""

from ossfs_py.extents import ExtentSet
from ossfs_py.foresight.accesses import PAGE_BYTES
from ossfs_py.foresight.course import Course
from ossfs_py.foresight.layout import Layout
from ossfs_py.model import ByteRange

MIB = 1024**2

LARGE_PART_BYTES = 8 * MIB
"""Of a smaller part, what the kernel reads around its middle is nearly all: it says nothing of what
the program reads."""

AHEAD_BYTES = 96 * MIB
"""How far following parts, or slices of them, are fetched ahead at first."""

MOST_AHEAD_BYTES = 256 * MIB
"""The same for who has read as much, maybe as fast as a link of 1.7 GB/s: as a stream's window."""

_STEPS = 2
"""Parts in a row, each the one before the last: those before them are believed to follow."""

_TAIL_BYTES = MIB
"""What comes with a read of the end of a file."""

_LEAST_BYTES = 16 * MIB
_LEAST_SHARE = 25
"""So many bytes in whole parts, and one byte in this many of the file, once against its order, show
a program that reads all parts in an order of its own. One that wants a hundred tensors of ten
thousand does not get there."""

_FEW_PARTS = 320
_FEW_SHARE = 80
_FIRST_GRANTS = (0, 64 * MIB, 128 * MIB, 256 * MIB, 512 * MIB)
"""Of so few parts, one in so many is enough, whatever its size: norms are tiny, and a program waits
as long for each of them as for a large part. After so many whole parts, so much is granted at
least."""

_MOST_ROOMS = 4
"""Nor is it believed of a file so many times as large as what can be kept."""

_MOST_GRANT = 8
"""So much at most for each byte that such a program has read, and no more times than it has read
parts; all of it between the first and the last of them: one that wants only some layers of a model
reads nothing else."""

_WIDE_SHARE = 2
_WIDE_GRANT = 3
"""If that is more than one part in two of the file, the whole file is believed in, and so many
times as much is granted."""

_WHOLE_SHARE = 0.9
"""A part of which that much was read was read whole: the kernel may still hold some of it."""

_AROUND_BYTES = MIB
"""The kernel reads so much before a part that is begun, and behind its end."""

_MOST_SORTED = 4096
"""Parts of a file of more are small, and come in the order of the file."""


class Wholes:
    """What whole parts of one version say of those that follow; puts it on its ``course``.

    ``room_bytes``: how much may be kept until it is read. ``read``: what was read so far; others
    keep it.
    """

    def __init__(
        self, file_size: int, block_bytes: int, room_bytes: int, read: ExtentSet, course: Course
    ) -> None:
        self._file_size = file_size
        self._block_bytes = block_bytes
        self._read = read
        self._course = course
        self._latest: int | None = None
        """The part that was entered last."""
        self._bytes = self._count = 0
        """Of parts that were read whole; how many there were."""
        self._fits = file_size <= _MOST_ROOMS * room_bytes
        """Or what is fetched would be in the way for too long."""
        self._least_bytes = max(_LEAST_BYTES, file_size // _LEAST_SHARE)
        if not self._fits:
            self._least_bytes = file_size
        self._span = ByteRange(file_size, 0)
        """From the first of them to the last."""
        self._last: int | None = None
        self._began_at_end = False
        self._ups = 0
        """Whole parts one behind the other, nothing left out."""
        self._downs = 0
        """Whole parts in a row, each the one before the last."""
        self._down_to = 0
        """The lowest part that is on the course because of that."""
        self._order: tuple[Layout, list[ByteRange]] | None = None
        self.descend = False
        """Whether they are read against the order of the file."""

    def entered(self, number: int, layout: Layout, soon_bytes: int, *, looked: bool) -> None:
        """A program reads in part ``number`` now. ``soon_bytes``: how much may be fetched ahead of
        it; ``looked``: whether beginnings of parts were touched, one after the other.
        """
        latest, self._latest = self._latest, number
        if latest is None or latest == number:
            return
        part = layout.part(latest)
        if part.start >= self._file_size - _TAIL_BYTES:
            # The table of a zip archive is read first, and brings the last parts.
            self._began_at_end = self._count == 0
        elif self._was_whole(part):
            self._left(latest, part, layout)
            if self._downs < _STEPS and not looked:
                self.descend = self.descend or number < latest - 1
                self._foresee_all(layout.part(number), layout)
        self._goes_down(latest, number, layout, soon_bytes)

    def _was_whole(self, part: ByteRange) -> bool:
        read = sum(span.size for span in self._read.within(part.start, part.end))
        return read >= part.size * _WHOLE_SHARE

    def _left(self, number: int, part: ByteRange, layout: Layout) -> None:
        """A program has read all of ``part``, and gone on to another one."""
        self._bytes += part.size
        self._count += 1
        span = self._span
        self._span = ByteRange(min(span.start, part.start), max(span.end, part.end))
        if self._last is not None and number < self._last:
            self.descend = True
        self._goes_up(part, layout)
        self._last = number

    def _foresee_all(self, entered: ByteRange, layout: Layout) -> None:
        """Parts in an order of the program's own: what lies between them and the one that is
        ``entered``, or all.
        """
        parts = len(layout)
        are_many = parts <= _FEW_PARTS and self._count * _FEW_SHARE >= parts and self._fits
        if not self.descend or (self._bytes < self._least_bytes and not are_many):
            return
        least_bytes = _FIRST_GRANTS[min(self._count, len(_FIRST_GRANTS) - 1)] if are_many else 0
        times = self._count
        span = self._span
        within = ByteRange(min(span.start, entered.start), max(span.end, entered.end))
        if within.size * _WIDE_SHARE > self._file_size:
            within = ByteRange(0, self._file_size)
            times *= _WIDE_GRANT
        granted_bytes = max(least_bytes, min(times, _MOST_GRANT) * self._bytes)
        if self._order is None or self._order[0] is not layout:
            self._order = layout, _by_size(layout, self._block_bytes, self._file_size)
        self._course.grant_within(within, self._order[1], granted_bytes)

    def _goes_up(self, part: ByteRange, layout: Layout) -> None:
        """``part`` was read whole, and maybe those before it. Who began with the table at the end
        is not known for a reader of the whole file from its beginning on.
        """
        last = None if self._last is None else layout.part(self._last).start
        follows = last is not None and last < part.start and self._read.covers(last, part.end)
        self._ups = self._ups + 1 if follows else 0
        if self._began_at_end and self._ups and not self.descend:
            ahead_bytes = min(max(AHEAD_BYTES, self._bytes), MOST_AHEAD_BYTES)
            self._course.grant_until(min(part.end + ahead_bytes, self._file_size))

    def _goes_down(self, latest: int, number: int, layout: Layout, most_bytes: int) -> None:
        """Whole parts that are read one before the other bring those before them."""
        if number != latest - 1 or self._last != latest:
            if self._downs >= _STEPS:
                self._course.forget_soon()
            self._downs = 0
            return
        self._downs += 1
        if self._downs < _STEPS or layout.is_walked:
            return
        lowest = number if self._downs == _STEPS else self._down_to
        while lowest > 0 and layout.starts[number] - layout.starts[lowest] < most_bytes:
            end = layout.ends[lowest - 1] // PAGE_BYTES * PAGE_BYTES
            lowest -= 1
            while lowest > 0 and end - layout.starts[lowest - 1] <= self._block_bytes:
                lowest -= 1  # small ones come together
            start = layout.starts[lowest] // PAGE_BYTES * PAGE_BYTES
            if start < end:
                self._course.add(ByteRange(start, end))
        self._down_to = lowest


def _by_size(layout: Layout, block_bytes: int, file_size: int) -> list[ByteRange]:
    """All of a file, the smallest parts first, with what the kernel reads around them.

    A program that comes to a part which is not there waits for the first byte, however large the
    part is: 64 MiB of small parts save more waits than two large parts. Parts of less than a block
    count as of equal size, so that those side by side come together.
    """
    if len(layout) > _MOST_SORTED:
        return [ByteRange(0, file_size)]
    sizes = sorted(
        (size if (size := end - start) > block_bytes else 0, start, end)
        for start, end in zip(layout.starts, layout.ends, strict=True)
    )
    spans: list[ByteRange] = []
    listed = ExtentSet()
    for _, start, end in (*sizes, (0, 0, file_size)):
        first = max(0, start - _AROUND_BYTES) // MIB * MIB
        upto = min(-(-(end + _AROUND_BYTES) // MIB) * MIB, file_size)
        for gap in list(listed.gaps(first, upto)):
            if spans and spans[-1].end == gap.start:
                gap = ByteRange(spans.pop().start, gap.end)  # noqa: PLW2901
            spans.append(gap)
        listed.add(first, upto)
    return spans

"""The spans to fetch beside the readers' own streams, in the order of need, within bounds."""

from collections import deque
from collections.abc import Iterable

from ossfs_py.extents import ExtentSet
from ossfs_py.foresight.cuts import Cuts
from ossfs_py.model import ByteRange

_LEAST_BYTES = 256 * 1024
"""A hole that small among bytes that were read is not worth a request: the kernel asks for it, if
ever, within a larger read."""

_CUT_BYTES = 1024**2
"""Requests end on multiples of it where they can: so do the kernel's, and one that spans two chunks
has to be joined."""

_ROOM_SHARE = 2
"""Of what can be kept, one part in this many is for the rest of the file; the other one is for what
is wanted soon and for the readers' streams."""

_REST_SHARE = 4
"""And one part in this many is for the rest in any case: beginnings of parts, taken soon and read
late, may fill the others, and the rest would come in one request after the other."""


_MOST_REST_BYTES = 164 * 1024**2
"""Of a rest that is read in order, no more: that fills a link of 1.7 GB/s. Memory that is touched
for the first time costs more than receiving into it, and what is fetched early takes the link from
what is needed first. Over a simulated link, with 224 MiB, ``load_file`` took as long and had 260
MiB in memory instead of 222, and two ranks at once took 4 % longer; with 128 MiB, programs that
read the ends of tensors first took 8 % longer."""

_NEAR_BYTES = 64 * 1024**2
"""Of the slices that one program reads, as much as this comes in requests of half a block: on a
connection of 90 MB/s the second half of a block is there 47 ms after the first. With more, more
requests come no sooner."""

_NEAR_SHARE = 2
"""What will be read first comes in small requests side by side, each one part in so many of the way
to it: a whole block takes 118 ms of a connection of 90 MB/s."""


class _Waiting:
    """Spans that were taken and not read yet."""

    __slots__ = ("_spans", "size")

    def __init__(self) -> None:
        self._spans = ExtentSet()
        self.size = 0

    def add(self, span: ByteRange) -> None:
        self._spans.add(span.start, span.end)
        self.size += span.size

    def was_read(self, start: int, end: int) -> None:
        if self.size and self._spans.run_at(start, end) != (False, end):
            self.size -= sum(span.size for span in self._spans.within(start, end))
            self._spans.remove(start, end)


class Course:
    """Spans that a program is believed to read soon, and maybe the whole rest of the file.

    What a program has read it is not believed to read again: the kernel has it. ``passed`` moves
    on; nothing is said twice.
    """

    def __init__(self, file_size: int, block_bytes: int, room_bytes: int, read: ExtentSet) -> None:
        """``room_bytes``: how much can be kept until it is read. ``read``: what was read so far;
        others keep it.
        """
        self._file_size = file_size
        self._block_bytes = block_bytes
        self.cuts = Cuts(block_bytes, file_size)
        """Requests cross none of them."""
        self._read = read
        self._soon: deque[ByteRange] = deque()
        self.is_near = False
        """Whether a program will read what is wanted soon as fast as it can, and nothing else."""
        self.rest_from = 0
        """How far the rest of the file was fetched, in its order."""
        self._near_from: int | None = None
        """Where what is read in order begins."""
        self._rest_is_wanted = False
        self._granted_bytes = 0
        self._granted_until = 0
        self._order: deque[ByteRange] | None = None
        """The rest, if it is wanted in another order than the file's."""
        self._within = ByteRange(0, 0)
        """Where that lies."""
        self._taken_bytes = 0
        self._any_order_bytes = room_bytes // 8 * 7
        self._most_waiting_bytes = room_bytes // _ROOM_SHARE
        self._least_rest_bytes = min(room_bytes // _REST_SHARE, _MOST_REST_BYTES)
        self._soon_waiting, self._rest_waiting = _Waiting(), _Waiting()

    @property
    def is_whole(self) -> bool:
        """Whether the rest of the file is on it, all of it or as far as was granted."""
        return self._rest_is_wanted

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on it."""
        return not self._soon and not self._rest_is_wanted

    @property
    def in_any_order(self) -> bool:
        """Whether nobody knows what of it is read first."""
        return self._order is not None

    def add(self, span: ByteRange) -> None:
        """Put a span at the end of what is wanted soon."""
        if self._soon and self._soon[-1].end == span.start:
            span = ByteRange(self._soon.pop().start, span.end)
        self._soon.append(span)

    def forget_soon(self) -> None:
        """The spans that were wanted soon proved to be a wrong guess."""
        self._soon.clear()

    def grant_rest(self, granted_bytes: int) -> None:
        """The rest of the file is wanted, too, from its beginning on; so many bytes of it in all
        may be taken, behind what is wanted soon.
        """
        self._rest_is_wanted = True
        self._granted_bytes = max(self._granted_bytes, granted_bytes)

    def grant_within(
        self, within: ByteRange, order: Iterable[ByteRange], granted_bytes: int
    ) -> None:
        """What is left to read of ``within`` is wanted, too, in any order: it may fill nearly all
        that can be kept, as nobody knows what of it is read first. It is fetched in ``order``.
        """
        if within != self._within:
            self._within = within
            self._order = deque(
                ByteRange(max(span.start, within.start), min(span.end, within.end))
                for span in order
                if span.start < within.end and within.start < span.end
            )
        self.grant_rest(granted_bytes)

    def grant_until(self, end: int) -> None:
        """The file is wanted up to ``end``, which moves on as it is read in order."""
        self._rest_is_wanted = True
        self._granted_until = max(self._granted_until, end)

    def revoke_until(self) -> None:
        """The file is not read in its order, after all."""
        self._granted_until = 0
        self._near_from = None
        self._rest_is_wanted = self._granted_bytes > 0

    def end(self) -> None:
        """Nothing is believed any more."""
        self._soon.clear()
        self._rest_is_wanted = False
        self._granted_bytes = self._granted_until = 0

    def next(self) -> ByteRange | None:
        """The next span to fetch: it crosses no cut, and has no bytes that were read."""
        while self._soon:
            found = (
                self._near_piece(self._soon[0]) if self.is_near else self._clipped(self._soon[0])
            )
            if found is not None:
                return found
            self._soon.popleft()
        if self._order is not None:
            return self._next_in_any_order(self._order)
        limit = self._granted_until
        if self._taken_bytes < self._granted_bytes:
            limit = self._file_size
        if self.rest_from >= limit or self._is_ahead_enough:
            return None
        found = self._clipped(ByteRange(self.rest_from, self._file_size))
        if found is None:
            self.rest_from = self._file_size
            return None
        if self._granted_until and not self._granted_bytes:
            return self._near(found)
        return found

    def _near_piece(self, span: ByteRange) -> ByteRange | None:
        found = self._unread(span)
        if found is None:
            return None
        is_first = self._soon_waiting.size < _NEAR_BYTES
        return _piece(found, self._block_bytes // 2 if is_first else self._block_bytes)

    def _next_in_any_order(self, order: deque[ByteRange]) -> ByteRange | None:
        if self._taken_bytes >= self._granted_bytes:
            return None
        if self._rest_waiting.size >= self._any_order_bytes:
            return None
        while order:
            found = self._unread(order[0])
            if found is not None:
                return _piece(found, self._block_bytes)
            order.popleft()
        return None

    def _near(self, span: ByteRange) -> ByteRange:
        """The part of ``span`` for one request of somebody who reads in order and is about to come
        to the first of them.
        """
        if self._near_from is None:
            self._near_from = span.start
        piece = max((span.start - self._near_from) // _NEAR_SHARE // _CUT_BYTES, 1) * _CUT_BYTES
        upto = (span.start + piece) // _CUT_BYTES * _CUT_BYTES
        return ByteRange(span.start, upto if span.end - upto >= _CUT_BYTES else span.end)

    @property
    def _is_ahead_enough(self) -> bool:
        rest_bytes = self._rest_waiting.size
        if rest_bytes < self._least_rest_bytes:
            return False
        kept_bytes = rest_bytes + self._soon_waiting.size
        return rest_bytes >= _MOST_REST_BYTES or kept_bytes >= self._most_waiting_bytes

    def _clipped(self, span: ByteRange) -> ByteRange | None:
        found = self._unread(span)
        if found is None:
            return None
        position, upto = found.start, found.end
        boundary = self.cuts.behind(position)
        if 0 < upto - boundary < _LEAST_BYTES and not self.cuts.follow_parts:
            fits = upto - position <= self._block_bytes
            boundary = upto if fits else boundary - _CUT_BYTES
        return ByteRange(position, min(upto, boundary))

    def _unread(self, span: ByteRange) -> ByteRange | None:
        """The first bytes of ``span`` that were not read."""
        position = span.start
        while position < span.end:
            was_read, upto = self._read.run_at(position, span.end)
            if was_read or (upto - position < _LEAST_BYTES and upto < span.end):
                position = upto
                continue
            return ByteRange(position, upto)
        return None

    def unread_from(self, position: int) -> ByteRange:
        """The first bytes from ``position`` on that streams may be read ahead into: with the rest
        of the file on the course and still to be read, not what was read, whose memory may have
        been given up. The kernel has it, and a program that reads all of a file reads it once.
        """
        size = self._file_size
        if not self._rest_is_wanted or self._is_over:
            return ByteRange(position, size)
        was_read, upto = self._read.run_at(position, size)
        if was_read:
            position, upto = upto, self._read.run_at(upto, size)[1]
        return ByteRange(position, upto)

    @property
    def _is_over(self) -> bool:
        """Whether all of the rest was taken, and read."""
        is_taken = self.rest_from >= self._file_size if self._order is None else not self._order
        return is_taken and not self._rest_waiting.size + self._soon_waiting.size

    def passed(self, end: int) -> None:
        """Everything up to ``end`` of what :meth:`next` said is here, on its way, or given up."""
        if self._soon:
            self._soon[0] = ByteRange(end, self._soon[0].end)
        elif self._order:
            self._order[0] = ByteRange(end, self._order[0].end)
        else:
            self.rest_from = max(self.rest_from, end)

    def took(self, span: ByteRange) -> None:
        """A request for ``span``, of what :meth:`next` said, was begun."""
        if self._soon:
            self._soon_waiting.add(span)
        else:
            self._taken_bytes += span.size
            self._rest_waiting.add(span)
        self.passed(span.end)

    def was_read(self, start: int, end: int) -> None:
        """``[start, end)`` is read now."""
        self._soon_waiting.was_read(start, end)
        self._rest_waiting.was_read(start, end)


def _piece(span: ByteRange, most_bytes: int) -> ByteRange:
    """What one request fetches of ``span``, all of which is wanted: one of several of about equal
    length.
    """
    count = -(-span.size // most_bytes)
    if count == 1:
        return span
    upto = (span.start + -(-span.size // count)) // _CUT_BYTES * _CUT_BYTES
    return ByteRange(span.start, upto if upto > span.start else span.start + most_bytes)

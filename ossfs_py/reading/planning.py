"""Which spans of a version are worth a request now, and how urgently. Pure.

A plan is made span by span, against what the index holds at that moment: beginning one span may
evict what the next one would have passed over.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ossfs_py.foresight.course import Course
from ossfs_py.model import ByteRange
from ossfs_py.reading.chunks import ChunkIndex
from ossfs_py.reading.streams import MIB, Stream, StreamLimits, StreamTable

_BROAD_BYTES = 256 * 1024
"""A first read of so much is the kernel's readahead, and is believed to go on to a known end."""

_LITTLE_MORE_BYTES = 5 * MIB
"""Of a part's beginning that is looked at, and whose rest is wanted soon. 6 MiB more would take 70
ms of a connection's 90 MB/s."""

_LOOK_READS = 2
"""A touch of a mapping is two reads of the kernel at most. Whoever has read more waits for what is
next, and not for the rest of a part as well: 6 MiB more are 70 ms."""

_LEAST_OF_PART_BYTES = 2 * MIB
"""What is asked for at least, behind the first MiB of a part that was not there, of a program that
reads parts in an order of its own: requests for what else it wants have the link, too, and smaller
ones come no sooner."""

_PIECES_AHEAD = 16
"""Reading ahead uses at least this many requests, so that they fill the link."""

_NEAR_PIECES_AHEAD = 4
"""The same where a store nearby answers at once: each request takes 0.4 ms of CPU, and who waits is
answered while it arrives. 1 GiB took 0.13 and 0.17 CPU-s less than with eight, of 1.38 and 1.19."""

_DISTANCE_SHARE = 4
_NEAR_DISTANCE_SHARE = 2
"""A request ahead is no longer than one part in so many of the way to its beginning."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How bytes are fetched; sizes in bytes.

    ``random_fetch_bytes``: what a read that belongs to no stream fetches at least. 64 KiB take
    0.7 ms at 90 MB/s, little beside the 25 ms to the first byte.
    """

    block_size_bytes: int = 8 * MIB
    grain_bytes: int = 1
    """Fetched spans start and end on multiples of this: the blocks of a shared cache."""
    model_hints: bool = True
    """Use what is known of model files: suffixes, tensor bounds, the tail of zip archives."""
    random_fetch_bytes: int = 64 * 1024
    small_file_bytes: int = MIB
    """Files up to this size are fetched whole at the first touch: 1 MiB takes 12 ms at 90 MB/s,
    and a second request would wait 25 ms for its first byte."""
    streams: StreamLimits = field(default_factory=StreamLimits)


class PlannedSpan(NamedTuple):
    """Bytes ``[start, end)`` for one request. ``urgent``: somebody waits for them; without, they
    are read ahead, behind urgent work, and only if there is memory to spare. It is a tuple for the
    same reason as ``Attributes``.
    """

    start: int
    end: int
    urgent: bool
    from_disk: bool = False

    @property
    def size(self) -> int:
        """Bytes in the span."""
        return self.end - self.start


class OnDisk(Protocol):
    """Which bytes of a version can be had from a second home; see ``secondhome.BlockBackend``."""

    granularity_bytes: int

    def present_until(self, offset: int) -> int:
        """End of the run of bytes on disk that holds ``offset``; ``offset`` itself if none."""
        ...

    def next_present(self, offset: int) -> int | None:
        """The start of the first run on disk behind ``offset``."""
        ...


class NothingOnDisk:
    """A version without a second home."""

    granularity_bytes = 4096
    """One page: the kernel asks for no less."""

    def present_until(self, offset: int) -> int:
        """Nothing is."""
        return offset

    def next_present(self, offset: int) -> int | None:
        """Nor will it be."""


class Foresight(Protocol):
    """The expectation of how a version will be read; see ``foresight.belief.Belief``."""

    course: Course
    """Ranges to fetch besides the streams."""

    @property
    def reads_all_in_order(self) -> bool:
        """Whether the whole file is on the course, in the order in which it will be read."""
        ...

    def known_end(self, start: int, position: int) -> int | None:
        """Up to where a stream from ``start`` on, now at ``position``, will read, at most."""
        ...


class Planner:
    """Says what to fetch of one version of ``size`` bytes. Changes nothing but the streams."""

    def __init__(
        self,
        size: int,
        options: ReadOptions,
        index: ChunkIndex,
        streams: StreamTable,
        foresight: Foresight,
        on_disk: OnDisk,
    ) -> None:
        self._size = size
        self._block_bytes = options.block_size_bytes
        self._random_bytes = options.random_fetch_bytes
        self._whole_bytes = whole_bytes(options)
        self._index = index
        self._streams = streams
        self._foresight = foresight
        self._on_disk = on_disk
        self._grain = max(on_disk.granularity_bytes, options.grain_bytes)
        # Blocks of a shared cache come from several machines side by side.
        self._from_one_place = options.grain_bytes == 1
        self.reached_end = False
        """Whether a stream was read ahead up to the end of the file."""

    def needed(self, offset: int, end: int, stream: Stream) -> PlannedSpan | None:
        """The first span of ``[offset, end)``, which a reader waits for, that nobody has asked
        for yet.
        """
        if (whole := self.whole()) is not None:
            return whole
        position = offset
        while position < end:
            chunk = self._index.at(position)
            if chunk is not None:
                position = chunk.end
                continue
            upto = position
            if not stream.straggles:  # of what others have read, the kernel keeps the rest
                upto += self._random_bytes
            if stream.window:
                # Reads of the kernel's readahead end on multiples of 1 MiB: one that spans
                # two chunks has to be joined.
                upto = (position + min(MIB, stream.window)) // MIB * MIB
            cut = self._foresight.course.cuts.of_parts_behind(position)
            looks = stream.start > 0 and stream.hits <= _LOOK_READS
            if cut is not None and looks and end < cut <= end + _LITTLE_MORE_BYTES:
                upto = cut  # the rest would be a request of its own
            grain = self._grain
            if position == offset == stream.start and end - offset >= _BROAD_BYTES:
                # The kernel reads around a fault. What is left before that, up to where requests
                # end, would be a request of its own, too.
                grain = max(grain, self._random_bytes)
            return self.request(position - position % grain, max(upto, end), urgent=True)
        return None

    def whole(self) -> PlannedSpan | None:
        """All of a small file of which nobody has asked for anything yet; None: it is none."""
        if len(self._index) == 0 and self._size <= self._whole_bytes:
            return whole_span(self._size, self._on_disk)
        return None

    def ahead(
        self, stream: Stream, amount: int, window_cap: int, *, waited: bool
    ) -> PlannedSpan | None:
        """What to read ahead of ``stream`` after a read of ``amount`` bytes, the first span;
        :meth:`next_ahead` says more once that one is begun. Every read comes past here.

        ``window_cap``: the stream's share of the budget.
        """
        known_end = self._foresight.known_end(stream.start, stream.position)
        window = self._streams.widen(
            stream,
            window_cap,
            amount,
            waited=waited,
            bounded=known_end is not None and amount >= _BROAD_BYTES,
        )
        if not window or self._streams.trespasses(stream):
            return None
        if self._foresight.reads_all_in_order:
            further = min(stream.position + self._block_bytes, self._size - 1)
            if self._index.at(further) is not None:
                return None  # it comes in larger requests, see beside()
        limit = min(known_end or self._size, stream.position + window)
        if limit == self._size:
            self.reached_end = True
        boundary = self._streams.boundary(stream)
        if boundary is not None and boundary < limit:
            limit = boundary
        elif limit == known_end:
            boundary = limit
        stream.limit = limit
        stream.limit_is_exact = limit in (boundary, self._size)
        return self.next_ahead(stream)

    def next_ahead(self, stream: Stream) -> PlannedSpan | None:
        """The next span to read ahead of ``stream``, up to its limit."""
        position = max(stream.position, stream.ahead)
        limit, most = stream.limit, self._block_bytes
        while position < limit:
            chunk = self._index.at(position)
            if chunk is not None:
                position = stream.ahead = chunk.end
                continue
            unread = self._foresight.course.unread_from(position)
            if unread.start > position:
                position = stream.ahead = unread.start
                continue
            piece = self._piece(stream, position - stream.position)
            # Pieces end on multiples of their size, for the same reason as in needed().
            end = (position // piece + 1) * piece
            if end - position < piece // 2:
                end += piece
            if end > limit:
                if not stream.limit_is_exact:
                    return None
                end = limit
            if stream.limit_is_exact and end < limit <= min(end + MIB, position + most):
                end = limit  # a short tail comes with the piece before
            end = min(end, unread.end)
            return self.request(position - position % self._grain, end, urgent=False)
        return None

    def _piece(self, stream: Stream, distance: int) -> int:
        """How much one request ahead asks for: what is needed soon comes in small pieces, side by
        side, what is needed later in large ones, which cost less.
        """
        pieces, share = _PIECES_AHEAD, _DISTANCE_SHARE
        if self._streams.near and self._from_one_place:
            pieces, share = _NEAR_PIECES_AHEAD, _NEAR_DISTANCE_SHARE
        largest = min(self._block_bytes, _floor_power_of_two(stream.window // pieces))
        piece = max(MIB, min(largest, _floor_power_of_two(distance // share)))
        if self._foresight.course.in_any_order and distance > MIB:
            return max(piece, min(largest, _LEAST_OF_PART_BYTES))
        return piece

    def head(self, offset: int, size: int) -> PlannedSpan | None:
        """The first span from ``offset`` on, of the file's first ``size`` bytes, that nobody has
        asked for yet.
        """
        position = offset
        while position < size:
            chunk = self._index.at(position)
            if chunk is None:
                # The header comes first, and soon: it says where the tensors are.
                upto = size if position else min(size, MIB)
                return self.request(position, upto, urgent=False)
            position = chunk.end
        return None

    def opening(self, pieces: Sequence[ByteRange]) -> Iterator[PlannedSpan]:
        """Spans for ``pieces``, unless their beginning is here or on its way. Begin each before
        asking for more.
        """
        for piece in pieces:
            start = piece.start - piece.start % self._grain
            if self._index.at(start) is None:
                yield self.request(start, piece.end, urgent=False)

    def beside(self) -> PlannedSpan | None:
        """The next span that is believed to be wanted, beside what streams are read ahead; tell
        the course once it is begun.
        """
        course = self._foresight.course
        while (piece := course.next()) is not None:
            chunk = self._index.at(piece.start)
            if chunk is None:
                return self.request(
                    piece.start - piece.start % self._grain, piece.end, urgent=False
                )
            course.passed(chunk.end)
        return None

    def missing_on_disk(self, span_bytes: int) -> list[tuple[int, int]]:
        """The bytes that are not on disk, in spans that cross no multiple of ``span_bytes``."""
        spans = []
        position = 0
        while position < self._size:
            present = self._on_disk.present_until(position)
            if present == position:
                upto = self._on_disk.next_present(position)
                end = min((position // span_bytes + 1) * span_bytes, self._size)
                present = end if upto is None else min(end, upto)
                spans.append((position, present))
            position = present
        return spans

    def request(self, start: int, end: int, *, urgent: bool) -> PlannedSpan:
        """One request from ``start`` on, or from where the chunk that holds it ends: it covers no
        byte of another chunk, and either nothing or only what is on disk.
        """
        end = min(self._size, -(-end // self._grain) * self._grain)
        previous = self._index.at(start)
        if previous is not None:
            start = previous.end
        behind = self._index.next_start(start)
        if behind is not None:
            end = min(end, behind)
        end = min(end, start + self._block_bytes)
        present = self._on_disk.present_until(start)
        if present > start:
            return PlannedSpan(start, min(end, present), urgent, from_disk=True)
        on_disk = self._on_disk.next_present(start)
        return PlannedSpan(start, end if on_disk is None else min(end, on_disk), urgent)


def whole_bytes(options: ReadOptions) -> int:
    """Files up to this size are fetched by one request."""
    return min(options.small_file_bytes, options.block_size_bytes)


def whole_span(size: int, on_disk: OnDisk) -> PlannedSpan:
    """The first request for such a file, of which nothing is in memory or on its way: all of it, or
    as much as is on disk, or as is not.
    """
    present = on_disk.present_until(0)
    if present > 0:
        return PlannedSpan(0, min(size, present), urgent=True, from_disk=True)
    behind = on_disk.next_present(0)
    return PlannedSpan(0, size if behind is None else min(size, behind), urgent=True)


def cut_back(stream: Stream) -> None:
    """Memory was short for what lies ahead of a stream: be content with less."""
    stream.window = stream.target = max(stream.window // 2, MIB)


def _floor_power_of_two(value: int) -> int:
    return 1 << (value.bit_length() - 1) if value > 0 else 0

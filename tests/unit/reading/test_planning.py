"""What to fetch, when and in which pieces: decided without a loop, a thread or a store."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from ossfs_py.extents import ExtentSet
from ossfs_py.foresight.course import Course
from ossfs_py.model import ByteRange
from ossfs_py.reading.chunks import Chunk, ChunkIndex
from ossfs_py.reading.planning import (
    NothingOnDisk,
    OnDisk,
    PlannedSpan,
    Planner,
    ReadOptions,
    cut_back,
)
from ossfs_py.reading.streams import MIB, Stream, StreamLimits, StreamTable

KIB = 1024
SIZE = 512 * MIB
CAP = 256 * MIB


class KeepsEverything:
    """A keeper without a budget."""

    def landed(self, chunk: Chunk) -> None:
        pass

    def left(self, chunk: Chunk, *, had_bytes: bool) -> None:
        pass


class Believes:
    """A foresight that is told what to say."""

    def __init__(self, known_end: int | None, size: int) -> None:
        self.end = known_end
        self.read = ExtentSet()
        self.course = Course(size, ReadOptions().block_size_bytes, 2 * size, self.read)
        self.reads_all_in_order = False

    def known_end(self, start: int, position: int) -> int | None:
        return self.end


class Blocks:
    """A disk that has some blocks of 1 MiB."""

    granularity_bytes = MIB

    def __init__(self, present: set[int], size: int = SIZE) -> None:
        self.present = present
        self.size = size

    def present_until(self, offset: int) -> int:
        block = offset // MIB
        if block not in self.present:
            return offset
        while block in self.present:
            block += 1
        return min(block * MIB, self.size)

    def next_present(self, offset: int) -> int | None:
        behind = [block for block in self.present if block > offset // MIB]
        return min(behind) * MIB if behind else None


class Plans:
    """A planner, and an index that takes in what it plans."""

    def __init__(
        self,
        size: int = SIZE,
        *,
        on_disk: OnDisk | None = None,
        known_end: int | None = None,
        options: ReadOptions | None = None,
    ) -> None:
        self.index = ChunkIndex(KeepsEverything())
        self.streams = StreamTable(StreamLimits())
        self.believes = Believes(known_end, size)
        self.planner = Planner(
            size,
            options or ReadOptions(),
            self.index,
            self.streams,
            self.believes,
            on_disk or NothingOnDisk(),
        )
        self.now = 0.0

    def take(self, span: PlannedSpan) -> None:
        self.index.ask(span.start, span.end, from_disk=span.from_disk)

    def read(self, start: int, end: int) -> Stream:
        self.now += 0.001
        return self.streams.observe(start, end, self.now)

    def needed(self, start: int, end: int, stream: Stream | None = None) -> list[PlannedSpan]:
        stream = stream or self.read(start, end)
        spans = []
        while (span := self.planner.needed(start, end, stream)) is not None:
            self.take(span)
            spans.append(span)
            start = span.end
        return spans

    def ahead(self, stream: Stream, amount: int, cap: int = CAP) -> list[PlannedSpan]:
        spans = []
        span = self.planner.ahead(stream, amount, cap, waited=True)
        while span is not None:
            self.take(span)
            spans.append(span)
            span = self.planner.next_ahead(stream)
        return spans


def ranges(spans: list[PlannedSpan]) -> list[tuple[int, int]]:
    return [(span.start, span.end) for span in spans]


def test_a_small_file_is_asked_for_whole() -> None:
    plans = Plans(300 * KIB)
    assert plans.needed(100 * KIB, 101 * KIB) == [PlannedSpan(0, 300 * KIB, urgent=True)]


def test_a_read_that_belongs_to_no_stream_asks_for_64_kib() -> None:
    plans = Plans()
    assert plans.needed(40 * MIB + 5000, 40 * MIB + 5001) == [
        PlannedSpan(40 * MIB + 4096, 40 * MIB + 72 * KIB, urgent=True)
    ]


def test_what_was_asked_for_is_not_asked_for_again() -> None:
    plans = Plans()
    plans.index.ask(MIB, 2 * MIB)
    plans.index.ask(3 * MIB, 4 * MIB)
    assert ranges(plans.needed(0, 5 * MIB)) == [(0, MIB), (2 * MIB, 3 * MIB), (4 * MIB, 5 * MIB)]
    assert plans.needed(0, 5 * MIB) == []


def test_no_request_is_larger_than_a_block() -> None:
    plans = Plans(options=ReadOptions(block_size_bytes=2 * MIB))
    assert ranges(plans.needed(0, 5 * MIB)) == [
        (0, 2 * MIB),
        (2 * MIB, 4 * MIB),
        (4 * MIB, 5 * MIB),
    ]


def test_a_straggler_asks_for_no_more_than_it_reads() -> None:
    plans = Plans()
    leader = plans.read(0, 64 * MIB)
    leader.window = 8 * MIB
    straggler = plans.read(20 * MIB, 20 * MIB + 4096)
    assert straggler.straggles
    assert ranges(plans.needed(20 * MIB, 20 * MIB + 4096, straggler)) == [
        (20 * MIB, 20 * MIB + 4096)
    ]


def test_the_first_read_of_a_stream_reads_nothing_ahead_and_the_second_does() -> None:
    plans = Plans()
    first = plans.read(0, 128 * KIB)
    plans.needed(0, 128 * KIB, first)
    assert plans.ahead(first, 128 * KIB) == []
    second = plans.read(128 * KIB, 256 * KIB)
    plans.needed(128 * KIB, 256 * KIB, second)
    spans = plans.ahead(second, 128 * KIB)
    assert not any(span.urgent for span in spans)
    assert spans[0].start == 256 * KIB
    assert spans[-1].end == 8 * MIB  # the next piece would pass the window: it can wait
    assert all(span.end % MIB == 0 for span in spans)


def test_what_is_needed_soon_comes_in_small_pieces_and_the_rest_in_large_ones() -> None:
    plans = Plans()
    plans.read(0, 128 * KIB)
    stream = plans.read(128 * KIB, 256 * KIB)
    stream.opens_with = 256 * MIB
    sizes = [span.size for span in plans.ahead(stream, 128 * KIB)]
    assert sizes[1] == MIB
    assert sizes[-1] == 8 * MIB
    assert sizes[1:] == sorted(sizes[1:])


def test_a_stream_is_read_ahead_no_further_than_its_share_of_the_budget() -> None:
    plans = Plans()
    plans.read(0, 128 * KIB)
    stream = plans.read(128 * KIB, 256 * KIB)
    spans = plans.ahead(stream, 128 * KIB, cap=3 * MIB)
    assert spans[-1].end <= stream.position + 3 * MIB


def test_reading_ahead_ends_with_the_file_and_says_so() -> None:
    plans = Plans(5 * MIB + 1000)
    plans.read(0, 128 * KIB)
    stream = plans.read(128 * KIB, 256 * KIB)
    assert not plans.planner.reached_end
    assert plans.ahead(stream, 128 * KIB)[-1].end == 5 * MIB + 1000
    assert plans.planner.reached_end


def test_a_known_end_is_read_up_to_exactly_and_from_the_kernels_first_read_on() -> None:
    plans = Plans(known_end=3 * MIB + 4096)
    stream = plans.read(0, 512 * KIB)
    assert plans.ahead(stream, 512 * KIB)[-1].end == 3 * MIB + 4096


def test_a_small_first_read_is_not_believed_to_go_on() -> None:
    plans = Plans(known_end=3 * MIB)
    stream = plans.read(0, 128 * KIB)
    assert plans.ahead(stream, 128 * KIB) == []


def test_nobody_reads_ahead_into_what_another_stream_has_read() -> None:
    plans = Plans()
    plans.read(0, 128 * KIB).window = MIB
    other = plans.read(5 * MIB, 6 * MIB)
    other.window = 8 * MIB
    stream = plans.read(128 * KIB, 256 * KIB)
    stream.window = stream.target = 8 * MIB
    assert stream is not other
    assert plans.ahead(stream, 128 * KIB)[-1].end == 5 * MIB


def test_short_of_memory_the_window_is_halved_and_the_same_bytes_are_planned_later() -> None:
    plans = Plans()
    plans.read(0, 128 * KIB)
    stream = plans.read(128 * KIB, 256 * KIB)
    span = plans.planner.ahead(stream, 128 * KIB, CAP, waited=True)
    assert span is not None
    cut_back(stream)  # as when the span was not begun
    assert stream.window == 4 * MIB
    again = plans.ahead(stream, 0)
    assert again[0] == span
    assert again[-1].end <= stream.position + 4 * MIB


def test_what_is_on_disk_comes_from_there_and_no_request_spans_its_borders() -> None:
    plans = Plans(on_disk=Blocks({1, 2, 5}))
    spans = plans.needed(0, 7 * MIB)
    assert [(s.start // MIB, s.end // MIB, s.from_disk) for s in spans] == [
        (0, 1, False),
        (1, 3, True),
        (3, 5, False),
        (5, 6, True),
        (6, 7, False),
    ]


def test_requests_cover_whole_blocks_of_the_disk() -> None:
    plans = Plans(SIZE, on_disk=Blocks(set()))
    assert ranges(plans.needed(2 * MIB + 1, 2 * MIB + 2)) == [(2 * MIB, 3 * MIB)]


def test_what_is_missing_on_disk_is_told_in_spans_that_cross_no_border() -> None:
    size = 9 * MIB + 500
    plans = Plans(size, on_disk=Blocks({0, 5}, size))
    assert plans.planner.missing_on_disk(4 * MIB) == [
        (MIB, 4 * MIB),
        (4 * MIB, 5 * MIB),
        (6 * MIB, 8 * MIB),
        (8 * MIB, size),
    ]


def test_the_head_of_a_file_begins_with_a_small_request() -> None:
    plans = Plans()
    first = plans.planner.head(0, 20 * MIB)
    assert first == PlannedSpan(0, MIB, urgent=False)
    plans.take(first)
    second = plans.planner.head(first.end, 20 * MIB)
    assert second == PlannedSpan(MIB, 9 * MIB, urgent=False)
    plans.index.ask(9 * MIB, 20 * MIB)
    assert plans.planner.head(9 * MIB, 20 * MIB) is None


def test_what_foresight_wants_is_asked_for_once_and_never_behind_the_file() -> None:
    wants = [
        ByteRange(SIZE - 100 * KIB - 7, SIZE + 100 * KIB),
        ByteRange(SIZE - 100 * KIB, SIZE),
        ByteRange(0, 10 * KIB),
    ]
    plans = Plans()
    spans = []
    for span in plans.planner.opening(wants):
        plans.take(span)
        spans.append(span)
    assert spans == [
        PlannedSpan(SIZE - 104 * KIB, SIZE, urgent=False),
        PlannedSpan(0, 12 * KIB, urgent=False),
    ]
    assert list(plans.planner.opening(wants)) == []


def test_what_is_believed_is_asked_for_beside_the_streams_and_around_what_is_there() -> None:
    plans = Plans()
    plans.index.ask(41 * MIB, 42 * MIB)
    plans.believes.course.add(ByteRange(40 * MIB + 5, 50 * MIB))
    spans = []
    while (span := plans.planner.beside()) is not None:
        plans.take(span)
        plans.believes.course.took(ByteRange(span.start, span.end))
        spans.append(span)
    assert spans == [
        PlannedSpan(40 * MIB, 41 * MIB, urgent=False),
        PlannedSpan(42 * MIB, 48 * MIB, urgent=False),
        PlannedSpan(48 * MIB, 50 * MIB, urgent=False),
    ]


def test_a_stream_leaves_reading_ahead_to_a_course_that_leads_it() -> None:
    plans = Plans()
    plans.believes.reads_all_in_order = True
    plans.index.ask(0, 16 * MIB)
    plans.read(0, MIB)
    stream = plans.read(MIB, 2 * MIB)
    assert plans.ahead(stream, MIB) == []
    stream = plans.read(2 * MIB, 9 * MIB)
    assert plans.ahead(stream, MIB) != []


def test_what_was_read_in_an_order_of_its_own_is_not_read_ahead_once_more() -> None:
    """Its memory may have been given up, but the kernel has it. Some loads of 62 MiB took 63."""
    plans = Plans(32 * MIB)
    course, read = plans.believes.course, plans.believes.read
    read.add(4 * MIB, 5 * MIB)
    read.add(6 * MIB, 8 * MIB)
    course.grant_rest(32 * MIB)
    while (beside := plans.planner.beside()) is not None:
        course.took(ByteRange(beside.start, beside.end))  # all of it is given up again
    plans.needed(0, MIB)
    stream = plans.read(MIB, 2 * MIB)
    ahead = plans.ahead(stream, MIB)
    assert ExtentSet(ByteRange(span.start, span.end) for span in ahead) == ExtentSet(
        [ByteRange(start * MIB, end * MIB) for start, end in ((2, 4), (5, 6), (8, 10))]
    )
    for start in range(0, 32 * MIB, MIB):
        read.add(start, start + MIB)
        course.was_read(start, start + MIB)
    stream = plans.read(2 * MIB, 9 * MIB)
    assert plans.ahead(stream, 7 * MIB) != []  # who reads the file once more is read ahead


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(1, 40 * MIB),
    blocks=st.sets(st.integers(0, 39)),
    reads=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 3 * MIB)), max_size=25
    ),
    on_disk=st.booleans(),
    in_order=st.booleans(),
)
def test_any_order_of_reads_plans_each_byte_once_and_every_byte_that_is_read(
    size: int, blocks: set[int], reads: list[tuple[float, int]], on_disk: bool, in_order: bool
) -> None:
    disk = Blocks({b for b in blocks if b * MIB < size}, size) if on_disk else None
    plans = Plans(size, on_disk=disk)
    planned: list[PlannedSpan] = []
    position = 0
    for place, length in reads:
        start = position % size if in_order else int(place * size)
        end = position = min(start + length, size)
        stream = plans.read(start, end)
        planned += plans.needed(start, end, stream)
        planned += plans.ahead(stream, end - start)
        while start < end:
            chunk = plans.index.at(start)
            assert chunk is not None
            start = chunk.end
    spans = sorted(ranges(planned))
    assert all(0 <= start < end <= size for start, end in spans)
    assert all(before[1] <= behind[0] for before, behind in itertools.pairwise(spans))
    for span in planned:
        if disk is not None:
            present = disk.present_until(span.start)
            behind = disk.next_present(span.start)
            assert span.from_disk == (present > span.start)
            assert span.end <= (present if span.from_disk else (behind or size))

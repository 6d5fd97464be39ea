"""What is believed of a reader, step by step."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ossfs_py.extents import ExtentSet
from ossfs_py.foresight.belief import Belief
from ossfs_py.foresight.course import Course
from ossfs_py.foresight.layout import Layout
from ossfs_py.model import ByteRange
from tests.support.traces import trace

MIB = 1024**2
PAGE = 4096
BLOCK = 8 * MIB
PART = 32 * MIB
COUNT = 32
FIRST = 5000
SIZE = FIRST + COUNT * PART


def believing(*, room: int = 2 * SIZE) -> tuple[Belief, Layout]:
    """A file of 32 parts, its header read."""
    belief = Belief(SIZE, BLOCK, room)
    belief.observe(0, MIB)
    starts = tuple(FIRST + number * PART for number in range(COUNT))
    layout = Layout(starts, (*starts[1:], SIZE))
    belief.know(layout)
    return belief, layout


def fault(belief: Belief, place: int) -> None:
    """The kernel reads around a page, as of a mapping with MADV_SEQUENTIAL."""
    page = place // PAGE * PAGE
    belief.observe(max(0, page - MIB), page)
    belief.observe(page, min(page + MIB, SIZE))


def stream(belief: Belief, start: int, end: int) -> None:
    """A mapped program reads on."""
    fault(belief, start)
    position = start // PAGE * PAGE + MIB
    while position < end:
        belief.observe(position, min(position + MIB, SIZE))
        position += MIB


def wanted(belief: Belief) -> list[ByteRange]:
    """All that is on the course now, taken."""
    return wanted_of(belief.course)


def wanted_of(course: Course) -> list[ByteRange]:
    spans = []
    while (span := course.next()) is not None:
        course.took(span)
        spans.append(span)
    return spans


def test_one_look_at_a_part_says_nothing_of_the_others() -> None:
    for number in (2, 7, COUNT - 1):
        belief, layout = believing()
        fault(belief, layout.starts[number])
        assert wanted(belief) == []


def test_a_look_at_the_first_beginning_that_did_not_come_with_the_table_brings_some_more() -> None:
    belief, layout = believing()
    fault(belief, layout.starts[1])
    heads = wanted(belief)
    assert [any(h.start <= layout.starts[n] < h.end for h in heads) for n in (2, 3)] == [True] * 2
    assert sum(head.size for head in heads) <= 16 * MIB + 3 * MIB
    assert not belief.looked
    fault(belief, layout.starts[2])
    more = wanted(belief)  # no body yet: a program that reads some rows of three parts stops here
    assert sum(head.size for head in more) <= 64 * MIB + BLOCK
    assert all(any(h.start <= start < h.end for start in layout.starts) for h in more)


def test_rows_of_the_first_part_that_were_read_say_nothing_of_the_next_beginnings() -> None:
    belief, layout = believing()
    belief.observe(MIB, 4 * MIB)
    fault(belief, layout.starts[1])
    assert wanted(belief) == []


def test_a_read_at_the_beginning_of_the_first_part_is_no_look() -> None:
    belief, layout = believing()
    belief.observe(layout.starts[1] // PAGE * PAGE, layout.starts[1] // PAGE * PAGE + MIB)
    assert wanted(belief) == []


def test_the_second_look_brings_the_next_beginnings_and_the_third_the_body() -> None:
    belief, layout = believing()
    fault(belief, layout.starts[4])
    fault(belief, layout.starts[5])
    heads = wanted(belief)
    assert [any(h.start <= layout.starts[n] < h.end for h in heads) for n in (6, 7)] == [True] * 2
    # Each begins just behind the edge of a block, and the kernel reads around it.
    assert sum(head.size for head in heads) <= 2 * 2 * BLOCK
    fault(belief, layout.starts[6])
    spans = wanted(belief)
    behind = ExtentSet([*heads, *spans[:8]])
    assert all(behind.covers(layout.starts[n] - MIB, layout.starts[n] + MIB) for n in range(7, 16))
    assert ExtentSet(spans).covers(MIB, 30 * MIB)  # the header was read
    assert sum(span.size for span in spans) <= 2 * 64 * MIB + 4 * 2 * BLOCK
    assert belief.looked


def test_the_end_of_a_part_that_is_touched_before_it_is_read_is_no_look_at_the_next_one() -> None:
    """As memcpy(3) of glibc copies: the last bytes first, where the next part begins."""
    belief, layout = believing()
    fault(belief, layout.starts[1])
    guessed = wanted(belief)
    for position in range(MIB, 31 * MIB + 1, MIB):
        belief.observe(position, min(position + MIB, layout.starts[1] // PAGE * PAGE - MIB))
        assert wanted(belief) == []
    fault(belief, layout.starts[2])
    spans = wanted(belief)
    brought = ExtentSet([*guessed, *spans])
    page = layout.starts[2] // PAGE * PAGE
    assert brought.covers(33 * MIB + PAGE, page - MIB)  # what is read next
    assert spans[0].size <= MIB  # and soon
    assert spans[-1].end <= layout.starts[2] + 96 * MIB + BLOCK
    assert not belief.looked


def test_the_last_parts_that_came_with_a_table_at_the_end_do_not_show_another_order() -> None:
    """``torch.load`` had 675 MiB of a file of 992 MiB read ahead."""
    size = FIRST + COUNT * PART + PAGE
    belief = Belief(size, BLOCK, 2 * SIZE)
    starts = tuple(FIRST + number * PART for number in range(COUNT + 1))
    belief.observe(size - 2 * PAGE, size)
    belief.know(Layout(starts, (*starts[1:], size)))
    belief.observe(size - PAGE, size)
    for position in range(0, 256 * MIB, MIB):
        belief.observe(position, position + MIB)
        spans = wanted(belief)
        assert all(span.end <= position + 256 * MIB + BLOCK for span in spans)
    assert not belief.course.is_idle


def test_how_much_comes_ahead_of_parts_whose_ends_are_touched_first_is_bounded() -> None:
    """Whoever stops has cost little more than was read before, and no more than 256 MiB."""
    belief, layout = believing()
    position = MIB
    for number in range(1, 24):
        page = layout.starts[number] // PAGE * PAGE
        fault(belief, page)
        guessed = wanted(belief) if number == 1 else []
        assert sum(span.size for span in guessed) <= 20 * MIB
        for start in range(position, page - MIB, MIB):
            belief.observe(start, min(start + MIB, page - MIB))
        position = page + MIB
        taken = max((span.end for span in wanted(belief)), default=0)
        believed = max(96 * MIB, min(number * PART, 256 * MIB))
        assert taken <= page + believed + BLOCK
    assert taken > page + 128 * MIB


def test_a_program_that_goes_elsewhere_gets_no_more_beginnings() -> None:
    belief, layout = believing()
    for number in (4, 5):
        fault(belief, layout.starts[number])
    fault(belief, layout.starts[20])
    assert wanted(belief) == []


def test_looks_that_are_expected_are_foreseen_from_the_first_one_on() -> None:
    belief, layout = believing()
    belief.expect_looks()
    fault(belief, layout.starts[0])
    heads = wanted(belief)
    assert all(
        any(head.start <= start < head.end for head in heads) for start in layout.starts[1:10]
    )


def test_a_second_half_of_parts_brings_the_second_halves_of_the_next_ones() -> None:
    belief, layout = believing()
    for number in range(4):
        middle = layout.starts[number] + PART // 2
        stream(belief, middle, layout.ends[number])
    got = ExtentSet(wanted(belief))
    for number in (4, 5):
        assert got.covers(layout.starts[number] + PART // 2, layout.ends[number])
    for first in layout.starts[4:]:
        beside = got.within(first + 2 * MIB, first + PART // 2 - MIB - PAGE)
        assert list(beside) == []
    assert sum(span.size for span in got) <= 96 * MIB + PART


def test_a_first_half_of_parts_brings_no_second_half() -> None:
    belief, layout = believing()
    for number in range(5):
        stream(belief, layout.starts[number], layout.starts[number] + PART // 2)
    got = ExtentSet(wanted(belief))
    assert got.covers(layout.starts[5] + MIB, layout.starts[5] + PART // 2)
    for first in layout.starts[5:-1]:
        beside = got.within(first + PART // 2 + 2 * MIB, first + PART - 2 * MIB)
        assert list(beside) == []


def test_a_first_half_is_not_read_ahead_to_the_end_of_its_part() -> None:
    belief, layout = believing()
    for number in range(5):
        stream(belief, layout.starts[number], layout.starts[number] + PART // 2)
    fault(belief, layout.starts[5])
    page = layout.starts[5] // PAGE * PAGE
    end = belief.known_end(page - MIB, page + MIB)
    assert end is not None
    assert end <= layout.starts[5] + PART // 2 + 2 * MIB
    for position in range(page + MIB, page + 28 * MIB, MIB):
        belief.observe(position, position + MIB)
    behind = 6 * PART + MIB  # the kernel reads on to a multiple of 1 MiB
    assert belief.known_end(page - MIB, page + 28 * MIB) == behind  # it goes on, after all


def test_two_ranks_side_by_side_want_the_whole_file_together() -> None:
    belief, layout = believing()
    for number in range(5):
        stream(belief, layout.starts[number] + PART // 2, layout.ends[number])
        stream(belief, layout.starts[number], layout.starts[number] + PART // 2)
    stream(belief, layout.starts[5] + PART // 2, layout.ends[5])
    got = ExtentSet(wanted(belief))
    assert got.covers(layout.starts[6] + MIB, layout.ends[6])


def test_whole_parts_against_the_order_of_the_file_bring_the_rest_of_it() -> None:
    belief, layout = believing()
    for number in (17, 3):
        stream(belief, layout.starts[number], layout.ends[number])
    fault(belief, layout.starts[9])
    spans = wanted(belief)
    assert 2 * PART <= sum(span.size for span in spans) <= 4 * PART + BLOCK


def test_of_parts_read_in_any_order_only_what_lies_between_them_is_fetched() -> None:
    """A rank of a pipeline has some layers of a model."""
    belief, layout = believing()
    for number in (14, 9, 13, 10):
        stream(belief, layout.starts[number], layout.ends[number])
    fault(belief, layout.starts[12])
    got = ExtentSet(wanted(belief))
    assert got.covers(layout.starts[11] + 2 * MIB, layout.ends[11] - 2 * MIB)
    assert not list(got.within(0, layout.starts[9] - BLOCK))
    assert not list(got.within(layout.ends[14] + BLOCK, SIZE))


def test_parts_of_both_halves_in_any_order_bring_the_whole_file() -> None:
    """What is granted is a multiple of what was read: who stops has cost no more than that."""
    belief, layout = believing()
    for number in (20, 3, 25):
        stream(belief, layout.starts[number], layout.ends[number])
    fault(belief, layout.starts[11])
    spans = wanted(belief)
    assert ExtentSet(spans).covers(MIB, layout.starts[3] - 2 * MIB)
    assert sum(span.size for span in spans) <= 8 * 3 * PART + BLOCK


def uneven() -> tuple[Belief, Layout]:
    """Ten times a tiny part, one of 4 MiB, one of 30 MiB and one of 12 MiB."""
    starts, ends, position = [], [], FIRST
    for _ in range(10):
        for size in (8192, 4 * MIB, 30 * MIB, 12 * MIB):
            starts.append(position)
            position += size
            ends.append(position)
    belief, layout = Belief(position, BLOCK, 2 * position), Layout(tuple(starts), tuple(ends))
    belief.observe(0, MIB)
    belief.know(layout)
    return belief, layout


def test_in_an_order_of_the_programs_own_small_parts_come_first() -> None:
    """Who comes to a part that is not there waits for its first byte, however large it is."""
    belief, layout = uneven()
    here = ExtentSet([ByteRange(0, MIB)])
    for number in (36, 4, 20):
        fault(belief, layout.starts[number])
        page = layout.starts[number] // PAGE * PAGE
        here.add(page - MIB, page + MIB)
    got = ExtentSet(wanted(belief))
    here = ExtentSet([*here, *got])
    small = [part for part in map(layout.part, range(len(layout))) if part.size <= 4 * MIB]
    assert all(here.covers(part.start, part.end) for part in small)
    assert sum(span.size for span in got) <= 128 * MIB + BLOCK
    later = [part for part in map(layout.part, range(len(layout))) if part.size == 30 * MIB]
    assert not any(got.covers(part.start, part.end) for part in later)


def test_few_whole_parts_against_the_order_of_the_file_bring_a_bounded_number_of_bytes() -> None:
    belief, layout = uneven()
    costs = [0]
    for number in (30, 24, 29, 21):
        fault(belief, layout.starts[number])
        costs.append(costs[-1] + sum(span.size for span in wanted(belief)))
        stream(belief, layout.starts[number], layout.ends[number])
    assert costs[1] == 0  # one part says nothing
    assert 0 < costs[2] <= 64 * MIB + BLOCK
    assert costs[3] <= 128 * MIB + BLOCK
    assert costs[4] <= 8 * (30 + 0 + 4) * MIB + BLOCK


def test_a_few_tiny_parts_of_many_in_any_order_bring_nothing() -> None:
    starts = tuple(FIRST + number * 2 * MIB for number in range(1000))
    size = FIRST + 2000 * MIB
    belief = Belief(size, BLOCK, 2 * size)
    belief.know(Layout(starts, (*starts[1:], size)))
    for number in (900, 3, 500, 100, 700, 40, 666):
        belief.observe(starts[number], starts[number] + 2 * MIB)
    assert wanted(belief) == []


def test_whole_parts_one_before_the_other_bring_those_before_them() -> None:
    """As onnxruntime reads the weights of a model."""
    belief, layout = believing(room=SIZE // 5)
    for number in (30, 29):
        stream(belief, layout.starts[number], layout.ends[number])
    fault(belief, layout.starts[28])
    spans = wanted(belief)
    assert spans[0].start == layout.starts[27] // PAGE * PAGE
    assert any(span.start <= layout.starts[26] < span.end for span in spans)
    assert sum(span.size for span in spans) <= 96 * MIB + PART
    fault(belief, layout.starts[3])
    assert wanted(belief) == []


def test_of_a_file_that_memory_cannot_hold_the_rest_is_not_fetched_for_that() -> None:
    belief, layout = believing(room=SIZE // 5)
    for number in (17, 3, 20, 8):
        stream(belief, layout.starts[number], layout.ends[number])
    assert wanted(belief) == []


def test_parts_passed_over_in_the_order_of_the_file_are_not_fetched() -> None:
    """A rank with every fourth expert."""
    belief, layout = believing()
    for number in range(0, 24, 4):
        stream(belief, layout.starts[number], layout.ends[number] - 3 * MIB)
    assert wanted(belief) == []


def test_a_few_parts_of_many_in_any_order_are_all_that_is_fetched() -> None:
    size = 10_000 * MIB
    belief = Belief(size, BLOCK, 2 * size)
    belief.know(Layout(tuple(range(0, size, MIB)), tuple(range(MIB, size + 1, MIB))))
    for number in range(100):
        start = number * 7919 % 10_000 * MIB
        for position in range(start, start + MIB, 128 * 1024):
            belief.observe(position, position + 128 * 1024)
    assert wanted(belief) == []


def walked(known: int) -> Layout:
    """Of a tar archive, its first ``known`` members; the rest is one part."""
    starts = [number * PART for number in range(known + 1)]
    return Layout(tuple(starts), (*starts[1:], COUNT * PART), is_walked=True)


def test_a_walk_over_the_headers_of_a_tar_archive_brings_no_members() -> None:
    belief = Belief(COUNT * PART, BLOCK, 2 * SIZE)
    for number in range(20):
        belief.observe(number * PART, number * PART + 16 * PAGE)
        belief.know(walked(number + 1))
    assert wanted(belief) == []
    assert not belief.looked
    end = 19 * PART + 16 * PAGE
    assert belief.known_end(19 * PART, end) == end


def test_a_member_of_a_tar_archive_is_read_ahead_to_its_end() -> None:
    belief = Belief(COUNT * PART, BLOCK, 2 * SIZE)
    belief.know(walked(20))
    start = 7 * PART
    for position in (start, start + MIB, start + 2 * MIB):
        belief.observe(position, position + MIB)
    assert belief.known_end(start, start + 3 * MIB) == 8 * PART
    behind = 25 * PART
    belief.observe(behind, behind + 2 * MIB)
    assert belief.known_end(behind, behind + 2 * MIB) is None  # no header was read there yet


def test_small_random_reads_want_nothing_more() -> None:
    belief, _ = believing()
    for number in range(2000):
        place = number * 7919 * 524287 % (SIZE // PAGE) * PAGE
        belief.observe(place, min(place + PAGE, SIZE))
    assert wanted(belief) == []


def test_a_random_reader_is_forgotten_after_many_thousand_pieces() -> None:
    belief, layout = believing()
    for step in range(17 * 1024):
        belief.observe(step * 3 * PAGE, step * 3 * PAGE + PAGE)
    for number in (1, 2, 3):
        fault(belief, layout.starts[number])
    assert wanted(belief) == []
    assert belief.course.is_idle


def test_a_look_is_not_read_ahead_and_what_is_begun_is_to_its_end() -> None:
    belief, layout = believing()
    fault(belief, layout.starts[4])
    page = layout.starts[4] // PAGE * PAGE
    end = belief.known_end(page - MIB, page + MIB)
    assert end is not None
    assert 0 <= end - layout.ends[4] < MIB
    fault(belief, layout.starts[5])
    page = layout.starts[5] // PAGE * PAGE
    assert belief.known_end(page - MIB, page + MIB) == page + MIB


def test_what_began_with_the_file_or_is_not_known_has_no_known_end() -> None:
    belief, layout = believing()
    assert belief.known_end(0, MIB) is None
    assert belief.known_end(layout.starts[3], layout.starts[3] + 12345) is None
    assert Belief(SIZE, BLOCK, SIZE).known_end(5 * MIB, 6 * MIB) is None


@pytest.mark.parametrize("stride", [1_000_000, 64 * 1024, 100 * MIB])
def test_equal_strides_through_an_unknown_file_go_on(stride: int) -> None:
    belief = Belief(SIZE, BLOCK, SIZE)
    starts = [7 * PAGE + step * stride for step in range(6)]
    for start in starts[:4]:
        belief.observe(start, start + PAGE)
    spans = wanted(belief)
    assert spans[0].start == starts[4]
    assert spans[1].start == starts[5]
    assert sum(span.size for span in spans) <= 16 * PAGE


def test_strides_that_end_are_not_fetched_any_more() -> None:
    belief = Belief(SIZE, BLOCK, SIZE)
    for step in range(5):
        belief.observe(step * MIB, step * MIB + PAGE)
    wanted(belief)
    for place in (500 * MIB, 77 * MIB, 300 * MIB, 200 * MIB):
        belief.observe(place, place + PAGE)
        assert wanted(belief) == []


# -- the course -------------------------------------------------------------------------------


def test_a_course_says_nothing_twice_and_nothing_that_was_read() -> None:
    read = ExtentSet([ByteRange(2 * MIB, 4 * MIB)])
    course = Course(32 * MIB, BLOCK, 64 * MIB, read)
    assert course.is_idle
    course.add(ByteRange(MIB, 10 * MIB))
    course.grant_rest(20 * MIB)
    spans = []
    while (span := course.next()) is not None:
        course.took(span)
        spans.append((span.start // MIB, span.end // MIB))
    assert spans == [(1, 2), (4, 8), (8, 10), (0, 2), (4, 8), (8, 16), (16, 24)]


def test_a_short_tail_comes_with_the_request_before() -> None:
    course = Course(64 * MIB, BLOCK, 64 * MIB, ExtentSet())
    course.add(ByteRange(5 * MIB, BLOCK + PAGE))
    assert course.next() == ByteRange(5 * MIB, BLOCK + PAGE)
    course.forget_soon()
    course.add(ByteRange(BLOCK, 2 * BLOCK + PAGE))
    first = course.next()
    assert first == ByteRange(BLOCK, 2 * BLOCK - MIB)
    course.took(first)
    assert course.next() == ByteRange(2 * BLOCK - MIB, 2 * BLOCK + PAGE)


def test_what_is_wanted_in_any_order_comes_in_requests_of_about_equal_length() -> None:
    course = Course(64 * MIB, BLOCK, 64 * MIB, ExtentSet())
    order = [ByteRange(40 * MIB, 49 * MIB), ByteRange(0, 40 * MIB), ByteRange(49 * MIB, 64 * MIB)]
    course.grant_within(ByteRange(20 * MIB, 60 * MIB), order, 64 * MIB)
    spans = [(span.start // MIB, span.end // MIB) for span in wanted_of(course)]
    assert spans == [(40, 44), (44, 49), (20, 26), (26, 33), (33, 40), (49, 54), (54, 60)]
    course.grant_within(ByteRange(0, 64 * MIB), order, 64 * MIB)
    assert course.in_any_order


def test_the_rest_of_a_file_waits_until_what_was_fetched_of_it_is_read() -> None:
    read = ExtentSet()
    course = Course(256 * MIB, BLOCK, 32 * MIB, read)
    course.grant_rest(256 * MIB)
    taken = 0
    while (span := course.next()) is not None:
        course.took(span)
        taken += span.size
    assert taken == 16 * MIB
    for start in range(0, 6 * MIB, MIB):
        read.add(start, start + MIB)
        course.was_read(start, start + MIB)
    again = course.next()
    assert again == ByteRange(16 * MIB, 24 * MIB)
    course.took(again)
    assert course.next() is None


def test_what_was_taken_soon_leaves_some_room_to_the_rest() -> None:
    """Beginnings of large tensors wait long to be read, and the rest came one block at a time."""
    read = ExtentSet()
    course = Course(256 * MIB, BLOCK, 64 * MIB, read)
    course.add(ByteRange(128 * MIB, 168 * MIB))
    course.grant_rest(256 * MIB)
    assert sum(span.size for span in wanted_of(course)) == 40 * MIB + 16 * MIB
    read.add(0, 8 * MIB)
    course.was_read(0, 8 * MIB)
    assert wanted_of(course) == [ByteRange(16 * MIB, 24 * MIB)]


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["load_file", "slices", "four_ranks", "torch_mmap"]), st.randoms())
def test_reads_in_any_order_want_nothing_outside_the_file_and_nothing_endless(
    loader: str, random: object
) -> None:
    recorded = trace(loader)
    reads = list(recorded.reads)
    getattr(random, "shuffle")(reads)  # noqa: B009 - hypothesis's own class
    belief = Belief(recorded.file_size, BLOCK, recorded.file_size)
    belief.know(recorded.layout)
    taken = 0
    for start, end in reads:
        belief.observe(start, end)
        for span in wanted(belief):
            assert 0 <= span.start < span.end <= recorded.file_size
            taken += span.size
    assert taken <= 3 * recorded.file_size

"""Part plans against the store's limits and a model of the bytes."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ossfs_py.extents import ExtentSet
from ossfs_py.model import ByteRange
from ossfs_py.writing.parts import (
    CopyPart,
    LocalPart,
    PartLimits,
    PartPlan,
    PartSchedule,
    plan_commit,
)

MIB = 1024**2
GIB = 1024**3
TIB = 1024**4
REAL = PartLimits()
TINY = PartLimits(min_part=5, first_part=8, copy_part=16, max_part=64, max_parts=40)


def moved(plan: list[PartPlan]) -> tuple[int, int]:
    """Bytes sent and bytes downloaded."""
    local = [part for part in plan if isinstance(part, LocalPart)]
    return sum(p.span.size for p in local), sum(f.size for p in local for f in p.fills)


def check(plan: list[PartPlan], size: int, valid: int, dirty: ExtentSet, limits: PartLimits):
    assert plan[0].span.start == 0
    assert plan[-1].span.end == size
    assert all(a.span.end == b.span.start for a, b in pairwise(plan))
    if len(plan) > 1:
        assert all(p.span.size >= limits.min_part for p in plan[:-1])
        assert all(0 < p.span.size <= limits.max_part for p in plan)
    assert len(plan) <= limits.max_parts
    for part in plan:
        clean = list(dirty.gaps(part.span.start, min(part.span.end, valid)))
        if isinstance(part, CopyPart):
            assert clean == [part.span]
        else:
            assert list(part.fills) == clean


@settings(max_examples=400)
@given(
    size=st.integers(0, 600),
    valid=st.integers(0, 600),
    spans=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 30)), max_size=30),
    part_copy=st.booleans(),
)
def test_a_plan_covers_the_file_within_the_stores_limits(size, valid, spans, part_copy):
    dirty = ExtentSet(ByteRange(s, min(s + n, size)) for s, n in spans)
    valid = min(valid, size)
    plan = plan_commit(size, valid, dirty, part_copy=part_copy, limits=TINY)
    check(plan, size, valid, dirty, TINY)
    if not part_copy:
        assert not any(isinstance(part, CopyPart) for part in plan)


def test_appending_a_mebibyte_to_a_gibibyte_moves_only_the_tail():
    dirty = ExtentSet([ByteRange(GIB, GIB + MIB)])
    plan = plan_commit(GIB + MIB, GIB, dirty, part_copy=True, limits=REAL)
    check(plan, GIB + MIB, GIB, dirty, REAL)
    assert moved(plan) == (MIB, 0)


@pytest.mark.parametrize("at", [0, 4096, GIB // 2, GIB - 4096, GIB - 8 * MIB])
def test_changing_four_kibibytes_of_a_gibibyte_moves_little_more_than_a_part(at):
    dirty = ExtentSet([ByteRange(at, at + 4096)])
    plan = plan_commit(GIB, GIB, dirty, part_copy=True, limits=REAL)
    check(plan, GIB, GIB, dirty, REAL)
    sent, fetched = moved(plan)
    assert sent <= 10 * MIB
    assert fetched <= 10 * MIB


def test_a_small_file_is_one_put():
    dirty = ExtentSet([ByteRange(100, 200)])
    plan = plan_commit(8 * MIB, 8 * MIB, dirty, part_copy=True, limits=REAL)
    assert plan == [LocalPart(ByteRange(0, 8 * MIB), (ByteRange(0, 100), ByteRange(200, 8 * MIB)))]


def test_an_empty_file_is_one_put_of_nothing():
    plan = plan_commit(0, 0, ExtentSet(), part_copy=True, limits=REAL)
    assert plan == [LocalPart(ByteRange(0, 0))]


def test_a_shortened_object_is_copied_without_moving_a_byte():
    plan = plan_commit(100 * MIB, 100 * MIB, ExtentSet(), part_copy=True, limits=REAL)
    check(plan, 100 * MIB, 100 * MIB, ExtentSet(), REAL)
    assert moved(plan) == (0, 0)


def test_many_scattered_changes_of_a_huge_object_fit_the_part_limit():
    size = 4 * TIB
    step = 128 * MIB
    dirty = ExtentSet(ByteRange(at, at + 4096) for at in range(0, size, step))
    plan = plan_commit(size, size, dirty, part_copy=True, limits=REAL)
    check(plan, size, size, dirty, REAL)


def test_a_fresh_object_of_the_largest_size_fits_the_part_limit():
    dirty = ExtentSet([ByteRange(0, 5 * TIB)])
    plan = plan_commit(5 * TIB, 0, dirty, part_copy=True, limits=REAL)
    check(plan, 5 * TIB, 0, dirty, REAL)


EQUAL = replace(TINY, equal_part=32)


@settings(max_examples=400)
@given(
    size=st.integers(0, 600),
    valid=st.integers(0, 600),
    spans=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 30)), max_size=30),
    part_copy=st.booleans(),
)
def test_a_plan_of_equal_parts_ends_with_the_only_smaller_one(size, valid, spans, part_copy):
    dirty = ExtentSet(ByteRange(s, min(s + n, size)) for s, n in spans)
    valid = min(valid, size)
    plan = plan_commit(size, valid, dirty, part_copy=part_copy, limits=EQUAL)
    check(plan, size, valid, dirty, EQUAL)
    sizes = [part.span.size for part in plan]
    assert len(set(sizes[:-1])) <= 1
    assert sizes[-1] <= sizes[0]
    assert part_copy or not any(isinstance(part, CopyPart) for part in plan)


@pytest.mark.parametrize(("size", "most"), [(GIB, 8 * MIB), (140 * GIB, 128 * MIB)])
def test_a_change_in_equal_parts_moves_one_of_them(size, most):
    limits = replace(REAL, equal_part=32 * MIB)
    dirty = ExtentSet([ByteRange(size // 2, size // 2 + 4096)])
    plan = plan_commit(size, size, dirty, part_copy=True, limits=limits)
    check(plan, size, size, dirty, limits)
    assert len(plan) <= 2000
    assert max(moved(plan)) <= most
    huge = plan_commit(5 * TIB, 0, ExtentSet(), part_copy=True, limits=limits)
    assert len(huge) <= 2000


def test_a_schedule_of_equal_parts_never_grows():
    schedule = PartSchedule(replace(REAL, equal_part=32 * MIB))
    assert schedule.span(1) == ByteRange(0, 32 * MIB)
    assert schedule.span(10_000).size == 32 * MIB
    assert schedule.capacity == 10_000 * 32 * MIB
    assert schedule.agrees(PartSchedule(replace(REAL, equal_part=32 * MIB), 64 * MIB), 100 * GIB)


def test_the_schedule_holds_the_largest_object_in_ten_thousand_parts():
    schedule = PartSchedule(REAL)
    assert schedule.span(1) == ByteRange(0, 8 * MIB)
    assert schedule.capacity >= 5 * TIB
    assert schedule.number_at(5 * TIB - 1) <= 10_000
    assert schedule.span(10_000).size <= 5 * GIB


def test_a_capped_schedule_never_exceeds_its_cap():
    schedule = PartSchedule(REAL, cap=64 * MIB)
    assert schedule.span(10_000).size == 64 * MIB
    assert schedule.capacity > 400 * GIB


@given(st.integers(1, 40), st.sampled_from([None, 8, 20, 64]))
def test_schedule_spans_touch_and_numbers_are_found_again(number, cap):
    schedule = PartSchedule(TINY, cap)
    span = schedule.span(number)
    assert schedule.span(number + 1).start == span.end
    assert schedule.number_at(span.start) == number
    assert schedule.number_at(span.end - 1) == number
    assert schedule.span(40).end == schedule.capacity

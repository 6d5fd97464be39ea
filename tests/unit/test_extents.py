"""ExtentSet against a plain set of byte numbers."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ossfs_py.extents import ExtentSet
from ossfs_py.model import ByteRange

POSITIONS = st.integers(0, 40)
CHANGES = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "truncate"]), POSITIONS, POSITIONS), max_size=30
)


def build(changes: list[tuple[str, int, int]]) -> tuple[ExtentSet, set[int]]:
    extents, model = ExtentSet(), set[int]()
    for name, first, second in changes:
        if name == "add":
            extents.add(first, second)
            model |= set(range(first, second))
        elif name == "remove":
            extents.remove(first, second)
            model -= set(range(first, second))
        else:
            extents.truncate(first)
            model = {n for n in model if n < first}
    return extents, model


def bytes_of(spans: list[ByteRange]) -> list[int]:
    return [n for span in spans for n in range(span.start, span.end)]


@given(CHANGES)
def test_changes_leave_the_bytes_a_plain_set_would_hold(changes):
    extents, model = build(changes)
    spans = list(extents)
    assert bytes_of(spans) == sorted(model)
    assert all(a.end < b.start for a, b in pairwise(spans))
    assert bool(extents) == bool(model)
    assert len(extents) == len(spans)


@given(CHANGES, POSITIONS, POSITIONS)
def test_questions_about_a_span_are_answered_as_by_a_plain_set(changes, start, end):
    extents, model = build(changes)
    asked = set(range(start, end))
    assert extents.covers(start, end) == (asked <= model)
    assert bytes_of(list(extents.within(start, end))) == sorted(asked & model)
    assert bytes_of(list(extents.gaps(start, end))) == sorted(asked - model)


@given(CHANGES, POSITIONS, st.integers(1, 40))
def test_run_at_walks_over_a_span_in_alternating_steps(changes, start, length):
    extents, model = build(changes)
    position, end = start, start + length
    while position < end:
        present, until = extents.run_at(position, end)
        assert position < until <= end
        assert all((n in model) == present for n in range(position, until))
        position = until


@given(CHANGES)
def test_a_copy_is_equal_and_independent(changes):
    extents, _model = build(changes)
    twin = extents.copy()
    assert twin == extents
    twin.add(100, 101)
    assert twin != extents
    assert ExtentSet(extents) == extents
    extents.clear()
    assert not extents


def test_sequential_appends_stay_one_span():
    extents = ExtentSet()
    for start in range(0, 1000, 10):
        extents.add(start, start + 10)
    assert list(extents) == [ByteRange(0, 1000)]
    assert repr(extents) == "ExtentSet(0-1000)"


def test_a_set_is_not_equal_to_something_else():
    assert ExtentSet() != []

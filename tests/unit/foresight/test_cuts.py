"""Where requests end, so that the beginnings of parts come first and no more requests are made."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ossfs_py.foresight.cuts import Cuts
from ossfs_py.foresight.layout import Layout
from tests.support.traces import trace

MIB = 1024**2
BLOCK = 8 * MIB
FIRST = 5000


def laid_out(sizes: list[int]) -> Layout:
    ends = tuple(itertools.accumulate(sizes, initial=FIRST))
    return Layout(ends[:-1], ends[1:])


def pieces(cuts: Cuts, size: int) -> list[tuple[int, int]]:
    found, position = [], 0
    while position < size:
        end = min(cuts.behind(position), size)
        found.append((position, end))
        position = end
    return found


def test_without_parts_requests_end_on_multiples_of_a_block() -> None:
    cuts = Cuts(BLOCK, 100 * MIB)
    assert not cuts.follow_parts
    assert cuts.behind(0) == BLOCK
    assert cuts.behind(BLOCK) == 2 * BLOCK
    assert cuts.of_parts_behind(0) is None


def test_a_part_of_many_blocks_begins_with_a_short_piece_and_takes_no_more_requests() -> None:
    """28 MiB: 4 requests, the first of which has 4 MiB."""
    sizes = [28 * MIB] * 4
    size = FIRST + sum(sizes)
    cuts = Cuts(BLOCK, size, laid_out(sizes))
    place = 27 * MIB  # the kernel reads from 1 MiB before the second part on
    assert cuts.around(place + FIRST, place + FIRST + 2 * MIB) == (place, place + 4 * MIB)
    assert [cuts.behind(place + MIB * at) // MIB for at in (4, 12, 20)] == [39, 47, 55]
    assert len(pieces(cuts, size)) == 4 * 4


def test_small_parts_share_a_piece_and_one_behind_a_large_part_begins_one() -> None:
    sizes = [28 * MIB, 28 * MIB, 4 * MIB, 28 * MIB]
    size = FIRST + sum(sizes)
    cuts = Cuts(BLOCK, size, laid_out(sizes))
    first = 55 * MIB
    assert cuts.around(first + FIRST, first + FIRST + 2 * MIB) == (55 * MIB, 59 * MIB)
    many = [100_000] * 1000
    cuts = Cuts(BLOCK, FIRST + sum(many), laid_out(many))
    assert len(pieces(cuts, FIRST + sum(many))) <= sum(many) // (7 * MIB) + 1


@pytest.mark.parametrize(("name", "requests"), [("load_file_large", 138), ("load_file", 53)])
def test_a_real_model_takes_hardly_more_requests_than_blocks(name: str, requests: int) -> None:
    """124 and 47 blocks; the pieces that parts begin in are less than half of the bytes."""
    recorded = trace(name)
    cuts = Cuts(BLOCK, recorded.file_size, recorded.layout)
    assert len(pieces(cuts, recorded.file_size)) <= requests
    assert cuts.head_bytes <= recorded.file_size // 2


@given(
    st.lists(st.integers(1, 60 * MIB), min_size=1, max_size=40),
    st.sampled_from([MIB, 4 * MIB, BLOCK]),
)
def test_pieces_of_any_layout_are_no_longer_than_a_block_and_hold_what_is_read_around(
    sizes: list[int], block: int
) -> None:
    layout = laid_out(sizes)
    size = layout.ends[-1]
    cuts = Cuts(block, size, layout)
    found = pieces(cuts, size)
    assert all(0 < end - start <= block for start, end in found)
    assert len(found) <= size // block + len(sizes) + 2
    assert cuts.head_bytes <= size
    for start in layout.starts:
        least, most = cuts.around(max(0, start - MIB), min(start + MIB, size))
        assert least <= max(0, start - MIB)
        assert most >= min(start + MIB, size)
        assert most - least <= 2 * MIB + 2 * block

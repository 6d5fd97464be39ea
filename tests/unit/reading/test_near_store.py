"""A store nearby: little is read ahead, and little of what was read stays in memory."""

from dataclasses import replace

import pytest

from ossfs_py.foresight.belief import Belief
from ossfs_py.model import ObjectVersion
from ossfs_py.reading.chunks import Chunk, ChunkIndex
from ossfs_py.reading.planning import NothingOnDisk, Planner, ReadOptions
from ossfs_py.reading.reader import VersionReader
from ossfs_py.reading.streams import MIB, StreamLimits, StreamTable
from ossfs_py.store.base import FirstBytes
from tests.support.pattern_store import PatternStore, pattern, reading_over
from tests.support.trio_tests import in_trio

SIZE = 256 * MIB
NEAR, FAR = 0.0005, 0.025


def after(*seconds: float) -> FirstBytes:
    first_bytes = FirstBytes()
    for one in seconds:
        first_bytes.note(one)
    return first_bytes


def test_a_store_is_near_by_its_quickest_answers() -> None:
    assert not after().come_at_once
    assert not after(FAR).come_at_once
    assert after(NEAR).come_at_once
    assert after(NEAR, *[FAR] * 1000).come_at_once  # a machine that is busy for a moment
    assert after(*[FAR] * 10, NEAR).come_at_once


def test_a_store_that_is_far_now_counts_as_far_after_a_while() -> None:
    now = 100.0
    first_bytes = FirstBytes(lambda: now)
    first_bytes.note(NEAR)
    for now in (109.0, 110.0, 119.0):  # noqa: B007 - the clock's
        first_bytes.note(FAR)
        assert first_bytes.come_at_once
    now = 120.0
    first_bytes.note(FAR)
    assert not first_bytes.come_at_once
    first_bytes.note(NEAR)
    now = 200.0  # it was not asked for longer than that
    first_bytes.note(FAR)
    assert not first_bytes.come_at_once


@pytest.mark.parametrize(("seconds", "is_near"), [(NEAR, True), (FAR, False)])
@in_trio
async def test_blocks_know_whether_their_store_is_near(seconds: float, is_near: bool) -> None:
    """``Resident`` and the streams go by that; see their tests."""
    store = PatternStore()
    context = replace(reading_over(store), first_bytes=after(seconds))
    reader = VersionReader(context, ObjectVersion("key", "etag", SIZE))
    assert await reader.read(0, MIB) == pattern(0, MIB)
    assert [chunk.near for chunk in reader._index if chunk.ready] == [is_near]
    assert reader._look().streams.near is is_near
    reader.close()
    context.network.close()
    context.files.close()


@pytest.mark.parametrize(
    ("near", "grain", "most"), [(True, 1, 8), (True, 64 * 1024, 2), (False, 1, 2)]
)
def test_a_store_nearby_is_asked_for_larger_pieces(near: bool, grain: int, most: int) -> None:
    """Few requests keep the link to it busy; blocks of a shared cache come from several nodes."""
    index, streams = ChunkIndex(Unlimited()), StreamTable(StreamLimits())
    streams.near = near
    options = ReadOptions(grain_bytes=grain)
    belief = Belief(SIZE, options.block_size_bytes, SIZE)
    planner = Planner(SIZE, options, index, streams, belief, NothingOnDisk())
    stream = streams.observe(0, MIB, 0.0)
    stream.window, stream.limit, stream.limit_is_exact = 32 * MIB, SIZE, True
    sizes = []
    while (span := planner.next_ahead(stream)) is not None and span.start < 64 * MIB:
        index.ask(span.start, span.end)
        sizes.append(span.size)
    assert max(sizes) == most * MIB


class Unlimited:
    """Keeps everything."""

    def landed(self, chunk: Chunk) -> None:
        pass

    def left(self, chunk: Chunk, *, had_bytes: bool) -> None:
        pass

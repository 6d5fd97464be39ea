"""Reads that go straight on are answered at once, and nobody loses sight of them."""

import pytest

from ossfs_py.foresight.layout import Layout
from ossfs_py.model import ObjectVersion
from ossfs_py.reading.chunks import Chunk
from ossfs_py.reading.context import ReadContext
from ossfs_py.reading.reader import VersionReader
from ossfs_py.reading.straight import Straight
from ossfs_py.reading.streams import MIB
from ossfs_py.telemetry.metrics import DISK, MEMORY, NETWORK, USED
from tests.support.pattern_store import PatternStore, pattern, reading_over
from tests.support.trio_tests import in_trio

SIZE = 64 * MIB
STEP = MIB // 4


async def read(reader: VersionReader, start: int, end: int) -> bytes:
    data = reader.read_nowait(start, end)
    return bytes(data if data is not None else await reader.read(start, end))


async def straight_at(reader: VersionReader, start: int) -> int:
    """Read on from ``start`` until the next read would be answered without a question; where."""
    while True:
        assert await read(reader, start, start + STEP) == pattern(start, STEP)
        start += STEP
        if reader._straight is not None and reader._straight._until >= start + 2 * STEP:
            return start


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where the reads ended that were answered so."""
    ends: list[int] = []
    usual = Straight.read_on

    def read_on(self: Straight, end: int) -> memoryview | None:
        view = usual(self, end)
        if view is not None:
            ends.append(end)
        return view

    monkeypatch.setattr(Straight, "read_on", read_on)
    return ends


def chunk_at(reader: VersionReader, offset: int) -> Chunk:
    chunk = reader._index.at(offset)
    assert chunk is not None
    return chunk


def counted(shared: ReadContext) -> tuple[int, int]:
    """Bytes that were answered, and bytes read ahead that were used."""
    answered = shared.metrics.bytes_read.values
    return (
        sum(answered[source] for source in (MEMORY, DISK, NETWORK)),
        shared.metrics.prefetch_bytes.values[USED],
    )


@in_trio
async def test_every_byte_is_right_counted_once_and_observed(answered: list[int]) -> None:
    store = PatternStore()
    shared = reading_over(store)
    reader = VersionReader(shared, ObjectVersion("k", "e", SIZE))
    for start in range(0, SIZE, STEP):
        assert await read(reader, start, start + STEP) == pattern(start, STEP)
    assert len(answered) > SIZE // STEP // 4, "most of them go straight on"
    assert store.served == SIZE
    total, used = counted(shared)
    assert total == SIZE
    assert used <= SIZE
    assert reader._look().belief._read.covers(0, SIZE)
    assert not [chunk for chunk in reader._index if chunk.given != chunk.size]
    reader.close()
    assert shared.memory.used_bytes == 0


@in_trio
async def test_a_block_that_was_given_up_is_fetched_again(answered: list[int]) -> None:
    store = PatternStore()
    reader = VersionReader(reading_over(store), ObjectVersion("k", "e", SIZE))
    at = await straight_at(reader, 0)
    answered.clear()
    chunk_at(reader, at).evict()
    assert await read(reader, at, at + STEP) == pattern(at, STEP)
    assert not answered


@in_trio
async def test_the_last_bytes_of_a_block_let_it_go(answered: list[int]) -> None:
    """Others have read the rest of it before: what is its last read is told by what was given."""
    reader = VersionReader(reading_over(PatternStore()), ObjectVersion("k", "e", SIZE))
    at = await straight_at(reader, 0)
    chunk = chunk_at(reader, at)
    chunk.given = chunk.size - STEP
    answered.clear()
    assert await read(reader, at, at + STEP) == pattern(at, STEP)
    assert not answered
    assert chunk in reader._resident._read


@in_trio
async def test_a_jump_and_another_reader_end_it(answered: list[int]) -> None:
    reader = VersionReader(reading_over(PatternStore()), ObjectVersion("k", "e", SIZE))
    at = await straight_at(reader, 0)
    assert await read(reader, at, at + STEP) == pattern(at, STEP)
    assert answered.pop() == at + STEP
    answered.clear()
    far = SIZE - 4 * MIB
    assert await read(reader, far, far + STEP) == pattern(far, STEP)
    assert reader._look().belief._read.covers(0, at + STEP), "what was read so is observed by then"
    assert await read(reader, at + STEP, at + 2 * STEP) == pattern(at + STEP, STEP)
    assert not answered


@in_trio
async def test_what_becomes_known_of_the_file_finds_everything_observed() -> None:
    reader = VersionReader(reading_over(PatternStore()), ObjectVersion("k", "e", SIZE))
    at = await straight_at(reader, 0)
    await read(reader, at, at + STEP)
    reader.know(Layout((MIB, 32 * MIB), (32 * MIB, SIZE)))
    assert reader._look().belief._read.covers(0, at + STEP)
    for start in range(at + STEP, at + 8 * STEP, STEP):
        assert await read(reader, start, start + STEP) == pattern(start, STEP)
        assert reader._straight is None, "something is believed of the file now"

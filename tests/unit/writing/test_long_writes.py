"""Long writes in order: as the kernel cuts them, and without a wait."""

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ossfs_py.errors import FileTooLargeError
from ossfs_py.runtime import pageroom
from ossfs_py.runtime.arrived import Arrived
from ossfs_py.runtime.pageroom import PageRoom
from ossfs_py.writing import segments
from ossfs_py.writing.context import WriteLimits
from ossfs_py.writing.dirty import DirtyFile
from tests.support.writing import REQUEST, TINY, TINY_PARTS, Writing, run

MIB = 1024**2
LIMITS = WriteLimits(small_bytes=0)
BEFORE_A_PAGE = 48
"""Where memory of malloc begins in its page, with Python's own bytes."""


def as_sent(content: bytes) -> Iterator[tuple[int, bytes]]:
    """WRITEs for calls of 4 MiB from memory that does not begin with a page."""
    for start in range(0, len(content), 4 * MIB):
        position, end = start, min(start + 4 * MIB, len(content))
        size = MIB - BEFORE_A_PAGE
        while position < end:
            yield position, content[position : min(position + size, end)]
            position += size
            size = MIB


async def write(w: Writing, file: DirtyFile, offset: int, data: bytes) -> tuple[bool, bool]:
    """Whether it was done without a wait, and whether the memory it arrived in was kept."""
    if len(data) < MIB // 2:
        prompt = file.write_nowait(offset, data)
        if not prompt:
            await file.write(offset, data)
        return prompt, False
    buffer = await w.pool.acquire(MIB)
    buffer.view[: len(data)] = data
    arrived = Arrived(buffer, len(data))
    prompt = file.write_nowait(offset, arrived)
    if not prompt:
        await file.write(offset, arrived)
    left = arrived.left
    if left is not None:
        left.view[:] = bytes(MIB)
        left.release()
    return prompt, left is None


@pytest.mark.parametrize("size", [7 * MIB, 24 * MIB + 5, 40 * MIB])
def test_nothing_long_is_copied_in_memory(tmp_path: Path, size: int) -> None:
    content = random.Random(size).randbytes(size)

    async def scenario(w: Writing) -> None:
        file = w.open(memory_first=True)
        for offset, data in as_sent(content):
            prompt, kept = await write(w, file, offset, data)
            assert kept == (len(data) > MIB // 2)
            # The first bytes of a part wait until the part before may go.
            assert prompt or offset % (8 * MIB) == 0
        if size < 8 * MIB:
            rests = -(-size // (4 * MIB)) * LIMITS.rest_bytes
            assert w.pool.used_bytes <= size + MIB + rests
        await file.commit(REQUEST)

    made = run(tmp_path, scenario, limits=LIMITS, memory_bytes=256 * MIB)
    assert made.store.content("file") == content
    assert made.pool.used_bytes == 0


@pytest.mark.parametrize("short", [1, 100, 4095])
def test_short_writes_after_a_long_one_fill_their_memory(tmp_path: Path, short: int) -> None:
    content = random.Random(short).randbytes(MIB + 200 * short)

    async def scenario(w: Writing) -> None:
        file = w.open(memory_first=True)
        assert await write(w, file, 0, content[:MIB]) == (False, True)
        for offset in range(MIB, len(content), short):
            await write(w, file, offset, content[offset : offset + short])
        rest = len(content) - MIB
        assert w.pool.used_bytes <= 2 * MIB + LIMITS.rest_bytes
        if rest <= LIMITS.rest_bytes:
            assert w.pool.used_bytes == MIB + LIMITS.rest_bytes
        await file.commit(REQUEST)

    made = run(tmp_path, scenario, limits=LIMITS, memory_bytes=64 * MIB)
    assert made.store.content("file") == content


@pytest.mark.parametrize("has_room", [True, False])
def test_a_file_on_disk_takes_long_writes_at_once_where_nobody_waits(
    tmp_path: Path, has_room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (pageroom, segments):  # a busy machine is no slow disk here
        monkeypatch.setattr(module, "_SLOW_SECONDS", math.inf)
    content = random.Random(9).randbytes(20 * MIB + 7)
    counts = tmp_path / "vmstat"
    threshold = 1_000_000 if has_room else 0
    counts.write_text(f"nr_dirty 1\nnr_writeback 1\nnr_dirty_background_threshold {threshold}\n")

    async def scenario(w: Writing) -> None:
        context = replace(w.context, page_room=PageRoom(counts))
        w.context = context
        file = w.open(memory_first=False)
        for offset, data in as_sent(content):
            prompt = file.write_nowait(offset, data)
            if not prompt:
                await file.write(offset, data)
            assert prompt == (offset > 0 and (has_room or len(data) < MIB // 2))
        await file.commit(REQUEST)

    made = run(tmp_path, scenario, limits=LIMITS, memory_bytes=64 * MIB)
    assert made.store.content("file") == content


def test_no_write_goes_past_the_last_part(tmp_path: Path) -> None:
    limits = replace(TINY, parts=replace(TINY_PARTS, max_parts=20, equal_part=8))
    capacity = 20 * 8

    async def scenario(w: Writing) -> None:
        file = w.open(memory_first=False)
        await file.write(0, b"first")
        assert file.write_nowait(5, b"next")
        assert not file.write_nowait(capacity - 1, b"too far")
        with pytest.raises(FileTooLargeError):
            await file.write(capacity - 1, b"too far")
        assert file.size == 9
        assert file.write_nowait(capacity - 1, b"!")

    run(tmp_path, scenario, limits=limits)

"""Long writes to the page cache: only while the kernel lets nobody wait."""

import mmap
import time
from pathlib import Path

import pytest

from ossfs_py.runtime.pageroom import PageRoom

MIB = 1024**2


def told(path: Path, *, dirty: int, writeback: int = 0, threshold_mib: int = 100) -> Path:
    pages = {
        "nr_dirty": dirty * MIB,
        "nr_writeback": writeback * MIB,
        "nr_dirty_background_threshold": threshold_mib * MIB,
    }
    lines = ("nr_free_pages 7", *(f"{name} {n // mmap.PAGESIZE}" for name, n in pages.items()))
    path.write_text("\n".join(lines) + "\n")
    return path


def taken(room: PageRoom) -> int:
    """MiB until the kernel is asked again, and says no."""
    count = 0
    while count < 1000 and room.take(MIB):
        count += 1
    return count


def test_what_is_taken_counts_until_the_kernel_is_asked_again(tmp_path: Path) -> None:
    counts = told(tmp_path / "vmstat", dirty=10)
    room = PageRoom(counts)
    assert all(room.take(MIB) for _ in range(16))
    told(counts, dirty=60, writeback=30)
    assert taken(PageRoom(told(tmp_path / "other", dirty=10))) == 1000  # those counts never change
    assert all(room.take(MIB) for _ in range(5))
    told(counts, dirty=60, writeback=40)
    assert not room.take(MIB)
    told(counts, dirty=0)
    assert room.take(MIB)


def test_a_write_that_took_long_is_the_last_for_a_while(tmp_path: Path) -> None:
    room = PageRoom(told(tmp_path / "vmstat", dirty=0))
    assert room.take(MIB)
    room.note_write(time.monotonic() - 0.01)
    assert room.take(MIB)
    room.note_write(time.monotonic() - 0.1)
    assert not room.take(MIB)


@pytest.mark.parametrize("text", [None, "", "nr_dirty many\n", "nr_dirty 1\nnr_writeback 1\n"])
def test_without_counts_nothing_is_taken(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "vmstat"
    if text is not None:
        path.write_text(text)
    assert not PageRoom(path).take(1)


@pytest.mark.skipif(not Path("/proc/vmstat").exists(), reason="Linux tells it there")
def test_this_kernel_tells_what_is_needed() -> None:
    fields = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    assert int(fields["nr_dirty_background_threshold"]) > 0
    assert {"nr_dirty", "nr_writeback"} <= fields.keys()

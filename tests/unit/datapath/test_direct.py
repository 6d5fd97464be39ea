"""Past the page cache: right bytes or none, whatever the memory and the file system."""

import mmap
import os
import time
from pathlib import Path

import pytest

from ossfs_py.datapath.diskcache.pastpages import DirectFile

SIZE = 3 * 1024**2 + 777
CONTENT = os.urandom(SIZE)


@pytest.fixture
def fd(tmp_path: Path):
    path = tmp_path / "blocks"
    path.write_bytes(CONTENT)
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize(("offset", "size"), [(0, 1024**2), (4096, SIZE - 4096), (0, 100)])
def test_what_is_read_is_what_is_there(fd: int, offset: int, size: int, shift: int) -> None:
    """``shift`` takes the memory off the alignment that disks want."""
    direct = DirectFile(fd)
    memory = mmap.mmap(-1, 4 * 1024**2)
    view = memoryview(memory)[shift : shift + size]
    done = direct.read(view, offset)
    assert done in (0, size - size % 4096)
    assert view[:done] == CONTENT[offset : offset + done]
    assert not any(view[done:])
    direct.close()


def test_what_was_just_written_is_read(fd: int) -> None:
    direct = DirectFile(fd)
    os.pwrite(fd, b"new" * 4096, 8192)
    view = memoryview(mmap.mmap(-1, 1024**2))
    done = direct.read(view, 0)
    assert not done or bytes(view[8192 : 8192 + 12288]) == b"new" * 4096
    direct.close()


def test_what_the_page_cache_holds_is_left_to_it(fd: int) -> None:
    os.pread(fd, SIZE, 0)
    direct = DirectFile(fd)
    assert direct.read(memoryview(mmap.mmap(-1, 1024**2)), 0) == 0
    direct.close()


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("size", [1024**2, 1024**2 + 5, 100])
def test_what_is_written_is_there(fd: int, size: int, shift: int) -> None:
    direct = DirectFile(fd)
    memory = mmap.mmap(-1, 4 * 1024**2)
    view = memoryview(memory)[shift : shift + size]
    view[:] = new = os.urandom(size)
    done = direct.write(view, 4096)
    assert done in (0, size - size % 4096)
    after = os.pread(fd, SIZE, 0)
    assert after[4096 : 4096 + done] == new[:done]
    assert after[4096 + done :] == CONTENT[4096 + done :]
    assert after[:4096] == CONTENT[:4096]
    direct.close()


def test_a_slow_disk_gets_its_blocks_through_the_page_cache(
    fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page cache takes in a burst at once; after a while the disk is tried again."""
    direct = DirectFile(fd)
    real, calls = os.pwritev, []

    def slow(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        calls.append(offset)
        time.sleep(0.05)
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "pwritev", slow)
    view = memoryview(mmap.mmap(-1, 1024**2))
    written = [direct.write(view, 0) for _ in range(18)]
    if written[0]:
        assert written == [1024**2, *[0] * 16, 1024**2]
        assert len(calls) == 2
    direct.close()

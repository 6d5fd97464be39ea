"""Past the page cache: right bytes or none, whatever the memory and the file system."""

import ctypes
import mmap
import os
import time
from pathlib import Path

import pytest

from ossfs_py.datapath.temp import TempBackend
from ossfs_py.model import ObjectVersion
from ossfs_py.runtime.diskroom import DiskRoom
from ossfs_py.runtime.pastpages import DIRECT_FROM_BYTES, DirectFile
from ossfs_py.runtime.slabs import mapping

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


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("size", [DIRECT_FROM_BYTES, DIRECT_FROM_BYTES + 777])
def test_a_temporary_file_gives_back_what_it_was_given(
    tmp_path: Path, size: int, shift: int
) -> None:
    """Its last bytes fill no page, and memory that is not aligned goes the ordinary way."""
    backend = TempBackend(ObjectVersion("key", "etag", size), tmp_path, DiskRoom())
    content = os.urandom(size)
    memory = memoryview(mapping(size + 4096))[shift : shift + size]
    memory[:] = content
    half = DIRECT_FROM_BYTES // 2
    for start, end in ((half, size), (0, half)):
        assert backend.keep(start, memory[start:end])
    again = memoryview(mapping(size + 4096))[shift : shift + size]
    for start, end in ((0, half), (half, size)):
        backend.load_into(start, again[start:end])
    assert again == content
    backend.close()


def test_a_temporary_file_leaves_no_pages(tmp_path: Path) -> None:
    """What is read through the mount has pages there, and needs none a second time."""
    size = DIRECT_FROM_BYTES
    backend = TempBackend(ObjectVersion("key", "etag", size), tmp_path, DiskRoom())
    fd = backend._file.fileno()
    if not DirectFile(fd).works:
        pytest.skip("the file system has no such descriptors")
    assert backend.keep(0, memoryview(mapping(size)))
    assert not resident_bytes(fd, size)
    backend.close()


def resident_bytes(fd: int, size: int) -> int:
    """How much of a file the page cache has (mincore(2))."""
    memory = mmap.mmap(fd, size)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    assert not ctypes.CDLL(None).mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), pages)
    return sum(page & 1 for page in pages) * mmap.PAGESIZE

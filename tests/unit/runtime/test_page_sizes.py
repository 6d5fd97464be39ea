"""A machine whose pages have 64 KiB, as some aarch64 kernels have them, played by this one."""

import ctypes
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ossfs_py.runtime import pastpages

PAGE_BYTES = 64 * 1024
MIB = 1024**2
LARGER_PAGES = f"""
import mmap, os
real = os.sysconf
mmap.PAGESIZE = {PAGE_BYTES}
os.sysconf = lambda name: {PAGE_BYTES} if name in ("SC_PAGESIZE", "SC_PAGE_SIZE") else real(name)
from ossfs_py.foresight.accesses import PAGE_BYTES
from ossfs_py.fuse import lane
print(PAGE_BYTES, lane._MOST_PAGES * lane._PAGE_BYTES)
"""


def test_a_request_is_as_long_in_bytes_and_reads_begin_on_the_machines_pages() -> None:
    told = subprocess.run(
        [sys.executable, "-c", LARGER_PAGES], capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == [str(PAGE_BYTES), str(4 * MIB)]


class LargePages:
    """cachestat(2) that counts pages of 64 KiB: those of one MiB are all there."""

    def syscall(self, _number: int, _fd: int, _span: object, counts: object, _flags: int) -> int:
        address = ctypes.cast(counts, ctypes.POINTER(ctypes.c_uint64))  # type: ignore[arg-type]
        address[0] = MIB // PAGE_BYTES
        return 0


def test_what_large_pages_hold_is_left_to_the_page_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "blocks"
    path.write_bytes(bytes(MIB))
    monkeypatch.setattr(pastpages, "_LIBC", LargePages())
    monkeypatch.setattr(mmap, "PAGESIZE", PAGE_BYTES)
    fd = os.open(path, os.O_RDWR)
    direct = pastpages.DirectFile(fd)
    try:
        assert direct.read(memoryview(mmap.mmap(-1, MIB)), 0) == 0
    finally:
        direct.close()
        os.close(fd)

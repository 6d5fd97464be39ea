"""The kernel's page cache of one file: drop it, and see what stays. Linux only, like FUSE."""

import ctypes
import mmap
import os

_WINDOW_BYTES = 1024**3
"""Bytes checked with one call; a multiple of every page size. The answer has one byte for each
page."""
_MAP_FAILED = ctypes.c_void_p(-1).value
_PROT_NONE = 0
"""Nothing is read through these mappings (mman-common.h); the mmap module has no name for it."""


def drop_pages(fd: int) -> None:
    """Ask the kernel to drop the file's pages; those that others have mapped stay.

    Raises:
        OSError: as of posix_fadvise(2).
    """
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def resident_bytes(fd: int) -> int | None:
    """How much of the file the page cache holds, in whole pages; None where it does not say.

    The kernel (since 5.2) tells only who could write to the file; to others it calls
    everything resident.

    Raises:
        OSError: as of mmap(2) and mincore(2).
    """
    status = os.fstat(fd)
    if os.geteuid() not in (0, status.st_uid):
        return None
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    library.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    library.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    pages = 0
    for offset in range(0, status.st_size, _WINDOW_BYTES):
        length = min(_WINDOW_BYTES, status.st_size - offset)
        address = library.mmap(None, length, _PROT_NONE, mmap.MAP_SHARED, fd, offset)
        if address == _MAP_FAILED:
            raise _last_error()
        answer = ctypes.create_string_buffer(-(-length // mmap.PAGESIZE))
        failed = library.mincore(address, length, answer)
        error = _last_error()
        library.munmap(address, length)
        if failed:
            raise error
        pages += answer.raw.count(1)
    return pages * mmap.PAGESIZE


def _last_error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))

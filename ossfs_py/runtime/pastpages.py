"""Reading and writing cached blocks past the kernel's page cache.

What a mount reads through its cache goes into the page cache once, as pages of the mounted file.
The ordinary way it would lie there a second time, as pages of the cache file, and filling those
costs more processor time than everything else: a first read of 1 GiB through the cache took 2.3
CPU-s when it was written so, and 1.4 this way.
"""

import ctypes
import mmap
import os
import sys
import time
from contextlib import suppress

DIRECT_FROM_BYTES = 8 * 1024**2
"""Smaller objects are not worth a second descriptor."""

_BLOCK_BYTES = 4096
"""Offsets and lengths are multiples of this, as disks want it, whatever the page size is."""
_CACHESTAT = 451
"""The number of cachestat(2), which is the same on every architecture but alpha. Linux 6.5."""


_FAST_BYTES_PER_SECOND = 100e6
"""A disk that takes a block more slowly, beside three others, gets the next ones through the page
cache, which takes in a burst at once."""

_ORDINARY_WRITES = 16
"""Then it is tried again."""


class _Range(ctypes.Structure):
    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _CacheStat(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recent")
    )


class DirectFile:
    """A second descriptor of an open file, whose reads and writes leave no pages behind."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._ordinary_writes = 0
        """How many more writes go the ordinary way."""
        self._direct_fd = -1
        if sys.platform == "linux" and hasattr(os, "O_DIRECT"):
            # Some file systems have no such descriptors.
            with suppress(OSError):
                self._direct_fd = os.open(
                    f"/proc/self/fd/{fd}", os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC
                )

    @property
    def works(self) -> bool:
        """Whether the file system has such descriptors."""
        return self._direct_fd >= 0

    def read(self, view: memoryview, offset: int) -> int:
        """Fill as much of ``view`` as can be had so; the rest has to be read the ordinary way.

        Nothing, if the page cache holds most of it already.
        """
        whole = len(view) - len(view) % _BLOCK_BYTES
        if self._direct_fd < 0 or not whole or self._is_cached(offset, whole):
            return 0
        done = 0
        # Refused: the memory is not aligned as the disk wants it. Failed: the ordinary way tells.
        with suppress(OSError):
            while done < whole:
                count = os.preadv(self._direct_fd, [view[done:whole]], offset + done)
                done += count
                if count == 0 or count % _BLOCK_BYTES:
                    break
        return done

    def write(self, view: memoryview, offset: int) -> int:
        """Write as much of ``view`` as can be had so; the rest has to be written the ordinary way.

        Nothing, for a while, if the disk is slow.
        """
        whole = len(view) - len(view) % _BLOCK_BYTES
        if self._direct_fd < 0 or not whole:
            return 0
        if self._ordinary_writes:
            self._ordinary_writes -= 1
            return 0
        began, done = time.monotonic(), 0
        # As above.
        with suppress(OSError):
            while done < whole:
                count = os.pwritev(self._direct_fd, [view[done:whole]], offset + done)
                done += count
                if count % _BLOCK_BYTES:
                    break
        if time.monotonic() - began > done / _FAST_BYTES_PER_SECOND:
            self._ordinary_writes = _ORDINARY_WRITES
        return done

    def close(self) -> None:
        """Close the second descriptor."""
        fd, self._direct_fd = self._direct_fd, -1
        if fd >= 0:
            os.close(fd)

    def _is_cached(self, offset: int, length: int) -> bool:
        """Whether most of a span is in the page cache; yes where the kernel cannot tell."""
        span, counts = _Range(offset, length), _CacheStat()
        arguments = (self._fd, ctypes.byref(span), ctypes.byref(counts), 0)
        if _LIBC.syscall(_CACHESTAT, *arguments):
            return True
        return bool(counts.cached * mmap.PAGESIZE > length // 2)


_LIBC = ctypes.CDLL(None)

"""How much can be written to local files before the kernel lets writers wait for the disk."""

import mmap
import time
from pathlib import Path

_LOOK_AGAIN_BYTES = 16 * 1024**2
"""After so many bytes the kernel's counts are read again, which takes 60 us."""
_SLOW_SECONDS = 0.05
_SLOW_FOR_SECONDS = 5.0
"""A write that took so long waited for the disk all the same: a container has thresholds of its
own, and a file system's log can be full. The kernel lets a writer wait for at most 0.2 s at a
time: 4 % of these seconds.
"""
_COUNTS = Path("/proc/vmstat")


class PageRoom:
    """Whether a long write goes to the page cache without a wait. Belongs to the trio thread.

    While fewer pages than the kernel's background threshold are not on disk yet, no writer waits
    (balance_dirty_pages; ``vm.dirty_background_ratio``, usually a tenth of the memory).
    """

    def __init__(self, counts: Path = _COUNTS) -> None:
        self._counts = counts
        self._left = 0
        self._slow_until = 0.0

    def take(self, size: int) -> bool:
        """Whether ``size`` bytes can be written now; they count as written then."""
        if size > self._left:
            self._left = min(_LOOK_AGAIN_BYTES, self._free()) if self._is_fast else 0
        if size > self._left:
            return False
        self._left -= size
        return True

    def note_write(self, began: float) -> None:
        """Such a write has ended, which began at ``began`` (monotonic)."""
        now = time.monotonic()
        if now - began > _SLOW_SECONDS:
            self._left = 0
            self._slow_until = now + _SLOW_FOR_SECONDS

    @property
    def _is_fast(self) -> bool:
        return time.monotonic() >= self._slow_until

    def _free(self) -> int:
        """Bytes below the threshold, half of them left to others; 0 where the kernel tells none."""
        try:
            told = dict(line.split() for line in self._counts.read_text().splitlines())
            unwritten = int(told["nr_dirty"]) + int(told["nr_writeback"])
            threshold = int(told["nr_dirty_background_threshold"])
        except (OSError, ValueError, KeyError):
            return 0
        return max(0, threshold - unwritten) // 2 * mmap.PAGESIZE

"""READs that the kernel repeats: for a reader of the log, both are one failure."""

from cachetools import LRUCache

_MAX_HANDLES = 1024
_AT_ONCE_SECONDS = 1.0
"""The kernel repeats a READ at the moment when it is refused."""


class FailedReads:
    """Recognizes a failed READ that repeats the failed one before it.

    The kernel asks for more than a program does (readahead). If that fails, it asks once more, for
    the page that the program waits for, before it reports the error. Times are seconds on one
    clock.
    """

    def __init__(self) -> None:
        self._last: LRUCache[int, tuple[int, int, float]] = LRUCache(_MAX_HANDLES)

    def is_repeat(self, handle: int, offset: int, size: int, began: float, ended: float) -> bool:
        """Record a failed READ; returns whether it only repeats the failed one before it."""
        start, end, failed = self._last.pop(handle, (0, 0, 0.0))
        if start <= offset < end and began - failed < _AT_ONCE_SECONDS:
            return True
        self._last[handle] = (offset, offset + size, ended)
        return False

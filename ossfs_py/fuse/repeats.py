"""READs that the kernel sends again, and that are one failure to whoever reads the log."""

from cachetools import LRUCache

_MAX_HANDLES = 1024
_AT_ONCE_SECONDS = 1.0
"""The kernel repeats a READ in the moment it is refused."""


class FailedReads:
    """Tells a READ that failed from the one after it for the same bytes.

    The kernel asks for more than a program does (readahead). If that fails, it asks once more, for
    the page that the program waits for, before it tells the program. Times are seconds on one
    clock.
    """

    def __init__(self) -> None:
        self._last: LRUCache[int, tuple[int, int, float]] = LRUCache(_MAX_HANDLES)

    def is_repeat(self, handle: int, offset: int, size: int, began: float, ended: float) -> bool:
        """Note a READ that failed; whether it only repeats the one that failed before it."""
        start, end, failed = self._last.pop(handle, (0, 0, 0.0))
        if start <= offset < end and began - failed < _AT_ONCE_SECONDS:
            return True
        self._last[handle] = (offset, offset + size, ended)
        return False

"""Directories in which a program asks for one absent name after another. No I/O.

A program that creates files asks for each name first. One listing of the directory answers for all
of them, where it is one page; a larger directory is asked name by name.
"""

import trio
from cachetools import LRUCache

_BURST_SECONDS = 2.0
"""A name requested so soon after an absent one is likely to be absent, too."""
_LARGE_SECONDS = 60.0
"""For how long a directory of more than a page is taken for one: few become small again."""
_MAX_DIRECTORIES = 1024


class Bursts:
    """Belongs to the trio thread. Directories go by their inode numbers."""

    def __init__(self) -> None:
        self._missed_at: LRUCache[int, float] = LRUCache(_MAX_DIRECTORIES)
        self._large_at: LRUCache[int, float] = LRUCache(_MAX_DIRECTORIES)

    def missed(self, directory: int) -> None:
        """A name in the directory was requested and is absent."""
        self._missed_at[directory] = trio.current_time()

    def expects_absence(self, directory: int) -> bool:
        """Whether a name that is requested now is likely to be absent."""
        return self._is_recent(self._missed_at.get(directory), _BURST_SECONDS)

    def is_large(self, directory: int) -> bool:
        """Whether one page did not hold the directory when it was listed last."""
        return self._is_recent(self._large_at.get(directory), _LARGE_SECONDS)

    def found_large(self, directory: int) -> None:
        """One page does not hold the directory."""
        self._large_at[directory] = trio.current_time()

    @staticmethod
    def _is_recent(at: float | None, seconds: float) -> bool:
        return at is not None and trio.current_time() - at < seconds

"""Bytes that lie in several places."""

from collections.abc import Sequence
from typing import TypeAlias


class Scattered:
    """An answer whose bytes lie in several buffers, one piece behind the other: it is written with
    one system call, without having been joined.
    """

    __slots__ = ("_size", "views")

    def __init__(self, views: Sequence[memoryview]) -> None:
        self.views = views
        """Valid as long as each of them is."""
        self._size = sum(len(view) for view in views)

    def __len__(self) -> int:
        """Number of bytes."""
        return self._size

    def __bytes__(self) -> bytes:
        """A copy, joined."""
        return b"".join(self.views)


Answer: TypeAlias = memoryview | bytes | Scattered
"""What is given to a program that reads."""

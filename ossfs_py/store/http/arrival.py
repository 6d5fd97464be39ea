"""How far the body of an answer has come, for readers who want its first bytes before its last."""

from collections.abc import Callable

_LOOK_BYTES = 2 * 1024**2
"""Received at once while nobody waits: who comes later waits 23 ms at 90 MB/s for the receiver to
look again. Pieces of 1 MiB would take the lock of Python twice as often."""


class Arrival:
    """Bytes of one buffer, which one thread fills from the front, and another thread waits for.

    Without a lock: each side writes first what the other one looks at, and then looks itself. A
    reader may be told once too often, and never too seldom.
    """

    __slots__ = ("_reached", "_wanted", "arrived")

    def __init__(self, reached: Callable[[], None]) -> None:
        """``reached`` is called, in the thread that receives, when bytes that were wanted are
        there.
        """
        self._reached = reached
        self._wanted = 0
        """How many bytes the first waiting reader needs; 0: nobody waits."""
        self.arrived = 0
        """So many bytes are there, and stay as they are."""

    def want(self, count: int) -> bool:
        """Whether the first ``count`` bytes are there; if not, ``reached`` follows, or the end of
        the request.
        """
        if self.arrived >= count:
            return True
        if not self._wanted or count < self._wanted:
            self._wanted = count
        return self.arrived >= count  # they may have come before the receiver could see that

    def piece(self, most: int) -> int:
        """How much to receive of ``most`` bytes before :meth:`moved` tells of it. A low-water mark
        may delay that until so many more have come.
        """
        missing = self._wanted - self.arrived
        return min(most, missing if missing > 0 else _LOOK_BYTES)

    def moved(self, count: int) -> None:
        """``count`` more bytes are there."""
        self.arrived += count
        if 0 < self._wanted <= self.arrived:
            self._wanted = 0
            self._reached()

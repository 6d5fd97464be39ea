"""How many parts of a file are worth being in flight, by how fast the store takes one."""

import math
from typing import Final

_WANTED_BYTES_PER_SECOND: Final = 1.44e9
"""More than one program writes through one mount; 16 parts reach it at a cloud's 90 MB/s each."""
_FEWEST = 4
"""While the store works on one, others are on their way."""
_FORGETS = 0.95
"""What is left of the highest rate with each part that was slower: sixteen leave 0.44 of it."""
_SHORTEST_BYTES = 1024**2
"""A shorter part says more of the store's latency."""


class UploadPace:
    """How fast the store took a part of late, at best: others in its way make it slower. Any thread
    may use it.

    Each part in flight keeps its memory. Memory that is used again soon costs no page faults and is
    in the processor's cache: so a fast store gets fewer at a time.
    """

    def __init__(self) -> None:
        self._bytes_per_second = 0.0

    def took(self, size: int, seconds: float) -> None:
        """The store has taken a part in so much time."""
        if size >= _SHORTEST_BYTES:
            # Two threads may overwrite each other's, which matters little.
            before = self._bytes_per_second * _FORGETS
            self._bytes_per_second = max(size / max(seconds, 1e-6), before)

    def in_flight(self, most: int) -> int:
        """How many parts of a file to send at a time, at most ``most``."""
        rate = self._bytes_per_second
        if not rate:
            return most
        return min(most, max(_FEWEST, math.ceil(_WANTED_BYTES_PER_SECOND / rate)))

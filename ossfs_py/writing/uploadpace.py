"""How many parts of a file are worth being in flight: more, as long as that moves more."""

import math
from typing import Final

_WANTED_BYTES_PER_SECOND: Final = 1.44e9
"""More than one program writes through one mount; 16 parts reach it at a cloud's 90 MB/s each."""
_FEWEST: Final = 4
"""While the store works on one, others are on their way. Nothing is known of a store before the
first part, which a cloud takes in 0.12 s."""
_STEP: Final = 2
"""So many times as many parts are tried next."""
_MORE: Final = 1.5
"""So many times as many parts, at the least, tell whether more of them move more."""
_GAIN: Final = 1.2
"""So many times as much has to be moved then. Twice as many connections move twice as much, unless
something else is the limit: then each is slower, and keeps its memory for longer."""
_FORGETS_SECONDS: Final = 5.0
"""How long a comparison counts."""
_SHORTEST_BYTES: Final = 1024**2
"""A shorter part says more of the store's latency."""


class UploadPace:
    """What the store took of late with so many parts of a file in flight. Belongs to the trio
    thread.

    Each part in flight keeps its memory. Memory that is used again soon costs no page faults and is
    in the processor's cache. So a file begins with few parts at a time.
    """

    def __init__(self) -> None:
        self._most = _FEWEST
        self._until = -math.inf
        """When the following is forgotten."""
        self._beside = 0.0
        """With so many parts in flight ..."""
        self._bytes_per_second = 0.0
        """... each was taken at this rate."""
        self._parts = 0
        self._parts_beside = 0.0
        self._bytes = 0
        self._seconds = 0.0
        """The parts since then: their number, and the sums of what is known of each."""

    def took(self, size: int, seconds: float, beside: float, now: float) -> None:
        """The store has taken a part in so much time, with ``beside`` parts of its file in flight,
        itself included.
        """
        if size < _SHORTEST_BYTES:
            return
        self._parts += 1
        self._parts_beside += beside
        self._bytes += size
        self._seconds += max(seconds, 1e-6)
        # One part says little; but of the first one the next are already waiting to hear.
        if self._bytes_per_second and self._parts < max(_FEWEST, beside):
            return
        self._judge(self._parts_beside / self._parts, self._bytes / self._seconds, now)
        self._parts, self._parts_beside, self._bytes, self._seconds = 0, 0.0, 0, 0.0

    def _judge(self, beside: float, rate: float, now: float) -> None:
        moved, before = beside * rate, self._beside * self._bytes_per_second
        if now >= self._until or moved > _GAIN * before:
            self._beside, self._bytes_per_second = beside, rate
            self._until = now + _FORGETS_SECONDS
            self._most = max(_FEWEST, math.ceil(_STEP * beside))
        elif beside >= _MORE * self._beside:
            self._most = max(_FEWEST, math.ceil(self._beside))

    def in_flight(self, most: int) -> int:
        """How many parts of a file to send at a time, at most ``most``."""
        wanted = most
        if self._bytes_per_second:
            wanted = math.ceil(_WANTED_BYTES_PER_SECOND / self._bytes_per_second)
        return min(most, self._most, max(_FEWEST, wanted))

"""Asking twice for what is late: when a second request is worth its bytes. Pure.

A connection can sit on a dead path, or on a front end that has a bad moment, while all others are
quick. A reader who waits for it waits for the stall timeout; the same bytes over another
connection are usually there at once.
"""

from collections import deque

LEAST_SECONDS = 3.0
"""25 times what 8 MiB take at 25 ms to the first byte and 90 MB/s: a busy machine is no reason."""

_TIMES_SLOWER = 4.0
"""How much longer than its peers a request may take before it is asked again."""

_MOST_IN_FLIGHT = 4
"""When everything is late the store or the line is, and asking twice would make it worse."""

_OVERTAKEN_BY = 8
"""A request is late when so many that began after it were answered before it. On a machine without
a free processor all requests take seconds, and none is to blame."""

_FEW = 2
"""With so few in flight nobody can overtake."""

_REMEMBERED = 64

_WEIGHT = 0.1
"""Weight of the latest request in the running mean."""


class Hedging:
    """Times of requests, and whether a second one may be sent beside a late one."""

    def __init__(self, least_seconds: float = LEAST_SECONDS) -> None:
        self._least_seconds = least_seconds
        self._mean_seconds = 0.0
        self._answered: deque[float] = deque(maxlen=_REMEMBERED)
        self._in_flight = 0

    @property
    def patience_seconds(self) -> float:
        """How long a request may take before it is late."""
        return max(self._least_seconds, _TIMES_SLOWER * self._mean_seconds)

    def answered(self, begun_at: float, now: float) -> None:
        """A request that began then was answered now."""
        self._mean_seconds += _WEIGHT * (now - begun_at - self._mean_seconds)
        self._answered.append(begun_at)

    def begin(self, begun_at: float, requests: int) -> bool:
        """Whether a second request may be sent for one that began then; :meth:`end` follows.

        ``requests`` are in flight.
        """
        overtaken_by = sum(other > begun_at for other in self._answered)
        is_alone = requests <= _FEW
        if self._in_flight >= _MOST_IN_FLIGHT or not (overtaken_by >= _OVERTAKEN_BY or is_alone):
            return False
        self._in_flight += 1
        return True

    def end(self) -> None:
        """One of two for the same bytes has been answered, or failed."""
        self._in_flight -= 1

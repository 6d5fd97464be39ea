"""How many parts of a file are worth being in flight, by what more of them have gained."""

_FEWEST = 4
"""While the store works on one, others are on their way."""
_WORTH_IT = 1.3
"""Twice as many are kept if the bytes of all of them pass so many times as fast."""
_AGAIN_PARTS = 128
"""So many parts later twice as many are tried again: 1 GiB of a usual file."""


class UploadPace:
    """Raises the number of parts in flight while more of them are faster. Belongs to the trio
    thread.

    A cloud takes each connection's bytes at the same speed, however many there are: sixteen are
    four times as fast as four. A store nearby, or a link, has a speed that all of them share. There
    each part in flight only keeps its memory, and new memory costs page faults, while memory that
    is used again soon costs none and is in the processor's cache.
    """

    def __init__(self) -> None:
        self._wanted = _FEWEST
        self._with_half: float | None = None
        """Bytes a second with half as many, while twice as many are tried."""
        self._ignored = 1
        """Parts to wait for before the next measurement: they began before it."""
        self._rest = 0
        """Parts until twice as many are tried again."""
        self._since = 0.0
        self._parts = self._held = self._bytes = 0

    def in_flight(self, most: int) -> int:
        """How many parts of a file to send at a time, at most ``most``."""
        return min(most, self._wanted)

    def took(self, size: int, now: float, *, is_held: bool, most: int) -> None:
        """The store has a part. ``is_held``: others wait for their turn, so it is not the program
        that is slow. ``now`` is in seconds, ``most`` as of :meth:`in_flight`.
        """
        self._rest = max(0, self._rest - 1)
        if self._ignored:
            self._ignored -= 1
            self._begin(now)
            return
        self._parts += 1
        self._held += is_held
        self._bytes += size
        if self._parts < self._wanted:
            return
        rate = self._bytes / max(now - self._since, 1e-6)
        if 2 * self._held >= self._parts:
            self._judge(rate, most)
        self._begin(now)

    def _judge(self, rate: float, most: int) -> None:
        before, self._with_half = self._with_half, None
        if before is not None and rate < _WORTH_IT * before:
            self._wanted //= 2
            self._rest = _AGAIN_PARTS
            self._ignored = 2 * self._wanted
        elif self._wanted < most and not self._rest:
            self._with_half = rate
            self._wanted *= 2
            self._ignored = self._wanted // 2

    def _begin(self, now: float) -> None:
        self._since = now
        self._parts = self._held = self._bytes = 0

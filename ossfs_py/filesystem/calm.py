"""When what write-back took may be sent: once programs have stopped making more of it."""

import math
from collections.abc import Callable

import trio

CALM_SECONDS = 0.3
LONGEST_BUSY_SECONDS = 3.0
"""Files, directories and links are sent when none was made for some time, at the latest this long
after their own: a program that makes many has the processor and the lock to itself until it is
done.
"""


class Calm:
    """Whether programs make files, directories and links. Belongs to the trio thread."""

    def __init__(self, on_first: Callable[[], None] | None = None) -> None:
        """``on_first`` is called when programs begin to make some."""
        self._disturbed = -math.inf
        self._on_first = on_first

    def disturb(self) -> None:
        """One was closed or made just now."""
        self._disturbed = trio.current_time()
        if self._on_first is not None:
            on_first, self._on_first = self._on_first, None
            on_first()

    def begins_at(self, since: float) -> float:
        """When what has waited ``since`` may be sent if no more are made, on trio's clock."""
        return min(self._disturbed + CALM_SECONDS, since + LONGEST_BUSY_SECONDS)

"""The limit on requests in flight while the store asks for fewer."""

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

_ROUND_SECONDS = 1.0
"""The limit is halved once in this time: all requests in flight get the same complaint."""


class Throttle:
    """A limit on requests that shrinks when the store answers SlowDown, and grows again.

    It works like TCP's window: halved for each round of complaints, plus one for each round of
    successes. Until the first complaint there is no limit, and it costs next to nothing.
    Retry-After delays every request, not only the refused one. Safe for concurrent use.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._turn = threading.Condition()
        self._limit = float(most)
        self._inside: dict[int, int] = {}
        """Threads with requests in flight, and the nesting: a request may need another one."""
        self._not_before = 0.0
        self._next_cut = 0.0

    @property
    def limit(self) -> int:
        """The number of requests that may be in flight."""
        return int(self._limit)

    @property
    def slowed(self) -> bool:
        """Whether the limit is in effect."""
        return self._limit < self._most

    def enter(self, timeout_seconds: float, on_wait: Callable[[], None]) -> None:
        """Wait for a turn, at most ``timeout_seconds``; after that, go on all the same.

        ``on_wait`` is called if there is a wait. Pair it with :meth:`leave`.
        """
        me = threading.get_ident()
        with self._turn:
            if me not in self._inside and (left := self._wait_seconds()) > 0:
                on_wait()
                deadline = self._clock() + timeout_seconds
                while (left := min(self._wait_seconds(), deadline - self._clock())) > 0:
                    self._turn.wait(left)
            self._inside[me] = self._inside.get(me, 0) + 1

    def leave(self) -> None:
        """The request is over."""
        me = threading.get_ident()
        with self._turn:
            depth = self._inside.pop(me) - 1
            if depth:
                self._inside[me] = depth
            else:
                self._turn.notify()

    def enter_at_once(self, ident: int) -> bool:
        """A turn for a request that no thread waits for; False if it would have to wait. Pair it
        with :meth:`leave_at_once`. ``ident`` is negative, unlike those of threads.
        """
        with self._turn:
            if self._wait_seconds() > 0:
                return False
            self._inside[ident] = 1
            return True

    def leave_at_once(self, ident: int) -> None:
        """The request is over."""
        with self._turn:
            del self._inside[ident]
            self._turn.notify()

    def complain(self, retry_after_seconds: float) -> None:
        """The store asked to slow down."""
        with self._turn:
            now = self._clock()
            self._not_before = max(self._not_before, now + retry_after_seconds)
            if now < self._next_cut:
                return
            self._next_cut = now + _ROUND_SECONDS
            first = not self.slowed
            self._limit = max(1.0, min(self._limit, float(len(self._inside))) / 2)
        if first:
            log.warning("the store asks to slow down: at most %d requests at once", self.limit)

    def succeed(self) -> None:
        """A request succeeded."""
        if not self.slowed:
            return
        with self._turn:
            if self._clock() < self._next_cut:
                return
            self._limit = min(self._most, self._limit + 1 / self._limit)
            recovered = not self.slowed
            self._turn.notify()
        if recovered:
            log.info("the store keeps up again")

    def _wait_seconds(self) -> float:
        """How long to wait before the next check; 0: go on."""
        if self._not_before and (pause := self._not_before - self._clock()) > 0:
            return pause
        return _ROUND_SECONDS if self.slowed and len(self._inside) >= self.limit else 0.0

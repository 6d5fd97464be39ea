"""The calls to the store that are under way, each with its owner and age."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_MOST_TOLD = 20


@dataclass(slots=True)
class Wait:
    """One call to the store that somebody waits for."""

    operation: str
    key: str
    since: float
    """When the call began, by the clock of its :class:`Waits`."""
    attempt: int = 1
    waits_for: str = "the answer"


class Waits:
    """The calls in flight. Safe for concurrent use."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waits: dict[int, Wait] = {}

    @contextmanager
    def add(self, operation: str, key: str) -> Iterator[Wait]:
        """A call for as long as the block lasts; its owner keeps the fields true."""
        wait = self.begin(operation, key)
        try:
            yield wait
        finally:
            self.end(wait)

    def begin(self, operation: str, key: str) -> Wait:
        """A call until :meth:`end`."""
        wait = Wait(operation, key, self._clock())
        with self._lock:
            self._waits[id(wait)] = wait
        return wait

    def end(self, wait: Wait) -> None:
        """A call is over."""
        with self._lock:
            del self._waits[id(wait)]

    def count(self) -> int:
        """The number of calls in flight."""
        return len(self._waits)

    def told(self) -> list[dict[str, Any]]:
        """The longest waits, longest first."""
        with self._lock:
            waits = sorted(self._waits.values(), key=lambda wait: wait.since)[:_MOST_TOLD]
        now = self._clock()
        return [
            {
                "operation": wait.operation,
                "key": wait.key,
                "seconds": round(now - wait.since, 3),
                "attempt": wait.attempt,
                "waits_for": wait.waits_for,
            }
            for wait in waits
        ]

    def longest_seconds(self) -> float:
        """The age of the oldest call in flight; 0 without any."""
        with self._lock:
            oldest = min((wait.since for wait in self._waits.values()), default=None)
        return 0.0 if oldest is None else self._clock() - oldest

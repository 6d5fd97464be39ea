"""Trying again: which failures, after what pause, and when to stop."""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from ossfs_py.errors import EnvironmentProblemError, StoreUnavailableError
from ossfs_py.metrics import Metrics
from ossfs_py.store.error_map import EXPIRED_CREDENTIALS, Failure, judge
from ossfs_py.store.faults import AnswerError, NoAnswerError

log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_LONGEST_RETRY_AFTER_SECONDS = 30.0
"""What a store may ask for with Retry-After before we ask it again regardless."""


@dataclass(slots=True)
class Attempt:
    """One try of a call; the same object is handed to every try."""

    number: int = 1
    may_have_happened: bool = False
    """An earlier try reached the store and its outcome is unknown."""
    progressed: bool = False
    """Set it when bytes arrived: the budget counts from the last progress."""


class Retrier:
    """Runs attempts until one succeeds, fails for good or the time budget is used up.

    Pauses grow exponentially from 0.1 s to 5 s with full jitter (each is drawn between nothing
    and the limit), so that readers that failed together do not return together; Retry-After
    makes a pause longer, never shorter. Safe for concurrent use.
    """

    def __init__(
        self,
        metrics: Metrics,
        budget_seconds: float,
        refresh_credentials: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._metrics = metrics
        self._budget_seconds = budget_seconds
        self._refresh_credentials = refresh_credentials
        self._clock = clock
        self._closed = threading.Event()
        self._wait = wait or self._closed.wait
        self._jitter = jitter

    def close(self) -> None:
        """End every pause; calls in progress fail with StoreUnavailableError."""
        self._closed.set()

    def run(self, operation: str, key: str, attempt: Callable[[Attempt], T]) -> T:
        """The first success of ``attempt``.

        Raises:
            StoreError: the class :mod:`error_map` gives for the last failure.
        """
        state = Attempt()
        began = deadline_base = self._clock()
        refreshed = False
        try:
            while True:
                self._metrics.requests.labels(operation).inc()
                try:
                    return attempt(state)
                except (AnswerError, NoAnswerError, EnvironmentProblemError) as exc:
                    error: Failure = exc
                state.may_have_happened = True
                if state.progressed:
                    state.progressed = False
                    deadline_base = self._clock()
                pause = self._pause_after(error, state.number)
                if isinstance(error, AnswerError) and error.code in EXPIRED_CREDENTIALS:
                    pause = None if refreshed else self._after_refresh()
                    refreshed = True
                if (
                    pause is None
                    or self._clock() + pause > deadline_base + self._budget_seconds
                    or self._closed.is_set()
                ):
                    self._give_up(operation, key, error, state.number)
                log.info(
                    "%s %r: attempt %d failed (%s)%s; trying again in %.1f s",
                    operation,
                    key,
                    state.number,
                    error,
                    f", request id {error.request_id}" if isinstance(error, AnswerError) else "",
                    pause,
                )
                self._metrics.retries.labels(operation).inc()
                if self._wait(pause):
                    self._give_up(operation, key, error, state.number)
                state.number += 1
        except Exception:
            self._metrics.request_errors.labels(operation).inc()
            raise
        finally:
            self._metrics.request_seconds.labels(operation).observe(self._clock() - began)

    def _pause_after(self, error: Failure, number: int) -> float | None:
        if not judge(error).retry:
            return None
        limit = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** min(number - 1, 16))
        pause = self._jitter(0.0, limit)
        if isinstance(error, AnswerError):
            pause = max(pause, min(error.retry_after_seconds, _LONGEST_RETRY_AFTER_SECONDS))
        return pause

    def _after_refresh(self) -> float | None:
        try:
            self._refresh_credentials()
        except EnvironmentProblemError as exc:
            log.warning("the credentials have expired and %s", exc)
            return None
        return 0.0

    def _give_up(self, operation: str, key: str, error: Failure, attempts: int) -> NoReturn:
        verdict = judge(error)
        request_id = error.request_id if isinstance(error, AnswerError) else ""
        message = "the store is closed" if self._closed.is_set() else str(error)
        if issubclass(verdict.cause, StoreUnavailableError):
            log.warning(
                "%s %r: given up after %d attempts: %s (request id %s)",
                operation,
                key,
                attempts,
                message,
                request_id or "none",
            )
        raise verdict.cause(
            message, operation=operation, key=key, request_id=request_id, attempts=attempts
        ) from error

"""Retries: for which failures, after what pause, and for how long."""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, NoReturn, TypeVar

from prometheus_client import Counter, Histogram

from ossfs_py.errors import (
    ConditionFailedError,
    EnvironmentProblemError,
    ObjectMissingError,
    StoreUnavailableError,
)
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.s3.error_map import (
    AnswerError,
    Failure,
    asks_to_slow_down,
    judge,
    may_refuse_key,
    refuses_key,
)
from ossfs_py.store.s3.throttle import Throttle
from ossfs_py.telemetry.metrics import Metrics
from ossfs_py.telemetry.waits import Wait

log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_LONGEST_RETRY_AFTER_SECONDS = 30.0
"""The longest Retry-After that is respected."""

_TIMES_UNTIL_MEANT = 3
"""The third answer that contradicts the known state of the object is no accident any more."""

_ROTATION_SECONDS = 5.0
"""How long the next key may take to arrive after the store has refused the old one."""


@dataclass(slots=True)
class Attempt:
    """One try of a call; the same object is passed to every try."""

    number: int = 1
    may_have_happened: bool = False
    """An earlier try reached the store, and its outcome is unknown."""
    contradictions: int = 0
    """Answers that contradicted the known state of the object."""
    progressed: bool = False
    """Set it when bytes arrived: the budget counts from the last progress."""

    def insists(self) -> bool:
        """Count a contradicting answer; returns whether it is one too many for an accident."""
        self.contradictions += 1
        return self.contradictions >= _TIMES_UNTIL_MEANT


Renew = Callable[[float, bool], bool]
""":meth:`CredentialSource.renew`: when the request began, and whether the key is surely refused."""


class _Rotation:
    """A change of keys, as seen by one call."""

    def __init__(self, renew: Renew) -> None:
        self._renew = renew
        self._refused_at: float | None = None

    def pause(
        self, error: AnswerError, asked_at: float, now: float, backoff: float
    ) -> float | None:
        """How long to wait before the next attempt; None if there is no point in one."""
        if self._refused_at is None:
            self._refused_at = now
        try:
            if self._renew(asked_at, refuses_key(error)):
                return 0.0
        except EnvironmentProblemError as exc:
            log.warning("the store refuses the credentials, and others cannot be had: %s", exc)
        # A key may be revoked a little before the next one has arrived here. But an answer without
        # a code is mostly about the object.
        known = refuses_key(error) and now < self._refused_at + _ROTATION_SECONDS
        return backoff if known else None


class _Metered(NamedTuple):
    """The metrics of one operation."""

    sent: Counter
    seconds: Histogram


class Retrier:
    """Runs attempts until one succeeds, fails for good or the time budget is used up.

    Pauses grow exponentially from 0.1 s to 5 s with full jitter (each is drawn between 0 and the
    limit), so that readers that failed together do not return together; Retry-After makes a pause
    longer, never shorter. If a store asks to slow down, all callers send fewer requests
    (:class:`~ossfs_py.store.s3.throttle.Throttle`). Safe for concurrent use.
    """

    def __init__(
        self,
        metrics: Metrics,
        budget_seconds: float,
        renew_credentials: Renew,
        concurrency: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._metrics = metrics
        self._meters: dict[str, _Metered] = {}
        self._budget_seconds = budget_seconds
        self._renew_credentials = renew_credentials
        self._clock = clock
        self._closed = threading.Event()
        self._wait = wait or self._closed.wait
        self._jitter = jitter
        self._throttle = Throttle(concurrency, clock)
        metrics.request_limit.set_function(lambda: self._throttle.limit)

    def close(self) -> None:
        """End every pause; calls in progress fail with StoreUnavailableError."""
        self._closed.set()

    def run(self, operation: str, key: str, attempt: Callable[[Attempt], T]) -> T:
        """Return the first success of ``attempt``.

        Retries for the budget since the first failure or the last progress, not counting the first
        and the last attempt.

        Raises:
            StoreError: the class from :mod:`error_map` for the last failure.
        """
        began = self._clock()
        try:
            with self._metrics.waits.add(operation, key) as wait:
                return self._run(operation, key, attempt, wait)
        except (ConditionFailedError, ObjectMissingError):
            raise  # these are answers, often the expected ones
        except Exception:
            self._metrics.request_errors.labels(operation).inc()
            raise
        finally:
            self._metered(operation).seconds.observe(self._clock() - began)

    def begin_inline(self, operation: str, key: str, ident: int) -> Wait | None:
        """Count a single try that no thread waits for; None if it must not begin now. Pair it with
        :meth:`end_inline`. ``ident`` is as of :meth:`Throttle.enter_at_once`.
        """
        if self._closed.is_set() or not self._throttle.enter_at_once(ident):
            return None
        self._metered(operation).sent.inc()
        return self._metrics.waits.begin(operation, key)

    def end_inline(self, wait: Wait, ident: int, fault: NoAnswerError | None) -> None:
        """The try is over. After a ``fault``, :meth:`run` has to repeat it."""
        self._metrics.waits.end(wait)
        self._throttle.leave_at_once(ident)
        if fault is None:
            self._throttle.succeed()
            self._metered(wait.operation).seconds.observe(self._clock() - wait.since)
            return
        log.info("%s %r: the first try failed (%s)", wait.operation, wait.key, fault)
        self._metrics.retries.labels(wait.operation).inc()

    def _metered(self, operation: str) -> _Metered:
        # Looking a label up takes longer than counting; if two threads make the same one, no harm
        # is done.
        found = self._meters.get(operation)
        if found is None:
            found = self._meters[operation] = _Metered(
                self._metrics.requests.labels(operation),
                self._metrics.request_seconds.labels(operation),
            )
        return found

    def _run(self, operation: str, key: str, attempt: Callable[[Attempt], T], wait: Wait) -> T:
        state = Attempt()
        # Counted from the first failure: one attempt at a large upload may take longer than the
        # budget.
        deadline_base: float | None = None
        failed_in_row = 0
        rotation = _Rotation(self._renew_credentials)
        while True:
            asked_at = self._clock()
            try:
                return self._try(operation, attempt, state, wait)
            except (AnswerError, NoAnswerError, EnvironmentProblemError) as exc:
                error: Failure = exc
            state.may_have_happened = True
            if state.progressed or deadline_base is None:
                state.progressed = False
                deadline_base = self._clock()
                failed_in_row = 0
            failed_in_row += 1
            pause = self._pause_after(error, failed_in_row)
            if isinstance(error, AnswerError):
                if error.clock_corrected:
                    pause = 0.0
                elif refuses_key(error) or may_refuse_key(error):
                    backoff = self._backoff(failed_in_row)
                    pause = rotation.pause(error, asked_at, self._clock(), backoff)
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
            wait.waits_for = f"the next attempt, after: {error}"
            if self._wait(pause):
                self._give_up(operation, key, error, state.number)
            state.number += 1

    def _try(
        self, operation: str, attempt: Callable[[Attempt], T], state: Attempt, wait: Wait
    ) -> T:
        def note() -> None:
            wait.waits_for = "its turn, as the store asked to slow down"

        wait.attempt = state.number
        self._throttle.enter(min(_LONGEST_RETRY_AFTER_SECONDS, self._budget_seconds), note)
        try:
            wait.waits_for = "the answer"
            self._metered(operation).sent.inc()
            result = attempt(state)
        except AnswerError as error:
            if asks_to_slow_down(error):
                pause = min(error.retry_after_seconds, _LONGEST_RETRY_AFTER_SECONDS)
                self._throttle.complain(pause)
            raise
        finally:
            self._throttle.leave()
        self._throttle.succeed()
        return result

    def _pause_after(self, error: Failure, number: int) -> float | None:
        if not judge(error).retry:
            return None
        pause = self._backoff(number)
        if isinstance(error, AnswerError):
            pause = max(pause, min(error.retry_after_seconds, _LONGEST_RETRY_AFTER_SECONDS))
        return pause

    def _backoff(self, number: int) -> float:
        limit = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** min(number - 1, 16))
        return self._jitter(0.0, limit)

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
                extra=_fields(operation, key, error, attempts),
            )
        raise verdict.cause(
            message, operation=operation, key=key, request_id=request_id, attempts=attempts
        ) from error


def _fields(operation: str, key: str, error: Failure, attempts: int) -> dict[str, object]:
    """Fields for programs that read logs."""
    request_id = error.request_id if isinstance(error, AnswerError) else ""
    return {"operation": operation, "key": key, "request_id": request_id, "attempts": attempts}

"""The pauses between attempts, with a clock that the test moves."""

from collections.abc import Callable

import pytest

from ossfs_py.errors import (
    AccessDeniedError,
    EnvironmentProblemError,
    ObjectMissingError,
    StoreUnavailableError,
)
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.s3.error_map import AnswerError
from ossfs_py.store.s3.retry import Attempt, Retrier
from ossfs_py.telemetry.metrics import Metrics


class Fixture:
    """A retrier whose pauses pass at once and are written down."""

    def __init__(self, budget_seconds: float = 60.0) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.renewals: list[tuple[float, bool]] = []
        self.found_other = True
        """Whether another key is found when the store refuses one."""
        self.metrics = Metrics()
        self.retrier = Retrier(
            self.metrics,
            budget_seconds,
            self._renew,
            4,
            clock=lambda: self.now,
            wait=self._wait,
            jitter=lambda _low, high: high,
        )

    def count(self, name: str) -> float:
        value = self.metrics.registry.get_sample_value(
            f"ossfs_store_{name}_total", {"operation": "Op"}
        )
        return value or 0.0

    def run(self, *outcomes: Exception | None, cost_seconds: float = 0.0) -> int:
        """Attempts that fail as told and then succeed; returns the number of the success."""
        left = list(outcomes)

        def attempt(state: Attempt) -> int:
            self.now += cost_seconds
            error = left.pop(0) if left else None
            if error is not None:
                raise error
            return state.number

        return self.retrier.run("Op", "key", attempt)

    def _wait(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        self.now += seconds
        return False

    def _renew(self, asked_at: float, sure: bool) -> bool:
        self.renewals.append((asked_at, sure))
        return self.found_other


def busy(retry_after_seconds: float = 0.0) -> AnswerError:
    return AnswerError(503, "SlowDown", retry_after_seconds=retry_after_seconds)


def test_pauses_double_up_to_a_limit() -> None:
    fixture = Fixture()
    assert fixture.run(*[busy() for _ in range(9)]) == 10
    assert fixture.pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0])


def test_retry_after_lengthens_a_pause_within_reason() -> None:
    fixture = Fixture()
    fixture.run(busy(2.0), busy(500.0))
    assert fixture.pauses == [2.0, 30.0]


def test_the_budget_counts_time_without_progress() -> None:
    fixture = Fixture(budget_seconds=10.0)
    steps: list[Callable[[], None]] = []

    def attempt(state: Attempt) -> None:
        fixture.now += 8.0
        if len(steps) < 5:
            steps.append(lambda: None)
            state.progressed = True
            raise NoAnswerError("cut", received=1)

    fixture.retrier.run("Op", "key", attempt)
    assert fixture.now > 40.0
    with pytest.raises(StoreUnavailableError) as caught:
        fixture.run(*[busy() for _ in range(99)], cost_seconds=8.0)
    assert caught.value.attempts == 3


def test_what_cannot_be_mended_is_not_tried_again() -> None:
    fixture = Fixture()
    with pytest.raises(AccessDeniedError):
        fixture.run(AnswerError(403, "AccessDenied"))
    assert fixture.pauses == []


REFUSALS = [
    AnswerError(400, "ExpiredToken"),
    AnswerError(403, "InvalidAccessKeyId"),
    AnswerError(403, "SignatureDoesNotMatch"),
    AnswerError(403, "InvalidSecurityToken"),
    AnswerError(403),
]
"""The last one is what a HEAD is answered."""


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda error: error.code or "HEAD")
def test_a_refused_key_is_replaced_and_the_request_sent_again_at_once(refusal: AnswerError) -> None:
    fixture = Fixture()
    assert fixture.run(refusal) == 2
    assert (fixture.renewals, fixture.pauses) == ([(0.0, bool(refusal.code))], [0.0])


def test_the_next_key_is_waited_for_when_the_old_one_was_revoked_first() -> None:
    fixture = Fixture()
    fixture.found_other = False
    assert fixture.run(*[REFUSALS[1]] * 4) == 5
    assert fixture.pauses == pytest.approx([0.1, 0.2, 0.4, 0.8])


def test_a_key_that_nobody_replaces_is_an_access_denied_within_seconds() -> None:
    fixture = Fixture()
    fixture.found_other = False
    with pytest.raises(AccessDeniedError):
        fixture.run(*[REFUSALS[0]] * 99)
    assert 5.0 < fixture.now < 12.0


def test_a_refusal_that_may_be_the_object_s_is_believed_when_the_key_is_the_same() -> None:
    fixture = Fixture()
    fixture.found_other = False
    with pytest.raises(AccessDeniedError):
        fixture.run(REFUSALS[-1])
    assert fixture.pauses == []


def test_credentials_that_cannot_be_had_are_waited_for_and_then_access_is_denied() -> None:
    missing = EnvironmentProblemError("the credentials cannot be refreshed")
    assert Fixture().run(missing) == 2
    with pytest.raises(AccessDeniedError, match="cannot be refreshed"):
        Fixture(0.0).run(missing)


def test_attempts_failures_and_repeats_are_counted() -> None:
    fixture = Fixture()
    fixture.run(busy(), busy())
    with pytest.raises(AccessDeniedError):
        fixture.run(AnswerError(403, "AccessDenied"))
    with pytest.raises(ObjectMissingError):
        fixture.run(AnswerError(404))
    assert fixture.count("requests") == 5
    assert fixture.count("retries") == 2
    assert fixture.count("errors") == 1


def test_the_log_tells_key_operation_request_and_attempts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(StoreUnavailableError):
        Fixture(0.0).run(AnswerError(500, "InternalError", "m", "REQ9"))
    assert "Op 'key': given up after 1 attempts: 500 InternalError m" in caplog.text
    assert "REQ9" in caplog.text


def test_pauses_begin_anew_after_progress() -> None:
    """A body that breaks off again and again but gets on is not slowed down more and more."""
    fixture = Fixture()

    def attempt(state: Attempt) -> None:
        if state.number < 20:
            state.progressed = True
            raise NoAnswerError("cut", received=100_000)

    fixture.retrier.run("Op", "key", attempt)
    assert fixture.pauses == pytest.approx([0.1] * 19)


def test_an_attempt_longer_than_the_budget_is_tried_again() -> None:
    """A large part over a slow line takes minutes; its loss at the end is its first failure."""
    fixture = Fixture(budget_seconds=10.0)
    assert fixture.run(NoAnswerError("cut"), cost_seconds=100.0) == 2

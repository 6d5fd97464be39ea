"""How a store that asks for it is spared, with a clock that the test moves."""

import threading

import pytest

from ossfs_py.errors import StoreUnavailableError
from ossfs_py.store.s3.error_map import AnswerError
from ossfs_py.store.s3.retry import Attempt, Retrier
from ossfs_py.store.s3.throttle import Throttle
from ossfs_py.telemetry.metrics import Metrics


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def never() -> None:
    raise AssertionError("there is nothing to wait for")


def complain_while_under_way(throttle: Throttle, count: int) -> None:
    """A complaint while that many requests are under way."""
    entered = threading.Barrier(count + 1)
    leave = threading.Event()

    def work() -> None:
        throttle.enter(10.0, lambda: None)
        entered.wait(120)
        leave.wait(120)
        throttle.leave()

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    entered.wait(120)
    throttle.complain(0.0)
    leave.set()
    for thread in threads:
        thread.join(120)


def test_a_complaint_halves_what_was_under_way_and_successes_bring_it_back() -> None:
    clock = Clock()
    throttle = Throttle(16, clock)
    complain_while_under_way(throttle, 8)
    assert (throttle.limit, throttle.slowed) == (4, True)
    throttle.complain(0.0)
    assert throttle.limit == 4, "one round is one complaint"
    clock.now += 1.1
    throttle.complain(0.0)
    assert throttle.limit == 1
    clock.now += 1.1
    successes = 0
    while throttle.slowed:
        throttle.succeed()
        successes += 1
    assert 100 < successes < 200
    throttle.enter(0.0, never)
    throttle.leave()


def test_a_request_beyond_the_limit_waits_until_another_is_over() -> None:
    throttle = Throttle(2)
    throttle.enter(10.0, never)
    throttle.complain(0.0)
    waiting, entered = threading.Event(), threading.Event()

    def second() -> None:
        throttle.enter(60.0, waiting.set)
        entered.set()
        throttle.leave()

    thread = threading.Thread(target=second)
    thread.start()
    assert waiting.wait(120)
    assert not entered.is_set()
    throttle.leave()
    assert entered.wait(120)
    thread.join(120)


def test_a_request_within_a_request_needs_no_turn_of_its_own() -> None:
    throttle = Throttle(2)
    throttle.enter(10.0, never)
    throttle.complain(0.0)
    throttle.enter(10.0, never)
    throttle.leave()
    throttle.leave()


def test_nobody_waits_for_a_turn_longer_than_told() -> None:
    throttle = Throttle(2)
    throttle.enter(10.0, never)
    throttle.complain(3600.0)
    thread = threading.Thread(target=lambda: (throttle.enter(0.01, lambda: None), throttle.leave()))
    thread.start()
    thread.join(120)
    assert not thread.is_alive()
    throttle.leave()


def test_retry_after_holds_back_every_request() -> None:
    """The call that was refused pauses by itself; what is held back here is its next attempt."""
    metrics = Metrics()
    told: list[str] = []

    def attempt(state: Attempt) -> int:
        told.append(metrics.waits.told()[0]["waits_for"])
        if state.number == 1:
            raise AnswerError(503, "SlowDown", retry_after_seconds=0.05)
        return state.number

    def pause(_seconds: float) -> bool:
        told.append(metrics.waits.told()[0]["waits_for"])
        return False

    retrier = Retrier(metrics, 10.0, lambda _asked_at, _sure: False, 4, wait=pause)
    assert retrier.run("Op", "key", attempt) == 2
    assert told == ["the answer", "the next attempt, after: 503 SlowDown", "the answer"]
    limit = metrics.registry.get_sample_value("ossfs_store_request_limit")
    assert limit is not None
    assert limit < 4


def test_a_call_is_told_among_the_waits_until_it_ends() -> None:
    metrics = Metrics()
    retrier = Retrier(metrics, 0.0, lambda _asked_at, _sure: False, 4)

    def attempt(_: Attempt) -> None:
        (wait,) = metrics.waits.told()
        assert (wait["operation"], wait["key"], wait["attempt"]) == ("Op", "key", 1)
        assert metrics.registry.get_sample_value("ossfs_store_waiting") == 1
        raise AnswerError(500)

    with pytest.raises(StoreUnavailableError):
        retrier.run("Op", "key", attempt)
    assert metrics.waits.told() == []
    assert metrics.registry.get_sample_value("ossfs_store_longest_wait_seconds") == 0

"""When a second request is worth its bytes."""

from ossfs_py.reading.hedging import Hedging


def test_a_request_that_many_others_overtook_is_asked_again() -> None:
    hedging = Hedging(3.0)
    for begun_at in range(1, 9):
        assert not hedging.begin(0.5, 20)
        hedging.answered(begun_at, begun_at + 0.1)
    assert hedging.begin(0.5, 20)


def test_where_everything_is_slow_nothing_is_asked_again() -> None:
    hedging = Hedging(3.0)
    for begun_at in range(20):
        hedging.answered(begun_at, begun_at + 10.0)
    assert not hedging.begin(25.0, 20)
    assert hedging.patience_seconds > 10


def test_a_lone_request_needs_nobody_to_overtake_it() -> None:
    assert Hedging(3.0).begin(0.0, 1)


def test_only_a_few_are_asked_again_at_a_time() -> None:
    hedging = Hedging(3.0)
    sent = [hedging.begin(0.0, 1) for _ in range(10)]
    assert sum(sent) == 4
    hedging.end()
    assert hedging.begin(0.0, 1)

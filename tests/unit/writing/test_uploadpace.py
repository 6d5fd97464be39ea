"""How many parts are in flight at a time: a store is played in time of its own."""

import heapq
import random
from collections.abc import Callable

import pytest

from ossfs_py.writing.uploadpace import UploadPace

MIB = 1024**2
PART = 8 * MIB
MOST = 16


class Played:
    """Sends parts to a store that takes ``rate(n)`` bytes a second of each of ``n``."""

    def __init__(
        self,
        rate: Callable[[int], float],
        *,
        most: int = MOST,
        written_per_second: float = 1e12,
        jitter: float = 0.0,
    ) -> None:
        self.pace = UploadPace()
        self.rate = rate
        self.most = most
        self.parts = 0
        self._now = 0.0
        self._written_per_second = written_per_second
        self._jitter = jitter
        self._random = random.Random(5)
        self.seen: list[int] = []

    def send(self, count: int) -> float:
        """The seconds that many parts take."""
        began, left, under_way = self._now, count, list[tuple[float, int]]()
        while left or under_way:
            ready = began + (count - left) * PART / self._written_per_second
            wanted = self.pace.in_flight(self.most)
            if left and len(under_way) < wanted and ready <= self._now:
                # What others take of a shared line changes with their number; so it is here.
                slow = 1 + self._jitter * self._random.random()
                ends = self._now + slow * PART / self.rate(min(left, wanted))
                heapq.heappush(under_way, (ends, left))
                left -= 1
                continue
            if not under_way or (left and len(under_way) < wanted and ready < under_way[0][0]):
                self._now = ready
                continue
            self._now = heapq.heappop(under_way)[0]
            waits = bool(left) and began + (count - left) * PART / self._written_per_second
            is_held = bool(left) and waits <= self._now
            self.pace.took(PART, self._now, is_held=is_held, most=self.most)
            self.seen.append(self.pace.in_flight(self.most))
        return self._now - began


def cloud(_count: int) -> float:
    return 90e6


def shared(count: int) -> float:
    return 400e6 / count


@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_a_cloud_gets_sixteen_at_a_time(jitter: float) -> None:
    store = Played(cloud, jitter=jitter)
    seconds = store.send(128)
    assert store.seen[40:] == [16] * 88
    # Had there been sixteen from the beginning, it would have taken 0.75 s.
    assert seconds < (1 + jitter) * 1.1
    assert store.send(128) < (1 + jitter) * 0.8


@pytest.mark.parametrize("jitter", [0.0, 0.2])
def test_a_line_that_all_share_gets_four(jitter: float) -> None:
    store = Played(shared, jitter=jitter)
    store.send(512)
    assert store.seen.count(8) <= 0.2 * 512
    assert 16 not in store.seen


def test_more_are_tried_again_when_the_store_has_changed() -> None:
    store = Played(shared)
    store.send(64)
    assert store.seen[-1] == 4
    store.rate = cloud
    store.send(256)
    assert store.seen[-1] == 16


def test_a_slow_program_says_nothing_of_the_store() -> None:
    store = Played(cloud, written_per_second=200e6)
    store.send(256)
    assert set(store.seen) == {4}


@pytest.mark.parametrize("most", [1, 3, 4, 5, 16])
def test_there_are_never_more_than_allowed(most: int) -> None:
    store = Played(cloud, most=most)
    store.send(256)
    assert max(store.seen) == most

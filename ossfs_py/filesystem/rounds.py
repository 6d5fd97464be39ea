"""Background work in rounds, and how to wait for it."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio


class Rounds:
    """Tries all waiting work in rounds. A caller that waits for some of it waits only for the
    rounds that try that work. Belongs to the trio thread.
    """

    def __init__(self) -> None:
        self._count = 0
        """Rounds that have ended, successful or not."""
        self._is_under_way = False
        self._hurry = trio.Event()
        self._awaited = trio.Event()
        """Set while a caller waits for the work that waits now."""
        self._ended = trio.lowlevel.ParkingLot()

    def hurry(self) -> None:
        """Begin the next round now."""
        self._hurry.set()

    async def hurried(self, at_most_seconds: float = math.inf) -> bool:
        """Before a round, wait until a caller hurries it; returns whether one did."""
        with trio.move_on_after(at_most_seconds):
            await self._hurry.wait()
        is_hurried = self._hurry.is_set()
        self._hurry = trio.Event()
        return is_hurried

    async def calm(self, size: Callable[[], int], calm_seconds: float, most_seconds: float) -> None:
        """Before a round, wait until ``size`` is unchanged for a while, or a caller waits."""
        end = trio.current_time() + most_seconds
        count = -1
        while count != size() and trio.current_time() < end and not self._awaited.is_set():
            count = size()
            with trio.move_on_after(calm_seconds):
                await self._awaited.wait()
        self._awaited = trio.Event()

    @contextmanager
    def round(self) -> Iterator[None]:
        """Run one round in the block."""
        self._is_under_way = True
        try:
            yield
        finally:
            self._is_under_way = False
            self._count += 1
            self._ended.unpark_all()

    async def wait_while(self, is_left: Callable[[], bool]) -> None:
        """Wait for as many rounds as it takes."""
        while is_left():
            self._hurry.set()
            await self._ended.park()

    async def tried(self, is_left: Callable[[], bool], rounds: int = 1) -> None:
        """Wait until nothing is left, or ``rounds`` that begin from now on have ended."""
        last = self._count + self._is_under_way + rounds
        while is_left() and self._count < last:
            self._hurry.set()
            self._awaited.set()
            await self._ended.park()

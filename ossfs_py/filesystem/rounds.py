"""Work that is done behind, round after round, and how to wait for it."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio


class Rounds:
    """What waits is tried in rounds; whoever waits for some of it waits for no more rounds than it
    takes to try that. Belongs to the trio thread.
    """

    def __init__(self) -> None:
        self._count = 0
        """Rounds that have ended, well or not."""
        self._is_under_way = False
        self._hurry = trio.Event()
        self._awaited = trio.Event()
        """Set while somebody waits for what waits now."""
        self._ended = trio.lowlevel.ParkingLot()

    def hurry(self) -> None:
        """Let the next round begin now."""
        self._hurry.set()

    async def hurried(self, at_most_seconds: float = math.inf) -> None:
        """Wait, before a round, until somebody hurries it."""
        with trio.move_on_after(at_most_seconds):
            await self._hurry.wait()
        self._hurry = trio.Event()

    async def calm(self, size: Callable[[], int], calm_seconds: float, most_seconds: float) -> None:
        """Wait, before a round, until ``size`` is the same for a while, or somebody waits."""
        end = trio.current_time() + most_seconds
        count = -1
        while count != size() and trio.current_time() < end and not self._awaited.is_set():
            count = size()
            with trio.move_on_after(calm_seconds):
                await self._awaited.wait()
        self._awaited = trio.Event()

    @contextmanager
    def round(self) -> Iterator[None]:
        """One round, in the block."""
        self._is_under_way = True
        try:
            yield
        finally:
            self._is_under_way = False
            self._count += 1
            self._ended.unpark_all()

    async def wait_while(self, is_left: Callable[[], bool]) -> None:
        """Wait, however many rounds that takes."""
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

"""When programs make files, and when they have stopped."""

import trio
import trio.testing

from ossfs_py.filesystem.calm import Calm
from ossfs_py.filesystem.writeback import WriteBackQueue
from ossfs_py.telemetry.metrics import Metrics


class Sized:
    def size(self) -> int:
        return 1


def test_the_first_file_is_told_once() -> None:
    told: list[float] = []

    async def main() -> None:
        queue: WriteBackQueue[Sized] = WriteBackQueue(
            Metrics(), on_first=lambda: told.append(trio.current_time())
        )
        assert told == []
        queue.add(Sized())
        queue.add(Sized())
        queue.calm.disturb()

    trio.run(main, clock=trio.testing.MockClock())
    assert len(told) == 1


def test_it_is_calm_when_nothing_was_made_for_some_time_or_when_that_never_happens() -> None:
    async def main() -> None:
        calm = Calm()
        now = trio.current_time()
        calm.disturb()
        assert now < calm.begins_at(now) < calm.begins_at(now) + 1
        assert calm.begins_at(now - 100) < now

    trio.run(main, clock=trio.testing.MockClock())

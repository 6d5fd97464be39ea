"""Who is let go while it waits, and when somebody looks."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from ossfs_py.errors import CallInterruptedError
from ossfs_py.fuse.callers import PATIENCE_SECONDS, Callers


class Processes:
    """Threads 10 to 19 belong to process 1, and so on; the killed ones are in ``killed``."""

    def __init__(self) -> None:
        self.killed: set[int] = set()
        self.looks = 0

    def process_of(self, thread_id: int) -> int | None:
        return thread_id // 10 or None

    def is_killed(self, process_id: int) -> bool:
        self.looks += 1
        return process_id in self.killed


def asleep(seconds: float) -> Callable[[int], Awaitable[None]]:
    """A call that takes so long."""

    async def call(_handle: int) -> None:
        await trio.sleep(seconds)

    return call


def on_callers(test: Callable[[Callers, Processes], Awaitable[None]]) -> None:
    async def main() -> None:
        processes = Processes()
        callers = Callers(processes)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(callers.run)
            await test(callers, processes)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_killed_program_is_let_go_and_others_wait_on() -> None:
    async def test(callers: Callers, processes: Processes) -> None:
        for handle, thread in enumerate((11, 12, 21)):
            callers.opened(handle, thread)
        processes.killed = {1}
        ended: list[int] = []

        async def wait(handle: int) -> None:
            with pytest.raises(CallInterruptedError):
                await callers.waited_for(handle, asleep(1e9))
            ended.append(handle)

        async with trio.open_nursery() as nursery:
            for handle in range(3):
                nursery.start_soon(wait, handle)
            await trio.sleep(2 * PATIENCE_SECONDS)
            assert sorted(ended) == [0, 1]
            processes.killed.add(2)
            await trio.sleep(2 * PATIENCE_SECONDS)
            assert sorted(ended) == [0, 1, 2]

    on_callers(test)


def test_nobody_looks_while_answers_come_soon() -> None:
    async def test(callers: Callers, processes: Processes) -> None:
        callers.opened(1, 11)
        processes.killed = {1}
        for _ in range(100):
            await callers.waited_for(1, asleep(PATIENCE_SECONDS / 4))
        assert processes.looks == 0

    on_callers(test)


def test_each_process_is_looked_at_once_however_many_of_its_calls_wait() -> None:
    async def test(callers: Callers, processes: Processes) -> None:
        async with trio.open_nursery() as nursery:
            for handle in range(10):
                callers.opened(handle, 10 + handle)
                nursery.start_soon(callers.waited_for, handle, asleep(10.01))
        assert processes.looks <= 100

    on_callers(test)


@pytest.mark.parametrize("thread", [0, None])
def test_whoever_is_not_known_waits_to_the_end(thread: int | None) -> None:
    """A program of another pid namespace has no number here."""

    async def test(callers: Callers, processes: Processes) -> None:
        if thread is not None:
            callers.opened(1, thread)
        await callers.waited_for(1, asleep(100))
        callers.released(1)
        assert processes.looks == 0

    on_callers(test)


def test_what_the_call_raises_is_raised() -> None:
    async def fail(_handle: int) -> None:
        raise ValueError("its own")

    async def test(callers: Callers, processes: Processes) -> None:
        callers.opened(1, 11)
        processes.killed = {1}
        with pytest.raises(ValueError, match="its own"):
            await callers.waited_for(1, fail)

    on_callers(test)

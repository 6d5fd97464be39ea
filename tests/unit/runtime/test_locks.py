"""A lock that costs no round of the loop while it is free."""

import pytest
import trio
import trio.testing

from ossfs_py.runtime.locks import PromptLock
from tests.support.trio_tests import in_trio


@in_trio
async def test_who_finds_it_free_goes_on_at_once() -> None:
    lock = PromptLock()
    with trio.testing.assert_no_checkpoints():
        async with lock:
            assert lock.locked()
        await lock.acquire()
        lock.release()
    assert not lock.locked()


@in_trio
async def test_those_who_wait_have_it_one_after_the_other_as_they_came() -> None:
    lock = PromptLock()
    seen: list[int] = []

    async def take(number: int) -> None:
        async with lock:
            seen.append(number)
            await trio.testing.wait_all_tasks_blocked(0.01)
            seen.append(number)

    async with trio.open_nursery() as nursery:
        await lock.acquire()
        for number in range(3):
            nursery.start_soon(take, number)
            await trio.testing.wait_all_tasks_blocked()
        lock.release()
        assert lock.locked()  # by the first of them
        with trio.fail_after(60):
            await lock.acquire()
        lock.release()
    assert seen == [0, 0, 1, 1, 2, 2]


@in_trio
async def test_who_is_cancelled_while_it_waits_does_not_have_it() -> None:
    lock = PromptLock()
    await lock.acquire()
    with trio.move_on_after(0) as scope:
        await lock.acquire()
    assert scope.cancelled_caught
    lock.release()
    assert not lock.locked()


def test_a_lock_that_nobody_holds_cannot_be_released() -> None:
    with pytest.raises(RuntimeError, match="not held"):
        PromptLock().release()

"""Threads that make blocking calls for the trio loop."""

import threading
from functools import partial

import pytest
import trio

from ossfs_py.runtime import workers as workers_module
from ossfs_py.runtime.workers import Workers
from tests.support.patience import wait_until
from tests.support.trio_tests import in_trio

MOST_SECONDS = 30.0


@in_trio
async def test_a_thread_whose_call_has_ended_takes_the_next_before_another_is_started() -> None:
    workers = Workers("test", 8)
    ended = [trio.Event() for _ in range(5)]
    seen = list[str]()
    for number, event in enumerate(ended):
        workers.submit(
            lambda: seen.append(threading.current_thread().name),
            partial(lambda one, _result: one.set(), event),
        )
        # The trio loop has no chance to hear of the end.
        wait_until(partial(lambda number: len(workers._finished) > number, number))
    for event in ended:
        await event.wait()
    assert seen == ["test-0"] * 5
    workers.close()
    assert workers.join(MOST_SECONDS)


@in_trio
async def test_calls_that_run_at_once_have_a_thread_each() -> None:
    workers = Workers("test", 3)
    together = threading.Barrier(3)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(workers.run, together.wait, MOST_SECONDS)
    workers.close()
    assert workers.join(MOST_SECONDS)


@in_trio
async def test_the_trio_thread_does_not_wait_for_a_thread_to_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers = Workers("test", 2)
    may_start, start = threading.Event(), threading.Thread.start

    def late(thread: threading.Thread) -> None:
        assert may_start.wait(MOST_SECONDS)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", late)
    done = trio.Event()
    workers.submit(lambda: None, lambda _result: done.set())  # returns
    may_start.set()
    with trio.fail_after(MOST_SECONDS):
        await done.wait()
    workers.close()
    assert workers.join(MOST_SECONDS)


@in_trio
async def test_a_thread_that_the_system_refuses_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers = Workers("test", 2)
    monkeypatch.setattr(workers_module, "_START_AGAIN_SECONDS", 0.01)
    refused, start = list[str](), threading.Thread.start

    def scarce(thread: threading.Thread) -> None:
        if len(refused) < 2:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    with trio.fail_after(MOST_SECONDS):
        assert await workers.run(lambda: 7) == 7
    assert refused == ["test-0"] * 2
    workers.close()
    assert workers.join(MOST_SECONDS)

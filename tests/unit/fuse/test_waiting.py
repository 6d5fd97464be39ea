"""Waiting for requests beside trio's loop: nothing that trio waits for is held up by it."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Self, cast

import pytest
import trio
import trio.testing

from ossfs_py.fuse.nearness import Nearness
from ossfs_py.fuse.waiting import ShortWait
from ossfs_py.runtime.beside import served_beside

LONG_SECONDS = 30.0


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    device, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    device.setblocking(False)
    with device, kernel:
        yield device, kernel


async def woken(device: socket.socket, kernel: socket.socket) -> None:
    """Begin a round of trio's loop in which this task is the only one."""
    kernel.send(b"first")
    await trio.lowlevel.wait_readable(device)
    os.read(device.fileno(), 100)


def test_a_request_ends_the_wait(ends: tuple[socket.socket, socket.socket]) -> None:
    device, kernel = ends

    async def main() -> None:
        with ShortWait(device.fileno()) as waits:
            await woken(device, kernel)
            sender = threading.Timer(0.05, kernel.send, (b"second",))
            sender.start()
            assert waits.brings_one()
            assert os.read(device.fileno(), 100) == b"second"
            sender.join()

    trio.run(main)


def test_a_thread_that_calls_trio_ends_the_wait(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    device, kernel = ends

    async def main() -> None:
        called = trio.Event()
        token = trio.lowlevel.current_trio_token()
        with ShortWait(device.fileno()) as waits:
            await woken(device, kernel)
            caller = threading.Timer(0.05, token.run_sync_soon, (called.set,))
            caller.start()
            assert not waits.brings_one()
            with trio.fail_after(LONG_SECONDS):
                await called.wait()
            caller.join()

    trio.run(main)


def test_a_timer_of_another_task_ends_the_wait(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    device, kernel = ends

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 0.1)
            with ShortWait(device.fileno()) as waits:
                while True:
                    await woken(device, kernel)
                    if not nursery.child_tasks:
                        break
                    assert not waits.brings_one()

    began = time.monotonic()
    trio.run(main)
    assert time.monotonic() - began < LONG_SECONDS


@pytest.mark.parametrize("is_ready_before", [False, True])
def test_a_task_that_can_run_is_not_held_up(
    ends: tuple[socket.socket, socket.socket], *, is_ready_before: bool
) -> None:
    """Neither one found ready in the same round, nor one that this task makes ready."""
    device, kernel = ends

    async def main() -> None:
        called, ran = trio.Event(), trio.Event()
        other, sender = socket.socketpair()
        other.setblocking(False)

        async def work() -> None:
            if is_ready_before:
                await trio.lowlevel.wait_readable(other)
            else:
                await called.wait()
            ran.set()

        with other, sender:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work)
                await trio.testing.wait_all_tasks_blocked()
                with ShortWait(device.fileno()) as waits:
                    if is_ready_before:
                        sender.send(b"x")
                    while not ran.is_set():
                        await woken(device, kernel)
                        called.set()
                        if not ran.is_set():
                            assert not waits.brings_one()

    trio.run(main)


def test_without_what_it_needs_of_trio_the_loop_waits(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    device, kernel = ends

    async def main() -> None:
        waits = ShortWait(device.fileno())
        with contextlib.ExitStack() as stack:
            with monkeypatch.context() as patched:
                patched.setattr(trio._core._run, "GLOBAL_RUN_CONTEXT", SimpleNamespace())
                stack.enter_context(waits)
            await woken(device, kernel)
            assert not waits.brings_one()

    trio.run(main)


def test_who_does_not_ask_again_at_once_is_waited_for_on_any_processor(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """Its own may be busy when somebody asks the next time."""
    device, kernel = ends
    roamed: list[bytes] = []

    def roam() -> None:
        if not roamed:
            roamed.append(b"third")
            kernel.send(roamed[0])

    async def main() -> None:
        with ShortWait(device.fileno()) as waits:
            told = SimpleNamespace(before_wait=lambda: True, roam=roam)
            waits.nearness = cast("Nearness", told)
            await woken(device, kernel)
            kernel.send(b"second")
            assert waits.brings_one()
            assert not roamed
            assert os.read(device.fileno(), 100) == b"second"
            assert waits.brings_one()
            assert os.read(device.fileno(), 100) == b"third"

    trio.run(main)


class Answers:
    """Something else that arrives, as a store's answers do; ``then`` is called with each."""

    def __init__(self, then: Callable[[bytes], None]) -> None:
        self.inside, self.outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.inside.setblocking(False)
        self.then = then
        self.expected = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.inside.close()
        self.outside.close()

    def send(self, answer: bytes) -> None:
        self.expected += 1
        self.outside.send(answer)

    def fileno(self) -> int:
        return self.inside.fileno()

    def expects(self) -> bool:
        return self.expected > 0

    def receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            answer = self.inside.recv(100)
            self.expected -= 1
            self.then(answer)


def test_what_arrives_beside_is_taken_before_the_next_request(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """A program asks again when it has its answer: one wait for both, and no round of the loop."""
    device, kernel = ends
    rounds: list[float] = []

    class Rounds(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            rounds.append(timeout)

    async def main() -> None:
        with (
            Answers(kernel.send) as answers,
            served_beside(answers),
            ShortWait(device.fileno()) as waits,
        ):
            await woken(device, kernel)
            trio.lowlevel.add_instrument(Rounds())
            for request in (b"second", b"third"):
                answers.send(request)
                assert waits.brings_one()
                assert os.read(device.fileno(), 100) == request
            assert not answers.expected
            assert not rounds

    trio.run(main)


def test_what_arrives_beside_may_let_a_task_go_on(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    device, kernel = ends

    async def main() -> None:
        came = trio.Event()
        with (
            Answers(lambda _answer: came.set()) as answers,
            served_beside(answers),
            ShortWait(device.fileno()) as waits,
        ):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(came.wait)
                await trio.testing.wait_all_tasks_blocked()
                await woken(device, kernel)
                answers.send(b"answer")
                assert not waits.brings_one()
                assert came.is_set()

    trio.run(main)


def test_what_keeps_arriving_beside_holds_nobody_up(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    device, kernel = ends

    async def main() -> None:
        other, sender = socket.socketpair()
        other.setblocking(False)
        with other, sender, Answers(lambda _answer: answers.send(b"again")) as answers:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.lowlevel.wait_readable, other)
                await trio.testing.wait_all_tasks_blocked()
                with served_beside(answers), ShortWait(device.fileno()) as waits:
                    await woken(device, kernel)
                    answers.send(b"again")
                    sender.send(b"x")
                    assert not waits.brings_one()
                    assert answers.expected  # it would go on for ever

    trio.run(main)


def test_what_nobody_expects_is_not_waited_for(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    device, kernel = ends

    async def main() -> None:
        with (
            Answers(kernel.send) as answers,
            served_beside(answers),
            ShortWait(device.fileno()) as waits,
        ):
            await woken(device, kernel)
            answers.outside.send(b"unasked")
            sender = threading.Timer(0.05, kernel.send, (b"second",))
            sender.start()
            assert waits.brings_one()
            assert os.read(device.fileno(), 100) == b"second"
            sender.join()

    trio.run(main)


def test_what_ended_is_not_waited_for(ends: tuple[socket.socket, socket.socket]) -> None:
    """Its descriptor may be somebody else's by then."""
    device, kernel = ends

    async def main() -> None:
        with Answers(kernel.send) as second, ShortWait(device.fileno()) as waits:
            with Answers(kernel.send) as first, served_beside(first):
                await woken(device, kernel)
                first.send(b"second")
                assert waits.brings_one()
                assert os.read(device.fileno(), 100) == b"second"
            with served_beside(second):
                second.send(b"third")
                assert waits.brings_one()
                assert os.read(device.fileno(), 100) == b"third"

    trio.run(main)

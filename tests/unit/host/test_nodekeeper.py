"""The node's keeper: who gets what it holds, and when it lets go. A socket stands for the kernel's
descriptor, whose other end is the mount."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.host.deposit import KEEP, MOUNT, Deposit, DepositError
from ossfs_py.host.nodekeeper import NodeKeeper, listening

TOLD = {"mountpoint": "/mnt/models", "source": "models"}
SECONDS = 60.0


class Running:
    """A keeper in a thread."""

    def __init__(self, path: Path, wait_seconds: float = 60.0) -> None:
        self.path = path
        self.said: list[str] = []
        self._wait_seconds = wait_seconds
        self._closing = contextlib.ExitStack()
        self._claimed: list[Deposit] = []

    def __enter__(self) -> "Running":
        listener = self._closing.enter_context(listening(self.path))
        self._node = NodeKeeper(self._wait_seconds, self.said.append)
        self._thread = threading.Thread(target=self._node.serve, args=(listener,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for deposit in self._claimed:
            with contextlib.suppress(OSError):
                close(deposit)
        self._node.end()
        self._thread.join(SECONDS)
        self._closing.close()

    def claim(self, told: dict[str, str] = TOLD, warn: Callable[[str], None] = print) -> Deposit:
        deposit = Deposit.claimed(str(self.path), told, warn)
        self._claimed.append(deposit)
        return deposit

    def has_said(self, text: str) -> None:
        wait_for(lambda: any(text in line for line in self.said))


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path / "socket") as one:
        yield one


@pytest.fixture
def mounted() -> Iterator[tuple[list[int], socket.socket]]:
    """Table, kernel's descriptor and a lock, and the other end of the second."""
    ours, kernels = socket.socketpair()
    table = os.memfd_create("table")
    os.write(table, b"what is open")
    lock = os.open(os.devnull, os.O_RDONLY)
    yield [table, ours.fileno(), lock], kernels
    with contextlib.suppress(OSError):
        kernels.close()
    for descriptor in (table, lock):
        os.close(descriptor)
    ours.close()


def close(deposit: Deposit) -> None:
    """As the end of its process does."""
    text = deposit.handed_on()
    for number in (json.loads(text)[2], *json.loads(text)[3]):
        with contextlib.suppress(OSError):
            os.close(number)


def given(deposit: Deposit, descriptors: list[int]) -> None:
    """Held now; its process has descriptors of its own."""
    deposit.keep([os.dup(descriptor) for descriptor in descriptors])
    assert deposit.is_taken


def test_what_was_given_goes_to_who_comes_next(
    running: Running, mounted: tuple[list[int], socket.socket]
) -> None:
    descriptors, kernels = mounted
    first = running.claim()
    assert first.descriptors == []
    assert not first.is_taken
    given(first, descriptors)
    close(first)
    second = running.claim()
    assert second.is_taken
    table, device, _lock = second.descriptors
    assert os.pread(table, 100, 0) == b"what is open"
    kernels.send(b"a request")
    assert os.read(device, 100) == b"a request"
    third = Deposit.from_text(second.handed_on())  # it outlives an exec
    assert third.descriptors == second.descriptors
    close(third)


def test_a_mount_that_ended_is_held_no_more(
    running: Running, mounted: tuple[list[int], socket.socket]
) -> None:
    first = running.claim()
    given(first, mounted[0])
    first.ended()
    close(first)
    second = running.claim()
    assert second.descriptors == []
    given(second, mounted[0])
    close(second)
    running.has_said("waits for its next daemon (its daemon died)")
    mounted[1].close()  # unmounted
    running.has_said("was unmounted")
    assert running.claim().descriptors == []


def test_who_comes_too_early_is_told_and_waits(
    running: Running, mounted: tuple[list[int], socket.socket]
) -> None:
    first = running.claim()
    given(first, mounted[0])
    told: list[str] = []
    got: list[Deposit] = []
    waiting = threading.Thread(target=lambda: got.append(running.claim(warn=told.append)))
    waiting.start()
    wait_for(lambda: bool(told))
    assert told == ["waiting for the daemon that serves /mnt/models to let go of it"]
    # Another mount waits for nobody.
    assert running.claim({"mountpoint": "/mnt/other", "source": "models"}).descriptors == []
    first.left()
    close(first)
    waiting.join(SECONDS)
    assert len(got[0].descriptors) == len(mounted[0])
    running.has_said("goes to the next daemon")


def test_another_source_gets_nothing(
    running: Running, mounted: tuple[list[int], socket.socket]
) -> None:
    given(running.claim(), mounted[0])
    with pytest.raises(DepositError, match="it holds the mount of models at /mnt/models, not of b"):
        running.claim({**TOLD, "source": "b"})


def test_who_only_tries_to_take_over_does_not_extend_the_time(
    tmp_path: Path, mounted: tuple[list[int], socket.socket]
) -> None:
    with Running(tmp_path / "socket", wait_seconds=1.0) as running:
        began = time.monotonic()
        first = running.claim()
        given(first, mounted[0])
        first.left("the state cannot be taken over")
        close(first)
        while (tried := running.claim()).descriptors:
            tried.left("the state cannot be taken over")
            close(tried)
            time.sleep(0.1)
        assert time.monotonic() - began < SECONDS / 2
        running.has_said(
            "is given up: no other daemon served it within 1 s; the state cannot be taken over"
        )


def test_each_that_serves_gives_the_next_the_whole_time(
    tmp_path: Path, mounted: tuple[list[int], socket.socket]
) -> None:
    with Running(tmp_path / "socket", wait_seconds=1.0) as running:
        first = running.claim()
        given(first, mounted[0])
        for _ in range(4):
            first.left()
            close(first)
            time.sleep(0.4)
            first = running.claim()
            assert first.descriptors
            first.serves()
        close(first)


def test_unforeseen_ends_are_counted(
    running: Running, mounted: tuple[list[int], socket.socket]
) -> None:
    first = running.claim()
    given(first, mounted[0])
    for _ in range(6):
        first.serves()
        close(first)
        first = running.claim()
    assert first.descriptors == []
    running.has_said("is given up: its daemon died 6 times within a minute")


def test_another_keeper_is_given_what_the_one_before_held(
    tmp_path: Path, mounted: tuple[list[int], socket.socket]
) -> None:
    path = tmp_path / "run/socket"
    with Running(path):
        deposit = Deposit.claimed(str(path), TOLD, print)
        given(deposit, mounted[0])
        deposit.look_after()
        assert deposit.is_taken
    assert not deposit.is_taken
    deposit.look_after()  # nobody is there
    assert not deposit.is_taken
    with Running(path) as running:
        deposit.look_after()
        assert deposit.is_taken
        close(deposit)
        assert len(running.claim().descriptors) == len(mounted[0])


@pytest.mark.parametrize(
    "word",
    [
        b"",
        b"nonsense",
        KEEP,
        MOUNT + b"{",
        MOUNT + b"[]",
        MOUNT + b'{"mountpoint": "/x"}',
        MOUNT + b"\xff",
        MOUNT + b"[" * 20_000,
    ],
)
def test_words_that_no_mount_says_end_their_connection_only(
    running: Running, mounted: tuple[list[int], socket.socket], word: bytes
) -> None:
    given(running.claim(), mounted[0])
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
        channel.settimeout(SECONDS)
        channel.connect(str(running.path))
        socket.send_fds(channel, [word], mounted[0])
        with contextlib.suppress(ConnectionResetError):
            assert channel.recv(100) == b""
    assert running.claim({"mountpoint": "/mnt/other", "source": "x"}).descriptors == []


def test_two_keepers_do_not_listen_at_one_place_and_a_dead_one_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "made/socket"
    with listening(path):
        with (
            pytest.raises(EnvironmentProblemError, match="another keeper listens at"),
            listening(path),
        ):
            pass
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not path.exists()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(path))
    with listening(path):
        pass
    path.write_text("a file")
    with pytest.raises(EnvironmentProblemError, match="Address already in use"), listening(path):
        pass
    assert path.read_text() == "a file"


def test_who_finds_no_keeper_is_told_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(DepositError, match="start 'ossfs-py keeper --socket' first"):
        Deposit.claimed(str(tmp_path / "none"), TOLD, print, patience_seconds=0)

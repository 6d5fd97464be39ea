"""How the tests start a daemon: the command itself, or a fork of a process that has its modules.

Python and the modules of a daemon take half a CPU second to load, and the tests start a daemon
more than a thousand times. So each process of the tests has one that has loaded them
(:mod:`tests.support.loaded`), and which forks. What a fork cannot show takes the command itself:
what is loaded when, how long a start takes, how much memory it takes.
"""

import atexit
import collections
import contextlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from tests.support.loaded import NUMBER, REQUEST_BYTES

_ROOT = Path(__file__).parents[2]
_ANSWER_SECONDS = 120.0
_PLAIN = (sys.executable, "-m", "ossfs_py")
"""How a command begins that a fork can be; another one bends the daemon, or leads it elsewhere."""
_READ_LATE = ("AWS_", "OSS_", "OSSFS_PY_", "PYTEST_")
"""Variables that no module reads while it is loaded; the last are pytest's own."""
_LIMITS = [value for name, value in vars(resource).items() if name.startswith("RLIMIT_")]
_Surroundings = tuple[object, ...]
"""What a process has from its start."""


class Daemon(Protocol):
    """What is used of a process."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int) -> None: ...

    def kill(self) -> None: ...


def execute(command: Sequence[str], environment: Mapping[str, str], log: BinaryIO) -> Daemon:
    """Start the command itself."""
    return subprocess.Popen(
        # Should the test run be killed, the kernel tells the daemon to end.
        ["setpriv", "--pdeathsig", "TERM", *command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        # A Ctrl-C at pytest's terminal is pytest's to handle.
        start_new_session=True,
    )


def fork(command: Sequence[str], environment: Mapping[str, str], log: BinaryIO) -> Daemon:
    """Start the same by a fork.

    It is the command itself that is started where a fork would not be the same: whatever a
    process has from its start has to be what it was when the modules were loaded.
    """
    request = json.dumps({"words": list(command), "environment": dict(environment)}).encode()
    if (
        tuple(command[: len(_PLAIN)]) != _PLAIN
        or "COVERAGE_RCFILE" in environment
        or Path.cwd() != _ROOT
        or len(request) > REQUEST_BYTES
    ):
        return execute(command, environment, log)
    surroundings = _surroundings(environment)
    with _choosing:
        _seen[surroundings] += 1
        if surroundings not in _loaded:
            if _seen[surroundings] == 1 or len(_loaded) == _MOST_LOADED:
                return execute(command, environment, log)
            _loaded[surroundings] = _Loaded(environment)
        return _loaded[surroundings].fork(request, log)


class Forked:
    """A daemon that was forked by the process that has its modules.

    As with a child, its number stays its own until it has been waited for.
    """

    def __init__(self, pid: int, end: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._end = end
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            waiting = select.poll()
            waiting.register(self._end, select.POLLIN)
            if not waiting.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired("daemon", timeout or 0)
            with self._lock:
                if self.returncode is None:
                    told = self._end.recv(NUMBER.size)
                    assert told, "the process that forks daemons has ended"
                    self.returncode = int(NUMBER.unpack(told)[0])
                    self._end.close()
        return self.returncode

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Loaded:
    """The process of :mod:`tests.support.loaded`; it goes with this one."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._asks, asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asks.settimeout(_ANSWER_SECONDS)
        with asked:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.loaded", str(asked.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
                pass_fds=[asked.fileno()],
                start_new_session=True,
            )
        atexit.register(self._end)

    def fork(self, request: bytes, log: BinaryIO) -> Forked:
        end, told = socket.socketpair()
        with told:
            socket.send_fds(self._asks, [request], [log.fileno(), told.fileno()])
            answer = self._asks.recv(NUMBER.size)
        assert answer, "the process that forks daemons has ended"
        return Forked(*NUMBER.unpack(answer), end)

    def _end(self) -> None:
        self._asks.close()
        self._process.wait()


_loaded: dict[_Surroundings, _Loaded] = {}
_seen: collections.Counter[_Surroundings] = collections.Counter()
_MOST_LOADED = 3
_choosing = threading.Lock()


def _surroundings(environment: Mapping[str, str]) -> _Surroundings:
    variables = (
        (name, value)
        for name, value in environment.items()
        if not name.startswith(_READ_LATE) and not name.upper().endswith("_PROXY")
    )
    status = Path("/proc/self/status").read_text().splitlines()
    return (
        frozenset(variables),
        tuple(resource.getrlimit(number) for number in _LIMITS),
        next(line for line in status if line.startswith("Umask:")),
        frozenset(os.sched_getaffinity(0)),
    )

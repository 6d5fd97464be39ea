"""What all the servers need: a place, ports, processes that end with us, somebody who waits."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ACCESS_KEY, SECRET_KEY = "testkey0000", "testsecret0000"
START_SECONDS = 60.0
"""Ceph takes 7 s on an idle machine, LocalStack 6 s. Also the longest that a tool may take."""
END_SECONDS = 20.0
POLL_SECONDS = 0.1
ENVIRONMENTS = Path(sys.prefix) / "servers"
"""A virtual environment for each server that comes from PyPI: they want other versions than we."""


class ServerMissingError(Exception):
    """A server cannot be started here: one sentence."""


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    endpoint: str
    version: str
    """As the server's own program tells it."""
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY
    region: str = "us-east-1"


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on now, none twice."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def environment_with(name: str, *packages: str) -> Path:
    """The ``bin`` of a virtual environment that has these packages; made when it is missing."""
    home = ENVIRONMENTS / name
    done = home / ".done"
    wanted = "\n".join(packages)
    if not done.exists() or done.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        install = [home / "bin/python", "-m", "pip", "install", "--quiet", "--no-compile"]
        subprocess.run([*install, *packages], check=True)
        done.write_text(wanted)
    return home / "bin"


def output_of(*command: str | Path, **more: object) -> str:
    """What a program that must succeed says.

    Raises:
        ServerMissingError: it does not, or takes longer than :data:`START_SECONDS`.
    """
    try:
        done = subprocess.run(
            [str(word) for word in command],
            capture_output=True,
            text=True,
            check=False,
            timeout=START_SECONDS,
            **more,  # type: ignore[call-overload]
        )
    except subprocess.TimeoutExpired as exc:
        raise ServerMissingError(f"{command[0]} does not end: {exc.stderr or ''!r}") from exc
    if done.returncode:
        raise ServerMissingError(f"{command[0]}: {(done.stderr or done.stdout).strip()}")
    return str(done.stdout).strip()


@contextlib.contextmanager
def program(
    command: Sequence[str | Path],
    log: Path,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    end_with: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """A program in the background, ended at the end, and by the kernel should we be killed."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, **(environment or {})},
            cwd=cwd or log.parent,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        # Some have children of their own, which are in the same process group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, end_with)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(
    answers: Callable[[], bool], what: str, log: Path, process: subprocess.Popen[bytes]
) -> None:
    """Ask again and again.

    Raises:
        ServerMissingError: it takes too long, or the process has ended; with the end of its log.
    """
    deadline = time.monotonic() + START_SECONDS
    while not answers():
        code = process.poll()
        if code is not None or time.monotonic() > deadline:
            why = "does not answer" if code is None else f"has ended with {code}"
            tail = log.read_text(errors="replace")[-2000:] if log.exists() else "no log"
            raise ServerMissingError(f"{what} {why}: {tail}")
        time.sleep(POLL_SECONDS)


def listening(port: int) -> bool:
    """Whether somebody takes connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True

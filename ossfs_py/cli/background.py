"""Runs a server in a daemon process and waits until it is ready or says why it cannot be."""

import contextlib
import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn, Protocol

from ossfs_py.errors import EnvironmentProblemError, UsageError, UserError

ANSWER_SECONDS = 10.0
"""How long a mount that calls itself ready may take to answer its first question."""
_END_SECONDS = 10.0
"""How long an interrupted daemon may take to clean up before it is killed."""
_TERMINATED = 128 + signal.SIGTERM


class Ready(Protocol):
    """How a daemon says that it serves, and what a person should know of it."""

    def __call__(self, warnings: Sequence[str] = ()) -> None:
        """Said once; later calls say nothing."""


def _keep_quiet(_warning: str) -> None:
    """For callers that report to nobody."""


def run_detached(
    serve: Callable[[Ready], int],
    mountpoint: Path | None,
    warn: Callable[[str], None] = _keep_quiet,
    become_keeper: Callable[[int], NoReturn] | None = None,
) -> int:
    """Fork a daemon that runs ``serve`` and return 0 once ``mountpoint`` answers; without one,
    once the daemon says that it is ready.

    ``warn`` is told what the daemon says beside being ready. With ``become_keeper`` the process
    that is forked goes on as that, and its child is the daemon, which calls :func:`be_the_daemon`
    with the descriptor that it is given.
    Must be called before any thread is started. Interrupted (SIGINT, SIGTERM), it ends the
    daemon first.

    Raises:
        UserError: what the daemon said, or that it ended without a word.
    """
    reader, writer = os.pipe()
    # A signal that comes before somebody ends the daemon at it would leave the daemon running.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(reader)
        if become_keeper is not None:
            os.setsid()
            _drop_standard_streams()
            become_keeper(writer)
        be_the_daemon(serve, writer)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as answer, _ended_when_interrupted(pid, mask):
        message = answer.read()
        if not message:
            raise EnvironmentProblemError(_silent_end(pid))
        told = json.loads(message)
        if "error" in told:
            os.waitpid(pid, 0)
            kind = UsageError if told["exit_code"] == UsageError.exit_code else UserError
            raise kind(told["error"])
        if mountpoint is not None:
            wait_for_answer(mountpoint)
    for warning in told["warnings"]:
        warn(warning)
    return 0


def be_the_daemon(serve: Callable[[Ready], int], writer: int) -> NoReturn:
    """The life of a daemon whose first word is waited for behind the descriptor ``writer``.

    Leaves by ``os._exit``: the parent's clean-up is not the child's.
    """
    code = UserError.exit_code
    said = False

    def say(message: dict[str, object]) -> None:
        nonlocal said
        if not said:
            said = True
            # The parent may have been killed; the mount does not depend on it.
            with contextlib.suppress(BrokenPipeError):
                os.write(writer, json.dumps(message).encode())
            os.close(writer)

    try:
        os.setsid()
        os.chdir("/")
        _drop_standard_streams()
        code = serve(lambda warnings=(): say({"ready": True, "warnings": list(warnings)}))
    except UserError as exc:
        code = exc.exit_code
        say({"error": str(exc), "exit_code": code})
    except BaseException as exc:
        say({"error": f"the daemon failed: {exc!r}", "exit_code": code})
        raise
    finally:
        logging.shutdown()
        os._exit(code)


def _drop_standard_streams() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    if null > 2:
        os.close(null)


@contextlib.contextmanager
def _ended_when_interrupted(pid: int, mask: set[int]) -> Iterator[None]:
    """End the daemon when the body is interrupted or fails after the daemon was ready.

    Signals are blocked up to here; ``mask`` is what is blocked from now on.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(_TERMINATED)

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield
    except BaseException:
        _end(pid)
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def _end(pid: int) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, number)
            waiter = threading.Thread(target=_reap, args=(pid,), daemon=True)
            waiter.start()
            waiter.join(_END_SECONDS)
            if not waiter.is_alive():
                return


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _silent_end(pid: int) -> str:
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return f"the daemon was killed by signal {os.WTERMSIG(status)} while mounting"
    return f"the daemon ended with exit code {os.WEXITSTATUS(status)} before it was mounted"


def wait_for_answer(mountpoint: Path, within_seconds: float | None = None) -> None:
    """Ask the mount as any program would.

    In a thread, as the kernel lets nobody take back a question to a FUSE daemon.

    Raises:
        EnvironmentProblemError: it does not answer, or with an error.
    """
    failures: list[OSError] = []

    def ask() -> None:
        try:
            os.statvfs(mountpoint)
        except OSError as exc:
            failures.append(exc)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    limit_seconds = ANSWER_SECONDS if within_seconds is None else within_seconds
    asking.join(limit_seconds)
    if asking.is_alive():
        raise EnvironmentProblemError(
            f"{mountpoint} was mounted but does not answer within {limit_seconds:g} seconds"
        )
    if failures:
        raise EnvironmentProblemError(
            f"{mountpoint} was mounted but does not answer: {failures[0].strerror}"
        )

"""Starting a daemon: the command returns with its first word.

Each test runs in a process of its own, as forking is for processes without threads.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PRELUDE = """
import os, signal, sys, time
from pathlib import Path
from ossfs_py.cli.background import run_detached
from ossfs_py.errors import EnvironmentProblemError, UserError
note = Path(sys.argv[1])
def answer(serve, mountpoint="/"):
    try:
        print("code", run_detached(serve, Path(mountpoint)))
    except UserError as exc:
        print("error", exc.exit_code, exc)
"""


def started(body: str, note: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + body, str(note)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def output(body: str, note: Path) -> str:
    # communicate() returns only when nobody holds the pipe any more: the daemon must not.
    return started(body, note).communicate(timeout=300)[0]


def wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + 120
    while is_alive(pid):
        assert time.monotonic() < deadline, "the daemon lives on"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie that waits for its parent."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def test_the_command_returns_when_the_daemon_is_ready(tmp_path: Path) -> None:
    note = tmp_path / "note"
    body = """
def serve(ready):
    note.write_text(f"{os.getpid()} {os.getsid(0)} {os.getcwd()} {os.readlink('/proc/self/fd/1')}")
    ready()
    signal.pause()
answer(serve)
"""
    assert output(body, note) == "code 0\n"
    pid, session, directory, stdout = note.read_text().split()
    assert session == pid
    assert directory == "/"
    assert stdout == "/dev/null"
    os.kill(int(pid), signal.SIGKILL)
    wait_for_end(int(pid))


def test_the_daemons_reason_and_exit_code_are_passed_on(tmp_path: Path) -> None:
    body = """
def serve(ready):
    raise EnvironmentProblemError("the bucket is missing")
answer(serve)
"""
    assert output(body, tmp_path / "note") == "error 1 the bucket is missing\n"


def test_an_unexpected_failure_is_told_without_a_traceback(tmp_path: Path) -> None:
    body = """
def serve(ready):
    raise KeyError("surprise")
answer(serve)
"""
    assert output(body, tmp_path / "note") == "error 1 the daemon failed: KeyError('surprise')\n"


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("os._exit(3)", "the daemon ended with exit code 3 before it was mounted"),
        ("return 1", "the daemon ended with exit code 1 before it was mounted"),
        ("os.kill(os.getpid(), 9)", "the daemon was killed by signal 9 while mounting"),
    ],
)
def test_a_daemon_that_ends_without_a_word_is_noticed(
    end: str, reason: str, tmp_path: Path
) -> None:
    assert output(f"def serve(ready): {end}\nanswer(serve)", tmp_path / "note") == (
        f"error 1 {reason}\n"
    )


def test_a_mount_that_does_not_answer_ends_its_daemon(tmp_path: Path) -> None:
    note = tmp_path / "note"
    body = """
def serve(ready):
    note.write_text(str(os.getpid()))
    ready()
    signal.pause()
answer(serve, "/nonexistent/mountpoint")
"""
    assert output(body, note) == (
        "error 1 /nonexistent/mountpoint was mounted but does not answer:"
        " No such file or directory\n"
    )
    wait_for_end(int(note.read_text()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_the_command_ends_the_daemon(number: signal.Signals, tmp_path: Path) -> None:
    note = tmp_path / "note"
    os.mkfifo(note)
    body = """
def serve(ready):
    note.write_text(str(os.getpid()))
    signal.pause()
answer(serve)
"""
    with started(body, note) as process:
        pid = int(note.read_text())
        process.send_signal(number)
        process.communicate(timeout=300)
        assert process.returncode != 0
    wait_for_end(pid)

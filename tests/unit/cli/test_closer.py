"""The closer: a daemon's end waits for no file to be closed; the closer closes them after it."""

import errno
import fcntl
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ossfs_py.cli import closer
from tests.support.holding import wait_for

SECONDS = 60
DAEMON = """
import fcntl, os, socket, sys, tempfile, time
from ossfs_py.cli.closer import start_closer
directory, channel = sys.argv[1], int(sys.argv[2])
assert start_closer()
lock = open(directory + "/lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
nameless = tempfile.TemporaryFile(dir=directory)
mine = os.dup(channel)
print("serves", flush=True)
time.sleep(600)
"""


def children_of(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def running(directory: Path, channel: int) -> "Iterator[subprocess.Popen[bytes]]":
    """A daemon with a lock, a file without a name, and a duplicate of ``channel``."""
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(directory), str(channel)],
        stdout=subprocess.PIPE,
        pass_fds=[channel],
        start_new_session=True,
    )
    with daemon:
        try:
            assert daemon.stdout is not None
            assert daemon.stdout.readline() == b"serves\n"
            yield daemon
        finally:
            daemon.kill()


def files_of(pid: int) -> set[str]:
    return {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()}


def test_a_killed_daemon_has_ended_before_its_files_are_closed(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    with (
        os.fdopen(ours, "rb") as ours_file,
        (tmp_path / "lock").open("w") as lock,
        running(tmp_path, theirs) as daemon,
    ):
        os.close(theirs)
        (pid,) = children_of(daemon.pid)
        # What was opened since it began is the closer's as well.
        (nameless,) = (each for each in files_of(pid) if each.startswith(f"{tmp_path}/#"))
        os.kill(pid, signal.SIGSTOP)
        daemon.kill()
        assert daemon.wait(SECONDS) == -signal.SIGKILL
        assert nameless in files_of(pid)
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert not select.select([ours_file], [], [], 0)[0]
        os.kill(pid, signal.SIGCONT)
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert ours_file.read() == b""
        wait_for(lambda: not Path(f"/proc/{pid}/exe").exists())


def test_signals_to_a_whole_group_do_not_end_it_before_its_daemon(tmp_path: Path) -> None:
    with running(tmp_path, 2) as daemon:
        assert daemon.stdout is not None
        (pid,) = children_of(daemon.pid)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            os.kill(pid, number)
        os.kill(pid, 0)
        assert children_of(daemon.pid) == [pid]
        os.killpg(daemon.pid, signal.SIGTERM)
        assert daemon.wait(SECONDS) == -signal.SIGTERM
        assert daemon.stdout.read() == b""  # it has closed the pipe


def test_it_leaves_no_core_file_either_and_keeps_no_directory_busy(tmp_path: Path) -> None:
    with running(tmp_path, 2) as daemon:
        (pid,) = children_of(daemon.pid)

        def limits() -> list[str]:
            lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
            return next(line.split() for line in lines if line.startswith("Max core file size"))

        wait_for(lambda: limits()[4] == "0")
        wait_for(lambda: Path(f"/proc/{pid}/cwd").readlink() == Path("/"))


def test_files_without_a_name_are_closed_last(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        reading, writing = os.pipe()
        assert [closer.takes_long(each) for each in (file.fileno(), reading, 10**6)] == [False] * 3
        os.close(reading)
        os.close(writing)
        (tmp_path / "file").unlink()
        assert closer.takes_long(file.fileno())


def test_without_the_calls_that_it_needs_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_pid: int) -> int:
        raise OSError(errno.ENOSYS, "not there")

    monkeypatch.setattr(os, "pidfd_open", refused)
    assert not closer.start_closer()
    monkeypatch.setattr(closer, "CLONE", {})
    assert not closer.start_closer()

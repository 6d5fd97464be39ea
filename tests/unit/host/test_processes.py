"""What /proc tells of processes that end."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ossfs_py.host.processes import ProcessTable

ALIVE = "R 1 1 1 0 -1 {flags}" + " 0" * 21 + " {pending}" + " 0" * 20 + " {code}"


def table(root: Path, *, flags: int = 0x400000, pending: int = 0, code: int = 0) -> ProcessTable:
    """A table with process 7, whose name is a hard one."""
    (root / "7").mkdir()
    (root / "7" / "stat").write_text(
        "7 (a) R (b) " + ALIVE.format(flags=flags, pending=pending, code=code) + "\n"
    )
    return ProcessTable(root)


def test_a_thread_belongs_to_its_process() -> None:
    processes = ProcessTable()
    assert processes.process_of(os.getpid()) == os.getpid()
    found: list[int | None] = []
    thread = threading.Thread(
        target=lambda: found.append(processes.process_of(threading.get_native_id()))
    )
    thread.start()
    thread.join()
    assert found == [os.getpid()]


@pytest.mark.parametrize("thread_id", [0, -1, 2**31 - 1])
def test_no_process_is_made_up(thread_id: int) -> None:
    assert ProcessTable().process_of(thread_id) is None
    assert not ProcessTable().is_killed(thread_id)


def test_a_living_process_is_not_killed() -> None:
    assert not ProcessTable().is_killed(os.getpid())


@pytest.mark.parametrize(
    ("code", "number", "killed"),
    [("import os; os._exit(3)", None, False), ("input()", signal.SIGTERM, True)],
)
def test_how_a_process_ended_is_told_until_somebody_waits_for_it(
    code: str, number: signal.Signals | None, killed: bool
) -> None:
    program = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    if number is not None:
        program.send_signal(number)
    os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
    assert ProcessTable().is_killed(program.pid) is killed
    program.wait()
    assert program.stdin is not None
    program.stdin.close()


def test_a_stopped_process_is_not_killed() -> None:
    program = subprocess.Popen(["sleep", "1000"])
    try:
        program.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, program.pid, os.WSTOPPED | os.WNOWAIT)
        assert not ProcessTable().is_killed(program.pid)
    finally:
        program.kill()
        program.wait()


def test_a_thread_that_cannot_be_interrupted_has_the_signal_pending(tmp_path: Path) -> None:
    assert table(tmp_path, pending=1 << 8, code=9).is_killed(7)


@pytest.mark.parametrize("pending", [1 << 1, 1 << 14])
def test_other_pending_signals_do_not_end_a_process(tmp_path: Path, pending: int) -> None:
    assert not table(tmp_path, pending=pending).is_killed(7)


@pytest.mark.parametrize(
    ("code", "killed"), [(9, True), (15, True), (768, False), (0, False), (20, False)]
)
def test_a_process_that_exits_was_killed_if_its_status_says_so(
    tmp_path: Path, code: int, killed: bool
) -> None:
    assert table(tmp_path, flags=0x400004, code=code).is_killed(7) is killed


@pytest.mark.parametrize("text", ["", "7 (x) R 1", "7"])
def test_what_is_not_understood_is_nobody_killed(tmp_path: Path, text: str) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text(text)
    (tmp_path / "7" / "status").write_text(text)
    assert not ProcessTable(tmp_path).is_killed(7)
    assert ProcessTable(tmp_path).process_of(7) is None

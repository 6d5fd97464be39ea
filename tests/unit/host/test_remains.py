"""When a dead daemon waits for the next one, by what /proc says of its threads."""

import os
from pathlib import Path

import pytest

from ossfs_py.host import remains

PID = 7
WRITE = remains._WRITES.get(os.uname().machine, ("1",))[0]


def process(top: Path, leader: str, *threads: tuple[str, str, str]) -> None:
    """A process: the state of its first thread; state, system call and file of the others."""
    directory = top / str(PID)
    for task in (directory, directory / "task" / str(PID)):
        task.mkdir(parents=True)
        (task / "stat").write_text(f"{PID} (a (name) {leader}) {leader} 1 1")
    for number, (state, call, file) in enumerate(threads, PID + 1):
        thread = directory / "task" / str(number)
        (thread / "fd").mkdir(parents=True)
        (thread / "stat").write_text(f"{number} (python) {state} 1 1")
        (thread / "syscall").write_text(call)
        (thread / "fd" / "19").symlink_to(file)


TELLS = ("D", f"{WRITE} 0x13 0x7fdf4070a120 0x25", "/dev/fuse")


@pytest.mark.parametrize(
    ("leader", "threads", "waits"),
    [
        ("Z", [TELLS], True),
        ("Z", [TELLS, TELLS], True),
        ("S", [TELLS], False),
        ("Z", [], False),
        ("Z", [TELLS, ("R", "running", "/dev/fuse")], False),
        ("Z", [TELLS, ("D", f"{WRITE} 0x13 0x0 0x25", "/tmp/staged")], False),
        ("Z", [("D", "9999 0x13 0x0 0x25", "/dev/fuse")], False),
        ("Z", [("D", f"{WRITE} 0x14 0x0 0x25", "/dev/fuse")], False),
        ("Z", [("D", "running", "/dev/fuse")], False),
    ],
)
def test_only_who_tells_the_kernel_something_waits_for_the_next_daemon(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    leader: str,
    threads: list[tuple[str, str, str]],
    *,
    waits: bool,
) -> None:
    monkeypatch.setattr(remains, "_PROC", tmp_path)
    process(tmp_path, leader, *threads)
    assert remains.waits_for_the_next(PID) is waits


def test_what_may_not_be_seen_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_thread: Path) -> bool:
        raise PermissionError

    monkeypatch.setattr(remains, "_PROC", tmp_path)
    monkeypatch.setattr(remains, "_tells_the_kernel", refused)
    process(tmp_path, "Z", TELLS)
    assert remains.waits_for_the_next(PID) is None


def test_what_is_not_seen_is_waited_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [None, None, False, None, True]
    now = [0.0]
    monkeypatch.setattr(remains.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(remains, "waits_for_the_next", lambda _pid: seen[0])
    left = remains.Remains()
    told = []
    for seconds in (20, 20, 20, 20, 2):
        told.append(left.let_go(PID))
        now[0] += seconds
        del seen[0]
    assert told == [False, False, False, False, True]
    seen[:] = [None]
    assert not left.let_go(PID)
    now[0] += remains._UNSEEN_SECONDS + 1
    assert left.let_go(PID)


def test_a_process_that_is_gone_waits_for_nothing() -> None:
    assert remains.waits_for_the_next(2**22 + 1) is False

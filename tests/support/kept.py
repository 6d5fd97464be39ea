"""Mounts that survive their daemons: who serves them, and who comes next."""

import os
import signal
from pathlib import Path

from ossfs_py.host.running import find_daemon
from tests.support.holding import wait_for

KEPT = "if this daemon dies, another one takes over"
"""What each daemon of such a mount logs once it serves."""


def daemon_of(path: Path) -> int:
    """The process that serves a mount just now."""
    daemon = find_daemon(path)
    assert daemon is not None
    daemon.close()
    return daemon.mount.pid


def kept_daemon(path: Path, log: Path) -> int:
    """The process that serves a mount, once another one would go on for it."""
    wait_for(lambda: KEPT in log.read_text())
    return daemon_of(path)


def kill_daemon(path: Path, log: Path) -> None:
    """The daemon dies, and another one serves the mount."""
    pid = kept_daemon(path, log)
    lives = log.read_text().count(KEPT)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: log.read_text().count(KEPT) > lives)


def _state_of(pid: int) -> str:
    """One letter, as of proc(5); "" if it is reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_alive(pid: int) -> bool:
    """Whether a process has not ended, reaped or not."""
    return _state_of(pid) not in ("", "Z")


def stop(pid: int) -> None:
    """Stop a process. Signals that are sent to it before it has stopped may still reach it."""
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: _state_of(pid) == "T")


def children_of(pid: int) -> list[int]:
    """The children of a keeper: daemons, and those that ended and are not reaped yet."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for_another_child(keeper: int, *known: int) -> int:
    """Wait until a keeper has started a process that is none of these."""
    found: list[int] = []

    def is_there() -> bool:
        found[:] = [pid for pid in children_of(keeper) if pid not in known]
        return bool(found)

    wait_for(is_there)
    return found[0]

"""What is left of a daemon that was killed: threads that the kernel has not let go yet.

A thread that tells the kernel to forget a name waits, deaf to signals, for the directory's lock. A
program that makes or removes something there has the lock until its request is answered. If the
daemon is killed in between, that is for the next daemon to do, and the dead one is a zombie until
then. Pages are the same: they wait for READs that nobody answers.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

_WRITES = {"x86_64": ("1", "20"), "aarch64": ("64", "66")}
"""The numbers of write(2) and writev(2), by machine."""
DEVICE = Path("/dev/fuse")
"""What the kernel's descriptor of a mount is called among the files of a process."""
LOOK_SECONDS = 2.0
"""How often to look: the kernel tells nobody that a daemon is dead but for such threads."""
_UNSEEN_SECONDS = 30.0
"""How long a dead daemon may wait for what cannot be seen: a disk rather than the next daemon."""
_PROC = Path("/proc")


class Remains:
    """What is left of one daemon after the other, as somebody sees it who looks again and again."""

    def __init__(self) -> None:
        self._unseen_since: float | None = None
        """When it was first found dead, and not let go by the kernel for an unknown reason."""

    def let_go(self, pid: int) -> bool:
        """Whether it is time to go on without the end of a process, which only the next daemon can
        bring about.
        """
        waits = waits_for_the_next(pid)
        if waits is not None:
            self._unseen_since = None
            return waits
        if self._unseen_since is None:
            self._unseen_since = time.monotonic()
        return time.monotonic() - self._unseen_since > _UNSEEN_SECONDS


def waits_for_the_next(pid: int) -> bool | None:
    """Whether a process is dead but for threads that write to the kernel's descriptor of a mount.
    None: it is dead but for threads that do not react to signals, and what they do is not seen,
    because the process was not to be inspected, and this one is not root's.
    """
    process = _PROC / str(pid)
    if _state(process) != "Z":
        return False
    try:
        threads = [task for task in (process / "task").iterdir() if task.name != str(pid)]
        if not threads or any(_state(thread) != "D" for thread in threads):
            return False  # it is about to end
        return all(_tells_the_kernel(thread) for thread in threads)
    except PermissionError:
        return None
    except (OSError, ValueError):
        return False  # one has ended, or runs


def _tells_the_kernel(thread: Path) -> bool:
    number, descriptor, *_ = (thread / "syscall").read_text().split()
    is_write = number in _WRITES.get(os.uname().machine, ())
    return is_write and (thread / "fd" / str(int(descriptor, 16))).readlink() == DEVICE


def _state(task: Path) -> str:
    """One letter, as of proc_pid_stat(5); "" if there is no such thread any more."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    return ""

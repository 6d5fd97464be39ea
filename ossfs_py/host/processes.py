"""Which process a thread belongs to, and whether it is being killed: as /proc tells.

The kernel tells a FUSE daemon of a signal only in a message that belongs to the request; a process
whose request is not answered stays. What is read here was seen on Linux 6.18: a thread that waits
for the daemon has SIGKILL pending from the moment its process is sent any signal that ends it
(SIGTERM and SIGINT without a handler become SIGKILL for each thread); a thread that exits has
PF_EXITING, and the signal that ended its process in its exit code.
"""

import signal
from pathlib import Path

_PF_EXITING = 0x4
"""In a task's flags (linux/sched.h)."""
_SIGNAL_OF_STATUS = 0x7F
"""Of an exit status as wait(2) gives it: the signal that ended the process."""
_KILL_BIT = 1 << (signal.SIGKILL - 1)
_STOPS = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
"""The kernel shows them in the same place while a process is stopped."""

_FLAGS, _PENDING, _EXIT_CODE = 9 - 3, 31 - 3, 52 - 3
"""Fields of /proc/PID/stat, counted from the state on (proc_pid_stat(5))."""


class ProcessTable:
    """The processes of this machine that this process can see."""

    def __init__(self, directory: Path = Path("/proc")) -> None:
        self._directory = directory

    def process_of(self, thread_id: int) -> int | None:
        """The process of a thread; None if there is none, or none that is seen from here."""
        if thread_id <= 0:
            return None  # of another pid namespace
        try:
            status = (self._directory / str(thread_id) / "status").read_text(errors="replace")
        except OSError:
            return None
        for line in status.splitlines():
            if line.startswith("Tgid:"):
                return int(line.split()[1])
        return None

    def is_killed(self, process_id: int) -> bool:
        """Whether a process was ended by a signal, and only waits for the kernel to let it go."""
        try:
            text = (self._directory / str(process_id) / "stat").read_text(errors="replace")
        except OSError:
            return False
        fields = text.rpartition(")")[2].split()
        if len(fields) <= _EXIT_CODE:
            return False
        if not int(fields[_FLAGS]) & _PF_EXITING:
            return bool(int(fields[_PENDING]) & _KILL_BIT)
        ended_by = int(fields[_EXIT_CODE]) & _SIGNAL_OF_STATUS
        return bool(ended_by) and ended_by not in _STOPS

"""The closer: a small process that has the same table of open files as its daemon.

When a process ends, the kernel closes its files first. A file without a name is truncated then,
which takes as long as the disk needs: seconds for gigabytes in temporary files. Nobody learns
before that the process has ended, and so the next daemon could not begin. While a closer has the
table, too, the daemon's end closes nothing, and is quick, even if it was killed. The closer then
closes the files: first those that others wait for, such as locks and connections.
"""

import ctypes
import os
import select
import signal
import stat
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from ossfs_py.cli.kept import keep_to_ourselves
from ossfs_py.host.remains import DEVICE, LOOK_SECONDS, Remains

CLONE = {"x86_64": 56, "aarch64": 220}
"""The number of clone(2), by machine. The C library's function runs its child on another stack,
where Python 3.14 takes the end of the stack to be reached."""
_CLONE_FILES = 0x400
_FILES = Path("/proc/self/fd")


def start_closer() -> bool:
    """Start the closer of this process, which must have one thread; returns whether there is one.

    Called early: the closer keeps a copy of what this process has in memory now.
    """
    number = CLONE.get(os.uname().machine)
    if number is None:
        return False
    try:
        # Not closed here: it is the closer's, too.
        daemon = os.pidfd_open(os.getpid())
    except OSError:
        return False  # an old kernel
    number_of_daemon = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        call = ctypes.PyDLL(None).syscall  # keeps the interpreter's lock
        call.argtypes = [ctypes.c_long] * 6
        pid = call(number, _CLONE_FILES | signal.SIGCHLD, 0, 0, 0, 0)
        if pid == 0:
            _close_after(number_of_daemon, daemon)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return bool(pid > 0)


def _close_after(number: int, daemon: int) -> NoReturn:
    try:
        keep_to_ourselves()  # it has the environment of the daemon, and its connections
        os.chdir("/")  # a file system that somebody works in cannot be unmounted
        is_over = _has_ended(number, daemon)
        descriptors = [int(entry.name) for entry in _FILES.iterdir()]
        for descriptor in sorted(descriptors, key=takes_long):
            with suppress(OSError):
                if is_over or not _is_kept_open(descriptor, daemon):
                    os.close(descriptor)
        if not is_over:
            select.select([daemon], [], [])
    finally:
        os._exit(0)


def _has_ended(number: int, daemon: int) -> bool:
    """Wait until a daemon has ended (True), or ends only when the next one serves its mount."""
    remains = Remains()
    while not select.select([daemon], [], [], LOOK_SECONDS)[0]:
        if remains.let_go(number):
            return False
    return True


def _is_kept_open(descriptor: int, daemon: int) -> bool:
    """Whether the rest of the daemon, or who looks what that does, needs it."""
    return descriptor == daemon or (_FILES / str(descriptor)).readlink() == DEVICE


def takes_long(descriptor: int) -> bool:
    """Whether the kernel may have to truncate the file when it is closed."""
    try:
        info = os.fstat(descriptor)
    except OSError:
        return False
    return stat.S_ISREG(info.st_mode) and not info.st_nlink

"""A process that has loaded Python and the modules of a daemon, and forks daemons.

It has no threads, and no open files but its standard streams and the socket on which it is asked. A
child leaves :func:`forking` with the words, environment, streams, session and signals that it would
have been started with, and is the command from there on. It gets SIGTERM when this process has
gone, and this one goes with who asks.
"""

import ctypes
import json
import os
import select
import signal
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

NUMBER = struct.Struct("i")
"""The number of a new daemon, or how one has ended (negative for a signal)."""
REQUEST_BYTES = 1 << 17
_PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""
_FIRST_OWN = 3
"""The first descriptor behind the standard streams."""


@dataclass(frozen=True)
class _Born:
    pid: int
    end: socket.socket
    """Where its end is told; closed by the tests once they know."""


def forking(asked: socket.socket) -> list[str]:
    """Fork whenever it is asked for; returns in a child only, with the words of its command."""
    waiting = select.poll()
    waiting.register(asked, select.POLLIN)
    alive: dict[int, _Born] = {}
    ended: dict[int, _Born] = {}
    while True:
        for descriptor, _ in waiting.poll():
            if descriptor in alive:
                born = alive.pop(descriptor)
                waiting.unregister(descriptor)
                os.close(descriptor)
                _tell_end(born)
                ended[born.end.fileno()] = born
                waiting.register(born.end, select.POLLIN)
            elif descriptor in ended:
                born = ended.pop(descriptor)
                waiting.unregister(descriptor)
                born.end.close()
                os.waitpid(born.pid, 0)
            else:
                request, descriptors, *_ = socket.recv_fds(asked, REQUEST_BYTES, 2)
                if not request:
                    sys.exit()
                log, end = descriptors
                if (pid := os.fork()) == 0:
                    return _born(json.loads(request), log)
                os.close(log)
                process = os.pidfd_open(pid)
                alive[process] = _Born(pid, socket.socket(fileno=end))
                waiting.register(process, select.POLLIN)
                asked.send(NUMBER.pack(pid))


def _tell_end(born: _Born) -> None:
    """It is waited for later, so that its number stays its own until the tests know."""
    told = os.waitid(os.P_PID, born.pid, os.WEXITED | os.WNOWAIT)
    assert told is not None
    by_itself = told.si_code == os.CLD_EXITED
    with suppress(BrokenPipeError):  # nobody wants to know
        born.end.send(NUMBER.pack(told.si_status if by_itself else -told.si_status))


def _born(request: dict[str, object], log: int) -> list[str]:
    """What happens between fork and exec of a command, in the child."""
    forked_by = os.getppid()
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != forked_by:
        os.kill(os.getpid(), signal.SIGTERM)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.closerange(_FIRST_OWN, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(request["environment"])  # type: ignore[arg-type]
    return list(request["words"])  # type: ignore[call-overload]


def load() -> None:
    """The modules of a daemon, as a start loads them."""
    from ossfs_py.cli.loading import loading

    with loading():
        import ossfs_py.cli.mount
        import ossfs_py.cli.starting
        import ossfs_py.daemon.life  # noqa: F401


def main() -> None:
    import ossfs_py
    from ossfs_py.cli.main import main as command

    load()
    words = forking(socket.socket(fileno=int(sys.argv[1])))
    sys.orig_argv = words
    # As "python -m ossfs_py" has it.
    sys.argv = [str(Path(ossfs_py.__file__).with_name("__main__.py")), *words[3:]]
    command()


if __name__ == "__main__":
    main()

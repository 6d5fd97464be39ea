"""The keeper: a small process that outlives the daemon of a mount, and starts the next one.

It holds the kernel's descriptor, so that the mount stays, and the memory in which the daemon writes
what the next one must know. It imports nothing but Python's own: it must need little memory, and
must not have a reason to die. Signals are passed on to the daemon. A daemon that ends the mount
ends the keeper, with the same exit code; one that dies is started again, as often in a minute as
it was told to. After that a last one only unmounts and says why.

    python -m ossfs_py.cli.keeper RESTARTS READY LEADS COMMAND...

READY is the descriptor on which the first daemon says that it serves, or -1; LEADS is 1 where the
daemon is to lead a process group of its own, so that Ctrl-C reaches the keeper alone.
"""

import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from functools import partial
from typing import Final

from ossfs_py.cli.kept import KEPT, NOT_THERE, keep_to_ourselves, told_as_text
from ossfs_py.host.keeping import DEVICE, ENDED, REFUSED

_WINDOW_SECONDS = 60.0
_MOST_BYTES = 64
_ATTEMPTS = 10
_PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_ENDING: Final = (signal.SIGTERM, signal.SIGINT)
_BY_SIGNAL = 128
"""Added to a signal's number, as shells do."""


class _Daemons:
    """The daemons of one mount, one after the other."""

    def __init__(self, restarts: int, ready: int, *, leads: bool, command: list[str]) -> None:
        self._restarts = restarts
        self._ready = ready
        self._leads = leads
        self._command = command
        self._ledger = os.memfd_create("ossfs-py")
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._theirs = theirs
        self._ours.setblocking(False)
        self._device: int | None = None
        self._deaths: list[float] = []
        self._is_ending = False
        self._pid = 0

    def run(self) -> int:
        """Keep a daemon running until it is to run no more; its exit code."""
        signals = (signal.SIGCHLD, *_PASSED_ON)
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        self._start()
        while True:
            number = signal.sigwaitinfo(signals).si_signo
            if number != signal.SIGCHLD:
                self._is_ending = self._is_ending or number in _ENDING
                with suppress(ProcessLookupError):
                    os.kill(self._pid, number)
                continue
            status = self._reap()
            if status is None:
                continue
            code = os.waitstatus_to_exitcode(status)
            reason = self._reason_to_end(code)
            if reason is None:
                self._start()
                continue
            if reason:
                self._start(given_up=reason)
                os.waitpid(self._pid, 0)
            return code if code >= 0 else _BY_SIGNAL - code

    def _reap(self) -> int | None:
        """The daemon's status, if it is what has ended: as a container's first process the keeper
        is everybody's parent."""
        found = None
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._pid:
                    found = ended[1]
        return found

    def _reason_to_end(self, code: int) -> str | None:
        """None if the daemon is to be started again; nothing if all is over, or the reason why the
        mount is given up."""
        words = self._received()
        if self._device is None or ENDED in words or self._is_gone():
            return ""
        died = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        if REFUSED in words:
            return "the daemon that was to take the mount over refused what was left for it"
        if self._is_ending:
            return f"the daemon {died} while it was to end"
        now = time.monotonic()
        self._deaths = [when for when in self._deaths if when > now - _WINDOW_SECONDS] + [now]
        if len(self._deaths) > self._restarts:
            return (
                f"the daemon died {len(self._deaths)} times within a minute,"
                f" the last time it {died} (--restarts)"
            )
        return None

    def _received(self) -> list[bytes]:
        words = []
        with suppress(BlockingIOError):
            while True:
                word, descriptors, _, _ = socket.recv_fds(self._ours, _MOST_BYTES, 1)
                words.append(word)
                if word == DEVICE and descriptors:
                    self._device = descriptors[0]
        return words

    def _is_gone(self) -> bool:
        """Whether the kernel has let go of the mount."""
        poll = select.poll()
        poll.register(self._device or 0, 0)
        return bool(poll.poll(0))

    def _start(self, given_up: str = "") -> None:
        handed = [self._theirs.fileno(), self._ledger, NOT_THERE, self._ready]
        if given_up and self._device is not None:
            # Whoever asks the mount is told at once that it is dead, the last process, too.
            os.close(self._device)
            self._device = None
        if self._device is not None:
            handed[2] = self._device
        for descriptor in handed:
            if descriptor != NOT_THERE:
                os.set_inheritable(descriptor, True)
        environment = {**os.environ, KEPT: told_as_text(handed, given_up)}
        # The watchdog is told by the daemon, for the keeper.
        environment.pop("WATCHDOG_PID", None)
        self._pid = self._spawned(environment)
        if self._ready != NOT_THERE:
            # Its end tells the command that waits for a word that there will be none.
            os.close(self._ready)
            self._ready = NOT_THERE

    def _spawned(self, environment: dict[str, str]) -> int:
        """A new daemon's process id. What killed the last one, no memory, may keep the next from
        being started for a while.
        """
        spawn = partial(os.posix_spawn, setpgroup=0) if self._leads else os.posix_spawn
        for left in reversed(range(_ATTEMPTS)):
            try:
                return spawn(self._command[0], self._command, environment, setsigmask=())
            except OSError:
                if not left:
                    raise
                time.sleep(1)
        raise AssertionError


def main(argv: list[str]) -> int:
    """Keep a mount; the exit code of its last daemon."""
    keep_to_ourselves()
    restarts, ready, leads, *command = argv
    return _Daemons(int(restarts), int(ready), leads=leads == "1", command=command).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

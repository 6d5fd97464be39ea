"""The keeper: a small process that outlives the daemon of a mount, and starts the next one.

It holds the kernel's descriptor, so that the mount stays, and the memory with the records that the
daemon writes for the next one. It imports only Python's standard library: it must need little
memory, and must have no reason to die. Signals are passed on to the daemon. If a daemon ends the
mount, the keeper ends with the same exit code. If a daemon dies, the keeper starts the next one, up
to the configured number of times in a minute. After that a last daemon only unmounts and reports
the reason. If a service manager has a watchdog, the keeper kills a daemon that hangs before the
watchdog would end the keeper, too. A daemon may also request the next one while it serves, and hand
over when that is ready.

If the node has a keeper, too (``host/nodekeeper.py``), it holds the same descriptors. The mount is
left to it when this process is told to end, or would give the mount up.

    python -m ossfs_py.cli.keeper RESTARTS READY LEADS COMMAND...

READY is the descriptor on which the first daemon reports that it serves, or -1. LEADS is 1 if the
daemon has to lead a process group of its own, so that Ctrl-C reaches only the keeper.
"""

import json
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ossfs_py.cli.kept import (
    KEPT,
    NOT_THERE,
    STANDARD_ERROR,
    SUCCEEDS,
    UPGRADED,
    deposit_of,
    keep_to_ourselves,
    told_as_text,
)
from ossfs_py.host.keeping import (
    DEVICE,
    ENDED,
    ENDING,
    HANDED,
    HELD,
    LONGEST_WORD_BYTES,
    NEXT,
    REFUSED,
    SERVES,
    forget_beat,
    seconds_since_beat,
)
from ossfs_py.host.remains import LOOK_SECONDS, Remains

if TYPE_CHECKING:
    from ossfs_py.host.deposit import Deposit

_WINDOW_SECONDS = 60.0
_ATTEMPTS = 10
_PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_LEAVE: Final = signal.SIGUSR2
"""Tells a daemon to end and leave the mount; it kills a daemon that does not handle it yet."""
_PATIENCE = 0.5
"""The share of the watchdog's time for which a daemon may be silent; the next one has the rest."""
_LEAST_PATIENCE_SECONDS = 4.0
"""A daemon reports once a second that it runs; on a busy machine it may be late."""
_LOOKS = 4
"""Number of checks of a daemon in that time."""
_BY_SIGNAL = 128
"""Added to a signal's number, as shells do."""


class _Daemons:
    """The daemons of one mount, one after the other."""

    def __init__(
        self,
        restarts: int,
        ready: int,
        *,
        leads: bool,
        command: list[str],
        deposit: "Deposit | None" = None,
    ) -> None:
        self._restarts = restarts
        self._ready = ready
        self._leads = leads
        self._command = command
        self._deposit = deposit
        self._is_leaving = False
        """Whether the mount is being left to the node's keeper."""
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._theirs = theirs
        self._ours.setblocking(False)
        self._device: int | None = None
        self._held: list[int] = []
        """Descriptors of locks that outlive a daemon."""
        if deposit is not None and deposit.descriptors:
            self._ledger, self._device, *self._held = deposit.descriptors
        else:
            self._ledger = os.memfd_create("ossfs-py")
        self._deaths: list[float] = []
        self._is_ending = False
        self._words: set[bytes] = set()
        self._wanted: list[tuple[str, int]] = []
        """The daemons that the running one has requested: changed settings, and the socket between
        the two.
        """
        self._pid = 0
        self._next = 0
        """The process that takes over from the serving daemon; 0: there is none."""
        self._patience_seconds = _patience()
        self._remains = Remains()
        self._changes = self._next_changes = ""
        """Settings that upgrades have changed, and those of the running upgrade."""

    def run(self) -> int:
        """Keep a daemon running until the mount ends; returns its exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD, *_PASSED_ON))
        self._start()
        while True:
            number = self._next_signal()
            if number is None:
                self._look_around()
                if not self._remains.let_go(self._pid):
                    continue
                ended = {self._pid: int(signal.SIGKILL)}  # what it will be reaped with
            elif number == signal.SIGCHLD:
                ended = self._reap()
            else:
                self._pass_on(number)
                continue
            self._take_up_words()
            if self._next in ended and not (self._pid in ended and HANDED in self._words):
                del ended[self._next]
                self._next = 0
            # Twice if the next one had taken over, and died as well.
            while (status := ended.pop(self._pid, None)) is not None:
                code = os.waitstatus_to_exitcode(status)
                reason = self._reason_to_end(code)
                if reason is not None:
                    self._end(reason)
                    if self._is_leaving:
                        return 0
                    return code if code >= 0 else _BY_SIGNAL - code
                self._go_on()
            self._start_wanted()

    def _next_signal(self) -> int | None:
        """The next signal; None when it is time for a check."""
        wait_seconds = LOOK_SECONDS  # a new keeper of the node is noticed as soon, too
        if self._patience_seconds is not None:
            wait_seconds = min(wait_seconds, self._patience_seconds / _LOOKS)
        came = signal.sigtimedwait((signal.SIGCHLD, *_PASSED_ON), wait_seconds)
        return None if came is None else came.si_signo

    def _look_around(self) -> None:
        if self._deposit is not None:
            self._deposit.look_after()
        if self._patience_seconds is not None:
            self._end_hung()

    def _pass_on(self, number: int) -> None:
        self._is_ending = self._is_ending or number in ENDING
        if number in ENDING and self._deposit is not None and self._deposit.is_taken:
            self._is_leaving = True
            number = _LEAVE
        with suppress(ProcessLookupError):
            os.kill(self._pid, number)

    def _end_hung(self) -> None:
        silent_seconds = seconds_since_beat(self._ledger)
        if self._device is None:
            self._take_up_words()
        if silent_seconds < (self._patience_seconds or 0) or self._device is None:
            return
        forget_beat(self._ledger)
        print(
            f"ossfs-py: the daemon (process {self._pid}) was silent for {silent_seconds:.0f} s,"
            " and is replaced",
            file=sys.stderr,
            flush=True,
        )
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)

    def _end(self, reason: str) -> None:
        self._end_next()
        if self._deposit is not None:
            if self._is_leaving or reason:
                self._deposit.look_after()
                if self._deposit.is_taken:
                    self._deposit.left(reason)
                    return
                reason = reason or "the keeper of the node ended, too"
            self._deposit.ended()
        if reason:
            self._start(given_up=reason)
            os.waitpid(self._pid, 0)

    def _end_next(self) -> None:
        if self._next:
            os.kill(self._next, signal.SIGKILL)
            os.waitpid(self._next, 0)
            self._next = 0

    @staticmethod
    def _reap() -> dict[int, int]:
        """The status of each process that has ended. Not all are daemons: the first process of a
        container is the parent of all orphans.
        """
        found = {}
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                found[ended[0]] = ended[1]
        return found

    def _go_on(self) -> None:
        """Let another daemon serve the mount: the one that waits for that, or a new one."""
        if not self._next:
            # The daemon that wanted to hand over is dead: its successor is not needed.
            for _, handover in self._wanted:
                os.close(handover)
            self._wanted.clear()
            self._start()
        else:
            if HANDED in self._words:
                self._changes = self._next_changes
            self._words.clear()
            self._pid, self._next = self._next, 0
        if self._is_ending:
            # The dead daemon had got it in vain, perhaps when it was dead already.
            self._pass_on(signal.SIGTERM)

    def _reason_to_end(self, code: int) -> str | None:
        """None if the daemon has to be started again; "" if the mount has ended, or the reason why
        the mount is given up.
        """
        is_over = self._device is None or ENDED in self._words or self._is_gone()
        self._is_leaving = self._is_leaving and not is_over
        if is_over or self._is_leaving:
            return ""
        died = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        if REFUSED in self._words:
            return "the new daemon could not take over the state of the old one"
        if HANDED in self._words and self._next:
            return None
        now = time.monotonic()
        self._deaths = [when for when in self._deaths if when > now - _WINDOW_SECONDS] + [now]
        if len(self._deaths) > self._restarts:
            return (
                f"the daemon died {len(self._deaths)} times within a minute,"
                f" the last time it {died} (--restarts)"
            )
        return None

    def _take_up_words(self) -> None:
        before = (self._device, *self._held)
        with suppress(BlockingIOError):
            while True:
                word, descriptors, _, _ = socket.recv_fds(self._ours, LONGEST_WORD_BYTES, 1)
                if word == DEVICE and descriptors:
                    self._device = descriptors[0]
                elif word == HELD:
                    self._held += descriptors
                elif word.startswith(NEXT) and descriptors:
                    self._wanted.append((word.removeprefix(NEXT).decode(), descriptors[0]))
                elif word == SERVES and self._deposit is not None:
                    self._deposit.serves()
                else:
                    self._words.add(word)
        has_more = before != (self._device, *self._held)
        if self._deposit is not None and self._device is not None and has_more:
            self._deposit.keep([self._ledger, self._device, *self._held])

    def _is_gone(self) -> bool:
        """Whether the kernel has closed the mount."""
        poll = select.poll()
        poll.register(self._device or 0, 0)
        return bool(poll.poll(0))

    def _start(self, given_up: str = "") -> None:
        self._words.clear()
        forget_beat(self._ledger)
        if given_up and self._device is not None:
            # From now on calls to the mount fail at once, including those of the last process.
            os.close(self._device)
            self._device = None
        self._pid = self._spawned(self._environment(self._changes, given_up))
        if self._ready != NOT_THERE:
            # The waiting command sees the end of it, and knows that no message will come.
            os.close(self._ready)
            self._ready = NOT_THERE

    def _start_wanted(self) -> None:
        wanted, self._wanted = self._wanted, []
        for changes, handover in wanted:
            self._start_next(changes, handover)

    def _start_next(self, changes: str, handover: int) -> None:
        """Start the daemon that takes over when the serving one releases the mount.

        Early messages on standard error, for instance about a missing module, go to ``handover``,
        too.
        """
        stderr = NOT_THERE
        try:
            stderr = os.dup(STANDARD_ERROR)
            changes = json.dumps({**json.loads(self._changes or "{}"), **json.loads(changes)})
            environment = self._environment(changes)
            environment[SUCCEEDS] = f"{handover} {stderr}"
            for descriptor in (handover, stderr):
                os.set_inheritable(descriptor, True)
            self._end_next()  # it was refused, and may not know yet
            self._next_changes = changes
            told = [(os.POSIX_SPAWN_DUP2, handover, STANDARD_ERROR)]
            self._next = self._spawned(environment, attempts=1, file_actions=told)
        except (OSError, ValueError) as exc:
            with suppress(OSError):
                os.write(handover, str(exc).encode())
        finally:
            os.close(handover)
            if stderr != NOT_THERE:
                os.close(stderr)

    def _environment(self, changes: str, given_up: str = "") -> dict[str, str]:
        """The value of the variable for a daemon; makes the descriptors in it inheritable."""
        device = NOT_THERE if self._device is None else self._device
        handed = [self._theirs.fileno(), self._ledger, device, self._ready]
        for descriptor in handed:
            if descriptor != NOT_THERE:
                os.set_inheritable(descriptor, True)
        environment = {**os.environ, KEPT: told_as_text(handed, given_up)}
        if changes:
            environment[UPGRADED] = changes
        # The daemon notifies the watchdog for the keeper.
        environment.pop("WATCHDOG_PID", None)
        return environment

    def _spawned(self, environment: dict[str, str], attempts: int = _ATTEMPTS, **how: Any) -> int:
        """The process id of a new daemon. If the last one died for lack of memory, starting the
        next one may fail for a while, too.
        """
        # A daemon that ends before it serves leaves what programs have written, and gives up their
        # mount: what takes a mount over is told of its end once it can see to that.
        blocked = () if self._device is None else ENDING
        spawn = partial(os.posix_spawn, setsigmask=blocked, **how)
        if self._leads:
            spawn = partial(spawn, setpgroup=0)
        for left in reversed(range(attempts)):
            try:
                return spawn(self._command[0], self._command, environment)
            except OSError:
                if not left:
                    raise
                time.sleep(1)
        raise AssertionError


def _patience() -> float | None:
    """How long a daemon may be silent; None if no watchdog watches this process."""
    watchdog_seconds = int(os.environ.get("WATCHDOG_USEC", "0")) / 1_000_000
    if not watchdog_seconds or int(os.environ.get("WATCHDOG_PID", os.getpid())) != os.getpid():
        return None
    return max(_LEAST_PATIENCE_SECONDS, _PATIENCE * watchdog_seconds)


def main(argv: list[str]) -> int:
    """Keep a mount; returns the exit code of its last daemon."""
    keep_to_ourselves()
    restarts, ready, leads, *command = argv
    deposit = deposit_of(os.environ)
    daemons = _Daemons(
        int(restarts), int(ready), leads=leads == "1", command=command, deposit=deposit
    )
    return daemons.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Ends calls of programs that are killed while they wait for close(2) or fsync(2).

pyfuse3 does not say which program waits for a flush or fsync, nor that the kernel has reported the
end of the wait by a signal. It does say which program opened a file, and /proc tells whether that
process was killed. Another process that got the descriptor from it (by fork), and waits at that
moment, gets EINTR as well: an error, never a success.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import trio

from ossfs_py.errors import CallInterruptedError

PATIENCE_SECONDS = 0.2
"""How long a call may take before the state of its program is checked."""
_LOOK_SECONDS = 0.1


class Processes(Protocol):
    """The part of :class:`ossfs_py.host.processes.ProcessTable` that is needed here."""

    def process_of(self, thread_id: int) -> int | None:
        """The process of a thread, if it is visible from here."""
        ...

    def is_killed(self, process_id: int) -> bool:
        """Whether a process was ended by a signal and waits for the kernel."""
        ...


@dataclass(slots=True, eq=False)
class _Opener:
    """The program that opened a file."""

    thread_id: int
    process_id: int | None = None
    is_looked_up: bool = False


@dataclass(slots=True, eq=False)
class _Wait:
    opener: _Opener
    scope: trio.CancelScope
    began: float = field(default_factory=trio.current_time)


class Callers:
    """The programs that opened files of a mount, and wait. Belongs to the trio thread."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._openers: dict[int, _Opener] = {}
        self._waits: set[_Wait] = set()
        self._begun: trio.Event | None = None

    def opened(self, handle: int, thread_id: int) -> None:
        """A thread has opened a file for writing."""
        self._openers[handle] = _Opener(thread_id)

    def released(self, handle: int) -> None:
        """The handle was released."""
        self._openers.pop(handle, None)

    async def waited_for(self, handle: int, call: Callable[[int], Awaitable[None]]) -> None:
        """Make a call about a handle; it is cancelled if its program is killed.

        Raises:
            CallInterruptedError: it was cancelled; no program is left to get an answer.
        """
        opener = self._openers.get(handle)
        if opener is None:
            await call(handle)
            return
        with trio.CancelScope() as scope:
            wait = _Wait(opener, scope)
            self._waits.add(wait)
            if self._begun is not None:
                self._begun.set()
            try:
                await call(handle)
            finally:
                self._waits.discard(wait)
        if scope.cancelled_caught:
            raise CallInterruptedError("the program was killed while it waited")

    async def run(self) -> None:
        """Check programs that have waited for long, until cancelled."""
        while True:
            if not self._waits:
                self._begun = trio.Event()
                await self._begun.wait()
                self._begun = None
            await trio.sleep(_LOOK_SECONDS)
            self._let_go()

    def _let_go(self) -> None:
        patient_until = trio.current_time() - PATIENCE_SECONDS
        killed: dict[int, bool] = {}
        for wait in [wait for wait in self._waits if wait.began <= patient_until]:
            process_id = self._process_of(wait.opener)
            if process_id is None:
                continue
            if process_id not in killed:
                killed[process_id] = self._processes.is_killed(process_id)
            if killed[process_id]:
                wait.scope.cancel()

    def _process_of(self, opener: _Opener) -> int | None:
        if not opener.is_looked_up:
            opener.process_id = self._processes.process_of(opener.thread_id)
            opener.is_looked_up = True
        return opener.process_id

"""Waiting for the kernel's next request beside trio's loop, while that has nothing else to do.

A program that asks for one thing after the other has the daemon wait before each request. A round
of trio's loop for this costs two epoll_ctl(2), an epoll_wait(2), and the loop's own Python. One
poll(2) does it, on the kernel's descriptor and on trio's epoll: whatever trio waits for ends the
wait, too, and so does the next of its timers. (An epoll of its own took as long.)

This needs four attributes of trio's loop that are not public. Where one is missing, requests are
waited for in the loop.
"""

import logging
import select
from contextlib import suppress
from typing import Final, Self

import trio

from ossfs_py.fuse.nearness import NEAR_MS, Nearness

log = logging.getLogger(__name__)

_LONGEST_SECONDS: Final = 60.0
_LONGEST_MS: Final = 60_000.0
"""poll(2) takes milliseconds of 31 bits."""


class ShortWait(trio.abc.Instrument):
    """Waits for a request in the task that reads them. Belongs to the trio thread.

    Inside its ``with``, trio tells it after each wait of its own whether one task alone has
    something to do.
    """

    def __init__(self, device: int) -> None:
        self._device = device
        self._poll = select.poll()
        self._poll.register(device, select.POLLIN)
        self._is_alone = False
        """Whether no other task than the one that runs now was found ready in this round."""
        self.nearness = Nearness()

    def __enter__(self) -> Self:
        """Begin, inside trio's loop."""
        try:
            runner = trio._core._run.GLOBAL_RUN_CONTEXT.runner
            self._ready, self._idlers = runner.runq, runner.waiting_for_idle
            self._clock, self._deadlines = runner.clock, runner.deadlines
            self._deadlines.next_deadline()
            self._poll.register(runner.io_manager._epoll.fileno(), select.POLLIN)
        except AttributeError as exc:
            log.info("requests are waited for in trio's loop, which takes longer: %s", exc)
        else:
            trio.lowlevel.add_instrument(self)
        return self

    def __exit__(self, *_exception: object) -> None:
        """End: there is no wait beside trio's loop any more."""
        self._is_alone = False
        self.nearness.roam()
        with suppress(KeyError):
            trio.lowlevel.remove_instrument(self)

    def after_io_wait(self, _timeout: float) -> None:
        """Trio's loop has begun a round."""
        self._is_alone = (
            len(self._ready) == 1
            # Those whose time is over join the round after this.
            and self._deadlines.next_deadline() > self._clock.current_time()
        )

    def brings_one(self) -> bool:
        """Wait until there is a request; False if trio has something to do before, or may have."""
        if not self._is_alone or self._ready or self._idlers:
            return False
        seconds = self._deadlines.next_deadline() - self._clock.current_time()
        if seconds <= 0:
            return False
        longest_ms = seconds * 1000 if seconds < _LONGEST_SECONDS else _LONGEST_MS
        found = self._poll.poll(min(NEAR_MS, longest_ms)) if self.nearness.before_wait() else []
        if not found:
            self.nearness.roam()
            found = self._poll.poll(longest_ms)
        return len(found) == 1 and found[0][0] == self._device

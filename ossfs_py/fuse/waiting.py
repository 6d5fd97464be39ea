"""Waiting for the kernel's next request beside trio's loop, while that has nothing else to do.

A program that asks for one thing after the other has the daemon wait before each request. A round
of trio's loop for this costs two epoll_ctl(2), an epoll_wait(2), and the loop's own Python. One
poll(2) does it, on the kernel's descriptor and on trio's epoll: whatever trio waits for ends the
wait, too, and so does the next of its timers. (An epoll of its own took as long.) What the store
answers to short requests is taken here, too: a file of 100 KB takes one wait for it.

This needs four attributes of trio's loop that are not public. Where one is missing, requests are
waited for in the loop.
"""

import logging
import select
from contextlib import suppress
from typing import Final, Self

import trio

from ossfs_py.fuse.nearness import NEAR_MS, Nearness
from ossfs_py.runtime.beside import Arrivals, all_beside

log = logging.getLogger(__name__)

_LONGEST_SECONDS: Final = 60.0
_LONGEST_MS: Final = 60_000.0
"""poll(2) takes milliseconds of 31 bits."""
_ARRIVALS_IN_A_ROW: Final = 16
"""As long as something arrives each time, whatever else trio waits for is held up."""


class ShortWait(trio.abc.Instrument):
    """Waits for a request in the task that reads them. Belongs to the trio thread.

    Inside its ``with``, trio tells it after each wait of its own whether one task alone has
    something to do.
    """

    def __init__(self, device: int) -> None:
        self._device = device
        self._poll = select.poll()
        self._poll.register(device, select.POLLIN)
        self._epoll = -1
        self._is_alone = False
        """Whether no other task than the one that runs now was found ready in this round."""
        self.nearness = Nearness()
        self._beside: list[Arrivals] = []
        self._polled: list[Arrivals] = []
        """Those of them in ``_poll_beside``."""
        self._poll_beside = self._poll

    def __enter__(self) -> Self:
        """Begin, inside trio's loop."""
        try:
            runner = trio._core._run.GLOBAL_RUN_CONTEXT.runner
            self._ready, self._idlers = runner.runq, runner.waiting_for_idle
            self._clock, self._deadlines = runner.clock, runner.deadlines
            self._deadlines.next_deadline()
            self._epoll = runner.io_manager._epoll.fileno()
            self._poll.register(self._epoll, select.POLLIN)
            self._beside = all_beside()
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
        is_near = self.nearness.before_wait()
        for _ in range(_ARRIVALS_IN_A_ROW):
            seconds = self._deadlines.next_deadline() - self._clock.current_time()
            if seconds <= 0:
                return False
            longest_ms = seconds * 1000 if seconds < _LONGEST_SECONDS else _LONGEST_MS
            poll = self._poll
            for one in self._beside:
                if one.expects():
                    poll = self._all_polled()
                    break
            found = poll.poll(min(NEAR_MS, longest_ms)) if is_near else []
            if not found:
                self.nearness.roam()
                found = poll.poll(longest_ms)
            if len(found) == 1 and found[0][0] == self._device:
                return True
            is_near = False
            if poll is self._poll or not self._took(found) or self._ready or self._idlers:
                return False
        return False

    def _all_polled(self) -> select.poll:
        """For what others expect, too."""
        if self._polled != self._beside:
            self._polled = list(self._beside)
            self._poll_beside = select.poll()
            for number in (self._device, self._epoll, *(one.fileno() for one in self._polled)):
                self._poll_beside.register(number, select.POLLIN)
        return self._poll_beside

    def _took(self, found: list[tuple[int, int]]) -> bool:
        """Take what has arrived for others; False if that is nothing. Trio's epoll tells of it as
        well until then, so that it is not known what else it tells of.
        """
        numbers = [number for number, _ in found]
        arrived = [one for one in self._polled if one.fileno() in numbers]
        if arrived:
            self.nearness.roam()  # what follows may start a thread
            for one in arrived:
                one.receive()
        return bool(arrived)

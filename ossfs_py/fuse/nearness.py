"""The trio thread on the processor of the program that asks, while that is faster.

A program that asks for one thing after the other sleeps while the daemon works, and the daemon
while the program does. If other processors are idle, the kernel wakes each of them on one of those,
and waking a processor takes several times as long as a short answer. So the thread waits for such a
program's next request with permission to run on the program's processor only. Whether that is
faster is measured; if not, because the program computes while it waits, or others do, all
processors are permitted again.
"""

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

NEAR_MS: Final = 1
"""For so long a thread waits there. Who asks for nothing meanwhile may compute, and then the next
one who asks would wait until that processor is free.
"""
_JUDGED_REQUESTS: Final = 128
"""From one look at the clock to the next, at the least: reading where a program runs takes 15 us.
"""
_RARE_SECONDS: Final = 0.0005
"""Programs that ask less often on average lose little by a wake-up."""
_WORTHWHILE: Final = 0.85
"""It is kept if requests take at most so much of the time that they took before."""
_ALONE: Final = 8
"""One program asks if at most one wait in this many is for another thread than the one before."""
_DISAPPOINTMENTS: Final = 2
"""In a row end it: one may be another program's turn on that processor."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 16.0
"""Until the next try after one that was not, doubled each time."""


class Nearness:
    """The processors of the thread that makes and uses it, which is the trio thread."""

    def __init__(
        self,
        processor_of: Callable[[int], int | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``processor_of``: which processor a thread runs on, or ran on last."""
        self._processor_of = processor_of or _processor_of
        self._clock = clock
        self.asker = 0
        """The thread that sent the latest request, as the kernel names it here. Kept by the lane,
        as is ``asked``: how many requests there were.
        """
        self.asked = 0
        self._asker_before = 0
        self._waits = self._changes = 0
        """Since the last look at the clock: waits, and how many of them were for another thread."""
        self._near: set[int] | None = None
        """The processor to wait on; None: any."""
        self._is_bound = False
        self._every = set(range(os.sysconf("SC_NPROCESSORS_CONF")))
        self._all: set[int] = set()
        """What was permitted when it was last looked at."""
        self._free: set[int] = set()
        """What to ask for where it need not be near: more, if only the cgroup permits no more."""
        self._since = clock()
        self._before_seconds = 0.0
        """How long a request took while all processors were permitted."""
        self._disappointments = 0
        """How often in a row it was not faster."""
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._again_at = 0.0

    def before_wait(self) -> bool:
        """The thread is about to wait for a request, and for nothing else that is likely; whether
        it may wait on one processor only, for ``NEAR_MS``.
        """
        self._waits += 1
        if self.asker != self._asker_before:
            self._asker_before = self.asker
            self._changes += 1
            self.roam()
            return False
        if self.asked >= _JUDGED_REQUESTS:
            self._judge()
        if self._near is not None and not self._is_bound:
            self._bind(self._near)
        return self._is_bound

    def roam(self) -> None:
        """Permit all processors: threads that this one starts have the same, for ever. If somebody
        else, or the kernel, has said meanwhile where this one runs, that holds.
        """
        if self._is_bound:
            self._is_bound = False
            if os.sched_getaffinity(0) == self._near:
                self._permit(self._free)
            else:
                self._look()

    # -- inside ---------------------------------------------------------------------------------

    def _judge(self) -> None:
        now = self._clock()
        took = (now - self._since) / self.asked
        is_alone = self._changes * _ALONE <= self._waits
        self._since, self.asked, self._waits, self._changes = now, 0, 0, 0
        if self._near is None:
            if now < self._again_at or took > _RARE_SECONDS or not is_alone:
                return
            self._before_seconds, self._disappointments = took, 0
            self._look()
            self._come_near()
        elif is_alone and took <= self._before_seconds * _WORTHWHILE:
            self._disappointments, self._pause_seconds = 0, _FIRST_PAUSE_SECONDS
            self._come_near()
        else:
            self._disappointments += 1
            if self._disappointments == _DISAPPOINTMENTS:
                self._leave(now)

    def _look(self) -> None:
        """Find out which processors are permitted, and whether somebody wants it so.

        Linux 6.2 and later remember what a thread has asked for. Where it is only the cgroup that
        permits no more, all there are have to be asked for, or else the thread gets none of those
        that the cgroup is given later.
        """
        self._all = os.sched_getaffinity(0)
        self._free = self._every | self._all
        if not self._permit(self._free):
            self._free = self._all
        elif os.sched_getaffinity(0) != self._all:
            self._free = self._all
            self._permit(self._free)

    def _bind(self, near: set[int]) -> None:
        """Wait on one processor only, if it is one of several that still are permitted."""
        if os.sched_getaffinity(0) != self._all:
            self._look()
        if self._near is None:
            return  # the kernel refuses
        if near < self._all:
            self._is_bound = self._permit(near)
        else:
            self._leave(self._clock())

    def _come_near(self) -> None:
        processor = self._processor_of(self.asker) if len(self._all) > 1 else None
        if processor not in self._all:
            self._leave(self._clock())
        elif self._near != {processor}:
            self.roam()
            self._near = {processor}

    def _leave(self, now: float) -> None:
        self.roam()
        self._near = None
        self._again_at = now + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)

    def _permit(self, processors: set[int]) -> bool:
        try:
            os.sched_setaffinity(0, processors)
        except OSError as exc:
            log.info("the thread that answers stays on its processors: %s", exc.strerror)
            self._near, self._again_at = None, float("inf")
            return False
        return True


def _processor_of(thread: int) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        told = Path(f"/proc/{thread}/stat").read_text().rpartition(")")[2].split()
        return int(told[36])
    return None

"""Every fault, every piece of work, once and for ever: the cells of the matrix and their outcome.

What is expected comes from the promises: transient failures are repeated silently; what lasts
longer than the retry budget is told with the errno of its cause, in time, and nothing is lost; at
no time does a program read a wrong byte. Left out is what nobody can know: bits that flip in the
body of a GET over plain http, for which stores keep no checksum of a range (TLS sees them).
"""

import random
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tests.faults.works import WORKS, Work
from tests.support.faults import Fault
from tests.support.places import Place
from tests.support.proxy import Proxy
from tests.support.troubles import FINE, TROUBLES, Errnos, Trouble

HIT_SECONDS = 120.0
"""How long to wait for a request that the daemon sends on its own account; it takes a moment."""
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Cell:
    """One fault in one piece of work."""

    trouble: Trouble
    work: Work
    always: bool
    seed: int

    def __str__(self) -> str:
        how = "always" if self.always else "once"
        return f"{self.trouble.name} {how} in {type(self.work).__name__}, seed {self.seed}"

    @property
    def allowed(self) -> Errnos:
        """What the program may be told, beside success."""
        return (self.trouble.always or FINE) if self.always else self.trouble.once


def cells(seed: int) -> list[Cell]:
    """Every cell, in an order that the seed gives."""
    made = [
        Cell(trouble, work, always, seed)
        for trouble in TROUBLES
        for work in WORKS
        if work.request in trouble.requests
        for always in (False, True)
        if not (always and trouble.always is None)
    ]
    random.Random(seed).shuffle(made)
    return made


@dataclass
class Outcome:
    """What came of one cell."""

    cell: Cell
    seconds: float
    """How long the program took under the fault."""
    errno: int | None
    hits: int


class Runner:
    """Runs cells one after the other on one mount."""

    def __init__(self, place: Callable[[str, random.Random], Place], proxy: Proxy) -> None:
        self._place = place
        self._proxy = proxy
        self._number = 0

    def run(self, cell: Cell, limit_seconds: float) -> Outcome:
        """One cell, checked.

        Raises:
            AssertionError: the outcome is none that is allowed, or bytes are wrong.
        """
        self._number += 1
        rng = random.Random(f"{cell} {self._number}")
        place = self._place(f"work-{self._number}", rng)
        cell.work.prepare(place)
        fault = replace(
            cell.trouble.make(rng),
            operation=cell.work.request,
            times=None if cell.always else rng.randint(1, cell.trouble.most),
        )
        self._proxy.faults = [fault]
        try:
            return self._run(cell, place, fault, limit_seconds)
        except AssertionError as exc:
            where = traceback.extract_tb(exc.__traceback__)[-1]
            raise AssertionError(f"{cell}: {exc!s:.300} ({where.name}: {where.line})") from exc
        finally:
            self._proxy.faults = []
            self._proxy.accept_again()
            place.close()
            place.clear()

    def _run(self, cell: Cell, place: Place, fault: Fault, limit_seconds: float) -> Outcome:
        began = time.monotonic()
        error: OSError | None = None
        try:
            cell.work.act(place)
        except OSError as exc:
            error = exc
        seconds = time.monotonic() - began
        self._wait_for_hit(fault)
        self._proxy.faults = []
        self._proxy.accept_again()
        if error is not None:
            assert error.errno in cell.allowed, f"{error}"
        assert fault.hits, "the request was never sent"
        assert seconds < limit_seconds, f"{seconds:.1f} s"
        try:
            if error is not None:
                cell.work.act_again(place)
            place.close()
            cell.work.verify(place)
        except OSError as exc:
            raise AssertionError(f"afterwards {exc}") from exc
        return Outcome(cell, seconds, error.errno if error else None, fault.hits)

    @staticmethod
    def _wait_for_hit(fault: Fault) -> None:
        deadline = time.monotonic() + HIT_SECONDS
        while not fault.hits and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


def some(all_cells: Sequence[Cell], count: int, *, always: bool) -> list[Cell]:
    """``count`` of the cells, no work and no trouble twice where that can be."""
    chosen: list[Cell] = []
    for cell in all_cells:
        if len(chosen) == count:
            break
        if cell.always is always and not any(
            cell.trouble is one.trouble or cell.work is one.work for one in chosen[-8:]
        ):
            chosen.append(cell)
    return chosen

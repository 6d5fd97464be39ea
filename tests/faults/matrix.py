"""Every fault, every piece of work, once and for ever: the cells of the matrix and their outcome.

What is expected comes from the promises: transient failures are repeated silently; what lasts
longer than the retry budget is told with the errno of its cause, in time, and nothing is lost; at
no time does a program read a wrong byte. Left out is what nobody can know: bits that flip in the
body of a GET over plain http, for which stores keep no checksum of a range (TLS sees them).
"""

import errno
import itertools
import random
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from email.utils import formatdate

from tests.faults.works import WORKS, Place, Work
from tests.support.faults import Fault
from tests.support.proxy import Proxy

Errnos = frozenset[int]
FINE: Errnos = frozenset()
OUT_OF_REACH = frozenset({errno.EIO})
DENIED = frozenset({errno.EACCES})
CHANGED = frozenset({errno.ESTALE})
NOT_POSSIBLE = frozenset({errno.EOPNOTSUPP})

READS = frozenset({"GetObject"})
SENDS = frozenset({"PutObject", "UploadPart"})
SPEAKS_XML = frozenset(
    {
        "ListObjects",
        "CreateMultipartUpload",
        "CompleteMultipartUpload",
        "UploadPartCopy",
        "CopyObject",
    }
)
HAS_BODY = READS | SPEAKS_XML
EVERY = HAS_BODY | SENDS | {"HeadObject", "DeleteObject", "AbortMultipartUpload"}

HIT_SECONDS = 120.0
"""How long to wait for a request that the daemon sends on its own account; it takes a moment."""
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Trouble:
    """One way in which a store can fail, and what a program sees of it."""

    name: str
    make: Callable[[random.Random], Fault]
    requests: frozenset[str] = EVERY
    once: Errnos = FINE
    always: Errnos | None = OUT_OF_REACH
    """None: there is no such thing as this fault for ever."""
    most: int = 2
    """How often in a row it still counts as once."""


def _in_body(rng: random.Random) -> int:
    """Nothing, next to nothing, or so much that a reader gets on in reasonable time."""
    return rng.choice((0, 1, rng.randrange(4000), 400_000 + rng.randrange(100_000)))


def _in_xml(rng: random.Random) -> int:
    return rng.choice((0, 1, rng.randrange(150)))


def _body_cut(name: str) -> Iterator[Trouble]:
    """A fault that stops within the body, of objects and of XML."""
    for requests, cut in ((READS, _in_body), (SPEAKS_XML, _in_xml)):

        def make(rng: random.Random, cut: Callable[[random.Random], int] = cut) -> Fault:
            return Fault(**{name: cut(rng)})  # type: ignore[arg-type]

        # Dripping takes two stall timeouts to be told from slowness.
        yield Trouble(name.replace("_", "-"), make, requests, most=1 if "trickle" in name else 2)


_OFFSETS = itertools.cycle((-600, 600))
"""Seconds by which the store's clock seems wrong, never twice the same."""

TROUBLES: tuple[Trouble, ...] = (
    Trouble("500", lambda _: Fault(status=500, code="InternalError")),
    Trouble("503", lambda _: Fault(status=503, code="SlowDown")),
    Trouble("503-retry-after", lambda _: Fault(status=503, code="SlowDown", retry_after="1")),
    Trouble("429", lambda _: Fault(status=429, code="TooManyRequests")),
    Trouble("refused", lambda _: Fault(refuse_seconds=0.3)),
    Trouble("reset-before", lambda _: Fault(reset_before=True)),
    Trouble("lose-answer", lambda _: Fault(lose_answer=True)),
    Trouble("stall-head", lambda rng: Fault(stall_head=rng.choice((0, 1, 20)))),
    Trouble("trickle-head", lambda _: Fault(trickle_head=True), most=1),
    Trouble("garbage", lambda _: Fault(garbage=True)),
    *_body_cut("reset_after"),
    *_body_cut("short_after"),
    *_body_cut("stall_after"),
    *_body_cut("trickle_after"),
    *_body_cut("truncate_after"),
    Trouble("malformed", lambda _: Fault(body=b"<html><body>sorry<br></html>"), SPEAKS_XML),
    Trouble("other-xml", lambda _: Fault(body=b"<Sorry/>"), SPEAKS_XML),
    Trouble("corrupt-request", lambda _: Fault(corrupt_request=True), SENDS),
    Trouble("shift-range", lambda rng: Fault(shift_range=rng.choice((-1, 1, 4096))), READS),
    Trouble("ignore-range", lambda _: Fault(ignore_range=True), READS, always=NOT_POSSIBLE),
    Trouble("etag", lambda _: Fault(etag="0" * 32), READS, once=CHANGED, always=CHANGED),
    Trouble(
        # The answer to a HEAD has no body to say so, which has tests of its own.
        "expired",
        lambda _: Fault(status=400, code="ExpiredToken"),
        EVERY - {"HeadObject"},
        always=DENIED,
        most=1,
    ),
    Trouble("denied", lambda _: Fault(status=403, code="AccessDenied"), once=DENIED, always=DENIED),
    Trouble(
        # So much off that it is believed, and so little that the real store goes along.
        "clock",
        lambda _: Fault(
            status=403,
            code="RequestTimeTooSkewed",
            date=formatdate(time.time() + next(_OFFSETS), usegmt=True),
        ),
        always=DENIED,
        most=1,
    ),
)


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

"""The ways in which a store can fail, and what a program may see of each.

What is expected comes from the promises: transient failures are repeated silently; what lasts
longer than the retry budget is told with the errno of its cause. Left out is what nobody can know:
bits that flip in the body of a GET over plain http, for which stores keep no checksum of a range
(TLS sees them).
"""

import errno
import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate

from tests.support.faults import Fault

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

HARMLESS: tuple[Trouble, ...] = tuple(
    trouble for trouble in TROUBLES if trouble.once is FINE and trouble.most > 1
)
"""What is repeated silently, however often it comes."""

"""Small ranged GETs without a thread: sent and received by the caller's loop, as bytes arrive.

A thread for a small GET costs more than the GET: two wake-ups, and each system call in it hands
Python's lock over and back. A file of 100 KB took 27 futex calls and 19 switches of context so.

Here is only the usual case: a kept connection, the store obeys If-Match, and the answer is the one
expected. Everything else (connecting, errors, pauses, repetitions) is left to the
blocking request of :mod:`~ossfs_py.store.s3.queries`.
"""

import select
import time
from collections.abc import Callable
from functools import partial

import outcome

from ossfs_py.errors import StoreError
from ossfs_py.model import ObjectVersion
from ossfs_py.store.auth.credentials import CredentialSource
from ossfs_py.store.base import Told
from ossfs_py.store.http.connection import Connection
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.http.pool import ConnectionPool
from ossfs_py.store.s3.inlineloop import InlineLoop, InlineRequest
from ossfs_py.store.s3.ranges import check_answer, pinned_get, told_by
from ossfs_py.store.s3.readpins import ReadPins
from ossfs_py.store.s3.retry import Attempt, Retrier
from ossfs_py.store.s3.wire import WireClient
from ossfs_py.telemetry.metrics import Metrics
from ossfs_py.telemetry.waits import Wait

_GOOD = (200, 206)


class _Get(InlineRequest):
    """One GET on its way."""

    __slots__ = ("ended", "got", "start", "version", "view")

    def __init__(
        self,
        connection: Connection,
        version: ObjectVersion,
        start: int,
        view: memoryview,
        ended: Callable[[outcome.Outcome[Told | None]], None],
        gave_up: Callable[[], None],
        begun: Wait,
    ) -> None:
        super().__init__(connection, gave_up, begun)
        self.version = version
        self.start = start
        self.view = view
        self.ended = ended
        self.got = 0


class InlineGets(InlineLoop[_Get]):
    """The GETs of one bucket. Implements :class:`ossfs_py.store.base.InlineReads`."""

    def __init__(
        self,
        wire: WireClient,
        pool: ConnectionPool,
        credentials: CredentialSource,
        retrier: Retrier,
        pins: ReadPins,
        metrics: Metrics,
        stall_timeout_seconds: float,
    ) -> None:
        super().__init__(wire, pool, credentials, retrier, stall_timeout_seconds)
        self._pins = pins
        self._received = metrics.bytes_received

    def begin(
        self,
        version: ObjectVersion,
        start: int,
        buffer: memoryview,
        ended: Callable[[outcome.Outcome[Told | None]], None],
        gave_up: Callable[[], None],
    ) -> bool:
        if (
            not version.has_etag
            or not self._pins.is_trusted(version)
            or (started := self._start("GetObject", version.key)) is None
        ):
            return False
        connection, begun = started
        get = _Get(connection, version, start, buffer, ended, gave_up, begun)
        try:
            request = pinned_get(version, start, len(buffer))
            connection.try_send(connection.sealed(self._encode(request)))
        except (NoAnswerError, StoreError) as exc:
            self._cannot_start(connection, begun, exc)
            return False
        self._wait_for(get, select.EPOLLIN)
        return True

    # -- one answer -----------------------------------------------------------------------------

    def _go_on(self, get: _Get) -> Callable[[], None] | None:
        if get.head is None:
            self._read_head(get)
        head = get.head
        if head is None or not self._read_body(get):
            return None
        self._received.inc(get.got)
        told: Told | None = None
        if get.start == 0:
            told = partial(told_by, get.version, head.headers)
        self._leave(get, None, keep=head.keep)
        return partial(get.ended, outcome.Value(told))

    def _read_head(self, get: _Get) -> None:
        received = self._receive_head(get)
        if received is None:
            return
        head, rest = received
        size = len(get.view)
        if head.status not in _GOOD or head.headers.get("content-length") != str(size):
            raise NoAnswerError(f"the store answered {head.status}")
        if "transfer-encoding" in head.headers:
            raise NoAnswerError("the store answered in chunks")
        check_answer(head.headers, size, get.version, get.start, size, Attempt())
        get.got = len(rest)
        if get.got > size:
            raise NoAnswerError("the body is longer than what was asked for")
        get.view[: get.got] = rest

    def _read_body(self, get: _Get) -> bool:
        """Whether the body is complete."""
        size = len(get.view)
        while get.got < size:
            count = get.connection.try_receive(get.view[get.got :])
            if count is None:
                get.connection.wake_for(size - get.got)
                return False
            get.moved_at = time.monotonic()
            get.got += count
        return True

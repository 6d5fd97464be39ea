"""Small ranged GETs without a thread: sent and received by the caller's loop, as bytes arrive.

A thread for a small GET costs more than the GET: two wake-ups, and each system call in it hands
Python's lock over and back. A file of 100 KB took 27 futex calls and 19 switches of context so.

Here is only the usual case: plain http, a kept connection, the store obeys If-Match, and the answer
is the one expected. Everything else (connecting, errors, pauses, repetitions) is left to the
blocking request of :mod:`~ossfs_py.store.s3.queries`.
"""

import logging
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
from ossfs_py.store.http.http1 import AnswerHead
from ossfs_py.store.http.pool import ConnectionPool
from ossfs_py.store.s3.ranges import check_answer, pinned_get, told_by
from ossfs_py.store.s3.readpins import ReadPins
from ossfs_py.store.s3.retry import Attempt, Retrier
from ossfs_py.store.s3.wire import WireClient
from ossfs_py.telemetry.metrics import Metrics
from ossfs_py.telemetry.waits import Wait

log = logging.getLogger(__name__)

_HEAD_BYTES = 4096
"""Received at once until the head is complete: bytes of the body behind it are copied once more."""
_MAX_HEAD_BYTES = 64 * 1024
_GOOD = (200, 206)


class _Get:
    """One request on its way."""

    __slots__ = (
        "begun",
        "connection",
        "ended",
        "gave_up",
        "got",
        "head",
        "moved_at",
        "start",
        "text",
        "version",
        "view",
    )

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
        self.connection = connection
        self.version = version
        self.start = start
        self.view = view
        self.ended = ended
        self.gave_up = gave_up
        self.begun = begun
        self.text = b""
        """What has arrived of the head."""
        self.head: AnswerHead | None = None
        self.got = 0
        self.moved_at = begun.since


class InlineGets:
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
        self._wire = wire
        self._pool = pool
        self._credentials = credentials
        self._retrier = retrier
        self._pins = pins
        self._received = metrics.bytes_received
        self._stall_timeout_seconds = stall_timeout_seconds
        self._epoll = select.epoll()
        self._gets: dict[int, _Get] = {}
        self._scratch = memoryview(bytearray(_HEAD_BYTES))

    def fileno(self) -> int:
        return self._epoll.fileno()

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
            or not self._credentials.is_checked()
            or not self._pins.is_trusted(version)
        ):
            return False
        connection = self._pool.acquire_idle()
        if connection is None:
            return False
        number = connection.fileno()
        begun = self._retrier.begin_inline("GetObject", version.key, -number)
        if begun is None:
            self._pool.release(connection)
            return False
        get = _Get(connection, version, start, buffer, ended, gave_up, begun)
        try:
            connection.grant(0.0)
            request = pinned_get(version, start, len(buffer))
            connection.try_send(self._wire.encode(request, self._credentials.known))
            self._epoll.register(number, select.EPOLLIN)
        except (NoAnswerError, StoreError) as exc:
            fault = exc if isinstance(exc, NoAnswerError) else NoAnswerError(str(exc))
            self._pool.discard(connection)
            self._retrier.end_inline(begun, -number, fault)
            return False
        self._gets[number] = get
        return True

    def receive(self) -> None:
        for number, _ in self._epoll.poll(0):
            get = self._gets.get(number)
            if get is not None:
                self._go_on(get)

    def look(self) -> None:
        now = time.monotonic()
        for get in list(self._gets.values()):
            if now - get.moved_at > self._stall_timeout_seconds:
                self._go_on(get)  # too few bytes to wake anybody may have arrived
                if now - get.moved_at > self._stall_timeout_seconds and self._is_running(get):
                    fault = NoAnswerError("no byte moved for the stall timeout", "timeout")
                    self._give_up(get, fault)

    def close(self) -> None:
        """Give up what is in progress. The descriptor lives on, as a loop may wait for it."""
        for get in list(self._gets.values()):
            self._give_up(get, NoAnswerError("the store is closed"))

    # -- one answer -----------------------------------------------------------------------------

    def _go_on(self, get: _Get) -> None:
        try:
            if get.head is None:
                self._read_head(get)
            if get.head is None or not self._read_body(get):
                return
        except NoAnswerError as fault:
            self._give_up(get, fault)
        except StoreError as exc:
            # It is believed of a blocking request only, which confirms it.
            log.debug("an answer is asked for once more: %s", exc)
            self._leave(get, None, keep=False)
            get.gave_up()
        except Exception:
            log.exception("an answer was not understood")
            self._give_up(get, NoAnswerError("it was not understood"))
        else:
            self._received.inc(get.got)
            told: Told | None = None
            if get.start == 0:
                told = partial(told_by, get.version, get.head.headers)
            self._leave(get, None, keep=get.head.keep)
            get.ended(outcome.Value(told))

    def _read_head(self, get: _Get) -> None:
        while (end := get.text.find(b"\r\n\r\n")) < 0:
            if len(get.text) > _MAX_HEAD_BYTES:
                raise NoAnswerError("what answers does not speak HTTP", "not_http")
            count = get.connection.try_receive(self._scratch)
            if count is None:
                return
            get.moved_at = time.monotonic()
            get.text += self._scratch[:count]
        head = AnswerHead.parse(get.text[:end])
        size = len(get.view)
        if head.status not in _GOOD or head.headers.get("content-length") != str(size):
            raise NoAnswerError(f"the store answered {head.status}")
        if "transfer-encoding" in head.headers:
            raise NoAnswerError("the store answered in chunks")
        check_answer(head.headers, size, get.version, get.start, size, Attempt())
        get.got = len(get.text) - end - 4
        if get.got > size:
            raise NoAnswerError("the body is longer than what was asked for")
        get.view[: get.got] = memoryview(get.text)[end + 4 :]
        get.head, get.text = head, b""

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

    def _is_running(self, get: _Get) -> bool:
        return self._gets.get(get.connection.fileno()) is get

    def _give_up(self, get: _Get, fault: NoAnswerError) -> None:
        fault.any_byte = bool(get.text or get.head)
        self._leave(get, fault, keep=False)
        self._pool.suspect(get.connection, fault)
        get.gave_up()

    def _leave(self, get: _Get, fault: NoAnswerError | None, *, keep: bool) -> None:
        number = get.connection.fileno()
        del self._gets[number]
        self._epoll.unregister(number)
        if keep:
            get.connection.wake_for(1)
            self._pool.release(get.connection)
        else:
            self._pool.discard(get.connection)
        self._retrier.end_inline(get.begun, -number, fault)

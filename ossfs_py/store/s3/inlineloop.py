"""Short requests without a thread, as far as they are alike: connection, head, stalls, the end."""

import logging
import select
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

from ossfs_py.errors import StoreError
from ossfs_py.store.auth.credentials import CredentialSource
from ossfs_py.store.http.connection import Connection
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.http.http1 import AnswerHead
from ossfs_py.store.http.pool import ConnectionPool
from ossfs_py.store.s3.retry import Retrier
from ossfs_py.store.s3.wire import Request, WireClient
from ossfs_py.telemetry.waits import Wait

log = logging.getLogger(__name__)

_HEAD_BYTES = 4096
"""Received at once until the head is complete: bytes of the body behind it are copied once more."""
_MAX_HEAD_BYTES = 64 * 1024


class InlineRequest:
    """One request on its way."""

    __slots__ = ("begun", "connection", "gave_up", "head", "moved_at", "text")

    def __init__(self, connection: Connection, gave_up: Callable[[], None], begun: Wait) -> None:
        """``gave_up``: called if a thread has to make the request."""
        self.connection = connection
        self.gave_up = gave_up
        self.begun = begun
        self.text = b""
        """What has arrived of the head."""
        self.head: AnswerHead | None = None
        self.moved_at = begun.since


R = TypeVar("R", bound=InlineRequest)


class InlineLoop(ABC, Generic[R]):
    """The requests of one kind. Belongs to the thread of a loop, and never waits."""

    def __init__(
        self,
        wire: WireClient,
        pool: ConnectionPool,
        credentials: CredentialSource,
        retrier: Retrier,
        stall_timeout_seconds: float,
    ) -> None:
        self._wire = wire
        self._pool = pool
        self._credentials = credentials
        self._retrier = retrier
        self._stall_timeout_seconds = stall_timeout_seconds
        self._epoll = select.epoll()
        self._running: dict[int, R] = {}
        self._scratch = memoryview(bytearray(_HEAD_BYTES))

    def fileno(self) -> int:
        return self._epoll.fileno()

    def expects(self) -> bool:
        return bool(self._running)

    def receive(self) -> None:
        if len(self._running) == 1:
            # It has mostly been found ready by whoever calls.
            (one,) = self._running.values()
            self._try_to_go_on(one)
            return
        for number, _ in self._epoll.poll(0):
            found = self._running.get(number)
            if found is not None:
                self._try_to_go_on(found)

    def look(self) -> None:
        now = time.monotonic()
        for one in list(self._running.values()):
            if now - one.moved_at > self._stall_timeout_seconds:
                self._try_to_go_on(one)  # too few bytes to wake anybody may have arrived
                if now - one.moved_at > self._stall_timeout_seconds and self._is_running(one):
                    fault = NoAnswerError("no byte moved for the stall timeout", "timeout")
                    self._give_up(one, fault)

    def close(self) -> None:
        """Give up what is in progress. The descriptor lives on, as a loop may wait for it."""
        for one in list(self._running.values()):
            self._give_up(one, NoAnswerError("the store is closed"))

    # -- for subclasses -------------------------------------------------------------------------

    def _start(self, operation: str, key: str) -> tuple[Connection, Wait] | None:
        """A kept connection and a turn for a request; None if a thread has to make it."""
        if not self._credentials.is_checked():
            return None
        connection = self._pool.acquire_idle()
        if connection is None:
            return None
        begun = self._retrier.begin_inline(operation, key, -connection.fileno())
        if begun is None:
            self._pool.release(connection)
            return None
        connection.grant(0.0)
        return connection, begun

    def _encode(self, request: Request) -> bytes:
        """The signed head of a request.

        Raises:
            StoreError
        """
        return self._wire.encode(request, self._credentials.known)

    def _cannot_start(self, connection: Connection, begun: Wait, exc: Exception) -> None:
        """Nothing of the request was carried out."""
        number = connection.fileno()
        fault = exc if isinstance(exc, NoAnswerError) else NoAnswerError(str(exc))
        self._pool.discard(connection)
        self._retrier.end_inline(begun, -number, fault)

    def _wait_for(self, one: R, events: int) -> None:
        """From now on, :meth:`_go_on` is called when one of the events happens."""
        number = one.connection.fileno()
        if number in self._running:
            self._epoll.modify(number, events)
        else:
            self._epoll.register(number, events)
            self._running[number] = one

    @abstractmethod
    def _go_on(self, one: R) -> Callable[[], None] | None:
        """Send and receive what can be without waiting. At the end, call :meth:`_leave`, and return
        what has to be called then.

        Raises:
            NoAnswerError, StoreError: a thread has to make the request.
        """

    @staticmethod
    def _now() -> float:
        return time.monotonic()

    def _receive_head(self, one: R) -> tuple[AnswerHead, memoryview] | None:
        """The head, and what came with it of the body; None if it is not complete."""
        while (end := one.text.find(b"\r\n\r\n")) < 0:
            if len(one.text) > _MAX_HEAD_BYTES:
                raise NoAnswerError("what answers does not speak HTTP", "not_http")
            count = one.connection.try_receive(self._scratch)
            if count is None:
                return None
            one.moved_at = time.monotonic()
            one.text += self._scratch[:count]
        text, one.text = one.text, b""
        one.head = AnswerHead.parse(text[:end])
        return one.head, memoryview(text)[end + 4 :]

    def _leave(self, one: R, fault: NoAnswerError | None, *, keep: bool) -> None:
        number = one.connection.fileno()
        del self._running[number]
        self._epoll.unregister(number)
        if keep:
            one.connection.wake_for(1)
            self._pool.release(one.connection)
        else:
            self._pool.discard(one.connection)
        self._retrier.end_inline(one.begun, -number, fault)

    # -- inside ---------------------------------------------------------------------------------

    def _try_to_go_on(self, one: R) -> None:
        try:
            ended = self._go_on(one)
        except NoAnswerError as fault:
            self._give_up(one, fault)
        except StoreError as exc:
            # It is believed of a blocking request only, which confirms it.
            log.debug("an answer is asked for once more: %s", exc)
            self._leave(one, None, keep=False)
            one.gave_up()
        except Exception:
            log.exception("an answer was not understood")
            self._give_up(one, NoAnswerError("it was not understood"))
        else:
            if ended is not None:
                ended()

    def _is_running(self, one: R) -> bool:
        return self._running.get(one.connection.fileno()) is one

    def _give_up(self, one: R, fault: NoAnswerError) -> None:
        fault.any_byte = bool(one.text or one.head)
        self._leave(one, fault, keep=False)
        self._pool.suspect(one.connection, fault)
        one.gave_up()

"""Small new objects without a thread: sent by the caller's loop, as :mod:`.inline` does with GETs.

Here is only the usual case: a kept connection, nothing that has to be asked before, and an answer
that is an ETag and nothing else. Everything else is left to the blocking
:meth:`~ossfs_py.store.s3.uploads.Writer.put`. After an answer that was lost, it looks first whether
the PUT has made the object; after a refusal it does not.
"""

import select
from collections.abc import Callable
from functools import partial

import outcome

from ossfs_py.errors import StoreError
from ossfs_py.model import CommitRequest, ObjectVersion
from ossfs_py.store.auth.credentials import CredentialSource
from ossfs_py.store.http.connection import Connection
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.http.pool import ConnectionPool
from ossfs_py.store.s3.inlineloop import InlineLoop, InlineRequest
from ossfs_py.store.s3.retry import Retrier
from ossfs_py.store.s3.uploads import Writer
from ossfs_py.store.s3.wire import Request, WireClient
from ossfs_py.telemetry.waits import Wait

_PUT = "PutObject"


class _Put(InlineRequest):
    """One PUT on its way."""

    __slots__ = ("ended", "left", "refused", "request")

    def __init__(
        self,
        connection: Connection,
        request: Request,
        ended: Callable[[outcome.Outcome[ObjectVersion]], None],
        gave_up: Callable[[bool], None],
        begun: Wait,
    ) -> None:
        super().__init__(connection, partial(gave_up, True), begun)
        self.refused = partial(gave_up, False)
        self.request = request
        self.ended = ended
        self.left = memoryview(b"")
        """What has still to be sent."""


class InlinePuts(InlineLoop[_Put]):
    """The PUTs of one bucket. Implements :class:`ossfs_py.store.base.InlineWrites`."""

    def __init__(
        self,
        wire: WireClient,
        pool: ConnectionPool,
        credentials: CredentialSource,
        retrier: Retrier,
        writer: Writer,
        stall_timeout_seconds: float,
    ) -> None:
        super().__init__(wire, pool, credentials, retrier, stall_timeout_seconds)
        self._writer = writer
        self._is_served = False

    def serve(self) -> None:
        self._is_served = True

    def end(self) -> None:
        self._is_served = False
        self.close()

    def begin(
        self,
        request: CommitRequest,
        body: bytes,
        ended: Callable[[outcome.Outcome[ObjectVersion]], None],
        gave_up: Callable[[bool], None],
    ) -> bool:
        if not self._is_served:
            return False
        try:
            usual = self._writer.usual_put(request, body)
        except StoreError:
            return False  # the thread is told
        if usual is None or (started := self._start(_PUT, request.key)) is None:
            return False
        connection, begun = started
        put = _Put(connection, usual, ended, gave_up, begun)
        try:
            put.left = memoryview(connection.sealed(self._encode(usual) + body))
            self._send(put)
        except (NoAnswerError, StoreError) as exc:
            # A request that was not sent to its end is not carried out.
            self._cannot_start(connection, begun, exc)
            return False
        self._wait_for(put, select.EPOLLOUT if put.left else select.EPOLLIN)
        return True

    # -- one PUT --------------------------------------------------------------------------------

    @staticmethod
    def _send(put: _Put) -> None:
        put.left = put.left[put.connection.try_send_some(put.left) :]

    def _go_on(self, put: _Put) -> Callable[[], None] | None:
        if put.left:
            before = len(put.left)
            self._send(put)
            if len(put.left) < before:
                put.moved_at = self._now()
            if not put.left:
                self._wait_for(put, select.EPOLLIN)
            return None
        received = self._receive_head(put)
        if received is None:
            return None
        head, rest = received
        version = None if rest else self._writer.usual_answer(put.request, head)
        if version is None and 400 <= head.status < 500:
            # Nothing was done: what was refused must not be taken for done by its repetition.
            self._leave(put, None, keep=False)
            return put.refused
        if version is None:
            raise NoAnswerError(f"the store answered {head.status}")
        self._leave(put, None, keep=head.keep)
        return partial(put.ended, outcome.Value(version))

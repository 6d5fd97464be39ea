"""Signed requests over pooled connections: one request, or a whole call with its retries."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from ossfs_py.errors import StoreError
from ossfs_py.model import NO_METADATA
from ossfs_py.store.auth.signing import (
    EMPTY_PAYLOAD,
    UNSIGNED_PAYLOAD,
    AccessKey,
    Form,
    Query,
    Signer,
    encode_query,
)
from ossfs_py.store.http.connection import Connection
from ossfs_py.store.http.dialing import Dialer
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.http.http1 import Response
from ossfs_py.store.http.payload import Payload
from ossfs_py.store.http.pool import ConnectionPool
from ossfs_py.store.s3.endpoint import Endpoint
from ossfs_py.store.s3.error_map import CLOCK_SKEW, AnswerError, parse_error, store_time_of
from ossfs_py.store.s3.retry import Attempt, Retrier
from ossfs_py.store.s3.standing import StandingHeaders

_MAX_ERROR_BODY_BYTES = 64 * 1024
_MAX_ANSWER_BYTES = 8 * 1024**2
"""A LIST page of 1,000 keys of 1,024 percent-encoded bytes with owners stays under 5 MiB."""

USER_AGENT = "ossfs_py"
_SIGNED = ("host", "x-", "content-")
"""What SigV4 requires to be signed: headers whose names begin like this."""
_UNSIGNED = frozenset({"range", "if-match", "if-none-match"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
"""Characters that would end a header, or that no header may contain."""


_SERVER_BYTES_PER_SECOND = 45e6
"""Assumed pace of a store that moves bytes for an upload, a copy or a completion ..."""
_LONGEST_PATIENCE_SECONDS = 120.0
""" ... up to the time for 5 GiB, the largest copy, at that pace."""


def patience_seconds(size: int) -> float:
    """How much longer than the stall timeout the store may take to store, copy or assemble ``size``
    bytes before it answers.
    """
    return min(size / _SERVER_BYTES_PER_SECOND, _LONGEST_PATIENCE_SECONDS)


class Request(NamedTuple):
    """One request. ``headers`` have lower-case names; those required by SigV4 are signed. It is a
    tuple for the same reason as ``AnswerHead``.
    """

    operation: str
    method: str
    key: str = ""
    query: Query = ()
    headers: Mapping[str, str] | None = None
    payload: Payload | None = None
    patience_seconds: float = 0.0
    """How much longer than the stall timeout the store may be silent before and in its answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer with its body in memory."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Alike(NamedTuple):
    """The text around what differs in the heads of requests of one kind, key and second."""

    key: AccessKey
    form: Form
    before: str
    """The first headers; those of the request follow."""
    authorization: str
    """The next ones, up to the signature."""
    after: str


class WireClient:
    """The HTTP side of one bucket. Blocking; safe for concurrent use."""

    def __init__(
        self,
        endpoint: Endpoint,
        dialer: Dialer,
        pool: ConnectionPool,
        credentials: Callable[[], AccessKey | None],
        retrier: Retrier,
        standing: StandingHeaders,
    ) -> None:
        self._standing = standing
        self._endpoint = endpoint
        self._dialer = dialer
        self._pool = pool
        self._credentials = credentials
        self._retrier = retrier
        self._signer = Signer(endpoint.region)
        self._host = endpoint.host_header
        # A store that compresses on the fly would send other bytes than the object's.
        self._constant = {"user-agent": USER_AGENT, "accept-encoding": "identity"}
        self._constant |= dialer.proxy_headers
        # Each is replaced whole, so that no lock is needed.
        self._alike: dict[str, _Alike] = {}

    @property
    def answering_proxy(self) -> str:
        """See :class:`~ossfs_py.store.http.dialing.Dialer`."""
        return self._dialer.answering_proxy

    def call(self, request: Request) -> Answer:
        """Send ``request`` until it succeeds or fails for good.

        Raises:
            StoreError: the class from error_map.
        """

        def attempt(state: Attempt) -> Answer:
            return self.once(request, state)

        return self._retrier.run(request.operation, request.key, attempt)

    def once(self, request: Request, state: Attempt) -> Answer:
        """One try, for use inside a retried attempt."""
        with self.exchange(request, state) as response:
            return Answer(response.status, response.headers, response.read_all(_MAX_ANSWER_BYTES))

    @contextmanager
    def exchange(self, request: Request, state: Attempt) -> Iterator[Response]:
        """One request and its successful answer, whose body is not read yet.

        The connection is kept for the next request only if the block succeeds and the body was read
        to its end. After a failed attempt a new connection is opened.

        Raises:
            AnswerError: the answer is an error or a redirect.
            NoAnswerError: no answer.
        """
        head = self.encode(request, self._credentials())
        connection, response = self._send(request, head, state)
        keep = False
        try:
            if response.status >= 300:
                body = response.read_all(_MAX_ERROR_BODY_BYTES)
                # After a 5xx the next try uses another connection; a 404 says nothing about this
                # one.
                keep = 400 <= response.status < 500 and response.is_reusable
                raise self._error(response, body)
            yield response
            keep = response.is_reusable
        except NoAnswerError as fault:
            self._pool.suspect(connection, fault)
            raise
        finally:
            if keep:
                self._pool.release(connection)
            else:
                self._pool.discard(connection)

    def _error(self, response: Response, body: bytes) -> AnswerError:
        error = parse_error(response.status, response.headers, body)
        now = store_time_of(response.headers)
        if now is not None and (
            error.code == CLOCK_SKEW
            # The answer to a HEAD has no body with the code.
            or (error.status == 403 and not error.code and self._signer.is_far_from(now))
        ):
            error.clock_corrected = self._signer.correct_clock(now)
        return error

    def close(self) -> None:
        """Close every connection; calls in progress fail."""
        self._retrier.close()
        self._pool.close()

    def _send(self, request: Request, head: bytes, state: Attempt) -> tuple[Connection, Response]:
        fresh = state.number > 1
        while True:
            connection = self._pool.acquire(fresh=fresh)
            was_used = connection.was_used
            try:
                connection.grant(request.patience_seconds)
                return connection, self._transmit(connection, request, head)
            except NoAnswerError as fault:
                self._pool.discard(connection)
                self._pool.suspect(connection, fault)
                state.may_have_happened = True
                # The server closed a kept connection just as it was reused: that is no failure of
                # the store, so it costs no pause and no attempt.
                if was_used and not fault.any_byte and fault.kind == "broken":
                    fresh = True
                    continue
                raise
            except BaseException:
                self._pool.discard(connection)
                raise

    @staticmethod
    def _transmit(connection: Connection, request: Request, head: bytes) -> Response:
        try:
            connection.send(head)
            if request.payload is not None:
                request.payload.send(connection)
        except NoAnswerError as fault:
            # A store that refuses an upload answers before the body's end, and closes.
            try:
                response = Response(connection, request.method)
            except NoAnswerError:
                raise fault from None
            if response.status < 300:
                raise
            return response
        return Response(connection, request.method)

    def encode(self, request: Request, key: AccessKey | None) -> bytes:
        """The head of a request, signed with ``key``."""
        path = self._endpoint.path_of(request.key)
        query = encode_query(request.query) if request.query else ""
        own = request.headers or NO_METADATA
        if request.method == "GET" and key is not None and own.keys() <= _UNSIGNED:
            return self._encode_alike(request, key, path, query, own)
        standing = self._standing.of(request.operation)
        headers = {"host": self._host, **standing, **own}
        if key is not None:
            headers |= self._signer.sign(
                key,
                request.method,
                path,
                query,
                {n: v for n, v in headers.items() if n.startswith(_SIGNED)},
                UNSIGNED_PAYLOAD if request.payload is not None else EMPTY_PAYLOAD,
            )
        if request.payload is not None:
            headers["content-length"] = str(request.payload.size)
        elif request.method in ("PUT", "POST"):
            headers["content-length"] = "0"
        headers |= self._constant
        _check(headers, request)
        target = f"{self._dialer.target_prefix}{path}{'?' if query else ''}{query}"
        # Metadata of other clients goes back byte for byte, even if it is malformed.
        text = f"{request.method} {target} HTTP/1.1\r\n{_lines(headers)}\r\n"
        return text.encode("utf-8", "surrogateescape")

    def _encode_alike(
        self, request: Request, key: AccessKey, path: str, query: str, own: Mapping[str, str]
    ) -> bytes:
        """As :meth:`encode`, of a GET whose own headers are not signed."""
        alike = self._alike.get(request.operation)
        if alike is None or alike.key is not key or not self._signer.is_of_now(alike.form):
            alike = self._alike[request.operation] = self._alike_of(request, key)
        _check(own, request)
        signature = alike.form.signature("GET", path, query)
        target = f"{self._dialer.target_prefix}{path}{'?' if query else ''}{query}"
        return (
            f"GET {target} HTTP/1.1\r\n{alike.before}{_lines(own)}"
            f"{alike.authorization}{signature}{alike.after}"
        ).encode("utf-8", "surrogateescape")

    def _alike_of(self, request: Request, key: AccessKey) -> _Alike:
        begin = {"host": self._host, **self._standing.of(request.operation)}
        signed = {n: v for n, v in begin.items() if n.startswith(_SIGNED)}
        form = self._signer.form(key, signed, EMPTY_PAYLOAD)
        _check(begin | form.added | self._constant, request)
        return _Alike(
            key,
            form,
            _lines(begin),
            f"{_lines(form.added)}authorization: {form.authorization}",
            f"\r\n{_lines(self._constant)}\r\n",
        )


def _lines(headers: Mapping[str, str]) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


def _check(headers: Mapping[str, str], request: Request) -> None:
    # Quicker than the expression, which decides about values beyond ASCII.
    values = "".join(headers.values())
    if not values.isprintable() and _CONTROL.search(values):
        name = next(name for name, value in headers.items() if _CONTROL.search(value))
        raise StoreError(
            f"the value of the header {name} holds control characters",
            operation=request.operation,
            key=request.key,
        )

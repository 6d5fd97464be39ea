"""The part of HTTP/1.1 that object stores use: one answer at a time on a :class:`Connection`."""

import math
import re
from itertools import repeat
from typing import NamedTuple, Self

from ossfs_py.store.http.arrival import Arrival
from ossfs_py.store.http.connection import Connection
from ossfs_py.store.http.faults import NoAnswerError

_HEAD_BYTES = 16 * 1024
"""First receive. An answer's head is about 1 KiB; body bytes received with it are copied once."""
_MAX_HEAD_BYTES = 64 * 1024
"""OSS stores 8 KiB of metadata with an object, S3 2 KiB; S3 sends no head over 16 KiB."""
_MAX_INTERIM = 16
"""1xx answers before the answer. S3 and OSS send at most one, if the request asks for it."""
_FRAMING_BYTES = 64 * 1024
"""Allowance for chunk sizes, chunk ends, extensions and trailers, beyond as many bytes as the body
has. Servers send chunks of 4 KiB and more, with 8 bytes around each.
"""
_WHOLE_SECONDS = 120.0
"""Longest time for an answer that is kept in memory, beyond the stall timeout. A LIST page has some
400 KiB: it arrives in time on a line of 30 kbit/s.
"""
_READ_BYTES = 256 * 1024
_STATUS = re.compile(r"[1-9][0-9]{2}(?: |$)")
_LENGTH = re.compile(r"[0-9A-Fa-f]{1,16}")
_NO_BODY_STATUSES = frozenset({204, 304})


class AnswerHead(NamedTuple):
    """The head of an answer. Header names are lower case; the last one of repeated headers counts.
    ``keep``: the connection may serve another request, as far as the version tells. It is a tuple
    as there is one for each small file, and a frozen dataclass takes three times as long to make.
    """

    status: int
    headers: dict[str, str]
    keep: bool

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """A head without its empty line.

        Raises:
            NoAnswerError: it is not HTTP/1.
        """
        first, *lines = data.decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or not _STATUS.match(rest):
            raise NoAnswerError("what answers does not speak HTTP/1.1", "not_http")
        headers = dict[str, str]()
        if lines:  # without a loop in Python: 20 bytecodes for seven headers, not 160
            names, _, values = zip(*map(str.partition, lines, repeat(":")), strict=True)
            headers = dict(zip(map(str.lower, names), map(str.strip, values), strict=True))
        keep = version != "HTTP/1.0" and headers.get("connection", "").lower() != "close"
        return cls(int(rest[:3]), headers, keep)


class Response:
    """The answer on a connection; its body is not read yet.

    Header names are lower case; the last one of repeated headers counts.
    """

    def __init__(self, connection: Connection, method: str) -> None:
        """Read the head.

        Raises:
            NoAnswerError: the connection broke, or the peer does not speak HTTP.
        """
        self._connection = connection
        self._pending = memoryview(b"")
        self.any_byte = False
        self._keep = True
        self._framing_left = _FRAMING_BYTES
        self._is_timed = False
        self.status, self.headers = 0, dict[str, str]()
        try:
            self._read_head()
            if 100 <= self.status < 200:
                self._read_past_interim()
            if self._is_timed:
                connection.await_within(math.inf)
        except NoAnswerError as fault:
            fault.any_byte = self.any_byte
            raise
        self._left: int | None = None
        """Body bytes still to come; None: until the peer closes."""
        self._chunked = False
        headers = self.headers
        if method == "HEAD" or self.status in _NO_BODY_STATUSES:
            self._left = 0
        elif "chunked" in headers.get("transfer-encoding", "").lower():
            self._chunked = True
        elif (length := headers.get("content-length")) is not None:
            self._left = _parse_int(length)
        self._done = self._left == 0 and not self._chunked

    @property
    def length(self) -> int | None:
        """The announced size of the body; None if it is not announced."""
        return None if self._chunked else self._left

    @property
    def is_reusable(self) -> bool:
        """Whether the connection is ready for the next request."""
        return self._done and self._keep and not self._pending

    def read_into(self, view: memoryview, arrival: Arrival | None = None) -> None:
        """Fill ``view`` from the body. ``arrival`` is told of the bytes as they come, but of those
        of a chunked body, whose length shows at its end.

        Raises:
            NoAnswerError: with ``received`` set to the number of bytes that arrived.
        """
        if self._chunked:
            self._read_chunks_into(view)
            return
        size = len(view)
        if self._left is not None and size > self._left:
            raise NoAnswerError("the body is shorter than what was asked for")
        have = min(len(self._pending), size)
        if have:
            view[:have] = self._pending[:have]
            self._pending = self._pending[have:]
            if arrival is not None:
                arrival.moved(have)
        if have < size:
            try:
                self._connection.receive_into(view[have:], arrival)
            except NoAnswerError as fault:
                fault.received += have
                raise
        if self._left is not None:
            self._left -= size
            self._done = self._left == 0

    def read_all(self, limit_bytes: int) -> bytes:
        """The rest of the body; bytes beyond ``limit_bytes`` are dropped with the connection.

        Raises:
            NoAnswerError: it broke off, or took longer than any such body should.
        """
        self._connection.await_within(_WHOLE_SECONDS)
        if self._chunked:
            parts: list[bytearray] = []
            total = 0
            while total < limit_bytes and (size := self._next_chunk()):
                part = bytearray(min(size, limit_bytes))
                self._exactly(memoryview(part))
                if len(part) < size:
                    self._keep = False
                    return b"".join([*parts, part])
                self._end_chunk()
                parts.append(part)
                total += size
            return b"".join(parts)
        if self._left is not None:
            body = bytearray(min(self._left, limit_bytes))
            self.read_into(memoryview(body))
            return bytes(body)
        self._keep = False
        pieces = [bytes(self._pending)]
        self._pending = memoryview(b"")
        total = len(pieces[0])
        buffer = memoryview(bytearray(_READ_BYTES))
        while total < limit_bytes and (count := self._connection.receive_some(buffer)):
            pieces.append(bytes(buffer[:count]))
            total += count
        self._done = True
        return b"".join(pieces)

    def _read_past_interim(self) -> None:
        for _ in range(_MAX_INTERIM):
            self._limit_time()
            self._read_head()
            if not 100 <= self.status < 200:
                return
        raise NoAnswerError("interim answers without an answer", "not_http")

    def _limit_time(self) -> None:
        """Limit the time from the first bytes on, once: most heads come whole and need no clock."""
        if not self._is_timed:
            self._is_timed = True
            self._connection.await_within(0.0)

    def _read_head(self) -> None:
        data = bytes(self._pending)
        buffer = memoryview(bytearray(_HEAD_BYTES))
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > _MAX_HEAD_BYTES or (data and not data.startswith(b"HTTP/"[: len(data)])):
                raise NoAnswerError("what answers does not speak HTTP", "not_http")
            count = self._connection.receive_some(buffer)
            if not count:
                raise NoAnswerError("the connection was closed before an answer")
            self.any_byte = True
            if data:
                self._limit_time()
            data = data + buffer[:count] if data else bytes(buffer[:count])
        head = AnswerHead.parse(data[:end])
        self.status, self.headers, self._keep = head.status, head.headers, head.keep
        self._pending = memoryview(data)[end + 4 :]

    def _read_chunks_into(self, view: memoryview) -> None:
        got = 0
        try:
            while size := self._next_chunk():
                if got + size > len(view):
                    raise NoAnswerError("the body is longer than what was asked for")
                self._exactly(view[got : got + size])
                self._end_chunk()
                got += size
            if got < len(view):
                raise NoAnswerError("the body is shorter than what was asked for")
        except NoAnswerError as fault:
            fault.received += got
            raise

    def _next_chunk(self) -> int:
        line = self._line()
        size = _parse_int(line.partition(";")[0].strip(), 16)
        self._framing_left += size
        if not size:
            while self._line():
                continue
            self._done = True
        return size

    def _end_chunk(self) -> None:
        if self._line():
            raise NoAnswerError("a chunk of the body has no end")

    def _line(self) -> str:
        data = bytes(self._pending)
        buffer = memoryview(bytearray(_HEAD_BYTES))
        while (end := data.find(b"\r\n")) < 0:
            if len(data) > _HEAD_BYTES:
                raise NoAnswerError("a line of the chunked body is too long")
            count = self._connection.receive_some(buffer)
            if not count:
                raise NoAnswerError("the body ended early")
            data += buffer[:count]
        self._pending = memoryview(data)[end + 2 :]
        self._framing_left -= end + 2
        if self._framing_left < 0:
            raise NoAnswerError(
                "chunks with next to nothing in them, or endless trailers", "not_http"
            )
        return data[:end].decode("latin-1")

    def _exactly(self, view: memoryview) -> None:
        have = min(len(self._pending), len(view))
        view[:have] = self._pending[:have]
        self._pending = self._pending[have:]
        if have < len(view):
            try:
                self._connection.receive_into(view[have:])
            except NoAnswerError as fault:
                fault.received += have
                raise


def _parse_int(text: str, base: int = 10) -> int:
    # int() alone also accepts signs, underscores and digits of other alphabets.
    if not _LENGTH.fullmatch(text):
        raise NoAnswerError("the answer's length is not a number", "not_http")
    try:
        return int(text, base)
    except ValueError:
        raise NoAnswerError("the answer's length is not a number", "not_http") from None

"""Connections that keep to so many bytes a second, all of a store together.

A store without limits has plain connections: what is here is not even looked at.
"""

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ossfs_py.store.http.connection import Connection
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.http.tls import TlsStream

BURST_SECONDS = 0.25
"""What was not used for longer is lost. Threads that come late on a busy machine lose nothing."""
_SLICE_SECONDS = 0.01
"""What one connection moves before it lets others go on, in time of the whole limit."""
_MIN_SLICE_BYTES, _MAX_SLICE_BYTES = 16 * 1024, 1024**2
"""A TLS record; beyond the other, slices cost nothing that could be measured."""
_WINDOW_SECONDS = 0.1
"""What the kernel may take from, or keep for, the network before we have asked, for each
connection. It is also the longest round trip over which one connection reaches the limit."""
_MIN_WINDOW_BYTES, _MAX_WINDOW_BYTES = 64 * 1024, 4 * 1024**2
"""The upper one is what Linux lets any program have (twice net.core.rmem_max)."""


class RateLimit:
    """So many bytes a second for all who pay here, first come, first served.

    Safe for concurrent use.
    """

    def __init__(
        self,
        bytes_per_second: int,
        clock: Callable[[], float] = time.monotonic,
        count_waited: Callable[[float], object] | None = None,
    ) -> None:
        """``count_waited`` is called with the seconds of each wait."""
        self._count_waited = count_waited
        self._bytes_per_second = bytes_per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._due = 0.0
        """The monotonic time at which all that was paid for so far may have moved."""
        slice_bytes = int(bytes_per_second * _SLICE_SECONDS)
        self.slice_bytes = min(max(slice_bytes, _MIN_SLICE_BYTES), _MAX_SLICE_BYTES)
        window_bytes = int(bytes_per_second * _WINDOW_SECONDS)
        self.window_bytes = min(max(window_bytes, _MIN_WINDOW_BYTES), _MAX_WINDOW_BYTES)

    def charge(self, count: int) -> float:
        """``count`` bytes have moved: the seconds until they may have; 0 and below: at once."""
        with self._lock:
            now = self._clock()
            self._due = max(self._due, now - BURST_SECONDS) + count / self._bytes_per_second
            return self._due - now

    def pay(self, count: int) -> float:
        """``count`` bytes have moved: wait until they may have. Returns the seconds waited."""
        seconds = self.charge(count)
        if seconds <= 0 or self._closed.wait(seconds):
            return 0.0
        if self._count_waited is not None:
            self._count_waited(seconds)
        return seconds

    def close(self) -> None:
        """Let go all who wait, and nobody wait any more."""
        self._closed.set()


@dataclass(frozen=True, slots=True)
class Limits:
    """What all connections of a store may move together; None: all they can."""

    upload: RateLimit | None = None
    download: RateLimit | None = None

    def connection(
        self, sock: socket.socket, stall_timeout_seconds: float, tls: TlsStream | None
    ) -> Connection:
        """A connection that keeps to them."""
        if self.upload is None and self.download is None:
            return Connection(sock, stall_timeout_seconds, tls)
        return LimitedConnection(sock, stall_timeout_seconds, tls, self)

    def prepare(self, sock: socket.socket) -> None:
        """Bound what the kernel buffers. Before connecting, when windows are negotiated."""
        for limit, option in (
            (self.upload, socket.SO_SNDBUF),
            (self.download, socket.SO_RCVBUF),
        ):
            if limit is not None:
                sock.setsockopt(socket.SOL_SOCKET, option, limit.window_bytes)

    def close(self) -> None:
        """Let go all who wait."""
        for limit in (self.upload, self.download):
            if limit is not None:
                limit.close()


class LimitedConnection(Connection):
    """Moves slices, and pays for each. Nobody is held responsible for the time that takes."""

    def __init__(
        self,
        sock: socket.socket,
        stall_timeout_seconds: float,
        tls: TlsStream | None,
        limits: Limits,
    ) -> None:
        super().__init__(sock, stall_timeout_seconds, tls)
        self._limits = limits

    def receive_some(self, view: memoryview) -> int:
        count = super().receive_some(view)
        self._pay(self._limits.download, count)
        return count

    def receive_into(self, view: memoryview) -> None:
        limit = self._limits.download
        if limit is None:
            super().receive_into(view)
            return
        for start in range(0, len(view), limit.slice_bytes):
            piece = view[start : start + limit.slice_bytes]
            try:
                super().receive_into(piece)
            except NoAnswerError as fault:
                fault.received += start
                raise
            self._pay(limit, len(piece))

    def send(self, data: bytes | memoryview) -> None:
        limit = self._limits.upload
        if limit is None:
            super().send(data)
            return
        view = memoryview(data).cast("B")
        for start in range(0, len(view), limit.slice_bytes):
            piece = view[start : start + limit.slice_bytes]
            super().send(piece)
            self._pay(limit, len(piece))

    def send_file(self, fd: int, offset: int, size: int) -> None:
        limit = self._limits.upload
        if limit is None or self.is_encrypted:  # what is encrypted goes through send
            super().send_file(fd, offset, size)
            return
        for start in range(0, size, limit.slice_bytes):
            count = min(limit.slice_bytes, size - start)
            super().send_file(fd, offset + start, count)
            self._pay(limit, count)

    def _pay(self, limit: RateLimit | None, count: int) -> None:
        if limit is not None and (seconds := limit.pay(count)):
            self.excuse(seconds)

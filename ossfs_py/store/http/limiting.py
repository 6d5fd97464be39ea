"""Connections that share a limit of bytes a second, all of a store together.

A store without limits has plain connections, and does not use this module.
"""

import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ossfs_py.store.http.arrival import Arrival
from ossfs_py.store.http.connection import Connection
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.http.tls import TlsStream

BURST_SECONDS = 0.25
"""Capacity unused for longer is lost. Threads that are late on a busy machine lose nothing."""
_SLICE_SECONDS = 0.01
"""Bytes that one connection moves before the next one may, in time at the whole limit."""
_MIN_SLICE_BYTES, _MAX_SLICE_BYTES = 16 * 1024, 1024**2
"""One TLS record; larger slices than the second one cost nothing that could be measured."""
_WINDOW_SECONDS = 0.1
"""Bytes that the kernel may receive, or buffer for sending, ahead of us, for each connection. It is
also the longest round trip at which one connection reaches the limit.
"""
_MIN_WINDOW_BYTES, _MAX_WINDOW_BYTES = 64 * 1024, 4 * 1024**2
"""The upper one is the limit of Linux for any program (twice net.core.rmem_max)."""


class RateLimit:
    """A limit of bytes a second for all callers, first come, first served.

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
        """The monotonic time at which all bytes charged so far may have moved."""
        slice_bytes = int(bytes_per_second * _SLICE_SECONDS)
        self.slice_bytes = min(max(slice_bytes, _MIN_SLICE_BYTES), _MAX_SLICE_BYTES)
        window_bytes = int(bytes_per_second * _WINDOW_SECONDS)
        self.window_bytes = min(max(window_bytes, _MIN_WINDOW_BYTES), _MAX_WINDOW_BYTES)

    def charge(self, count: int) -> float:
        """``count`` bytes have moved: seconds until that is within the limit; at most 0: now."""
        with self._lock:
            now = self._clock()
            self._due = max(self._due, now - BURST_SECONDS) + count / self._bytes_per_second
            return self._due - now

    def pay(self, count: int) -> float:
        """``count`` bytes have moved: wait until that is within the limit; returns the seconds."""
        seconds = self.charge(count)
        if seconds <= 0 or self._closed.wait(seconds):
            return 0.0
        if self._count_waited is not None:
            self._count_waited(seconds)
        return seconds

    def close(self) -> None:
        """Release all waiting callers; nobody waits any more."""
        self._closed.set()


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that all connections of a store share; None: no limit."""

    upload: RateLimit | None = None
    download: RateLimit | None = None

    def connection(
        self, sock: socket.socket, stall_timeout_seconds: float, tls: TlsStream | None
    ) -> Connection:
        """A connection that respects the limits."""
        if self.upload is None and self.download is None:
            return Connection(sock, stall_timeout_seconds, tls)
        return LimitedConnection(sock, stall_timeout_seconds, tls, self)

    def prepare(self, sock: socket.socket) -> None:
        """Limit the kernel's buffers. Call before connecting, when window sizes are negotiated."""
        for limit, option in (
            (self.upload, socket.SO_SNDBUF),
            (self.download, socket.SO_RCVBUF),
        ):
            if limit is not None:
                sock.setsockopt(socket.SOL_SOCKET, option, limit.window_bytes)

    def close(self) -> None:
        """Release all waiting callers."""
        for limit in (self.upload, self.download):
            if limit is not None:
                limit.close()


class LimitedConnection(Connection):
    """Moves slices, and charges each. The peer is not blamed for the time that this takes."""

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

    def receive_into(self, view: memoryview, arrival: Arrival | None = None) -> None:
        limit = self._limits.download
        if limit is None:
            super().receive_into(view, arrival)
            return
        for start in range(0, len(view), limit.slice_bytes):
            piece = view[start : start + limit.slice_bytes]
            try:
                super().receive_into(piece, arrival)
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

    def send_pieces(self, views: Sequence[memoryview]) -> None:
        if self._limits.upload is None:
            super().send_pieces(views)
            return
        for view in views:
            self.send(view)

    def send_file(self, fd: int, offset: int, size: int) -> None:
        limit = self._limits.upload
        if limit is None or self.is_encrypted:  # encrypted connections go through send
            super().send_file(fd, offset, size)
            return
        for start in range(0, size, limit.slice_bytes):
            count = min(limit.slice_bytes, size - start)
            super().send_file(fd, offset + start, count)
            self._pay(limit, count)

    def _pay(self, limit: RateLimit | None, count: int) -> None:
        if limit is not None and (seconds := limit.pay(count)):
            self.excuse(seconds)

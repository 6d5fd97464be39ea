"""One connected socket: sending, receiving, and detecting a peer that stalls or only drips.

Receiving on plain http was measured at 0.13 CPU-s/GiB, and 0.27 with a usual ``recv_into`` loop:
``MSG_WAITALL`` keeps the thread in one system call (without the lock) for a whole block, and
``SO_RCVLOWAT`` keeps the kernel from waking it for every few segments.
"""

import contextlib
import math
import os
import select
import socket
import struct
import time
from collections.abc import Sequence

from ossfs_py.store.http.arrival import Arrival
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.http.tls import TlsStream

_LOW_WATER_BYTES = 256 * 1024
"""Wake the receiver only for this much. 128-512 KiB measured alike; 1 MiB was slower."""
_FILE_CHUNK_BYTES = 1024**2
_MOST_PIECES = 1024
"""The most that one sendmsg(2) takes (UIO_MAXIOV)."""
_SLOWEST_BYTES_PER_SECOND = 64
"""Below this pace a connection counts as stalled. 512 connections, the most there can be, share a
line of 256 kbit/s and are still above it.
"""


class Pace:
    """Tells a peer that only drips from a slow one.

    A peer that sends a byte just before each stall timeout would block a reader for ever. Time
    counts from the first byte of an answer, as a large upload may come before it.
    """

    def __init__(self, limit_seconds: float) -> None:
        self.ends_at = math.inf
        """The monotonic time by which all expected bytes must have arrived."""
        self._limit_seconds = limit_seconds
        self._since: float | None = None
        self._bytes = 0

    def moved(self, count: int) -> None:
        """``count`` bytes arrived.

        Raises:
            NoAnswerError: too few have arrived for too long, or the time is over.
        """
        now = time.monotonic()
        if now > self.ends_at:
            raise NoAnswerError("the answer took too long", "timeout")
        if self._since is None:
            self._since = now
            return  # bytes that arrive at once say nothing about the pace
        self._bytes += count
        elapsed = now - self._since
        if elapsed < 2 * self._limit_seconds:
            return
        if self._bytes < _SLOWEST_BYTES_PER_SECOND * elapsed:
            raise NoAnswerError("bytes only dripped in", "timeout")
        self._since = now
        self._bytes = 0

    def excuse(self, seconds: float) -> None:
        """Do not count this time: we waited on purpose."""
        self.ends_at += seconds
        if self._since is not None:
            self._since += seconds


class Connection:
    """One connected socket. Belongs to one thread at a time, except for :meth:`shut`."""

    def __init__(
        self, sock: socket.socket, stall_timeout_seconds: float, tls: TlsStream | None = None
    ) -> None:
        self._sock = sock
        self._tls = tls
        self.address: str = sock.getpeername()[0]
        """The peer's IP address."""
        self.was_used = False
        """An answer has been read on it before, so the server may have closed it in the meantime.
        """
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN | select.POLLHUP | select.POLLERR)
        self._stall_timeout_seconds = stall_timeout_seconds
        self._patience_seconds = 0.0
        self._wakes_for = 1
        self._pace = Pace(stall_timeout_seconds)
        if tls is None:
            sock.settimeout(None)
            limit = _timeval(stall_timeout_seconds)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        else:
            sock.settimeout(stall_timeout_seconds)

    def grant(self, patience_seconds: float) -> None:
        """Begin a request; the peer may be silent for this much longer than the stall timeout."""
        limit = self._stall_timeout_seconds + patience_seconds
        self._pace = Pace(limit)
        if self._tls is not None:
            self._tls.ends_at = math.inf
        if patience_seconds == self._patience_seconds:
            return
        self._patience_seconds = patience_seconds
        if self._tls is None:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(limit))
        else:
            self._sock.settimeout(limit)

    def await_within(self, seconds: float) -> None:
        """Everything expected now must arrive within ``seconds`` plus twice the time for which the
        peer may be silent. With ``math.inf``, or from the next request on, the pace counts.
        """
        ends_at = time.monotonic() + self._head_seconds + seconds
        self._pace.ends_at = ends_at
        if self._tls is not None:
            self._tls.ends_at = ends_at

    @property
    def is_encrypted(self) -> bool:
        """Whether it speaks TLS."""
        return self._tls is not None

    def excuse(self, seconds: float) -> None:
        """Do not count this time: we requested nothing during it."""
        self._pace.excuse(seconds)
        if self._tls is not None:
            self._tls.ends_at += seconds

    def receive_some(self, view: memoryview) -> int:
        """Receive at least one byte into ``view``; 0 if the peer has closed.

        Raises:
            NoAnswerError: reset, or (almost) nothing came for the stall timeout.
        """
        try:
            if self._tls is None:
                count = self._sock.recv_into(view)
            else:
                count = self._tls.recv_into(view, self._head_seconds)
        except OSError as exc:
            raise _fault(exc) from None
        self._pace.moved(count)
        return count

    def receive_into(self, view: memoryview, arrival: Arrival | None = None) -> None:
        """Fill ``view``; ``arrival`` is told of the bytes as they come.

        Raises:
            NoAnswerError: with ``received`` set to the number of bytes that arrived.
        """
        size, got = len(view), 0
        # The low-water mark must not cover the tail: less than the mark never wakes the receiver.
        bulk = size - _LOW_WATER_BYTES - (0 if self._tls is None else self._tls.slack_bytes)
        low_water_set = False
        try:
            if bulk > 0:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, _LOW_WATER_BYTES)
                low_water_set = True
            while got < size:
                if low_water_set and got >= bulk:
                    self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
                    low_water_set = False
                upto = bulk if low_water_set else size
                if arrival is not None:
                    upto = got + arrival.piece(upto - got)
                rest = view[got:upto]
                if self._tls is None:
                    count = self._sock.recv_into(rest, 0, socket.MSG_WAITALL)
                else:
                    count = self._tls.recv_into(rest)
                if not count:
                    raise NoAnswerError("the body ended early")
                got += count
                if arrival is not None:
                    arrival.moved(count)
                self._pace.moved(count)
        except NoAnswerError as fault:
            fault.received = got
            raise
        except OSError as exc:
            broken = _fault(exc)
            broken.received = got
            raise broken from None

    def send(self, data: bytes | memoryview) -> None:
        """Send all of ``data`` without copying it.

        Raises:
            NoAnswerError: the connection broke, or (almost) nothing was taken for too long.
        """
        try:
            if self._tls is not None:
                self.await_within(len(data) / _SLOWEST_BYTES_PER_SECOND)
                self._tls.sendall(data)
                self._tls.ends_at = math.inf
                return
            done = self._sock.send(data)
            if done < len(data):  # rare: a blocking send takes everything unless the peer stalls
                self.await_within(len(data) / _SLOWEST_BYTES_PER_SECOND)
                view = memoryview(data).cast("B")
                while done < len(data):
                    self._check_time()
                    done += self._sock.send(view[done:])
        except OSError as exc:
            raise _fault(exc) from None

    def send_pieces(self, views: Sequence[memoryview]) -> None:
        """Send all of ``views``, one after the other, without copying them.

        Raises:
            NoAnswerError: as :meth:`send`.
        """
        done = 0
        if self._tls is None:
            try:
                done = self._sock.sendmsg(views[:_MOST_PIECES])
            except OSError as exc:
                raise _fault(exc) from None
        for view in views:
            if done < len(view):
                self.send(view[done:])
            done = max(0, done - len(view))

    def fileno(self) -> int:
        """The socket's descriptor, to wait for bytes with :meth:`try_receive`."""
        return self._sock.fileno()

    def sealed(self, data: bytes) -> bytes:
        """``data`` as :meth:`try_send` and :meth:`try_send_some` take it. It has to be sent to its
        end before anything else is.

        Raises:
            NoAnswerError: the connection broke.
        """
        if self._tls is None:
            return data
        try:
            return self._tls.sealed(data)
        except OSError as exc:
            raise _fault(exc) from None

    def try_send(self, data: bytes) -> None:
        """Send a short request, which was :meth:`sealed`, without waiting.

        Raises:
            NoAnswerError: the connection broke, or does not take all of it at once.
        """
        if self.try_send_some(data) < len(data):
            raise NoAnswerError("the connection takes no whole request")

    def try_send_some(self, data: memoryview | bytes) -> int:
        """Send what the connection takes now of what was :meth:`sealed`; how many bytes that was.

        Raises:
            NoAnswerError: the connection broke.
        """
        try:
            if self._tls is None:
                return self._sock.send(data, socket.MSG_DONTWAIT)
            # A socket with a timeout does not wait in write(2), but in its own send.
            return os.write(self._sock.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise _fault(exc) from None

    def try_receive(self, view: memoryview) -> int | None:
        """Receive into ``view`` what has arrived; None if that is nothing.

        Raises:
            NoAnswerError: it was closed or reset, or bytes only drip in.
        """
        try:
            if self._tls is None:
                count = self._sock.recv_into(view, 0, socket.MSG_DONTWAIT)
            elif (found := self._tls.try_recv_into(view)) is None:
                return None
            else:
                count = found
        except BlockingIOError:
            return None
        except OSError as exc:
            raise _fault(exc) from None
        if not count:
            raise NoAnswerError("the answer ended early")
        self._pace.moved(count)
        return count

    def wake_for(self, count: int) -> None:
        """Count as readable only with so many bytes, or at the end; 1: with any."""
        if self._tls is not None:
            count = max(1, count - self._tls.slack_bytes)
        count = min(count, _LOW_WATER_BYTES)
        if count != self._wakes_for:
            self._wakes_for = count
            with contextlib.suppress(OSError):  # then the next receive reports it
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    def send_file(self, fd: int, offset: int, size: int) -> None:
        """Send ``size`` bytes at ``offset`` of a file; inside the kernel on plain http.

        Raises:
            NoAnswerError: the connection broke.
            OSError: the file could not be read, or is shorter than promised.
        """
        end = offset + size
        self.await_within(size / _SLOWEST_BYTES_PER_SECOND)
        if self._tls is not None:
            while offset < end:
                chunk = os.pread(fd, min(_FILE_CHUNK_BYTES, end - offset), offset)
                _require_bytes(len(chunk))
                self.send(chunk)
                offset += len(chunk)
            return
        while offset < end:
            try:
                count = os.sendfile(self._sock.fileno(), fd, offset, end - offset)
            except OSError as exc:
                os.pread(fd, 1, offset)  # if the file is the cause, this raises its error
                raise _fault(exc) from None
            _require_bytes(count)
            offset += count
            self._check_time()

    def is_stale(self) -> bool:
        """Whether the peer closed the idle connection, or sent something unasked."""
        return bool(self._poller.poll(0))

    @property
    def _head_seconds(self) -> float:
        """The longest that a head may take from its first bytes to its last."""
        return 2 * (self._stall_timeout_seconds + self._patience_seconds)

    def _check_time(self) -> None:
        if time.monotonic() > self._pace.ends_at:
            raise NoAnswerError("the request was taken too slowly", "timeout")

    def shut(self) -> None:
        """Make every call on it fail; callable on any thread."""
        with contextlib.suppress(OSError):  # already disconnected
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back to the system."""
        self._sock.close()


def _timeval(seconds: float) -> bytes:
    whole, fraction = divmod(seconds, 1)
    return struct.pack("ll", int(whole), int(fraction * 1e6))


def _fault(exc: OSError) -> NoAnswerError:
    if isinstance(exc, BlockingIOError | TimeoutError):
        return NoAnswerError("no byte moved for the stall timeout", "timeout")
    return NoAnswerError(f"the connection broke: {exc.strerror or type(exc).__name__}")


def _require_bytes(count: int) -> None:
    if not count:
        raise OSError("the file to upload is shorter than its promised size")

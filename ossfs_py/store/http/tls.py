"""TLS over a socket, with reads from the network much larger than one TLS record.

Python's own SSLSocket makes two system calls, and releases the lock three times, for each record of
16 KiB. Here OpenSSL decrypts everything received in one call (``openssl.py``), or, if OpenSSL
cannot be reached, Python's ssl does so from memory. The daemon needed 1.12 CPU-s for 1 GiB on two
busy cores (TLS 1.2, AES-256-GCM, OpenSSL 3.0; medians of 4 beside each other), 1.36 from memory,
and 0.64 without TLS.
"""

import contextlib
import fcntl
import math
import os
import select
import socket
import ssl
import termios
import time
from array import array

from ossfs_py.store.http.openssl import BUFFER_BYTES, OpenSslReader, open_reader

RECORD_BYTES = 16 * 1024
"""The most plaintext in one TLS record (RFC 8446, 5.1)."""

_RECEIVE_BYTES = 256 * 1024
"""One receive, 16 records. More costs no less, and each connection has a buffer of this size."""

_SEND_BYTES = 256 * 1024

_RECORD_SECONDS = 256.0
"""Longest time for a whole record: it takes that long at 64 bytes a second, the slowest pace that
counts as moving.
"""


class TlsStream:
    """The sending and receiving side of one connection. Belongs to one thread at a time.

    The caller keeps the socket: it sets its timeout, which must not be 0, and closes it. With
    ``SO_RCVLOWAT`` set, at least that and ``slack_bytes`` must still be expected.
    """

    slack_bytes = 2 * RECORD_BYTES
    """Bytes that may have been received and not be decrypted yet: part of a record."""

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        hostname: str,
        ends_at: float = math.inf,
    ) -> None:
        """Shake hands, until the monotonic time ``ends_at``.

        Raises:
            ssl.SSLError: the peer's certificate or protocol is not accepted.
            OSError: the connection broke or timed out.
        """
        self._sock = sock
        self.ends_at = ends_at
        """The monotonic time at which any wait is over."""
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        self._raw = memoryview(bytearray(RECORD_BYTES))
        self._reader: OpenSslReader | None = None
        self._is_dry = False
        """The last call returned everything that was received."""
        self._shake_hands()
        if not self._incoming.pending:
            self._reader = open_reader(self._tls, context, sock.fileno())
        if self._reader is None:
            self._raw = memoryview(bytearray(_RECEIVE_BYTES))

    def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._bring()
                self._check_time()
            except ssl.SSLError:
                # The alert tells the peer why.
                self._flush()
                raise
            else:
                self._flush()
                return

    def recv_into(self, view: memoryview, record_seconds: float | None = None) -> int:
        """Receive at least one byte into ``view``, and all that has arrived; 0 if the peer has
        closed.

        Raises:
            TimeoutError: nothing came for the socket's timeout, or less than a record for
                ``record_seconds`` (None: as long as a slow line needs) or until ``ends_at``.
            ssl.SSLError: the received bytes are not those that the peer sent.
            OSError: the connection broke.
        """
        deadline: float | None = None
        while True:
            if not self._is_dry:
                with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
                    count = self._decrypt(view)
                    is_short = 0 < count < len(view) > BUFFER_BYTES
                    self._is_dry = is_short and not (self._reader and self._reader.has_failed)
                    return count
            now = time.monotonic()
            deadline = deadline or min(now + (record_seconds or _RECORD_SECONDS), self.ends_at)
            if now > deadline:
                raise TimeoutError("bytes only dripped in")
            self._flush()  # TLS sends messages of its own, when keys change
            self._bring()
            self._is_dry = False

    def try_recv_into(self, view: memoryview) -> int | None:
        """As :meth:`recv_into`, without waiting; None if no byte can be had now."""
        self._is_dry = False
        while True:
            with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
                return self._decrypt(view)
            if self._outgoing.pending:
                self._flush()
            if self._reader is not None or not self._take_arrived():
                return None

    def sealed(self, data: bytes) -> bytes:
        """``data`` as it goes over the socket; the caller sends all of that, or closes.

        Raises:
            OSError: the connection broke.
        """
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
        return self._outgoing.read()

    def sendall(self, data: bytes | memoryview) -> None:
        """Send all of ``data``.

        Raises:
            TimeoutError: nothing could be sent for the socket's timeout.
            OSError: the connection broke.
        """
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            try:
                done += self._tls.write(view[done : done + _SEND_BYTES])
            except ssl.SSLWantReadError:
                self._flush()
                self._bring()
                self._check_time()
            else:
                self._flush()

    def _check_time(self) -> None:
        if time.monotonic() > self.ends_at:
            raise TimeoutError("bytes only dripped")

    def _decrypt(self, view: memoryview) -> int:
        if self._reader is not None:
            return self._reader.read_into(view)
        got = 0
        try:
            while got < len(view):
                count = int(self._tls.read(len(view) - got, view[got:]))
                if not count:
                    break
                got += count
        except ssl.SSLWantReadError:
            if not got:
                raise
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            pass  # the next call raises it, after any bytes received before
        return got

    def _bring(self) -> None:
        """Wait for bytes, and pass them to TLS unless it reads the socket itself."""
        if self._reader is not None:
            self._wait()
            return
        if not self._take_arrived():
            self._wait()
            self._take_arrived()

    def _take_arrived(self) -> bool:
        """Pass to TLS what has arrived; False if that is nothing."""
        try:
            count = os.readv(self._sock.fileno(), [self._raw])
        except BlockingIOError:
            return False
        if count:
            self._incoming.write(self._raw[:count])
        else:
            self._incoming.write_eof()
        return True

    def _wait(self) -> None:
        timeout = self._sock.gettimeout()
        if self._poller.poll(None if timeout is None else timeout * 1000):
            return
        queued = array("i", [0])
        fcntl.ioctl(self._sock, termios.FIONREAD, queued)
        if not queued[0]:  # not even less than the low-water mark
            raise TimeoutError("no byte came")

    def _flush(self) -> None:
        view = memoryview(self._outgoing.read())
        while view:
            # Unlike the timeout of sendall, this one limits silence.
            view = view[self._sock.send(view) :]
            if view:
                self._check_time()

"""The way to pyfuse3 and back, for requests that the lane does not answer itself."""

import socket
from collections import deque
from collections.abc import Callable

import trio

_MIB = 1024**2
_ANSWER_BYTES = 128 * 1024
"""Longer than any answer of pyfuse3: requests with long answers are answered here."""
_SOCKET_BYTES = 8 * _MIB
_BYTES_AN_ANSWER = 2048
"""Space in a socket's buffer for the longest answer of pyfuse3 (an entry, 144 bytes), generously:
the kernel counts about 800.
"""
_MOST_PASSED_ON = 1024
"""Requests that pyfuse3 works on at once; each of its tasks waits for one."""


class Relay:
    """The connection to pyfuse3 and back. Belongs to the trio thread.

    libfuse writes its answers blocking and with the lock held, so that no other thread could read
    them then. So the number of requests in progress is limited to the answers that fit into the
    socket.
    """

    def __init__(self, end: socket.socket, answered: Callable[[memoryview], None]) -> None:
        """``answered`` gets each answer, which is valid until it returns."""
        self._socket = end
        self._answered = answered
        self._answer = memoryview(bytearray(_ANSWER_BYTES))
        self._under_way = 0
        self._waiting: deque[bytes] = deque()
        room = end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self._most = max(1, min(_MOST_PASSED_ON, room // _BYTES_AN_ANSWER))

    def pass_on(self, request: bytes) -> None:
        """Let pyfuse3 answer the request in its turn."""
        self._waiting.append(request)
        self._send_on()

    async def run(self) -> None:
        """Read answers, until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            self.drain()

    def drain(self) -> None:
        """Read the answers that are there."""
        while True:
            try:
                size = self._socket.recv_into(self._answer)
            except BlockingIOError:
                break
            if not size:
                break
            self._under_way -= 1
            self._answered(self._answer[:size])
        self._send_on()

    def _send_on(self) -> None:
        while self._waiting and self._under_way < self._most:
            try:
                self._socket.send(self._waiting[0])
            except BlockingIOError:
                return  # an answer will make room
            self._waiting.popleft()
            self._under_way += 1


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Our end and libfuse's end of the connection to pyfuse3, with the largest allowed buffers."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        try:
            end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SOCKET_BYTES)
        except PermissionError:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
    ours.setblocking(False)
    return ours, theirs


_SO_SNDBUFFORCE = 32
"""asm-generic/socket.h; Python does not name it."""

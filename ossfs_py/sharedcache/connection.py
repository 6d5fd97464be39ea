"""One connection to a memcached: its meta commands, with values received where they are wanted.

A value's line and head come through a small buffer; the bytes behind them go into the reader's own
memory, by one or two system calls a block and without the interpreter's lock (``MSG_WAITALL``).
Limits of time are the socket's own, which costs no poll beside each call.
"""

import socket
import struct
import time
from collections.abc import Sequence
from enum import Enum, auto

_BUFFER_BYTES = 512
_MAX_LINE_BYTES = 250
"""Of an answer with the flags that are asked for: "VA 1048604 W" and the like. Of errors, the
beginning is enough."""
_MAX_VALUE_BYTES = 16 * 1024**2
"""More than any value of ours; what is smaller and foreign is passed over."""
_VALUE_SECONDS = 2.0
"""Most time that one value may take, however steadily it comes: 1 MiB at 0.5 MB/s is worse than
any bucket."""
_MAX_STATS_BYTES = 64 * 1024


class NodeFaultError(Exception):
    """A node does not do what it should. ``reason``: down, slow or foreign."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Found(Enum):
    """A node's answer to a request for a value."""

    VALUE = auto()
    WON = auto()
    """It has none, and whoever asked is to fetch it."""
    LOST = auto()
    """It has none, and somebody else fetches it."""
    NOTHING = auto()


class Stored(Enum):
    """The outcome of storing a value."""

    KEPT = auto()
    TOO_LARGE = auto()
    NO_MEMORY = auto()


def connect_node(address: tuple[str, int], seconds: float) -> "NodeConnection":
    """Connect to a node, which may be silent for ``seconds`` each time.

    Raises:
        NodeFaultError: nobody answers there.
    """
    try:
        sock = socket.create_connection(address, seconds)
    except OSError as exc:
        reason = "slow" if isinstance(exc, TimeoutError) else "down"
        raise NodeFaultError(reason, f"cannot connect: {exc}") from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return NodeConnection(sock, seconds)


class NodeConnection:
    """Belongs to one thread at a time. After a :class:`NodeFaultError` it is only good to close."""

    def __init__(self, sock: socket.socket, patience_seconds: float) -> None:
        self._sock = sock
        self._sock.settimeout(None)
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._start = self._end = 0
        self._patience_seconds = 0.0
        self.be_patient(patience_seconds)
        self.used_at = time.monotonic()
        """When it was last given back."""

    def be_patient(self, seconds: float) -> None:
        """The peer may be silent for this long."""
        if 0.5 * seconds < self._patience_seconds <= seconds:
            return  # near enough for no system call
        self._patience_seconds = seconds
        whole = int(seconds)
        limit = struct.pack("@ll", whole, int((seconds - whole) * 1e6))
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def close(self) -> None:
        """Let go of the socket."""
        self._sock.close()

    # -- values -------------------------------------------------------------------------------

    def ask(self, keys: Sequence[bytes], *, lease_seconds: int) -> None:
        """Send questions; :meth:`found` has their answers, in order. Of a missing value, the first
        who asks is told so, and all others, for ``lease_seconds``, that somebody fetches it. With 0
        nobody is told anything.
        """
        flags = b" v N%d\r\n" % lease_seconds if lease_seconds else b" v\r\n"
        self._send([b"".join(b"mg " + key + flags for key in keys)])

    def found(self) -> tuple[Found, int]:
        """The beginning of the next answer, and the bytes of its value: :meth:`fill` or
        :meth:`drain` them all, then :meth:`end_value`.
        """
        words = self._line().split()
        if words[:1] == [b"EN"]:
            return Found.NOTHING, 0
        if words[:1] != [b"VA"] or len(words) < 2 or not words[1].isdigit():
            raise NodeFaultError("foreign", "it does not speak memcached's meta protocol")
        size = int(words[1])
        if size > _MAX_VALUE_BYTES:
            raise NodeFaultError("foreign", f"a value of {size} bytes")
        if size:
            return Found.VALUE, size
        self.end_value()
        return (Found.WON if b"W" in words[2:] else Found.LOST), 0

    def look(self, keys: Sequence[bytes], *, lease_seconds: int) -> None:
        """As :meth:`ask`, but values stay where they are: :meth:`seen` has the answers."""
        flags = b" s N%d\r\n" % lease_seconds if lease_seconds else b" s\r\n"
        self._send([b"".join(b"mg " + key + flags for key in keys)])

    def seen(self) -> Found:
        """The next answer to :meth:`look`."""
        words = self._line().split()
        if words == [b"EN"]:
            return Found.NOTHING
        if words[:1] != [b"HD"] or len(words) < 2 or not words[1].startswith(b"s"):
            raise NodeFaultError("foreign", "it does not speak memcached's meta protocol")
        if words[1] != b"s0":
            return Found.VALUE
        return Found.WON if b"W" in words[2:] else Found.LOST

    def fill(self, view: memoryview) -> None:
        """Receive the next bytes of a value into ``view``."""
        ready = min(self._end - self._start, len(view))
        if ready:
            view[:ready] = self._buffer[self._start : self._start + ready]
            self._start += ready
        deadline = time.monotonic() + _VALUE_SECONDS
        while ready < len(view):
            ready += self._receive(view[ready:], socket.MSG_WAITALL)
            if ready < len(view) and time.monotonic() > deadline:
                raise NodeFaultError("slow", "a value only drips in")

    def drain(self, size: int) -> None:
        """Pass over the bytes of a value that is not what was expected."""
        scratch = memoryview(bytearray(min(size, 65536)))
        while size:
            count = min(size, len(scratch))
            self.fill(scratch[:count])
            size -= count

    def end_value(self) -> None:
        """The end of a value's bytes."""
        if self._line():
            raise NodeFaultError("foreign", "a value is longer than it said")

    def store(self, key: bytes, parts: Sequence[bytes | memoryview]) -> Stored:
        """Send a value and wait for what becomes of it."""
        size = sum(len(part) for part in parts)
        self._send([b"ms %b %d\r\n" % (key, size), *parts, b"\r\n"])
        line = self._line()
        if line.startswith(b"HD"):
            return Stored.KEPT
        if line.startswith(b"SERVER_ERROR object too large"):
            return Stored.TOO_LARGE
        if line.startswith((b"SERVER_ERROR out of memory", b"NS")):
            return Stored.NO_MEMORY
        raise NodeFaultError("foreign", "it does not take values")

    def delete(self, keys: Sequence[bytes]) -> None:
        """Remove values, or the leases of values that will not come."""
        self._send([b"".join(b"md " + key + b"\r\n" for key in keys)])
        for _ in keys:
            if not self._line().startswith((b"HD", b"NF")):
                raise NodeFaultError("foreign", "it does not delete")

    # -- the node itself ----------------------------------------------------------------------

    def settings(self, group: bytes = b"settings") -> dict[str, str]:
        """The answer to ``stats settings``, or another group of statistics ("" for the main one).

        Raises:
            NodeFaultError: it is not memcached, or does not answer.
        """
        self._send([(b"stats " + group).rstrip() + b"\r\n"])
        told: dict[str, str] = {}
        size = 0
        while (line := self._line()) != b"END":
            size += len(line)
            words = line.decode("ascii", "replace").split(" ", 2)
            if words[0] != "STAT" or len(words) < 2 or size > _MAX_STATS_BYTES:
                raise NodeFaultError("foreign", "it is not memcached")
            told[words[1]] = words[2] if len(words) > 2 else ""
        return told

    # -- bytes --------------------------------------------------------------------------------

    def _send(self, parts: Sequence[bytes | memoryview]) -> None:
        left = [memoryview(part) for part in parts if len(part)]
        try:
            while left:
                sent = self._sock.sendmsg(left)
                while left and sent >= len(left[0]):
                    sent -= len(left.pop(0))
                if left:
                    left[0] = left[0][sent:]
        except BlockingIOError:
            raise NodeFaultError("slow", "it takes no bytes") from None
        except OSError as exc:
            raise NodeFaultError("down", str(exc)) from None

    def _line(self) -> bytes:
        while True:
            ready = bytes(self._buffer[self._start : self._end])
            end = ready.find(b"\r\n")
            if 0 <= end <= _MAX_LINE_BYTES:
                self._start += end + 2
                return ready[:end]
            if len(ready) > _MAX_LINE_BYTES:
                raise NodeFaultError("foreign", "a line without an end")
            self._buffer[: len(ready)] = ready
            self._start, self._end = 0, len(ready)
            self._end += self._receive(self._buffer[self._end :], 0)

    def _receive(self, view: memoryview, flags: int) -> int:
        try:
            count = self._sock.recv_into(view, 0, flags)
        except BlockingIOError:
            raise NodeFaultError("slow", "no answer in time") from None
        except OSError as exc:
            raise NodeFaultError("down", str(exc)) from None
        if not count:
            raise NodeFaultError("down", "it closed the connection")
        return count

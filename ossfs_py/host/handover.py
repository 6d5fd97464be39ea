"""How a daemon that serves and the one that takes the mount over from it speak with each other.

    old -> new   its process id, and the settings that must be the same
    new -> old   that it is ready, or why it cannot be; or what Python said when it died
    old          ends, which is the word to go on; or says that it stays

Whatever happens to the old one, its end is what makes the new one go on, and nothing else does:
its end, or that only threads are left of it which wait for the new one (``remains.py``).
"""

import json
import os
import select
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from ossfs_py.errors import EnvironmentProblemError, UserError
from ossfs_py.host.remains import LOOK_SECONDS, Remains

_READY: Final = b"\0ready "
_CANNOT: Final = b"\0cannot "
_STAYS: Final = b"stays"
_PACKET_BYTES = 128 * 1024


class ReadyDaemon(NamedTuple):
    """The daemon that has said that it can go on."""

    pid: int
    version: str


class Successor:
    """The daemon that is to go on, as the one that serves sees it."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        """``settings``: what both must have."""
        self._channel, self.its_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._said = b""
        told = {"pid": os.getpid(), "settings": dict(settings)}
        self._channel.send(json.dumps(told).encode())
        self._channel.setblocking(False)

    def fileno(self) -> int:
        """The descriptor that becomes readable when the other daemon sends something, or ends."""
        return self._channel.fileno()

    def answer(self) -> ReadyDaemon | None:
        """The message of the other daemon, if there is one; does not wait.

        Raises:
            EnvironmentProblemError: why it cannot go on.
        """
        with suppress(BlockingIOError):
            while packet := _received_from(self._channel):
                if packet.startswith(_READY):
                    return ReadyDaemon(**json.loads(packet.removeprefix(_READY)))
                if packet.startswith(_CANNOT):
                    raise EnvironmentProblemError(packet.removeprefix(_CANNOT).decode())
                self._said += packet
            raise EnvironmentProblemError(self._last_words())
        return None

    def _last_words(self) -> str:
        """The last line of what Python says when it ends of an error."""
        lines = self._said.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "the new program ended without a word"

    def send_away(self) -> None:
        """It is not to go on, whatever it does."""
        with suppress(OSError):
            self._channel.send(_STAYS)
        self._channel.close()


class Predecessor:
    """The daemon that serves, as the one that is to go on sees it."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._is_told = False
        self.serves = True
        """Whether the mount is its own."""
        told = json.loads(channel.recv(_PACKET_BYTES))
        self.settings: dict[str, str] = told["settings"]
        """Settings of the other daemon, which must be the same here."""
        self._pid: int = told["pid"]
        self._process: int | None = None
        with suppress(ProcessLookupError):
            self._process = os.pidfd_open(self._pid)

    @contextmanager
    def hears_failures(self) -> Iterator[None]:
        """It is told of whatever goes wrong in the block.

        Raises:
            UserError: the same, as long as the other daemon serves.
        """
        try:
            yield
        except Exception as exc:
            self._tell(_CANNOT + _sentence(exc).encode())
            if not self.serves or isinstance(exc, UserError):
                raise
            raise EnvironmentProblemError(_sentence(exc)) from exc

    def wait_gone(self, version: str) -> None:
        """Say that this daemon, of ``version``, can go on; return when the other one has ended, or
        ends only when this one answers the kernel.

        Raises:
            EnvironmentProblemError: the other one stays.
        """
        self._tell(_READY + json.dumps({"pid": os.getpid(), "version": version}).encode())
        self._is_told = True
        if self._process is not None:
            self._wait(self._process)
            os.close(self._process)
        self._channel.close()
        self.serves = False

    def _wait(self, process: int) -> None:
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.register(self._channel, select.POLLIN)
        remains, is_gone = Remains(), False
        while not is_gone:
            ready = dict(poll.poll(LOOK_SECONDS * 1000))
            # It may have sent us away and died at once: what it said holds.
            if self._channel.fileno() in ready:
                if _received_from(self._channel):
                    raise EnvironmentProblemError("the daemon that was to hand over goes on itself")
                # Its sockets are closed before it is gone.
                poll.unregister(self._channel)
            is_gone = process in ready or (not ready and remains.let_go(self._pid))

    def _tell(self, word: bytes) -> None:
        if not self._is_told:
            with suppress(OSError):
                self._channel.send(word[:_PACKET_BYTES])


def _received_from(channel: socket.socket) -> bytes:
    """The next packet; nothing when the other side has ended."""
    try:
        return channel.recv(_PACKET_BYTES)
    except ConnectionResetError:
        # Told once where the other side has not read everything; what it said comes after it.
        return channel.recv(_PACKET_BYTES)


def _sentence(exc: Exception) -> str:
    text = "; ".join(str(exc).splitlines())
    return text if isinstance(exc, UserError) else f"{type(exc).__name__}: {text}"

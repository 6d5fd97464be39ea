"""A service manager of our own: the receiving end of sd_notify(3)."""

import socket
import time
from pathlib import Path
from typing import Self

PATIENCE_SECONDS = 60.0


class ServiceManager:
    """Listens at a socket like systemd does. ``said`` has every variable told so far, in order."""

    def __init__(self, work: Path, watchdog_seconds: float | None = None) -> None:
        self._path = work / "notify.sock"
        self._watchdog_seconds = watchdog_seconds
        self.said: list[tuple[str, str]] = []

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._path))
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def environment(self) -> dict[str, str]:
        """What the manager gives to the service."""
        given = {"NOTIFY_SOCKET": str(self._path)}
        if self._watchdog_seconds is not None:
            given["WATCHDOG_USEC"] = str(int(self._watchdog_seconds * 1e6))
        return given

    def next(self, timeout_seconds: float = PATIENCE_SECONDS) -> dict[str, str]:
        """The next message.

        Raises:
            TimeoutError: none comes.
        """
        self._socket.settimeout(timeout_seconds)
        lines = self._socket.recv(65536).decode().splitlines()
        told = [tuple(line.split("=", 1)) for line in lines]
        self.said += told  # type: ignore[arg-type]
        return dict(told)  # type: ignore[arg-type]

    def wait_for(self, name: str, part: str = "") -> str:
        """The value of the next ``name`` that contains ``part``."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            message = self.next(left)
            if part in message.get(name, "\0"):
                return message[name]
        raise TimeoutError(f"no {name}={part}: {self.said}")

    def forget(self) -> None:
        """Drop what has been sent and not been looked at."""
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(65536)
        except BlockingIOError:
            self.said.clear()

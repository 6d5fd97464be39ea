"""Notifications to the service manager: systemd's protocol, sd_notify(3).

A datagram of ``NAME=value`` lines to the socket that the manager has named in the environment.
Forty lines, so no library: the one on PyPI has had no release since 2017.
"""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Mapping

log = logging.getLogger(__name__)


class Notifier:
    """Tells the service manager how this process is doing; silent where there is none.

    Nothing here blocks or raises: a manager that does not listen must not disturb the mount.
    """

    def __init__(self, address: str | None = None, watchdog_seconds: float | None = None) -> None:
        """``address`` is the path of the manager's socket, ``@name`` for an abstract one.

        ``watchdog_seconds`` is after how long a silence the manager takes this process for hung.
        """
        self.watchdog_seconds = watchdog_seconds
        self._address = address
        self._socket: socket.socket | None = None
        if address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Notifier":
        """The manager that has started this very process, if one has."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls()
        return cls(address, _watchdog_seconds(environ))

    @property
    def listening(self) -> bool:
        """Whether there is a service manager at all."""
        return self._socket is not None

    def ready(self, status: str) -> None:
        """The service does what it is there for."""
        self._tell(READY="1", STATUS=status)

    def status(self, text: str) -> None:
        """One line for people (``systemctl status``)."""
        self._tell(STATUS=text)

    def alive(self) -> None:
        """Reset the watchdog."""
        if self.watchdog_seconds is not None:
            self._tell(WATCHDOG="1")

    def reloading(self) -> None:
        """Settings are being read again; :meth:`ready` says when that is done."""
        self._tell(RELOADING="1", MONOTONIC_USEC=str(time.monotonic_ns() // 1000))

    def stopping(self, status: str) -> None:
        """The service has begun to end."""
        self._tell(STOPPING="1", STATUS=status)

    def extend_timeout(self, seconds: float) -> None:
        """Ask for more time: another word comes within ``seconds``."""
        self._tell(EXTEND_TIMEOUT_USEC=str(int(seconds * 1e6)))

    def close(self) -> None:
        """Say no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, **variables: str) -> None:
        if self._socket is None or self._address is None:
            return
        # A line break would begin another variable.
        lines = [f"{name}={' '.join(value.splitlines())}" for name, value in variables.items()]
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            self._socket.sendto(os.fsencode("\n".join(lines)), address)
        except OSError as exc:
            log.debug("cannot notify the service manager of %s: %s", lines[0], exc)


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """How long the manager waits for a sign of life; None if it does not watch this process."""
    with contextlib.suppress(ValueError):
        pid = int(environ.get("WATCHDOG_PID", os.getpid()))
        microseconds = int(environ.get("WATCHDOG_USEC", "0"))
        if pid == os.getpid() and microseconds > 0:
            return microseconds / 1e6
    return None

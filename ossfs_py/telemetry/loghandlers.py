"""The destinations of log lines: files that rotate, standard error, systemd's journal.

No handler disturbs the mount with its own errors: lines that cannot be written are counted, and the
next line that can be written reports the count.
"""

import io
import logging
import logging.handlers
import os
import socket
import sys
from pathlib import Path

from ossfs_py.host.logfiles import open_for_appending
from ossfs_py.telemetry.logformat import carried

_OLD_FILES = 3
_JOURNAL = Path("/run/systemd/journal/socket")
_MAX_JOURNAL_BYTES = 128 * 1024
"""Below the usual limit of a datagram (net.core.wmem_default); longer texts are cut."""
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))
"""syslog(3): err, warning, info, debug."""


class _Patient(logging.Handler):
    """Counts the records it loses instead of printing tracebacks."""

    lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        lost = self.lost
        try:
            super().emit(record)
        except OSError:
            # WatchedFileHandler opens a file that was moved away before its own precautions.
            self.handleError(record)
        if lost and lost == self.lost:
            self.lost = 0
            text = f"{lost} messages before this one could not be written"
            super().emit(logging.LogRecord(__name__, logging.WARNING, "", 0, text, None, None))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 (logging's)
        self.lost += 1


class StreamHandler(_Patient, logging.StreamHandler):  # type: ignore[type-arg]
    """Standard error."""


class _Careful(logging.FileHandler):
    """Opens its file, each time, as :func:`open_for_appending` does."""

    def _open(self) -> io.TextIOWrapper:
        fd = open_for_appending(Path(self.baseFilename))
        return io.TextIOWrapper(os.fdopen(fd, "ab"), self.encoding)


class LogFile(_Careful, _Patient, logging.handlers.WatchedFileHandler):
    """A file that another program rotates: it is opened again after it was moved away."""

    def reopen(self) -> None:
        """Look whether it was moved away."""
        self.acquire()
        try:
            self.reopenIfNeeded()
        finally:
            self.release()


class RotatingLogFile(_Careful, _Patient, logging.handlers.RotatingFileHandler):
    """A file that bounds itself; ``NAME.1`` is the newest of three old ones."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        super().__init__(path, maxBytes=size_bytes, backupCount=_OLD_FILES, encoding="utf-8")

    def reopen(self) -> None:
        """Open the file again if another program has moved it."""
        self.acquire()
        try:
            self.close()
            self.stream = self._open()
        finally:
            self.release()


def log_file(path: Path, size_bytes: int | None) -> LogFile | RotatingLogFile:
    """A log file, opened.

    Raises:
        OSError: it cannot be written.
    """
    if size_bytes is None:
        return LogFile(path, encoding="utf-8")
    return RotatingLogFile(path, size_bytes)


def standard_error() -> StreamHandler:
    """Standard error as it is now."""
    return StreamHandler(sys.stderr)


class _Journal(logging.Handler):
    """The native protocol: a datagram of fields, each a name, a line break, the length of the
    value as 64 bits, little endian, the value and a line break."""

    def __init__(self, path: Path | None = None) -> None:
        """Raises OSError: no journal listens."""
        super().__init__()
        path = path or _JOURNAL
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise

    def emit(self, record: logging.LogRecord) -> None:
        """Send one entry."""
        self._socket.send(self._entry(record))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()

    def _entry(self, record: logging.LogRecord) -> bytes:
        priority = next(number for level, number in _PRIORITIES if record.levelno >= level)
        fields = {
            "MESSAGE": self.format(record),
            "PRIORITY": str(priority),
            "SYSLOG_IDENTIFIER": "ossfs-py",
            "SYSLOG_PID": str(os.getpid()),
            "OSSFS_LOGGER": record.name,
            **{f"OSSFS_{name.upper()}": str(value) for name, value in carried(record)},
        }
        return b"".join(_field(name, value) for name, value in fields.items())


class JournalHandler(_Patient, _Journal):
    """systemd's journal; ``journalctl OSSFS_KEY=...`` finds what is about a key."""


def _field(name: str, text: str) -> bytes:
    value = text.encode("utf-8", "replace")[:_MAX_JOURNAL_BYTES]
    return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"

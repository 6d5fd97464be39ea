"""Where log lines go and what must never be in them."""

import logging
import logging.handlers
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from stat import S_ISSOCK

from ossfs_py.config import Settings
from ossfs_py.directories import prepare_state_directory
from ossfs_py.errors import EnvironmentProblemError

_SYSLOG_SOCKET = Path("/dev/log")
_OWN_LOG_BYTES = 10 * 1024**2
_OWN_LOG_FILES = 3
"""The log in the state directory has no logrotate to watch it, so it bounds itself."""
_REDACTED = "[redacted]"
_MIN_SECRET_LENGTH = 6
"""Shorter values would blank ordinary words; no store issues such short secrets."""

_SECRETS = re.compile(
    r"""(
        X-Amz-(?:Signature|Credential|Security-Token)=
      | (?:OSSAccessKeyId|Signature|security-token)=
      | Signature=
      | "?(?:x-amz-security-token|x-oss-security-token)"?\s*[:=]\s*["']?
      | "?(?:aws_)?(?:secret_?access_?key|session_?token)"?\s*[:=>]\s*["']?
      | ["']?Authorization["']?\s*[:=]\s*["']?(?:AWS4-HMAC-SHA256\s|AWS\s|OSS\s|Bearer\s)?
    )[^\s&"',;]+""",
    re.IGNORECASE | re.VERBOSE,
)

# Libraries whose debug output holds headers and signatures, or is too much to be of use.
_QUIET_LIBRARIES = ("boto3", "botocore", "urllib3", "s3transfer", "asyncio")


class RedactingFormatter(logging.Formatter):
    """Formats a record, traceback included, and blanks what is secret in the result."""

    def __init__(self, layout: str) -> None:
        super().__init__(layout)
        self._known: re.Pattern[str] | None = None
        self._values: set[str] = set()

    def add_secrets(self, values: Iterable[str]) -> None:
        """Blank these values wherever they show up."""
        self._values.update(value for value in values if len(value) >= _MIN_SECRET_LENGTH)
        if self._values:
            self._known = re.compile("|".join(map(re.escape, sorted(self._values, key=len)[::-1])))

    def format(self, record: logging.LogRecord) -> str:
        text = _SECRETS.sub(rf"\1{_REDACTED}", super().format(record))
        return self._known.sub(_REDACTED, text) if self._known else text


class Logs:
    """The log of one mount. Owns the root logger's handler until :meth:`close`."""

    def __init__(self, handler: logging.Handler, formatter: RedactingFormatter, level: str) -> None:
        self._handler = handler
        self._formatter = formatter
        self._root = logging.getLogger()
        handler.setFormatter(formatter)
        self._root.addHandler(handler)
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """Show messages of ``level`` (debug, info, warning, error) and above."""
        self._root.setLevel(level.upper())
        for name in _QUIET_LIBRARIES:
            logging.getLogger(name).setLevel(max(self._root.level, logging.WARNING))

    def add_secrets(self, values: Iterable[str]) -> None:
        """Blank these values wherever they show up."""
        self._formatter.add_secrets(values)

    def reopen(self) -> None:
        """Open the log file anew, after logrotate has moved it away."""
        if isinstance(self._handler, logging.handlers.WatchedFileHandler):
            self._handler.reopenIfNeeded()

    def close(self) -> None:
        """Write out and close."""
        self._root.removeHandler(self._handler)
        self._handler.close()


def open_logs(settings: Settings) -> Logs:
    """The log that the settings ask for.

    ``--log-file`` wins; otherwise standard error in the foreground, and in the background
    syslog or, where none runs, ``ossfs-py.log`` in the state directory.

    Raises:
        EnvironmentProblemError: the log file cannot be written.
    """
    stamped = RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    if settings.log_file is not None:
        handler = _file_handler(settings.log_file)
        return Logs(handler, stamped, settings.log_level)
    if settings.foreground:
        return Logs(logging.StreamHandler(sys.stderr), stamped, settings.log_level)
    if _is_socket(_SYSLOG_SOCKET):
        syslog = logging.handlers.SysLogHandler(str(_SYSLOG_SOCKET), facility="daemon")
        plain = RedactingFormatter("ossfs-py[%(process)d]: %(levelname)s %(name)s: %(message)s")
        return Logs(syslog, plain, settings.log_level)
    prepare_state_directory(settings)
    own = settings.state_dir / "ossfs-py.log"
    return Logs(_own_handler(own), stamped, settings.log_level)


def _file_handler(path: Path) -> logging.Handler:
    try:
        return logging.handlers.WatchedFileHandler(path, encoding="utf-8")
    except OSError as exc:
        raise EnvironmentProblemError(f"cannot write the log file {path}: {exc.strerror}") from exc


def _own_handler(path: Path) -> logging.Handler:
    try:
        return logging.handlers.RotatingFileHandler(
            path, maxBytes=_OWN_LOG_BYTES, backupCount=_OWN_LOG_FILES, encoding="utf-8"
        )
    except OSError as exc:
        raise EnvironmentProblemError(
            f"there is no syslog here and {path} cannot be written ({exc.strerror});"
            " name a --log-file"
        ) from exc


def _is_socket(path: Path) -> bool:
    try:
        return S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False

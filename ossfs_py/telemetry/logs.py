"""The log of one mount: where it goes, which messages are shown."""

import logging
import logging.handlers
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISSOCK

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.host.directories import OwnDirectory, prepare_own
from ossfs_py.telemetry.accesslog import AccessLog
from ossfs_py.telemetry.logformat import ErrorFields, JsonFormatter, Redactor, TextFormatter
from ossfs_py.telemetry.loghandlers import (
    JournalHandler,
    LogFile,
    RotatingLogFile,
    log_file,
    standard_error,
)
from ossfs_py.telemetry.loglevels import AREAS, LogLevels

_PACKAGE = __name__.partition(".")[0]
_SYSLOG_SOCKET = Path("/dev/log")
_OWN_LOG_BYTES = 10 * 1024**2
"""The log in the state directory has no logrotate to watch it, so it bounds itself."""

_STAMPED = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_UNSTAMPED = "%(levelname)s %(name)s: %(message)s"
"""For the journal and syslog, which stamp lines themselves."""

# Libraries whose debug output holds headers and signatures, or is too much to be of use.
_QUIET_LIBRARIES = ("boto3", "botocore", "urllib3", "s3transfer", "asyncio")


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Destination, format and levels of the log of a mount.

    ``file`` and ``access_log`` begin anew at ``file_size_bytes``, if that is given. A mount in the
    background without a ``file`` may have to write to ``state_dir``.
    """

    levels: LogLevels
    is_json: bool
    file: Path | None
    file_size_bytes: int | None
    access_log: Path | None
    foreground: bool
    state_dir: OwnDirectory


class Logs:
    """The log of one mount. Owns the root logger's handler until :meth:`close`."""

    def __init__(
        self,
        handler: logging.Handler,
        redactor: Redactor,
        levels: LogLevels,
        access: AccessLog | None = None,
    ) -> None:
        """``handler`` has its formatter, which uses ``redactor``."""
        self.access = access
        """Calls of programs are written there, too."""
        self._handler = handler
        self._redactor = redactor
        self._root = logging.getLogger()
        self._root.addHandler(handler)
        self.levels = levels
        self.set_levels(levels)

    def set_levels(self, levels: LogLevels) -> None:
        """Show these messages from now on."""
        self.levels = levels
        self._root.setLevel(levels.default.upper())
        for name in _QUIET_LIBRARIES:
            logging.getLogger(name).setLevel(max(self._root.level, logging.WARNING))
        for area, modules in AREAS.items():
            level = levels.areas.get(area)
            for module in modules:
                logger = logging.getLogger(f"{_PACKAGE}.{module}")
                logger.setLevel(level.upper() if level else logging.NOTSET)

    def add_secrets(self, values: Iterable[str]) -> None:
        """Blank these values wherever they show up."""
        self._redactor.add(values)

    def reopen(self) -> None:
        """Open the log files again, after logrotate has moved them away."""
        if isinstance(self._handler, LogFile | RotatingLogFile):
            self._handler.reopen()
        if self.access is not None:
            self.access.reopen()

    def close(self) -> None:
        """Write out and close."""
        self._root.removeHandler(self._handler)
        self._handler.close()
        if self.access is not None:
            self.access.close()


def open_logs(options: LogOptions, *, in_journal: bool = False) -> Logs:
    """The log that the options ask for.

    ``--log-file`` wins; otherwise standard error in the foreground (``in_journal``: it leads to
    systemd's journal), and in the background syslog or, where none runs, ``ossfs-py.log`` in the
    state directory.

    Raises:
        EnvironmentProblemError: a log file cannot be written.
    """
    redactor = Redactor()
    handler, layout = _handler(options, in_journal=in_journal)
    handler.addFilter(ErrorFields())
    if options.is_json:
        handler.setFormatter(JsonFormatter(redactor))
    else:
        handler.setFormatter(TextFormatter(layout, redactor))
    access = None
    if options.access_log is not None:
        try:
            access = AccessLog(options.access_log, options.file_size_bytes)
        except EnvironmentProblemError:
            handler.close()
            raise
    return Logs(handler, redactor, options.levels, access)


def _handler(options: LogOptions, *, in_journal: bool) -> tuple[logging.Handler, str]:
    """The handler, and the layout of its lines of text."""
    if options.file is not None:
        return _open_file(options.file, options.file_size_bytes), _STAMPED
    if options.foreground:
        journal = _journal() if in_journal and not options.is_json else None
        return (journal, _UNSTAMPED) if journal else (standard_error(), _STAMPED)
    if _is_socket(_SYSLOG_SOCKET):
        syslog = logging.handlers.SysLogHandler(str(_SYSLOG_SOCKET), facility="daemon")
        syslog.ident = f"ossfs-py[{os.getpid()}]: "
        return syslog, _UNSTAMPED
    prepare_own(options.state_dir)
    own = options.state_dir.path / "ossfs-py.log"
    return _own_log(own, options.file_size_bytes or _OWN_LOG_BYTES), _STAMPED


def _journal() -> logging.Handler | None:
    try:
        return JournalHandler()
    except OSError:
        # In a container the socket may not be there though standard error is the journal's.
        return None


def _open_file(path: Path, size_bytes: int | None) -> logging.Handler:
    try:
        return log_file(path, size_bytes)
    except OSError as exc:
        raise EnvironmentProblemError(f"cannot write the log file {path}: {exc.strerror}") from exc


def _own_log(path: Path, size_bytes: int) -> logging.Handler:
    try:
        return log_file(path, size_bytes)
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

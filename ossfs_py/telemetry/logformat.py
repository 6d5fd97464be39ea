"""How a log record becomes a line, and what must never be in one."""

import json
import logging
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from ossfs_py.errors import StoreError

FIELDS = ("operation", "path", "key", "request_id", "attempts", "advice")
"""Fields that records may have beside their text (``extra=``), for programs that read logs."""

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


class Redactor:
    """Blanks what is secret: what looks like it, and values known to be."""

    def __init__(self) -> None:
        self._known: re.Pattern[str] | None = None
        self._values: set[str] = set()

    def add(self, values: Iterable[str]) -> None:
        """Blank these values wherever they show up."""
        self._values.update(value for value in values if len(value) >= _MIN_SECRET_LENGTH)
        if self._values:
            self._known = re.compile("|".join(map(re.escape, sorted(self._values, key=len)[::-1])))

    def blank(self, text: str) -> str:
        """``text`` without its secrets."""
        text = _SECRETS.sub(rf"\1{_REDACTED}", text)
        return self._known.sub(_REDACTED, text) if self._known else text


class ErrorFields(logging.Filter):
    """Adds the fields of a store's error to every record that reports it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add them; the record's own fields win. Nothing is filtered out."""
        for value in record.args if isinstance(record.args, tuple) else ():
            if isinstance(value, StoreError):
                for name, field in value.fields.items():
                    if not hasattr(record, name):
                        setattr(record, name, field)
        return True


class TextFormatter(logging.Formatter):
    """A line for people, a traceback below it."""

    def __init__(self, layout: str, redactor: Redactor) -> None:
        super().__init__(layout)
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor.blank(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's)
        """The line, with what to do about it if something is to be done."""
        advice = getattr(record, "advice", "") if record.levelno >= logging.WARNING else ""
        return super().formatMessage(record) + (f"; {advice}" if advice else "")


class JsonFormatter(logging.Formatter):
    """A JSON object in a line: time, level, logger, message, what the record carries beside it,
    and the traceback."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._redactor.blank(record.getMessage()),
        }
        for name, value in carried(record):
            entry[name] = self._redactor.blank(value) if isinstance(value, str) else value
        if record.exc_info:
            entry["traceback"] = self._redactor.blank(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)


def carried(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    """The fields a record carries, empty ones left out."""
    for name in FIELDS:
        value = getattr(record, name, None)
        if value not in (None, ""):
            yield name, value


def timestamp(seconds: float) -> str:
    """RFC 3339, UTC, to the microsecond."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")

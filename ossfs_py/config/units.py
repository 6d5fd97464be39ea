"""Sizes, durations, counts, modes and flags as people write them. Pure.

Every parser takes a string or the value a TOML file gives and raises ValueError with the end of
a sentence that begins with the option's name.
"""

import re
import time
from datetime import UTC, datetime, timedelta

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGTPE])(?:i?B)?|B)?", re.IGNORECASE)
_SIZE_POWERS = {letter: power for power, letter in enumerate("KMGTPE", start=1)}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+|\d+(?:\.\d+)?", re.IGNORECASE)
_DURATION_TERM = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_MAX_MODE = 0o7777


def parse_size(value: object) -> int:
    """Bytes of ``512M``, ``8GiB``, ``1.5G`` or ``4096``; every unit is a power of 1024."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is not a size; write it like 512M, 8GiB or 1.5G")
    unit: int = 1024 ** (_SIZE_POWERS[match[2].upper()] if match[2] else 0)
    return int(match[1]) * unit if "." not in match[1] else round(float(match[1]) * unit)


def format_size(size_bytes: int) -> str:
    """The shortest exact way to write a size: 8388608 is ``8MiB``."""
    for letter in "EPTGMK":
        unit: int = 1024 ** _SIZE_POWERS[letter]
        if size_bytes >= unit and size_bytes % unit == 0:
            return f"{size_bytes // unit}{letter}iB"
    return str(size_bytes)


def parse_duration(value: object) -> float:
    """Seconds of ``60s``, ``5m``, ``1h30m``, ``500ms`` or a bare number of seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    text = value.strip() if isinstance(value, str) else ""
    if _DURATION.fullmatch(text) is None:
        raise ValueError(f"{value!r} is not a duration; write it like 60s, 5m or 1h")
    return sum(float(term[1]) * _SECONDS[term[2].lower()] for term in _DURATION_TERM.finditer(text))


def parse_moment(value: object) -> int:
    """Nanoseconds since the epoch of an ISO 8601 time, or of a duration ago (``3d``).

    A time without a zone is this machine's. Nothing later than now is a moment.
    """
    now_ns = time.time_ns()
    moment_ns = now_ns + 1
    if isinstance(value, int) and not isinstance(value, bool):
        moment_ns = value
    elif isinstance(value, datetime):  # as TOML has it
        moment_ns = _since_epoch(value)
    elif isinstance(value, str):
        text = value.strip()
        try:
            # A bare number could be meant as seconds ago or since the epoch.
            is_ago = _DURATION.fullmatch(text) is not None and text[-1].isalpha()
            ago_ns = round(parse_duration(text) * 10**9) if is_ago else 0
            moment_ns = now_ns - ago_ns if is_ago else _since_epoch(datetime.fromisoformat(text))
        except (ValueError, OverflowError):
            raise ValueError(
                f"{value!r} is not a time; write it like 2026-11-20T10:00Z, or 3d for three days"
                " ago"
            ) from None
    if not 0 <= moment_ns <= now_ns:
        raise ValueError(f"{value!r} is not a time in the past")
    return moment_ns


def _since_epoch(moment: datetime) -> int:
    return round((moment.astimezone() - _EPOCH) / _MICROSECOND) * 1000


def format_duration(seconds: float) -> str:
    """How a duration is written in help texts: 60 is ``60s``."""
    return f"{seconds:g}s"


def counted(number: int, noun: str) -> str:
    """``1 file``, ``2 files``, ``2,000 files``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def parse_mode(value: object) -> int:
    """Permission bits from octal digits (``0644``, ``0o644``).

    A TOML integer is refused: the file cannot tell 644 from 0o644 once it is parsed.
    """
    if not isinstance(value, str):
        raise ValueError('write the mode as a string of octal digits, like "0644"')  # noqa: TRY004
    text = value.strip().lower().removeprefix("0o")
    if not text or any(digit not in "01234567" for digit in text) or int(text, 8) > _MAX_MODE:
        raise ValueError(f"{value!r} is not a mode; write octal digits like 0644")
    return int(text, 8)


def format_mode(mode: int) -> str:
    """Octal digits as chmod takes them."""
    return f"{mode:04o}"


def parse_flag(value: object) -> bool:
    """A yes or no; the name alone (as in ``-o read_only``) arrives as True."""
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"{value!r} is neither true nor false")


def parse_count(value: object) -> int:
    """A whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+", value.strip()):
        return int(value)
    raise ValueError(f"{value!r} is not a whole number")

"""Parsing an answer's headers about an object."""

import calendar
import email.utils
import re
from collections.abc import Mapping

from ossfs_py.model import ObjectInfo, dated
from ossfs_py.store.auth.signing import Query
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.s3.description import clean_etag, described, text_of

_META_PREFIXES = ("x-amz-meta-", "x-oss-meta-")
_NS_PER_SECOND = 10**9


def version_query(version_id: str | None) -> Query:
    """The query that names a version in a request about a key."""
    return [] if version_id is None else [("versionId", version_id)]


def etag_told(headers: Mapping[str, str], *, as_dated: bool = False) -> str:
    """The ETag of an answer, or its substitute if there is none; ``as_dated``: always the
    substitute. Empty if the answer has no time either.
    """
    if (told := clean_etag(headers.get("etag", ""))) and not as_dated:
        return told
    try:
        return dated(_http_time(headers["last-modified"]) * _NS_PER_SECOND)
    except (KeyError, ValueError, OverflowError):
        return ""


def parse_head(key: str, headers: Mapping[str, str]) -> ObjectInfo:
    """Parse the headers of a HEAD (or GET) answer about ``key``.

    Raises:
        NoAnswerError: they lack fields that every store sends.
    """
    metadata = {}
    for name, value in headers.items():
        if name.startswith(_META_PREFIXES):
            metadata[name[11:]] = text_of(value)
    storage_class = headers.get("x-amz-storage-class") or headers.get("x-oss-storage-class")
    count = headers.get("x-amz-tagging-count") or headers.get("x-oss-tagging-count") or ""
    try:
        return ObjectInfo(
            key=key,
            size=_length(headers["content-length"]),
            etag=etag_told(headers),
            mtime_ns=_http_time(headers["last-modified"]) * _NS_PER_SECOND,
            metadata=metadata,
            content_type=text_of(headers["content-type"]) if "content-type" in headers else None,
            storage_class=storage_class,
            version_id=headers.get("x-amz-version-id") or headers.get("x-oss-version-id"),
            described=described(headers),
            retention=_retention(headers),
            tag_count=int(count) if count.isascii() and count.isdigit() else 0,
        )
    except (KeyError, ValueError, OverflowError):
        raise NoAnswerError("the answer to HEAD lacks size or time", "not_http") from None


def _retention(headers: Mapping[str, str]) -> str | None:
    """The retention of an object lock, for people."""
    mode = headers.get("x-amz-object-lock-mode")
    until = headers.get("x-amz-object-lock-retain-until-date")
    holds = [f"{mode} until {until}"] if mode and until else []
    if headers.get("x-amz-object-lock-legal-hold") == "ON":
        holds.append("legal hold")
    return text_of(", ".join(holds)) or None


def _length(text: str) -> int:
    if not (text.isascii() and text.isdigit()):  # int() also takes signs and underscores
        raise ValueError(text)
    return int(text)


_MONTH_NAMES = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, start=1)}
_USUAL_TIME = re.compile(
    r"[A-Z][a-z]{2}, ([0-3]\d) ([A-Z][a-z]{2}) (\d{4}) ([0-2]\d):([0-5]\d):([0-5]\d) GMT", re.ASCII
)
"""The format of RFC 9110. Each answer to a small GET has one, and email.utils takes 20 us for it.
"""


def _http_time(text: str) -> int:
    usual = _USUAL_TIME.fullmatch(text)
    if usual is not None and usual[2] in _MONTHS:
        day, month, year, hour, minute, second = usual.groups()
        return calendar.timegm(
            (int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second))
        )
    try:
        parsed = email.utils.parsedate(text)
    except IndexError:  # some malformed dates raise it
        parsed = None
    if parsed is None:
        raise ValueError(text)
    return calendar.timegm(parsed)

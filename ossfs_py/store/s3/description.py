"""Headers about objects: those kept from an old object, and those that name one. Pure.

:mod:`describing` combines them, and requests what no HEAD reports.
"""

from collections.abc import Mapping
from urllib.parse import quote

from ossfs_py.model import ObjectInfo, ObjectVersion

STORAGE_CLASS = "x-amz-storage-class"
ENCRYPTION = "x-amz-server-side-encryption"
CUSTOMER_KEY = f"{ENCRYPTION}-customer-"
"""Prefix of the names of all headers about the customer's keys."""
_ENCRYPTION_KEPT = (
    ENCRYPTION,
    f"{ENCRYPTION}-aws-kms-key-id",
    f"{ENCRYPTION}-bucket-key-enabled",
)
_CONTENT_KEPT = (
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
)
"""Headers that a copy with new metadata would lose unless they are sent again."""
_REDIRECT = "x-amz-website-redirect-location"
_KEPT = (*_CONTENT_KEPT, *_ENCRYPTION_KEPT, _REDIRECT, STORAGE_CLASS)
_DESCRIBING = {name: name for name in _KEPT} | {
    name.replace("x-amz-", "x-oss-", 1): name for name in _KEPT if name.startswith("x-amz-")
}
"""Headers that describe an object, in either dialect, and the names under which they are kept."""
_DEFAULT_CLASS = "STANDARD"
"""The default class of every store; a HEAD leaves it out."""
_UNREADABLE_CLASSES = frozenset(
    {"GLACIER", "DEEP_ARCHIVE", "Archive", "ColdArchive", "DeepColdArchive"}
)
"""Classes of S3 and OSS in which new objects can be read only after hours of restoring."""


def described(headers: Mapping[str, str]) -> dict[str, str]:
    """The part of a HEAD's answer for :attr:`ObjectInfo.described`."""
    kept = {
        kept_as: text_of(value)
        for name, kept_as in _DESCRIBING.items()
        if (value := headers.get(name))
    }
    kept.setdefault(STORAGE_CLASS, _DEFAULT_CLASS)
    return kept


def clean_etag(value: str) -> str:
    """An ETag without quotes and weakness prefix."""
    return value.removeprefix("W/").strip('"')


def text_of(value: str) -> str:
    """A header's value as text. In practice, bytes beyond ASCII are UTF-8; others become
    surrogates, which turn into the same bytes again.
    """
    if value.isascii():
        return value
    return value.encode("latin-1").decode("utf-8", "surrogateescape")


def kept_headers(like: ObjectInfo, *, encryption: bool) -> dict[str, str]:
    """The description of an object that replaces ``like``, except storage class, tags and access
    rights; ``encryption``: with that of ``like``.
    """
    return {
        name: value
        for name, value in (like.described or {}).items()
        if name != STORAGE_CLASS and (encryption or name not in _ENCRYPTION_KEPT)
    }


def kept_storage_class(like: ObjectInfo, *, readable: bool) -> str | None:
    """The storage class of ``like``, to be sent again; None: the store's default, or unknown.

    ``readable``: new bytes do not get a class that nobody can read.
    """
    known = (like.described or {}).get(STORAGE_CLASS) or like.storage_class
    if readable and known in _UNREADABLE_CLASSES:
        return _DEFAULT_CLASS
    return known


def storage_class_header(name: str | None) -> dict[str, str]:
    """The header for a class. The default is not sent: some stores know no other."""
    return {} if name in (None, _DEFAULT_CLASS) else {STORAGE_CLASS: name or ""}


def copy_source(bucket: str, source: ObjectVersion) -> dict[str, str]:
    """The source of a copy, and its version, unless that has no ETag."""
    where = f"{bucket}/{source.key}"
    source_text = quote(where, safe="/-_.~", errors="surrogateescape")
    if source.version_id is not None:
        source_text += f"?versionId={quote(source.version_id, safe='')}"
    named = {"x-amz-copy-source": source_text}
    if source.has_etag:
        named["x-amz-copy-source-if-match"] = f'"{source.etag}"'
    return named

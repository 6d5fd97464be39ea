"""Answers to LIST. botocore's parser takes 57-105 ms for 1,000 keys, this one 6 to 8 ms.

A regular expression did not read entries faster (1,000 keys, Python 3.11).
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from ossfs_py.model import ListPage, ObjectInfo, dated
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.s3.description import clean_etag
from ossfs_py.store.s3.xmltext import parse_document

_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)

Decode = Callable[[str], str]


def parse_list_page(body: bytes) -> ListPage:
    """The page that a ListObjectsV2 answer holds.

    Raises:
        NoAnswerError: the body is not (or not all of) a LIST answer; a retry may help.
    """
    listing = ListingDocument(body, "the LIST answer", "ListBucketResult")
    objects = [parse_object(entry, listing) for entry in listing.entries("Contents")]
    token: str | None = None
    if listing.is_truncated:
        token = listing.text("NextContinuationToken")
        if not token:
            raise NoAnswerError("a truncated LIST answer names no continuation", "not_http")
    return ListPage(tuple(objects), listing.prefixes(), token)


class ListingDocument:
    """The XML of a page of a listing: of objects, or of their versions."""

    def __init__(self, body: bytes, what: str, name: str) -> None:
        """``what`` ("the LIST answer") is for messages, ``name`` its outermost tag.

        Raises:
            NoAnswerError: the body is not (or not all of) such a page; a retry may help.
        """
        self._root = parse_document(body, what)
        # Either every tag has the same "{namespace}", or none has.
        self.name_start = self._root.tag.rfind("}") + 1
        """Offset of the name in a tag, after its namespace."""
        if self._root.tag[self.name_start :] != name:
            raise NoAnswerError(f"the answer is not {what}", "not_http")
        is_url = self.text("EncodingType") == "url"
        self.decode: Decode = _decode if is_url else _as_is
        """Decodes its keys."""

    @property
    def is_truncated(self) -> bool:
        """Whether another page follows."""
        return self.text("IsTruncated") == "true"

    def text(self, name: str) -> str | None:
        """A field of the page itself; None if it is missing."""
        return self._root.findtext(f"{self._root.tag[: self.name_start]}{name}")

    def entries(self, *names: str) -> list[ElementTree.Element]:
        """The entries with these names, in their order."""
        start = self.name_start
        return [child for child in self._root if child.tag[start:] in names]

    def prefixes(self) -> tuple[str, ...]:
        """The common prefixes, decoded."""
        found = self.entries("CommonPrefixes")
        return tuple(self.decode(item.text or "") for one in found for item in one)


def parse_object(element: ElementTree.Element, listing: ListingDocument) -> ObjectInfo:
    """Parse one entry.

    Raises:
        NoAnswerError: it lacks fields that every store sends.
    """
    start = listing.name_start
    texts: dict[str, str] = {}
    owner: str | None = None
    for item in element:
        tag = item.tag[start:]
        if tag == "Owner":
            owner = _owner_name(item, start)
        else:
            texts[tag] = item.text or ""
    try:
        mtime_ns = parse_time(texts["LastModified"])
        return ObjectInfo(
            key=listing.decode(texts["Key"]),
            size=int(texts["Size"]),
            # Some servers leave it out: then the object cannot be pinned, but it is there.
            etag=clean_etag(texts.get("ETag", "")) or dated(mtime_ns),
            mtime_ns=mtime_ns,
            storage_class=texts.get("StorageClass") or None,
            version_id=texts.get("VersionId") or None,
            owner=owner,
        )
    except (KeyError, ValueError, TypeError):
        raise NoAnswerError("an entry of the LIST answer is incomplete", "not_http") from None


def _owner_name(owner: ElementTree.Element, start: int) -> str | None:
    texts = {item.tag[start:]: item.text for item in owner}
    return texts.get("DisplayName") or texts.get("ID")


def _decode(text: str) -> str:
    # Bytes that are not UTF-8 become surrogates; the namespace decides about them.
    if "%" not in text and "+" not in text:
        return text
    return unquote_plus(text, errors="surrogateescape")


def _as_is(text: str) -> str:
    return text


def parse_time(text: str) -> int:
    """An ISO 8601 time in nanoseconds since the epoch."""
    return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND * 1000

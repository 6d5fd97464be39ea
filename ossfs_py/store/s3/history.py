"""Versions of objects: whether a bucket keeps them, their list, and their removal."""

import re
from dataclasses import replace
from xml.etree import ElementTree

from ossfs_py.model import HistoryEntry, HistoryMark, HistoryPage, HistoryQuery
from ossfs_py.store.base import Versioning
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.s3.bydirectory import ByDirectory
from ossfs_py.store.s3.heads import version_query
from ossfs_py.store.s3.list_xml import ListingDocument, parse_object, parse_time
from ossfs_py.store.s3.retry import Attempt, Retrier
from ossfs_py.store.s3.wire import Request, WireClient
from ossfs_py.store.s3.xmltext import parse_document

_STATUS = re.compile(r"\{.*\}Status|Status")
_OF_STATUS: dict[str, Versioning] = {"Enabled": "on", "Suspended": "suspended"}

_LOSES_NAMES = "SeaweedFS"
"""Name that servers report whose listings need :class:`ByDirectory`."""


class History:
    """The requests about versions. Blocking; safe for concurrent use; all may be repeated."""

    def __init__(self, wire: WireClient, retrier: Retrier) -> None:
        self._wire = wire
        self._retrier = retrier
        self._loses_names = False
        """Whether the server has shown that its pages lose names."""
        self._by_directory = ByDirectory(self._ask)

    def versioning(self) -> Versioning:
        """See :meth:`ObjectStore.versioning`."""
        request = Request("GetBucketVersioning", "GET", query=[("versioning", "")])

        def attempt(state: Attempt) -> Versioning:
            return parse_versioning(self._wire.once(request, state).body)

        return self._retrier.run(request.operation, "", attempt)

    def list_versions(self, query: HistoryQuery) -> HistoryPage:
        """See :meth:`ObjectStore.list_versions`."""
        if query.sample or not self._loses_names:
            page = self._ask(query)
            is_whole = query.after is None and page.following is None
            if query.sample or is_whole or not self._loses_names:
                return page
        return self._by_directory.page(query)

    def _ask(self, query: HistoryQuery) -> HistoryPage:
        asked = [
            ("versions", ""),
            ("encoding-type", "url"),
            ("prefix", query.prefix),
            ("max-keys", str(query.max_entries)),
        ]
        if query.delimiter:
            asked.append(("delimiter", query.delimiter))
        if query.after is not None:
            asked.append(("key-marker", query.after.key))
            if query.after.version_id is not None:
                asked.append(("version-id-marker", query.after.version_id))
        request = Request("ListObjectVersions", "GET", query=asked)

        def attempt(state: Attempt) -> HistoryPage:
            answer = self._wire.once(request, state)
            if answer.headers.get("server", "").startswith(_LOSES_NAMES):
                self._loses_names = True
            return parse_history(answer.body)

        page = self._retrier.run(request.operation, query.prefix, attempt)
        after = query.after
        if after is not None and after.version_id and not (page.entries or page.prefixes):
            # There was more. If the version of the mark has been removed since, for instance by a
            # lifecycle rule, moto ends there: continue after the key.
            return self._ask(replace(query, after=HistoryMark(after.key)))
        return page

    def delete_version(self, key: str, version_id: str) -> None:
        """See :meth:`ObjectStore.delete_version`."""
        request = Request("DeleteObject", "DELETE", key, version_query(version_id))
        self._retrier.run("DeleteObject", key, lambda state: self._wire.once(request, state))


def parse_versioning(body: bytes) -> Versioning:
    """Parse the answer to GetBucketVersioning.

    Raises:
        NoAnswerError: the body is no such answer.
    """
    root = parse_document(body, "the answer")
    # moto calls it GetBucketVersioningResponse.
    if "Versioning" not in root.tag:
        raise NoAnswerError("the answer does not speak of versioning", "not_http")
    for child in root:
        if _STATUS.fullmatch(child.tag):
            return _OF_STATUS.get((child.text or "").strip(), "off")
    return "off"


def parse_history(body: bytes) -> HistoryPage:
    """The page that a ListObjectVersions answer holds.

    Some stores (moto) list versions first, and deletions after them. Those of one key are sorted by
    time here; entries of the same second keep their order.

    Raises:
        NoAnswerError: the body is not (or not all of) such an answer; a retry may help.
    """
    listing = ListingDocument(body, "the listing of versions", "ListVersionsResult")
    entries = [_entry(entry, listing) for entry in listing.entries("Version", "DeleteMarker")]
    entries.sort(key=lambda entry: (entry.key, not entry.is_latest, -entry.mtime_ns))
    following: HistoryMark | None = None
    if listing.is_truncated:
        key = listing.decode(listing.text("NextKeyMarker") or "")
        if not key:
            raise NoAnswerError("a truncated listing of versions names no continuation", "not_http")
        following = HistoryMark(key, listing.text("NextVersionIdMarker") or None)
    return HistoryPage(tuple(entries), listing.prefixes(), following)


def _entry(element: ElementTree.Element, listing: ListingDocument) -> HistoryEntry:
    start = listing.name_start
    texts = {item.tag[start:]: item.text or "" for item in element}
    is_deletion = element.tag[start:] == "DeleteMarker"
    try:
        key = listing.decode(texts["Key"])
        info = None if is_deletion else parse_object(element, listing)
        return HistoryEntry(
            key=key,
            version_id=texts["VersionId"],
            is_latest=texts.get("IsLatest") == "true",
            mtime_ns=parse_time(texts["LastModified"]),
            info=None if info is None else info._replace(pinned=True),
        )
    except (KeyError, ValueError, TypeError):
        raise NoAnswerError("an entry of the listing is incomplete", "not_http") from None

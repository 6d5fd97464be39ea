"""HEAD, LIST and the ranged GET of the hot path."""

import calendar
import email.utils
from collections.abc import Mapping
from dataclasses import replace

from ossfs_py.errors import (
    AccessDeniedError,
    ConditionFailedError,
    IntegrityError,
    ObjectMissingError,
    StoreError,
    UnsupportedByStoreError,
    VersionChangedError,
)
from ossfs_py.model import ListPage, ListQuery, ObjectInfo, ObjectVersion
from ossfs_py.store.auth.signing import Query
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.http.http1 import Response
from ossfs_py.store.s3.description import clean_etag, described, text_of
from ossfs_py.store.s3.error_map import AnswerError, request_id_of
from ossfs_py.store.s3.list_xml import parse_list_page
from ossfs_py.store.s3.retry import Attempt, Retrier
from ossfs_py.store.s3.wire import Request, WireClient
from ossfs_py.telemetry.metrics import Metrics

_META_PREFIXES = ("x-amz-meta-", "x-oss-meta-")
_NS_PER_SECOND = 10**9
_PROGRESS_BYTES = 4096
"""Less than a page of the reader's from one attempt is no progress: it could go on for ever."""
_TIMES_UNTIL_MEANT = 3
"""A third answer that contradicts what is known of the object is no accident any more."""


class Reader:
    """Everything that asks and changes nothing. All of it may be repeated freely."""

    def __init__(self, wire: WireClient, retrier: Retrier, metrics: Metrics) -> None:
        self._wire = wire
        self._retrier = retrier
        self._received = metrics.bytes_received

    def head(self, key: str, version_id: str | None = None) -> ObjectInfo:
        """See :meth:`ObjectStore.head`."""
        try:
            return self._retrier.run(
                "HeadObject", key, lambda state: self.head_once(key, state, version_id)
            )
        except StoreError as exc:
            raise _as_unreadable(exc) from exc

    def head_once(self, key: str, state: Attempt, version_id: str | None = None) -> ObjectInfo:
        """One try of a HEAD, for use inside another call's attempt."""
        info = parse_head(key, self.head_headers(key, state, version_id=version_id))
        return info if version_id is None else replace(info, version_id=version_id, pinned=True)

    def head_headers(
        self,
        key: str,
        state: Attempt,
        headers: Mapping[str, str] | None = None,
        version_id: str | None = None,
    ) -> dict[str, str]:
        """One try of a HEAD; the answer's headers."""
        request = Request("HeadObject", "HEAD", key, version_query(version_id), headers)
        return self._wire.once(request, state).headers

    def list_page(self, query: ListQuery) -> ListPage:
        """See :meth:`ObjectStore.list_page`."""
        request = list_request(query)

        def attempt(state: Attempt) -> ListPage:
            body = self._wire.once(request, state).body
            try:
                return parse_list_page(body)
            except NoAnswerError:
                if body.count(b"<Contents>") <= 2 * query.max_keys or not _insists(state):
                    raise
                raise UnsupportedByStoreError(
                    f"the store ignores max-keys: more than {query.max_keys} entries in one answer",
                    operation=request.operation,
                    key=query.prefix,
                    attempts=state.number,
                ) from None

        return self._retrier.run(request.operation, query.prefix, attempt)

    def owner(self, key: str) -> str | None:
        """See :meth:`ObjectStore.owner`."""
        request = list_request(ListQuery(key, delimiter="", max_keys=1))
        asking = replace(request, query=[*request.query, ("fetch-owner", "true")])

        def attempt(state: Attempt) -> ListPage:
            return parse_list_page(self._wire.once(asking, state).body)

        objects = self._retrier.run(request.operation, key, attempt).objects
        # A key is listed before all others that it is the beginning of.
        return objects[0].owner if objects and objects[0].key == key else None

    def get_range_into(
        self, version: ObjectVersion, start: int, buffer: memoryview
    ) -> ObjectInfo | None:
        """See :meth:`ObjectStore.get_range_into`.

        A broken body is taken up again where it broke off: only the missing tail is asked for.
        """
        size = len(buffer)
        if not size:
            return None
        got = 0
        told: ObjectInfo | None = None

        def attempt(state: Attempt) -> None:
            nonlocal got, told
            span = f"bytes={start + got}-{start + size - 1}"
            headers = {"range": span}
            if version.etag:
                headers["if-match"] = f'"{version.etag}"'
            query = version_query(version.version_id)
            request = Request("GetObject", "GET", version.key, query, headers)
            try:
                with self._wire.exchange(request, state) as response:
                    _check_answer(response, version, start + got, size - got, state)
                    if not start and told is None:
                        told = _told(version, response.headers)
                    response.read_into(buffer[got:])
            except NoAnswerError as fault:
                if fault.received:
                    self._received.inc(fault.received)
                    got += fault.received
                    state.progressed = state.progressed or fault.received >= _PROGRESS_BYTES
                # A body that broke exactly at its end needs nothing more.
                if got < size:
                    raise
            except AnswerError as error:
                # Out of range though within the pinned size: it is not the pinned object.
                if error.status == 416:
                    raise _changed(version, error.request_id, state) from None
                raise
            else:
                self._received.inc(size - got)

        try:
            self._retrier.run("GetObject", version.key, attempt)
        except ConditionFailedError as exc:
            raise as_version_changed(exc) from exc
        except ObjectMissingError as exc:
            if version.version_id is None:
                raise
            raise as_version_changed(exc) from exc
        except StoreError as exc:
            raise _as_unreadable(exc) from exc
        return told


def version_query(version_id: str | None) -> Query:
    """What names a version in a request about a key."""
    return [] if version_id is None else [("versionId", version_id)]


def list_request(query: ListQuery) -> Request:
    """The LIST that asks for one page."""
    asked = [
        ("list-type", "2"),
        ("encoding-type", "url"),
        ("prefix", query.prefix),
        ("max-keys", str(query.max_keys)),
    ]
    if query.delimiter:
        asked.append(("delimiter", query.delimiter))
    if query.token is not None:
        asked.append(("continuation-token", query.token))
    elif query.start_after is not None:
        asked.append(("start-after", query.start_after))
    return Request("ListObjectsV2", "GET", query=asked)


def parse_head(key: str, headers: Mapping[str, str]) -> ObjectInfo:
    """What the headers of a HEAD (or GET) answer say about ``key``.

    Raises:
        NoAnswerError: they lack what every store sends.
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
            etag=clean_etag(headers.get("etag", "")),
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
    """What an object lock says, for people."""
    mode = headers.get("x-amz-object-lock-mode")
    until = headers.get("x-amz-object-lock-retain-until-date")
    holds = [f"{mode} until {until}"] if mode and until else []
    if headers.get("x-amz-object-lock-legal-hold") == "ON":
        holds.append("legal hold")
    return text_of(", ".join(holds)) or None


def _told(version: ObjectVersion, headers: Mapping[str, str]) -> ObjectInfo | None:
    """What the headers of a GET answer say about the whole object, as far as they make sense."""
    try:
        info = parse_head(version.key, {**headers, "content-length": str(version.size)})
        if version.version_id is None:
            return info
        return replace(info, version_id=version.version_id, pinned=True)
    except NoAnswerError:
        return None  # the bytes are good all the same


def as_version_changed(exc: StoreError) -> VersionChangedError:
    """A failed precondition on what was to be read: the version is gone."""
    return VersionChangedError(
        "the object changed at the store",
        operation=exc.operation,
        key=exc.key,
        request_id=exc.request_id,
        attempts=exc.attempts,
    )


def _as_unreadable(exc: StoreError) -> StoreError:
    """What a 400 to a simple question about one object means: that it is encrypted with a key that
    was not sent (SSE-C), or with one that is disabled. No credentials are better, but no retry
    helps either.
    """
    cause = exc.__cause__
    if type(exc) is not StoreError or not isinstance(cause, AnswerError) or cause.status != 400:
        return exc
    # A HEAD has no code; of those of a GET most are about something else.
    if cause.code and not cause.code.startswith("KMS.") and "ncryption" not in cause.message:
        return exc
    return AccessDeniedError(
        f"{cause} (is it encrypted with a key that was not sent, or that is disabled?)",
        operation=exc.operation,
        key=exc.key,
        request_id=exc.request_id,
        attempts=exc.attempts,
    )


def _check_answer(
    response: Response, version: ObjectVersion, start: int, size: int, state: Attempt
) -> None:
    """Whether the body to come is exactly the pinned bytes.

    What contradicts itself may be a proxy's bad moment, so it is asked for again; what says the
    same several times is how this store is.
    """
    headers = response.headers
    # Also for stores that ignore If-Match.
    etag = clean_etag(headers.get("etag", ""))
    if version.etag and etag != version.etag:
        raise _changed(version, request_id_of(headers), state)
    whole = start == 0 and size == version.size
    # rclone answers ranges with 200, so the header counts, not the status.
    content_range = headers.get("content-range")
    if content_range is not None:
        if not content_range.startswith(f"bytes {start}-{start + size - 1}/"):
            raise NoAnswerError(f"the store answered another range: {content_range!r}")
        if not version.etag and content_range.rpartition("/")[2] not in ("*", str(version.size)):
            # Where the store tells no ETags the size is all that can be compared.
            raise _changed(version, request_id_of(headers), state)
    elif not whole:
        if not _insists(state):
            raise NoAnswerError("the store answered the whole object instead of a range")
        raise UnsupportedByStoreError(
            "the store ignores Range",
            operation="GetObject",
            key=version.key,
            request_id=request_id_of(headers),
            attempts=state.number,
        )
    if response.length is not None and response.length != size:
        if whole and _insists(state):
            raise IntegrityError(
                f"the object has {response.length} bytes, not {size}",
                operation="GetObject",
                key=version.key,
                request_id=request_id_of(headers),
                attempts=state.number,
            )
        raise NoAnswerError(f"the store announced {response.length} bytes instead of {size}")


def _insists(state: Attempt) -> bool:
    """Whether this contradiction is one too many for an accident."""
    state.contradictions += 1
    return state.contradictions >= _TIMES_UNTIL_MEANT


def _changed(version: ObjectVersion, request_id: str, state: Attempt | None) -> VersionChangedError:
    return VersionChangedError(
        "the object changed at the store",
        operation="GetObject",
        key=version.key,
        request_id=request_id,
        attempts=state.number if state else 1,
    )


def _length(text: str) -> int:
    if not (text.isascii() and text.isdigit()):  # int() takes signs and underscores, too
        raise ValueError(text)
    return int(text)


def _http_time(text: str) -> int:
    try:
        parsed = email.utils.parsedate(text)
    except IndexError:  # what some malformed dates come to
        parsed = None
    if parsed is None:
        raise ValueError(text)
    return calendar.timegm(parsed)

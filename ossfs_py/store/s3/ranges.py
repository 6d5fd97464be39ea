"""The ranged GET, the most frequent request: bytes of one version, into the caller's buffer."""

import time
from collections.abc import Mapping

from prometheus_client import Counter

from ossfs_py.errors import (
    IntegrityError,
    StoreError,
    UnsupportedByStoreError,
    VersionChangedError,
)
from ossfs_py.model import ObjectInfo, ObjectVersion
from ossfs_py.store.base import FirstBytes
from ossfs_py.store.http.arrival import Arrival
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.s3.error_map import AnswerError, request_id_of
from ossfs_py.store.s3.heads import etag_told, parse_head, version_query
from ossfs_py.store.s3.retry import Attempt
from ossfs_py.store.s3.wire import Request, WireClient

_PROGRESS_BYTES = 4096
"""An attempt with less than a page of the reader's is no progress: that could go on for ever."""


class RangedGet:
    """``len(buffer)`` bytes of ``version`` from ``start`` on, with as many requests as it takes.

    After a broken body only the missing tail is requested.
    """

    def __init__(
        self,
        version: ObjectVersion,
        start: int,
        buffer: memoryview,
        received: Counter,
        first_bytes: FirstBytes,
        arrival: Arrival | None = None,
    ) -> None:
        """``arrival`` is told of bytes that need not be verified any more."""
        self.version = version
        self.got = 0
        """Bytes that are in the buffer."""
        self.told: ObjectInfo | None = None
        """Description of the whole object, from an answer with the object's first byte."""
        self._start = start
        self._buffer = buffer
        self._received = received
        self._arrival = arrival
        self._first_bytes = first_bytes

    @property
    def is_done(self) -> bool:
        """Whether the buffer is full."""
        return self.got == len(self._buffer)

    def drop(self) -> None:
        """Forget all bytes that it has: they could not be verified."""
        self.got = 0

    def once(self, wire: WireClient, state: Attempt, *, believe: bool = True) -> None:
        """One try for all missing bytes. ``believe``: use the answer's description of the object,
        too.

        Raises:
            AnswerError: the answer is an error.
            NoAnswerError: there was none, it broke off, or it contradicts the known state.
            VersionChangedError: the object is another version now.
            StoreError: answers contradict the known state again and again.
        """
        version, position = self.version, self._start + self.got
        missing = self._buffer[self.got :]
        request = pinned_get(version, position, len(missing))
        asked_at = time.monotonic()
        try:
            with wire.exchange(request, state) as response:
                self._first_bytes.note(time.monotonic() - asked_at)
                check_answer(
                    response.headers, response.length, version, position, len(missing), state
                )
                if believe and not position and self.told is None:
                    self.told = told_by(version, response.headers)
                response.read_into(missing, self._arrival)
        except NoAnswerError as fault:
            if fault.received:
                self._received.inc(fault.received)
                self.got += fault.received
                state.progressed = state.progressed or fault.received >= _PROGRESS_BYTES
            # If the body broke exactly at its end, nothing is missing.
            if not self.is_done:
                raise
        except AnswerError as error:
            # Out of range though within the pinned size: it is another version.
            if error.status == 416:
                raise _changed(version, error.request_id, state) from None
            raise
        else:
            self._received.inc(len(missing))
            self.got += len(missing)


def pinned_get(version: ObjectVersion, start: int, size: int) -> Request:
    """The request for ``size`` bytes of a version."""
    headers = {"range": f"bytes={start}-{start + size - 1}"}
    if version.has_etag:
        headers["if-match"] = f'"{version.etag}"'
    return Request("GetObject", "GET", version.key, version_query(version.version_id), headers)


def as_version_changed(exc: StoreError) -> VersionChangedError:
    """A failed precondition of a read: the version is gone."""
    return VersionChangedError(
        "the object changed at the store",
        operation=exc.operation,
        key=exc.key,
        request_id=exc.request_id,
        attempts=exc.attempts,
    )


def told_by(version: ObjectVersion, headers: Mapping[str, str]) -> ObjectInfo | None:
    """The description of the whole object in a GET answer, if it makes sense."""
    try:
        info = parse_head(version.key, {**headers, "content-length": str(version.size)})
        if version.version_id is None:
            return info
        return info._replace(version_id=version.version_id, pinned=True)
    except NoAnswerError:
        return None  # the bytes are good all the same


def check_answer(
    headers: Mapping[str, str],
    length: int | None,
    version: ObjectVersion,
    start: int,
    size: int,
    state: Attempt,
) -> None:
    """Check that a body of ``length`` bytes (None: not announced) is exactly the pinned bytes.

    A contradiction may be a proxy's error, so the request is repeated; if the answer is the same
    several times, the store is like that.
    """
    # Needed for stores that ignore If-Match.
    etag = etag_told(headers, as_dated=not version.has_etag)
    if version.etag and etag != version.etag and (etag or version.has_etag):
        raise _changed(version, request_id_of(headers), state)
    whole = start == 0 and size == version.size
    # rclone answers ranges with 200, so the header counts, not the status.
    content_range = headers.get("content-range")
    if content_range is not None:
        if not content_range.startswith(f"bytes {start}-{start + size - 1}/"):
            raise NoAnswerError(f"the store answered another range: {content_range!r}")
        same_size = content_range.rpartition("/")[2] in ("*", str(version.size))
        if not same_size:
            # Without ETags, the size says more than a time in whole seconds. With them: a HEAD of
            # JuiceFS's gateway beside a writer may tell the size of one version and the ETag of the
            # next.
            raise _changed(version, request_id_of(headers), state)
    elif not whole:
        if not state.insists():
            raise NoAnswerError("the store answered the whole object instead of a range")
        raise UnsupportedByStoreError(
            "the store ignores Range",
            operation="GetObject",
            key=version.key,
            request_id=request_id_of(headers),
            attempts=state.number,
        )
    if length is not None and length != size:
        if whole and state.insists():
            raise IntegrityError(
                f"the object has {length} bytes, not {size}",
                operation="GetObject",
                key=version.key,
                request_id=request_id_of(headers),
                attempts=state.number,
            )
        raise NoAnswerError(f"the store announced {length} bytes instead of {size}")


def _changed(version: ObjectVersion, request_id: str, state: Attempt) -> VersionChangedError:
    return VersionChangedError(
        "the object changed at the store",
        operation="GetObject",
        key=version.key,
        request_id=request_id,
        attempts=state.number,
    )

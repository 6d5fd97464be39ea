"""HEAD, LIST and the ranged GET, which is the most frequent request."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ossfs_py.errors import (
    AccessDeniedError,
    ConditionFailedError,
    ObjectMissingError,
    StoreError,
    UnsupportedByStoreError,
    VersionChangedError,
)
from ossfs_py.model import ListPage, ListQuery, ObjectInfo, ObjectVersion
from ossfs_py.store.base import FirstBytes
from ossfs_py.store.http.arrival import Arrival
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.s3.error_map import AnswerError
from ossfs_py.store.s3.heads import parse_head, version_query
from ossfs_py.store.s3.list_xml import parse_list_page
from ossfs_py.store.s3.nearby import ReadEndpoint
from ossfs_py.store.s3.ranges import RangedGet, as_version_changed
from ossfs_py.store.s3.readpins import ReadPins
from ossfs_py.store.s3.retry import Attempt, Retrier
from ossfs_py.store.s3.wire import Request, WireClient
from ossfs_py.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_TIMES_UNTIL_CHANGED = 3
"""The third answer that an object has changed is believed, although a HEAD says the contrary."""


class Reader:
    """All requests that change nothing. They may be repeated freely."""

    def __init__(
        self,
        wire: WireClient,
        retrier: Retrier,
        metrics: Metrics,
        pins: ReadPins,
        near: ReadEndpoint | None = None,
    ) -> None:
        """``near`` is asked first for bytes; ``pins`` verify those of the store."""
        self._wire = wire
        self._retrier = retrier
        self._received = metrics.bytes_received
        self._near = near
        self._pins = pins
        self.first_bytes = FirstBytes()
        """Of ranged GETs, wherever their bytes came from."""

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
        return info if version_id is None else info._replace(version_id=version_id, pinned=True)

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
                if body.count(b"<Contents>") <= 2 * query.max_keys or not state.insists():
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
        asking = request._replace(query=[*request.query, ("fetch-owner", "true")])

        def attempt(state: Attempt) -> ListPage:
            return parse_list_page(self._wire.once(asking, state).body)

        objects = self._retrier.run(request.operation, key, attempt).objects
        # A key is listed before all keys that it is a prefix of.
        return objects[0].owner if objects and objects[0].key == key else None

    def get_range_into(
        self,
        version: ObjectVersion,
        start: int,
        buffer: memoryview,
        arrival: Arrival | None = None,
    ) -> ObjectInfo | None:
        """See :meth:`ObjectStore.get_range_into`.

        Bytes that the read endpoint does not have come from the store itself. ``arrival`` is told
        of nothing that may be another version's.
        """
        if not buffer:
            return None
        if self._near is not None or not self._pins.is_trusted(version):
            arrival = None
        get = RangedGet(version, start, buffer, self._received, self.first_bytes, arrival)
        if self._near is not None:
            self._near.give(get)
        if not get.is_done:
            self._finish(get)
        return get.told

    def _finish(self, get: RangedGet) -> None:
        """Get the missing bytes from the store.

        A program that has mapped the file is killed if its object is believed to have changed, so a
        HEAD has to confirm that. SeaweedFS 4.48 on a machine whose disk was busy for a minute said
        so of an object that had not changed.
        """
        version = get.version
        self._pins.ask_beside(version)
        for left in reversed(range(_TIMES_UNTIL_CHANGED)):
            try:
                with _meanings(version):
                    self._retrier.run(
                        "GetObject", version.key, lambda state: get.once(self._wire, state)
                    )
                break
            except VersionChangedError as exc:
                if not left or not self._is_there(version):
                    raise
                log.warning("%s, says the answer to a GET; a HEAD says that it did not", exc)
        with _meanings(version):
            self._pins.vouch(version)

    def _is_there(self, version: ObjectVersion) -> bool:
        if not version.has_etag:
            return False
        try:
            info = self.head(version.key, version.version_id)
        except StoreError:
            return False
        return (info.etag, info.size) == (version.etag, version.size)


@contextmanager
def _meanings(version: ObjectVersion) -> Iterator[None]:
    """Errors of the block become what they mean to a reader of a version."""
    try:
        yield
    except ConditionFailedError as exc:
        raise as_version_changed(exc) from exc
    except ObjectMissingError as exc:
        if version.version_id is None:
            raise
        raise as_version_changed(exc) from exc
    except StoreError as exc:
        raise _as_unreadable(exc) from exc


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


def _as_unreadable(exc: StoreError) -> StoreError:
    """The meaning of a 400 to a simple request about one object: it is encrypted with a key that
    was not sent (SSE-C), or with one that is disabled. Other credentials would not help, and
    neither would a retry.
    """
    cause = exc.__cause__
    if type(exc) is not StoreError or not isinstance(cause, AnswerError) or cause.status != 400:
        return exc
    # A HEAD has no code; most codes of a GET are about something else.
    if cause.code and not cause.code.startswith("KMS.") and "ncryption" not in cause.message:
        return exc
    return AccessDeniedError(
        f"{cause} (is it encrypted with a key that was not sent, or that is disabled?)",
        operation=exc.operation,
        key=exc.key,
        request_id=exc.request_id,
        attempts=exc.attempts,
    )

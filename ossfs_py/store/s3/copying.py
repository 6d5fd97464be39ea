"""Copies made by the server: whole objects, parts, and objects too large for one request."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ossfs_py.errors import (
    AccessDeniedError,
    ConditionFailedError,
    StoreError,
    StoreUnavailableError,
    UnsupportedByStoreError,
    VersionChangedError,
)
from ossfs_py.model import (
    ByteRange,
    CommitRequest,
    MultipartUpload,
    ObjectInfo,
    ObjectVersion,
    Part,
)
from ossfs_py.store.base import MAX_PARTS, MIN_PART_BYTES
from ossfs_py.store.http.faults import AnswerError, NoAnswerError
from ossfs_py.store.options import StoreOptions
from ossfs_py.store.s3.conditions import scratch_key
from ossfs_py.store.s3.error_map import judge
from ossfs_py.store.s3.rare import RareOperations, patience_seconds
from ossfs_py.store.s3.reading import Reader, as_version_changed, clean_etag, parse_head
from ossfs_py.store.s3.retry import Attempt, Retrier
from ossfs_py.store.s3.writing import Writer

log = logging.getLogger(__name__)

T = TypeVar("T")

COPY_PART_BYTES = 512 * 1024**2
"""Ten parts at the smallest: enough to work in parallel, few enough to cost little."""
_COPY_THREADS = 8

# What a copy with new metadata would lose unless it is said again: header to boto3 parameter.
_KEPT_HEADERS = {
    "cache-control": "CacheControl",
    "content-disposition": "ContentDisposition",
    "content-encoding": "ContentEncoding",
    "content-language": "ContentLanguage",
    "expires": "Expires",
}


class Copier:
    """Server-side copies, each pinned to its source's version by x-amz-copy-source-if-match."""

    def __init__(
        self,
        control: RareOperations,
        retrier: Retrier,
        reader: Reader,
        writer: Writer,
        options: StoreOptions,
        *,
        max_copy_bytes: int,
        copy_part_bytes: int,
    ) -> None:
        self._control = control
        self._retrier = retrier
        self._reader = reader
        self._writer = writer
        self._options = options
        self._bucket = options.bucket
        self._storage_class = options.storage_class
        self._lock = threading.Lock()
        choice = options.part_copy
        self._part_copy: bool | None = None if choice == "auto" else choice == "on"
        self._max_copy_bytes = max_copy_bytes
        self._copy_part_bytes = copy_part_bytes

    def copy(
        self,
        source: ObjectVersion,
        key: str,
        *,
        metadata: Mapping[str, str] | None,
        content_type: str | None,
    ) -> ObjectVersion:
        """See :meth:`ObjectStore.copy`.

        With new metadata the source is asked first for the headers that would be lost
        (Cache-Control, Content-Encoding, ...). The storage class becomes the configured one, or
        the store's default. On a store that ignores the pin a changed source is found out only
        after the copy, when ``key`` holds the newer bytes already. Repeating a copy is harmless;
        a copy onto itself that succeeded unheard changes the ETag of a multipart object, so then
        the metadata decides.
        """
        if source.size > self._max_copy_bytes:
            return self._copy_in_parts(source, key, metadata, content_type)
        params: dict[str, Any] = {}
        if metadata is not None:
            params = self._replacement(source, metadata, content_type)
            params["MetadataDirective"] = "REPLACE"
        if self._storage_class is not None:
            params["StorageClass"] = self._storage_class

        def attempt(state: Attempt) -> ObjectVersion:
            try:
                answer = self._control.call(
                    lambda client: client.copy_object(
                        Bucket=self._bucket, Key=key, **self._pinned(source), **params
                    ),
                    state,
                    "CopyObject",
                    patience_seconds(source.size),
                )
            except AnswerError as error:
                lost = state.may_have_happened and key == source.key and metadata is not None
                if lost and judge(error).cause is ConditionFailedError:
                    info = self._reader.head_once(key, state)
                    if info.size == source.size and info.metadata == params["Metadata"]:
                        return info.version
                raise
            etag = clean_etag(answer.get("CopyObjectResult", {}).get("ETag") or "")
            if not etag:  # rclone answers copies without one
                etag = self._reader.head_once(key, state).etag
            # Some stores ignore the pin. Equal ETags prove the copy; others do not disprove it
            # (multipart and encrypted objects get new ones), so then the source is asked.
            if etag != source.etag and key != source.key:
                self._check_unchanged(source, state)
            return ObjectVersion(key, etag, source.size)

        return self._run("CopyObject", key, attempt)

    def copy_part(
        self, upload: MultipartUpload, number: int, source: ObjectVersion, span: ByteRange
    ) -> Part:
        """See :meth:`ObjectStore.copy_part`. Repeating it replaces the part by the same bytes."""

        def attempt(state: Attempt) -> Part:
            answer = self._control.call(
                lambda client: client.upload_part_copy(
                    Bucket=self._bucket,
                    Key=upload.key,
                    UploadId=upload.upload_id,
                    PartNumber=number,
                    CopySourceRange=f"bytes={span.start}-{span.end - 1}",
                    **self._pinned(source),
                ),
                state,
                "UploadPartCopy",
                patience_seconds(span.size),
            )
            result = answer.get("CopyPartResult", {})
            etag = clean_etag(result.get("ETag") or "")
            if not etag and self._part_copy:
                raise NoAnswerError("the answer to a part copy names no ETag", "not_http")
            if not etag:  # rclone answers 200 to what it does not know
                raise UnsupportedByStoreError(
                    "the answer to a part copy names no ETag",
                    operation="UploadPartCopy",
                    key=upload.key,
                )
            return Part(number, etag, span.size, result.get("ChecksumCRC32C"))

        return self._run("UploadPartCopy", upload.key, attempt)

    def can_copy_parts(self) -> bool:
        """Whether UploadPartCopy works here: configured, or tried once with a scratch key."""
        with self._lock:
            if self._part_copy is not None:
                return self._part_copy
            try:
                self._part_copy = self._probe()
            except (AccessDeniedError, StoreUnavailableError) as exc:
                log.info("whether this store copies parts is not known yet: %s", exc)
                return False
            return self._part_copy

    def _probe(self) -> bool:
        """Copy a one-byte scratch object into a part of an upload that is then aborted."""
        key = scratch_key(self._options)
        try:
            source = self._writer.put(CommitRequest(key), b"x")
            try:
                upload = self._writer.start_multipart(CommitRequest(key))
                try:
                    self.copy_part(upload, 1, source, ByteRange(0, 1))
                finally:
                    self._writer.abort(upload)
            finally:
                self._writer.delete(key)
        except (AccessDeniedError, StoreUnavailableError):
            raise
        except StoreError as exc:
            log.info("this store does not copy parts: %s", exc)
            return False
        return True

    def _copy_in_parts(
        self,
        source: ObjectVersion,
        key: str,
        metadata: Mapping[str, str] | None,
        content_type: str | None,
    ) -> ObjectVersion:
        params = self._replacement(source, metadata, content_type)
        request = CommitRequest(
            key,
            params["Metadata"],
            params.get("ContentType"),
            content_headers={n: params[p] for n, p in _KEPT_HEADERS.items() if p in params},
        )
        upload = self._writer.start_multipart(request)
        try:
            spans = list(split_evenly(source.size, self._copy_part_bytes))
            with ThreadPoolExecutor(_COPY_THREADS, "copy") as pool:
                futures = [
                    pool.submit(self.copy_part, upload, number, source, span)
                    for number, span in enumerate(spans, 1)
                ]
                try:
                    parts = [future.result() for future in futures]
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
            return self._writer.complete(upload, parts, request)
        except BaseException:
            self._writer.abort(upload)
            raise

    def _replacement(
        self, source: ObjectVersion, metadata: Mapping[str, str] | None, content_type: str | None
    ) -> dict[str, Any]:
        """Parameters that describe the copy in full; what is not given comes from the source."""

        def attempt(state: Attempt) -> dict[str, str]:
            headers = {"if-match": f'"{source.etag}"'}
            return self._reader.head_headers(source.key, state, headers)

        headers = self._run("HeadObject", source.key, attempt)
        info = parse_head(source.key, headers)
        _require_same(info, source)
        params: dict[str, Any] = {
            parameter: headers[name]
            for name, parameter in _KEPT_HEADERS.items()
            if headers.get(name)
        }
        params["Metadata"] = dict(info.metadata or {} if metadata is None else metadata)
        if (kept_type := content_type or info.content_type) is not None:
            params["ContentType"] = kept_type
        return params

    def _check_unchanged(self, source: ObjectVersion, state: Attempt) -> None:
        _require_same(self._reader.head_once(source.key, state), source)

    def _run(self, operation: str, key: str, attempt: Callable[[Attempt], T]) -> T:
        try:
            return self._retrier.run(operation, key, attempt)
        except ConditionFailedError as exc:
            raise as_version_changed(exc) from exc

    def _pinned(self, source: ObjectVersion) -> dict[str, Any]:
        pinned: dict[str, Any] = {"CopySource": {"Bucket": self._bucket, "Key": source.key}}
        if source.etag:
            pinned["CopySourceIfMatch"] = f'"{source.etag}"'
        return pinned


def _require_same(info: ObjectInfo, source: ObjectVersion) -> None:
    if info.etag != source.etag:
        raise VersionChangedError(
            "the object changed at the store", operation="CopyObject", key=source.key
        )


def split_evenly(size: int, part_bytes: int) -> Iterator[ByteRange]:
    """Cut ``size`` bytes into parts that obey the store's number and smallest size of parts."""
    part_bytes = max(part_bytes, MIN_PART_BYTES, -(-size // MAX_PARTS))
    for start in range(0, size, part_bytes):
        yield ByteRange(start, min(start + part_bytes, size))

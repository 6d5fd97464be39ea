"""Copies made by the server: whole objects, parts, and objects too large for one request."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from ossfs_py.errors import (
    ConditionFailedError,
    StoreError,
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
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.options import StoreOptions
from ossfs_py.store.s3.describing import TAGGING, Describer
from ossfs_py.store.s3.description import clean_etag, copy_source
from ossfs_py.store.s3.documents import copied
from ossfs_py.store.s3.error_map import AnswerError, judge
from ossfs_py.store.s3.heads import parse_head
from ossfs_py.store.s3.probing import Prober
from ossfs_py.store.s3.queries import Reader
from ossfs_py.store.s3.ranges import as_version_changed
from ossfs_py.store.s3.retry import Attempt, Retrier
from ossfs_py.store.s3.traits import KnownTraits
from ossfs_py.store.s3.uploads import Writer
from ossfs_py.store.s3.wire import Request, WireClient, patience_seconds

log = logging.getLogger(__name__)

T = TypeVar("T")

COPY_PART_BYTES = 512 * 1024**2
"""Ten parts for the smallest: enough to work in parallel, few enough to cost little."""
_COPY_THREADS = 8


class Copier:
    """Server-side copies, each pinned to its source's version by x-amz-copy-source-if-match."""

    def __init__(
        self,
        wire: WireClient,
        retrier: Retrier,
        reader: Reader,
        writer: Writer,
        describer: Describer,
        prober: Prober,
        traits: KnownTraits,
        options: StoreOptions,
        *,
        max_copy_bytes: int,
        copy_part_bytes: int,
    ) -> None:
        self._wire = wire
        self._retrier = retrier
        self._reader = reader
        self._writer = writer
        self._prober = prober
        self._traits = traits
        self._options = options
        self._bucket = options.bucket
        self._describer = describer
        self._lock = threading.Lock()
        self._keeps_tags = False
        """Whether tags were seen to be copied with new metadata."""
        self._max_copy_bytes = max_copy_bytes
        self._copy_part_bytes = copy_part_bytes

    def copy(
        self,
        source: ObjectVersion,
        key: str,
        *,
        metadata: Mapping[str, str] | None,
        content_type: str | None,
        like: ObjectInfo | None,
    ) -> ObjectVersion:
        """See :meth:`ObjectStore.copy`.

        With new metadata the source is first asked for the headers that would be lost
        (Cache-Control, Content-Encoding, ...), unless ``like`` has them. On a store that ignores
        the pin, a changed source is found only after the copy, when ``key`` has the newer bytes
        already. Repeating a copy is harmless. But if the answer to a copy onto itself is lost, the
        ETag of a multipart object has changed, so then the metadata decides.
        """
        if source.size > self._max_copy_bytes:
            return self._copy_in_parts(source, key, metadata, content_type, like)
        said, tags = CommitRequest(key), ""
        if metadata is None:
            headers = self._describer.of_plain_copy(like, source.key)
        else:
            said = self._description(source, key, metadata, content_type, like)
            headers = self._describer.of_copy(said, source.key)
            if said.like is not None and not self._keeps_tags:
                tags = headers.get(TAGGING) or self._describer.tags_of(said.like)
        request = Request(
            "CopyObject",
            "PUT",
            key,
            headers=self._source(source) | headers,
            patience_seconds=self._patience_seconds(source.size),
        )

        def attempt(state: Attempt) -> ObjectVersion:
            try:
                etag = clean_etag(copied(self._wire.once(request, state)).etag)
            except AnswerError as error:
                lost = state.may_have_happened and key == source.key and metadata is not None
                if lost and judge(error).cause is ConditionFailedError:
                    info = self._reader.head_once(key, state)
                    if info.size == source.size and info.metadata == said.metadata:
                        return info.version
                raise
            size = source.size
            if not etag:  # rclone answers copies without one
                info = self._reader.head_once(key, state)
                etag, size = info.etag, info.size
            # Some stores ignore the pin. Equal ETags prove the copy. Different ones do not disprove
            # it (multipart and encrypted objects get new ones), so then the source is checked.
            if etag != source.etag and key != source.key:
                self._check_unchanged(source, request.operation, state)
            if size != source.size:
                raise NoAnswerError("the answer to a copy names no ETag", "not_http")
            return ObjectVersion(key, etag, size)

        try:
            made = self._run("CopyObject", key, attempt)
        except UnsupportedByStoreError:
            # Ceph 16 copies no encrypted objects, but parts of them.
            if not source.size or not self.can_copy_parts():
                raise
            return self._copy_in_parts(source, key, metadata, content_type, like)
        if tags:
            self._keep_tags(key, tags)
        return made

    def _keep_tags(self, key: str, tags: str) -> None:
        """Set the tags again: Ceph 16 drops them in every copy with new metadata."""

        def attempt(state: Attempt) -> bool:
            kept = self._reader.head_once(key, state).tag_count > 0
            if not kept:
                self._writer.give_tags(key, tags, state)
            return kept

        try:
            self._keeps_tags = self._retrier.run("HeadObject", key, attempt)
        except StoreError as exc:
            log.info("tags of %r: %s", key, exc)
            self._describer.tags_refused()

    def copy_part(
        self, upload: MultipartUpload, number: int, source: ObjectVersion, span: ByteRange
    ) -> Part:
        """See :meth:`ObjectStore.copy_part`. Repeating it replaces the part by the same bytes.

        On a store that is not known to obey x-amz-copy-source-if-match (Ceph ignores it), the
        source is checked after each part, so that no object is made of two versions.
        """
        copied_range = {"x-amz-copy-source-range": f"bytes={span.start}-{span.end - 1}"}
        request = Request(
            "UploadPartCopy",
            "PUT",
            upload.key,
            query=[("partNumber", str(number)), ("uploadId", upload.upload_id)],
            headers=self._source(source) | copied_range,
            patience_seconds=self._patience_seconds(span.size),
        )

        def attempt(state: Attempt) -> Part:
            try:
                result = copied(self._wire.once(request, state))
            except AnswerError as error:
                # If the object has become shorter, the range is refused before the pin is checked.
                if source.etag and judge(error).cause is StoreError:
                    self._check_unchanged(source, request.operation, state)
                raise
            etag = clean_etag(result.etag)
            copies = self._traits.now.copies
            if not etag and (self._options.part_copy == "on" or copies not in (None, "none")):
                raise NoAnswerError("the answer to a part copy names no ETag", "not_http")
            if not etag:  # rclone answers 200 to requests that it does not know
                raise UnsupportedByStoreError(
                    "the answer to a part copy names no ETag",
                    operation="UploadPartCopy",
                    key=upload.key,
                )
            if source.etag and copies != "pinned":
                # If it is unchanged after the copy, it was so during the copy.
                self._check_unchanged(source, request.operation, state)
            return Part(number, etag, span.size, result.checksum)

        return self._run("UploadPartCopy", upload.key, attempt)

    def can_copy_parts(self) -> bool:
        """Whether UploadPartCopy works here: configured, known, or tried now."""
        choice = self._options.part_copy
        if choice != "auto":
            return choice == "on"
        with self._lock:
            known = self._traits.now.copies
            if known is None:
                try:
                    known = self._prober.part_copies()
                except StoreError as exc:
                    log.info("whether this store copies parts is not known yet: %s", exc)
                    return False
                log.info("copies of parts: %s", known)
                self._traits.learn(copies=known)
            return known != "none"

    def _copy_in_parts(
        self,
        source: ObjectVersion,
        key: str,
        metadata: Mapping[str, str] | None,
        content_type: str | None,
        like: ObjectInfo | None,
    ) -> ObjectVersion:
        request = self._description(source, key, metadata, content_type, like)
        described = self._describer.of_parts_copied(request)
        upload = self._writer.start_described(request, described)
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

    def _description(
        self,
        source: ObjectVersion,
        key: str,
        metadata: Mapping[str, str] | None,
        content_type: str | None,
        like: ObjectInfo | None,
    ) -> CommitRequest:
        """The full description of the copy; missing parts come from the source."""
        if metadata is not None and like is not None and like.described is not None:
            known_type = content_type or like.content_type
            if known_type is not None:
                return CommitRequest(key, metadata, known_type, like=like)

        def attempt(state: Attempt) -> ObjectInfo:
            headers = {"if-match": f'"{source.etag}"'} if source.has_etag else None
            told = self._reader.head_headers(source.key, state, headers, source.version_id)
            return parse_head(source.key, told)

        info = self._run("HeadObject", source.key, attempt)
        _require_same(info, source, "CopyObject")
        return CommitRequest(
            key,
            dict(info.metadata or {} if metadata is None else metadata),
            content_type or info.content_type,
            like=info if like is None or like.described is None else like,
        )

    def _patience_seconds(self, size: int) -> float:
        """Extra time for the answer: the store's disks are shared by all copies that may be
        running.

        If a copy is given up too early, the store continues it beside the repeated one. For parts
        of 64 MiB of one file of 4 GiB, 32 at once, SeaweedFS on two busy cores got each request up
        to 8 times, until it held 14 GB of them in memory.
        """
        return patience_seconds(size * self._options.concurrency)

    def _check_unchanged(self, source: ObjectVersion, operation: str, state: Attempt) -> None:
        now = self._reader.head_once(source.key, state, source.version_id)
        _require_same(now, source, operation)

    def _run(self, operation: str, key: str, attempt: Callable[[Attempt], T]) -> T:
        try:
            return self._retrier.run(operation, key, attempt)
        except ConditionFailedError as exc:
            raise as_version_changed(exc) from exc

    def _source(self, source: ObjectVersion) -> dict[str, str]:
        """The headers that name the source and, if the store understands it, its version."""
        if self._traits.now.copies == "unpinnable":
            source = replace(source, etag="")
        return copy_source(self._bucket, source)


def _require_same(info: ObjectInfo, source: ObjectVersion, operation: str) -> None:
    if info.etag != source.etag:
        raise VersionChangedError(
            "the object changed at the store", operation=operation, key=source.key
        )


def split_evenly(size: int, part_bytes: int) -> Iterator[ByteRange]:
    """Cut ``size`` bytes into parts within the store's limits of number and size."""
    part_bytes = max(part_bytes, MIN_PART_BYTES, -(-size // MAX_PARTS))
    for start in range(0, size, part_bytes):
        yield ByteRange(start, min(start + part_bytes, size))

"""Probing of a store's abilities: for each feature, one request must succeed and one must fail.

A store that ignores a condition answers the wrong one with success; a store that misreads it
refuses the right one. In both cases the feature is useless, and the caller does without it. Probes
use scratch keys below the mount's own prefix, and remove them again.
"""

import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal

from ossfs_py.errors import (
    ConditionFailedError,
    ObjectMissingError,
    StoreError,
)
from ossfs_py.model import MultipartUpload, ObjectVersion, Part
from ossfs_py.store.base import MIN_PART_BYTES
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.http.payload import BufferPayload
from ossfs_py.store.options import StoreOptions
from ossfs_py.store.s3.description import clean_etag, copy_source
from ossfs_py.store.s3.documents import completed_etag, completion, copied, tags, upload_id
from ossfs_py.store.s3.error_map import MAY_PASS, AnswerError, judge, wants_equal_parts
from ossfs_py.store.s3.heads import parse_head
from ossfs_py.store.s3.retry import Attempt, Retrier
from ossfs_py.store.s3.traits import (
    Completions,
    Copies,
    Create,
    Markers,
    PartSizes,
    Reads,
    Replace,
    TagCounts,
    Winners,
)
from ossfs_py.store.s3.wire import Answer, Request, WireClient, patience_seconds

log = logging.getLogger(__name__)

FORBID_OVERWRITE = {"x-oss-forbid-overwrite": "true"}
IF_NONE_MATCH = {"if-none-match": "*"}

_WRONG_ETAG = "0" * 32
_RACES = 2
_ONE_TAG = "ossfs-py=probe"
_MOST_FAILURES = 3
"""A server that fails this often (rclone, for tags) does not support the feature."""
_BODY = b"x"

Tried = Literal["done", "refused", "repeat refused", "unknown"]
"""``repeat refused``: on a repeat after a lost answer, so perhaps because of its own first try."""


def scratch_key(options: StoreOptions) -> str:
    """A key for a probe, below the mount's own prefix."""
    return f"{options.scratch_prefix}.ossfs-py-probe-{secrets.token_hex(8)}"


def reads_once(wire: WireClient, known: ObjectVersion, state: Attempt) -> Reads:
    """One try of :meth:`Prober.reads`.

    Raises:
        AnswerError, NoAnswerError: the answer does not say, or there is none.
    """
    headers = {"range": "bytes=0-0", "if-match": f'"{_WRONG_ETAG}"'}
    try:
        with wire.exchange(Request("GetObject", "GET", known.key, headers=headers), state):
            return "unpinned"
    except AnswerError as error:
        if judge(error).cause is not ConditionFailedError:
            raise
        return "unpinned" if _looks_before_it_opens(error.headers) else "pinned"


def _looks_before_it_opens(headers: Mapping[str, str]) -> bool:
    """Whether the store is MinIO's front end over another file system, as JuiceFS's gateway is.

    It compares ETags, and opens the file afterwards: of 300 GETs beside a writer, 4 gave the bytes
    of the next version under the ETag of the last. MinIO itself locks the object, and names its
    node or deployment.
    """
    names = ("x-amz-id-2", "x-minio-deployment-id")
    return headers.get("server") == "MinIO" and not any(name in headers for name in names)


class Prober:
    """Probes one bucket. Blocking; safe for concurrent use; remembers nothing.

    Every method raises AccessDeniedError or StoreUnavailableError if nothing is known yet.
    """

    def __init__(self, wire: WireClient, retrier: Retrier, options: StoreOptions) -> None:
        self._wire = wire
        self._retrier = retrier
        self._options = options

    def conditional_puts(self) -> tuple[Create, Replace]:
        """The ways to keep a PUT from overwriting, and from overwriting another version."""
        key = scratch_key(self._options)
        with self._removing(key):
            create = self._probe_create(key)
            return create, self._probe_replace(key)

    def winners(self, guard: Mapping[str, str]) -> Winners:
        """How many clients that create a key at the same moment succeed, each with ``guard``.

        Two tries: Swift has two winners in 34 of 40.
        """
        for _ in range(_RACES):
            key = scratch_key(self._options)
            both = threading.Barrier(2)

            def create(key: str = key, both: threading.Barrier = both) -> Tried:
                both.wait()
                return self._try_put(key, guard)

            # One of the two runs on this thread. With two others, the second could be refused while
            # the daemon ends, and the first would wait for it for ever.
            with self._removing(key), ThreadPoolExecutor(1, "probe") as threads:
                other = threads.submit(create)
                if (create(), other.result()) == ("done", "done"):
                    return "several"
        return "one"

    def completions(self, guard: Mapping[str, str]) -> Completions:
        """Whether the end of a multipart upload obeys ``guard``, which forbids overwriting."""
        key = scratch_key(self._options)
        with self._removing(key), self._uploading(key) as upload:
            self._put(key)
            part = self._send_part(upload, 1, _BODY)
            tried = self._try(completion(upload, [part], guard), completed_etag)
        return "checked" if tried in ("refused", "repeat refused") else "ignored"

    def reads(self, known: ObjectVersion) -> Reads | None:
        """Whether a GET obeys If-Match, tried on an object that was just read with the right ETag;
        None: the answer does not say. Writes nothing, as read-only mounts may not write.
        """
        try:
            return self._retrier.run(
                "GetObject", known.key, lambda state: reads_once(self._wire, known, state)
            )
        except MAY_PASS:
            raise
        except StoreError as exc:  # it was removed in the meantime, or is archived
            log.debug("probe with another version's ETag: %s", exc)
            return None

    def reads_of_scratch(self) -> Reads | None:
        """The same with an object of its own."""
        key = scratch_key(self._options)
        with self._removing(key):
            return self.reads(ObjectVersion(key, self._put(key), len(_BODY)))

    def tag_counts(self) -> TagCounts:
        """Whether a HEAD reports that an object has tags."""
        key = scratch_key(self._options)
        with self._removing(key):
            tagged = Request(
                "PutObject",
                "PUT",
                key,
                headers={"x-amz-tagging": _ONE_TAG},
                payload=BufferPayload(_BODY),
            )
            if self._try(tagged) != "done":
                return "none"
            headers = self._wire.call(Request("HeadObject", "HEAD", key)).headers
            if parse_head(key, headers).tag_count:
                return "told"
            return "untold" if self._has_tags(key) else "none"

    def _has_tags(self, key: str) -> bool:
        asking = Request("GetObjectTagging", "GET", key, [("tagging", "")])
        for _ in range(_MOST_FAILURES):
            try:
                return tags(self._wire.once(asking, Attempt())) == _ONE_TAG
            except (AnswerError, NoAnswerError) as exc:
                log.debug("probe of tags: %s", exc)
        return False

    def markers(self) -> Markers:
        """Whether a key that ends with a slash is a separate key."""
        key = scratch_key(self._options)
        marker = f"{key}/"
        with self._removing(key), self._removing(marker):
            self._wire.call(Request("PutObject", "PUT", marker, payload=BufferPayload(b"")))
            try:
                self._wire.call(Request("HeadObject", "HEAD", key))
            except ObjectMissingError:
                return "kept"
        return "files"

    def part_sizes(self) -> PartSizes | None:
        """Whether the parts of an upload may differ in size; None: it was refused for another
        reason. Sends 10 MiB.
        """
        key = scratch_key(self._options)
        sizes = (MIN_PART_BYTES, MIN_PART_BYTES + 1, 1)
        with self._removing(key), self._uploading(key) as upload:
            parts = [
                self._send_part(upload, number, bytes(size)) for number, size in enumerate(sizes, 1)
            ]

            def attempt(state: Attempt) -> PartSizes:
                try:
                    completed_etag(self._wire.once(completion(upload, parts), state))
                except AnswerError as error:
                    if not wants_equal_parts(error):
                        raise
                    return "equal"
                return "free"

            try:
                return self._retrier.run("CompleteMultipartUpload", key, attempt)
            except MAY_PASS:
                raise
            except StoreError as exc:
                log.debug("probe with parts of unequal size: %s", exc)
                return None

    def part_copies(self) -> Copies:
        """Whether UploadPartCopy works, and x-amz-copy-source-if-match with it."""
        key = scratch_key(self._options)
        with self._removing(key):
            source = ObjectVersion(key, self._put(key), len(_BODY))
            with self._uploading(key) as upload:
                right = self._copy_part(upload, copy_source(self._options.bucket, source))
                if right != "done":
                    return "none" if right == "unknown" else self._unpinned(upload, source)
                wrong = ObjectVersion(key, _WRONG_ETAG, len(_BODY))
                pinned = self._copy_part(upload, copy_source(self._options.bucket, wrong))
        return "pinned" if pinned == "refused" else "unpinned"

    def _unpinned(self, upload: MultipartUpload, source: ObjectVersion) -> Copies:
        """The result if the right version is refused."""
        anyhow = ObjectVersion(source.key, "", source.size)
        tried = self._copy_part(upload, copy_source(self._options.bucket, anyhow))
        return "unpinnable" if tried == "done" else "none"

    def _probe_create(self, key: str) -> Create:
        dialects: tuple[tuple[Create, Mapping[str, str]], ...] = (
            ("http", IF_NONE_MATCH),
            ("oss", FORBID_OVERWRITE),
        )
        exists = ignored = False
        for dialect, header in dialects:
            if not exists:
                # Nobody else knows the key: if it is refused now, our own earlier try has written
                # it.
                exists = self._try_put(key, header) in ("done", "repeat refused")
                if not exists:
                    continue
            again = self._try_put(key, header)
            if again in ("refused", "repeat refused"):
                return dialect
            # Every store ignores headers of other vendors; only its own ones matter.
            ignored = ignored or (dialect == "http" and again == "done")
        if not exists:
            self._put(key)
        return "ignored" if ignored else "refused"

    def _probe_replace(self, key: str) -> Replace:
        etag = self._etag(key)
        spellings: tuple[tuple[Replace, str], ...] = (("quoted", '"{}"'), ("bare", "{}"))
        for spelling, pattern in spellings:
            wrong = self._try_put(key, {"if-match": pattern.format(_WRONG_ETAG)})
            if wrong not in ("refused", "repeat refused"):
                return "ignored" if wrong == "done" else "refused"
            if etag and self._try_put(key, {"if-match": pattern.format(etag)}) == "done":
                return spelling
        return "refused"

    def _etag(self, key: str) -> str:
        answer = self._wire.call(Request("HeadObject", "HEAD", key))
        return clean_etag(answer.headers.get("etag", ""))

    def _put(self, key: str) -> str:
        request = Request("PutObject", "PUT", key, payload=BufferPayload(_BODY))
        etag = clean_etag(self._wire.call(request).headers.get("etag", ""))
        return etag or self._etag(key)

    def _try_put(self, key: str, headers: Mapping[str, str]) -> Tried:
        request = Request("PutObject", "PUT", key, headers=headers, payload=BufferPayload(_BODY))
        return self._try(request)

    def _send_part(self, upload: MultipartUpload, number: int, body: bytes) -> Part:
        request = Request(
            "UploadPart",
            "PUT",
            upload.key,
            query=[("partNumber", str(number)), ("uploadId", upload.upload_id)],
            payload=BufferPayload(body),
            patience_seconds=patience_seconds(len(body)),
        )
        etag = clean_etag(self._wire.call(request).headers.get("etag", ""))
        return Part(number, etag, len(body))

    def _copy_part(self, upload: MultipartUpload, source: Mapping[str, str]) -> Tried:
        def require_etag(answer: Answer) -> None:
            if not copied(answer).etag:  # rclone answers 200 to requests that it does not know
                raise AnswerError(501, "NotImplemented")

        query = [("partNumber", "1"), ("uploadId", upload.upload_id)]
        request = Request("UploadPartCopy", "PUT", upload.key, query=query, headers=source)
        return self._try(request, require_etag)

    def _try(self, request: Request, check: Callable[[Answer], object] | None = None) -> Tried:
        def attempt(state: Attempt) -> Tried:
            try:
                answer = self._wire.once(request, state)
                if check is not None:
                    check(answer)
            except AnswerError as error:
                if judge(error).cause is not ConditionFailedError:
                    raise
                return "repeat refused" if state.may_have_happened else "refused"
            return "done"

        try:
            return self._retrier.run(request.operation, request.key, attempt)
        except MAY_PASS:
            raise
        except StoreError as exc:
            log.debug("probe with %s: %s", sorted(request.headers or {}), exc)
            return "unknown"

    @contextmanager
    def _uploading(self, key: str) -> Iterator[MultipartUpload]:
        begin = Request("CreateMultipartUpload", "POST", key, query=[("uploads", "")])

        def attempt(state: Attempt) -> MultipartUpload:
            return MultipartUpload(key, upload_id(self._wire.once(begin, state)))

        upload = self._retrier.run(begin.operation, key, attempt)
        try:
            yield upload
        finally:
            self._tidy(
                Request(
                    "AbortMultipartUpload", "DELETE", key, query=[("uploadId", upload.upload_id)]
                )
            )

    @contextmanager
    def _removing(self, key: str) -> Iterator[None]:
        try:
            yield
        finally:
            self._tidy(Request("DeleteObject", "DELETE", key))

    def _tidy(self, request: Request) -> None:
        def attempt(state: Attempt) -> None:
            try:
                self._wire.once(request, state)
            except AnswerError as error:
                if error.status != 404:
                    raise

        try:
            self._retrier.run(request.operation, request.key, attempt)
        except StoreError as exc:
            log.warning("what a probe made could not be removed: %s", exc)

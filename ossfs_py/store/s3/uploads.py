"""Uploads, whole and in parts, and deletions."""

import hashlib
import logging
import threading
from collections.abc import Mapping, Sequence

from ossfs_py.errors import (
    AccessDeniedError,
    BucketMissingError,
    ConditionFailedError,
    IntegrityError,
    ObjectMissingError,
    StoreError,
    UnequalPartsError,
    UnsupportedByStoreError,
)
from ossfs_py.model import (
    Body,
    CommitRequest,
    MultipartUpload,
    ObjectInfo,
    ObjectVersion,
    Part,
)
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.http.http1 import AnswerHead
from ossfs_py.store.http.payload import Payload
from ossfs_py.store.options import StoreOptions
from ossfs_py.store.s3.bodies import (
    CHECKSUM_HEADERS,
    CRC_HEADER,
    Checksum,
    crc32c,
    digest_headers,
    md5,
    payload_of,
)
from ossfs_py.store.s3.conditions import Conditions
from ossfs_py.store.s3.describing import TAGGING, Describer, request_of_tags
from ossfs_py.store.s3.description import clean_etag
from ossfs_py.store.s3.documents import completed_etag, completion, upload_id
from ossfs_py.store.s3.error_map import AnswerError, judge, request_id_of, wants_equal_parts
from ossfs_py.store.s3.heads import etag_told
from ossfs_py.store.s3.probing import Prober, scratch_key
from ossfs_py.store.s3.queries import Reader
from ossfs_py.store.s3.retry import Attempt, Retrier
from ossfs_py.store.s3.traits import KnownTraits
from ossfs_py.store.s3.wire import Answer, Request, WireClient, patience_seconds
from ossfs_py.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_OK = 200


class Writer:
    """All requests that make or remove objects, except copies.

    After a lost answer, an unconditional PUT and a part are sent again (the same bytes under the
    same name). If a repeated conditional PUT or completion is refused, the first one may have
    succeeded; so the present object is compared with the sent bytes.
    """

    def __init__(
        self,
        wire: WireClient,
        retrier: Retrier,
        reader: Reader,
        conditions: Conditions,
        options: StoreOptions,
        metrics: Metrics,
        checksum: Checksum,
        traits: KnownTraits,
        describer: Describer,
        prober: Prober,
    ) -> None:
        self._wire = wire
        self._retrier = retrier
        self._reader = reader
        self._conditions = conditions
        self._options = options
        self._lock = threading.Lock()
        self._etag_told: bool | None = None
        self._is_usual = False
        """Whether the answer to the last PUT was an ETag and nothing else."""
        self._describer = describer
        self._prober = prober
        self._sent = metrics.bytes_sent
        self._chosen_checksum = checksum
        self._traits = traits

    def put(self, request: CommitRequest, body: Body) -> ObjectVersion:
        """See :meth:`ObjectStore.put`.

        If a repeated create is refused although the key has exactly the sent bytes, it counts as
        done: whichever client wrote them, the caller's object is there.
        """
        key, condition, payload = request.key, request.condition, payload_of(body)
        if key.endswith("/") and not payload.size:
            self._require_markers(key)
        headers = self._describer.of_new_bytes(request)
        headers |= digest_headers(payload, self._checksum)
        if condition.repeated and condition.limits:
            stored = self._retrier.run(
                "HeadObject", key, lambda state: self._find_same(key, payload, state)
            )
            if stored is not None:
                return stored
        guard = self._conditions.headers_for("PutObject", key, condition)
        sending = _put_of(key, headers | guard, payload)

        def attempt(state: Attempt) -> ObjectVersion:
            try:
                answer = self._upload(sending, state)
            except AnswerError as error:
                _require_key(error, guard, "PutObject", key)
                may_be_ours = state.may_have_happened or condition.repeated
                if not (guard and may_be_ours and judge(error).cause is ConditionFailedError):
                    raise
                same = self._find_same(key, payload, state)
                if same is None:
                    raise
                return same
            etag = clean_etag(answer.headers.get("etag", ""))
            self._is_usual = bool(etag) and not answer.body
            if not etag:  # some servers only report it in a HEAD
                found = self._reader.head_once(key, state)
                if found.size != payload.size:
                    raise NoAnswerError("the answer names no ETag, and the object is another one")
                etag = found.etag
            return ObjectVersion(key, etag, payload.size)

        return self._retrier.run("PutObject", key, attempt)

    def usual_put(self, request: CommitRequest, body: bytes) -> Request | None:
        """The PUT of a new object, if nothing has to be asked before, and :meth:`usual_answer` is
        likely to understand the answer. Does not wait.
        """
        key, condition = request.key, request.condition
        guard = self._conditions.known_headers(condition)
        if (
            not self._is_usual
            or guard is None
            or condition.repeated
            or request.like is not None
            or (key.endswith("/") and self._traits.now.markers in (None, "files"))
        ):
            return None
        payload = payload_of(body)
        headers = self._describer.of_new_object(request)
        headers |= digest_headers(payload, self._checksum)
        return _put_of(key, headers | guard, payload)

    def usual_answer(self, request: Request, head: AnswerHead) -> ObjectVersion | None:
        """The version that a :meth:`usual_put` has made; None: only :meth:`put` can tell."""
        etag, kept = clean_etag(head.headers.get("etag", "")), head.headers.get(CRC_HEADER)
        sent, payload = (request.headers or {}).get(CRC_HEADER), request.payload
        if (
            head.status != _OK
            or not etag
            or payload is None
            or "transfer-encoding" in head.headers
            or head.headers.get("content-length") != "0"
            or (kept is not None and sent is not None and kept != sent)
        ):
            self._is_usual = False  # until a thread has seen a usual answer
            return None
        self._sent.inc(payload.size)
        return ObjectVersion(request.key, etag, payload.size)

    def start_multipart(self, request: CommitRequest) -> MultipartUpload:
        """See :meth:`ObjectStore.start_multipart`. A lost answer leaves an unknown upload."""
        return self.start_described(request, self._describer.of_new_bytes(request))

    def start_described(
        self, request: CommitRequest, description: Mapping[str, str]
    ) -> MultipartUpload:
        """Begin an upload whose full description is in the headers ``description``."""
        key, headers = request.key, dict(description)
        if self._checksum == "crc32c":
            headers["x-amz-checksum-algorithm"] = "CRC32C"
        guard = self._conditions.headers_for("CreateMultipartUpload", key, request.condition)
        # OSS wants its own header at both ends of an upload; S3's belong to the completion.
        headers |= {name: value for name, value in guard.items() if name.startswith("x-oss-")}
        asking = Request(
            "CreateMultipartUpload", "POST", key, query=[("uploads", "")], headers=headers
        )

        def attempt(state: Attempt) -> MultipartUpload:
            return MultipartUpload(
                key, upload_id(self._send(asking, state)), headers.get(TAGGING, "")
            )

        return self._retrier.run("CreateMultipartUpload", key, attempt)

    def upload_part(self, upload: MultipartUpload, number: int, body: Body) -> Part:
        """See :meth:`ObjectStore.upload_part`."""
        payload = payload_of(body)
        request = Request(
            "UploadPart",
            "PUT",
            upload.key,
            query=[("partNumber", str(number)), ("uploadId", upload.upload_id)],
            headers=digest_headers(payload, self._checksum),
            payload=payload,
            patience_seconds=patience_seconds(payload.size),
        )

        def attempt(state: Attempt) -> Part:
            try:
                answer = self._upload(request, state)
            except AnswerError as error:
                if judge(error).cause is IntegrityError:
                    self._require_unchanged(request, payload, state)
                raise
            etag = clean_etag(answer.headers.get("etag", ""))
            return Part(number, etag, payload.size, answer.headers.get(CRC_HEADER))

        return self._retrier.run("UploadPart", upload.key, attempt)

    def complete(
        self, upload: MultipartUpload, parts: Sequence[Part], request: CommitRequest
    ) -> ObjectVersion:
        """See :meth:`ObjectStore.complete`."""
        condition = request.condition
        ordered = sorted(parts, key=lambda part: part.number)
        size = sum(part.size for part in ordered)
        if condition.repeated:
            made = self._retrier.run(
                "HeadObject", upload.key, lambda state: self._found(upload.key, state)
            )
            if made is not None and _is_made_of(made, ordered, size):
                return made.version
        guard = self._conditions.headers_for("CompleteMultipartUpload", upload.key, condition)
        asking = completion(upload, ordered, guard)

        def attempt(state: Attempt) -> ObjectVersion:
            try:
                etag = completed_etag(self._wire.once(asking, state))
            except AnswerError as error:
                _require_key(error, guard, "CompleteMultipartUpload", upload.key)
                if wants_equal_parts(error):
                    raise self._unequal(error, upload.key) from error
                again = state.number > 1 and error.status >= 500
                refused = judge(error).cause in (ObjectMissingError, ConditionFailedError)
                may_be_ours = state.may_have_happened or condition.repeated
                if not (may_be_ours and (refused or again)):
                    raise
                found = self._found(upload.key, state)
                if found is not None and _is_made_of(found, ordered, size):
                    return found.version
                gone = error.code == "NoSuchUpload" or (again and self._is_gone(upload, state))
                if gone and found is not None and self._is_alike(found, request, size, state):
                    return found.version
                raise (_no_such_upload(error) if gone else error) from None
            return self._verify(upload, clean_etag(etag), size, state)

        return self._retrier.run("CompleteMultipartUpload", upload.key, attempt)

    def abort(self, upload: MultipartUpload) -> None:
        """See :meth:`ObjectStore.abort`."""
        request = Request(
            "AbortMultipartUpload", "DELETE", upload.key, query=[("uploadId", upload.upload_id)]
        )

        def attempt(state: Attempt) -> None:
            try:
                self._wire.once(request, state)
            except AnswerError as error:
                if judge(error).cause not in (ObjectMissingError, BucketMissingError):
                    raise

        self._retrier.run("AbortMultipartUpload", upload.key, attempt)

    def delete(self, key: str) -> None:
        """See :meth:`ObjectStore.delete`."""

        def attempt(state: Attempt) -> None:
            try:
                _require_no_page(self._wire.once(Request("DeleteObject", "DELETE", key), state))
            except AnswerError as error:
                if judge(error).cause is not ObjectMissingError:
                    raise

        self._retrier.run("DeleteObject", key, attempt)

    def _require_unchanged(self, request: Request, payload: Payload, state: Attempt) -> None:
        """There is no point in sending bytes again that are not those of their checksum any more: a
        program has changed the file meanwhile, and waits until this part is out of the way.
        """
        headers = digest_headers(payload, self._checksum, anew=True)
        if not headers.items() <= (request.headers or {}).items():
            raise IntegrityError(
                "the bytes changed while they were sent",
                operation=request.operation,
                key=request.key,
                attempts=state.number,
            )

    def _upload(self, request: Request, state: Attempt) -> Answer:
        answer = self._send(request, state)
        _require_no_page(answer)
        payload = request.payload
        self._sent.inc(payload.size if payload else 0)
        kept = answer.headers.get(CRC_HEADER)
        sent = (request.headers or {}).get(CRC_HEADER)
        if kept is not None and sent is not None and kept != sent:
            raise IntegrityError(
                f"the store kept the checksum {kept}, sent was {sent}",
                operation=request.operation,
                key=request.key,
                request_id=request_id_of(answer.headers),
                attempts=state.number,
            )
        return answer

    def _send(self, request: Request, state: Attempt) -> Answer:
        """One try, and another without tags if those are refused: bytes matter more than tags."""
        try:
            return self._send_checked(request, state)
        except AnswerError as error:
            headers = request.headers or {}
            refused = judge(error).cause in (AccessDeniedError, UnsupportedByStoreError)
            if TAGGING not in headers or not refused:
                raise
            bare = {name: value for name, value in headers.items() if name != TAGGING}
            answer = self._send_checked(request._replace(headers=bare), state)
        self._describer.tags_refused()
        return answer

    def _send_checked(self, request: Request, state: Attempt) -> Answer:
        """One try, and another without checksums if the store refuses such headers."""
        try:
            return self._wire.once(request, state)
        except AnswerError as error:
            headers = request.headers or {}
            plain = {n: value for n, value in headers.items() if not n.startswith(CHECKSUM_HEADERS)}
            if len(plain) == len(headers) or not self._may_refuse_checksums(error):
                raise
            answer = self._wire.once(request._replace(headers=plain), state)
        with self._lock:
            if self._traits.now.checksums != "refused":
                self._traits.learn(checksums="refused")
                log.warning("this store refuses checksum headers: uploads go without them")
        return answer

    def _may_refuse_checksums(self, error: AnswerError) -> bool:
        """Backblaze B2 answers 400 InvalidArgument, others 400 without a known code, or 501."""
        nothing_else = judge(error).cause in (StoreError, UnsupportedByStoreError)
        automatic = self._options.checksum == "auto"
        return automatic and nothing_else and error.status in (400, 501)

    @property
    def wants_crc32c(self) -> bool:
        """See :class:`ObjectStore`."""
        return self._checksum == "crc32c"

    @property
    def _checksum(self) -> Checksum:
        refused = self._options.checksum == "auto" and self._traits.now.checksums == "refused"
        return "none" if refused else self._chosen_checksum

    def _require_markers(self, key: str) -> None:
        """Some servers (rclone) turn the marker of an empty directory into a file, and then nothing
        can be stored below it.
        """
        with self._lock:
            if self._traits.now.markers is None:
                try:
                    found = self._prober.markers()
                except StoreError as exc:
                    log.info("whether this store keeps empty directories is not known yet: %s", exc)
                    return
                self._traits.learn(markers=found)
                if found == "files":
                    log.warning(
                        "this store makes files of empty directories: those made here are known to "
                        "this mount only, until something is in them"
                    )
            if self._traits.now.markers == "files":
                raise UnsupportedByStoreError(
                    "the store would make a file of it", operation="PutObject", key=key
                )

    def _unequal(self, error: AnswerError, key: str) -> UnequalPartsError:
        if self._traits.now.part_sizes != "equal":
            self._traits.learn(part_sizes="equal")
            log.warning("this store wants parts of one size: uploads are cut that way")
        return UnequalPartsError(
            str(error),
            operation="CompleteMultipartUpload",
            key=key,
            request_id=error.request_id,
        )

    def _find_same(self, key: str, payload: Payload, state: Attempt) -> ObjectVersion | None:
        """The object under ``key`` if it holds exactly ``payload``."""
        try:
            asking = {"x-amz-checksum-mode": "ENABLED"} if self._checksum == "crc32c" else None
            headers = self._reader.head_headers(key, state, asking)
        except AnswerError as error:
            if error.status == 404:
                return None
            raise
        etag = etag_told(headers)
        same_bytes = etag == md5(payload).hex() or (
            CRC_HEADER in headers and headers[CRC_HEADER] == crc32c(payload)
        )
        if headers.get("content-length") == str(payload.size) and same_bytes:
            return ObjectVersion(key, etag, payload.size)
        return None

    def _is_gone(self, upload: MultipartUpload, state: Attempt) -> bool:
        """Whether the store does not know the upload, whatever it answers to its completion.

        After an abort, Ceph 16 answers 500 "already in progress" to the completion, for ever, and
        404 NoSuchKey to ListParts.
        """
        query = [("uploadId", upload.upload_id), ("max-parts", "1")]
        try:
            self._wire.once(Request("ListParts", "GET", upload.key, query=query), state)
        except AnswerError as error:
            return error.code in ("NoSuchUpload", "NoSuchKey")
        return False

    def _found(self, key: str, state: Attempt) -> ObjectInfo | None:
        try:
            return self._reader.head_once(key, state)
        except AnswerError as error:
            if error.status == 404:
                return None
            raise

    def _is_alike(
        self, found: ObjectInfo, request: CommitRequest, size: int, state: Attempt
    ) -> bool:
        """Whether it has the requested description, on a store whose ETags do not depend on parts
        (rclone). The upload must be gone: only its completion or its abort ends it.
        """
        alike = found.size == size and dict(found.metadata or {}) == dict(request.metadata)
        return alike and "-" not in found.etag and not self._completion_tells_etag(state)

    def _verify(
        self, upload: MultipartUpload, etag: str, size: int, state: Attempt
    ) -> ObjectVersion:
        key = upload.key
        info = self._reader.head_once(key, state)
        if etag and info.etag != etag and self._completion_tells_etag(state):
            # Another client has written since; the completed object cannot be seen any more.
            return ObjectVersion(key, etag, size)
        if info.size != size:
            raise IntegrityError(
                f"the finished object has {info.size} bytes instead of {size}",
                operation="CompleteMultipartUpload",
                key=key,
                attempts=state.number,
            )
        if upload.tags and not info.tag_count:
            # Ceph 16 drops the tags that an upload began with.
            self.give_tags(upload.key, upload.tags, state)
        return info.version

    def give_tags(self, key: str, tags: str, state: Attempt) -> None:
        """One try of PutObjectTagging, for use inside another call's attempt; ``tags`` in the
        format of the header ``x-amz-tagging``. A failure is logged once: the object is there.
        """
        try:
            self._wire.once(request_of_tags(key, tags), state)
        except (AnswerError, NoAnswerError) as exc:
            log.info("tags of %r: %s", key, exc)
            self._describer.tags_refused()

    def _completion_tells_etag(self, state: Attempt) -> bool:
        """Whether the ETag in the answer to a completion is that of the object.

        rclone's is not. Checked only if the two differ, with a scratch key that nobody else writes,
        and remembered.
        """
        with self._lock:
            if self._etag_told is None:
                key = scratch_key(self._options)
                upload = self.start_multipart(CommitRequest(key))
                part = self.upload_part(upload, 1, b"x")
                request = completion(upload, [part])
                etag = completed_etag(self._wire.once(request, state))
                self._etag_told = clean_etag(etag) == self._reader.head(key).etag
                self.delete(key)
            return self._etag_told


def _is_made_of(found: ObjectInfo, parts: Sequence[Part], size: int) -> bool:
    """Whether an object consists of these parts."""
    expected = _multipart_etag(parts)
    if expected is not None and len(found.etag) == len(expected):
        return found.size == size and found.etag == expected
    # Encrypting stores make their own ETags; there the number of parts has to be enough.
    return found.size == size and found.etag.endswith(f"-{len(parts)}")


def _put_of(key: str, headers: Mapping[str, str], payload: Payload) -> Request:
    return Request(
        "PutObject",
        "PUT",
        key,
        headers=dict(headers),
        payload=payload,
        patience_seconds=patience_seconds(payload.size),
    )


def _require_no_page(answer: Answer) -> None:
    """Stores answer uploads and removals without a body: a page of HTML is that of a gateway, which
    has done nothing.

    Raises:
        NoAnswerError: there is a body, and no ETag.
    """
    if answer.body.strip() and "etag" not in answer.headers:
        raise NoAnswerError("the answer is a page of something that is no store", "not_http")


def _no_such_upload(error: AnswerError) -> AnswerError:
    return AnswerError(404, "NoSuchUpload", error.message, error.request_id)


def _require_key(error: AnswerError, guard: Mapping[str, str], operation: str, key: str) -> None:
    """AWS answers 404, not 412, to If-Match on a key that is gone."""
    if "if-match" in guard and error.code == "NoSuchKey":
        raise ConditionFailedError(
            "the key is gone", operation=operation, key=key, request_id=error.request_id
        )


def _multipart_etag(parts: Sequence[Part]) -> str | None:
    """The MD5 of the parts' MD5s, the usual ETag; None if the parts' ETags are no MD5s."""
    try:
        digests = [bytes.fromhex(part.etag) for part in parts]
    except ValueError:
        return None
    if any(len(digest) != 16 for digest in digests):
        return None
    whole = hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()
    return f"{whole}-{len(parts)}"

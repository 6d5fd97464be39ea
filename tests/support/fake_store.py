"""An object store in memory: the whole ObjectStore protocol, counted and breakable.

Every write makes a new ETag and a later time. ``requests`` counts calls by method name,
``on_request`` sees each call before it is carried out (on the calling thread) and may raise.
"""

import copy
import itertools
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from ossfs_py.errors import (
    ConditionFailedError,
    IntegrityError,
    ObjectMissingError,
    StoreError,
    UnsupportedByStoreError,
    VersionChangedError,
)
from ossfs_py.model import (
    NO_METADATA,
    Body,
    ByteRange,
    CommitRequest,
    Condition,
    FileSlice,
    ListPage,
    ListQuery,
    MultipartUpload,
    ObjectInfo,
    ObjectVersion,
    Part,
    Pieces,
)
from ossfs_py.store.base import MAX_COPY_BYTES, MAX_PARTS, MIN_PART_BYTES, Capabilities, Versioning
from ossfs_py.store.checksum import crc32c
from ossfs_py.store.http.arrival import Arrival

NS_PER_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as the fake keeps it."""

    content: bytes
    info: ObjectInfo


@dataclass(slots=True)
class _Upload:
    key: str
    metadata: Mapping[str, str]
    content_type: str | None
    parts: dict[int, tuple[Part, bytes]] = field(default_factory=dict)
    result: ObjectVersion | None = None


class FakeStore:
    """One bucket in memory. Thread-safe; atomic per call."""

    def __init__(
        self,
        *,
        page_size: int = 1000,
        min_part_bytes: int = MIN_PART_BYTES,
        max_copy_bytes: int = MAX_COPY_BYTES,
        capabilities: Capabilities | None = None,
    ) -> None:
        self.objects: dict[str, StoredObject] = {}
        self.requests: Counter[str] = Counter()
        self.log: list[tuple[str, str]] = []
        """Every call in order: method and key or prefix."""
        self.bytes_read = 0
        self.bytes_written = 0
        self.on_request: Callable[[str, str], None] | None = None
        self.uploads: dict[str, _Upload] = {}
        self.closed = False
        self._page_size = page_size
        self._min_part_bytes = min_part_bytes
        self._max_copy_bytes = max_copy_bytes
        self._capabilities = capabilities or Capabilities(
            conditional_create=True, conditional_replace=True, part_copy=True
        )
        self._lock = threading.RLock()
        self._serial = itertools.count(1)
        self._failures: dict[str, list[tuple[str | None, StoreError]]] = {}
        self._gates: dict[str, threading.Event] = {}
        self._clock_ns = 1_700_000_000 * NS_PER_SECOND

    # -- what tests do behind the mount's back ----------------------------------------------------

    def seed(
        self,
        key: str,
        content: bytes = b"",
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> ObjectVersion:
        """Another client writes an object; not counted."""
        with self._lock:
            return self._write(key, content, metadata or {}, content_type)

    def erase(self, key: str) -> None:
        """Another client deletes an object; not counted."""
        with self._lock:
            self.objects.pop(key, None)

    def content(self, key: str) -> bytes:
        """An object's bytes; not counted."""
        return self.objects[key].content

    def metadata(self, key: str) -> Mapping[str, str]:
        """An object's user metadata; not counted."""
        metadata = self.objects[key].info.metadata
        assert metadata is not None
        return metadata

    def be_like(self, other: "FakeStore") -> None:
        """Hold what another one holds, uploads that are not complete included."""
        with other._lock:
            self.objects = dict(other.objects)
            self.uploads = copy.deepcopy(other.uploads)
            self._serial, self._clock_ns = copy.copy(other._serial), other._clock_ns

    def keys(self) -> list[str]:
        """All keys in order."""
        return sorted(self.objects)

    def fail(
        self, method: str, error: StoreError, *, key: str | None = None, times: int = 1
    ) -> None:
        """The next ``times`` calls of a method (of that key) fail before doing anything."""
        with self._lock:
            self._failures.setdefault(method, []).extend([(key, error)] * times)

    def mend(self) -> None:
        """Nothing fails any more."""
        with self._lock:
            self._failures.clear()

    def hold(self, method: str) -> threading.Event:
        """Calls of a method wait, before doing anything, until the returned event is set."""
        gate = self._gates[method] = threading.Event()
        return gate

    @contextmanager
    def holding(self, method: str) -> Iterator[threading.Event]:
        """As :meth:`hold`, no longer than the block runs."""
        gate = self.hold(method)
        try:
            yield gate
        finally:
            gate.set()

    def take_requests(self) -> dict[str, int]:
        """The counts since the last time."""
        with self._lock:
            counts = dict(self.requests)
            self.requests.clear()
            self.log.clear()
        return counts

    # -- ObjectStore ------------------------------------------------------------------------------

    @property
    def place(self) -> str:
        return "http://store"

    equal_parts = False

    def expect_new_objects(self) -> None:
        """Everything is known."""

    wants_crc32c = True

    def capabilities(self, *, thorough: bool = False) -> Capabilities:
        return self._capabilities

    def check(self, prefix: str, timeout_seconds: float) -> bool:
        self._enter("check", prefix)
        return any(key.startswith(prefix) for key in self.objects)

    def head(self, key: str) -> ObjectInfo:
        self._enter("head", key)
        with self._lock:
            return self._get(key).info

    def list_page(self, query: ListQuery) -> ListPage:
        prefix, delimiter = query.prefix, query.delimiter
        self._enter("list_page", prefix)
        with self._lock:
            after = query.token if query.token is not None else query.start_after
            limit = min(query.max_keys, self._page_size)
            objects: list[ObjectInfo] = []
            prefixes: dict[str, None] = {}
            last = ""
            for key in sorted(self.objects, key=self._order):
                if not key.startswith(prefix):
                    continue
                common = None
                if delimiter and delimiter in key[len(prefix) :]:
                    end = key.index(delimiter, len(prefix)) + len(delimiter)
                    common = key[:end]
                shown = common if common is not None else key
                if (after is not None and not self._is_behind(shown, after)) or shown in prefixes:
                    continue
                if len(objects) + len(prefixes) >= limit:
                    return ListPage(tuple(objects), tuple(prefixes), last)
                last = shown
                if common is not None:
                    prefixes[common] = None
                else:
                    objects.append(self.objects[key].info._replace(metadata=None, described=None))
            return ListPage(tuple(objects), tuple(prefixes), None)

    def _order(self, key: str) -> str | list[str]:
        return key

    def _is_behind(self, shown: str, after: str) -> bool:
        return shown > after

    def get_range_into(
        self, version: ObjectVersion, start: int, buffer: memoryview
    ) -> ObjectInfo | None:
        self._enter("get_range_into", version.key)
        with self._lock:
            stored = self._pinned(version)
            end = start + len(buffer)
            if end > len(stored.content):
                raise AssertionError(f"range {start}-{end} past {len(stored.content)} bytes")
            buffer[:] = stored.content[start:end]
            self.bytes_read += len(buffer)
            return None if start else stored.info

    def get_range_gradually(
        self, version: ObjectVersion, start: int, buffer: memoryview, _arrival: Arrival
    ) -> ObjectInfo | None:
        return self.get_range_into(version, start, buffer)

    def put(self, request: CommitRequest, body: Body) -> ObjectVersion:
        self._enter("put", request.key)
        content = _bytes_of(body)
        with self._lock:
            self._require(request.key, request.condition)
            self.bytes_written += len(content)
            return self._write(request.key, content, request.metadata, request.content_type)

    def start_multipart(self, request: CommitRequest) -> MultipartUpload:
        self._enter("start_multipart", request.key)
        with self._lock:
            upload_id = f"upload-{next(self._serial)}"
            metadata = dict(request.metadata)
            self.uploads[upload_id] = _Upload(request.key, metadata, request.content_type)
            return MultipartUpload(request.key, upload_id)

    def upload_part(self, upload: MultipartUpload, number: int, body: Body) -> Part:
        self._enter("upload_part", upload.key)
        content = _bytes_of(body)
        with self._lock:
            self.bytes_written += len(content)
            return self._add_part(upload, number, content)

    def copy_part(
        self, upload: MultipartUpload, number: int, source: ObjectVersion, span: ByteRange
    ) -> Part:
        self._enter("copy_part", upload.key)
        if not self._capabilities.part_copy:
            raise UnsupportedByStoreError("no UploadPartCopy here", operation="UploadPartCopy")
        if span.size > self._max_copy_bytes:
            raise StoreError("copy source range too large", operation="UploadPartCopy")
        with self._lock:
            stored = self._pinned(source)
            return self._add_part(upload, number, stored.content[span.start : span.end])

    def complete(
        self, upload: MultipartUpload, parts: Sequence[Part], request: CommitRequest
    ) -> ObjectVersion:
        self._enter("complete", upload.key)
        with self._lock:
            known = self._upload(upload)
            if known.result is not None:
                return known.result
            self._require(upload.key, request.condition)
            numbers = [part.number for part in parts]
            if not parts or numbers != sorted(set(numbers)):
                raise StoreError("InvalidPartOrder", operation="CompleteMultipartUpload")
            content = bytearray()
            for place, part in enumerate(parts, 1):
                kept, piece = known.parts.get(part.number, (None, b""))
                if kept != part:
                    raise StoreError("InvalidPart", operation="CompleteMultipartUpload")
                if place < len(parts) and len(piece) < self._min_part_bytes:
                    raise StoreError("EntityTooSmall", operation="CompleteMultipartUpload")
                content += piece
            if len(content) != sum(part.size for part in parts):
                raise IntegrityError("size mismatch", operation="CompleteMultipartUpload")
            known.result = self._write(
                upload.key, bytes(content), known.metadata, known.content_type, parts=len(parts)
            )
            known.parts.clear()
            return known.result

    def abort(self, upload: MultipartUpload) -> None:
        self._enter("abort", upload.key)
        with self._lock:
            self.uploads.pop(upload.upload_id, None)

    def copy(
        self,
        source: ObjectVersion,
        key: str,
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
        like: ObjectInfo | None = None,
    ) -> ObjectVersion:
        self._enter("copy", source.key)
        with self._lock:
            stored = self._pinned(source)
            if metadata is None and key == source.key and source.version_id is None:
                raise StoreError("a copy onto itself has to change something")
            return self._write(
                key,
                stored.content,
                stored.info.metadata or {} if metadata is None else metadata,
                content_type or stored.info.content_type,
            )

    def owner(self, key: str) -> str | None:
        self._enter("owner", key)
        return "somebody" if key in self.objects else None

    def delete(self, key: str) -> None:
        self._enter("delete", key)
        with self._lock:
            self.objects.pop(key, None)

    def delete_many(self, keys: Sequence[str]) -> list[str]:
        """One request; a key whose ``delete`` is to fail is not removed."""
        self._enter("delete_many", keys[0])
        with self._lock:
            refused = [
                key
                for key in keys
                if any(only in (None, key) for only, _ in self._failures.get("delete", []))
            ]
            for key in keys:
                if key not in refused:
                    self.log.append(("delete_many", key))
                    self.objects.pop(key, None)
            return refused

    def versioning(self) -> Versioning:
        self._enter("versioning", "")
        return "off"

    def denied_descriptions(self, key: str) -> list[StoreError]:
        """An error of ``on_request`` or of a planned failure is returned."""
        try:
            self._enter("denied_descriptions", key)
        except StoreError as exc:
            return [exc]
        return []

    def refresh_credentials(self) -> None:
        self._enter("refresh_credentials", "")

    def close(self) -> None:
        self.closed = True

    # -- inside -----------------------------------------------------------------------------------

    def _enter(self, method: str, key: str) -> None:
        with self._lock:
            self.requests[method] += 1
            self.log.append((method, key))
            failure = self._next_failure(method, key)
        if self.on_request is not None:
            self.on_request(method, key)
        gate = self._gates.get(method)
        if gate is not None and not gate.wait(timeout=120):
            raise AssertionError(f"the test never let {method} go on")
        if failure is not None:
            raise failure

    def _next_failure(self, method: str, key: str) -> StoreError | None:
        failures = self._failures.get(method, [])
        for place, (only_key, error) in enumerate(failures):
            if only_key is None or only_key == key:
                del failures[place]
                return error
        return None

    def _get(self, key: str) -> StoredObject:
        try:
            return self.objects[key]
        except KeyError:
            raise ObjectMissingError("no such key", key=key) from None

    def _pinned(self, version: ObjectVersion) -> StoredObject:
        stored = self._get(version.key)
        if stored.info.etag != version.etag:
            raise VersionChangedError("another version", key=version.key)
        return stored

    def _require(self, key: str, condition: Condition) -> None:
        stored = self.objects.get(key)
        if condition.only_if_absent and stored is not None:
            raise ConditionFailedError("the key exists", key=key)
        wanted = condition.only_if_etag
        if wanted is not None and (stored is None or stored.info.etag != wanted):
            raise ConditionFailedError("another version", key=key)

    def _upload(self, upload: MultipartUpload) -> _Upload:
        known = self.uploads.get(upload.upload_id)
        if known is None or known.key != upload.key:
            raise ObjectMissingError("no such upload", key=upload.key)
        return known

    def _add_part(self, upload: MultipartUpload, number: int, content: bytes) -> Part:
        if not 1 <= number <= MAX_PARTS:
            raise StoreError("part number out of range")
        part = Part(number, f"part-{next(self._serial)}", len(content))
        self._upload(upload).parts[number] = (part, content)
        return part

    def _write(
        self,
        key: str,
        content: bytes,
        metadata: Mapping[str, str],
        content_type: str | None,
        parts: int = 0,
    ) -> ObjectVersion:
        serial = next(self._serial)
        self._clock_ns += NS_PER_SECOND
        etag = f"{serial:032x}" + (f"-{parts}" if parts else "")
        info = ObjectInfo(
            key=key,
            size=len(content),
            etag=etag,
            mtime_ns=self._clock_ns,
            metadata={name.lower(): value for name, value in metadata.items()},
            content_type=content_type,
            storage_class="STANDARD",
            described=NO_METADATA,
        )
        self.objects[key] = StoredObject(content, info)
        return info.version


def _bytes_of(body: Body) -> bytes:
    if isinstance(body, FileSlice):
        content = os.pread(body.fd, body.size, body.offset)
        if len(content) != body.size:
            raise AssertionError("the file is shorter than the slice says")
        if body.crc32c not in (None, crc32c(memoryview(content))):
            raise AssertionError("these are not the bytes that were written")
        return content
    return b"".join(body.views) if isinstance(body, Pieces) else bytes(body)

"""The object store as the rest of the package sees it."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import outcome

from ossfs_py.errors import StoreError
from ossfs_py.model import (
    Body,
    ByteRange,
    CommitRequest,
    HistoryPage,
    HistoryQuery,
    ListPage,
    ListQuery,
    MultipartUpload,
    ObjectInfo,
    ObjectVersion,
    Part,
)
from ossfs_py.store.http.arrival import Arrival

MIN_PART_BYTES = 5 * 1024**2
"""Smallest part but the last (S3 and OSS multipart limits)."""
MAX_PARTS = 10_000
MAX_COPY_BYTES = 5 * 1024**3
"""Largest single CopyObject or UploadPartCopy source range (S3 limits)."""
MAX_OBJECT_BYTES = 5 * 1024**4

MAX_DELETED_KEYS = 1000
"""Most keys of one DeleteObjects (S3 and OSS)."""

Verdict = Literal["works", "ignored", "refused", "unknown"]
Versioning = Literal["on", "suspended", "off"]
"""Whether a bucket keeps what is overwritten and deleted; ``suspended``: it did, up to a time."""


Told: TypeAlias = Callable[[], ObjectInfo | None]
"""Parses an object's description from the headers of an answer: few readers want it."""


_AT_ONCE_SECONDS = 0.003
"""A store in a cloud takes 25 ms to the first byte; one in the next rack, or on this machine, takes
one."""
_REMEMBERED_SECONDS = 10.0
"""So long, and up to twice as long, the shortest time counts. How far a store is changes rarely,
and how busy this machine is changes all the time: when each request made one part in twenty
forgotten, four readers on two busy cores took their store for far after 0.2 s, and asked for
smaller pieces.
"""


class FirstBytes:
    """How long the store takes to the first byte of an answer. Any thread may use it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds = self._seconds_before = math.inf
        """The shortest time of now, and of the last such period."""
        self._until = -math.inf

    def note(self, seconds: float) -> None:
        """A GET took so long to its first byte."""
        # The shortest of late: a busy machine makes them longer, and nothing makes them shorter.
        # Two threads may overwrite each other's, which matters little.
        now = self._clock()
        if now >= self._until:
            is_late = now >= self._until + _REMEMBERED_SECONDS
            self._seconds_before = math.inf if is_late else self._seconds
            self._seconds, self._until = seconds, now + _REMEMBERED_SECONDS
        elif seconds < self._seconds:
            self._seconds = seconds

    @property
    def come_at_once(self) -> bool:
        """Whether the store is near: little read ahead keeps the link busy."""
        return min(self._seconds, self._seconds_before) < _AT_ONCE_SECONDS


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature that a store may have or lack, and the consequence for a mount."""

    name: str
    """A name of at most 16 letters."""
    what: str
    verdict: Verdict
    instead: str = ""
    """The substitute in a mount if the feature does not work as it should."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The abilities of this store, as probed or configured."""

    conditional_create: bool
    """A write can be refused atomically when the key exists."""
    conditional_replace: bool
    """A write can be refused atomically when the key holds another ETag."""
    part_copy: bool
    """UploadPartCopy works."""
    features: tuple[Feature, ...] = field(default=(), compare=False)
    """Everything that was probed, for display."""


class InlineRequests(Protocol):
    """Short requests that take no thread. Belong to the thread of a loop, which waits until
    :meth:`fileno` is readable, and then calls :meth:`receive`. Nothing here waits.
    """

    def fileno(self) -> int:
        """A descriptor that is readable when something can go on."""
        ...

    def expects(self) -> bool:
        """Whether any is under way."""
        ...

    def receive(self) -> None:
        """Take what has arrived, and send what can be."""
        ...

    def look(self) -> None:
        """End what has stalled; to be called every second."""
        ...


class InlineReads(InlineRequests, Protocol):
    """Short ranged GETs."""

    def begin(
        self,
        version: ObjectVersion,
        start: int,
        buffer: memoryview,
        ended: Callable[[outcome.Outcome[Told | None]], None],
        gave_up: Callable[[], None],
    ) -> bool:
        """Begin what :meth:`ObjectStore.get_range_into` does; False if it takes a thread.

        ``ended`` is called at the end, or ``gave_up`` if the request has to be repeated in a
        thread; neither is called before this method returns. Until then ``buffer`` is in use.
        """
        ...


class InlineWrites(InlineRequests, Protocol):
    """PUTs of small new objects."""

    def serve(self) -> None:
        """The loop is there: PUTs may begin."""
        ...

    def end(self) -> None:
        """The loop ends: no further one begins, and threads repeat those that are running."""
        ...

    def begin(
        self,
        request: CommitRequest,
        body: bytes,
        ended: Callable[[outcome.Outcome[ObjectVersion]], None],
        gave_up: Callable[[bool], None],
    ) -> bool:
        """Begin what :meth:`ObjectStore.put` does; False if it takes a thread: nothing was done.

        ``ended`` is called at the end, or ``gave_up`` if a thread has to repeat it, with whether it
        may have happened. Neither is called before this method returns.
        """
        ...


class ObjectStore(Protocol):
    """One bucket. Blocking; safe for concurrent use from any number of threads.

    Every method retries transient failures on a new connection with backoff and jitter inside the
    mount's time budget, and raises only :class:`~ossfs_py.errors.StoreError` subclasses. An
    abandoned call (its waiter was cancelled) runs to its end in its thread. It leaves nothing
    behind except what its docstring says.
    """

    @property
    def place(self) -> str:
        """The resolved address of the service, and the accepted certificates if they are not the
        system's. Data from one place is never used for another.
        """
        ...

    def capabilities(self, *, thorough: bool = False) -> Capabilities:
        """What the store can do. May probe unknown features with scratch keys; a feature that
        cannot be probed counts as missing. ``thorough``: also probe the features that a mount
        otherwise detects during its work, which takes an upload of 10 MiB.
        """
        ...

    def expect_new_objects(self) -> None:
        """Find out, unless it is known, how a PUT is kept from overwriting: some ten requests with
        scratch keys, one after the other, for which the first such PUT would wait.
        """
        ...

    @property
    def wants_crc32c(self) -> bool:
        """Whether it sends the CRC-32C of what it uploads."""
        ...

    @property
    def equal_parts(self) -> bool:
        """Whether all parts of an upload except the last must have one size, as far as is known.
        Sends no request. An upload that discovers it raises UnequalPartsError.
        """
        ...

    def check(self, prefix: str, timeout_seconds: float) -> bool:
        """Send the bucket one request as a mount would, and fail fast; whether any key begins with
        ``prefix``.

        Raises:
            EnvironmentProblemError: one sentence: endpoint unreachable, name not resolved, TLS
                refused, wrong region, unknown key id, wrong secret, missing or forbidden bucket.
        """
        ...

    def head(self, key: str, version_id: str | None = None) -> ObjectInfo:
        """Size, ETag and metadata of one object, or of one version of it, which is then pinned.

        Raises:
            ObjectMissingError: no such key, or version.
        """
        ...

    def versioning(self) -> Versioning:
        """Whether the bucket keeps versions.

        Raises:
            UnsupportedByStoreError: the store has no versioning.
            AccessDeniedError, StoreError
        """
        ...

    def list_versions(self, query: HistoryQuery) -> HistoryPage:
        """One page of the history of the keys, as far as the bucket has kept it.

        Raises:
            StoreError
        """
        ...

    def list_page(self, query: ListQuery) -> ListPage:
        """One page of a LIST.

        Raises:
            StoreError
        """
        ...

    def owner(self, key: str) -> str | None:
        """The owner of an object, which only a listing with fetch-owner returns; None if it does
        not.

        Raises:
            StoreError
        """
        ...

    @property
    def inline_reads(self) -> InlineReads | None:
        """Short GETs without a thread, if this store has them."""
        ...

    @property
    def inline_writes(self) -> InlineWrites | None:
        """PUTs of small new objects without a thread, if this store has them."""
        ...

    @property
    def first_bytes(self) -> FirstBytes:
        """How near the store is."""
        ...

    def get_range_into(
        self, version: ObjectVersion, start: int, buffer: memoryview
    ) -> ObjectInfo | None:
        """Fill ``buffer`` with the version's bytes from ``start``.

        Returns the object's description from the answer, if ``start`` is 0 and the answer has
        enough headers.

        Precondition: ``start + len(buffer) <= version.size``, and the buffer is writable and used
        by nobody else until the call returns.

        Raises:
            VersionChangedError: the key holds another ETag now (compared in the answer too, for
                stores that ignore If-Match), or the version that the id names was removed. The
                buffer's content is then undefined.
            ObjectMissingError, ArchivedError, StoreUnavailableError.
        """
        ...

    def get_range_gradually(
        self, version: ObjectVersion, start: int, buffer: memoryview, arrival: Arrival
    ) -> ObjectInfo | None:
        """As :meth:`get_range_into`. ``arrival`` may be told of bytes that are certainly the
        version's, as they come: those stay as they are, however the call ends.
        """
        ...

    def put(self, request: CommitRequest, body: Body) -> ObjectVersion:
        """Write one whole object.

        Raises:
            ConditionFailedError: the condition did not hold; nothing was written.
            UnsupportedByStoreError: a key that ends with a slash would become a file without it.
            MetadataTooLargeError: the store keeps less; nothing was written.
            OSError: a :class:`~ossfs_py.model.FileSlice` could not be read (also upload_part).
        """
        ...

    def start_multipart(self, request: CommitRequest) -> MultipartUpload:
        """Begin an upload. An abandoned call may leave an upload id nobody knows.

        Raises:
            ConditionFailedError: the store checks the condition at this point, and it did not hold.
        """
        ...

    def upload_part(self, upload: MultipartUpload, number: int, body: Body) -> Part:
        """Send part ``number`` (1..10,000); sending a number again replaces it.

        Raises:
            IntegrityError: the bytes arrive damaged, or were changed while they were sent: that is
                told after one answer of the store.
        """
        ...

    def copy_part(
        self, upload: MultipartUpload, number: int, source: ObjectVersion, span: ByteRange
    ) -> Part:
        """Make a part of ``span`` of an object, on the server, pinned to its version.

        Raises:
            VersionChangedError: the source changed.
            UnsupportedByStoreError: no UploadPartCopy here.
        """
        ...

    def complete(
        self, upload: MultipartUpload, parts: Sequence[Part], request: CommitRequest
    ) -> ObjectVersion:
        """Turn the parts into the object. A repetition after a lost answer is recognised.

        Only the condition of ``request`` is used: the description of the object was sent at the
        start.

        Raises:
            ConditionFailedError: the condition did not hold; the upload still exists.
            UnequalPartsError: nothing was written; begin again with parts of one size.
            IntegrityError: the finished object's size is not the parts' sum.
        """
        ...

    def abort(self, upload: MultipartUpload) -> None:
        """Forget an upload and its parts; an unknown upload is no error."""
        ...

    def copy(
        self,
        source: ObjectVersion,
        key: str,
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
        like: ObjectInfo | None = None,
    ) -> ObjectVersion:
        """Copy on the server, pinned to the source's version; multipart above 5 GiB.

        ``metadata`` None keeps the source's metadata; otherwise replaces it (``key`` may then equal
        ``source.key``). ``like`` is the object whose storage class, encryption, redirect, tags and
        ACL the copy gets, as far as they are known; None: the store's defaults for copies.

        Raises:
            ObjectMissingError: the source is gone.
            VersionChangedError: the source changed.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove one object; a missing key is no error."""
        ...

    def delete_version(self, key: str, version_id: str) -> None:
        """Remove one version, or one delete marker, for good; a missing one is no error.

        Raises:
            AccessDeniedError: not allowed, or the bucket's MFA Delete or object lock forbids it.
        """
        ...

    def delete_many(self, keys: Sequence[str]) -> list[str]:
        """Remove objects, at most ``MAX_DELETED_KEYS``, by one request; a missing key is no error.

        Returns the keys that the store did not confirm as removed. :meth:`delete` removes those, or
        raises the reason.

        Raises:
            UnsupportedByStoreError: the store is known to have no such request.
        """
        ...

    def denied_descriptions(self, key: str) -> list[StoreError]:
        """Try, once each, the requests that carry the tags of an object, and its ACL if that is
        kept, over to the object that takes its place. Removes the tags of ``key``.

        Returns the refusals for want of a right; what they name is lost with each change.
        """
        ...

    def refresh_credentials(self) -> None:
        """Read the credentials again (after rotation)."""
        ...

    def close(self) -> None:
        """Close every connection; calls in progress fail with StoreUnavailableError."""
        ...

"""Checks of the bucket: who asks, what they may do there, and how fast it is."""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from ossfs_py.doctor.findings import Finding, Status, failed, good, skipped, warning
from ossfs_py.errors import (
    AccessDeniedError,
    ArchivedError,
    EnvironmentProblemError,
    StoreError,
    UnsupportedByStoreError,
    UsageError,
)
from ossfs_py.model import (
    ByteRange,
    CommitRequest,
    HistoryQuery,
    ListPage,
    ListQuery,
    ObjectInfo,
    ObjectVersion,
)
from ossfs_py.store.auth.credentials import CredentialSource
from ossfs_py.store.base import ObjectStore

MIB = 1024**2

_TEXT = b"ossfs-py doctor"
_CHECK_SECONDS = 8.0
"""As a mount grants its first question."""
_STREAMS = 8
_PIECE_BYTES = 4 * MIB
_MOST_BYTES = 128 * MIB
_MEASURE_SECONDS = 5.0
_LEAST_BYTES = MIB
"""With fewer bytes, the time to the first byte would be measured."""
_SLOW_BYTES_PER_SECOND = 10 * MIB
"""A model of 15 GB takes 25 minutes then."""
_WRITES = ("put", "copy", "multipart", "tags", "delete", "capabilities")


class Bucket:
    """One bucket, or what lies below a prefix, as these credentials see it."""

    def __init__(
        self,
        store: ObjectStore,
        prefix: str,
        *,
        scratch: str | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``scratch``: a key that may be written and removed; without one, only reads are tried."""
        self._store = store
        self._prefix = prefix
        self._scratch = scratch or ""
        self._clock = clock
        self._page: ListPage | None = None

    def check(self) -> Iterator[Finding]:
        """All checks in order; a check that cannot run is skipped."""
        finding = self.list()
        yield finding
        if finding.status is Status.FAILED:
            for name in ("get", "versions", *_WRITES, "throughput"):
                yield skipped(name, "as the bucket cannot be listed")
            return
        yield self.get()
        yield self.versions()
        if self._scratch:
            put = self.put()
            yield put
            if put.status is Status.GOOD:
                yield self.copy()
                yield self.multipart()
                yield self.tags()
                yield self.delete()
                yield from self.capabilities()
            else:
                for name in _WRITES[1:]:
                    yield skipped(name, "as nothing could be written")
        else:
            for name in _WRITES:
                yield skipped(name, "only with --write, which uses a scratch key")
        yield self.throughput()

    def list(self) -> Finding:
        """The request that every mount begins with, and a page for the next checks."""
        fix = "check the bucket's name, --endpoint, --region, and the permission to list it"
        try:
            self._store.check(self._prefix, _CHECK_SECONDS)
            self._page = self._store.list_page(ListQuery(self._prefix, delimiter=""))
        except EnvironmentProblemError as exc:
            return failed("list", str(exc), fix)
        except StoreError as exc:
            return failed("list", str(exc), fix)
        count = len(self._page.objects)
        more = " or more" if self._page.next_token is not None else ""
        return good("list", f"allowed, {count}{more} object{'' if count == 1 else 's'}")

    def get(self) -> Finding:
        """A byte of an object can be read."""
        found = self._some_object(1)
        if found is None:
            return skipped("get", "there is no object with content to read")
        try:
            self._store.head(found.key)
            began = self._clock()
            self._store.get_range_into(found.version, 0, memoryview(bytearray(1)))
        except ArchivedError:
            return warning("get", f"{found.key!r} is archived", "restore it before it is read")
        except StoreError as exc:
            return failed("get", str(exc), _right("s3:GetObject (oss:GetObject)", exc))
        return good("get", f"allowed, first byte after {(self._clock() - began) * 1000:.0f} ms")

    def versions(self) -> Finding:
        """Old versions can be found, if the bucket keeps any. No mount needs them, unless --at is
        set.
        """
        try:
            state = self._store.versioning()
            if state != "off":
                self._store.list_versions(HistoryQuery(self._prefix, max_entries=1, sample=True))
        except AccessDeniedError as exc:
            right = f"grant {_right_of(exc) or 's3:ListBucketVersions'}"
            needed = f"{right} on the bucket for --at, 'ossfs-py versions' and 'undelete'"
            return Finding("versions", Status.SKIPPED, str(exc), needed)
        except UnsupportedByStoreError:
            return good("versions", "the store keeps none")
        except StoreError as exc:
            return skipped("versions", str(exc))
        kept = {"on": "kept", "suspended": "were kept; not any more", "off": "not kept"}
        return good("versions", kept[state])

    def put(self) -> Finding:
        """A scratch key can be written."""
        try:
            self._store.put(CommitRequest(self._scratch), _TEXT)
        except StoreError as exc:
            return failed("put", str(exc), _right("s3:PutObject (oss:PutObject)", exc))
        return good("put", "allowed")

    def copy(self) -> Finding:
        """The scratch key can be copied, as renaming and chmod do."""
        right = "s3:GetObject and s3:PutObject (and s3:GetObjectTagging, where objects have tags)"
        try:
            self._store.copy(self._store.head(self._scratch).version, f"{self._scratch}-copy")
            self._store.delete(f"{self._scratch}-copy")
        except StoreError as exc:
            return failed("copy", str(exc), _right(_right_of(exc) or right, exc))
        return good("copy", "allowed")

    def multipart(self) -> Finding:
        """Large files can be stored, changed in part, and given up without leaving paid parts
        behind.
        """
        try:
            made = self._uploaded()
            upload = self._store.start_multipart(CommitRequest(self._scratch))
            try:
                self._store.copy_part(upload, 1, made, ByteRange(0, made.size))
            except UnsupportedByStoreError:
                pass  # its own row says what a mount does instead
            finally:
                self._store.abort(upload)
        except StoreError as exc:
            right = _right_of(exc) or "s3:PutObject (oss:PutObject)"
            return failed("multipart", str(exc), _right(right, exc))
        return good("multipart", "allowed")

    def _uploaded(self) -> ObjectVersion:
        request = CommitRequest(self._scratch)
        upload = self._store.start_multipart(request)
        try:
            part = self._store.upload_part(upload, 1, _TEXT)
            return self._store.complete(upload, [part], request)
        except StoreError:
            # The failure before it says more.
            with contextlib.suppress(StoreError):
                self._store.abort(upload)
            raise

    def tags(self) -> Finding:
        """Tags, and the ACL if it is kept, can be carried over to a changed object."""
        denied = self._store.denied_descriptions(self._scratch)
        if not denied:
            return good("tags", "allowed")
        rights = ", ".join(_right_of(exc) or exc.operation for exc in denied)
        lost = "ACLs" if {exc.operation for exc in denied} == {"GetObjectAcl"} else "tags"
        fix = f"grant {rights} on the bucket's objects, or changed objects lose their {lost}"
        return warning("tags", "; ".join(map(str, denied)), fix)

    def delete(self) -> Finding:
        """The scratch key can be removed again."""
        try:
            self._store.delete(self._scratch)
        except StoreError as exc:
            right = _right("s3:DeleteObject (oss:DeleteObject)", exc)
            return failed("delete", f"{exc!s}; {self._scratch!r} stays", right)
        return good("delete", "allowed")

    def capabilities(self) -> Iterator[Finding]:
        """The features of the store that mounts use: a summary row, and a row for each."""
        try:
            found = self._store.capabilities(thorough=True)
        except StoreError as exc:
            yield failed("capabilities", str(exc), "try again; the store does not answer")
            return
        lacks = [one for one in found.features if one.verdict != "works"]
        if lacks:
            names = ", ".join(one.name for one in lacks)
            fix = "mounts work without: each row says what they do instead"
            yield warning("capabilities", f"the store lacks {names}", fix)
        else:
            yield good("capabilities", "conditional writes and copies of parts")
        for one in found.features:
            works = one.verdict == "works"
            status = Status.GOOD if works else Status.WARNING
            instead = one.instead or ("" if works else "try again; the test did not run")
            yield Finding(one.name, status, one.what, instead, one.verdict)

    def throughput(self) -> Finding:
        """Bytes per second over several connections, for a few seconds at most."""
        found = self._some_object(_LEAST_BYTES)
        if found is None:
            return skipped("throughput", "there is no object of 1 MiB to measure with")
        size = min(found.size, _MOST_BYTES)
        version, starts = found.version, iter(range(0, size, _PIECE_BYTES))
        began = self._clock()

        def stream() -> int:
            buffer, got = memoryview(bytearray(_PIECE_BYTES)), 0
            # next() of a range iterator is atomic.
            while self._clock() < began + _MEASURE_SECONDS:
                start = next(starts, None)
                if start is None:
                    break
                piece = buffer[: min(_PIECE_BYTES, size - start)]
                self._store.get_range_into(version, start, piece)
                got += len(piece)
            return got

        try:
            with ThreadPoolExecutor(_STREAMS) as threads:
                got = sum(threads.map(lambda _: stream(), range(_STREAMS)))
        except StoreError as exc:
            return failed("throughput", str(exc), "see the other checks")
        rate = got / max(self._clock() - began, 1e-6)
        told = f"{rate / 1e6:.0f} MB/s over {_STREAMS} connections ({got // MIB} MiB)"
        if rate < _SLOW_BYTES_PER_SECOND:
            fix = "use the region's internal endpoint; check for bandwidth limits and proxies"
            return warning("throughput", told, fix)
        return good("throughput", told)

    def _some_object(self, least_bytes: int) -> ObjectInfo | None:
        """The largest object of the page, which is the best one to measure with."""
        objects = self._page.objects if self._page is not None else ()
        best = max(objects, key=lambda one: one.size, default=None)
        return best if best is not None and best.size >= least_bytes else None


def credentials(source: CredentialSource) -> Finding:
    """There are some; where they come from, never what they are."""
    try:
        key = source.current()
    except (EnvironmentProblemError, UsageError) as exc:
        return failed("credentials", str(exc), "'ossfs-py docs security' says where they may be")
    if key is None:
        return good("credentials", "none: requests are anonymous")
    kind = ", with a session token" if key.token else ""
    return good("credentials", f"from {source.origin()}{kind}")


_RIGHTS = {
    "HeadObject": "s3:GetObject (oss:GetObject)",
    "UploadPartCopy": "s3:GetObject and s3:PutObject",
    "GetObjectTagging": "s3:GetObjectTagging (oss:GetObjectTagging)",
    "PutObjectTagging": "s3:PutObjectTagging (oss:PutObjectTagging)",
    "GetObjectAcl": "s3:GetObjectAcl (oss:GetObjectAcl)",
    "GetBucketVersioning": "s3:GetBucketVersioning (oss:GetBucketVersioning)",
    "ListObjectVersions": "s3:ListBucketVersions (oss:ListObjectVersions)",
    "DeleteObject": "s3:DeleteObject (oss:DeleteObject)",
    "AbortMultipartUpload": "s3:AbortMultipartUpload (oss:AbortMultipartUpload)",
}


def _right_of(exc: StoreError) -> str | None:
    """The right that the operation which failed needs, where it tells by itself."""
    return _RIGHTS.get(exc.operation)


def _right(action: str, exc: StoreError) -> str:
    if isinstance(exc, AccessDeniedError):
        return f"grant {action} on the bucket's objects to these credentials"
    return "the store does not do it now; try again"

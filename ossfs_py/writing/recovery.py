"""Recovery of dirty files whose program or daemon gave up.

Everything here blocks: it serves the start of a mount and the ``recover`` command.
"""

import logging
import os
import time
from collections.abc import Callable, Collection, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path, PurePosixPath

from ossfs_py.errors import (
    ConditionFailedError,
    ObjectMissingError,
    StoreError,
    UnequalPartsError,
    UnsupportedByStoreError,
    UserError,
    VersionChangedError,
)
from ossfs_py.extents import ExtentSet
from ossfs_py.model import (
    ALWAYS,
    MARKER_CONTENT_TYPE,
    ByteRange,
    CommitRequest,
    Condition,
    FileSlice,
    ListQuery,
    MultipartUpload,
    ObjectInfo,
    ObjectVersion,
    Part,
)
from ossfs_py.store.base import ObjectStore
from ossfs_py.writing.comparing import same_bytes
from ossfs_py.writing.journal import Journal
from ossfs_py.writing.kept import keep_copy
from ossfs_py.writing.markers import MarkerRecord
from ossfs_py.writing.parts import (
    EQUAL_PART_BYTES,
    CopyPart,
    LocalPart,
    PartLimits,
    PartPlan,
    plan_commit,
)
from ossfs_py.writing.records import DirtyRecord, SentParts
from ossfs_py.writing.removals import delete_removed
from ossfs_py.writing.settling import settle_renames

log = logging.getLogger(__name__)

_PARTS_AT_ONCE = 8
_COPY_BYTES = 8 * 1024**2

SendPart = Callable[[MultipartUpload, int], Part]


class NotRecoverableError(UserError):
    """An unsaved file cannot be stored as it is; the message says why."""


@dataclass(frozen=True, slots=True)
class Exported:
    """An unsaved file written to local disk, and the bytes that could not be read (zeros there)."""

    path: Path
    missing: tuple[ByteRange, ...]


def tidy_leftovers(journal: Journal, store: ObjectStore, read: Collection[str] = ()) -> int:
    """Abort uploads and delete hidden objects of a dead daemon; returns how many.

    Call after ``claim_leftovers`` and before the first own write. Objects that the store refuses to
    delete stay for the next mount. So do objects that were removed, or copied, under a key that is
    still ``read``.
    """
    done = settle_renames(journal, store)
    for upload in journal.leftover_uploads():
        try:
            store.abort(upload)
        except StoreError as exc:
            log.warning("a leftover upload of %r could not be aborted: %s", upload.key, exc)
            continue
        journal.forget_upload(upload)
        done += 1
    for key in journal.leftover_scratch(read):
        try:
            store.delete(key)
        except StoreError as exc:
            log.warning("a leftover hidden object could not be deleted: %s", exc)
            continue
        journal.forget_scratch(key)
        done += 1
    made = {record.key for record in journal.leftover_markers()}
    files = {record.key for record in journal.unsaved_records()} | made
    # A directory after what was in it.
    for record in sorted(journal.leftover_removals(), key=lambda each: len(each.key), reverse=True):
        if record.whatever_was_there and not _is_in_the_way(record.key, made, files):
            continue  # there may be thousands: the mount deletes them in the background
        if record.key in read:
            continue
        try:
            done += delete_removed(store, record)
        except StoreError as exc:
            log.warning("the removed %r is still in the bucket: %s", record.key, exc)
            continue
        journal.forget_removal(record)
    return done + _make_owed_directories(journal, store)


def _is_in_the_way(removed: str, made: Container[str], files: Container[str]) -> bool:
    """Whether a key was removed whose name something else has that is to be stored: a directory or
    link that was ``made``, or a directory's place, or its parent's, one of the ``files``.

    SeaweedFS and others that keep a tree have one entry for a directory and a file of a name.
    """
    if removed in made or f"{removed}/" in made:
        return True
    parts = removed.split("/")
    return any("/".join(parts[:depth]) in files for depth in range(1, len(parts)))


def _make_owed_directories(journal: Journal, store: ObjectStore) -> int:
    """Store the markers of directories that a dead daemon had made; returns how many."""

    def make(record: MarkerRecord) -> int:
        made = CommitRequest(
            record.key, record.metadata, MARKER_CONTENT_TYPE, Condition(only_if_absent=True)
        )
        try:
            try:
                store.put(made, b"")
            except ConditionFailedError:
                # Another client has made it since; or the store (SeaweedFS) has real directories,
                # and takes one with any contents for its marker.
                page = store.list_page(ListQuery(record.key, delimiter="", max_keys=1))
                if record.key not in {info.key for info in page.objects}:
                    store.put(replace(made, condition=ALWAYS), b"")
        except UnsupportedByStoreError:
            pass  # the store keeps no markers
        except StoreError as exc:
            log.warning("directory %r is not in the bucket: %s", record.key, exc)
            return 0
        journal.forget_marker(record.ident)
        return 1

    done = 0
    # From the top: SeaweedFS makes parent directories by itself, and sometimes loses their markers
    # then.
    records = sorted(journal.leftover_markers(), key=_depth)
    with ThreadPoolExecutor(_PARTS_AT_ONCE) as threads:
        for _, level in groupby(records, _depth):
            done += sum(threads.map(make, level))
    return done


def _depth(record: MarkerRecord) -> int:
    return record.key.rstrip("/").count("/")


class Recovery:
    """The unsaved files of one mount. The journal's lock keeps a mount and a recovery apart."""

    def __init__(
        self, journal: Journal, limits: PartLimits | None = None, *, trash: str = ""
    ) -> None:
        """``trash`` is the prefix for copies of objects that an upload replaces; "": no copies."""
        self._journal = journal
        self._trash = trash
        self._limits = limits or PartLimits()

    def list(self) -> list[DirtyRecord]:
        """Every unsaved file, oldest first."""
        return [*self._journal.unsaved_records()]

    def find(self, ident: str) -> DirtyRecord:
        """The record of one unsaved file.

        Raises:
            NotRecoverableError: there is no such file.
        """
        for record in self._journal.unsaved_records():
            if record.ident == ident:
                return record
        raise NotRecoverableError(f"there is no unsaved file {ident}")

    def upload(self, ident: str, store: ObjectStore, *, overwrite: bool = False) -> ObjectVersion:
        """Finish the upload of an unsaved file, and forget it.

        ``overwrite`` replaces an object that another client has written since. An object with every
        byte of the file counts as the result: the mount may have died just after making it.

        Raises:
            ConditionFailedError: the key holds an object the writer never saw.
            VersionChangedError: the object that the changes belong to is another one now.
            NotRecoverableError: the record is damaged, or bytes are gone.
            StoreError: try again later; nothing is lost.
        """
        record = self.find(ident)
        if not record.key:
            raise NotRecoverableError(f"{record.reason}: export the bytes instead")
        _require_bytes(record)
        with self._opened(record) as fd:
            there = _found(store, record.key)
            version = self._adopted(store, record, there, fd)
            if version is None:
                try:
                    version = self._bring(store, record, there, fd, overwrite=overwrite)
                except (ConditionFailedError, VersionChangedError):
                    # What the killed daemon had sent may have been stored only now.
                    there = _found(store, record.key)
                    version = self._adopted(store, record, there, fd)
                    if version is None:
                        raise
        self._forget_scratch(record, store)
        self._journal.remove_unsaved(ident)
        return version

    def export(self, ident: str, directory: Path, store: ObjectStore | None = None) -> Exported:
        """Write an unsaved file into a local directory; it stays unsaved.

        Bytes that only the store has are fetched when ``store`` is given and still has them.

        Raises:
            OSError: the local file cannot be written.
            NotRecoverableError: none of its bytes are left.
        """
        record = self.find(ident)
        _require_bytes(record)
        name = PurePosixPath(record.key).name or ident
        path = directory / name
        if path.exists():
            path = directory / f"{name}.{ident[:8]}"
        missing: list[ByteRange] = []
        with self._opened(record) as source, open(path, "xb", opener=_for_the_owner_only) as target:
            size = record.size if record.key else os.fstat(source).st_size
            target.truncate(size)
            local = _local_bytes(record, size)
            for span in local:
                _copy(source, target.fileno(), span)
            for gap in local.gaps(0, size):
                clean = ByteRange(gap.start, max(gap.start, min(gap.end, record.base_valid)))
                if clean.size and not _fetch(store, record.base, clean, target.fileno()):
                    missing.append(clean)
                elif record.sent is not None:
                    missing.append(gap)
        return Exported(path, tuple(missing))

    def discard(self, ident: str, store: ObjectStore | None = None) -> None:
        """Drop an unsaved file for good, with its parts and objects in the store."""
        record = self.find(ident)
        if store is not None:
            if record.sent is not None:
                store.abort(record.sent.upload)
            self._forget_scratch(record, store)
        self._journal.remove_unsaved(ident)

    # -- inside ----------------------------------------------------------------------------------

    def _forget_scratch(self, record: DirtyRecord, store: ObjectStore) -> None:
        if record.scratch and record.base is not None:
            store.delete(record.base.key)
            self._journal.forget_scratch(record.base.key)

    @contextmanager
    def _opened(self, record: DirtyRecord) -> Iterator[int]:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._journal.unsaved_path(record.ident), flags, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)

    def _bring(
        self,
        store: ObjectStore,
        record: DirtyRecord,
        there: ObjectInfo | None,
        fd: int,
        *,
        overwrite: bool,
    ) -> ObjectVersion:
        condition = ALWAYS if overwrite else self._condition(record, there, store)
        if self._trash and there is not None:
            keep_copy(store, self._trash, there, time.time_ns())
        if record.sent is not None:
            return self._finish_sent(store, record, record.sent, there, fd, condition)
        return self._send(store, record, there, fd, condition)

    def _adopted(
        self, store: ObjectStore, record: DirtyRecord, there: ObjectInfo | None, fd: int
    ) -> ObjectVersion | None:
        """The object, if it is not the writer's base and has all local bytes. It has the metadata
        of the record then.
        """
        if record.sent is not None or there is None:
            return None
        found = there.version
        if found == record.base or found.size != record.size:
            return None
        local = _local_bytes(record, record.size)
        same = all(same_bytes(store, found, span, fd) for span in local)
        if not same or not (local or not record.size):
            return None
        log.info("%r is in the store already", record.key)
        # The same bytes may have been written again, with other metadata.
        return self._with_metadata(store, record, found) if record.complete else found

    def _condition(
        self, record: DirtyRecord, there: ObjectInfo | None, store: ObjectStore
    ) -> Condition:
        """Refuse to overwrite an object that the writer never saw, atomically if the store can."""
        base, seen = record.base, {record.replaces}
        # A base under another key was never the object of this one.
        if base is not None and not record.scratch and base.key == record.key:
            seen.add(base.etag)
        found = None if there is None else there.etag
        if found is not None and found not in seen:
            raise ConditionFailedError(
                "the object was written by somebody else since", key=record.key
            )
        capabilities = store.capabilities()
        if found is None:
            return Condition(only_if_absent=capabilities.conditional_create)
        return Condition(only_if_etag=found if capabilities.conditional_replace else None)

    def _finish_sent(
        self,
        store: ObjectStore,
        record: DirtyRecord,
        sent: SentParts,
        there: ObjectInfo | None,
        fd: int,
        condition: Condition,
    ) -> ObjectVersion:
        have = {part.number: part for part in sent.parts}
        starts = (0, *sent.edges)
        jobs: dict[int, SendPart] = {
            number: partial(
                _send_slice, store, FileSlice(fd, starts[number - 1], end - starts[number - 1])
            )
            for number, end in enumerate(sent.edges, 1)
            if number not in have
        }
        hidden = sent.upload.key != record.key
        # The file was renamed after bytes were sent: another client may own its old name by now.
        aside = Condition(only_if_absent=True, repeated=True)
        try:
            have.update(_all_parts(sent.upload, jobs))
            version = store.complete(
                sent.upload,
                [have[number] for number in sorted(have)],
                CommitRequest(sent.upload.key, condition=aside if hidden else condition),
            )
        except ObjectMissingError as exc:
            raise NotRecoverableError(
                f"the store no longer has the upload of {record.key!r}: export the rest"
            ) from exc
        if not hidden:
            return self._with_metadata(store, record, version)
        final = store.copy(
            version,
            record.key,
            metadata=record.metadata,
            content_type=record.content_type,
            like=there,
        )
        store.delete(version.key)
        self._journal.forget_scratch(version.key)
        return final

    @staticmethod
    def _with_metadata(
        store: ObjectStore, record: DirtyRecord, version: ObjectVersion
    ) -> ObjectVersion:
        """The object has metadata of an earlier time; attributes may have changed since."""
        info = store.head(version.key)
        if dict(info.metadata or {}) == dict(record.metadata):
            return version
        return store.copy(
            version,
            version.key,
            metadata=record.metadata,
            content_type=record.content_type,
            like=info,
        )

    def _send(
        self,
        store: ObjectStore,
        record: DirtyRecord,
        there: ObjectInfo | None,
        fd: int,
        condition: Condition,
    ) -> ObjectVersion:
        equal = replace(self._limits, equal_part=EQUAL_PART_BYTES)
        limits = equal if store.equal_parts else self._limits
        try:
            return self._send_in(limits, store, record, there, fd, condition)
        except UnequalPartsError:
            return self._send_in(equal, store, record, there, fd, condition)

    def _send_in(
        self,
        limits: PartLimits,
        store: ObjectStore,
        record: DirtyRecord,
        there: ObjectInfo | None,
        fd: int,
        condition: Condition,
    ) -> ObjectVersion:
        os.ftruncate(fd, record.size)
        base_valid = record.base_valid if record.base is not None else 0
        plan = plan_commit(
            record.size,
            base_valid,
            record.dirty,
            part_copy=store.capabilities().part_copy,
            limits=limits,
        )
        for part in plan:
            for fill in part.fills if isinstance(part, LocalPart) else ():
                if not _fetch(store, record.base, fill, fd):
                    raise _changed(record.key)
        request = CommitRequest(
            record.key, record.metadata, record.content_type, condition, like=there
        )
        if len(plan) == 1 and isinstance(plan[0], LocalPart):
            return store.put(request, FileSlice(fd, 0, record.size) if record.size else b"")
        upload = store.start_multipart(request)
        self._journal.record_upload(upload)
        try:
            jobs = {n: _job(store, record, part, fd) for n, part in enumerate(plan, 1)}
            parts = _all_parts(upload, jobs)
            version = store.complete(upload, [parts[number] for number in sorted(parts)], request)
        except StoreError as exc:
            store.abort(upload)
            self._journal.forget_upload(upload)
            if base_valid and isinstance(exc, ObjectMissingError):
                raise _changed(record.key) from exc
            raise
        self._journal.forget_upload(upload)
        return version


def _require_bytes(record: DirtyRecord) -> None:
    if record.vanished:
        raise NotRecoverableError(f"{record.reason}: write the file again, then --discard this")


def _found(store: ObjectStore, key: str) -> ObjectInfo | None:
    try:
        return store.head(key)
    except ObjectMissingError:
        return None


def _changed(key: str) -> VersionChangedError:
    return VersionChangedError("the object under the changes is another one now", key=key)


def _job(store: ObjectStore, record: DirtyRecord, part: PartPlan, fd: int) -> SendPart:
    span = part.span
    if not isinstance(part, CopyPart):
        return partial(_send_slice, store, FileSlice(fd, span.start, span.size))
    base = record.base
    if base is None:
        raise RuntimeError("a copy of no base")
    return lambda upload, number: store.copy_part(upload, number, base, span)


def _send_slice(store: ObjectStore, body: FileSlice, upload: MultipartUpload, number: int) -> Part:
    return store.upload_part(upload, number, body)


def _all_parts(upload: MultipartUpload, jobs: dict[int, SendPart]) -> dict[int, Part]:
    with ThreadPoolExecutor(_PARTS_AT_ONCE) as threads:
        futures = {n: threads.submit(send, upload, n) for n, send in jobs.items()}
        try:
            return {number: future.result() for number, future in futures.items()}
        except StoreError:
            threads.shutdown(cancel_futures=True)
            raise


def _local_bytes(record: DirtyRecord, size: int) -> ExtentSet:
    """The bytes of the file that the data file holds."""
    if record.base_valid or record.sent is not None:
        return record.dirty
    return ExtentSet([ByteRange(0, size)])


def _copy(source: int, target: int, span: ByteRange) -> None:
    for start in range(span.start, span.end, _COPY_BYTES):
        data = os.pread(source, min(_COPY_BYTES, span.end - start), start)
        os.pwrite(target, data, start)


def _for_the_owner_only(path: str, flags: int) -> int:
    """Open with the permissions of the kept data: users who may list the directory must not read
    it.
    """
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _fetch(store: ObjectStore | None, base: ObjectVersion | None, span: ByteRange, fd: int) -> bool:
    """Write bytes of the base into a file; False if they cannot be read any more."""
    if store is None or base is None:
        return False
    buffer = memoryview(bytearray(min(_COPY_BYTES, span.size)))
    for start in range(span.start, span.end, _COPY_BYTES):
        piece = buffer[: min(_COPY_BYTES, span.end - start)]
        try:
            store.get_range_into(base, start, piece)
        except (VersionChangedError, ObjectMissingError):
            return False
        os.pwrite(fd, piece, start)
    return True

"""The state directory: the files that survive the daemon's death.

Layout below ``<state_dir>/<mount-id>/``, all accessible to the owner only:

- ``lock``                   held while a mount uses the directory, or ``recover`` a dead mount's
- ``kept.lock``              held by the keeper of a mount that outlives its daemon
- ``recover.lock``           held while ``recover`` works, also beside a mount
- ``staging/<id>.data``      dirty bytes of one open file, sparse, each byte at its file offset
- ``staging/<id>.json``      its record; without a record the bytes are not needed
- ``staging/<id>.<n>.log``   the writes since the record, for files that began as an object
- ``uploads/<digest>.json``  ids of multipart uploads in progress
- ``scratch/<digest>.json``  keys of hidden objects that are deleted after use
- ``renames/<digest>.json``  directories that are being renamed
- ``removals/<id>.json``     removed files whose object the store still has, or may still make
- ``markers/<id>.json``      directories and links that are not in the store yet
- ``segments/<n>.log``       small files with their bytes, removals, markers and renames of stored
                           files, one after the other (``segments``)
- ``unsaved/<id>.*``         dirty files whose program or daemon gave up

A record is written to a temporary name and renamed, so that it is there whole or not at all. The
log is appended after the bytes that it describes. A killed daemon loses no write that it had
acknowledged to the kernel. After a power loss the bytes are as complete as the disk kept them; the
file of a program that called fsync is in the bucket instead.

Bytes that ``direct`` streams from memory are nowhere on disk. If the daemon is killed before close,
the next mount aborts the upload, and no half object is left in the bucket.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.extents import ExtentSet
from ossfs_py.model import MultipartUpload
from ossfs_py.writing.filerenames import FileRenameRecord
from ossfs_py.writing.markers import MarkerRecord
from ossfs_py.writing.records import DirtyRecord, RecordDamagedError, SmallRecord
from ossfs_py.writing.removals import RemovalRecord
from ossfs_py.writing.renames import RenameRecord
from ossfs_py.writing.segments import EntryKind, KeptEntry, SegmentLog
from ossfs_py.writing.stagelog import ENTRY_BYTES, replayed
from ossfs_py.writing.statefiles import (
    data_in,
    private_directory,
    records_in,
    records_of,
    sync_path,
    unlink,
    write_atomically,
    write_durably,
)

_KEPT = "kept.lock"


@dataclass(frozen=True, slots=True)
class StagedFile:
    """An open staging file: its id in the journal and its descriptor."""

    ident: str
    fd: int


class Journal:
    """The state directory of one mount. Methods block shortly and may run on any thread.

    With ``beside_mount`` a mount may be using the directory. Then the caller may use only its
    unsaved files, unless :attr:`alone`.

    Raises:
        EnvironmentProblemError: (constructor) the directory cannot be used, or is in use.
    """

    def __init__(self, directory: Path, *, beside_mount: bool = False) -> None:
        self.directory = directory
        self._locks: list[int] = []
        self._order = 0
        self._order_lock = threading.Lock()
        self._staging = directory / "staging"
        self._uploads = directory / "uploads"
        self._scratch = directory / "scratch"
        self._renames = directory / "renames"
        self._removals = directory / "removals"
        self._markers = directory / "markers"
        self._unsaved = directory / "unsaved"
        self._segments = SegmentLog(directory / "segments")
        try:
            private_directory(directory)
            for each in self._directories():
                private_directory(each)
            if beside_mount and not self._try_lock("recover.lock"):
                raise EnvironmentProblemError(f"another ossfs-py recover works in {directory}")
            self.alone = (not beside_mount or self._try_lock(_KEPT)) and self._try_lock("lock")
        except OSError as exc:
            self.close()
            raise EnvironmentProblemError(
                f"the state directory {directory} cannot be used: {exc.strerror}"
            ) from exc
        if not (self.alone or beside_mount):
            self.close()
            raise EnvironmentProblemError(
                f"the state directory {directory} is in use by another mount"
            )

    def lock_for_keeper(self) -> int | None:
        """A descriptor with a lock: while it is open anywhere, no recovery takes the mount for a
        dead one. The caller owns it. None: the lock is held already.
        """
        if not self._try_lock(_KEPT):
            return None
        return self._locks.pop()

    def close(self) -> None:
        """Release the directory for another mount."""
        self._segments.close()
        while self._locks:
            os.close(self._locks.pop())

    # -- files being written -------------------------------------------------------------------

    def create_staging(self, ident: str = "") -> StagedFile:
        """A new empty staging file, which is not needed after a crash yet. ``ident`` is the id of a
        small file that continues there; its segment entries count until they are forgotten.

        Raises:
            OSError: ENOSPC among others.
        """
        ident = ident or uuid.uuid4().hex
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return StagedFile(ident, os.open(self._staging / f"{ident}.data", flags, 0o600))

    def write_record(self, record: DirtyRecord) -> None:
        """From now on the file is found after a crash, with ``record``.

        After :meth:`sync_record` and :meth:`sync_staging` also after a power loss.
        """
        text = record.to_json(self._next_order())
        write_atomically(self._staging / f"{record.ident}.json", text)

    def sync_record(self, ident: str) -> None:
        """Sync a record to disk, if it has not been removed."""
        with contextlib.suppress(FileNotFoundError):
            sync_path(self._staging / f"{ident}.json")

    def sync_staging(self) -> None:
        """Sync the names of staging files and records to disk."""
        sync_path(self._staging)

    def owned_records(self, owners: Container[str]) -> dict[str, DirtyRecord]:
        """The records of files that an earlier daemon has left to ``owners``, by owner."""
        found = {}
        for path in self._staging.glob("*.json"):
            with contextlib.suppress(RecordDamagedError):
                record = DirtyRecord.from_json(path.read_text())
                if record.owner in owners and (self._staging / f"{record.ident}.data").exists():
                    found[record.owner] = record
        return found

    def reopen_staging(self, record: DirtyRecord) -> tuple[StagedFile, int | None, DirtyRecord]:
        """Open a staging file of an earlier daemon, with the file's length. Returns it, its log, if
        it has one, and its record as of the end.

        Raises:
            OSError: it cannot be opened.
        """
        replayed = self._replayed(record)
        for path in self._staging.glob(f"{record.ident}.*.log"):
            if path.name != record.log:
                path.unlink()  # its daemon was killed when it had no record
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._staging / f"{record.ident}.data", flags)
        if record.log is None:
            return (
                StagedFile(record.ident, fd),
                None,
                replayed.replaced(dirty=data_in(fd, replayed.size)),
            )
        # The daemon was killed between the truncation and its log entry: the kernel repeats the
        # request.
        os.ftruncate(fd, replayed.size)
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        log_fd = os.open(self._staging / record.log, flags)
        end = os.fstat(log_fd).st_size
        os.ftruncate(log_fd, end - end % ENTRY_BYTES)
        return StagedFile(record.ident, fd), log_fd, replayed

    def open_log(self, name: str) -> int:
        """A new log to append to; name it in the next record."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self._staging / name, flags, 0o600)

    def remove_record(self, ident: str, *, has_logs: bool = True) -> None:
        """The file's bytes are stored or not needed: forget the record, keep the data.

        ``has_logs`` False, if no log was ever opened for it, saves reading the directory.
        """
        unlink(f"{self._staging}/{ident}.json")
        if has_logs:
            for path in self._staging.glob(f"{ident}.*.log"):
                path.unlink(missing_ok=True)

    def remove_staging(self, ident: str, *, has_logs: bool = True) -> None:
        """Remove a staging file and its record; open descriptors stay usable."""
        self.remove_record(ident, has_logs=has_logs)
        unlink(f"{self._staging}/{ident}.data")

    def set_aside(self, record: DirtyRecord) -> Path:
        """Move a staging file to ``unsaved/``; returns the new path of its bytes."""
        target = self._unsaved / f"{record.ident}.data"
        source = self._staging / f"{record.ident}.data"
        # The bytes move first: until the record follows, the old record still leads to them.
        if source.exists():
            source.rename(target)
        self._write_unsaved(record)
        self.remove_record(record.ident)
        return target

    # -- small files ----------------------------------------------------------------------------

    @property
    def descriptor(self) -> int:
        """A descriptor in the directory, for queries about its disk."""
        return self._locks[-1]

    @property
    def is_slow(self) -> bool:
        """Whether small entries should be written in a thread, as the disk is slow."""
        return self._segments.is_slow

    def note_write(self, began: float) -> None:
        """See :meth:`SegmentLog.note_write`."""
        self._segments.note_write(began)

    def keep_small(self, record: DirtyRecord | SmallRecord, data: bytes) -> None:
        """From now on a file with these bytes is found after a crash, with ``record``; after
        :meth:`sync_small` also after a power loss.

        Raises:
            OSError: ENOSPC among others; nothing has changed. The same holds for all small entries.
        """
        text = record.to_json(self._next_order())
        self._segments.put(EntryKind.FILE, record.ident, text, data)

    def write_small(self, ident: str, position: int, data: bytes) -> None:
        """A small file in the segments has these bytes at ``position``."""
        self._segments.add(ident, EntryKind.BYTES, position, "", data)

    def cut_small(self, ident: str, size: int) -> None:
        """A small file in the segments is only so long."""
        self._segments.add(ident, EntryKind.SIZE, size, "", b"")

    def describe_small(self, record: DirtyRecord | SmallRecord) -> None:
        """A small file in the segments has a new ``record``."""
        text = record.to_json(self._next_order())
        self._segments.add(record.ident, EntryKind.RECORD, 0, text, b"")

    def forget_small(self, ident: str) -> None:
        """A small file is stored, not needed, or kept elsewhere."""
        self._segments.drop(ident)

    def sync_small(self) -> None:
        """Sync small files, removals and markers, so that they survive a power loss."""
        self._segments.sync()

    # -- multipart uploads ---------------------------------------------------------------------

    def record_upload(self, upload: MultipartUpload) -> None:
        """Remember an upload until :meth:`forget_upload`, across a power loss too."""
        text = json.dumps({"key": upload.key, "upload_id": upload.upload_id})
        write_atomically(self._upload_path(upload), text, durable=True)

    def forget_upload(self, upload: MultipartUpload) -> None:
        """The upload is complete or aborted, or another record leads to it."""
        self._upload_path(upload).unlink(missing_ok=True)

    def leftover_uploads(self) -> list[MultipartUpload]:
        """Uploads that a dead daemon had in progress. Call before the first own upload."""
        uploads = []
        for path in sorted(self._uploads.glob("*.json")):
            try:
                fields = json.loads(path.read_text())
                uploads.append(MultipartUpload(str(fields["key"]), str(fields["upload_id"])))
            except (ValueError, KeyError, TypeError):
                # Records are written atomically, so the disk is damaged; this one names no upload
                # any more.
                path.unlink()
        return uploads

    def record_scratch(self, key: str) -> None:
        """Remember a hidden object of ours until :meth:`forget_scratch`."""
        write_atomically(self._scratch_path(key), json.dumps({"key": key}), durable=True)

    def forget_scratch(self, key: str) -> None:
        """The hidden object is deleted, or the record of an unsaved file leads to it."""
        self._scratch_path(key).unlink(missing_ok=True)

    def leftover_scratch(self, read: Iterable[str] = ()) -> list[str]:
        """Hidden objects of a dead daemon, without those that are still needed, and those in
        ``read``.

        Call after :meth:`claim_leftovers`.
        """
        needed = set(read)
        for record in self.unsaved_records():
            if record.base is not None:
                needed.add(record.base.key)
            if record.sent is not None:
                needed.add(record.sent.upload.key)
        keys = []
        for path in sorted(self._scratch.glob("*.json")):
            try:
                key = str(json.loads(path.read_text())["key"])
            except (ValueError, KeyError, TypeError):
                path.unlink()
                continue
            if key not in needed:
                keys.append(key)
        return keys

    # -- directories that are being renamed ------------------------------------------------------

    def record_rename(
        self,
        old_prefix: str,
        new_prefix: str,
        *,
        is_copied: bool = False,
        over_directory: bool = False,
        etags: Mapping[str, str] = MappingProxyType({}),
        is_promised: bool = False,
        durable: bool = True,
    ) -> None:
        """Remember a rename until :meth:`forget_rename`; replaces its record. For the arguments see
        :class:`RenameRecord`. Without ``durable`` perhaps not across a power loss.
        """
        record = RenameRecord(
            old_prefix, new_prefix, is_copied, over_directory, etags, is_promised=is_promised
        )
        self.write_rename(record, durable=durable)

    def write_rename(self, rename: RenameRecord, *, durable: bool = True) -> None:
        """As :meth:`record_rename`."""
        write_atomically(self._rename_path(rename.old_prefix), rename.to_json(), durable=durable)

    def forget_rename(self, old_prefix: str) -> None:
        """The rename is done, or its caller got an error."""
        self._rename_path(old_prefix).unlink(missing_ok=True)

    def leftover_renames(self) -> list[RenameRecord]:
        """Renames that a dead daemon had begun."""
        return records_in(self._renames, RenameRecord.from_json)

    def move_leftovers(self, rename: RenameRecord) -> None:
        """Give new keys to a dead daemon's records below the old prefix of a rename."""
        for record in self.unsaved_records():
            # A record that depends on an object of the old name, or on an upload to it, is older
            # than the rename, which begins by storing that file.
            hangs = record.sent is not None or (
                record.base is not None and record.base.key.startswith(rename.old_prefix)
            )
            replaces = record.replaces and rename.etags.get(record.replaces, record.replaces)
            if record.key.startswith(rename.old_prefix) and not hangs:
                moved = record.replaced(key=rename.moved(record.key), replaces=replaces)
                self._write_unsaved(moved)
            elif record.key.startswith(rename.new_prefix) and replaces != record.replaces:
                # It had its new name before the object that it replaces.
                self._write_unsaved(record.replaced(replaces=replaces))
        for marker in self.leftover_markers():
            if marker.key.startswith(rename.old_prefix):
                self.record_marker(replace(marker, key=rename.moved(marker.key)))

    # -- stored files that are being renamed -------------------------------------------------------

    def record_file_rename(self, record: FileRenameRecord) -> None:
        """Remember a rename until :meth:`forget_file_rename`. It survives a power loss only after
        :meth:`sync_small`.
        """
        self._segments.put(EntryKind.RENAME, record.ident, record.to_json())

    def forget_file_rename(self, ident: str) -> None:
        """The rename is done, or taken back."""
        self._segments.drop(ident)

    def leftover_file_renames(self) -> list[FileRenameRecord]:
        """Renames that a dead daemon had promised, or could not bring to the store."""
        return records_of(self._segments.texts(EntryKind.RENAME), FileRenameRecord.from_json)

    # -- files that were removed -------------------------------------------------------------------

    def record_removal(self, record: RemovalRecord, *, durable: bool = True) -> None:
        """Remember a removal until :meth:`forget_removal`; replaces its record.

        Without ``durable`` it survives a power loss only after :meth:`sync_small`.
        """
        if durable:
            path = self._removals / f"{record.ident}.json"
            write_atomically(path, record.to_json(), durable=True)
        else:
            self._segments.put(EntryKind.REMOVAL, record.ident, record.to_json())

    def forget_removal(self, record: RemovalRecord) -> None:
        """The store has nothing of the removed file any more."""
        self._segments.drop(record.ident)
        unlink(f"{self._removals}/{record.ident}.json")

    def forget_removals(self, records: Iterable[RemovalRecord]) -> None:
        """As :meth:`forget_removal`, of many."""
        for record in records:
            self.forget_removal(record)

    def leftover_removals(self) -> list[RemovalRecord]:
        """Removals left by a daemon that died, or could not reach the store."""
        texts, read = self._segments.texts(EntryKind.REMOVAL), RemovalRecord.from_json
        return [*records_in(self._removals, read), *records_of(texts, read)]

    # -- directories that were made ----------------------------------------------------------------

    def record_marker(self, record: MarkerRecord) -> None:
        """Remember a marker that is not stored yet until :meth:`forget_marker`; replaces its
        record. It survives a power loss only after :meth:`sync_small`.
        """
        text = record.to_json(self._next_order())
        self._segments.put(EntryKind.MARKER, record.ident, text)

    def forget_marker(self, ident: str) -> None:
        """The marker is stored, or the directory was removed."""
        if not self._segments.drop(ident):
            unlink(f"{self._markers}/{ident}.json")

    def leftover_markers(self) -> list[MarkerRecord]:
        """Markers left by a daemon that died, or could not reach the store."""
        texts, read = self._segments.texts(EntryKind.MARKER), MarkerRecord.from_json
        return [*records_in(self._markers, read), *records_of(texts, read)]

    # -- after a crash ---------------------------------------------------------------------------

    def claim_leftovers(
        self, kept: Container[str] = (), dropped: Callable[[str], bool] = lambda _owner: False
    ) -> list[str]:
        """Move the dirty files of a dead daemon to ``unsaved/``; returns the ids.

        If an interrupted rename gave one name to two of them, the older one is dropped. Call before
        the first own staging file. Those with an id in ``kept`` stay, as this daemon continues
        them. Those with an owner in ``dropped``, and unlinked ones, are not needed.
        """
        claimed = []
        small, segments = self._segments.adopt()
        # The segment entry of a small file counts, even if part of it has reached a file of its
        # own.
        found = [
            self._left(path)
            for path in sorted(self._staging.glob("*.json"))
            if path.stem not in small and path.stem not in kept
        ]
        unwanted = [
            record
            for record in found
            if record.unlinked or (record.owner and dropped(record.owner))
        ]
        for record in unwanted:
            self.remove_record(record.ident)
        found = [record for record in found if record not in unwanted]
        smalls = {ident: _small_left(ident, entry) for ident, entry in small.items()}
        markers = self.leftover_markers()
        newest: dict[str, int] = {}
        # Those in ``unsaved/`` count too, as an earlier call of this may have been interrupted.
        everything = (*found, *smalls.values(), *self.unsaved_records())
        files = [record for record in everything if record.complete]
        named: list[DirtyRecord | MarkerRecord] = [*files, *markers]
        for owed in named:
            newest[owed.key] = max(owed.order, newest.get(owed.key, 0))
        for record in found:
            data = self._staging / f"{record.ident}.data"
            is_there = data.exists() or (self._unsaved / data.name).exists()
            if not is_there or (record.complete and record.order < newest[record.key]):
                self.remove_record(record.ident)
                continue
            self.set_aside(record)
            claimed.append(record.ident)
        for ident, record in smalls.items():
            if not record.complete or record.order >= newest[record.key]:
                write_durably(self._unsaved / f"{ident}.data", bytes(small[ident].data))
                self._write_unsaved(record)
                claimed.append(ident)
        for marker in markers:
            if marker.order < newest[marker.key]:
                self.forget_marker(marker.ident)
        for path in self._staging.iterdir():
            if path.name.partition(".")[0] not in kept:
                path.unlink()
        for path in segments:
            path.unlink()
        return claimed

    def unsaved_records(self) -> Iterator[DirtyRecord]:
        """Everything in ``unsaved/``, oldest first."""
        paths = sorted(self._unsaved.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        for path in paths:
            try:
                yield DirtyRecord.from_json(path.read_text())
            except RecordDamagedError as exc:
                yield DirtyRecord(ident=path.stem, key="", reason=str(exc))

    def unsaved_path(self, ident: str) -> Path:
        """Path of the bytes of an unsaved file."""
        return self._unsaved / f"{ident}.data"

    def remove_unsaved(self, ident: str) -> None:
        """Forget an unsaved file and its bytes."""
        (self._unsaved / f"{ident}.json").unlink(missing_ok=True)
        self.unsaved_path(ident).unlink(missing_ok=True)

    # -- inside ----------------------------------------------------------------------------------

    def _left(self, path: Path) -> DirtyRecord:
        """The record of a staging file of a dead daemon."""
        try:
            return self._replayed(DirtyRecord.from_json(path.read_text()))
        except RecordDamagedError as exc:
            # Never lose bytes because of a broken record: they can still be exported.
            return DirtyRecord(ident=path.stem, key="", reason=str(exc))

    def _write_unsaved(self, record: DirtyRecord) -> None:
        write_atomically(self._unsaved / f"{record.ident}.json", record.to_json(), durable=True)

    def _next_order(self) -> int:
        """A number that tells which of two records was written later, also after a kill."""
        with self._order_lock:
            self._order = max(self._order + 1, time.time_ns())
            return self._order

    def _try_lock(self, name: str) -> bool:
        fd = os.open(
            self.directory / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._locks.append(fd)
        return True

    def _directories(self) -> tuple[Path, ...]:
        return (
            self._staging,
            self._uploads,
            self._scratch,
            self._renames,
            self._removals,
            self._markers,
            self._unsaved,
            self.directory / "segments",
        )

    def _rename_path(self, old_prefix: str) -> Path:
        return self._renames / f"{hashlib.sha256(old_prefix.encode()).hexdigest()[:32]}.json"

    def _upload_path(self, upload: MultipartUpload) -> Path:
        digest = hashlib.sha256(f"{upload.key}\0{upload.upload_id}".encode()).hexdigest()
        return self._uploads / f"{digest[:32]}.json"

    def _scratch_path(self, key: str) -> Path:
        return self._scratch / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"

    def _replayed(self, record: DirtyRecord) -> DirtyRecord:
        """The record as of the death of the daemon."""
        data = self._staging / f"{record.ident}.data"
        if not data.exists():
            data = self.unsaved_path(record.ident)  # a set-aside was interrupted
        if record.log is None:
            # It began as nothing: the data file has all its bytes, and its size.
            size = data.stat().st_size if data.exists() else record.size
            return record.replaced(size=size, base_valid=0, dirty=ExtentSet())
        log_path = self._staging / record.log
        return replayed(record, log_path.read_bytes() if log_path.exists() else b"")


def _small_left(ident: str, kept: KeptEntry) -> DirtyRecord:
    """The record of a small file of a dead daemon."""
    try:
        record = DirtyRecord.from_json(kept.text)
    except RecordDamagedError as exc:
        return DirtyRecord(ident=ident, key="", reason=str(exc))
    return record.replaced(size=len(kept.data), base_valid=0, dirty=ExtentSet())

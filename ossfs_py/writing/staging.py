"""One sparse local file that holds the dirty bytes of one open file."""

import logging
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ossfs_py.model import ByteRange, FileSlice
from ossfs_py.runtime.closing import close_behind
from ossfs_py.runtime.diskroom import DiskRoom
from ossfs_py.runtime.workers import Workers
from ossfs_py.writing.journal import Journal, StagedFile
from ossfs_py.writing.records import DirtyRecord
from ossfs_py.writing.stagelog import log_number, truncated_entry, written_entry
from ossfs_py.writing.sums import PartSums
from ossfs_py.writing.uses import Uses

log = logging.getLogger(__name__)

_BLOCK_BYTES = 512
"""The unit of st_blocks (stat(2))."""


class Staging:
    """Bytes at their file offsets; bytes that were never written read as zeros.

    File I/O runs on the ``local`` workers and is not cancelled half way: a late write must not
    overtake a later one. The local size is always the file's size, so that a hole at the end is
    sent like any other. All methods belong to the trio thread.
    """

    def __init__(
        self,
        journal: Journal,
        local: Workers,
        file: StagedFile,
        room: DiskRoom,
        writer: Callable[[], int],
    ) -> None:
        """``writer`` returns the user whose bytes are being written."""
        self._journal = journal
        self._local = local
        self.ident = file.ident
        self._fd = file.fd
        self._log_fd: int | None = None
        self._log_number = 0
        self._old_logs: list[int] = []
        """Logs of a removed file that a thread may be writing to still."""
        self._record: DirtyRecord | None = None
        self._unlinked = False
        self._listed = True
        self._room = room
        self._writer = writer
        self._account = room.account()
        self.uses = Uses(self._close_files)

    @classmethod
    async def create(
        cls,
        journal: Journal,
        local: Workers,
        room: DiskRoom,
        writer: Callable[[], int],
        ident: str = "",
    ) -> "Staging":
        """A new, empty staging file; ``ident`` as for :meth:`Journal.create_staging`.

        Raises:
            OSError: the disk is full, among others.
        """
        file = await local.run_to_end(journal.create_staging, ident)
        return cls(journal, local, file, room, writer)

    @classmethod
    def reopened(
        cls,
        journal: Journal,
        local: Workers,
        room: DiskRoom,
        writer: Callable[[], int],
        record: DirtyRecord,
    ) -> tuple["Staging", DirtyRecord]:
        """The staging file of an earlier daemon, and its record as of the end; the log continues.
        Blocks shortly.

        Raises:
            OSError: it cannot be opened.
        """
        file, log_fd, replayed = journal.reopen_staging(record)
        staging = cls(journal, local, file, room, writer)
        staging._log_fd = log_fd
        staging._log_number = log_number(record)
        staging._record = record
        return staging, replayed

    @property
    def recorded(self) -> bool:
        """Whether the next mount would find the file after a crash."""
        return self._record is not None

    async def record(self, record: DirtyRecord) -> None:
        """From now on the next mount finds the file, with ``record``.

        If the record has a base, a log of later writes begins.
        """
        log_name = None
        if record.base_valid:
            self._log_number += 1
            log_name = f"{self.ident}.{self._log_number}.log"
        named = record.replaced(log=log_name)
        log_fd = await self._local.run_to_end(self._write_record, named)
        self._close_log()
        self._log_fd = log_fd
        if not self._listed:
            # It was removed in the meantime, and the thread has brought its record back.
            self._close_log()
            self._journal.remove_staging(self.ident)
            return
        self._record = named
        if self._unlinked:
            self.mark_unlinked()

    def mark_unlinked(self) -> None:
        """Only the programs with the file open still need it; blocks shortly."""
        self._unlinked = True
        if self._record is not None and not self._record.unlinked:
            self._record = self._record.replaced(unlinked=True)
            try:
                self._journal.write_record(self._record)
            except OSError as exc:
                log.warning("the journal takes a removed file for a dirty one: %s", exc.strerror)

    def forget_record(self) -> None:
        """The bytes are safe elsewhere, or not needed: nobody needs them after a crash.

        They stay readable here.
        """
        if self.recorded:
            self._record = None
            self._close_log()
            self._journal.remove_record(self.ident, has_logs=self._log_number > 0)

    async def write(
        self,
        offset: int,
        data: bytes | memoryview,
        *,
        dirty: bool = True,
        sums: PartSums | None = None,
    ) -> tuple[int, OSError | None]:
        """Write ``data``; returns the number of bytes that went in, and the error, if any (the disk
        is full, or its rest is reserved).

        ``dirty`` False keeps the bytes out of the log (they are the base's own). ``sums`` are told
        of the bytes, on the thread.
        """
        log_fd = self._log_fd if dirty else None
        writer = self._writer()
        require = partial(self._room.require, self._fd, writer)
        done, error, taken = await self._local.run_to_end(
            _write_within, self._fd, log_fd, offset, data, require, sums
        )
        self._account.is_now(taken, writer)
        return done, error

    @property
    def is_prompt(self) -> bool:
        """Whether the disk takes a few bytes at once."""
        return not self._journal.is_slow

    def write_promptly(self, offset: int, data: memoryview, sums: PartSums | None) -> bool:
        """As :meth:`write`, a few bytes, on the calling thread; False if not all of them went in.

        If that takes long, the disk is taken for slow for a while.
        """
        writer = self._writer()
        require = partial(self._room.require, self._fd, writer)
        began = time.monotonic()
        done, error, taken = _write_within(self._fd, self._log_fd, offset, data, require, sums)
        self._journal.note_write(began)
        self._account.is_now(taken, writer)
        return error is None and done == len(data)

    def write_now(self, offset: int, data: memoryview) -> None:
        """Write on the calling thread: for giving up, when nothing may be awaited any more.

        Uses the last byte of the disk: bytes that are not saved now are lost.
        """
        _done, error = _write(self._fd, self._log_fd, offset, data)
        if error is not None:
            raise error

    async def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes, fewer at the end of the local file."""
        self.uses.enter()
        try:
            return await self._local.run_to_end(_read, self._fd, offset, size)
        finally:
            self.uses.leave()

    async def truncate(self, size: int) -> None:
        """Truncate or extend with zeros."""
        await self._local.run_to_end(_truncate, self._fd, self._log_fd, size)

    def body(self, span: ByteRange, crc32c: int | None = None) -> FileSlice:
        """The span as an upload body, with its checksum if that is known. Hold :attr:`uses` while
        it is sent.
        """
        return FileSlice(self._fd, span.start, span.size, crc32c)

    def sync(self) -> None:
        """Sync bytes and record, so that they survive a power loss; directory entries are synced
        separately.

        Callable on any thread. Hold :attr:`uses` during the call.
        """
        os.fsync(self._fd)
        self._journal.sync_record(self.ident)

    def set_aside(self, record: DirtyRecord) -> Path:
        """Move the file to ``unsaved/``; returns its path. Blocks for a rename."""
        path = self._journal.set_aside(record)
        self._record = None
        self._listed = False
        self._leave_log()
        return path

    def unlink(self) -> None:
        """Remove the file from the directory; it stays usable here until closed."""
        if self._listed:
            self._record = None
            self._listed = False
            self._leave_log()
            self._journal.remove_staging(self.ident, has_logs=self._log_number > 0)

    def close(self) -> None:
        """Close after the last use. A recorded file stays for the next mount; others go."""
        if not self.recorded:
            self.unlink()
        self.uses.close()

    def _write_record(self, record: DirtyRecord) -> int | None:
        log_fd = self._journal.open_log(record.log) if record.log is not None else None
        try:
            self._journal.write_record(record)
        except OSError:
            if log_fd is not None:
                os.close(log_fd)
            raise
        return log_fd

    def _leave_log(self) -> None:
        """Write no more to the log. Its descriptor stays: a thread that is writing to it now might
        find another file there.
        """
        log_fd, self._log_fd = self._log_fd, None
        if log_fd is not None:
            self._old_logs.append(log_fd)

    def _close_log(self) -> None:
        log_fd, self._log_fd = self._log_fd, None
        if log_fd is not None:
            os.close(log_fd)

    def _close_files(self) -> None:
        self._close_log()
        while self._old_logs:
            os.close(self._old_logs.pop())
        close_behind(self._fd, partial(os.close, self._fd))
        self._account.close()


def _write_within(
    fd: int,
    log_fd: int | None,
    offset: int,
    data: bytes | memoryview,
    require: Callable[[int], None],
    sums: PartSums | None,
) -> tuple[int, OSError | None, int]:
    """As ``_write``, if there is room; also returns the file's bytes on disk after that."""
    done = 0
    error: OSError | None = None
    try:
        require(len(data))
        done, error = _write(fd, log_fd, offset, data)
    except OSError as exc:
        error = exc
    if sums is not None:
        if error is None:
            sums.add(offset, memoryview(data))
        else:
            sums.give_up()
    return done, error, os.fstat(fd).st_blocks * _BLOCK_BYTES


def _write(
    fd: int, log_fd: int | None, offset: int, data: bytes | memoryview
) -> tuple[int, OSError | None]:
    view = memoryview(data)
    done = 0
    error = None
    try:
        while done < len(view):
            done += os.pwrite(fd, view[done:], offset + done)
    except OSError as exc:
        # Bytes that went in before the disk was full count: the file's content did change there.
        error = exc
    if log_fd is not None and done:
        try:
            _append(log_fd, written_entry(offset, offset + done))
        except OSError as exc:
            error = exc
    return done, error


def _append(log_fd: int, entry: bytes) -> None:
    """Append a whole entry or nothing: half an entry would garble all later ones."""
    end = os.fstat(log_fd).st_size
    try:
        done = 0
        while done < len(entry):
            done += os.write(log_fd, entry[done:])
    except OSError:
        os.ftruncate(log_fd, end)
        raise


def _read(fd: int, offset: int, size: int) -> bytes:
    data = os.pread(fd, size, offset)
    if len(data) == size:
        return data
    # One pread may stop early (2 GiB limit, signals); an empty second answer is the end.
    pieces = [data]
    while data and (missing := size - sum(map(len, pieces))) > 0:
        data = os.pread(fd, missing, offset + size - missing)
        pieces.append(data)
    return b"".join(pieces)


def _truncate(fd: int, log_fd: int | None, size: int) -> None:
    os.ftruncate(fd, size)
    if log_fd is not None:
        _append(log_fd, truncated_entry(size))

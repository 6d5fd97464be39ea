"""One object version's file on disk, or two of a large one: verified reading, writing, trimming."""

import fcntl
import os
import stat
import time
from array import array
from contextlib import suppress

from ossfs_py.datapath.diskcache.layout import (
    MAX_HEADER_BYTES,
    PAGE_BYTES,
    SEAL_BYTES,
    Identity,
    parse_header,
    plain_of,
    round_up,
)
from ossfs_py.datapath.fileparts import read_fully, write_fully
from ossfs_py.errors import is_disk_full
from ossfs_py.reading.secondhome import BlockLostError
from ossfs_py.runtime.pastpages import DIRECT_FROM_BYTES, DirectFile

FILE_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOATIME
"""O_NOATIME: the access time holds the use before the last. O_NONBLOCK: a fifo in the place of a
block file must not stop the mount.
"""

_SECTOR_BYTES = 512
"""The unit of st_blocks, independent of the file system's block size."""


class BlockFile:
    """The open file of one version, under a shared lock that keeps it from being evicted.

    ``records`` are the checksums as of opening, kept in step with this object's own writes.
    Reading and writing are safe from several threads for spans that do not overlap.
    """

    def __init__(
        self, fd: int, identity: Identity, records: "array[int]", data_fd: int | None = None
    ) -> None:
        """``data_fd`` is the file with the bytes; None: they are in ``fd``."""
        self.fd = fd
        self.data_fd = fd if data_fd is None else data_fd
        self.identity = identity
        self.records = records
        self._direct: DirectFile | None = None

    @classmethod
    def open(cls, root_fd: int, identity: Identity) -> "BlockFile | None":
        """The file as it is on disk; None if there is no usable one (absent, damaged, being
        removed).

        Raises:
            OSError: the directory cannot be used.
        """
        path = f"{identity.shelf}/{identity.name}"
        try:
            fd = os.open(path, FILE_FLAGS, dir_fd=root_fd)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            info = os.fstat(fd)
            if stat.S_ISREG(info.st_mode) and info.st_nlink > 0:
                header = os.pread(fd, len(identity.header), 0)
                if header == identity.header:
                    data_fd = _open_data(root_fd, identity)
                    _note_use(fd, info.st_mtime_ns)
                    file = cls(fd, identity, _read_records(fd, identity), data_fd)
                    return file.past_page_cache()
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    @classmethod
    def create(cls, root_fd: int, identity: Identity) -> "tuple[BlockFile | None, int]":
        """The file, made or started anew if needed, and the change of disk space in bytes; no file
        while another process uses a damaged one.

        Call with the ledger locked.

        Raises:
            OSError: the directory cannot be used, the disk is full.
        """
        with suppress(FileExistsError):
            os.mkdir(identity.shelf, 0o700, dir_fd=root_fd)
        path = f"{identity.shelf}/{identity.name}"
        fd = os.open(path, FILE_FLAGS | os.O_CREAT, 0o600, dir_fd=root_fd)
        file = cls(fd, identity, array("Q", bytes(identity.records_bytes)))
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if stat.S_ISREG(os.fstat(fd).st_mode):
                before = allocated_bytes(fd)
                os.ftruncate(fd, 0)
                os.ftruncate(fd, identity.head_bytes)
                allocate(fd, 0, identity.head_bytes)
                if identity.is_plain:
                    before += remove_plain(root_fd, identity.shelf, identity.name)
                    file.data_fd = os.open(
                        plain_of(path), FILE_FLAGS | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=root_fd
                    )
                os.pwrite(fd, identity.header, 0)
                os.utime(fd, ns=(0, time.time_ns()))
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return file.past_page_cache(), file.allocated_bytes() - before
        except BlockingIOError:
            pass
        except BaseException:
            # A half made file must not hold space that nobody counted.
            with suppress(OSError):
                os.ftruncate(fd, 0)
            file.close()
            raise
        file.close()
        return None, 0

    @classmethod
    def look(cls, root_fd: int, shelf: str, name: str) -> "BlockFile | None":
        """A file by its name, held like an open one but without counting a use; None if it is
        absent, damaged or being removed.

        Raises:
            OSError: the directory cannot be used.
        """
        try:
            fd = os.open(f"{shelf}/{name}", FILE_FLAGS, dir_fd=root_fd)
        except FileNotFoundError:
            return None
        file = None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            file = cls.inspect(root_fd, fd, name)
        except BlockingIOError:
            pass
        finally:
            if file is None:
                os.close(fd)
        return file

    @classmethod
    def inspect(cls, root_fd: int, fd: int, name: str) -> "BlockFile | None":
        """A view of an open file by what it says about itself; None if it is damaged.

        ``fd`` stays the caller's if there is none.

        Raises:
            OSError: it cannot be read.
        """
        identity = parse_header(os.pread(fd, MAX_HEADER_BYTES, 0))
        if identity is None or identity.name != name:
            return None
        try:
            return cls(fd, identity, _read_records(fd, identity), _open_data(root_fd, identity))
        except FileNotFoundError:
            return None

    @property
    def linked(self) -> bool:
        """Whether the file still has a name (it was not deleted behind our back)."""
        return os.fstat(self.fd).st_nlink > 0 and os.fstat(self.data_fd).st_nlink > 0

    @property
    def takes_direct(self) -> bool:
        """Whether it is read past the kernel's page cache."""
        return self._direct is not None and self._direct.works

    @property
    def complete(self) -> bool:
        """Whether every block is present, according to the records."""
        return 0 not in self.records

    def allocated_bytes(self) -> int:
        """The disk space that it takes now."""
        apart = self.data_fd != self.fd
        return allocated_bytes(self.fd) + (allocated_bytes(self.data_fd) if apart else 0)

    def missing_bytes(self, first: int, last: int) -> int:
        """Disk space that blocks ``[first, last)`` may need beyond what is there, at most."""
        size = self.identity.block_size_bytes
        if last - first == 1 and last == self.identity.block_count:
            start, end = self.identity.span(first, last)
            size = round_up(end - start, PAGE_BYTES)
        return size * sum(1 for record in self.records[first:last] if not record)

    def allocate(self, first: int, last: int) -> None:
        """Take the disk space of blocks ``[first, last)``.

        Raises:
            OSError: the disk is full.
        """
        start, end = self.identity.span(first, last)
        allocate(self.data_fd, self.identity.block_offset(first), end - start)

    def read(self, start: int, buffer: memoryview) -> None:
        """Fill ``buffer`` with the object's bytes from ``start``, verified block by block.

        Every bad block of the span is forgotten before the error.

        Raises:
            BlockLostError: a block is absent, unreadable, short, or does not match its checksum.
        """
        identity = self.identity
        size = identity.block_size_bytes
        end = start + len(buffer)
        first, last = start // size, -(-end // size)
        whole_start, whole_end = identity.span(first, last)
        if (whole_start, whole_end) == (start, end):
            whole = buffer
        else:
            # A checksum speaks of a whole block.
            whole = memoryview(bytearray(whole_end - whole_start))
        try:
            count = self._read(whole, identity.block_offset(first))
        except OSError as exc:
            self._forget(range(first, last))
            raise BlockLostError(
                f"the cached blocks of {identity.version.key!r} at {start} cannot be read"
            ) from exc
        bad = [i for i in range(first, last) if not self._matches(i, whole, whole_start, count)]
        if bad:
            self._forget(bad)
            raise BlockLostError(
                f"{len(bad)} cached blocks of {identity.version.key!r} at {start} are damaged"
            )
        if whole is not buffer:
            buffer[:] = whole[start - whole_start : end - whole_start]

    def _read(self, view: memoryview, offset: int) -> int:
        done = self._direct.read(view, offset) if self._direct is not None else 0
        if done == len(view):
            return done
        # Asks the disk for all of it at once; the kernel's own readahead, confused by several
        # threads on one descriptor, goes in steps of 128 KiB.
        os.posix_fadvise(self.data_fd, offset + done, len(view) - done, os.POSIX_FADV_WILLNEED)
        return done + read_fully(self.data_fd, view[done:], offset + done)

    def write(self, first: int, last: int, view: memoryview) -> None:
        """Put the bytes of blocks ``[first, last)`` on disk, then say that they are there.

        Raises:
            OSError: the disk failed; the blocks count as absent or are what they were.
        """
        offset = self.identity.block_offset(first)
        done = self._direct.write(view, offset) if self._direct is not None else 0
        write_fully(self.data_fd, view[done:], offset + done)
        self.record(first, last, view)

    def record(self, first: int, last: int, view: memoryview) -> None:
        """Note the checksums of blocks whose bytes ``view`` are in the file."""
        identity = self.identity
        begin = identity.span(first, last)[0]
        sums = array("Q")
        for index in range(first, last):
            start, end = identity.span(index, index + 1)
            sums.append(identity.checksum(index, view[start - begin : end - begin]))
        write_fully(self.fd, memoryview(sums).cast("B"), identity.record_offset(first))
        self.records[first:last] = sums

    def learn(self, records: "array[int]") -> None:
        """Take over the checksums of blocks that another view of the same file has written."""
        for index, record in enumerate(records):
            if record and not self.records[index]:
                self.records[index] = record

    def copy_from(self, source_fd: int, offset: int, first: int, view: memoryview) -> bool:
        """Copy ``len(view)`` bytes of another local file to block ``first`` and on.

        ``view`` receives what the disk now holds; :meth:`record` makes it count. False if the
        source ended early.

        Raises:
            OSError: the disk failed.
        """
        begin = self.identity.block_offset(first)
        done = 0
        try:
            while done < len(view):
                count = os.copy_file_range(
                    source_fd, self.data_fd, len(view) - done, offset + done, begin + done
                )
                if count == 0:
                    break
                done += count
        except OSError as exc:
            if is_disk_full(exc):
                raise
            # Between file systems, or one that does not know the call.
        if done < len(view):
            rest = view[done:]
            if read_fully(source_fd, rest, offset + done) < len(rest):
                return False
            write_fully(self.data_fd, rest, begin + done)
        return read_fully(self.data_fd, view, begin) == len(view)

    # -- the seal, of a large object ---------------------------------------------------------------

    def read_seal(self) -> bytes:
        """The seal of the last :meth:`write_seal`; zeros without a complete one."""
        return os.pread(self.fd, SEAL_BYTES, self.identity.seal_offset).ljust(SEAL_BYTES, b"\0")

    def write_seal(self, seal: bytes) -> None:
        """Write a seal.

        Raises:
            OSError: the disk failed.
        """
        write_fully(self.fd, memoryview(seal), self.identity.seal_offset)

    @property
    def was_sealed(self) -> bool:
        """Whether the kernel may be reading it for programs: then nothing may be cut off."""
        return self.identity.is_plain and any(self.read_seal())

    def trim(self, first: int) -> None:
        """Give back the disk space of block ``first`` and all after it.

        Only under an exclusive lock on the file, with the ledger locked.
        """
        identity = self.identity
        count = identity.block_count - first
        zeros = array("Q", bytes(8 * count))
        write_fully(self.fd, memoryview(zeros).cast("B"), identity.record_offset(first))
        os.ftruncate(self.data_fd, identity.block_offset(first))
        self.records[first:] = zeros

    def close(self) -> None:
        """Close the file; others may evict it from now on."""
        if self._direct is not None:
            self._direct.close()
        fds, self.fd, self.data_fd = {self.fd, self.data_fd}, -1, -1
        for fd in fds - {-1}:
            os.close(fd)

    def past_page_cache(self) -> "BlockFile":
        """Bypass the kernel's page cache for a large file from now on, if possible."""
        if self.identity.version.size >= DIRECT_FROM_BYTES:
            self._direct = DirectFile(self.data_fd)
        return self

    def _matches(self, index: int, whole: memoryview, begin: int, count: int) -> bool:
        start, end = self.identity.span(index, index + 1)
        expected = self.records[index]
        return (
            expected != 0
            and end - begin <= count
            and self.identity.checksum(index, whole[start - begin : end - begin]) == expected
        )

    def _forget(self, indexes: "range | list[int]") -> None:
        for index in indexes:
            self.records[index] = 0
            # If not even this can be written, the block fails its check again next time.
            with suppress(OSError):
                os.pwrite(self.fd, bytes(8), self.identity.record_offset(index))


def allocate(fd: int, offset: int, size: int) -> None:
    """Take disk space ahead of writing, so that a full disk is known and counted at once.

    Raises:
        OSError: the disk is full. A file system that cannot allocate is no error: the write will
            tell.
    """
    try:
        os.posix_fallocate(fd, offset, size)
    except OSError as exc:
        if is_disk_full(exc):
            raise


def remove_plain(root_fd: int, shelf: str, name: str) -> int:
    """Remove the file with the bytes of a large object, even if it is being read; returns its disk
    space, 0 if there is none.

    Call with the ledger locked.
    """
    path = plain_of(f"{shelf}/{name}")
    try:
        taken = os.stat(path, dir_fd=root_fd, follow_symlinks=False).st_blocks * _SECTOR_BYTES
        os.unlink(path, dir_fd=root_fd)
    except FileNotFoundError:
        return 0
    return taken


def _open_data(root_fd: int, identity: Identity) -> int | None:
    """The file with the bytes of a large object; None: the first file has them.

    Raises:
        FileNotFoundError: there is none.
    """
    if not identity.is_plain:
        return None
    fd = os.open(f"{identity.shelf}/{plain_of(identity.name)}", FILE_FLAGS, dir_fd=root_fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileNotFoundError(f"{identity.name} has no file with its bytes")
    return fd


def allocated_bytes(fd: int) -> int:
    """The disk space that an open file takes now."""
    return os.fstat(fd).st_blocks * _SECTOR_BYTES


def _note_use(fd: int, last_use_ns: int) -> None:
    # stat(2) alone must tell how a file was used, so that choosing whom to evict opens none.
    # A read-only file system cannot be told; it cannot be evicted from either.
    with suppress(OSError):
        os.utime(fd, ns=(last_use_ns, time.time_ns()))


def _read_records(fd: int, identity: Identity) -> "array[int]":
    raw = bytearray(identity.records_bytes)
    read_fully(fd, memoryview(raw), identity.records_offset)
    return array("Q", bytes(raw))

"""How many bytes all mounts of one cache directory hold, behind one lock."""

import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import xxhash

from ossfs_py.errors import OssfsError

_NAME = "ledger"
_FIELDS = struct.Struct("<8s16sQQQ")
_CHECK = struct.Struct("<Q")
_MAGIC = b"ossfsled"

_PATIENCE_SECONDS = 2.0
"""The lock is held for microseconds, for some milliseconds while evicting. A holder that was
stopped with SIGSTOP must not stop everybody else."""
_POLL_SECONDS = 0.001

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_UNKNOWN_BOOT = bytes(16)
"""On a host that hides its boot id, every mount counts once."""


class LedgerBusyError(OssfsError):
    """Another process held the cache's lock for too long."""


class Totals:
    """The content of the ledger, while its lock is held. Sizes in bytes.

    Order of work: raise ``used_bytes`` and :meth:`save` before disk space is taken, lower it
    after space was given back. A process killed in between leaves a sum that is too high (found
    out at the next recount), never too low.
    """

    __slots__ = ("_boot", "_fd", "hit_bytes", "miss_bytes", "used_bytes")

    def __init__(
        self, fd: int, boot: bytes, used_bytes: int, hit_bytes: int, miss_bytes: int
    ) -> None:
        self._fd = fd
        self._boot = boot
        self.used_bytes = used_bytes
        self.hit_bytes = hit_bytes
        self.miss_bytes = miss_bytes

    def save(self) -> None:
        """Write the totals down.

        Raises:
            OSError: they could not be written.
        """
        fields = _FIELDS.pack(
            _MAGIC, self._boot, max(0, self.used_bytes), self.hit_bytes, self.miss_bytes
        )
        os.pwrite(self._fd, fields + _CHECK.pack(xxhash.xxh3_64_intdigest(fields)), 0)


class Ledger:
    """The file ``ledger`` in the cache directory. Safe for any number of threads and processes.

    ``recount`` returns the bytes that the block files take, from a scan. It is asked when the
    totals are missing, damaged, or from before the last boot (power loss does not keep the order
    of writes).
    """

    def __init__(self, root_fd: int, recount: Callable[[], int]) -> None:
        self._root_fd = root_fd
        self._recount = recount
        self._mutex = threading.Lock()
        self._fd = -1
        self._boot = _boot_id()
        self._counted = self._boot != _UNKNOWN_BOOT
        self.used_bytes = 0
        """As last seen; may be read at any time without the lock."""

    @contextmanager
    def locked(self) -> Iterator[Totals]:
        """The totals, for this thread alone; saved at the end, also after an exception.

        Raises:
            LedgerBusyError: no chance within two seconds.
            OSError: the directory is gone, read-only or broken.
        """
        if not self._mutex.acquire(timeout=_PATIENCE_SECONDS):
            raise LedgerBusyError("the cache directory is busy")
        try:
            self._lock()
            try:
                totals = self._read()
                try:
                    yield totals
                finally:
                    totals.save()
                    self.used_bytes = totals.used_bytes
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        finally:
            self._mutex.release()

    def recount(self, totals: Totals) -> None:
        """Replace ``used_bytes`` by what the files really take."""
        totals.used_bytes = self._recount()
        self._counted = True

    def close(self) -> None:
        """Close the file."""
        with self._mutex:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _lock(self) -> None:
        while True:
            if self._fd < 0:
                self._fd = os.open(
                    _NAME,
                    os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC,
                    0o600,
                    dir_fd=self._root_fd,
                )
            _flock_patiently(self._fd)
            if os.fstat(self._fd).st_nlink > 0:
                return
            # Somebody deleted the file: its lock says nothing to those who open the new one.
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> Totals:
        raw = os.pread(self._fd, _FIELDS.size + _CHECK.size, 0)
        with suppress(struct.error):
            magic, boot, used, hits, misses = _FIELDS.unpack_from(raw)
            (check,) = _CHECK.unpack_from(raw, _FIELDS.size)
            intact = check == xxhash.xxh3_64_intdigest(raw[: _FIELDS.size]) and magic == _MAGIC
            if intact:
                totals = Totals(self._fd, self._boot, used, hits, misses)
                if boot != self._boot or not self._counted:
                    self.recount(totals)
                return totals
        totals = Totals(self._fd, self._boot, 0, 0, 0)
        self.recount(totals)
        return totals


def _flock_patiently(fd: int) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise LedgerBusyError("another process holds the cache's lock") from None
            time.sleep(_POLL_SECONDS)
        else:
            return


def _boot_id() -> bytes:
    try:
        return bytes.fromhex(_BOOT_ID.read_text().strip().replace("-", ""))[:16].ljust(16, b"\0")
    except (OSError, ValueError):
        return _UNKNOWN_BOOT

"""How much of the local disk the files of this mount may use, and each user's share of it.

If one user fills a disk, everybody's writes fail, and so does everything else on the machine that
needs the disk. So bytes are refused, whoever brings them, while some space is left.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from ossfs_py.errors import disk_full

READERS = -1
"""The owner of the share for fetched bytes on disk; no user has this number."""

_KEPT_BYTES = 1024**3
_KEPT_SHARE = 10
"""One part in this many of a disk that is smaller than ten times the first."""
_FEW_BYTES = 4096
_FRESH_SECONDS = 0.01
_MUCH_BYTES = 256 * 1024**2
"""Who brings so few bytes is told what was left so long ago, if that was so much. Asking each time
takes 1.7 us, a seventh of what the daemon does for a write of one byte."""


def left_bytes(fd: int, min_free_bytes: int | None) -> int:
    """The bytes that may still be used on the file system of ``fd``; negative if too many are used.

    ``min_free_bytes`` stay free; None: 1 GiB, or a tenth of a smaller disk.
    """
    info = os.fstatvfs(fd)
    if min_free_bytes is None:
        min_free_bytes = min(_KEPT_BYTES, info.f_blocks * info.f_frsize // _KEPT_SHARE)
    return info.f_bavail * info.f_frsize - min_free_bytes


class DiskRoom:
    """The room that staging and temporary files of a mount may take.

    Whether there is room may be asked on any thread; what is taken is told on the trio thread.
    """

    def __init__(self, min_free_bytes: int | None = 0, *, shared: bool = False) -> None:
        """``min_free_bytes`` is that of :func:`left_bytes`. ``shared``: several users write, and
        none of them may have more than what is left after that.
        """
        self._min_free_bytes = min_free_bytes
        self._shared = shared
        self._taken: Counter[int] = Counter()
        self._coming_bytes = 0
        """Bytes that threads are writing now, changed under the lock."""
        self._lock = threading.Lock()
        self._last = -1, 0.0, 0
        """A file, until when the answer about its file system counts, and what was left there."""

    def has_room(self, fd: int, uid: int, size: int) -> bool:
        """Whether the user may bring ``size`` more bytes to the file system of ``fd``."""
        if self._min_free_bytes == 0 and not self._shared:
            return True
        left = self._left_bytes(fd, size) - self._coming_bytes - size
        if left < 0:
            return False
        return not self._shared or self._taken[uid] + size <= left

    def _left_bytes(self, fd: int, size: int) -> int:
        asked_fd, until, left = self._last
        now = monotonic()
        if size > _FEW_BYTES or asked_fd != fd or now >= until:
            left = left_bytes(fd, self._min_free_bytes)
            self._last = fd, now + _FRESH_SECONDS if left >= _MUCH_BYTES else now, left
        return left

    @contextmanager
    def reserved(self, fd: int, uid: int, size: int) -> Iterator[bool]:
        """Whether the user may bring ``size`` more bytes, which are nobody else's room in this
        context: several threads that asked before any of them wrote would take it together.
        """
        with self._lock:
            has_room = self.has_room(fd, uid, size)
            if has_room:
                self._coming_bytes += size
        try:
            yield has_room
        finally:
            if has_room:
                with self._lock:
                    self._coming_bytes -= size

    def require(self, fd: int, uid: int, size: int) -> None:
        """Raise OSError (no space left) unless the user may bring ``size`` more bytes."""
        if not self.has_room(fd, uid, size):
            raise disk_full("the mount leaves the rest of the local disk to others")

    def account(self) -> "DiskAccount":
        """The space that one new file takes."""
        return DiskAccount(self._taken)


class DiskAccount:
    """The space that one file on disk takes. Belongs to the trio thread."""

    def __init__(self, taken: Counter[int]) -> None:
        self._all = taken
        self._mine: dict[int, int] = {}
        self._bytes = 0

    def is_now(self, size: int, uid: int) -> None:
        """The file takes ``size`` bytes since the user wrote to it."""
        more, self._bytes = size - self._bytes, size
        if more:
            self._mine[uid] = self._mine.get(uid, 0) + more
            self._all[uid] += more

    def close(self) -> None:
        """The file takes none any more, or is not this mount's any more."""
        for uid, size in self._mine.items():
            self._all[uid] -= size
            if not self._all[uid]:
                del self._all[uid]
        self._mine.clear()
        self._bytes = 0

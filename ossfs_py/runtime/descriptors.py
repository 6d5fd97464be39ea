"""How many of the process's file descriptors may be spent on what.

Readers and connections must always get one: a page fault that fails kills the program that reads.
So files kept for readers and files that programs write are refused before the last ones are gone.
"""

import os
import resource
from collections import Counter

from ossfs_py.errors import TooManyFilesError

MOST_FILES = 1 << 20
"""Beyond it, what is started by us and closes every number one by one would take seconds."""

_KEPT = 0.5
"""Up to this many, bytes that were read are kept in temporary files (``temp``)."""
_WRITTEN = 0.625
"""Up to here, files may be opened for writing; each needs a descriptor once it is written to."""
_LOOKS = 16
"""One file in so many of those that may still be opened is opened before the next look."""
_WRITERS = 0.25
"""Share of files that may be open for writing at once. The rest, an eighth, is for connections."""


def raise_limit() -> None:
    """Let this process have as many descriptors as its hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Descriptors:
    """The descriptors of this process. Belongs to the trio thread."""

    def __init__(self, limit: int | None = None, *, shared: bool = False) -> None:
        """``limit`` is how many there can be (None: what the system says at the time). ``shared``:
        several users write, and none of them may have more than half of what is free.
        """
        self._fixed_limit = limit
        self._shared = shared
        self._writers: Counter[int] = Counter()
        self._writer_count = 0
        self._unlooked = 0
        """How many more files may be opened for writing before the numbers are looked at again."""

    def add_writer(self, uid: int) -> None:
        """The user opens a file for writing.

        Raises:
            TooManyFilesError: may not.
        """
        limit = self._limit()
        free = int(limit * _WRITERS) - self._writer_count
        if free <= 0 or not self._are_enough(limit):
            raise TooManyFilesError("too many files are open for writing")
        if self._shared and self._writers[uid] >= free:
            raise TooManyFilesError(f"user {uid} has too many files open for writing")
        self._writers[uid] += 1
        self._writer_count += 1

    def remove_writer(self, uid: int) -> None:
        """It is closed."""
        self._writers[uid] -= 1
        self._writer_count -= 1
        if not self._writers[uid]:
            del self._writers[uid]

    def may_keep_file(self) -> bool:
        """Whether there are enough descriptors to keep read bytes in a file."""
        return _next_number() < self._limit() * _KEPT

    def _are_enough(self, limit: int) -> bool:
        """Whether one more file may be written; a look at the numbers takes two system calls."""
        self._unlooked -= 1
        if self._unlooked < 0:
            left = int(limit * _WRITTEN) - _next_number()
            self._unlooked = left // _LOOKS
            return left > 0
        return True

    def _limit(self) -> int:
        if self._fixed_limit is not None:
            return self._fixed_limit
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return MOST_FILES if soft == resource.RLIM_INFINITY else soft


def _next_number() -> int:
    """The number that is given out next: the lowest free one, so as many are in use at least."""
    try:
        number = os.open("/", os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return MOST_FILES  # there is none
    os.close(number)
    return number

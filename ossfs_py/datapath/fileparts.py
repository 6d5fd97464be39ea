"""What backends share that have parts of a version in a file, each at its own offset."""

import os

from ossfs_py.extents import ExtentSet
from ossfs_py.model import ObjectVersion


class FileParts:
    """Knows which parts of ``version`` are in the file: ``present``, which it changes."""

    granularity_bytes = 4096
    """One page: neighbouring spans never share one."""

    def __init__(self, version: ObjectVersion, present: ExtentSet) -> None:
        self._version = version
        self._present = present

    def present_until(self, offset: int) -> int:
        """End of the run in the file that holds ``offset``; ``offset`` itself if none."""
        present, until = self._present.run_at(offset, self._version.size)
        return until if present else offset

    def next_present(self, offset: int) -> int | None:
        """The start of the first run in the file behind ``offset``."""
        present, until = self._present.run_at(offset, self._version.size)
        return None if present or until == self._version.size else until

    def note_lost(self, start: int, end: int) -> None:
        """The run cannot be read back; it comes from the store again."""
        self._present.remove(start, end)


def read_fully(fd: int, buffer: memoryview, start: int, done: int = 0) -> int:
    """Fill ``buffer``, of which ``done`` bytes are there, with a file's bytes from ``start`` on.

    Returns the bytes in it: fewer than it holds at the end of the file.

    Raises:
        OSError: as preadv(2).
    """
    while done < len(buffer):
        count = os.preadv(fd, [buffer[done:]], start + done)
        if count == 0:
            break
        done += count
    return done


def write_fully(fd: int, view: memoryview, start: int, done: int = 0) -> None:
    """Write a view into a file from ``start`` on; its first ``done`` bytes are there.

    Raises:
        OSError: as pwritev(2); some of it may have been written.
    """
    while done < len(view):
        done += os.pwritev(fd, [view[done:]], start + done)

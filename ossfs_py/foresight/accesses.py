"""Which reads belong together: runs of a program, or of the kernel around its page faults."""

import mmap

from ossfs_py.model import ByteRange

_MAX_RUNS = 64
PAGE_BYTES = mmap.PAGESIZE
"""64 KiB on some aarch64 kernels, whose reads begin on such pages."""
_AROUND_BYTES = 256 * 1024
"""A shorter read is no read-around: the kernel's is as long as its readahead."""

_RECORD_BYTES = 8192
"""A record's header lies this far into the read at most that looks at it: reads begin on pages."""


class Run:
    """Reads that followed one another without a gap: ``[start, end)`` so far."""

    __slots__ = (
        "end",
        "follows_read",
        "has_crossed",
        "part",
        "part_end",
        "place",
        "reads",
        "start",
    )

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        self.reads = 1
        self.part: int | None = None
        """The number of the part it is in."""
        self.part_end = end
        self.has_crossed = False
        """Whether it continued from one part into another, further than the kernel does."""
        self.follows_read = False
        """Whether it began behind what had been read before: the kernel still has that."""
        self.place = start
        """The probable start of the program's access: the page of its fault, or ``start``."""


class Runs:
    """The latest runs among the reads of one version. Reads of several programs interleave."""

    def __init__(self) -> None:
        self._by_end: dict[int, Run] = {}
        self._by_start: dict[int, Run] = {}
        self.forgot = False
        """Whether there were more runs than are remembered."""

    def observe(self, start: int, end: int) -> Run:
        """The run of a read ``[start, end)``, grown by it; one with ``reads == 1`` is new."""
        run = self._by_end.pop(start, None)
        if run is None:
            run = Run(start, end)
            if len(self._by_end) >= _MAX_RUNS:
                self._forget(next(iter(self._by_end)))
                self.forgot = True
            self._by_start[start] = run
        else:
            run.end = end
            run.reads += 1
            ahead = self._by_start.get(end)
            if ahead is not None:
                ahead.follows_read = True  # the reads came out of order
        self._forget(end)
        self._by_end[end] = run
        return run

    def _forget(self, end: int) -> None:
        run = self._by_end.pop(end, None)
        if run is not None and self._by_start.get(run.start) is run:
            del self._by_start[run.start]

    def ending_at(self, position: int) -> Run | None:
        """The run that has reached ``position``."""
        return self._by_end.get(position)


def places_of(read: ByteRange) -> list[ByteRange]:
    """Where the program may have begun that made the kernel ask for ``read``, likeliest first.

    A page fault makes the kernel read around it, half of it before: as one request, whose middle
    the page is, or as two, the first of which ends there. Whoever calls read(2) begins where the
    request begins, on its page.
    """
    first = ByteRange(read.start, read.start + _RECORD_BYTES)
    if read.size < _AROUND_BYTES:
        return [first]
    middle = (read.start + read.size // 2) // PAGE_BYTES * PAGE_BYTES
    return [
        ByteRange(read.end, read.end + PAGE_BYTES),
        first,
        ByteRange(middle, middle + PAGE_BYTES),
    ]

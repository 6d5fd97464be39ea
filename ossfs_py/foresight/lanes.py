"""Programs in a belief: each begins the parts of a file at the same place inside them."""

from collections import deque

from ossfs_py.foresight.accesses import Run
from ossfs_py.model import ByteRange

_MIB = 1024**2

OVERRUN_BYTES = 4 * _MIB + 64 * 1024
"""How far the kernel's own readahead of 1 MiB was seen to run past the end of what a program reads:
two windows of 2 MiB, with MADV_SEQUENTIAL."""


class ReadShape:
    """The bytes of a part, and around it, that a run has read."""

    __slots__ = ("lead_bytes", "overrun_bytes", "share")

    def __init__(self, run: Run, part: ByteRange, one_before: "ReadShape | None") -> None:
        self.lead_bytes = max(run.place - run.start, 0)
        self.share = (run.end - part.start) / part.size
        """The place in the part at which it ended; 1 or more means after it."""
        least = OVERRUN_BYTES if one_before is None else one_before.overrun_bytes
        self.overrun_bytes: int = min(max(run.end - part.end, 0), least)
        """How far the kernel read on behind the part, the smaller one of two."""


class PartLane:
    """A program that begins one part after the other at the same place inside it."""

    __slots__ = (
        "ends",
        "fraction",
        "heads",
        "heads_count",
        "is_guess",
        "is_head",
        "last",
        "looks",
        "pushed_to",
        "run",
        "shape",
        "slices",
        "wholes",
    )

    def __init__(self, number: int, run: Run, fraction: float, *, is_head: bool) -> None:
        self.fraction = fraction
        self.is_head = is_head
        self.last = number
        self.run = run
        self.looks = 0
        """Consecutive parts whose beginnings alone were touched."""
        self.wholes = 0
        """The same of large parts that were read whole, by this program and others."""
        self.slices = 0
        """And of those that were not."""
        self.ends = 0
        """Consecutive parts that were read after their ends had been touched."""
        self.shape: ReadShape | None = None
        self.heads: deque[ByteRange] = deque()
        """Beginnings on the course that have not been touched yet."""
        self.is_guess = False
        """Whether its first part was taken for a look before there was a second one."""
        self.heads_count = 0
        """How many were ever put on it."""
        self.pushed_to = 0
        """How far the file is on the course because of it."""

"""Programs that begin one part after the other at the same place inside it, and what they read."""

from collections import deque

from ossfs_py.foresight.accesses import PAGE_BYTES, Run
from ossfs_py.model import ByteRange

MIB = 1024**2

OVERRUN_BYTES = 4 * MIB + 64 * 1024
"""How far the kernel's own readahead of 1 MiB was seen to run past the end of what a program reads:
two windows of 2 MiB, with MADV_SEQUENTIAL."""


class PartShape:
    """What a run has read of a part, and around it."""

    __slots__ = ("lead_bytes", "overrun_bytes", "share")

    def __init__(self, run: Run, part: ByteRange, one_before: "PartShape | None") -> None:
        self.lead_bytes = max(run.place - run.start, 0)
        self.share = (run.end - part.start) / part.size
        """Where it ended within the part; 1 or more: behind it."""
        least = OVERRUN_BYTES if one_before is None else one_before.overrun_bytes
        self.overrun_bytes: int = min(max(run.end - part.end, 0), least)
        """How far the kernel read on behind the part, the smaller one of two."""


class PartLane:
    """A program that begins one part after the other at the same place inside it."""

    __slots__ = (
        "fraction",
        "heads",
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
        """Parts in a row, each the next one, that were looked at only."""
        self.wholes = 0
        """The same of large parts that were read whole, by this program and others."""
        self.slices = 0
        """And of those that were not."""
        self.shape: PartShape | None = None
        self.heads: deque[ByteRange] = deque()
        """Beginnings on the course that were not looked at yet."""
        self.pushed_to = 0
        """How far the file is on the course because of it."""

    def slice_of(self, part: ByteRange) -> tuple[int, int]:
        """What its program reads of a part, by what it has read of the one before."""
        assert self.shape is not None  # noqa: S101 - parts were read
        start = part.start + int(self.fraction * part.size)
        end = part.end
        if self.shape.share < 1:
            end = part.start + int(self.shape.share * part.size)
        return start // PAGE_BYTES * PAGE_BYTES, max(start, end)

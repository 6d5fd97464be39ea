"""Cutting a file into the parts of a multipart upload. Pure arithmetic, no I/O.

There are two plans. A new file is cut by a *schedule* that depends only on the part's number, so
that parts can be sent before the size is known. A modified object is cut by :func:`plan_commit`
into parts that the store copies and parts that are sent from here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TypeAlias

from ossfs_py.extents import ExtentSet
from ossfs_py.model import ByteRange
from ossfs_py.store.base import MAX_COPY_BYTES, MAX_OBJECT_BYTES, MAX_PARTS, MIN_PART_BYTES

FIRST_PART_BYTES = 8 * 1024**2
"""Large enough that a request's fixed cost (25 ms on a cloud) is small beside its bytes; small
enough that the first part is sent early and that waiting parts fit a small memory budget.
"""

COPY_PART_BYTES = 64 * 1024**2
"""One server-side copy request. A store copies a single range at the speed of one stream, so a
large clean range is faster as several requests in parallel."""

EQUAL_PART_BYTES = 32 * 1024**2
"""Size of every part if a store wants one size: a file of unknown size may grow to 312 GiB."""
_MOST_EQUAL_PARTS = 2000
"""A changed object is cut into smaller parts, to move as few bytes as possible, but not into so
many that their requests take longer than the bytes.
"""

_SCHEDULE_STEPS = 10
"""The part size doubles ten times over 10,000 parts: 8 MiB * 1,000 * (2**10 - 1) > 5 TiB."""


@dataclass(frozen=True, slots=True)
class PartLimits:
    """The limits of the store, in bytes; the defaults are those of S3 and OSS."""

    min_part: int = MIN_PART_BYTES
    first_part: int = FIRST_PART_BYTES
    copy_part: int = COPY_PART_BYTES
    max_part: int = MAX_COPY_BYTES
    """Largest part, copied or sent."""
    max_parts: int = MAX_PARTS
    max_object: int = MAX_OBJECT_BYTES
    equal_part: int | None = None
    """The size of all parts but the last of a new file; None: parts may differ in size."""


class PartSchedule:
    """The spans of the parts (from 1) of a file of unknown size.

    Sizes start at ``first_part`` and double every tenth of ``max_parts``, up to ``cap`` bytes;
    with ``equal_part`` all are of that size.
    """

    def __init__(self, limits: PartLimits, cap: int | None = None) -> None:
        self._step = limits.max_parts // _SCHEDULE_STEPS
        first = limits.equal_part or limits.first_part
        most = first if limits.equal_part else limits.max_part
        self._cap = max(first, min(cap or most, most))
        self.max_parts = limits.max_parts
        # One row for each step: the first part number, its offset, the size of the step's parts.
        rows: list[tuple[int, int, int]] = []
        offset, size = 0, first
        for step in range(_SCHEDULE_STEPS):
            rows.append((step * self._step + 1, offset, size))
            offset += self._step * size
            size = min(size * 2, self._cap)
        self._rows = rows
        last_number, last_offset, last_size = rows[-1]
        self.capacity = last_offset + (limits.max_parts - last_number + 1) * last_size
        """Bytes that ``max_parts`` parts hold."""

    def span(self, number: int) -> ByteRange:
        """The bytes of a full part ``number``."""
        first, offset, size = self._rows[min((number - 1) // self._step, _SCHEDULE_STEPS - 1)]
        start = offset + (number - first) * size
        return ByteRange(start, start + size)

    def agrees(self, other: "PartSchedule", size: int) -> bool:
        """Whether both cut the first ``size`` bytes at the same places."""
        number = self.number_at(size)
        return self.span(number) == other.span(number)

    def number_at(self, offset: int) -> int:
        """The part that holds byte ``offset``; below ``capacity`` it is at most ``max_parts``."""
        first, start, size = next(row for row in reversed(self._rows) if row[1] <= offset)
        return first + (offset - start) // size


@lru_cache(16)  # every new file needs two, and a mount has two
def schedule_of(limits: PartLimits, cap: int | None = None) -> PartSchedule:
    """The schedule for these limits."""
    return PartSchedule(limits, cap)


@dataclass(frozen=True, slots=True)
class LocalPart:
    """Bytes sent from here. ``fills`` are the clean spans among them, read from the base first."""

    span: ByteRange
    fills: tuple[ByteRange, ...] = ()


@dataclass(frozen=True, slots=True)
class CopyPart:
    """Bytes of the base copied on the server; the same span in the source and in the result."""

    span: ByteRange


PartPlan: TypeAlias = LocalPart | CopyPart


def plan_commit(
    size: int,
    base_valid_size: int,
    dirty: ExtentSet,
    *,
    part_copy: bool,
    limits: PartLimits,
) -> list[PartPlan]:
    """The parts of a file of ``size`` bytes that began as another object.

    Bytes below ``base_valid_size`` that are not in ``dirty`` are those of the base. All others are
    here (a hole reads as zeros). A plan of one :class:`LocalPart` means one plain PUT.
    Moves as few bytes as the store's part limits allow: a clean run shorter than a part is
    downloaded, and a lone change borrows clean neighbours until it is a part.
    """
    if size <= limits.first_part:
        whole = ByteRange(0, size)
        return [LocalPart(whole, _fills(whole, base_valid_size, dirty))]
    if limits.equal_part is not None:
        return _equal_plan(
            size, base_valid_size if part_copy else 0, base_valid_size, dirty, limits
        )
    shortest_copy = limits.min_part
    while True:
        runs = _runs(size, base_valid_size if part_copy else 0, dirty, shortest_copy)
        runs = _widened(runs, limits.min_part)
        plan = [part for run in runs for part in _cut(run, size, base_valid_size, dirty, limits)]
        if len(plan) <= limits.max_parts or not any(run.clean for run in runs):
            return plan
        # Too many separate spans: send short clean runs along instead of naming each one.
        shortest_copy *= 2


def _equal_plan(
    size: int, copyable: int, base_valid_size: int, dirty: ExtentSet, limits: PartLimits
) -> list[PartPlan]:
    """Parts of one size, except for a shorter last one: copies where all bytes are clean."""
    most = min(_MOST_EQUAL_PARTS, limits.max_parts)
    length = limits.first_part
    while length * most < size and length < limits.max_part:
        length = min(2 * length, limits.max_part)
    plan: list[PartPlan] = []
    for start in range(0, size, length):
        span = ByteRange(start, min(start + length, size))
        fills = _fills(span, base_valid_size, dirty)
        clean = span.end <= copyable and fills == (span,)
        plan.append(CopyPart(span) if clean else LocalPart(span, fills))
    return plan


@dataclass(slots=True)
class _Run:
    clean: bool
    start: int
    end: int


def _fills(span: ByteRange, base_valid_size: int, dirty: ExtentSet) -> tuple[ByteRange, ...]:
    return tuple(dirty.gaps(span.start, min(span.end, base_valid_size)))


def _runs(size: int, copyable: int, dirty: ExtentSet, shortest_copy: int) -> list[_Run]:
    """Clean runs worth a copy, and the runs between them."""
    runs: list[_Run] = []
    position = 0
    for gap in dirty.gaps(0, min(size, copyable)):
        if gap.size < shortest_copy:
            continue
        if position < gap.start:
            runs.append(_Run(False, position, gap.start))
        runs.append(_Run(True, gap.start, gap.end))
        position = gap.end
    if position < size:
        runs.append(_Run(False, position, size))
    return runs


def _widened(runs: Sequence[_Run], min_part: int) -> list[_Run]:
    """Let each local run except the file's last reach ``min_part`` by borrowing from clean ones."""
    widened: list[_Run] = []
    queue = list(reversed(runs))
    while queue:
        run = queue.pop()
        if run.start >= run.end:
            continue
        if widened and not run.clean and not widened[-1].clean:
            # The clean run between them was swallowed: try the joined run again.
            run = _Run(False, widened.pop().start, run.end)
        missing = min_part - (run.end - run.start)
        if run.clean or missing <= 0 or not queue:
            widened.append(run)
            continue
        following, before = queue[-1], widened[-1] if widened else None
        if following.end - following.start >= missing + min_part:
            run.end += missing
            following.start += missing
        elif before is not None and before.end - before.start >= missing + min_part:
            run.start -= missing
            before.end -= missing
        else:
            following.clean = False
            queue[-1] = _Run(False, run.start, following.end)
            continue
        widened.append(run)
    return widened


def _cut(
    run: _Run, size: int, base_valid_size: int, dirty: ExtentSet, limits: PartLimits
) -> list[PartPlan]:
    """The parts of one run, equal within one byte, each within the store's limits."""
    # Half of the allowed parts for each kind: a huge object with one long run of each fits.
    roomy = -(-size * 2 // limits.max_parts)
    wanted = min(max(limits.copy_part if run.clean else limits.first_part, roomy), limits.max_part)
    length = run.end - run.start
    least = -(-length // limits.max_part)
    count = max(least, min(-(-length // wanted), length // limits.min_part), 1)
    edges = [run.start + length * i // count for i in range(count + 1)]
    spans = [ByteRange(a, b) for a, b in pairwise(edges)]
    if run.clean:
        return [CopyPart(span) for span in spans]
    return [LocalPart(span, _fills(span, base_valid_size, dirty)) for span in spans]

"""Predicts how one version will be read on, from its layout and its accesses."""

from collections.abc import Iterator

from ossfs_py.extents import ExtentSet
from ossfs_py.foresight.accesses import PAGE_BYTES, Run, Runs, places_of
from ossfs_py.foresight.course import Course
from ossfs_py.foresight.cuts import Cuts
from ossfs_py.foresight.lanes import OVERRUN_BYTES, PartLane, ReadShape
from ossfs_py.foresight.layout import Layout
from ossfs_py.foresight.wholes import AHEAD_BYTES, LARGE_PART_BYTES, MOST_AHEAD_BYTES, Wholes
from ossfs_py.model import ByteRange

MIB = 1024**2

_BEGINNING_BYTES = MIB
"""A reader that began within these first bytes of a file reads it in order."""

_LOOK_BYTES = MIB + 64 * 1024
"""What the kernel fetches behind a fault of a mapping with MADV_SEQUENTIAL: a part read no further
than that was looked at, not read."""

_LEAST_TABLE_BYTES = 256 * 1024
_LOOK_BEHIND_TABLE_BYTES = 4 * MIB + 64 * 1024
"""Who reads a long table at the beginning of a file makes the kernel read so far behind it. Only
further on it is the file that is read. A short table comes with the first read."""

_LEAST_HEAD_BYTES = 128 * 1024
"""The bytes that Python's open reads at once."""

_LITTLE_MORE_BYTES = 3 * MIB
"""Too little of a piece to be a request of its own."""

_HEADS_BYTES = (0, 16 * MIB, 64 * MIB, 256 * MIB)
"""Beginnings of parts fetched ahead after so many looks at one part after the other. The program
waits at each of them, and does nothing else meanwhile: they come before the rest of the file."""

_FIRST_HEADS = 7
"""The program has come to the first of them before they are there. They have hardly more than the
kernel asks for; the rest of their pieces comes later, in a request of its own. ``load_file`` of 992
MiB over a simulated link took 1.19 times as long as a plain read; with whole pieces 1.21."""

_MOST_HEADS = 32
"""More than fill a link: each is less than a block."""

_SURE_LOOKS = 4
"""Looks of a program that has looked at every part of another file before. After so many steps of
equal length, as many as ever are believed to follow."""

_MOST_STEPS = 16

_GRANT_BYTES = 32 * MIB
"""Of the rest of the file, what the third look makes believable; each one after it, twice as
much."""

_SLICES_GRANT = 2
"""At first for each byte that was read, so much of them."""

_LEAST_DENSE_BYTES = 32 * MIB
_DENSE_SHARE = 0.85
"""So much of everything up to the furthest byte, read from several places at once, and the rest of
the file is believed to follow."""

_MOST_NEAR_BYTES = 164 * MIB
"""Of slices ahead of a program that reads alone: they fill a link of 1.7 GB/s. With 256 MiB a rank
of two took as long over a simulated link, and on a mount it touched 70 MiB more of new memory.
Several programs side by side took 9 % longer with 164 MiB.
"""

_STEPS = 2
"""Parts in a row that were read alike: the next ones are believed to be, too. Of slices that begin
inside the part, at the same place of it twice, the second beginning is enough, unless several
programs read."""

_MAX_PASSED = 16
"""Runs of small parts that are passed over to find the next one: more, and nothing is believed."""

_MAX_LANES = 16
_NEAR_SHARE = 0.02
"""Two parts are begun at the same place when the places differ by no more of a part's size."""

_MOST_PIECES = 16 * 1024
"""Of what was read: a random reader of a large file would make millions."""

_STRIDE_STEPS = 2
_LEAST_STRIDE_BYTES = 64 * 1024
_MOST_STRIDE_BYTES = 256 * MIB
"""Steps of equal length, so many in a row, are believed to go on."""


class Belief:
    """Of one version of ``file_size`` bytes; ``block_bytes`` is what one request fetches at most.

    ``room_bytes``: how much may be kept until it is read. Of a larger file, only what will be read
    soon is fetched ahead.
    """

    def __init__(self, file_size: int, block_bytes: int, room_bytes: int) -> None:
        self._file_size = file_size
        self._block_bytes = block_bytes
        self._room_bytes = room_bytes
        self._cuts: Cuts | None = None
        """Where the parts are cut, if the pieces that they begin in can all stay until they are
        read."""
        self._table_end = 0
        self._read = ExtentSet()
        self.course = Course(file_size, block_bytes, room_bytes, self._read)
        self._layout: Layout | None = None
        self._read_bytes = 0
        self._is_at_random = False
        """Whether the file is read in so many pieces that nothing is believed any more."""
        self._frontier = 0
        """The furthest byte that was read."""
        self._runs = Runs()
        self._lanes: list[PartLane] = []
        self._expects_looks = False
        self.looked = False
        """Whether beginnings of parts were touched, one after the other."""
        self._wholes = Wholes(file_size, block_bytes, room_bytes, self._read, self.course)
        self._stride = 0
        self._strides = 0
        self._last_run: Run | None = None

    def know(self, layout: Layout) -> None:
        """The file's table was read."""
        self._layout = layout
        self._table_end = min(self._table_end, layout.starts[0])
        if layout.is_walked:
            return  # no beginnings are fetched ahead
        cuts = Cuts(self._block_bytes, self._file_size, layout)
        self._cuts = cuts if cuts.head_bytes * 4 <= self._room_bytes * 3 else None

    def expect_table(self, end: int) -> None:
        """The file's first bytes, up to ``end``, are its table."""
        self._table_end = end

    def expect_looks(self) -> None:
        """The program that will read this file has just touched each part of another one."""
        self._expects_looks = True

    @property
    def reads_all_in_order(self) -> bool:
        """Whether the whole file is on the course, in the order in which it will be read."""
        return self.course.is_whole and not self._wholes.descend

    @property
    def is_silent(self) -> bool:
        """Whether nothing is believed of the file: reads that go straight on, without a gap, may be
        observed as one.
        """
        return self._layout is None and self.course.is_idle

    # -- what is read ---------------------------------------------------------------------------

    def observe(self, start: int, end: int) -> None:
        """A program, or the kernel for it, reads ``[start, end)``."""
        if self._is_at_random:
            return
        run = self._runs.observe(start, end)
        if run.reads == 1:
            run.follows_read = self._read.run_at(start - 1, start)[0]
            if self._layout is None:
                self._strides_on(run)
            else:
                self._begun(run, self._layout)
        elif run.end > run.part_end + OVERRUN_BYTES and self._layout is not None:
            self._crossed(run, self._layout)
        elif run.start == 0 and self._lanes and self._lanes[0].is_guess:
            self._refuted(self._lanes[0])
        if not self._read.run_at(start, end)[0]:
            self._read_bytes += end - start
        self._frontier = max(self._frontier, end)
        self._read.add(start, end)
        self.course.was_read(start, end)
        if len(self._read) > _MOST_PIECES:
            self._is_at_random = True
            self._layout = None
            self._read.clear()
            self.course.end()

    def _is_dense(self) -> bool:
        """Whether nearly all was read up to where programs have come, several side by side."""
        return self._read_bytes >= max(_LEAST_DENSE_BYTES, self._frontier * _DENSE_SHARE)

    def _begun(self, run: Run, layout: Layout) -> None:
        if self._is_dense():
            self.course.grant_until(min(self._frontier + AHEAD_BYTES, self._file_size))
        found = _placed(run, layout)
        if found is None:
            return
        number, is_head = found
        part = self._enter(run, number, layout)
        fraction = 0.0 if is_head else (run.place - part.start) / part.size
        lane = self._lane_of(fraction, part.size, is_head=is_head)
        if lane is None:
            lane = PartLane(number, run, fraction, is_head=is_head)
            if self._expects_looks and is_head:
                lane.looks = _SURE_LOOKS
            elif is_head and self._is_next_untouched(number, run, layout):
                lane.looks, lane.is_guess = 1, True
            self._lanes.insert(0, lane)
            del self._lanes[_MAX_LANES:]
            if lane.looks:
                self._foresee_looks(lane, layout)
            return
        self._lanes.remove(lane)
        self._lanes.insert(0, lane)
        if lane.last == number:
            return
        self._step(lane, run, number, layout)

    def _is_next_untouched(self, number: int, run: Run, layout: Layout) -> bool:
        """Whether a page fault at the beginning of a part is what a program does next that touches
        each of them: the beginnings before it came with the table, and nothing else was read.
        """
        if number == 0 or run.place == run.start:
            return False
        only_table = self._frontier <= layout.starts[0] + 2 * MIB
        return only_table and self._read.covers(0, layout.starts[number - 1] + 1)

    def _refuted(self, lane: PartLane) -> None:
        """The part before the first beginning that was touched is read: that was its end."""
        if lane.looks == 1 and not lane.ends:
            lane.looks, lane.ends = 0, 1
            self._forget_heads(lane)

    def _forget_heads(self, lane: PartLane) -> None:
        """Nobody looks at beginnings of parts; requests need not begin there."""
        if lane.heads:
            lane.heads.clear()
            self.course.forget_soon()
            self.course.cuts = Cuts(self._block_bytes, self._file_size)

    def _crossed(self, run: Run, layout: Layout) -> None:
        """A run continues further than the kernel does by itself: another part is read."""
        number = layout.number_at(run.end - 1)
        if number is not None:
            self._enter(run, number, layout)
            run.has_crossed = True

    def _enter(self, run: Run, number: int, layout: Layout) -> ByteRange:
        part = layout.part(number)
        run.part, run.part_end = number, part.end
        self._wholes.entered(number, layout, self._soon_bytes, looked=self.looked)
        return part

    def _step(self, lane: PartLane, run: Run, number: int, layout: Layout) -> None:
        """The program of a lane has begun another part."""
        previous, before = lane.run, layout.part(lane.last)
        in_order = number == self._following(lane, layout)
        touched, lane.last, lane.run = lane.last, number, run
        if not in_order:
            lane.looks = lane.wholes = lane.slices = lane.ends = lane.pushed_to = 0
            self._forget_heads(lane)
            return
        if lane.is_head and self._ends_first(lane, layout, touched):
            self._foresee_in_order(lane, run)
            return
        if lane.is_head and _only_looked(previous, touched, layout):
            lane.looks += 1
            if not layout.is_walked:
                self.looked = True
                self._foresee_looks(lane, layout)
            return
        lane.looks = 0
        if before.size >= LARGE_PART_BYTES:
            is_whole = self._read.covers(before.start, before.end)
            lane.wholes = lane.wholes + 1 if is_whole else 0
            lane.slices = 0 if is_whole else lane.slices + 1
            lane.shape = ReadShape(previous, before, lane.shape)
        if lane.wholes >= _STEPS:
            self.course.grant_until(min(run.end + AHEAD_BYTES, self._file_size))
        elif lane.slices >= self._slice_steps(lane) and not self._is_dense():
            self.course.revoke_until()
            if not self.course.is_whole:
                self._foresee_slices(lane)

    def _ends_first(self, lane: PartLane, layout: Layout, touched: int) -> bool:
        """Whether the touch of the beginning of part ``touched`` was one of the end of the part
        before, which has been read since, and the part itself has not: memcpy(3) of glibc copies
        the last bytes of a large piece first, and they are on the page where the next part begins.
        """
        part = layout.part(touched)
        if part.size >= LARGE_PART_BYTES and self._read.covers(part.start, part.end):
            return False
        before = layout.part(touched - 1) if touched else None
        if before is None or before.size < LARGE_PART_BYTES // 2:
            return lane.ends > 0  # the kernel reads all of it around a touch
        return self._read.covers(before.start, before.end)

    def _foresee_in_order(self, lane: PartLane, run: Run) -> None:
        """The program of a lane reads part after part, the end of each first."""
        self._forget_heads(lane)
        lane.looks = lane.slices = 0
        lane.ends += 1
        if lane.ends >= _STEPS:
            self.course.grant_until(min(run.end + self._ahead_bytes, self._file_size))

    def _lane_of(self, fraction: float, size: int, *, is_head: bool) -> PartLane | None:
        tolerance = max(_NEAR_SHARE, MIB / size)
        for lane in self._lanes:
            if lane.is_head == is_head and (is_head or abs(lane.fraction - fraction) <= tolerance):
                return lane
        return None

    def _following(self, lane: PartLane, layout: Layout) -> int | None:
        """The next part whose beginning, as the lane begins parts, was not read."""
        number = lane.last + 1
        for _ in range(_MAX_PASSED):
            if number >= len(layout):
                return None
            part = layout.part(number)
            place = part.start + int(lane.fraction * part.size)
            was_read, upto = self._read.run_at(place, self._file_size)
            if not was_read:
                return number
            # Small parts came with the reads of others.
            beyond = layout.first_from(upto)
            number = max(number + 1, len(layout) if beyond is None else beyond - 1)
        return None

    # -- what comes next ------------------------------------------------------------------------

    def _foresee_looks(self, lane: PartLane, layout: Layout) -> None:
        """Beginnings of the next parts, and behind them the whole file: who looks at every part
        will read them all.
        """
        if self._cuts is not None:
            self.course.cuts = self._cuts
        place, heads = lane.run.place, lane.heads
        while heads and heads[0].start <= place:
            heads.popleft()
        wanted_bytes = _HEADS_BYTES[min(lane.looks, len(_HEADS_BYTES) - 1)]
        while len(heads) < _MOST_HEADS and sum(head.size for head in heads) < wanted_bytes:
            reached = max(lane.pushed_to, layout.starts[lane.last] + 1)
            number = layout.first_from(reached)
            if number is None:
                break
            head = self._head(layout.starts[number], lane.run, lane.heads_count >= _FIRST_HEADS)
            lane.heads_count += 1
            lane.pushed_to = max(head.end, reached + 1)
            heads.append(head)
            self.course.add(head)
        if lane.looks > 1 + lane.is_guess:
            # Parts may be larger than a grant: of a file of 30 GiB all have to be believed in.
            looked_at = place if lane.looks > _SURE_LOOKS else 0
            self.course.grant_rest(max(_GRANT_BYTES * (2 * lane.looks - 3), looked_at))

    def _head(self, start: int, run: Run, is_whole: bool) -> ByteRange:
        """What is fetched of a part that begins at ``start`` before it is looked at.

        Whole pieces (``is_whole``), if they can stay until they are read; or what the kernel asks
        for, and what is left before or behind that of a piece, if it is little.
        """
        page = start // PAGE_BYTES * PAGE_BYTES
        lead = max(run.place - run.start, 0)
        first = max(0, page - lead)
        end = page + max(run.end - run.place, lead, _LEAST_HEAD_BYTES)
        end = min(end, self._file_size)
        if self._cuts is None:
            return ByteRange(first, end)
        # What the kernel does not ask for of them would be requests of their own.
        opened, closed = self._cuts.around(first, end)
        if is_whole or first - opened < _LITTLE_MORE_BYTES:
            first = opened
        if is_whole or closed - end < _LITTLE_MORE_BYTES:
            end = closed
        return ByteRange(first // MIB * MIB, min(-(-end // MIB) * MIB, self._file_size))

    def _slice_steps(self, lane: PartLane) -> int:
        """How many slices in a row show a program that reads one of each part."""
        return _STEPS if lane.is_head or len(self._lanes) > 1 else 1

    def _foresee_slices(self, lane: PartLane) -> None:
        """The same slice of the next parts as the lane's program has read of the one before."""
        self.course.is_near = len(self._lanes) == 1
        layout, shape = self._layout, lane.shape
        assert layout is not None and shape is not None  # noqa: S101 - parts were read
        ahead_bytes, number = 0, lane.last
        most_bytes = self._soon_bytes
        if self.course.is_near:
            most_bytes = min(most_bytes, _MOST_NEAR_BYTES)
        while number < len(layout) and ahead_bytes < most_bytes:
            part = layout.part(number)
            number += 1
            if part.size < MIB:
                continue  # it comes with the kernel's reads of others
            start = part.start + int(lane.fraction * part.size) - shape.lead_bytes
            if shape.share >= 1:
                end = part.end + shape.overrun_bytes
            elif part.size < LARGE_PART_BYTES:
                end = part.end + MIB  # the kernel reads on to its end, and further
            else:
                end = part.start + int(shape.share * part.size)
            start = max(0, start // PAGE_BYTES * PAGE_BYTES)
            end = min(end, self._file_size)
            ahead_bytes += max(end - start, 0)
            start = max(start, lane.pushed_to)
            if start < end:
                self.course.add(ByteRange(start, end))
                lane.pushed_to = end

    @property
    def _ahead_bytes(self) -> int:
        return min(max(AHEAD_BYTES, self._read_bytes), MOST_AHEAD_BYTES)

    @property
    def _soon_bytes(self) -> int:
        """Of slices, or of parts against the order of the file."""
        return min(self._ahead_bytes, _SLICES_GRANT * self._read_bytes)

    def _strides_on(self, run: Run) -> None:
        """For a file of unknown format: steps of equal length continue."""
        previous, self._last_run = self._last_run, run
        if previous is None:
            return
        stride = run.start - previous.start
        alike = stride == self._stride and stride > previous.end - previous.start
        self._stride = stride
        self._strides = self._strides + 1 if alike else 0
        if self._strides >= _STRIDE_STEPS and _LEAST_STRIDE_BYTES <= stride <= _MOST_STRIDE_BYTES:
            self.course.forget_soon()
            for span in self._strided(run, previous.end - previous.start):
                self.course.add(span)

    def _strided(self, run: Run, size: int) -> Iterator[ByteRange]:
        for step in range(1, min(1 << min(self._strides, _SURE_LOOKS), _MOST_STEPS) + 1):
            start = run.start + step * self._stride
            if start < self._file_size:
                yield ByteRange(start, min(start + size, self._file_size))

    # -- how far a stream is read ahead ---------------------------------------------------------

    def known_end(self, start: int, position: int) -> int | None:
        """Where a stream that began at ``start`` and has come to ``position`` will end, at most;
        None if nothing is known.
        """
        layout, run = self._layout, self._runs.ending_at(position)
        if run is None:
            # After many others, the stream's run was forgotten: it was left long ago.
            was_left = self._runs.forgot and layout is not None and start >= _BEGINNING_BYTES
            return position if was_left else None
        if max(start, run.start) < _BEGINNING_BYTES:
            behind = min(self._table_end + _LOOK_BEHIND_TABLE_BYTES, self._file_size)
            if self._table_end <= _LEAST_TABLE_BYTES or position >= behind:
                return None
            if position <= self._table_end + PAGE_BYTES:
                return self._table_end
            return min(position + position // 2, behind)
        if start < _BEGINNING_BYTES and run.follows_read:
            return None  # a reader of the whole file passes over what the kernel has
        return None if layout is None else self._end_of(run, position, layout)

    def _end_of(self, run: Run, position: int, layout: Layout) -> int | None:
        """The predicted end of a run that began inside the file."""
        if run.part is None or (layout.is_walked and run.part == len(layout) - 1):
            return None  # of that part, the end was not read yet
        part = layout.part(run.part)
        if run.end - run.place <= _LOOK_BYTES and any(
            lane.run is run and lane.looks for lane in self._lanes
        ):
            return position  # it only looks
        if self.reads_all_in_order:
            return None
        sliced = self._end_of_slice(run, part)
        if sliced is not None:
            return max(sliced, position)
        if run.has_crossed and run.end - part.start < LARGE_PART_BYTES and self._slices():
            return position  # what is wanted of this part is on the course
        return self._end_in(part, run.end - run.place, position)

    def _end_of_slice(self, run: Run, part: ByteRange) -> int | None:
        """Where a run will end that has begun ``part`` as its program has begun those before, of
        which it read a slice each; None if that is not known, or it has come further.
        """
        for lane in self._lanes:
            if lane.run is run and lane.slices >= _STEPS and lane.shape is not None:
                end = part.start + int(min(lane.shape.share, 1) * part.size)
                return end if run.end <= end + OVERRUN_BYTES and end < part.end else None
        return None

    def _end_in(self, part: ByteRange, read_bytes: int, position: int) -> int:
        """The same of somebody who has read ``read_bytes``, and the last ones in ``part``."""
        if part.size < LARGE_PART_BYTES <= read_bytes:
            # It reads small parts in order, and is believed for as much as it has read.
            return min(position + read_bytes, self._file_size)
        # The kernel reads on to a multiple of 1 MiB, and would have to wait for the rest.
        behind = min(-(-part.end // MIB) * MIB, self._file_size)
        if any(lane.ends for lane in self._lanes):
            return max(behind, min(position + self._read_bytes, self._file_size))
        return behind if position < part.end else position

    def _slices(self) -> bool:
        return any(lane.slices >= _STEPS for lane in self._lanes)


def _only_looked(run: Run, number: int, layout: Layout) -> bool:
    """Whether a run that began with part ``number`` has read no further than the kernel does by
    itself, around that beginning or those of small parts close behind it.
    """
    place = run.place
    while run.end - place > _LOOK_BYTES:
        is_close = layout.part(number).size <= 2 * MIB and run.end - run.place <= 4 * MIB
        number += 1
        if not is_close or number == len(layout):
            return False
        place = layout.starts[number] // PAGE_BYTES * PAGE_BYTES
    return True


def _placed(run: Run, layout: Layout) -> tuple[int, bool] | None:
    """The part a run begins in, and whether with its beginning; notes the place."""
    places = places_of(ByteRange(run.start, run.end))
    for place in places:
        number = layout.begins_in(place.start, place.end)
        if number is not None:
            run.place = place.start
            return number, True
    run.place = places[0].start
    number = layout.number_at(run.place)
    return None if number is None else (number, False)

"""Loads of a model over a simulated link: what waiting costs, whatever else the machine does.

What the planner asks for travels on connections, each with a time to the first byte and a
bandwidth; they share what two cores can take in. What waits is answered as soon as its own bytes
are there. The program touches and copies tensors of a
mapping, the kernel reads around its faults and ahead, and each MiB costs time to answer and to
copy. Several programs may do so side by side: two cores answer and copy, the daemon answers one
read at a time. Time is virtual: the same load takes the same seconds everywhere.
"""

import heapq
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field

from ossfs_py.extents import ExtentSet
from ossfs_py.foresight.belief import Belief
from ossfs_py.foresight.layout import Layout
from ossfs_py.model import ByteRange
from ossfs_py.reading.chunks import Chunk, ChunkIndex
from ossfs_py.reading.planning import NothingOnDisk, PlannedSpan, Planner, ReadOptions
from ossfs_py.reading.reader import REQUESTS_BESIDE
from ossfs_py.reading.streams import MIB, Stream, StreamLimits, StreamTable

PAGE = 4096
TTFB_SECONDS = 0.025
CONNECTION_BYTES = 90e6
"""A second, of each connection."""
LINK_BYTES = 1.7e9
"""A second, of all together: what two cores receive beside their other work."""
CONNECTIONS = 32
ANSWER_SECONDS, COPY_SECONDS = 0.00045, 0.0004
"""For each MiB: with these a plain read of 992 MiB takes as long as it was measured to."""
AHEAD_BYTES = 3 * MIB
"""How far the kernel reads ahead of a program that copies."""
CORES = 2
_STEP_SECONDS = 0.0005
_LEAST_SECONDS = 1e-12


class _Keeper:
    """Gives nothing up."""

    def landed(self, chunk: Chunk) -> None:
        pass

    def left(self, chunk: Chunk, *, had_bytes: bool) -> None:
        pass


@dataclass
class _Transfer:
    delay_seconds: float
    left_bytes: float


@dataclass
class Link:
    """Connections with requests on them, and those that wait for one."""

    now: float = 0.0
    landed: set[Chunk] = field(default_factory=set)
    _under_way: dict[Chunk, _Transfer] = field(default_factory=dict)
    _queue: list[tuple[bool, int, Chunk]] = field(default_factory=list)
    _asked: int = 0

    def ask(self, chunk: Chunk, *, urgent: bool) -> None:
        self._asked += 1
        heapq.heappush(self._queue, (not urgent, self._asked, chunk))
        self._begin()

    def promote(self, chunk: Chunk) -> None:
        """Somebody waits for it now."""
        self._queue = [(p and one is not chunk, n, one) for p, n, one in self._queue]
        heapq.heapify(self._queue)

    def has(self, chunk: Chunk, end: int) -> bool:
        """Whether what is asked for has come as far as ``end``, and the receiver has told so."""
        if chunk in self.landed:
            return True
        transfer = self._under_way.get(chunk)
        if transfer is None or end >= chunk.end:
            return False
        return chunk.size - transfer.left_bytes >= end - chunk.start

    def pass_time(self, seconds: float) -> list[Chunk]:
        """What has landed meanwhile, up to the first moment at which anything has."""
        end = self.now + seconds
        while self.now < end - _LEAST_SECONDS:
            sending = [one for one in self._under_way.values() if one.delay_seconds <= 0]
            rate = min(CONNECTION_BYTES, LINK_BYTES / max(1, len(sending)))
            step = end - self.now
            for one in self._under_way.values():
                step = min(step, one.delay_seconds if one not in sending else one.left_bytes / rate)
            step = max(step, 1e-9)
            self.now += step
            for one in self._under_way.values():
                if one in sending:
                    one.left_bytes -= rate * step
                else:
                    one.delay_seconds -= step
            found = [chunk for chunk, one in self._under_way.items() if one.left_bytes <= 1]
            for chunk in found:
                del self._under_way[chunk]
                self.landed.add(chunk)
            self._begin()
            if found:
                return found
        return []

    def _begin(self) -> None:
        while self._queue and len(self._under_way) < CONNECTIONS:
            chunk = heapq.heappop(self._queue)[2]
            self._under_way[chunk] = _Transfer(TTFB_SECONDS, chunk.size)


@dataclass(eq=False)
class _Read:
    """What the kernel has asked for, and who waits for it has not got yet."""

    span: ByteRange
    chunks: Sequence[Chunk]
    taken: bool = False
    """Whether a program waits for it or is being answered."""
    answered: bool = False


Condition = Callable[[], bool]
Program = Generator[Condition]
"""A program at work: it goes on when what it yielded has become true."""


class Load:
    """One file that is loaded. ``room_bytes``: as of a belief."""

    def __init__(self, layout: Layout, room_bytes: int) -> None:
        self.size = layout.ends[-1]
        self.link = Link()
        self.spans: list[PlannedSpan] = []
        self.most_kept_bytes = 0
        self._layout: Layout | None = layout
        options = ReadOptions()
        self._belief = Belief(self.size, options.block_size_bytes, room_bytes)
        self._index = ChunkIndex(_Keeper())
        self._streams = StreamTable(StreamLimits(first_window=64 * MIB))
        self._planner = Planner(
            self.size, options, self._index, self._streams, self._belief, NothingOnDisk()
        )
        self._beside: list[Chunk] = []
        self._cached = ExtentSet()
        self._coming: list[_Read] = []
        """What was asked for and not answered: some of it the kernel's own reading ahead."""
        self._landed_bytes = self._answered_bytes = 0
        self._daemon_until = 0.0
        self._cores_until = [0.0] * CORES
        self.run(self._answering(self._read_by_kernel(0, MIB)))  # the header

    @property
    def seconds(self) -> float:
        return self.link.now

    @property
    def fetched_bytes(self) -> int:
        return sum(span.size for span in self.spans)

    def touch(self, start: int, *, is_mapped: bool = True) -> None:
        """The program needs one page; of a mapping the kernel reads around it."""
        self.run(self.touching(start, is_mapped=is_mapped))

    def copy(self, start: int, end: int, *, is_mapped: bool = True) -> None:
        """The program copies ``[start, end)``, with the kernel reading ahead of it."""
        self.run(self.copying(start, end, is_mapped=is_mapped))

    def run(self, *programs: Program) -> None:
        """Let programs work side by side until all have ended."""
        waiting = [(program, _at_once) for program in programs]
        while waiting:
            due = [one for one in waiting if one[1]()]
            for one in due:
                place = waiting.index(one)
                condition = next(one[0], None)
                waiting[place : place + 1] = [(one[0], condition)] if condition else []
            if not due:
                self._pass_time(self._next_event() - self.link.now)

    def _next_event(self) -> float:
        """The end of something that is being worked on, or a moment."""
        later = self.link.now + _STEP_SECONDS
        ends = (end for end in self._cores_until if end > self.link.now + _LEAST_SECONDS)
        return min(later, *ends, later)

    def touching(self, start: int, *, is_mapped: bool = True) -> Program:
        """:meth:`touch`, for :meth:`run`."""
        page = start // PAGE * PAGE
        if self._cached.run_at(page, page + PAGE)[0]:
            yield from self._answering_coming(page, page + PAGE)
            return
        reads = self._read_by_kernel(max(0, page - MIB), page) if is_mapped else []
        yield from self._answering(reads + self._read_by_kernel(page, page + MIB))

    def copying(self, start: int, end: int, *, is_mapped: bool = True) -> Program:
        """:meth:`copy`, for :meth:`run`."""
        yield from self.touching(start, is_mapped=is_mapped)
        position = start // PAGE * PAGE
        while position < end:
            upto = min(position + MIB, end)
            self._read_by_kernel(position, position + AHEAD_BYTES, on_edges=True)
            yield from self._answering_coming(position, upto)
            yield self._worked(COPY_SECONDS * (upto - position) / MIB)
            position = upto

    def _read_by_kernel(self, start: int, end: int, *, on_edges: bool = False) -> list[_Read]:
        """What it has not, 1 MiB at a time; ``on_edges``: up to multiples of it."""
        reads = []
        for gap in list(self._cached.gaps(start, min(end, self.size))):
            position = gap.start
            while position < gap.end:
                upto = (position // MIB + 1) * MIB if on_edges else position + MIB
                span = ByteRange(position, min(upto, gap.end))
                reads.append(_Read(span, self._read(span)))
                position = span.end
        self._coming += reads
        return reads

    def _read(self, read: ByteRange) -> list[Chunk]:
        """What the daemon does with a READ; the chunks that hold it."""
        stream = self._streams.observe(read.start, read.end, self.link.now)
        self._belief.observe(read.start, read.end)
        position = read.start
        while (span := self._planner.needed(position, read.end, stream)) is not None:
            self._fetch(span)
            position = span.end
        found, position = [], read.start
        while position < read.end:
            chunk = self._index.at(position)
            assert chunk is not None
            found.append(chunk)
            position = chunk.end
        waited = not all(self.link.has(chunk, min(read.end, chunk.end)) for chunk in found)
        self._read_ahead(stream, read.size, waited=waited)
        self._follow_course()
        self._cached.add(read.start, read.end)
        return found

    def _read_ahead(self, stream: Stream, amount: int, *, waited: bool) -> None:
        span = self._planner.ahead(stream, amount, 256 * MIB, waited=waited)
        while span is not None:
            self._fetch(span)
            span = self._planner.next_ahead(stream)

    def _follow_course(self) -> None:
        course = self._belief.course
        self._beside = [chunk for chunk in self._beside if chunk not in self.link.landed]
        while len(self._beside) < REQUESTS_BESIDE and (span := self._planner.beside()) is not None:
            self._beside.append(self._fetch(span))
            course.took(ByteRange(span.start, span.end))

    def _fetch(self, span: PlannedSpan) -> Chunk:
        chunk = self._index.ask(span.start, span.end)
        self.spans.append(span)
        self.link.ask(chunk, urgent=span.urgent)
        return chunk

    def _answering_coming(self, start: int, end: int) -> Program:
        """A program comes to what the kernel has read ahead, or another one waits for."""
        due = [one for one in self._coming if one.span.start < end and start < one.span.end]
        yield from self._answering(due)

    def _answering(self, reads: Iterable[_Read]) -> Program:
        for read in reads:
            if read.taken:
                while not read.answered:
                    yield lambda read=read: read.answered  # type: ignore[misc]
                continue
            read.taken = True
            for chunk in read.chunks:
                upto = min(read.span.end, chunk.end)
                if not self.link.has(chunk, upto):
                    self.link.promote(chunk)
                while not self.link.has(chunk, upto):
                    yield lambda chunk=chunk, upto=upto: self.link.has(chunk, upto)  # type: ignore[misc]
            yield self._worked(ANSWER_SECONDS * read.span.size / MIB, by_daemon=True)
            read.answered = True
            self._coming.remove(read)
            self._answered_bytes += read.span.size

    def _worked(self, seconds: float, *, by_daemon: bool = False) -> Condition:
        """Whether so much work is done, by one core; the daemon answers one read at a time."""
        cores = self._cores_until
        core = cores.index(min(cores))
        begin = max(self.link.now, cores[core], self._daemon_until if by_daemon else 0.0)
        end = cores[core] = begin + seconds
        if by_daemon:
            self._daemon_until = end
        return lambda: self.link.now >= end - _LEAST_SECONDS

    def _pass_time(self, seconds: float) -> None:
        end = self.link.now + seconds
        while self.link.now < end - _LEAST_SECONDS:
            for chunk in self.link.pass_time(end - self.link.now):
                self._landed_bytes += chunk.size
                kept_bytes = self._landed_bytes - self._answered_bytes
                self.most_kept_bytes = max(self.most_kept_bytes, kept_bytes)
                if self._layout is not None:
                    layout, self._layout = self._layout, None
                    self._belief.know(layout)
                self._follow_course()


def _at_once() -> bool:
    return True

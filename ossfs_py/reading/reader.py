"""Reading one object version: single flight, several streams, answers from memory."""

from collections.abc import Callable

import trio

from ossfs_py.foresight.formats import has_table
from ossfs_py.foresight.layout import Index, Layout
from ossfs_py.model import ByteRange, ObjectInfo, ObjectVersion
from ossfs_py.reading.chunks import Chunk, ChunkIndex, ChunkState, DiskState
from ossfs_py.reading.context import ReadContext
from ossfs_py.reading.fetching import INLINE_BYTES, Fetcher
from ossfs_py.reading.leave import Leave
from ossfs_py.reading.outlook import Outlook
from ossfs_py.reading.planning import NothingOnDisk, OnDisk, cut_back, whole_bytes, whole_span
from ossfs_py.reading.secondhome import BlockBackend, DiskHome
from ossfs_py.reading.straight import Straight
from ossfs_py.reading.streams import Stream
from ossfs_py.runtime.scattered import Scattered
from ossfs_py.telemetry.metrics import DISK, MEMORY, NETWORK, Labels

REQUESTS_BESIDE = 24
"""Blocks under way at once for what is believed: as many as fill a link of 1.7 GB/s at the 118 ms
that 8 MiB take on a connection with 25 ms to the first byte and 90 MB/s. A stream's window comes to
as many: with 16, ``load_file`` of 6 GiB over a simulated link took 1.2 times as long as a plain
read, with 24 as long."""


_NOTHING_ON_DISK = NothingOnDisk()


class VersionReader:
    """The bytes of one version, shared by every descriptor that has it open.

    A byte that is in memory or on its way is never asked for again: a reader of a chunk in flight
    waits for that chunk. Nothing is locked across the network; after every wait the index is
    looked at again. The planner says what to fetch, the fetcher fetches it, and ``Resident`` says
    how long it stays.
    """

    def __init__(
        self,
        context: ReadContext,
        version: ObjectVersion,
        backend: BlockBackend | None = None,
        on_near_end: Callable[[ObjectVersion], None] | None = None,
        leave: Leave | None = None,
        on_index: Callable[[ObjectVersion, Index], None] | None = None,
    ) -> None:
        """``on_near_end`` is told once, when reading ahead first reaches the end. ``leave``: what
        the backend has may be somebody else's, so the store is to give some of it first.
        ``on_index`` is told where the file says that parts of other files lie.
        """
        self.version = version
        self._context = context
        self._resident = context.resident
        self._on_index = on_index
        self._index = ChunkIndex(self._resident)
        self._on_disk: OnDisk = _NOTHING_ON_DISK
        self._home: DiskHome | None = None
        if backend is not None:
            self._on_disk = backend
            self._home = DiskHome(backend, context.files, self._resident.behind)
        self._outlook: Outlook | None = None
        """None as long as nothing has to be foreseen."""
        self._fetcher = Fetcher(context, version, self._index, self._home, self._landed)
        self._on_near_end = on_near_end
        self._beside: list[Chunk] = []
        """Requests under way that belong to no stream."""
        self._leave = leave
        self._withheld = leave is not None and not leave.granted
        """Whether no byte may be answered yet."""
        self._straight: Straight | None = None
        """What was read last, if it goes on without a question."""
        self._resident.begin()
        if context.options.model_hints and has_table(version.key):
            self._look()  # what it says of itself, or of others, is learnt from its first bytes

    def _look(self) -> Outlook:
        """The outlook, made if there is none yet."""
        outlook = self._outlook
        if outlook is None:
            outlook = self._outlook = Outlook(
                self._context, self.version, self._index, self._on_disk, self._on_index
            )
            # Of what one request brings nothing is read ahead, and there may be thousands.
            if self.version.size > self._context.options.block_size_bytes:
                self._resident.share_with(outlook.streams)
        return outlook

    def follow(self, other: "VersionReader") -> None:
        """Expect to be read as ``other`` is: it is the shard before this one."""
        outlook = other._outlook
        if outlook is not None and outlook.belief.looked:
            self._look().belief.expect_looks()

    def know(self, layout: Layout) -> None:
        """Another file says where the parts of this one lie."""
        self._settle()
        self._look().belief.know(layout)

    def look_again(self) -> None:
        """Somebody opens this version anew, so it has been seen again: ask the store once more."""
        self._fetcher.look_again()

    # -- answering ----------------------------------------------------------------------------

    def read_nowait(self, offset: int, end: int) -> memoryview | Scattered | None:
        """``[offset, end)`` if it is all there by now; keeps the stream's window filled.

        ``end`` must not exceed the version's size. The view is valid until the next checkpoint.
        """
        straight = self._straight
        if straight is not None and offset == straight.at:
            view = straight.read_on(end)
            if view is not None:
                return view
        unplanned_bytes = self._settle()
        chunk = self._index.at(offset)
        if chunk is None or self._withheld:
            return None
        if end > chunk.end:
            return self._across(chunk, offset, end)
        if not chunk.has_until(end):
            return None
        if end - offset == self.version.size <= INLINE_BYTES:
            return self._all_of(chunk)
        now = trio.current_time()
        outlook = self._outlook or self._look()
        stream = outlook.streams.observe(offset, end, now)
        outlook.belief.observe(offset, end)
        view = chunk.view(offset, end)
        # Reading ahead takes memory, maybe that of what was read last, and a thread writes into it
        # at once: it must not be the memory of this answer, which is copied after the return.
        chunk.pin()
        try:
            source = MEMORY
            if chunk.awaited:
                chunk.awaited = False
                source = DISK if chunk.from_disk else NETWORK
            self._resident.touched(chunk, end - offset, source)
            self._read_ahead(outlook, stream, end - offset + unplanned_bytes, now, waited=False)
        finally:
            chunk.unpin()
        if chunk.ready and stream.window and outlook.belief.is_silent:
            self._straight = Straight(outlook.streams, stream, self._resident, chunk, end)
        return view

    def _settle(self) -> int:
        """Tell what was read straight on since it was planned last; how many bytes that is."""
        straight, self._straight = self._straight, None
        if straight is None or straight.at == straight.begun:
            return 0
        self._look().belief.observe(straight.begun, straight.at)
        return straight.at - straight.begun

    def _all_of(self, chunk: Chunk) -> memoryview:
        """The bytes of a small file, read at once: nothing follows from that for other reads."""
        source = MEMORY
        if chunk.awaited:
            chunk.awaited = False
            source = DISK if chunk.from_disk else NETWORK
        view = chunk.view(chunk.start, chunk.end)
        chunk.pin()  # see read_nowait
        self._resident.touched(chunk, chunk.size, source)
        chunk.unpin()
        return view

    def _across(self, chunk: Chunk, offset: int, end: int) -> Scattered | None:
        """As :meth:`read_nowait`, of a read that goes on behind ``chunk``."""
        held = [chunk]
        while chunk.has_until(min(end, chunk.end)):
            if end <= chunk.end:
                break
            following = self._index.at(chunk.end)
            if following is None:
                return None
            chunk = following
            held.append(chunk)
        else:
            return None
        now = trio.current_time()
        outlook = self._outlook or self._look()
        stream = outlook.streams.observe(offset, end, now)
        outlook.belief.observe(offset, end)
        spans = [(one, max(one.start, offset), min(one.end, end)) for one in held]
        found = Scattered([one.view(start, upto) for one, start, upto in spans])
        for one in held:  # see read_nowait
            one.pin()
        try:
            for one, start, upto in spans:
                self._resident.touched(one, upto - start, MEMORY)
            self._read_ahead(outlook, stream, end - offset, now, waited=False)
        finally:
            for one in held:
                one.unpin()
        return found

    def ask(self, offset: int, end: int, then: Callable[[], None]) -> bool:
        """Begin to fetch a small file that nobody has read yet, for somebody who waits for
        ``[offset, end)``. ``then`` is called once when the request is over, whatever came of it:
        it must not raise, and :meth:`read_nowait` has the bytes or :meth:`read` the error.

        False: this is no such read, and ``then`` is not called.
        """
        if (
            self.version.size > INLINE_BYTES
            or (self._outlook is not None and self._outlook.streams.streams)
            or self._withheld
            or self._fetcher.refusal is not None
        ):
            return False
        chunk = self._index.at(offset)
        size = self.version.size
        if chunk is None and not len(self._index) and size <= whole_bytes(self._context.options):
            chunk = self._fetcher.fetch(whole_span(size, self._on_disk))
        return chunk is not None and end <= chunk.end and self._fetcher.call(chunk, then)

    async def read(self, offset: int, end: int) -> memoryview | bytes:
        """``[offset, end)``, fetched as needed; valid until the caller's next checkpoint.

        Raises:
            VersionChangedError: the object changed, and every later read fails the same way; or
                it is gone.
            StoreError: the bytes could not be had; a later read tries again.
            BadHandleError: the reader was closed.
        """
        unplanned_bytes = self._settle()
        now = trio.current_time()
        outlook = self._outlook or self._look()
        stream = outlook.streams.observe(offset, end, now)
        outlook.belief.observe(offset, end)
        self._want(offset, end, stream)
        if self._withheld and self._leave is not None:
            # While the disk reads; a download on its way is leave enough.
            wanted = self._index.at(offset)
            if wanted is not None and wanted.from_disk:
                self._leave.ask(urgent=True)
        for span in outlook.planner.opening(outlook.table.opening()):
            self._fetcher.fetch(span)
        self._read_ahead(outlook, stream, end - offset + unplanned_bytes, now, waited=True)
        chunk, source = await self._ready_chunk(offset, end, stream)
        chunk.awaited = False
        if end <= chunk.end:
            view = chunk.view(offset, end)
            # What was read to its end may be given up at once, but not before this answer is lent:
            # who borrows memory that was given back already reads what comes next.
            chunk.pin()
            self._resident.touched(chunk, end - offset, source)
            chunk.unpin()
            return view
        joined = bytearray(end - offset)
        position = offset
        while True:
            upto = min(end, chunk.end)
            joined[position - offset : upto - offset] = chunk.view(position, upto)
            self._resident.touched(chunk, upto - position, source)
            position = upto
            if position == end:
                return memoryview(joined)
            chunk, source = await self._ready_chunk(position, end, stream)

    async def told(self) -> ObjectInfo | None:
        """What the store said of the object beside its first bytes; fetches a whole small object
        if nobody has yet.

        Returns None if the bytes came from elsewhere.

        Raises:
            VersionChangedError, StoreError, BadHandleError: as of :meth:`read`.
        """
        if self._fetcher.told is None:
            size = self.version.size
            stream = self._look().streams.observe(0, size, trio.current_time())
            self._want(0, size, stream)
            await self._ready_chunk(0, size, stream)
        return self._fetcher.told or (self._leave.told if self._leave is not None else None)

    async def _ready_chunk(self, offset: int, end: int, stream: Stream) -> tuple[Chunk, Labels]:
        """The chunk at ``offset``, as soon as it holds its bytes up to ``end``, and what was waited
        for; no checkpoint between its being found and the return.
        """
        waited = False
        while True:
            if self._fetcher.refusal is not None:
                raise self._fetcher.refusal
            chunk = self._index.at(offset)
            if chunk is None:
                self._want(offset, end, stream)
                continue
            if chunk.ready and self._withheld and self._leave is not None:
                await self._obtain(self._leave, chunk)
                continue
            if not self._withheld and chunk.has_until(min(end, chunk.end)):
                return chunk, (DISK if chunk.from_disk else NETWORK) if waited else MEMORY
            waited = True
            chunk.pin()
            try:
                await self._fetcher.landing(chunk)
            finally:
                chunk.unpin()
            if chunk.error is not None:
                raise chunk.error

    async def _obtain(self, leave: Leave, chunk: Chunk) -> None:
        chunk.pin()
        try:
            error = await leave.wait()
        finally:
            chunk.unpin()
        self._withheld = not leave.granted
        if self._withheld and error is not None:
            raise self._fetcher.as_seen(error, pins=1)

    # -- fetching what the planner says -------------------------------------------------------

    def _want(self, offset: int, end: int, stream: Stream) -> None:
        """Begin what a waiting reader needs and nobody has asked for yet."""
        planner = self._look().planner
        while (span := planner.needed(offset, end, stream)) is not None:
            if stream.straggles:
                self._resident.missed()
            self._fetcher.fetch(span)
            offset = span.end

    def _read_ahead(
        self, outlook: Outlook, stream: Stream, amount: int, now: float, *, waited: bool
    ) -> None:
        planner = outlook.planner
        span = planner.ahead(stream, amount, self._resident.window_cap(now), waited=waited)
        if planner.reached_end and self._on_near_end is not None:
            tell, self._on_near_end = self._on_near_end, None
            tell(self.version)
        while span is not None:
            if self._fetcher.fetch(span) is None:
                cut_back(stream)
                return
            span = planner.next_ahead(stream)
        # Behind that: the reader needs what it has begun sooner than what it will begin.
        self._follow_course(outlook)

    def _follow_course(self, outlook: Outlook) -> None:
        """Keep as many requests under way as fill the link for what is believed to be read soon."""
        course = outlook.belief.course
        if course.is_idle:
            return
        self._beside = under_way = [chunk for chunk in self._beside if chunk.pending]
        while len(under_way) < REQUESTS_BESIDE and (span := outlook.planner.beside()) is not None:
            chunk = self._fetcher.fetch(span)
            if chunk is None:
                return
            course.took(ByteRange(span.start, span.end))
            under_way.append(chunk)

    def fetch_head(self, size: int) -> int | None:
        """Begin to fetch the first ``size`` bytes, behind urgent work.

        Returns the bytes fetched: 0 if a disk has them, 1 if it does and leave to read them is
        asked for, None if memory is short.
        """
        size = min(size, self.version.size)
        if self._on_disk.present_until(0) >= size:
            if not self._withheld or self._leave is None:
                return 0
            self._leave.ask(urgent=False)
            return 1
        position = 0
        planner = self._look().planner
        while (span := planner.head(position, size)) is not None:
            if self._fetcher.fetch(span) is None:
                return None
            position = span.end
        return size

    def _landed(self, chunk: Chunk) -> None:
        outlook = self._outlook
        if outlook is not None:
            outlook.landed(chunk, self._index)
        if self._withheld and self._leave is not None and chunk.from_store:
            self._granted(self._leave)
        if self._home is not None and not chunk.from_disk:
            self._home.keep(chunk)
        if outlook is not None:
            self._follow_course(outlook)

    def _granted(self, leave: Leave) -> None:
        leave.grant(self.version)
        self._withheld = False

    # -- the disk, behind the readers -----------------------------------------------------------

    def missing_on_disk(self, span_bytes: int) -> list[tuple[int, int]]:
        """The bytes that are not on disk, in spans that cross no multiple of ``span_bytes``."""
        if self._home is None:
            return [(0, self.version.size)]
        return self._look().planner.missing_on_disk(span_bytes)

    async def bring_to_disk(self, start: int, end: int) -> bool:
        """Have ``[start, end)`` on disk, behind everybody who reads; whether it is.

        The span begins on a multiple of the backend's granularity. Cancelled, what is under way
        goes on.

        Raises:
            VersionChangedError: the object changed.
            StoreError: the bytes could not be had.
        """
        if self._home is None:
            return False
        position = start
        while position < end:
            present = self._on_disk.present_until(position)
            if present > position:
                position = present
                continue
            chunk = self._index.at(position)
            if chunk is None:
                span = self._look().planner.request(position, end, urgent=False)
                chunk = self._fetcher.fetch(span) or self._fetcher.ask(span)
            await self._settle_on_disk(chunk, self._home)
            if chunk.disk is not DiskState.KEPT:
                return False
            position = chunk.end
        return True

    async def _settle_on_disk(self, chunk: Chunk, home: DiskHome) -> None:
        chunk.pin()
        try:
            while chunk.state is ChunkState.ASKED:
                await self._fetcher.find_memory(chunk)
            while chunk.pending:
                await chunk.wait()
            if chunk.error is not None:
                raise chunk.error
            if not chunk.on_way_to_disk and chunk.disk is not DiskState.KEPT:
                home.keep(chunk)
            while chunk.on_way_to_disk:
                await chunk.wait()
        finally:
            chunk.unpin()
            if chunk.ready and chunk.pins == 0:
                # Nobody reads it now; what is on disk needs no memory.
                chunk.evict()

    # -- letting go ---------------------------------------------------------------------------

    def rebase(self, version: ObjectVersion) -> None:
        """Fetch from ``version`` from now on: the same bytes under another key or ETag."""
        self.version = version
        self._fetcher.rebase(version)
        if self._leave is not None:
            # Only who may read the source could have it copied.
            self._granted(self._leave)

    def close(self) -> None:
        """Free all memory; requests in flight run to their end and their bytes are dropped."""
        self._fetcher.close()
        if self._leave is not None:
            self._leave.close()
        self._resident.end(None if self._outlook is None else self._outlook.streams)

"""Reading one object version: single flight, several streams, answers from memory."""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import outcome
import trio

from ossfs_py.errors import (
    BadHandleError,
    ObjectMissingError,
    StoreError,
    VersionChangedError,
)
from ossfs_py.model import ObjectVersion
from ossfs_py.reading.chunks import Chunk, ChunkIndex, DiskState
from ossfs_py.reading.hints import ModelHints
from ossfs_py.reading.models import ZIP_TAIL_BYTES
from ossfs_py.reading.secondhome import BlockBackend, BlockLostError
from ossfs_py.reading.streams import Stream, StreamTable
from ossfs_py.runtime.buffers import Buffer
from ossfs_py.telemetry.metrics import DISK, MEMORY, NETWORK, SENT, WON, Labels

if TYPE_CHECKING:
    from ossfs_py.reading.engine import TransferEngine

log = logging.getLogger(__name__)

MIB = 1024**2

_PIECES_AHEAD = 16
"""What is read ahead comes in this many requests at least, so that they fill the link."""


class VersionReader:
    """The bytes of one version, shared by every descriptor that has it open.

    A byte that is in memory or on its way is never asked for again: a reader of a chunk in flight
    waits for that chunk. Nothing is locked across the network; after every wait the index is
    looked at again.
    """

    def __init__(
        self,
        engine: "TransferEngine",
        version: ObjectVersion,
        backend: BlockBackend | None = None,
        on_near_end: Callable[[ObjectVersion], None] | None = None,
    ) -> None:
        """``on_near_end`` is told once, when reading ahead first reaches the end."""
        self.version = version
        options = engine.options
        self._hints = ModelHints(
            version, options.streams, engine.files, enabled=options.model_hints
        )
        self.streams = StreamTable(self._hints.limits)
        self._engine = engine
        self._backend = backend
        self._whole_bytes = min(options.small_file_bytes, options.block_size_bytes)
        self._grain = backend.granularity_bytes if backend else 4096
        self._index = ChunkIndex()
        self._on_near_end = on_near_end
        self._changed: VersionChangedError | None = None
        self._closed = False
        self._disk_jobs = 0
        engine.add_reader(self)

    def follow(self, other: "VersionReader") -> None:
        """Expect to be read as ``other`` is: it is the shard before this one."""
        if other._hints.looked:
            self._hints.expect_looks()

    def look_again(self) -> None:
        """Somebody opens this version anew, so it has been seen again: ask the store once more."""
        self._changed = None

    # -- answering ----------------------------------------------------------------------------

    def read_nowait(self, offset: int, end: int) -> memoryview | None:
        """``[offset, end)`` if one ready chunk holds it all; keeps the stream's window filled.

        ``end`` must not exceed the version's size. The view is valid until the next checkpoint.
        """
        chunk = self._index.at(offset)
        if chunk is None or not chunk.ready or end > chunk.end:
            return None
        stream = self.streams.observe(offset, end, trio.current_time())
        view = chunk.view(offset, end)
        self._engine.touched(chunk, end - offset, MEMORY)
        self._read_ahead(stream, end - offset, waited=False)
        return view

    async def read(self, offset: int, end: int) -> memoryview | bytes:
        """``[offset, end)``, fetched as needed; valid until the caller's next checkpoint.

        Raises:
            VersionChangedError: the object changed, and every later read fails the same way; or
                it is gone.
            StoreError: the bytes could not be had; a later read tries again.
        """
        stream = self.streams.observe(offset, end, trio.current_time())
        self._want(offset, end, stream)
        if self._hints.tail_start is not None:
            tail, self._hints.tail_start = self._hints.tail_start, None
            self._fetch_piece(tail, ZIP_TAIL_BYTES)
        self._read_ahead(stream, end - offset, waited=True)
        chunk, source = await self._ready_chunk(offset, end, stream)
        if end <= chunk.end:
            view = chunk.view(offset, end)
            self._engine.touched(chunk, end - offset, source)
            return view
        joined = bytearray(end - offset)
        position = offset
        while True:
            upto = min(end, chunk.end)
            joined[position - offset : upto - offset] = chunk.view(position, upto)
            self._engine.touched(chunk, upto - position, source)
            position = upto
            if position == end:
                return memoryview(joined)
            chunk, source = await self._ready_chunk(position, end, stream)

    async def _ready_chunk(self, offset: int, end: int, stream: Stream) -> tuple[Chunk, Labels]:
        """The ready chunk at ``offset`` and what was waited for; no checkpoint between its being
        found and the return.
        """
        waited = False
        while True:
            if self._changed is not None:
                raise self._changed
            chunk = self._index.at(offset)
            if chunk is None:
                chunk = self._want(offset, end, stream)
            if chunk.ready:
                return chunk, (DISK if chunk.from_disk else NETWORK) if waited else MEMORY
            waited = True
            chunk.pins += 1
            try:
                if chunk.buffer is None:
                    await self._find_memory(chunk)
                elif chunk.job is not None:
                    chunk.job.promote()
                if not chunk.ready and chunk.error is None:
                    await self._landing(chunk)
            finally:
                chunk.pins -= 1
                if chunk.pins == 0:
                    self._engine.unpinned(chunk)
            if chunk.error is not None:
                raise chunk.error

    async def _landing(self, chunk: Chunk) -> None:
        """Wait until something becomes of a chunk; asks a second time for one that is late."""
        if chunk.from_disk or chunk.spare is not None:
            await chunk.wait()
            return
        hedging = self._engine.hedging
        patience_seconds = hedging.patience_seconds
        if chunk.begun_at is not None:
            patience_seconds += chunk.begun_at - time.monotonic()
        with trio.move_on_after(max(0.0, patience_seconds)) as waiting:
            await chunk.wait()
        if waiting.cancelled_caught and chunk.begun_at is not None and chunk.buffer is not None:
            late_seconds = time.monotonic() - chunk.begun_at - hedging.patience_seconds
            if late_seconds >= 0:
                self._ask_again(chunk, chunk.begun_at)
                await chunk.wait()

    # -- planning -----------------------------------------------------------------------------

    def _want(self, offset: int, end: int, stream: Stream) -> Chunk:
        """Begin what a waiting reader needs and nobody has asked for yet; the first chunk."""
        if len(self._index) == 0 and self.version.size <= self._whole_bytes:
            return self._new_chunk(0, self.version.size, urgent=True)
        first: Chunk | None = None
        position = offset
        while position < end:
            chunk = self._index.at(position)
            if chunk is None:
                upto = position
                if stream.straggles:  # of what others have read, the kernel keeps the rest
                    self._engine.missed()
                else:
                    upto += self._engine.options.random_fetch_bytes
                if stream.window:
                    # Reads of the kernel's readahead end on multiples of 1 MiB: one that spans
                    # two chunks has to be joined.
                    upto = (position + min(MIB, stream.window)) // MIB * MIB
                start = position - position % self._grain
                chunk = self._new_chunk(start, max(upto, end), urgent=True)
            first = first or chunk
            position = chunk.end
        assert first is not None  # noqa: S101 - reads are never empty here
        return first

    def _read_ahead(self, stream: Stream, amount: int, *, waited: bool) -> None:
        if stream.hits == 1:
            for head in self._hints.heads(stream):
                self._fetch_piece(head.start, head.size)
        known_end = self._hints.known_end(stream)
        window = self.streams.widen(
            stream,
            self._engine.window_cap(),
            amount,
            waited=waited,
            bounded=known_end is not None,
        )
        if not window or self._closed or self.streams.trespasses(stream):
            return
        limit = min(known_end or self.version.size, stream.position + window)
        if limit == self.version.size and self._on_near_end is not None:
            tell, self._on_near_end = self._on_near_end, None
            tell(self.version)
        boundary = self.streams.boundary(stream)
        if boundary is not None and boundary < limit:
            limit = boundary
        elif limit == known_end:
            boundary = limit
        self._fetch_ahead(stream, limit, exact=limit in (boundary, self.version.size))

    def _fetch_ahead(self, stream: Stream, limit: int, *, exact: bool) -> None:
        """Begin to fetch up to ``limit``; not ``exact``, a piece that does not fit can wait."""
        window = stream.window
        largest = min(
            self._engine.options.block_size_bytes, _floor_power_of_two(window // _PIECES_AHEAD)
        )
        position = max(stream.position, stream.ahead)
        while position < limit:
            chunk = self._index.at(position)
            if chunk is not None:
                position = stream.ahead = chunk.end
                continue
            piece = _piece(position - stream.position, largest)
            # Pieces end on multiples of their size, for the same reason as in _want.
            end = (position // piece + 1) * piece
            if end - position < piece // 2:
                end += piece
            if end > limit:
                if not exact:
                    return
                end = limit
            chunk = self._new_chunk(position - position % self._grain, end, urgent=False)
            if chunk.buffer is None:
                self._index.remove(chunk)
                stream.window = stream.target = max(window // 2, MIB)
                return
            position = stream.ahead = chunk.end

    def fetch_head(self, size: int) -> int | None:
        """Begin to fetch the first ``size`` bytes, behind urgent work.

        Returns the bytes fetched: 0 if a disk has them, None if memory is short.
        """
        size = min(size, self.version.size)
        if self._backend is not None and self._backend.present_until(0) >= size:
            return 0
        position = 0
        while position < size:
            chunk = self._index.at(position)
            if chunk is None:
                # The header comes first, and soon: it says where the tensors are.
                upto = size if position else min(size, MIB)
                chunk = self._new_chunk(position, upto, urgent=False)
                if chunk.buffer is None:
                    self._index.remove(chunk)
                    return None
            position = chunk.end
        return size

    def _fetch_piece(self, start: int, size: int) -> None:
        """Begin to fetch some bytes ahead, unless they are here or memory is short."""
        start -= start % self._grain
        end = min(start + size, self.version.size)
        if self._index.at(start) is None:
            chunk = self._new_chunk(start, end, urgent=False)
            if chunk.buffer is None:
                self._index.remove(chunk)

    def _new_chunk(self, start: int, end: int, *, urgent: bool) -> Chunk:
        """Plan one request that covers ``start`` and no byte that another chunk holds."""
        size = self.version.size
        end = min(size, -(-end // self._grain) * self._grain)
        previous = self._index.at(start)
        if previous is not None:
            start = previous.end
        behind = self._index.next_start(start)
        if behind is not None:
            end = min(end, behind)
        end = min(end, start + self._engine.options.block_size_bytes)
        from_disk = False
        if self._backend is not None:
            present = self._backend.present_until(start)
            if present > start:
                end, from_disk = min(end, present), True
            else:
                on_disk = self._backend.next_present(start)
                end = end if on_disk is None else min(end, on_disk)
        chunk = Chunk(self, start, end)
        chunk.from_disk = from_disk
        chunk.ahead = not (urgent or from_disk)
        self._index.add(chunk)
        headroom = 0 if urgent else self._engine.headroom_bytes
        chunk.buffer = self._engine.pool.try_acquire(chunk.size, headroom_bytes=headroom)
        if chunk.buffer is not None:
            self._fetch(chunk, urgent=urgent)
        return chunk

    async def _find_memory(self, chunk: Chunk) -> None:
        """Wait for memory on behalf of a reader; whoever gets it first starts the fetch."""
        buffer = await self._engine.pool.acquire(chunk.size)
        if chunk.buffer is not None or self._closed or chunk.error is not None:
            buffer.release()
            return
        chunk.buffer = buffer
        self._fetch(chunk, urgent=True)

    # -- fetching -----------------------------------------------------------------------------

    def _fetch(self, chunk: Chunk, *, urgent: bool) -> None:
        assert chunk.buffer is not None  # noqa: S101 - memory comes first
        engine = self._engine
        if chunk.from_disk and self._backend is not None:
            call = partial(self._backend.load_into, chunk.start, chunk.buffer.view)
            workers = engine.files
            self._disk_jobs += 1
        else:
            call = partial(self._get, chunk, self.version, chunk.buffer.view)
            workers = engine.network
        done = partial(self._fetched, chunk, self.version, chunk.buffer)
        chunk.begun_at = None
        chunk.job = workers.submit(call, done, urgent=urgent)

    def _get(self, chunk: Chunk, version: ObjectVersion, view: memoryview) -> None:
        chunk.begun_at = time.monotonic()
        self._engine.store.get_range_into(version, chunk.start, view)

    def _ask_again(self, chunk: Chunk, begun_at: float) -> None:
        """Send a second request for a chunk that is late; the first good answer counts."""
        if chunk.spare is not None or chunk.ready or chunk.error is not None:
            return  # another reader who waits for it was faster
        engine = self._engine
        buffer = engine.pool.try_acquire(chunk.size, headroom_bytes=engine.headroom_bytes)
        if buffer is None:
            return
        if not engine.hedging.begin(begun_at, engine.network.running):
            buffer.release()
            return
        log.info("%r from byte %d is late: asking again", self.version.key, chunk.start)
        engine.hedges[SENT] += 1
        chunk.spare = buffer
        call = partial(engine.store.get_range_into, self.version, chunk.start, buffer.view)
        engine.network.submit(call, partial(self._fetched, chunk, self.version, buffer))

    def _fetched(
        self,
        chunk: Chunk,
        version: ObjectVersion,
        buffer: Buffer,
        result: outcome.Outcome[Any],
    ) -> None:
        if chunk.from_disk:
            self._disk_job_done()
        if chunk.spare is not None and self._is_let_go(chunk, buffer, result):
            return
        chunk.job = None
        if isinstance(result, outcome.Error):
            if version != self.version and not self._closed:
                # The bytes moved to another key while this request was on its way.
                self._fetch(chunk, urgent=chunk.pins > 0)
            else:
                self._fetch_failed(chunk, result.error)
            return
        chunk.ready = True
        if self._closed:
            self._release(chunk)
            return
        engine = self._engine
        engine.landed(chunk)
        if chunk.begun_at is not None:
            engine.hedging.answered(chunk.begun_at, time.monotonic())
        self._hints.learn(self._index)
        if self._backend is not None and not chunk.from_disk:
            engine.behind.put(chunk)
        chunk.wake()

    def _is_let_go(self, chunk: Chunk, buffer: Buffer, result: outcome.Outcome[Any]) -> bool:
        """Whether an answer, the first of two or the second, is not the one that counts.

        Each request keeps its buffer until it has ended: its thread writes into it.
        """
        good = isinstance(result, outcome.Value)
        if buffer is chunk.buffer:
            if good or self._closed:
                return False
            # The first one failed; the second one goes on alone.
            chunk.buffer, chunk.spare, chunk.job = chunk.spare, None, None
        elif good and not (chunk.ready or self._closed or chunk.buffer is None):
            chunk.buffer, chunk.spare = buffer, chunk.buffer
            self._engine.hedges[WON] += 1
            return False
        else:
            chunk.spare = None
        buffer.release()
        self._engine.hedging.end()
        return True

    def _fetch_failed(self, chunk: Chunk, error: BaseException) -> None:
        if isinstance(error, BlockLostError) and not self._closed:
            log.warning("%s; fetching it from the store again", error)
            chunk.from_disk = False
            if self._backend is not None:
                self._backend.note_lost(chunk.start, chunk.end)
            self._fetch(chunk, urgent=chunk.pins > 0)
            return
        if isinstance(error, ObjectMissingError):
            # Whoever has the file open asked for no name. Should it come back, a later read has it.
            error = VersionChangedError(
                f"the object is gone ({error.args[0]})",
                operation=error.operation,
                key=error.key,
                request_id=error.request_id,
                attempts=error.attempts,
            )
        elif isinstance(error, VersionChangedError):
            self._changed = error
        elif not isinstance(error, StoreError):
            log.error("fetching %r failed unexpectedly", self.version.key, exc_info=error)
        elif chunk.pins == 0:
            log.info("read ahead gave up: %s", error)
        chunk.error = error
        self._index.remove(chunk)
        self._release(chunk)
        chunk.wake()

    # -- the disk, behind the readers -----------------------------------------------------------

    def write_begins(self, chunk: Chunk) -> Callable[[], bool]:
        """The call that writes a ready chunk to disk; :meth:`write_ended` follows."""
        assert self._backend is not None and chunk.buffer is not None  # noqa: S101 - a ready chunk
        self._disk_jobs += 1
        return partial(self._backend.keep, chunk.start, chunk.buffer.view)

    def write_ended(self, chunk: Chunk) -> None:
        """The chunk is on disk, or was refused."""
        if chunk.disk is DiskState.KEPT and self._backend is not None and not self._closed:
            self._backend.note_kept(chunk.start, chunk.end)
        self._disk_job_done()
        if self._closed and chunk.pins == 0:
            self._release(chunk)
        chunk.wake()

    def write_skipped(self, chunk: Chunk) -> None:
        """The chunk's memory was needed before the disk had time for it."""
        if self._backend is not None:
            self._backend.note_skipped(chunk.size)
        chunk.wake()

    def missing_on_disk(self, span_bytes: int) -> list[tuple[int, int]]:
        """What is not on disk, in spans that cross no multiple of ``span_bytes``."""
        size = self.version.size
        if self._backend is None:
            return [(0, size)]
        spans = []
        position = 0
        while position < size:
            present = self._backend.present_until(position)
            if present == position:
                upto = self._backend.next_present(position)
                end = min((position // span_bytes + 1) * span_bytes, size)
                present = end if upto is None else min(end, upto)
                spans.append((position, present))
            position = present
        return spans

    async def bring_to_disk(self, start: int, end: int) -> bool:
        """Have ``[start, end)`` on disk, behind everybody who reads; whether it is.

        The span begins on a multiple of the backend's granularity. Cancelled, what is under way
        goes on.

        Raises:
            VersionChangedError: the object changed.
            StoreError: the bytes could not be had.
        """
        backend, position = self._backend, start
        while backend is not None and position < end:
            present = backend.present_until(position)
            if present > position:
                position = present
                continue
            chunk = self._index.at(position)
            if chunk is None:
                chunk = self._new_chunk(position, end, urgent=False)
            chunk.pins += 1
            try:
                await self._settle_on_disk(chunk)
            finally:
                chunk.pins -= 1
                if chunk.pins == 0 and chunk.ready and not self._closed:
                    # Nobody reads it now; what is on disk needs no memory.
                    self.drop(chunk)
            if chunk.disk is not DiskState.KEPT:
                return False
            position = chunk.end
        return backend is not None

    async def _settle_on_disk(self, chunk: Chunk) -> None:
        if chunk.buffer is None:
            await self._find_memory(chunk)
        while not chunk.ready and chunk.error is None:
            await chunk.wait()
        if chunk.error is not None:
            raise chunk.error
        if chunk.disk in (DiskState.NOT_ASKED, DiskState.REFUSED):
            self._engine.behind.put(chunk)
        while chunk.disk is DiskState.WAITING:
            await chunk.wait()

    # -- letting go ---------------------------------------------------------------------------

    def rebase(self, version: ObjectVersion) -> None:
        """Fetch from ``version`` from now on: the same bytes under another key or ETag."""
        self.version = version

    def drop(self, chunk: Chunk) -> None:
        """Evict a ready, unpinned chunk."""
        self._index.remove(chunk)
        self._release(chunk)

    def _release(self, chunk: Chunk) -> None:
        self._engine.forget(chunk)
        if chunk.buffer is not None:
            chunk.ready = False
            buffer, chunk.buffer = chunk.buffer, None
            buffer.release()

    def close(self) -> None:
        """Free all memory; requests in flight run to their end and their bytes are dropped."""
        self._closed = True
        for chunk in self._index:
            chunk.error = BadHandleError("the file was closed while it was read")
            chunk.wake()
            if chunk.job is not None:
                if chunk.job.cancel():
                    chunk.job = None
                    self._disk_jobs -= chunk.from_disk
                    self._release(chunk)
            elif chunk.pins == 0:
                self._release(chunk)
        self._engine.remove_reader(self)
        if self._backend is not None and self._disk_jobs == 0:
            self._backend.close()

    def _disk_job_done(self) -> None:
        # The backend's file must not be closed, and its descriptor reused, under a thread.
        self._disk_jobs -= 1
        if self._closed and self._disk_jobs == 0 and self._backend is not None:
            self._backend.close()


def _piece(distance: int, largest: int) -> int:
    """How much one request ahead asks for: what is needed soon comes in small pieces, side by
    side, what is needed later in large ones, which cost less.
    """
    return max(MIB, min(largest, _floor_power_of_two(distance // 4)))


def _floor_power_of_two(value: int) -> int:
    return 1 << (value.bit_length() - 1) if value > 0 else 0

"""Requests for the bytes of one version: memory, the request, a second one if it is late, the end.

Everything runs on the trio thread but the call that fills the memory.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import outcome
import trio

from ossfs_py.errors import BadHandleError, ObjectMissingError, StoreError, VersionChangedError
from ossfs_py.model import ObjectInfo, ObjectVersion
from ossfs_py.reading.chunks import Chunk, ChunkIndex, ChunkState, Ending
from ossfs_py.reading.context import ReadContext
from ossfs_py.reading.planning import PlannedSpan
from ossfs_py.reading.secondhome import BlockLostError, DiskHome
from ossfs_py.reading.shared import SharedAnswer
from ossfs_py.runtime.buffers import Buffer
from ossfs_py.store.base import InlineReads, Told
from ossfs_py.store.http.arrival import Arrival
from ossfs_py.telemetry.metrics import SENT, WON

log = logging.getLogger(__name__)


INLINE_BYTES = 256 * 1024
"""Requests up to this size take no thread. They keep the trio thread for 40 us at most (and for the
decryption over https), less than a thread costs."""

_GRADUAL_BYTES = 1024**2
"""The kernel asks for no more at once: who waits for a larger request may be answered before its
end."""


def _itself(info: ObjectInfo) -> ObjectInfo:
    return info


def _unheard(chunk: Chunk) -> None:
    """Nobody wants to know any more."""


class Fetcher:
    """Fills the chunks of one version, pinned to its ETag, from the store or from its disk home."""

    def __init__(
        self,
        context: ReadContext,
        version: ObjectVersion,
        index: ChunkIndex,
        home: DiskHome | None,
        on_landed: Callable[[Chunk], None],
    ) -> None:
        """``on_landed`` is told of each chunk that holds its bytes."""
        self.version = version
        """The object that requests ask for; may change to another key or ETag of the same bytes."""
        self.refusal: VersionChangedError | BadHandleError | None = None
        """Why no byte can be had any more."""
        self._told: Told | None = None
        self._index = index
        self._home = home
        self._on_landed = on_landed
        self._store = context.store
        self._shared = context.shared
        self._inline = context.inline if context.shared is None else None
        self._network = context.network
        self._memory = context.memory
        self._headroom_bytes = context.resident.headroom_bytes
        self._hedging = context.hedging
        self._first_bytes = context.first_bytes
        self._hedges = context.metrics.hedges.values

    @property
    def told(self) -> ObjectInfo | None:
        """The headers of the object that came with its first bytes."""
        return None if self._told is None else self._told()

    # -- asking -------------------------------------------------------------------------------

    def fetch(self, span: PlannedSpan) -> Chunk | None:
        """Begin to fetch a span. If memory is short, None; or, if it is urgent, a chunk that waits
        for :meth:`find_memory`.
        """
        headroom = 0 if span.urgent else self._headroom_bytes
        buffer = self._memory.try_acquire(span.size, headroom_bytes=headroom)
        if buffer is None and not span.urgent:
            return None
        chunk = self.ask(span)
        if buffer is not None:
            self._begin(chunk, buffer, urgent=span.urgent)
        return chunk

    def ask(self, span: PlannedSpan) -> Chunk:
        """A chunk that waits for :meth:`find_memory`."""
        ahead = not (span.urgent or span.from_disk)
        return self._index.ask(span.start, span.end, from_disk=span.from_disk, ahead=ahead)

    async def find_memory(self, chunk: Chunk) -> None:
        """Wait, on behalf of a reader, for the memory of a chunk and start its request.

        One waits for each chunk, and the others for that one: their pins would keep the bytes, once
        they are there, from making room for anybody, themselves included. It may return without
        memory, when the one who waited was cancelled.
        """
        if chunk.sought:
            await chunk.wait()
            return
        chunk.sought = True
        try:
            buffer = await self._memory.acquire(chunk.size)
        finally:
            chunk.sought = False
            chunk.wake()
        if chunk.state is ChunkState.ASKED:
            self._begin(chunk, buffer, urgent=True)
        else:
            buffer.release()

    def _begin(self, chunk: Chunk, buffer: Buffer, *, urgent: bool) -> None:
        chunk.fetching(buffer)
        self._request(chunk, buffer, urgent=urgent)

    def _request(self, chunk: Chunk, buffer: Buffer, *, urgent: bool) -> None:
        chunk.begun_at = None
        ended = partial(self._ended, chunk, self.version, buffer)
        if chunk.from_disk and self._home is not None:
            chunk.job = self._home.load(chunk, buffer.view, ended, urgent=urgent)
        else:
            chunk.arrival = self._arrival(chunk)
            call = partial(self._get, chunk, self.version, buffer.view, chunk.arrival)
            inline = None
            if self._inline is not None and chunk.size <= INLINE_BYTES:
                inline = partial(self._begin_inline, self._inline, chunk, self.version, buffer.view)
            chunk.job = self._network.submit(call, ended, urgent=urgent, inline=inline)

    def _arrival(self, chunk: Chunk) -> Arrival | None:
        if chunk.size <= _GRADUAL_BYTES or self._shared is not None:
            return None
        return Arrival(partial(self._network.tell, chunk.wake))

    @staticmethod
    def _begin_inline(
        reads: InlineReads,
        chunk: Chunk,
        version: ObjectVersion,
        view: memoryview,
        ended: Callable[[outcome.Outcome[Any]], None],
        gave_up: Callable[[], None],
    ) -> bool:
        chunk.begun_at = time.monotonic()
        return reads.begin(version, chunk.start, view, ended, gave_up)

    def _get(
        self, chunk: Chunk, version: ObjectVersion, view: memoryview, arrival: Arrival | None
    ) -> ObjectInfo | SharedAnswer | None:
        chunk.begun_at = time.monotonic()
        if self._shared is not None:
            return self._shared.blocks.get_range_into(version, chunk.start, view)
        if arrival is not None:
            return self._store.get_range_gradually(version, chunk.start, view, arrival)
        return self._store.get_range_into(version, chunk.start, view)

    # -- waiting ------------------------------------------------------------------------------

    def call(self, chunk: Chunk, then: Callable[[], None]) -> bool:
        """Have ``then`` called when the request for a chunk that somebody waits for is over; False
        if there is none, and ``then`` is not called.
        """
        if chunk.state is not ChunkState.FETCHING:
            return False
        if chunk.job is not None:
            chunk.job.promote()
        chunk.call(then)
        return True

    async def landing(self, chunk: Chunk) -> None:
        """Wait, for a reader, until something becomes of a chunk that holds no bytes yet; it may
        return before. Asks a second time for what is late. Cancelled, the request goes on.
        """
        if chunk.state is ChunkState.ASKED:
            await self.find_memory(chunk)
            if chunk.state is ChunkState.ASKED:
                return
        elif chunk.job is not None:
            chunk.job.promote()
        if not chunk.pending:
            return
        if chunk.from_disk or chunk.spare is not None:
            await chunk.wait()
            return
        patience_seconds = self._hedging.patience_seconds
        if chunk.begun_at is not None:
            patience_seconds += chunk.begun_at - time.monotonic()
        with trio.move_on_after(max(0.0, patience_seconds)) as waiting:
            await chunk.wait()
        if waiting.cancelled_caught and chunk.begun_at is not None and chunk.pending:
            late_seconds = time.monotonic() - chunk.begun_at - self._hedging.patience_seconds
            if late_seconds >= 0:
                self._ask_again(chunk, chunk.begun_at)
                await chunk.wait()

    def _ask_again(self, chunk: Chunk, begun_at: float) -> None:
        """Send a second request for a chunk that is late; the first good answer counts."""
        if chunk.spare is not None:
            return  # another reader who waits for it was faster
        buffer = self._memory.try_acquire(chunk.size, headroom_bytes=self._headroom_bytes)
        if buffer is None:
            return
        if not self._hedging.begin(begun_at, self._network.running):
            buffer.release()
            return
        log.info("%r from byte %d is late: asking again", self.version.key, chunk.start)
        self._hedges[SENT] += 1
        chunk.asked_twice(buffer)
        call = partial(self._store.get_range_into, self.version, chunk.start, buffer.view)
        self._network.submit(call, partial(self._ended, chunk, self.version, buffer))

    # -- the end of a request -----------------------------------------------------------------

    def _ended(
        self, chunk: Chunk, version: ObjectVersion, buffer: Buffer, result: outcome.Outcome[Any]
    ) -> None:
        self._take(chunk, version, buffer, result)
        chunk.tell()

    def _take(
        self, chunk: Chunk, version: ObjectVersion, buffer: Buffer, result: outcome.Outcome[Any]
    ) -> None:
        ending = chunk.answered(buffer, good=isinstance(result, outcome.Value))
        shared = result.value if isinstance(result, outcome.Value) else None
        if not isinstance(shared, SharedAnswer):
            shared = None
        if ending is Ending.LET_GO:
            self._hedging.end()
            self._forgo(version, shared)
            return
        if ending is Ending.WINS:
            self._hedges[WON] += 1
        if isinstance(result, outcome.Error):
            self._failed(chunk, version, buffer, result.error)
            return
        told = result.unwrap() if shared is None else shared.told
        if isinstance(told, ObjectInfo):  # a disk says nothing of it
            self._told = partial(_itself, told)
        elif callable(told):
            self._told = told
        if shared is not None:
            chunk.from_store, chunk.near = shared.from_store, shared.was_there
        elif not chunk.from_disk:
            chunk.near = self._first_bytes.come_at_once
        abandoned = chunk.state is ChunkState.ABANDONED
        chunk.landed()
        if abandoned:
            self._forgo(version, shared)
            return
        if shared is not None and self._shared is not None:
            self._shared.put(chunk, version, shared.owed)
        if chunk.begun_at is not None:
            self._hedging.answered(chunk.begun_at, time.monotonic())
        self._on_landed(chunk)

    def _forgo(self, version: ObjectVersion, shared: SharedAnswer | None) -> None:
        if shared is not None and self._shared is not None:
            self._shared.forgo(version, shared.owed)

    def _failed(
        self, chunk: Chunk, version: ObjectVersion, buffer: Buffer, error: BaseException
    ) -> None:
        if chunk.state is ChunkState.FETCHING:
            if version != self.version:
                # The bytes moved to another key while this request was on its way.
                self._request(chunk, buffer, urgent=chunk.pins > 0)
                return
            if isinstance(error, BlockLostError) and self._home is not None:
                log.warning("%s; fetching it from the store again", error)
                self._home.lost(chunk)
                chunk.not_on_disk()
                self._request(chunk, buffer, urgent=chunk.pins > 0)
                return
        chunk.fail(self.as_seen(error, pins=chunk.pins))

    def as_seen(self, error: BaseException, *, pins: int) -> BaseException:
        """The error that a reading program gets."""
        if isinstance(error, ObjectMissingError):
            # The program used a descriptor, and no name. If the object returns, a read works.
            return VersionChangedError(
                f"the object is gone ({error.args[0]})",
                operation=error.operation,
                key=error.key,
                request_id=error.request_id,
                attempts=error.attempts,
            )
        if isinstance(error, VersionChangedError):
            self.refusal = self.refusal or error
        elif not isinstance(error, (StoreError, BlockLostError)):
            log.error("fetching %r failed unexpectedly", self.version.key, exc_info=error)
        elif pins == 0:
            log.info("read ahead gave up: %s", error)
        return error

    # -- letting go ---------------------------------------------------------------------------

    def look_again(self) -> None:
        """Ask the store once more, whatever it said before."""
        self.refusal = None

    def rebase(self, version: ObjectVersion) -> None:
        """Fetch from ``version``, which has the same bytes. That the store refused the version
        before, as its copy was made already, does not count.
        """
        self.version = version
        if isinstance(self.refusal, VersionChangedError):
            self.refusal = None

    def close(self) -> None:
        """Free all memory; requests in flight run to their end and their bytes are dropped."""
        error = BadHandleError("the file was closed while it was read")
        self.refusal = error
        self._on_landed = _unheard  # it is the reader's, which holds this
        for chunk in self._index:
            if chunk.state is ChunkState.FETCHING and chunk.job is not None and chunk.job.cancel():
                if chunk.from_disk and self._home is not None:
                    self._home.load_cancelled()
                chunk.fail(error)
            else:
                chunk.abandon(error)
        if self._home is not None:
            self._home.close()

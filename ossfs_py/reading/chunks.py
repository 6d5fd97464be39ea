"""The chunks of one object version that are in memory or on their way there."""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Protocol

import trio

from ossfs_py.runtime.buffers import Buffer
from ossfs_py.runtime.workers import Job
from ossfs_py.store.http.arrival import Arrival


class ChunkState(Enum):
    """State of the bytes of a chunk."""

    # Enum's own is written in Python, and asked five times a chunk.
    __hash__ = object.__hash__

    ASKED = auto()
    """No memory yet."""
    FETCHING = auto()
    READY = auto()
    ABANDONED = auto()
    """The file was closed; a thread still writes into the memory, and nobody is to have it."""
    FAILED = auto()
    GONE = auto()
    """Evicted, or closed: the memory went back."""


_NEXT = {
    ChunkState.ASKED: {ChunkState.FETCHING, ChunkState.FAILED},
    ChunkState.FETCHING: {ChunkState.READY, ChunkState.FAILED, ChunkState.ABANDONED},
    ChunkState.ABANDONED: {ChunkState.FAILED, ChunkState.GONE},
    ChunkState.READY: {ChunkState.GONE},
    ChunkState.FAILED: set[ChunkState](),
    ChunkState.GONE: set[ChunkState](),
}


class DiskState(Enum):
    """State of a chunk's copy on the local disk."""

    __hash__ = object.__hash__

    NOT_ASKED = auto()
    QUEUED = auto()
    """To be written when the disk has time for it; until then its memory may be taken."""
    WRITING = auto()
    KEPT = auto()
    REFUSED = auto()
    """No room, a failure, or a disk slower than the network."""


_DISK_NEXT = {
    DiskState.NOT_ASKED: {DiskState.QUEUED},
    DiskState.QUEUED: {DiskState.WRITING, DiskState.REFUSED},
    DiskState.WRITING: {DiskState.KEPT, DiskState.REFUSED},
    DiskState.KEPT: set[DiskState](),
    DiskState.REFUSED: {DiskState.QUEUED},
}


class Ending(Enum):
    """The consequence of a request's end for its chunk."""

    COUNTS = auto()
    WINS = auto()
    """It counts, and it is the second of two for the same bytes."""
    LET_GO = auto()
    """The other one of two counted, or is still waited for."""


class Keeper(Protocol):
    """Decides how long chunks stay in memory."""

    def landed(self, chunk: "Chunk") -> None:
        """The chunk holds its bytes: it may be evicted from now on."""
        ...

    def left(self, chunk: "Chunk", *, had_bytes: bool) -> None:
        """The chunk's memory, if it has any, goes back to the budget right after this call.

        ``had_bytes``: it held all of its bytes.
        """
        ...


class Chunk:
    """One contiguous span of a version, fetched by one request.

    Only its own methods change its state, and each does all that belongs to the change: the index
    forgets what has left, the keeper hears of it, the memory goes back, and who waits looks again.
    A change that ``_NEXT`` does not know is a defect and raises AssertionError.
    A chunk with ``pins`` (readers about to answer from it, a write to disk in progress) is never
    evicted; after a close the last unpin frees it.
    """

    __slots__ = (
        "ahead",
        "arrival",
        "awaited",
        "begun_at",
        "buffer",
        "disk",
        "end",
        "error",
        "from_disk",
        "from_store",
        "given",
        "index",
        "job",
        "near",
        "pins",
        "ready",
        "sought",
        "spare",
        "start",
        "state",
        "then",
        "waiting",
    )

    def __init__(
        self, index: "ChunkIndex", start: int, end: int, *, from_disk: bool, ahead: bool
    ) -> None:
        self.index = index
        self.start = start
        self.end = end
        self.state = ChunkState.ASKED
        self.ready = False
        """Whether ``state`` is READY; every read looks at it."""
        self.buffer: Buffer | None = None
        self.spare: Buffer | None = None
        """The buffer of a second request for these bytes; if that one won, of the first request."""
        self.job: Job | None = None
        """The request, as long as it can be hurried up or taken back."""
        self.arrival: Arrival | None = None
        """How far the request has filled ``buffer``, if that is told before its end."""
        self.sought = False
        """Whether somebody waits for memory for it."""
        self.begun_at: float | None = None
        """When a thread began the (latest) request, by time.monotonic(); the thread sets it."""
        self.error: BaseException | None = None
        """Why there will be no bytes, for whoever waits for them; also of a ready chunk that was
        closed while somebody used it."""
        self.pins = 0
        self.from_disk = from_disk
        self.from_store = not from_disk
        """Whether the store gave some of it, as it does only to whoever may read the object."""
        self.near = False
        """Whether it came from other machines' memory or a store nearby, and can soon be fetched
        from there again."""
        self.ahead = ahead
        """Downloaded before anybody asked for it."""
        self.given = 0
        """How many bytes were read from it; counted by whoever keeps it."""
        self.disk = DiskState.NOT_ASKED
        self.waiting: trio.Event | None = None
        self.then: list[Callable[[], None]] = []
        self.awaited = False
        """Whether the next bytes of it go to somebody who had to wait, without a task."""

    @property
    def size(self) -> int:
        """Bytes in the span."""
        return self.end - self.start

    @property
    def pending(self) -> bool:
        """Whether waiting makes sense: the bytes are neither there nor given up."""
        return self.state is ChunkState.ASKED or self.state is ChunkState.FETCHING

    @property
    def on_way_to_disk(self) -> bool:
        """Whether a write to disk is to come or under way."""
        return self.disk is DiskState.QUEUED or self.disk is DiskState.WRITING

    def has_until(self, end: int) -> bool:
        """Whether the bytes up to ``end`` are there. If not, who waits is woken when they are. The
        last one comes with the end of the request.
        """
        if self.ready:
            return True
        if self.arrival is None or end >= self.end or self.state is not ChunkState.FETCHING:
            return False
        return self.arrival.want(end - self.start)

    def view(self, start: int, end: int) -> memoryview:
        """The bytes of ``[start, end)``; only of those that are there."""
        assert self.buffer is not None  # noqa: S101 - they are in a buffer
        return self.buffer.view[start - self.start : end - self.start]

    # -- waiting ------------------------------------------------------------------------------

    def wake(self) -> None:
        """Let everybody who waits for the bytes look again."""
        if self.waiting is not None:
            self.waiting.set()
            self.waiting = None

    async def wait(self) -> None:
        """Wait until the bytes are there, the fetch failed, or a write to disk has ended."""
        if self.waiting is None:
            self.waiting = trio.Event()
        await self.waiting.wait()

    def call(self, then: Callable[[], None]) -> None:
        """Have ``then`` called when the request on its way is over, whatever came of it."""
        self.pin()
        self.awaited = True
        self.then.append(then)

    def tell(self) -> None:
        """The request is over, and what follows from its end is done."""
        if self.then and not self.pending:
            told, self.then = self.then, []
            for then in told:
                self.unpin()
                then()

    def pin(self) -> None:
        """Keep it from being evicted; pair with :meth:`unpin`."""
        self.pins += 1

    def unpin(self) -> None:
        """One holds on to it no more: it can be evicted after the last one."""
        self.pins -= 1
        if self.pins or not self.ready:
            return
        if self.error is not None:
            self._leave(ChunkState.GONE, had_bytes=True)
        elif self.buffer is not None:
            self.buffer.reclaimable()

    # -- from the request to the bytes ----------------------------------------------------------

    def fetching(self, buffer: Buffer) -> None:
        """Memory was found, and a request fills it."""
        self._become(ChunkState.FETCHING)
        self.buffer = buffer

    def not_on_disk(self) -> None:
        """The bytes were not on disk after all: they come from the store."""
        self._require(self.from_disk and self.state is ChunkState.FETCHING)
        self.from_disk = False
        self.from_store = True

    def asked_twice(self, spare: Buffer) -> None:
        """A second request for the same bytes fills ``spare``; the first good answer counts."""
        self._require(self.state is ChunkState.FETCHING and self.spare is None)
        self.spare = spare

    def answered(self, buffer: Buffer, *, good: bool) -> Ending:
        """The request that filled ``buffer`` has ended.

        Each request keeps its buffer until it has ended, as its thread writes into it.
        If the answer counts, :meth:`landed`, :meth:`fail` or another request has to follow.
        """
        if self.spare is None or (good and buffer is self.buffer):
            self.job = None
            return Ending.COUNTS
        if buffer is self.buffer:
            # The first one failed; the second one goes on alone.
            self.buffer, self.spare, self.job = self.spare, None, None
            self.arrival = None
        elif good and self.state is ChunkState.FETCHING:
            self.buffer, self.spare, self.job = buffer, self.buffer, None
            return Ending.WINS
        else:
            self.spare = None
        buffer.release()
        return Ending.LET_GO

    def landed(self) -> None:
        """The bytes are there."""
        if self.state is ChunkState.ABANDONED:
            self._leave(ChunkState.GONE, had_bytes=True)
            return
        self._become(ChunkState.READY)
        self.index.keeper.landed(self)
        self.wake()

    def fail(self, error: BaseException) -> None:
        """The bytes could not be had; who waits for them gets ``error``."""
        self.error = error
        self.job = None
        self._leave(ChunkState.FAILED, had_bytes=False)

    # -- letting go -----------------------------------------------------------------------------

    def evict(self) -> None:
        """Free the memory of a ready chunk that nobody holds on to."""
        self._require(self.pins == 0)
        self._leave(ChunkState.GONE, had_bytes=True)

    def abandon(self, error: BaseException) -> None:
        """The file is closed: free the memory as soon as no thread and no reader uses it."""
        self.error = error
        if self.state is ChunkState.ASKED:
            self._leave(ChunkState.FAILED, had_bytes=False)
        elif self.state is ChunkState.FETCHING:
            self._become(ChunkState.ABANDONED)
        elif self.ready and self.pins == 0:
            self._leave(ChunkState.GONE, had_bytes=True)
        self.wake()

    def _leave(self, state: ChunkState, *, had_bytes: bool) -> None:
        self._become(state)
        self.index.remove(self)
        self.index.keeper.left(self, had_bytes=had_bytes)
        buffer, self.buffer = self.buffer, None
        if buffer is not None:
            buffer.release()
        self.wake()

    # -- the second home ------------------------------------------------------------------------

    def queue_for_disk(self) -> None:
        """The bytes are to be written to disk."""
        self._require(self.ready)
        self._become_on_disk(DiskState.QUEUED)

    def write_begins(self) -> None:
        """A thread writes the bytes to disk."""
        self._become_on_disk(DiskState.WRITING)
        self.pin()

    def write_ended(self, *, kept: bool) -> None:
        """The bytes are on disk, or were refused."""
        self._require(self.disk is DiskState.WRITING)
        self._become_on_disk(DiskState.KEPT if kept else DiskState.REFUSED)
        self.wake()
        self.unpin()

    def write_skipped(self) -> None:
        """The memory was needed before the disk had time for it."""
        self._require(self.disk is DiskState.QUEUED)
        self._become_on_disk(DiskState.REFUSED)
        self.wake()

    def _become(self, state: ChunkState) -> None:
        self._require(state in _NEXT[self.state], state)
        self.state = state
        self.ready = state is ChunkState.READY

    def _become_on_disk(self, state: DiskState) -> None:
        self._require(state in _DISK_NEXT[self.disk], state)
        self.disk = state

    def _require(self, condition: bool, wanted: Enum | None = None) -> None:
        if not condition:
            raise AssertionError(
                f"chunk {self.start}-{self.end} is {self.state.name}, {self.disk.name}, "
                f"{self.pins} pins: not to become {wanted.name if wanted else 'that'}"
            )


class ChunkIndex:
    """Chunks that never overlap, found by offset."""

    __slots__ = ("_chunks", "_starts", "keeper")

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self._starts: list[int] = []
        self._chunks: list[Chunk] = []

    def __len__(self) -> int:
        return len(self._chunks)

    def __iter__(self) -> Iterator[Chunk]:
        return iter(tuple(self._chunks))

    def at(self, offset: int) -> Chunk | None:
        """The chunk that holds the byte at ``offset``."""
        i = bisect_right(self._starts, offset) - 1
        if i >= 0:
            chunk = self._chunks[i]
            if offset < chunk.end:
                return chunk
        return None

    def next_start(self, offset: int) -> int | None:
        """The start of the first chunk behind ``offset``."""
        i = bisect_right(self._starts, offset)
        return self._starts[i] if i < len(self._starts) else None

    def ask(self, start: int, end: int, *, from_disk: bool = False, ahead: bool = False) -> Chunk:
        """A new chunk without memory; the caller made sure that it overlaps none."""
        chunk = Chunk(self, start, end, from_disk=from_disk, ahead=ahead)
        i = bisect_right(self._starts, start)
        self._starts.insert(i, start)
        self._chunks.insert(i, chunk)
        return chunk

    def remove(self, chunk: Chunk) -> None:
        """Forget a chunk; one that is not in the index is no error."""
        i = bisect_right(self._starts, chunk.start) - 1
        if i >= 0 and self._chunks[i] is chunk:
            del self._starts[i]
            del self._chunks[i]

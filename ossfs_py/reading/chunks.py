"""The chunks of one object version that are in memory or on their way there."""

from bisect import bisect_right
from collections.abc import Iterator
from enum import Enum, auto
from typing import TYPE_CHECKING

import trio

from ossfs_py.runtime.buffers import Buffer
from ossfs_py.runtime.workers import Job

if TYPE_CHECKING:
    from ossfs_py.reading.reader import VersionReader


class DiskState(Enum):
    """What became of a chunk's second home, the local disk."""

    NOT_ASKED = auto()
    WAITING = auto()
    KEPT = auto()
    REFUSED = auto()
    """No room, a failure, or a disk slower than the network."""


class Chunk:
    """One contiguous span of a version, fetched by one request.

    ``buffer`` is None until memory was found for it. ``ready`` chunks hold their bytes. A chunk
    with ``pins`` (readers about to answer from it, a write to disk in progress) is never evicted.
    """

    __slots__ = (
        "ahead",
        "begun_at",
        "buffer",
        "disk",
        "end",
        "error",
        "from_disk",
        "given",
        "job",
        "pins",
        "reader",
        "ready",
        "spare",
        "start",
        "waiting",
    )

    def __init__(self, reader: "VersionReader", start: int, end: int) -> None:
        self.reader = reader
        self.start = start
        self.end = end
        self.buffer: Buffer | None = None
        self.spare: Buffer | None = None
        """What a second request for the same bytes fills; after that one won, the first one's."""
        self.job: Job | None = None
        self.begun_at: float | None = None
        """When a thread began the (latest) request, by time.monotonic()."""
        self.ready = False
        self.error: BaseException | None = None
        self.pins = 0
        self.from_disk = False
        self.ahead = False
        """Downloaded before anybody asked for it."""
        self.given = 0
        self.disk = DiskState.NOT_ASKED
        self.waiting: trio.Event | None = None

    @property
    def size(self) -> int:
        """Bytes in the span."""
        return self.end - self.start

    def view(self, start: int, end: int) -> memoryview:
        """The bytes of ``[start, end)``; only of a ready chunk."""
        assert self.buffer is not None  # noqa: S101 - ready chunks have a buffer
        return self.buffer.view[start - self.start : end - self.start]

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


class ChunkIndex:
    """Chunks that never overlap, found by offset."""

    __slots__ = ("_chunks", "_starts")

    def __init__(self) -> None:
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
        """Where the first chunk behind ``offset`` begins."""
        i = bisect_right(self._starts, offset)
        return self._starts[i] if i < len(self._starts) else None

    def add(self, chunk: Chunk) -> None:
        """Take in a chunk; the caller made sure that it overlaps none."""
        i = bisect_right(self._starts, chunk.start)
        self._starts.insert(i, chunk.start)
        self._chunks.insert(i, chunk)

    def remove(self, chunk: Chunk) -> None:
        """Forget a chunk; one that is not in the index is no error."""
        i = bisect_right(self._starts, chunk.start) - 1
        if i >= 0 and self._chunks[i] is chunk:
            del self._starts[i]
            del self._chunks[i]

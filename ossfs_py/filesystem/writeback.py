"""The queue of closed files that are safe on local disk and still have to be uploaded."""

import math
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

import trio

from ossfs_py.filesystem.calm import Calm
from ossfs_py.telemetry.metrics import Metrics

MAX_PENDING_FILES = 2000
"""Closed files that may wait; the next close waits for one of them. Each file that is not small
needs a descriptor.
"""
GATHER_SECONDS = 1.0
"""How long a closed file waits for further changes before it is sent: tar, rsync and git set its
mode and times, rename it, or remove it again.
"""
_UPLOADS_AT_ONCE = 16
"""Half of the threads: a small file mostly waits; the other half serves waiting programs."""
_BYTES_AT_ONCE = 64 * 1024**2
_LARGE_UPLOADS_AT_ONCE = 4
"""Limit for files above this size: more would take the link from programs that wait for the store.
"""


class QueuedFile(Protocol):
    """A closed file."""

    def size(self) -> int:
        """Present size in bytes."""
        ...


F = TypeVar("F", bound=QueuedFile)


class WriteBackQueue(Generic[F]):
    """Uploads files in the order of their closes. Belongs to the trio thread."""

    def __init__(
        self,
        metrics: Metrics,
        max_files: int = MAX_PENDING_FILES,
        gather_seconds: float = GATHER_SECONDS,
        is_short: Callable[[], bool] = lambda: False,
        on_first: Callable[[], None] | None = None,
    ) -> None:
        """``is_short``: whether memory for waiting files is short, so that they wait no longer.
        ``on_first`` is called when the first file, directory or link is made.
        """
        self._max_files = max_files
        self._gather_seconds = gather_seconds
        self._is_short = is_short
        self._queue: dict[F, float] = {}
        """When each was closed, on trio's clock."""
        self.calm = Calm(on_first)
        """Whether files are being closed. Who makes other names tells it, too."""
        self._running: dict[F, int] = {}
        """With their sizes in bytes when they were begun."""
        self._running_bytes = 0
        self._released: Callable[[F], Awaitable[None]] | None = None
        self._hurriers = 0
        """Callers that wait for all."""
        self._changed = trio.Event()
        self._ended = trio.lowlevel.ParkingLot()
        self._emptied = trio.lowlevel.ParkingLot()
        metrics.write_back_files.set_function(lambda: len(self))
        metrics.write_back_bytes.set_function(
            lambda: sum(one.size() for one in (*self._queue, *self._running))
        )

    def __len__(self) -> int:
        return len(self._queue) + len(self._running)

    def __contains__(self, file: F) -> bool:
        """Whether the file waits and has not been begun."""
        return file in self._queue

    def holds(self, file: F) -> bool:
        """Whether the file waits, or is being uploaded."""
        return file in self._queue or file in self._running

    @property
    def has_room(self) -> bool:
        """Whether the queue has room for another file."""
        return len(self) < self._max_files

    async def wait_for_room(self) -> None:
        """Wait while too many files are pending."""
        while not self.has_room:
            await self._ended.park()

    def add(self, file: F) -> None:
        """Upload a file after those in the queue."""
        self._queue[file] = trio.current_time()
        self.calm.disturb()
        if len(self._queue) == 1 or self._is_crowded:
            self._changed.set()  # else it would wait for the turn of another one

    async def wait_empty(self) -> None:
        """Begin all waiting uploads now, and wait until none is left."""
        self._hurriers += 1
        self._changed.set()
        try:
            while len(self):
                await self._emptied.park()
        finally:
            self._hurriers -= 1

    async def was_stored(self, file: F) -> None:
        """Its caller has uploaded the file, perhaps before its turn."""
        if self._released is not None and self._queue.pop(file, None) is not None:
            self._note_ended()
            await self._released(file)

    async def run(
        self,
        upload: Callable[[F], Awaitable[None]],
        release: Callable[[F], Awaitable[None]] | None = None,
    ) -> None:
        """Upload files as they come, until cancelled. ``upload`` handles failures itself; each file
        is given to ``release`` in the end.
        """
        self._released = release
        async with trio.open_nursery() as nursery:
            while True:
                while (pause_seconds := self._pause_seconds()) > 0:
                    self._changed = trio.Event()
                    with trio.move_on_after(pause_seconds):
                        await self._changed.wait()
                nursery.start_soon(self._upload, self._begun(), upload)

    async def _upload(self, file: F, upload: Callable[[F], Awaitable[None]]) -> None:
        """Upload a file, and others in the same task while their turn comes at once."""
        try:
            while True:
                try:
                    await upload(file)
                    if self._released is not None:
                        await self._released(file)
                finally:
                    self._running_bytes -= self._running.pop(file)
                    self._note_ended()
                if self._pause_seconds() > 0:
                    return
                file = self._begun()
        finally:
            self._changed.set()

    def _begun(self) -> F:
        """The first file of the queue, which is being uploaded from now on."""
        file = next(iter(self._queue))
        del self._queue[file]
        size = self._running[file] = file.size()
        self._running_bytes += size
        return file

    def _note_ended(self) -> None:
        self._ended.unpark_all()
        if not len(self):
            self._emptied.unpark_all()

    @property
    def _is_crowded(self) -> bool:
        return len(self) > self._max_files // 2 or self._is_short()

    def _pause_seconds(self) -> float:
        """Time until the next upload may begin; uploads begin in the order of the closes."""
        if not self._queue or len(self._running) >= _UPLOADS_AT_ONCE:
            return math.inf
        file, closed = next(iter(self._queue.items()))
        is_many = len(self._running) >= _LARGE_UPLOADS_AT_ONCE
        if is_many and self._running_bytes + file.size() > _BYTES_AT_ONCE:
            return math.inf
        if self._hurriers or self._is_crowded:
            return 0.0  # a program that makes so many must not wait for the pause
        calm_at = self.calm.begins_at(closed)
        due = max(closed + self._gather_seconds, calm_at) if self._gather_seconds else closed
        return due - trio.current_time()

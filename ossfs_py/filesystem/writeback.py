"""The queue of closed files whose bytes are safe on local disk and still have to be uploaded."""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from ossfs_py.telemetry.metrics import Metrics

MAX_PENDING_FILES = 1000
"""Closed files that may wait; the next close waits for one of them. Each holds a descriptor."""
_UPLOADS_AT_ONCE = 16
"""Half of the threads: a small file is all waiting; the other half serves programs that wait."""
_BYTES_AT_ONCE = 64 * 1024**2
_LARGE_UPLOADS_AT_ONCE = 4
"""Beyond so many bytes: more would take the link from those who wait for the store."""


class QueuedFile(Protocol):
    """A closed file."""

    def size(self) -> int:
        """Present size in bytes."""
        ...


class WriteBackQueue:
    """First closed, first begun. Belongs to the trio thread."""

    def __init__(self, metrics: Metrics, max_files: int = MAX_PENDING_FILES) -> None:
        self._max_files = max_files
        self._queue: deque[QueuedFile] = deque()
        self._running: set[QueuedFile] = set()
        self._lot = trio.lowlevel.ParkingLot()
        metrics.write_back_files.set_function(lambda: len(self))
        metrics.write_back_bytes.set_function(
            lambda: sum(one.size() for one in (*self._queue, *self._running))
        )

    def __len__(self) -> int:
        return len(self._queue) + len(self._running)

    def __contains__(self, file: QueuedFile) -> bool:
        """Whether the file waits and has not been begun."""
        return file in self._queue

    async def wait_for_room(self) -> None:
        """Wait while too many files are pending."""
        while len(self) >= self._max_files:
            await self._lot.park()

    def add(self, file: QueuedFile) -> None:
        """Let a file be uploaded after those that are there."""
        self._queue.append(file)
        self._lot.unpark_all()

    async def wait_empty(self) -> None:
        """Wait until nothing is pending."""
        while len(self):
            await self._lot.park()

    async def run(self, upload: Callable[[QueuedFile], Awaitable[None]]) -> None:
        """Upload what comes, until cancelled. ``upload`` deals with failures itself."""
        async with trio.open_nursery() as nursery:
            for _ in range(_UPLOADS_AT_ONCE):
                nursery.start_soon(self._work, upload)

    async def _work(self, upload: Callable[[QueuedFile], Awaitable[None]]) -> None:
        while True:
            while not self._may_begin():
                await self._lot.park()
            file = self._queue.popleft()
            self._running.add(file)
            try:
                await upload(file)
            finally:
                self._running.discard(file)
                self._lot.unpark_all()

    def _may_begin(self) -> bool:
        """Whether the first of the queue may be begun; they begin in the order of the closes."""
        if not self._queue or len(self._running) < _LARGE_UPLOADS_AT_ONCE:
            return bool(self._queue)
        under_way = sum(file.size() for file in self._running)
        return under_way + self._queue[0].size() <= _BYTES_AT_ONCE

"""Fetched blocks on their way to local disk, behind their readers."""

import logging
from collections import OrderedDict
from collections.abc import Callable

import outcome

from ossfs_py.reading.chunks import Chunk, DiskState
from ossfs_py.runtime.workers import Workers

log = logging.getLogger(__name__)


class WriteBehind:
    """Writes blocks to disk without ever making a reader wait. Belongs to the trio thread.

    Up to ``limit_bytes`` of blocks are held in memory until they are written. What comes beyond
    that, because the disk is slower than the network, waits as long as nobody needs its memory,
    and is given up otherwise: it comes from the store again if it is read again.
    """

    def __init__(self, files: Workers, limit_bytes: int, unpinned: Callable[[Chunk], None]) -> None:
        self._files = files
        self._limit_bytes = limit_bytes
        self._unpinned = unpinned
        self.held_bytes = 0
        self._loose: OrderedDict[Chunk, None] = OrderedDict()

    def put(self, chunk: Chunk) -> None:
        """Write a ready chunk when the disk has time for it."""
        chunk.disk = DiskState.WAITING
        if self.held_bytes + chunk.size <= self._limit_bytes or not self.held_bytes:
            self._hold(chunk)
        else:
            self._loose[chunk] = None

    def forget(self, chunk: Chunk) -> None:
        """The chunk's memory is going back to the pool."""
        if chunk in self._loose:
            del self._loose[chunk]
            chunk.disk = DiskState.REFUSED
            chunk.reader.write_skipped(chunk)

    def _hold(self, chunk: Chunk) -> None:
        def done(result: outcome.Outcome[bool]) -> None:
            self.held_bytes -= chunk.size
            chunk.pins -= 1
            chunk.disk = _state_after(result)
            chunk.reader.write_ended(chunk)
            if chunk.pins == 0:
                self._unpinned(chunk)
            self._hold_next()

        self.held_bytes += chunk.size
        chunk.pins += 1
        self._files.submit(chunk.reader.write_begins(chunk), done, urgent=False)

    def _hold_next(self) -> None:
        while self._loose:
            chunk = next(iter(self._loose))
            if self.held_bytes and self.held_bytes + chunk.size > self._limit_bytes:
                return
            del self._loose[chunk]
            self._hold(chunk)


def _state_after(result: outcome.Outcome[bool]) -> DiskState:
    if isinstance(result, outcome.Error):
        log.error("keeping a block on disk failed", exc_info=result.error)
        return DiskState.REFUSED
    return DiskState.KEPT if result.unwrap() else DiskState.REFUSED

"""A second home for fetched bytes: a temporary file or the disk cache, behind the readers."""

import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import outcome

from ossfs_py.errors import OssfsError
from ossfs_py.reading.chunks import Chunk
from ossfs_py.runtime.workers import Done, Job, Workers

log = logging.getLogger(__name__)


class BlockLostError(OssfsError):
    """Bytes that were on disk cannot be read or do not match their checksum.

    They are fetched from the store again.
    """


class BlockBackend(Protocol):
    """Bytes of one object version on local disk.

    ``load_into`` and ``keep`` block and run on file threads, never twice at a time for one span;
    everything else belongs to the trio thread and answers from memory. ``close`` comes when no
    thread is inside ``load_into`` or ``keep`` any more.
    """

    granularity_bytes: int
    """Fetched spans start and end on multiples of this (or at the end of the object)."""

    def present_until(self, offset: int) -> int:
        """End of the run of bytes on disk that holds ``offset``; ``offset`` itself if none."""
        ...

    def next_present(self, offset: int) -> int | None:
        """The start of the first run on disk behind ``offset``."""
        ...

    def load_into(self, start: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from disk.

        Raises:
            BlockLostError: some of the bytes are bad or gone.
        """
        ...

    def keep(self, start: int, view: memoryview) -> bool:
        """Write fetched bytes to disk; False when there was no room (nothing was kept)."""
        ...

    def note_kept(self, start: int, end: int) -> None:
        """Called on the trio thread after ``keep`` returned True: the run is present now."""
        ...

    def note_lost(self, start: int, end: int) -> None:
        """Called on the trio thread after ``load_into`` raised BlockLostError."""
        ...

    def note_skipped(self, size: int) -> None:
        """Called on the trio thread for fetched bytes that were given up before they were
        written: the disk is slower than the network.
        """
        ...

    def close(self) -> None:
        """Free what belongs to this version's open file."""
        ...


class WriteBehind:
    """Writes the blocks of all versions to disk without ever making a reader wait.

    Up to ``limit_bytes`` of blocks are held in memory until they are written. What comes beyond
    that, because the disk is slower than the network, waits as long as nobody needs its memory,
    and is given up otherwise: it comes from the store again if it is read again. Belongs to the
    trio thread.
    """

    def __init__(self, files: Workers, limit_bytes: int) -> None:
        self._files = files
        self._limit_bytes = limit_bytes
        self.held_bytes = 0
        self._loose: OrderedDict[Chunk, DiskHome] = OrderedDict()

    def put(self, chunk: Chunk, home: "DiskHome") -> None:
        """Write a ready chunk when the disk has time for it."""
        chunk.queue_for_disk()
        if self.held_bytes + chunk.size <= self._limit_bytes or not self.held_bytes:
            self._write(chunk, home)
        else:
            self._loose[chunk] = home

    def forget(self, chunk: Chunk) -> None:
        """The chunk's memory is going back to the pool: it is not written any more."""
        home = self._loose.pop(chunk, None)
        if home is not None:
            chunk.write_skipped()
            home.skipped(chunk.size)

    def _write(self, chunk: Chunk, home: "DiskHome") -> None:
        def done(result: outcome.Outcome[bool]) -> None:
            self.held_bytes -= chunk.size
            kept = isinstance(result, outcome.Value) and result.value
            if isinstance(result, outcome.Error):
                log.error("keeping a block on disk failed", exc_info=result.error)
            home.written(chunk, kept=kept)
            self._write_next()

        self.held_bytes += chunk.size
        chunk.write_begins()
        self._files.submit(home.writing(chunk), done, urgent=False)

    def _write_next(self) -> None:
        while self._loose:
            chunk = next(iter(self._loose))
            if chunk.error is not None:
                self.forget(chunk)  # its file was closed
                continue
            if self.held_bytes and self.held_bytes + chunk.size > self._limit_bytes:
                return
            self._write(chunk, self._loose.pop(chunk))


class DiskHome:
    """The second home of one version: what is on its way there and back. On the trio thread.

    The backend's file must not be closed, and its descriptor reused, under a thread: it is closed
    once the version is and the last read or write of it has ended.
    """

    def __init__(self, backend: BlockBackend, files: Workers, behind: WriteBehind) -> None:
        self._backend = backend
        self._files = files
        self._behind = behind
        self._under_way = 0
        self._closed = False

    def load(self, chunk: Chunk, view: memoryview, done: Done, *, urgent: bool) -> Job:
        """Fill ``view`` with a chunk's bytes, then call ``done``, with BlockLostError if they are
        lost. :meth:`load_cancelled` follows if the job is taken back.
        """

        def ended(result: outcome.Outcome[Any]) -> None:
            self._ended()
            done(result)

        self._under_way += 1
        call = partial(self._backend.load_into, chunk.start, view)
        return self._files.submit(call, ended, urgent=urgent)

    def load_cancelled(self) -> None:
        """A job of :meth:`load` was taken back before it began."""
        self._ended()

    def lost(self, chunk: Chunk) -> None:
        """A chunk's bytes cannot be had from here any more."""
        self._backend.note_lost(chunk.start, chunk.end)

    def keep(self, chunk: Chunk) -> None:
        """Bring a ready chunk to disk, behind everybody who reads."""
        self._behind.put(chunk, self)

    def close(self) -> None:
        """The version is closed: nothing is read or written from now on."""
        self._closed = True
        if self._under_way == 0:
            self._backend.close()

    # -- what WriteBehind calls -------------------------------------------------------------------

    def writing(self, chunk: Chunk) -> Callable[[], bool]:
        """The call that writes a ready chunk; :meth:`written` follows."""
        self._under_way += 1
        return partial(self._backend.keep, chunk.start, chunk.view(chunk.start, chunk.end))

    def written(self, chunk: Chunk, *, kept: bool) -> None:
        """A write has ended."""
        if kept and not self._closed:
            self._backend.note_kept(chunk.start, chunk.end)
        chunk.write_ended(kept=kept)
        self._ended()

    def skipped(self, size: int) -> None:
        """Memory was needed before the disk had time for its bytes."""
        self._backend.note_skipped(size)

    def _ended(self) -> None:
        self._under_way -= 1
        if self._closed and self._under_way == 0:
            self._backend.close()

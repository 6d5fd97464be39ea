"""Bytes that several machines share, asked before the store; behind the readers, filled from it."""

import logging
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import outcome
import trio

from ossfs_py.extents import ExtentSet
from ossfs_py.model import ObjectInfo, ObjectVersion
from ossfs_py.reading.chunks import Chunk
from ossfs_py.runtime.workers import Workers

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Owed:
    """Blocks ``[first, last)`` that others wait for, and whose bytes begin at ``start``."""

    first: int
    last: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class SharedAnswer:
    """Bytes were had. ``told``: what the store said of the object, if it was asked.

    ``from_store``: the store gave some of them. ``was_there``: the machines had all of them, so
    that nobody was waited for. ``owed``: what is to be handed on, with
    :meth:`SharedBlocks.hand_on` or :meth:`SharedBlocks.forgo`.
    """

    told: ObjectInfo | None = None
    from_store: bool = False
    was_there: bool = False
    owed: tuple[Owed, ...] = ()


class SharedBlocks(Protocol):
    """Blocks of object versions in the memory of several machines. All of it blocks, runs on any
    thread, and never fails because of those machines.
    """

    block_bytes: int
    """Fetched spans start and end on multiples of this (or at the end of the object)."""

    def get_range_into(
        self, version: ObjectVersion, start: int, buffer: memoryview
    ) -> SharedAnswer:
        """As :meth:`~ossfs_py.store.base.ObjectStore.get_range_into`, from the other machines as
        far as they have it.
        """
        ...

    def hand_on(self, version: ObjectVersion, owed: Owed, view: memoryview) -> None:
        """Give the bytes of ``owed`` to the others."""
        ...

    def forgo(self, version: ObjectVersion, owed: Owed) -> None:
        """Let others fetch it, as these bytes will not be handed on."""
        ...


@dataclass(frozen=True, slots=True)
class StockNodes:
    """The machines that share blocks."""

    up: frozenset[str]
    down: frozenset[str]
    memory_bytes: int
    """Of those that are up, all together."""


@dataclass(frozen=True, slots=True)
class Stocked:
    """The outcome for the blocks of a span that the nodes should get."""

    there_bytes: int
    """They had so many."""
    fetched_bytes: int
    left: tuple[tuple[int, int], ...]
    """Spans that somebody else fetches: to be looked at again."""
    problem: str = ""
    """Why some of it is not there; of what a node let fall in the middle, nothing is said."""


class SharedStock(Protocol):
    """What the machines have of a version, and filling them before anybody reads it. Blocks, for
    any thread, but ``nodes``.
    """

    span_bytes: int
    """Bytes to bring there at a time, beginning at a multiple of it."""

    def nodes(self) -> StockNodes:
        """The nodes at this moment."""
        ...

    def share(self, version: ObjectVersion) -> int:
        """How many bytes of a version they have."""
        ...

    def fill(self, version: ObjectVersion, start: int, buffer: memoryview) -> Stocked:
        """Fetch what no machine has of a span as large as ``buffer``, and hand it on.

        Raises:
            StoreError: the bytes could not be had.
        """
        ...


@dataclass(frozen=True, slots=True)
class LocalBytes:
    """Bytes of a version in a local file, at their offsets."""

    fd: int
    spans: ExtentSet
    """Which of them are there."""
    unchanged: Callable[[], bool]
    """False from before the first byte of the file changes; for any thread."""


class HandingOn:
    """Hands blocks on behind everybody who reads. Belongs to the trio thread.

    Up to ``limit_bytes`` of what waits to be handed on keeps its memory. What comes beyond that
    waits as long as nobody needs its memory, and is forgone otherwise.
    """

    def __init__(self, blocks: SharedBlocks, workers: Workers, limit_bytes: int) -> None:
        self.blocks = blocks
        self._workers = workers
        self._limit_bytes = limit_bytes
        self.held_bytes = 0
        self._being_taken_in = 0
        self._loose: deque[tuple[Chunk, ObjectVersion, Owed]] = deque()
        self._idle = trio.Event()

    def put(self, chunk: Chunk, version: ObjectVersion, owed: tuple[Owed, ...]) -> None:
        """Hand on the owed blocks of a ready chunk."""
        if self._workers.closed:
            return
        self._loose.extend((chunk, version, one) for one in owed)
        self._send_next()

    def _send_next(self) -> None:
        while self._loose and not self._workers.closed:
            chunk, version, owed = self._loose[0]
            size = owed.end - owed.start
            has_bytes = chunk.ready and chunk.error is None
            if has_bytes and self.held_bytes and self.held_bytes + size > self._limit_bytes:
                return
            self._loose.popleft()
            if not has_bytes:
                self._forgo(version, owed)
                continue
            chunk.pin()
            self.held_bytes += size
            call = partial(self.blocks.hand_on, version, owed, chunk.view(owed.start, owed.end))
            self._workers.submit(call, partial(self._done, chunk, size), urgent=False)

    def forgo(self, version: ObjectVersion, owed: tuple[Owed, ...]) -> None:
        """The bytes were given up: let others fetch them."""
        if not self._workers.closed:
            for one in owed:
                self._forgo(version, one)

    def take_in(
        self, version: ObjectVersion, local: LocalBytes, give_back: Callable[[], None]
    ) -> None:
        """Hand on what this mount wrote; ``give_back`` is called when the file is not needed any
        more.
        """

        def done(result: outcome.Outcome[Any]) -> None:
            self._being_taken_in -= 1
            give_back()
            self._settle(result)

        if self._workers.closed or not version.has_etag:
            give_back()
            return
        self._being_taken_in += 1
        call = partial(_hand_on_local, self.blocks, version, local)
        self._workers.submit(call, done, urgent=False)

    async def settled(self) -> None:
        """Wait until nothing is on its way."""
        while self.held_bytes or self._being_taken_in:
            self._idle = trio.Event()
            await self._idle.wait()

    def _forgo(self, version: ObjectVersion, owed: Owed) -> None:
        self._workers.submit(partial(self.blocks.forgo, version, owed), _logged, urgent=False)

    def _done(self, chunk: Chunk, size: int, result: outcome.Outcome[Any]) -> None:
        self.held_bytes -= size
        chunk.unpin()
        self._send_next()
        self._settle(result)

    def _settle(self, result: outcome.Outcome[Any]) -> None:
        self._idle.set()
        _logged(result)


def _hand_on_local(blocks: SharedBlocks, version: ObjectVersion, local: LocalBytes) -> None:
    """Give all whole blocks that are in a local file to the others, unless it changes meanwhile."""
    size = blocks.block_bytes
    buffer = memoryview(bytearray(min(size, version.size)))
    for index, start in enumerate(range(0, version.size, size)):
        end = min(start + size, version.size)
        if not local.spans.covers(start, end):
            continue
        view = buffer[: end - start]
        if os.preadv(local.fd, [view], start) < len(view) or not local.unchanged():
            return
        blocks.hand_on(version, Owed(index, index + 1, start, end), view)


def _logged(result: outcome.Outcome[Any]) -> None:
    if isinstance(result, outcome.Error):
        log.error("handing a block on failed", exc_info=result.error)

"""Bringing whole versions into the memory of machines that share blocks, on any data path."""

from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any, TypeAlias

import outcome
import trio

from ossfs_py.datapath.filling import FillProgress
from ossfs_py.errors import OssfsError
from ossfs_py.model import ObjectVersion
from ossfs_py.reading.shared import SharedStock, Stocked
from ossfs_py.runtime.buffers import BufferPool
from ossfs_py.runtime.workers import Workers

_MEMORY_SHARE = 2
"""Spans in flight take at most one part in this many of the memory budget."""
_ROUNDS = 3
"""Blocks that are lost with a node are fetched again, this many times."""
_FIRST_REQUESTS = 4
_SLOW_SECONDS = 5.0
"""A span that takes this long shows a bucket that all mounts together ask for too much: another
would take it for lost three times later, and fetch it too."""
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
"""Between two looks at what others fetch: as long as they take to do so, about."""

_Piece: TypeAlias = tuple[ObjectVersion, int, int]


class SharedFiller:
    """Fills the machines' memory from the bucket, with any number of mounts doing so at once.

    What is there already, or on its way from another mount, is passed over; the latter is looked at
    again in the end, and fetched if that mount gave it up. Belongs to the trio thread.
    """

    def __init__(self, stock: SharedStock, network: Workers, memory: BufferPool) -> None:
        self.stock = stock
        self._network = network
        self._memory = memory
        self._most_tasks = max(2, memory.limit_bytes // _MEMORY_SHARE // stock.span_bytes)

    async def shares(self, versions: list[ObjectVersion]) -> list[int]:
        """How many bytes of each version the machines have."""
        share = self.stock.share
        return await self._network.run(lambda: [share(version) for version in versions])

    async def fill(
        self, versions: Iterable[ObjectVersion], tasks: int, progress: FillProgress
    ) -> None:
        """Have ``versions`` in the machines' memory, with at most ``tasks`` requests at a time.

        What cannot be had is noted in ``progress`` and does not keep the rest from coming.
        Cancelled, what is there by then stays.
        """
        wanted = list(versions)
        left = wanted
        for _ in range(_ROUNDS):
            nodes = self.stock.nodes().up
            await _Round(self, left, min(tasks, self._most_tasks), progress).run()
            shares = await self.shares(wanted)
            left = [
                version
                for version, share in zip(wanted, shares, strict=True)
                if share < version.size and version.key not in progress.missing
            ]
            if not left or self.stock.nodes().up == nodes:
                return
            progress.files_done = len(wanted) - len(left)
            progress.bytes_done = sum(each.size for each in wanted) - sum(
                each.size for each in left
            )

    async def bring(self, version: ObjectVersion, start: int, end: int) -> Stocked:
        """Have a span in the machines' memory. Cancelled, what has begun goes on.

        Raises:
            StoreError: the bytes could not be had.
        """
        buffer = await self._memory.acquire(end - start)
        landed = trio.Event()
        ended: list[outcome.Outcome[Any]] = []

        def done(result: outcome.Outcome[Any]) -> None:
            buffer.release()
            ended.append(result)
            landed.set()

        call = partial(self.stock.fill, version, start, buffer.view)
        job = self._network.submit(call, done, urgent=False)
        try:
            await landed.wait()
        except trio.Cancelled:
            if job.cancel():
                buffer.release()
            raise
        found: Stocked = ended[0].unwrap()
        return found


class _Round:
    """Each span of some versions once, and those that others fetched until they are there."""

    def __init__(
        self,
        filler: SharedFiller,
        versions: list[ObjectVersion],
        most_tasks: int,
        progress: FillProgress,
    ) -> None:
        self._filler = filler
        self._progress = progress
        self._most_tasks = most_tasks
        self._room = trio.CapacityLimiter(min(_FIRST_REQUESTS, most_tasks))
        self._slower_since = trio.current_time()
        self._versions = versions
        self._left_bytes = {version: version.size for version in versions}
        self._again: deque[_Piece] = deque()

    async def run(self) -> None:
        """Look at everything."""
        async with trio.open_nursery() as nursery:
            for version in self._versions:
                if not version.size:
                    self._settled(version, 0)
                for start in range(0, version.size, self._filler.stock.span_bytes):
                    end = min(start + self._filler.stock.span_bytes, version.size)
                    await self._begin(nursery, (version, start, end))
        pause = _FIRST_PAUSE_SECONDS
        while self._again:
            await trio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            pieces, self._again = self._again, deque()
            async with trio.open_nursery() as nursery:
                for piece in pieces:
                    await self._begin(nursery, piece)

    async def _begin(self, nursery: trio.Nursery, piece: _Piece) -> None:
        """Work on a piece as soon as there is room beside the others."""
        await self._room.acquire_on_behalf_of(piece)
        nursery.start_soon(self._bring, piece)

    async def _bring(self, piece: _Piece) -> None:
        version, start, end = piece
        progress = self._progress
        began = trio.current_time()
        try:
            found = await self._filler.bring(version, start, end)
        except OssfsError as exc:
            progress.missing.setdefault(version.key, str(exc))
            self._settled(version, end - start)
            return
        finally:
            self._room.release_on_behalf_of(piece)
        if found.problem:
            progress.missing.setdefault(version.key, found.problem)
        if found.fetched_bytes:
            self._adapt(began)
        progress.fetched_bytes += found.fetched_bytes
        progress.bytes_done += found.there_bytes + found.fetched_bytes
        self._again.extend((version, *span) for span in found.left)
        waiting = sum(until - since for since, until in found.left)
        self._settled(version, end - start - waiting)

    def _settled(self, version: ObjectVersion, size: int) -> None:
        self._left_bytes[version] -= size
        if not self._left_bytes[version]:
            self._progress.files_done += 1

    def _adapt(self, began: float) -> None:
        """Ask for as much at once as the bucket gives soon."""
        now = trio.current_time()
        if now - began < _SLOW_SECONDS:
            self._room.total_tokens = min(self._room.total_tokens + 1, self._most_tasks)
        elif began >= self._slower_since:
            self._slower_since = now
            self._room.total_tokens = max(self._room.total_tokens // 2, 1)

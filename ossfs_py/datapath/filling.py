"""Bringing whole versions into the disk cache before anybody reads them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import trio

from ossfs_py.errors import OssfsError
from ossfs_py.model import ObjectVersion
from ossfs_py.reading.context import ReadContext
from ossfs_py.reading.reader import VersionReader
from ossfs_py.reading.readers import ReaderCache

_MEMORY_SHARE = 2
"""Blocks in flight take at most one part in this many of the memory budget."""


@dataclass(slots=True)
class FillProgress:
    """How far a fill has come; ``bytes_done`` counts what was on disk before, too."""

    files_done: int = 0
    bytes_done: int = 0
    fetched_bytes: int = 0
    missing: dict[str, str] = field(default_factory=dict)
    """Key to the reason why not all of it is on disk."""


class _File:
    """One version while its blocks are on their way."""

    __slots__ = ("offered", "pending", "reader")

    def __init__(self, reader: VersionReader) -> None:
        self.reader = reader
        self.pending = 0
        self.offered = False


_Span: TypeAlias = tuple[_File, int, int]


class Filler:
    """Fetches versions to disk, in parallel over files and over the blocks of one file.

    Works behind everybody who reads, through the same readers: no byte is fetched twice. What is
    on disk already is passed over, so a fill that was broken off goes on where it ended.
    """

    def __init__(self, reads: ReadContext, readers: ReaderCache) -> None:
        self._readers = readers
        self._span_bytes = reads.options.block_size_bytes
        self._most_tasks = max(2, reads.memory.limit_bytes // _MEMORY_SHARE // self._span_bytes)

    async def fill(
        self, versions: Iterable[ObjectVersion], tasks: int, progress: FillProgress
    ) -> None:
        """Bring ``versions`` to disk with at most ``tasks`` requests at a time.

        What cannot be had is noted in ``progress`` and does not keep the rest from coming.
        Cancelled, what is on disk by then stays.
        """
        send, receive = trio.open_memory_channel[_Span](0)
        async with send, receive, trio.open_nursery() as nursery:
            for _ in range(min(tasks, self._most_tasks)):
                nursery.start_soon(self._work, receive.clone(), progress)
            for version in versions:
                await self._offer(version, send, progress)
            await send.aclose()

    async def _offer(
        self,
        version: ObjectVersion,
        send: trio.MemorySendChannel[_Span],
        progress: FillProgress,
    ) -> None:
        if version.size == 0:
            progress.files_done += 1
            return
        file = _File(self._readers.acquire(version))
        try:
            missing = file.reader.missing_on_disk(self._span_bytes)
            progress.bytes_done += version.size - sum(end - start for start, end in missing)
            for start, end in missing:
                file.pending += 1
                try:
                    await send.send((file, start, end))
                except BaseException:
                    file.pending -= 1
                    raise
        finally:
            file.offered = True
            self._finish(file, progress)
        await trio.lowlevel.checkpoint()

    async def _work(
        self, receive: trio.MemoryReceiveChannel[_Span], progress: FillProgress
    ) -> None:
        async with receive:
            async for file, start, end in receive:
                key = file.reader.version.key
                try:
                    if await file.reader.bring_to_disk(start, end):
                        progress.bytes_done += end - start
                        progress.fetched_bytes += end - start
                    else:
                        progress.missing.setdefault(key, "the cache has no room for it")
                except OssfsError as exc:
                    progress.missing.setdefault(key, str(exc))
                finally:
                    file.pending -= 1
                    self._finish(file, progress)

    def _finish(self, file: _File, progress: FillProgress) -> None:
        if file.offered and file.pending == 0:
            progress.files_done += 1
            # Not kept open for the next reader: there may be many thousand of them.
            self._readers.release(file.reader, linger=False)

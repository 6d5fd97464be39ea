"""Any of the data paths over the fake store, with part limits small enough to reach in bytes."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import trio
import trio.testing

from ossfs_py.datapath.base import DataPath, OpenFile
from ossfs_py.datapath.diskcache.store import BlockStore
from ossfs_py.datapath.registry import DataPathContext, create
from ossfs_py.model import CommitRequest, ObjectVersion
from ossfs_py.namespace.keys import RESERVED_PREFIX
from ossfs_py.reading.context import ReadContext
from ossfs_py.reading.planning import ReadOptions
from ossfs_py.telemetry.metrics import Metrics
from ossfs_py.writing.context import WriteLimits
from tests.support.descriptors import open_below
from tests.support.fake_store import FakeStore
from tests.support.writing import SMALL, Commits, Writing, idle, writing

BLOCK_BYTES = 64 * 1024
MEMORY_BYTES = 64 * BLOCK_BYTES
LINGER_SECONDS = 60.0
"""Longer than a data path keeps anything of a closed file in memory."""


class Bench:
    """One data path and everything it stands on."""

    def __init__(self, name: str, root: Path, writes: Writing, data_path: DataPath) -> None:
        self.name = name
        self.root = root
        self.writes = writes
        self.data_path = data_path
        self.stored: list[ObjectVersion] = []
        """What had to be stored before a commit asked for it."""

    @property
    def store(self) -> FakeStore:
        return self.writes.store

    def open(self, version: ObjectVersion | None, key: str = "file") -> OpenFile:
        """An open file as the file system makes it."""
        committer = Commits(lambda: CommitRequest(key), self.stored.append)
        return self.data_path.open(version, committer)

    async def idle(self) -> None:
        """Wait until no thread has anything to do for this data path."""
        await idle(self.writes)

    async def later(self, seconds: float = LINGER_SECONDS) -> None:
        """Let time pass and whatever waits for it happen."""
        await self.idle()
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        clock.jump(seconds)
        await trio.testing.wait_all_tasks_blocked()
        await self.idle()

    def visible_files(self) -> list[Path]:
        """Files in the temporary and the state directory; the state's lock is no data."""
        return [
            path
            for directory in (self.root / "temp", self.root / "state")
            for path in directory.rglob("*")
            if path.is_file() and path.name != "lock"
        ]

    def open_files(self) -> list[str]:
        """What this process has open below the temporary and state directories, named or not."""
        found = [target for place in ("temp", "state") for target in open_below(self.root / place)]
        return [target for target in found if not target.endswith("/lock")]


@asynccontextmanager
async def bench(
    name: str,
    root: Path,
    *,
    store: FakeStore | None = None,
    limits: WriteLimits = SMALL,
    memory_bytes: int = MEMORY_BYTES,
    prefix: str = "",
) -> AsyncIterator[Bench]:
    """The data path called ``name``; at the end every thread, file and byte of it is gone.

    ``prefix`` is where hidden objects go.
    """
    for directory in ("temp", "state", "cache"):
        (root / directory).mkdir(exist_ok=True, mode=0o700)
    metrics = Metrics()
    async with writing(
        root, store=store, limits=limits, memory_bytes=memory_bytes, metrics=metrics
    ) as writes:
        numbers = count(1)
        writes.context = replace(
            writes.context, spill_key=lambda: f"{prefix}{RESERVED_PREFIX}spill-{next(numbers)}"
        )
        # The read side's buffers come from the pool that the write side uses.
        reads = ReadContext(
            store=writes.store,
            network=writes.context.network,
            files=writes.context.local,
            memory=writes.pool,
            resident=writes.resident,
            metrics=metrics,
            options=ReadOptions(block_size_bytes=BLOCK_BYTES),
        )

        def open_blocks() -> BlockStore:
            return BlockStore(
                root / "cache",
                "http://store",
                "bucket",
                limit_bytes=1 << 40,
                min_free_bytes=0,
                metrics=metrics,
                block_size_bytes=BLOCK_BYTES // 4,
            )

        data_path = create(name, DataPathContext(reads, writes.context, root / "temp", open_blocks))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(data_path.run)
            yield Bench(name, root, writes, data_path)
            nursery.cancel_scope.cancel()
        await idle(writes)
        await data_path.aclose()
        await idle(writes)
    assert writes.pool.used_bytes == 0


def on_bench(
    name: str,
    root: Path,
    test: Callable[[Bench], Awaitable[None]],
    **options: object,
) -> FakeStore:
    """Run a test with a data path, on a clock that goes on by itself and can be moved."""
    stores: list[FakeStore] = []

    async def main() -> None:
        async with bench(name, root, **options) as made:  # type: ignore[arg-type]
            stores.append(made.store)
            await test(made)

    trio.run(main, clock=trio.testing.MockClock(rate=1.0))
    return stores[0]

"""A write context over the fake store, with limits small enough to reach in a few bytes."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import pytest
import trio

from ossfs_py.model import CommitRequest, ObjectVersion
from ossfs_py.reading.resident import Resident
from ossfs_py.runtime.buffers import BufferPool
from ossfs_py.runtime.workers import Workers
from ossfs_py.telemetry.metrics import Metrics
from ossfs_py.writing.content import Committer
from ossfs_py.writing.context import WriteContext, WriteLimits
from ossfs_py.writing.dirty import DirtyFile
from ossfs_py.writing.groupsync import GroupSync
from ossfs_py.writing.journal import Journal
from ossfs_py.writing.parts import PartLimits
from tests.support.fake_store import FakeStore

TINY_PARTS = PartLimits(min_part=5, first_part=8, copy_part=16, max_part=64, max_parts=1000)
TINY = WriteLimits(
    parts=TINY_PARTS,
    parts_in_flight=3,
    memory_part_bytes=32,
    piece_bytes=5,
    rest_bytes=2,
    first_buffer_bytes=3,
    twin_bytes=8,
    small_bytes=0,
    memory_wait_seconds=0.001,
)

SMALL = replace(TINY, small_bytes=4)
"""The same, with files so small that they wait in the journal's segments."""

REQUEST = CommitRequest("file")
BOTH = pytest.mark.parametrize("memory_first", [True, False], ids=["memory", "disk"])


@dataclass(frozen=True)
class Commits:
    """A file's committer as a test needs it."""

    request: Callable[[], CommitRequest] = lambda: CommitRequest("file")
    stored_early: Callable[[ObjectVersion], None] = lambda _version: None
    replaces: Callable[[], None] = lambda: None
    key_settled: bool = True
    beside: tuple[ObjectVersion, ...] = ()
    writer: int = 0

    owner: str = ""
    made: Callable[[ObjectVersion], None] = lambda _version: None

    async def before_replacing(self) -> None:
        self.replaces()

    def twins(self, size: int) -> list[ObjectVersion]:
        return [version for version in self.beside if version.size == size]

    def largest_twin(self) -> int:
        return max((version.size for version in self.beside), default=0)


@dataclass
class Writing:
    """Everything a test of the write side needs."""

    store: FakeStore
    context: WriteContext
    pool: BufferPool
    resident: Resident
    journal: Journal
    files: list[DirtyFile] = field(default_factory=list)

    def open(
        self,
        base: ObjectVersion | None = None,
        *,
        memory_first: bool,
        committer: Committer | None = None,
        expects_rereads: bool = False,
    ) -> DirtyFile:
        """A dirty file whose base is read as a data path would read it."""
        file = DirtyFile(
            self.context,
            base,
            self._read,
            committer or Commits(),
            memory_first=memory_first,
            expects_rereads=expects_rereads,
        )
        self.files.append(file)
        return file

    async def _read(self, version: ObjectVersion, offset: int, size: int) -> memoryview:
        buffer = memoryview(bytearray(min(size, version.size - offset)))
        await self.context.network.run(self.store.get_range_into, version, offset, buffer)
        return buffer

    def local_files(self) -> list[Path]:
        """What is in the state directory but its lock."""
        return [
            path
            for path in self.journal.directory.rglob("*")
            if path.is_file() and path.name != "lock"
        ]


@asynccontextmanager
async def writing(
    directory: Path,
    *,
    store: FakeStore | None = None,
    limits: WriteLimits = TINY,
    memory_bytes: int = 4096,
    metrics: Metrics | None = None,
) -> AsyncIterator[Writing]:
    """A context with real worker threads and a real state directory, closed down afterwards."""
    store = store or FakeStore(min_part_bytes=limits.parts.min_part)
    network, local = Workers("network", 4), Workers("local", 2)
    # What a data path's readers keep comes out of the same budget.
    resident = Resident(memory_bytes, local, metrics or Metrics())
    pool = BufferPool(memory_bytes, 8 * 1024**2, Metrics(), resident)
    journal = Journal(directory / "state")
    numbers = count()
    context = WriteContext(
        store=store,
        network=network,
        local=local,
        memory=pool,
        journal=journal,
        group_sync=GroupSync(journal, local),
        spill_key=lambda: f".ossfs-py-spill-{next(numbers)}",
        limits=limits,
    )
    made = Writing(store, context, pool, resident, journal)
    try:
        yield made
    finally:
        for file in made.files:
            await file.close()
        await context.tidying.settled()
        await idle(made)
        network.close()
        local.close()
        assert network.join(120)
        assert local.join(120)
        journal.close()


async def idle(made: Writing) -> None:
    """Wait until no thread has anything of ours to do."""
    network, local = made.context.network, made.context.local
    # A background job runs behind everything queued before it; what that queued comes next.
    await network.run(int, urgent=False)
    while network.running or local.running:
        await network.run(int, urgent=False)
        await local.run(int, urgent=False)


def run(
    tmp_path: Path, scenario: Callable[[Writing], Awaitable[None]], **options: object
) -> Writing:
    """Run a scenario with a write context of its own."""
    kept: list[Writing] = []

    async def main() -> None:
        async with writing(tmp_path, **options) as made:
            kept.append(made)
            with trio.fail_after(120):
                await scenario(made)

    trio.run(main)
    return kept[0]


def pattern(size: int, seed: int = 1) -> bytes:
    return bytes((seed + n * 7 + n // 251) % 256 for n in range(size))

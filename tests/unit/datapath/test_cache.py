"""The cache data path as the file system uses it: readers, memory and block store together."""

import random
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from ossfs_py.datapath.cache import CacheDataPath
from ossfs_py.datapath.diskcache.blockfile import BlockFile
from ossfs_py.datapath.diskcache.store import BlockStore
from ossfs_py.model import CommitRequest, ObjectVersion
from ossfs_py.reading.context import ReadContext
from ossfs_py.reading.planning import ReadOptions
from ossfs_py.reading.streams import MIB
from ossfs_py.telemetry.metrics import Metrics
from ossfs_py.writing.context import WriteLimits
from tests.support.fake_store import FakeStore
from tests.support.writing import Commits, Writing, idle, writing
from tests.unit.datapath.caching import block_files, disk_bytes

DATA = random.Random(3).randbytes(13 * MIB + 4321)


class Mounted:
    """A cache data path over a fake store."""

    def __init__(
        self, writes: Writing, path: CacheDataPath, blocks: BlockStore, metrics: Metrics
    ) -> None:
        self.writes = writes
        self.blocks = blocks
        self.path = path
        self.metrics = metrics

    async def load(self, version: ObjectVersion, step: int = 256 * 1024) -> bytes:
        """Open, read in order as the kernel would, close."""
        file = self.path.open(version, Commits(lambda: CommitRequest(version.key)))
        pieces = []
        for offset in range(0, file.size, step):
            view = file.read_nowait(offset, step)
            pieces.append(bytes(view if view is not None else await file.read(offset, step)))
        await file.close()
        return b"".join(pieces)

    async def settled(self) -> None:
        """Wait until what was fetched is on disk."""
        await idle(self.writes)

    def figure(self, name: str, **labels: str) -> float:
        sample = f"ossfs_cache_{name}_total"
        return self.metrics.registry.get_sample_value(sample, labels) or 0.0


@asynccontextmanager
async def mounted(
    root: Path,
    store: FakeStore,
    limit: int = 64 * MIB,
    memory_bytes: int = 64 * MIB,
    *,
    keep_writes: bool = True,
) -> AsyncIterator[Mounted]:
    metrics = Metrics()
    async with writing(
        root / "state",
        store=store,
        limits=WriteLimits(),
        memory_bytes=memory_bytes,
        metrics=metrics,
    ) as writes:
        reads = ReadContext(
            store=store,
            network=writes.context.network,
            files=writes.context.local,
            memory=writes.pool,
            resident=writes.resident,
            metrics=metrics,
            options=ReadOptions(block_size_bytes=MIB),
        )
        blocks = BlockStore(
            root / "cache",
            "http://store",
            "bucket",
            limit_bytes=limit,
            min_free_bytes=0,
            metrics=metrics,
        )
        path = CacheDataPath(reads, writes.context, blocks, keep_writes=keep_writes)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(path.run)
            yield Mounted(writes, path, blocks, metrics)
            nursery.cancel_scope.cancel()
        await idle(writes)
        await path.aclose()
        assert writes.pool.used_bytes == 0


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path


ONE_BYTE = {"get_range_into": 1}
"""What a mount asks the store for before it answers bytes of a version that others cached."""


def test_second_load_after_restart_asks_the_store_for_one_byte(
    root: Path, store: FakeStore
) -> None:
    version = store.seed("model", DATA)

    async def main() -> None:
        async with mounted(root, store) as mount:
            assert await mount.load(version) == DATA
            await mount.settled()
        assert store.bytes_read == len(DATA)
        store.take_requests()
        async with mounted(root, store) as mount:
            assert await mount.load(version) == DATA
            assert mount.figure("hit_bytes") == len(DATA)
            assert store.take_requests() == ONE_BYTE
            assert store.bytes_read == len(DATA) + 1
            assert await mount.load(version) == DATA
        assert store.take_requests() == {}

    trio.run(main)


def test_random_reads_are_right_and_fetch_no_block_twice(root: Path, store: FakeStore) -> None:
    version = store.seed("model", DATA)
    dice = random.Random(5)

    async def main() -> None:
        for _ in range(3):
            async with mounted(root, store) as mount:
                file = mount.path.open(version, Commits())
                for _ in range(40):
                    offset = dice.randrange(len(DATA))
                    size = dice.choice([1, 4096, 300_000, 3 * MIB])
                    expected = DATA[offset : offset + size]
                    assert bytes(await file.read(offset, size)) == expected
                await file.close()
                await mount.settled()
        assert store.bytes_read <= len(DATA) + 2, "a byte for each mount that came later"

    trio.run(main)


def test_a_new_version_is_never_answered_from_the_old_ones_blocks(
    root: Path, store: FakeStore
) -> None:
    old = store.seed("model", DATA)

    async def main() -> None:
        async with mounted(root, store) as mount:
            assert await mount.load(old) == DATA
            await mount.settled()
            new = store.seed("model", DATA[::-1])
            assert await mount.load(new) == DATA[::-1]

    trio.run(main)


def test_damaged_blocks_are_fetched_again(root: Path, store: FakeStore) -> None:
    version = store.seed("model", DATA)

    async def main() -> None:
        async with mounted(root, store) as mount:
            await mount.load(version)
            await mount.settled()
        path = block_files(root / "cache")[0]
        with path.open("r+b") as file:
            file.seek(5 * MIB)
            file.write(b"rotten")
        store.bytes_read = 0
        async with mounted(root, store) as mount:
            assert await mount.load(version) == DATA
            await mount.settled()
            assert mount.figure("lost_reads") == 1
        assert 1 < store.bytes_read <= 2 * MIB + 1
        store.take_requests()
        async with mounted(root, store) as mount:
            assert await mount.load(version) == DATA
        assert store.take_requests() == ONE_BYTE

    trio.run(main)


def test_a_cache_directory_that_cannot_be_used_costs_only_speed(
    root: Path, store: FakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    version = store.seed("model", DATA)
    (root / "cache").write_text("a file")

    async def main() -> None:
        async with mounted(root, store) as mount:
            assert await mount.load(version) == DATA

    trio.run(main)
    assert [r.levelname for r in caplog.records] == ["WARNING"]


def test_a_working_set_beyond_the_limit_is_served_within_it(root: Path, store: FakeStore) -> None:
    versions = [store.seed(f"shard-{i}", DATA[i : i + 5 * MIB]) for i in range(6)]

    async def main() -> None:
        for _ in range(2):
            for version in versions:
                async with mounted(root, store, limit=12 * MIB) as mount:
                    data = await mount.load(version)
                    assert data == store.content(version.key)
                    await mount.settled()
                    assert disk_bytes(root / "cache") <= 12 * MIB

    trio.run(main)


async def write_file(mount: Mounted, key: str, data: bytes) -> ObjectVersion:
    file = mount.path.open(None, Commits(lambda: CommitRequest(key)))
    await file.write(0, data)
    version = await file.commit(CommitRequest(key))
    assert version is not None
    await file.close()
    return version


def test_written_files_are_read_back_without_a_request(root: Path, store: FakeStore) -> None:
    async def main() -> None:
        async with mounted(root, store) as mount:
            version = await write_file(mount, "new", DATA)
            await mount.settled()
            store.take_requests()
            assert await mount.load(version) == DATA
            assert store.take_requests() == {}
        async with mounted(root, store) as mount:
            assert await mount.load(version) == DATA
        assert store.take_requests() == ONE_BYTE

    trio.run(main)


def test_a_file_read_while_it_enters_the_cache_is_not_fetched_to_its_end(
    root: Path, store: FakeStore
) -> None:
    async def main() -> None:
        async with mounted(root, store) as mount:
            version = await write_file(mount, "new", DATA)
            reader = mount.path.open(version, Commits())
            assert bytes(await reader.read(0, 10)) == DATA[:10]
            await mount.settled()
            store.take_requests()
            assert await mount.load(version) == DATA
            assert store.take_requests() == {}
            await reader.close()

    trio.run(main)


def test_without_cache_writes_nothing_written_enters_the_cache(
    root: Path, store: FakeStore
) -> None:
    async def main() -> None:
        async with mounted(root, store, keep_writes=False) as mount:
            await write_file(mount, "new", DATA)
            await mount.settled()
            assert block_files(root / "cache") == []

    trio.run(main)


def test_a_file_changed_while_it_enters_the_cache_is_never_read_wrong(
    root: Path, store: FakeStore
) -> None:
    async def main() -> None:
        dice = random.Random(11)
        async with mounted(root, store) as mount:
            file = mount.path.open(None, Commits(lambda: CommitRequest("new")))
            content = bytearray(DATA)
            await file.write(0, DATA)
            versions = []
            for _ in range(12):
                version = await file.commit(CommitRequest("new"))
                assert version is not None
                versions.append((version, bytes(content)))
                # At once: the copy of what was just committed is under way.
                for _ in range(3):
                    offset = dice.randrange(len(DATA) - 8)
                    content[offset : offset + 8] = dice.randbytes(8)
                    await file.write(offset, bytes(content[offset : offset + 8]))
            file.abandon()
            await file.close()
            await mount.settled()
            for version, expected in versions:
                cached = mount.blocks.open(mount.blocks.identity(version))
                for index, record in enumerate(cached.records if cached else []):
                    if record:
                        start, end = cached.identity.span(index, index + 1)
                        block = bytearray(end - start)
                        cached.read(start, memoryview(block))
                        assert block == expected[start:end]
                if cached:
                    cached.close()

    trio.run(main)


def test_of_a_changed_file_the_written_blocks_enter_the_cache(root: Path, store: FakeStore) -> None:
    version = store.seed("model", DATA)
    changed = DATA[: 2 * MIB] + bytes(3 * MIB) + DATA[5 * MIB :]

    async def main() -> None:
        async with mounted(root, store) as mount:
            file = mount.path.open(version, Commits(lambda: CommitRequest("model")))
            await file.write(2 * MIB, bytes(3 * MIB))
            after = await file.commit(CommitRequest("model"))
            assert after is not None
            await file.close()
            await mount.settled()
            assert mount.blocks.share(after) >= 3 * MIB
            assert await mount.load(after) == changed

    trio.run(main)


def test_empty_objects_need_no_disk(root: Path, store: FakeStore) -> None:
    version = store.seed("empty")

    async def main() -> None:
        async with mounted(root, store) as mount:
            assert await mount.load(version) == b""
        assert block_files(root / "cache") == []

    trio.run(main)


@pytest.fixture
def stuck_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A disk that takes nothing until the event is set."""
    moving = threading.Event()
    write = BlockFile.write

    def wait_and_write(file: BlockFile, first: int, last: int, view: memoryview) -> None:
        moving.wait()
        write(file, first, last, view)

    monkeypatch.setattr(BlockFile, "write", wait_and_write)
    yield moving
    moving.set()


def test_a_disk_that_stands_still_slows_no_reader(
    root: Path, store: FakeStore, stuck_disk: threading.Event
) -> None:
    version = store.seed("model", DATA)

    async def main() -> None:
        async with mounted(root, store, memory_bytes=8 * MIB) as mount:
            assert await mount.load(version) == DATA
            assert mount.figure("skipped_bytes", reason="slow_disk") > 0
            stuck_disk.set()
            await mount.settled()
            kept = mount.figure("kept_bytes")
            skipped = mount.figure("skipped_bytes", reason="slow_disk")
            assert kept + skipped == len(DATA)
            assert await mount.load(version) == DATA

    trio.run(main)


def test_blocks_the_disk_had_no_time_for_are_written_when_it_has(
    root: Path, store: FakeStore, stuck_disk: threading.Event
) -> None:
    version = store.seed("model", DATA)

    async def main() -> None:
        # All of it fits the memory that read blocks may keep, but not what waits for the disk.
        async with mounted(root, store, memory_bytes=48 * MIB) as mount:
            assert await mount.load(version) == DATA
            stuck_disk.set()
            await mount.settled()
            assert mount.figure("kept_bytes") == len(DATA)

    trio.run(main)

"""Which small files are fetched before they are opened."""

import random
from typing import Any, cast

from ossfs_py.filesystem.siblings import SMALL_BYTES, ShardLookup, SiblingPrefetch
from ossfs_py.model import ObjectVersion
from ossfs_py.namespace.inode import Inode
from tests.support.fake_store import FakeStore
from tests.support.namespaces import Mounted, mounted

MIB = 1024**2


class Recorder:
    """Stands for the data path and the open files."""

    def __init__(self) -> None:
        self.fetched: list[str] = []
        self.room = True
        self.pages: set[str] = set()
        self.asked = 0
        """How often the kernel's pages of a file were asked about."""

    def prefetch(self, version: ObjectVersion) -> int | None:
        if not self.room:
            return None
        self.fetched.append(version.key)
        return version.size

    def has_pages(self, inode: Inode, etag: str) -> bool:
        self.asked += 1
        return inode.name in self.pages


def siblings(m: Mounted, memory_limit_bytes: int = 1024 * MIB) -> tuple[SiblingPrefetch, Recorder]:
    recorder = Recorder()
    files = cast(Any, recorder)
    return SiblingPrefetch(m.namespace, files, files, m.metrics, memory_limit_bytes), recorder


def directory(count: int, size: int = 1000) -> FakeStore:
    store = FakeStore()
    for n in range(count):
        store.seed(f"f{n:03}", bytes(size))
    return store


async def opened(m: Mounted, prefetch: SiblingPrefetch, name: str) -> None:
    inode = await m.at(name)
    assert inode.info is not None
    prefetch.opened(inode, inode.info.version)


def test_files_opened_in_listing_order_are_fetched_ahead_once_each() -> None:
    async def run(m: Mounted) -> None:
        await m.names(m.root)
        prefetch, recorder = siblings(m)
        for n in range(200):
            await opened(m, prefetch, f"f{n:03}")
        assert recorder.fetched == [f"f{n:03}" for n in range(3, 200)]
        assert m.metrics.small_file_prefetch.labels("used")._value.get() == 197

    mounted(run, directory(200))


def test_many_files_in_no_order_are_a_loader() -> None:
    async def run(m: Mounted) -> None:
        await m.names(m.root)
        prefetch, recorder = siblings(m)
        names = [f"f{n:03}" for n in range(100)]
        random.Random(1).shuffle(names)
        for name in names:
            await opened(m, prefetch, name)
            recorder.pages.add(name)
        assert len(recorder.fetched) == len(set(recorder.fetched)) > 50

    mounted(run, directory(100))


def test_files_that_the_kernel_knows_are_passed_over_in_short_steps() -> None:
    async def run(m: Mounted) -> None:
        await m.names(m.root)
        prefetch, recorder = siblings(m)
        names = [f"f{n:03}" for n in range(900)]
        for name in names:
            await m.at(name)
        recorder.pages.update(names)
        random.Random(1).shuffle(names)
        for name in names:
            await opened(m, prefetch, name)
        assert recorder.fetched == []
        assert recorder.asked < 16 * len(names)
        # What the kernel has dropped is found again, and then the rest as fast as ever.
        recorder.pages.clear()
        for name in names[:100]:
            await opened(m, prefetch, name)
        assert len(recorder.fetched) > 64

    mounted(run, directory(900))


def test_a_few_files_opened_now_and_then_fetch_nothing() -> None:
    async def run(m: Mounted) -> None:
        await m.names(m.root)
        prefetch, recorder = siblings(m)
        for n in (50, 3, 77, 20, 9, 60, 31, 2, 90, 44):
            await opened(m, prefetch, f"f{n:03}")
            m.clock.jump(1)
        assert recorder.fetched == []

    mounted(run, directory(100))


def test_a_program_that_stops_wastes_no_more_than_the_first_files() -> None:
    async def run(m: Mounted) -> None:
        await m.names(m.root)
        prefetch, recorder = siblings(m)
        for n in range(3):
            await opened(m, prefetch, f"f{n:03}")
        assert len(recorder.fetched) <= 8

    mounted(run, directory(100))


def test_prefetch_that_is_wrong_stops_by_itself() -> None:
    async def run(m: Mounted) -> None:
        await m.names(m.root)
        prefetch, recorder = siblings(m)
        for start in range(0, 900, 30):  # three files in order, then elsewhere
            for n in range(start, start + 3):
                await opened(m, prefetch, f"f{n:03}")
            m.clock.jump(11)
            await m.names(m.root)
        assert len(recorder.fetched) < 100

    mounted(run, directory(900), metadata_ttl_seconds=1000)


def test_what_the_page_cache_has_is_not_fetched_again() -> None:
    async def run(m: Mounted) -> None:
        await m.names(m.root)
        prefetch, recorder = siblings(m)
        recorder.pages = {f"f{n:03}" for n in range(50)}
        for n in range(50):
            await opened(m, prefetch, f"f{n:03}")
        assert recorder.fetched == []

    mounted(run, directory(50))


def test_large_files_and_a_spent_budget_are_left_alone() -> None:
    async def run(m: Mounted) -> None:
        await m.names(m.root)
        prefetch, recorder = siblings(m, memory_limit_bytes=16 * MIB)
        for n in range(6):
            await opened(m, prefetch, f"f{n:03}")
        assert len(recorder.fetched) <= 4 + 4

    async def run_large(m: Mounted) -> None:
        await m.names(m.root)
        prefetch, recorder = siblings(m)
        for n in range(10):
            await opened(m, prefetch, f"f{n:03}")
        assert recorder.fetched == []

    mounted(run, directory(50, SMALL_BYTES))
    mounted(run_large, directory(10, SMALL_BYTES + 1))


def test_when_a_shard_is_opened_the_next_one_is_looked_up() -> None:
    store = FakeStore()
    first, second = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    for name in (first, second, "plain"):
        store.seed(name, b"1")

    async def run(m: Mounted) -> None:
        lookup = ShardLookup(m.namespace)
        for name in (first, "plain"):
            inode = await m.at(name)
            assert inode.info is not None
            lookup.opened(inode, inode.info.version)
        await m.answered()
        assert m.store.take_requests() == {"head": 3, "list_page": 3}
        found = await m.at(second)
        assert m.store.take_requests() == {}
        assert found.info is not None
        lookup.opened(found, found.info.version)  # the last one has no successor
        await m.answered()
        assert m.store.take_requests() == {}

    mounted(run, store)

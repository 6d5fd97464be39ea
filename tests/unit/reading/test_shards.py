"""While one shard of a model is read, the next one is fetched."""

import trio
import trio.testing

from ossfs_py.model import ObjectInfo, ObjectVersion
from ossfs_py.reading.context import ReadContext
from ossfs_py.reading.readers import ReaderCache
from tests.support.pattern_store import MIB, PatternStore, pattern, reading_over

SIZE = 12 * MIB
FIRST, SECOND = "m/model-00001-of-00002.safetensors", "m/model-00002-of-00002.safetensors"


class ShardStore(PatternStore):
    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ranges: list[tuple[str, int, int]] = []
        self.asked: list[str] = []

    def head(self, key: str) -> ObjectInfo:
        self.asked.append(key)
        return ObjectInfo(key, SIZE, "e", 0)

    def get_range_into(self, version: ObjectVersion, start: int, buffer: memoryview) -> None:
        super().get_range_into(version, start, buffer)
        self.fetched.append(version.key)
        self.ranges.append((version.key, start, len(buffer)))


async def read_all(readers: ReaderCache, key: str) -> None:
    reader = readers.acquire(ObjectVersion(key, "e", SIZE))
    for start in range(0, SIZE, MIB):
        data = reader.read_nowait(start, start + MIB)
        if data is None:
            data = await reader.read(start, start + MIB)
        assert bytes(data) == pattern(start, MIB)
    readers.release(reader)


async def second_fetched(store: ShardStore, shared: ReadContext) -> None:
    with trio.fail_after(120):
        while SECOND not in store.fetched or shared.network.running:
            await trio.testing.wait_all_tasks_blocked(0.001)


def test_the_next_shard_is_in_memory_when_its_loader_opens_it() -> None:
    async def main() -> None:
        store = ShardStore()
        shared = reading_over(store, limit=256 * MIB)
        readers = ReaderCache(shared, lambda _version: None)
        await read_all(readers, FIRST)
        await second_fetched(store, shared)
        reader = readers.acquire(ObjectVersion(SECOND, "e", SIZE))
        assert reader.read_nowait(0, MIB) == pattern(0, MIB)
        assert (SECOND, 0, MIB) in store.ranges  # the header comes alone, and soon
        readers.close()
        assert store.asked == [SECOND]

    trio.run(main)


def test_of_the_next_shard_no_more_is_fetched_than_a_share_of_the_memory() -> None:
    async def main() -> None:
        store = ShardStore()
        shared = reading_over(store, limit=64 * MIB)
        readers = ReaderCache(shared, lambda _version: None)
        await read_all(readers, FIRST)
        await second_fetched(store, shared)
        readers.close()
        fetched = [size for key, _start, size in store.ranges if key == SECOND]
        assert sum(fetched) == 64 * MIB // 8

    trio.run(main)


def test_the_last_shard_asks_for_nothing_more() -> None:
    async def main() -> None:
        store = ShardStore()
        readers = ReaderCache(reading_over(store, limit=256 * MIB), lambda _version: None)
        await read_all(readers, SECOND)
        readers.close()
        assert store.asked == []

    trio.run(main)

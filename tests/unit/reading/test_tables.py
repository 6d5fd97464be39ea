"""A file's table is understood from the bytes that its readers fetch, however those come."""

import struct

import pytest
import trio
import trio.testing

from ossfs_py.errors import VersionChangedError
from ossfs_py.foresight.layout import MAX_TABLE_BYTES
from ossfs_py.model import ObjectVersion
from ossfs_py.reading.context import ReadContext
from ossfs_py.reading.reader import VersionReader
from ossfs_py.reading.readers import ReaderCache
from tests.support.file_formats import onnx, safetensors
from tests.support.pattern_store import MIB, PatternStore, pattern, reading_over

COUNT = 12
STARTS = [sum((24 + n % 5 * 7) * MIB for n in range(number)) for number in range(COUNT + 1)]
"""Of the parts, at unequal distances: equal strides are foreseen without a table."""
BODY = STARTS[-1]


class ContentStore(PatternStore):
    """Objects that begin with bytes of their own."""

    def __init__(self, heads: dict[str, bytes]) -> None:
        super().__init__()
        self.heads = heads
        self.asked: list[tuple[str, int, int]] = []

    def get_range_into(self, version: ObjectVersion, start: int, buffer: memoryview) -> None:
        super().get_range_into(version, start, buffer)
        head = self.heads.get(version.key, b"")[start : start + len(buffer)]
        buffer[: len(head)] = head
        with self.lock:
            self.asked.append((version.key, start, start + len(buffer)))

    def fetched(self, key: str, place: int) -> bool:
        return any(k == key and start <= place < end for k, start, end in self.asked)


def header(length: int) -> bytes:
    """Of a file of COUNT tensors, padded with spaces as the format allows."""
    spans = {f"t{n}": (STARTS[n], STARTS[n + 1]) for n in range(COUNT)}
    text = safetensors(spans, 0)[8:].ljust(length - 8)
    return len(text).to_bytes(8, "little") + text


async def quiet(shared: ReadContext) -> None:
    with trio.fail_after(120):
        while shared.network.running or shared.files.running:
            await trio.testing.wait_all_tasks_blocked(0.001)
        await trio.testing.wait_all_tasks_blocked(0.001)


async def look(reader: VersionReader, place: int) -> None:
    """The kernel reads around a page of a mapping with MADV_SEQUENTIAL."""
    page = place // 4096 * 4096
    for start in (page - MIB, page):
        await reader.read(start, start + MIB)


@pytest.mark.parametrize(
    ("length", "reads"),
    [
        (5000, [(0, MIB)]),
        (5000, [(0, 4096), (4096, MIB)]),
        (5 * MIB // 2, [(0, MIB), (MIB, 2 * MIB), (2 * MIB, 3 * MIB)]),
        (5 * MIB // 2, [(0, 8), (8, 4096), (4096, 5 * MIB // 2)]),
        (5 * MIB // 2, [(2 * MIB, 3 * MIB), (MIB, 2 * MIB), (0, MIB)]),
    ],
    ids=["one", "two in a page", "three blocks", "as programs read", "backwards"],
)
def test_a_header_that_comes_in_any_number_of_reads_is_understood(
    length: int, reads: list[tuple[int, int]]
) -> None:
    async def main() -> None:
        store = ContentStore({"m.safetensors": header(length)})
        shared = reading_over(store, limit=1024 * MIB)
        size = length + BODY
        reader = VersionReader(shared, ObjectVersion("m.safetensors", "e", size))
        for start, end in reads:
            got = await reader.read(start, end)
            assert bytes(got[:8]) == store.heads["m.safetensors"][start : start + 8]
            await quiet(shared)
        for number in (3, 4):
            await look(reader, length + STARTS[number])
        await quiet(shared)
        assert store.fetched("m.safetensors", length + STARTS[5])
        assert store.fetched("m.safetensors", length + STARTS[6])
        assert not store.fetched("m.safetensors", length + STARTS[11])
        reader.close()

    trio.run(main)


@pytest.mark.parametrize(
    "head",
    [
        struct.pack("<Q", 100 * 1024**2) + b"{",
        struct.pack("<Q", MAX_TABLE_BYTES + 1) + b"{",
        struct.pack("<Q", 2**64 - 1),
        safetensors({"a": (0, 10), "b": (5, 15)}, 0),
        safetensors({"a": (0, 2**50)}, 0),
        safetensors({"a": (0, 5), "a ": (0, 9)}, 0).replace(b'"a "', b'"a"'),
    ],
    ids=["100 MB", "too long", "huge", "overlapping", "behind the end", "twice"],
)
def test_of_a_file_whose_header_lies_only_what_is_read_is_fetched(head: bytes) -> None:
    async def main() -> None:
        store = ContentStore({"m.safetensors": head})
        shared = reading_over(store, limit=1024 * MIB)
        size = BODY
        reader = VersionReader(shared, ObjectVersion("m.safetensors", "e", size))
        await reader.read(0, 4096)
        for number in range(1, COUNT):
            place = STARTS[number]
            got = await reader.read(place, place + 4096)
            assert bytes(got) == pattern(place, 4096)
        await quiet(shared)
        assert store.served <= MIB + COUNT * 64 * 1024 + 16 * 64 * 1024
        reader.close()

    trio.run(main)


def test_a_file_replaced_between_its_header_and_its_body_is_told() -> None:
    """And the new version's own header counts for it."""
    turned = [BODY - start for start in reversed(STARTS)]
    spans = {f"t{n}": (turned[n], turned[n + 1]) for n in range(COUNT)}
    text = safetensors(spans, 0)[8:].ljust(4992)
    new = len(text).to_bytes(8, "little") + text

    async def main() -> None:
        store = ContentStore({"m.safetensors": header(5000)})
        shared = reading_over(store, limit=1024 * MIB)
        readers = ReaderCache(shared, lambda _version: None)
        old = readers.acquire(ObjectVersion("m.safetensors", "old", 5000 + BODY))
        await old.read(0, MIB)
        await quiet(shared)
        changed = VersionChangedError("changed", operation="get_object", key="m.safetensors")
        store.fail = lambda _start: changed
        for _ in range(2):
            with pytest.raises(VersionChangedError):
                await look(old, 5000 + STARTS[1])
        store.fail = lambda _start: None
        store.heads["m.safetensors"] = new
        reader = readers.acquire(ObjectVersion("m.safetensors", "new", 5000 + BODY))
        assert bytes(await reader.read(0, MIB))[:5000] == new
        await quiet(shared)
        store.asked.clear()
        for number in (1, 2):
            await look(reader, 5000 + turned[number])
        await quiet(shared)
        assert store.fetched("m.safetensors", 5000 + turned[3])
        assert store.fetched("m.safetensors", 5000 + turned[4])
        readers.close()

    trio.run(main)


def test_weights_that_an_onnx_model_names_are_known_when_they_are_opened() -> None:
    async def main() -> None:
        index = onnx([("w.bin", STARTS[n], STARTS[n + 1] - STARTS[n]) for n in range(COUNT)])
        store = ContentStore({"d/m.onnx": index})
        shared = reading_over(store, limit=1024 * MIB)
        readers = ReaderCache(shared, lambda _version: None)
        model = readers.acquire(ObjectVersion("d/m.onnx", "e", len(index)))
        assert bytes(await model.read(0, len(index))) == index
        await quiet(shared)
        weights = readers.acquire(ObjectVersion("d/w.bin", "e", BODY))
        await weights.read(0, 4096)
        for number in (1, 2):
            await look(weights, STARTS[number])
        await quiet(shared)
        assert store.fetched("d/w.bin", STARTS[3])
        assert store.fetched("d/w.bin", STARTS[4])
        readers.close()

    trio.run(main)


def test_weights_shorter_than_their_model_says_are_read_as_any_file() -> None:
    async def main() -> None:
        index = onnx([("w.bin", STARTS[n], STARTS[n + 1] - STARTS[n]) for n in range(COUNT)])
        store = ContentStore({"m.onnx": index})
        shared = reading_over(store, limit=1024 * MIB)
        readers = ReaderCache(shared, lambda _version: None)
        weights = readers.acquire(ObjectVersion("w.bin", "e", STARTS[3]))
        model = readers.acquire(ObjectVersion("m.onnx", "e", len(index)))
        await model.read(0, len(index))
        await quiet(shared)
        for number in (1, 2):
            await look(weights, STARTS[number])
        assert bytes(await weights.read(0, 100)) == pattern(0, 100)
        readers.close()

    trio.run(main)

"""What a file needed is freed when it is closed, not when Python looks for garbage."""

import gc
from collections import Counter
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.filesystems import Mounted, mounted
from tests.support.mounting import DATA_PATHS

FILES = 20
CONTENT = b"x" * 5000
LONG_ENOUGH_SECONDS = 30.0
"""Readers linger for five seconds after the last close."""
HEAVY = {
    *("VersionReader", "Fetcher", "Planner", "Belief", "ChunkIndex", "Chunk", "Event"),
    *("Question", "Pending", "ObjectMissingError", "traceback", "frame"),
    *("Uses", "_MemoryPart", "StagedFile", "memoryview"),
    *("OpenInode", "ObjectFile", "InheritedFile", "Contents", "MemoryContent", "MemoryStream"),
    *("DiskContent", "DiskBytes", "ObjectBuilder", "SmallContent", "Staging", "ExtentSet"),
}
"""What one file has dozens of, or what holds such objects."""


async def use(m: Mounted, number: int) -> None:
    name, other = (f"f{number}",), (f"g{number}",)
    assert await m.read_file((f"stored{number}",)) == CONTENT
    await m.write_file(name, CONTENT)
    assert await m.read_file(name) == CONTENT
    await m.rename(name, other)
    await m.unlink(other)


@pytest.mark.parametrize("write_back", [False, True])
@pytest.mark.parametrize("path", DATA_PATHS)
def test_a_closed_file_leaves_no_garbage(path: str, tmp_path: Path, *, write_back: bool) -> None:
    async def main() -> None:
        async with mounted(path, tmp_path, write_back=write_back) as m:
            for number in range(FILES + 1):
                m.store.seed(f"stored{number}", CONTENT)
            await use(m, FILES)  # what is made once for the mount
            await m.bench.later(LONG_ENOUGH_SECONDS)
            gc.collect()
            gc.disable()
            try:
                for number in range(FILES):
                    await use(m, number)
                await m.bench.later(LONG_ENOUGH_SECONDS)
                gc.set_debug(gc.DEBUG_SAVEALL)
                gc.collect()
                found = Counter(type(each).__name__ for each in gc.garbage)
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()
            assert not found.keys() & HEAVY, found

    trio.run(main, clock=trio.testing.MockClock(rate=1.0))

"""Which objects a file may be a copy of: those that this mount knows beside it, when asked to."""

import os
from pathlib import Path

import pytest

from ossfs_py.model import CommitRequest
from tests.support.filesystems import Mounted, on_mount
from tests.support.hashing_store import HashingStore
from tests.support.mounting import DATA_PATHS

CONTENT = b"8 bytes."
"""As much as a file in memory has before it streams."""


def store() -> HashingStore:
    made = HashingStore(min_part_bytes=5)
    made.put(CommitRequest("dir/listed"), CONTENT)
    made.put(CommitRequest("elsewhere"), CONTENT)
    return made


@pytest.mark.parametrize("path", DATA_PATHS)
def test_what_was_listed_or_written_in_the_directory_is_copied(path: str, tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        sent = m.store.bytes_written
        await m.write_file(("dir", "before"), b"other...")
        await m.write_file(("dir", "unknown"), CONTENT)
        assert m.store.bytes_written - sent == 16  # nothing was listed, and nothing is asked
        await m.expire()
        assert len(await m.names(("dir",))) == 3
        sent = m.store.bytes_written
        await m.write_file(("dir", "of-listed"), CONTENT)
        await m.write_file(("dir", "of-written"), b"other...")
        assert m.store.bytes_written == sent
        assert m.store.content("dir/of-listed") == CONTENT
        assert m.store.content("dir/of-written") == b"other..."
        assert m.store.metadata("dir/of-listed")["mode"]
        assert await m.read_file(("dir", "of-listed")) == CONTENT
        # A file that others replaced since is no source.
        for key in list(m.store.objects):
            m.store.seed(key, b"replaced")
        await m.write_file(("dir", "last"), CONTENT)
        assert m.store.content("dir/last") == CONTENT
        # Nor is the file itself: what it had counts for nothing.
        sent = m.store.bytes_written
        await m.write_file(("alone",), CONTENT)
        opened = await m.open(("alone",), os.O_WRONLY | os.O_TRUNC)
        await m.write(opened, 0, CONTENT)
        await m.close(opened)
        assert m.store.bytes_written - sent == 16

    on_mount(path, tmp_path, test, store=store(), dedup=True)


@pytest.mark.parametrize("path", DATA_PATHS)
def test_nothing_is_compared_without_the_option(path: str, tmp_path: Path) -> None:
    async def test(m: Mounted) -> None:
        assert await m.names(("dir",)) == ["listed"]
        sent = m.store.bytes_written
        await m.write_file(("dir", "of-listed"), CONTENT)
        assert m.store.bytes_written - sent == len(CONTENT)

    on_mount(path, tmp_path, test, store=store())

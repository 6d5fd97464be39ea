"""What a daemon has written is what the next one goes on with."""

import contextlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, cast

import pytest
import trio
import trio.testing

from ossfs_py.errors import OssfsError, StaleInodeError
from ossfs_py.filesystem.replies import EntryReply
from ossfs_py.filesystem.survival import (
    FoundOut,
    MountIdentity,
    Negotiated,
    Survival,
    SurvivalError,
    open_survival,
)
from ossfs_py.filesystem.surviving import Resumed, SurvivingFilesystem
from ossfs_py.namespace.inode import ROOT_NUMBER, InodeTable
from tests.support.fake_store import FakeStore
from tests.support.filesystems import Mounted, mounted
from tests.support.writing import TINY_PARTS

FACTS = MountIdentity("bucket", "/m", "http://store")
FOUND_OUT = FoundOut("/mnt", 7)
CONTENT = bytes(range(256)) * 40


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = os.memfd_create("test")
    yield descriptor
    os.close(descriptor)


class Life(NamedTuple):
    """One daemon of a mount."""

    mounted: Mounted
    fs: SurvivingFilesystem
    survival: Survival
    resumed: Resumed


def made(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    return directory


@asynccontextmanager
async def life(memory: int, root: Path, store: FakeStore) -> AsyncIterator[Life]:
    """A daemon, which leaves everything open when it ends."""
    async with mounted(
        "direct", made(root), store, read_only=True, make=SurvivingFilesystem
    ) as one:
        survival = open_survival(memory)
        survival.serve(FACTS, FOUND_OUT)
        fs = cast(SurvivingFilesystem, one.fs)
        yield Life(one, fs, survival, fs.resume(survival))


async def listed(fs: SurvivingFilesystem, handle: int, start: int, most: int) -> list[str]:
    """So many names from an offset on."""
    names: list[str] = []

    def take(name: bytes, _entry: EntryReply, _following: int) -> bool:
        if len(names) == most:
            return False
        names.append(name.decode())
        return True

    await fs.read_directory(handle, start, take)
    return names


def store_with(**objects: bytes) -> FakeStore:
    store = FakeStore(min_part_bytes=TINY_PARTS.min_part)
    for key, content in objects.items():
        store.seed(key.replace("__", "/"), content)
    return store


def run(test: Callable[[], Awaitable[None]]) -> None:
    trio.run(test, clock=trio.testing.MockClock(rate=1.0))


def test_numbers_and_open_files_stand_for_what_they_did(memory: int, tmp_path: Path) -> None:
    store = store_with(dir__file=CONTENT, dir__other=b"other")

    async def main() -> None:
        async with life(memory, tmp_path / "1", store) as first:
            directory = await first.fs.lookup(ROOT_NUMBER, b"dir")
            for _ in range(3):
                file = await first.fs.lookup(directory.inode, b"file")
            other = await first.fs.lookup(directory.inode, b"other")
            opened = await first.fs.open(file.inode, os.O_RDONLY, 0)
            assert bytes(await first.fs.read(opened.handle, 0, 100)) == CONTENT[:100]
            gone = await first.fs.open(other.inode, os.O_RDONLY, 0)
            await first.fs.release(gone.handle)
            first.fs.forget([(other.inode, 1)])
        async with life(memory, tmp_path / "2", store) as second:
            assert second.resumed == Resumed(2, 1, 0)
            assert second.fs.path(file.inode) == "/dir/file"
            assert (await second.fs.attributes(file.inode)).attributes.size == len(CONTENT)
            again = await second.fs.lookup(directory.inode, b"file")
            assert (again.inode, again.generation) == (file.inode, file.generation)
            assert bytes(await second.fs.read(opened.handle, 100, 100)) == CONTENT[100:200]
            new = await second.fs.open(file.inode, os.O_RDONLY, 0)
            assert new.handle != opened.handle
            await second.fs.release(opened.handle)
            await second.fs.release(new.handle)
            second.fs.forget([(file.inode, 4), (directory.inode, 1)])
        async with life(memory, tmp_path / "3", store) as third:
            assert third.resumed == Resumed(0, 0, 0)
            with pytest.raises(StaleInodeError):
                third.fs.path(file.inode)

    run(main)


def test_a_file_stays_the_version_that_its_programs_were_given(memory: int, tmp_path: Path) -> None:
    store = store_with(file=CONTENT)

    async def main() -> None:
        async with life(memory, tmp_path / "1", store) as first:
            file = await first.fs.lookup(ROOT_NUMBER, b"file")
            opened = await first.fs.open(file.inode, os.O_RDONLY, 0)
            assert bytes(await first.fs.read(opened.handle, 0, 100)) == CONTENT[:100]
        store.seed("file", b"another")
        async with life(memory, tmp_path / "2", store) as second:
            with pytest.raises(OssfsError):
                await second.fs.read(opened.handle, 100, 100)
            entry = await second.fs.lookup(ROOT_NUMBER, b"file")
            assert entry.attributes.size == len(b"another")
            new = await second.fs.open(entry.inode, os.O_RDONLY, 0)
            assert bytes(await second.fs.read(new.handle, 0, 100)) == b"another"
        async with life(memory, tmp_path / "3", store) as third:
            assert third.fs.path(entry.inode) == "/file"
            with pytest.raises(OssfsError):
                await third.fs.read(opened.handle, 100, 100)
            assert bytes(await third.fs.read(new.handle, 0, 100)) == b"another"

    run(main)


def test_the_kernel_asks_for_the_size_of_what_is_opened_anew(memory: int, tmp_path: Path) -> None:
    store = store_with(file=b"short")

    async def main() -> None:
        async with life(memory, tmp_path / "1", store) as first:
            file = await first.fs.lookup(ROOT_NUMBER, b"file")
        store.seed("file", CONTENT)
        async with life(memory, tmp_path / "2", store) as second:
            # The kernel may believe the first daemon's answer for a while yet.
            opened = await second.fs.open(file.inode, os.O_RDONLY, 0)
            assert file.inode in second.mounted.channel.expired
            assert not opened.keep_cache
            assert bytes(await second.fs.read(opened.handle, 0, 1 << 20)) == CONTENT

    run(main)


def test_a_listing_goes_on_behind_the_name_it_had_come_to(memory: int, tmp_path: Path) -> None:
    store = store_with(**{f"dir__{number:03}": b"x" for number in range(600)})

    async def main() -> None:
        async with life(memory, tmp_path / "1", store) as first:
            directory = await first.fs.lookup(ROOT_NUMBER, b"dir")
            handle = first.fs.open_directory(directory.inode)
            seen = await listed(first.fs, handle, 0, 12)
            assert seen[-1] == "009"
            await listed(first.fs, handle, 12, 300)  # an answer that the kernel never got
        for name in ("001", "002", "003", "311"):
            store.erase(f"dir/{name}")
        store.seed("dir/000a", b"x")
        async with life(memory, tmp_path / "2", store) as second:
            assert second.resumed.directories == 1
            seen += await listed(second.fs, handle, 12, 300)
            assert seen[12:] == [f"{n:03}" for n in range(10, 311) if n != 311][:300]
        async with life(memory, tmp_path / "3", store) as third:
            seen += await listed(third.fs, handle, 312, 10_000)
            assert seen[12:] == [f"{n:03}" for n in range(10, 600) if n != 311]
            assert (await listed(third.fs, handle, 0, 10_000))[2:4] == ["000", "000a"]
            third.fs.release_directory(handle)
        async with life(memory, tmp_path / "4", store) as fourth:
            assert fourth.resumed.directories == 0

    run(main)


def test_an_open_whose_answer_was_lost_is_answered_with_the_handle_there_is(
    memory: int, tmp_path: Path
) -> None:
    store = store_with(file=CONTENT)

    async def main() -> None:
        async with life(memory, tmp_path / "1", store) as first:
            file = await first.fs.lookup(ROOT_NUMBER, b"file")
            opened = await first.fs.open(file.inode, os.O_RDONLY, 0)
            first.survival.asked_by(opened.handle, 77)
        async with life(memory, tmp_path / "2", store) as second:
            assert second.survival.opened_for(76) is None
            assert second.survival.opened_for(77) == opened.handle
            assert second.survival.opened_for(77) is None

    run(main)


def test_how_it_began_is_found_again_and_another_mount_is_refused(
    memory: int, tmp_path: Path
) -> None:
    began = Negotiated(b"request", b"answer", b"told to the kernel")
    store = store_with()

    async def main() -> None:
        async with life(memory, tmp_path, store) as first:
            first.survival.note_negotiated(began)

    run(main)
    assert open_survival(memory).negotiated == began
    assert open_survival(memory).found_out == FOUND_OUT
    with pytest.raises(SurvivalError, match="another source and endpoint"):
        open_survival(memory).serve(MountIdentity("other", "/m", "http://elsewhere"), FOUND_OUT)


def test_records_that_make_no_sense_are_refused(memory: int, tmp_path: Path) -> None:
    store = store_with(file=CONTENT)
    refused = pytest.RaisesExc(SurvivalError, match="makes no sense")

    async def main() -> None:
        async with life(memory, tmp_path / "1", store) as first:
            file = await first.fs.lookup(ROOT_NUMBER, b"file")
            await first.fs.open(file.inode, os.O_RDONLY, 0)
        raw = os.pread(memory, os.fstat(memory).st_size, 0)
        place = raw.index(b'"etag"')
        os.pwrite(memory, b'"gate"', place)
        with pytest.RaisesGroup(refused, flatten_subgroups=True):
            async with life(memory, tmp_path / "2", store):
                pass
        os.pwrite(memory, b"\xff\xff", place)
        with pytest.RaisesGroup(refused, flatten_subgroups=True):
            async with life(memory, tmp_path / "3", store):
                pass

    run(main)


def test_damage_is_refused_or_taken_in_but_never_anything_else(memory: int, tmp_path: Path) -> None:
    store = store_with(**{f"dir__{number}": b"x" for number in range(20)})

    async def main() -> None:
        async with life(memory, tmp_path, store) as first:
            first.survival.note_negotiated(Negotiated(b"request", b"answer", b"told"))
            directory = await first.fs.lookup(ROOT_NUMBER, b"dir")
            handle = first.fs.open_directory(directory.inode)
            await listed(first.fs, handle, 0, 10)
            for number in range(5):
                file = await first.fs.lookup(directory.inode, str(number).encode())
                await first.fs.open(file.inode, os.O_RDONLY, 0)

    run(main)
    whole = os.pread(memory, os.fstat(memory).st_size, 0)
    written = [place for place, byte in enumerate(whole) if byte]
    rng = random.Random(1)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.choice(written)] = rng.randrange(256)
        os.pwrite(memory, damaged, 0)
        with contextlib.suppress(SurvivalError):
            refused += 1
            survival = open_survival(memory)
            survival.begin(InodeTable(100))
            survival.files()
            survival.directories()
            refused -= 1
    assert 0 < refused < 300

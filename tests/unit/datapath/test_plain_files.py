"""Large objects in the disk cache: a file apart for their bytes, and the seal on it."""

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from ossfs_py.datapath.base import PlainFile
from ossfs_py.datapath.diskcache import blockfile, layout, seal
from ossfs_py.datapath.diskcache.blockfile import BlockFile
from ossfs_py.datapath.diskcache.inspection import CacheInspector
from ossfs_py.datapath.diskcache.store import BlockStore
from ossfs_py.datapath.plainfiles import PlainFiles
from ossfs_py.model import ObjectVersion
from ossfs_py.runtime.workers import Workers
from tests.unit.datapath.caching import (
    BLOCK,
    Reading,
    block_files,
    content,
    counted_bytes,
    damage,
    disk_bytes,
    load,
    make_store,
)

VERSION = ObjectVersion("models/a.safetensors", "etag-1", 20 * BLOCK + 123)


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "PLAIN_FROM_BYTES", 3 * BLOCK)
    monkeypatch.setattr(blockfile, "DIRECT_FROM_BYTES", 3 * BLOCK)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BlockStore]:
    made = make_store(tmp_path)
    yield made
    made.close()


def plain_files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "blocks").glob("??/*.plain"))


def age(tmp_path: Path, seconds: float = 5) -> None:
    """Let the bytes on disk look as if nobody had written to them lately."""
    (path,) = plain_files(tmp_path)
    then = time.time_ns() - int(seconds * 1e9)
    os.utime(path, ns=(then, then))
    time.sleep(1.05)  # the time of the change itself is nobody's to set


@contextmanager
def opened(store: BlockStore, version: ObjectVersion = VERSION) -> Iterator[BlockFile]:
    identity = store.identity(version)
    assert identity is not None
    file = store.open(identity)
    assert file is not None
    try:
        yield file
    finally:
        file.close()


def put_seal(file: BlockFile, at: float | None = None) -> bool:
    stamp = seal.stamp_of(file)
    return stamp is not None and seal.put(file, stamp, int((at or time.time()) * 1e9))


# -- two files ---------------------------------------------------------------------------------


def test_the_bytes_are_a_file_of_their_own(store: BlockStore, tmp_path: Path) -> None:
    assert load(store, VERSION).fetched == VERSION.size
    (path,) = plain_files(tmp_path)
    assert path.read_bytes() == content(VERSION)
    assert load(store, VERSION).fetched == 0
    assert counted_bytes(store) == disk_bytes(tmp_path)


def test_bytes_that_are_gone_are_fetched_again(store: BlockStore, tmp_path: Path) -> None:
    load(store, VERSION)
    (path,) = plain_files(tmp_path)
    path.unlink()
    assert load(store, VERSION).fetched == VERSION.size
    assert load(store, VERSION).fetched == 0


def test_a_file_that_is_begun_anew_leaves_the_old_bytes_alone(
    store: BlockStore, tmp_path: Path
) -> None:
    load(store, VERSION)
    (path,) = plain_files(tmp_path)
    with path.open("rb") as kept:
        (head,) = block_files(tmp_path)
        with head.open("r+b") as file:
            file.write(b"?" * 8)
        assert load(store, VERSION).fetched == VERSION.size
        assert kept.read() == content(VERSION)
        assert os.fstat(kept.fileno()).st_nlink == 0


def test_bytes_without_their_file_are_removed(store: BlockStore, tmp_path: Path) -> None:
    load(store, VERSION)
    (head,) = block_files(tmp_path)
    head.unlink()
    assert CacheInspector(store).clear() == 0
    assert plain_files(tmp_path) == []


def test_evicting_removes_both(store: BlockStore, tmp_path: Path) -> None:
    load(store, VERSION)
    taken = disk_bytes(tmp_path)
    assert store.forget(VERSION) == taken
    assert (plain_files(tmp_path), block_files(tmp_path)) == ([], [])
    assert counted_bytes(store) == 0


@pytest.mark.parametrize("sealed", [False, True])
def test_what_was_sealed_goes_as_a_whole(tmp_path: Path, *, sealed: bool) -> None:
    """Others may have it open, and a file that gets shorter is read as one that ends there."""
    store = make_store(tmp_path, limit=30 * BLOCK)
    load(store, VERSION)
    age(tmp_path)
    with opened(store) as file:
        assert not sealed or put_seal(file)
    (path,) = plain_files(tmp_path)
    with path.open("rb") as kept:
        load(store, ObjectVersion("other", "e", 2 * BLOCK))
        load(store, ObjectVersion("another", "e", 8 * BLOCK))
        assert (len(kept.read()) == VERSION.size) == sealed
    assert path.exists() != sealed
    assert counted_bytes(store) == disk_bytes(tmp_path)
    store.close()


@pytest.mark.parametrize("seed", range(4))
def test_damage_to_either_file_never_gives_wrong_bytes(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    store = make_store(tmp_path, limit=60 * BLOCK)
    versions = [ObjectVersion(f"k{i}", "e", dice.randrange(1, 24 * BLOCK)) for i in range(4)]
    lost = 0
    for _ in range(150):
        files = [*block_files(tmp_path), *plain_files(tmp_path)]
        if files and dice.random() < 0.5 and (target := dice.choice(files)).stat().st_size:
            damage(target, dice)
        reading = Reading(store, dice.choice(versions))
        start = dice.randrange(reading.version.size)
        reading.check(start, dice.randrange(start + 1, reading.version.size + 1))
        lost += reading.lost
        reading.close()
    assert lost > 0
    CacheInspector(store).verify(lambda _progress: None)
    for version in versions:
        load(store, version)
    store.close()


# -- the seal ----------------------------------------------------------------------------------


def test_a_seal_is_worth_nothing_after_a_day_or_a_change(store: BlockStore, tmp_path: Path) -> None:
    load(store, VERSION)
    with opened(store) as file:
        assert seal.verified_at(file) is None
        assert not put_seal(file)  # written to just now
    age(tmp_path)
    now = time.time()
    with opened(store) as file:
        assert put_seal(file, now - seal.VALID_SECONDS - 1)
        assert seal.verified_at(file) is None
        assert put_seal(file, now + 100)
        assert seal.verified_at(file) is None
        assert put_seal(file, now)
        assert seal.verified_at(file) == pytest.approx(now, abs=0.01)
    (path,) = plain_files(tmp_path)
    before = path.stat()
    with path.open("r+b") as changed:
        changed.seek(BLOCK)
        changed.write(b"x")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    time.sleep(1.05)
    with opened(store) as file:
        assert seal.verified_at(file) is None


@pytest.mark.parametrize("place", [0, 8, 39, 40, 47])
def test_a_seal_that_was_damaged_is_none(store: BlockStore, tmp_path: Path, place: int) -> None:
    load(store, VERSION)
    age(tmp_path)
    with opened(store) as file:
        assert put_seal(file)
        broken = bytearray(file.read_seal())
        broken[place] ^= 1
        file.write_seal(bytes(broken))
        assert seal.verified_at(file) is None


def test_a_file_that_lacks_a_block_is_not_sealed(store: BlockStore, tmp_path: Path) -> None:
    reading = Reading(store, VERSION)
    reading.read(0, VERSION.size - 2 * BLOCK)
    reading.close()
    age(tmp_path)
    with opened(store) as file:
        assert not put_seal(file)


async def until(said: str, caplog: pytest.LogCaptureFixture) -> None:
    while said not in caplog.text:  # noqa: ASYNC110 - a log has no event
        await trio.sleep(0.1)


# -- verifying ---------------------------------------------------------------------------------


def test_what_was_read_is_verified_and_given_away(
    store: BlockStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    load(store, VERSION)
    age(tmp_path)
    allowed = True

    async def may_read(_version: ObjectVersion) -> bool:
        await trio.lowlevel.checkpoint()
        return allowed

    async def run() -> None:
        nonlocal allowed
        workers = Workers("file", 1)
        files = PlainFiles(store, workers, may_read)
        assert await files.open(VERSION) is None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(files.run)
            identity = store.identity(VERSION)
            assert identity is not None
            files.want(identity)
            with trio.fail_after(30):
                await until("was verified", caplog)
            nursery.cancel_scope.cancel()
        plain = await files.open(VERSION)
        assert plain is not None
        check(plain)
        allowed = False
        assert await files.open(VERSION) is None
        workers.close()

    def check(plain: PlainFile) -> None:
        assert os.pread(plain.fd, 2 * VERSION.size, 0) == content(VERSION)
        assert store.forget(VERSION) == 0  # it is held
        plain.close()

    trio.run(run)


def test_damage_is_told_and_not_given_away(
    store: BlockStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(store, VERSION)
    (path,) = plain_files(tmp_path)
    with path.open("r+b") as changed:
        changed.seek(7 * BLOCK)
        changed.write(b"damage")
    age(tmp_path)

    async def may_read(_version: ObjectVersion) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    async def run() -> None:
        workers = Workers("file", 1)
        files = PlainFiles(store, workers, may_read)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(files.run)
            identity = store.identity(VERSION)
            assert identity is not None
            files.want(identity)
            with trio.fail_after(30):
                await until("damaged on disk", caplog)
            nursery.cancel_scope.cancel()
        assert await files.open(VERSION) is None
        workers.close()

    trio.run(run)
    assert load(store, VERSION).fetched == BLOCK

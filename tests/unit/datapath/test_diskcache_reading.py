"""What was kept is read back, whatever the order; what is damaged is fetched again."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ossfs_py.datapath.diskcache.inspection import CacheInspector
from ossfs_py.model import ObjectVersion
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
    open_version,
)

VERSION = ObjectVersion("models/a.safetensors", "etag-1", 20 * BLOCK + 123)


def test_second_read_needs_no_network_also_after_restart(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    assert load(store, VERSION).fetched == VERSION.size
    assert load(store, VERSION).fetched == 0
    store.close()
    store = make_store(tmp_path)
    assert load(store, VERSION).fetched == 0
    assert store.share(VERSION) == VERSION.size
    store.close()


def test_versions_buckets_and_sizes_are_kept_apart(tmp_path: Path) -> None:
    store, elsewhere = make_store(tmp_path), make_store(tmp_path, bucket="other")
    load(store, VERSION)
    for version in (
        ObjectVersion(VERSION.key, "etag-2", VERSION.size),
        ObjectVersion(VERSION.key, VERSION.etag, VERSION.size - 1),
        ObjectVersion("models/b", VERSION.etag, VERSION.size),
    ):
        assert store.share(version) == 0
        assert load(store, version).fetched == version.size
    assert load(elsewhere, VERSION).fetched == VERSION.size
    store.close()
    elsewhere.close()


def test_versions_without_an_etag_are_not_kept(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    assert store.identity(ObjectVersion("k", "", 100)) is None
    store.close()


@settings(max_examples=30, deadline=None)
@given(data=st.data(), size=st.integers(1, 40 * BLOCK))
def test_presence_is_what_a_plain_set_of_blocks_says(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, size: int
) -> None:
    version = ObjectVersion("k", "e", size)
    store = make_store(tmp_path_factory.mktemp("cache"))
    cached = open_version(store, version)
    count = -(-size // BLOCK)
    model: set[int] = set()
    whole = memoryview(content(version))
    for _ in range(data.draw(st.integers(1, 12))):
        start = data.draw(st.integers(0, size - 1))
        end = data.draw(st.integers(start + 1, size))
        action = data.draw(st.sampled_from(["keep", "lose", "reopen"]))
        if action == "keep":
            blocks = {
                i for i in range(count) if start <= i * BLOCK and min((i + 1) * BLOCK, size) <= end
            }
            assert cached.keep(start, whole[start:end]) == bool(blocks)
            cached.note_kept(start, end)
            model |= blocks
        elif action == "lose":
            cached.note_lost(start, end)
            lost = set(range(start // BLOCK, -(-end // BLOCK)))
            gone = model & lost
            model -= lost
            # What is only forgotten in memory is still on disk for the next one.
            if gone:
                cached.close()
                cached = open_version(store, version)
                model |= gone
        else:
            cached.close()
            cached = open_version(store, version)
        for offset in {start, end - 1, 0, size - 1}:
            index = offset // BLOCK
            run = index
            while run in model:
                run += 1
            expected = min(run * BLOCK, size) if run > index else offset
            assert cached.present_until(offset) == expected
            behind = min((i for i in model if i > index), default=None)
            assert cached.next_present(offset) == (None if behind is None else behind * BLOCK)
    for index in model:
        begin, stop = index * BLOCK, min((index + 1) * BLOCK, size)
        buffer = bytearray(stop - begin)
        cached.load_into(begin, memoryview(buffer))
        assert buffer == whole[begin:stop]
    assert counted_bytes(store) == disk_bytes(store.disk._cache_dir)
    cached.close()
    store.close()


def test_spans_that_are_no_whole_blocks_are_read_right(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    load(store, VERSION)
    cached = open_version(store, VERSION)
    whole = content(VERSION)
    for start, end in [(1, 2), (BLOCK - 1, BLOCK + 1), (100, 3 * BLOCK + 7), (7, VERSION.size)]:
        buffer = bytearray(end - start)
        cached.load_into(start, memoryview(buffer))
        assert buffer == whole[start:end]
    cached.close()
    store.close()


@pytest.mark.parametrize("seed", range(8))
def test_damage_to_files_in_use_or_not_never_gives_wrong_bytes(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    store = make_store(tmp_path, limit=60 * BLOCK)
    versions = [ObjectVersion(f"k{i}", "e", dice.randrange(1, 24 * BLOCK)) for i in range(4)]
    open_readings: list[Reading] = []
    lost = 0
    for _ in range(300):
        files = [*block_files(tmp_path), tmp_path / "blocks/ledger"]
        target = dice.choice(files)
        if dice.random() < 0.7 and target.exists() and target.stat().st_size:
            damage(target, dice)
        if len(open_readings) < 3:
            open_readings.append(Reading(store, dice.choice(versions)))
        reading = dice.choice(open_readings)
        start = dice.randrange(reading.version.size)
        reading.check(start, dice.randrange(start + 1, reading.version.size + 1))
        if dice.random() < 0.3:
            open_readings.remove(reading)
            lost += reading.lost
            reading.close()
    for reading in open_readings:
        reading.close()
    assert lost > 0
    CacheInspector(store).verify(lambda _progress: None)
    for version in versions:
        load(store, version)
    store.close()


def test_verify_finds_every_damaged_block_and_forgets_it(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    load(store, VERSION)
    load(store, ObjectVersion("other", "e", 5 * BLOCK))
    inspector = CacheInspector(store)
    assert inspector.verify(lambda _progress: None).damaged_blocks == 0
    identity = store.identity(VERSION)
    assert identity is not None
    with (tmp_path / "blocks" / identity.shelf / identity.name).open("r+b") as file:
        for index in (3, 20):
            file.seek(identity.block_offset(index))
            file.write(b"wrong")
    seen = []
    report = inspector.verify(seen.append)
    assert (report.files, report.blocks, report.damaged_blocks) == (2, 26, 2)
    assert seen[-1].files_done == seen[-1].files_total == 2
    assert inspector.verify(lambda _progress: None).damaged_blocks == 0
    assert inspector.show().blocks == 24
    assert load(store, VERSION).fetched == BLOCK + 123
    store.close()


def test_a_lost_read_is_counted(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    load(store, VERSION)
    with block_files(tmp_path)[0].open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    reading = load(store, VERSION)
    assert reading.lost == 1
    assert store.metrics.registry.get_sample_value("ossfs_cache_lost_reads_total") == 1
    assert load(store, VERSION).lost == 0
    store.close()


def test_figures_tell_size_files_and_hit_ratio(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    load(store, VERSION)
    load(store, VERSION)
    store.shrink()
    figures = CacheInspector(store).show()
    assert figures.files == 1
    assert figures.blocks == 21
    assert figures.used_bytes == disk_bytes(tmp_path)
    assert figures.hit_ratio == pytest.approx(0.5)
    store.close()


def test_clear_removes_everything_that_nobody_has_open(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    load(store, VERSION)
    held = Reading(store, ObjectVersion("held", "e", 3 * BLOCK))
    held.read_all()
    stays = CacheInspector(store).clear()
    assert stays == disk_bytes(tmp_path) == counted_bytes(store)
    assert store.share(VERSION) == 0
    assert store.share(held.version) == held.version.size
    held.check(0, held.version.size)
    held.close()
    assert CacheInspector(store).clear() == 0
    store.close()


def test_one_version_can_be_evicted(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    load(store, VERSION)
    assert store.forget(VERSION) > VERSION.size
    assert store.share(VERSION) == 0
    assert store.forget(VERSION) == 0
    assert counted_bytes(store) == 0
    store.close()

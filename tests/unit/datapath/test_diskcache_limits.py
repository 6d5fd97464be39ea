"""Both limits hold at every moment; a disk that is full, read-only or gone costs only speed."""

import fcntl
import logging
import os
import shutil
import threading
from pathlib import Path

import pytest

from ossfs_py.datapath.diskcache.inspection import CacheInspector, CacheUnavailableError
from ossfs_py.model import ObjectVersion
from tests.support.commands import as_root, tmpfs
from tests.unit.datapath.caching import (
    BLOCK,
    Reading,
    block_files,
    counted_bytes,
    disk_bytes,
    disk_bytes_now,
    load,
    make_store,
)

MIB = 1024**2


def versions(count: int, blocks: int) -> list[ObjectVersion]:
    return [ObjectVersion(f"shard-{i}", "e", blocks * BLOCK) for i in range(count)]


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_the_limit_holds_under_concurrent_load(tmp_path: Path) -> None:
    limit = 100 * BLOCK
    store = make_store(tmp_path, limit=limit)
    work = versions(16, 25)
    failures: list[BaseException] = []
    done = threading.Event()
    most = 0

    def run(offset: int) -> None:
        try:
            for round_ in range(6):
                for i in range(len(work)):
                    load(store, work[(i * (offset + 1) + round_) % len(work)])
        except Exception as exc:  # noqa: BLE001 - told by the main thread
            failures.append(exc)

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, disk_bytes_now(store, tmp_path))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    watcher = threading.Thread(target=watch)
    for thread in [*threads, watcher]:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    watcher.join()
    assert failures == []
    assert limit // 2 < most <= limit
    assert counted_bytes(store) == disk_bytes(tmp_path)
    store.close()


def test_a_working_set_beyond_the_limit_goes_on_and_hits_a_little(tmp_path: Path) -> None:
    store = make_store(tmp_path, limit=64 * BLOCK)
    work = versions(16, 16)
    for _ in range(3):
        for version in work:
            load(store, version)
            load(store, version)
    ratio = CacheInspector(store).show().hit_ratio
    assert ratio is not None
    assert ratio >= 0.5
    assert disk_bytes(tmp_path) <= 64 * BLOCK
    store.close()


def test_what_a_cache_could_hold_is_what_its_limit_and_the_disk_leave(tmp_path: Path) -> None:
    store = make_store(tmp_path, limit=64 * BLOCK)
    load(store, versions(1, 16)[0])
    assert CacheInspector(store).show().capacity_bytes == 64 * BLOCK
    # A disk with no room beyond what others shall have: it holds what it holds.
    store.min_free_bytes = 2**60
    shown = CacheInspector(store).show()
    assert 0 < shown.capacity_bytes == shown.used_bytes
    store.close()


def test_a_version_larger_than_the_cache_keeps_what_fits(tmp_path: Path) -> None:
    store = make_store(tmp_path, limit=32 * BLOCK)
    version = ObjectVersion("big", "e", 100 * BLOCK)
    reading = Reading(store, version)
    for start in range(0, version.size, 4 * BLOCK):
        reading.check(start, start + 4 * BLOCK)
    reading.close()
    assert 16 * BLOCK < store.share(version) <= 32 * BLOCK
    assert disk_bytes(tmp_path) <= 32 * BLOCK
    store.close()


def test_a_large_file_gives_up_its_tail_first(tmp_path: Path) -> None:
    store = make_store(tmp_path, limit=400 * BLOCK)
    big, small = ObjectVersion("big", "e", 300 * BLOCK), ObjectVersion("small", "e", 99 * BLOCK)
    load(store, big)
    load(store, small)
    share = store.share(big)
    assert 0 < share < big.size
    reading = Reading(store, big)
    reading.check(0, share)
    assert reading.fetched == 0
    reading.close()
    store.close()


def test_an_old_version_makes_room_for_the_new_one(tmp_path: Path) -> None:
    store = make_store(tmp_path, limit=70 * BLOCK)
    old, new = ObjectVersion("k", "1", 20 * BLOCK), ObjectVersion("k", "2", 20 * BLOCK)
    other = ObjectVersion("other", "e", 20 * BLOCK)
    load(store, other)
    load(store, old)
    load(store, old)
    load(store, new)
    load(store, ObjectVersion("more", "e", 20 * BLOCK))
    assert store.share(old) < old.size
    assert store.share(other) == other.size
    assert store.share(new) == new.size
    store.close()


def test_a_smaller_limit_at_the_next_mount_is_reached_at_once(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    for version in versions(8, 16):
        load(store, version)
    store.close()
    store = make_store(tmp_path, limit=40 * BLOCK)
    store.shrink()
    assert disk_bytes(tmp_path) <= 40 * BLOCK
    store.close()


def test_a_full_disk_is_told_once_and_reads_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tmpfs(tmp_path / "small", "size=2m") as small:
        (small / "others").write_bytes(bytes(MIB))
        store = make_store(small)
        readings = [Reading(store, v) for v in versions(6, 80)]
        for reading in readings:
            reading.check(0, reading.version.size)
        assert disk_bytes(small) == counted_bytes(store)
        for reading in readings:
            reading.close()
        assert [w for w in warnings_in(caplog) if "disk is full" in w] == warnings_in(caplog)
        assert len(warnings_in(caplog)) == 1
        skipped = store.metrics.registry.get_sample_value(
            "ossfs_cache_skipped_bytes_total", {"reason": "no_room"}
        )
        assert skipped
        # Once nobody has the files open, the oldest make room again.
        assert load(store, versions(7, 80)[6]).fetched
        assert load(store, versions(7, 80)[6]).fetched == 0
        store.close()


def test_the_cache_shrinks_when_others_need_the_disk(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "size=8m") as small:
        store = make_store(small, min_free=2 * MIB)
        for version in versions(10, 160):
            load(store, version)
            info = os.statvfs(small)
            assert info.f_bavail * info.f_frsize >= 2 * MIB
        assert disk_bytes(small) > 4 * MIB
        (small / "others").write_bytes(bytes(3 * MIB // 2))
        store.shrink()
        info = os.statvfs(small)
        assert info.f_bavail * info.f_frsize >= 2 * MIB
        assert counted_bytes(store) == disk_bytes(small)
        store.close()


def test_a_read_only_directory_is_told_once_and_reads_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tmpfs(tmp_path / "small", "size=8m") as small:
        store = make_store(small)
        load(store, versions(1, 20)[0])
        store.close()
        as_root("mount", "-o", "remount,ro", small)
        store = make_store(small)
        for version in versions(5, 20):
            assert load(store, version).fetched == version.size
        assert len(warnings_in(caplog)) == 1
        assert "Read-only file system" in warnings_in(caplog)[0]
        with pytest.raises(CacheUnavailableError):
            CacheInspector(store)
        store.close()


def test_a_vanished_directory_is_told_once_and_reads_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache_dir = tmp_path / "gone/cache"
    cache_dir.mkdir(parents=True)
    store = make_store(cache_dir)
    reading = Reading(store, ObjectVersion("k", "e", 30 * BLOCK))
    reading.check(0, 10 * BLOCK)
    shutil.rmtree(tmp_path / "gone")
    # The open file is without a name, and still right.
    reading.check(0, 30 * BLOCK)
    reading.close()
    for version in versions(5, 20):
        assert load(store, version).fetched == version.size
    assert len(warnings_in(caplog)) == 1
    store.close()


def test_a_directory_that_comes_back_is_used_again(tmp_path: Path) -> None:
    cache_dir = tmp_path / "cache"
    cache_dir.mkdir()
    store = make_store(cache_dir)
    load(store, versions(1, 20)[0])
    shutil.rmtree(cache_dir)
    load(store, versions(1, 20)[0])
    store.disk._suspended_until = 0.0
    load(store, versions(1, 20)[0])
    assert load(store, versions(1, 20)[0]).fetched == 0
    assert counted_bytes(store) == disk_bytes(cache_dir)
    store.close()


def test_a_mount_stopped_with_the_lock_held_stops_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(tmp_path)
    load(store, versions(1, 20)[0])
    with (tmp_path / "blocks/ledger").open("r+b") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        for version in versions(20, 20)[1:]:
            assert load(store, version).fetched == version.size
    assert len(warnings_in(caplog)) == 1
    assert "lock" in warnings_in(caplog)[0]
    store.disk._suspended_until = 0.0
    load(store, versions(2, 20)[1])
    assert load(store, versions(2, 20)[1]).fetched == 0
    store.close()


def test_another_format_is_rebuilt_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = make_store(tmp_path)
    version = versions(1, 20)[0]
    load(store, version)
    store.close()
    (tmp_path / "blocks/format").write_text("ossfs_py cache 99, blocks of 12\n")
    mine = tmp_path / "blocks/00/not-ours"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("kept")
    store = make_store(tmp_path)
    assert load(store, version).fetched == version.size
    assert load(store, version).fetched == 0
    assert counted_bytes(store) == disk_bytes(tmp_path)
    assert len(warnings_in(caplog)) == 1
    assert "ossfs_py cache 99" in warnings_in(caplog)[0]
    assert mine.read_text() == "kept"
    store.close()


def test_another_block_size_is_another_format(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    version = versions(1, 20)[0]
    for block in (BLOCK, 2 * BLOCK):
        store = make_store(tmp_path, block=block)
        assert load(store, version).fetched == version.size
        store.close()
    assert len(warnings_in(caplog)) == 1


def test_a_directory_in_use_with_another_format_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    version = versions(1, 20)[0]
    one, other = make_store(tmp_path, block=BLOCK), make_store(tmp_path, block=2 * BLOCK)
    load(one, version)
    assert load(other, version).fetched == version.size
    assert load(one, version).fetched == 0
    assert len(warnings_in(caplog)) == 1
    assert "another cache format" in warnings_in(caplog)[0]
    one.close()
    other.close()


def test_files_and_directories_are_for_their_owner_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        (tmp_path / "cache").mkdir(mode=0o777)
        (tmp_path / "cache/blocks").mkdir(mode=0o777)
        store = make_store(tmp_path / "cache")
        load(store, versions(1, 20)[0])
        store.close()
    finally:
        os.umask(old)
    for path in (tmp_path / "cache/blocks").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0
    assert (tmp_path / "cache/blocks").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_nothing_is_written_through_what_was_put_in_a_files_place(
    tmp_path: Path, kind: str
) -> None:
    store = make_store(tmp_path)
    version = versions(1, 20)[0]
    load(store, version)
    path = block_files(tmp_path)[0]
    path.unlink()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    if kind == "symlink":
        path.symlink_to(victim)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    load(store, version)
    assert victim.read_text() == "precious"
    store.close()


def test_a_symlink_is_not_taken_for_the_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "blocks").symlink_to(elsewhere)
    store = make_store(tmp_path)
    load(store, versions(1, 20)[0])
    assert list(elsewhere.iterdir()) == []
    assert len(warnings_in(caplog)) == 1
    store.close()

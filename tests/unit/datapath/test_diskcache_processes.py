"""Several mounts on one cache directory, and mounts that are killed."""

import random
import signal
import subprocess
import sys
from pathlib import Path

from ossfs_py.datapath.diskcache.inspection import CacheInspector
from tests.unit.datapath.cache_worker import VERSIONS
from tests.unit.datapath.caching import (
    BLOCK,
    ROOMY,
    Reading,
    block_files,
    counted_bytes,
    disk_bytes,
    disk_bytes_now,
    load,
    make_store,
)

WORKING_SET = sum(v.size for v in VERSIONS)
TIGHT = WORKING_SET // 3
MARGIN = 4096 * len(VERSIONS)
"""ext4 takes a page for a fragmented file's extents when it writes back; the next eviction counts
it."""


def worker(cache_dir: Path, seed: int, limit: int, rounds: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.unit.datapath.cache_worker",
            *map(str, (cache_dir, seed, limit, rounds)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )


def test_two_mounts_share_blocks_and_keep_one_limit(tmp_path: Path) -> None:
    workers = [worker(tmp_path, seed, TIGHT, 40) for seed in range(3)]
    lines = 0
    observer = make_store(tmp_path, limit=TIGHT)
    # The first worker's progress paces the looks at the disk while all of them write.
    assert workers[0].stdout is not None
    for _line in workers[0].stdout:
        lines += 1
        assert disk_bytes_now(observer, tmp_path) <= TIGHT + MARGIN
    observer.close()
    assert lines > 100
    for process in workers:
        _out, err = process.communicate(timeout=300)
        assert (process.returncode, err) == (0, "")
    store = make_store(tmp_path, limit=TIGHT)
    assert abs(counted_bytes(store) - disk_bytes(tmp_path)) <= MARGIN
    assert CacheInspector(store).verify(lambda _progress: None).damaged_blocks == 0
    store.close()


def test_what_one_mount_fetched_another_finds(tmp_path: Path) -> None:
    one, other = make_store(tmp_path), make_store(tmp_path)
    assert load(one, VERSIONS[3]).fetched == VERSIONS[3].size
    assert load(other, VERSIONS[3]).fetched == 0
    one.close()
    other.close()


def test_two_mounts_filling_one_version_at_once_count_it_once(tmp_path: Path) -> None:
    one, other = make_store(tmp_path), make_store(tmp_path)
    version = VERSIONS[-1]
    readings = [Reading(one, version), Reading(other, version)]
    for start in range(0, version.size, 3 * BLOCK):
        for reading in readings:
            reading.check(start, min(start + 3 * BLOCK, version.size))
    for reading in readings:
        reading.close()
    assert counted_bytes(one) == disk_bytes(tmp_path)
    assert load(one, version).fetched == 0
    one.close()
    other.close()


def test_what_another_mount_has_open_is_not_evicted(tmp_path: Path) -> None:
    version = VERSIONS[4]
    limit = version.size + 12 * BLOCK
    one, other = make_store(tmp_path, limit=limit), make_store(tmp_path, limit=limit)
    held = Reading(one, version)
    held.read_all()
    for filler in VERSIONS:
        load(other, filler)
        assert disk_bytes(tmp_path) <= limit
    before = held.fetched
    held.check(0, version.size)
    assert held.fetched == before
    assert held.lost == 0
    held.close()
    one.close()
    other.close()


def test_killed_mounts_leave_a_cache_that_opens_and_is_right(tmp_path: Path) -> None:
    dice = random.Random(7)
    for moment in range(20):
        process = worker(tmp_path, moment, TIGHT, 1000)
        assert process.stdout is not None
        for _ in range(dice.randrange(1, 40)):
            process.stdout.readline()
        # The worker is somewhere behind the line it printed last.
        process.send_signal(signal.SIGKILL)
        _out, err = process.communicate(timeout=300)
        assert (process.returncode, err) == (-signal.SIGKILL, "")
        assert disk_bytes(tmp_path) <= TIGHT + MARGIN
    store = make_store(tmp_path, limit=TIGHT)
    # Space that was counted and never taken is the worst that is left.
    assert counted_bytes(store) >= disk_bytes(tmp_path) - MARGIN
    for version in VERSIONS:
        load(store, version)
    store.close()
    process = worker(tmp_path, 99, TIGHT, 10)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    assert "saved" in out


def test_a_ledger_that_says_full_is_put_right_when_files_were_deleted(tmp_path: Path) -> None:
    store = make_store(tmp_path, limit=TIGHT)
    for version in VERSIONS:
        load(store, version)
    assert counted_bytes(store) > TIGHT // 2
    for path in block_files(tmp_path):
        path.unlink()
    for version in VERSIONS[:4]:
        load(store, version)
        assert load(store, version).fetched == 0
    assert disk_bytes(tmp_path) <= counted_bytes(store) <= TIGHT
    store.close()


def test_a_missing_or_damaged_ledger_is_counted_anew(tmp_path: Path) -> None:
    ledger = tmp_path / "blocks/ledger"
    store = make_store(tmp_path, limit=ROOMY)
    load(store, VERSIONS[5])
    taken = disk_bytes(tmp_path)
    ledger.unlink()
    assert counted_bytes(store) == taken
    ledger.write_bytes(bytes([ledger.read_bytes()[0] ^ 1]) + ledger.read_bytes()[1:])
    assert counted_bytes(store) == taken
    ledger.write_bytes(b"")
    assert counted_bytes(store) == taken
    store.close()

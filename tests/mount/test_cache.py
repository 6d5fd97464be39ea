"""The disk cache behind a real mount: what it saves, what it survives, what it is asked.

Sizes are small. ``OSSFS_PY_SOAK_DAMAGES`` and ``OSSFS_PY_SOAK_CACHE_KILLS`` say how often the cache
is damaged and its daemon killed (``make damage``).
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from minio import Minio

from ossfs_py.datapath.diskcache.layout import is_block_file_name
from tests.conftest import MountFactory
from tests.support.commands import Outcome, ossfs, tmpfs
from tests.support.mounting import Mount, is_mounted
from tests.support.proxy import Proxy
from tests.support.seaweed import SeaweedServer

MIB = 1024**2
KILLS = int(os.environ.get("OSSFS_PY_SOAK_CACHE_KILLS", "3"))
DAMAGES = int(os.environ.get("OSSFS_PY_SOAK_DAMAGES", "150"))
DAMAGE_ROUNDS = max(3, DAMAGES // 10_000)
"""After each of them everything is read once."""
SECONDS_PER_DAMAGE = 0.01
SECONDS_PER_KILL = 20
SIZE = 24 * MIB
READ_BYTES = MIB
NETWORK_WORKERS = 32


def content(key: str, size: int) -> bytes:
    return random.Random(key).randbytes(size)


@pytest.fixture
def fill(seaweed: SeaweedServer, bucket: str, tmp_path: Path):
    """``fill(key, size)`` stores an object of known content."""

    def put(key: str, size: int = SIZE) -> str:
        source = tmp_path / "source"
        source.write_bytes(content(key, size))
        seaweed.put_file(bucket, key, source)
        source.unlink()
        return key

    return put


@pytest.fixture
def cached(mount: MountFactory, proxy: Proxy, bucket: str, tmp_path: Path):
    """``cached(...)`` mounts the bucket over one cache directory, which outlives the mount."""

    def start(**options: str | int | Path) -> Mount:
        directory = tmp_path / "lasting-cache"
        directory.mkdir(mode=0o700, exist_ok=True)
        options.setdefault("cache_dir", directory)
        options.setdefault("endpoint", proxy.endpoint)
        options.setdefault("min_free", "1MiB")
        return mount(bucket, data_path="cache", **options)

    return start


def read_past_pages(path: Path, offset: int = 0, size: int | None = None) -> bytes:
    """The file's bytes as the daemon answers them, not as the kernel remembers them."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        end = os.fstat(file.fileno()).st_size if size is None else offset + size
        pieces = []
        while offset < end:
            piece = os.pread(file.fileno(), min(READ_BYTES, end - offset), offset)
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces)


def downloads(proxy: Proxy) -> int:
    return proxy.counts()["GetObject"]


def leave_alone(proxy: Proxy, key: str) -> bool:
    """Whether nothing was downloaded but the one byte by which a mount learns that it may read."""
    return downloads(proxy) == proxy.bytes_served(key) == 1


def warm(mounted: Mount, *more: str | Path) -> Outcome:
    return ossfs("warmup", *more, environment={})


def cache_bytes(directory: Path) -> int:
    total = 0
    for path in (directory / "blocks").glob("??/*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total


# -- what it saves ---------------------------------------------------------------------------


def test_a_second_read_costs_no_request_and_one_after_a_restart_a_byte(
    cached, fill, proxy: Proxy
) -> None:
    key = fill("model.bin")
    first = cached()
    assert read_past_pages(first.path / key) == content(key, SIZE)
    # What is behind the reader on its way to the disk is there when a warm-up says so.
    assert warm(first, first.path / key).code == 0
    assert proxy.bytes_served(key) == SIZE
    proxy.reset()
    assert read_past_pages(first.path / key) == content(key, SIZE)
    assert downloads(proxy) == 0
    assert first.unmount() == 0
    second = cached()
    proxy.reset()
    for _ in range(2):
        assert read_past_pages(second.path / key) == content(key, SIZE)
        assert leave_alone(proxy, key)


def test_eight_processes_read_again_for_one_byte(cached, fill, proxy: Proxy) -> None:
    key = fill("model.bin")
    mounted = cached()
    assert warm(mounted, mounted.path).code == 0
    assert mounted.unmount() == 0
    mounted = cached()
    proxy.reset()
    reader = (
        "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", reader, mounted.path / key], stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    answers = {process.communicate(timeout=300)[0] for process in processes}
    assert len(answers) == 1
    assert leave_alone(proxy, key)


def test_a_written_file_is_read_after_a_restart_for_one_byte(cached, proxy: Proxy) -> None:
    data = content("checkpoint", SIZE)
    first = cached()
    (first.path / "checkpoint.pt").write_bytes(data)
    assert first.unmount() == 0
    second = cached()
    proxy.reset()
    assert read_past_pages(second.path / "checkpoint.pt") == data
    assert leave_alone(proxy, "checkpoint.pt")


def test_a_working_set_beyond_the_limit_stays_within_it(
    cached, fill, tmp_path: Path, proxy: Proxy
) -> None:
    limit = 24 * MIB
    keys = [fill(f"shard-{number}", 16 * MIB) for number in range(6)]
    mounted = cached(cache_size=limit, block_size=MIB)
    largest = 0
    for _ in range(2):
        for key in keys:
            assert read_past_pages(mounted.path / key) == content(key, 16 * MIB)
            largest = max(largest, cache_bytes(tmp_path / "lasting-cache"))
    assert largest <= limit + NETWORK_WORKERS * MIB
    outcome = ossfs("cache", "show", mounted.path, "--json", environment={})
    figures = json.loads(outcome.out)
    assert figures["used_bytes"] <= limit
    assert figures["limit_bytes"] == limit
    assert 0 <= figures["hit_ratio"] < 1


# -- what it survives ------------------------------------------------------------------------


@pytest.mark.timeout(600 + DAMAGES * SECONDS_PER_DAMAGE)
def test_damage_while_readers_run_is_never_answered(cached, fill, tmp_path: Path) -> None:
    keys = [fill(f"shard-{number}", 16 * MIB) for number in range(6)]
    expected = {key: content(key, 16 * MIB) for key in keys}
    # Less memory than files: most reads go to the disk.
    mounted = cached(memory_limit="64MiB", block_size=MIB)
    assert warm(mounted, mounted.path).code == 0
    done = threading.Event()

    def read(seed: int) -> int:
        dice = random.Random(seed)
        reads = 0
        while not done.is_set():
            key, offset = dice.choice(keys), dice.randrange(15 * MIB)
            size = dice.choice([1, 4096, 300_000, READ_BYTES])
            answer = read_past_pages(mounted.path / key, offset, size)
            assert answer == expected[key][offset : offset + size]
            reads += 1
        return reads

    dice = random.Random(17)
    with ThreadPoolExecutor(3) as readers:
        running = [readers.submit(read, seed) for seed in range(3)]
        try:
            for round_number in range(DAMAGE_ROUNDS):
                for _ in range(DAMAGES // DAMAGE_ROUNDS):
                    damage(tmp_path / "lasting-cache", dice)
                for key in keys:
                    assert read_past_pages(mounted.path / key) == expected[key], round_number
        finally:
            done.set()
        assert all(one.result() > 0 for one in running)
    stats = json.loads(ossfs("stats", mounted.path, "--json", environment={}).out)
    lost = stats["metrics"]["ossfs_cache_lost_reads"]["samples"][0]["value"]
    assert lost > 0


def damage(directory: Path, dice: random.Random) -> None:
    """Flip a bit of a block file, or cut it, or delete it."""
    files = sorted(p for p in (directory / "blocks").glob("??/*") if is_block_file_name(p.name))
    if not files:
        return
    path = dice.choice(files)
    kind = dice.random()
    with contextlib.suppress(FileNotFoundError):
        if kind < 0.005:
            path.unlink()
        elif kind < 0.02:
            os.truncate(path, dice.randrange(path.stat().st_size + 1))
        else:
            with path.open("r+b", buffering=0) as file:
                offset = dice.randrange(max(1, os.fstat(file.fileno()).st_size))
                byte = os.pread(file.fileno(), 1, offset) or b"\0"
                os.pwrite(file.fileno(), bytes([byte[0] ^ 1 << dice.randrange(8)]), offset)


@pytest.mark.timeout(600 + KILLS * SECONDS_PER_KILL)
def test_a_daemon_killed_at_any_moment_leaves_a_cache_that_opens_and_is_right(
    cached, fill, tmp_path: Path
) -> None:
    limit = 32 * MIB
    keys = [fill(f"shard-{number}", 12 * MIB) for number in range(4)]
    dice = random.Random(23)
    directory = tmp_path / "lasting-cache"
    for _ in range(KILLS):
        mounted = cached(cache_size=limit, block_size=MIB)
        stop = dice.randrange(1, 4 * 12 * MIB)
        read = 0
        try:
            for key in dice.sample(keys, 4):
                for offset in range(0, 12 * MIB, READ_BYTES):
                    piece = read_past_pages(mounted.path / key, offset, READ_BYTES)
                    assert piece == content(key, 12 * MIB)[offset : offset + READ_BYTES]
                    read += len(piece)
                    if read >= stop:
                        raise StopIteration
        except StopIteration:
            pass
        mounted.terminate(signal.SIGKILL)
        mounted.close()
        assert cache_bytes(directory) <= limit
    mounted = cached(cache_size=limit, block_size=MIB)
    for key in keys:
        assert read_past_pages(mounted.path / key) == content(key, 12 * MIB)
    assert ossfs("cache", "verify", mounted.path, environment={}).code == 0


def test_two_daemons_share_one_directory(cached, fill, proxy: Proxy, tmp_path: Path) -> None:
    key = fill("model.bin")
    one, other = cached(), cached()
    assert warm(one, one.path).code == 0
    proxy.reset()
    assert read_past_pages(other.path / key) == content(key, SIZE)
    assert leave_alone(proxy, key)
    assert cache_bytes(tmp_path / "lasting-cache") < SIZE + 2 * MIB


def test_a_cache_of_another_format_is_rebuilt_and_told(
    cached, fill, proxy: Proxy, tmp_path: Path
) -> None:
    key = fill("model.bin")
    first = cached()
    assert warm(first, first.path).code == 0
    assert first.unmount() == 0
    (tmp_path / "lasting-cache/blocks/format").write_text("ossfs_py cache 99, blocks of 1\n")
    second = cached()
    assert read_past_pages(second.path / key) == content(key, SIZE)
    assert "rebuilding the cache" in second.log
    assert "cache 99" in second.log


def test_a_full_disk_costs_one_warning_and_no_error(cached, fill, tmp_path: Path) -> None:
    key = fill("model.bin")
    with tmpfs(tmp_path / "small", "size=2m") as small:
        mounted = cached(cache_dir=small, min_free=0)
        for _ in range(2):
            assert read_past_pages(mounted.path / key) == content(key, SIZE)
        assert mounted.log.count("WARNING") <= 1
        assert mounted.unmount() == 0


def test_a_disk_full_at_the_start_costs_one_warning_and_no_error(
    cached, fill, tmp_path: Path
) -> None:
    key = fill("model.bin")
    with tmpfs(tmp_path / "small", "size=64k") as small:
        mounted = cached(cache_dir=small, min_free=0)
        assert read_past_pages(mounted.path / key) == content(key, SIZE)
        assert mounted.log.count("WARNING") == 1
        assert mounted.unmount() == 0


def test_a_directory_that_vanishes_costs_one_warning_and_no_error(
    cached, fill, tmp_path: Path
) -> None:
    keys = [fill("one"), fill("two")]
    mounted = cached()
    assert warm(mounted, mounted.path / "one").code == 0
    shutil.rmtree(tmp_path / "lasting-cache")
    for key in keys:
        assert read_past_pages(mounted.path / key) == content(key, SIZE)
    assert mounted.log.count("WARNING") <= 1


def test_a_limit_below_the_minimum_is_wrong_usage(
    bucket: str, tmp_path: Path, seaweed: SeaweedServer
) -> None:
    (tmp_path / "mnt").mkdir()
    outcome = ossfs(
        *("mount", bucket, tmp_path / "mnt", "--endpoint", seaweed.endpoint),
        *("--data-path", "cache", "--cache-size", "1000"),
        environment=seaweed.environment,
    )
    assert outcome.code == 2
    assert "cache-size" in outcome.err


# -- warming up ------------------------------------------------------------------------------


@pytest.fixture
def tree(fill) -> dict[str, int]:
    sizes = {f"models/a/{n}.bin": (n + 1) * 700_000 for n in range(6)}
    sizes |= {"models/b/config.json": 300, "models/b/empty": 0, "other/x.bin": 2 * MIB}
    for key, size in sizes.items():
        fill(key, size)
    return sizes


def test_a_directory_is_warmed_up_and_then_read_without_a_request(
    cached, tree: dict[str, int], proxy: Proxy
) -> None:
    mounted = cached()
    outcome = ossfs("warmup", mounted.path / "models", "--json", environment={})
    assert outcome.code == 0, outcome.err
    report = json.loads(outcome.out)
    below = {key: size for key, size in tree.items() if key.startswith("models/")}
    assert (report["files"], report["bytes"]) == (len(below), sum(below.values()))
    assert report["fetched_bytes"] == sum(below.values())
    proxy.reset()
    for key, size in below.items():
        assert read_past_pages(mounted.path / key) == content(key, size)
    assert downloads(proxy) == 0


def test_a_second_warm_up_fetches_only_what_is_missing(
    cached, tree: dict[str, int], proxy: Proxy
) -> None:
    mounted = cached()
    assert warm(mounted, mounted.path / "models/a/*[135].bin").code == 0
    outcome = ossfs("warmup", mounted.path, "--json", "--threads", "2", environment={})
    report = json.loads(outcome.out)
    fetched_before = sum(tree[f"models/a/{n}.bin"] for n in (1, 3, 5))
    assert report["fetched_bytes"] == sum(tree.values()) - fetched_before
    assert proxy.bytes_served() == sum(tree.values())


def test_check_tells_what_is_cached_and_evict_takes_it_out(cached, tree: dict[str, int]) -> None:
    mounted = cached()
    one = mounted.path / "models/a/2.bin"
    assert warm(mounted, one).code == 0
    told = ossfs("warmup", "--check", "--json", mounted.path / "models/a", environment={})
    assert told.code == 1
    shares = {row["path"]: row["cached_bytes"] for row in json.loads(told.out)["files"]}
    assert shares[str(one)] == tree["models/a/2.bin"]
    assert sum(shares.values()) == tree["models/a/2.bin"]
    table = ossfs("warmup", "--check", one, environment={})
    assert table.code == 0
    assert "100%" in table.out
    assert ossfs("warmup", "--evict", one, environment={}).code == 0
    assert ossfs("warmup", "--check", one, environment={}).code == 1


def test_paths_come_from_a_list_and_through_links(
    cached, tree: dict[str, int], tmp_path: Path
) -> None:
    mounted = cached()
    (mounted.path / "link.bin").symlink_to("other/x.bin")
    names = tmp_path / "names"
    names.write_text(f"# the night's models\n\n{mounted.path}/link.bin\n")
    assert ossfs("warmup", "--from-file", names, environment={}).code == 0
    assert ossfs("warmup", "--check", mounted.path / "other/x.bin", environment={}).code == 0


def test_in_the_background_the_command_returns_and_the_log_tells_the_end(
    cached, tree: dict[str, int]
) -> None:
    mounted = cached()
    outcome = ossfs("warmup", "--background", mounted.path, environment={})
    assert (outcome.code, outcome.err) == (0, "")
    # Single flight: this one waits for what the other has begun.
    assert warm(mounted, mounted.path).code == 0
    assert ossfs("warmup", "--check", mounted.path, environment={}).code == 0


def test_what_does_not_fit_is_missing(cached, fill) -> None:
    for number in range(4):
        fill(f"shard-{number}", 4 * MIB)
    mounted = cached(cache_size="6MiB", block_size=MIB)
    outcome = ossfs("warmup", "--json", mounted.path, environment={})
    assert outcome.err == (
        f"ossfs-py: warning: 16.0 MiB do not fit into the cache of {mounted.path} (6.0 MiB):"
        " the files that are fetched first will be evicted again (see --cache-size)\n"
    )
    checked = ossfs("warmup", "--check", "--json", mounted.path, environment={})
    assert checked.code == 1
    assert 0 < json.loads(checked.out)["cached_bytes"] <= 6 * MIB
    assert outcome.code == 1


def test_a_missing_path_is_told_and_keeps_nothing_else_from_coming(
    cached, tree: dict[str, int]
) -> None:
    mounted = cached()
    outcome = ossfs("warmup", mounted.path / "nothing", mounted.path / "other", environment={})
    assert outcome.code == 1
    assert outcome.sentence == f"{mounted.path}/nothing: it does not exist"
    assert ossfs("warmup", "--check", mounted.path / "other", environment={}).code == 0


def test_a_path_outside_every_mount_is_told(tmp_path: Path) -> None:
    outcome = ossfs("warmup", tmp_path, environment={})
    assert outcome.code == 1
    assert outcome.sentence == f"{tmp_path} is outside every ossfs-py mount (see 'ossfs-py list')"


def test_a_mount_without_a_cache_is_told(mount: MountFactory, bucket: str, fill) -> None:
    fill("one", MIB)
    mounted = mount(bucket, data_path="direct")
    for command in (("warmup", mounted.path), ("cache", "show", mounted.path)):
        outcome = ossfs(*command, environment={})
        assert outcome.code == 1
        assert outcome.sentence.startswith("this mount has no disk cache: ")


@pytest.fixture
def dead(cached, fill) -> Iterator[Mount]:
    mounted: Mount = cached()
    mounted.terminate(signal.SIGKILL)
    assert is_mounted(mounted.path)
    yield mounted
    mounted.close()


def test_a_daemon_that_is_gone_is_told(dead: Mount) -> None:
    for command in ("warmup", "stats", "info"):
        outcome = ossfs(command, dead.path, environment={})
        assert outcome.code == 1
        assert outcome.sentence.startswith(f"the daemon of the mount at {dead.path} is gone")


def test_nothing_to_warm_up_is_wrong_usage() -> None:
    assert ossfs("warmup", environment={}).code == 2
    assert ossfs("warmup", "--check", "--evict", "/", environment={}).code == 2
    assert ossfs("warmup", "--from-file", "/no/such/list", environment={}).code == 2


# -- the cache as a whole, and the mount -----------------------------------------------------


def test_show_verify_and_clear(cached, tree: dict[str, int], tmp_path: Path) -> None:
    mounted = cached()
    assert warm(mounted, mounted.path).code == 0
    figures = json.loads(ossfs("cache", "show", mounted.path, "--json", environment={}).out)
    assert figures["files"] == sum(1 for size in tree.values() if size)
    assert figures["used_bytes"] >= sum(tree.values())
    assert ossfs("cache", "verify", mounted.path, environment={}).code == 0
    file = max((tmp_path / "lasting-cache/blocks").glob("??/*"), key=lambda p: p.stat().st_size)
    with file.open("r+b") as damaged:
        damaged.seek(MIB)
        damaged.write(b"rotten")
    found = ossfs("cache", "verify", mounted.path, "--json", environment={})
    assert (found.code, json.loads(found.out)["damaged_blocks"]) == (1, 1)
    assert ossfs("cache", "verify", mounted.path, environment={}).code == 0
    assert ossfs("cache", "clear", mounted.path, environment={}).out == "The cache is empty.\n"
    assert cache_bytes(tmp_path / "lasting-cache") == 0


def test_info_stats_and_list_tell_about_mounts(
    cached, tree: dict[str, int], bucket: str, minio_client: Minio
) -> None:
    mounted = cached()
    told = json.loads(ossfs("info", mounted.path / "other/x.bin", "--json", environment={}).out)
    stored = minio_client.stat_object(bucket, "other/x.bin")
    assert (told["key"], told["bytes"], told["etag"]) == ("other/x.bin", 2 * MIB, stored.etag)
    assert "other/x.bin" in ossfs("info", mounted.path / "other/x.bin", environment={}).out
    assert ossfs("info", mounted.path / "nothing", environment={}).code == 1
    stats = json.loads(ossfs("stats", mounted.path, "--json", environment={}).out)
    assert stats["data_path"] == "cache"
    assert "ossfs_store_requests" in stats["metrics"]
    assert "Bytes read" in ossfs("stats", mounted.path, "--once", environment={}).out
    listed = json.loads(ossfs("list", "--json", environment={}).out)
    row = next(row for row in listed if row["mountpoint"] == str(mounted.path))
    assert (row["source"], row["pid"], row["state"]) == (bucket, mounted.pid, "mounted")
    assert row["endpoint"].startswith("http://127.0.0.1:")
    # A pipe gets one line a mount, however long the paths are.
    (line,) = [
        line
        for line in ossfs("list", environment={}).out.splitlines()
        if line.startswith(f"{mounted.path} ")
    ]
    assert line.split() == [
        *(str(mounted.path), bucket, row["endpoint"], "cache", str(mounted.pid), "mounted")
    ]

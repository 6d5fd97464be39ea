"""Walks, small files and freshness on a real mount, with the requests counted at the store."""

import concurrent.futures
import ctypes
import os
import random
import subprocess
import time
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.commands import ossfs
from tests.support.proxy import Proxy
from tests.support.seaweed import SeaweedServer

DIRECTORIES, FILES = 20, 100
SMALL_FILES = 120
LISTS_OF_A_WALK = 6
STAT_ROUNDS = 2
STAT_CPU_SECONDS = 200e-6
"""A stat(2) that the daemon answers from memory took 33 us of its CPU time here."""
AT_FDCWD, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS = -100, 0x2000, 0x7FF
"""linux/fcntl.h and linux/stat.h: ask the file system, whatever the kernel remembers."""
STATX_BYTES = 256
WITHIN_SECONDS = 40
"""The TTL of one second, and the slowness of a busy machine."""


@pytest.fixture(scope="module")
def trees(
    seaweed: SeaweedServer, module_bucket: str, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A bucket with a tree of small directories and a directory of small files."""
    source = tmp_path_factory.mktemp("object") / "source"
    keys = [f"tree/d{d:02}/f{f:03}" for d in range(DIRECTORIES) for f in range(FILES)]
    keys += [f"small/f{n:03}" for n in range(SMALL_FILES)]
    source.write_bytes(b"small content" * 500)
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda key: seaweed.put_file(module_bucket, key, source), keys))
    return module_bucket


def names_in(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def walk(root: Path) -> int:
    """Files below a directory, each asked for its attributes."""
    return sum(
        1
        for directory, _, names in os.walk(root)
        for name in names
        if os.stat(f"{directory}/{name}").st_size  # noqa: PTH116 - the system call alone
    )


def test_a_walk_over_2000_files_costs_six_requests_and_the_next_one_none(
    mount: MountFactory, proxy: Proxy, trees: str
) -> None:
    mounted = mount(trees, data_path="direct", endpoint=proxy.endpoint)
    proxy.reset()
    assert walk(mounted.path / "tree") == DIRECTORIES * FILES
    assert proxy.counts().total() <= LISTS_OF_A_WALK
    proxy.reset()
    assert walk(mounted.path / "tree") == DIRECTORIES * FILES
    assert proxy.counts().total() == 0


def test_attributes_of_known_names_cost_little_and_no_request(
    mount: MountFactory, proxy: Proxy, trees: str
) -> None:
    mounted = mount(
        trees, data_path="direct", endpoint=proxy.endpoint, metadata_ttl="1h", executed=True
    )
    libc = ctypes.CDLL(None, use_errno=True)
    answer = ctypes.create_string_buffer(STATX_BYTES)
    paths = [str(path).encode() for path in (mounted.path / "tree").glob("*/*")]
    assert len(paths) == DIRECTORIES * FILES
    proxy.reset()
    before = mounted.cpu_seconds
    for path in paths * STAT_ROUNDS:
        assert not libc.statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, answer)
    assert proxy.counts().total() == 0
    assert mounted.cpu_seconds - before < len(paths) * STAT_ROUNDS * STAT_CPU_SECONDS


def test_full_attributes_cost_one_question_for_each_object_and_survive_with_the_cache(
    mount: MountFactory, proxy: Proxy, trees: str
) -> None:
    options = {"data_path": "cache", "endpoint": proxy.endpoint, "posix_metadata": True}
    mounted = mount(trees, **options)
    proxy.reset()
    assert walk(mounted.path / "small") == SMALL_FILES
    assert SMALL_FILES <= proxy.counts()["HeadObject"] <= SMALL_FILES + 2
    assert mounted.unmount() == 0
    again = mount(trees, **options, cache_dir=mounted.cache_dir)
    proxy.reset()
    assert walk(again.path / "small") == SMALL_FILES
    assert proxy.counts()["HeadObject"] <= 2


@pytest.mark.parametrize("readers", [1, 16])
def test_small_files_cost_one_get_each_in_any_order(
    mount: MountFactory, proxy: Proxy, trees: str, data_path: str, readers: int
) -> None:
    mounted = mount(trees, data_path=data_path, endpoint=proxy.endpoint)
    names = names_in(mounted.path / "small")
    if readers > 1:
        random.Random(5).shuffle(names)
    proxy.reset()
    with concurrent.futures.ThreadPoolExecutor(readers) as threads:
        bodies = set(threads.map(lambda name: (mounted.path / "small" / name).read_bytes(), names))
    assert bodies == {b"small content" * 500}
    assert proxy.counts() == {"GetObject": SMALL_FILES}


def test_without_prefetch_only_what_is_opened_is_fetched(
    mount: MountFactory, proxy: Proxy, trees: str
) -> None:
    mounted = mount(trees, data_path="direct", endpoint=proxy.endpoint, no_small_file_prefetch=True)
    names = names_in(mounted.path / "small")
    proxy.reset()
    for name in names[:10]:
        (mounted.path / "small" / name).read_bytes()
    assert proxy.counts() == {"GetObject": 10}


def test_a_ttl_of_zero_asks_every_time(
    mount: MountFactory, seaweed: SeaweedServer, bucket: str, minio_client: Minio, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"one")
    seaweed.put_file(bucket, "f", source)
    mounted = mount(bucket, metadata_ttl="0")
    assert (mounted.path / "f").read_bytes() == b"one"
    source.write_bytes(b"another")
    seaweed.put_file(bucket, "f", source)
    seaweed.put_file(bucket, "g", source)
    assert (mounted.path / "f").stat().st_size == 7
    assert (mounted.path / "f").read_bytes() == b"another"
    assert names_in(mounted.path) == ["f", "g"]
    minio_client.remove_object(bucket, "f")
    assert names_in(mounted.path) == ["g"]
    assert not (mounted.path / "f").exists()


def test_with_a_ttl_of_zero_each_stat_is_a_question_and_cached_pages_are_not_believed(
    mount: MountFactory, seaweed: SeaweedServer, proxy: Proxy, bucket: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"a" * 10_000)
    seaweed.put_file(bucket, "f", source)
    mounted = mount(bucket, data_path="cache", metadata_ttl="0", endpoint=proxy.endpoint)
    for content in (b"b" * 10_000, b"c" * 10_000):
        before = (mounted.path / "f").read_bytes()
        source.write_bytes(content)
        seaweed.put_file(bucket, "f", source)
        assert before != (mounted.path / "f").read_bytes() == content
    proxy.reset()
    for _ in range(5):
        (mounted.path / "f").stat()
    assert proxy.counts()["HeadObject"] >= 5
    proxy.reset()
    for _ in range(5):
        assert names_in(mounted.path) == ["f"]
    assert proxy.counts()["ListObjects"] >= 5


def test_without_listing_again_what_others_did_to_a_file_shows_within_the_ttl(
    mount: MountFactory,
    seaweed: SeaweedServer,
    bucket: str,
    minio_client: Minio,
    tmp_path: Path,
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"a" * 10_000)
    seaweed.put_file(bucket, "d/f", source)
    mounted = mount(bucket, data_path="cache", metadata_ttl="1", negative_ttl="1")
    file, other = mounted.path / "d/f", mounted.path / "d/other"
    assert file.read_bytes() == b"a" * 10_000
    assert not other.exists()
    source.write_bytes(b"b" * 10_000)
    seaweed.put_file(bucket, "d/f", source)
    seaweed.put_file(bucket, "d/other", source)
    deadline = time.monotonic() + WITHIN_SECONDS
    while file.read_bytes() != b"b" * 10_000 or not other.exists():
        assert time.monotonic() < deadline
    minio_client.remove_object(bucket, "d/f")
    while file.exists():
        assert time.monotonic() < deadline + WITHIN_SECONDS
    assert names_in(mounted.path / "d") == ["other"]


def test_changes_of_others_appear_within_the_ttl_page_cache_included(
    mount: MountFactory, seaweed: SeaweedServer, bucket: str, tmp_path: Path, data_path: str
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"a" * 10_000)
    seaweed.put_file(bucket, "d/f", source)
    mounted = mount(bucket, data_path=data_path, metadata_ttl="1")
    assert (mounted.path / "d/f").read_bytes() == b"a" * 10_000
    assert names_in(mounted.path / "d") == ["f"]
    source.write_bytes(b"b" * 10_000)
    seaweed.put_file(bucket, "d/f", source)
    seaweed.put_file(bucket, "d/g", source)
    deadline = time.monotonic() + WITHIN_SECONDS
    while names_in(mounted.path / "d") == ["f"]:
        assert time.monotonic() < deadline
    assert names_in(mounted.path / "d") == ["f", "g"]
    assert (mounted.path / "d/f").read_bytes() == b"b" * 10_000


def test_refresh_shows_changes_of_others_at_once(
    mount: MountFactory,
    seaweed: SeaweedServer,
    bucket: str,
    minio_client: Minio,
    tmp_path: Path,
    data_path: str,
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"before")
    for key in ("d/changed", "d/removed"):
        seaweed.put_file(bucket, key, source)
    mounted = mount(bucket, data_path=data_path, metadata_ttl="1h")
    assert names_in(mounted.path / "d") == ["changed", "removed"]
    assert (mounted.path / "d/changed").read_bytes() == b"before"
    source.write_bytes(b"after it")
    seaweed.put_file(bucket, "d/changed", source)
    seaweed.put_file(bucket, "d/new", source)
    minio_client.remove_object(bucket, "d/removed")
    assert names_in(mounted.path / "d") == ["changed", "removed"]
    told = ossfs("refresh", mounted.path / "d", environment={})
    assert told.code == 0, told.err
    assert names_in(mounted.path / "d") == ["changed", "new"]
    assert (mounted.path / "d/changed").read_bytes() == b"after it"
    assert (mounted.path / "d/changed").stat().st_size == 8
    assert not (mounted.path / "d/removed").exists()


def test_refresh_of_what_is_not_there_says_so(mount: MountFactory, bucket: str) -> None:
    mounted = mount(bucket)
    told = ossfs("refresh", mounted.path / "nothing", environment={})
    assert told.code == 1
    assert "does not exist" in told.sentence


def test_find_and_du_agree_with_a_walk(mount: MountFactory, trees: str) -> None:
    mounted = mount(trees, data_path="direct")
    found = subprocess.run(
        ["find", str(mounted.path), "-type", "f"], capture_output=True, text=True, check=True
    )
    assert len(found.stdout.splitlines()) == DIRECTORIES * FILES + SMALL_FILES

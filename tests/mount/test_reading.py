"""Reading through a real mount: the right bytes, each downloaded once, and little beside."""

import concurrent.futures
import hashlib
import io
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.chosen import chosen_server
from tests.support.faults import Fault
from tests.support.proxy import Proxy
from tests.support.seaweed import SeaweedServer
from tests.support.servers import deviations

MIB = 1024**2
# How a reader plans is found out on the embedded server; another one only has to send each byte.
BIG_BYTES = (128 if chosen_server() else 512) * MIB
if chosen_server() in deviations.RANGES_COST_THE_OBJECT:
    BIG_BYTES = 64 * MIB
FILES = 300 if chosen_server() else 2000
BLOCK_BYTES = 8 * MIB
QUARTERS = 4
KEY = "models/big.bin"


@dataclass(frozen=True)
class BigObject:
    bucket: str
    sha256: str
    quarters: tuple[str, ...]


@pytest.fixture(scope="module")
def big(
    seaweed: SeaweedServer, module_bucket: str, tmp_path_factory: pytest.TempPathFactory
) -> BigObject:
    """An object in which no two blocks are alike, and its checksums."""
    path = tmp_path_factory.mktemp("big") / "source"
    random = np.random.default_rng(7)
    whole, quarters = hashlib.sha256(), []
    with path.open("wb") as out:
        for _ in range(QUARTERS):
            part = random.bytes(BIG_BYTES // QUARTERS)
            whole.update(part)
            quarters.append(hashlib.sha256(part).hexdigest())
            out.write(part)
    seaweed.put_file(module_bucket, KEY, path)
    path.unlink()
    return BigObject(module_bucket, whole.hexdigest(), tuple(quarters))


def assert_served_once(proxy: Proxy) -> None:
    """The store sent every byte, and no more than one block's worth twice."""
    served = proxy.times_served(KEY)
    assert sum(served.values()) == BIG_BYTES
    assert abs(proxy.bytes_served(KEY) - BIG_BYTES) <= BLOCK_BYTES


def test_one_reader_gets_every_byte_and_the_store_sends_each_once(
    mount: MountFactory, proxy: Proxy, big: BigObject, data_path: str
) -> None:
    mounted = mount(big.bucket, data_path=data_path, endpoint=proxy.endpoint, executed=True)
    assert sha256sum(mounted.path / KEY) == big.sha256
    assert_served_once(proxy)
    if data_path == "direct":  # the others hold more for a while: what is on its way to disk
        # A wide window, what was read last, and the program itself, of 512 MiB that passed.
        assert mounted.peak_rss_bytes < 450 * MIB


def test_eight_readers_at_once_cost_one_download(
    mount: MountFactory, proxy: Proxy, big: BigObject, data_path: str
) -> None:
    mounted = mount(big.bucket, data_path=data_path, endpoint=proxy.endpoint)
    with concurrent.futures.ThreadPoolExecutor(8) as readers:
        sums = list(readers.map(sha256sum, [mounted.path / KEY] * 8))
    assert sums == [big.sha256] * 8
    assert_served_once(proxy)


def test_four_threads_on_one_descriptor_cost_one_download(
    mount: MountFactory, proxy: Proxy, big: BigObject, data_path: str
) -> None:
    mounted = mount(big.bucket, data_path=data_path, endpoint=proxy.endpoint)
    fd = os.open(mounted.path / KEY, os.O_RDONLY)

    def quarter(number: int) -> str:
        digest = hashlib.sha256()
        size = BIG_BYTES // QUARTERS
        for offset in range(number * size, (number + 1) * size, MIB):
            digest.update(os.pread(fd, MIB, offset))
        return digest.hexdigest()

    try:
        with concurrent.futures.ThreadPoolExecutor(QUARTERS) as threads:
            assert tuple(threads.map(quarter, range(QUARTERS))) == big.quarters
    finally:
        os.close(fd)
    assert_served_once(proxy)


def test_a_recursive_listing_costs_list_requests_only(
    mount: MountFactory, proxy: Proxy, minio_client: Minio, bucket: str, data_path: str
) -> None:
    keys = [f"dir{n // 100:02}/file{n % 100:03}" for n in range(FILES)]
    with concurrent.futures.ThreadPoolExecutor(8) as writers:
        list(writers.map(lambda key: put(minio_client, bucket, key, key.encode()), keys))
    mounted = mount(bucket, data_path=data_path, endpoint=proxy.endpoint)
    proxy.reset()
    listed = subprocess.run(
        ["ls", "-lR", mounted.path], check=True, capture_output=True, text=True
    ).stdout
    assert sum(line.startswith("-") for line in listed.splitlines()) == FILES
    assert set(proxy.counts()) == {"ListObjects"}


def test_opening_and_closing_a_listed_file_costs_no_request(
    mount: MountFactory, proxy: Proxy, minio_client: Minio, bucket: str, data_path: str
) -> None:
    put(minio_client, bucket, "dir/file", b"content")
    mounted = mount(bucket, data_path=data_path, endpoint=proxy.endpoint)
    assert [path.name for path in (mounted.path / "dir").iterdir()] == ["file"]
    proxy.reset()
    for _ in range(10):
        os.close(os.open(mounted.path / "dir/file", os.O_RDONLY))
    assert not proxy.counts()


def test_a_warm_file_is_read_again_without_a_request(
    mount: MountFactory, proxy: Proxy, minio_client: Minio, bucket: str, data_path: str
) -> None:
    content = os.urandom(3 * MIB)
    put(minio_client, bucket, "file", content)
    mounted = mount(bucket, data_path=data_path, endpoint=proxy.endpoint)
    assert (mounted.path / "file").read_bytes() == content
    proxy.reset()
    assert (mounted.path / "file").read_bytes() == content
    assert not proxy.counts()


def test_reading_in_memory_writes_nothing_to_any_disk(
    mount: MountFactory, minio_client: Minio, bucket: str
) -> None:
    content = np.random.default_rng(3).bytes(192 * MIB)
    put(minio_client, bucket, "file", content)
    put(minio_client, bucket, "first", b"1")
    mounted = mount(bucket, data_path="direct", log_level="warning")
    # The log, which is on disk, has what there is to say of a store once it has been read from.
    assert (mounted.path / "first").read_bytes() == b"1"
    before = mounted.disk_write_bytes
    with (mounted.path / "file").open("rb") as opened:
        assert opened.read() == content
        assert not mounted.local_files()
        assert not [name for name in mounted.open_files() if name.startswith(str(mounted.temp_dir))]
    assert mounted.disk_write_bytes == before


def test_a_mount_at_rest_is_small(mount: MountFactory, bucket: str, data_path: str) -> None:
    mounted = mount(bucket, data_path=data_path, executed=True)
    assert list(mounted.path.iterdir()) == []
    assert mounted.rss_bytes < 120e6


@pytest.mark.alone
def test_mounting_takes_less_than_a_second_and_a_half(
    mount: MountFactory, bucket: str, data_path: str
) -> None:
    # The best of three: this machine does other things as well.
    starts = [mount(bucket, data_path=data_path, executed=True) for _ in range(3)]
    assert min(one.mount_seconds for one in starts) < 1.5


def sha256sum(path: Path) -> str:
    """By a program that knows nothing of us, with a descriptor of its own."""
    run = subprocess.run(["sha256sum", path], check=True, capture_output=True, text=True)
    return run.stdout.split()[0]


def put(client: Minio, bucket: str, key: str, content: bytes) -> None:
    client.put_object(bucket, key, io.BytesIO(content), len(content))


def test_a_request_that_is_stuck_is_asked_again_before_it_times_out(
    mount: MountFactory, proxy: Proxy, minio_client: Minio, bucket: str
) -> None:
    content = np.random.default_rng(3).bytes(64 * MIB)
    put(minio_client, bucket, "file", content)
    mounted = mount(bucket, data_path="direct", endpoint=proxy.endpoint, stall_timeout="60s")
    proxy.faults.append(Fault(operation="GetObject", skip=4, stall_after=100_000))
    began = time.monotonic()
    assert (mounted.path / "file").read_bytes() == content
    assert time.monotonic() - began < 30
    assert proxy.faults[0].hits > 4

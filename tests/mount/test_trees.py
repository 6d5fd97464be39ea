"""Trees of small files on a real mount: what making and removing them costs at the store."""

import concurrent.futures
import time
from io import BytesIO
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.faults import Fault
from tests.support.mounting import Mount
from tests.support.proxy import Proxy, Shape

FILES = 48
WRITERS = 16
SLOW_SECONDS = 0.3
"""A store far enough away for a busy machine to bring all writers to it at once."""
LISTINGS = 1.0
"""New ones a second, one for each lifetime of an absence."""
LIFETIME_SECONDS = 3.0
WITHIN_SECONDS = 40.0


def make_files(directory: Path, writers: int) -> float:
    """Make FILES small files; the seconds it took."""
    began = time.monotonic()
    paths = [directory / f"f{number:03}" for number in range(FILES)]
    with concurrent.futures.ThreadPoolExecutor(writers) as threads:
        list(threads.map(lambda path: path.write_bytes(b"small"), paths))
    return time.monotonic() - began


@pytest.fixture
def counted(mount: MountFactory, proxy: Proxy, bucket: str) -> Mount:
    """A mount whose requests are counted."""
    return mount(bucket, data_path="temp", endpoint=proxy.endpoint, negative_ttl="1s")


def test_a_new_file_costs_one_request(counted: Mount, proxy: Proxy) -> None:
    directory = counted.path / "made"
    directory.mkdir()
    (directory / "first").write_bytes(b"what is found out at the first write is")
    proxy.reset()
    seconds = make_files(directory, 1)
    counts = proxy.counts()
    assert counts["PutObject"] == FILES
    assert counts["HeadObject"] == 0
    assert counts["ListObjects"] <= 1 + LISTINGS * seconds


def test_writers_in_one_directory_do_not_wait_for_one_another(counted: Mount, proxy: Proxy) -> None:
    directory = counted.path / "made"
    directory.mkdir()
    (directory / "first").write_bytes(b"x")
    proxy.shape = Shape(ttfb_seconds=SLOW_SECONDS)
    proxy.reset()
    make_files(directory, WRITERS)
    assert proxy.peak_in_flight >= WRITERS / 2


def test_a_directory_made_here_costs_one_request_and_its_attributes_another(
    counted: Mount, proxy: Proxy
) -> None:
    (counted.path / "first").mkdir()  # With it the mount finds out what markers the store keeps.
    directory = counted.path / "made"
    assert not directory.exists()
    proxy.reset()
    directory.mkdir()
    directory.chmod(0o711)
    assert proxy.counts() == {"PutObject": 2}
    assert directory.stat().st_mode & 0o777 == 0o711


@pytest.mark.parametrize("refusal", [None, (403, "AccessDenied"), (501, "NotImplemented")])
def test_renaming_a_directory_removes_its_old_keys_in_batches_where_that_can_be(
    counted: Mount, proxy: Proxy, refusal: tuple[int, str] | None, minio_client: Minio
) -> None:
    directory = counted.path / "made"
    directory.mkdir()
    make_files(directory, WRITERS)
    if refusal is not None:
        status, code = refusal
        proxy.faults.append(Fault(times=None, operation="DeleteObjects", status=status, code=code))
    proxy.reset()
    directory.rename(counted.path / "moved")
    counts = proxy.counts()
    assert counts["DeleteObjects"] == 1
    # The marker goes last, alone; what the mount tries the store with goes by itself.
    singly = [
        one.key
        for one in proxy.exchanges
        if one.operation == "DeleteObject" and ".ossfs-py-probe-" not in one.key
    ]
    assert len(singly) == (1 if refusal is None else FILES + 1)
    stored = [
        found.object_name
        for found in minio_client.list_objects(bucket_of(counted), prefix="m", recursive=True)
    ]
    names = [f"moved/f{number:03}" for number in range(FILES)]
    assert sorted(name for name in stored if not name.endswith("/")) == names


def bucket_of(mounted: Mount) -> str:
    return mounted.source.partition("/")[0]


def test_the_kernel_believes_an_absence_no_longer_than_its_lifetime(
    mount: MountFactory, proxy: Proxy, bucket: str, minio_client: Minio
) -> None:
    mounted = mount(
        bucket, endpoint=proxy.endpoint, negative_ttl=str(LIFETIME_SECONDS), executed=True
    )
    minio_client.put_object(bucket, "d/f", BytesIO(b"x"), 1)
    name = mounted.path / "d/name"
    began = time.monotonic()
    assert not name.exists()
    proxy.reset()
    handled = mounted.cpu_seconds
    looks = 0
    while time.monotonic() - began < LIFETIME_SECONDS / 2:
        assert not name.exists()
        looks += 1
    assert proxy.counts().total() == 0
    # 33 us of CPU time each would be the least if the daemon were asked.
    assert mounted.cpu_seconds - handled < max(0.1, looks * 20e-6)
    minio_client.put_object(bucket, "d/name", BytesIO(b"x"), 1)
    while not name.exists():
        assert time.monotonic() - began < WITHIN_SECONDS
    assert name.read_bytes() == b"x"


def test_an_absence_the_kernel_believes_ends_when_a_listing_shows_the_name(
    mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    mounted = mount(bucket, negative_ttl="1h")
    minio_client.put_object(bucket, "d/f", BytesIO(b"x"), 1)
    name = mounted.path / "d/name"
    assert not name.exists()
    minio_client.put_object(bucket, "d/name", BytesIO(b"x"), 1)
    assert not name.exists()
    assert sorted(path.name for path in (mounted.path / "d").iterdir()) == ["f", "name"]
    deadline = time.monotonic() + WITHIN_SECONDS
    while not name.exists():  # told by a thread
        assert time.monotonic() < deadline


def test_a_tree_that_is_walked_as_it_is_read_shows_each_file(
    mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    """The walk reads ahead of the program, which opens files between two directories."""
    made = {
        f"top/{folder:02}/{number:02}": b"%d" % number
        for folder in range(10)
        for number in range(20)
    }
    for key, content in made.items():
        minio_client.put_object(bucket, key, BytesIO(content), len(content))
    mounted = mount(bucket, read_only=True, negative_ttl="1s")
    top = mounted.path / "top"
    read = {
        str(path.relative_to(mounted.path)): path.read_bytes()
        for path in top.rglob("*")
        if path.is_file()
    }
    assert read == made


@pytest.mark.parametrize("late", range(1, 4))
def test_a_directory_others_store_in_while_its_tree_is_removed_stays(
    mount: MountFactory, bucket: str, minio_client: Minio, late: int
) -> None:
    """Where the answer begins that tells of several directories, too."""
    for number in range(5):
        minio_client.put_object(bucket, f"t/d{number}/ours", BytesIO(b"1"), 1)
    mounted = mount(bucket, data_path="temp", write_back=True, negative_ttl=LIFETIME_SECONDS)
    tree = mounted.path / "t"
    for directory in sorted(tree.iterdir()):
        assert [path.name for path in directory.iterdir()] == ["ours"]
        (directory / "ours").unlink()
    time.sleep(LIFETIME_SECONDS)
    minio_client.put_object(bucket, f"t/d{late}/theirs", BytesIO(b"1"), 1)
    for number in range(5):
        directory = tree / f"d{number}"
        if number == late:
            with pytest.raises(OSError, match="not empty"):
                directory.rmdir()
        else:
            directory.rmdir()
    assert (tree / f"d{late}").is_dir()

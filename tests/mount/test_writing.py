"""What can go wrong while writing: the right errno at the right call, and the data kept."""

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.commands import tmpfs
from tests.support.errnos import refused
from tests.support.mounting import Mount, wait_for_log
from tests.support.proxy import Fault, Proxy
from tests.support.recovering import Recovering, names, stored
from tests.support.seaweed import SeaweedServer

KIB = 1024
MIB = 1024**2
FIVE_TIB = 5 * 1024**4


def put(client: Minio, bucket: str, key: str, content: bytes, scratch: Path) -> None:
    """Write an object as somebody else."""
    local = scratch / "put"
    local.write_bytes(content)
    client.fput_object(bucket, key, str(local))


@contextlib.contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Closed at the end: the mount of a test that fails would stay busy for minutes."""
    fd = os.open(path, flags)
    try:
        yield fd
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(fd)
        raise
    os.close(fd)


# -- local disk ---------------------------------------------------------------------------------


def test_a_full_state_directory_is_told_and_what_fitted_is_kept(
    mount: MountFactory, bucket: str, minio_client: Minio, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "small", "size=4m") as small:
        mounted = mount(bucket, data_path="temp", state_dir=small)
        fd = os.open(mounted.path / "file", os.O_RDWR | os.O_CREAT)
        block = os.urandom(64 * KIB)
        written = 0
        with refused(errno.ENOSPC):
            while True:
                written += os.pwrite(fd, block, written)
        assert written >= MIB
        kept = os.fstat(fd).st_size
        os.ftruncate(fd, MIB)
        assert kept >= MIB
        os.close(fd)
        assert stored(minio_client, bucket, "file") == (block * 100)[:MIB]
        # Another file has room again: the first one's bytes are in the bucket.
        (mounted.path / "next").write_bytes(block)
        assert mounted.unmount() == 0


def test_a_sparse_file_of_terabytes_is_refused_before_its_zeros_are_sent(
    mount: MountFactory, bucket: str, data_path: str, minio_client: Minio
) -> None:
    mounted = mount(bucket, data_path=data_path)
    fd = os.open(mounted.path / "file", os.O_RDWR | os.O_CREAT)
    os.write(fd, b"head")
    os.ftruncate(fd, 4 * 1024**4)
    with refused(errno.EFBIG):
        os.fsync(fd)
    assert names(minio_client, bucket) == []
    os.ftruncate(fd, MIB)
    os.fsync(fd)
    assert stored(minio_client, bucket, "file") == b"head".ljust(MIB, b"\0")
    os.ftruncate(fd, 4 * 1024**4)
    with refused(errno.EFBIG):
        os.close(fd)
    assert stored(minio_client, bucket, "file") == b"head".ljust(MIB, b"\0")
    wait_for_log(mounted, "--max-zeros allows")


def test_direct_streams_past_a_full_disk(
    mount: MountFactory, bucket: str, minio_client: Minio, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "small", "size=4m") as small:
        mounted = mount(bucket, data_path="direct", state_dir=small)
        content = os.urandom(MIB) * 24
        (mounted.path / "file").write_bytes(content)
        assert stored(minio_client, bucket, "file") == content
        assert mounted.unmount() == 0


def test_a_writer_waits_for_memory_instead_of_exceeding_the_budget(
    mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    mounted = mount(bucket, data_path="direct", memory_limit="64M", executed=True)
    block = os.urandom(MIB)

    def write(number: int) -> None:
        with (mounted.path / f"file-{number}").open("wb", buffering=0) as file:
            for _ in range(64):
                file.write(block)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert mounted.peak_rss_bytes < 220 * MIB
    for number in range(4):
        assert stored(minio_client, bucket, f"file-{number}") == block * 64


# -- the store ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (403, "AccessDenied", errno.EACCES),
        (403, "QuotaExceeded", errno.EDQUOT),
        (400, "EntityTooLarge", errno.EFBIG),
    ],
)
def test_what_the_store_refuses_is_told_at_close_and_tried_again_at_the_next(
    mount: MountFactory,
    proxy: Proxy,
    bucket: str,
    data_path: str,
    minio_client: Minio,
    status: int,
    code: str,
    expected: int,
) -> None:
    mounted = mount(bucket, data_path=data_path, endpoint=proxy.endpoint)
    fd = os.open(mounted.path / "file", os.O_RDWR | os.O_CREAT)
    second = os.dup(fd)
    os.write(fd, b"content")
    proxy.faults.append(Fault("PutObject", key="file", times=None, status=status, code=code))
    with refused(expected):
        os.fsync(fd)
    assert os.pread(fd, 100, 0) == b"content"
    proxy.faults.clear()
    os.close(second)
    assert stored(minio_client, bucket, "file") == b"content"
    os.close(fd)


def test_an_upload_rejected_at_completion_is_told_and_kept(
    mount: MountFactory,
    seaweed: SeaweedServer,
    proxy: Proxy,
    bucket: str,
    data_path: str,
    minio_client: Minio,
) -> None:
    mounted = mount(bucket, data_path=data_path, endpoint=proxy.endpoint)
    content = os.urandom(MIB) * 20
    proxy.faults.append(
        Fault("CompleteMultipartUpload", times=None, status=403, code="AccessDenied")
    )
    file = (mounted.path / "file").open("wb", buffering=0)
    for start in range(0, len(content), MIB):
        file.write(content[start : start + MIB])
    with refused(errno.EACCES):
        os.fsync(file.fileno())
    with refused(errno.EACCES):
        file.close()
    assert names(minio_client, bucket) == []
    # 1 if the end of the mount came before the file was set aside.
    assert mounted.unmount() in (0, 1)
    recover = Recovering(mounted, seaweed)
    proxy.faults.clear()
    assert [entry["key"] for entry in recover.list()] == ["file"]
    assert recover("--upload").code == 0
    assert stored(minio_client, bucket, "file") == content


def test_an_object_changed_under_a_writer_is_not_mixed_with_its_changes(
    mount: MountFactory, bucket: str, data_path: str, minio_client: Minio, tmp_path: Path
) -> None:
    put(minio_client, bucket, "file", os.urandom(12 * MIB), tmp_path)
    mounted = mount(bucket, data_path=data_path)
    fd = os.open(mounted.path / "file", os.O_RDWR)
    os.pwrite(fd, b"changed", 100)
    theirs = os.urandom(12 * MIB)
    put(minio_client, bucket, "file", theirs, tmp_path)
    with refused(errno.ESTALE):
        os.fsync(fd)
    assert stored(minio_client, bucket, "file") == theirs
    with refused(errno.ESTALE):
        os.close(fd)
    # 1 if the end of the mount came before the file was set aside.
    assert mounted.unmount() in (0, 1)


@pytest.mark.parametrize("size", [1000, 12 * MIB])
def test_what_the_store_did_without_telling_is_no_error_the_next_time(
    mount: MountFactory,
    proxy: Proxy,
    bucket: str,
    data_path: str,
    minio_client: Minio,
    size: int,
) -> None:
    mounted = mount(bucket, data_path=data_path, endpoint=proxy.endpoint, retry_budget="2s")
    content = os.urandom(size)
    with opened(mounted.path / "file", os.O_WRONLY | os.O_CREAT | os.O_EXCL) as fd:
        os.write(fd, content)
        last = "PutObject" if size < MIB else "CompleteMultipartUpload"
        lost = Fault(last, key="file", lose_answer=True)
        proxy.faults += [lost, Fault(last, key="file", skip=1, times=None, status=503)]
        if size < MIB:
            with refused(errno.EIO):
                os.fsync(fd)
        else:
            os.fsync(fd)  # the upload is gone at the store, which is looked at before a repeat
        assert stored(minio_client, bucket, "file") == content
        proxy.faults.clear()
        os.fsync(fd)
    assert stored(minio_client, bucket, "file") == content
    assert mounted.unmount() == 0


def test_a_conflict_is_refused_where_that_is_asked_for(
    mount: MountFactory, bucket: str, data_path: str, minio_client: Minio, tmp_path: Path
) -> None:
    mounted = mount(bucket, data_path=data_path, on_conflict="fail", metadata_ttl="1h")
    fd = os.open(mounted.path / "file", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"ours")
    put(minio_client, bucket, "file", b"theirs", tmp_path)
    with refused(errno.EEXIST):
        os.close(fd)
    assert stored(minio_client, bucket, "file") == b"theirs"
    # 1 if the end of the mount came before the file was set aside.
    assert mounted.unmount() in (0, 1)
    # Nobody waits for that answer any more, which is no error.
    assert "fuse_release" not in mounted.log


def test_exclusive_creation_loses_against_somebody_else(
    mount: MountFactory, bucket: str, data_path: str, minio_client: Minio, tmp_path: Path
) -> None:
    mounted = mount(bucket, data_path=data_path)
    fd = os.open(mounted.path / "file", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    put(minio_client, bucket, "file", b"theirs", tmp_path)
    with refused(errno.EEXIST):
        os.close(fd)
    assert stored(minio_client, bucket, "file") == b"theirs"
    # 1 if the end of the mount came before the file was set aside.
    assert mounted.unmount() in (0, 1)


# -- calls that make no sense -------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(
    seaweed: SeaweedServer, module_bucket: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The mountpoint of one mount for calls that change nothing of it."""
    with Mount(
        module_bucket,
        tmp_path_factory.mktemp("senseless"),
        endpoint=seaweed.endpoint,
        environment=seaweed.environment,
    ) as mounted:
        yield mounted.path
        assert mounted.unmount() == 0


def test_names_and_keys_that_are_too_long(root: Path) -> None:
    with refused(errno.ENAMETOOLONG):
        (root / ("x" * 256)).touch()
    deep = root
    for number in range(4):
        deep = deep / (f"{number}" * 250)
        deep.mkdir()
    with refused(errno.ENAMETOOLONG):
        (deep / ("y" * 50)).touch()


def test_a_file_past_the_largest_object(root: Path) -> None:
    fd = os.open(root / "huge", os.O_RDWR | os.O_CREAT)
    try:
        with refused(errno.EFBIG):
            os.pwrite(fd, b"x", FIVE_TIB)
        with refused(errno.EFBIG):
            os.ftruncate(fd, FIVE_TIB + 1)
        os.pwrite(fd, b"fits", 0)
    finally:
        os.close(fd)
    assert (root / "huge").read_bytes() == b"fits"


def test_a_loop_of_symbolic_links(root: Path) -> None:
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("one")
    with refused(errno.ELOOP):
        (root / "one").read_bytes()


def test_a_directory_is_not_moved_into_itself_nor_onto_a_full_one(root: Path) -> None:
    (root / "parent/child").mkdir(parents=True)
    (root / "full").mkdir()
    (root / "full/file").touch()
    with refused(errno.EINVAL):
        (root / "parent").rename(root / "parent/child/below")
    with refused(errno.ENOTEMPTY):
        (root / "parent").rename(root / "full")
    with refused(errno.ENOTDIR):
        (root / "parent").rename(root / "full/file")
    with refused(errno.EISDIR):
        (root / "full/file").rename(root / "parent")


def test_links_and_devices_that_a_bucket_cannot_hold(root: Path, tmp_path: Path) -> None:
    (root / "plain").touch()
    with refused(errno.EPERM):
        (root / "hard").hardlink_to(root / "plain")
    with refused(errno.EPERM):
        os.mknod(root / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with refused(errno.EXDEV):
        (root / "plain").rename(tmp_path / "plain")


def test_nothing_can_be_changed_in_a_read_only_mount(
    mount: MountFactory, bucket: str, minio_client: Minio, tmp_path: Path
) -> None:
    put(minio_client, bucket, "file", b"content", tmp_path)
    mounted = mount(bucket, read_only=True)
    path = mounted.path / "file"
    for change in (
        lambda: path.open("r+b"),
        (mounted.path / "new").touch,
        path.unlink,
        lambda: path.rename(mounted.path / "moved"),
        lambda: path.chmod(0o600),
        lambda: os.truncate(path, 0),
        (mounted.path / "dir").mkdir,
    ):
        with refused(errno.EROFS):
            change()
    assert path.read_bytes() == b"content"

"""Stores whose ETags are not the same in every answer: what is read and written is right."""

import errno
import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.errnos import refused
from tests.support.faults import Fault
from tests.support.patience import wait_until
from tests.support.proxy import Proxy

CONTENT = os.urandom(300_000)


def listing(etag: str) -> bytes:
    return (
        "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>file</Key>"
        f"<LastModified>2024-01-01T00:00:00.000Z</LastModified>{etag}"
        f"<Size>{len(CONTENT)}</Size></Contents></ListBucketResult>"
    ).encode()


def works(path: Path, client: Minio, bucket: str) -> None:
    for _ in range(2):
        assert [entry.name for entry in path.iterdir()] == ["file"]
        assert (path / "file").read_bytes() == CONTENT
    with (path / "file").open("ab") as file:
        file.write(b"more")
    assert client.get_object(bucket, "file").read() == CONTENT + b"more"


def test_a_file_is_read_and_appended_to_though_listings_tell_another_etag(
    mount: MountFactory, proxy: Proxy, bucket: str, minio_client: Minio, data_path: str
) -> None:
    minio_client.put_object(bucket, "file", io.BytesIO(CONTENT), len(CONTENT))
    body = listing("<ETag>&quot;0123456789abcdef&quot;</ETag>")
    proxy.faults.append(Fault("ListObjects", times=None, body=body))
    mounted = mount(bucket, endpoint=proxy.endpoint, data_path=data_path)
    works(mounted.path, minio_client, bucket)


def test_a_file_is_read_and_appended_to_though_listings_tell_no_etag(
    mount: MountFactory, proxy: Proxy, bucket: str, minio_client: Minio, data_path: str
) -> None:
    minio_client.put_object(bucket, "file", io.BytesIO(CONTENT), len(CONTENT))
    proxy.faults.append(Fault("ListObjects", times=None, body=listing("")))
    mounted = mount(bucket, endpoint=proxy.endpoint, data_path=data_path)
    works(mounted.path, minio_client, bucket)


def test_a_file_is_read_and_appended_to_though_uploads_are_answered_with_another_etag(
    mount: MountFactory, proxy: Proxy, bucket: str, minio_client: Minio, data_path: str
) -> None:
    proxy.faults.append(Fault("PutObject", times=None, etag="0123456789abcdef"))
    mounted = mount(bucket, endpoint=proxy.endpoint, data_path=data_path)
    (mounted.path / "file").write_bytes(CONTENT)
    works(mounted.path, minio_client, bucket)


def weak(etag: str) -> str:
    return f'W/"{etag}"'


def none(_etag: str) -> str:
    return '""'


ABOUT_OBJECTS = ("PutObject", "HeadObject", "GetObject", "ListObjects", "CopyObject")
SPELLINGS = {
    "weak": [Fault("*", times=None, respelled=weak)],
    "none": [Fault(operation, times=None, respelled=none) for operation in ABOUT_OBJECTS],
    "none in HEAD and GET": [
        Fault(operation, times=None, respelled=none) for operation in ("HeadObject", "GetObject")
    ],
}
"""``*``: of parts of uploads, too."""


def change(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"changed")


def replace(client: Minio, bucket: str, content: bytes) -> None:
    """As somebody else, at a time of which a HEAD tells that it is another one."""
    before = client.stat_object(bucket, "file").last_modified
    assert before is not None
    wait_until(lambda: time.time() > before.timestamp() + 1.0)
    client.put_object(bucket, "file", io.BytesIO(content), len(content))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_files_are_read_changed_copied_and_moved_however_etags_are_told(
    mount: MountFactory,
    proxy: Proxy,
    bucket: str,
    minio_client: Minio,
    data_path: str,
    spelling: str,
) -> None:
    minio_client.put_object(bucket, "file", io.BytesIO(CONTENT), len(CONTENT))
    proxy.faults += [fault.copy() for fault in SPELLINGS[spelling]]
    mounted = mount(bucket, endpoint=proxy.endpoint, data_path=data_path)
    works(mounted.path, minio_client, bucket)
    acts: list[Callable[[Path], object]] = [
        change,
        lambda path: path.chmod(0o600),
        lambda path: path.rename(mounted.path / "moved"),
        lambda _path: (mounted.path / "moved").rename(mounted.path / "file"),
    ]
    for act in acts:
        act(mounted.path / "file")
    expected = CONTENT[:1000] + b"changed" + CONTENT[1007:] + b"more"
    assert minio_client.get_object(bucket, "file").read() == expected
    assert (mounted.path / "file").read_bytes() == expected
    large = os.urandom(20 * 1024**2)
    (mounted.path / "large").write_bytes(large)
    change(mounted.path / "large")
    stored = minio_client.get_object(bucket, "large").read()
    assert stored == large[:1000] + b"changed" + large[1007:]
    assert mounted.unmount() == 0


@pytest.mark.parametrize("spelling", ["weak", "none"])
def test_an_object_that_others_replaced_by_one_of_the_same_size_is_not_mixed_nor_taken_for_it(
    mount: MountFactory,
    proxy: Proxy,
    bucket: str,
    minio_client: Minio,
    data_path: str,
    spelling: str,
) -> None:
    size = 24 * 1024**2
    old, new = os.urandom(size), os.urandom(size)
    minio_client.put_object(bucket, "file", io.BytesIO(old), size)
    proxy.faults += [fault.copy() for fault in SPELLINGS[spelling]]
    mounted = mount(bucket, endpoint=proxy.endpoint, data_path=data_path, metadata_ttl="0s")
    with (mounted.path / "file").open("rb", buffering=0) as reader:
        os.posix_fadvise(reader.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(reader.fileno(), 1000, 0) == old[:1000]
        replace(minio_client, bucket, new)
        with refused(errno.ESTALE):
            os.pread(reader.fileno(), 1000, size - 1000)
    assert (mounted.path / "file").read_bytes() == new
    writer = os.open(mounted.path / "file", os.O_RDWR)
    os.pwrite(writer, b"changed", 0)
    replace(minio_client, bucket, old)
    with refused(errno.ESTALE):
        os.close(writer)
    assert minio_client.get_object(bucket, "file").read() == old
    mounted.unmount()  # what was not stored is told


def test_what_is_there_is_read_and_not_changed_where_heads_tell_another_etag_than_reads(
    mount: MountFactory, proxy: Proxy, bucket: str, minio_client: Minio, data_path: str
) -> None:
    """Which of the two is the version's cannot be known, so nothing can be held to it."""
    minio_client.put_object(bucket, "file", io.BytesIO(CONTENT), len(CONTENT))
    backwards = Fault("HeadObject", times=None, respelled=lambda etag: f'"{etag[::-1]}"')
    proxy.faults.append(backwards)
    mounted = mount(bucket, endpoint=proxy.endpoint, data_path=data_path)
    assert [entry.name for entry in mounted.path.iterdir()] == ["file"]
    assert (mounted.path / "file").read_bytes() == CONTENT
    with refused(errno.ESTALE):
        change(mounted.path / "file")
    assert minio_client.get_object(bucket, "file").read() == CONTENT
    (mounted.path / "new").write_bytes(CONTENT[::-1])
    assert minio_client.get_object(bucket, "new").read() == CONTENT[::-1]

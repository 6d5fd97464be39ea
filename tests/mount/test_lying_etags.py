"""Stores whose ETags are not the same in every answer: what is read and written is right."""

import io
import os
from pathlib import Path

from minio import Minio

from tests.conftest import MountFactory
from tests.support.faults import Fault
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

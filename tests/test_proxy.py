"""The counting and fault-injecting proxy, checked with a client of its own."""

import io
import time
from collections.abc import Iterator

import pytest
import urllib3
from minio import Minio
from minio.error import MinioException

from tests.support.proxy import Fault, Proxy, Shape
from tests.support.seaweed import REGION, SeaweedServer

SIZE = 3_000_000


@pytest.fixture
def client(proxy: Proxy, seaweed: SeaweedServer) -> Iterator[Minio]:
    pool = urllib3.PoolManager(timeout=20, retries=False)
    yield Minio(
        proxy.host,
        seaweed.access_key,
        seaweed.secret_key,
        secure=False,
        region=REGION,
        http_client=pool,
    )
    pool.clear()


@pytest.fixture
def key(minio_client: Minio, bucket: str) -> str:
    minio_client.put_object(bucket, "dir/key", io.BytesIO(bytes(SIZE)), SIZE)
    return "dir/key"


def get(client: Minio, bucket: str, key: str, offset: int = 0, length: int = 0) -> bytes:
    answer = client.get_object(bucket, key, offset=offset, length=length)
    try:
        return answer.read()
    finally:
        answer.close()
        answer.release_conn()


def test_requests_are_named_and_counted(client: Minio, proxy: Proxy, bucket: str, key: str) -> None:
    client.stat_object(bucket, key)
    list(client.list_objects(bucket, recursive=True))
    client.put_object(bucket, "x", io.BytesIO(b"abc"), 3)
    client.remove_object(bucket, "x")
    assert proxy.counts() == {
        "HeadObject": 1,
        "ListObjects": 1,
        "PutObject": 1,
        "DeleteObject": 1,
    }


def test_every_range_served_is_known(client: Minio, proxy: Proxy, bucket: str, key: str) -> None:
    assert len(get(client, bucket, key, 0, 2_000_000)) == 2_000_000
    assert len(get(client, bucket, key, 1_000_000, 2_000_000)) == 2_000_000
    assert proxy.bytes_served(key) == 4_000_000
    assert proxy.times_served(key) == {1: 2_000_000, 2: 1_000_000}


def test_a_multipart_upload_passes_unchanged(
    client: Minio, proxy: Proxy, minio_client: Minio, bucket: str
) -> None:
    content = bytes(range(256)) * 48_000
    client.put_object(bucket, "big", io.BytesIO(content), -1, part_size=5 * 1024**2)
    assert get(minio_client, bucket, "big") == content
    assert proxy.counts()["UploadPart"] == 3


def test_a_status_fault_hits_only_what_it_names(
    client: Minio, proxy: Proxy, bucket: str, key: str
) -> None:
    proxy.faults.append(Fault("GetObject", status=503, skip=1))
    assert len(get(client, bucket, key)) == SIZE
    with pytest.raises(MinioException):
        get(client, bucket, key)
    assert len(get(client, bucket, key)) == SIZE


@pytest.mark.parametrize(
    "fault",
    [
        Fault(reset_before=True),
        Fault(reset_after=1_000_000),
        Fault(short_after=1_000_000),
        Fault(lose_answer=True),
        Fault(garbage=True),
        Fault(refuse_seconds=0.1),
    ],
)
def test_a_broken_answer_reaches_the_client_as_broken(
    client: Minio, proxy: Proxy, bucket: str, key: str, fault: Fault
) -> None:
    proxy.faults.append(fault)
    with pytest.raises((urllib3.exceptions.HTTPError, OSError)):
        get(client, bucket, key)
    assert proxy.bytes_served(key) <= 1_000_000


def test_a_stalled_answer_goes_on_when_released(
    client: Minio, proxy: Proxy, bucket: str, key: str
) -> None:
    proxy.faults.append(Fault("GetObject", stall_after=1000))
    answer = client.get_object(bucket, key)
    assert len(answer.read(1000)) == 1000
    proxy.release()
    with pytest.raises(urllib3.exceptions.HTTPError):
        answer.read(1000)
    answer.close()


@pytest.mark.parametrize("silence", [Fault(stall_head=0), Fault(stall_head=20)])
def test_a_silent_server_is_given_up_by_its_client(
    client: Minio, proxy: Proxy, bucket: str, key: str, silence: Fault
) -> None:
    proxy.faults.append(silence)
    with (
        urllib3.HTTPConnectionPool(*proxy.host.split(":"), timeout=0.3, retries=False) as pool,
        pytest.raises((urllib3.exceptions.TimeoutError, urllib3.exceptions.ProtocolError)),
    ):
        pool.request("GET", f"/{bucket}/{key}")


def test_a_lost_answer_has_happened_all_the_same(
    client: Minio, proxy: Proxy, minio_client: Minio, bucket: str
) -> None:
    proxy.faults.append(Fault("PutObject", lose_answer=True))
    with pytest.raises(urllib3.exceptions.HTTPError):
        client.put_object(bucket, "x", io.BytesIO(b"abc"), 3)
    assert get(minio_client, bucket, "x") == b"abc"


def test_a_store_that_refuses_comes_back(
    client: Minio, proxy: Proxy, bucket: str, key: str
) -> None:
    proxy.refuse()
    with pytest.raises(urllib3.exceptions.HTTPError):
        get(client, bucket, key)
    proxy.accept_again()
    assert len(get(client, bucket, key)) == SIZE


def test_an_answers_body_and_range_can_be_forged(
    client: Minio, proxy: Proxy, bucket: str, key: str
) -> None:
    proxy.faults += [Fault(truncate_after=1000), Fault(body=b"<xml", skip=1)]
    proxy.faults.append(Fault(corrupt_answer=True, skip=2))
    assert get(client, bucket, key) == bytes(1000)
    assert get(client, bucket, key) == b"<xml"
    assert sum(byte != 0 for byte in get(client, bucket, key)) == 1
    proxy.faults = [Fault(shift_range=1)]
    answer = client.get_object(bucket, key, offset=5, length=10)
    assert answer.headers["content-range"] == f"bytes 6-14/{SIZE}"
    answer.close()


def test_an_etag_can_be_forged(client: Minio, proxy: Proxy, bucket: str, key: str) -> None:
    proxy.faults.append(Fault("HeadObject", etag="forged"))
    assert client.stat_object(bucket, key).etag == "forged"


def test_the_shape_limits_a_connections_bandwidth(
    client: Minio, proxy: Proxy, bucket: str, key: str
) -> None:
    proxy.shape = Shape(ttfb_seconds=0.05, bytes_per_second=10e6)
    began = time.monotonic()
    get(client, bucket, key)
    assert time.monotonic() - began > 0.05 + SIZE / 10e6 * 0.8

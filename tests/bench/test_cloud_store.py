"""The store of the benchmark does what a client of S3 asks, and tells what it did."""

import io
import json
import os
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from minio import Minio
from minio.commonconfig import CopySource
from minio.deleteobjects import DeleteObject
from minio.error import S3Error

from tests.support.cloud_store import CloudServer, Shape

BUCKET = "bench"
MIB = 1024**2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[CloudServer]:
    with CloudServer(tmp_path, Shape()) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(server: CloudServer) -> Minio:
    host = f"127.0.0.1:{server.server_address[1]}"
    client = Minio(host, "any", "thing", secure=False, region="us-east-1")
    client.make_bucket(BUCKET)
    return client


def control(server: CloudServer, about: str, method: str = "POST") -> dict[str, Any]:
    address = f"http://127.0.0.1:{server.server_address[1]}/__{about}"
    with urllib.request.urlopen(urllib.request.Request(address, method=method)) as answer:
        return dict(json.loads(answer.read()))


def put(client: Minio, key: str, body: bytes = b"") -> None:
    client.put_object(BUCKET, key, io.BytesIO(body), len(body), metadata={"who": "me"})


def test_objects_are_what_was_stored_whole_in_ranges_and_as_copies(client: Minio) -> None:
    body = os.urandom(12 * MIB)  # three parts
    client.put_object(BUCKET, "a/b c&d", io.BytesIO(body), len(body), part_size=5 * MIB)
    stored = client.stat_object(BUCKET, "a/b c&d")
    assert stored.size == len(body)
    assert str(stored.etag).endswith("-3")
    assert client.get_object(BUCKET, "a/b c&d").data == body
    assert client.get_object(BUCKET, "a/b c&d", 5, 7).data == body[5:12]
    put(client, "small", b"x")
    client.copy_object(BUCKET, "copied", CopySource(BUCKET, "small"))
    copied = client.stat_object(BUCKET, "copied")
    assert (copied.etag, copied.metadata["x-amz-meta-who"]) == (
        client.stat_object(BUCKET, "small").etag,
        "me",
    )
    client.remove_object(BUCKET, "small")
    with pytest.raises(S3Error, match="NoSuchKey"):
        client.get_object(BUCKET, "small")
    assert client.get_object(BUCKET, "copied").data == b"x"


def test_conditions_of_reads_and_writes_hold(server: CloudServer, client: Minio) -> None:
    put(client, "there", b"1")

    def refused(method: str, **headers: str) -> int:
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.server_address[1]}/{BUCKET}/there",
            data=b"2" if method == "PUT" else None,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
            method=method,
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request)
        caught.value.close()
        return caught.value.code

    assert refused("PUT", If_None_Match="*") == 412
    assert refused("PUT", If_Match='"another"') == 412
    assert refused("GET", If_Match='"another"') == 412
    assert refused("GET", Range="bytes=1-") == 416
    assert client.get_object(BUCKET, "there").data == b"1"


def test_listings_are_whole_in_order_and_folded_at_the_delimiter(client: Minio) -> None:
    keys = ["a", "a-b", "b/", "b/1", "b/2/3", "c/d", "é", "z"]
    for key in keys:
        put(client, key)

    def listed(prefix: str = "", *, recursive: bool = False) -> list[str]:
        found = client.list_objects(BUCKET, prefix, recursive=recursive)
        return [str(one.object_name) for one in found]

    assert listed(recursive=True) == sorted(keys)
    assert sorted(listed()) == ["a", "a-b", "b/", "c/", "z", "é"]
    assert sorted(listed("b/")) == ["b/", "b/1", "b/2/"]
    assert listed("nothing") == []
    gone = client.remove_objects(BUCKET, [DeleteObject("a"), DeleteObject("b/1")])
    assert list(gone) == []
    assert listed("b/", recursive=True) == ["b/", "b/2/3"]


def test_a_large_listing_comes_in_pages_also_of_files_that_were_put_there(
    server: CloudServer, client: Minio, tmp_path: Path
) -> None:
    names = [f"many/{number:05}" for number in range(2500)]
    for name in names:
        (tmp_path / BUCKET / quote(name, safe="")).touch()
    control(server, "reload")
    control(server, "stats")
    found = [one.object_name for one in client.list_objects(BUCKET, recursive=True)]
    assert found == names
    assert control(server, "stats", "GET")["ops"] == {"list": 3}


def test_what_is_served_is_counted_and_failures_come_as_asked(
    server: CloudServer, client: Minio
) -> None:
    control(server, "stats")
    put(client, "counted", b"12345")
    assert client.get_object(BUCKET, "counted").data == b"12345"
    told = control(server, "stats", "GET")
    assert told["ops"] == {"put_object": 1, "get_object": 1}
    assert (told["bytes_in"], told["bytes_out"], told["running"]) == (5, 5, 0)
    control(server, "shape?error_rate=1")
    with pytest.raises(urllib.error.HTTPError, match="503"):
        urllib.request.urlopen(f"http://127.0.0.1:{server.server_address[1]}/{BUCKET}/counted")

"""A store that wants all parts of an upload but the last to be of one size, as Cloudflare's R2."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.s3.exceptions import InvalidPart
from moto.s3.models import FakeMultipart
from moto.server import ThreadedMotoServer

from tests.conftest import MountFactory

MIB = 1024**2
BUCKET = "equal"


class UnequalPartsRefused(InvalidPart):
    def __init__(self) -> None:
        super().__init__()
        self.message = "All non-trailing parts must have the same length."


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """moto's server, with R2's rule."""
    complete = FakeMultipart.complete

    def strict(upload: FakeMultipart, body: Any) -> Any:
        named = list(body)
        sizes = [upload.parts[number].contentsize for number, _ in named]
        if len(set(sizes[:-1])) > 1 or sizes[-1] > sizes[0]:
            raise UnequalPartsRefused
        return complete(upload, iter(named))

    monkeypatch.setattr(FakeMultipart, "complete", strict)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def append(path: Path, content: bytes) -> bytes:
    with path.open("ab") as file:
        file.write(b"more")
    return content + b"more"


def change(path: Path, content: bytes) -> bytes:
    with path.open("r+b") as file:
        file.seek(9 * MIB)
        file.write(b"changed")
    return content[: 9 * MIB] + b"changed" + content[9 * MIB + 7 :]


def scatter(path: Path, content: bytes) -> bytes:
    after = bytearray(content)
    with path.open("r+b") as file:
        for at in range(0, len(content), 7 * MIB):
            file.seek(at)
            file.write(b"changed")
            after[at : at + 7] = b"changed"
    return bytes(after)


def truncate(path: Path, content: bytes) -> bytes:
    os.truncate(path, 11 * MIB + 5)
    return content[: 11 * MIB + 5]


def grow(path: Path, content: bytes) -> bytes:
    os.truncate(path, len(content) + 9 * MIB)
    return content + bytes(9 * MIB)


ACTS: dict[str, Callable[[Path, bytes], bytes]] = {
    "append": append,
    "change": change,
    "scatter": scatter,
    "truncate": truncate,
    "grow": grow,
}


def test_large_objects_are_changed_in_parts_of_one_size(
    mount: MountFactory, endpoint: str, data_path: str
) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="MOTO",
        aws_secret_access_key="moto-secret",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=BUCKET)
    before = os.urandom(21 * MIB)
    for name in ACTS:
        client.put_object(Bucket=BUCKET, Key=name, Body=before)
    mounted = mount(BUCKET, endpoint=endpoint, data_path=data_path)
    expected = {name: act(mounted.path / name, before) for name, act in ACTS.items()}
    new = os.urandom(70 * MIB)
    (mounted.path / "new").write_bytes(new)
    expected["new"] = append(mounted.path / "new", new)
    for name, content in expected.items():
        stored = client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        assert len(stored) == len(content), name
        assert stored == content, name
    assert mounted.log.count("parts of one size") == 1
    assert "could not be saved" not in mounted.log
    uploads = client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    assert [one["Key"] for one in uploads] == []

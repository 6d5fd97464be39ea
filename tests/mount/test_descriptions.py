"""What describes an object beside its bytes stays, whatever a program does to the file."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory

MIB = 1024**2
SAID = {"Cache-Control": "max-age=60", "Content-Language": "de"}


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def change(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"changed")


def move(path: Path) -> None:
    path.rename(path.with_name("moved.bin")).rename(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "overwrite": lambda path: path.write_bytes(b"new"),
    "append": append,
    "change": change,
    "truncate": lambda path: os.truncate(path, 50),
    "chmod": lambda path: path.chmod(0o600),
    "touch": lambda path: os.utime(path, (1, 1)),
    "mv": move,
}


@pytest.mark.parametrize("size", [1000, 12 * MIB])
def test_a_changed_object_keeps_its_type_and_headers(
    mount: MountFactory, bucket: str, minio_client: Minio, data_path: str, size: int
) -> None:
    mounted = mount(bucket, data_path=data_path)
    for name in CHANGES:
        body = os.urandom(size)
        minio_client.put_object(
            bucket, name, io.BytesIO(body), size, content_type="text/x-own", metadata=dict(SAID)
        )
    for name, act in CHANGES.items():
        act(mounted.path / name)
    told = {name: minio_client.stat_object(bucket, name).metadata or {} for name in CHANGES}
    assert {name: each["Content-Type"] for name, each in told.items()} == dict.fromkeys(
        CHANGES, "text/x-own"
    )
    for header, value in SAID.items():
        assert {name: each.get(header) for name, each in told.items()} == dict.fromkeys(
            CHANGES, value
        )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("page.css", "text/css"),
        ("model.safetensors", "application/octet-stream"),
        ("table.parquet", "application/vnd.apache.parquet"),
        ("page.css.gz", "application/gzip"),
    ],
)
def test_a_new_file_has_the_type_that_its_name_tells(
    mount: MountFactory, bucket: str, minio_client: Minio, name: str, expected: str
) -> None:
    mounted = mount(bucket)
    (mounted.path / name).write_bytes(b"x")
    assert minio_client.stat_object(bucket, name).content_type == expected

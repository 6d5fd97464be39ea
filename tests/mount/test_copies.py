"""Copies within a mount are the store's own, and are what was there when they are asked for."""

import os
import subprocess
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.proxy import Proxy

MIB = 1024**2
SIZE = 9 * MIB + 5
"""More than a part: what is shorter is read and written."""


def stored(client: Minio, bucket: str, key: str) -> bytes:
    answer = client.get_object(bucket, key)
    try:
        return bytes(answer.read())
    finally:
        answer.close()
        answer.release_conn()


def moved(proxy: Proxy) -> int:
    """Body bytes of objects, both ways."""
    return sum(each.sent + each.received for each in proxy.exchanges)


def copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", source, target], check=True, stderr=subprocess.PIPE)


@pytest.mark.parametrize(
    ("data_path", "write_back"),
    [("temp", False), ("temp", True), ("cache", False), ("direct", False)],
)
def test_cp_within_a_mount_moves_less_than_a_mebibyte(
    mount: MountFactory,
    bucket: str,
    proxy: Proxy,
    minio_client: Minio,
    data_path: str,
    write_back: bool,
) -> None:
    content = os.urandom(SIZE)
    mounted = mount(bucket, endpoint=proxy.endpoint, data_path=data_path, write_back=write_back)
    root = mounted.path
    (root / "model.bin").write_bytes(content)
    (root / "old.html").write_bytes(b"to be overwritten" * 100)
    with (root / "model.bin").open("rb") as file:
        os.fsync(file)
    proxy.reset()
    copy(root / "model.bin", root / "copy.bin")
    copy(root / "model.bin", root / "old.html")
    # The source may go at once: with write-back, too, the copies are objects by now.
    (root / "model.bin").unlink()
    assert moved(proxy) < MIB, proxy.counts()
    assert proxy.counts()["GetObject"] == 0
    assert (root / "copy.bin").read_bytes() == content
    assert (root / "old.html").stat().st_size == SIZE
    # A copy is a file like any other.
    with (root / "copy.bin").open("r+b") as file:
        file.write(b"changed")
    assert mounted.unmount() == 0
    assert stored(minio_client, bucket, "old.html") == content
    assert stored(minio_client, bucket, "copy.bin") == b"changed" + content[7:]
    assert minio_client.stat_object(bucket, "old.html").content_type == "text/html"


def test_what_the_store_cannot_copy_is_read_and_written(
    mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    content = os.urandom(SIZE)
    root = mount(bucket, data_path="direct").path
    (root / "stored").write_bytes(content)
    (root / "small").write_bytes(content[:MIB])
    copy(root / "small", root / "small-copy")
    source = os.open(root / "stored", os.O_RDWR)
    with (root / "part").open("w+b", buffering=0) as part:
        assert os.copy_file_range(source, part.fileno(), MIB, 5, 0) == MIB
        assert os.copy_file_range(source, part.fileno(), SIZE, 0, MIB) == SIZE
        assert os.pread(part.fileno(), 10, 0) == content[5:15]
    # Unsaved bytes are in no object that could be copied.
    os.pwrite(source, b"changed", 0)
    copy(root / "stored", root / "changed")
    os.close(source)
    changed = b"changed" + content[7:]
    # Somebody else replaced it: who opened it before reads what was, or is told.
    with (root / "stored").open("rb") as file:
        assert file.read(1) == b"c"
        minio_client.remove_object(bucket, "stored")
        with (root / "gone").open("wb") as gone:
            try:
                assert os.copy_file_range(file.fileno(), gone.fileno(), SIZE, 0, 0) <= SIZE
            except OSError as exc:
                assert exc.strerror in {"Stale file handle", "No such file or directory"}
    assert stored(minio_client, bucket, "small-copy") == content[:MIB]
    assert stored(minio_client, bucket, "part") == content[5 : 5 + MIB] + content
    assert stored(minio_client, bucket, "changed") == changed

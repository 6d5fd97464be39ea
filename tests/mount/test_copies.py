"""Copies within a mount are the store's own, and are what was there when they are asked for."""

import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from minio import Minio

from tests.conftest import MountFactory
from tests.support.mounting import Mount
from tests.support.proxy import Proxy
from tests.support.seaweed import SeaweedServer

MIB = 1024**2
SIZE = 9 * MIB + 5
"""More than a part: what is shorter is read and written."""
CLONE_GIB = int(os.environ.get("OSSFS_PY_CLONE_GIB", "0"))
"""Size of the model that is cloned; 0: a few parts (``make clones``: 4)."""
PART_BYTES = 32 * MIB
CLONE_BYTES = CLONE_GIB * 1024 * MIB or 3 * PART_BYTES


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


class MountOnOldKernel(Mount):
    """Its daemon does not know the request that Linux 6.18 asks for copies by."""

    @property
    def arguments(self) -> list[str]:
        """Runs the daemon in an interpreter where that request has another number."""
        code = (
            "import runpy; from ossfs_py.fuse.wire import Opcode; Opcode.COPY_FILE_RANGE_64 = -1\n"
            "runpy.run_module('ossfs_py', run_name='__main__')"
        )
        _python, _m, _name, *rest = super().arguments
        return [sys.executable, "-c", code, *rest]


def test_kernels_before_6_18_let_the_store_copy_as_well(
    tmp_path: Path, seaweed: SeaweedServer, bucket: str, proxy: Proxy, minio_client: Minio
) -> None:
    content = os.urandom(SIZE)
    with MountOnOldKernel(
        bucket,
        tmp_path,
        endpoint=proxy.endpoint,
        environment=seaweed.environment,
        data_path="direct",
    ) as mounted:
        (mounted.path / "model").write_bytes(content)
        proxy.reset()
        copy(mounted.path / "model", mounted.path / "copy")
        assert moved(proxy) < MIB, proxy.counts()
        assert mounted.unmount() == 0, mounted.log
    assert stored(minio_client, bucket, "copy") == content


def upload(client: Any, bucket: str, key: str, size: int) -> str:
    """An object of several parts, no two alike, by boto3; its bytes' MD5."""
    digest, where = hashlib.md5(usedforsecurity=False), {"Bucket": bucket, "Key": key}
    where["UploadId"] = client.create_multipart_upload(**where)["UploadId"]
    noise, parts = random.Random(size).randbytes(PART_BYTES), []
    for number in range(1, size // PART_BYTES + 1):
        body = number.to_bytes(8) + noise[8:]
        digest.update(body)
        made = client.upload_part(**where, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, "ETag": made["ETag"]})
    client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    return digest.hexdigest()


def md5_in_store(client: Any, bucket: str, key: str) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in client.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(MIB):
        digest.update(chunk)
    return digest.hexdigest()


def seconds(*command: str | Path) -> float:
    """How long a program takes that must end well."""
    began = time.monotonic()
    subprocess.run(command, check=True, stderr=subprocess.PIPE)
    return time.monotonic() - began


@pytest.mark.timeout(300 + CLONE_BYTES // (10 * MIB))
def test_a_model_is_cloned_without_moving_it(
    mount: MountFactory, seaweed: SeaweedServer, bucket: str, proxy: Proxy
) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=seaweed.endpoint,
        aws_access_key_id=seaweed.access_key,
        aws_secret_access_key=seaweed.secret_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )
    md5 = upload(client, bucket, "model", CLONE_BYTES)
    # Reading and writing is not slowed down by the proxy that counts.
    plain, counted = mount(bucket), mount(bucket, endpoint=proxy.endpoint)
    ossfs_py = (sys.executable, "-m", "ossfs_py")
    took = {
        "ossfs-py cp": seconds(*ossfs_py, "cp", counted.path / "model", counted.path / "one"),
        "cp": seconds("cp", counted.path / "model", counted.path / "two"),
    }
    # How long it takes is the store's affair: SeaweedFS reads and writes every byte by itself.
    over_network = moved(proxy)
    assert over_network < MIB, proxy.counts()
    both = seconds("sh", "-c", 'cat "$0" >"$1"', plain.path / "model", plain.path / "three")
    print(  # noqa: T201 - for who runs it with -s
        f"\n{CLONE_BYTES / MIB:.0f} MiB read and written in {both:.2f} s; cloned by",
        *(f"{name} in {one:.2f} s ({one / both:.3f}x)," for name, one in took.items()),
        f"{over_network} bytes moved; load {os.getloadavg()[0]:.1f}",
    )
    for name in ("one", "two", "three"):
        assert md5_in_store(client, bucket, name) == md5

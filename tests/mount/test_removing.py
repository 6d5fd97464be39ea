"""rm beside uploads and readers, on real mounts whose store does not answer."""

import contextlib
import io
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest
from minio import Minio
from minio.error import S3Error

from tests.conftest import MountFactory
from tests.support.holding import asked, held, wait_for
from tests.support.mounting import END_SECONDS, Mount
from tests.support.proxy import Proxy
from tests.support.recovering import kill, names

MIB = 1024**2
AT_ONCE_SECONDS = 20.0
"""Far less than the store takes, which does not answer until it is told to."""
WRITES = """
import os, sys
with open(sys.argv[1], "wb", buffering=0) as file:
    for _ in range(20):
        file.write(os.urandom(1024**2))
"""


@pytest.fixture
def mounted(mount: MountFactory, proxy: Proxy, bucket: str, data_path: str) -> Mount:
    one = mount(bucket, data_path=data_path, endpoint=proxy.endpoint)
    assert one.running
    return one


def run(*command: str | Path) -> str:
    """What a command says, if it ends well and at once."""
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=AT_ONCE_SECONDS
    )
    return done.stdout


@pytest.mark.parametrize("held_operation", ["UploadPart", "CompleteMultipartUpload"])
def test_rm_and_ls_return_at_once_beside_an_upload(
    mounted: Mount, proxy: Proxy, minio_client: Minio, bucket: str, held_operation: str
) -> None:
    directory = mounted.path / "dir"
    directory.mkdir()
    (directory / "sibling").write_bytes(b"there")
    file = directory / "file"
    with (
        held(proxy, held_operation, "dir/file") as gate,
        subprocess.Popen([sys.executable, "-c", WRITES, file]) as program,
    ):
        try:
            wait_for(lambda: asked(proxy, held_operation, "dir/file"))
            run("rm", file)
            assert run("ls", directory).split() == ["sibling"]
            assert not file.exists()
        finally:
            gate.set()
        assert program.wait(END_SECONDS) == 0
    file.write_bytes(b"a new one")
    assert file.read_bytes() == b"a new one"
    wait_for(lambda: names(minio_client, bucket) == ["dir/", "dir/file", "dir/sibling"])
    assert minio_client.get_object(bucket, "dir/file").read() == b"a new one"


def test_a_removed_file_is_read_by_who_mapped_it_and_its_directory_goes(
    mount: MountFactory, minio_client: Minio, bucket: str, data_path: str
) -> None:
    """Not through a proxy in this process: whoever touches a mapping holds Python's lock."""
    mounted = mount(bucket, data_path=data_path)
    directory = mounted.path / "dir"
    directory.mkdir()
    content = os.urandom(12 * MIB)
    minio_client.put_object(bucket, "dir/model", io.BytesIO(content), len(content))
    file = directory / "model"
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[:MIB] == content[:MIB]
        run("rm", file)
        run("rmdir", directory)
        assert run("ls", mounted.path) == ""
        assert mapped[:] == content
        stored = [name for name in names(minio_client, bucket) if not name.endswith("/")]
        assert stored == ["dir/model"]  # and no copy of it
        directory.mkdir()
        file.write_bytes(b"new")
        assert mapped[:] == content
        assert file.read_bytes() == b"new"
        run("rm", "-r", directory)
    wait_for(lambda: names(minio_client, bucket) == [])
    assert run("ls", mounted.path) == ""


def test_what_was_removed_stays_so_when_the_daemon_is_killed(
    mounted: Mount, proxy: Proxy, minio_client: Minio, bucket: str
) -> None:
    """Once while it is read, once while it is stored."""
    directory = mounted.path / "dir"
    directory.mkdir()
    stored, written = directory / "stored", directory / "written"
    stored.write_bytes(os.urandom(12 * MIB))
    reader = os.open(stored, os.O_RDONLY)
    with held(proxy, "CompleteMultipartUpload", "dir/written"):
        with subprocess.Popen([sys.executable, "-c", WRITES, written]) as program:
            wait_for(lambda: asked(proxy, "CompleteMultipartUpload", "dir/written"))
            run("rm", stored, written)
            kill(mounted)
            program.wait(END_SECONDS)
        with contextlib.suppress(OSError):
            os.close(reader)
        assert "dir/stored" in names(minio_client, bucket)
        mounted.start()
        assert list(directory.iterdir()) == []
    with pytest.raises(S3Error, match="NoSuchKey"):
        minio_client.stat_object(bucket, "dir/stored")
    assert list(directory.iterdir()) == []
    assert names(minio_client, bucket) == ["dir/"]

"""A local disk that changes what waits on it: a store that verifies sums refuses it.

SeaweedFS does; Ceph RGW 16.2.15 does not, and stores what the disk gave.
"""

import errno
import os

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.errnos import refused
from tests.support.recovering import names

MIB = 1024**2


@pytest.mark.parametrize("size", [MIB, 17 * MIB], ids=["one PUT", "in parts"])
def test_bytes_that_the_local_disk_has_changed_are_refused_and_told(
    mount: MountFactory, bucket: str, minio_client: Minio, size: int
) -> None:
    """Their sum was taken when they were written."""
    mounted = mount(bucket, data_path="temp", retry_budget="1s")
    content = os.urandom(size)
    fd = os.open(mounted.path / "file", os.O_WRONLY | os.O_CREAT)
    os.write(fd, content)
    [staged] = mounted.state_dir.glob("*/staging/*.data")
    with staged.open("r+b") as disk:
        disk.seek(size - 10)  # in the last part, which is sent by fsync
        disk.write(bytes([content[-10] ^ 1]))
    with refused(errno.EIO):
        os.fsync(fd)
    assert names(minio_client, bucket) == []
    with refused(errno.EIO):
        os.close(fd)
    assert names(minio_client, bucket) == []
    # 1 if the end of the mount came before the file was set aside.
    assert mounted.unmount() in (0, 1)
    [kept] = mounted.state_dir.glob("*/unsaved/*.data")
    assert kept.read_bytes()[: size - 10] == content[:-10]

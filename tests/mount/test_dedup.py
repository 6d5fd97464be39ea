"""--dedup: what the store has under another name in the directory is not sent again."""

import os
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.mounting import DATA_PATHS
from tests.support.proxy import Proxy

MIB = 1024**2
SIZE = {"temp": 9 * MIB + 5, "cache": 9 * MIB + 5, "direct": 5 * MIB}
"""More than a part, but for ``direct``: what streams from memory is sent."""


@pytest.mark.parametrize("data_path", DATA_PATHS)
def test_a_file_that_the_directory_has_already_is_copied_by_the_store(
    mount: MountFactory, bucket: str, proxy: Proxy, minio_client: Minio, data_path: str
) -> None:
    content, other = os.urandom(SIZE[data_path]), os.urandom(SIZE[data_path])
    root = mount(bucket, endpoint=proxy.endpoint, data_path=data_path, dedup=True).path
    (root / "first.bin").write_bytes(content)
    proxy.reset()
    (root / "second.html").write_bytes(content)
    (root / "second.html").chmod(0o640)
    moved = sum(each.received for each in proxy.exchanges)
    assert moved < MIB, proxy.counts()
    assert proxy.counts()["GetObject"] == 0
    (root / "other.bin").write_bytes(other)  # of one size with the others
    assert sum(each.received for each in proxy.exchanges) - moved >= len(other)
    assert (root / "second.html").read_bytes() == content
    (root / "first.bin").unlink()
    assert Path(root / "second.html").stat().st_mode & 0o777 == 0o640
    for key, expected in (("second.html", content), ("other.bin", other)):
        answer = minio_client.get_object(bucket, key)
        assert answer.read() == expected
        answer.release_conn()
    assert minio_client.stat_object(bucket, "second.html").content_type == "text/html"

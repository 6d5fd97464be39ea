"""``--read-endpoint`` on a mount: reads come from nearer by, and go on when it fails."""

import io
import os

from minio import Minio

from tests.conftest import MountFactory
from tests.support.mounting import wait_for_log
from tests.support.proxy import Fault, Proxy

MIB = 1024**2


def test_reads_come_from_it_and_go_on_without_it(
    mount: MountFactory, proxy: Proxy, bucket: str, minio_client: Minio, data_path: str
) -> None:
    content = os.urandom(24 * MIB)
    minio_client.put_object(bucket, "model", io.BytesIO(content), len(content))
    mounted = mount(bucket, data_path=data_path, read_endpoint=proxy.endpoint)
    with (mounted.path / "model").open("rb", buffering=0) as file:
        assert file.read(MIB) == content[:MIB]
        # All requests for bytes, and no others, went there.
        assert set(proxy.counts()) == {"GetObject"}
        # From now on it sends half of what it is asked for, then nothing at all.
        proxy.faults.append(Fault("GetObject", times=2, reset_after=MIB // 2))
        proxy.faults.append(Fault("GetObject", times=None, reset_before=True))
        assert file.readall() == content[MIB:]
    wait_for_log(mounted, "the read endpoint")
    (mounted.path / "model").write_bytes(b"new")
    (mounted.path / "other").write_bytes(b"other")
    assert (mounted.path / "model").read_bytes() == b"new"
    assert minio_client.get_object(bucket, "other").read() == b"other"
    assert set(proxy.counts()) == {"GetObject"}

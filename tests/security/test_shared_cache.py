"""Several mounts over one cache directory: none gets from it what its own store would not give."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.mounting import Mount
from tests.support.seaweed import SeaweedServer
from tests.support.tls_front import TlsFront, make_certificate

TRUE, FORGED = b"the weights", b"a back door"


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    directory = tmp_path / "shared-cache"
    directory.mkdir(mode=0o700)
    return directory


@pytest.fixture
def front(seaweed: SeaweedServer) -> Iterator[TlsFront]:
    with TlsFront(seaweed.host) as running:
        yield running


def store_object(client: Minio, bucket: str, name: str, content: bytes) -> None:
    client.put_object(bucket, name, io.BytesIO(content), len(content))


def read_and_keep(mounted: Mount, name: str) -> bytes:
    """The bytes; they are in the cache afterwards, as the mount has ended."""
    content = (mounted.path / name).read_bytes()
    assert mounted.unmount() == 0
    assert list((Path(str(mounted.options["cache_dir"])) / "blocks").glob("??/*"))
    return content


def test_bytes_fetched_without_verification_are_not_served_to_a_mount_that_verifies(
    mount: MountFactory,
    bucket: str,
    front: TlsFront,
    minio_client: Minio,
    cache_dir: Path,
    tmp_path: Path,
) -> None:
    honest, somebody = (make_certificate(tmp_path, name) for name in ("honest", "somebody"))
    store_object(minio_client, bucket, "model", TRUE)
    options = {
        "data_path": "cache",
        "cache_dir": cache_dir,
        "endpoint": front.endpoint,
        "ca_bundle": honest[0],
    }
    front.show(*somebody)
    front.forged = {TRUE: FORGED}
    careless = mount(bucket, no_verify_tls=True, **options)
    assert read_and_keep(careless, "model") == FORGED, "nobody forged anything"
    front.show(*honest)
    front.forged = {}
    assert (mount(bucket, **options).path / "model").read_bytes() == TRUE


def test_bytes_fetched_under_another_bundle_are_not_served(
    mount: MountFactory,
    bucket: str,
    front: TlsFront,
    minio_client: Minio,
    cache_dir: Path,
    tmp_path: Path,
) -> None:
    """Also when it had the same name: whom one trusts is the content."""
    honest, somebody = (make_certificate(tmp_path, name) for name in ("honest", "somebody"))
    store_object(minio_client, bucket, "model", TRUE)
    bundle = tmp_path / "bundle.pem"
    options = {
        "data_path": "cache",
        "cache_dir": cache_dir,
        "endpoint": front.endpoint,
        "ca_bundle": bundle,
    }
    front.show(*somebody)
    front.forged = {TRUE: FORGED}
    bundle.write_bytes(somebody[0].read_bytes())
    assert read_and_keep(mount(bucket, **options), "model") == FORGED
    bundle.write_bytes(honest[0].read_bytes())
    front.show(*honest)
    front.forged = {}
    assert (mount(bucket, **options).path / "model").read_bytes() == TRUE

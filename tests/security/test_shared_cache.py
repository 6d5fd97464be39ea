"""Several mounts over one cache directory: none gets from it what its own store would not give."""

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.commands import ossfs
from tests.support.mounting import Mount
from tests.support.proxy import Proxy
from tests.support.seaweed import Account, SeaweedServer
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


# -- who may read ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store_with_a_lister() -> Iterator[SeaweedServer]:
    """A store with somebody who may list every bucket, and read none."""
    with SeaweedServer([Account("lister", ("List",)), Account("reader", ("List", "Read"))]) as one:
        one.make_bucket("secrets")
        yield one


@pytest.fixture
def mount_as(
    mount: MountFactory, store_with_a_lister: SeaweedServer, cache_dir: Path, tmp_path: Path
) -> Callable[..., Mount]:
    """``mount_as(name, …)`` mounts the bucket with somebody's key over the one cache."""

    def start(name: str, **options: str) -> Mount:
        who = store_with_a_lister.identities[name]
        passwords = tmp_path / f"{name}.passwd"
        passwords.touch(0o600)
        passwords.write_text(f"{who.access_key}:{who.secret_key}\n")
        options.setdefault("endpoint", store_with_a_lister.endpoint)
        return mount(
            "secrets",
            data_path="cache",
            cache_dir=cache_dir,
            credentials_file=passwords,
            read_only=True,
            **options,
        )

    return start


def test_who_may_list_and_not_read_gets_nothing_that_another_mount_cached(
    store_with_a_lister: SeaweedServer, mount_as: Callable[..., Mount], tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(os.urandom(3_000_000))
    store_with_a_lister.put_file("secrets", "large", secret)
    (small := tmp_path / "small").write_bytes(b"a secret")
    store_with_a_lister.put_file("secrets", "small", small)
    reader = mount_as("reader")
    for name, source in (("large", secret), ("small", small)):
        assert (reader.path / name).read_bytes() == source.read_bytes()
    assert reader.unmount() == 0
    lister = mount_as("lister")
    assert sorted(path.name for path in lister.path.iterdir()) == ["large", "small"]
    for name in ("large", "small"):
        for _ in range(2):
            with pytest.raises(PermissionError), (lister.path / name).open("rb") as file:
                file.read()
    # Asking for it ahead, or by the other mount while this one looks, changes nothing.
    ossfs("warmup", lister.path, environment={})
    again = mount_as("reader")
    assert (again.path / "large").read_bytes() == secret.read_bytes()
    with pytest.raises(PermissionError), (lister.path / "large").open("rb") as file:
        file.read()


def test_each_mount_asks_for_one_byte_of_what_others_cached_and_once(
    store_with_a_lister: SeaweedServer, mount_as: Callable[..., Mount], tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(os.urandom(3_000_000))
    store_with_a_lister.put_file("secrets", "model", secret)
    with Proxy(store_with_a_lister.host) as proxy:
        warm = mount_as("admin", endpoint=proxy.endpoint)
        assert (warm.path / "model").read_bytes() == secret.read_bytes()
        assert warm.unmount() == 0
        for name in ("admin", "reader"):
            second = mount_as(name, endpoint=proxy.endpoint)
            proxy.reset()
            for _ in range(3):
                with (second.path / "model").open("rb", buffering=0) as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    assert file.read() == secret.read_bytes()
            assert proxy.counts()["GetObject"] == 1
            assert proxy.bytes_served("model") == 1
            assert second.unmount() == 0

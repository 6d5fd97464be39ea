"""Mounts over https as they are in the world: an authority, a chain, names, a proxy."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.authority import Authority
from tests.support.commands import Outcome, ossfs
from tests.support.connect_proxy import ConnectProxy
from tests.support.mounting import Mount
from tests.support.seaweed import SeaweedServer
from tests.support.tls_front import TlsFront

NAME = "store.test"
CONTENT = os.urandom(3 * 1024**2 + 5)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def front(seaweed: SeaweedServer) -> Iterator[TlsFront]:
    with TlsFront(seaweed.host) as running:
        yield running


@pytest.fixture
def tunnel(front: TlsFront) -> Iterator[ConnectProxy]:
    with ConnectProxy(front.endpoint.removeprefix("https://")) as running:
        yield running


def mount_refused(
    bucket: str, directory: Path, seaweed: SeaweedServer, authority: Authority, **more: str
) -> Outcome:
    """A mount that must not come up."""
    (mountpoint := directory / "mnt").mkdir()
    endpoint = more.pop("endpoint", f"https://{NAME}")
    outcome = ossfs(
        *("mount", bucket, mountpoint, "--endpoint", endpoint, "--foreground"),
        *("--ca-bundle", authority.root, "--state-dir", directory, "--temp-dir", directory),
        environment={**seaweed.environment, **more},
    )
    assert outcome.code != 0
    assert not os.path.ismount(mountpoint)
    return outcome


def test_a_chain_up_to_an_authority_of_ones_own_is_trusted(
    mount: MountFactory,
    bucket: str,
    front: TlsFront,
    authority: Authority,
    minio_client: Minio,
    data_path: str,
) -> None:
    front.show(*authority.issue("localhost", "127.0.0.1"))
    port = front.endpoint.rpartition(":")[2]
    mounted = mount(
        bucket,
        endpoint=f"https://localhost:{port}",
        ca_bundle=authority.root,
        data_path=data_path,
    )
    (mounted.path / "model").write_bytes(CONTENT)
    assert minio_client.get_object(bucket, "model").data == CONTENT
    os.truncate(mounted.path / "model", len(CONTENT) - 5)
    assert (mounted.path / "model").read_bytes() == CONTENT[:-5]


def test_a_chain_with_a_gap_is_refused_and_the_option_named(
    bucket: str, front: TlsFront, authority: Authority, seaweed: SeaweedServer, tmp_path: Path
) -> None:
    front.show(*authority.issue("127.0.0.1", with_issuer=False))
    told = mount_refused(bucket, tmp_path, seaweed, authority, endpoint=front.endpoint).sentence
    assert "unable to get local issuer certificate" in told
    assert "--ca-bundle FILE" in told


def test_the_name_is_told_to_the_server_which_shows_the_certificate_of_that_name(
    bucket: str,
    front: TlsFront,
    tunnel: ConnectProxy,
    authority: Authority,
    seaweed: SeaweedServer,
    minio_client: Minio,
    tmp_path: Path,
) -> None:
    front.show(*authority.issue("somebody-else.test"))
    front.show(*authority.issue(NAME), name=NAME)
    with Mount(
        bucket,
        tmp_path / "mount",
        endpoint=f"https://{NAME}",
        environment={**seaweed.environment, "https_proxy": tunnel.url},
        ca_bundle=authority.root,
    ) as mounted:
        (mounted.path / "model").write_bytes(CONTENT)
        assert mounted.unmount() == 0, mounted.log
    assert minio_client.get_object(bucket, "model").data == CONTENT
    assert set(tunnel.targets) == {f"{NAME}:443"}
    assert set(front.names) == {NAME}


def test_a_certificate_of_another_name_is_refused(
    bucket: str,
    front: TlsFront,
    tunnel: ConnectProxy,
    authority: Authority,
    seaweed: SeaweedServer,
    tmp_path: Path,
) -> None:
    front.show(*authority.issue("somebody-else.test"))
    told = mount_refused(bucket, tmp_path, seaweed, authority, https_proxy=tunnel.url).sentence
    assert "Hostname mismatch" in told
    assert NAME in told


def test_a_certificate_that_has_ended_is_refused(
    bucket: str,
    front: TlsFront,
    tunnel: ConnectProxy,
    authority: Authority,
    seaweed: SeaweedServer,
    tmp_path: Path,
) -> None:
    front.show(*authority.issue(NAME, days=-1))
    told = mount_refused(bucket, tmp_path, seaweed, authority, https_proxy=tunnel.url).sentence
    assert "certificate has expired" in told


def test_a_bucket_with_dots_stands_in_the_path_as_no_wildcard_covers_it(
    front: TlsFront,
    tunnel: ConnectProxy,
    authority: Authority,
    seaweed: SeaweedServer,
    minio_client: Minio,
    tmp_path: Path,
) -> None:
    service = "s3.us-east-1.amazonaws.com"
    bucket = f"models.{tmp_path.name.replace('_', '-')[:30].strip('-')}.v1"
    seaweed.make_bucket(bucket)
    front.show(*authority.issue(service, f"*.{service}"))
    with Mount(
        bucket,
        tmp_path / "mount",
        endpoint=f"https://{service}",
        environment={**seaweed.environment, "https_proxy": tunnel.url},
        ca_bundle=authority.root,
    ) as mounted:
        (mounted.path / "model").write_bytes(CONTENT)
        assert mounted.unmount() == 0, mounted.log
    assert minio_client.get_object(bucket, "model").data == CONTENT
    assert set(tunnel.targets) == {f"{service}:443"}


def test_doctor_says_whose_certificate_it_is_and_how_long_it_lasts(
    bucket: str,
    front: TlsFront,
    tunnel: ConnectProxy,
    authority: Authority,
    seaweed: SeaweedServer,
) -> None:
    front.show(*authority.issue(NAME, days=100))
    outcome = ossfs(
        *("doctor", bucket, "--endpoint", f"https://{NAME}", "--ca-bundle", authority.root),
        environment={**seaweed.environment, "https_proxy": tunnel.url},
    )
    assert "trusted, TLSv1.3, 100 days left" in outcome.out, outcome.out

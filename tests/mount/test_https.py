"""Mounts over https as they are in the world: an authority, a chain, names, a proxy."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.authority import Authority
from tests.support.commands import ossfs
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


@dataclass
class Site:
    """A server behind a name that only the tunnel knows."""

    front: TlsFront
    tunnel: ConnectProxy
    authority: Authority
    seaweed: SeaweedServer
    directory: Path

    @property
    def environment(self) -> dict[str, str]:
        """What leads a program there."""
        return {**self.seaweed.environment, "https_proxy": self.tunnel.url}

    def stores(self, bucket: str, endpoint: str, client: Minio) -> None:
        """A mount comes up, and what is written through it is stored."""
        with Mount(
            bucket,
            self.directory / "mount",
            endpoint=endpoint,
            environment=self.environment,
            ca_bundle=self.authority.root,
        ) as mounted:
            (mounted.path / "model").write_bytes(CONTENT)
            assert mounted.unmount() == 0, mounted.log
        assert client.get_object(bucket, "model").data == CONTENT

    def refuses(self, bucket: str, endpoint: str = f"https://{NAME}") -> str:
        """A mount does not come up; what it says."""
        (mountpoint := self.directory / "mnt").mkdir()
        outcome = ossfs(
            *("mount", bucket, mountpoint, "--endpoint", endpoint, "--foreground"),
            *("--ca-bundle", self.authority.root),
            *("--state-dir", self.directory, "--temp-dir", self.directory),
            environment=self.environment,
        )
        assert outcome.code != 0
        assert not os.path.ismount(mountpoint)
        return outcome.sentence


@pytest.fixture
def site(
    front: TlsFront,
    tunnel: ConnectProxy,
    authority: Authority,
    seaweed: SeaweedServer,
    tmp_path: Path,
) -> Site:
    return Site(front, tunnel, authority, seaweed, tmp_path)


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


def test_a_chain_with_a_gap_is_refused_and_the_option_named(bucket: str, site: Site) -> None:
    site.front.show(*site.authority.issue("127.0.0.1", with_issuer=False))
    told = site.refuses(bucket, site.front.endpoint)
    assert "unable to get local issuer certificate" in told
    assert "--ca-bundle FILE" in told


def test_the_name_is_told_to_the_server_which_shows_the_certificate_of_that_name(
    bucket: str, site: Site, minio_client: Minio
) -> None:
    site.front.show(*site.authority.issue("somebody-else.test"))
    site.front.show(*site.authority.issue(NAME), name=NAME)
    site.stores(bucket, f"https://{NAME}", minio_client)
    assert set(site.tunnel.targets) == {f"{NAME}:443"}
    assert set(site.front.names) == {NAME}


def test_a_certificate_of_another_name_is_refused(bucket: str, site: Site) -> None:
    site.front.show(*site.authority.issue("somebody-else.test"))
    told = site.refuses(bucket)
    assert "Hostname mismatch" in told
    assert NAME in told


def test_a_certificate_that_has_ended_is_refused(bucket: str, site: Site) -> None:
    site.front.show(*site.authority.issue(NAME, days=-1))
    assert "certificate has expired" in site.refuses(bucket)


def test_a_bucket_with_dots_stands_in_the_path_as_no_wildcard_covers_it(
    site: Site, minio_client: Minio
) -> None:
    service = "s3.us-east-1.amazonaws.com"
    bucket = f"models.{site.directory.name.replace('_', '-')[:30].strip('-')}.v1"
    site.seaweed.make_bucket(bucket)
    site.front.show(*site.authority.issue(service, f"*.{service}"))
    site.stores(bucket, f"https://{service}", minio_client)
    assert set(site.tunnel.targets) == {f"{service}:443"}


def test_doctor_says_whose_certificate_it_is_and_how_long_it_lasts(bucket: str, site: Site) -> None:
    site.front.show(*site.authority.issue(NAME, days=100))
    outcome = ossfs(
        *("doctor", bucket, "--endpoint", f"https://{NAME}", "--ca-bundle", site.authority.root),
        environment=site.environment,
    )
    assert "trusted, TLSv1.3, 100 days left" in outcome.out, outcome.out

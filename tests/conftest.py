"""Fixtures every test may ask for: a real S3 server, fresh buckets, an independent client."""

import itertools
from collections.abc import Iterator

import pytest
import urllib3
from minio import Minio

from tests.support.seaweed import OUTSIDER, OUTSIDER_BUCKET, REGION, Identity, SeaweedServer

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def seaweed() -> Iterator[SeaweedServer]:
    """One real S3 server for the whole run; ``identities["outsider"]`` may use its own bucket."""
    outsider = Identity(
        OUTSIDER, tuple(f"{action}:{OUTSIDER_BUCKET}" for action in ("Read", "Write", "List"))
    )
    with SeaweedServer([outsider]) as server:
        server.make_bucket(OUTSIDER_BUCKET)
        yield server


@pytest.fixture(scope="session")
def minio_client(seaweed: SeaweedServer) -> Iterator[Minio]:
    """An S3 client that shares no code with the package: the witness of what is stored."""
    pool = urllib3.PoolManager(maxsize=8, timeout=60)
    yield Minio(
        seaweed.host,
        seaweed.access_key,
        seaweed.secret_key,
        secure=False,
        region=REGION,
        http_client=pool,
    )
    pool.clear()


@pytest.fixture
def bucket(seaweed: SeaweedServer) -> str:
    """Name of an empty bucket that belongs to this test alone."""
    return make_bucket(seaweed)


@pytest.fixture(scope="module")
def module_bucket(seaweed: SeaweedServer) -> str:
    """Name of a bucket shared by the tests of one module."""
    return make_bucket(seaweed)


def make_bucket(server: SeaweedServer) -> str:
    """A new empty bucket's name."""
    name = f"bucket-{next(_numbers)}"
    server.make_bucket(name)
    return name

"""A node, a bucket, and machines that end with their test."""

from collections.abc import Iterator

import pytest

from ossfs_py.sharedcache import pace
from tests.support.memcached import Memcached
from tests.unit.sharedcache.machines import Bucket, Machine


@pytest.fixture(autouse=True)
def machines_end_with_their_test() -> Iterator[None]:
    yield
    while Machine.made:
        Machine.made.pop().cache.close()


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of those who never deliver are waited for a moment only."""
    monkeypatch.setattr(pace, "_SHORTEST_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(pace, "_FIRST_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(pace, "_WAIT_FACTOR", 0.0)


@pytest.fixture(scope="module")
def running() -> Iterator[Memcached]:
    with Memcached() as one:
        yield one


@pytest.fixture
def node(running: Memcached) -> Memcached:
    """An empty node of large items."""
    running.ask(b"flush_all\r\n")
    return running


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()

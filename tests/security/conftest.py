"""Mounts that other users see."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.commands import allow_other_permitted
from tests.support.mounting import Mount, Option
from tests.support.seaweed import SeaweedServer


@pytest.fixture
def endpoint(seaweed: SeaweedServer) -> str:
    """The store that is mounted."""
    return seaweed.endpoint


@pytest.fixture
def shared(seaweed: SeaweedServer, endpoint: str, bucket: str) -> Iterator[Callable[..., Mount]]:
    """``shared(…)`` mounts the bucket with --allow-other where others may come.

    That is not below pytest's own directory. Everything ends with the test, and must end well.
    """
    mounts: list[Mount] = []
    with allow_other_permitted(), tempfile.TemporaryDirectory() as work:
        Path(work).chmod(0o711)

        def start(**options: Option) -> Mount:
            root = Path(work) / str(len(mounts))
            root.mkdir()
            options = {"endpoint": endpoint, "allow_other": True, **options}
            one = Mount(bucket, root, environment=seaweed.environment, **options)  # type: ignore[arg-type]
            root.chmod(0o711)
            mounts.append(one)
            return one.start()

        try:
            yield start
            for one in mounts:
                assert not one.running or one.unmount() == 0, one.log
                assert "Traceback" not in one.log, one.log
        finally:
            for one in mounts:
                one.close()

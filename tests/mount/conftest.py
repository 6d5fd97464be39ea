"""What tests of several modules mount: one mount a module on each data path."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio

from tests.support.mounting import DATA_PATHS, Mount
from tests.support.seaweed import SeaweedServer
from tests.support.workplace import Workplace


@pytest.fixture(scope="module", params=DATA_PATHS)
def mounted(
    request: pytest.FixtureRequest,
    seaweed: SeaweedServer,
    module_bucket: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mount]:
    """One mount for each data path and module; it must end well and have had no accident.

    Not through a proxy in this process: whoever touches a mapping holds Python's lock.
    """
    with Mount(
        f"{module_bucket}/{request.param}",
        tmp_path_factory.mktemp(str(request.param)),
        endpoint=seaweed.endpoint,
        environment=seaweed.environment,
        data_path=request.param,
    ) as one:
        yield one
        assert one.unmount() == 0, one.log
    assert "Traceback" not in one.log, one.log


@pytest.fixture
def place(mounted: Mount, minio_client: Minio, tmp_path: Path) -> Workplace:
    """A workplace of this test's own."""
    return Workplace.make(mounted, minio_client, tmp_path)

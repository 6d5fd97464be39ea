"""The engine, the image, and a directory that containers share their mounts through."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.engine import Engine, NoEngineError, fuse_node, shared_directory
from tests.support.seaweed import SeaweedServer

KEPT = Path(os.environ.get("OSSFS_PY_IMAGES") or "/var/tmp/ossfs-py-images")
if not os.environ.get("OSSFS_PY_IMAGE_TESTS"):
    # An engine and a gigabyte of disk: only where they are asked for (make images).
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def engine(testrun_uid: str) -> Engine:
    """With the image built from this checkout, by the first process that shares the tests."""
    try:
        engine = Engine(KEPT)
        with engine.to_ourselves() as built_for:
            engine.make_base()
            if built_for.read_text() != testrun_uid:
                engine.build()
                built_for.write_text(testrun_uid)
    except NoEngineError as exc:
        pytest.skip(f"no container engine can run here: {exc}")
    return engine


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """What is given to containers as a volume, mounts below it propagate."""
    with shared_directory(tmp_path / "shared") as path:
        yield path


@pytest.fixture
def options(tmp_path: Path, shared: Path) -> list[str]:
    """What "docker run" needs for a mount that others see."""
    return [
        *("--device", f"{fuse_node(tmp_path / 'fuse')}:/dev/fuse", "--cap-add", "SYS_ADMIN"),
        *("--security-opt", "apparmor=unconfined"),
        *("--mount", f"type=bind,source={shared},target=/mnt/shared,bind-propagation=rshared"),
    ]


@pytest.fixture
def environment(seaweed: SeaweedServer, bucket: str) -> dict[str, str]:
    """Settings of a mount below the shared directory."""
    return {
        **seaweed.environment,
        "OSSFS_PY_BUCKET": bucket,
        "OSSFS_PY_ENDPOINT": seaweed.endpoint,
        "OSSFS_PY_MOUNTPOINT": "/mnt/shared/models",
        "OSSFS_PY_ALLOW_OTHER": "true",
    }

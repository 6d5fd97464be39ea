"""The commands of README.md and of the guide, typed where nothing is but what they ask for."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio
from minio.commonconfig import ENABLED
from minio.versioningconfig import VersioningConfig

from ossfs_py.host.mountpoint import THIS_MACHINE
from tests.support.pages import README, ROOT, blocks
from tests.support.seaweed import SeaweedServer

BUCKET_LINE, KEYS_LINE = "export BUCKET=", "export AWS_ACCESS_KEY_ID="
TOUR_SECONDS = 500
BEFORE = """
mkdir ~/models
ossfs-py mount "$BUCKET" ~/models --endpoint "$ENDPOINT" --data-path cache
mkdir ~/models/llama
head -c 3M /dev/urandom >~/models/llama/model.safetensors
echo '{"layers": 32}' >~/models/llama/config.json
"""
AFTER = "ossfs-py umount ~/models\n"
"""What the pages of the guide take for granted, and what ends it."""


def commands_of(page: Path) -> list[str]:
    """The blocks of a page that are typed here, in order."""
    return [
        block.text for block in blocks(page) if (block.language, block.mark) == ("sh", "tested")
    ]


GUIDE = [page for page in sorted((ROOT / "ossfs_py" / "docs").glob("*.md")) if commands_of(page)]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """An empty home with the program on its path; whatever is mounted below it goes."""
    home = tmp_path / "home"
    for name in ("temp", "state", "cache"):
        (home / name).mkdir(mode=0o700, parents=True)
    yield home
    for entry in THIS_MACHINE.mounts():
        if entry.mountpoint.is_relative_to(home):
            subprocess.run(["fusermount3", "-uz", str(entry.mountpoint)], check=True)


def environment(home: Path, server: SeaweedServer, bucket: str) -> dict[str, str]:
    directory = Path(sys.executable).parent
    return {
        "HOME": str(home),
        "PATH": f"{directory}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "LANG": "C.UTF-8",
        "BUCKET": bucket,
        "ENDPOINT": server.endpoint,
        **server.environment,
        "OSSFS_PY_TEMP_DIR": str(home / "temp"),
        "OSSFS_PY_STATE_DIR": str(home / "state"),
        "OSSFS_PY_CACHE_DIR": str(home / "cache"),
    }


def typed(script: str, home: Path, variables: dict[str, str]) -> str:
    """What a shell says that is given these commands; each must succeed."""
    # Should it fail, the times say what took long.
    done = subprocess.run(
        ["bash", "-c", f"PS4='+ $EPOCHREALTIME '\nset -euxo pipefail\n{script}"],
        cwd=home,
        env=variables,
        capture_output=True,
        text=True,
        timeout=TOUR_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [e for e in THIS_MACHINE.mounts() if e.mountpoint.is_relative_to(home)] == []
    return done.stdout


def test_the_readme_works_as_it_is_written(
    home: Path, seaweed: SeaweedServer, bucket: str, minio_client: Minio
) -> None:
    first, *commands = commands_of(README)
    # What the reader has to say for himself is said by the environment.
    assert first.startswith(BUCKET_LINE)
    assert first.splitlines()[1].startswith(KEYS_LINE)
    assert len(commands) >= 5
    said = typed("".join(commands), home, environment(home, seaweed, bucket))
    assert "model.safetensors" in said
    assert "Ready" in said
    left = [item.object_name for item in minio_client.list_objects(bucket, recursive=True)]
    assert left == []


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.stem)
def test_the_guide_works_as_it_is_written(
    page: Path, home: Path, seaweed: SeaweedServer, bucket: str, minio_client: Minio
) -> None:
    keeps_versions = page.stem == "versions"
    if keeps_versions:
        minio_client.set_bucket_versioning(bucket, VersioningConfig(ENABLED))
    script = BEFORE + "".join(commands_of(page)) + AFTER
    typed(script, home, environment(home, seaweed, bucket))
    if keeps_versions:
        for item in minio_client.list_objects(bucket, recursive=True, include_version=True):
            minio_client.remove_object(bucket, str(item.object_name), version_id=item.version_id)

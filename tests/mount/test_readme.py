"""The tour of README.md, command by command, where nothing is but what it asks for."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio

from ossfs_py.host.mountpoint import THIS_MACHINE
from tests.support.seaweed import SeaweedServer

README = Path(__file__).parents[2] / "README.md"
BUCKET_LINE, KEYS_LINE = "export BUCKET=", "export AWS_ACCESS_KEY_ID="
TOUR_SECONDS = 120


def tour() -> list[str]:
    """The blocks of commands of the tour, in order."""
    text = README.read_text()
    section = re.search(r"^## A five-minute tour\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
    assert section is not None
    return re.findall(r"^```sh\n(.*?)^```$", section[1], re.DOTALL | re.MULTILINE)


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


def test_the_tour_works_as_it_is_written(
    home: Path, seaweed: SeaweedServer, bucket: str, minio_client: Minio
) -> None:
    first, *blocks = tour()
    # What the reader has to say for himself is said by the environment.
    assert [line[: len(BUCKET_LINE)] for line in first.splitlines()[:1]] == [BUCKET_LINE]
    assert first.splitlines()[1].startswith(KEYS_LINE)
    assert len(blocks) >= 6
    # Should it fail, the times say what took long.
    script = "PS4='+ $EPOCHREALTIME '\nset -euxo pipefail\n" + "".join(blocks)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=home,
        env=environment(home, seaweed, bucket),
        capture_output=True,
        text=True,
        timeout=TOUR_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "model.safetensors" in done.stdout
    assert "weights" in done.stdout
    assert [e for e in THIS_MACHINE.mounts() if e.mountpoint.is_relative_to(home)] == []
    left = [item.object_name for item in minio_client.list_objects(bucket, recursive=True)]
    assert left == []


def test_every_command_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"ossfs-py ([a-z][a-z-]*)", README.read_text()))
    listed = subprocess.run(
        [sys.executable, "-m", "ossfs_py", "--help"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    known = set(re.findall(r"^  ([a-z][a-z-]*) ", listed.stdout, re.MULTILINE))
    assert named - known == set()


def test_every_option_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"`(--[a-z][a-z-]*[a-z])", README.read_text()))
    page = subprocess.run(
        [sys.executable, "-m", "ossfs_py", "man"], check=True, capture_output=True, text=True
    ).stdout.replace("\\-", "-")
    known = set(re.findall(r"--[a-z][a-z-]*[a-z]", page))
    foreign = {"--safetensors-load-strategy", "--vfs-cache-mode"}
    assert named - known - foreign == set()


def test_every_metric_that_the_readme_names_exists() -> None:
    from ossfs_py.sharedcache.metrics import SharedCacheMetrics
    from ossfs_py.telemetry.metrics import Metrics

    registry = Metrics().registry
    SharedCacheMetrics(registry)
    named = set(re.findall(r"`(ossfs_[a-z_]+)", README.read_text()))
    known = {family.name for family in registry.collect()}
    assert {name.removesuffix("_total") for name in named} - known == set()


@pytest.mark.parametrize("name", ["systemd", "docker/grafana-dashboard.json", "ossfs_py"])
def test_files_that_the_readme_names_are_there(name: str) -> None:
    assert f"{name}" in README.read_text()
    assert (README.parent / name).exists()

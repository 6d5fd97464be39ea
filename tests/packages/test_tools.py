"""The wheel of OSSFS_PY_WHEEL, installed as its users do: by pipx and by uv, and used.

Both fetch what it depends on. uv is tried with each Python at hand that the project supports.
"""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio

from tests.support.seaweed import SeaweedServer
from tests.support.typed import first_minute

VERSIONS = ("3.11", "3.12", "3.13", "3.14")


def at_hand() -> Iterator[str]:
    """Interpreters that run: a shim of pyenv may name one that does not."""
    for version in VERSIONS:
        path = shutil.which(f"python{version}")
        if path and not subprocess.run([path, "-V"], check=False, capture_output=True).returncode:
            yield path


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pipx and uv are, in an environment of their own."""
    environment = tmp_path_factory.mktemp("tools")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip = [environment / "bin/python", "-m", "pip", "install", "--quiet", "pipx", "uv"]
    subprocess.run(pip, check=True)
    return environment / "bin"


def run(command: list[str | Path], more: dict[str, str]) -> str:
    """What it says, run as the user, whose pip and uv know where packages come from."""
    environment = {**os.environ, **more}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def works(programs: Path, tmp_path: Path, seaweed: SeaweedServer, bucket: str, own: Minio) -> None:
    """The first minute of a user with the ossfs-py in this directory."""
    own.put_object(bucket, "hello", io.BytesIO(b"hello from the bucket\n"), 22)
    typed = first_minute(
        str(programs), tmp_path / "home", bucket, seaweed.endpoint, seaweed.environment
    )
    assert (typed.returncode, typed.stderr) == (0, "")
    assert "hello from the bucket" in typed.stdout
    assert own.get_object(bucket, "answer").data == b"written\n"


def test_what_pipx_installs_mounts_reads_writes_and_unmounts(
    tools: Path, tmp_path: Path, seaweed: SeaweedServer, bucket: str, minio_client: Minio
) -> None:
    programs = tmp_path / "bin"
    where = {"PIPX_HOME": str(tmp_path / "pipx"), "PIPX_BIN_DIR": str(programs)}
    wheel = Path(os.environ["OSSFS_PY_WHEEL"]).resolve()
    run([tools / "pipx", "install", "--python", sys.executable, wheel], where)
    works(programs, tmp_path, seaweed, bucket, minio_client)


@pytest.mark.parametrize("python", [*at_hand()], ids=lambda path: Path(path).name)
def test_what_uv_installs_mounts_reads_writes_and_unmounts(
    python: str,
    tools: Path,
    tmp_path: Path,
    seaweed: SeaweedServer,
    bucket: str,
    minio_client: Minio,
) -> None:
    programs = tmp_path / "bin"
    where = {"UV_TOOL_DIR": str(tmp_path / "uv"), "UV_TOOL_BIN_DIR": str(programs)}
    wheel = Path(os.environ["OSSFS_PY_WHEEL"]).resolve()
    run([tools / "uv", "tool", "install", "--python", python, wheel], where)
    version = Path(python).name.removeprefix("python")
    assert f"(Python {version}." in run([programs / "ossfs-py", "--version"], {})
    works(programs, tmp_path, seaweed, bucket, minio_client)

"""The wheel has all that the program needs, and works where nothing else of the checkout is."""

import io
import re
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from minio import Minio

from tests.support.seaweed import SeaweedServer
from tests.support.typed import first_minute

ROOT = Path(__file__).parents[2]
BUILD = """
import sys
sys.path.insert(0, ".ci/packaging")
import dist
from pathlib import Path
print(dist.built("wheel", Path(sys.argv[1]), "1700000000"))
"""
LEFT_OUT = {"__pycache__"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as "make dist" does."""
    directory = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        told = message_from_string(archive.read(metadata).decode())
        times = {info.date_time for info in archive.infolist()}
    tracked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "ossfs_py").rglob("*")
        if path.is_file() and not LEFT_OUT & set(path.parts)
    }
    assert names == tracked
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [text for text in told.get_all("Requires-Dist", []) if "extra ==" not in text]
    assert needed == project["dependencies"]
    assert told["Requires-Python"] == project["requires-python"]
    # All of one moment, or two builds would differ.
    assert times == {(2023, 11, 14, 22, 13, 20)}


def test_the_wheel_in_a_clean_environment_mounts_reads_writes_and_unmounts(
    wheel: Path, tmp_path: Path, seaweed: SeaweedServer, bucket: str, minio_client: Minio
) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin/python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(python)]
    subprocess.run([*pip, "install", "--no-index", "--no-deps", str(wheel)], check=True)
    # What it depends on is this environment's; a path in a .pth file brings no editable package.
    (site,) = environment.glob("lib/python*/site-packages")
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join(ours) + "\n")
    where = subprocess.run(
        [python, "-c", "import ossfs_py; print(ossfs_py.__file__)"],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(environment)
    minio_client.put_object(bucket, "hello", io.BytesIO(b"hello from the bucket\n"), 22)
    typed = first_minute(
        str(environment / "bin"),
        tmp_path / "home",
        bucket,
        seaweed.endpoint,
        seaweed.environment,
    )
    assert typed.returncode == 0, typed.stderr
    assert "hello from the bucket" in typed.stdout
    assert not re.search(r"Traceback|rror", typed.stderr)
    assert minio_client.get_object(bucket, "answer").data == b"written\n"

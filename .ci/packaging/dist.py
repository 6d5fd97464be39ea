"""Build wheel and sdist of this checkout, the same bytes each time.

``python .ci/packaging/dist.py DIRECTORY`` needs setuptools in the Python that runs it and nothing
from the network. Times in the files are SOURCE_DATE_EPOCH or, without it, the last commit's.
"""

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("pyproject.toml", "README.md", "LICENSE", "ossfs_py")
BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, "build_" + sys.argv[1])(sys.argv[2]))
"""
FALLBACK_EPOCH = "1700000000"
"""Of a tree that is no clone; zip knows no time before 1980."""


def epoch() -> str:
    """Seconds since 1970 that every file in the packages has."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return given
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return told.stdout.strip() or FALLBACK_EPOCH


def copied(source: Path) -> None:
    """The parts of the checkout without what earlier builds and runs have left in it."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=ignored)
        else:
            shutil.copy(ROOT / part, source / part)
    for path in source.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def repacked(path: Path, seconds: int) -> None:
    """Write the sdist anew: in order, without owners, all of one time."""
    with tarfile.open(path) as archive:
        members = sorted(archive.getmembers(), key=lambda member: member.name)
        bodies = {m.name: archive.extractfile(m).read() for m in members if m.isfile()}  # type: ignore[union-attr]
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.type, info.mtime = member.type, seconds
            info.mode = 0o755 if member.isdir() else 0o644
            info.size = len(bodies.get(member.name, b""))
            archive.addfile(info, io.BytesIO(bodies.get(member.name, b"")))
    path.write_bytes(gzip.compress(made.getvalue(), mtime=seconds))


def built(kind: str, directory: Path, seconds: str) -> Path:
    """The ``wheel`` or ``sdist`` in ``directory``, from a copy of the checkout."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        source.mkdir()
        copied(source)
        done = subprocess.run(
            [sys.executable, "-c", BUILD, kind, str(directory.resolve())],
            cwd=source,
            env={**os.environ, "SOURCE_DATE_EPOCH": seconds},
            umask=0o022,  # the wheel keeps the permissions of what is written meanwhile
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}packaging/dist.py: the {kind} could not be built")
    return directory / done.stdout.splitlines()[-1]


def build(directory: Path) -> list[Path]:
    """The wheel and the sdist, in ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    seconds = epoch()
    wheel, sdist = (built(kind, directory, seconds) for kind in ("wheel", "sdist"))
    repacked(sdist, int(seconds))
    return [wheel, sdist]


if __name__ == "__main__":
    sys.stdout.writelines(f"{path}\n" for path in build(Path(sys.argv[1])))

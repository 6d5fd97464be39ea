"""kill -9 of the daemon at random moments while programs read, map, walk and load models, one at a
time and eight at once, and upgrades: no program is told an error, and none reads a wrong byte.
"""

import hashlib
import io
import mmap
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.soak.restarting import (
    DEATHS,
    MIB,
    RESTARTS,
    SECONDS_PER_RESTART,
    SEED,
    UPGRADES,
    Programs,
    WrongError,
    end_daemons,
    safetensors_head,
)

FILES, FILE_BYTES, NAMES, TENSORS, PROCESSES = 4, 6 * MIB, 400, 6, 8
READ_ON = """
import hashlib, os, random, sys
files = [line.split() for line in sys.argv[2:]]
rng = random.Random(int(sys.argv[1]))
while True:
    path, wanted = rng.choice(files)
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        seen = hashlib.sha256()
        while piece := file.read(rng.choice((4096, 256 * 1024, 1024 * 1024))):
            seen.update(piece)
    assert seen.hexdigest() == wanted, "read other bytes of " + path
    print("read", flush=True)
"""


class Readers:
    """What programs read of a mount."""

    def __init__(self, root: Path, contents: dict[str, bytes], tensors: dict[str, bytes]) -> None:
        self._root = root
        self._contents = contents
        self._tensors = tensors
        self.programs = Programs(
            {
                "reader": self._read,
                "another reader": self._read,
                "mapper": self._map,
                "walker": self._walk,
                "loader": self._load,
                "processes": self._read_in_processes,
            }
        )

    def _chosen(self, rng: random.Random) -> tuple[Path, bytes]:
        key = rng.choice(sorted(self._contents))
        return self._root / key, self._contents[key]

    def _read(self, rng: random.Random) -> Iterator[None]:
        while True:
            path, content = self._chosen(rng)
            seen = hashlib.sha256()
            with path.open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                while True:
                    with self.programs.timed():
                        piece = file.read(256 * 1024)
                    if not piece:
                        break
                    seen.update(piece)
            if seen.digest() != hashlib.sha256(content).digest():
                raise WrongError(f"read other bytes of {path.name}")
            yield

    def _map(self, rng: random.Random) -> Iterator[None]:
        while True:
            path, content = self._chosen(rng)
            with (
                path.open("rb") as file,
                mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
            ):
                for _ in range(20):
                    start = rng.randrange(len(content))
                    if mapped[start : start + 70_000] != content[start : start + 70_000]:
                        raise WrongError(f"mapped other bytes of {path.name}")
                mapped.madvise(mmap.MADV_DONTNEED)
            yield

    def _walk(self, _rng: random.Random) -> Iterator[None]:
        while True:
            found = sorted(
                (entry.name, entry.stat().st_size) for entry in os.scandir(self._root / "many")
            )
            if found != [(f"{number:04}", 5) for number in range(NAMES)]:
                raise WrongError(f"listed {len(found)} names")
            yield

    def _load(self, _rng: random.Random) -> Iterator[None]:
        """As safetensors does it: it maps the file, and copies tensors out of it."""
        safetensors = pytest.importorskip("safetensors", exc_type=ImportError)
        path = self._root / "model.safetensors"
        while True:
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            with safetensors.safe_open(path, framework="np") as model:
                for name, content in self._tensors.items():
                    if model.get_tensor(name).tobytes() != content:
                        raise WrongError(f"loaded another tensor {name}")
            yield

    def _read_in_processes(self, _rng: random.Random) -> Iterator[None]:
        files = [
            f"{self._root / key} {hashlib.sha256(content).hexdigest()}"
            for key, content in self._contents.items()
        ]
        running = [
            subprocess.Popen(
                [sys.executable, "-c", READ_ON, str(number), *files],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(PROCESSES)
        ]
        try:
            while True:
                for each in running:
                    assert each.stdout is not None
                    if not each.stdout.readline():
                        raise WrongError(each.communicate()[1])
                yield
        finally:
            for each in running:
                each.kill()
                each.communicate()


@pytest.mark.timeout(60 + RESTARTS * SECONDS_PER_RESTART)
@pytest.mark.parametrize(
    ("ends", "data_path"),
    [(DEATHS, "direct"), (DEATHS, "cache"), (DEATHS, "temp"), (UPGRADES, "direct")]
    if RESTARTS > 3
    else [(DEATHS, "direct")],
)
def test_programs_notice_no_death_of_the_daemon(
    ends: str, data_path: str, mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    rng = random.Random(SEED)
    contents = {f"models/{number}": rng.randbytes(FILE_BYTES) for number in range(FILES)}
    tensors = {f"layer.{number}": rng.randbytes(MIB + number) for number in range(TENSORS)}
    head = safetensors_head({name: len(content) for name, content in tensors.items()})
    objects = {**contents, "model.safetensors": head + b"".join(tensors.values())}
    objects |= {f"many/{number:04}": b"small" for number in range(NAMES)}
    for key, content in objects.items():
        minio_client.put_object(bucket, key, io.BytesIO(content), len(content))
    one = mount(bucket, data_path=data_path, read_only=True, restarts=1000, metadata_ttl=1)
    programs = Readers(one.path, contents, tensors).programs
    programs.start()
    try:
        end_daemons(one, programs, ends)
    finally:
        programs.stop()
    programs.print_outcome(f"{ends} under readers on {data_path}")
    assert not programs.wrong, programs.wrong
    assert all(programs.rounds.values()), programs.rounds

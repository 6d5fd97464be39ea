"""Upgrades while a model is loaded and a checkpoint is written: both complete, and are equal.

``OSSFS_PY_SOAK_UPGRADES`` says how often, ``OSSFS_PY_SOAK_MODEL_MIB`` how large the model is, of
which the checkpoint has a quarter; ``OSSFS_PY_SOAK_SEED`` at which moments. How long the command
took, and how long calls were held up, is printed (``pytest -s``). A call that needs neither the
store nor the disk (statvfs) tells how long nobody answered.
"""

import hashlib
import io
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.soak.restarting import MIB, SEED, Programs, WrongError, safetensors_head
from tests.support.commands import ossfs
from tests.support.holding import wait_for
from tests.support.kept import KEPT

UPGRADES = int(os.environ.get("OSSFS_PY_SOAK_UPGRADES", "1"))
MODEL_MIB = int(os.environ.get("OSSFS_PY_SOAK_MODEL_MIB", "64"))
LONGEST_LIFE_SECONDS = 1.5
PULSE_SECONDS = 0.02
SECONDS_PER_UPGRADE = 60
TENSORS = 16
PIECE_BYTES = 4 * MIB


# In a process of its own: a page fault holds Python's lock, and every other program would wait.
LOAD_ON = """
import hashlib, os, sys, time
from safetensors import safe_open
path, tensors = sys.argv[1], int(sys.argv[2])
while True:
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    seen = hashlib.sha256()
    with safe_open(path, framework="np") as model:
        for number in range(tensors):
            began = time.monotonic()
            tensor = model.get_tensor(f"layer.{number}")
            print("tensor", time.monotonic() - began, flush=True)
            seen.update(tensor)
    print("model", seen.hexdigest(), flush=True)
"""


class Bytes(io.RawIOBase):
    """A stream of so many bytes: a block over and over, each time from another place."""

    def __init__(self, block: bytes, size: int, head: bytes = b"") -> None:
        self._block = block
        self._head = head
        self._size = len(head) + size
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._at < len(self._head):
            data = self._head[self._at : self._at + len(buffer)]
        else:
            number, start = divmod(self._at - len(self._head), len(self._block) - 1)
            data = self._block[(start + number) % len(self._block) :][
                : len(self._block) - 1 - start
            ]
        data = data[: min(len(buffer), self._size - self._at)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def pieces(source: Bytes) -> Iterator[bytes]:
    """All of a stream, in pieces as programs write them."""
    reader = io.BufferedReader(source, PIECE_BYTES)
    while piece := reader.read(PIECE_BYTES):
        yield piece


class Training:
    """Programs that load a model and write checkpoints, again and again."""

    def __init__(self, root: Path, client: Minio, bucket: str) -> None:
        self._root, self._client, self._bucket = root, client, bucket
        self._block = random.Random(SEED).randbytes(8 * MIB + 1)
        self._size = MODEL_MIB * MIB
        self.slow: list[float] = []
        """Seconds of each call that waits for the store or the disk as well."""
        self.programs = Programs(
            {"loader": self._load, "checkpoints": self._write, "pulse": self._ask}
        )

    @contextmanager
    def _slow(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.slow.append(time.monotonic() - began)

    def _ask(self, _rng: random.Random) -> Iterator[None]:
        while True:
            with self.programs.timed():
                os.statvfs(self._root)
            time.sleep(PULSE_SECONDS)
            yield

    def store_model(self) -> None:
        """Put the model into the bucket."""
        each = self._size // TENSORS
        head = safetensors_head({f"layer.{number}": each for number in range(TENSORS)})
        self._client.put_object(
            self._bucket,
            "model.safetensors",
            io.BufferedReader(Bytes(self._block, self._size, head), PIECE_BYTES),
            len(head) + self._size,
            part_size=64 * MIB,
        )

    def _load(self, _rng: random.Random) -> Iterator[None]:
        pytest.importorskip("safetensors", exc_type=ImportError)
        wanted = _digest(pieces(Bytes(self._block, self._size))).hex()
        command = [sys.executable, "-c", LOAD_ON, self._root / "model.safetensors", str(TENSORS)]
        loading = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert loading.stdout is not None
        try:
            for line in loading.stdout:
                what, told = line.split()
                if what == "tensor":
                    self.slow.append(float(told))
                    continue
                if told != wanted:
                    raise WrongError("loaded another model")
                yield
            raise WrongError(f"{loading.communicate()[1]} ended with {loading.returncode}")
        finally:
            loading.kill()
            loading.communicate()

    def _write(self, rng: random.Random) -> Iterator[None]:
        new, kept = self._root / "new.ckpt", self._root / "kept.ckpt"
        while True:
            block = rng.randbytes(8 * MIB + 1)
            seen = hashlib.sha256()
            with new.open("wb", buffering=0) as file:
                for piece in pieces(Bytes(block, self._size // 4)):
                    with self._slow():
                        if file.write(piece) != len(piece):
                            raise WrongError("a short write")
                    seen.update(piece)
                os.fsync(file.fileno())
            new.rename(kept)
            answer = self._client.get_object(self._bucket, "kept.ckpt")
            stored = _digest(answer.stream(PIECE_BYTES))
            answer.close()
            answer.release_conn()
            if stored != seen.digest():
                raise WrongError("the bucket has another checkpoint")
            with kept.open("rb") as file:
                if _digest(iter(lambda: file.read(PIECE_BYTES), b"")) != seen.digest():
                    raise WrongError("a checkpoint reads otherwise")
            yield


def _digest(content: Iterator[bytes]) -> bytes:
    seen = hashlib.sha256()
    for piece in content:
        seen.update(piece)
    return seen.digest()


@pytest.mark.timeout(300 + UPGRADES * SECONDS_PER_UPGRADE)
@pytest.mark.parametrize("data_path", ["temp", "direct"] if UPGRADES > 3 else ["temp"])
def test_a_load_and_a_checkpoint_complete_over_upgrades(
    data_path: str, mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    one = mount(bucket, data_path=data_path, restarts=1)
    training = Training(one.path, minio_client, bucket)
    training.store_model()
    programs, rng = training.programs, random.Random(SEED)
    took: list[float] = []
    refused = 0
    programs.start()
    try:
        while len(took) < UPGRADES and not programs.wrong:
            wait_for(lambda: one.log.count(KEPT) > len(took))
            time.sleep(rng.random() * LONGEST_LIFE_SECONDS)
            began = time.monotonic()
            outcome = ossfs("upgrade", one.path, environment={})
            if data_path == "direct" and "is sent to the store while it is written" in outcome.err:
                refused += 1  # a stream took longer than an upgrade waits for
                continue
            assert outcome.code == 0, outcome.err
            took.append(time.monotonic() - began)
    finally:
        programs.stop()
    longest = sorted(programs.held_up)[-len(took) :]
    print(  # noqa: T201
        f"{len(took)} upgrades of {data_path} under a model of {MODEL_MIB} MiB, {programs.rounds};"
        f" {refused} refused; the command took {statistics.median(took):.2f} s (median),"
        f" {max(took):.2f} s at most; calls held up {statistics.median(longest):.2f} s (median of"
        f" {len(longest)}), {longest[-1]:.2f} s at most; a tensor or 4 MiB written"
        f" {max(training.slow):.2f} s at most (load {os.getloadavg()[0]:.0f})"
    )
    assert not programs.wrong, programs.wrong
    assert all(programs.rounds.values()), programs.rounds
    assert one.terminate() == 0, one.log

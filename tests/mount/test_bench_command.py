"""``ossfs-py bench`` on real mounts: cold reads, clean-up, refusals."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from minio import Minio

from ossfs_py.bench.run import LET_GO_SECONDS, Bench, own_material, scratch_directory
from ossfs_py.bench.works import WORKS
from ossfs_py.errors import EnvironmentProblemError
from tests.conftest import MountFactory
from tests.support.commands import Outcome, ossfs, plain_environment, tmpfs
from tests.support.seaweed import SeaweedServer

MIB = 1024**2
PATIENCE_SECONDS = 120.0


@pytest.fixture
def told(seaweed: SeaweedServer) -> "Asking":
    return Asking(seaweed)


class Asking:
    """Runs ``ossfs-py bench``."""

    def __init__(self, server: SeaweedServer) -> None:
        self._environment = server.environment

    def __call__(self, *arguments: str | Path) -> Outcome:
        return ossfs("bench", *arguments, environment=self._environment)

    def works(self, *arguments: str | Path) -> dict[str, dict[str, Any]]:
        """What is told of each work."""
        outcome = self(*arguments, "--json")
        assert (outcome.code, outcome.err) == (0, ""), outcome
        return {row["work"]: row for row in json.loads(outcome.out)["works"]}


def keys(client: Minio, bucket: str) -> list[str]:
    return [str(item.object_name) for item in client.list_objects(bucket, recursive=True)]


def test_what_was_just_written_is_read_from_the_store(
    mount: MountFactory, bucket: str, minio_client: Minio, told: Asking
) -> None:
    mounted = mount(bucket, data_path="temp")
    began = time.monotonic()
    works = told.works(mounted.path, "--size", "4MiB", "--works", "write,sequential,create,list")
    assert time.monotonic() - began > LET_GO_SECONDS
    assert set(works) == {"write", "sequential", "create", "list"}
    assert works["write"]["store_sent_bytes"] == 4 * MIB
    assert works["sequential"]["bytes"] == works["sequential"]["store_received_bytes"] == 4 * MIB
    assert works["sequential"]["page_cache_bytes"] == 0
    assert works["create"]["operations"] == works["list"]["operations"] == 100
    assert works["create"]["store_sent_bytes"] == 100 * 65536
    # The names were forgotten before they were listed.
    assert works["list"]["store_requests"] > 0
    assert keys(minio_client, bucket) == []


def test_an_interrupted_benchmark_leaves_nothing(
    mount: MountFactory, bucket: str, minio_client: Minio, seaweed: SeaweedServer
) -> None:
    mounted = mount(bucket, data_path="direct")
    running = subprocess.Popen(
        [sys.executable, "-m", "ossfs_py", "bench", mounted.path, "--works", "sequential"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=plain_environment(seaweed.environment),
        text=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not list(mounted.path.glob(".ossfs-bench-*/file.dat")):
            assert time.monotonic() < deadline
            assert running.poll() is None, running.communicate()
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=PATIENCE_SECONDS)
    finally:
        running.kill()
    assert (running.returncode, out, err.strip()) == (130, "", "")
    assert list(mounted.path.iterdir()) == []
    # What the mount tries the store with it removes by itself, a moment later.
    while left := keys(minio_client, bucket):
        assert all(key.startswith(".ossfs-py-probe-") for key in left)
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_read_only_mount_is_one_sentence(mount: MountFactory, bucket: str, told: Asking) -> None:
    path = mount(bucket, read_only=True).path
    outcome = told(path)
    assert outcome.code == 1
    assert outcome.sentence == (
        f"no directory can be made in {path}: Read-only file system"
        " (--file names one to read instead)"
    )


def test_too_little_room_is_one_sentence_and_nothing_is_left(tmp_path: Path) -> None:
    def ignore(_amount: int) -> None:
        """Nobody looks."""

    class Unseen:
        def begin(self, title: str, total: int | None) -> Callable[[int], None]:
            return ignore

    wanted = [work for work in WORKS if work.name == "write"]
    with (
        tmpfs(tmp_path / "room", "size=2m") as room,
        pytest.raises(EnvironmentProblemError) as caught,
        scratch_directory(room, keep=True) as directory,
    ):
        list(Bench(own_material(directory, 8 * MIB), Unseen()).run(wanted))
    sentence = "write and fsync failed: No space left on device (a smaller --size may fit)"
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("/proc",), 1, "/proc is outside every ossfs-py mount"),
        (("/nonexistent",), 1, "/nonexistent is outside every ossfs-py mount"),
        (("",), 2, "MOUNTPOINT: must not be empty"),
        (("/mnt", "--size", "0"), 2, "--size: must be at least 1MiB"),
        (("/mnt", "--works", "write,swim"), 2, "--works: 'swim' is none of write, sequential,"),
        (("/mnt", "--works", "small", "--file", "x"), 2, "--works: small writes files"),
        (
            ("/mnt", "--file", "x", "--keep"),
            2,
            "--file and --size or --keep cannot be used together",
        ),
        (("/mnt", "--size", "much"), 2, "--size: 'much' is not a size"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    arguments: tuple[str, ...],
    code: int,
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from ossfs_py.cli.main import main

    with pytest.raises(SystemExit) as caught:
        main(["bench", *arguments])
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (code, "")
    assert err.startswith(f"ossfs-py: {sentence}")
    assert len(err.splitlines()) == 1

"""kill -9 of the daemon at random moments while programs write: nothing acknowledged is lost, and
nothing half is taken for whole.

``OSSFS_PY_SOAK_KILLS`` says how often on each data path, ``OSSFS_PY_SOAK_SEED`` at which moments.
"""

import contextlib
import os
import random
import signal
import threading
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.recovering import Recovering, names, stored
from tests.support.seaweed import SeaweedServer

KIB = 1024
KILLS = int(os.environ.get("OSSFS_PY_SOAK_KILLS", "1"))
SEED = int(os.environ.get("OSSFS_PY_SOAK_SEED", "1"))
SECONDS_PER_KILL = 600
HANG_SECONDS = 300
WRITERS = 4
CHUNK_BYTES = 256 * KIB
LARGEST_BYTES = 20 * KIB * KIB
MOST_CHUNKS = 400
"""The kill comes before this many chunks are written: some two seconds."""


class Writers:
    """Programs that write files until their mount dies."""

    def __init__(self, directory: Path, seed: int, chunks_until_death: int) -> None:
        self.contents: dict[str, bytes] = {}
        """What every file was to become that was begun."""
        self.acknowledged: set[str] = set()
        """Files whose fsync or close has returned without an error."""
        self.time_to_die = threading.Event()
        self._directory = directory
        self._chunks_left = chunks_until_death
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._write_files, args=(number, random.Random(seed + number)))
            for number in range(WRITERS)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(HANG_SECONDS)
            assert not thread.is_alive(), "a program hangs on the dead mount"

    def _write_files(self, writer: int, rng: random.Random) -> None:
        number = 0
        with contextlib.suppress(OSError):
            while True:
                name = f"{writer}-{number:04}"
                size = int(2 ** rng.uniform(0, LARGEST_BYTES.bit_length() - 1))
                self.contents[name] = rng.randbytes(size)
                self._write_file(name, fsync=rng.random() < 0.3)
                number += 1
        self.time_to_die.set()

    def _write_file(self, name: str, *, fsync: bool) -> None:
        content = self.contents[name]
        fd = os.open(self._directory / name, os.O_WRONLY | os.O_CREAT)
        try:
            for start in range(0, len(content), CHUNK_BYTES):
                os.write(fd, content[start : start + CHUNK_BYTES])
                self._count()
            if fsync:
                os.fsync(fd)
                self.acknowledged.add(name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(fd)
            raise
        os.close(fd)
        self.acknowledged.add(name)

    def _count(self) -> None:
        with self._lock:
            self._chunks_left -= 1
            if self._chunks_left == 0:
                self.time_to_die.set()


@pytest.mark.timeout(120 + KILLS * SECONDS_PER_KILL)
@pytest.mark.parametrize("write_back", [False, True], ids=["plain", "write-back"])
def test_a_killed_daemon_loses_nothing_acknowledged_and_shows_nothing_half(
    mount: MountFactory,
    seaweed: SeaweedServer,
    bucket: str,
    data_path: str,
    minio_client: Minio,
    write_back: bool,
) -> None:
    rng = random.Random(f"{SEED} {data_path} {write_back}")
    mounted = mount(f"{bucket}/0", data_path=data_path, write_back=write_back)
    for attempt in range(-(-KILLS // 3) if write_back else KILLS):
        directory = mounted.path / f"try-{attempt}"
        directory.mkdir()
        writers = Writers(directory, rng.randrange(2**32), rng.randrange(1, MOST_CHUNKS))
        writers.start()
        assert writers.time_to_die.wait(HANG_SECONDS)
        mounted.terminate(signal.SIGKILL)
        mounted.close()
        writers.join()

        prefix = f"0/try-{attempt}/"
        recover = Recovering(mounted, seaweed)
        listed = {str(entry["key"]) for entry in recover.list()}
        shown = {key for key in names(minio_client, bucket) if key.startswith(prefix)}
        for key in shown - {prefix} - listed:
            whole = writers.contents[key.removeprefix(prefix)]
            assert stored(minio_client, bucket, key) == whole, f"{key} is half"
        assert recover("--upload").code == 0
        for name in writers.acknowledged:
            assert stored(minio_client, bucket, prefix + name) == writers.contents[name], name
        for key in listed:
            begun = stored(minio_client, bucket, key)
            assert writers.contents[key.removeprefix(prefix)].startswith(begun), key
        if data_path != "direct":
            # What streamed from memory is gone with the daemon; everything else is kept.
            missing = {f"{prefix}{name}" for name in writers.contents} - listed - shown
            assert len(missing) <= WRITERS, "at most the files that had no byte yet"
        assert recover.list() == []
        mounted.start()
        assert not [upload for upload in uploads(minio_client, bucket) if upload in shown]
    assert mounted.unmount() == 0


def uploads(client: Minio, bucket: str) -> list[str]:
    """Keys of multipart uploads in progress."""
    answer = client._list_multipart_uploads(bucket)
    return [str(upload.object_name) for upload in answer.uploads]

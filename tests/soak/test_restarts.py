"""kill -9 of the daemon at random moments while programs read, map and walk, and upgrades: no
program is told an error, and none reads a wrong byte.

``OSSFS_PY_SOAK_RESTARTS`` says how often, ``OSSFS_PY_SOAK_SEED`` at which moments. How long reads
were held up is printed (``pytest -s``).
"""

import hashlib
import io
import mmap
import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from minio import Minio

from ossfs_py.host.running import find_daemon
from tests.conftest import MountFactory
from tests.support.commands import ossfs
from tests.support.holding import wait_for
from tests.support.mounting import END_SECONDS

MIB = 1024**2
RESTARTS = int(os.environ.get("OSSFS_PY_SOAK_RESTARTS", "1"))
SEED = int(os.environ.get("OSSFS_PY_SOAK_SEED", "1"))
LONGEST_LIFE_SECONDS = 1.0
SECONDS_PER_RESTART = 60
FILES, FILE_BYTES, NAMES = 4, 6 * MIB, 400
GOES_ON = "if this daemon dies, another one takes over"


class Programs:
    """Threads that use a mount until they are told to stop, and what went wrong in them."""

    def __init__(self, root: Path, contents: dict[str, bytes]) -> None:
        self._root = root
        self._contents = contents
        self._stop = threading.Event()
        self.wrong: list[str] = []
        self.rounds = {"reader": 0, "mapper": 0, "walker": 0}
        self.longest_seconds: list[float] = []
        """Of each whole reading of a file."""
        works: dict[str, Callable[[random.Random], None]] = {
            "reader": self._read,
            "mapper": self._map,
            "walker": self._walk,
        }
        self._threads = [
            threading.Thread(target=self._go_on, args=(name, work, random.Random(number)))
            for number, (name, work) in enumerate([*works.items(), ("reader", self._read)])
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(END_SECONDS)
            assert not thread.is_alive(), "a program hangs"

    def _go_on(self, name: str, work: Callable[[random.Random], None], rng: random.Random) -> None:
        while not self._stop.is_set():
            try:
                work(rng)
            except OSError as exc:
                self.wrong.append(f"{name}: {exc!r}")
                return
            self.rounds[name] += 1

    def _chosen(self, rng: random.Random) -> tuple[Path, bytes]:
        key = rng.choice(sorted(self._contents))
        return self._root / key, self._contents[key]

    def _read(self, rng: random.Random) -> None:
        path, content = self._chosen(rng)
        seen = hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while True:
                began = time.monotonic()
                piece = file.read(256 * 1024)
                self.longest_seconds.append(time.monotonic() - began)
                if not piece:
                    break
                seen.update(piece)
        if seen.digest() != hashlib.sha256(content).digest():
            self.wrong.append(f"read other bytes of {path.name}")

    def _map(self, rng: random.Random) -> None:
        path, content = self._chosen(rng)
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
        ):
            for _ in range(20):
                start = rng.randrange(len(content))
                if mapped[start : start + 70_000] != content[start : start + 70_000]:
                    self.wrong.append(f"mapped other bytes of {path.name}")
            mapped.madvise(mmap.MADV_DONTNEED)

    def _walk(self, _rng: random.Random) -> None:
        found = sorted(
            (entry.name, entry.stat().st_size) for entry in os.scandir(self._root / "many")
        )
        if found != [(f"{number:04}", 5) for number in range(NAMES)]:
            self.wrong.append(f"listed {len(found)} names")


@pytest.mark.timeout(60 + RESTARTS * SECONDS_PER_RESTART)
@pytest.mark.parametrize(
    ("data_path", "upgrades"),
    [("direct", False), ("cache", False), ("direct", True)]
    if RESTARTS > 3
    else [("direct", False)],
)
def test_programs_notice_no_death_of_the_daemon(
    data_path: str, upgrades: bool, mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    rng = random.Random(SEED)
    contents = {f"models/{number}": rng.randbytes(FILE_BYTES) for number in range(FILES)}
    for key, content in contents.items():
        minio_client.put_object(bucket, key, io.BytesIO(content), len(content))
    for number in range(NAMES):
        minio_client.put_object(bucket, f"many/{number:04}", io.BytesIO(b"small"), 5)
    one = mount(bucket, data_path=data_path, read_only=True, restarts=1000, metadata_ttl=1)
    programs = Programs(one.path, contents)
    programs.start()
    try:
        for number in range(RESTARTS):
            wait_for(lambda: one.log.count(GOES_ON) > number)  # noqa: B023 - called at once
            time.sleep(rng.random() * LONGEST_LIFE_SECONDS)
            daemon = find_daemon(one.path)
            assert daemon is not None
            daemon.close()
            if upgrades:
                outcome = ossfs("upgrade", one.path, environment={})
                assert outcome.code == 0, outcome.err
            else:
                os.kill(daemon.mount.pid, signal.SIGKILL)
        wait_for(lambda: one.log.count(GOES_ON) > RESTARTS)
    finally:
        programs.stop()
    held_up = sorted(programs.longest_seconds)[-RESTARTS:]
    print(  # noqa: T201
        f"{RESTARTS} {'upgrades' if upgrades else 'deaths'}, {programs.rounds};"
        f" reads held up: median {statistics.median(held_up):.2f} s, longest {held_up[-1]:.2f} s"
    )
    assert not programs.wrong, programs.wrong
    assert all(programs.rounds.values()), programs.rounds

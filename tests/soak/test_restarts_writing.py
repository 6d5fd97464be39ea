"""kill -9 of the daemon at random moments while programs write, and upgrades: no program is told an
error, none reads a wrong byte, and what a program was told is stored is in the bucket.

``OSSFS_PY_SOAK_RESTARTS`` says how often, ``OSSFS_PY_SOAK_SEED`` at which moments. How long calls
were held up is printed (``pytest -s``).
"""

import os
import random
import signal
import sqlite3
import statistics
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from minio import Minio
from minio.error import S3Error

from ossfs_py.host.running import find_daemon
from tests.conftest import MountFactory
from tests.support.commands import ossfs
from tests.support.holding import wait_for
from tests.support.mounting import END_SECONDS

MIB = 1024**2
RESTARTS = int(os.environ.get("OSSFS_PY_SOAK_RESTARTS", "1"))
SEED = int(os.environ.get("OSSFS_PY_SOAK_SEED", "1"))
LONGEST_LIFE_SECONDS = 1.5
SECONDS_PER_RESTART = 90
GOES_ON = "if this daemon dies, another one takes over"
GIT_ENVIRONMENT = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@b",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@b",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "gc.auto",
    "GIT_CONFIG_VALUE_0": "0",
}


class WrongError(Exception):
    """What a program must not see."""


class Writers:
    """Threads that write to a mount until they are told to stop, and what went wrong in them."""

    def __init__(self, root: Path, client: Minio, bucket: str) -> None:
        self._root = root
        self._client = client
        self._bucket = bucket
        self._stop = threading.Event()
        self.wrong: list[str] = []
        self.held_up: list[float] = []
        """Seconds of each call that stores."""
        self._works: dict[str, Callable[[random.Random], Iterator[None]]] = {
            "appender": self._append,
            "checkpoints": self._checkpoints,
            "changer": self._change,
            "names": self._names,
            "nameless": self._nameless,
            "sqlite": self._sqlite,
            "git": self._git,
        }
        self.rounds = dict.fromkeys(self._works, 0)
        self._threads = [
            threading.Thread(target=self._go_on, args=(name, random.Random(f"{SEED} {name}")))
            for name in self._works
        ]

    def start(self) -> None:
        for name in self._works:
            (self._root / name).mkdir()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(END_SECONDS)
            assert not thread.is_alive(), "a program hangs"

    def _go_on(self, name: str, rng: random.Random) -> None:
        try:
            for _ in self._works[name](rng):
                self.rounds[name] += 1
                if self._stop.is_set():
                    break
        except (OSError, sqlite3.Error, subprocess.CalledProcessError, S3Error, WrongError) as exc:
            told = getattr(exc, "stderr", None) or ""
            where = [
                each
                for each in traceback.extract_tb(exc.__traceback__)
                if each.filename == __file__
            ][-1]
            self.wrong.append(
                f"{time.strftime('%H:%M:%S')} {name} after {self.rounds[name]} rounds:"
                f" {exc!r} at {where.line} {told}"
            )

    @contextmanager
    def _stored(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.held_up.append(time.monotonic() - began)

    def _bucket_has(self, key: str, content: bytes) -> None:
        answer = self._client.get_object(self._bucket, key)
        found = answer.read()
        answer.close()
        answer.release_conn()
        if found != content:
            raise WrongError(f"{key} has {len(found)} bytes in the bucket, not {len(content)}")

    def _bucket_lacks(self, key: str) -> None:
        """At once, but for what is read until its last close, of which nobody is told the end."""
        until = time.monotonic() + END_SECONDS
        while time.monotonic() < until:
            try:
                self._client.stat_object(self._bucket, key)
            except S3Error:
                return
            time.sleep(0.1)
        raise WrongError(f"{key} is still in the bucket")

    # -- the programs ---------------------------------------------------------------------------

    def _append(self, _rng: random.Random) -> Iterator[None]:
        """Lines that are each there once."""
        path, whole = self._root / "appender" / "log", b""
        while True:
            with path.open("ab", buffering=0) as file:
                for _ in range(3):
                    line = f"line {len(whole)}\n".encode()
                    file.write(line)
                    whole += line
                    with self._stored():
                        os.fsync(file.fileno())
                self._bucket_has("appender/log", whole)
                file.write(b"at close\n")
                whole += b"at close\n"
                with self._stored():
                    file.close()
            self._bucket_has("appender/log", whole)
            yield

    def _checkpoints(self, rng: random.Random) -> Iterator[None]:
        """A file that is written anew beside the old one, and takes its place."""
        directory = self._root / "checkpoints"
        while True:
            content = rng.randbytes(rng.choice((100_000, 3 * MIB, 12 * MIB)))
            with (directory / "new").open("wb", buffering=0) as file:
                for start in range(0, len(content), 300_000):
                    file.write(content[start : start + 300_000])
                with self._stored():
                    os.fsync(file.fileno())
            self._bucket_has("checkpoints/new", content)
            (directory / "new").rename(directory / "kept")
            self._bucket_has("checkpoints/kept", content)
            self._bucket_lacks("checkpoints/new")
            if (directory / "kept").read_bytes() != content:
                raise WrongError("a checkpoint reads otherwise")
            yield

    def _change(self, rng: random.Random) -> Iterator[None]:
        """Bytes in the middle of a file that stays open."""
        path = self._root / "changer" / "file"
        whole = bytearray(rng.randbytes(2 * MIB))
        path.write_bytes(whole)
        with path.open("r+b", buffering=0) as file:
            while True:
                for _ in range(4):
                    start = rng.randrange(len(whole))
                    data = rng.randbytes(rng.randrange(1, 100_000))[: len(whole) - start]
                    if os.pwrite(file.fileno(), data, start) != len(data):
                        raise WrongError("a short write")
                    whole[start : start + len(data)] = data
                if rng.random() < 0.3:
                    size = rng.randrange(MIB, 3 * MIB)
                    file.truncate(size)
                    whole = whole[:size] + bytes(max(0, size - len(whole)))
                with self._stored():
                    os.fsync(file.fileno())
                self._bucket_has("changer/file", bytes(whole))
                start = rng.randrange(len(whole))
                if os.pread(file.fileno(), 50_000, start) != whole[start : start + 50_000]:
                    raise WrongError("reads otherwise")
                yield

    def _names(self, rng: random.Random) -> Iterator[None]:
        """Making, linking, renaming, removing."""
        top = self._root / "names"
        for number in range(10**9):
            made, moved = top / f"d{number}", top / f"m{number}"
            made.mkdir()
            for name in ("a", "b", "c"):
                (made / name).write_bytes(f"{number} {name}".encode())
            (made / "link").symlink_to("a")
            (made / "a").chmod(0o640)
            (made / "b").rename(made / "c")
            if sorted(entry.name for entry in os.scandir(made)) != ["a", "c", "link"]:
                raise WrongError(f"other names in {made}")
            made.rename(moved)
            self._bucket_has(f"names/m{number}/c", f"{number} b".encode())
            self._bucket_lacks(f"names/d{number}/a")
            if (moved / "link").read_bytes() != f"{number} a".encode():
                raise WrongError("a link leads elsewhere")
            if (moved / "a").stat().st_mode & 0o777 != 0o640:
                raise WrongError("another mode")
            fd = os.open(moved / "new", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            os.close(fd)
            for name in rng.sample(["a", "c", "link", "new"], 4):
                (moved / name).unlink()
            moved.rmdir()
            self._bucket_lacks(f"names/m{number}/a")
            if moved.exists():
                raise WrongError("a removed directory is there")
            yield

    def _nameless(self, rng: random.Random) -> Iterator[None]:
        """Files that are open, and have lost their names."""
        top = self._root / "nameless"
        while True:
            content = rng.randbytes(400_000)
            with (top / "t").open("w+b", buffering=0) as file:
                file.write(content[:200_000])
                if rng.random() < 0.5:
                    os.fsync(file.fileno())
                (top / "t").unlink()
                file.write(content[200_000:])
                time.sleep(rng.random() / 2)
                if os.pread(file.fileno(), 500_000, 0) != content:
                    raise WrongError("a removed file reads otherwise")
                if (top / "t").exists():
                    raise WrongError("a removed file is there")
            self._bucket_lacks("nameless/t")
            yield

    def _sqlite(self, _rng: random.Random) -> Iterator[None]:
        path = self._root / "sqlite" / "db"
        with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as database:
            database.execute("PRAGMA journal_mode=DELETE")
            database.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, b BLOB)")
        for number in range(10**9):
            with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as database:
                for each in range(3):
                    with self._stored():
                        database.execute(
                            "INSERT INTO t VALUES (?, ?)", (3 * number + each, os.urandom(3000))
                        )
                (count,) = database.execute("SELECT count(*) FROM t").fetchone()
                if count != 3 * number + 3:
                    raise WrongError(f"{count} rows, not {3 * number + 3}")
                (told,) = database.execute("PRAGMA integrity_check").fetchone()
                if told != "ok":
                    raise WrongError(told)
            self._bucket_has("sqlite/db", path.read_bytes())
            yield

    def _git(self, rng: random.Random) -> Iterator[None]:
        work = self._root / "git"

        def git(*arguments: str) -> str:
            return subprocess.run(
                ["git", *arguments],
                cwd=work,
                env={**os.environ, **GIT_ENVIRONMENT},
                check=True,
                capture_output=True,
                text=True,
            ).stdout

        git("init", "-q", "-b", "main", "--template=")
        for number in range(10**9):
            (work / "file").write_bytes(rng.randbytes(5000))
            (work / f"n{number}").write_bytes(b"x")
            git("add", "-A")
            git("commit", "-q", "-m", str(number))
            if (
                git("status", "--porcelain")
                or int(git("rev-list", "--count", "HEAD")) != number + 1
            ):
                raise WrongError("git sees changes, or lacks a commit")
            git("fsck", "--strict", "--no-dangling")
            yield


@pytest.mark.timeout(120 + RESTARTS * SECONDS_PER_RESTART)
@pytest.mark.parametrize(
    ("data_path", "upgrades"),
    [("temp", False), ("cache", False), ("temp", True)] if RESTARTS > 3 else [("temp", False)],
)
def test_writers_notice_no_death_of_the_daemon(
    data_path: str, upgrades: bool, mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    rng = random.Random(SEED)
    one = mount(
        bucket,
        data_path=data_path,
        restarts=1000,
        posix_metadata=True,
    )
    writers = Writers(one.path, minio_client, bucket)
    writers.start()
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
            if writers.wrong:
                break
        else:
            wait_for(lambda: one.log.count(GOES_ON) > RESTARTS)
    finally:
        writers.stop()
    held_up = sorted(writers.held_up)[-RESTARTS:]
    print(  # noqa: T201
        f"{RESTARTS} {'upgrades' if upgrades else 'deaths'}, {writers.rounds}; calls that store"
        f" held up: median {statistics.median(held_up):.2f} s, longest {held_up[-1]:.2f} s"
    )
    assert not writers.wrong, writers.wrong
    assert one.terminate() == 0, one.log
    assert "could not be saved" not in one.log
    assert not list(one.state_dir.glob("*/unsaved/*"))
    left = [str(each.object_name) for each in minio_client.list_objects(bucket, recursive=True)]
    # A daemon that dies while it finds out what the store can do leaves the object it tried.
    hidden = [key for key in left if ".ossfs-py" in key and ".ossfs-py-probe-" not in key]
    assert not hidden

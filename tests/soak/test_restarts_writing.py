"""kill -9 of the daemon at random moments while programs write, and upgrades: no program is told an
error, none reads a wrong byte, and what a program was told is stored is in the bucket. On
``direct`` EIO is what a program is told of bytes that were in memory only; nothing else is wrong
there either.
"""

import errno
import os
import random
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from minio import Minio
from minio.error import S3Error

from ossfs_py.writing.records import DirtyRecord
from tests.conftest import MountFactory
from tests.soak.restarting import (
    DEATHS,
    MIB,
    RESTARTS,
    SECONDS_PER_RESTART,
    UPGRADES,
    Programs,
    Work,
    WrongError,
    end_daemons,
    is_there,
)
from tests.support.mounting import END_SECONDS, Mount, Option

TRASH = ".ossfs-py-trash/"

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


class Writers:
    """What programs write to a mount, each in a directory of its own."""

    def __init__(
        self, one: Mount, client: Minio, bucket: str, *, forgives: bool, behind: bool
    ) -> None:
        """``forgives``: a program that is told EIO begins again, in another directory. ``behind``:
        what no fsync has asked for comes to the bucket later.
        """
        self._behind = behind
        self._mount = one
        self._root = one.path
        self._client = client
        self._bucket = bucket
        self._begun = 0
        self._works: dict[str, Callable[[Path, random.Random], Iterator[None]]] = {
            "appender": self._append,
            "checkpoints": self._checkpoints,
            "changer": self._change,
            "names": self._names,
            "nameless": self._nameless,
            "sqlite": self._sqlite,
            "git": self._git,
        }
        works = {name: self._begin(name) for name in self._works}
        self.programs = Programs(works, self._begin if forgives else None)

    def _begin(self, name: str) -> Work:
        self._begun += 1
        top = self._root / f"{name}{self._begun}"

        def work(rng: random.Random) -> Iterator[None]:
            top.mkdir()
            yield from self._works[name](top, rng)

        return work

    def _lost_locks(self) -> int:
        """The number of git's lock files that are reported as unsaved."""
        return self._mount.log.count(".lock' is not saved")

    def _key(self, path: Path) -> str:
        return str(path.relative_to(self._root))

    @contextmanager
    def _stored(self) -> Iterator[None]:
        with self.programs.timed():
            yield

    def _bucket_has(self, path: Path, content: bytes) -> None:
        key = self._key(path)
        until = time.monotonic() + END_SECONDS * self._behind
        while (found := self._found(key)) != content:
            if time.monotonic() > until:
                told = "nothing" if found is None else f"{len(found)} bytes"
                raise WrongError(f"{key} has {told} in the bucket, not {len(content)}")
            time.sleep(0.1)

    def _found(self, key: str) -> bytes | None:
        try:
            answer = self._client.get_object(self._bucket, key)
        except S3Error as exc:
            if exc.code != "NoSuchKey":
                raise
            return None
        found = answer.read()
        answer.close()
        answer.release_conn()
        return found

    def _bucket_lacks(self, path: Path) -> None:
        """At once, but for what is read until its last close, of which nobody is told the end."""
        key = self._key(path)
        until = time.monotonic() + END_SECONDS
        while time.monotonic() < until:
            try:
                self._client.stat_object(self._bucket, key)
            except S3Error:
                return
            time.sleep(0.1)
        raise WrongError(f"{key} is still in the bucket")

    # -- the programs ---------------------------------------------------------------------------

    def _append(self, top: Path, _rng: random.Random) -> Iterator[None]:
        """Lines that are each there once."""
        path, whole = top / "log", b""
        while True:
            with path.open("ab", buffering=0) as file:
                for _ in range(3):
                    line = f"line {len(whole)}\n".encode()
                    file.write(line)
                    whole += line
                    with self._stored():
                        os.fsync(file.fileno())
                self._bucket_has(path, whole)
                file.write(b"at close\n")
                whole += b"at close\n"
                with self._stored():
                    file.close()
            self._bucket_has(path, whole)
            yield

    def _checkpoints(self, top: Path, rng: random.Random) -> Iterator[None]:
        """A file that is written anew beside the old one, and takes its place."""
        while True:
            content = rng.randbytes(rng.choice((100_000, 3 * MIB, 12 * MIB)))
            with (top / "new").open("wb", buffering=0) as file:
                for start in range(0, len(content), 300_000):
                    file.write(content[start : start + 300_000])
                with self._stored():
                    os.fsync(file.fileno())
            self._bucket_has(top / "new", content)
            (top / "new").rename(top / "kept")
            self._bucket_has(top / "kept", content)
            self._bucket_lacks(top / "new")
            if (top / "kept").read_bytes() != content:
                raise WrongError("a checkpoint reads otherwise")
            yield

    def _change(self, top: Path, rng: random.Random) -> Iterator[None]:
        """Bytes in the middle of a file that stays open."""
        path = top / "file"
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
                self._bucket_has(path, bytes(whole))
                start = rng.randrange(len(whole))
                if os.pread(file.fileno(), 50_000, start) != whole[start : start + 50_000]:
                    raise WrongError("reads otherwise")
                yield

    def _names(self, top: Path, rng: random.Random) -> Iterator[None]:
        """Making, linking, renaming, removing."""
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
            self._bucket_has(moved / "c", f"{number} b".encode())
            self._bucket_lacks(made / "a")
            if (moved / "link").read_bytes() != f"{number} a".encode():
                raise WrongError("a link leads elsewhere")
            if (moved / "a").stat().st_mode & 0o777 != 0o640:
                raise WrongError("another mode")
            fd = os.open(moved / "new", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            os.close(fd)
            for name in rng.sample(["a", "c", "link", "new"], 4):
                (moved / name).unlink()
            moved.rmdir()
            self._bucket_lacks(moved / "a")
            if is_there(moved):
                raise WrongError("a removed directory is there")
            yield

    def _nameless(self, top: Path, rng: random.Random) -> Iterator[None]:
        """Files that are open, and have lost their names."""
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
                if is_there(top / "t"):
                    raise WrongError("a removed file is there")
            self._bucket_lacks(top / "t")
            yield

    def _sqlite(self, top: Path, _rng: random.Random) -> Iterator[None]:
        path = top / "db"
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
            self._bucket_has(path, path.read_bytes())
            yield

    def _git(self, top: Path, rng: random.Random) -> Iterator[None]:
        def git(*arguments: str) -> str:
            lost = self._lost_locks()
            try:
                return subprocess.run(
                    ["git", *arguments],
                    cwd=top,
                    env={**os.environ, **GIT_ENVIRONMENT},
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout
            except subprocess.CalledProcessError as exc:
                if self._lost_locks() > lost:
                    # When close(2) says EIO, git removes its lock file, and tells what that said.
                    raise OSError(errno.EIO, exc.stderr) from exc
                raise

        git("init", "-q", "-b", "main", "--template=")
        for number in range(10**9):
            (top / "file").write_bytes(rng.randbytes(5000))
            (top / f"n{number}").write_bytes(b"x")
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
    ("ends", "data_path", "more"),
    [
        (DEATHS, "temp", ""),
        (DEATHS, "cache", ""),
        (DEATHS, "direct", ""),
        (DEATHS, "temp", "write_back"),
        (DEATHS, "temp", "trash"),
        (UPGRADES, "temp", ""),
        (UPGRADES, "direct", ""),
        (UPGRADES, "cache", "write_back"),
    ]
    if RESTARTS > 3
    else [(DEATHS, "temp", "")],
)
def test_writers_notice_no_death_of_the_daemon(
    ends: str,
    data_path: str,
    more: str,
    mount: MountFactory,
    bucket: str,
    minio_client: Minio,
) -> None:
    options: dict[str, Option] = {more: TRASH if more == "trash" else True} if more else {}
    one = mount(bucket, data_path=data_path, restarts=1000, posix_metadata=True, **options)
    forgives = data_path == "direct" and ends == DEATHS
    programs = Writers(
        one, minio_client, bucket, forgives=forgives, behind=more == "write_back"
    ).programs
    programs.start()
    try:
        end_daemons(one, programs, ends, serves_first=True)
    finally:
        programs.stop()
    programs.print_outcome(f"{ends} under writers on {data_path} {more}")
    assert not programs.wrong, programs.wrong
    assert all(programs.rounds.values()), programs.rounds
    assert one.terminate() == 0, one.log
    assert forgives or "could not be saved" not in one.log
    told = [
        DirtyRecord.from_json(path.read_text()) for path in one.state_dir.glob("*/unsaved/*.json")
    ]
    assert all(record.vanished for record in told), told
    assert forgives or not told
    left = [str(each.object_name) for each in minio_client.list_objects(bucket, recursive=True)]
    # A daemon that dies while it finds out what the store can do leaves the object it tried.
    expected = (".ossfs-py-probe-", TRASH)
    hidden = [
        key for key in left if ".ossfs-py" in key and not any(each in key for each in expected)
    ]
    assert not hidden

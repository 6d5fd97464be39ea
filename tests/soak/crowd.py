"""``python -m tests.soak.crowd WORK DIRECTORY SECONDS SEED``: one program of a crowd on one mount.

It does its work again and again until the time is up, checks all it sees, and prints how often. The
exit code is 1 with a traceback if something was not as on a local disk.
"""

import filecmp
import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

KIB, MIB = 1024, 1024**2
SHARED = "shared"
"""Files that everybody reads and nobody changes; each is named after its SHA-256."""
COMMON = "common"
"""A directory in which everybody makes, renames and removes files."""


def content(rng: random.Random, largest: int) -> bytes:
    """Random bytes, few more often than many."""
    return rng.randbytes(int(largest ** rng.random()))


def run(*command: str | Path) -> str:
    """Output of a program that must not fail."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command[0]}: {done.returncode} {done.stderr[-2000:]}"
    return done.stdout


def tar(mine: Path, rng: random.Random) -> None:
    """Pack a local tree onto the mount, unpack it there, compare."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        for number in range(8):
            path = tree / f"d{number % 3}" / f"{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content(rng, 300 * KIB))
        run("tar", "cf", mine / "tree.tar", "-C", tree, ".")
        run("mkdir", "-p", mine / "tree")
        run("tar", "xf", mine / "tree.tar", "-C", mine / "tree")
        run("diff", "-r", tree, mine / "tree")
    shutil.rmtree(mine / "tree")


def copy(mine: Path, rng: random.Random) -> None:
    """rsync a local tree to the mount, then find that nothing is left to do."""
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(5):
            (Path(scratch) / f"{number}").write_bytes(content(rng, MIB))
        run("rsync", "-a", "--delete", f"{scratch}/", f"{mine}/copy/")
        again = run(
            "rsync", "-a", "--delete", "--itemize-changes", "-c", f"{scratch}/", mine / "copy"
        )
        assert not [line for line in again.splitlines() if line.startswith((">", "<"))], again


def database(mine: Path, rng: random.Random) -> None:
    """Transactions, some of them rolled back."""
    connection = sqlite3.connect(mine / "data.db", timeout=60)
    try:
        connection.execute("CREATE TABLE IF NOT EXISTS items (sum TEXT, value BLOB)")
        before = connection.execute("SELECT count(*) FROM items").fetchone()[0]
        for _ in range(5):
            value = content(rng, 50 * KIB)
            row = (hashlib.sha256(value).hexdigest(), value)
            connection.execute("INSERT INTO items VALUES (?, ?)", row)
            connection.commit()
            connection.execute("DELETE FROM items")
            connection.rollback()
        rows = connection.execute("SELECT sum, value FROM items").fetchall()
        assert len(rows) == before + 5
        assert all(hashlib.sha256(value).hexdigest() == total for total, value in rows)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        connection.close()
    if before > 50:
        (mine / "data.db").unlink()


def repository(mine: Path, rng: random.Random) -> None:
    """Commit on the mount, clone to a local disk."""
    git = (
        "git",
        "-C",
        mine / "repo",
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
        "-c",
        "gc.auto=0",
    )
    if not (mine / "repo").exists():
        run("git", "init", "-q", mine / "repo")
    file = mine / "repo" / f"{rng.randrange(5)}"
    file.write_bytes(content(rng, 100 * KIB) + rng.randbytes(8))
    run(*git, "add", ".")
    run(*git, "commit", "-q", "-m", "change")
    run(*git, "fsck", "--strict")
    with tempfile.TemporaryDirectory() as scratch:
        run("git", "clone", "-q", mine / "repo", f"{scratch}/clone")
        assert filecmp.cmp(Path(scratch) / "clone" / file.name, file, shallow=False)
    if rng.random() < 0.2:
        shutil.rmtree(mine / "repo")


def fio(mine: Path, rng: random.Random) -> None:
    """Writes all over a file, verified by their checksums."""
    with tempfile.TemporaryDirectory() as scratch:
        run(
            *("fio", "--name=crowd", f"--filename={mine / 'fio.bin'}", "--ioengine=psync"),
            *("--rw=randwrite", "--bs=64k", f"--size={rng.randrange(1, 8)}m", "--verify=crc32c"),
            *("--do_verify=1", "--verify_fatal=1", "--end_fsync=1", f"--randseed={rng.random()}"),
            f"--aux-path={scratch}",
        )


def whole(mine: Path, rng: random.Random) -> None:
    """Read a shared file from beginning to end."""
    path = rng.choice(list((mine.parent / SHARED).iterdir()))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def mapped(mine: Path, rng: random.Random) -> None:
    """Load a shared file with numpy's memmap, in no order."""
    import numpy as np

    path = rng.choice(list((mine.parent / SHARED).iterdir()))
    mapping = np.memmap(path, np.uint8, "r")
    once = mapping.tobytes()
    offset = rng.randrange(len(once))
    assert bytes(mapping[offset : offset + 70_000]) == once[offset : offset + 70_000]
    assert hashlib.sha256(once).hexdigest() == path.name


def walk(mine: Path, _: random.Random) -> None:
    """See all that does not change while the rest does."""
    shared = set(os.listdir(mine.parent / SHARED))  # noqa: PTH208
    assert all(len(name) == 64 for name in shared)
    for directory, _names, files in os.walk(mine.parent):
        for name in files:
            try:
                (Path(directory) / name).lstat()
            except FileNotFoundError:
                assert SHARED not in directory, f"{directory}/{name} is gone"


def churn(mine: Path, rng: random.Random) -> None:
    """Make, rename and remove files where everybody does."""
    common = mine.parent / COMMON
    name = f"{os.getpid()}-{rng.randrange(1000)}"
    data = content(rng, 20 * KIB)
    (common / name).write_bytes(data)
    (common / name).rename(common / f"{name}.done")
    assert (common / f"{name}.done").read_bytes() == data
    assert name not in os.listdir(common)  # noqa: PTH208
    (common / f"{name}.done").unlink()
    assert not (common / f"{name}.done").exists()


def log(mine: Path, rng: random.Random) -> None:
    """Append lines, each forced to the store now and then."""
    path = mine / "log.txt"
    lines = [f"{number} {rng.random()}\n" for number in range(30)]
    with path.open("w") as file:
        for number, line in enumerate(lines):
            file.write(line)
            if number % 10 == 9:
                file.flush()
                os.fsync(file.fileno())
    with path.open("a") as file:
        file.write("end\n")
    assert path.read_text() == "".join([*lines, "end\n"])


def save(mine: Path, rng: random.Random) -> None:
    """Save a checkpoint beside the last one and put it in its place."""
    data = rng.randbytes(rng.randrange(MIB, 24 * MIB))
    temporary = mine / "checkpoint.tmp"
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(mine / "checkpoint.bin")
    assert (mine / "checkpoint.bin").read_bytes() == data


WORKS: dict[str, Callable[[Path, random.Random], None]] = {
    work.__name__: work
    for work in (tar, whole, database, churn, save, walk, repository, mapped, log, copy, fio)
}


def main() -> None:
    """Work until the time is up."""
    name, directory, seconds, seed = sys.argv[1:]
    rng = random.Random(int(seed))
    end = time.monotonic() + float(seconds)
    rounds = 0
    while not rounds or time.monotonic() < end:
        WORKS[name](Path(directory), rng)
        rounds += 1
    print(rounds)  # noqa: T201 - for the test that counts


if __name__ == "__main__":
    main()

"""kill -9 of the daemon while programs make, change, move and remove trees with ``--write-back``:
the bucket becomes what a local disk became by the same acknowledged calls.

``OSSFS_PY_SOAK_TREE_KILLS`` says how often in each work, ``OSSFS_PY_SOAK_SEED`` at which moments.
"""

import os
import random
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from minio import Minio

from ossfs_py.namespace.metadata import decode
from tests.conftest import MountFactory
from tests.support.commands import ossfs
from tests.support.proxy import Proxy, Shape
from tests.support.recovering import Recovering, kill, names, stored
from tests.support.seaweed import SeaweedServer

KILLS = int(os.environ.get("OSSFS_PY_SOAK_TREE_KILLS", "1"))
SEED = int(os.environ.get("OSSFS_PY_SOAK_SEED", "1"))
HANG_SECONDS = 300
SECONDS_PER_KILL = 300
DIRECTORIES = 6
FILES = 8

Call = Callable[[Path], object]
"""One call, or the few of one file, below a directory."""


def on(name: str, act: Callable[[Path], object]) -> Call:
    return lambda root: act(root / name)


def write(name: str, content: bytes) -> Call:
    return on(name, lambda path: path.write_bytes(content))


def move(name: str, to: str) -> Call:
    return lambda root: (root / name).rename(root / to)


def set_attributes(name: str, mode: int, at: int) -> Iterator[Call]:
    yield on(name, lambda path: os.utime(path, (at, at)))
    yield on(name, lambda path: path.chmod(mode))


def unpacked(rng: random.Random) -> Iterator[Call]:
    """As tar does it: attributes right after each file, those of directories at the end."""
    for number in range(DIRECTORIES):
        directory = f"d{number}"
        yield on(directory, Path.mkdir)
        for each in range(FILES):
            name = f"{directory}/f{each}"
            yield write(name, rng.randbytes(rng.randrange(1, 5000)))
            yield from set_attributes(name, rng.choice([0o600, 0o755]), rng.randrange(10**9))
        yield on(f"{directory}/link", lambda path: path.symlink_to("f0"))
    for number in range(DIRECTORIES):
        yield from set_attributes(f"d{number}", 0o700, 1)


def cloned(rng: random.Random) -> Iterator[Call]:
    """As git does it: everything is written under another name first, and some names often."""
    yield on("git", Path.mkdir)
    for number in range(DIRECTORIES * FILES):
        content = rng.randbytes(rng.randrange(1, 3000))
        yield write("git/config.lock", content)
        yield move("git/config.lock", "git/config")
        directory = f"git/{number % DIRECTORIES}"
        if number < DIRECTORIES:
            yield on(directory, Path.mkdir)
        yield write(f"{directory}/tmp", content)
        yield from set_attributes(f"{directory}/tmp", 0o444, 5)
        yield move(f"{directory}/tmp", f"{directory}/o{number}")
        yield write("git/probe", b"x")
        yield on("git/probe", Path.unlink)


def made(rng: random.Random, root: Path) -> None:
    for call in unpacked(rng):
        call(root)


def removed(_rng: random.Random) -> Iterator[Call]:
    """As rm -r does it; then some of it is there again."""
    for number in range(DIRECTORIES):
        directory = f"d{number}"
        for name in [*(f"f{each}" for each in range(FILES)), "link"]:
            yield on(f"{directory}/{name}", Path.unlink)
        yield on(directory, Path.rmdir)
        if number % 2:
            yield on(directory, Path.mkdir)
            yield write(f"{directory}/f1", b"again")


def renamed(rng: random.Random) -> Iterator[Call]:
    """Names move in chains, directories with what waits in them."""
    for number in range(DIRECTORIES):
        directory, there = f"d{number}", f"moved{number}"
        yield write(f"{directory}/new", rng.randbytes(1000))
        yield move(f"{directory}/new", f"{directory}/f1")
        yield move(f"{directory}/f1", f"{directory}/f2")
        yield write(f"{directory}/f1", b"first")
        yield move(directory, there)
        yield move(f"{there}/link", f"{there}/away")
        yield write(f"{there}/late", b"late")
    yield on("all", Path.mkdir)
    for old, new in (("moved0", "swap"), ("moved1", "moved0"), ("swap", "moved1")):
        yield move(old, new)
    for number in range(2, DIRECTORIES):
        yield move(f"moved{number}", f"all/{number}")
        yield on(f"moved{number}", Path.mkdir)
        yield move(f"all/{number}/f3", f"moved{number}/f3")
    yield move("all", "whole")


Kept = dict[str, tuple[object, ...]]


def on_disk(root: Path) -> Kept:
    """What a local directory holds, by the key that it would have."""
    kept: Kept = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        status = path.lstat()
        if path.is_symlink():
            kept[name] = ("link", str(path.readlink()))
        elif path.is_dir():
            kept[name + "/"] = ("directory",)
        else:
            mode, at = stat.S_IMODE(status.st_mode), int(status.st_mtime)
            kept[name] = (path.read_bytes(), mode, at if at < 10**9 else "now")
    return kept


def in_bucket(client: Minio, bucket: str, prefix: str) -> Kept:
    kept: Kept = {}
    for key in names(client, bucket):
        name = key.removeprefix(prefix)
        if name == key or not name:
            continue
        if key.endswith("/"):
            kept[name] = ("directory",)
            continue
        told = client.stat_object(bucket, key).metadata or {}
        said = decode({str(n).lower().removeprefix("x-amz-meta-"): str(told[n]) for n in told})
        mode, at = said.mode or 0, (said.mtime_ns or 0) // 10**9
        if stat.S_ISLNK(mode):
            kept[name] = ("link", (said.symlink_target or b"").decode())
        else:
            content = stored(client, bucket, key)
            kept[name] = (content, stat.S_IMODE(mode), at if at < 10**9 else "now")
    return kept


def both_names(before: Kept, after: Kept) -> Kept:
    """What a rename of one stored file may leave that was cut short: it is copied, then deleted."""
    gone = before.keys() - after.keys()
    return (
        before | after if len(gone) == 1 and not any(each.endswith("/") for each in gone) else after
    )


def difference(wanted: Kept, found: Kept) -> list[tuple[str, object, object]]:
    """Name, what it is to be, and what it is, of the names that differ."""
    names = sorted({*wanted, *found})
    return [
        (each, wanted.get(each), found.get(each))
        for each in names
        if wanted.get(each) != found.get(each)
    ]


class Program:
    """Makes calls below two directories, the mount's first, until the mount dies."""

    def __init__(self, calls: Iterator[Call], mounted: Path, local: Path, until: int) -> None:
        self.in_doubt: Call | None = None
        """The call that was under way when the mount died."""
        self.time_to_die = threading.Event()
        self._calls = calls
        self._mounted = mounted
        self._local = local
        self._until = until
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        self._thread.join(HANG_SECONDS)
        assert not self._thread.is_alive(), "a program hangs on the dead mount"

    def _run(self) -> None:
        try:
            for number, call in enumerate(self._calls):
                if number == self._until:
                    self.time_to_die.set()
                try:
                    call(self._mounted)
                except OSError:
                    self.in_doubt = call
                    return
                call(self._local)
        finally:
            self.time_to_die.set()


WORKS: dict[str, tuple[Callable[[random.Random], Iterator[Call]], bool]] = {
    "untar": (unpacked, False),
    "clone": (cloned, False),
    "rm -r": (removed, True),
    "rename": (renamed, True),
}
"""What a program does, and whether to a tree that is there."""


@pytest.mark.timeout(120 + KILLS * SECONDS_PER_KILL)
@pytest.mark.parametrize("work", WORKS)
def test_after_a_kill_the_bucket_becomes_what_a_local_disk_became(
    work: str,
    mount: MountFactory,
    seaweed: SeaweedServer,
    proxy: Proxy,
    bucket: str,
    minio_client: Minio,
    tmp_path: Path,
) -> None:
    rng = random.Random(f"{SEED} {work}")
    calls, needs_tree = WORKS[work]
    total = sum(1 for _ in calls(rng))
    proxy.shape = Shape(ttfb_seconds=0.005)
    mounted = mount(bucket, write_back=True, endpoint=proxy.endpoint, negative_ttl=1)
    for attempt in range(KILLS):
        name = f"try-{attempt}"
        local = tmp_path / "local"
        for root in (mounted.path / name, local):
            root.mkdir()
        if needs_tree:
            seed = rng.randrange(2**32)
            for root in (mounted.path / name, local):
                made(random.Random(seed), root)
        if rng.random() < 0.5:
            # Or else all of it waits still.
            assert ossfs("sync", mounted.path, environment=seaweed.environment).code == 0
        program = Program(calls(rng), mounted.path / name, local, rng.randrange(total))
        assert program.time_to_die.wait(HANG_SECONDS)
        time.sleep(rng.uniform(0, 1.5) ** 3)
        kill(mounted)
        program.join()

        mounted.start()
        settle(mounted.state_dir, Recovering(mounted, seaweed))
        assert ossfs("sync", mounted.path, environment=seaweed.environment).code == 0
        found = in_bucket(minio_client, bucket, f"{name}/")
        wanted = on_disk(local)
        if program.in_doubt is not None:
            program.in_doubt(local)
        is_right = found in (wanted, after := on_disk(local), both_names(wanted, after))
        assert is_right, f"{work}, try {attempt}: {difference(wanted, found)}\n{mounted.log}"
        shutil.rmtree(local)
    assert mounted.unmount() == 0


def settle(state_dir: Path, recover: Recovering) -> None:
    """Wait until the mount has finished what programs had closed; the file that one was writing
    is dropped.
    """
    deadline = time.monotonic() + HANG_SECONDS
    while whole := [path for path in state_dir.rglob("unsaved/*.json") if is_whole(path)]:
        assert time.monotonic() < deadline, whole
        time.sleep(0.1)
    for path in state_dir.rglob("unsaved/*.json"):
        assert recover("--discard", path.stem).code == 0


def is_whole(record: Path) -> bool:
    """Whether a program had closed an unsaved file that is there still."""
    try:
        return '"complete": false' not in record.read_text()
    except FileNotFoundError:
        return False

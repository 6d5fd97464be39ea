"""Trees of small files made and removed through a mount: seconds, requests, CPU of the daemon.

``python -m tests.bench.trees [--ttfb-ms 25] [--mbps 90] [--repeat 3] [--mounts strict,write-back,
s3fs,rclone] [--works untar,rm] [--longest-seconds 300]`` prints a table of what programs do that
unpack, clone, install and clean up, and writes ``bench-results/trees-<time>.json``.

Seconds are those until the program is done ("to the prompt"), and those until the bucket is
complete. Requests and CPU seconds are counted until then. The bucket is looked at afterwards: a run
that left too few or too many objects counts as failed.
"""

import argparse
import concurrent.futures
import contextlib
import datetime as dt
import itertools
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote

from rich.console import Console
from rich.table import Table

from tests.bench.content import BUCKET
from tests.bench.mounts import PEERS, Peer, Served, ours, served
from tests.support.stores import Store, cloud_store

RESULTS = Path("bench-results")
DIRECTORIES, FILES = 50, 10
"""Of the tree that is unpacked and copied."""
FEW, MANY = 200, 10_000
SMALL_BYTES = 10_000
WHEEL_FILES = 1000
CLONED_FILES = 370
WRITERS = 16
QUIET_SECONDS = 7.0
"""Who cannot be asked has sent everything when the store was asked nothing for so long: rclone
begins five seconds after a close."""

PEER_NAMES = ("strict", "write-back", "s3fs", "rclone")


@dataclass(frozen=True)
class Material:
    """What is unpacked, cloned, installed and copied: on local disk."""

    root: Path

    def make(self) -> None:
        """Write it."""
        rng = random.Random(41)
        tree = self.root / "tree"
        for folder, number in itertools.product(range(DIRECTORIES), range(FILES)):
            path = tree / f"d{folder:02}" / f"f{number}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(rng.randbytes(rng.randrange(1000, 40_000)))
        with tarfile.open(self.root / "tree.tar", "w") as tar:
            tar.add(tree, "tree")
        with zipfile.ZipFile(self.root / "tree.zip", "w") as archive:
            for path in sorted(tree.rglob("*")):
                archive.write(path, path.relative_to(self.root))
        self._make_wheel(rng)
        self._make_repository(rng)

    def _make_wheel(self, rng: random.Random) -> None:
        about = "big-1.0.dist-info"
        with zipfile.ZipFile(self.root / "big-1.0-py3-none-any.whl", "w") as wheel:
            names = [f"big/p{number % 25}/data{number}.json" for number in range(WHEEL_FILES)]
            for name in names:
                wheel.writestr(name, rng.randbytes(rng.randrange(100, 20_000)))
            wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: big\nVersion: 1.0\n")
            tags = "Wheel-Version: 1.0\nGenerator: b\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            wheel.writestr(f"{about}/WHEEL", tags)
            wheel.writestr(f"{about}/RECORD", "".join(f"{name},,\n" for name in names))

    def _make_repository(self, rng: random.Random) -> None:
        place = self.root / "repository"
        for number in range(CLONED_FILES):
            path = place / f"s{number % 20}" / f"{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{rng.random()}\n" for _ in range(rng.randrange(20, 400))))
        for command in (
            ["init", "-q"],
            ["add", "."],
            ["-c", "user.name=b", "-c", "user.email=b@example.org", "commit", "-qm", "all"],
        ):
            subprocess.run(["git", "-C", str(place), *command], check=True)


def _program(*command: str | Path) -> None:
    subprocess.run([str(each) for each in command], check=True, stdout=subprocess.DEVNULL)


_WRITE = """
import pathlib, sys
body = bytes(int(sys.argv[2]))
for number in range(int(sys.argv[3])):
    pathlib.Path(sys.argv[1], f"{number:03}").write_bytes(body)
"""


def one_writer(at: Path, _material: Path) -> None:
    _program(sys.executable, "-S", "-c", _WRITE, at, str(SMALL_BYTES), str(FEW))


def many_writers(at: Path, _material: Path) -> None:
    body = bytes(SMALL_BYTES)
    with concurrent.futures.ThreadPoolExecutor(WRITERS) as threads:
        list(threads.map(lambda name: (at / f"{name:03}").write_bytes(body), range(FEW)))


def untar(at: Path, material: Path) -> None:
    _program("tar", "xf", material / "tree.tar", "-C", at)


def clone(at: Path, material: Path) -> None:
    """As from a server: the objects come as one pack."""
    _clone(at, f"file://{material / 'repository'}")


def clone_loose(at: Path, material: Path) -> None:
    """Each object of the repository is copied as a file of its own, so twice as many are made."""
    _clone(at, "--no-hardlinks", material / "repository")


def _clone(at: Path, *source: str | Path) -> None:
    _program("git", "clone", "-q", *source, at / "cloned")
    _program("git", "-C", at / "cloned", "status", "--short")


def install(at: Path, material: Path) -> None:
    wheel = material / "big-1.0-py3-none-any.whl"
    quietly = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    _program(sys.executable, "-m", "pip", "install", *quietly, "--target", at / "site", wheel)


def copy(at: Path, material: Path) -> None:
    _program("cp", "-r", material / "tree", at)


def unzip(at: Path, material: Path) -> None:
    _program("unzip", "-q", material / "tree.zip", "-d", at)


def rsync(at: Path, material: Path) -> None:
    _program("rsync", "-a", material / "tree", at)


def make_venv(at: Path, _material: Path) -> None:
    _program("uv", "venv", "--quiet", "--offline", "--python", sys.executable, at / "venv")


def rename(at: Path, _material: Path) -> None:
    (at / "old").rename(at / "new")


def remove(at: Path, _material: Path) -> None:
    _program("rm", "-r", at / "old")


@dataclass(frozen=True)
class TreeWork:
    """What a program does below an empty directory, or to ``old`` with files that are there."""

    name: str
    run: Callable[[Path, Path], None]
    leaves: int | None
    """Files that are there afterwards; None where nobody knows."""
    there: int = 0
    """Files in ``old`` before."""
    needs: str = ""
    """A program that has to be installed."""


_TREE = DIRECTORIES * FILES
WORKS = (
    TreeWork(f"{FEW} files, one writer", one_writer, FEW),
    TreeWork(f"{FEW} files, {WRITERS} writers", many_writers, FEW),
    TreeWork(f"untar of {_TREE}", untar, _TREE),
    TreeWork(f"git clone of {CLONED_FILES}, git status", clone, None),
    TreeWork("the same clone, unpacked objects", clone_loose, None),
    TreeWork(f"pip install --target of {WHEEL_FILES}", install, None),
    TreeWork(f"cp -r of {_TREE}", copy, _TREE),
    TreeWork(f"unzip of {_TREE}", unzip, _TREE, needs="unzip"),
    TreeWork(f"rsync -a of {_TREE}", rsync, _TREE, needs="rsync"),
    TreeWork("uv venv", make_venv, None, needs="uv"),
    TreeWork(f"rename a directory of {FEW}", rename, FEW, there=FEW),
    TreeWork(f"rm -r of {FEW}", remove, 0, there=FEW),
    TreeWork(f"rm -r of {MANY} in 100 directories", remove, 0, there=MANY),
)


@dataclass
class TreeResult:
    """Every run of one work through one mount."""

    work: str
    mount: str
    prompt_seconds: list[float] = field(default_factory=list)
    complete_seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    requests: list[dict[str, int]] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    failure: str = ""


def fill(store: Store, prefix: str, count: int) -> None:
    """Files of a byte, a hundred in each directory; of few, all in one."""
    assert store.root is not None
    for number in range(count):
        folder = f"d{number // 100:02}/" if count > FEW else ""
        key = f"{prefix}old/{folder}{number:05}"
        (store.root / BUCKET / quote(key, safe="")).write_bytes(b"x")
    store.reload()


def files_below(store: Store, prefix: str) -> int:
    """How many objects but markers of directories there are."""
    assert store.root is not None
    names = [path.name for path in (store.root / BUCKET).iterdir()]
    wanted, marker = quote(prefix, safe=""), quote("/", safe="")
    return sum(1 for name in names if name.startswith(wanted) and not name.endswith(marker))


def wait_complete(store: Store, mounted: Served, mount: str) -> None:
    """Return when the bucket has everything."""
    if mount == "write-back":
        _program(sys.executable, "-m", "ossfs_py", "sync", mounted.path)
    elif mount == "rclone":
        before, since = store.stats()["ops"], time.monotonic()
        while time.monotonic() - since < QUIET_SECONDS:
            time.sleep(0.1)
            if (now := store.stats()["ops"]) != before:
                before, since = now, time.monotonic()


def measure(
    store: Store, mounted: Served, work: TreeWork, result: TreeResult, material: Path, name: str
) -> None:
    """One run, in a directory of its own."""
    at = mounted.path / name
    at.mkdir()
    fill(store, f"{name}/", work.there)
    wait_complete(store, mounted, result.mount)
    time.sleep(1.5)  # what was known of the directory is not any more
    os.sync()
    store.reset()
    cpu, began = mounted.cpu_seconds(), time.perf_counter()
    work.run(at, material)
    result.prompt_seconds.append(time.perf_counter() - began)
    wait_complete(store, mounted, result.mount)
    result.complete_seconds.append(time.perf_counter() - began)
    result.cpu_seconds.append(mounted.cpu_seconds() - cpu)
    result.requests.append(dict(store.stats()["ops"]))  # type: ignore[call-overload]
    result.loads.append(os.getloadavg()[0])
    left = files_below(store, f"{name}/")
    if work.leaves is not None and left != work.leaves:
        result.failure = f"{left} objects, not {work.leaves}"


def run_all(
    store: Store,
    peers: dict[str, Peer],
    works: list[TreeWork],
    repeat: int,
    longest_seconds: float,
    scratch: Path,
) -> dict[tuple[str, str], TreeResult]:
    """All works through all mounts, which take turns."""
    material = Material(scratch / "material")
    material.root.mkdir()
    material.make()
    results: dict[tuple[str, str], TreeResult] = {}
    for attempt, work in itertools.product(range(repeat), works):
        for mount, peer in peers.items():
            result = results.setdefault((work.name, mount), TreeResult(work.name, mount))
            if result.failure or sum(result.complete_seconds) > longest_seconds:
                continue
            place = scratch / "run"
            name = f"{quote(work.name, safe='')}-{mount}-{attempt}".replace("%", "")
            try:
                with served(peer, store, place) as mounted:
                    measure(store, mounted, work, result, material.root, name)
            except (OSError, RuntimeError, subprocess.SubprocessError) as exc:
                result.failure = str(exc)
            finally:
                shutil.rmtree(place, ignore_errors=True)
            told = _cell(result).replace("\n", "; ")
            sys.stderr.write(f"{work.name}, {mount}: {told}\n")
    return results


def _cell(result: TreeResult | None) -> str:
    if result is None or not (result.prompt_seconds or result.failure):
        return "-"
    if result.failure:
        return result.failure[:60]
    asked = [sum(each.values()) for each in result.requests]
    prompt = statistics.median(result.prompt_seconds)
    complete = statistics.median(result.complete_seconds)
    # What the question itself whether all is sent takes is not the mount's.
    until = f" ({complete:.2f} complete)" if result.mount in ("write-back", "rclone") else ""
    cpu = statistics.median(result.cpu_seconds)
    return f"{prompt:.2f} s{until}\n{statistics.median(asked):,.0f} requests, {cpu:.2f} CPU-s"


def table(
    results: dict[tuple[str, str], TreeResult], works: list[TreeWork], mounts: list[str]
) -> Table:
    """A row for each work."""
    made = Table(title="seconds to the prompt, requests, CPU-s of the daemon", show_lines=True)
    for name in ("work", *mounts):
        made.add_column(name)
    for work in works:
        made.add_row(work.name, *(_cell(results.get((work.name, mount))) for mount in mounts))
    return made


def peers_named(names: list[str]) -> dict[str, Peer]:
    """How each of them is mounted."""
    known = {peer.name: peer for peer in PEERS}
    known |= {"strict": ours("temp"), "write-back": ours("temp", ["--write-back"])}
    return {name: known[name] for name in names}


@contextlib.contextmanager
def _filled(options: argparse.Namespace) -> Iterator[tuple[Store, Path]]:
    with tempfile.TemporaryDirectory(prefix="ossfs-py-trees-") as scratch:
        root = Path(scratch) / "store"
        with cloud_store(root, options.ttfb_ms, options.mbps) as store:
            (root / BUCKET).mkdir(exist_ok=True)
            store.reload()
            yield store, Path(scratch)


def main() -> int:
    """Measure and print; 0 when nothing of ours failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.trees")
    parser.add_argument("--ttfb-ms", type=float, default=25)
    parser.add_argument("--mbps", type=float, default=90)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--mounts", default=",".join(PEER_NAMES))
    parser.add_argument("--works", default="", help="only those whose name holds one of A,B")
    parser.add_argument(
        "--longest-seconds", type=float, default=300.0, help="no further run of what takes longer"
    )
    options = parser.parse_args()
    words = options.works.split(",")
    works = [
        work
        for work in WORKS
        if any(word in work.name for word in words) and (not work.needs or shutil.which(work.needs))
    ]
    mounts = [each for each in options.mounts.split(",") if each != "s3fs" or shutil.which("s3fs")]
    peers = peers_named(mounts)
    with _filled(options) as (store, scratch):
        results = run_all(store, peers, works, options.repeat, options.longest_seconds, scratch)
    loads = [load for result in results.values() for load in result.loads]
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 140)
    console.print(table(results, works, mounts))
    console.print(
        f"{options.ttfb_ms:g} ms to the first byte, medians of {options.repeat}, load average"
        f" {min(loads, default=0):.1f} to {max(loads, default=0):.1f}"
    )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"trees-{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps([asdict(each) for each in results.values()], indent=1) + "\n")
    console.print(f"Everything measured is in {path}.")
    failed = any(each.failure for each in results.values() if each.mount in PEER_NAMES[:2])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Every loader at hand through a mount, each beside a plain read of the same files.

``python -m tests.bench.loaders [--data-paths direct,cache,temp] [--loaders load_file,gguf]
[--layers 8] [--mib 256] [--large-gib 8] [--repeat 3] [--ttfb-ms 25] [--mbps 90]`` prints a line for
each load as it is done, a table for each data path, and at the end the table of LOADERS.md. A load
is cold: a fresh mount, an empty cache; then it is repeated warm, on the same mount. Before it or
after it, in turns, another fresh mount serves a plain read of the files that the loader reads, and
the two make a pair: seconds drift with the machine's mood, the multiple of a pair less so. What was
loaded must be what the same loader makes of the files themselves; how long it takes for that is
told, too. What cannot be imported is left out; what fails is told, and the rest goes on. The file
that is larger than the memory has zeros, but for some bytes of each tensor. ``--memory-limit`` and
the like are passed on to the mount with ``--mount-options``.

Before each load and each plain read a program touches ``--touch-gib`` of memory and ends: on a
virtual machine whose host takes free memory back, finding it again can cost more than all of the
load. ``torch.load`` of 992 MiB took 2.6 s without this, 1.05 to 1.5 s with it. 0 leaves that in.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.content import BUCKET
from tests.bench.mounts import Peer, Served, ours, served
from tests.support import shaped_store
from tests.support.libraries import LIBRARIES, Library
from tests.support.loaders import (
    LARGE,
    LOADERS,
    loader_named,
    make_many,
    make_model,
    read_plainly,
)
from tests.support.mounting import DATA_PATHS
from tests.support.stores import Store, shaped_program

MIB = 1024**2

TOUCH = """
import mmap, sys
with mmap.mmap(-1, int(sys.argv[1]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
    memory.madvise(mmap.MADV_HUGEPAGE)
    memory.madvise(23)  # MADV_POPULATE_WRITE of Linux 5.14
"""


@dataclass(frozen=True)
class Load:
    """One load, as the program told it."""

    seconds: float
    cpu_seconds: float
    """Of the program."""
    idle_seconds: float
    """Of all cores of the machine together."""
    digest: str


class Program:
    """A program that loads what it is told to; what it imports, it imports once."""

    def __init__(self) -> None:
        self._process = self._begun()

    @staticmethod
    def _begun() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.support.loaders"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def load(self, name: str, directory: Path) -> Load:
        """What it took, and what was loaded.

        Raises:
            RuntimeError: the loader failed; why stands on standard error.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([name, str(directory)]) + "\n")
        process.stdin.flush()
        for line in process.stdout:
            if line.startswith('{"seconds"'):  # libraries print, too
                return Load(**json.loads(line))
        self.close()
        self._process = self._begun()
        raise RuntimeError(f"{name} failed")

    def close(self) -> None:
        """End it: it uses nothing of a mount any more."""
        self._process.kill()
        self._process.communicate()


@dataclass(frozen=True)
class Case:
    """One loader and what it reads."""

    name: str
    files: tuple[Path, ...]
    """From the bucket on."""
    size_bytes: int
    local: Load
    """From the page cache of a local disk."""
    mount_options: tuple[str, ...]


@dataclass
class Runs:
    """What one loader took, each time."""

    case: Case
    seconds: list[float] = field(default_factory=list)
    multiples: list[float] = field(default_factory=list)
    """Of the plain read of the same pair."""
    warm_seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    program_cpu_seconds: list[float] = field(default_factory=list)
    store_cpu_seconds: list[float] = field(default_factory=list)
    idle_seconds: list[float] = field(default_factory=list)
    plain_cpu_seconds: list[float] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    fetched_bytes: list[int] = field(default_factory=list)
    rss_bytes: int = 0


def main() -> int:
    """Measure and print."""
    options = _options()
    console = Console(width=140)
    chosen = [name for name in (*LOADERS, *LIBRARIES) if _wanted(name, options.loaders)]
    for name in chosen:
        if not loader_named(name).available:
            console.print(f"{name} is left out: it needs {', '.join(loader_named(name).needs)}.")
    names = [name for name in chosen if loader_named(name).available]
    with (
        tempfile.TemporaryDirectory(prefix="ossfs-py-loaders-") as scratch,
        contextlib.closing(Program()) as program,
    ):
        root, place = Path(scratch) / "store", Path(scratch) / "run"
        shaper = Path(shaped_store.__file__)
        with shaped_program(shaper, root, options.ttfb_ms, options.mbps) as store:
            bucket = root / BUCKET
            bucket.mkdir()
            console.print(f"Making files of {options.layers} layers …")
            make_model(bucket, options.layers)
            make_many(bucket / LARGE, options.large_gib * 8, 128 * MIB)
            for name in [name for name in names if name in LIBRARIES]:
                directory = bucket / Library.directory(name)
                directory.mkdir()
                LIBRARIES[name].make(directory, options.mib)
            cases, failed = [], 0
            for name in names:
                try:
                    cases.append(_case(name, bucket, program))
                except RuntimeError as exc:
                    failed += 1
                    console.print(str(exc))
            measured: dict[str, list[Runs]] = {}
            touch_bytes = int(options.touch_gib * 1024) * MIB
            for data_path in options.data_paths.split(","):
                results = [Runs(case) for case in cases]
                for number in range(options.repeat):
                    for runs in results:
                        asked = (*options.mount_options.split(), *runs.case.mount_options)
                        peer = ours(data_path, asked)
                        try:
                            plain_first = number % 2 == 0
                            run = (store, peer, program, runs, place, touch_bytes)
                            measure(*run, plain_first=plain_first)
                        except RuntimeError as exc:
                            failed += 1
                            console.print(str(exc))
                        else:
                            console.print(_told(runs))
                measured[data_path] = [runs for runs in results if runs.seconds]
                console.print(table(data_path, measured[data_path]))
            console.print(page(measured), soft_wrap=True, markup=False, highlight=False)
    return 1 if failed else 0


def touch_memory(size_bytes: int) -> None:
    """Have the host give this machine so much memory, for whoever needs it next."""
    if size_bytes:
        subprocess.run([sys.executable, "-c", TOUCH, str(size_bytes)], check=True)


def measure(
    store: Store,
    peer: Peer,
    program: Program,
    runs: Runs,
    place: Path,
    touch_bytes: int,
    *,
    plain_first: bool,
) -> None:
    """A pair, and the load once more.

    Raises:
        RuntimeError: the loader failed, or loaded other bytes than are in the store.
    """
    case = runs.case
    plain = _plain_seconds(store, peer, runs, place, touch_bytes) if plain_first else 0.0
    with _fresh(peer, store, place) as mounted:
        touch_memory(touch_bytes)
        before, store_before = mounted.cpu_seconds(), _store_cpu_seconds(store.stats())
        cold = program.load(case.name, mounted.path)
        runs.cpu_seconds.append(mounted.cpu_seconds() - before)
        stats = store.stats()
        runs.store_cpu_seconds.append(_store_cpu_seconds(stats) - store_before)
        runs.requests.append(dict(stats["ops"]).get("get", 0))  # type: ignore[call-overload]
        runs.fetched_bytes.append(int(str(stats["bytes_out"])))
        warm = program.load(case.name, mounted.path)
        runs.rss_bytes = max(runs.rss_bytes, mounted.peak_rss_bytes())
    if {cold.digest, warm.digest} != {case.local.digest}:
        raise RuntimeError(f"{case.name} loaded other bytes than are in the store")
    if not plain_first:
        plain = _plain_seconds(store, peer, runs, place, touch_bytes)
    runs.seconds.append(cold.seconds)
    runs.program_cpu_seconds.append(cold.cpu_seconds)
    runs.idle_seconds.append(cold.idle_seconds)
    runs.warm_seconds.append(warm.seconds)
    runs.multiples.append(cold.seconds / plain)


def _plain_seconds(store: Store, peer: Peer, runs: Runs, place: Path, touch_bytes: int) -> float:
    with _fresh(peer, store, place) as mounted:
        touch_memory(touch_bytes)
        before, began = mounted.cpu_seconds(), time.perf_counter()
        for file in runs.case.files:
            read_plainly(mounted.path / file)
        seconds = time.perf_counter() - began
        runs.plain_cpu_seconds.append(mounted.cpu_seconds() - before)
    return seconds


@contextlib.contextmanager
def _fresh(peer: Peer, store: Store, place: Path) -> Iterator[Served]:
    try:
        with served(peer, store, place) as mounted:
            store.reset()
            yield mounted
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _case(name: str, bucket: Path, program: Program) -> Case:
    path = bucket / loader_named(name).file
    found: Sequence[Path] = [path] if path.is_file() else sorted(path.rglob("*"))
    if path == bucket:
        found = sorted(bucket.glob("shard-*"))
    files = [file for file in found if file.is_file()]
    size_bytes = sum(file.stat().st_size for file in files)
    program.load(name, bucket)  # it imports, and does what libraries do once
    local = program.load(name, bucket)
    names = tuple(file.relative_to(bucket) for file in files)
    return Case(name, names, size_bytes, local, loader_named(name).mount_options)


def _store_cpu_seconds(stats: dict[str, object]) -> float:
    return float(str(stats["cpu_seconds"]))


def _told(runs: Runs) -> str:
    return (
        f"{runs.case.name}: {runs.seconds[-1]:.2f} s, {runs.multiples[-1]:.2f} x plain, "
        f"{runs.requests[-1]:,} GETs, {runs.fetched_bytes[-1] / MIB:,.0f} MiB, CPU-s of the daemon "
        f"{runs.cpu_seconds[-1]:.2f}, program {runs.program_cpu_seconds[-1]:.2f}, "
        f"store {runs.store_cpu_seconds[-1]:.2f}, idle {runs.idle_seconds[-1]:.2f}"
    )


def table(data_path: str, results: Sequence[Runs]) -> Table:
    """Medians; multiples and CPU are beside those of the plain read of the same files.

    The program and the store share the machine's cores with the daemon: what its three CPU times
    add up to, divided by the number of cores, is the least that the load can take.
    """
    made = Table(title=data_path)
    for heading in (
        *("loader", "MiB", "seconds", "x plain", "warm", "local", "GETs", "of the bytes"),
        *("CPU-s", "plain", "program", "store", "idle", "peak MB"),
    ):
        made.add_column(heading, justify="left" if heading == "loader" else "right")
    for runs in results:
        made.add_row(
            runs.case.name,
            f"{runs.case.size_bytes / MIB:,.0f}",
            f"{statistics.median(runs.seconds):.2f}",
            f"{statistics.median(runs.multiples):.2f}",
            f"{statistics.median(runs.warm_seconds):.2f}",
            f"{runs.case.local.seconds:.2f}",
            f"{statistics.median(runs.requests):,.0f}",
            f"{statistics.median(runs.fetched_bytes) / runs.case.size_bytes:.3f}",
            f"{statistics.median(runs.cpu_seconds):.2f}",
            f"{statistics.median(runs.plain_cpu_seconds):.2f}",
            f"{statistics.median(runs.program_cpu_seconds):.2f}",
            f"{statistics.median(runs.store_cpu_seconds):.2f}",
            f"{statistics.median(runs.idle_seconds):.2f}",
            f"{runs.rss_bytes / 1e6:,.0f}",
        )
    return made


def page(measured: Mapping[str, Sequence[Runs]]) -> str:
    """The table of LOADERS.md: medians, times a plain read, cold and warm, over each data path;
    requests and bytes of the first one. Warm is beside the same cold plain read.
    """
    paths = list(measured)
    first = {runs.case.name: runs for runs in measured[paths[0]]}
    headings = ["loader", "MiB", "GETs", "of the bytes", "CPU, half of the three"]
    headings += [f"`{path}`: cold, warm" for path in paths]
    lines = [f"| {' | '.join(headings)} |", "| --- " * len(headings) + "|"]
    for name, runs in first.items():
        cores = os.cpu_count() or 1
        spent = (runs.cpu_seconds, runs.program_cpu_seconds, runs.store_cpu_seconds)
        cells = [
            name,
            f"{runs.case.size_bytes / MIB:,.0f}",
            f"{statistics.median(runs.requests):,.0f}",
            f"{statistics.median(runs.fetched_bytes) / runs.case.size_bytes:.3f}",
            f"{sum(statistics.median(seconds) for seconds in spent) / cores:.2f} s",
        ]
        for path in paths:
            same = [runs for runs in measured[path] if runs.case.name == name]
            cells.append(_multiples(same[0]) if same else "failed")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _multiples(runs: Runs) -> str:
    cold = statistics.median(runs.multiples)
    pairs = zip(runs.warm_seconds, runs.seconds, runs.multiples, strict=True)
    warm = statistics.median(warm * multiple / seconds for warm, seconds, multiple in pairs)
    return f"{cold:.2f}, {warm:.2f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.loaders")
    parser.add_argument("--data-paths", default=",".join(reversed(DATA_PATHS)))
    parser.add_argument("--loaders", default="", help="only those whose name holds one of A,B")
    parser.add_argument("--layers", type=int, default=8, help="124 MiB each")
    parser.add_argument("--mib", type=int, default=256, help="of the files of each library")
    parser.add_argument("--large-gib", type=int, default=8, help="larger than the memory limit")
    parser.add_argument("--touch-gib", type=float, default=3, help="of memory, before each load")
    parser.add_argument("--mount-options", default="", help='as "--memory-limit 512M"')
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--ttfb-ms", type=float, default=25)
    parser.add_argument("--mbps", type=float, default=90)
    return parser.parse_args()


def _wanted(name: str, words: str) -> bool:
    return not words or any(word in name for word in words.split(","))


if __name__ == "__main__":
    sys.exit(main())

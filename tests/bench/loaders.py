"""Every loader at hand through a mount, beside a plain read of the same file in the same run.

``python -m tests.bench.loaders [--data-paths direct,cache,temp] [--loaders load_file,gguf]
[--layers 8] [--mib 256] [--repeat 3] [--ttfb-ms 25] [--mbps 90]`` prints a table for each data
path. Each load is cold: a fresh mount, an empty cache; then it is repeated warm, on the same mount.
What was loaded must be what the same loader makes of the files themselves. Seconds drift with the
machine's mood: compare multiples of the plain read (of as many bytes), requests and bytes. What
cannot be imported is left out, and said so. ``--memory-limit`` and the like are passed on to the
mount with ``--mount-options``.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.content import BUCKET
from tests.bench.mounts import Peer, ours, served
from tests.support import shaped_store
from tests.support.libraries import LIBRARIES, Library
from tests.support.loaders import LOADERS, loader_named, make_model
from tests.support.mounting import DATA_PATHS
from tests.support.stores import Store, shaped_program

PLAIN = "plain read"
MIB = 1024**2
LOAD_SECONDS = 600


@dataclass
class Runs:
    """What one loader took, each time."""

    size_bytes: int
    """Of the files that it loads."""
    digest: str
    seconds: list[float] = field(default_factory=list)
    warm_seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    fetched_bytes: list[int] = field(default_factory=list)
    rss_bytes: int = 0


def main() -> int:
    """Measure and print."""
    options = _options()
    console = Console()
    known = [*LOADERS, *LIBRARIES]
    chosen = [name for name in known if _wanted(name, options.loaders) or name == PLAIN]
    for name in chosen:
        if not loader_named(name).available:
            console.print(f"{name} is left out: it needs {', '.join(loader_named(name).needs)}.")
    names = [name for name in chosen if loader_named(name).available]
    with tempfile.TemporaryDirectory(prefix="ossfs-py-loaders-") as scratch:
        root = Path(scratch) / "store"
        program = Path(shaped_store.__file__)
        with shaped_program(program, root, options.ttfb_ms, options.mbps) as store:
            (root / BUCKET).mkdir()
            console.print(f"Making files of {options.layers} layers …")
            make_model(root / BUCKET, options.layers)
            for name in [name for name in names if name in LIBRARIES]:
                place = root / BUCKET / Library.directory(name)
                place.mkdir()
                LIBRARIES[name].make(place, options.mib)
            expected = {name: _load(name, root / BUCKET)[1] for name in names}
            for data_path in options.data_paths.split(","):
                results = {
                    name: Runs(_size_of(root / BUCKET, name), expected[name]) for name in names
                }
                peer = ours(data_path, options.mount_options.split())
                for _ in range(options.repeat):
                    for name in names:
                        measure(store, peer, name, Path(scratch) / "run", results[name])
                console.print(table(data_path, results))
    return 0


def measure(store: Store, peer: Peer, name: str, place: Path, runs: Runs) -> None:
    """Load through a fresh mount, and once more.

    Raises:
        RuntimeError: the loader failed, or loaded other bytes than are in the store.
    """
    try:
        with served(peer, store, place) as mounted:
            store.reset()
            before = mounted.cpu_seconds()
            seconds, digest = _load(name, mounted.path)
            stats = store.stats()
            runs.seconds.append(seconds)
            runs.cpu_seconds.append(mounted.cpu_seconds() - before)
            runs.requests.append(dict(stats["ops"]).get("get", 0))  # type: ignore[call-overload]
            runs.fetched_bytes.append(int(str(stats["bytes_out"])))
            warm_seconds, again = _load(name, mounted.path)
            runs.warm_seconds.append(warm_seconds)
            runs.rss_bytes = max(runs.rss_bytes, mounted.peak_rss_bytes())
            if {digest, again} != {runs.digest}:
                raise RuntimeError(f"{name} loaded other bytes than are in the store")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _load(name: str, directory: Path) -> tuple[float, str]:
    """Seconds, and the digest of what was loaded."""
    command = [sys.executable, "-m", "tests.support.loaders", name, str(directory)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=LOAD_SECONDS
    )
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr}")
    told = json.loads(done.stdout.splitlines()[-1])
    return float(told["seconds"]), str(told["digest"])


def _size_of(bucket: Path, name: str) -> int:
    path = bucket / loader_named(name).file
    files = [path] if path.is_file() else path.rglob("*")
    if path == bucket:
        files = bucket.glob("shard-*")
    return sum(file.stat().st_size for file in files if file.is_file())


def table(data_path: str, results: dict[str, Runs]) -> Table:
    """Medians; multiples are of the plain read over the same data path."""
    plain = statistics.median(results[PLAIN].seconds) / results[PLAIN].size_bytes
    made = Table(title=data_path)
    for heading in (
        *("loader", "seconds", "x plain", "warm", "GETs", "MiB", "of the bytes"),
        *("daemon CPU-s", "peak MB"),
    ):
        made.add_column(heading, justify="left" if heading == "loader" else "right")
    for name, runs in results.items():
        seconds = statistics.median(runs.seconds)
        made.add_row(
            name,
            f"{seconds:.2f}",
            f"{seconds / plain / runs.size_bytes:.2f}",
            f"{statistics.median(runs.warm_seconds):.2f}",
            f"{statistics.median(runs.requests):,.0f}",
            f"{statistics.median(runs.fetched_bytes) / MIB:,.0f}",
            f"{statistics.median(runs.fetched_bytes) / runs.size_bytes:.2f}",
            f"{statistics.median(runs.cpu_seconds):.2f}",
            f"{runs.rss_bytes / 1e6:,.0f}",
        )
    return made


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.loaders")
    parser.add_argument("--data-paths", default=",".join(reversed(DATA_PATHS)))
    parser.add_argument("--loaders", default="", help="only those whose name holds one of A,B")
    parser.add_argument("--layers", type=int, default=8, help="124 MiB each")
    parser.add_argument("--mib", type=int, default=256, help="of the files of each library")
    parser.add_argument("--mount-options", default="", help='as "--memory-limit 512M"')
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--ttfb-ms", type=float, default=25)
    parser.add_argument("--mbps", type=float, default=90)
    return parser.parse_args()


def _wanted(name: str, words: str) -> bool:
    return not words or any(word in name for word in words.split(","))


if __name__ == "__main__":
    sys.exit(main())

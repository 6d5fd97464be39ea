"""Every loader at hand through a mount, beside a plain read of the same file in the same run.

``python -m tests.bench.loaders [--data-paths direct,cache,temp] [--loaders load_file,gguf]
[--layers 8] [--repeat 3] [--ttfb-ms 25] [--mbps 90]`` prints a table for each data path. Each load
is cold: a fresh mount, an empty cache. Seconds drift with the machine's mood: compare multiples of
the plain read, requests and bytes. What cannot be imported is left out, and said so.
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
from tests.bench.mounts import ours, served
from tests.bench.stores import Store, shaped_program
from tests.support import shaped_store
from tests.support.loaders import LOADERS, make_model
from tests.support.mounting import DATA_PATHS

PLAIN = "plain read"
MIB = 1024**2
LOAD_SECONDS = 600


@dataclass
class Runs:
    """What one loader took, each time."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    fetched_bytes: list[int] = field(default_factory=list)
    rss_bytes: int = 0


def main() -> int:
    """Measure and print."""
    options = _options()
    console = Console()
    chosen = [name for name in LOADERS if _wanted(name, options.loaders) or name == PLAIN]
    for name in chosen:
        if not LOADERS[name].available:
            console.print(f"{name} is left out: it needs {', '.join(LOADERS[name].needs)}.")
    names = [name for name in chosen if LOADERS[name].available]
    with tempfile.TemporaryDirectory(prefix="ossfs-py-loaders-") as scratch:
        root = Path(scratch) / "store"
        program = Path(shaped_store.__file__)
        with shaped_program(program, root, options.ttfb_ms, options.mbps) as store:
            (root / BUCKET).mkdir()
            console.print(f"Making files of {options.layers} layers …")
            make_model(root / BUCKET, options.layers)
            for data_path in options.data_paths.split(","):
                results = {name: Runs() for name in names}
                for _ in range(options.repeat):
                    for name in names:
                        measure(store, data_path, name, Path(scratch) / "run", results[name])
                console.print(table(data_path, results))
    return 0


def measure(store: Store, data_path: str, name: str, place: Path, runs: Runs) -> None:
    """Load once through a fresh mount."""
    try:
        with served(ours(data_path), store, place) as mounted:
            store.reset()
            before = mounted.cpu_seconds()
            command = [sys.executable, "-m", "tests.support.loaders", name, str(mounted.path)]
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=LOAD_SECONDS
            )
            if done.returncode:
                raise RuntimeError(done.stderr)
            stats = store.stats()
            runs.seconds.append(json.loads(done.stdout)["seconds"])
            runs.cpu_seconds.append(mounted.cpu_seconds() - before)
            runs.requests.append(dict(stats["ops"]).get("get", 0))  # type: ignore[call-overload]
            runs.fetched_bytes.append(int(str(stats["bytes_out"])))
            runs.rss_bytes = max(runs.rss_bytes, mounted.peak_rss_bytes())
    finally:
        shutil.rmtree(place, ignore_errors=True)


def table(data_path: str, results: dict[str, Runs]) -> Table:
    """Medians; multiples are of the plain read over the same data path."""
    plain = statistics.median(results[PLAIN].seconds)
    made = Table(title=data_path)
    for heading in ("loader", "seconds", "x plain", "GETs", "MiB", "daemon CPU-s", "peak MB"):
        made.add_column(heading, justify="left" if heading == "loader" else "right")
    for name, runs in results.items():
        seconds = statistics.median(runs.seconds)
        made.add_row(
            name,
            f"{seconds:.2f}",
            f"{seconds / plain:.2f}",
            f"{statistics.median(runs.requests):,.0f}",
            f"{statistics.median(runs.fetched_bytes) / MIB:,.0f}",
            f"{statistics.median(runs.cpu_seconds):.2f}",
            f"{runs.rss_bytes / 1e6:,.0f}",
        )
    return made


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.loaders")
    parser.add_argument("--data-paths", default=",".join(reversed(DATA_PATHS)))
    parser.add_argument("--loaders", default="", help="only those whose name holds one of A,B")
    parser.add_argument("--layers", type=int, default=8, help="124 MiB each")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--ttfb-ms", type=float, default=25)
    parser.add_argument("--mbps", type=float, default=90)
    return parser.parse_args()


def _wanted(name: str, words: str) -> bool:
    return not words or any(word in name for word in words.split(","))


if __name__ == "__main__":
    sys.exit(main())

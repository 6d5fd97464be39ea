"""The same works through ossfs-py, s3fs, rclone and what else is on PATH, on one store, in one run.

``python -m tests.bench.peers [--shaped-store PROGRAM] [--ttfb-ms 25] [--mbps 90] [--repeat 3]
[--quick] [--peers ours,s3fs] [--works walk]`` prints a table, writes ``bench-results/<time>.json``
and draws it in the ``.png`` beside it. Absolute figures drift with the machine's mood: compare
ratios within one run.
"""

import argparse
import contextlib
import datetime as dt
import itertools
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

import urllib3
from minio import Minio
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.bench import lockmeter
from tests.bench.chart import YARDSTICK, draw
from tests.bench.content import BUCKET, QUICK, Content, Sizes, fill
from tests.bench.mounts import PEERS, Peer, Served, served
from tests.bench.works import READ_WORKS, Work, WorkFailedError, run_forked
from tests.bench.write_works import WRITE_WORKS
from tests.support.stores import Store, cloud_store, shaped_program

RESULTS = Path("bench-results")
QUICK_PEERS = "ours temp,s3fs,rclone"
QUICK_WORKS = "one sequential,every tensor,4 files,walk,ls -l,16 readers,write and,make a tree"
"""What --quick does unless it is told which."""


@dataclass
class Result:
    """Every run of one work through one peer."""

    work: str
    peer: str
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    lock_seconds: list[float] = field(default_factory=list)
    """How long the interpreter's lock was held; of ours only, and on CPython 3.11."""
    lock_used_seconds: list[float] = field(default_factory=list)
    """The same without what its holder waited for a processor; NaN if nobody can tell."""
    peak_rss_bytes: int = 0
    requests: dict[str, int] = field(default_factory=dict)
    bytes_out: int = 0
    bytes_in: int = 0
    failure: str = ""
    remark: str = ""


def main() -> int:
    """Measure and print; 0 when nothing of ours failed."""
    options = _options()
    console = Console()
    some = options.quick and not (options.peers or options.works)
    peers = [peer for peer in PEERS if _wanted(peer.name, QUICK_PEERS if some else options.peers)]
    works = [
        work
        for work in (*READ_WORKS, *WRITE_WORKS)
        if _wanted(work.name, QUICK_WORKS if some else options.works)
    ]
    repeat = options.repeat or (1 if options.quick else 3)
    peers = _installed(peers, console)
    signal.signal(signal.SIGTERM, _unwind)
    results: dict[tuple[str, str], Result] = {}
    with (
        tempfile.TemporaryDirectory(prefix="ossfs-py-bench-") as scratch,
        _store(options, Path(scratch)) as store,
    ):
        console.print(f"Filling {store.name} …")
        sizes = QUICK if options.quick else Sizes()
        content = fill(_client(store), sizes, Path(scratch), store)
        measure(store, content, peers, works, repeat, Path(scratch), results)
    console.print(
        f"{store.name}, {options.ttfb_ms:g} ms to the first byte, {options.mbps:g} MB/s a "
        f"connection, {content.model_size / 2**20:,.0f} MiB model, medians of {repeat}"
    )
    console.print(table(results, peers, works))
    path = save(options, store, content, results)
    drawn = draw(json.loads(path.read_text()), path.with_suffix(".png"))
    beside = f", drawn in {path.with_suffix('.png')}" if drawn else ""
    if not lockmeter.SUPPORTED:
        console.print("How long Python's lock is held can be seen on CPython 3.11 only.")
    console.print(f"Everything measured is in {path}{beside}.")
    return 1 if any(one.failure for one in results.values() if one.peer.startswith("ours")) else 0


def measure(
    store: Store,
    content: Content,
    peers: list[Peer],
    works: list[Work],
    repeat: int,
    scratch: Path,
    results: dict[tuple[str, str], Result],
) -> None:
    """Peers take turns within each round, so that a slow minute hits all of them, and each round
    begins with another one, so that none always finds what the same one has left behind."""
    rounds = [
        (work, attempt, peers[(attempt + place) % len(peers)])
        for work, attempt, place in itertools.product(works, range(repeat), range(len(peers)))
    ]
    client = _client(store)
    with Progress(transient=True) as progress:
        task = progress.add_task("", total=len(rounds))
        for number, (work, attempt, peer) in enumerate(rounds):
            progress.update(task, description=f"{work.name}: {peer.name}", advance=1)
            result = results.setdefault((work.name, peer.name), Result(work.name, peer.name))
            if result.failure:
                continue
            place = scratch / f"run-{number}"
            for name in work.makes:
                client.remove_object(BUCKET, name)
            try:
                with served(peer, store, place) as mounted:
                    _measure_once(store, content, mounted, work, result)
                    if attempt == 0 and work.check is not None:
                        run_forked(work.check, mounted.path, content)
            except (WorkFailedError, RuntimeError) as exc:
                result.failure = str(exc)
            finally:
                shutil.rmtree(place, ignore_errors=True)


def _measure_once(
    store: Store, content: Content, mounted: Served, work: Work, result: Result
) -> None:
    if work.prepare is not None:
        run_forked(work.prepare, mounted.path, content)
    os.sync()  # or the disk would be busy with what the run before has written
    store.reset()
    before, lock_before = mounted.cpu_seconds(), mounted.lock()
    seconds = run_forked(work.run, mounted.path, content)
    stats = store.stats()
    if work.writes and int(str(stats["bytes_in"])) < content.sizes.written_bytes:
        result.remark = "returned before it was stored"
    result.seconds.append(seconds / work.per)
    result.cpu_seconds.append(mounted.cpu_seconds() - before)
    lock_after = mounted.lock()
    if lock_before is not None and lock_after is not None:
        seen = lock_after - lock_before
        result.lock_seconds.append(seen.held_seconds)
        result.lock_used_seconds.append(seen.used_seconds)
    result.peak_rss_bytes = max(result.peak_rss_bytes, mounted.peak_rss_bytes())
    result.requests = dict(stats["ops"])  # type: ignore[call-overload]
    result.bytes_out, result.bytes_in = int(str(stats["bytes_out"])), int(str(stats["bytes_in"]))


def table(results: dict[tuple[str, str], Result], peers: list[Peer], works: list[Work]) -> Table:
    """Seconds, share of the yardstick's seconds, daemon CPU seconds and those for which Python's
    lock was used, requests, megabytes."""
    made = Table(
        title="seconds (share of s3fs) · daemon CPU-s, s of Python's lock used · peak memory of"
        " the daemon · requests · MB from and to the store",
        show_lines=True,
    )
    made.add_column("work")
    for peer in peers:
        made.add_column(peer.name)
    for work in works:
        yardstick = results.get((work.name, YARDSTICK))
        base = statistics.median(yardstick.seconds) if yardstick and yardstick.seconds else None
        cells = [_cell(results[work.name, peer.name], base) for peer in peers]
        made.add_row(work.name, *cells)
    return made


def _cell(result: Result, base: float | None) -> str:
    if result.failure:
        return f"[red]{result.failure[:60]}[/red]"
    seconds = statistics.median(result.seconds)
    share = f" ({seconds / base:.2f}x)" if base else ""
    moved = (result.bytes_out + result.bytes_in) / 1e6
    used = result.lock_used_seconds
    locked = f", {statistics.median(used):.2f} s" if used else ""
    return (
        f"[bold]{seconds:.3g}[/bold]{share}\n"
        f"{statistics.median(result.cpu_seconds):.2f} CPU-s{locked}\n"
        f"{result.peak_rss_bytes / 1e6:,.0f} MB peak\n"
        f"{sum(result.requests.values()):,} req, {moved:,.0f} MB"
        f"{result.remark and chr(10)}{result.remark}"
    )


def save(
    options: argparse.Namespace,
    store: Store,
    content: Content,
    results: dict[tuple[str, str], Result],
) -> Path:
    """Write everything measured as JSON; the file's path."""
    RESULTS.mkdir(exist_ok=True)
    now = dt.datetime.now(dt.UTC)
    path = RESULTS / f"{now:%Y%m%d-%H%M%S}.json"
    document = {
        "time": now.isoformat(),
        "store": store.name,
        "ttfb_ms": options.ttfb_ms,
        "mbps": options.mbps,
        "sizes": asdict(content.sizes),
        "results": [asdict(result) for result in results.values()],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers")
    parser.add_argument("--shaped-store", type=Path, help="another program as the store")
    parser.add_argument("--ttfb-ms", type=float, default=25)
    parser.add_argument("--mbps", type=float, default=90)
    parser.add_argument("--repeat", type=int, help="runs of each (3; quick: 1)")
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--peers", default="", help="only those whose name holds one of A,B")
    parser.add_argument("--works", default="", help="only those whose name holds one of A,B")
    return parser.parse_args()


def _wanted(name: str, words: str) -> bool:
    return not words or any(word in name for word in words.split(","))


def _installed(peers: list[Peer], console: Console) -> list[Peer]:
    if any(peer.name == "s3fs" for peer in peers) and shutil.which("s3fs") is None:
        console.print("s3fs is not installed and is left out.")
        return [peer for peer in peers if peer.name != "s3fs"]
    return peers


def _store(options: argparse.Namespace, scratch: Path) -> contextlib.AbstractContextManager[Store]:
    if options.shaped_store is not None:
        return shaped_program(
            options.shaped_store, scratch / "store", options.ttfb_ms, options.mbps
        )
    return cloud_store(scratch / "store", options.ttfb_ms, options.mbps)


def _client(store: Store) -> Minio:
    return Minio(
        store.endpoint.removeprefix("http://"),
        store.access_key,
        store.secret_key,
        secure=False,
        region="us-east-1",
        http_client=urllib3.PoolManager(maxsize=16, timeout=120),
    )


def _unwind(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())

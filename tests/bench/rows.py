"""What single kinds of requests cost the daemon, in two versions by turns.

``python -m tests.bench.rows [--beside DIRECTORY] [--rows ls,small] [--repeat 5]`` mounts this
version and the one whose source is in ``DIRECTORY``, and prints the median of each figure. CPU
seconds, and seconds for which Python's lock was used, bear comparison on a busy machine; wall time
only within one run. So do seconds for which the lock was held, as whoever has it may wait for a
processor meanwhile. The store is a program of the same machine, which takes its part of them.
"""

import argparse
import concurrent.futures
import ctypes
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import NoReturn, cast
from urllib.parse import quote

from rich.console import Console
from rich.table import Table

from tests.bench.content import BUCKET
from tests.bench.mounts import Launch, Peer, Served, ours, served
from tests.support.stores import Store, cloud_store

MIB = 1024**2
BLOCK_BYTES = 8 * MIB
QUARTERS = tuple(f"quarter-{number}.bin" for number in range(4))
QUARTER_BYTES = 256 * MIB
WHOLE, WHOLE_BYTES = "whole.bin", 1024 * MIB
LARGE, LARGE_BYTES = "large.bin", 4096 * MIB
SMALL, SMALL_FILES, SMALL_BYTES = "small", 2000, 100_000
CROWD, DRAWN, CROWD_FILES = "crowd", "drawn", 100_000
"""Directories of numbered names, and of names by chance."""
STATS = 20_000
WRITTEN_BYTES = 512 * MIB
TINY_WRITES = 5_000
NEAR_MS, CLOUD_MS, FAR_MS = 1.0, 25.0, 100.0
IDLE_CPU_SECONDS = 0.05
"""What a daemon without requests takes within some seconds."""

Figures = dict[str, float]
Do = Callable[[Served], Figures]


@dataclass(frozen=True)
class Row:
    """One kind of work. ``prepare`` is not measured; figures of ``run`` stand beside seconds and
    daemon CPU, which are divided by ``per`` (and named after ``unit``)."""

    name: str
    content: tuple[str, ...]
    run: Do
    data_path: str = "direct"
    options: tuple[str, ...] = ()
    prepare: Do | None = None
    per: float = 1
    unit: str = ""
    ttfb_ms: float = 0.0
    meters_lock: bool = False
    """Whether to watch Python's lock, which itself takes CPU time."""
    network: bool = False
    """Whether requests and bytes from and to the store are figures."""


def forked(work: Callable[[Path], Figures]) -> Do:
    """``work`` on the mount's path, in a process of its own."""

    def run(mounted: Served) -> Figures:
        receiver, sender = get_context("fork").Pipe(duplex=False)
        process = get_context("fork").Process(target=_send, args=(sender, work, mounted.path))
        process.start()
        sender.close()
        try:
            figures: Figures = receiver.recv()
        finally:
            process.join()
        return figures

    return run


def _send(sender: Connection, work: Callable[[Path], Figures], path: Path) -> None:
    sender.send(work(path))


def read_through(path: Path) -> None:
    """The whole file, in order."""
    buffer = bytearray(BLOCK_BYTES)
    with path.open("rb", buffering=0) as source:
        while source.readinto(buffer):
            pass


def _all_at_once(calls: list[Callable[[], None]]) -> None:
    programs = [get_context("fork").Process(target=call) for call in calls]
    for program in programs:
        program.start()
    for program in programs:
        program.join()
    if any(program.exitcode for program in programs):
        raise RuntimeError("a program failed")


def read_quarters(path: Path) -> Figures:
    """Four files, each by a program of its own."""
    _all_at_once([partial(read_through, path / name) for name in QUARTERS])
    return {}


def drop_pages(path: Path) -> None:
    """Let the kernel forget a file's bytes."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _rests(mounted: Served, seconds: float) -> None:
    """Wait until the daemon has done nothing for so long."""
    before = -1.0
    while mounted.cpu_seconds() - before > IDLE_CPU_SECONDS:
        before = mounted.cpu_seconds()
        time.sleep(seconds)


def fill_cache(mounted: Served) -> Figures:
    """Read four files, and wait until the daemon has written them to disk."""
    forked(read_quarters)(mounted)
    _rests(mounted, 1)
    for name in QUARTERS:
        drop_pages(mounted.path / name)
    return {}


def write_file(path: Path, size: int) -> None:
    """Random bytes in order, then fsync."""
    block = random.Random(23).randbytes(4 * MIB)
    with path.open("wb", buffering=0) as out:
        for _ in range(size // len(block)):
            out.write(block)
        os.fsync(out.fileno())


def write_quarters(path: Path) -> Figures:
    """Four files, each by a program of its own."""
    names = [f"written-{os.getpid()}-{number}" for number in range(4)]
    _all_at_once([partial(write_file, path / name, QUARTER_BYTES) for name in names])
    return {}


def write_one(path: Path) -> Figures:
    """One file with fsync."""
    write_file(path / f"written-{os.getpid()}", WRITTEN_BYTES)
    return {}


def read_one(name: str, path: Path) -> Figures:
    """One file in order."""
    read_through(path / name)
    return {}


_AT_FDCWD, _FORCE_SYNC, _BASIC_STATS = -100, 0x2000, 0x7FF
"""AT_STATX_FORCE_SYNC: the kernel asks the daemon, whatever it has cached."""


def stat_known(path: Path, count: int = STATS, until: Path | None = None) -> Figures:
    """One name again and again; each time the daemon is asked."""
    statx = ctypes.CDLL(None, use_errno=True).statx
    name, found = os.fsencode(path / WHOLE), ctypes.create_string_buffer(256)
    taken = []
    while len(taken) < count and not (until is not None and until.exists()):
        began = time.perf_counter_ns()
        if statx(_AT_FDCWD, name, _FORCE_SYNC, _BASIC_STATS, found):
            raise OSError(ctypes.get_errno(), "statx")
        taken.append(time.perf_counter_ns() - began)
        if until is not None:
            time.sleep(0.002)
    taken.sort()
    return {
        "p50 us": taken[len(taken) // 2] / 1e3,
        "p99 us": taken[len(taken) * 99 // 100] / 1e3,
        "worst us": taken[-1] / 1e3,
    }


def know_whole(mounted: Served) -> Figures:
    """Look the name up."""
    return forked(partial(stat_known, count=200))(mounted)


def stat_beside_readers(path: Path) -> Figures:
    """The same while four programs read four files."""
    with tempfile.TemporaryDirectory() as scratch:
        over = Path(scratch) / "over"
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            reading = thread.submit(read_quarters, path)
            reading.add_done_callback(lambda _done: over.touch())
            return stat_known(path, count=10**9, until=over)


def read_small(readers: int, path: Path) -> Figures:
    """Each small file from open to close, once, in any order."""
    names = sorted(os.listdir(path / SMALL))  # noqa: PTH208 - no Path for each
    random.Random(19).shuffle(names)

    def read(name: str) -> int:
        with (path / SMALL / name).open("rb", buffering=0) as source:
            return len(source.read())

    with concurrent.futures.ThreadPoolExecutor(readers) as threads:
        if sum(threads.map(read, names)) != SMALL_FILES * SMALL_BYTES:
            raise RuntimeError("bytes are missing")
    return {}


def know_small(mounted: Served) -> Figures:
    """List the small files."""
    os.listdir(mounted.path / SMALL)  # noqa: PTH208
    return {}


def list_crowd(option: str, path: Path, crowd: str = CROWD) -> Figures:
    """All names by ls(1)."""
    done = subprocess.run(["ls", option, str(path / crowd)], capture_output=True, check=True)
    if done.stdout.count(b".dat") != CROWD_FILES:
        raise RuntimeError("names are missing")
    return {}


def write_bytes_singly(path: Path) -> Figures:
    """One byte a call."""
    with (path / f"tiny-{os.getpid()}").open("wb", buffering=0) as out:
        began = time.perf_counter()
        for _ in range(TINY_WRITES):
            out.write(b"x")
        return {"writes a second": TINY_WRITES / (time.perf_counter() - began)}


def copy_whole(path: Path) -> Figures:
    """By cp(1)."""
    subprocess.run(["cp", path / WHOLE, path / f"copied-{os.getpid()}"], check=True)
    return {}


def seal_large(mounted: Served) -> Figures:
    """Read the file into the disk cache, and let it be verified, which waits for its readers."""
    for _ in range(5):
        forked(partial(read_one, LARGE))(mounted)
        _rests(mounted, 5)
        drop_pages(mounted.path / LARGE)
        before = mounted.cpu_seconds()
        forked(partial(read_one, LARGE))(mounted)
        if mounted.cpu_seconds() - before < IDLE_CPU_SECONDS:
            return {}
    raise RuntimeError("the kernel never read the file itself")


def read_large_beside_its_cache(mounted: Served) -> Figures:
    """Through the mount, and the file in the cache itself, three times by turns from memory."""
    data = max((mounted.path.parent / "cache-dir").rglob("*"), key=lambda one: one.stat().st_size)
    seconds: dict[Path, list[float]] = defaultdict(list)
    for _ in range(3):
        for path in (data, mounted.path / LARGE):
            began = time.perf_counter()
            forked(lambda _path, path=path: read_one("", path))(mounted)  # type: ignore[misc]
            seconds[path].append(time.perf_counter() - began)
    itself, through = (statistics.median(one) for one in seconds.values())
    return {"cache file s": itself, "through the mount s": through, "ratio": through / itself}


def _gib(bytes_: int) -> float:
    return bytes_ / 1024**3


_FOUR = _gib(4 * QUARTER_BYTES)
ROWS = (
    *(
        replace(row, name=f"lock: {row.name}", meters_lock=True, per=_FOUR, unit=" a GiB")
        for row in (
            Row("4 readers of 4 files, direct", QUARTERS, forked(read_quarters)),
            Row(
                *("the same from the disk cache", QUARTERS, forked(read_quarters), "cache"),
                prepare=fill_cache,
            ),
            Row("4 writers of 4 files, direct", (), forked(write_quarters)),
        )
    ),
    *(
        Row(
            *(f"sequential, {data_path}", (WHOLE,), forked(partial(read_one, WHOLE)), data_path),
            per=_gib(WHOLE_BYTES),
            unit=" a GiB",
        )
        for data_path in ("direct", "cache", "temp")
    ),
    *(
        Row(f"write 512 MiB and fsync, {data_path}", (), forked(write_one), data_path)
        for data_path in ("direct", "temp")
    ),
    *(
        Row(
            *(f"small files, {readers} readers", (SMALL,), forked(partial(read_small, readers))),
            prepare=know_small,
            per=SMALL_FILES,
            unit=" a file",
            ttfb_ms=NEAR_MS,
        )
        for readers in (1, 16)
    ),
    Row("stat", (WHOLE,), forked(stat_known), prepare=know_whole, per=STATS, unit=" a stat"),
    Row("stat beside 4 readers", (WHOLE, *QUARTERS), forked(stat_beside_readers)),
    *(
        Row(
            *(f"ls {option} of 100,000, cold", (CROWD,), forked(partial(list_crowd, option))),
            ttfb_ms=CLOUD_MS,
            network=True,
        )
        for option in ("-l", "-f")
    ),
    *(
        Row(
            *(f"ls -f of 100,000 {what}, far", (crowd,)),
            forked(partial(list_crowd, "-f", crowd=crowd)),
            ttfb_ms=FAR_MS,
            network=True,
        )
        for what, crowd in (("numbers", CROWD), ("names by chance", DRAWN))
    ),
    Row("1-byte writes, temp", (), forked(write_bytes_singly), "temp", per=1),
    Row("cp of 1 GiB within the mount", (WHOLE,), forked(copy_whole), "temp", network=True),
    Row(
        *("4 GiB in the disk cache", (LARGE,), read_large_beside_its_cache, "cache"),
        options=("--read-only",),
        prepare=seal_large,
    ),
)


def main() -> int:
    """Measure and print."""
    options = _options()
    rows = [row for row in ROWS if any(word in row.name for word in options.rows.split(","))]
    sources = [Path.cwd(), *([options.beside] if options.beside is not None else [])]
    signal.signal(signal.SIGTERM, _unwind)
    console = Console()
    seen: dict[tuple[str, Path, str], list[float]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory(prefix="ossfs-py-rows-") as scratch,
        cloud_store(Path(scratch) / "store", 0, 0) as store,
    ):
        fill(store, {name for row in rows for name in row.content})
        for row in rows:
            for attempt in range(options.repeat):
                for source in (*sources[attempt % 2 :], *sources[: attempt % 2]):
                    place = Path(scratch) / "run"
                    try:
                        for name, figure in measure(row, source, store, place).items():
                            seen[row.name, source, name].append(figure)
                    finally:
                        shutil.rmtree(place, ignore_errors=True)
                    clean(store)
            console.print(table([row], sources, seen))
    load = os.getloadavg()[0]
    console.print(f"Medians of {options.repeat}; load average {load:.1f} at the end.")
    return 0


def fill(store: Store, names: set[str]) -> None:
    """Put what rows need into the bucket."""
    if store.root is None:
        raise RuntimeError("a store with files of its own is needed")
    bucket = store.root / BUCKET
    bucket.mkdir()
    block = random.Random(7).randbytes(BLOCK_BYTES)
    sizes = {**dict.fromkeys(QUARTERS, QUARTER_BYTES), WHOLE: WHOLE_BYTES, LARGE: LARGE_BYTES}
    for name in names & sizes.keys():
        with (bucket / name).open("wb") as out:
            for _ in range(sizes[name] // BLOCK_BYTES):
                out.write(block)
    if SMALL in names:
        for number in range(SMALL_FILES):
            key = quote(f"{SMALL}/{number:04}.jpg", safe="")
            (bucket / key).write_bytes(block[number : number + SMALL_BYTES])
    if CROWD in names:
        for number in range(CROWD_FILES):
            (bucket / quote(f"{CROWD}/{number:06}.dat", safe="")).write_bytes(b"x")
    if DRAWN in names:
        draw = random.Random(5)
        for _ in range(CROWD_FILES):
            key = f"{DRAWN}/{draw.getrandbits(128):032x}.dat"
            (bucket / quote(key, safe="")).write_bytes(b"x")
    store.reload()


def clean(store: Store) -> None:
    """Remove what a run has written."""
    if store.root is not None:
        for kind in ("written-", "copied-", "tiny-"):
            for path in (store.root / BUCKET).glob(f"{kind}*"):
                path.unlink()
        store.reload()


def of_source(source: Path, row: Row) -> Peer:
    """The version whose source is in that directory."""
    usual = ours(row.data_path, row.options)

    def launch(store: Store, mountpoint: Path, scratch: Path) -> Launch:
        made = usual.launch(store, mountpoint, scratch)
        command = made.command
        if not row.meters_lock:
            begin = command.index("mount")
            command = [sys.executable, "-m", "ossfs_py", *command[begin:]]
            made = replace(made, lock_seen=None)
        # Modules are looked for in the working directory first.
        return replace(made, command=["env", "-C", str(source), *command])

    return Peer(usual.name, launch)


def measure(row: Row, source: Path, store: Store, place: Path) -> Figures:
    """All figures of one run on a fresh mount."""
    store.shape(ttfb_ms=row.ttfb_ms, mbps=0)
    with served(of_source(source, row), store, place) as mounted:
        if row.prepare is not None:
            row.prepare(mounted)
        os.sync()  # or the disk would be busy with what was written before
        store.reset()
        before, lock_before, began = mounted.cpu_seconds(), mounted.lock(), time.monotonic()
        figures = row.run(mounted)
        figures[f"s{row.unit}"] = (time.monotonic() - began) / row.per
        figures[f"CPU-s{row.unit}"] = (mounted.cpu_seconds() - before) / row.per
        lock = mounted.lock()
        if lock is not None and lock_before is not None:
            seen = lock - lock_before
            figures[f"lock held s{row.unit}"] = seen.held_seconds / row.per
            figures[f"lock used s{row.unit}"] = seen.used_seconds / row.per
        if row.network:
            stats = store.stats()
            moved = int(str(stats["bytes_in"])) + int(str(stats["bytes_out"]))
            figures["MiB over the network"] = moved / MIB
            figures["requests"] = sum(cast("dict[str, int]", stats["ops"]).values())
    return figures


def table(
    rows: list[Row], sources: list[Path], seen: dict[tuple[str, Path, str], list[float]]
) -> Table:
    """Medians, and the lowest and highest."""
    made = Table("row", "figure", *(source.name for source in sources))
    for row in rows:
        for name in dict.fromkeys(name for of, _, name in seen if of == row.name):
            cells = []
            for source in sources:
                runs = seen[row.name, source, name]
                middle = statistics.median(runs)
                cells.append(f"{middle:.4g} ({min(runs):.4g}-{max(runs):.4g})")
            made.add_row(row.name, name, *cells)
    return made


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.rows")
    parser.add_argument("--beside", type=Path, help="the source of another version")
    parser.add_argument("--rows", default="", help="only those whose name holds one of A,B")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    if options.beside is not None:
        options.beside = options.beside.resolve()
    return options


def _unwind(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())

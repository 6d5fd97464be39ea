"""``python -m tests.soak.reads --shaped-store FILE``: verified reads from a failing store.

Sequential, random and mapped readers compare every byte with the file that the store serves. The
store fails requests at the given rates: refuses them with 503, breaks off in the body, or stops
for 20 s in the middle of it. The exit code is 1 if a byte was wrong or a reader saw an error.
"""

import argparse
import mmap
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import DownloadColumn, Progress

from ossfs_py.control.client import ControlClient, mount_of
from tests.support.mounting import DATA_PATHS, Mount
from tests.support.stores import shaped_program

KIB, MIB, GIB = 1024, 1024**2, 1024**3
BUCKET = "models"
FILES, FILE_BYTES = 3, GIB // 2
READ_BYTES = MIB
LARGEST_RANDOM_BYTES = 256 * KIB
RATES = {"error_rate": 0.04, "reset_rate": 0.25, "stall_rate": 0.001}
"""Shares of requests that are refused, cut off and stalled."""


@dataclass
class Figures:
    """What came of it, all readers together."""

    verified_bytes: int = 0
    longest_seconds: float = 0.0
    longest: str = ""
    problems: list[str] = field(default_factory=list)


class Reads:
    """Readers of one mount, until so many bytes are verified."""

    def __init__(self, mounted: Path, originals: Path, wanted_bytes: int, seed: int) -> None:
        self.figures = Figures()
        self._mounted = mounted
        self._originals = originals
        self._wanted_bytes = wanted_bytes
        self._seed = seed
        self._lock = threading.Lock()

    @property
    def over(self) -> bool:
        """Whether enough is read, or something is wrong."""
        return bool(self.figures.problems) or self.figures.verified_bytes >= self._wanted_bytes

    def start(self) -> list[threading.Thread]:
        """Two readers in order, two at random, one with a mapping."""
        ways = (self._in_order, self._in_order, self._at_random, self._at_random, self._mapped)
        threads = [
            threading.Thread(target=self._repeat, args=(way, number), daemon=True)
            for number, way in enumerate(ways)
        ]
        for thread in threads:
            thread.start()
        return threads

    def _repeat(self, way: Callable[[int, int, random.Random], None], number: int) -> None:
        rng = random.Random(self._seed * 100 + number)
        while not self.over:
            name = str(rng.randrange(FILES))
            try:
                fd = os.open(self._mounted / name, os.O_RDONLY)
                original = os.open(self._originals / name, os.O_RDONLY)
                try:
                    way(fd, original, rng)
                    # Or the kernel would answer the next reader.
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(original)
                    os.close(fd)
            except (OSError, AssertionError) as exc:
                self.figures.problems.append(f"{way.__name__} of {name}: {exc}")

    def _in_order(self, fd: int, original: int, _: random.Random) -> None:
        for offset in range(0, FILE_BYTES, READ_BYTES):
            self._verify(partial(os.pread, fd, READ_BYTES, offset), original, offset)
            if self.over:
                return

    def _at_random(self, fd: int, original: int, rng: random.Random) -> None:
        for _ in range(100):
            size = rng.randrange(1, LARGEST_RANDOM_BYTES)
            offset = rng.randrange(FILE_BYTES - size)
            self._verify(partial(os.pread, fd, size, offset), original, offset)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def _mapped(self, fd: int, original: int, rng: random.Random) -> None:
        # A page fault holds the GIL, and the other readers wait with it; their stalls are told.
        with mmap.mmap(fd, FILE_BYTES, prot=mmap.PROT_READ) as mapping:
            start = rng.randrange(FILE_BYTES // 2)
            for offset in range(start, start + FILE_BYTES // 4, READ_BYTES):
                wanted = slice(offset, offset + READ_BYTES)
                self._verify(partial(mapping.__getitem__, wanted), original, offset)

    def _verify(self, read: Callable[[], bytes], original: int, offset: int) -> None:
        began = time.monotonic()
        found = read()
        seconds = time.monotonic() - began
        if found != os.pread(original, len(found), offset) or not found:
            raise AssertionError(f"{len(found)} bytes at {offset} are wrong")
        with self._lock:
            self.figures.verified_bytes += len(found)
            if seconds > self.figures.longest_seconds:
                self.figures.longest_seconds = seconds
                self.figures.longest = f"{len(found)} bytes at {offset}"


def retries(mounted: Mount) -> int:
    """Requests that the daemon has sent again, each because of a fault."""
    with ControlClient.of(mount_of(mounted.path)[0]) as client:
        samples = client.call("stats")["metrics"]["ossfs_store_retries"]
    return int(sum(sample["value"] for sample in samples["samples"]))


def soak(options: argparse.Namespace, work: Path, console: Console) -> bool:
    """One mount, so many bytes; whether all were right."""
    with shaped_program(options.shaped_store, work / "store", 25, 90) as store:
        originals = work / "store" / BUCKET
        originals.mkdir()
        for number in range(FILES):
            with (originals / str(number)).open("wb") as file:
                for _ in range(FILE_BYTES // (64 * MIB)):
                    file.write(os.urandom(64 * MIB))
        environment = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "thing"}
        with Mount(
            BUCKET,
            work / "mount",
            endpoint=store.endpoint,
            environment=environment,
            data_path=options.data_path,
            stall_timeout="3s",
            # A store that is slow because the machine is busy is none of the faults.
            retry_budget="1h",
            log_level="error",
            # Smaller than what is read, or nothing would be fetched after a while.
            **({"cache_size": 512 * MIB} if options.data_path == "cache" else {}),
        ) as mounted:
            store.shape(**RATES)
            store.reset()
            reads = Reads(mounted.path, originals, int(options.gib * GIB), options.seed)
            began = time.monotonic()
            threads = reads.start()
            with Progress(
                *Progress.get_default_columns(), DownloadColumn(), console=console
            ) as bar:
                task = bar.add_task(options.data_path, total=int(options.gib * GIB))
                while not reads.over:
                    time.sleep(1)
                    bar.update(task, completed=reads.figures.verified_bytes)
            for thread in threads:
                thread.join()
            figures = reads.figures
            console.print(
                f"{options.data_path}: {figures.verified_bytes / GIB:.1f} GiB verified in"
                f" {time.monotonic() - began:.0f} s, requests {store.stats()['ops']},"
                f" {retries(mounted)} sent again, longest read {figures.longest_seconds:.1f} s"
                f" ({figures.longest}), {len(figures.problems)} problems",
                *figures.problems,
                soft_wrap=True,
            )
        return not figures.problems


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.reads", description=__doc__)
    parser.add_argument("--shaped-store", type=Path, required=True, help="its program")
    parser.add_argument("--data-path", choices=DATA_PATHS, default="direct")
    parser.add_argument("--gib", type=float, default=34, help="to verify")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        return 0 if soak(options, Path(work), Console()) else 1


if __name__ == "__main__":
    sys.exit(main())

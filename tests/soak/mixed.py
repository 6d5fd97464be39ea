"""Programs of all sorts on one mount while the store fails all the time, every byte compared."""

import contextlib
import hashlib
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from minio import Minio

from tests.faults.matrix import EVERY, FINE, TROUBLES, Trouble
from tests.faults.works import MIB, Place, content_of
from tests.support.faults import Fault
from tests.support.mounting import Mount
from tests.support.proxy import Proxy

SIZES = (1000, MIB // 2, 3 * MIB, 9 * MIB, 30 * MIB)
"""Of the objects that are read; the largest is read ahead in several windows."""
OBJECTS = 15
LARGEST_WRITE_BYTES = 20 * MIB
READERS, WRITERS = 4, 2
ARM_SECONDS = 0.05
"""How often new faults are laid; each hits one request."""
SKIPPED_REQUESTS = 12
"""Each fault lets fewer requests pass first. A busy machine sends few in that time, and would
have nearly all of them fail, which no retry budget bridges."""
SAMPLE_SECONDS = 0.5

HARMLESS: tuple[Trouble, ...] = tuple(
    trouble for trouble in TROUBLES if trouble.once is FINE and trouble.most > 1
)
"""What is repeated silently, however often it comes."""


_HASH_MAPPED = """
import hashlib, mmap, os, sys
with open(sys.argv[1], "rb") as file:
    print(hashlib.sha256(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)).hexdigest())
"""


@dataclass
class Figures:
    """What a soak comes to."""

    verified_bytes: int = 0
    written_bytes: int = 0
    operations: Counter[str] = field(default_factory=Counter)
    faults: int = 0
    longest_seconds: float = 0.0
    longest: str = ""
    peak_rss_bytes: int = 0
    peak_descriptors: int = 0
    peak_threads: int = 0
    errors: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.verified_bytes / 2**30:.2f} GiB verified, {self.written_bytes / 2**30:.2f} GiB "
            f"written, {self.faults} faults, {len(self.errors)} errors, longest operation "
            f"{self.longest_seconds:.1f} s ({self.longest}), peak memory "
            f"{self.peak_rss_bytes / MIB:.0f} MiB, {self.peak_descriptors} descriptors, "
            f"{self.peak_threads} threads, {dict(self.operations)}"
        )


class Soak:
    """The load, the faults and the watch over the daemon."""

    def __init__(self, mounted: Mount, proxy: Proxy, client: Minio, bucket: str, seed: int) -> None:
        self.figures = Figures()
        self._mounted = mounted
        self._proxy = proxy
        self._seed = seed
        self._place = Place(mounted.path, client, bucket, "", random.Random(seed))
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._objects: dict[str, bytes] = {}

    def run(self, seconds: float) -> Figures:
        """Everything at once for that long; what went wrong is in the figures."""
        for number in range(OBJECTS):
            name = f"objects/{number}"
            size = SIZES[number % len(SIZES)] + number
            self._objects[name] = content_of(size, number)
            self._place.put(name, self._objects[name])
        works: list[Callable[[random.Random, int], None]] = [
            *[self._read] * READERS,
            *[self._write] * WRITERS,
            self._walk,
        ]
        threads = [
            threading.Thread(target=self._repeat, args=(work, number), daemon=True)
            for number, work in enumerate(works)
        ]
        helpers = [
            threading.Thread(target=target, daemon=True) for target in (self._arm, self._watch)
        ]
        for thread in (*threads, *helpers):
            thread.start()
        self._stop.wait(seconds)
        self._stop.set()
        for thread in (*threads, *helpers):
            thread.join(180)
            if thread.is_alive():
                self.figures.errors.append("a program hangs")
        self._proxy.faults = []
        return self.figures

    # -- programs --------------------------------------------------------------------------------

    def _repeat(self, work: Callable[[random.Random, int], None], number: int) -> None:
        rng = random.Random(self._seed * 1000 + number)
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                work(rng, number)
            except Exception as exc:  # noqa: BLE001 - every one of them is told
                with self._lock:
                    self.figures.errors.append(f"{work.__name__}: {exc!r:.300}")
                if len(self.figures.errors) > 20:
                    self._stop.set()
            seconds, name = time.monotonic() - began, work.__name__.strip("_")
            with self._lock:
                self.figures.operations[name] += 1
                if seconds > self.figures.longest_seconds:
                    self.figures.longest_seconds, self.figures.longest = seconds, name

    def _read(self, rng: random.Random, _: int) -> None:
        name, content = rng.choice(list(self._objects.items()))
        fd = os.open(self._mounted.path / name, os.O_RDONLY)
        try:
            how = rng.choice((self._in_order, self._at_random, self._mapped))
            verified = how(fd, content, rng)
            # Or the kernel would answer the next reader.
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
        with self._lock:
            self.figures.verified_bytes += verified

    def _in_order(self, fd: int, content: bytes, rng: random.Random) -> int:
        position = 0
        while piece := os.read(fd, MIB):
            _same(piece, content, position)
            position += len(piece)
        if position != len(content):
            raise AssertionError(f"{position} bytes instead of {len(content)}")
        return position

    def _at_random(self, fd: int, content: bytes, rng: random.Random) -> int:
        verified = 0
        for _ in range(10):
            offset = rng.randrange(len(content))
            piece = os.pread(fd, rng.randrange(1, 200_000), offset)
            _same(piece, content, offset)
            verified += len(piece)
        return verified

    def _mapped(self, fd: int, content: bytes, _: random.Random) -> int:
        # In a process of its own: a page fault holds the GIL, and the proxy needs it to answer.
        command = [sys.executable, "-S", "-c", _HASH_MAPPED, f"/proc/{os.getpid()}/fd/{fd}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or done.stdout.strip() != hashlib.sha256(content).hexdigest():
            raise AssertionError(f"mapped: code {done.returncode}, wrong bytes {done.stderr}")
        return len(content)

    def _write(self, rng: random.Random, number: int) -> None:
        """A file written, perhaps renamed, seen at the store, perhaps read, and removed."""
        name = f"written/{number}/{rng.randrange(5)}"
        content = content_of(int(2 ** rng.uniform(0, 24.3)), rng.randrange(1000))
        path = self._mounted.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb", 0) as file:
            view = memoryview(content)
            while view:
                view = view[file.write(view[: rng.randrange(1, 2 * MIB)]) :]
            if rng.random() < 0.5:
                os.fsync(file.fileno())
        if rng.random() < 0.2:
            path.rename(path.with_name("renamed"))
            path, name = path.with_name("renamed"), f"written/{number}/renamed"
        if self._place.stored(name) != content:
            raise AssertionError(f"the store has not got {name} as it was closed")
        if rng.random() < 0.3:
            _same(path.read_bytes(), content, 0)
        if rng.random() < 0.3:
            path.unlink()
        with self._lock:
            self.figures.written_bytes += len(content)

    def _walk(self, _: random.Random, __: int) -> None:
        found = {path.name for path in (self._mounted.path / "objects").iterdir()}
        if found != {name.partition("/")[2] for name in self._objects}:
            raise AssertionError(f"the directory shows {sorted(found)}")
        for name, content in self._objects.items():
            if (self._mounted.path / name).stat().st_size != len(content):
                raise AssertionError(f"the size of {name} is wrong")
        with contextlib.suppress(FileNotFoundError):
            for path in (self._mounted.path / "written").rglob("*"):
                path.lstat()
        self._stop.wait(0.2)

    # -- faults and watch ------------------------------------------------------------------------

    def _arm(self) -> None:
        rng = random.Random(self._seed)
        armed: list[Fault] = []
        while not self._stop.wait(ARM_SECONDS):
            self.figures.faults += sum(min(fault.hits, 1) for fault in armed)
            armed = []
            for trouble in rng.sample(HARMLESS, 6):
                fault = trouble.make(rng)
                if fault.refuse_seconds is not None and rng.random() < 0.9:
                    continue  # it hits everybody, so it is kept rarer
                everywhere = len(trouble.requests) == len(EVERY)
                operation = "*" if everywhere else rng.choice(sorted(trouble.requests))
                skip = rng.randrange(SKIPPED_REQUESTS)
                armed.append(replace(fault, operation=operation, skip=skip))
            self._proxy.faults = armed

    def _watch(self) -> None:
        figures = self.figures
        while not self._stop.wait(SAMPLE_SECONDS):
            if not self._mounted.running:
                figures.errors.append(f"the daemon has ended\n{self._mounted.log[-3000:]}")
                self._stop.set()
                return
            status = Path(f"/proc/{self._mounted.pid}/status").read_text()
            fields = dict(line.split(":", 1) for line in status.splitlines())
            figures.peak_rss_bytes = int(fields["VmHWM"].split()[0]) * 1024
            figures.peak_threads = max(figures.peak_threads, int(fields["Threads"]))
            with contextlib.suppress(OSError):
                count = len(os.listdir(f"/proc/{self._mounted.pid}/fd"))  # noqa: PTH208
                figures.peak_descriptors = max(figures.peak_descriptors, count)


def _same(piece: bytes, content: bytes, offset: int) -> None:
    if piece != content[offset : offset + len(piece)]:
        raise AssertionError(f"wrong bytes within {len(piece)} at {offset}")

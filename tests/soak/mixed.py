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
from dataclasses import dataclass, field
from pathlib import Path

from minio import Minio

from tests.support.faults import Fault
from tests.support.mounting import Mount
from tests.support.places import MIB, Place, content_of
from tests.support.proxy import Exchange, Proxy
from tests.support.troubles import HARMLESS

SIZES = (1000, MIB // 2, 3 * MIB, 9 * MIB, 30 * MIB)
"""Of the objects that are read; the largest is read ahead in several windows."""
OBJECTS = 15
LARGEST_WRITE_BYTES = 20 * MIB
READERS, WRITERS = 4, 2
FAULTY_SHARE = 0.3
"""Of all requests, however many a busy machine has in a second."""
MOST_IN_A_ROW = 2
"""How often the same request is hit before it is let through."""
REFUSED_SHARE = 0.1
"""Of the refusals that are drawn: each breaks every connection there is."""
SAMPLE_SECONDS = 0.5
HANG_SECONDS = 120.0
"""So long no request and no end of an operation: there is no wait in the daemon that long, and a
machine so busy is none to test on."""

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
    requests: int = 0
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
            f"written, {self.faults} faults in {self.requests} requests, "
            f"{len(self.errors)} errors, longest operation "
            f"{self.longest_seconds:.1f} s ({self.longest}), peak memory "
            f"{self.peak_rss_bytes / MIB:.0f} MiB, {self.peak_descriptors} descriptors, "
            f"{self.peak_threads} threads, {dict(self.operations)}"
        )


class Dice:
    """Throws for each request whether and how it fails.

    By requests, not by time: were faults laid every so often, a busy machine, which sends few
    requests in that time, would have nearly all of them fail, which no retry budget bridges.
    """

    def __init__(self, seed: int) -> None:
        self.requests = 0
        self.faults = 0
        self.over = False
        """No more faults."""
        self._rng = random.Random(seed)
        self._in_a_row: Counter[tuple[str, ...]] = Counter()

    def choose(self, exchange: Exchange) -> list[Fault]:
        """What hits this request. The caller sees to it that one is asked about at a time."""
        self.requests += 1
        what = (
            exchange.operation,
            exchange.key,
            exchange.headers.get("range", ""),
            *exchange.query.get("partNumber", ()),
        )
        fault = None if self.over else self._throw(exchange.operation)
        if fault is None or self._in_a_row[what] == MOST_IN_A_ROW:
            del self._in_a_row[what]
            return []
        self._in_a_row[what] += 1
        self.faults += 1
        return [fault]

    def _throw(self, operation: str) -> Fault | None:
        fitting = [trouble for trouble in HARMLESS if operation in trouble.requests]
        if not fitting or self._rng.random() >= FAULTY_SHARE:
            return None
        fault = self._rng.choice(fitting).make(self._rng)
        if fault.refuse_seconds is not None and self._rng.random() >= REFUSED_SHARE:
            return None
        return fault


class Soak:
    """The load, the faults and the watch over the daemon."""

    def __init__(self, mounted: Mount, proxy: Proxy, client: Minio, bucket: str, seed: int) -> None:
        self.figures = Figures()
        self._mounted = mounted
        self._proxy = proxy
        self._seed = seed
        self._place = Place(mounted.path, client, bucket, "", random.Random(seed))
        self._dice = Dice(seed)
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
        self._proxy.choose = self._dice.choose
        threads.append(threading.Thread(target=self._watch, daemon=True))
        for thread in threads:
            thread.start()
        self._stop.wait(seconds)
        self._stop.set()
        self._dice.over = True
        self._join(threads)
        self.figures.requests, self.figures.faults = self._dice.requests, self._dice.faults
        return self.figures

    def _join(self, threads: list[threading.Thread]) -> None:
        """Wait for all, as long as anything goes on."""
        seen, changed_at = -1, 0.0
        while left := [thread for thread in threads if thread.is_alive()]:
            left[0].join(SAMPLE_SECONDS)
            done = self._dice.requests + self.figures.operations.total()
            if done != seen:
                seen, changed_at = done, time.monotonic()
            elif time.monotonic() - changed_at > HANG_SECONDS:
                self.figures.errors.append(f"{len(left)} programs hang")
                return

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

    # -- watch -----------------------------------------------------------------------------------

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

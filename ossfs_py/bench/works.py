"""The workloads: what a program does with the files of a mount. Knows no mounts and no daemons.

A workload raises OSError when the file system fails it, ``WorkFailedError`` when it gets wrong
bytes, and ``StoppedError`` after ``Meter.stop``. It closes what it opens.
"""

import contextlib
import itertools
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ossfs_py.errors import EnvironmentProblemError

MIB = 1024**2
READ_BYTES = 8 * MIB
"""One read of a loader: large enough that the program's own calls cost nothing."""
WRITE_BYTES = 4 * MIB
READERS = 4
POSITIONS = 8
TURN_BYTES = MIB // 4
RANDOM_READS = 100
RANDOM_READ_BYTES = 4096


class WorkFailedError(EnvironmentProblemError):
    """A workload got wrong bytes or files."""


class StoppedError(Exception):
    """Somebody stopped the work."""


@dataclass(frozen=True, slots=True)
class Material:
    """The files that the workloads use."""

    file: Path
    size_bytes: int
    small: Path
    """Directory of the small files."""
    small_files: int
    small_bytes: int

    @property
    def small_paths(self) -> list[Path]:
        """The small files, in order."""
        return [self.small / f"{number:05}.dat" for number in range(self.small_files)]


class Meter:
    """Counts what a work has done, in any thread, and stops it."""

    def __init__(self, on_advance: Callable[[int], None]) -> None:
        self.done = 0
        self._on_advance = on_advance
        self._lock = threading.Lock()
        self._stopped = False

    def advance(self, amount: int) -> None:
        """Another ``amount`` of the work's unit is done.

        Raises:
            StoppedError: the work is to end.
        """
        with self._lock:
            if self._stopped:
                raise StoppedError
            self.done += amount
        self._on_advance(amount)

    def stop(self) -> None:
        """Let every thread of the work end with its next step."""
        with self._lock:
            self._stopped = True


@dataclass(frozen=True, slots=True)
class Work:
    """One thing to be measured.

    ``run`` may answer the seconds it took, where they are not all of its time.
    """

    name: str
    title: str
    run: Callable[[Material, Meter], float | None]
    needs_small: bool = False
    """Whether it is about the small files; else about the one file."""
    writes: bool = False
    counts_bytes: bool = True
    """Whether its meter counts bytes; else files or reads."""

    def total(self, material: Material) -> int:
        """The figures of its meter at the end."""
        if self.needs_small:
            return material.small_files
        return material.size_bytes if self.counts_bytes else RANDOM_READS

    def moved_bytes(self, material: Material) -> int:
        """Bytes that a program reads or writes in this work."""
        if self.needs_small:
            return 0 if self.name == LIST else material.small_files * material.small_bytes
        return material.size_bytes if self.counts_bytes else RANDOM_READS * RANDOM_READ_BYTES


# -- one file ------------------------------------------------------------------------------------


def write(material: Material, meter: Meter) -> None:
    """Random bytes in order, then fsync and close."""
    block = memoryview(random.randbytes(WRITE_BYTES))
    fd = os.open(material.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        left = material.size_bytes
        while left:
            written = os.write(fd, block[:left])
            left -= written
            meter.advance(written)
        os.fsync(fd)
    except BaseException:
        # Closing would upload what is there: first make it nobody's.
        with contextlib.suppress(OSError):
            material.file.unlink()
        raise
    finally:
        os.close(fd)


def read_sequentially(material: Material, meter: Meter) -> None:
    """One reader from beginning to end."""
    with _opened(material.file) as fd:
        _read_span(fd, 0, material.size_bytes, meter)


def read_in_parallel(material: Material, meter: Meter) -> None:
    """Threads that share a descriptor, each with its own quarter."""
    bounds = [material.size_bytes * number // READERS for number in range(READERS + 1)]
    with _opened(material.file) as fd, ThreadPoolExecutor(READERS) as threads:
        readers = [
            threads.submit(_read_span, fd, start, end, meter)
            for start, end in itertools.pairwise(bounds)
        ]
        try:
            for reader in readers:
                reader.result()
        except BaseException:
            meter.stop()
            raise


def read_interleaved(material: Material, meter: Meter) -> None:
    """One thread that takes turns at several places of the file."""
    bounds = [material.size_bytes * number // POSITIONS for number in range(POSITIONS + 1)]
    buffer = memoryview(bytearray(TURN_BYTES))
    with _opened(material.file) as fd:
        at = bounds[:-1]
        while any(place < end for place, end in zip(at, bounds[1:], strict=True)):
            for number, end in enumerate(bounds[1:]):
                turn = min(TURN_BYTES, end - at[number])
                if turn:
                    _read_exactly(fd, buffer[:turn], at[number])
                    at[number] += turn
                    meter.advance(turn)


def read_randomly(material: Material, meter: Meter) -> None:
    """Single pages, far from one another."""
    pages = max(1, material.size_bytes // RANDOM_READ_BYTES)
    wanted = min(RANDOM_READ_BYTES, material.size_bytes)
    buffer = memoryview(bytearray(wanted))
    positions = random.Random(17)
    with _opened(material.file) as fd:
        for _ in range(RANDOM_READS):
            _read_exactly(fd, buffer, positions.randrange(pages) * RANDOM_READ_BYTES)
            meter.advance(1)


def touch_mapped(material: Material, meter: Meter) -> float:
    """Map the file and touch its pages in order, in a separate process (see ``touch.py``)."""
    with (
        _opened(material.file) as fd,
        subprocess.Popen(
            [sys.executable, "-m", "ossfs_py.bench.touch"],
            stdin=fd,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as program,
    ):
        seconds = None
        try:
            assert program.stdout is not None  # noqa: S101 - a pipe was asked for
            for line in program.stdout:
                if line.startswith("in "):
                    seconds = float(line.removeprefix("in "))
                else:
                    meter.advance(int(line) - meter.done)
        except BaseException:
            program.kill()
            raise
    if program.returncode or seconds is None:
        raise WorkFailedError(
            f"the mapped file could not be read (a program ended with code {program.returncode})"
        )
    return seconds


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def _read_span(fd: int, start: int, end: int, meter: Meter) -> None:
    buffer = memoryview(bytearray(min(READ_BYTES, end - start)))
    while start < end:
        size = min(len(buffer), end - start)
        _read_exactly(fd, buffer[:size], start)
        start += size
        meter.advance(size)


def _read_exactly(fd: int, buffer: memoryview, offset: int) -> None:
    while buffer:
        count = os.preadv(fd, [buffer], offset)
        if count == 0:
            raise WorkFailedError("the file has become shorter")
        buffer, offset = buffer[count:], offset + count


# -- small files ---------------------------------------------------------------------------------


def create_small(material: Material, meter: Meter) -> None:
    """Create, write and close file after file, as cp and tar do."""
    material.small.mkdir()
    block = random.randbytes(material.small_bytes)
    for path in material.small_paths:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(fd, block)
            # To be read from the mount later; opening them once more would tell it too much.
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
        meter.advance(1)


def list_small(material: Material, meter: Meter) -> None:
    """The calls of ``ls -l``."""
    with os.scandir(material.small) as entries:
        for entry in entries:
            if entry.stat().st_size != material.small_bytes:
                raise WorkFailedError(f"{entry.name} has a wrong size")
            meter.advance(1)
    if meter.done != material.small_files:
        raise WorkFailedError(f"{meter.done} files of {material.small_files} are listed")


def read_small(material: Material, meter: Meter) -> None:
    """List them, as programs do to learn their names; then open, read and close file after file."""
    with os.scandir(material.small) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        if len((material.small / name).read_bytes()) != material.small_bytes:
            raise WorkFailedError(f"{name} is not complete")
        meter.advance(1)
    if meter.done != material.small_files:
        raise WorkFailedError(f"{meter.done} files of {material.small_files} are listed")


LIST = "list"
WORKS = (
    Work("write", "write and fsync", write, writes=True),
    Work("sequential", "one sequential reader", read_sequentially),
    Work("parallel", f"{READERS} readers, a part each", read_in_parallel),
    Work("interleaved", f"{POSITIONS} interleaved positions", read_interleaved),
    Work("random", "random 4 KiB reads", read_randomly, counts_bytes=False),
    Work("mmap", "touch all of it, mapped", touch_mapped),
    Work(
        "create",
        "create small files",
        create_small,
        needs_small=True,
        writes=True,
        counts_bytes=False,
    ),
    Work(LIST, "list and stat them", list_small, needs_small=True, counts_bytes=False),
    Work("small", "read them", read_small, needs_small=True, counts_bytes=False),
)
"""In the order they are run: what is read must have been written."""

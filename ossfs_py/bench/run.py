"""Runs works one after another, each on bytes that must come through the mount."""

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ossfs_py.bench.observed import Spending
from ossfs_py.bench.pages import drop_pages, resident_bytes
from ossfs_py.bench.works import WORKS, Material, Meter, Work
from ossfs_py.errors import EnvironmentProblemError, is_disk_full

SMALL_FILES = 100
SMALL_BYTES = 64 * 1024
"""As the files of data sets and repositories are."""
LET_GO_SECONDS = 6.5
"""A mount keeps what was read for five seconds after the last close, and looks every second."""
_DIRECTORY = ".ossfs-bench-"
_FILE = "file.dat"
_SMALL = "small"


class Asked(Protocol):
    """A daemon that can be asked; see ``observed.Daemon``."""

    def spending(self) -> Spending:
        """Spent so far."""

    def forget_names(self, directory: str) -> None:
        """Ask the store at the next look at a directory."""


class Shown(Protocol):
    """The receiver of the benchmark's progress."""

    def begin(self, title: str, total: int | None) -> Callable[[int], None]:
        """Something of ``total`` steps (None: who knows) begins.

        What is returned is called, by any thread, with the number of steps done.
        """


@dataclass(frozen=True, slots=True)
class Measurement:
    """One work."""

    work: Work
    seconds: float
    bytes: int
    """Read or written by the program."""
    operations: int | None
    """Files or reads, where those are what counts."""
    spent: Spending | None
    """By the daemon meanwhile; None if it cannot be asked."""
    stayed_bytes: int | None
    """Bytes of the file in the page cache when the workload began; None if the kernel does not say.
    """


@contextlib.contextmanager
def scratch_directory(root: Path, *, keep: bool) -> Iterator[Path]:
    """A new directory below ``root``, and all in it gone at the end, unless it is to be kept.

    Raises:
        EnvironmentProblemError: it cannot be made, or not be removed.
    """
    path = root / f"{_DIRECTORY}{uuid.uuid4().hex[:12]}"
    try:
        with _explained(f"no directory can be made in {root}", "--file names one to read instead"):
            path.mkdir(0o700)
        yield path
    except EnvironmentProblemError as exc:
        try:
            _remove(path)
        except EnvironmentProblemError as another:
            raise EnvironmentProblemError(f"{exc}\n{another}") from exc
        raise
    except BaseException:
        _remove(path)
        raise
    if not keep:
        _remove(path)


def _remove(path: Path) -> None:
    with _explained(f"{path} is left behind"), contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def own_material(directory: Path, size_bytes: int) -> Material:
    """Bytes that still have to be written into a directory of the mount."""
    return Material(directory / _FILE, size_bytes, directory / _SMALL, SMALL_FILES, SMALL_BYTES)


def existing_material(path: Path) -> Material:
    """A file that is there.

    Raises:
        EnvironmentProblemError: it cannot be read, or there is nothing in it.
    """
    with _explained(f"{path} cannot be read"), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
    if not size:
        raise EnvironmentProblemError(f"{path} is empty")
    return Material(path, size, path.parent / _SMALL, 0, 0)


class Bench:
    """Runs works on one material.

    ``let_go_seconds`` is how long the mount may answer from what it keeps of a file just closed.
    """

    def __init__(
        self,
        material: Material,
        shown: Shown,
        daemon: Asked | None = None,
        *,
        let_go_seconds: float = LET_GO_SECONDS,
    ) -> None:
        self._material = material
        self._shown = shown
        self._daemon = daemon
        self._let_go_seconds = let_go_seconds

    def run(self, works: Sequence[Work]) -> Iterator[Measurement]:
        """Measure each workload; files that it needs are created first, untimed.

        Raises:
            EnvironmentProblemError: the mount fails a work.
        """
        missing = [work for work in WORKS if work.writes and self._is_missing(work, works)]
        for work in WORKS:
            if work in missing:
                self._measure(work)
            elif work in works:
                yield self._measure(work)

    def _is_missing(self, work: Work, works: Sequence[Work]) -> bool:
        if work in works:
            return False
        there = self._material.small if work.needs_small else self._material.file
        return not there.exists() and any(one.needs_small == work.needs_small for one in works)

    def _measure(self, work: Work) -> Measurement:
        material = self._material
        stayed: int | None = 0
        with _explained(f"{work.title} failed"):
            if work.needs_small and not work.writes and self._daemon is not None:
                self._daemon.forget_names(material.small.name)
            elif not work.needs_small and not work.writes:
                stayed = self._cool_down()
        meter = Meter(self._shown.begin(work.title, work.total(material)))
        before = self._spending()
        began = time.perf_counter()
        with _explained(f"{work.title} failed"):
            told = work.run(material, meter)
        seconds = time.perf_counter() - began if told is None else told
        after = self._spending()
        return Measurement(
            work,
            seconds,
            work.moved_bytes(material),
            None if work.counts_bytes else meter.done,
            after - before if before is not None and after is not None else None,
            stayed,
        )

    def _spending(self) -> Spending | None:
        return self._daemon.spending() if self._daemon is not None else None

    def _cool_down(self) -> int | None:
        """Let mount and kernel forget the file's bytes; how many the kernel has kept."""
        self._shown.begin("waiting until the mount has dropped the file", None)
        time.sleep(self._let_go_seconds)
        with self._material.file.open("rb", buffering=0) as file:
            drop_pages(file.fileno())
            return resident_bytes(file.fileno())


@contextlib.contextmanager
def _explained(what: str, hint: str = "") -> Iterator[None]:
    """Turn what the system says into the end of a sentence."""
    try:
        yield
    except OSError as exc:
        if is_disk_full(exc):
            hint = "a smaller --size may fit"
        told = f"{what}: {exc.strerror}{f' ({hint})' if hint else ''}"
        raise EnvironmentProblemError(told) from exc

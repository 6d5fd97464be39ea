"""How long a daemon holds the interpreter's lock, seen from outside; CPython 3.11 only.

``python -m tests.bench.lockmeter LIBRARY FILE ARGUMENT…`` runs ``ossfs-py ARGUMENT…`` with the
meter in it, which adds up in ``FILE`` (see ``lockmeter.c``).
"""

import importlib.util
import math
import runpy
import struct
import subprocess
import sys
import sysconfig
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import NamedTuple

SUPPORTED = sys.implementation.name == "cpython" and sys.version_info[:2] == (3, 11)
_SEEN = struct.Struct("=6d")
_SOURCE = Path(__file__).with_suffix(".c")


def build(directory: Path) -> Path | None:
    """The meter, compiled into ``directory``; None where this interpreter is another one, or where
    gcc or Python's headers are missing."""
    if not SUPPORTED:
        return None
    library = directory / "lockmeter.so"
    include = sysconfig.get_path("include")
    command = ["gcc", "-O2", "-shared", "-fPIC", f"-I{include}", "-o", library, _SOURCE]
    try:
        done = subprocess.run([*command, "-lpthread"], check=False, capture_output=True)
    except FileNotFoundError:
        return None
    return library if done.returncode == 0 else None


def command(library: Path, seen: Path) -> list[str]:
    """What to run instead of ``python -m ossfs_py``."""
    return [sys.executable, "-m", __spec__.name, str(library), str(seen)]


class Seen(NamedTuple):
    """What the meter has seen so far, or between two such moments. The last three are numbers of
    looks that found the lock taken."""

    watched_seconds: float
    held_seconds: float
    """Wall time with the lock taken."""
    runs: float
    """Its holder was on a processor."""
    waits: float
    """Its holder waited for a processor, which another thread had."""
    sleeps: float
    """Its holder slept in the kernel."""

    def __sub__(self, before: "Seen") -> "Seen":
        return Seen(*(late - early for late, early in zip(self, before, strict=True)))

    @property
    def used_seconds(self) -> float:
        """Time with the lock taken without what its holder waited for a processor: what would be
        left on a machine with enough of them. NaN if the meter could not tell."""
        looks = self.runs + self.waits + self.sleeps
        if not looks:
            return math.nan if self.held_seconds else 0.0
        return self.held_seconds * (self.runs + self.sleeps) / looks


def seen(file: Path) -> Seen:
    """Since the daemon's start."""
    watchers = list(_SEEN.iter_unpack(file.read_bytes()))
    watched, held, *looks, _ = map(sum, zip(*watchers, strict=True))
    return Seen(watched / len(watchers), held / len(watchers), *looks)


def is_prompt(file: Path) -> bool:
    """Whether the meter has real-time priority: otherwise it looks when the scheduler lets it."""
    return all(watcher[-1] for watcher in _SEEN.iter_unpack(file.read_bytes()))


def start(library: str, seen: str) -> None:
    """Begin to watch this process."""
    loader = ExtensionFileLoader("lockmeter", library)
    spec = importlib.util.spec_from_file_location("lockmeter", library, loader=loader)
    if spec is None:
        raise RuntimeError(f"{library} is no module")
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    module.start(seen)


if __name__ == "__main__":
    start(*sys.argv[1:3])
    sys.argv[1:] = sys.argv[3:]
    runpy.run_module("ossfs_py", run_name="__main__", alter_sys=True)

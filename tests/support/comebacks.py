"""kill -9 of a daemon under programs that use its mount, and how long it is away.

``OSSFS_PY_COMEBACKS`` says how often each kind of mount is killed (``make comebacks``).
"""

import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.mounting import READY_SECONDS, is_mounted

KILLS = int(os.environ.get("OSSFS_PY_COMEBACKS", "2"))
_UP_SECONDS = 2.0
WORKS = {
    "looking": "import os, sys\nwhile True:\n os.stat('d/f'); os.listdir('.')",
    "reading": "f = open('d/f', 'rb')\nwhile True:\n f.seek(0); f.read()",
    "writing": "n = 0\nwhile True:\n open(f'd/w{n}', 'w').write('x'); n += 1",
}
TTLS = ("0", "60s", "1h")
_PROGRAMS = 2


def rounds(kills: int = KILLS) -> list[tuple[str, str]]:
    """(work, TTL) of each kill: all pairs of them in turn."""
    return list(itertools.islice(itertools.cycle(itertools.product(WORKS, TTLS)), kills))


@contextlib.contextmanager
def programs(work: str, directory: Path, wrapper: Sequence[str] = ()) -> Iterator[None]:
    """Two that go on until the mount dies under them."""
    command = [*wrapper, sys.executable, "-c", WORKS[work]]
    running = [
        subprocess.Popen(command, cwd=None if wrapper else directory, stderr=subprocess.DEVNULL)
        for _ in range(_PROGRAMS)
    ]
    try:
        time.sleep(0.2)  # let them be in the middle of it; nothing depends on how far they are
        yield
    finally:
        for program in running:
            program.kill()
        for program in running:
            program.wait(60)


def most_seconds(first: float) -> float:
    """How long the fastest comeback may take where the first start took ``first`` seconds.

    Beside programs it takes longer than that start did, 8 s and more at a load of 27.
    """
    return 3 * first + _UP_SECONDS


def wait_until_served(path: Path) -> None:
    """Until a daemon answers for what is mounted there."""
    deadline = time.monotonic() + READY_SECONDS
    while not _is_served(path):
        assert time.monotonic() < deadline, f"nothing comes back at {path}"


def _is_served(path: Path) -> bool:
    try:
        os.statvfs(path)
    except OSError:
        return False  # the mount of a dead daemon
    return is_mounted(path)


def report(kind: str, took: Sequence[float]) -> None:
    """The figures, for a person who runs it with ``-s``."""
    print(  # noqa: T201 - for who runs it with -s
        f"\n{kind}: {len(took)} kills, up again after {min(took):.2f} s (best),"
        f" {statistics.median(took):.2f} s (median), {max(took):.2f} s (worst);"
        f" load {os.getloadavg()[0]:.1f}"
    )

"""Programs that go on while the daemon under them dies or is upgraded, and what they must not see.

``OSSFS_PY_SOAK_RESTARTS`` says how often, ``OSSFS_PY_SOAK_SEED`` at which moments. How long calls
were held up is printed (``pytest -s``), with the load of the machine.
"""

import errno
import json
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from minio.error import S3Error

from tests.support.commands import ossfs
from tests.support.holding import wait_for
from tests.support.kept import KEPT, daemon_of
from tests.support.mounting import END_SECONDS, Mount

MIB = 1024**2
RESTARTS = int(os.environ.get("OSSFS_PY_SOAK_RESTARTS", "1"))
SEED = int(os.environ.get("OSSFS_PY_SOAK_SEED", "1"))
SECONDS_PER_RESTART = 90
LONGEST_LIFE_SECONDS = 1.5
SERVING_SHARE = 0.8
DEATHS, UPGRADES = "deaths", "upgrades"
"""How daemons end; also what to name for ``pytest -k``."""

Work = Callable[[random.Random], Iterator[None]]
_FAILURES = (OSError, sqlite3.Error, subprocess.CalledProcessError, S3Error)


class WrongError(Exception):
    """What a program must not see."""


class Programs:
    """Threads that use a mount until they are told to stop, and what went wrong in them.

    A work yields after each of its rounds. With ``begin_anew`` a work that is told EIO is told no
    wrong: it is counted, and begins again with what that returns.
    """

    def __init__(
        self, works: dict[str, Work], begin_anew: Callable[[str], Work] | None = None
    ) -> None:
        self._stop = threading.Event()
        self._works = works
        self._begin_anew = begin_anew
        self.wrong: list[str] = []
        self.held_up: list[float] = []
        """Seconds of each call that :meth:`timed` saw."""
        self.rounds = dict.fromkeys(works, 0)
        self.refused = dict.fromkeys(works, 0)
        self._threads = [
            threading.Thread(target=self._go_on, args=(name, random.Random(f"{SEED} {name}")))
            for name in works
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * END_SECONDS)
            assert not thread.is_alive(), "a program hangs"

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Of what the block does, the pause is to be told."""
        began = time.monotonic()
        yield
        self.held_up.append(time.monotonic() - began)

    def _go_on(self, name: str, rng: random.Random) -> None:
        work = self._works[name]
        while True:
            try:
                for _ in work(rng):
                    self.rounds[name] += 1
                    if self._stop.is_set():
                        return
            except (*_FAILURES, WrongError) as exc:
                if self._begin_anew is None or not _is_told_eio(exc):
                    self._note(name, exc)
                    return
                self.refused[name] += 1
                work = self._begin_anew(name)

    def _note(self, name: str, exc: Exception) -> None:
        told = getattr(exc, "stderr", None) or ""
        here = str(Path(__file__).parent)
        where = [
            each
            for each in traceback.extract_tb(exc.__traceback__)
            if each.filename.startswith(here)
        ][-1]
        self.wrong.append(
            f"{time.strftime('%H:%M:%S')} {name} after {self.rounds[name]} rounds:"
            f" {exc!r} at {where.line} {told}"
        )

    def print_outcome(self, what: str) -> None:
        """How often, and for how long calls were held up: as many as there were ends."""
        longest = sorted(self.held_up)[-RESTARTS:]
        print(  # noqa: T201
            f"{RESTARTS} {what}, {self.rounds}"
            + (f", EIO {self.refused}" if any(self.refused.values()) else "")
            + f"; held up: median {statistics.median(longest):.2f} s, longest {longest[-1]:.2f} s"
            f" (load {os.getloadavg()[0]:.0f})"
        )


def _is_told_eio(exc: Exception) -> bool:
    match exc:
        case OSError():
            return exc.errno == errno.EIO
        case sqlite3.OperationalError():
            return "disk I/O error" in str(exc)
        case subprocess.CalledProcessError():
            return "Input/output error" in exc.stderr
    return False


def end_daemons(one: Mount, programs: Programs, ends: str, *, serves_first: bool = False) -> None:
    """Kill, or upgrade, the daemon of a mount so many times, until a program sees something wrong;
    another one serves it then. ``serves_first``: most daemons do not end before a call that
    :meth:`Programs.timed` sees has returned. Changes wait for seconds after each death.
    """
    rng = random.Random(SEED)
    for number in range(RESTARTS):
        wait_for(lambda: one.log.count(KEPT) > number)  # noqa: B023 - called at once
        known = len(programs.held_up)
        if serves_first and rng.random() < SERVING_SHARE:
            wait_for(lambda: len(programs.held_up) > known or bool(programs.wrong))  # noqa: B023
        time.sleep(rng.random() * LONGEST_LIFE_SECONDS)
        daemon = daemon_of(one.path)
        if ends == UPGRADES:
            outcome = ossfs("upgrade", one.path, environment={})
            assert outcome.code == 0, outcome.err
        else:
            os.kill(daemon, signal.SIGKILL)
        if programs.wrong:
            return
    wait_for(lambda: one.log.count(KEPT) > RESTARTS)


def is_there(path: Path) -> bool:
    """Whether a name is there: ENOENT alone says that it is not."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def safetensors_head(sizes: dict[str, int]) -> bytes:
    """What a file of byte tensors begins with."""
    header, start = {}, 0
    for name, size in sizes.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text

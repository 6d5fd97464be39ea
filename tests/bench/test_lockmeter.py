"""The meter tells a thread that computes from one that waits, for the lock or for a processor."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import lockmeter

_WATCHED = """
import sys, time
from pathlib import Path
from tests.bench import lockmeter
file = Path(sys.argv[2])
lockmeter.start(sys.argv[1], sys.argv[2])
def seen(seconds, wait):
    before = lockmeter.seen(file)
    end = time.thread_time() + seconds
    if wait:
        time.sleep(seconds)
    else:
        while time.thread_time() < end:
            pass
    told = lockmeter.seen(file) - before
    return told.held_seconds, told.used_seconds
print(*seen(0.3, False), *seen(0.3, True), lockmeter.is_prompt(file))
"""


def _seen(directory: Path) -> list[str] | None:
    """Seconds with the lock held and used by a thread that computes for 0.3 s, and by one that
    waits for 0.3 s, and whether the meter has real-time priority."""
    library = lockmeter.build(directory)
    assert (library is not None) == lockmeter.SUPPORTED, "gcc and Python's headers are missing"
    if library is None:
        return None  # the lock of other Pythons lies elsewhere: there is no meter
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED, library, directory / "seen"],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.split()


@contextlib.contextmanager
def _busy_processors() -> Iterator[None]:
    """Two programs compute for each processor."""
    programs = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(2 * len(os.sched_getaffinity(0)))
    ]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def test_computing_holds_the_lock_and_waiting_does_not(tmp_path: Path) -> None:
    if (told := _seen(tmp_path)) is None:
        return
    computing, _, waiting, *_ = told
    # Wall time: a busy machine lets the meter itself wait, too, so neither is exact.
    assert float(computing) > 0.15
    assert float(waiting) < float(computing)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the meter takes the one processor")
def test_waiting_for_a_processor_does_not_count_as_use_of_the_lock(tmp_path: Path) -> None:
    with _busy_processors():
        told = _seen(tmp_path)
    if told is None or told[-1] != "True":
        return  # without real-time priority, looks come when the programs beside let them
    held, used = map(float, told[:2])
    assert held > 0.3 * 1.5, "it had a processor for a third of the time"
    assert 0.3 * 0.6 < used < 0.3 * 1.5

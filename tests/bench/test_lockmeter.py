"""The meter tells a thread that computes from one that waits."""

import subprocess
import sys
from pathlib import Path

from tests.bench import lockmeter

_WATCHED = """
import sys, time
from pathlib import Path
from tests.bench import lockmeter
lockmeter.start(sys.argv[1], sys.argv[2])
def held(seconds, wait):
    before = lockmeter.held_seconds(Path(sys.argv[2]))
    end = time.thread_time() + seconds
    if wait:
        time.sleep(seconds)
    else:
        while time.thread_time() < end:
            pass
    return lockmeter.held_seconds(Path(sys.argv[2])) - before
print(held(0.3, False), held(0.3, True))
"""


def test_computing_holds_the_lock_and_waiting_does_not(tmp_path: Path) -> None:
    library = lockmeter.build(tmp_path)
    assert (library is not None) == lockmeter.SUPPORTED, "gcc and Python's headers are missing"
    if library is None:
        return  # the lock of other Pythons lies elsewhere: there is no meter, and nobody guesses
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED, library, tmp_path / "seen"],
        check=True,
        capture_output=True,
        text=True,
    )
    computing, waiting = map(float, done.stdout.split())
    # Wall time: a busy machine lets the meter itself wait, too, so neither is exact.
    assert computing > 0.15
    assert waiting < computing

"""How the threads of the daemon share Python's lock, and when Python looks for garbage."""

import gc
import sys
from typing import Final

SWITCH_SECONDS: Final = 0.001
"""For how long a thread that computes may keep the lock from one that asks for it.

Each answer to the kernel asks for it at least twice, and Python's own 5 ms are long beside an
answer. Measured on two cores under load (Linux 6.18, CPython 3.11): four readers of four files,
1 GiB, with one thread that computes without a break: 9.5 s and 5.6 CPU-s with 5 ms, 3.9 s and 3.0
with 1 ms, 4.3 and 3.7 s with 0.5 and 0.2 ms. Without such a thread all four were the same
(1.6-1.7 CPU-s); stat beside those readers took at most 78 ms in 99 of 100 cases instead of 274.
"""


def share_fairly() -> None:
    """Let a thread that waits for the lock have it soon; holds for the whole process."""
    sys.setswitchinterval(SWITCH_SECONDS)


COLLECT_AFTER: Final = 5_000
"""New objects after which Python looks for garbage that refers to itself.

With Python's own 700 it looks at the objects of each open file again and again: 104 and 134 us of
CPU for reading a file of 100 KB whose bytes are there, 89 and 91 with 5,000, 94 and 113
with 10,000. Buffers do not wait for it: they are given back when a file is closed.
"""


def collect_rarely() -> None:
    """Look for garbage less often; holds for the whole process."""
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])

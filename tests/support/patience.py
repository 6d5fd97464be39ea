"""Waiting for what happens soon, as nobody tells when."""

import time
from collections.abc import Callable

PATIENCE_SECONDS = 60.0
"""A busy machine may take its time; whoever takes longer hangs."""
_LOOK_AGAIN_SECONDS = 0.01


def wait_until(holds: Callable[[], bool]) -> None:
    """Until it is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(_LOOK_AGAIN_SECONDS)

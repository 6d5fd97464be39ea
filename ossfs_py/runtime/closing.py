"""Closing files without a name: the kernel truncates them then, and the caller waits for that."""

import os
import threading
from collections.abc import Callable

_LARGE_BYTES = 32 * 1024**2
"""Takes 10 ms to truncate: a thread costs a hundredth of that."""
_BYTES_OF_A_BLOCK = 512
"""The unit of st_blocks (inode(7))."""


def close_behind(descriptor: int, close: Callable[[], None]) -> None:
    """Call ``close`` for a file, on a thread if its end is near and takes long.

    On the trio thread every program would wait: a temporary file of 6 GiB took 2.0 s to close. If
    the process ends before, the kernel closes it.
    """
    info = os.fstat(descriptor)
    if not info.st_nlink and info.st_blocks * _BYTES_OF_A_BLOCK >= _LARGE_BYTES:
        thread = threading.Thread(target=close, name="file-closer", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no room for another thread
            close()
    else:
        close()

"""``python -m ossfs_py.bench.touch <FILE``: map the file at standard input and touch every page.

Writes one line for each step, the bytes touched so far, and at last ``in SECONDS``: the time
without that of starting Python.
"""

import mmap
import sys
import time

STEP_BYTES = 8 * 1024**2


def main() -> None:
    """Touch the pages in order, as a loader does that copies tensor after tensor."""
    began = time.perf_counter()
    with mmap.mmap(sys.stdin.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        for start in range(0, len(mapped), STEP_BYTES):
            end = min(start + STEP_BYTES, len(mapped))
            len(mapped[start : end : mmap.PAGESIZE])  # copies one byte of each page
            sys.stdout.write(f"{end}\n")
            sys.stdout.flush()
    sys.stdout.write(f"in {time.perf_counter() - began}\n")


if __name__ == "__main__":
    main()

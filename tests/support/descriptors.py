"""What this process has open."""

import contextlib
from pathlib import Path

_OPEN = Path("/proc/self/fd")


def open_below(directory: Path) -> list[str]:
    """What descriptors of this process are open on below ``directory``; files without a name too.

    Only those are looked at, as a count of all would change with what other tests have left and
    Python collects at any moment.
    """
    paths = []
    for descriptor in _OPEN.iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor of this listing
            paths.append(str(descriptor.readlink()))
    return [path for path in paths if path.startswith(f"{directory}/")]

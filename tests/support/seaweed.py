"""The embedded S3 server as the tests use it."""

import urllib.request
from pathlib import Path

from ossfs_py.demo.server import REGION, Account, SeaweedServer

__all__ = [
    "OUTSIDER",
    "OUTSIDER_BUCKET",
    "REGION",
    "Account",
    "SeaweedServer",
    "give_back_space",
]

OUTSIDER = "outsider"
"""Name of the identity that may use one bucket only."""
OUTSIDER_BUCKET = "outsiders-own"

_GARBAGE_SHARE = 0.3
_VACUUM_SECONDS = 300


def give_back_space(server: SeaweedServer) -> None:
    """Free the disk space of what was overwritten or deleted; the server keeps it otherwise."""
    words = Path(f"/proc/{server.pid}/cmdline").read_text().split("\0")
    port = next(word.partition("=")[2] for word in words if word.startswith("-master.port="))
    vacuum = f"http://127.0.0.1:{port}/vol/vacuum?garbageThreshold={_GARBAGE_SHARE}"
    with urllib.request.urlopen(vacuum, timeout=_VACUUM_SECONDS) as answer:
        answer.read()

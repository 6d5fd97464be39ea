"""``rclone serve s3`` over a local directory."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.servers.launching import (
    ACCESS_KEY,
    SECRET_KEY,
    Running,
    free_ports,
    listening,
    output_of,
    program,
    wait_until,
)


@contextlib.contextmanager
def run(home: Path) -> Iterator[Running]:
    """A server whose buckets are the directories below ``home/data``."""
    rclone = Path(sys.executable).with_name("rclone")
    (port,) = free_ports(1)
    (home / "data").mkdir()
    command = [rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--config", "/dev/null"]
    command += ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--vfs-cache-mode", "full"]
    # After 5 s it would begin to move what was written from its cache to the directory, and hang
    # for ever, every so often, when that is deleted meanwhile.
    command += ["--vfs-write-back", "24h", "--cache-dir", home / "cache", home / "data"]
    log = home / "rclone.log"
    with program(command, log) as process:
        wait_until(lambda: listening(port), "rclone", log, process)
        version = output_of(rclone, "version").split()[1].removeprefix("v")
        yield Running(f"http://127.0.0.1:{port}", f"rclone {version} (serve s3)")

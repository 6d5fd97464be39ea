"""moto's server: everything in its memory."""

import contextlib
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.servers.launching import Running, free_ports, listening, program, wait_until


@contextlib.contextmanager
def run(home: Path) -> Iterator[Running]:
    """A server in a process of its own."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    log = home / "moto.log"
    with program(command, log) as process:
        wait_until(lambda: listening(port), "moto", log, process)
        yield Running(f"http://127.0.0.1:{port}", f"moto {importlib.metadata.version('moto')}")

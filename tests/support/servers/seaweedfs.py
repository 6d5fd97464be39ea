"""SeaweedFS as the demonstration embeds it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ossfs_py.demo.server import SeaweedServer, _find_weed
from tests.support.servers.launching import Running, output_of


@contextlib.contextmanager
def run(home: Path) -> Iterator[Running]:
    """A server with its data below ``home``."""
    with SeaweedServer(directory=home) as server:
        version = output_of(_find_weed(), "version").split()[2]
        yield Running(server.endpoint, f"SeaweedFS {version}", server.access_key, server.secret_key)

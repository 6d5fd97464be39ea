"""The stores to measure against: a program given by path, ours or another, or SeaweedFS behind our
proxy."""

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlencode

from ossfs_py.demo.server import SeaweedServer

START_SECONDS = 30.0


@dataclass(frozen=True)
class Store:
    """An endpoint that counts what it serves."""

    name: str
    endpoint: str
    access_key: str
    secret_key: str
    root: Path | None = None
    """Where each file is an object, its name the percent-encoded key; None where none is."""

    def reload(self) -> None:
        """Let the store see files that were put below its root."""
        self._ask("POST", "reload")

    def reset(self) -> None:
        """Start counting anew."""
        self._ask("POST")

    def stats(self) -> dict[str, object]:
        """Requests by operation (``ops``), body bytes (``bytes_out``, ``bytes_in``)."""
        return dict(json.loads(self._ask("GET")))

    def shape(self, **shape: float) -> None:
        """Change latency, bandwidth or shares of failing requests; only of the program."""
        self._ask("POST", "shape?" + urlencode(shape))

    def _ask(self, method: str, about: str = "stats") -> bytes:
        request = urllib.request.Request(f"{self.endpoint}/__{about}", method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read())


@contextlib.contextmanager
def shaped_program(program: Path, root: Path, ttfb_ms: float, mbps: float) -> Iterator[Store]:
    """A store that is a program of its own and does the shaping itself."""
    with _program([str(program)], program.stem, root, ttfb_ms, mbps) as store:
        yield store


@contextlib.contextmanager
def cloud_store(root: Path, ttfb_ms: float, mbps: float) -> Iterator[Store]:
    """Our own imitation of a cloud, in a process of its own."""
    module = ["-m", "tests.support.cloud_store"]
    with _program(module, "cloud_store", root, ttfb_ms, mbps) as store:
        yield replace(store, root=root)


@contextlib.contextmanager
def _program(
    program: list[str], name: str, root: Path, ttfb_ms: float, mbps: float
) -> Iterator[Store]:
    root.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, *program, "--root", str(root)]
    with _running([*command, *_options(port, ttfb_ms, mbps)]):
        yield _answering(Store(name, f"http://127.0.0.1:{port}", "any", "thing"))


@contextlib.contextmanager
def shaped_seaweed(scratch: Path, ttfb_ms: float, mbps: float) -> Iterator[Store]:
    """SeaweedFS behind the counting proxy, which does the shaping."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with SeaweedServer(directory=scratch) as server:
        command = [sys.executable, "-m", "tests.support.proxy", "--upstream", server.host]
        with _running([*command, *_options(port, ttfb_ms, mbps)]):
            endpoint = f"http://127.0.0.1:{port}"
            yield _answering(Store("seaweedfs", endpoint, server.access_key, server.secret_key))


def _options(port: int, ttfb_ms: float, mbps: float) -> list[str]:
    return ["--port", str(port), "--ttfb-ms", str(ttfb_ms), "--mbps", str(mbps)]


@contextlib.contextmanager
def _running(command: list[str]) -> Iterator[None]:
    # Should the benchmark be killed, the kernel ends the store.
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *command],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _answering(store: Store) -> Store:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            store.reset()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return store

"""A process that loads models, and a store with a cloud's latency that counts what it is asked."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Self

START_SECONDS = 30
QUIET_LOOKS = 5
"""Looks, one after the other, at which no request is under way: what is read ahead follows at once.
"""
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "any",
    "AWS_SECRET_ACCESS_KEY": "thing",
    "AWS_DEFAULT_REGION": "us-east-1",
}
BUCKET = "models"


class Loading:
    """A process that loads what it is told to, with its libraries imported once."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.loaders"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def digest(self, how: str, directory: Path) -> str:
        """Of all that was loaded."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([how, str(directory)]) + "\n")
        self._process.stdin.flush()
        return str(json.loads(self._process.stdout.readline())["digest"])

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


class Shaped:
    """The store, in a process of its own."""

    def __init__(self, endpoint: str, bucket: Path, loading: Loading) -> None:
        self.loading = loading
        self.endpoint = endpoint
        self.bucket = bucket
        self._digests: dict[str, str] = {}

    def ask(self, method: str, what: str = "stats") -> dict[str, object]:
        request = urllib.request.Request(f"{self.endpoint}/__{what}", method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.loads(answer.read()))

    def counted(self) -> dict[str, object]:
        """What was served, once nothing is under way any more: reading ahead included."""
        end = time.monotonic() + START_SECONDS
        quiet = 0
        while quiet < QUIET_LOOKS:
            said = self.ask("GET")
            quiet = 0 if said["running"] else quiet + 1
            assert time.monotonic() < end
            time.sleep(0.02)
        return said

    def digest(self, how: str) -> str:
        """What a loader makes of the files themselves."""
        if how not in self._digests:
            self._digests[how] = self.loading.digest(how, self.bucket)
        return self._digests[how]

    def under(self, name: str) -> None:
        """The model once more, under keys that nobody has read."""
        (self.bucket / name).mkdir()
        for path in [path for path in self.bucket.iterdir() if path.is_file()]:
            os.link(path, self.bucket / name / path.name)

    @classmethod
    @contextlib.contextmanager
    def serving(cls, root: Path, ttfb_ms: float, mbps: float) -> Iterator[Self]:
        """The files of ``root / BUCKET``."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        options = ["--root", str(root), "--port", str(port)]
        options += ["--ttfb-ms", str(ttfb_ms), "--mbps", str(mbps)]
        command = [sys.executable, "-m", "tests.support.shaped_store", *options]
        with subprocess.Popen(command) as server:
            store = cls(f"http://127.0.0.1:{port}", root / BUCKET, Loading())
            try:
                end = time.monotonic() + START_SECONDS
                while True:
                    with contextlib.suppress(OSError):
                        store.ask("POST")
                        break
                    assert time.monotonic() < end
                    time.sleep(0.05)
                yield store
            finally:
                store.loading.end()
                server.kill()

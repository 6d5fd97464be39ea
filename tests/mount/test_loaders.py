"""Real loaders get every byte from a store with a cloud's latency, in few requests.

Seconds are for ``make loaders``; here it is counted what the store was asked for.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.loaders import LOADERS, MIB, make_model
from tests.support.mounting import DATA_PATHS, Mount
from tests.support.requirements import require_torch

TTFB_MS, MBPS = 25, 90
START_SECONDS = 30
SCALE = MIB // 2
"""Files of 62 MiB, tensors of up to 14 MiB."""
LAYERS = 1


@dataclass(frozen=True)
class Bounds:
    """``requests`` for the file, blocks of 8 MiB would be 8; bytes fetched, what the kernel asks
    for beside included, as a ``share`` of it.
    """

    requests: int
    share: float


BOUNDS = {
    "load_file": Bounds(45, 1.01),
    "load_file, pread": Bounds(60, 1.01),
    "safe_open": Bounds(60, 1.01),
    "safe_open, shuffled": Bounds(90, 1.01),
    "safe_open, numpy": Bounds(90, 1.01),
    "one rank of two": Bounds(80, 1.01),
    "two ranks at once": Bounds(70, 1.01),
    "four ranks at once": Bounds(80, 1.01),
    "8 shards, 4 processes": Bounds(160, 1.02),
    "many small tensors": Bounds(80, 1.01),
    "torch.load": Bounds(60, 1.01),
    "torch.load, mapped": Bounds(60, 1.01),
    "numpy memmap": Bounds(70, 1.01),
    "numpy npz": Bounds(85, 1.01),
    "8 threads of 16 MiB": Bounds(90, 1.01),
    "headers only": Bounds(8 + 4, 0.2),
}


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

    def ask(self, method: str) -> dict[str, object]:
        request = urllib.request.Request(f"{self.endpoint}/__stats", method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return dict(json.loads(answer.read()))

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


@pytest.fixture(scope="module")
def shaped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shaped]:
    root = tmp_path_factory.mktemp("shaped")
    (root / "models").mkdir()
    make_model(root / "models", LAYERS, scale=SCALE)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = ["--root", str(root), "--port", str(port)]
    options += ["--ttfb-ms", str(TTFB_MS), "--mbps", str(MBPS)]
    with subprocess.Popen([sys.executable, "-m", "tests.support.shaped_store", *options]) as server:
        store = Shaped(f"http://127.0.0.1:{port}", root / "models", Loading())
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


@pytest.fixture(scope="module", params=DATA_PATHS)
def mounted(
    request: pytest.FixtureRequest, shaped: Shaped, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mount]:
    environment = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "thing"}
    with Mount(
        "models",
        tmp_path_factory.mktemp(str(request.param)),
        endpoint=shaped.endpoint,
        environment={**environment, "AWS_DEFAULT_REGION": "us-east-1"},
        data_path=request.param,
        read_only=True,
        metadata_ttl=0,
    ) as one:
        yield one
        assert one.unmount() == 0, one.log
    assert "Traceback" not in one.log, one.log


@pytest.mark.parametrize("how", BOUNDS)
def test_a_loader_gets_every_byte_in_few_requests(how: str, shaped: Shaped, mounted: Mount) -> None:
    loader = LOADERS[how]
    if "torch" in loader.needs:
        require_torch()
    name = f"{mounted.options['data_path']}-{'-'.join(re.findall('[a-z0-9]+', how))}"
    shaped.under(name)
    path = shaped.bucket / name / loader.file
    shards = path.glob("shard-*")
    size = path.stat().st_size if path.is_file() else sum(one.stat().st_size for one in shards)
    shaped.ask("POST")
    digest = shaped.loading.digest(how, mounted.path / name)
    said = shaped.ask("GET")
    requests = dict(said["ops"])["get"]  # type: ignore[call-overload]
    fetched = int(str(said["bytes_out"]))
    assert digest == shaped.digest(how)
    assert requests <= BOUNDS[how].requests, f"{fetched / MIB:.1f} MiB"
    assert fetched <= BOUNDS[how].share * size, f"{requests} requests"

"""A booted machine with ossfs-py installed, and a store in front of which faults can be put."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.booted import Booted, CannotBootError, booted
from tests.support.proxy import Proxy
from tests.support.seaweed import SeaweedServer

INSTALL = Path(__file__).parents[2] / "systemd/install"


@pytest.fixture(scope="package")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """One machine for all tests of the package, ossfs-py installed."""
    with contextlib.ExitStack() as stack:
        try:
            machine = stack.enter_context(booted(tmp_path_factory.mktemp("booted")))
        except CannotBootError as exc:
            pytest.skip(f"no systemd can be booted here: {exc}")
        machine.run("env", f"PYTHON={sys.executable}", INSTALL)
        machine.run("systemctl", "daemon-reload")
        yield machine


@pytest.fixture
def store(seaweed: SeaweedServer) -> Iterator[Proxy]:
    with Proxy(seaweed.host) as proxy:
        yield proxy

"""The store cannot be reached for a while: programs wait, or are told, and the mount goes on.

``OSSFS_PY_OUTAGE_SECONDS`` says for how long; retries last as long as they do by default.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from minio import Minio

from ossfs_py.control.client import ControlClient, mount_of
from ossfs_py.store.options import StoreOptions
from tests.conftest import MountFactory
from tests.support.mounting import Mount
from tests.support.places import MIB, Place, content_of
from tests.support.proxy import Proxy

T = TypeVar("T")

OUTAGE_SECONDS = float(os.environ.get("OSSFS_PY_OUTAGE_SECONDS", "1"))
PATIENCE_SECONDS = StoreOptions("any").retry_budget_seconds
POLL_SECONDS = 0.02
LIMIT_SECONDS = PATIENCE_SECONDS + 300 + 10 * OUTAGE_SECONDS
"""What takes longer hangs."""
SIZE = 48 * MIB
"""Larger than what is read ahead or kept back before anything is needed from the store."""


class Program(threading.Thread):
    """Reads one file and writes another, a MiB after the other, and tells how far it is."""

    def __init__(self, source: Path, target: Path, content: bytes) -> None:
        super().__init__(daemon=True)
        self.half_way = threading.Event()
        self.go_on = threading.Event()
        self.error: BaseException | None = None
        self._source = source
        self._target = target
        self._content = content

    def run(self) -> None:
        try:
            with self._source.open("rb", 0) as source, self._target.open("wb", 0) as target:
                for number in range(SIZE // MIB):
                    if number == SIZE // MIB // 2:
                        self.half_way.set()
                        self.go_on.wait(LIMIT_SECONDS)
                    piece = source.read(MIB)
                    assert piece == self._content[number * MIB : (number + 1) * MIB]
                    target.write(piece)
        except BaseException as exc:  # noqa: BLE001 - shown by the test
            self.error = exc


@contextmanager
def served(
    mount: MountFactory,
    proxy: Proxy,
    bucket: str,
    client: Minio,
    data_path: str,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Iterator[tuple[Mount, Place]]:
    mounted = mount(
        bucket,
        endpoint=proxy.endpoint,
        data_path=data_path,
        retry_budget=f"{patience_seconds}s",
        # Little enough that reading and writing depend on the store all the time.
        memory_limit="64MiB",
        block_size="1MiB",
    )
    place = Place(mounted.path, client, bucket, "source", random.Random(1))
    place.content = content_of(SIZE, 5)
    place.put("source", place.content)
    try:
        yield mounted, place
    finally:
        proxy.accept_again()


@pytest.mark.timeout(120 + 3 * LIMIT_SECONDS)
def test_programs_outlive_an_outage_without_an_error(
    proxy: Proxy, mount: MountFactory, bucket: str, minio_client: Minio, data_path: str
) -> None:
    with served(mount, proxy, bucket, minio_client, data_path) as (mounted, place):
        program = Program(mounted.path / "source", mounted.path / "target", place.content)
        program.start()
        assert program.half_way.wait(LIMIT_SECONDS)
        proxy.refuse_for(OUTAGE_SECONDS)
        program.go_on.set()
        program.join(LIMIT_SECONDS)
        assert not program.is_alive(), "the program hangs"
        assert program.error is None, f"{program.error!r}\n{mounted.log[-3000:]}"
        assert place.stored("target") == place.content


@pytest.mark.timeout(120 + 4 * LIMIT_SECONDS)
def test_an_outage_beyond_the_budget_is_told_and_the_mount_recovers(
    proxy: Proxy, mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    served_briefly = served(mount, proxy, bucket, minio_client, "temp", OUTAGE_SECONDS)
    with served_briefly as (mounted, place):
        target = os.open(mounted.path / "target", os.O_RDWR | os.O_CREAT, 0o644)
        source = os.open(mounted.path / "source", os.O_RDONLY)
        try:
            assert os.pread(source, 10, 0) == place.content[:10]
            assert os.write(target, b"dirty data") == 10
            proxy.refuse()
            with pytest.raises(OSError, match="Input/output error"):
                os.pread(source, 10, SIZE - 10)
            with pytest.raises(OSError, match="Input/output error"):
                os.fsync(target)
            with pytest.raises(OSError, match="Input/output error"):
                (mounted.path / "new name").stat()
            proxy.accept_again()
            last = until_it_works(lambda: os.pread(source, 10, SIZE - 10))
            assert last == place.content[-10:]
            until_it_works(lambda: os.fsync(target))
            assert place.stored("target") == b"dirty data"
        finally:
            proxy.accept_again()
            os.close(target)
            os.close(source)


def until_it_works(act: Callable[[], T]) -> T:
    """On a busy machine the first try after an outage may take longer than the short budget."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        try:
            return act()
        except OSError:
            if time.monotonic() > deadline:
                raise


def first_retry(mounted: Mount) -> dict[str, Any]:
    """The wait of whoever has been refused at least once."""
    deadline = time.monotonic() + LIMIT_SECONDS
    with ControlClient.of(mount_of(mounted.path)[0]) as client:
        while time.monotonic() < deadline:
            for wait in client.call("stats")["waiting"]:
                if wait["waits_for"].startswith("the next attempt"):
                    return dict(wait)
            time.sleep(POLL_SECONDS)
    raise AssertionError("nothing waits")


def test_what_the_mount_waits_for_can_be_asked_during_an_outage(
    proxy: Proxy, mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    with served(mount, proxy, bucket, minio_client, "direct") as (mounted, _):
        proxy.refuse()
        reader = threading.Thread(target=(mounted.path / "asked for").exists, daemon=True)
        reader.start()
        waiting = first_retry(mounted)
        assert waiting["operation"] in ("HeadObject", "ListObjectsV2")
        assert "asked for" in waiting["key"]
        assert "refuses connections" in waiting["waits_for"]
        assert waiting["attempt"] >= 1
        assert 0 <= waiting["seconds"] < LIMIT_SECONDS
        proxy.accept_again()
        reader.join(LIMIT_SECONDS)
        assert not reader.is_alive()

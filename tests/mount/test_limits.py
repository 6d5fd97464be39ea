"""Limits of bandwidth, as programs and the network see them."""

import os
import random
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.support.mounting import MountFailedError
from tests.support.seaweed import SeaweedServer

MIB = 1024**2
READERS = 8
SECONDS = 10.0
LIMIT = 100 * MIB


def read_until(path: Path, stop: threading.Event, counts: list[int], number: int) -> None:
    """Read once from the beginning to the end, or to where time is up."""
    buffer = bytearray(MIB)
    with path.open("rb", buffering=0) as file:
        while not stop.is_set() and (count := file.readinto(buffer)):
            counts[number] += count


@pytest.mark.alone
def test_a_download_limit_holds_over_ten_seconds_with_eight_readers(
    mount: MountFactory, bucket: str, seaweed: SeaweedServer, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    piece = random.Random(1).randbytes(16 * MIB)
    with source.open("wb") as file:
        for _ in range(14):  # what a reader gets of the limit in the time, and some more
            file.write(piece)
    for number in range(READERS):
        seaweed.put_file(bucket, f"model-{number}", source)
    mounted = mount(bucket, data_path="direct", download_limit="100MB")
    counts, stop = [0] * READERS, threading.Event()
    readers = [
        threading.Thread(
            target=read_until, args=(mounted.path / f"model-{number}", stop, counts, number)
        )
        for number in range(READERS)
    ]
    for reader in readers:
        reader.start()
    try:
        time.sleep(2.0)  # the windows of the readers open
        began, before = time.monotonic(), sum(counts)
        time.sleep(SECONDS)
        took, moved = time.monotonic() - began, sum(counts) - before
        assert all(reader.is_alive() for reader in readers), "there was too little to read"
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert moved / took == pytest.approx(LIMIT, rel=0.05)
    assert min(counts) > 0.5 * max(counts)


def test_what_passes_under_a_limit_is_whole(
    mount: MountFactory, bucket: str, data_path: str
) -> None:
    content = os.urandom(9 * MIB + 5)
    mounted = mount(bucket, data_path=data_path, download_limit="8MiB", upload_limit="8MiB")
    began = time.monotonic()
    (mounted.path / "model").write_bytes(content)
    with (mounted.path / "model").open("r+b") as file:
        file.seek(5)
        file.write(b"changed")
    assert time.monotonic() - began > len(content) / (8 * MIB) - 0.25
    expected = content[:5] + b"changed" + content[12:]
    assert mounted.unmount() == 0
    again = mount(bucket, data_path=data_path, download_limit="8MiB")
    began = time.monotonic()
    assert (again.path / "model").read_bytes() == expected
    assert time.monotonic() - began > len(content) / (8 * MIB) - 0.25


def test_an_address_of_another_machine_is_refused_at_once(mount: MountFactory, bucket: str) -> None:
    with pytest.raises(MountFailedError, match="--bind: no connection can come from"):
        mount(bucket, bind="192.0.2.7")


def test_a_mount_can_come_from_addresses_of_its_own(mount: MountFactory, bucket: str) -> None:
    mounted = mount(bucket, bind="127.0.0.2,127.0.0.3")
    (mounted.path / "a").write_bytes(b"content")
    assert (mounted.path / "a").read_bytes() == b"content"

"""Limits of bandwidth, as programs and the network see them."""

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.conftest import MountFactory
from tests.support.mounting import MountFailedError
from tests.support.seaweed import SeaweedServer

MIB = 1024**2
READERS = 8
SECONDS = 10.0
LIMIT = 100 * MIB
FILE_BYTES = 48 * MIB
FILES = 38
"""More than the limit lets through, even when each reader is in the middle of one at the end."""


def read_until(
    files: "SimpleQueue[Path]", stop: threading.Event, counts: list[int], of: int
) -> None:
    """Read one file after the other, to where time is up."""
    buffer = bytearray(MIB)
    while not stop.is_set():
        with files.get_nowait().open("rb", buffering=0) as file:
            while not stop.is_set() and (count := file.readinto(buffer)):
                counts[of] += count


@pytest.mark.alone
def test_a_download_limit_holds_over_ten_seconds_with_eight_readers(
    mount: MountFactory, bucket: str, seaweed: SeaweedServer, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(random.Random(1).randbytes(FILE_BYTES))
    with ThreadPoolExecutor(4) as uploads:
        for number in range(FILES):
            uploads.submit(seaweed.put_file, bucket, f"model-{number}", source)
    mounted = mount(bucket, data_path="direct", download_limit="100MB")
    files: SimpleQueue[Path] = SimpleQueue()
    for number in range(FILES):
        files.put(mounted.path / f"model-{number}")
    counts, stop = [0] * READERS, threading.Event()
    readers = [
        threading.Thread(target=read_until, args=(files, stop, counts, number))
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
    # Shares are as many as connections, of which a reader has more the longer it reads.
    assert min(counts) > 0.1 * max(counts)


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

"""What is only written leaves no pages behind, and whoever reads meanwhile sees all of it."""

import mmap
import os
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ossfs_py.bench.pages import resident_bytes
from tests.support.workplace import Workplace

MIB = 1024**2


def _resident(path: Path) -> int | None:
    fd = os.open(path, os.O_RDWR)
    try:
        return resident_bytes(fd)
    finally:
        os.close(fd)


def test_writing_fills_no_page_cache(place: Workplace) -> None:
    body = random.Random(1).randbytes(20 * MIB + 13)
    path = place.path / "checkpoint.pt"
    with path.open("wb") as out:
        out.write(body)
        out.flush()
        assert _resident(path) == 0
    assert place.stored("checkpoint.pt") == body
    assert path.read_bytes() == body


@pytest.mark.parametrize("sync", [os.O_SYNC, os.O_DSYNC], ids=["sync", "dsync"])
@pytest.mark.parametrize("access", [os.O_WRONLY, os.O_RDWR], ids=["write only", "read and write"])
def test_writes_that_sync_are_in_the_store_when_they_return(
    place: Workplace, access: int, sync: int
) -> None:
    fd = os.open(place.path / "log", access | sync | os.O_CREAT)
    try:
        os.write(fd, b"first")
        assert place.stored("log") == b"first"
        os.write(fd, b", second")
        assert place.stored("log") == b"first, second"
    finally:
        os.close(fd)


def test_every_way_of_writing_leaves_the_same_bytes(place: Workplace) -> None:
    rng = random.Random(5)
    body = rng.randbytes(3 * MIB + 77)
    local = place.local / "source"
    local.write_bytes(body)
    shutil.copyfile(local, place.path / "sendfile")
    place.run("cp", local, "copied")
    place.run("dd", f"if={local}", "of=by-blocks", "bs=12345", "status=none")
    with (place.path / "gathered").open("wb", buffering=0) as out:
        pieces = [body[start : start + 1001] for start in range(0, len(body), 1001)]
        written = 0
        for first in range(0, len(pieces), 500):
            written += os.writev(out.fileno(), pieces[first : first + 500])
        assert written == len(body)
    with (
        (place.path / "mapped").open("wb", buffering=0) as out,
        local.open("rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view,
    ):
        assert out.write(view) == len(body)
    for name in ("sendfile", "copied", "by-blocks", "gathered", "mapped"):
        assert place.stored(name) == body, name


def test_pages_of_what_was_there_before_are_not_read_as_what_was_written(place: Workplace) -> None:
    path = place.path / "model.bin"
    path.write_bytes(b"old" * MIB)
    assert path.read_bytes() == b"old" * MIB  # its pages are there now
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, b"NEW", 2 * MIB + 1)
        assert path.read_bytes()[2 * MIB + 1 : 2 * MIB + 4] == b"NEW"
    finally:
        os.close(fd)
    assert path.read_bytes()[2 * MIB + 1 : 2 * MIB + 4] == b"NEW"


@pytest.mark.parametrize("mapped", [False, True], ids=["read", "mapped"])
def test_a_reader_sees_every_write_as_soon_as_it_returns(place: Workplace, mapped: bool) -> None:
    size, rng = 3 * MIB, random.Random(2)
    path = place.path / "changing.safetensors"
    path.touch()
    writer = os.open(path, os.O_WRONLY)
    try:
        model = bytearray(rng.randbytes(size))
        assert os.pwrite(writer, model, 0) == size
        reader = os.open(path, os.O_RDONLY)
        view = mmap.mmap(reader, size, prot=mmap.PROT_READ) if mapped else None
        for _ in range(200):
            offset = rng.randrange(size)
            data = rng.randbytes(rng.randrange(1, 20_000))[: size - offset]
            os.pwrite(writer, data, offset)
            model[offset : offset + len(data)] = data
            start = max(0, offset - 5000)
            end = min(size, offset + len(data) + 5000)
            seen = view[start:end] if view is not None else os.pread(reader, end - start, start)
            assert seen == model[start:end]
        if view is not None:
            view.close()
        os.close(reader)
    finally:
        os.close(writer)
    assert place.stored("changing.safetensors") == model


_LOOK_ALL_THE_TIME = """
import mmap, os, sys
view = mmap.mmap(os.open(sys.argv[1], os.O_RDONLY), 0, prot=mmap.PROT_READ)
print("looking", flush=True)
while True:
    view[::4096]
"""


def test_pages_read_while_a_write_is_on_its_way_are_not_kept(place: Workplace) -> None:
    """The kernel drops its pages before a write; those read from then to its end are old, too."""
    size, rng = MIB // 8, random.Random(4)
    path = place.path / "watched.bin"
    path.touch()
    writer = os.open(path, os.O_WRONLY)
    os.pwrite(writer, bytes(size), 0)
    command = [sys.executable, "-c", _LOOK_ALL_THE_TIME, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as looking:
        try:
            assert looking.stdout is not None
            looking.stdout.readline()
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
                for _ in range(500):
                    data = rng.randbytes(size)
                    os.pwrite(writer, data, 0)
                    assert view[:] == data
        finally:
            looking.kill()
    os.close(writer)
    assert place.stored("watched.bin") == data


def test_whoever_follows_a_growing_file_reads_no_zeros(place: Workplace) -> None:
    """As tail -f does: pages that end in the middle must not be kept when the file grows."""
    path = place.path / "growing.bin"
    writer = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    ended = threading.Event()
    followed = bytearray()

    def follow() -> None:
        with path.open("rb", buffering=0) as source:
            while True:
                was_ended = ended.is_set()
                piece = source.read(64 * 1024)
                followed.extend(piece)
                if was_ended and not piece:
                    return

    written, rng = bytearray(), random.Random(3)
    follower = threading.Thread(target=follow)
    follower.start()
    try:
        for _ in range(500):
            piece = bytes(1 + byte % 255 for byte in rng.randbytes(rng.randrange(1, 9000)))
            assert os.write(writer, piece) == len(piece)
            written += piece
    finally:
        ended.set()
        follower.join()
        os.close(writer)
    assert followed == written
    assert place.stored("growing.bin") == written

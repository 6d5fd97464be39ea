"""The lane under programs and people that behave badly; each with it and with pyfuse3 alone."""

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.support.commands import as_root
from tests.support.mounting import Mount
from tests.support.proxy import Proxy
from tests.support.seaweed import SeaweedServer

MIB = 1024**2
SIZE = 12 * MIB + 4321
DATA = random.Random(11).randbytes(SIZE)
SECONDS = 60
READERS = 150
"""Processes that are killed while they read."""


@pytest.fixture(params=["auto", "off"])
def mounted(
    request: pytest.FixtureRequest,
    mount: MountFactory,
    seaweed: SeaweedServer,
    proxy: Proxy,
    bucket: str,
    tmp_path: Path,
) -> Mount:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    seaweed.put_file(bucket, "file", source)
    return mount(bucket, data_path="direct", endpoint=proxy.endpoint, fuse_lane=request.param)


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def reading(fd: int) -> Iterator[list[int]]:
    """Reads again and again in a thread; in the end it has ended, and holds the errno."""
    ends: list[int] = []
    is_over = threading.Event()

    def read() -> None:
        try:
            while not is_over.is_set():
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                for offset in range(0, SIZE, MIB):
                    os.pread(fd, MIB, offset)
        except OSError as exc:
            ends.append(exc.errno)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield ends
    finally:
        is_over.set()
        thread.join(timeout=SECONDS)
        assert not thread.is_alive()


def soon(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_connection_that_is_aborted_ends_readers_and_daemon(
    mounted: Mount, tmp_path: Path
) -> None:
    number = mounted.path.stat().st_dev
    control = tmp_path / "control"
    control.mkdir()
    as_root("mount", "-t", "fusectl", "none", control)
    try:
        # Without the lane the kernel tells of close(2), which nobody answers any more.
        with suppress(OSError), opened(mounted.path / "file") as fd, reading(fd) as ends:
            time.sleep(0.3)
            as_root("sh", "-c", f"echo 1 > {control}/{number}/abort")
            soon(lambda: bool(ends))
        assert ends[0] in (errno.ECONNABORTED, errno.ENOTCONN)
    finally:
        as_root("umount", control)
    mounted.wait()
    as_root("umount", "-l", mounted.path)


def test_a_mount_taken_out_of_sight_serves_who_has_a_file_open(mounted: Mount) -> None:
    with opened(mounted.path / "file") as fd, opened(mounted.path / "file") as another:
        with reading(another) as ends:
            as_root("umount", "-l", mounted.path)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            assert b"".join(os.pread(fd, MIB, at) for at in range(0, SIZE, MIB)) == DATA
        assert ends == []
    assert mounted.wait() == 0


def test_odd_direct_reads_get_their_bytes(mounted: Mount) -> None:
    dice = random.Random(5)
    with opened(mounted.path / "file", os.O_RDONLY | os.O_DIRECT) as fd:
        for _ in range(60):
            offset, size = dice.randrange(SIZE + 10), dice.randrange(1, 3 * MIB)
            assert os.pread(fd, size, offset) == DATA[offset : offset + size]


def test_killed_readers_leave_nothing_behind(mounted: Mount, proxy: Proxy) -> None:
    """They die in the middle of a READ, or of an OPEN, and nobody waits for the answer."""
    code = (
        "import os, sys\n"
        "while True:\n"
        "    fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)\n"
        f"    for at in range(0, {SIZE}, 65536): os.pread(fd, 65536, at)\n"
        "    os.close(fd)\n"
    )
    path = mounted.path / "file"
    dice = random.Random(7)
    running: list[subprocess.Popen[bytes]] = []
    for _ in range(READERS):
        running.append(subprocess.Popen([sys.executable, "-S", "-c", code, path]))
        if len(running) >= 8:
            time.sleep(dice.random() / 20)
            reader = running.pop(dice.randrange(len(running)))
            reader.send_signal(dice.choice([signal.SIGKILL, signal.SIGTERM]))
            assert reader.wait(timeout=SECONDS) < 0
    for reader in running:
        reader.kill()
        assert reader.wait(timeout=SECONDS) < 0
    assert path.read_bytes() == DATA
    assert mounted.unmount() == 0
    assert "ERROR" not in mounted.log


def test_a_storm_of_forgets_takes_nothing_from_those_who_use_the_names(mounted: Mount) -> None:
    """The kernel drops what it remembers of all names again and again, while programs look them up,
    list them and read."""
    names = [f"name-{number:03}" for number in range(200)]
    for name in names:
        (mounted.path / name).touch()
    number = (mounted.path / "file").stat().st_ino
    is_over = threading.Event()
    problems: list[BaseException] = []

    def look() -> None:
        try:
            while not is_over.is_set():
                assert {path.name for path in mounted.path.iterdir()} == {"file", *names}
                assert all((mounted.path / name).stat().st_size == 0 for name in names)
                assert (mounted.path / "file").read_bytes() == DATA
        except BaseException as exc:  # noqa: BLE001 - of a thread, raised below
            problems.append(exc)

    threads = [threading.Thread(target=look) for _ in range(3)]
    with opened(mounted.path / "file") as fd:
        for thread in threads:
            thread.start()
        for _ in range(40):
            as_root("sh", "-c", "echo 2 > /proc/sys/vm/drop_caches")
            assert os.pread(fd, 100, SIZE - 100) == DATA[-100:]
            time.sleep(0.02)
        is_over.set()
        for thread in threads:
            thread.join(timeout=SECONDS)
    assert not problems
    assert (mounted.path / "file").stat().st_ino == number
    assert mounted.unmount() == 0
    assert "more often than it was told" not in mounted.log
    assert "ERROR" not in mounted.log

"""Files that the kernel reads itself from the disk cache: who gets them, and what nobody is given.

A stopped daemon answers nobody: what is read then, the kernel reads by itself.
"""

import mmap
import os
import platform
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from ossfs_py.datapath.diskcache.layout import PLAIN_FROM_BYTES, PLAIN_SUFFIX
from ossfs_py.host.mountpoint import THIS_MACHINE
from ossfs_py.host.passthrough import why_not
from tests.conftest import MountFactory
from tests.support.commands import ossfs
from tests.support.mounting import Mount, wait_for_log
from tests.support.proxy import Proxy
from tests.support.seaweed import SeaweedServer

MIB = 1024**2
SIZE = PLAIN_FROM_BYTES + MIB + 12_345
KEY = "model.bin"
SECONDS = 60

WHY_NOT = why_not(THIS_MACHINE, platform.release(), os.geteuid())
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


def content(seed: str, size: int = SIZE) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture
def put(seaweed: SeaweedServer, bucket: str, tmp_path: Path) -> Callable[[str, bytes], None]:
    """``put(key, data)`` stores an object."""

    def store(key: str, data: bytes) -> None:
        source = tmp_path / "source"
        source.write_bytes(data)
        seaweed.put_file(bucket, key, source)
        source.unlink()

    return store


@pytest.fixture
def cached(mount: MountFactory, proxy: Proxy, bucket: str, tmp_path: Path) -> Callable[..., Mount]:
    """``cached(...)`` mounts the bucket over one cache directory, which outlives the mount."""

    def start(**options: str | int | Path | bool) -> Mount:
        directory = tmp_path / "lasting-cache"
        directory.mkdir(mode=0o700, exist_ok=True)
        options.setdefault("read_only", True)
        options.setdefault("log_level", "debug")
        options.setdefault("metadata_ttl", "0s")
        return mount(
            bucket,
            data_path="cache",
            cache_dir=directory,
            endpoint=proxy.endpoint,
            min_free="1MiB",
            **options,
        )

    return start


@contextmanager
def stopped(mounted: Mount) -> Iterator[None]:
    os.kill(mounted.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(mounted.pid, signal.SIGCONT)


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def read_all(fd: int, step: int = MIB) -> bytes:
    pieces, offset = [], 0
    while piece := os.pread(fd, step, offset):
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces)


def verified(mounted: Mount, key: str = KEY) -> Path:
    """Bring a file to disk, wait until it is verified there, and return its path."""
    path = mounted.path / key
    assert ossfs("warmup", path, environment={}).code == 0
    wait_for_log(mounted, f"all of {key!r} was verified")
    return path


def plain_files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "lasting-cache").glob(f"blocks/??/*{PLAIN_SUFFIX}"))


def is_read_by_the_kernel(mounted: Mount, fd: int, expected: bytes) -> bool:
    """Whether a descriptor gives its bytes while the daemon is stopped."""
    got: list[bytes] = []
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    reader = threading.Thread(target=lambda: got.append(read_all(fd)), daemon=True)
    with stopped(mounted):
        reader.start()
        reader.join(timeout=3)
        alone = not reader.is_alive()
    reader.join(timeout=SECONDS)
    assert got == [expected]
    return alone


def test_a_whole_and_verified_file_is_read_without_the_daemon(
    cached, put, proxy: Proxy, tmp_path: Path
) -> None:
    data = content("first")
    put(KEY, data)
    mounted = cached()
    path = verified(mounted)
    (plain,) = plain_files(tmp_path)
    assert plain.read_bytes() == data
    with opened(path) as fd:
        assert is_read_by_the_kernel(mounted, fd, data)
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as mapped, stopped(mounted):
            assert mapped[:] == data
            assert os.pread(fd, MIB, SIZE - 7) == data[-7:]
            assert os.pread(fd, MIB, SIZE) == b""
    assert mounted.unmount() == 0
    # The next mount finds it verified, and asks the store for the one byte that allows it.
    proxy.reset()
    mounted = cached()
    with opened(mounted.path / KEY) as fd:
        assert proxy.bytes_served(KEY) == 1
        assert is_read_by_the_kernel(mounted, fd, data)


def test_all_who_have_a_file_open_agree(cached, put) -> None:
    data = content("first")
    put(KEY, data)
    mounted = cached()
    path = verified(mounted)
    with opened(path, os.O_RDONLY | os.O_DIRECT), opened(path) as also_asks:
        assert not is_read_by_the_kernel(mounted, also_asks, data)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:  # RELEASE comes after close(2) has returned
        with opened(path) as fd:
            if is_read_by_the_kernel(mounted, fd, data):
                break
    with opened(path) as fd, opened(path, os.O_RDONLY | os.O_DIRECT) as direct:
        assert is_read_by_the_kernel(mounted, fd, data)
        page = mmap.mmap(-1, MIB)
        for offset, size in ((0, MIB), (4096, 8192), (MIB - 3, 1001), (SIZE - 5, 4096)):
            view = memoryview(page)[:size]
            count = os.preadv(direct, [view], offset)
            assert view[:count] == data[offset : offset + size]
        with opened(path) as another:
            assert is_read_by_the_kernel(mounted, another, data)


def test_opening_and_closing_at_once_never_fails(cached, put) -> None:
    """The kernel refuses with EIO whoever does not agree with the others."""
    data = content("first")
    put(KEY, data)
    mounted = cached()
    path = verified(mounted)
    failures: list[str] = []
    ends = time.monotonic() + 3

    def work(seed: int) -> None:
        chance = random.Random(seed)
        while time.monotonic() < ends:
            flags = os.O_RDONLY | (os.O_DIRECT if chance.random() < 0.3 else 0)
            try:
                with opened(path, flags) as fd:
                    offset = chance.randrange(0, SIZE // 4096) * 4096
                    page = mmap.mmap(-1, 8192)
                    count = os.preadv(fd, [page], offset)
                    if page[:count] != data[offset : offset + 8192]:
                        failures.append(f"wrong at {offset}")
            except OSError as exc:
                failures.append(str(exc))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_file_that_others_replace_stays_whole_for_who_reads_it(cached, put) -> None:
    old, new = content("old"), content("new", SIZE + 5 * MIB)
    put(KEY, old)
    mounted = cached()
    path = verified(mounted)
    with opened(path) as before, mmap.mmap(before, 0, access=mmap.ACCESS_READ) as mapped:
        assert is_read_by_the_kernel(mounted, before, old)
        put(KEY, new)
        with opened(path) as after:
            assert os.fstat(after).st_size == len(new)
            assert read_all(after) == new
            assert os.fstat(after).st_ino != os.fstat(before).st_ino
            assert os.fstat(before).st_size == len(old)
            assert is_read_by_the_kernel(mounted, before, old)
            assert mapped[:] == old
            with opened(path) as again, mmap.mmap(again, 0, access=mmap.ACCESS_READ) as present:
                assert present[:] == new
    put(KEY, old)
    with opened(path) as fd:
        assert read_all(fd) == old


def test_what_was_written_to_on_disk_is_read_through_the_daemon(
    cached, put, tmp_path: Path
) -> None:
    data = content("first")
    put(KEY, data)
    mounted = cached()
    path = verified(mounted)
    (plain,) = plain_files(tmp_path)
    with plain.open("r+b") as file:
        file.seek(3 * MIB)
        file.write(b"damage")
    with opened(path) as fd:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert read_all(fd) == data
    assert mounted.unmount() == 0


def test_a_damaged_file_is_never_sealed(cached, put, tmp_path: Path) -> None:
    data = content("first")
    put(KEY, data)
    mounted = cached(passthrough="off")
    assert ossfs("warmup", mounted.path / KEY, environment={}).code == 0
    assert mounted.unmount() == 0
    (plain,) = plain_files(tmp_path)
    times = plain.stat().st_atime_ns, plain.stat().st_mtime_ns
    with plain.open("r+b") as file:
        file.seek(7 * MIB + 5)
        file.write(b"damage")
    os.utime(plain, ns=times)
    mounted = cached()
    path = mounted.path / KEY
    with opened(path) as fd:
        assert os.pread(fd, 100, 0) == data[:100]
    wait_for_log(mounted, f"some cached bytes of {KEY!r} are damaged on disk")
    with opened(path) as fd:
        assert read_all(fd) == data
    wait_for_log(mounted, f"all of {KEY!r} was verified")
    with opened(path) as fd:
        assert is_read_by_the_kernel(mounted, fd, data)


def test_an_open_file_outlives_its_place_in_the_cache_and_its_daemon(cached, put) -> None:
    data = content("first")
    put(KEY, data)
    put("other.bin", content("other", 2 * SIZE))
    mounted = cached()
    path = verified(mounted)
    with ExitStack() as stack:
        fd = stack.enter_context(opened(path))
        assert is_read_by_the_kernel(mounted, fd, data)
        assert ossfs("cache", "clear", mounted.path, environment={}).code == 0
        assert is_read_by_the_kernel(mounted, fd, data)
        os.kill(mounted.pid, signal.SIGKILL)
        mounted.wait()
        with suppress(OSError):
            ossfs("umount", mounted.path, environment={})
        # Nobody holds the file's lock any more. It is taken from the cache whole, never in part.
        small = cached(cache_size=f"{2 * SIZE + 2 * MIB}")
        assert ossfs("warmup", small.path / "other.bin", environment={}).code == 0
        with suppress(OSError):  # the kernel may refuse a connection that is gone
            assert read_all(fd) == data


@pytest.mark.parametrize(
    "options", [{"read_only": False}, {"passthrough": "off"}, {"fuse_lane": "off"}]
)
def test_other_mounts_are_read_through_the_daemon(cached, put, options) -> None:
    data = content("first")
    put(KEY, data)
    mounted = cached()
    verified(mounted)
    assert mounted.unmount() == 0
    mounted = cached(**options)
    with opened(mounted.path / KEY) as fd:
        assert read_all(fd) == data
        with stopped(mounted):
            reader = threading.Thread(target=os.pread, args=(fd, 1, 0), daemon=True)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            reader.start()
            reader.join(timeout=1)
            assert reader.is_alive()
        reader.join(timeout=SECONDS)

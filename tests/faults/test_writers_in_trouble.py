"""Programs change names and bytes while a file's upload runs, and the store fails meanwhile."""

import errno
import os
import random
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support import recovering
from tests.support.commands import tmpfs
from tests.support.faults import Fault
from tests.support.mounting import Mount
from tests.support.patience import wait_until
from tests.support.places import MIB, content_of
from tests.support.proxy import Exchange, Proxy
from tests.support.recovering import Recovering, kill, stored
from tests.support.seaweed import SeaweedServer

SIZE = 21 * MIB
WAIT_SECONDS = 120.0
"""Longer than the retry budget of these mounts; whoever takes longer hangs."""
STORES_BYTES = ("UploadPart", "PutObject", "CompleteMultipartUpload")
PROBES = ".ossfs-py-probe-"
"""Objects with which a mount finds out what the store can; a killed daemon leaves one."""


class Behind(threading.Thread):
    """Calls something that may wait for the store."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.error: OSError | None = None
        self.trace = ""
        self._call = call
        self.start()

    def run(self) -> None:
        try:
            self._call()
        except OSError as exc:
            self.error = exc
            self.trace = traceback.format_exc()

    @property
    def has_succeeded(self) -> bool:
        return not self.is_alive() and self.error is None

    def end(self) -> OSError | None:
        self.join(WAIT_SECONDS)
        assert not self.is_alive(), "it hangs"
        return self.error


WAYS = [("temp", False), ("direct", False), ("cache", True)]


@pytest.fixture(params=WAYS, ids=["temp", "direct", "cache-write-back"])
def way(request: pytest.FixtureRequest) -> tuple[str, bool]:
    """Data path, and whether close(2) returns before the store has the file."""
    path, write_back = request.param
    return str(path), bool(write_back)


@pytest.fixture
def mounted(mount: MountFactory, proxy: Proxy, bucket: str, way: tuple[str, bool]) -> Mount:
    data_path, write_back = way
    return mount(
        bucket,
        endpoint=proxy.endpoint,
        data_path=data_path,
        write_back=write_back,
        retry_budget="60s",
    )


def keys(client: Minio, bucket: str) -> list[str]:
    return [key for key in recovering.names(client, bucket) if not key.startswith(PROBES)]


def hold(proxy: Proxy) -> threading.Event:
    """Hold everything that stores bytes until the event is set."""
    go_on = threading.Event()
    proxy.faults += [Fault(one, times=None, held_until=go_on) for one in STORES_BYTES]
    return go_on


def refuse(proxy: Proxy, times: int | None) -> None:
    proxy.faults[:0] = [
        Fault(one, times=times, status=403, code="AccessDenied") for one in STORES_BYTES
    ]


@contextmanager
def in_fsync(mounted: Mount, proxy: Proxy, content: bytes) -> Iterator[tuple[int, Behind]]:
    """A new file whose upload has begun while a program waits for it."""
    fd = os.open(mounted.path / "file", os.O_RDWR | os.O_CREAT)
    try:
        os.write(fd, content)
        fsync = Behind(lambda: os.fsync(fd))
        wait_until(lambda: any(proxy.counts()[one] for one in ("UploadPart", "PutObject")))
        yield fd, fsync
    finally:
        with suppress(OSError):
            os.close(fd)


def unmount(mounted: Mount) -> None:
    assert mounted.unmount() == 0, mounted.log


def test_a_file_cut_while_it_is_uploaded_is_stored_as_it_became(
    mounted: Mount, proxy: Proxy, bucket: str, minio_client: Minio
) -> None:
    content = content_of(SIZE, 1)
    go_on = hold(proxy)
    with in_fsync(mounted, proxy, content) as (fd, fsync):
        cut = Behind(lambda: os.truncate(mounted.path / "file", 7 * MIB + 3))
        go_on.set()
        assert (cut.end(), fsync.end()) == (None, None)
        os.pwrite(fd, b"tail", 7 * MIB + 3)
    unmount(mounted)
    assert stored(minio_client, bucket, "file") == content[: 7 * MIB + 3] + b"tail"


def test_a_file_replaced_by_rename_while_it_is_uploaded_stays_replaced(
    mounted: Mount, proxy: Proxy, bucket: str, minio_client: Minio
) -> None:
    (mounted.path / "other").write_bytes(b"other")
    proxy.reset()
    go_on = hold(proxy)
    with in_fsync(mounted, proxy, content_of(SIZE, 2)) as (_fd, fsync):
        over = Behind(lambda: (mounted.path / "other").rename(mounted.path / "file"))
        go_on.set()
        assert over.end() is None
        fsync.end()
    assert (mounted.path / "file").read_bytes() == b"other"
    unmount(mounted)
    assert keys(minio_client, bucket) == ["file"]
    assert stored(minio_client, bucket, "file") == b"other"


@pytest.mark.parametrize("is_refused", [False, True], ids=["", "refused"])
def test_a_file_renamed_while_it_is_uploaded_is_stored_under_one_name(
    mounted: Mount, proxy: Proxy, bucket: str, minio_client: Minio, is_refused: bool
) -> None:
    content = content_of(SIZE, 3)
    go_on = hold(proxy)
    with in_fsync(mounted, proxy, content) as (fd, fsync):
        moved = Behind(lambda: (mounted.path / "file").rename(mounted.path / "moved"))
        if is_refused:
            refuse(proxy, None)
        go_on.set()
        told = (moved.end(), fsync.end())
        if is_refused:
            assert isinstance(told[1], PermissionError)
            proxy.faults.clear()
            os.fsync(fd)
        else:
            assert told == (None, None)
        name = "moved" if told[0] is None else "file"
    unmount(mounted)
    assert keys(minio_client, bucket) == [name]
    assert stored(minio_client, bucket, name) == content


def test_what_the_store_refused_to_one_program_another_can_store(
    mounted: Mount, proxy: Proxy, bucket: str, minio_client: Minio
) -> None:
    content = content_of(SIZE, 5)
    refuse(proxy, None)
    fd = os.open(mounted.path / "file", os.O_WRONLY | os.O_CREAT)
    # On direct the first part may be refused before all is written.
    content = content[: os.write(fd, content)]
    script = "import os,sys\nos.fsync(os.open(sys.argv[1], os.O_RDWR))"
    command = [sys.executable, "-c", script, str(mounted.path / "file")]
    other = subprocess.run(command, check=False, capture_output=True, timeout=WAIT_SECONDS)
    assert b"PermissionError" in other.stderr, other
    with pytest.raises(PermissionError):
        os.fsync(fd)
    proxy.faults.clear()
    other = subprocess.run(command, check=False, capture_output=True, timeout=WAIT_SECONDS)
    assert other.returncode == 0, other
    assert stored(minio_client, bucket, "file") == content
    os.close(fd)
    unmount(mounted)


def busy_for(seconds: float) -> Callable[[Exchange], list[Fault]]:
    """503 to everything that stores bytes, for a while from the first such request on."""
    began: list[float] = []

    def choose(exchange: Exchange) -> list[Fault]:
        if exchange.operation not in STORES_BYTES:
            return []
        began.append(time.monotonic())
        return [Fault(status=503)] if began[-1] - began[0] < seconds else []

    return choose


def every_second(fault: Fault) -> Callable[[Exchange], list[Fault]]:
    """Hits every second of the requests that store bytes."""
    count = iter(range(10**9))
    return lambda exchange: (
        [fault.copy()] if exchange.operation in STORES_BYTES and next(count) % 2 == 0 else []
    )


TROUBLES: dict[str, Callable[[], Callable[[Exchange], list[Fault]]]] = {
    "busy for 5 s": lambda: busy_for(5),  # of the 60 in which requests are repeated
    "answers lost": lambda: every_second(Fault(lose_answer=True)),
    "cut inside a part": lambda: every_second(Fault(cut_request=1_234_567)),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_writers_of_one_file_are_told_nothing_of_what_passes(
    mounted: Mount, proxy: Proxy, bucket: str, minio_client: Minio, trouble: str
) -> None:
    content = content_of(SIZE, 6)
    path = mounted.path / "file"
    path.touch()
    proxy.choose = TROUBLES[trouble]()

    def write(number: int) -> None:
        fd = os.open(path, os.O_WRONLY)
        try:
            for start in range(number * MIB, SIZE, 4 * MIB):
                piece = content[start : start + MIB]
                assert os.pwrite(fd, piece, start) == len(piece)
            os.fsync(fd)
        finally:
            os.close(fd)

    writers = [Behind(lambda number=number: write(number)) for number in range(4)]  # type: ignore[misc]
    assert [one.end() for one in writers] == [None] * 4
    assert stored(minio_client, bucket, "file") == content
    unmount(mounted)


@pytest.mark.parametrize("what", ["rename", "truncate", "unlink", "write"])
def test_a_kill_during_a_change_of_what_is_uploaded_leaves_it_before_or_after_that(
    mounted: Mount,
    proxy: Proxy,
    bucket: str,
    minio_client: Minio,
    what: str,
    seaweed: SeaweedServer,
) -> None:
    content = content_of(SIZE, 7)
    cut = content[: 7 * MIB + 3]
    path = mounted.path / "file"
    go_on = hold(proxy)
    with in_fsync(mounted, proxy, content) as (fd, fsync):
        calls: dict[str, Callable[[], object]] = {
            "rename": lambda: path.rename(mounted.path / "moved"),
            "truncate": lambda: os.truncate(path, len(cut)),
            "unlink": path.unlink,
            "write": lambda: os.pwrite(fd, b"late", 3),
        }
        call = Behind(calls[what])
        call.join(0.3)
        is_acknowledged = call.has_succeeded
        kill(mounted)
        fsync.end()
        call.end()
    proxy.faults.clear()
    go_on.set()
    mounted.start()
    unmount(mounted)
    mounted.close()
    done = Recovering(mounted, seaweed)("--upload")
    assert done.code == 0, done
    there = {key: stored(minio_client, bucket, key) for key in keys(minio_client, bucket)}
    after = {
        "rename": {"moved": content},
        "truncate": {"file": cut},
        "unlink": {},
        "write": {"file": content[:3] + b"late" + content[7:]},
    }[what]
    allowed = [after] if is_acknowledged else [after, {"file": content}]
    if mounted.options["data_path"] == "direct":
        allowed.append({})  # it was in memory only
    shown = {key: len(value) for key, value in there.items()}
    assert there in allowed, (is_acknowledged, shown, done.out)


@pytest.mark.parametrize("loses_answers", [False, True], ids=["", "answers-lost"])
def test_no_line_is_lost_that_two_mounts_append_over_a_failing_store(
    mount: MountFactory,
    proxy: Proxy,
    bucket: str,
    minio_client: Minio,
    way: tuple[str, bool],
    loses_answers: bool,
) -> None:
    data_path, write_back = way
    mounts = [
        mount(bucket, endpoint=proxy.endpoint, data_path=data_path, write_back=write_back)
        for _ in range(2)
    ]
    dice = random.Random(8)
    faults = [Fault(status=503), Fault(cut_request=3), Fault(delay_seconds=0.1)]
    faults += [Fault(lose_answer=True)] * loses_answers

    def choose(exchange: Exchange) -> list[Fault]:
        is_hit = exchange.operation in STORES_BYTES and dice.random() < 0.3
        return [dice.choice(faults).copy()] if is_hit else []

    minio_client.put_object(bucket, "log", BytesIO(b"begin\n"), 6)
    proxy.choose = choose

    def append(number: int) -> None:
        for line in range(25):
            fd = os.open(mounts[number].path / "log", os.O_WRONLY | os.O_APPEND)
            try:
                os.write(fd, b"mount %d line %d\n" % (number, line))
                os.fsync(fd)
            finally:
                os.close(fd)

    writers = [Behind(lambda number=number: append(number)) for number in range(2)]  # type: ignore[misc]
    assert [one.end() for one in writers] == [None, None], [one.trace for one in writers]
    lines = stored(minio_client, bucket, "log").splitlines()
    assert lines.pop(0) == b"begin"
    for number in range(2):
        own = [line for line in lines if line.startswith(b"mount %d" % number)]
        if loses_answers:
            # Who has stored a line without hearing of it, and finds what others have appended to
            # it since, appends it again.
            own = [line for line, before in zip(own, [b"", *own], strict=False) if line != before]
        assert own == [b"mount %d line %d" % (number, line) for line in range(25)]


def test_a_full_temporary_directory_is_told_and_takes_nothing_of_what_was_stored(
    mount: MountFactory, bucket: str, minio_client: Minio, data_path: str, tmp_path: Path
) -> None:
    old = content_of(SIZE, 9)
    with tmpfs(tmp_path / "small", "size=6m") as small:
        mounted = mount(bucket, data_path=data_path, temp_dir=small, state_dir=small)
        path = mounted.path / "file"
        minio_client.put_object(bucket, "file", BytesIO(old), SIZE)
        want = bytearray(old)
        error = None
        fd = os.open(path, os.O_RDWR)
        try:
            # From the end, so that no path can stream.
            for start in range(SIZE - MIB, -1, -2 * MIB):
                os.pwrite(fd, b"x" * MIB, start)
                want[start : start + MIB] = b"x" * MIB
            os.fsync(fd)
        except OSError as exc:
            error = exc
        assert error is None or error.errno == errno.ENOSPC
        there = stored(minio_client, bucket, "file")
        assert there in (old, bytes(want))
        if error is not None:
            with suppress(OSError):
                os.ftruncate(fd, 0)
                os.fsync(fd)
        os.close(fd)
        (mounted.path / "next").write_bytes(b"next")
        assert stored(minio_client, bucket, "next") == b"next"
        mounted.unmount()

"""READs of small files that wait for the store, while that, others or the programs misbehave.

With the lane they wait without a task (``fuse/later.py``); programs are told the same without it.
"""

import errno
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from minio import Minio

from ossfs_py.host.mountpoint import THIS_MACHINE
from tests.conftest import MountFactory
from tests.support.commands import as_root
from tests.support.faults import Fault
from tests.support.mounting import Mount
from tests.support.patience import wait_until
from tests.support.places import content_of
from tests.support.proxy import Exchange, Proxy

SIZES = (1, 511, 4096, 70_000, 200_000)
"""All are read whole by one request."""
KILLED = 100
SECONDS = 60.0
FAULTS: dict[str, Callable[[], Fault]] = {
    "missing": lambda: Fault(status=404, code="NoSuchKey"),
    "changed": lambda: Fault(status=412, code="PreconditionFailed"),
    "busy": lambda: Fault(status=503),
    "broken": lambda: Fault(status=500, code="InternalError"),
    "short": lambda: Fault(short_after=0),
    "cut": lambda: Fault(truncate_after=0),
    "reset": lambda: Fault(reset_before=True),
    "reset-in-body": lambda: Fault(reset_after=0),
    "stalled": lambda: Fault(stall_after=0),
    "stalled-head": lambda: Fault(stall_head=9),
    "garbage": lambda: Fault(garbage=True),
    "shifted": lambda: Fault(shift_range=1),
    "other-version": lambda: Fault(etag="0123456789abcdef0123456789abcdef"),
}


@pytest.fixture(params=["auto", "off"], ids=["lane", "no-lane"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(
    params=[("temp", "auto"), ("cache", "auto"), ("direct", "auto"), ("direct", "off")],
    ids=["temp", "cache", "direct", "direct-no-lane"],
)
def way(request: pytest.FixtureRequest) -> dict[str, str]:
    """Each data path with the lane, and one without: below the lane nothing is different."""
    data_path, lane = request.param
    return {"data_path": data_path, "fuse_lane": lane}


Seed = Callable[[str, bytes], None]


@pytest.fixture
def seed(minio_client: Minio, bucket: str) -> Seed:
    def put(key: str, content: bytes) -> None:
        minio_client.put_object(bucket, key, BytesIO(content), len(content))

    return put


def read(path: Path) -> bytes | int | None:
    """What a program is given: the bytes, or the errno."""
    try:
        return path.read_bytes()
    except OSError as exc:
        return exc.errno


def hold_gets(proxy: Proxy) -> threading.Event:
    go_on = threading.Event()
    proxy.faults.append(Fault("GetObject", times=None, held_until=go_on))
    return go_on


def asked(proxy: Proxy) -> set[str]:
    return {one.key for one in list(proxy.exchanges) if one.operation == "GetObject"}


def test_a_fault_in_one_answer_is_noticed_by_no_program(
    mount: MountFactory, proxy: Proxy, bucket: str, seed: Seed, way: dict[str, str]
) -> None:
    files = {
        f"{name}/{size}": content_of(size, number)
        for number, name in enumerate(FAULTS)
        for size in SIZES
    }
    with ThreadPoolExecutor(8) as seeding:
        list(seeding.map(seed, files, files.values()))
    met: Counter[str] = Counter()

    def once(exchange: Exchange) -> list[Fault]:
        if exchange.operation != "GetObject" or exchange.key not in files:
            return []
        met[exchange.key] += 1
        return [FAULTS[exchange.key.partition("/")[0]]()] if met[exchange.key] == 1 else []

    proxy.choose = once
    mounted = mount(bucket, endpoint=proxy.endpoint, stall_timeout="2s", **way)
    names = list(files)
    random.Random(3).shuffle(names)
    with ThreadPoolExecutor(16) as readers:
        reads = {name: readers.submit(read, mounted.path / name) for name in names}
        found = {name: one.result(SECONDS) for name, one in reads.items()}
    wrong = {
        name: (got if isinstance(got, int) else len(got or b""))
        for name, got in found.items()
        if got != files[name]
    }
    assert not wrong, [
        line for line in mounted.log.splitlines() if any(one in line for one in wrong)
    ]
    assert all(met[name] >= 2 for name in files), "the fault was not met"
    assert mounted.unmount() == 0


def test_what_is_replaced_between_open_and_read_is_read_as_the_new_version(
    mount: MountFactory,
    proxy: Proxy,
    bucket: str,
    seed: Seed,
    minio_client: Minio,
    way: dict[str, str],
) -> None:
    factors = {"smaller": 0.5, "larger": 1.7, "as-long": 1.0}
    new = {
        f"{how}/{size}": content_of(int(size * factor), 2)
        for how, factor in factors.items()
        for size in SIZES
    }
    gone = [f"gone/{size}" for size in SIZES]
    names = [*new, *gone]
    for name in names:
        seed(name, content_of(int(name.partition("/")[2]), 1))
    mounted = mount(bucket, endpoint=proxy.endpoint, **way)
    go_on = hold_gets(proxy)
    with ThreadPoolExecutor(len(names)) as readers:
        waiting = {name: readers.submit(read, mounted.path / name) for name in names}
        try:
            wait_until(lambda: set(names) <= asked(proxy))
            for name, content in new.items():
                seed(name, content)
            for name in gone:
                minio_client.remove_object(bucket, name)
        finally:
            go_on.set()
        got = {name: one.result(SECONDS) for name, one in waiting.items()}
    assert {name for name in new if got[name] != new[name]} == set()
    assert all((mounted.path / name).read_bytes() == content for name, content in new.items())
    assert {got[name] for name in gone} <= {errno.ESTALE, errno.ENOENT}
    assert not any((mounted.path / name).exists() for name in gone)


def programs(paths: list[Path]) -> list[subprocess.Popen[bytes]]:
    """Each opens one file, and waits for its bytes."""
    code = "import os,sys\nos.read(os.open(sys.argv[1], os.O_RDONLY), 1 << 20)"
    return [subprocess.Popen([sys.executable, "-I", "-S", "-c", code, path]) for path in paths]


@contextmanager
def connection(mounted: Mount) -> Iterator[Path]:
    """The kernel's files about the mount, which is not asked for anything."""
    control = mounted.temp_dir.parent / "control"
    control.mkdir(exist_ok=True)
    (entry,) = THIS_MACHINE.mounts_at(mounted.path)
    as_root("mount", "-t", "fusectl", "none", control)
    try:
        yield control / entry.device.partition(":")[2]
    finally:
        as_root("umount", control)


def in_flight(mounted: Mount) -> int:
    """Requests that the kernel has not had an answer to."""
    with connection(mounted) as files:
        return int((files / "waiting").read_text())


def test_programs_killed_by_the_hundred_while_they_wait_leave_nothing_behind(
    mount: MountFactory, proxy: Proxy, bucket: str, seed: Seed, lane: str
) -> None:
    content = content_of(60_000, 4)
    with ThreadPoolExecutor(8) as seeding:
        list(seeding.map(lambda number: seed(f"file-{number}", content), range(KILLED)))
    mounted = mount(bucket, endpoint=proxy.endpoint, data_path="direct", fuse_lane=lane)
    paths = [mounted.path / f"file-{number}" for number in range(KILLED)]
    assert len(list(mounted.path.iterdir())) == KILLED
    go_on = hold_gets(proxy)
    readers = programs(paths)
    try:
        wait_until(lambda: in_flight(mounted) >= KILLED // 2)
        for number, one in enumerate(readers):
            one.send_signal(signal.SIGKILL if number % 2 else signal.SIGTERM)
        # The kernel lets a killed program wait for a READ of a page that it has not read ahead.
        go_on.set()
        for one in readers:
            assert one.wait(SECONDS) < 0
    finally:
        go_on.set()
        for one in readers:
            one.kill()
    assert all(path.read_bytes() == content for path in paths)
    wait_until(lambda: in_flight(mounted) == 0)
    assert mounted.unmount() == 0
    assert "ERROR" not in mounted.log


@pytest.mark.parametrize("end", ["signal", "out-of-sight", "abort"])
def test_a_mount_that_ends_while_they_wait_ends_and_tells_them(
    mount: MountFactory, proxy: Proxy, bucket: str, seed: Seed, lane: str, end: str
) -> None:
    contents = {f"file-{number}": content_of(50_000, number) for number in range(24)}
    for name, content in contents.items():
        seed(name, content)
    mounted = mount(bucket, endpoint=proxy.endpoint, data_path="direct", fuse_lane=lane)
    go_on = hold_gets(proxy)
    with ThreadPoolExecutor(len(contents)) as readers:
        waiting = {name: readers.submit(read, mounted.path / name) for name in contents}
        try:
            wait_until(lambda: len(asked(proxy)) >= 8)
            if end == "signal":
                os.kill(mounted.pid, signal.SIGTERM)
            elif end == "abort":
                with connection(mounted) as files:
                    as_root("sh", "-c", f"echo 1 > {files}/abort")
            else:
                as_root("umount", "-l", mounted.path)
                go_on.set()
            got = {name: one.result(SECONDS) for name, one in waiting.items()}
            code = mounted.wait()
        finally:
            go_on.set()
    if end == "out-of-sight":
        assert got == contents
    else:
        assert not {type(one) for one in got.values()} - {int}, got
    if end == "abort":
        as_root("umount", "-l", mounted.path)
    else:
        assert code == 0, mounted.log

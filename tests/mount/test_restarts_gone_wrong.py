"""A daemon that dies while more goes wrong: its keeper dies too, the next one dies as well,
somebody unmounts meanwhile, the store is away. Programs go on, or are told that the mount is dead;
none hangs.
"""

import ctypes
import errno
import fcntl
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner
from minio import Minio

from ossfs_py.cli.kept import KEPT as KEPT_VARIABLE
from ossfs_py.cli.kept import NOT_THERE, told_as_text
from ossfs_py.cli.upgrade import upgrade
from ossfs_py.host.running import find_daemon
from tests.conftest import MountFactory
from tests.support.commands import ossfs, tmpfs
from tests.support.faults import Fault
from tests.support.holding import wait_for
from tests.support.kept import (
    KEPT,
    children_of,
    daemon_of,
    is_alive,
    kill_daemon,
    stop,
    wait_for_another_child,
)
from tests.support.mounting import END_SECONDS, Mount, Option, is_mounted
from tests.support.proxy import Proxy

DEAD = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)


def kept(mount: MountFactory, bucket: str, **options: Option) -> Mount:
    """A mount with a keeper, which is the process that was started."""
    one = mount(bucket, **{"data_path": "temp", "restarts": 20, **options})
    wait_for(lambda: KEPT in one.log)
    return one


@pytest.fixture
def one(mount: MountFactory, bucket: str, minio_client: Minio) -> Mount:
    """Of a bucket with one file, and whoever looks at that asks the daemon."""
    minio_client.put_object(bucket, "file", io.BytesIO(b"bytes"), 5)
    return kept(mount, bucket, metadata_ttl=0)


class Reader(threading.Thread):
    """Reads the file, and keeps what it is told."""

    def __init__(self, one: Mount) -> None:
        super().__init__()
        self._path = one.path / "file"
        self.content: bytes | None = None
        self.error: int | None = None
        self.start()

    def run(self) -> None:
        try:
            self.content = self._path.read_bytes()
        except OSError as exc:
            self.error = exc.errno

    def ended(self) -> None:
        self.join(END_SECONDS)
        assert not self.is_alive(), "it hangs"


@contextmanager
def writer(one: Mount, client: Minio) -> Iterator[None]:
    """A program that has a file open for writing during the block, and loses nothing."""
    with (one.path / "log").open("wb", buffering=0) as file:
        file.write(b"one ")
        yield
        file.write(b"two")
        os.fsync(file.fileno())
    assert client.get_object(one.source, "log").read() == b"one two"


def into_the_gap(one: Mount) -> None:
    """Its daemon has died, and its keeper, which is stopped, does not start another one."""
    pid = daemon_of(one.path)
    stop(one.pid)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(pid))


def ends_with_its_daemon(one: Mount) -> None:
    """The keeper of the mount is dead: the daemon serves, and nobody goes on for it."""
    serving = daemon_of(one.path)
    assert (one.path / "file").read_bytes() == b"bytes"
    refused = CliRunner().invoke(upgrade, [str(one.path)])
    assert "the keeper of the mount is gone" in str(refused.exception)
    assert daemon_of(one.path) == serving
    os.kill(serving, signal.SIGKILL)
    wait_for(lambda: not is_alive(serving))
    with pytest.raises(OSError) as why:
        (one.path / "file").read_bytes()
    assert why.value.errno in DEAD


def test_without_its_keeper_a_daemon_serves_on_and_the_mount_ends_with_it(
    one: Mount, minio_client: Minio
) -> None:
    pid = daemon_of(one.path)
    with writer(one, minio_client):
        os.kill(one.pid, signal.SIGKILL)
        wait_for(lambda: not one.running)
    assert daemon_of(one.path) == pid
    ends_with_its_daemon(one)


def test_a_keeper_that_dies_in_the_gap_leaves_a_dead_mount_and_nobody_hangs(one: Mount) -> None:
    into_the_gap(one)
    reader = Reader(one)
    time.sleep(0.3)
    assert reader.is_alive()  # it waits for the next daemon
    os.kill(one.pid, signal.SIGKILL)
    reader.ended()
    assert reader.error in DEAD
    wait_for(lambda: not one.running)


def test_a_keeper_that_dies_while_the_next_daemon_starts_is_noticed_by_no_program(
    one: Mount, minio_client: Minio
) -> None:
    pid = daemon_of(one.path)
    with writer(one, minio_client):
        os.kill(pid, signal.SIGKILL)
        following = wait_for_another_child(one.pid, pid)
        os.kill(one.pid, signal.SIGKILL)
        reader = Reader(one)
    reader.ended()
    assert reader.content == b"bytes"
    assert daemon_of(one.path) == following
    ends_with_its_daemon(one)


def test_a_keeper_that_dies_before_its_mount_is_there_is_missed_by_nobody(
    mount: MountFactory, bucket: str, minio_client: Minio, proxy: Proxy
) -> None:
    minio_client.put_object(bucket, "file", io.BytesIO(b"bytes"), 5)
    one = kept(mount, bucket, metadata_ttl=0, endpoint=proxy.endpoint)
    assert one.terminate() == 0
    proxy.reset()
    gate = threading.Event()
    proxy.faults.append(Fault("*", times=None, held_until=gate))
    with one.log_path.open("ab") as log:
        keeper = subprocess.Popen(one.arguments, stdout=log, stderr=log, env=one.environment)
        wait_for(lambda: bool(proxy.counts()))  # a daemon asks whether there is a store
        keeper.kill()
        keeper.wait()
    gate.set()
    wait_for(lambda: "the mount will not survive its daemon" in one.log)
    ends_with_its_daemon(one)


def test_a_keeper_that_dies_while_the_mount_is_given_up_leaves_nothing_mounted(
    mount: MountFactory, bucket: str
) -> None:
    one = kept(mount, bucket, restarts=1)
    kill_daemon(one.path, one.log_path)
    pid = daemon_of(one.path)
    os.kill(pid, signal.SIGKILL)
    wait_for_another_child(one.pid, pid)
    os.kill(one.pid, signal.SIGKILL)
    wait_for(lambda: not is_mounted(one.path))
    wait_for(lambda: "is given up: the daemon died 2 times within a minute" in one.log)


def test_daemons_that_die_while_they_take_over_are_followed_by_others(
    one: Mount, minio_client: Minio
) -> None:
    lives = one.log.count(KEPT)
    last = daemon_of(one.path)
    with writer(one, minio_client):
        os.kill(last, signal.SIGKILL)
        reader = Reader(one)
        for number in range(6):
            # A daemon that has just ended is a child still, until the keeper has looked.
            last = wait_for_another_child(one.pid, last)
            time.sleep(0.12 * number)  # from before its imports to when it serves, or nearly
            os.kill(last, signal.SIGKILL)
    reader.ended()
    assert reader.content == b"bytes"
    wait_for(lambda: one.log.count(KEPT) > lives)
    assert one.terminate() == 0, one.log


@pytest.mark.parametrize("pause_seconds", [0.0, 0.5, 1.0, 2.0])
def test_told_to_end_in_the_gap_a_mount_first_stores_what_programs_have_written(
    one: Mount, minio_client: Minio, pause_seconds: float
) -> None:
    """From before the next daemon's imports to when it finds out what is stored."""
    with suppress(OSError), (one.path / "log").open("ab", buffering=0) as file:
        for line in range(20):
            file.write(f"{line}\n".encode())
            os.fsync(file.fileno())
        file.write(b"last\n")
        pid = daemon_of(one.path)
        os.kill(pid, signal.SIGKILL)
        wait_for_another_child(one.pid, pid)
        time.sleep(pause_seconds)
        assert one.terminate() == 0, one.log
    told = "".join(f"{line}\n" for line in range(20)) + "last\n"
    assert minio_client.get_object(one.source, "log").read().decode() == told
    assert "is given up" not in one.log


def test_an_unmount_in_the_gap_ends_it_all(one: Mount) -> None:
    into_the_gap(one)
    subprocess.run(["fusermount3", "-u", "-z", str(one.path)], check=True)
    os.kill(one.pid, signal.SIGCONT)
    assert one.wait() != 0
    assert not is_mounted(one.path)
    assert not list(one.path.iterdir())


def test_with_the_store_away_the_next_daemon_answers_what_it_knows_and_waits_for_the_rest(
    mount: MountFactory, bucket: str, minio_client: Minio, proxy: Proxy
) -> None:
    one = kept(mount, bucket, endpoint=proxy.endpoint)
    with (one.path / "file").open("w+b", buffering=0) as file:
        file.write(b"written, not stored")
        away = Fault("*", times=None, status=503)
        proxy.faults.append(away)
        kill_daemon(one.path, one.log_path)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(file.fileno(), 100, 0) == b"written, not stored"
        assert os.fstat(file.fileno()).st_size == 19
        stored = threading.Thread(target=os.fsync, args=(file.fileno(),))
        stored.start()
        time.sleep(1)
        assert stored.is_alive()
        proxy.faults.remove(away)
        stored.join(END_SECONDS)
        assert not stored.is_alive()
        assert minio_client.get_object(bucket, "file").read() == b"written, not stored"
    assert one.terminate() == 0, one.log


def any_is_deaf(pid: int) -> bool:
    """Whether a thread of a process waits in the kernel for something that no signal ends."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            if " D " in (thread / "stat").read_text():
                return True
    return False


@pytest.fixture
def deaf(
    mount: MountFactory, bucket: str, minio_client: Minio, proxy: Proxy
) -> Callable[..., "Deaf"]:
    """Makes a mount whose daemon no signal ends at once."""

    def make(**options: Option) -> Deaf:
        minio_client.put_object(bucket, "dir/name", io.BytesIO(b"bytes"), 5)
        one = kept(mount, bucket, endpoint=proxy.endpoint, metadata_ttl="100ms", **options)
        top = one.path / "dir"
        assert (top / "name").read_bytes() == b"bytes"
        held = Fault("PutObject", key="dir/made/", held_until=threading.Event(), times=None)
        proxy.faults.append(held)
        programs = Programs()
        programs.begin((top / "made").mkdir)
        wait_for(lambda: held.hits > 0)
        minio_client.remove_object(bucket, "dir/name")
        time.sleep(0.2)  # until then the kernel does not ask
        programs.begin(partial(os.path.lexists, top / "name"))
        pid = daemon_of(one.path)
        wait_for(lambda: any_is_deaf(pid))
        return Deaf(one, pid, programs, held)

    return make


class Programs:
    """Threads that each make one call, and what they are told."""

    def __init__(self) -> None:
        self.errors: list[int | None] = []
        self._threads: list[threading.Thread] = []

    def begin(self, call: Callable[[], object]) -> None:
        self._threads.append(threading.Thread(target=self._run, args=(call,)))
        self._threads[-1].start()

    def _run(self, call: Callable[[], object]) -> None:
        try:
            call()
        except OSError as exc:
            self.errors.append(exc.errno)

    def ended(self) -> None:
        for thread in self._threads:
            thread.join(END_SECONDS)
            assert not thread.is_alive(), "it hangs"


class Deaf(NamedTuple):
    """A mount, and its daemon: one of its threads waits for the directory that a program has
    locked, and no signal ends it; the program waits for an answer, which the next daemon gives.
    """

    one: Mount
    pid: int
    programs: Programs
    held: Fault

    def is_dead(self) -> bool:
        """Whether nothing but that thread is left of it."""
        return not is_alive(self.pid)


@pytest.mark.parametrize(
    ("ends", "data_path"), [("killed", "temp"), ("killed", "cache"), ("upgraded", "temp")]
)
def test_a_daemon_that_ends_while_it_tells_the_kernel_of_a_name_is_followed_by_another(
    deaf: Callable[..., Deaf], ends: str, data_path: str
) -> None:
    one, pid, programs, held = left = deaf(data_path=data_path)
    told: list[str] = []
    if ends == "killed":
        os.kill(pid, signal.SIGKILL)
    else:
        programs.begin(lambda: told.append(ossfs("upgrade", one.path, environment={}).err))
    wait_for(left.is_dead)
    assert held.held_until is not None
    held.held_until.set()
    programs.ended()
    assert not any(told), told
    assert not programs.errors
    assert [each.name for each in (one.path / "dir").iterdir()] == ["made"]
    assert one.terminate() == 0, one.log


@pytest.mark.skipif(os.geteuid() != 0, reason="nobody else may unmount by force")
def test_a_mount_given_up_while_its_daemon_cannot_end_leaves_nobody_waiting(
    deaf: Callable[..., Deaf],
) -> None:
    one, pid, programs, _ = deaf(restarts=1)
    os.kill(pid, signal.SIGKILL)
    os.kill(wait_for_another_child(one.pid, pid), signal.SIGKILL)
    programs.ended()
    assert set(programs.errors) <= set(DEAD)
    assert one.wait() != 0
    assert not is_mounted(one.path)


def _before_it_is_started(keeper: int, _daemon: int, begin: Callable[[], None]) -> None:
    stop(keeper)
    begin()
    time.sleep(1)
    os.kill(keeper, signal.SIGKILL)


def _while_it_starts(keeper: int, _daemon: int, begin: Callable[[], None]) -> None:
    begin()
    wait_for(lambda: len(children_of(keeper)) == 2)
    os.kill(keeper, signal.SIGKILL)


def _before_it_knows_of_the_end(keeper: int, daemon: int, begin: Callable[[], None]) -> None:
    begin()
    wait_for(lambda: len(children_of(keeper)) == 2)
    os.kill(keeper, signal.SIGSTOP)
    wait_for(lambda: not is_alive(daemon))
    os.kill(keeper, signal.SIGKILL)


@pytest.mark.parametrize(
    ("dies", "is_upgraded"),
    [
        (_before_it_is_started, False),
        (_while_it_starts, True),
        (_before_it_knows_of_the_end, True),
    ],
)
def test_a_keeper_that_dies_during_an_upgrade_is_noticed_by_no_program(
    dies: Callable[[int, int, Callable[[], None]], None],
    is_upgraded: bool,
    one: Mount,
    minio_client: Minio,
) -> None:
    """The old daemon continues, or the new one; the mount ends with it."""
    pid = daemon_of(one.path)
    said: list[int] = []
    upgrading = threading.Thread(
        target=lambda: said.append(ossfs("upgrade", one.path, environment={}).code)
    )
    with writer(one, minio_client):
        dies(one.pid, pid, upgrading.start)
        upgrading.join(END_SECONDS)
        assert said == [0 if is_upgraded else 1]
    assert (daemon_of(one.path) != pid) == is_upgraded
    ends_with_its_daemon(one)


def test_a_lock_that_is_released_late_ends_no_mount(one: Mount) -> None:
    """Another process releases it, which may have to wait for its turn."""
    daemon = find_daemon(one.path)
    assert daemon is not None
    daemon.close()
    lives = one.log.count(KEPT)
    with daemon.runtime_dir.with_suffix(".json").open() as record:
        os.kill(daemon.mount.pid, signal.SIGKILL)
        fcntl.flock(record, fcntl.LOCK_EX)
        reader = Reader(one)
        time.sleep(3)
        assert reader.is_alive()
    reader.ended()
    assert reader.content == b"bytes"
    wait_for(lambda: one.log.count(KEPT) > lives)
    assert "is busy" not in one.log
    assert one.terminate() == 0, one.log


def test_a_daemon_that_takes_over_finds_no_room_on_the_local_disk(
    mount: MountFactory, bucket: str, minio_client: Minio, tmp_path: Path
) -> None:
    """Programs go on with what there is, and are told of a full disk by what needs more of it."""
    with tmpfs(tmp_path / "small", "size=24m") as small:
        one = kept(mount, bucket, state_dir=small, temp_dir=small, min_free=0)
        content = os.urandom(3 * 1024**2)
        with (one.path / "file").open("w+b", buffering=0) as file:
            file.write(content)
            lives = one.log.count(KEPT)
            with (small / "others").open("wb", buffering=0) as filler, pytest.raises(OSError):
                while True:
                    filler.write(bytes(4096))
            os.kill(daemon_of(one.path), signal.SIGKILL)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(file.fileno(), len(content), 0) == content
            wait_for(lambda: one.log.count(KEPT) > lives)
            with pytest.raises(OSError) as why:
                os.pwrite(file.fileno(), bytes(4 * 1024**2), len(content))
            assert why.value.errno == errno.ENOSPC
            (small / "others").unlink()
            os.pwrite(file.fileno(), b"more", len(content))
            os.fsync(file.fileno())
            assert minio_client.get_object(bucket, "file").data == content + b"more"
        assert one.log.count(KEPT) == lives + 1
        assert one.terminate() == 0, one.log


GETFD = 438
"""The number of pidfd_getfd(2)."""


def copied_from(pid: int, number: int) -> int:
    process = os.pidfd_open(pid)
    found = ctypes.CDLL(None, use_errno=True).syscall(GETFD, process, number, 0)
    os.close(process)
    assert found >= 0, os.strerror(ctypes.get_errno())
    return int(found)


def held_by(pid: int) -> dict[str, int]:
    """Descriptors of a process, by what they refer to."""
    found = {}
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found[str(each.readlink())] = int(each.name)
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="nobody else may take descriptors of a process")
def test_a_second_daemon_for_the_same_descriptor_serves_nothing(one: Mount) -> None:
    pid = daemon_of(one.path)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    names = ("/memfd:ossfs-py (deleted)", "/dev/fuse")
    wait_for(lambda: set(names) <= held_by(one.pid).keys())
    held = held_by(one.pid)
    given = [theirs.fileno(), *(copied_from(one.pid, held[name]) for name in names), NOT_THERE]
    environment = {**one.environment, KEPT_VARIABLE: told_as_text(given, "")}
    with ours, theirs:
        second = subprocess.run(
            [sys.executable, *one.arguments[1:]],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            pass_fds=given[:3],
            timeout=END_SECONDS,
        )
    for descriptor in given[1:3]:
        os.close(descriptor)
    assert second.returncode == 1
    assert "is busy: another ossfs-py serves it" in second.stderr
    assert daemon_of(one.path) == pid
    assert (one.path / "file").read_bytes() == b"bytes"
    assert one.terminate() == 0, one.log

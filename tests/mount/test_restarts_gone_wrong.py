"""A daemon that dies while more goes wrong: its keeper dies too, the next one dies as well,
somebody unmounts meanwhile, the store is away. Programs go on, or are told that the mount is dead;
none hangs.
"""

import errno
import io
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from minio import Minio

from ossfs_py.cli.upgrade import upgrade
from ossfs_py.host.running import find_daemon
from tests.conftest import MountFactory
from tests.support.faults import Fault
from tests.support.holding import wait_for
from tests.support.mounting import END_SECONDS, Mount, Option, is_mounted
from tests.support.proxy import Proxy

KEPT = "if this daemon dies, another one takes over"
DEAD = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)


def kept(mount: MountFactory, bucket: str, **options: Option) -> Mount:
    """A mount with a keeper, which is the process that was started."""
    one = mount(bucket, **{"data_path": "temp", "restarts": 20, **options})
    wait_for(lambda: KEPT in one.log)
    return one


def daemon_of(one: Mount) -> int:
    """The process that serves."""
    daemon = find_daemon(one.path)
    assert daemon is not None
    daemon.close()
    return daemon.mount.pid


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


class Reader(threading.Thread):
    """Reads a file, and keeps what it is told."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self.content: bytes | None = None
        self.error: int | None = None

    def run(self) -> None:
        try:
            self.content = self._path.read_bytes()
        except OSError as exc:
            self.error = exc.errno

    def ended(self) -> None:
        self.join(END_SECONDS)
        assert not self.is_alive(), "it hangs"


def test_without_its_keeper_a_daemon_serves_on_and_the_mount_ends_with_it(
    mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    minio_client.put_object(bucket, "file", io.BytesIO(b"bytes"), 5)
    one = kept(mount, bucket, metadata_ttl=0)
    pid = daemon_of(one)
    os.kill(one.pid, signal.SIGKILL)
    wait_for(lambda: not one.running)
    (one.path / "new").write_bytes(b"new")
    assert (one.path / "file").read_bytes() == b"bytes"
    refused = CliRunner().invoke(upgrade, [str(one.path)])
    assert "the keeper of the mount is gone" in str(refused.exception)
    assert daemon_of(one) == pid
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(pid))
    with pytest.raises(OSError) as why:
        (one.path / "file").read_bytes()
    assert why.value.errno in DEAD


def test_a_keeper_that_dies_in_the_gap_leaves_a_dead_mount_and_nobody_hangs(
    mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    minio_client.put_object(bucket, "file", io.BytesIO(b"bytes"), 5)
    one = kept(mount, bucket, metadata_ttl=0)
    pid = daemon_of(one)
    os.kill(one.pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(pid))
    reader = Reader(one.path / "file")
    reader.start()
    time.sleep(0.3)
    assert reader.is_alive()  # it waits for the next daemon
    os.kill(one.pid, signal.SIGKILL)
    reader.ended()
    assert reader.error in DEAD
    wait_for(lambda: not one.running)


def test_daemons_that_die_while_they_take_over_are_followed_by_others(
    mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    minio_client.put_object(bucket, "file", io.BytesIO(b"bytes"), 5)
    one = kept(mount, bucket, metadata_ttl=0)
    children = Path(f"/proc/{one.pid}/task/{one.pid}/children")
    lives = one.log.count(KEPT)
    with (one.path / "log").open("wb", buffering=0) as file:
        file.write(b"one ")
        last = daemon_of(one)
        os.kill(last, signal.SIGKILL)
        reader = Reader(one.path / "file")
        reader.start()
        for number in range(6):
            # A daemon that has just ended is a child still, until the keeper has looked.
            wait_for(lambda: children.read_text().split() not in ([], [str(last)]))  # noqa: B023
            time.sleep(0.12 * number)  # from before its imports to when it serves, or nearly
            last = int(children.read_text().split()[0])
            os.kill(last, signal.SIGKILL)
        file.write(b"two")
        os.fsync(file.fileno())
    reader.ended()
    assert reader.content == b"bytes"
    wait_for(lambda: one.log.count(KEPT) > lives)
    assert minio_client.get_object(bucket, "log").read() == b"one two"
    assert one.terminate() == 0, one.log


def test_an_unmount_in_the_gap_ends_it_all(mount: MountFactory, bucket: str) -> None:
    one = kept(mount, bucket)
    pid = daemon_of(one)
    os.kill(one.pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(pid))
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
        lives = one.log.count(KEPT)
        os.kill(daemon_of(one), signal.SIGKILL)
        wait_for(lambda: one.log.count(KEPT) > lives)
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

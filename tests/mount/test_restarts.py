"""A daemon that dies under programs that read, map and walk: another goes on, and they notice
nothing. One that cannot go on ends the mount, and says why."""

import io
import json
import mmap
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from minio import Minio

from ossfs_py.cli.list import list_mounts
from ossfs_py.cli.upgrade import upgrade
from ossfs_py.runtime.ledger import VERSION
from tests.conftest import MountFactory
from tests.support.commands import as_root
from tests.support.holding import asked, held, wait_for
from tests.support.kept import daemon_of, kept_daemon, kill_daemon
from tests.support.mount_command import Place, daemons_of
from tests.support.mounting import END_SECONDS, is_mounted
from tests.support.proxy import Proxy
from tests.support.seaweed import SeaweedServer

MIB = 1024**2

CHANGE = """
import os, sys
directory = f"/proc/{sys.argv[1]}/fd"
for name in os.listdir(directory):
    if "memfd:ossfs-py" in os.readlink(f"{directory}/{name}"):
        ledger = os.open(f"{directory}/{name}", os.O_RDWR)
"""
OTHER_VERSION = f"os.pwrite(ledger, bytes([{VERSION + 1}]), 8)"
DAMAGE = "os.pwrite(ledger, bytes([77, 0, 0, 0]), 64 * 1024)"
TOO_LARGE = "os.truncate(ledger, 1 << 50)"


def test_readers_mappings_and_walkers_go_on(
    mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    names = [f"{number:04}" for number in range(200)]
    content = os.urandom(3 * MIB)
    minio_client.put_object(bucket, "dir/model", io.BytesIO(content), len(content))
    for name in names:
        minio_client.put_object(bucket, f"many/{name}", io.BytesIO(b"small"), 5)
    one = mount(bucket, data_path="direct", read_only=True, restarts=9)
    with (
        (one.path / "dir" / "model").open("rb", buffering=0) as file,
        # A page fault holds Python's lock: nothing that answers may live in this process.
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
        os.scandir(one.path / "many") as walked,
    ):
        start = file.read(100_000)
        assert mapped[:10] == content[:10]
        seen = [next(walked).name for _ in range(5)]
        # The names before where the walk stands are others from now on.
        minio_client.remove_object(bucket, "many/0001")
        minio_client.put_object(bucket, "many/0000a", io.BytesIO(b"new"), 3)
        minio_client.put_object(bucket, "many/0000b", io.BytesIO(b"new"), 3)
        kill_daemon(one.path, one.log_path)
        assert start + file.read(MIB) == content[: 100_000 + MIB]
        seen += [entry.name for entry in walked]
        assert seen == names
        assert mapped[:] == content
        # What others replaced is not read as what the file was.
        minio_client.put_object(bucket, "dir/model", io.BytesIO(b"another"), 7)
        kill_daemon(one.path, one.log_path)
        assert mapped[:10] == content[:10]
    assert (one.path / "dir" / "model").read_bytes() == b"another"
    assert "its mount goes on with" in one.log
    assert one.terminate() == 0, one.log
    assert not is_mounted(one.path)


def test_a_read_that_the_dead_daemon_had_taken_up_is_answered_by_the_next(
    mount: MountFactory, bucket: str, minio_client: Minio, proxy: Proxy
) -> None:
    content = os.urandom(MIB)
    minio_client.put_object(bucket, "file", io.BytesIO(content), len(content))
    one = mount(bucket, data_path="direct", read_only=True, restarts=9, endpoint=proxy.endpoint)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((one.path / "file").read_bytes()))
    with held(proxy, "GetObject", "file"):
        reader.start()
        wait_for(lambda: asked(proxy, "GetObject", "file"))
        kill_daemon(one.path, one.log_path)
    reader.join(END_SECONDS)
    assert read == [content]
    assert one.unmount() == 0, one.log


def test_the_next_daemon_takes_0_8_seconds_of_cpu_until_its_first_answer(
    mount: MountFactory, bucket: str
) -> None:
    """Python's start included: on a machine that does nothing else, programs wait no longer."""
    one = mount(bucket, data_path="temp", restarts=9)
    took = []
    for _ in range(3):
        kill_daemon(one.path, one.log_path)
        os.statvfs(one.path)
        fields = Path(f"/proc/{daemon_of(one.path)}/stat").read_text().rpartition(")")[2].split()
        took.append((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
    # The best: two programs on one core take each other's time.
    assert min(took) < 0.8, took


@pytest.fixture
def place(tmp_path: Path, seaweed: SeaweedServer, bucket: str) -> Iterator[Place]:
    """Mounted through a link: what it leads to must not be asked while nobody serves it."""
    place = Place(tmp_path, seaweed.endpoint, bucket, seaweed.environment)
    real = place.mountpoint
    place.mountpoint = tmp_path / "link"
    place.mountpoint.symlink_to(real)
    yield place
    for pid in daemons_of(place.mountpoint):
        os.kill(int(pid), signal.SIGKILL)
    while is_mounted(real):
        as_root("umount", "-l", real)


def test_a_daemon_that_dies_too_often_is_not_started_again(
    place: Place, bucket: str, minio_client: Minio
) -> None:
    minio_client.put_object(bucket, "file", io.BytesIO(b"bytes"), 5)
    real, log = place.mountpoint.resolve(), place.root / "log"
    options = ("--data-path=direct", "--read-only", "--restarts=1", "--metadata-ttl=0")
    outcome = place.mount(*options)
    assert (outcome.code, outcome.err) == (0, "")
    kill_daemon(real, log)
    assert (real / "file").read_bytes() == b"bytes"
    os.kill(kept_daemon(real, log), signal.SIGKILL)
    wait_for(lambda: not daemons_of(place.mountpoint))
    assert not is_mounted(real)
    assert "is given up: the daemon died 2 times within a minute" in log.read_text()
    listed = json.loads(CliRunner().invoke(list_mounts, ["--json"]).output)
    (told,) = [row["state"] for row in listed if row["mountpoint"] == str(real)]
    assert told.startswith("given up: the daemon died 2 times within a minute, the last time it")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (OTHER_VERSION, f"is of version {VERSION + 1}, and this program knows {VERSION}"),
        (DAMAGE, "is damaged: slots of 77 bytes"),
        (TOO_LARGE, f"is too large: it has {1 << 50} bytes"),
    ],
    ids=["another version", "damaged", "too large"],
)
def test_what_a_daemon_of_another_version_has_left_is_refused(
    change: str, told: str, mount: MountFactory, bucket: str
) -> None:
    """So is what is damaged, or larger than memory can be."""
    one = mount(bucket, data_path="direct", read_only=True, restarts=9)
    pid = kept_daemon(one.path, one.log_path)
    as_root(sys.executable, "-c", f"{CHANGE}        {change}", str(one.pid))
    # An upgrade leaves it all to the daemon that serves.
    refused = CliRunner().invoke(upgrade, [str(one.path)])
    assert str(refused.exception).endswith(told)
    assert daemon_of(one.path) == pid
    os.kill(pid, signal.SIGKILL)
    assert one.wait() == 1, one.log
    assert told in one.log
    assert "is given up: the new daemon could not take over the state" in one.log
    assert not is_mounted(one.path)

"""kill -9, then mount at once: up again within two seconds, whoever looked at what before."""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio

from ossfs_py.host.mountpoint import THIS_MACHINE
from ossfs_py.host.running import find_daemon
from ossfs_py.host.standing import Standing, look_at
from tests.support.comebacks import KILLS, TTLS, WORKS, most_seconds, programs, report, rounds
from tests.support.commands import (
    as_ordinary_user,
    as_root,
    open_fuse_device,
    ordinary_user,
    ossfs,
)
from tests.support.mount_command import Place, hand_over
from tests.support.mounting import is_mounted
from tests.support.seaweed import SeaweedServer


@pytest.fixture
def place(tmp_path: Path, seaweed: SeaweedServer, bucket: str) -> Iterator[Place]:
    place = Place(tmp_path, seaweed.endpoint, bucket, seaweed.environment)
    yield place
    for _ in range(10):
        if not is_mounted(place.mountpoint):
            break
        as_root("umount", "-l", place.mountpoint)


def killed_and_mounted(place: Place, *more: str, user: int, wrapper: tuple[str, ...] = ()) -> float:
    """Seconds from the kill until the mount answers again."""
    daemon = find_daemon(place.mountpoint, user)
    assert daemon is not None
    pid = daemon.mount.pid
    daemon.close()
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    outcome = place.mount(*more, wrapper=wrapper)
    took = time.monotonic() - began
    assert outcome.code == 0, outcome
    assert look_at(place.mountpoint).standing is Standing.SERVED
    assert len(THIS_MACHINE.mounts_at(place.mountpoint)) == 1
    return took


@pytest.mark.timeout(300 + KILLS * 60)
@pytest.mark.parametrize("ttl", TTLS)
@pytest.mark.parametrize("work", WORKS)
def test_a_killed_mount_is_up_again_at_once(place: Place, ttl: str, work: str) -> None:
    more = ("--metadata-ttl", ttl)
    began = time.monotonic()
    assert place.mount(*more).code == 0
    first = time.monotonic() - began  # how busy the machine is
    (place.mountpoint / "d").mkdir()
    (place.mountpoint / "d/f").write_bytes(b"1" * 100_000)
    took = []
    for _ in range(max(2, -(-KILLS // (len(WORKS) * len(TTLS))))):
        with programs(work, place.mountpoint):
            took.append(killed_and_mounted(place, *more, user=os.geteuid()))
        assert (place.mountpoint / "d/f").read_bytes() == b"1" * 100_000
    report(f"root, {work}, {ttl}", took)
    assert min(took) < most_seconds(first), (took, first)
    ended = ossfs("umount", place.mountpoint, environment={})
    # What a killed writer had not closed is kept, which umount tells.
    assert ended.code == 0 or (work == "writing" and "could not be saved" in ended.sentence), ended


@pytest.mark.timeout(300 + KILLS * 60)
@pytest.mark.skipif(os.geteuid() != 0, reason="root becomes an ordinary user")
def test_an_ordinary_users_killed_mount_is_up_again_and_root_sees_how_it_stands(
    seaweed: SeaweedServer, bucket: str
) -> None:
    uid, _ = ordinary_user()
    wrapper = tuple(as_ordinary_user())
    with open_fuse_device(), tempfile.TemporaryDirectory(dir="/tmp") as directory:
        root = Path(directory)
        place = Place(root, seaweed.endpoint, bucket, seaweed.environment)
        hand_over(place)
        try:
            assert place.mount(wrapper=wrapper).code == 0
            # Without allow_other the kernel shows root an empty file system, alive or dead.
            assert look_at(place.mountpoint).standing is Standing.SERVED
            as_user = (*wrapper, "env", f"--chdir={place.mountpoint}")
            subprocess.run(
                [*as_user, "sh", "-c", "mkdir d; head -c 100000 /dev/zero >d/f"], check=True
            )
            took = []
            for work, ttl in rounds():
                more = ("--metadata-ttl", ttl)
                with programs(work, place.mountpoint, as_user):
                    took.append(killed_and_mounted(place, *more, user=uid, wrapper=wrapper))
            report("an ordinary user", took)
            daemon = find_daemon(place.mountpoint, uid)
            assert daemon is not None
            os.kill(daemon.mount.pid, signal.SIGKILL)
            assert daemon.wait_gone(60.0)
            daemon.close()
            assert look_at(place.mountpoint).standing is Standing.DEAD
            rows = json.loads(ossfs("list", "--json", environment={}).out)
            (row,) = [row for row in rows if row["mountpoint"] == str(place.mountpoint)]
            assert row["state"] == "dead: its daemon is gone"
        finally:
            while is_mounted(place.mountpoint):
                as_root("umount", "-l", place.mountpoint)


@pytest.mark.skipif(os.geteuid() != 0, reason="root has mounts of its own")
def test_unmounting_says_who_still_has_a_copy_of_the_mount(
    place: Place, minio_client: Minio
) -> None:
    assert place.mount().code == 0
    private = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep 600"]
    with subprocess.Popen(private, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()  # it has its copy
            with (place.mountpoint / "f").open("w") as file:
                file.write("hello")
            began = time.monotonic()
            outcome = ossfs("umount", place.mountpoint, environment={})
            assert time.monotonic() - began < 60.0  # not its --timeout of ten minutes
            assert outcome.code == 1
            assert (
                "is unmounted here and everything is uploaded, but its daemon" in outcome.sentence
            )
            assert f"(process {other.pid}), which has it at {place.mountpoint}" in outcome.sentence
            assert not is_mounted(place.mountpoint)
            assert minio_client.get_object(place.bucket, "f").read() == b"hello"
            daemon = find_daemon(place.mountpoint)
            assert daemon is not None
        finally:
            other.kill()
    assert daemon.wait_gone(60.0)
    daemon.close()

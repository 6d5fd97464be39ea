"""``ossfs-py mount BUCKET /dev/fd/N``: a mount that somebody else has made, served by an ordinary
user who may mount nothing."""

import ctypes
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio

from tests.support.commands import NOBODY, as_ordinary_user, plain_environment
from tests.support.holding import wait_for
from tests.support.kept import KEPT
from tests.support.mounting import END_SECONDS, is_mounted
from tests.support.seaweed import SeaweedServer

NOSUID_NODEV = 2 | 4
DETACH = 2
LIBC = ctypes.CDLL(None, use_errno=True)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount for somebody else")


@pytest.fixture
def given(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A mountpoint and the descriptor of its mount, which nobody serves yet."""
    path = tmp_path / "mnt"
    path.mkdir()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id={NOBODY},group_id={NOBODY},default_permissions"
    told = (b"bucket", bytes(path), b"fuse.ossfs-py", NOSUID_NODEV, f"{options},allow_other")
    if LIBC.mount(*told[:-1], told[-1].encode()):
        raise OSError(ctypes.get_errno(), "mount")
    try:
        yield path, device
    finally:
        LIBC.umount2(bytes(path), DETACH)
        os.close(device)


class Served:
    """A daemon of an ordinary user over a descriptor."""

    def __init__(self, work: Path, seaweed: SeaweedServer, bucket: str, device: int) -> None:
        self._log = work / "log"
        self._work = work / "work"
        self._work.mkdir()
        os.chown(self._work, NOBODY, NOBODY)
        self._command = [
            *as_ordinary_user(),
            *(sys.executable, "-m", "ossfs_py", "mount", bucket, f"/dev/fd/{device}"),
            *(f"--endpoint={seaweed.endpoint}", "--data-path=direct", "--foreground"),
            *(f"--temp-dir={self._work}", f"--state-dir={self._work}", "--negative-ttl=0"),
        ]
        self._environment = plain_environment(seaweed.environment)
        self._device = device

    def start(self, *options: str) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*self._command, *options],
                pass_fds=[self._device],
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()


@pytest.mark.parametrize("lane", ["auto", "off"])
def test_a_mount_that_root_has_made_is_served_by_an_ordinary_user(
    lane: str,
    given: tuple[Path, int],
    tmp_path: Path,
    seaweed: SeaweedServer,
    bucket: str,
    minio_client: Minio,
) -> None:
    path, device = given
    minio_client.put_object(bucket, "dir/file", io.BytesIO(b"bytes"), 5)
    served = Served(tmp_path, seaweed, bucket, device)
    daemon = served.start(f"--fuse-lane={lane}")
    try:
        wait_for(lambda: "is mounted at" in served.log)  # until then whoever asks waits
        assert (path / "dir" / "file").read_bytes() == b"bytes"
        (path / "new").write_bytes(b"written")
        assert minio_client.get_object(bucket, "new").data == b"written"
        assert f"is mounted at {path} " in served.log or "/proc/" in served.log
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(END_SECONDS) == 0, served.log
    finally:
        daemon.kill()
        daemon.wait()
    assert is_mounted(path)  # unmounting is its owner's
    again = served.start()
    assert again.wait(END_SECONDS) == 1
    kept = served.start("--keeper=/run/keeper", "--read-only")
    assert kept.wait(END_SECONDS) == 1
    assert f"the program that has made the mount of /dev/fd/{device} keeps it" in served.log
    assert f"/dev/fd/{device} was served before" in served.log
    assert "is no longer served: the program that mounted it has to unmount it" in served.log
    assert "Traceback" not in served.log


def test_a_given_mount_outlives_its_daemon_and_ends_with_its_owner(
    given: tuple[Path, int],
    tmp_path: Path,
    seaweed: SeaweedServer,
    bucket: str,
    minio_client: Minio,
) -> None:
    path, device = given
    content = os.urandom(3_000_000)
    minio_client.put_object(bucket, "file", io.BytesIO(content), len(content))
    served = Served(tmp_path, seaweed, bucket, device)
    keeper = served.start("--read-only", "--restarts=3")
    try:
        wait_for(lambda: KEPT in served.log)
        with (path / "file").open("rb", buffering=0) as file:
            start = file.read(100_000)
            children = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGKILL)
            assert start + file.read() == content
        LIBC.umount2(bytes(path), DETACH)
        assert keeper.wait(END_SECONDS) == 0, served.log
    finally:
        keeper.kill()
        keeper.wait()
    assert "Traceback" not in served.log

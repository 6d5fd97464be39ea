"""A daemon that dies under programs that read, map and walk: another goes on, and they notice
nothing."""

import mmap
import os
import signal
import time
from pathlib import Path

from minio import Minio

from tests.conftest import MountFactory
from tests.support.mounting import END_SECONDS, Mount, is_mounted

MIB = 1024**2


def daemon_of(mount: Mount) -> int:
    """The process id of the daemon that the keeper has started last."""
    deadline = time.monotonic() + END_SECONDS
    while True:
        children = Path(f"/proc/{mount.pid}/task/{mount.pid}/children").read_text().split()
        if children:
            return int(children[0])
        assert time.monotonic() < deadline, mount.log
        time.sleep(0.01)


def kill_daemon(mount: Mount, number: int) -> None:
    """The daemon dies for the ``number``-th time, and the next one has taken over."""
    os.kill(daemon_of(mount), signal.SIGKILL)
    deadline = time.monotonic() + END_SECONDS
    while mount.log.count("its mount goes on with") < number:
        assert time.monotonic() < deadline, mount.log
        time.sleep(0.02)


def test_readers_mappings_and_walkers_go_on(
    mount: MountFactory, bucket: str, minio_client: Minio, tmp_path: Path
) -> None:
    content = os.urandom(5 * MIB)
    (tmp_path / "model").write_bytes(content)
    minio_client.fput_object(bucket, "dir/model", str(tmp_path / "model"))
    names = [f"{number:04}" for number in range(700)]
    (tmp_path / "small").write_bytes(b"small")
    for name in names:
        minio_client.fput_object(bucket, f"many/{name}", str(tmp_path / "small"))
    one = mount(
        bucket, data_path="direct", read_only=True, fuse_lane="auto", restarts=20, log_level="debug"
    )
    with (one.path / "dir" / "model").open("rb", buffering=0) as file:
        start = file.read(100_000)
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        assert mapped[:10] == content[:10]
        walked = os.scandir(one.path / "many")
        seen = [next(walked).name for _ in range(40)]
        kill_daemon(one, 1)
        assert start + file.read(2 * MIB) == content[: 100_000 + 2 * MIB]
        assert mapped[3 * MIB : 4 * MIB] == content[3 * MIB : 4 * MIB]
        kill_daemon(one, 2)
        seen += [entry.name for entry in walked]
        assert sorted(seen) == names
        assert mapped[:] == content
    assert (one.path / "many" / names[-1]).read_bytes() == b"small"
    assert one.unmount() == 0, one.log
    assert not is_mounted(one.path)

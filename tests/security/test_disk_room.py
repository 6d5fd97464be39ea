"""One user fills the local disk: that user is told, and everybody else goes on."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.support.commands import tmpfs
from tests.support.mounting import Mount
from tests.support.strangers import BECOME, ROOT, run_as_stranger

MIB = 1024**2
SIZE = 60 * MIB
FILL = (
    BECOME
    + """
written = 0
fds = []
try:
    for number in range(200):
        fds.append(os.open(f'{sys.argv[2]}/{sys.argv[1]}-{number}', os.O_RDWR | os.O_CREAT))
        # Out of order, so that every data path needs the disk for it.
        os.pwrite(fds[-1], b'x', 3 << 20)
        for at in range(0, 1 << 20, 1 << 17):
            written += os.pwrite(fds[-1], bytes(1 << 17), at)
    code = 0
except OSError as exc:
    code = exc.errno
print(json.dumps([code, written]), flush=True)
sys.stdin.read()  # stays there with its files open, as somebody who means it would
for fd in fds:
    os.close(fd)
"""
)


def free_bytes(directory: Path) -> int:
    info = os.statvfs(directory)
    return info.f_bavail * info.f_frsize


@pytest.mark.parametrize("data_path", ["temp", "cache", "direct"])
def test_who_fills_the_disk_is_told_and_others_go_on(
    shared: Callable[..., Mount], tmp_path: Path, data_path: str
) -> None:
    with tmpfs(tmp_path / "small", f"size={SIZE}") as small:
        mounted = shared(data_path=data_path, state_dir=small, temp_dir=small, min_free="10MiB")
        top = mounted.path / "for-all"
        top.mkdir()
        top.chmod(0o777)
        filler = subprocess.Popen(
            [*ROOT, sys.executable, "-c", FILL, "65534", top],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
        )
        assert filler.stdin is not None
        assert filler.stdout is not None
        code, written = json.loads(filler.stdout.readline())
        try:
            assert code == errno.ENOSPC
            assert 10 * MIB < written <= (SIZE - 10 * MIB) / 2 + MIB
            # Another user has a share of what is left, and so has the owner of the mount.
            code, others = json.loads(run_as_stranger(FILL, top, uid=65533))
            assert code == errno.ENOSPC
            assert others > 5 * MIB
            content = os.urandom(3 * MIB)
            (mounted.path / "mine").write_bytes(content)
            assert (mounted.path / "mine").read_bytes() == content
            assert free_bytes(small) >= 10 * MIB
        finally:
            filler.communicate()
            mounted.unmount()


def test_what_is_read_and_written_leaves_min_free_of_the_disk(
    mount: MountFactory, bucket: str, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "small", f"size={SIZE}") as small:
        mounted = mount(bucket, data_path="temp", temp_dir=small, memory_limit="64MiB")
        contents = [os.urandom(20 * MIB) for _ in range(4)]
        for number, content in enumerate(contents):
            (mounted.path / str(number)).write_bytes(content)
        files = [(mounted.path / str(number)).open("rb") for number in range(len(contents))]
        try:
            for _ in range(2):
                for file, content in zip(files, contents, strict=True):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    file.seek(0)
                    assert file.read() == content
                    assert free_bytes(small) >= SIZE // 10 - MIB
        finally:
            for file in files:
                file.close()
            mounted.unmount()

"""Whoever takes all the descriptors that can be had takes nothing from those who read."""

import errno
import os
import resource

import pytest

from tests.conftest import MountFactory

FEW = 200


def test_a_mount_may_open_as_many_files_as_the_system_lets_it(
    mount: MountFactory, bucket: str
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (600, hard))
    try:
        mounted = mount(bucket)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    most = 1 << 20
    expected = most if hard == resource.RLIM_INFINITY else min(hard, most)
    assert resource.prlimit(mounted.pid, resource.RLIMIT_NOFILE)[0] == expected


@pytest.mark.parametrize("data_path", ["temp", "cache", "direct"])
def test_who_has_as_many_files_open_as_can_be_takes_none_from_readers(
    mount: MountFactory, bucket: str, data_path: str
) -> None:
    mounted = mount(bucket, data_path=data_path)
    contents = {f"read-{number}": os.urandom(2_000_000) for number in range(4)}
    for name, content in contents.items():
        (mounted.path / name).write_bytes(content)
    limits = resource.prlimit(mounted.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(mounted.pid, resource.RLIMIT_NOFILE, (FEW, limits[1]))
    fds: list[int] = []
    refused = set[int]()
    try:
        for number in range(FEW):
            try:
                fd = os.open(mounted.path / f"write-{number}", os.O_RDWR | os.O_CREAT)
            except OSError as exc:
                refused.add(exc.errno)
                continue
            fds.append(fd)
            os.pwrite(fd, b"out of order", 5_000)
            os.pwrite(fd, b"first", 0)
        assert refused == {errno.ENFILE}
        assert len(fds) >= FEW // 8
        for name, content in contents.items():
            assert (mounted.path / name).read_bytes() == content
        # Who is refused leaves nothing, and may come again.
        assert not (mounted.path / f"write-{FEW - 1}").exists()
        os.close(fds.pop())
        fds.append(os.open(mounted.path / "again", os.O_WRONLY | os.O_CREAT))
    finally:
        for fd in fds:
            os.close(fd)


@pytest.mark.parametrize("data_path", ["temp", "cache", "direct"])
def test_any_number_of_files_may_be_read_at_once(
    mount: MountFactory, bucket: str, data_path: str
) -> None:
    mounted = mount(bucket, data_path=data_path)
    content = os.urandom(2_000_000)
    for number in range(FEW // 2):
        (mounted.path / f"read-{number}").write_bytes(content)
    limits = resource.prlimit(mounted.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(mounted.pid, resource.RLIMIT_NOFILE, (FEW // 2, limits[1]))
    fds = []
    try:
        for number in range(FEW // 2):
            fds.append(os.open(mounted.path / f"read-{number}", os.O_RDONLY))
            assert os.pread(fds[-1], 1000, 1_000_000) == content[1_000_000:1_001_000]
    finally:
        for fd in fds:
            os.close(fd)

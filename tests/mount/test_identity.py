"""Inode numbers and file handles over remounts, as git, tar and NFS servers rely on them."""

import ctypes
import errno
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.errnos import refused
from tests.support.mounting import Mount
from tests.support.workplace import Workplace

COLLIDING = ("4rb2sv2u", "142q30gJ")
"""Names in the root of a bucket whose inode numbers are the same: xxh3 is no cryptographic hash."""
AT_FDCWD = -100
MAX_HANDLE_BYTES = 128
_libc = ctypes.CDLL(None, use_errno=True)


class _KernelHandle(ctypes.Structure):
    """struct file_handle of name_to_handle_at(2)."""

    _fields_ = (
        ("size", ctypes.c_uint),
        ("kind", ctypes.c_int),
        ("value", ctypes.c_ubyte * MAX_HANDLE_BYTES),
    )


@dataclass(frozen=True)
class FileHandle:
    """What an NFS server keeps of a file."""

    kernels: _KernelHandle

    @classmethod
    def of(cls, path: Path) -> "FileHandle":
        handle, mount_id = _KernelHandle(size=MAX_HANDLE_BYTES), ctypes.c_int()
        name = os.fsencode(path)
        if _libc.name_to_handle_at(AT_FDCWD, name, ctypes.byref(handle), ctypes.byref(mount_id), 0):
            raise OSError(code := ctypes.get_errno(), os.strerror(code), path)
        return cls(handle)

    def read(self, mounted: Mount) -> bytes:
        """Open the file and read it whole."""
        where = os.open(mounted.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fd = _libc.open_by_handle_at(where, ctypes.byref(self.kernels), os.O_RDONLY)
            if fd < 0:
                raise OSError(code := ctypes.get_errno(), os.strerror(code))
            with os.fdopen(fd, "rb") as opened:
                return opened.read()
        finally:
            os.close(where)


def remount(mounted: Mount) -> None:
    assert mounted.unmount() == 0
    mounted.start()


def assert_same_or_stale(handle: FileHandle, mounted: Mount, name: str) -> None:
    try:
        assert handle.read(mounted) == name.encode()
    except OSError as exc:
        assert exc.errno == errno.ESTALE


def put(client: Minio, mounted: Mount, name: str, content: bytes) -> None:
    Workplace(mounted.path, mounted.path, mounted.source, "", client).put(name, content)


def test_inode_numbers_are_the_same_after_a_remount_in_whatever_order(
    mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    mounted = mount(bucket, data_path="direct")
    keys = [f"d{number % 7}/{'模' * (number % 3)}f{number}" for number in range(1000)]
    for key in keys:
        put(minio_client, mounted, key, b"")
    numbers = {key: (mounted.path / key).stat().st_ino for key in keys}
    assert len(set(numbers.values())) == len(keys)
    remount(mounted)
    listed = {
        str(Path(entry.path).relative_to(mounted.path)): entry.inode()
        for directory in sorted(mounted.path.iterdir(), reverse=True)
        for entry in os.scandir(directory)
    }
    assert listed == numbers
    assert {key: (mounted.path / key).stat().st_ino for key in reversed(keys)} == numbers


def test_a_handle_from_before_a_remount_leads_to_the_same_name_or_is_stale(
    mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    mounted = mount(bucket, data_path="direct")
    names = [f"dir/f{number}" for number in range(10)]
    for name in names:
        put(minio_client, mounted, name, name.encode())
    (mounted.path / "dir/made").write_bytes(b"made here")
    handles = {name: FileHandle.of(mounted.path / name) for name in [*names, "dir/made"]}
    for name in names:
        assert handles[name].read(mounted) == name.encode()
    remount(mounted)
    for name in reversed(names):
        assert_same_or_stale(handles[name], mounted, name)  # nobody has looked at it yet
    for path in (mounted.path / "dir").iterdir():
        path.stat()
    for name in names:
        assert handles[name].read(mounted) == name.encode()
    with refused(errno.ESTALE):
        handles["dir/made"].read(mounted)


@pytest.mark.parametrize("order", [COLLIDING, COLLIDING[::-1]], ids=["same", "other"])
def test_two_keys_of_one_number_both_work_and_no_handle_leads_to_the_other(
    mount: MountFactory, bucket: str, minio_client: Minio, data_path: str, order: tuple[str, str]
) -> None:
    mounted = mount(bucket, data_path=data_path)
    for name in COLLIDING:
        put(minio_client, mounted, name, name.encode())
    paths = {name: mounted.path / name for name in COLLIDING}
    numbers = [path.stat().st_ino for path in paths.values()]
    assert len(set(numbers)) == 2
    handles = {name: FileHandle.of(path) for name, path in paths.items()}
    for name, path in paths.items():
        assert path.read_bytes() == name.encode()
        assert handles[name].read(mounted) == name.encode()
    remount(mounted)
    for name in order:
        assert paths[name].read_bytes() == name.encode()
    first, second = (paths[name].stat().st_ino for name in order)
    assert first == numbers[0]  # whoever comes first
    assert first != second
    for name, handle in handles.items():
        assert_same_or_stale(handle, mounted, name)
    paths[order[0]].rename(mounted.path / "moved")
    assert paths[order[1]].read_bytes() == order[1].encode()
    assert (mounted.path / "moved").read_bytes() == order[0].encode()
    paths[order[1]].write_bytes(b"changed")
    (mounted.path / "moved").unlink()
    assert {path.name for path in mounted.path.iterdir()} == {order[1]}
    assert paths[order[1]].read_bytes() == b"changed"

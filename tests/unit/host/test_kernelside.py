"""Which descriptors a mount can be served over, before anything is served."""

import os
from pathlib import Path

import pytest

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.host.kernelside import check_given, given_descriptor, is_gone, is_kernels_side


@pytest.mark.parametrize(
    ("mountpoint", "descriptor"),
    [
        ("/dev/fd/3", 3),
        ("/proc/self/fd/12", 12),
        ("/dev/fd", None),
        ("/dev/fd/3/x", None),
        ("/mnt/dev/fd/3", None),
    ],
)
def test_a_mountpoint_may_stand_for_a_descriptor(mountpoint: str, descriptor: int | None) -> None:
    assert given_descriptor(Path(mountpoint)) == descriptor


def refused(descriptor: int) -> str:
    with pytest.raises(EnvironmentProblemError) as why:
        check_given(descriptor, is_new=True)
    return str(why.value)


def test_what_is_no_mount_is_refused(tmp_path: Path) -> None:
    number = os.open(tmp_path, os.O_RDONLY)
    name = f"/dev/fd/{number}"
    assert refused(number) == f"{name} is open, but not for /dev/fuse"
    os.close(number)
    assert refused(number) == (
        f"{name} is not open: the program that starts ossfs-py must pass the descriptor"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="others may not open the device everywhere")
def test_a_descriptor_without_a_mount_is_refused() -> None:
    device = os.open("/dev/fuse", os.O_RDWR)
    try:
        assert is_kernels_side(device)
        assert is_gone(device)
        assert refused(device) == (
            f"/dev/fd/{device} has no mount: call mount(2) with fd={device} before ossfs-py is"
            " started"
        )
    finally:
        os.close(device)

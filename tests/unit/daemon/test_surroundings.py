"""What a mount in a container says at its start of what it lacks."""

import os
from pathlib import Path

import pytest

from ossfs_py.config import Settings
from ossfs_py.config.units import GIB, MIB
from ossfs_py.daemon.surroundings import Surroundings, check_kept, warnings
from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.host.mountpoint import Machine

MOUNTPOINT = Path("/mnt/shared/models")
LAYER = "1 0 0:40 / / rw - overlay overlay rw\n"
SHARED = "2 1 8:1 /x /mnt/shared rw shared:1 - ext4 /dev/sda rw\n"
PRIVATE = "2 1 8:1 /x /mnt/shared rw - ext4 /dev/sda rw\n"
VOLUMES = (
    "3 1 8:1 /t /var/tmp rw - ext4 /dev/sda rw\n"
    "4 1 8:1 /c /var/cache/ossfs-py rw - ext4 /dev/sda rw\n"
    "5 1 8:1 /s /var/lib/ossfs-py rw - ext4 /dev/sda rw\n"
)


def told(
    tmp_path: Path, table: str, files: int = 65536, memory: int = GIB, **more: object
) -> list[str]:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(table)
    settings = Settings.model_validate(
        {
            "bucket": "models",
            "mountpoint": MOUNTPOINT,
            "temp_dir": Path("/var/tmp"),
            "cache_dir": Path("/var/cache/ossfs-py"),
            "state_dir": Path("/var/lib/ossfs-py"),
            "memory_limit_bytes": 64 * MIB,
            **more,
        }
    )
    around = Surroundings(Machine(mount_table=mounts), tmp_path, True, (files, files), memory)
    return list(warnings(settings, MOUNTPOINT, around))


def test_a_container_with_everything_is_told_nothing(tmp_path: Path) -> None:
    assert told(tmp_path, LAYER + SHARED + VOLUMES) == []
    assert told(tmp_path, LAYER + SHARED + VOLUMES, data_path="cache") == []


def test_a_machine_is_told_nothing(tmp_path: Path) -> None:
    settings = Settings.model_validate({"bucket": "models", "mountpoint": MOUNTPOINT})
    assert list(warnings(settings, MOUNTPOINT, Surroundings(is_container=False))) == []


def test_a_mount_that_nobody_outside_sees_is_told(tmp_path: Path) -> None:
    (sentence,) = told(tmp_path, LAYER + PRIVATE + VOLUMES)
    assert "the mount at /mnt/shared/models is not visible outside this container" in sentence
    # What is at the mountpoint itself says nothing about it.
    over = "9 2 0:60 / /mnt/shared/models rw shared:9 - fuse.ossfs-py models rw\n"
    assert len(told(tmp_path, LAYER + PRIVATE + VOLUMES + over)) == 1


def test_what_lies_in_the_containers_layer_is_told(tmp_path: Path) -> None:
    sentences = told(tmp_path, LAYER + SHARED)
    assert [one.partition(":")[0] for one in sentences] == ["--temp-dir", "--state-dir"]
    sentences = told(tmp_path, LAYER + SHARED, data_path="cache", read_only=True)
    assert [one.partition(":")[0] for one in sentences] == ["--cache-dir"]


@pytest.mark.parametrize("more", [{}, {"read_only": True}, {"data_path": "cache"}])
def test_what_the_next_container_needs_must_not_lie_in_the_layer_of_this_one(
    tmp_path: Path, more: dict[str, object]
) -> None:
    mounts = tmp_path / "mountinfo"
    given = {"bucket": "models", "mountpoint": MOUNTPOINT, "state_dir": Path("/var/lib/ossfs-py")}
    settings = Settings.model_validate({**given, "keeper": Path("/run/keeper"), **more})
    around = Surroundings(Machine(mount_table=mounts), tmp_path, True)
    mounts.write_text(LAYER + SHARED + VOLUMES)
    check_kept(settings, around)
    mounts.write_text(LAYER + SHARED)
    if settings.read_only:
        check_kept(settings, around)
    else:
        with pytest.raises(EnvironmentProblemError, match="--keeper needs a volume there"):
            check_kept(settings, around)
    # Without a keeper it is only told.
    check_kept(Settings.model_validate({**given, **more}), around)


def test_few_descriptors_are_told(tmp_path: Path) -> None:
    (sentence,) = told(tmp_path, LAYER + SHARED + VOLUMES, files=512)
    assert "only 512 files may be open at once" in sentence


def test_memory_that_is_less_than_a_mount_takes_is_told(tmp_path: Path) -> None:
    (sentence,) = told(tmp_path, LAYER + SHARED + VOLUMES, memory=64 * MIB)
    assert "has 64MiB of memory and may need 134MiB" in sentence
    assert told(tmp_path, LAYER + SHARED + VOLUMES, memory=134 * MIB) == []


def test_a_sys_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list(os.statvfs(tmp_path))
    found[8] |= os.ST_RDONLY
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*found, 1)))
    (sentence,) = told(tmp_path, LAYER + SHARED + VOLUMES)
    assert "/sys is read-only" in sentence

"""Each fault of the local directories, staged, is told by its own check."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from ossfs_py.config import Settings
from ossfs_py.daemon.options import local_directories
from ossfs_py.doctor.directories import check_directories, directory
from ossfs_py.doctor.findings import Status


def test_directories_that_are_there_are_well(tmp_path: Path) -> None:
    settings = Settings(
        bucket="models",
        mountpoint=tmp_path / "mnt",
        data_path="cache",
        temp_dir=tmp_path,
        state_dir=tmp_path,
        cache_dir=tmp_path,
    )
    found = list(check_directories(local_directories(settings)))
    assert [finding.check for finding in found] == ["temp-dir", "state-dir", "cache-dir"]
    assert {finding.status for finding in found} <= {Status.GOOD, Status.WARNING}
    assert all(finding.told.startswith(f"{tmp_path}, ") for finding in found)
    direct = settings.model_copy(update={"data_path": "direct"})
    assert [finding.check for finding in check_directories(local_directories(direct))] == [
        "temp-dir",
        "state-dir",
    ]


@pytest.mark.parametrize(
    ("made", "name", "status", "word"),
    [
        (None, "missing", Status.FAILED, "does not exist"),
        (False, "missing", Status.GOOD, "will be made"),
        (False, "missing/too", Status.FAILED, "does not exist"),
        (True, "missing/too", Status.GOOD, "will be made"),
        (None, "file", Status.FAILED, "is not a directory"),
        (False, "file", Status.FAILED, "is not a directory"),
    ],
)
def test_what_is_missing_is_made_or_told(
    tmp_path: Path, made: bool | None, name: str, status: Status, word: str
) -> None:
    (tmp_path / "file").touch()
    finding = directory("state-dir", tmp_path / name, made=made)
    assert word in finding.told
    if status is Status.FAILED:
        assert finding.status is Status.FAILED
        assert "--state-dir" in finding.fix
    else:
        assert finding.status in (Status.GOOD, Status.WARNING)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_directory_of_somebody_else_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    finding = directory("temp-dir", tmp_path, made=None)
    assert finding.status is Status.FAILED
    assert "is not writable for this user" in finding.told


@pytest.mark.parametrize(("blocks", "status"), [(10, Status.WARNING), (10 * 1024**2, Status.GOOD)])
def test_a_disk_without_room_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, status: Status
) -> None:
    room = SimpleNamespace(f_bavail=blocks, f_frsize=1024)
    monkeypatch.setattr(os, "statvfs", lambda _path: room)
    finding = directory("cache-dir", tmp_path, made=None)
    assert finding.status is status
    assert "GiB free" in finding.told

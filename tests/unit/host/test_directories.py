"""The local directories of a mount."""

import os
from pathlib import Path

import pytest

from ossfs_py.config import Settings
from ossfs_py.daemon.options import local_directories
from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.host.directories import prepare_directories


def settings(tmp_path: Path, **more: object) -> Settings:
    values: dict[str, object] = {
        "bucket": "models",
        "mountpoint": "/mnt/models",
        "temp_dir": tmp_path / "temp",
        "cache_dir": tmp_path / "cache",
        "state_dir": tmp_path / "state",
        **more,
    }
    return Settings.model_validate(values)


@pytest.fixture(autouse=True)
def temp_dir(tmp_path: Path) -> Path:
    (tmp_path / "temp").mkdir()
    return tmp_path / "temp"


def refused(found: Settings) -> str:
    with pytest.raises(EnvironmentProblemError) as caught:
        prepare_directories(local_directories(found))
    return str(caught.value)


def test_only_what_the_mount_writes_to_is_made(tmp_path: Path) -> None:
    prepare_directories(local_directories(settings(tmp_path, read_only=True, data_path="direct")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["temp"]
    prepare_directories(local_directories(settings(tmp_path)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state", "temp"]
    prepare_directories(local_directories(settings(tmp_path, data_path="cache")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "state", "temp"]
    for name in ("cache", "state"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700


def test_nothing_is_left_in_the_directories(tmp_path: Path) -> None:
    prepare_directories(local_directories(settings(tmp_path, data_path="cache")))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_temporary_directory_is_never_made(tmp_path: Path) -> None:
    found = settings(tmp_path, temp_dir=tmp_path / "typo")
    assert refused(found) == f"--temp-dir: {tmp_path}/typo does not exist"


@pytest.mark.parametrize("name", ["cache_dir", "state_dir"])
def test_parents_of_named_directories_are_not_made(name: str, tmp_path: Path) -> None:
    found = settings(tmp_path, data_path="cache", **{name: tmp_path / "typo/below"})
    assert refused(found) == (
        f"--{name.replace('_', '-')}: neither {tmp_path}/typo/below nor its parent directory exists"
    )


def test_parents_of_default_directories_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ossfs_py.config.machine.default_state_dir", lambda _: tmp_path / "a/b/state"
    )
    found = Settings.model_validate(
        {"bucket": "models", "mountpoint": "/mnt/models", "temp_dir": tmp_path}
    )
    prepare_directories(local_directories(found))
    assert (tmp_path / "a/b/state").is_dir()


def test_files_in_place_of_directories_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("temp_dir", "cache_dir", "state_dir"):
        found = settings(tmp_path, data_path="cache", **{name: tmp_path / "file"})
        assert refused(found).endswith(f"{tmp_path}/file is not a directory")


def test_a_state_directory_others_can_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o770)
    assert "others can write to" in refused(settings(tmp_path))


def test_somebody_elses_state_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").mkdir()
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    assert "belongs to another user" in refused(settings(tmp_path))


def test_a_volume_that_root_gave_to_a_group_of_ours_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = tmp_path / "state"
    volume.mkdir()
    volume.chmod(0o2770)
    monkeypatch.setattr(Path, "is_mount", lambda path: path == volume)
    prepare_directories(local_directories(settings(tmp_path)))
    volume.chmod(0o2777)  # for everybody
    assert "others can write to" in refused(settings(tmp_path))
    volume.chmod(0o2770)
    group = volume.stat().st_gid
    monkeypatch.setattr(os, "getgroups", list)
    monkeypatch.setattr(os, "getegid", lambda: group + 1)
    assert f"name a directory in it, such as {volume}/ossfs-py" in refused(settings(tmp_path))

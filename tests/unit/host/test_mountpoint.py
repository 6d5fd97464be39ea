"""What is checked before anything is mounted, on a machine made of files."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.host import preparing, standing
from ossfs_py.host.mountpoint import Machine, check_machine
from ossfs_py.host.preparing import prepare_mountpoint

FULL_RIGHTS = "CapEff:\t000001ffffffffff\n"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine where everything is as it should be."""
    (tmp_path / "fuse").touch()
    (tmp_path / "status").write_text(FULL_RIGHTS)
    (tmp_path / "mountinfo").write_text("")
    (tmp_path / "bin").mkdir()
    helper = tmp_path / "bin/fusermount3"
    helper.touch()
    helper.chmod(0o4755)
    return Machine(
        fuse_device=tmp_path / "fuse",
        fuse_conf=tmp_path / "fuse.conf",
        mount_table=tmp_path / "mountinfo",
        status=tmp_path / "status",
        program_path=str(tmp_path / "bin"),
    )


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> None:
    # nobody, who has a name on every machine.
    monkeypatch.setattr(os, "geteuid", lambda: 65534)


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def test_a_complete_machine_is_accepted(machine: Machine, as_root: None) -> None:
    check_machine(allow_other=True, machine=machine)


def test_a_missing_device_is_told(machine: Machine) -> None:
    machine.fuse_device.unlink()
    with pytest.raises(EnvironmentProblemError, match="is missing: load the kernel module"):
        check_machine(allow_other=False, machine=machine)


def test_a_root_without_rights_is_told(machine: Machine, as_root: None) -> None:
    machine.status.write_text("CapEff:\t00000000a80425fb\n")
    with pytest.raises(EnvironmentProblemError, match="CAP_SYS_ADMIN is missing"):
        check_machine(allow_other=False, machine=machine)


def test_users_need_fusermount3(machine: Machine, as_user: None) -> None:
    (Path(machine.program_path) / "fusermount3").unlink()
    with pytest.raises(EnvironmentProblemError, match="fusermount3 is missing"):
        check_machine(allow_other=False, machine=machine)


def test_users_need_a_name(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    with pytest.raises(EnvironmentProblemError, match="the user 4000000 has no name"):
        check_machine(allow_other=False, machine=machine)


def test_fusermount3_must_be_set_uid(machine: Machine, as_user: None) -> None:
    (Path(machine.program_path) / "fusermount3").chmod(0o755)
    with pytest.raises(EnvironmentProblemError, match="is not set-uid root"):
        check_machine(allow_other=False, machine=machine)


def test_users_need_permission_for_allow_other(machine: Machine, as_user: None) -> None:
    sentence = "--allow-other is not permitted: only root may use it unless"
    with pytest.raises(EnvironmentProblemError, match=sentence):
        check_machine(allow_other=True, machine=machine)
    machine.fuse_conf.write_text("#user_allow_other\n")
    with pytest.raises(EnvironmentProblemError, match=sentence):
        check_machine(allow_other=True, machine=machine)
    machine.fuse_conf.write_text("mount_max = 9\nuser_allow_other\n")
    check_machine(allow_other=True, machine=machine)


def test_an_empty_directory_is_accepted(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    prepare_mountpoint(tmp_path / "mnt", nonempty=False, machine=machine)


def test_a_missing_mountpoint_is_told(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblemError, match="mnt does not exist: create the directory"):
        prepare_mountpoint(tmp_path / "mnt", nonempty=False, machine=machine)


def test_a_file_as_mountpoint_is_told(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "mnt").touch()
    with pytest.raises(EnvironmentProblemError, match="mnt is not a directory"):
        prepare_mountpoint(tmp_path / "mnt", nonempty=False, machine=machine)


def test_a_mountpoint_below_a_file_is_told(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentProblemError, match="cannot be used: Not a directory"):
        prepare_mountpoint(tmp_path / "file/mnt", nonempty=False, machine=machine)


def test_a_directory_with_files_is_used_only_when_asked(
    machine: Machine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mnt/x").mkdir(parents=True)
    with pytest.raises(EnvironmentProblemError, match=r"is not empty: .* --nonempty"):
        prepare_mountpoint(tmp_path / "mnt", nonempty=False, machine=machine)
    prepare_mountpoint(tmp_path / "mnt", nonempty=True, machine=machine)
    assert "is not empty: the mount hides 'x'" in caplog.text


def test_users_need_a_writable_mountpoint(
    machine: Machine, tmp_path: Path, as_user: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mnt").mkdir()
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    with pytest.raises(EnvironmentProblemError, match="is not writable for this user"):
        prepare_mountpoint(tmp_path / "mnt", nonempty=False, machine=machine)


def test_a_busy_mountpoint_is_told_with_what_is_there(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "my models"
    path.mkdir()
    escaped = str(path).replace(" ", "\\040")
    machine.mount_table.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"36 22 0:31 / {escaped} rw,relatime shared:1 - fuse.ossfs-py bucket\\040x rw,user_id=7\n"
    )
    with pytest.raises(
        EnvironmentProblemError,
        match=r"my models is busy: bucket x is mounted there \(fuse.ossfs-py\)",
    ):
        prepare_mountpoint(path, nonempty=True, machine=machine)
    assert machine.mounts_at(path)[0].owner == 7


def test_dead_mounts_are_cleared_one_after_the_other(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mnt"
    path.mkdir()
    line = f"36 22 0:31 / {path} rw - fuse.ossfs-py bucket rw,user_id=0\n"
    machine.mount_table.write_text(line * 2)

    def unmount(where: Path, *, lazy: bool) -> None:
        assert (where, lazy) == (path, True)
        machine.mount_table.write_text(machine.mount_table.read_text().removesuffix(line))

    monkeypatch.setattr(standing, "_asked", lambda *_: errno.ENOTCONN)
    monkeypatch.setattr(preparing, "unmount", unmount)
    prepare_mountpoint(path, nonempty=False, machine=machine)
    assert machine.mount_table.read_text() == ""


def test_other_fuse_mounts_are_not_taken_for_dead(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "mnt"
    path.mkdir()
    table = f"36 22 0:31 / {path} rw - fuse.sshfs host: rw,user_id=0\n"
    machine.mount_table.write_text(table)
    with pytest.raises(EnvironmentProblemError, match=r"busy: host: is mounted there"):
        prepare_mountpoint(path, nonempty=False, machine=machine)
    assert machine.mount_table.read_text() == table


def test_the_mount_table_of_this_machine_is_understood() -> None:
    assert any(entry.mountpoint == Path("/proc") for entry in Machine().mounts())
    assert replace(Machine().mounts_at(Path("/proc"))[0], source="x").filesystem_type == "proc"

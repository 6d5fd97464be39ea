"""Each fault of the machine, staged, is told by its own check."""

import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from ossfs_py.doctor.findings import Finding, Status
from ossfs_py.doctor.host import (
    Host,
    check_host,
    fuse_device,
    fusermount,
    kernel,
    open_files,
    others_allowed,
    passthrough,
    privilege,
    restarts,
)
from ossfs_py.host.mountpoint import Machine

USER = 1000


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A machine on which everything is well, for an ordinary user."""
    (tmp_path / "fuse").touch()
    (tmp_path / "fuse.conf").write_text("# who may\nuser_allow_other\n")
    (tmp_path / "filesystems").write_text("nodev\tsysfs\n\text4\n")
    helper = tmp_path / "bin" / "fusermount3"
    helper.parent.mkdir()
    helper.touch()
    helper.chmod(0o4755)
    machine = Machine(
        fuse_device=tmp_path / "fuse",
        fuse_conf=tmp_path / "fuse.conf",
        program_path=str(helper.parent),
        status=tmp_path / "status",
    )
    (tmp_path / "status").write_text("CapEff:\t000001ffffffffff\n")
    return Host(
        machine=machine,
        release="6.12.0-13-amd64",
        filesystems=tmp_path / "filesystems",
        user=USER,
        file_limits=(4096, 4096),
    )


def told(finding: Finding) -> tuple[Status, str]:
    return finding.status, finding.told


def test_a_machine_without_faults_is_well(host: Host) -> None:
    if os.geteuid() != 0:
        # Only root can make the helper of this test set-uid root.
        host = replace(host, machine=replace(host.machine, program_path="/usr/bin:/bin"))
    findings = list(check_host(host, allow_other=True, has_lane=True))
    assert {finding.status for finding in findings} == {Status.GOOD}
    assert len({finding.check for finding in findings}) == len(findings) == 8


@pytest.mark.parametrize(
    ("release", "status", "word"),
    [
        ("3.10.0-1160.el7", Status.FAILED, "too old"),
        ("4.18.0-80", Status.WARNING, "128 KiB at a time"),
        ("4.20.1", Status.GOOD, "Linux 4.20.1"),
        ("unknown", Status.WARNING, "not a Linux version"),
    ],
)
def test_the_kernel_s_age(host: Host, release: str, status: Status, word: str) -> None:
    finding = kernel(replace(host, release=release))
    assert finding.status is status
    assert word in finding.told


def test_whether_a_mount_can_outlive_its_daemon_is_told(host: Host) -> None:
    assert restarts(replace(host, release="6.9.0"), has_lane=True).status is Status.GOOD
    for release in ("6.8.12", "5.10.0", "unknown"):
        finding = restarts(replace(host, release=release), has_lane=True)
        assert told(finding) == (
            Status.SKIPPED,
            "--restarts and 'ossfs-py upgrade' need Linux 6.9 or newer",
        )
    assert told(restarts(replace(host, release="6.9.0"), has_lane=False)) == (
        Status.SKIPPED,
        "--restarts and 'ossfs-py upgrade' need the fast lane, and --fuse-lane is off",
    )


def test_whether_the_kernel_may_read_cached_files_is_told(host: Host) -> None:
    assert passthrough(replace(host, release="6.9.0", user=0)).status is Status.GOOD
    assert passthrough(replace(host, user=1000)).told.startswith("not root")
    host.machine.status.write_text("CapEff:\t0000000000000000\n")
    for release, reason in (
        ("6.8.12", "Linux 6.8.12 cannot, 6.9 or newer can"),
        ("unknown", "Linux unknown cannot, 6.9 or newer can"),
        ("6.18.1", "only root may let it (CAP_SYS_ADMIN)"),
    ):
        finding = passthrough(replace(host, release=release, user=0))
        text = f"the kernel does not read cached files itself: {reason}"
        assert told(finding) == (Status.SKIPPED, text)


def test_a_missing_device_is_told_with_what_brings_it(host: Host) -> None:
    host.machine.fuse_device.unlink()
    finding = fuse_device(host)
    assert told(finding) == (Status.FAILED, f"{host.machine.fuse_device} is missing")
    assert finding.fix == "modprobe fuse"
    host.filesystems.write_text("nodev\tfuse\n")
    assert "--device /dev/fuse" in fuse_device(host).fix


def test_a_device_that_cannot_be_opened_is_told(host: Host) -> None:
    host.machine.fuse_device.unlink()
    # Nobody can open a socket's name, root neither.
    host.machine.fuse_device.symlink_to(host.machine.fuse_device)
    finding = fuse_device(host)
    assert finding.status is Status.FAILED
    assert "cannot be opened" in finding.told


@pytest.mark.parametrize(
    ("user", "capabilities", "status"),
    [
        (0, "000001ffffffffff", Status.GOOD),
        (0, "00000000a80425fb", Status.FAILED),
        (USER, "0000000000000000", Status.GOOD),
    ],
)
def test_root_without_the_capability_to_mount_is_told(
    host: Host, tmp_path: Path, user: int, capabilities: str, status: Status
) -> None:
    (tmp_path / "status").write_text(f"Name:\tx\nCapEff:\t{capabilities}\n")
    machine = replace(host.machine, status=tmp_path / "status")
    finding = privilege(replace(host, machine=machine, user=user))
    assert finding.status is status
    assert status is Status.GOOD or "--cap-add SYS_ADMIN" in finding.fix


@pytest.mark.parametrize(("user", "status"), [(USER, Status.FAILED), (0, Status.WARNING)])
def test_a_missing_helper_is_told(host: Host, user: int, status: Status) -> None:
    machine = replace(host.machine, program_path="/nonexistent")
    finding = fusermount(replace(host, machine=machine, user=user))
    assert finding.status is status
    assert "missing" in finding.told
    assert "fuse3" in finding.fix


@pytest.mark.parametrize(("user", "status"), [(USER, Status.FAILED), (0, Status.WARNING)])
def test_a_helper_without_its_rights_is_told(host: Host, user: int, status: Status) -> None:
    (Path(host.machine.program_path) / "fusermount3").chmod(0o755)
    finding = fusermount(replace(host, user=user))
    assert finding.status is status
    assert "not set-uid root" in finding.told
    assert "chmod u+s" in finding.fix


def test_a_permission_that_is_missing_matters_to_those_who_ask_for_it(host: Host) -> None:
    host.machine.fuse_conf.write_text("#user_allow_other\n")
    finding = others_allowed(host, wanted=True)
    assert finding.status is Status.FAILED
    assert "does not permit --allow-other" in finding.told
    assert others_allowed(host, wanted=False).status is Status.SKIPPED
    assert others_allowed(replace(host, user=0), wanted=True).status is Status.GOOD
    host.machine.fuse_conf.unlink()
    assert others_allowed(host, wanted=True).status is Status.FAILED


@pytest.mark.parametrize(
    ("soft", "status"),
    [
        (64, Status.FAILED),
        (512, Status.WARNING),
        (1024, Status.GOOD),
        (resource.RLIM_INFINITY, Status.GOOD),
    ],
)
def test_the_limit_of_open_files(host: Host, soft: int, status: Status) -> None:
    finding = open_files(replace(host, file_limits=(soft, 4096)))
    assert finding.status is status
    assert status is Status.GOOD or f"only {soft} may be open" in finding.told

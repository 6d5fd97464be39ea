"""The helpers of mount(8) and umount(8), and cleanup: what they say and how they exit."""

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from ossfs_py.cli import mount_helper, umount_helper
from ossfs_py.cli.main import main

Main = Callable[[list[str]], NoReturn]


def run(
    capsys: pytest.CaptureFixture[str], program: Main, *argv: str | Path
) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        program([str(word) for word in argv])
    assert isinstance(end.value.code, int)
    out, err = capsys.readouterr()
    return end.value.code, out, err


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("b", "/mnt", "-o", "rw,_netdev,x-y=z,uid=0"), 0, ""),
        (("b", "/mnt", "-n", "-v", "-t", "fuse.ossfs-py", "-o", "rw"), 0, ""),
        (("b", "/mnt", "-o", "colour=red"), 1, "-o colour: no such option"),
        (("b", "/mnt", "-o", "uid=nobody-knows"), 1, "-o uid: 'nobody-knows' is neither a number"),
        (("b", "/mnt", "-s", "-o", "colour=red"), 0, ""),
        (("b", "/mnt", "-N", "/proc/1/ns/mnt"), 32, "it cannot mount in another namespace"),
        (("b", "/mnt", "-x"), 1, "No such option"),
        (("b",), 1, "Missing argument 'MOUNTPOINT'"),
        (("b", "/", "-o", "remount,ro"), 32, "/ is outside every ossfs-py mount"),
    ],
)
def test_a_dry_run_of_the_mount_helper(
    argv: tuple[str, ...], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out, err = run(capsys, mount_helper.main, *argv, "-f")
    assert (found, out) == (code, "")
    assert err.startswith(f"mount.ossfs-py: {said}" if said else "")
    assert err.count("\n") == (1 if said else 0)


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("/proc",), 32, "/proc is not a mount of ossfs-py"),
        (("-l", "-f", "-n", "-v", "-r", "-t", "x", "/nowhere"), 32, "/nowhere is not a mountpoint"),
        (("-N", "1", "/"), 32, "it cannot unmount in another namespace"),
        ((), 1, "Missing argument 'MOUNTPOINT'"),
    ],
)
def test_the_umount_helper_refuses_what_is_not_ours(
    argv: tuple[str, ...], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out, err = run(capsys, umount_helper.main, *argv)
    assert (found, out) == (code, "")
    assert err.startswith(f"umount.ossfs-py: {said}")


def test_cleanup_leaves_alone_what_is_no_dead_mount(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "mount.toml"
    config.write_text(f'bucket = "b"\nmountpoint = "{tmp_path}"\n')
    assert run(capsys, main, "cleanup", tmp_path) == (0, "", "")
    assert run(capsys, main, "cleanup", "/proc") == (0, "", "")
    assert run(capsys, main, "cleanup", "--config", config) == (0, "", "")


def test_cleanup_wants_to_know_where(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, main, "cleanup", "--config", "/nowhere")
    assert code == 2
    assert "cannot read /nowhere" in err

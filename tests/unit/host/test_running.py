"""The register of running mounts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.host.running import RunningMount, find_daemon, registered

SERVER = """
import signal, sys
from pathlib import Path
from ossfs_py.host.running import RunningMount, registered
import os
with registered(RunningMount(os.getpid(), sys.argv[2], "models", "temp"), (Path(sys.argv[1]),)):
    print("registered", flush=True)
    sys.stdin.read()
"""


def serving(directory: Path, mountpoint: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(directory), mountpoint],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "registered\n"
    return process


def test_a_running_daemon_is_found_and_waited_for(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with serving(directory, "/mnt/x") as process:
        daemon = find_daemon(Path("/mnt/x"), os.geteuid(), (directory,))
        assert daemon is not None
        assert daemon.mount == RunningMount(process.pid, "/mnt/x", "models", "temp")
        assert not daemon.wait_gone(0)
        process.communicate()
        assert daemon.wait_gone(10)
        daemon.close()
    assert not directory.exists()
    assert find_daemon(Path("/mnt/x"), os.geteuid(), (directory,)) is None


def test_a_mountpoint_is_served_once(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with serving(directory, "/mnt/x") as process:
        with (
            pytest.raises(EnvironmentProblemError, match="/mnt/x is busy: another ossfs-py"),
            registered(RunningMount(1, "/mnt/x", "models", "temp"), (directory,)),
        ):
            pass
        with registered(RunningMount(os.getpid(), "/mnt/y", "models", "temp"), (directory,)):
            assert find_daemon(Path("/mnt/x"), os.geteuid(), (directory,)) is not None
        process.communicate()


def test_a_killed_daemon_leaves_nothing_that_looks_alive(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with serving(directory, "/mnt/x") as process:
        process.kill()
        process.communicate()
    assert find_daemon(Path("/mnt/x"), os.geteuid(), (directory,)) is None
    with registered(RunningMount(os.getpid(), "/mnt/x", "models", "temp"), (directory,)):
        pass
    assert not directory.exists()


def test_a_hanging_daemon_is_hurried_to_its_end(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with serving(directory, "/mnt/x") as process:
        daemon = find_daemon(Path("/mnt/x"), os.geteuid(), (directory,))
        assert daemon is not None
        assert daemon.hurry(10)
        daemon.close()
        process.communicate()


def test_a_directory_others_can_write_to_is_not_trusted(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    directory.chmod(0o777)
    with (
        pytest.raises(EnvironmentProblemError, match="can be used to register the mount"),
        registered(RunningMount(1, "/mnt/x", "models", "temp"), (directory,)),
    ):
        pass
    assert find_daemon(Path("/mnt/x"), os.geteuid(), (directory,)) is None


def test_records_of_killed_daemons_are_removed_by_the_next_one(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with serving(directory, "/mnt/alive") as alive:
        with serving(directory, "/mnt/killed") as killed:
            killed.kill()
            killed.communicate()
        assert len(list(directory.iterdir())) == 4
        with registered(RunningMount(os.getpid(), "/mnt/x", "models", "temp"), (directory,)) as own:
            assert own.stat().st_mode & 0o777 == 0o700
            (own / "file").touch()
            assert len(list(directory.iterdir())) == 4
        assert len(list(directory.iterdir())) == 2
        alive.communicate()
    assert not directory.exists()

"""The register of running mounts."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.host.running import (
    SOCKET_NAME,
    FoundDaemon,
    GivenUp,
    RunningMount,
    find_daemon,
    given_up_mounts,
    note_given_up,
    registered,
    running_mounts,
)

SERVER = """
import os, signal, socket, sys
from pathlib import Path
from ossfs_py.host.running import SOCKET_NAME, RunningMount, registered
record = RunningMount(int(sys.argv[3]) or os.getpid(), sys.argv[2], "models", "temp")
with registered(record, (Path(sys.argv[1]),)) as own, socket.socket(socket.AF_UNIX) as listener:
    listener.bind(str(own / SOCKET_NAME))
    listener.listen()
    print("registered", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory with a short name: a socket's path has 107 bytes at most."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def serving(directory: Path, mountpoint: str, claimed_pid: int = 0) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(directory), mountpoint, str(claimed_pid)],
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


def test_a_mount_that_was_given_up_is_told_of_until_its_mountpoint_is_served_again(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "run"
    ended = [GivenUp("/mnt/x", "models", "it died"), GivenUp("/mnt/y", "models", "it died")]
    for one in ended:
        note_given_up(one, (directory,))
    (directory / "other.ended").write_text("no note")
    assert given_up_mounts((directory,)) == ended
    with serving(directory, "/mnt/x") as process:
        assert given_up_mounts((directory,)) == ended[1:]
        process.communicate()


def test_the_mounts_of_live_daemons_are_listed(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    assert running_mounts((directory,)) == []
    with serving(directory, "/mnt/x") as first, serving(directory, "/mnt/a\nb") as second:
        assert [one.mountpoint for one in running_mounts((directory,))] == ["/mnt/a\nb", "/mnt/x"]
        first.kill()
        first.wait()
        assert [one.mountpoint for one in running_mounts((directory,))] == ["/mnt/a\nb"]
        second.communicate()


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


# -- what others may have written -----------------------------------------------------------------


def test_whatever_pid_a_record_names_only_its_daemon_is_signalled(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with (
        subprocess.Popen(["sleep", "60"]) as bystander,
        serving(directory, "/mnt/x", claimed_pid=bystander.pid) as process,
    ):
        daemon = find_daemon(Path("/mnt/x"), os.geteuid(), (directory,))
        assert daemon is not None
        assert daemon.mount.pid == bystander.pid
        assert daemon.hurry(10)
        assert process.wait(10) == -signal.SIGTERM
        assert bystander.poll() is None
        daemon.close()
        bystander.kill()


def test_a_socket_of_somebody_else_is_nobodys_to_signal(tmp_path: Path) -> None:
    path = tmp_path / SOCKET_NAME
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        mount = RunningMount(os.getpid(), "/mnt/x", "models", "temp")
        fd = os.open(tmp_path / "record", os.O_RDWR | os.O_CREAT)
        daemon = FoundDaemon(mount, tmp_path, os.geteuid() + 1, fd)
        # This very process listens there: a signal would end the test.
        assert daemon.hurry(10)
        daemon.close()


def record_of(directory: Path) -> Path:
    (record,) = directory.glob("*.json")
    return record


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["fifo", "symlink", "hard link", "endless", "nested", "no object"])
def test_a_record_that_no_daemon_wrote_is_passed_over(tmp_path: Path, kind: str) -> None:
    directory = tmp_path / "run"
    with serving(directory, "/mnt/x") as process:
        record = record_of(directory)
        text = record.read_text()
        # The daemon holds the lock of what it wrote; here is something else in its place.
        with record.open("rb+") as held:
            if kind in ("fifo", "symlink"):
                record.unlink()
                if kind == "fifo":
                    os.mkfifo(record)
                else:
                    (tmp_path / "elsewhere").write_text(text)
                    record.symlink_to(tmp_path / "elsewhere")
            elif kind == "hard link":
                (tmp_path / "second").hardlink_to(record)
            else:
                odd = {"endless": text + " " * 70_000, "nested": "[" * 60_000, "no object": "[1]"}
                held.truncate()
                held.write(odd[kind].encode())
                held.flush()
            assert find_daemon(Path("/mnt/x"), os.geteuid(), (directory,)) is None
        process.kill()
        process.communicate()


def test_a_directory_that_a_stranger_made_first_does_not_keep_a_user_from_mounting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = os.geteuid()
    taken, spare = tmp_path / f"ossfs-py-{uid}", tmp_path / f"ossfs-py-{uid}-"
    taken.mkdir(0o777)
    taken.chmod(0o777)
    monkeypatch.setattr(
        "ossfs_py.host.running.runtime_dirs",
        lambda _uid: (tmp_path / "no/run", taken, *sorted(tmp_path.glob(f"{spare.name}*"))),
    )
    monkeypatch.setattr("ossfs_py.host.running.SPARE_ROOT", tmp_path)
    mount = RunningMount(os.getpid(), "/mnt/x", "models", "temp")
    with registered(mount) as own:
        assert own.parent.name.startswith(spare.name)
        assert own.parent.stat().st_mode & 0o077 == 0
        daemon = find_daemon(Path("/mnt/x"))
        assert daemon is not None
        daemon.close()
    assert not list(tmp_path.glob(f"{spare.name}*"))

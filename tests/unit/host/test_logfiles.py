"""Log files at paths where others may have been first."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.host.logfiles import UnsafeFileError, open_for_appending
from ossfs_py.telemetry.accesslog import AccessLog
from tests.support.descriptors import open_below

SOMEBODY = 4711


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """What waits on a pipe is ended by an alarm."""

    def ring(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def add(path: Path, line: bytes) -> None:
    fd = open_for_appending(path)
    with os.fdopen(fd, "ab") as file:
        file.write(line)


def test_lines_are_added_to_a_file_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for line in (b"1", b"2"):
        add(path, line)
    assert path.read_bytes() == b"12"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("size_bytes", [None, 1000])
def test_a_log_does_not_follow_a_link_that_somebody_else_made(
    tmp_path: Path, size_bytes: int | None
) -> None:
    victim, path = tmp_path / "victim", tmp_path / "log"
    victim.write_text("precious")
    path.symlink_to(victim)
    os.lchown(path, SOMEBODY, SOMEBODY)
    with pytest.raises(EnvironmentProblemError, match="another user made"):
        AccessLog(path, size_bytes)
    assert victim.read_text() == "precious"


def test_a_log_does_not_follow_a_link_of_somebody_else_to_its_directory(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "logs").symlink_to(tmp_path / "real")
    os.lchown(tmp_path / "logs", SOMEBODY, SOMEBODY)
    with pytest.raises(EnvironmentProblemError, match="another user made"):
        AccessLog(tmp_path / "logs" / "log", None)
    assert list((tmp_path / "real").iterdir()) == []


def test_a_log_does_not_go_into_a_file_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    os.chown(path, SOMEBODY, SOMEBODY)
    with pytest.raises(EnvironmentProblemError, match="belongs to another user"):
        AccessLog(path, None)


def test_a_log_does_not_go_into_a_file_with_another_name(tmp_path: Path) -> None:
    (tmp_path / "victim").touch()
    os.link(tmp_path / "victim", tmp_path / "log")
    with pytest.raises(EnvironmentProblemError, match="other names"):
        AccessLog(tmp_path / "log", None)


@pytest.mark.parametrize("is_read", [False, True])
def test_a_log_does_not_wait_on_a_pipe(tmp_path: Path, is_read: bool) -> None:
    path = tmp_path / "log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if is_read else None
    try:
        with within(20), pytest.raises(EnvironmentProblemError):
            AccessLog(path, None)
    finally:
        if reader is not None:
            os.close(reader)


def test_a_file_put_in_the_way_of_a_log_that_was_moved_is_not_taken(tmp_path: Path) -> None:
    path, victim = tmp_path / "log", tmp_path / "victim"
    victim.write_text("precious")
    access = AccessLog(path, None)
    path.rename(tmp_path / "log.1")
    path.symlink_to(victim)
    os.lchown(path, SOMEBODY, SOMEBODY)
    access.write({"call": "read"})  # what cannot be written is counted, and disturbs nobody
    path.unlink()
    access.write({"call": "write"})
    access.close()
    assert victim.read_text() == "precious"
    assert "could not be written" in path.read_text()


def test_links_of_root_or_the_user_and_devices_are_taken(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "logs").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "log").symlink_to(tmp_path / "data")
    add(tmp_path / "logs" / "log", b"x")
    assert (tmp_path / "data").read_bytes() == b"x"
    add(Path("/dev/null"), b"x")
    own, other = os.pipe()
    try:
        add(Path(f"/dev/fd/{other}"), b"x")
        assert os.read(own, 10) == b"x"
    finally:
        os.close(own)
        os.close(other)


def test_links_in_a_circle_are_told(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "log")
    with pytest.raises(EnvironmentProblemError, match="circle"):
        AccessLog(tmp_path / "log", None)


def test_what_is_refused_leaves_no_descriptor_open(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with pytest.raises(OSError, match="directory"):
        open_for_appending(tmp_path / "log")
    (tmp_path / "other").touch()
    os.link(tmp_path / "other", tmp_path / "another")
    with pytest.raises(UnsafeFileError):
        open_for_appending(tmp_path / "other")
    assert open_below(tmp_path) == []

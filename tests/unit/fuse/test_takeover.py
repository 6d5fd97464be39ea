"""When the lane can be had, and that libfuse has its descriptor back afterwards."""

import os
import platform
import socket
from pathlib import Path

import pytest

from ossfs_py.fuse import takeover
from ossfs_py.fuse.takeover import (
    NoLaneError,
    check_lane,
    page_limit,
    session_descriptor,
    taken_over,
)


def test_a_kernel_that_speaks_an_older_protocol_has_no_lane(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_lane()
    for release in ("4.19.0-27-amd64", "5.3.18", "3.10.0-1160.el7", "unknown"):
        monkeypatch.setattr(platform, "release", lambda release=release: release)
        with pytest.raises(NoLaneError, match="too old"):
            check_lane()


def test_without_packets_that_can_be_spliced_there_is_no_lane(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object) -> int:
        raise OSError("no")

    monkeypatch.setattr(os, "splice", refused)
    with pytest.raises(NoLaneError, match="spliced"):
        check_lane()


def test_the_descriptor_of_the_session_is_the_only_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now: list[int] = [3, 9]
    monkeypatch.setattr(takeover, "fuse_descriptors", lambda: now)
    assert session_descriptor([3]) == 9
    for before in ([], [3, 9]):
        with pytest.raises(NoLaneError, match="descriptors"):
            session_descriptor(before)


def test_libfuse_gets_its_descriptor_back() -> None:
    kernel, given = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel, given:
        number = given.fileno()
        with taken_over(number) as (device, to_pyfuse3):
            kernel.send(b"from the kernel")
            assert os.read(device, 100) == b"from the kernel"
            with pytest.raises(BlockingIOError):
                os.read(device, 100)
            to_pyfuse3.send(b"passed on")
            assert os.read(number, 100) == b"passed on"
            assert not os.get_inheritable(number)
            assert not os.get_inheritable(device)
        os.write(number, b"itself again")
        assert kernel.recv(100) == b"itself again"
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(device)


def test_the_kernel_s_limit_of_pages_is_read_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = tmp_path / "max_pages_limit"
    monkeypatch.setattr(takeover, "_MAX_PAGES_LIMIT", limit)
    assert page_limit() == 0
    for told, taken in (("256\n", 256), ("65535\n", 65535), ("x", 0)):
        limit.write_text(told)
        assert page_limit() == taken

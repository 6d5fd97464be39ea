"""What two daemons of one mount say to each other, and what their deaths mean."""

import json
import socket
import subprocess
import sys

import pytest

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.host import handover, remains
from ossfs_py.host.handover import Predecessor, Successor


def test_what_is_wrong_with_the_new_one_is_told_in_one_sentence() -> None:
    successor = Successor({"bucket": "models"})
    predecessor = Predecessor(successor.its_channel)
    assert predecessor.settings == {"bucket": "models"}
    assert successor.answer() is None
    with pytest.raises(EnvironmentProblemError, match="ValueError: a bug"):  # noqa: SIM117
        with predecessor.hears_failures():
            raise ValueError("a bug")
    with pytest.raises(EnvironmentProblemError, match="ValueError: a bug"):
        successor.answer()
    with pytest.raises(EnvironmentProblemError), predecessor.hears_failures():
        raise EnvironmentProblemError("--concurrency: must be at least 1\n--region: is empty")
    successor.its_channel.close()
    told = "--concurrency: must be at least 1; --region: is empty"
    with pytest.raises(EnvironmentProblemError, match=f"^{told}$"):
        successor.answer()
    successor.send_away()


def test_the_last_line_of_one_that_died_is_why() -> None:
    successor = Successor({})
    with successor.its_channel as channel:
        # It has read nothing: the end of such a socket is told as a reset first.
        channel.send(b"Traceback (most recent call last):\n")
        channel.send(b"ModuleNotFoundError: No module named 'click'\n")
    with pytest.raises(EnvironmentProblemError, match="ModuleNotFoundError: No module named 'cl"):
        successor.answer()
    successor.send_away()


def test_one_that_is_not_wanted_any_more_goes() -> None:
    successor = Successor({})
    predecessor = Predecessor(successor.its_channel)
    successor.send_away()
    with pytest.raises(EnvironmentProblemError, match="goes on itself"):
        predecessor.wait_gone("1.0")
    assert predecessor.serves
    successor.its_channel.close()


def test_the_end_of_the_old_one_is_the_word_to_go_on() -> None:
    """Also where it dies without having read that the new one is ready."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as old, ours:
        ours.send(json.dumps({"pid": old.pid, "settings": {}}).encode())
        predecessor = Predecessor(theirs)
        ours.close()
        old.kill()
        predecessor.wait_gone("1.0")
    assert not predecessor.serves


def test_an_old_one_that_ends_only_when_the_new_one_serves_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as old, ours:
        monkeypatch.setattr(handover, "LOOK_SECONDS", 0.01)
        monkeypatch.setattr(remains, "waits_for_the_next", lambda pid: pid == old.pid)
        ours.send(json.dumps({"pid": old.pid, "settings": {}}).encode())
        predecessor = Predecessor(theirs)
        predecessor.wait_gone("1.0")
        assert old.poll() is None
        old.kill()
    assert not predecessor.serves


def test_one_that_was_sent_away_does_not_go_on_when_the_old_one_dies_at_once() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as old, theirs:
        ours.send(json.dumps({"pid": old.pid, "settings": {}}).encode())
        predecessor = Predecessor(theirs)
        ours.send(b"stays")
        ours.close()
        old.kill()
        old.wait()
        with pytest.raises(EnvironmentProblemError, match="goes on itself"):
            predecessor.wait_gone("1.0")
    assert predecessor.serves

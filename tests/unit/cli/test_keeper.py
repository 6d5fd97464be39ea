"""The keeper: which deaths of its daemon it mends, and what it makes of the others.

The daemons here are short scripts; a socket stands for the kernel's descriptor.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PRELUDE = """
import os, signal, socket, sys, time
from pathlib import Path
from ossfs_py.cli.kept import changed_by_upgrades, keeper_of, predecessor_of
from ossfs_py.host.handover import Successor
predecessor = predecessor_of(os.environ)
changes = changed_by_upgrades(os.environ)
note = Path(sys.argv[1])
lives = len(note.read_text().splitlines()) if note.exists() else 0
keeper, ready = keeper_of(os.environ)
def say(text):
    with note.open("a") as file:
        print(text, file=file)
def die():
    os.kill(os.getpid(), signal.SIGKILL)
say(keeper.given_up or ("again" if keeper.device else "first"))
if keeper.given_up:
    sys.exit(9)
kernel, ours = socket.socketpair()
def hand_over():
    if keeper.device is None:
        keeper.hand_over(ours.fileno())
        if os.fork() == 0:  # somebody keeps the other end open, as the kernel does
            os.setsid()
            time.sleep(60)
            os._exit(0)
"""
SECONDS = 120


def keeper(
    note: Path, body: str, restarts: int = 2, *, holds: bool = True
) -> "subprocess.Popen[bytes]":
    prelude = PRELUDE if holds else PRELUDE.replace("os.fork()", "1")
    command = [sys.executable, "-c", prelude + body, str(note)]
    return subprocess.Popen(
        [sys.executable, "-m", "ossfs_py.cli.keeper", str(restarts), "-1", "1", *command]
    )


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        ("sys.exit(3)", 3, ["first"]),
        ("die()", 137, ["first"]),
        ("hand_over(); keeper.ended(); sys.exit(1)", 1, ["first"]),
        ("hand_over(); keeper.ended(); die()", 137, ["first"]),
        (
            "hand_over(); sys.exit(1) if keeper.device is None else keeper.ended()",
            0,
            ["first", "again"],
        ),
    ],
    ids=["never mounted", "died before", "ended badly", "died while it ended", "failed once"],
)
def test_only_a_daemon_whose_mount_is_still_there_is_started_again(
    body: str, code: int, told: list[str], tmp_path: Path
) -> None:
    assert keeper(tmp_path / "note", body).wait(SECONDS) == code
    assert (tmp_path / "note").read_text().splitlines() == told


def test_a_daemon_that_dies_too_often_is_given_up(tmp_path: Path) -> None:
    assert keeper(tmp_path / "note", "hand_over(); die()").wait(SECONDS) == 137
    first, *lives, last = (tmp_path / "note").read_text().splitlines()
    assert (first, lives) == ("first", ["again", "again"])
    assert last == (
        "the daemon died 3 times within a minute, the last time it was killed by signal 9"
        " (--restarts)"
    )


HANGS = """
from ossfs_py.runtime.ledger import StateTable
StateTable(keeper.ledger)
hand_over()
if keeper.device is None:
    {first}
    time.sleep(60)
keeper.beat()
time.sleep(1)
keeper.ended()
"""


@pytest.mark.parametrize(
    ("first", "told"),
    [("keeper.beat()", ["first", "again"]), ("keeper.ended(); sys.exit(0)", ["first"])],
    ids=["silent", "busy"],
)
def test_a_daemon_that_hangs_is_replaced_where_a_watchdog_is(
    first: str,
    told: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    began = time.monotonic()
    assert keeper(tmp_path / "note", HANGS.format(first=first)).wait(SECONDS) == 0
    assert (tmp_path / "note").read_text().splitlines() == told
    assert ("was silent for" in capfd.readouterr().err) == (len(told) > 1)
    assert time.monotonic() - began < 60


def test_a_daemon_that_cannot_go_on_is_not_tried_twice(tmp_path: Path) -> None:
    body = "hand_over(); keeper.refused() if keeper.device else None; sys.exit(1)"
    assert keeper(tmp_path / "note", body).wait(SECONDS) == 1
    assert (tmp_path / "note").read_text().splitlines() == [
        "first",
        "again",
        "the new daemon could not take over the state of the old one",
    ]


def test_a_mount_that_somebody_took_down_is_not_served_again(tmp_path: Path) -> None:
    # Nobody holds the other end of what stands for the kernel's descriptor when the daemon dies.
    assert keeper(tmp_path / "note", "hand_over(); die()", holds=False).wait(SECONDS) == 137
    assert (tmp_path / "note").read_text().splitlines() == ["first"]


UPGRADE = """
hand_over()
def ready(changes):
    successor = Successor({"bucket": "b"})
    with successor.its_channel:
        keeper.start_next(changes, successor.its_channel)
    while (answer := successor.answer()) is None:
        time.sleep(0.01)
    return answer
if predecessor is None and keeper.device is None:
    ready({"concurrency": "8", "profile": "one"})
    keeper.handed()
    os._exit(3)
elif predecessor is not None:
    say(f"{predecessor.settings} {changes}")
    predecessor.wait_gone("1.0")
    if "two" not in changes.values():
        ready({"profile": "two"})
        keeper.handed()
        os._exit(3)
    die()
say(changes)
keeper.ended()
"""


def test_a_daemon_hands_over_to_the_next_which_no_death_is(tmp_path: Path) -> None:
    """What both upgrades have changed holds for the daemon after a death, too."""
    assert keeper(tmp_path / "note", UPGRADE, restarts=1).wait(SECONDS) == 0
    assert (tmp_path / "note").read_text().splitlines() == [
        "first",
        "again",
        "{'bucket': 'b'} {'concurrency': '8', 'profile': 'one'}",
        "again",
        "{'bucket': 'b'} {'concurrency': '8', 'profile': 'two'}",
        "again",
        "{'concurrency': '8', 'profile': 'two'}",
    ]


STAYS = """
hand_over()
if predecessor is not None:
    with predecessor.hears_failures():
        {fails}
successor = Successor({{}})
with successor.its_channel:
    keeper.start_next({{"a": "b"}}, successor.its_channel)
while True:
    try:
        if successor.answer():
            successor.send_away()
            say("sent away")
            break
    except Exception as exc:
        say(exc)
        break
    time.sleep(0.01)
if keeper.device is None:
    die()
say(changes)
keeper.ended()
"""


@pytest.mark.parametrize(
    ("fails", "told"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_na"),
        ("os._exit(1)", "the new program ended without a word"),
        ("predecessor.wait_gone('1.0')", "sent away"),
    ],
)
def test_a_daemon_that_cannot_go_on_leaves_the_other_one_alone(
    fails: str, told: str, tmp_path: Path
) -> None:
    """What it was to change is forgotten, and the keeper goes on mending deaths."""
    assert keeper(tmp_path / "note", STAYS.format(fails=fails), restarts=2).wait(SECONDS) == 0
    lines = (tmp_path / "note").read_text().splitlines()
    assert lines[:2] == ["first", "again"]
    assert lines[2].startswith(told)
    assert lines[-1] == "{}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_are_the_daemons(number: signal.Signals, tmp_path: Path) -> None:
    body = f"""
def obey(number, _frame):
    say(signal.Signals(number).name)
    keeper.ended()
    sys.exit(0)
signal.signal({int(number)}, obey)
hand_over()
say("ready")
time.sleep(60)
"""
    note = tmp_path / "note"
    running = keeper(note, body)
    deadline = time.monotonic() + SECONDS
    while not note.exists() or "ready" not in note.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(number)
    assert running.wait(SECONDS) == 0
    assert note.read_text().splitlines() == ["first", "ready", number.name]


def test_a_daemon_that_takes_over_is_told_of_the_end_once_it_serves(tmp_path: Path) -> None:
    body = """
hand_over()
if keeper.device is None:
    die()
def obey(number, _frame):
    say(signal.Signals(number).name)
    keeper.ended()
    sys.exit(0)
say("starts")
time.sleep(1)
say("serves")
signal.signal(signal.SIGTERM, obey)
keeper.goes_on()
time.sleep(60)
"""
    note = tmp_path / "note"
    running = keeper(note, body)
    deadline = time.monotonic() + SECONDS
    while not note.exists() or "starts" not in note.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    assert running.wait(SECONDS) == 0
    assert note.read_text().splitlines() == ["first", "again", "starts", "serves", "SIGTERM"]


def test_a_daemon_that_was_dead_already_when_the_end_came_is_followed_by_another(
    tmp_path: Path,
) -> None:
    """It had got the signal in vain: the next one ends the mount as told."""
    body = """
hand_over()
if keeper.device is None:
    signal.signal(signal.SIGTERM, lambda *_: die())
    say("ready")
    time.sleep(60)
def obey(number, _frame):
    say(signal.Signals(number).name)
    keeper.ended()
    sys.exit(0)
signal.signal(signal.SIGTERM, obey)
keeper.goes_on()
time.sleep(60)
"""
    note = tmp_path / "note"
    running = keeper(note, body)
    deadline = time.monotonic() + SECONDS
    while not note.exists() or "ready" not in note.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    assert running.wait(SECONDS) == 0
    assert note.read_text().splitlines() == ["first", "ready", "again", "SIGTERM"]


def test_the_keeper_imports_nothing_but_pythons_own() -> None:
    script = (
        "import sys; before = set(sys.modules); import ossfs_py.cli.keeper;"
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) - {"ossfs_py"} <= set(sys.stdlib_module_names)
    script += "; print(*(name for name in sys.modules if name.startswith('ossfs_py')))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.splitlines()[-1].split()) == {
        "ossfs_py",
        "ossfs_py.cli",
        "ossfs_py.cli.keeper",
        "ossfs_py.cli.kept",
        "ossfs_py.host",
        "ossfs_py.host.keeping",
        "ossfs_py.host.remains",
    }

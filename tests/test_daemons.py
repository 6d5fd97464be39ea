"""A daemon that the tests fork is what the command would have been."""

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.support.daemons import Forked
from tests.support.mounting import END_SECONDS, Mount, MountFailedError, is_mounted
from tests.support.seaweed import SeaweedServer

MOUNT_AND_DIE = """
import json, os, sys
from pathlib import Path
from tests.support.mounting import Mount
bucket, work, endpoint, environment = json.loads(sys.argv[1])
mounts = [
    Mount(bucket, Path(work, name), endpoint=endpoint, environment=environment).start()
    for name in ("first", "second")
]
kinds = [type(one._process).__name__ for one in mounts]
print(json.dumps([kinds, *(one.pid for one in mounts)]), flush=True)
os._exit(0)
"""


def assert_ends(process: int) -> None:
    """Until a process has ended, by a descriptor of it."""
    ended = select.poll()
    ended.register(process, select.POLLIN)
    assert ended.poll(END_SECONDS * 1000)


@pytest.fixture
def pair(mount: MountFactory, bucket: str) -> dict[str, Mount]:
    """The same mount by the command and by a fork."""
    mount(bucket)  # the first in its surroundings is never forked
    pair = {"executed": mount(bucket, executed=True), "forked": mount(bucket)}
    assert isinstance(pair["forked"]._process, Forked)
    return pair


def imported(said: str) -> set[str]:
    """The modules that Python says it has imported."""
    lines = [line for line in said.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def alike(text: str, one: Mount) -> str:
    """The text without what is another at each mount."""
    return re.sub(r"[0-9a-f]*\d[0-9a-f]*", "N", text.replace(str(one.log_path.parent), ""))


def shown(one: Mount) -> dict[str, object]:
    """What the kernel says of a daemon, but for what is its own."""
    process = Path(f"/proc/{one.pid}")
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
    kept = ("SigBlk", "SigIgn", "SigCgt", "Umask", "CapEff", "NoNewPrivs", "Uid", "Gid", "Groups")
    return {
        "opened": sorted(alike(name, one) for name in one.open_files()),
        "leads": (os.getsid(one.pid) == one.pid, os.getpgid(one.pid) == one.pid),
        "directory": (process / "cwd").readlink(),
        "program": (process / "exe").readlink(),
        "limits": (process / "limits").read_text(),
        "niceness": os.getpriority(os.PRIO_PROCESS, one.pid),
        **{name: status[name] for name in ("Name", *kept)},
    }


def test_a_fork_has_what_the_command_has(pair: dict[str, Mount]) -> None:
    assert shown(pair["forked"]) == shown(pair["executed"])
    said = {how: alike(one.log, one).splitlines() for how, one in pair.items()}
    assert said["forked"] == said["executed"]


@pytest.mark.parametrize("how", ["executed", "forked"])
def test_it_ends_as_the_command_does(pair: dict[str, Mount], how: str) -> None:
    one = pair[how]
    assert one.terminate(signal.SIGKILL) == -signal.SIGKILL
    one.close()
    one.start()
    assert one.running
    assert one.terminate() == 0
    assert not one.running


@pytest.mark.parametrize("how", ["executed", "forked"])
def test_its_number_is_its_own_until_it_was_waited_for(pair: dict[str, Mount], how: str) -> None:
    one = pair[how]
    pid = one.pid
    end = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert_ends(end)
    os.kill(pid, 0)
    assert one.wait() == -signal.SIGKILL
    while True:
        try:
            signal.pidfd_send_signal(end, 0)
        except ProcessLookupError:
            break
    os.close(end)


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("executed", [True, False])
def test_what_is_wrong_is_told_alike(mount: MountFactory, bucket: str, executed: bool) -> None:
    with pytest.raises(MountFailedError) as told:
        mount(bucket, executed=executed, memory_limit="much")
    assert str(told.value).startswith("exit code 2\nossfs-py: --memory-limit: ")


@pytest.mark.parametrize("name", ["HOME", "LD_PRELOAD", "SSL_CERT_FILE"])
def test_other_surroundings_are_not_forked(
    seaweed: SeaweedServer, bucket: str, tmp_path: Path, name: str
) -> None:
    environment = {**seaweed.environment, name: ""}
    with Mount(bucket, tmp_path, endpoint=seaweed.endpoint, environment=environment) as one:
        assert isinstance(one._process, subprocess.Popen)


class Bent(Mount):
    """Its daemon is led by another command."""

    @property
    def arguments(self) -> list[str]:
        return ["env", "BENT=1", *super().arguments]


@pytest.mark.usefixtures("pair")
def test_a_command_that_bends_the_daemon_is_not_forked(
    seaweed: SeaweedServer, bucket: str, tmp_path: Path
) -> None:
    with Bent(bucket, tmp_path, endpoint=seaweed.endpoint, environment=seaweed.environment) as one:
        assert b"BENT=1\0" in Path(f"/proc/{one.pid}/environ").read_bytes()


def test_nothing_is_loaded_that_a_start_does_not_load(
    seaweed: SeaweedServer, bucket: str, tmp_path: Path
) -> None:
    environment = {**seaweed.environment, "PYTHONPROFILEIMPORTTIME": "1"}
    with Mount(bucket, tmp_path, endpoint=seaweed.endpoint, environment=environment) as one:
        by_the_command = imported(one.log)
    by_the_tests = imported(
        subprocess.run(
            [sys.executable, "-c", "from tests.support.loaded import load; load()"],
            env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stderr
    )
    assert len(by_the_tests) > 500
    # Subcommands are imported by name, which Python does not list.
    only = by_the_tests - by_the_command - {"ossfs_py.cli.mount"}
    assert {name for name in only if not name.startswith("tests")} == set()


def test_daemons_end_with_the_tests(seaweed: SeaweedServer, bucket: str, tmp_path: Path) -> None:
    told = [bucket, str(tmp_path), seaweed.endpoint, seaweed.environment]
    done = subprocess.run(
        [sys.executable, "-c", MOUNT_AND_DIE, json.dumps(told)],
        capture_output=True,
        text=True,
        check=True,
    )
    kinds, *pids = json.loads(done.stdout)
    assert kinds == ["Popen", "Forked"]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            end = os.pidfd_open(pid)
            assert_ends(end)
            os.close(end)
    assert not is_mounted(tmp_path / "first/mnt")
    assert not is_mounted(tmp_path / "second/mnt")

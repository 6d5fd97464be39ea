"""A booted systemd to try units in: process 1 of a pid namespace, see ``boot.sh``."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from minio import Minio

from tests.support.commands import as_root

PATIENCE_SECONDS = 90.0
_POLL_SECONDS = 0.05
_SYSTEM_UNITS = Path("/lib/systemd/system")
# What a service, a mount and a shutdown refer to. The rest of a machine's units stay out: they
# would look after hardware, other people's temporary files and the network.
_UNITS = """
    basic.target exit.target final.target local-fs-pre.target local-fs.target
    network-online.target network.target nss-lookup.target paths.target remote-fs-pre.target
    remote-fs.target shutdown.target slices.target sockets.target sysinit.target
    systemd-exit.service systemd-journald.service systemd-journald.socket
    systemd-journald-dev-log.socket timers.target umount.target
"""
_ROOT = Path("/sys/fs/cgroup")


class CannotBootError(Exception):
    """This machine lets no systemd be booted; why, in one line."""


class Booted:
    """The machine. Commands run in it as root."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def run(self, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine, to its end; ``check`` that it succeeds."""
        done = subprocess.run(
            self.inside(*map(str, command)),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        assert not (check and done.returncode), f"{command}: {done.stdout}{done.stderr}"
        return done

    def inside(self, *command: str) -> list[str]:
        """The words that run a command in the machine."""
        return [*_root(), "nsenter", "-t", str(self._pid), *_NAMESPACES, *command]

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """Write a file in the machine."""
        script = f'mkdir -p "$(dirname "$1")" && printf %s "$2" >"$1" && chmod {mode} "$1"'
        self.run("sh", "-c", script, "sh", path, text)

    def property(self, unit: str, name: str) -> str:
        """What ``systemctl show`` says."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()

    def wait_for(self, unit: str, name: str, *values: str) -> str:
        """Wait until a property has one of these values."""
        return self._wait_for(unit, name, lambda value: value in values)

    def wait_for_other(self, unit: str, name: str, *values: str) -> str:
        """Wait until a property has none of these values; the one it has."""
        return self._wait_for(unit, name, lambda value: value not in values)

    def _wait_for(self, unit: str, name: str, is_wanted: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_wanted(value := self.property(unit, name)):
            assert time.monotonic() < deadline, f"{name} stays {value!r}\n{self.journal(unit)}"
            time.sleep(_POLL_SECONDS)
        return value

    def journal(self, unit: str) -> str:
        """What the unit has said and what systemd says of it."""
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", unit).stdout


_NAMESPACES = ("--mount", "--uts", "--ipc", "--pid", "--cgroup", "--")


@contextlib.contextmanager
def booted(work: Path) -> Iterator[Booted]:
    """Boot; everything it was is gone at the end.

    Raises:
        CannotBootError: containers and chroots have no cgroups or mounts to give away.
    """
    units = work / "units"
    units.mkdir()
    for name in _UNITS.split():
        shutil.copy(_SYSTEM_UNITS / name, units)
    wanted = units / "basic.target.wants"
    wanted.mkdir()
    (wanted / "systemd-journald.service").symlink_to(units / "systemd-journald.service")
    name = f"ossfs-py-{os.getpid()}"
    try:
        with _cgroups(work) as cgroups:
            as_root("mkdir", cgroups / name)
    except subprocess.CalledProcessError as exc:
        raise CannotBootError(exc.stderr.decode().strip()) from exc
    try:
        with _process_1(work, name, units) as machine:
            yield machine
    finally:
        with _cgroups(work) as cgroups:
            as_root("sh", "-c", _REMOVE, "sh", cgroups / name)


@contextlib.contextmanager
def _process_1(work: Path, cgroup: str, units: Path) -> Iterator[Booted]:
    """systemd as process 1 of its own namespaces, in a cgroup."""
    script, log = Path(__file__).with_name("boot.sh"), work / "boot.log"
    with log.open("wb") as out, _cgroups(work) as cgroups:
        unshare = subprocess.Popen(
            # Should the test run be killed, the kernel ends the machine.
            [*_root(), "setpriv", "--pdeathsig", "KILL", script, cgroups / cgroup, units],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
        process_1 = _pid_of_process_1(unshare, log)
    try:
        machine = Booted(process_1)
        _wait_until_up(machine, unshare, log)
        yield machine
    finally:
        # Its end is the end of everything in its pid namespace.
        as_root("sh", "-c", 'kill -KILL "$1" || ! kill -0 "$1"', "sh", str(process_1))
        unshare.wait(PATIENCE_SECONDS)


def _wait_until_up(machine: Booted, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        state = machine.run("systemctl", "is-system-running", check=False).stdout.strip()
        if state in ("running", "degraded"):
            return
        if process.poll() is not None:
            raise CannotBootError(_last_line(log))
        if time.monotonic() > deadline:
            raise CannotBootError(f"it stays {state or 'silent'}: {_last_line(log)}")
        time.sleep(_POLL_SECONDS)


def _pid_of_process_1(unshare: "subprocess.Popen[bytes]", log: Path) -> int:
    """The child of unshare, below sudo if that is there."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        pid = unshare.pid
        while (child := _child(pid)) is not None:
            pid = child
            if _is_process_1(pid):
                return pid
        if unshare.poll() is not None:
            raise CannotBootError(_last_line(log))
        time.sleep(_POLL_SECONDS)
    raise TimeoutError("boot.sh starts no process 1")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "without a word")


def _child(pid: int) -> int | None:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


def _is_process_1(pid: int) -> bool:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return line.split()[2:] == ["1"]
    return False


@contextlib.contextmanager
def _cgroups(work: Path) -> Iterator[Path]:
    """The hierarchy of cgroups (v2), mounted for the time of the block."""
    hierarchy = work / "cgroup"
    hierarchy.mkdir(exist_ok=True)
    as_root("mount", "-t", "cgroup2", "cgroup2", hierarchy)
    try:
        yield hierarchy
    finally:
        as_root("umount", "-l", hierarchy)


# The last processes of a namespace are reaped a moment after its process 1.
_REMOVE = """
for attempt in $(seq 100); do
    find "$1" -depth -type d -exec rmdir {} + 2>/dev/null && exit
    sleep 0.1
done
exit 1
"""


def _root() -> list[str]:
    return [] if os.geteuid() == 0 else ["sudo", "-n"]


def wait_until(condition: Callable[[], bool], what: str = "it") -> None:
    """Look again and again until it is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} does not happen"
        time.sleep(_POLL_SECONDS)


def stored(client: Minio, bucket: str, key: str) -> bytes:
    """The bytes of an object."""
    answer = client.get_object(bucket, key)
    try:
        return answer.read()
    finally:
        answer.close()
        answer.release_conn()

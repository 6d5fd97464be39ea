"""The unit in a booted systemd: ready, stopped, killed, hung, broken."""

import hashlib
import io
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import make_bucket
from tests.service.booted import Booted, stored, wait_until
from tests.support.comebacks import KILLS, most_seconds, programs, report, rounds
from tests.support.faults import Fault
from tests.support.proxy import Proxy
from tests.support.seaweed import SeaweedServer

UNIT = "ossfs-py@models.service"
MOUNTPOINT = "/run/models"
UNITS = Path(__file__).parents[2] / "systemd"
CREDENTIAL = (UNITS / "key-as-credential.conf").read_text()
KEPT_BY_NODE = (UNITS / "kept-by-node.conf").read_text()
NODE_KEEPER = "ossfs-py-keeper.service"


class Service:
    """One configured instance of the unit."""

    def __init__(self, machine: Booted, bucket: str, endpoint: str, keys: dict[str, str]) -> None:
        self.machine = machine
        self.bucket = bucket
        self.endpoint = endpoint
        machine.run("mkdir", "-p", MOUNTPOINT)
        lines = "".join(f"{name}={shlex.quote(value)}\n" for name, value in keys.items())
        machine.write("/etc/ossfs-py/models.env", lines, "600")
        self.configure()

    def configure(self, **more: str) -> None:
        self.machine.write("/etc/ossfs-py/models.toml", self.settings_text(**more))

    def settings_text(self, **more: str) -> str:
        settings = {
            "bucket": self.bucket,
            "mountpoint": MOUNTPOINT,
            "data-path": "direct",
            "endpoint": self.endpoint,
            "retry-budget": "2s",
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
        return "".join(f'{name} = "{value}"\n' for name, value in settings.items())

    def drop_in(self, text: str) -> None:
        self.machine.write(f"/etc/systemd/system/{UNIT}.d/test.conf", text)
        self.machine.run("systemctl", "daemon-reload")

    def start(self) -> int:
        """Start it; the daemon's process id in the machine."""
        done = self.machine.run("systemctl", "start", UNIT, check=False)
        assert done.returncode == 0, self.machine.journal(UNIT)
        return int(self.machine.property(UNIT, "MainPID"))

    def stop(self) -> None:
        self.machine.run("systemctl", "stop", UNIT)
        assert self.machine.property(UNIT, "Result") == "success", self.machine.journal(UNIT)
        assert not self.mounted

    @property
    def mounted(self) -> bool:
        # As process 1 and everybody else of the machine sees it.
        return self.machine.run("mountpoint", "-q", MOUNTPOINT, check=False).returncode == 0


@pytest.fixture
def service(
    machine: Booted, seaweed: SeaweedServer, store: Proxy, minio_client: Minio
) -> Iterator[Service]:
    bucket = make_bucket(seaweed)
    service = Service(machine, bucket, store.endpoint, seaweed.environment)
    yield service
    machine.run("systemctl", "kill", "-s", "KILL", UNIT, check=False)
    machine.run("systemctl", "stop", UNIT, check=False)
    machine.run("systemctl", "reset-failed", UNIT, check=False)
    machine.run("rm", "-rf", f"/etc/systemd/system/{UNIT}.d")
    machine.run("umount", "-l", MOUNTPOINT, check=False)
    machine.run("rm", "-rf", "/var/lib/ossfs-py")


def test_started_means_that_the_mount_answers(service: Service) -> None:
    service.start()
    assert service.machine.run("sh", "-c", f"echo hello >{MOUNTPOINT}/a; cat {MOUNTPOINT}/a")
    assert f"Serving {service.bucket} at {MOUNTPOINT}" in service.machine.property(
        UNIT, "StatusText"
    )
    service.stop()
    logger = "ossfs_py.daemon.life"
    found = service.machine.run("journalctl", "-o", "cat", f"OSSFS_LOGGER={logger}").stdout
    assert f"INFO {logger}: {MOUNTPOINT} is unmounted\n" in found


def test_keys_may_be_handed_over_as_a_credential_of_the_service(
    service: Service, seaweed: SeaweedServer
) -> None:
    """Then they are in no environment, and in a file that only the service sees."""
    keys = f"{seaweed.access_key}:{seaweed.secret_key}\n"
    service.machine.write("/etc/ossfs-py/models.env", "", "600")
    service.machine.write("/etc/ossfs-py/models.passwd", keys, "600")
    service.drop_in(CREDENTIAL)
    # As on every machine that is no container.
    service.machine.run("mount", "--make-rshared", "/")
    try:
        pid = service.start()
        service.machine.run("sh", "-c", f"echo hello >{MOUNTPOINT}/a; cat {MOUNTPOINT}/a")
        environment = service.machine.run("cat", f"/proc/{pid}/environ").stdout
        assert seaweed.secret_key not in environment
        service.stop()
    finally:
        service.machine.run("mount", "--make-rprivate", "/")


# In a shell of the machine: read on after the daemon was killed, and after another one took over.
READ_ON = """
{
  exec 3<"$2/file"
  dd bs=50000 count=1 <&3 2>/dev/null
  kill -KILL "$(cat "/proc/$1/task/$1/children")"
  dd bs=50000 count=1 <&3 2>/dev/null
  until ossfs-py upgrade "$2" --concurrency 8 >&2; do :; done
  cat <&3
} | sha256sum
"""


def test_with_restarts_readers_go_on_when_the_daemon_of_a_service_dies_or_is_upgraded(
    service: Service, minio_client: Minio
) -> None:
    content = os.urandom(1_000_000)
    minio_client.put_object(service.bucket, "file", io.BytesIO(content), len(content))
    service.configure(read_only="true", restarts="3", log_level="info")
    keeper = service.start()
    read = service.machine.run("sh", "-c", READ_ON, "sh", str(keeper), MOUNTPOINT)
    assert read.stdout.split()[0] == hashlib.sha256(content).hexdigest(), read.stderr
    assert int(service.machine.property(UNIT, "MainPID")) == keeper
    assert service.machine.property(UNIT, "NRestarts") == "0"
    assert "Serving" in service.machine.property(UNIT, "StatusText")
    service.stop()


# In a shell of the machine: read and append until $2 is there; what goes wrong is in $3.
GO_ON = """
mount=$1 stop=$2 wrong=$3
: >"$wrong"
while [ ! -e "$stop" ]; do
    sha256sum <"$mount/file" >>"$wrong.read" || echo "read: $?" >>"$wrong"
    ls "$mount" >/dev/null || echo "ls: $?" >>"$wrong"
done &
number=0
while [ ! -e "$stop" ]; do
    number=$((number + 1))
    echo "line $number" >>"$mount/log" && sync "$mount/log" || echo "write $number" >>"$wrong"
done
wait
echo "$number" >"$wrong.lines"
"""
END_BY = {
    "killed": 'kill -KILL "$1"',
    "watchdog": 'kill -STOP "$1"',
    "memory": """
        if [ -e "$2" ]; then
            echo 20M >"$2"
        else # cgroups of the older kind
            mkdir -p /run/memory && mount -t cgroup -o memory cgroup /run/memory
            mkdir /run/memory/ossfs-py-test-$$ && cd /run/memory/ossfs-py-test-$$
            echo 1M >memory.limit_in_bytes
            echo "$1" >cgroup.procs
        fi
        while [ -e "/proc/$1" ]; do :; done
        if [ -e "$2" ]; then echo max >"$2"; else cd / && rmdir /run/memory/ossfs-py-test-$$; fi
    """,
}


def daemons_of(keeper: int, machine: Booted) -> list[str]:
    """Process ids of the daemons that the keeper has started and that have not ended."""
    return machine.run("cat", f"/proc/{keeper}/task/{keeper}/children").stdout.split()


@contextmanager
def programs_going_on(service: Service, client: Minio) -> Iterator[Callable[[str], None]]:
    """Programs of the machine that read and append during the block: they are told no error, read
    no wrong byte and lose no line.

    Yields what waits until lines are stored that they write from then on. The processes that served
    before must be known to have ended: until then they store lines, too.
    """
    content, machine = os.urandom(1_000_000), service.machine
    client.put_object(service.bucket, "file", io.BytesIO(content), len(content))
    client.put_object(service.bucket, "log", io.BytesIO(b""), 0)
    stop, wrong = "/run/stop", "/run/wrong"
    machine.run("rm", "-f", stop, f"{wrong}.read")

    def wait_for_lines(how: str) -> None:
        before = stored(client, service.bucket, "log").count(b"\n")
        wait_until(lambda: stored(client, service.bucket, "log").count(b"\n") > before + 2, how)

    with subprocess.Popen(machine.inside("sh", "-c", GO_ON, "sh", MOUNTPOINT, stop, wrong)) as on:
        try:
            yield wait_for_lines
        finally:
            machine.write(stop, "")
            on.wait(120)
    assert machine.run("cat", wrong).stdout == "", machine.journal(UNIT)
    read = {line.split()[0] for line in machine.run("cat", f"{wrong}.read").stdout.splitlines()}
    assert read == {hashlib.sha256(content).hexdigest()}
    count = int(machine.run("cat", f"{wrong}.lines").stdout)
    assert stored(client, service.bucket, "log") == b"".join(
        f"line {number}\n".encode() for number in range(1, count + 1)
    )


@pytest.mark.timeout(400)
def test_with_restarts_readers_and_writers_go_on_however_the_daemon_of_a_service_ends(
    service: Service, minio_client: Minio
) -> None:
    machine = service.machine
    service.drop_in("[Service]\nRestartSec=100ms\nWatchdogSec=16s\n")
    service.configure(restarts="20", data_path="temp", log_level="info")
    keeper = service.start()
    limit = f"/sys/fs/cgroup{machine.property(UNIT, 'ControlGroup')}/memory.max"
    with programs_going_on(service, minio_client) as wait_for_lines:
        for how, command in END_BY.items():
            (daemon,) = daemons_of(keeper, machine)
            machine.run("sh", "-c", command, "sh", daemon, limit)
            wait_until(lambda: daemons_of(keeper, machine) not in ([daemon], []), how)  # noqa: B023
            wait_for_lines(how)
    assert int(machine.property(UNIT, "MainPID")) == keeper
    assert machine.property(UNIT, "NRestarts") == "0"
    assert "was silent for" in machine.journal(UNIT)
    service.stop()


REPLACED_BY = {
    "a restart": ("systemctl", "restart", UNIT),
    "its keeper killed": ("systemctl", "kill", "-s", "KILL", "--kill-who=main", UNIT),
    "all of it killed": ("systemctl", "kill", "-s", "KILL", UNIT),
}


@pytest.fixture
def node_keeper(machine: Booted) -> Iterator[None]:
    machine.write(f"/etc/systemd/system/{NODE_KEEPER}", (UNITS / NODE_KEEPER).read_text())
    machine.run("systemctl", "daemon-reload")
    yield
    machine.run("systemctl", "stop", NODE_KEEPER)
    machine.run("rm", f"/etc/systemd/system/{NODE_KEEPER}")


@pytest.mark.timeout(400)
@pytest.mark.usefixtures("node_keeper")
def test_with_the_node_s_keeper_programs_go_on_over_a_restart_of_the_service(
    service: Service, minio_client: Minio
) -> None:
    service.drop_in(KEPT_BY_NODE.replace("/mnt/models", MOUNTPOINT))
    service.configure(
        keeper="/run/ossfs-py-keeper/socket", restarts="20", data_path="temp", log_level="info"
    )
    seen = ["0", str(service.start())]  # systemd says 0 between two processes
    with programs_going_on(service, minio_client) as wait_for_lines:
        for how, command in REPLACED_BY.items():
            service.machine.run(*command)
            seen.append(service.machine.wait_for_other(UNIT, "MainPID", *seen))
            wait_for_lines(how)
    service.stop()


# In a shell of the machine: kill it, and say when another daemon answers. A dead mount has no type.
COME_BACK = """
kill -KILL "$1"
while [ -e "/proc/$1" ]; do :; done
until [ "$(stat -f -c %T "$2" 2>/dev/null)" = fuseblk ]; do :; done
"""


@pytest.mark.timeout(300 + KILLS * 60)
def test_a_killed_service_is_up_again_at_once_and_its_programs_go_on(service: Service) -> None:
    machine = service.machine
    began = time.monotonic()
    pid = service.start()
    first = time.monotonic() - began  # how busy the machine is
    machine.run("sh", "-c", f"mkdir {MOUNTPOINT}/d; head -c 100000 /dev/zero >{MOUNTPOINT}/d/f")
    took = []
    for work, ttl in rounds():
        service.configure(metadata_ttl=ttl)  # for the next daemon
        with programs(work, Path(MOUNTPOINT), machine.inside("env", f"--chdir={MOUNTPOINT}")):
            began = time.monotonic()
            machine.run("sh", "-c", COME_BACK, "sh", str(pid), MOUNTPOINT)
            took.append(time.monotonic() - began)
        machine.wait_for(UNIT, "SubState", "running")
        pid = int(machine.property(UNIT, "MainPID"))
        assert machine.run("wc", "-c", f"{MOUNTPOINT}/d/f").stdout.split()[0] == "100000"
    report("a service", took)
    assert min(took) < most_seconds(first), (took, first)
    machine.run("systemctl", "stop", UNIT, check=False)  # what a killed writer left is told
    assert not service.mounted


def test_a_service_that_cannot_start_waits_before_it_tries_again(
    service: Service, store: Proxy
) -> None:
    service.configure(endpoint="http://127.0.0.1:1", retry_budget="100ms")
    machine = service.machine
    assert machine.run("systemctl", "start", UNIT, check=False).returncode != 0
    machine.wait_for(UNIT, "SubState", "start-pre")
    assert machine.property(UNIT, "NRestarts") == "1"
    service.configure()
    machine.run("systemctl", "stop", UNIT)
    # Asked for by a person, it does not wait.
    service.start()
    service.stop()


def test_what_a_killed_daemon_leaves_is_cleaned_without_a_restart(service: Service) -> None:
    service.drop_in("[Service]\nRestart=no\n")
    pid = service.start()
    service.machine.run("kill", "-KILL", str(pid))
    service.machine.wait_for(UNIT, "ActiveState", "failed")
    assert service.machine.run("ls", MOUNTPOINT).stdout == ""
    assert not service.mounted


def test_a_stop_uploads_what_is_open_and_dirty(
    service: Service, store: Proxy, minio_client: Minio
) -> None:
    service.start()
    store.faults.append(Fault(operation="PutObject", times=None, delay_seconds=1.0))
    script = f"exec 3>{MOUNTPOINT}/unfinished; printf half >&3; systemctl stop {UNIT}"
    service.machine.run("bash", "-c", script)
    assert service.machine.property(UNIT, "Result") == "success"
    assert stored(minio_client, service.bucket, "unfinished") == b"half"


def test_a_broken_configuration_fails_once_and_says_why(service: Service) -> None:
    service.drop_in("[Service]\nRestartSec=100ms\n")
    service.configure(endpoint="http://127.0.0.1:1", cash_size="5G")
    done = service.machine.run("systemctl", "start", UNIT, check=False)
    assert done.returncode != 0
    assert service.machine.property(UNIT, "ActiveState") == "failed"
    assert service.machine.property(UNIT, "ExecMainStatus") == "2"
    assert service.machine.property(UNIT, "NRestarts") == "0"
    status = service.machine.run("systemctl", "status", "--no-pager", UNIT, check=False).stdout
    reason = "cash-size in /etc/ossfs-py/models.toml: no such setting (did you mean cache_size?)"
    assert reason in status


def test_credentials_that_cannot_be_read_are_told_and_tried_a_few_times(service: Service) -> None:
    service.drop_in("[Unit]\nStartLimitBurst=1\n[Service]\nRestartSec=100ms\n")
    service.configure(endpoint="http://127.0.0.1:1", credentials_file="/etc/ossfs-py/none")
    service.machine.run("systemctl", "start", UNIT, check=False)
    service.machine.wait_for(UNIT, "ActiveState", "failed")
    service.machine.wait_for(UNIT, "NRestarts", "1")
    journal = service.machine.journal(UNIT)
    assert "/etc/ossfs-py/none" in journal
    assert "Start request repeated too quickly" in journal


def test_a_reload_keeps_the_mount_and_takes_the_new_log_level(service: Service) -> None:
    service.start()
    service.configure(log_level="info,store=debug")
    service.machine.run("systemctl", "reload", UNIT)
    show = ("ossfs-py", "log-level", MOUNTPOINT)
    wait_until(lambda: service.machine.run(*show).stdout == "info,store=debug\n")
    service.machine.wait_for(UNIT, "ActiveState", "active")
    assert service.mounted
    service.stop()


def test_a_hung_daemon_is_ended_and_replaced(service: Service) -> None:
    service.drop_in("[Service]\nRestartSec=100ms\nWatchdogSec=3s\n")
    pid = service.start()
    service.machine.run("kill", "-STOP", str(pid))
    # Whoever asks for it sooner waits for the hung daemon.
    service.machine.wait_for(UNIT, "NRestarts", "1", "2", "3")
    service.machine.wait_for(UNIT, "SubState", "running")
    assert service.machine.run("ls", MOUNTPOINT).stdout == ""
    assert "watchdog" in service.machine.journal(UNIT).lower()
    service.stop()


def test_a_stop_while_the_store_hangs_ends_and_keeps_the_data(
    service: Service, store: Proxy
) -> None:
    service.configure(stall_timeout="500ms", data_path="temp")
    service.start()
    store.faults.append(Fault(operation="PutObject", times=None, stall_head=0))
    script = f"exec 3>{MOUNTPOINT}/unfinished; printf half >&3; systemctl stop {UNIT}"
    service.machine.run("bash", "-c", script)
    assert service.machine.property(UNIT, "Result") == "exit-code"
    assert not service.mounted
    assert "is kept" in service.machine.journal(UNIT)
    kept = service.machine.run("grep", "-rl", "half", "/var/lib/ossfs-py").stdout
    assert "unsaved" in kept


def test_a_stop_while_it_mounts_ends_at_once(service: Service, store: Proxy) -> None:
    store.faults.append(Fault(operation="*", times=None, stall_head=0))
    service.machine.run("systemctl", "start", "--no-block", UNIT)
    service.machine.wait_for(UNIT, "SubState", "start")
    wait_until(lambda: bool(store.counts()))
    service.machine.run("systemctl", "stop", UNIT)
    assert not service.mounted
    # By itself: not by the SIGKILL that follows after TimeoutStopSec.
    assert service.machine.property(UNIT, "Result") == "success"
    assert "ended by a signal before anything was mounted" in service.machine.journal(UNIT)
    assert service.machine.property(UNIT, "NRestarts") == "0"


def test_a_service_that_runs_as_a_user_mounts_with_fusermount3(service: Service) -> None:
    machine = service.machine
    machine.run("systemd-sysusers", "/usr/local/lib/sysusers.d/ossfs-py.conf")
    machine.run("chown", "ossfs-py", MOUNTPOINT)
    machine.run("chgrp", "ossfs-py", "/etc/ossfs-py/models.toml")
    example = machine.run("cat", "/usr/local/share/doc/ossfs-py/run-as-user.conf").stdout
    # The checkout of the tests may lie where only root can read.
    service.drop_in(example + "AmbientCapabilities=CAP_DAC_READ_SEARCH\n")
    service.configure(
        state_dir="/var/lib/ossfs-py-models",
        cache_dir="/var/cache/ossfs-py-models",
        data_path="cache",
    )
    service.start()
    options = machine.run("findmnt", "-no", "OPTIONS", MOUNTPOINT).stdout
    service.stop()
    machine.run("chown", "root", MOUNTPOINT)
    uid = machine.run("id", "-u", "ossfs-py").stdout.strip()
    assert f"user_id={uid}" in options.strip().split(",")


@pytest.mark.parametrize(
    "words",
    [
        (UNIT,),
        ("/usr/local/share/doc/ossfs-py/mnt-models.mount",),
        ("--user", "/usr/local/lib/systemd/user/ossfs-py@.service"),
        (NODE_KEEPER,),
    ],
)
def test_systemd_has_no_complaint_about_the_units(
    words: tuple[str, ...], machine: Booted, request: pytest.FixtureRequest
) -> None:
    if NODE_KEEPER in words:
        request.getfixturevalue("node_keeper")
    machine.write("/etc/ossfs-py/models.toml", "")
    done = machine.run(
        *("env", "XDG_RUNTIME_DIR=/run", "systemd-analyze", "verify", "--man=no", *words),
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_service_is_not_more_exposed_than_mounting_asks_for(machine: Booted) -> None:
    machine.write("/etc/ossfs-py/models.toml", "")
    # 10 is a plain service of root; "medium" begins at 5.
    machine.run("systemd-analyze", "security", "--threshold=45", UNIT)


# The checkout of the tests may lie where only root can read.
READ_EVERYTHING = "[Service]\nAmbientCapabilities=CAP_DAC_READ_SEARCH\n"

AS_NOBODY = (
    *("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"),
    *("env", "XDG_RUNTIME_DIR=/run/user/65534", "HOME=/"),
)
USER_MANAGER = """
[Service]
Type=notify
User=nobody
Delegate=yes
AmbientCapabilities=CAP_DAC_READ_SEARCH
Environment=HOME=/var/lib/home XDG_RUNTIME_DIR=/run/user/65534
Environment=SYSTEMD_UNIT_PATH=/usr/local/lib/systemd/user:/usr/lib/systemd/user
ExecStart=/lib/systemd/systemd --user --unit=basic.target
"""


def test_a_user_without_root_runs_it_too(service: Service, minio_client: Minio) -> None:
    machine = service.machine
    home, config = "/var/lib/home", "/var/lib/home/.config/ossfs-py"
    machine.write("/etc/systemd/system/user-manager.service", USER_MANAGER)
    machine.write(f"{config}/models.toml", service.settings_text(mountpoint=f"{home}/models"))
    machine.run("mv", "/etc/ossfs-py/models.env", config)
    machine.run("mkdir", "-p", f"{home}/models", "/run/user/65534")
    machine.run("chown", "-R", "nobody", home, "/run/user/65534")
    machine.write("/usr/local/lib/systemd/user/ossfs-py@.service.d/test.conf", READ_EVERYTHING)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "user-manager.service")
    try:
        script = (
            "systemctl --user start ossfs-py@models"
            f" && echo hello >{home}/models/a && systemctl --user stop ossfs-py@models"
        )
        machine.run(*AS_NOBODY, "sh", "-c", script)
    finally:
        machine.run("systemctl", "kill", "-s", "KILL", "user-manager.service")
        machine.run("systemctl", "stop", "user-manager.service")
    assert stored(minio_client, service.bucket, "a") == b"hello\n"

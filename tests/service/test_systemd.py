"""The units in a booted systemd: ready, stopped, killed, broken; and fstab with mount(8)."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import make_bucket
from tests.service.booted import Booted, booted
from tests.support.proxy import Proxy
from tests.support.seaweed import SeaweedServer

UNIT = "ossfs-py@models.service"
MOUNTPOINT = "/mnt/models"
INSTALL = Path(__file__).parents[2] / "systemd/install"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """One machine for all tests of the module, ossfs-py installed."""
    with booted(tmp_path_factory.mktemp("booted")) as machine:
        machine.run("env", f"PYTHON={sys.executable}", INSTALL)
        machine.run("systemctl", "daemon-reload")
        yield machine


@pytest.fixture
def store(seaweed: SeaweedServer) -> Iterator[Proxy]:
    with Proxy(seaweed.host) as proxy:
        yield proxy


class Service:
    """One configured instance of the unit."""

    def __init__(self, machine: Booted, bucket: str, endpoint: str, keys: dict[str, str]) -> None:
        self.machine = machine
        self.bucket = bucket
        machine.run("mkdir", "-p", MOUNTPOINT)
        lines = "".join(f"{name}={shlex.quote(value)}\n" for name, value in keys.items())
        machine.write("/etc/ossfs-py/models.env", lines, "600")
        self.configure(endpoint=endpoint)

    def configure(self, **more: str) -> None:
        settings = {
            "bucket": self.bucket,
            "mountpoint": MOUNTPOINT,
            "data-path": "direct",
            "retry-budget": "2s",
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
        text = "".join(f'{name} = "{value}"\n' for name, value in settings.items())
        self.machine.write("/etc/ossfs-py/models.toml", text)

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


def stored(client: Minio, bucket: str, key: str) -> bytes:
    answer = client.get_object(bucket, key)
    try:
        return answer.read()
    finally:
        answer.close()
        answer.release_conn()


def test_started_means_that_the_mount_answers(service: Service) -> None:
    service.start()
    assert service.machine.run("sh", "-c", f"echo hello >{MOUNTPOINT}/a; cat {MOUNTPOINT}/a")
    assert f"Serving {service.bucket} at {MOUNTPOINT}" in service.machine.property(
        UNIT, "StatusText"
    )
    service.stop()


def test_the_mount_is_tried_again_after_a_kill_and_works(service: Service) -> None:
    service.drop_in("[Service]\nRestartSec=100ms\n")
    pid = service.start()
    service.machine.run("sh", "-c", f"echo hello >{MOUNTPOINT}/a")
    service.machine.run("kill", "-KILL", str(pid))
    service.machine.wait_for(UNIT, "NRestarts", "1")
    service.machine.wait_for(UNIT, "SubState", "running")
    assert service.machine.run("cat", f"{MOUNTPOINT}/a").stdout == "hello\n"
    service.stop()


def test_what_a_killed_daemon_leaves_is_cleaned_without_a_restart(service: Service) -> None:
    service.drop_in("[Service]\nRestart=no\n")
    pid = service.start()
    service.machine.run("kill", "-KILL", str(pid))
    service.machine.wait_for(UNIT, "ActiveState", "failed")
    assert service.machine.run("ls", MOUNTPOINT).stdout == ""
    assert not service.mounted


def test_a_stop_uploads_what_is_open_and_dirty(service: Service, minio_client: Minio) -> None:
    service.start()
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
    service.drop_in("[Unit]\nStartLimitBurst=2\n[Service]\nRestartSec=100ms\n")
    service.configure(endpoint="http://127.0.0.1:1", credentials_file="/etc/ossfs-py/none")
    service.machine.run("systemctl", "start", UNIT, check=False)
    service.machine.wait_for(UNIT, "ActiveState", "failed")
    service.machine.wait_for(UNIT, "NRestarts", "2")
    journal = service.machine.journal(UNIT)
    assert "/etc/ossfs-py/none" in journal
    assert "Start request repeated too quickly" in journal


def test_a_reload_keeps_the_mount_and_takes_the_new_log_level(service: Service) -> None:
    service.start()
    service.machine.run("systemctl", "reload", UNIT)
    service.machine.wait_for(UNIT, "ActiveState", "active")
    assert service.mounted
    service.stop()


def test_a_hung_daemon_is_ended_and_replaced(service: Service) -> None:
    service.drop_in("[Service]\nRestartSec=100ms\nWatchdogSec=2s\n")
    pid = service.start()
    service.machine.run("kill", "-STOP", str(pid))
    # Whoever asks for it sooner waits for the hung daemon.
    service.machine.wait_for(UNIT, "NRestarts", "1")
    service.machine.wait_for(UNIT, "SubState", "running")
    assert service.machine.run("ls", MOUNTPOINT).stdout == ""
    assert "watchdog" in service.machine.journal(UNIT).lower()
    service.stop()

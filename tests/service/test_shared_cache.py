"""The memcached of a node as a service: what its unit promises to mounts with --shared-cache."""

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio

from ossfs_py.sharedcache.connection import NodeFaultError, connect_node
from tests.conftest import make_bucket
from tests.service.booted import Booted, wait_until
from tests.support.memcached import free_port
from tests.support.mounting import Mount
from tests.support.seaweed import SeaweedServer

UNIT = "ossfs-py-shared-cache.service"
ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "systemd" / UNIT).read_text()
MIB = 1024**2


class MemcachedUnit:
    """The unit, installed and configured as its first lines say."""

    def __init__(self, machine: Booted) -> None:
        self.machine = machine
        self.port = free_port()
        machine.write(f"/etc/systemd/system/{UNIT}", TEXT)
        machine.write(
            f"/etc/systemd/system/{UNIT}.d/own.conf",
            f"[Service]\nEnvironment=MEMORY=64 PORT={self.port}\n",
        )
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "start", UNIT)
        wait_until(self.answers)

    def answers(self) -> bool:
        """Whether it takes commands."""
        try:
            self.statistics("settings")
        except NodeFaultError:
            return False
        return True

    def statistics(self, group: str = "") -> dict[str, str]:
        """What it says of itself."""
        connection = connect_node(("127.0.0.1", self.port), 20.0)
        try:
            return connection.settings(group.encode())
        finally:
            connection.close()


@pytest.fixture
def unit(machine: Booted) -> Iterator[MemcachedUnit]:
    yield MemcachedUnit(machine)
    machine.run("systemctl", "stop", UNIT)
    machine.run("rm", "-rf", f"/etc/systemd/system/{UNIT}", f"/etc/systemd/system/{UNIT}.d")
    machine.run("systemctl", "daemon-reload")


def test_systemd_has_nothing_to_say_against_the_unit(unit: MemcachedUnit) -> None:
    done = unit.machine.run("systemd-analyze", "verify", f"/etc/systemd/system/{UNIT}", check=False)
    assert UNIT not in done.stderr + done.stdout


def test_its_memcached_takes_whole_blocks_and_has_the_memory_and_connections_it_was_given(
    unit: MemcachedUnit,
) -> None:
    said = unit.statistics("settings")
    assert int(said["item_size_max"]) == 4 * MIB
    assert int(said["maxbytes"]) == 64 * MIB
    assert int(said["maxconns"]) == 8192
    pid = unit.machine.property(UNIT, "MainPID")
    owner = unit.machine.run("stat", "-c", "%U", f"/proc/{pid}").stdout.strip()
    assert owner == "memcache"


def test_a_mount_keeps_its_blocks_there_and_uses_it_again_after_it_was_killed(
    unit: MemcachedUnit, seaweed: SeaweedServer, minio_client: Minio, tmp_path: Path
) -> None:
    bucket = make_bucket(seaweed)
    content = os.urandom(8 * MIB)
    minio_client.put_object(bucket, "model", io.BytesIO(content), len(content))

    def read(name: str) -> None:
        """By a fresh mount, until the node has all of it."""
        with Mount(
            bucket,
            tmp_path / name,
            endpoint=seaweed.endpoint,
            environment=seaweed.environment,
            data_path="direct",
            read_only=True,
            shared_cache=f"127.0.0.1:{unit.port}",
            shared_cache_timeout="2s",
        ) as mount:
            assert (mount.path / "model").read_bytes() == content
            wait_until(lambda: int(unit.statistics()["bytes"]) >= len(content))

    read("first")
    had = int(unit.statistics()["get_hits"])
    read("second")
    assert int(unit.statistics()["get_hits"]) >= had + 8
    unit.machine.run("systemctl", "kill", "-s", "KILL", UNIT)
    wait_until(lambda: unit.machine.property(UNIT, "NRestarts") == "1" and unit.answers())
    assert int(unit.statistics()["bytes"]) == 0
    read("third")


def test_unit_manifest_and_documentation_give_memcached_the_same_limits() -> None:
    manifest = (ROOT / "docker/kubernetes/shared-cache.yaml").read_text()
    page = (ROOT / "ossfs_py/docs/shared-cache.md").read_text()
    lines = [
        *re.findall(r"^ExecStart=.*memcached .*", TEXT, re.M),
        *re.findall(r"args: \[(.*)\]", manifest),
        *re.findall(r"^(?: *memcached(?::1.6)?) .*-m .*", page, re.M),
    ]
    assert len(lines) == 4
    for line in lines:
        assert "-I 4m -c 8192 -t 4" in line.replace('"', "").replace(",", "")

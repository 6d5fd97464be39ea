"""The image as people run it: its life, its health, what it tells, and what it has in it."""

import contextlib
import io
import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from minio import Minio

from ossfs_py.host.mountpoint import THIS_MACHINE
from ossfs_py.host.standing import Standing, look_at
from tests.containers.engine import BASE, IMAGE, Engine
from tests.support.comebacks import KILLS, most_seconds, programs, report, rounds, wait_until_served
from tests.support.commands import ossfs
from tests.support.faults import Fault
from tests.support.mounting import is_mounted
from tests.support.proxy import Proxy
from tests.support.seaweed import SeaweedServer

HEALTHY_SECONDS = 30.0
"""Generous: it says that something hangs, not how busy the machine is."""


def test_the_image_has_what_it_needs_and_no_more(engine: Engine) -> None:
    told = json.loads(engine.run("inspect", IMAGE))[0]
    assert told["Healthcheck"]["Test"] == ["CMD", "ossfs-py", "health"]
    assert told["Labels"]["org.opencontainers.image.version"] == "0.1.0"
    script = (
        "ls /opt/ossfs-py/lib/python3*/site-packages; ls /opt/ossfs-py/bin;"
        "find /opt/ossfs-py/lib -name '*.py' | wc -l; find /opt/ossfs-py/lib -name '*.pyc' | wc -l;"
        "cat /opt/ossfs-py/sbom.cdx.json"
    )
    listed, _, bom = engine.run("run", "--rm", "--entrypoint", "sh", IMAGE, "-c", script).partition(
        "{"
    )
    words = listed.split()
    assert not {"pip", "setuptools", "wheel", "cython", "Cython"} & set(words)
    sources, compiled = map(int, words[-2:])
    assert compiled == sources > 500
    names = {component["name"] for component in json.loads("{" + bom)["components"]}
    assert {"pyfuse3", "trio", "boto3", "awscrt"} <= names


@pytest.mark.parametrize("name", ["models", "my models", "tab\tback\\slash\\040", "模型"])
def test_a_container_is_healthy_while_its_mount_answers_whatever_its_name(
    engine: Engine, shared: Path, options: list[str], environment: dict[str, str], name: str
) -> None:
    environment["OSSFS_PY_MOUNTPOINT"] = f"/mnt/shared/{name}"
    with engine.container(options, environment=environment) as container:
        assert container.wait_healthy() < HEALTHY_SECONDS
        seen = look_at(shared / name)
        # Its daemon is in another namespace, and alive all the same.
        assert seen.standing is Standing.SERVED_ELSEWHERE
        rows = json.loads(ossfs("list", "--json", environment={}).out)
        (row,) = [row for row in rows if row["mountpoint"] == str(shared / name)]
        assert row["state"] == "mounted: its daemon runs in another container"
        stats = ossfs("stats", "--json", shared / name, environment={})
        assert "is alive, but its daemon runs in another container" in stats.sentence
        (shared / name / "f").write_text("dirty")
        assert container.stop() == 0
        assert not is_mounted(shared / name)
        for line in container.logs().splitlines():
            json.loads(line)


def test_a_killed_container_is_replaced_and_readers_see_the_mount_come_back(
    engine: Engine, shared: Path, options: list[str], environment: dict[str, str]
) -> None:
    reader = ["--mount", f"type=bind,source={shared},target=/mnt,bind-propagation=rslave"]
    with engine.container(options, environment=environment) as first:
        first.wait_healthy()
        (shared / "models/f").write_text("hello")
        words = ["run", "--detach", *reader, BASE, "sleep", "1000"]
        name = engine.run(*words).split()[-1]
        try:
            assert engine.run("exec", name, "cat", "/mnt/models/f") == "hello"
            first.signal("KILL")
            first.exit_code()
            assert look_at(shared / "models").standing is Standing.DEAD
            began = time.monotonic()
            with engine.container(options, environment=environment) as second:
                second.wait_healthy()
                took = time.monotonic() - began
                assert engine.run("exec", name, "cat", "/mnt/models/f") == "hello"
                assert len(THIS_MACHINE.mounts_at(shared / "models")) == 1
                assert second.stop() == 0
        finally:
            engine.run("rm", "--force", "--time", "0", name)
    assert took < HEALTHY_SECONDS


@pytest.mark.timeout(300 + KILLS * 60)
def test_a_container_that_is_killed_is_up_again_at_once_under_its_restart_policy(
    engine: Engine, shared: Path, options: list[str], environment: dict[str, str]
) -> None:
    config, mounted = shared / "models.toml", shared / "models"
    config.touch()
    environment["OSSFS_PY_CONFIG"] = "/mnt/shared/models.toml"
    began = time.monotonic()
    words = [*options, "--restart", "always"]
    with engine.container(words, environment=environment) as container:
        container.wait_healthy()
        first = time.monotonic() - began  # how busy the machine is
        (mounted / "d").mkdir()
        (mounted / "d/f").write_bytes(b"1" * 100_000)
        took = []
        for work, ttl in rounds():
            config.write_text(f'metadata-ttl = "{ttl}"\n')  # for the next daemon
            with programs(work, mounted):
                began = time.monotonic()
                container.kill_at_once()
                wait_until_served(mounted)
                took.append(time.monotonic() - began)
            assert (mounted / "d/f").read_bytes() == b"1" * 100_000
            assert len(THIS_MACHINE.mounts_at(mounted)) == 1
    report("a container", took)
    assert min(took) < most_seconds(first), (took, first)


@pytest.mark.parametrize("words", [("ossfs-py", "mount"), ("mount",)])
def test_a_mount_named_as_a_command_stays_and_what_is_dirty_at_the_end_is_uploaded(
    engine: Engine,
    shared: Path,
    options: list[str],
    environment: dict[str, str],
    minio_client: Minio,
    words: tuple[str, ...],
) -> None:
    bucket = environment.pop("OSSFS_PY_BUCKET")
    del environment["OSSFS_PY_MOUNTPOINT"]
    command = (*words, bucket, "/mnt/shared/models")
    with engine.container(options, *command, environment=environment) as container:
        container.wait_healthy()
        fd = os.open(shared / "models/f", os.O_WRONLY | os.O_CREAT)
        os.write(fd, b"not closed yet")
        assert container.stop() == 0
        with contextlib.suppress(OSError):  # its mount is gone, which close(2) says
            os.close(fd)
    assert minio_client.get_object(bucket, "f").read() == b"not closed yet"


def test_two_containers_share_one_cache(
    engine: Engine,
    shared: Path,
    options: list[str],
    environment: dict[str, str],
    tmp_path: Path,
    seaweed: SeaweedServer,
    minio_client: Minio,
) -> None:
    content = os.urandom(3_000_000)
    stored = io.BytesIO(content)
    minio_client.put_object(environment["OSSFS_PY_BUCKET"], "f", stored, len(content))
    (tmp_path / "cache").mkdir(mode=0o700)
    words = [*options, "--volume", f"{tmp_path / 'cache'}:/var/cache/ossfs-py"]
    with Proxy(seaweed.host) as proxy, contextlib.ExitStack() as stack:
        environment |= {"OSSFS_PY_ENDPOINT": proxy.endpoint, "OSSFS_PY_DATA_PATH": "cache"}
        containers = []
        for name in ("one", "two"):
            environment["OSSFS_PY_MOUNTPOINT"] = f"/mnt/shared/{name}"
            containers.append(stack.enter_context(engine.container(words, environment=environment)))
            containers[-1].wait_healthy()
        containers[0].exec("ossfs-py", "warmup", "/mnt/shared/one")
        assert (shared / "one/f").read_bytes() == content
        proxy.reset()
        assert (shared / "two/f").read_bytes() == content
        # But the byte by which a mount learns that it may read.
        assert proxy.bytes_served("f") == 1
        for container in containers:
            assert container.stop() == 0


def test_what_a_container_could_not_upload_in_its_time_is_taken_over_from_its_volume(
    engine: Engine,
    shared: Path,
    options: list[str],
    environment: dict[str, str],
    tmp_path: Path,
    seaweed: SeaweedServer,
    minio_client: Minio,
) -> None:
    """As on eviction: the store is away, SIGTERM, and what time there was is over."""
    (tmp_path / "volume").mkdir(mode=0o700)
    words = [*options, "--volume", f"{tmp_path / 'volume'}:/var/lib/ossfs-py"]
    bucket = environment["OSSFS_PY_BUCKET"]
    with Proxy(seaweed.host) as proxy:
        away = {**environment, "OSSFS_PY_ENDPOINT": proxy.endpoint}
        away["OSSFS_PY_RETRY_BUDGET"] = "1s"
        with engine.container(words, environment=away) as container:
            container.wait_healthy()
            proxy.faults.append(Fault(operation="PutObject", times=None, status=503))
            fd = os.open(shared / "models/f", os.O_WRONLY | os.O_CREAT)
            os.write(fd, b"kept")
            assert container.stop() == 1
            with contextlib.suppress(OSError):  # its mount is gone, which close(2) says
                os.close(fd)
            assert "could not be saved" in container.logs()
        proxy.faults.clear()
        with engine.container(words, environment=away) as container:
            container.wait_healthy()
            assert "from an earlier mount: 1 file that could not be saved" in container.logs()
            container.exec("ossfs-py", "recover", "--upload")
            assert container.stop() == 0
    answer = minio_client.get_object(bucket, "f")
    assert answer.read() == b"kept"
    answer.close()
    answer.release_conn()


def test_orphans_in_the_container_are_reaped(
    engine: Engine, options: list[str], environment: dict[str, str]
) -> None:
    with engine.container(options, environment=environment) as container:
        container.wait_healthy()
        container.exec("sh", "-c", "(sh -c 'exit 0' &) ; (sleep 0.1 &)")
        time.sleep(1)
        states = container.exec("sh", "-c", "cat /proc/[0-9]*/stat | cut -d' ' -f3")
        assert "Z" not in states.split()


def test_the_mountpoint_of_a_toml_file_counts_and_what_lies_there_is_only_told(
    engine: Engine, shared: Path, options: list[str], environment: dict[str, str]
) -> None:
    del environment["OSSFS_PY_MOUNTPOINT"]
    (shared / "models.toml").write_text('mountpoint = "/mnt/shared/elsewhere"\nlog-format="text"\n')
    environment["OSSFS_PY_CONFIG"] = "/mnt/shared/models.toml"
    (shared / "elsewhere").mkdir()
    (shared / "elsewhere/early").touch()
    with engine.container(options, environment=environment) as container:
        container.wait_healthy()
        assert is_mounted(shared / "elsewhere")
        assert not is_mounted(shared / "models")
        assert "is not empty: the mount hides 'early'" in container.logs()
        assert container.stop() == 0


def test_what_a_container_lacks_is_told_in_a_sentence_each(
    engine: Engine, tmp_path: Path, environment: dict[str, str]
) -> None:
    volume = tmp_path / "private"
    volume.mkdir()
    bad = ["--device", f"{tmp_path / 'fuse'}:/dev/fuse", "--cap-add", "SYS_ADMIN"]
    subprocess.run(["mknod", "-m", "666", tmp_path / "fuse", "c", "10", "229"], check=True)
    # Naming one limit drops those of containers.conf.
    limits = ["--ulimit", "nofile=512:512", "--ulimit", "nproc=4096:4096"]
    words = [*bad, "--volume", f"{volume}:/mnt/shared", *limits]
    with engine.container(words, environment=environment) as container:
        container.wait_healthy()
        log = container.logs()
        assert "is not visible outside this container" in log
        assert "/sys is read-only" in log
        assert "only 512 files may be open at once" in log
        assert "--temp-dir: /var/tmp is in the container's own layer" in log
        assert "--state-dir: /var/lib/ossfs-py is in the container's own layer" in log
        assert container.stop() == 0


def test_a_cache_in_the_layer_of_the_container_is_told(
    engine: Engine, options: list[str], environment: dict[str, str]
) -> None:
    environment["OSSFS_PY_DATA_PATH"] = "cache"
    with engine.container(options, environment=environment) as container:
        container.wait_healthy()
        log = container.logs()
        assert "--cache-dir: /var/cache/ossfs-py is in the container's own layer" in log
        assert "--temp-dir" not in log
        assert container.stop() == 0


def test_the_image_s_user_mounts_and_its_volumes_are_its_own(
    engine: Engine, shared: Path, options: list[str], environment: dict[str, str]
) -> None:
    (shared / "models").mkdir()
    (shared / "models").chmod(0o777)
    state = "ossfs-py-test-state"
    engine.run("volume", "rm", "--force", state, check=False)
    words = [
        *options,
        *("--user", "10001", "--volume", f"{state}:/home/ossfs-py/.local/state/ossfs-py"),
        *("--volume", "/sys/devices/virtual/bdi:/sys/devices/virtual/bdi"),
    ]
    with engine.container(words, environment=environment) as container:
        container.wait_healthy()
        (shared / "models/f").write_text("x")
        assert "state-dir" not in container.logs()
        assert container.stop() == 0
    engine.run("volume", "rm", "--force", state)


def test_unmounting_on_the_host_says_who_still_has_a_copy(
    engine: Engine, shared: Path, tmp_path: Path, seaweed: object, environment: dict[str, str]
) -> None:
    mountpoint = shared / "host"
    mountpoint.mkdir()
    environment["OSSFS_PY_STATE_DIR"] = str(tmp_path / "state")
    del environment["OSSFS_PY_MOUNTPOINT"]
    assert (
        ossfs("mount", environment["OSSFS_PY_BUCKET"], mountpoint, environment=environment).code
        == 0
    )
    copy = ["--mount", f"type=bind,source={shared},target=/mnt,bind-propagation=rprivate"]
    name = engine.run("run", "--detach", *copy, BASE, "sleep", "1000").split()[-1]
    try:
        outcome = ossfs("umount", mountpoint, environment={})
        assert outcome.code == 1
        assert "is unmounted here and everything is uploaded, but its daemon" in outcome.sentence
        assert "still serves sleep (process" in outcome.sentence
        assert not is_mounted(mountpoint)
    finally:
        engine.run("rm", "--force", "--time", "0", name)

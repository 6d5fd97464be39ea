"""The image's scripts run as a container runs them, and what the files around it must say.

There is no container engine in the test: a private mount namespace stands for the container.
"""

import contextlib
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ossfs_py.config.sources import ENVIRONMENT_PREFIX, FIELD_OF_NAME
from tests.service.booted import wait_until
from tests.support.commands import as_root, plain_environment
from tests.support.mounting import is_mounted
from tests.support.seaweed import SeaweedServer

DOCKER = Path(__file__).parents[2] / "docker"
YAML_FILES = sorted(DOCKER.rglob("*.yaml"))


class Container:
    """What ``docker run`` would start: the entrypoint and, beside it, the health check."""

    def __init__(self, work: Path, bucket: str, server: SeaweedServer) -> None:
        self.mountpoint = work / "shared dir/models"
        self.mountpoint.parent.mkdir()
        programs = work / "bin"
        programs.mkdir()
        launcher = programs / "ossfs-py"
        launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ossfs_py "$@"\n')
        launcher.chmod(0o755)
        environment = plain_environment(server.environment)
        self.environment = environment | {
            "PATH": f"{programs}:{environment['PATH']}",
            "OSSFS_PY_BUCKET": bucket,
            "OSSFS_PY_ENDPOINT": server.endpoint,
            "OSSFS_PY_MOUNTPOINT": str(self.mountpoint),
            "OSSFS_PY_STATE_DIR": str(work / "state"),
            "OSSFS_PY_DATA_PATH": "direct",
        }
        self.log = work / "log"

    @contextlib.contextmanager
    def start(self, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
        with self.log.open("ab") as log:
            daemon = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", DOCKER / "entrypoint.sh", *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            yield daemon
        finally:
            daemon.kill()
            daemon.wait(300)

    def health(self) -> tuple[int, str]:
        done = subprocess.run(
            [DOCKER / "healthcheck.sh"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stdout + done.stderr

    def wait_healthy(self, daemon: "subprocess.Popen[bytes]") -> None:
        def healthy() -> bool:
            assert daemon.poll() is None, self.log.read_text()
            return self.health() == (0, "")

        wait_until(healthy)


@pytest.fixture
def container(tmp_path: Path, seaweed: SeaweedServer, bucket: str) -> Iterator[Container]:
    container = Container(tmp_path, bucket, seaweed)
    yield container
    while is_mounted(container.mountpoint):
        as_root("umount", "-l", container.mountpoint)


def test_a_container_is_healthy_while_its_mount_answers(container: Container) -> None:
    container.mountpoint.mkdir()
    assert container.health() == (1, f"nothing is mounted at {container.mountpoint}\n")
    with container.start("--log-level", "warning") as daemon:
        container.wait_healthy(daemon)
        (container.mountpoint / "a").write_text("hello")
        daemon.terminate()
        assert daemon.wait(300) == 0
    assert container.health()[0] == 1
    assert container.log.read_text() == ""


def test_a_container_that_was_killed_can_be_started_again(container: Container) -> None:
    with container.start() as daemon:
        container.wait_healthy(daemon)
        daemon.kill()
    assert container.health() == (1, f"the mount at {container.mountpoint} does not answer\n")
    with container.start() as daemon:
        container.wait_healthy(daemon)
        daemon.terminate()
        assert daemon.wait(300) == 0


def test_a_mount_that_goes_away_during_the_check_is_not_taken_for_healthy(
    container: Container, tmp_path: Path
) -> None:
    # awk has seen the mount; when stat asks, the directory below it answers.
    awk = tmp_path / "bin/awk"
    awk.write_text("#!/bin/sh\nexit 0\n")
    awk.chmod(0o755)
    container.mountpoint.mkdir()
    assert container.health() == (1, f"nothing is mounted at {container.mountpoint}\n")


def test_a_daemon_that_hangs_is_unhealthy(container: Container) -> None:
    with container.start() as daemon:
        container.wait_healthy(daemon)
        daemon.send_signal(signal.SIGSTOP)
        assert container.health()[1] == f"the mount at {container.mountpoint} does not answer\n"


def test_another_command_runs_instead_of_the_mount(container: Container) -> None:
    with container.start("version") as command:
        assert command.wait(300) == 0
    assert not container.mountpoint.exists()


# -- what the files say -------------------------------------------------------------------------


def documents() -> Iterator[dict[str, Any]]:
    for path in YAML_FILES:
        yield from yaml.safe_load_all(path.read_text())


def pods() -> Iterator[dict[str, Any]]:
    """The specification of every pod in the examples."""
    for document in documents():
        if document.get("kind") == "Pod":
            yield document["spec"]
        elif document.get("kind") == "DaemonSet":
            yield document["spec"]["template"]["spec"]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def test_every_setting_in_the_examples_exists() -> None:
    text = "\n".join(path.read_text() for path in [*YAML_FILES, DOCKER / "Dockerfile"])
    used = set(re.findall(rf"\b{ENVIRONMENT_PREFIX}([A-Z_]+)\b", text))
    assert used
    assert {name.lower() for name in used} <= {*FIELD_OF_NAME, "config"}


def test_pods_share_the_mount_from_its_daemon_to_its_readers() -> None:
    for pod in pods():
        for container in containers(pod):
            mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
            if container["image"] == "ossfs-py":
                assert mounts["/mnt/shared"]["mountPropagation"] == "Bidirectional"
                assert container["securityContext"]["privileged"]
                assert container["livenessProbe"]["exec"]["command"] == ["healthcheck.sh"]
            else:
                assert mounts["/mnt"]["mountPropagation"] == "HostToContainer"
        volumes = {volume["name"] for volume in pod["volumes"]}
        used = {m["name"] for one in containers(pod) for m in one["volumeMounts"]}
        assert used == volumes


def test_pods_and_containers_are_given_the_time_that_uploads_may_take() -> None:
    serving = [pod for pod in pods() if any(c["image"] == "ossfs-py" for c in containers(pod))]
    assert len(serving) == 2
    assert all(pod["terminationGracePeriodSeconds"] >= 180 for pod in serving)
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    assert compose["services"]["ossfs-py"]["stop_grace_period"] == "3m"


def test_the_reader_of_the_compose_file_sees_the_mount_once_it_is_healthy() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    daemon, reader = services["ossfs-py"], services["reader"]
    assert daemon["volumes"][0]["source"] == reader["volumes"][0]["source"]
    assert daemon["volumes"][0]["bind"]["propagation"] == "rshared"
    assert reader["volumes"][0]["bind"]["propagation"] == "rslave"
    target = daemon["volumes"][0]["target"]
    assert daemon["environment"]["OSSFS_PY_MOUNTPOINT"].startswith(f"{target}/")
    assert reader["depends_on"]["ossfs-py"]["condition"] == "service_healthy"


def test_what_the_image_copies_is_in_the_checkout_and_not_ignored() -> None:
    root = DOCKER.parent
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().split()
    for line in re.findall(r"^COPY (?!--from)(.*)$", (DOCKER / "Dockerfile").read_text(), re.M):
        *sources, _ = [word for word in line.split() if not word.startswith("--")]
        for source in sources:
            assert (root / source).exists()
            assert any(Path(source).match(rule[1:]) for rule in ignored if rule[0] == "!")


def test_the_image_installs_what_its_hashes_name_and_nothing_else() -> None:
    recipe = (DOCKER / "Dockerfile").read_text().replace("\\\n", "")
    calls = re.findall(r"(?:pip|\$pip) (?:install|wheel)[^&\n]*", recipe)
    assert len(calls) == 4
    for call in calls:
        assert "--require-hashes" in call or "--no-deps" in call
        assert "wheel " not in call or "--no-build-isolation" in call
    for lock, least in (("requirements.lock", 25), ("build.lock", 5)):
        entries = re.split(r"\n(?=\S)", (DOCKER / lock).read_text().strip())
        assert len(entries) >= least
        for entry in entries:
            assert re.match(r"[\w.-]+==\S+ ", entry), entry
            assert "--hash=sha256:" in entry


def test_every_dependency_is_in_the_lock_files() -> None:
    root = DOCKER.parent
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for lock, wanted in (
        (DOCKER / "requirements.lock", project["dependencies"]),
        (root / ".ci/requirements.lock", [*project["dependencies"], *extras["dev"]]),
    ):
        locked = set(re.findall(r"(?m)^([\w.-]+)==", lock.read_text()))
        names = {re.split(r"[\[<>=; ]", one)[0].lower().replace("_", "-") for one in wanted}
        assert names - {"ossfs-py"} <= locked


def test_no_program_s_pod_can_prepare_the_place_that_is_mounted_over() -> None:
    """A link put there by a pod that is root would be where the privileged daemon mounts."""
    looking = [
        mount
        for path in YAML_FILES
        for document in yaml.safe_load_all(path.read_text())
        for container in _containers(document)
        for mount in container.get("volumeMounts", ())
        if mount.get("mountPropagation") == "HostToContainer"
    ]
    assert len(looking) == 2
    assert all(mount.get("readOnly") is True for mount in looking)


def _containers(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    spec = document.get("spec", {})
    spec = spec.get("template", {}).get("spec", spec)
    for kind in ("containers", "initContainers"):
        yield from spec.get(kind, ())

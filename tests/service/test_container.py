"""What the image runs, run as a container runs it, and what the files around it must say.

There is no container engine in the test: a private mount namespace stands for the container.
"""

import contextlib
import json
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

from ossfs_py.config import CommandLine, load
from ossfs_py.config.sources import ENVIRONMENT_PREFIX, FIELD_OF_NAME
from tests.service.booted import wait_until
from tests.support.commands import as_root, ossfs, plain_environment
from tests.support.mounting import is_mounted
from tests.support.seaweed import SeaweedServer

DOCKER = Path(__file__).parents[2] / "docker"
YAML_FILES = sorted(DOCKER.rglob("*.yaml"))


class Container:
    """What the image runs: its entrypoint and, beside it, the health check."""

    def __init__(self, work: Path, bucket: str, server: SeaweedServer) -> None:
        self.mountpoint = work / "shared dir/models"
        self.mountpoint.parent.mkdir()
        self.environment = plain_environment(server.environment) | {
            "OSSFS_PY_BUCKET": bucket,
            "OSSFS_PY_ENDPOINT": server.endpoint,
            "OSSFS_PY_MOUNTPOINT": str(self.mountpoint),
            "OSSFS_PY_STATE_DIR": str(work / "state"),
            "OSSFS_PY_DATA_PATH": "direct",
        }
        self.log = work / "log"

    @contextlib.contextmanager
    def start(self, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
        program = [sys.executable, "-m", "ossfs_py", "container", *arguments]
        with self.log.open("ab") as log:
            daemon = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *program],
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

    def health(self, mountpoint: Path | None = None) -> tuple[int, str]:
        outcome = ossfs("health", mountpoint or self.mountpoint, environment={})
        assert outcome.out == ""
        return outcome.code, outcome.err.removeprefix("ossfs-py: ").removesuffix("\n")

    def wait_healthy(self, daemon: "subprocess.Popen[bytes]") -> None:
        def healthy() -> bool:
            assert daemon.poll() is None, self.log.read_text()
            return self.health() == (0, "")

        wait_until(healthy)

    def told(self) -> list[dict[str, Any]]:
        """The log, which is JSON without a terminal."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def container(tmp_path: Path, seaweed: SeaweedServer, bucket: str) -> Iterator[Container]:
    container = Container(tmp_path, bucket, seaweed)
    yield container
    while is_mounted(container.mountpoint):
        as_root("umount", "-l", container.mountpoint)


def test_a_container_is_healthy_while_its_mount_answers(container: Container) -> None:
    container.mountpoint.mkdir()
    assert container.health() == (1, f"nothing is mounted at {container.mountpoint}")
    with container.start("--log-level", "warning") as daemon:
        container.wait_healthy(daemon)
        (container.mountpoint / "a").write_text("hello")
        # A link as the last component leads to the same mount.
        link = container.mountpoint.parent / "link"
        link.symlink_to(container.mountpoint)
        assert container.health(link) == (0, "")
        # Without a name, every mount that is served here is asked: those of other tests as well.
        assert str(container.mountpoint) not in ossfs("health", environment={}).err
        daemon.terminate()
        assert daemon.wait(300) == 0
    assert container.health()[0] == 1
    assert container.told() == []


def test_a_container_that_was_killed_can_be_started_again(container: Container) -> None:
    with container.start() as daemon:
        container.wait_healthy(daemon)
        daemon.kill()
    told = (1, f"the daemon of the mount at {container.mountpoint} is gone")
    assert container.health() == told
    with container.start() as daemon:
        container.wait_healthy(daemon)
        daemon.terminate()
        assert daemon.wait(300) == 0


def test_a_daemon_that_hangs_is_unhealthy(container: Container) -> None:
    with container.start() as daemon:
        container.wait_healthy(daemon)
        daemon.send_signal(signal.SIGSTOP)
        told = f"the mount at {container.mountpoint} does not answer within 5 s"
        assert container.health() == (1, told)


def test_a_mount_named_as_a_command_stays_in_the_foreground(container: Container) -> None:
    bucket = container.environment.pop("OSSFS_PY_BUCKET")
    del container.environment["OSSFS_PY_MOUNTPOINT"]
    with container.start("ossfs-py", "mount", bucket, str(container.mountpoint)) as daemon:
        container.wait_healthy(daemon)
        assert daemon.poll() is None
        daemon.terminate()
        assert daemon.wait(300) == 0


def test_defaults_of_the_image_are_weaker_than_a_toml_file(
    container: Container, tmp_path: Path
) -> None:
    del container.environment["OSSFS_PY_MOUNTPOINT"]
    config = tmp_path / "models.toml"
    config.write_text(f'mountpoint = "{container.mountpoint}"\nlog-format = "text"\n')
    container.environment["OSSFS_PY_CONFIG"] = str(config)
    container.mountpoint.mkdir()
    (container.mountpoint / "early").touch()
    with container.start() as daemon:
        container.wait_healthy(daemon)
        daemon.terminate()
        assert daemon.wait(300) == 0
    assert "is not empty: the mount hides 'early'" in container.log.read_text()


def test_another_command_runs_instead_of_the_mount(container: Container) -> None:
    with container.start("version") as command:
        assert command.wait(300) == 0
    assert not container.mountpoint.exists()


# -- what the files say -------------------------------------------------------------------------


def documents() -> Iterator[dict[str, Any]]:
    for path in YAML_FILES:
        yield from yaml.safe_load_all(path.read_text())


def pods() -> Iterator[dict[str, Any]]:
    """The specification of every pod in the examples that has a mount."""
    for document in documents():
        if document.get("kind") == "Pod":
            found = document["spec"]
        elif document.get("kind") == "DaemonSet":
            found = document["spec"]["template"]["spec"]
        else:
            continue
        if found.get("volumes"):  # a node of the shared cache has none
            yield found


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def keeps(container: dict[str, Any]) -> bool:
    """Whether it keeps mounts, and serves none."""
    return bool(container.get("args", [""])[0] == "keeper")


def serves(container: dict[str, Any]) -> bool:
    return "/ossfs-py:" in container["image"] and not keeps(container)


def test_every_setting_in_the_examples_exists() -> None:
    text = "\n".join(path.read_text() for path in [*YAML_FILES, DOCKER / "Dockerfile"])
    used = set(re.findall(rf"\b{ENVIRONMENT_PREFIX}([A-Z_]+)\b", text))
    assert used
    assert {name.lower() for name in used} <= {*FIELD_OF_NAME, "config"}


def test_the_settings_file_of_the_daemonset_is_valid(tmp_path: Path) -> None:
    (text,) = [d["data"]["models.toml"] for d in documents() if d.get("kind") == "ConfigMap"]
    path = tmp_path / "models.toml"
    path.write_text(text)
    loaded = load(CommandLine({}, config_file=str(path)), {})
    assert loaded.warnings == ()
    assert loaded.settings.min_free_bytes > 0.1 * 1024**4


def test_the_mount_of_a_pod_is_there_before_its_programs_start() -> None:
    for pod in pods():
        for first in pod.get("initContainers", ()):
            socket = first.get("args", [None, None, None])[2]
            if first.get("restartPolicy") == "Always":
                started = ["test", "-S", socket] if keeps(first) else ["ossfs-py", "health"]
                assert first["startupProbe"]["exec"]["command"] == started
            else:
                assert "until" in first["command"][-1]
        assert pod.get("initContainers") or "/ossfs-py:" in pod["containers"][0]["image"]


def test_a_pod_has_its_keeper_before_its_mount_and_only_mounts_reach_it() -> None:
    keepers = [[keeps(c) for c in containers(pod)] for pod in pods()]
    assert sorted(sum(which) for which in keepers) == [0, 0, 1, 1]
    found = [one for pod in pods() for one in containers(pod)]
    (path,) = {one["args"][2] for one in found if keeps(one)}
    for one in found:
        reaches = str(Path(path).parent) in {mount["mountPath"] for mount in one["volumeMounts"]}
        assert reaches == (keeps(one) or serves(one))
    for pod in pods():
        order = [keeps(c) for c in containers(pod) if "/ossfs-py:" in c["image"]]
        assert order == sorted(order, reverse=True)
    settings = (DOCKER / "kubernetes/daemonset.yaml").read_text()
    assert f'keeper = "{path}"' in settings
    assert f"value: {path}" in (DOCKER / "kubernetes/sidecar.yaml").read_text()


def test_pods_share_the_mount_from_its_daemon_to_its_readers() -> None:
    for pod in pods():
        for container in containers(pod):
            mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
            name, _, tag = container["image"].rpartition(":")
            # Without one, or as "latest", it is pulled at each start.
            assert tag not in ("", "latest")
            if name.endswith("/ossfs-py"):
                assert mounts["/mnt/shared"]["mountPropagation"] == "Bidirectional"
                assert container["securityContext"]["privileged"]
                probe = {"exec": {"command": ["ossfs-py", "health"]}}
                liveness = container.get("livenessProbe", {})
                # A keeper that is ended by a probe would take the mounts along that wait.
                assert liveness.items() >= probe.items() if serves(container) else not liveness
            else:
                assert mounts["/mnt"]["mountPropagation"] == "HostToContainer"
        volumes = {volume["name"] for volume in pod["volumes"]}
        used = {m["name"] for one in containers(pod) for m in one["volumeMounts"]}
        assert used == volumes


def test_pods_and_containers_are_given_the_time_that_uploads_may_take() -> None:
    serving = [pod for pod in pods() if any(serves(c) for c in containers(pod))]
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
    ignored = (DOCKER.parent / ".dockerignore").read_text().split()
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
    assert len(looking) == 3
    assert all(mount.get("readOnly") is True for mount in looking)


def _containers(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    spec = document.get("spec", {})
    spec = spec.get("template", {}).get("spec", spec)
    for kind in ("containers", "initContainers"):
        yield from spec.get(kind, ())

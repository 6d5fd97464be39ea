"""The manifests: schemas of the newest Kubernetes, and their pods played by podman."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from ossfs_py.host.standing import Standing, look_at
from tests.containers.engine import ROOT, Engine
from tests.support.seaweed import SeaweedServer

MANIFESTS = sorted((ROOT / "docker/kubernetes").glob("*.yaml"))
_NEWEST = 3


def newest_versions() -> list[str]:
    import kubernetes_validate

    major, minor, _ = map(int, kubernetes_validate.latest_version().split("."))
    return [f"{major}.{minor - back}" for back in range(_NEWEST)]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_every_document_is_valid_for_the_newest_versions_of_kubernetes(path: Path) -> None:
    import kubernetes_validate

    for document in yaml.safe_load_all(path.read_text()):
        for version in newest_versions():
            kubernetes_validate.validate(document, version, strict=True)


def test_the_check_refuses_what_kubernetes_does_not_know() -> None:
    import kubernetes_validate

    document: dict[str, Any] = next(iter(yaml.safe_load_all(MANIFESTS[0].read_text())))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**document, "spce": {}}, newest_versions()[0], strict=True)


def pod_of(path: Path, changes: dict[str, str]) -> tuple[str, str]:
    """What podman plays of a manifest: its secrets and settings, and the pod that mounts.

    podman knows neither DaemonSets nor sidecars: the pod is made of the template, and the sidecar
    is one more container of it. ``changes`` are made in the text.
    """
    text = path.read_text()
    for old, new in changes.items():
        assert old in text, f"{old} is not in {path.name}"
        text = text.replace(old, new)
    beside, pod = [], None
    for document in yaml.safe_load_all(text):
        if document["kind"] == "ConfigMap":
            beside.append(document)
        elif document["kind"] == "DaemonSet":
            template = document["spec"]["template"]
            pod = {"apiVersion": "v1", "kind": "Pod", **template}
            pod["metadata"]["name"] = document["metadata"]["name"]
        elif document["kind"] == "Pod" and pod is None:
            pod = document
    assert pod is not None
    sidecars = [one for one in pod["spec"].pop("initContainers", []) if "restartPolicy" in one]
    for one in sidecars:
        del one["restartPolicy"], one["startupProbe"]
    pod["spec"]["containers"] = [*sidecars, *pod["spec"]["containers"]]
    for volume in pod["spec"]["volumes"]:
        if "secret" in volume:  # podman 4.3 falls over one that does not say
            volume["secret"]["optional"] = False
    for one in pod["spec"]["containers"]:
        one.pop("readinessProbe", None)
        one.pop("livenessProbe", None)
        one.pop("ports", None)  # there is nothing to map on the machine's own network
        # This machine may have less of them.
        one.pop("resources", None)
    secrets = [d for d in yaml.safe_load_all(text) if d["kind"] == "Secret"]
    return yaml.safe_dump_all([*beside, pod]), yaml.safe_dump_all(secrets)


def test_the_pod_of_the_daemonset_mounts_and_a_new_one_takes_over(
    engine: Engine, shared: Path, tmp_path: Path, seaweed: SeaweedServer, bucket: str
) -> None:
    keys = seaweed.environment
    pair = f"{keys['AWS_ACCESS_KEY_ID']}:{keys['AWS_SECRET_ACCESS_KEY']}"
    pod, secrets = pod_of(
        ROOT / "docker/kubernetes/daemonset.yaml",
        {
            "path: /var/lib/ossfs-py-mounts": f"path: {shared}",
            "path: /var/cache/ossfs-py": f"path: {tmp_path / 'cache'}",
            "example-key:example-secret": pair,
            'bucket = "models"': f'bucket = "{bucket}"',
            "oss-cn-hangzhou-internal.aliyuncs.com": seaweed.endpoint,
            'cache-size = "500G"': 'cache-size = "1G"',
            'min-free = "200G"': 'min-free = "100M"',
            'metrics-address = "0.0.0.0:9797"': 'metrics-address = "127.0.0.1:0"',
        },
    )
    (tmp_path / "pod.yaml").write_text(pod)
    (tmp_path / "secret.yaml").write_text(secrets)
    play = ["kube", "play", "--network", "host"]
    engine.run("secret", "rm", "models-keys", check=False)
    engine.run("secret", "create", "models-keys", tmp_path / "secret.yaml")
    mounted = shared / "models"
    try:
        for _ in range(2):  # the second one is the rolling replacement
            engine.run(*play, tmp_path / "pod.yaml")
            deadline = time.monotonic() + 60.0
            while not look_at(mounted).is_alive:
                assert time.monotonic() < deadline, engine.run("pod", "logs", "ossfs-py-models")
            engine.run("kube", "down", tmp_path / "pod.yaml")
            assert look_at(mounted).standing is Standing.FREE
    finally:
        engine.run("pod", "rm", "--force", "--all", check=False)
        engine.run("secret", "rm", "models-keys", check=False)

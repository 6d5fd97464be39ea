"""The manifests as ``podman kube play`` takes them, for a bucket of the test.

podman 4.3 plays Pods, ConfigMaps and claims of volumes. A DaemonSet becomes the pod that the
kubelet would run of it. Init containers become containers of the pod, those that stay (sidecars)
and those that end, whose end podman 4.3 sees 20 s late. Files of secrets come from a directory, as
podman 4.3 writes them undecoded.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.containers.engine import ROOT, Container, Engine

MANIFESTS = sorted((ROOT / "docker/kubernetes").glob("*.yaml"))
Document = dict[str, Any]


@dataclass(frozen=True)
class Surroundings:
    """What a manifest's placeholders stand for here."""

    bucket: str
    endpoint: str
    keys: str
    work: Path
    """For the directories of the node; its "shared" is shared between namespaces."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """More lines of a TOML file, their values as TOML."""

    @property
    def shared(self) -> Path:
        return self.work / "shared"


def played(document: Document, here: Surroundings) -> Document | None:
    """The document for podman; nothing where podman has no such kind."""
    document = copy.deepcopy(document)
    document["metadata"].pop("namespace", None)
    kind = document["kind"]
    if kind == "DaemonSet":
        template = document["spec"]["template"]
        metadata = {**template["metadata"], "name": document["metadata"]["name"]}
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
        document["spec"] = template["spec"]
        kind = "Pod"
    if kind == "ConfigMap":
        for name, text in document["data"].items():
            document["data"][name] = _settings(text, here)
        return document
    if kind == "PersistentVolumeClaim":
        return document
    if kind != "Pod":
        return None
    spec = document["spec"]
    for container in spec.pop("initContainers", []):
        spec["containers"].append(container)
        if not container.pop("restartPolicy", None):
            spec["restartPolicy"] = "OnFailure"
    for volume in spec["volumes"]:
        _place(volume, here)
    for container in spec["containers"]:
        container.pop("ports", None)  # on the network of the host they need no mapping
        for variable in container.get("env", []):
            if variable["name"] == "OSSFS_PY_BUCKET":
                variable["value"] = here.bucket
            if variable["name"] == "OSSFS_PY_ENDPOINT":
                variable["value"] = here.endpoint
    return document


@contextlib.contextmanager
def playing(engine: Engine, *documents: Document | None, work: Path) -> Iterator[list[Container]]:
    """Play them; the containers of the last pod, by their order in it."""
    kept = [document for document in documents if document]
    file = work / f"{kept[-1]['metadata']['name']}.yaml"
    file.write_text(yaml.safe_dump_all(kept))
    pod = kept[-1]
    try:
        engine.run("kube", "play", "--network", "host", file)
        names = [f"{pod['metadata']['name']}-{one['name']}" for one in pod["spec"]["containers"]]
        yield [Container(engine, name) for name in names]
    finally:
        engine.run("pod", "rm", "--force", "--time", "0", pod["metadata"]["name"], check=False)
        for claim in kept:
            if claim["kind"] == "PersistentVolumeClaim":
                engine.run("volume", "rm", "--force", claim["metadata"]["name"], check=False)


def _settings(text: str, here: Surroundings) -> str:
    given = {"bucket": f'"{here.bucket}"', "endpoint": f'"{here.endpoint}"', **here.settings}
    lines = [line for line in text.splitlines() if line.partition(" =")[0] not in given]
    return "\n".join([*lines, *(f"{name} = {value}" for name, value in given.items())])


def _place(volume: Document, here: Surroundings) -> None:
    """Put a volume that is the node's, or a secret, below the test's directory."""
    if "secret" in volume:
        directory = here.work / "keys"
        directory.mkdir(exist_ok=True)
        (directory / "keys").write_text(here.keys)
        (directory / "keys").chmod(volume.pop("secret")["defaultMode"])
        volume["hostPath"] = {"path": str(directory), "type": "Directory"}
    elif "hostPath" in volume:
        path = volume["hostPath"]["path"]
        is_shared = path == "/var/lib/ossfs-py-mounts"
        own = here.work / volume["name"]
        volume["hostPath"]["path"] = str(here.shared if is_shared else own)
    elif "emptyDir" in volume and volume["name"] == "models":
        # Of a kubelet it is in a directory that propagates.
        del volume["emptyDir"]
        volume["hostPath"] = {"path": str(here.shared), "type": "Directory"}
    elif "emptyDir" in volume:
        del volume["emptyDir"]
        own = here.work / volume["name"]
        volume["hostPath"] = {"path": str(own), "type": "DirectoryOrCreate"}

"""The manifests against the schemas of the newest Kubernetes, strictly."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.containers.pods import MANIFESTS

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

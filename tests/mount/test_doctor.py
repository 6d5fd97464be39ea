"""``ossfs-py doctor`` as a program: on a machine that is well, and on one that is bent."""

import json
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.chosen import chosen_server
from tests.support.commands import (
    Outcome,
    ossfs,
    without_fuse_device,
    without_fusermount,
    without_permissions,
)
from tests.support.mounting import Mount
from tests.support.seaweed import OUTSIDER, OUTSIDER_BUCKET, SeaweedServer
from tests.support.servers.deviations import LACKS

MIB = 1024**2


def findings(outcome: Outcome) -> dict[str, dict[str, Any]]:
    assert outcome.err == ""
    return {row["check"]: row for row in json.loads(outcome.out)}


@pytest.fixture
def filled(seaweed: SeaweedServer, bucket: str, tmp_path: Path) -> str:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(4 * MIB))
    seaweed.put_file(bucket, "weights", source)
    return bucket


def doctor(
    server: SeaweedServer, *arguments: str | Path, wrapper: Sequence[str] = (), **variables: str
) -> Outcome:
    return ossfs(
        "doctor",
        *arguments,
        "--endpoint",
        server.endpoint,
        environment={**server.environment, **variables},
        wrapper=wrapper,
    )


def test_a_mount_that_is_well_passes_every_check_and_nothing_is_left_in_the_bucket(
    mount: MountFactory, seaweed: SeaweedServer, filled: str, minio_client: Minio
) -> None:
    mounted = mount(filled)
    outcome = doctor(seaweed, filled, mounted.path, "--write", "--json")
    assert outcome.code == 0
    found = findings(outcome)
    bad = {name for name, row in found.items() if row["status"] == "failed"}
    assert bad == set()
    for name in ("credentials", "list", "get", "put", "delete", "tags", "mountpoint"):
        assert found[name]["status"] == "ok", found[name]
    complete = not LACKS.get(chosen_server())
    assert found["capabilities"]["status"] == ("ok" if complete else "warning")
    assert "MB/s" in found["throughput"]["told"]
    for secret in (seaweed.access_key, seaweed.secret_key):
        assert secret not in outcome.out
    names = {item.object_name for item in minio_client.list_objects(filled, recursive=True)}
    assert names == {"weights"}


def test_what_the_store_does_is_a_table(seaweed: SeaweedServer, filled: str) -> None:
    outcome = doctor(seaweed, filled, "--write")
    *table, _verdict = outcome.out.splitlines()
    rows = {line[:17].strip(): line[17:].split()[0] for line in table if line}
    lacks = LACKS.get(chosen_server(), {})
    assert {name: word for name, word in rows.items() if word in ("ignored", "refused")} == lacks
    features = ("create-only", "replace-only", "part copies", "read pins", "part sizes")
    assert {rows[name] for name in {*features, "directories"} - {*lacks}} == {"works"}
    if not lacks:
        assert {rows[name] for name in ("at completion", "copy pins", "tag counts")} == {"works"}


def test_wrong_keys_are_one_row_with_what_to_do(seaweed: SeaweedServer, filled: str) -> None:
    outcome = doctor(seaweed, filled, AWS_SECRET_ACCESS_KEY="wrong")
    assert outcome.code == 1
    rows = [line for line in outcome.out.splitlines() if " failed " in line]
    assert len(rows) == 1
    assert rows[0].startswith("list             failed   ")
    assert "does not accept the signature" in outcome.out
    assert "\n                          -> " in outcome.out
    fix = "check the bucket's name, --endpoint, --region, and the permission to list it"
    assert outcome.out.splitlines()[-1] == f"Not ready. First: list: {fix}"


def test_the_last_line_says_that_a_mount_is_ready(seaweed: SeaweedServer, filled: str) -> None:
    outcome = doctor(seaweed, filled)
    rows = outcome.out.splitlines()
    warnings = sum(" warning " in row for row in rows)
    assert outcome.code == 0
    expected = {0: "Ready.", 1: "Ready, with 1 warning."}
    assert rows[-1] == expected.get(warnings, f"Ready, with {warnings} warnings.")


def test_rights_that_are_missing_are_told_one_by_one(seaweed: SeaweedServer, filled: str) -> None:
    outsider = seaweed.identities[OUTSIDER]
    keys = {"AWS_ACCESS_KEY_ID": outsider.access_key, "AWS_SECRET_ACCESS_KEY": outsider.secret_key}
    denied = findings(doctor(seaweed, filled, "--json", "--write", **keys))
    assert denied["list"]["status"] == "failed"
    assert denied["put"]["status"] == "skipped"
    own = doctor(seaweed, OUTSIDER_BUCKET, "--json", "--write", **keys)
    assert own.code == 0
    assert findings(own)["put"]["status"] == "ok"


@pytest.mark.parametrize(
    ("bent", "check"),
    [
        (without_fuse_device, "fuse device"),
        (without_fusermount, "fusermount3"),
        (without_permissions, "user_allow_other"),
    ],
)
def test_a_bent_machine_is_told_by_the_check_of_its_fault(bent: Any, check: str) -> None:
    outcome = ossfs("doctor", "--json", "--allow-other", environment={}, wrapper=bent())
    assert outcome.code == 1
    found = findings(outcome)
    assert found[check]["status"] == "failed"
    assert found[check]["fix"]


def test_a_mount_that_hangs_is_told_and_hangs_nobody_who_asks(
    seaweed: SeaweedServer, filled: str, tmp_path: Path
) -> None:
    with Mount(
        filled, tmp_path / "m", endpoint=seaweed.endpoint, environment=seaweed.environment
    ) as mounted:
        os.kill(mounted.pid, signal.SIGSTOP)
        commands = (("doctor", mounted.path, "--json"), ("list", "--json"))
        try:
            with ThreadPoolExecutor(2) as threads:
                examined, listed = threads.map(
                    lambda words: ossfs(*words, environment={}), commands
                )
        finally:
            os.kill(mounted.pid, signal.SIGCONT)
        assert examined.code == 1
        assert "does not answer within 5 s" in findings(examined)["mountpoint"]["told"]
        row = next(row for row in json.loads(listed.out) if row["mountpoint"] == str(mounted.path))
        assert row["state"] == "broken: it does not answer within 5 s"
        assert mounted.unmount() == 0

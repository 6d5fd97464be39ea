"""What a running mount tells Prometheus, and what asking it costs."""

import contextlib
import io
import json
import math
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from minio import Minio
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import MountFactory
from tests.support.commands import ossfs, plain_environment
from tests.support.mount_command import Place
from tests.support.mounting import END_SECONDS, Mount, wait_for_log
from tests.support.seaweed import SeaweedServer

DASHBOARD = Path(__file__).parents[2] / "docker" / "grafana-dashboard.json"
MIB = 1024**2
SCRAPES = 40
WORTH_A_SCRAPE_SECONDS = 0.01
"""CPU: at one scrape each second this is 1 %."""


@pytest.fixture
def place(tmp_path: Path, seaweed: SeaweedServer, bucket: str) -> Place:
    return Place(tmp_path, seaweed.endpoint, bucket, seaweed.environment)


def endpoint_of(mounted: Mount) -> str:
    """Where the daemon says that it answers."""
    found = re.search(r"metrics are served at (\S+)", mounted.log)
    assert found is not None, mounted.log
    return found.group(1)


def scraped(mounted: Mount) -> dict[str, float]:
    """Samples by name and labels."""
    with urllib.request.urlopen(endpoint_of(mounted)) as answer:
        text = answer.read().decode()
    return {
        " ".join([sample.name, *sorted(sample.labels.values())]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def cpu_seconds(mounted: Mount) -> float:
    fields = Path(f"/proc/{mounted.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("name", ["模型", "my models", "back\\slash", "\\040"])
def test_readahead_and_kernel_metrics_are_there_whatever_the_mountpoint_is_called(
    seaweed: SeaweedServer, bucket: str, tmp_path: Path, name: str
) -> None:
    with Mount(
        bucket,
        tmp_path / name,
        endpoint=seaweed.endpoint,
        environment=seaweed.environment,
        readahead="4M",
        metrics_address="0",
    ) as mounted:
        # A mount answers before its readahead is set, which its first answer would set back.
        wait_for_log(mounted, "is mounted at")
        device = mounted.path.stat().st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        kernel_s = float((Path("/sys/class/bdi") / number / "read_ahead_kb").read_text())
        waiting = Path("/sys/fs/fuse/connections") / str(os.minor(device)) / "waiting"
        has_queue = waiting.exists()
        told = scraped(mounted)["ossfs_kernel_waiting_requests"]
        assert mounted.unmount() == 0
    assert "was not found in the mount table" not in mounted.log
    # As an ordinary user, or with /sys read-only, both stay as the kernel has them.
    assert kernel_s == 4096 or f"{number}/read_ahead_kb not set" in mounted.log
    assert math.isnan(told) != has_queue


def expressions(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


def test_every_metric_of_the_dashboard_exists_and_no_secret_is_told(
    mount: MountFactory, bucket: str, seaweed: SeaweedServer
) -> None:
    mounted = mount(bucket, metrics_address="0")
    with urllib.request.urlopen(endpoint_of(mounted)) as answer:
        told = answer.read().decode()
    assert seaweed.access_key not in told
    assert seaweed.secret_key not in told
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", told, re.MULTILINE))
    suffixes = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
    known = {name + suffix for name, kind in kinds.items() for suffix in suffixes.get(kind, ("",))}
    dashboard = json.loads(DASHBOARD.read_text())
    named = {
        name
        for panel in dashboard["panels"]
        for expression in expressions(panel)
        for name in re.findall(r"\b(?:ossfs|process)_\w+", expression)
    }
    named |= set(re.findall(r"ossfs_\w+", json.dumps(dashboard["templating"])))
    assert len(named) > 30
    assert named - known == set()


def test_bytes_are_told_by_where_they_came_from(
    mount: MountFactory, seaweed: SeaweedServer, bucket: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(24 * MIB))
    seaweed.put_file(bucket, "model", source)
    mounted = mount(bucket, data_path="cache", metrics_address="0")
    assert (mounted.path / "model").read_bytes() == source.read_bytes()
    first = scraped(mounted)
    assert first["ossfs_store_received_bytes_total"] == 24 * MIB
    by_source = {s: first[f"ossfs_read_bytes_total {s}"] for s in ("memory", "disk", "network")}
    assert sum(by_source.values()) == 24 * MIB
    assert by_source["disk"] == 0 < by_source["network"]
    assert first["ossfs_prefetch_bytes_total used"] > 0
    assert first["ossfs_operation_seconds_count open"] == 1
    (info,) = (sample for sample in first if sample.startswith("ossfs_mount_info"))
    assert {str(mounted.path), bucket, "cache"} < set(info.split())


def test_a_scrape_each_second_costs_less_than_one_percent(
    mount: MountFactory, seaweed: SeaweedServer, bucket: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(MIB))
    for number in range(20):
        seaweed.put_file(bucket, f"d/{number}", source)
    mounted = mount(bucket, metrics_address="0", executed=True)
    for path in sorted((mounted.path / "d").iterdir()):
        path.read_bytes()
    (mounted.path / "new").write_text("so that every family has samples")
    before = cpu_seconds(mounted)
    for _ in range(SCRAPES):
        scraped(mounted)
    assert (cpu_seconds(mounted) - before) / SCRAPES < WORTH_A_SCRAPE_SECONDS


def test_the_status_page_shows_a_mount_at_work_and_names_nothing_unasked(
    mount: MountFactory, seaweed: SeaweedServer, bucket: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(2 * MIB))
    seaweed.put_file(bucket, "hush/weights", source)
    mounted = mount(bucket, data_path="cache", cache_size="64M", metrics_address="0")
    assert (mounted.path / "hush/weights").read_bytes() == source.read_bytes()
    address = endpoint_of(mounted).removesuffix("metrics")
    with (mounted.path / "unsaved").open("wb") as file:
        file.write(b"x")
        file.flush()
        with urllib.request.urlopen(f"{address}status.json") as answer:
            text = answer.read().decode()
    with urllib.request.urlopen(address) as answer:
        policy, page = answer.headers["Content-Security-Policy"], answer.read().decode()
    told = json.loads(text)
    assert (told["files"]["open"], told["files"]["unsaved"]) == (1, 1)
    assert told["mount"] == {"bucket": bucket, "data_path": "cache"}
    assert [one["limit"] for one in told["caches"]][1:] == [64 * MIB]
    assert "GetObject" in {one["operation"] for one in told["store"]}
    assert sum(told["answered"].values()) == 2 * MIB
    for secret in (seaweed.access_key, seaweed.secret_key, "hush", "weights", str(mounted.path)):
        assert secret not in text + page
    assert policy.startswith("default-src 'none'")


def test_a_port_in_use_is_one_sentence_and_nothing_is_mounted(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        sentence = place.refused("--metrics-address", str(port))
    assert sentence == (
        f"metrics cannot be served at 127.0.0.1:{port}: address already in use"
        " (see --metrics-address)"
    )


def test_info_tells_all_that_is_known_of_an_object(
    mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    content = os.urandom(3 * MIB)
    minio_client.put_object(
        bucket,
        "d/weights",
        io.BytesIO(content),
        len(content),
        content_type="model/x",
        metadata={"who": "me"},
    )
    mounted = mount(bucket, data_path="cache")
    path = mounted.path / "d/weights"
    with path.open("rb") as first, path.open("rb"):
        assert first.read() == content
        told = json.loads(ossfs("info", path, "--json", environment={}).out)
    stored = minio_client.stat_object(bucket, "d/weights")
    assert (told["key"], told["bytes"], told["etag"]) == ("d/weights", 3 * MIB, stored.etag)
    assert (told["open_handles"], told["unsaved"]) == (2, False)
    assert (told["content_type"], told["metadata"]["who"]) == ("model/x", "me")
    (listed,) = minio_client.list_objects(bucket, "d/weights", fetch_owner=True)
    assert told["owner"] == (listed.owner_name or listed.owner_id)
    assert 0 <= told["cached_bytes"] <= 3 * MIB
    lines = ossfs("info", path, environment={}).out.splitlines()
    assert "Metadata        who: me" in lines
    assert any(line.startswith("Open handles    ") for line in lines)


def test_stats_follow_a_mount_on_a_terminal_until_ctrl_c(mount: MountFactory, bucket: str) -> None:
    mounted = mount(bucket)
    terminal, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "ossfs_py", "stats", mounted.path],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=plain_environment({"TERM": "xterm", "COLUMNS": "120", "LINES": "60"}),
        start_new_session=True,
    ) as program:
        os.close(theirs)
        shown = b""
        # Rates are there from the second look on.
        while b"/s" not in shown:
            shown += os.read(terminal, 65536)
        assert f"{bucket} (temp data path)".encode() in shown
        program.send_signal(signal.SIGINT)
        # Whoever writes to a terminal waits for its reader.
        with contextlib.suppress(OSError):
            while os.read(terminal, 65536):
                pass
        assert program.wait(END_SECONDS) == 0
    os.close(terminal)

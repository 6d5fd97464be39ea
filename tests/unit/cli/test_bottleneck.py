"""The sentence of ``ossfs-py stats`` that says what programs wait for."""

from collections.abc import Callable
from typing import Any

import pytest

from ossfs_py.cli.bottleneck import bottleneck
from ossfs_py.telemetry.metrics import DISK, MEMORY, NETWORK, Metrics
from tests.support.counting_mount import CountingMount

MIB = 1024**2
ATTEMPT = {"operation": "GetObject", "key": "a", "seconds": 3.0, "waits_for": "the answer"}


def reading(metrics: Metrics, source: tuple[str, ...] = NETWORK) -> None:
    metrics.bytes_read.values[source] += 10 * MIB
    metrics.bytes_read.values[MEMORY] += MIB


def told(change: Callable[[CountingMount], Any], data_path: str = "direct") -> str:
    """What is said of a second in which the mount changed so."""
    mount = CountingMount(data_path)
    mount.metrics.request_limit.set(32)
    before = mount.look()
    change(mount)
    return bottleneck(mount.look(), before, 1.0)


def test_nothing_is_said_of_a_mount_that_nobody_reads() -> None:
    assert told(lambda mount: mount.metrics.bytes_received.inc(MIB)) == ""


def test_bytes_from_memory_wait_for_nothing() -> None:
    assert "neither for the network nor for the disk" in told(
        lambda mount: reading(mount.metrics, MEMORY)
    )


@pytest.mark.parametrize(
    ("data_path", "option"), [("cache", "--cache-dir"), ("temp", "--temp-dir")]
)
def test_a_slow_disk_is_named_with_what_helps(data_path: str, option: str) -> None:
    said = told(lambda mount: reading(mount.metrics, DISK), data_path)
    assert said.startswith("Programs wait for the local disk.")
    assert "--data-path direct" in said
    assert option in said


def limited(mount: CountingMount) -> None:
    mount.metrics.limited_seconds.labels("download").inc(4.0)


def repeated(mount: CountingMount) -> None:
    mount.waiting = [{**ATTEMPT, "attempt": 2}]


def slowed(mount: CountingMount) -> None:
    mount.waiting = [
        {**ATTEMPT, "attempt": 2, "waits_for": "its turn, as the store asked to slow down"}
    ]


def crowded(mount: CountingMount) -> None:
    mount.waiting = [{**ATTEMPT, "attempt": 1}]
    mount.metrics.request_limit.set(2)
    mount.metrics.store_jobs.labels("running").set(2)
    mount.metrics.store_jobs.labels("waiting").set(20)


def full(mount: CountingMount) -> None:
    mount.metrics.store_jobs.labels("running").set(8)
    mount.metrics.memory_limit_bytes.set(64 * MIB)
    mount.metrics.memory_bytes.set(60 * MIB)


def slow(mount: CountingMount) -> None:
    mount.metrics.store_jobs.labels("running").set(8)
    mount.metrics.request_seconds.labels("GetObject").observe(0.5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (limited, "--download-limit"),
        (repeated, "WAITING"),
        (slowed, "The store asks to slow down"),
        (crowded, "2 requests are in flight, as many as --concurrency allows, and others wait"),
        (full, "--memory-limit"),
        (slow, "8 requests are in flight, and a GetObject takes 500 ms"),
        (lambda _mount: None, "has not answered"),
    ],
)
def test_the_reason_for_waiting_for_the_network_is_named(
    change: Callable[[CountingMount], None], words: str
) -> None:
    def both(mount: CountingMount) -> None:
        reading(mount.metrics)
        change(mount)

    said = told(both)
    assert said.startswith("Programs wait for the network. ")
    assert words in said

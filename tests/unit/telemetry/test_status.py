"""The status page: what it tells, what it keeps to itself, and that it asks nobody else."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Coroutine
from functools import wraps
from html.parser import HTMLParser
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ossfs_py.sharedcache.metrics import SharedCacheMetrics
from ossfs_py.telemetry.exposition import exposed
from ossfs_py.telemetry.metrics import MEMORY, NETWORK, Metrics
from ossfs_py.telemetry.problems import Stretch, problems
from ossfs_py.telemetry.status import MountStatus
from tests.support.trio_tests import in_trio

VOID = {"meta", "link", "line", "path", "rect"}
SLOW_DISK = "the disk is slower than the network"
ADDRESSES = {"src", "srcset", "action", "formaction", "data", "poster"}


def in_no_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run an async test on a clock that passes over what nobody works in."""

    @wraps(test)
    def run() -> None:
        trio.run(test, clock=MockClock(autojump_threshold=0))

    return run


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    """The port that the endpoint has said it listens on."""
    caplog.set_level("INFO", "ossfs_py.telemetry.exposition")

    def port() -> int:
        return int(caplog.messages[-1].rsplit(":", 1)[1].removesuffix("/metrics"))

    return port


async def asked(port: int, target: str, method: str = "GET") -> tuple[dict[str, str], str, str]:
    """Headers by their names in small letters, the first line, and the body."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(f"{method} {target} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        answer = b""
        while piece := await stream.receive_some(65536):
            answer += piece
    head, _, body = answer.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return {name.lower(): value for name, value in headers.items()}, first, body


class Document(HTMLParser):
    """A page whose elements are all closed, and what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.references: list[tuple[str, str | None]] = []
        self.inline: dict[str, str] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), "a handler in an attribute, which the policy refuses"
            assert name != "style", "a style in an attribute, which the policy refuses"
            if name == "id":
                assert value not in self.ids
                self.ids.add(str(value))
            if name in ADDRESSES or name == "href":
                self.references.append((tag, value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] in (["style"], ["script"]):
            self.inline[self.open[-1]] = self.inline.get(self.open[-1], "") + data


def mount_info(metrics: Metrics) -> None:
    metrics.mount.info(
        {
            "source": "models/team/secret-plan",
            "mountpoint": "/mnt/private",
            "data_path": "cache",
            "version": "1",
        }
    )


@in_trio
async def test_the_page_is_whole_asks_nobody_else_and_says_so_to_the_browser(
    told: Callable[[], int],
) -> None:
    metrics = Metrics()
    async with exposed("127.0.0.1:0", metrics.registry, MountStatus(metrics, names=False)):
        headers, first, body = await asked(told(), "/?x=1")
        head, _, nothing = await asked(told(), "/", "HEAD")
        _, refused, _ = await asked(told(), "/", "POST")
        _, elsewhere, _ = await asked(told(), "/status")
    assert (first, nothing) == ("HTTP/1.1 200 OK", "")
    assert head == headers
    assert "405" in refused
    assert "404" in elsewhere
    assert headers["content-type"] == "text/html; charset=utf-8"
    document = Document(body)
    assert document.open == []
    assert document.references == [("link", "data:,"), ("a", "metrics")]
    script = document.inline["script"]
    # The name of SVG's elements is never fetched; nothing else looks like an address.
    assert re.findall(r"\b\w+://[^\"\s]+", body) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b", script)
    named = set(re.findall(r"(?:find|Chart)\(\"([a-z-]+)\"[,)]", script))
    drawn = {f"now-{key}" for key in re.findall(r"\[\"(\w+)\", \"\w+\", \"\w+\"\]", script)}
    assert len(named) > 10
    assert {"now-read", "now-store_ms"} < drawn
    assert named | drawn <= document.ids
    policy = dict(
        part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")
    )
    assert (policy["default-src"], policy["connect-src"]) == ("'none'", "'self'")
    for kind in ("script", "style"):
        digest = hashlib.sha256(document.inline[kind].encode()).digest()
        assert policy[f"{kind}-src"] == f"'sha256-{base64.b64encode(digest).decode()}'"
    assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "prefers-color-scheme: dark" in body


def figures_of(status: MountStatus) -> dict[str, Any]:
    return dict(json.loads(status.told()))


@in_no_time
async def test_the_last_minutes_are_told_as_rates() -> None:
    metrics = Metrics()
    mount_info(metrics)
    metrics.memory_limit_bytes.set(100)
    metrics.memory_bytes.set(25)
    status = MountStatus(metrics, names=False)
    assert figures_of(status)["history"] == []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(status.run)
        await trio.sleep(1)
        metrics.bytes_read.values[MEMORY] += 3000
        metrics.bytes_received.inc(6000)
        metrics.request_seconds.labels("get").observe(0.5)
        metrics.request_seconds.labels("get").observe(0.25)
        await trio.sleep(3)
        metrics.bytes_read.values[NETWORK] += 9000
        told = figures_of(status)
        nursery.cancel_scope.cancel()
    (entry,) = [one for one in told["history"] if one["read"]]
    assert (entry["read"], entry["downloaded"], entry["store_ms"]) == (1000, 2000, 375.0)
    assert told["answered"] == {"memory": 3000, "network": 9000}
    assert told["store"] == [
        {"operation": "get", "calls": 2, "mean_ms": 375.0, "retries": 0, "failed": 0}
    ]
    assert told["caches"] == [{"name": "Memory", "used": 25, "limit": 100}]
    assert told["versions"]["ossfs-py"]
    assert (told["problems"], told["ring"]) == ([], None)


@in_no_time
async def test_five_minutes_are_kept_however_long_a_mount_lives() -> None:
    status = MountStatus(Metrics(), names=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(status.run)
        await trio.sleep(3601)
        told = figures_of(status)
        nursery.cancel_scope.cancel()
    assert len(told["history"]) == 100
    assert 297 <= told["span_seconds"] <= 303


@in_no_time
async def test_a_metric_that_fails_leaves_a_gap_and_the_mount_alone() -> None:
    metrics = Metrics()
    limits = iter([1.0, 1 / 3, 1.0])
    metrics.request_limit.set_function(lambda: 1 / (next(limits) - 1 / 3))
    status = MountStatus(metrics, names=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(status.run)
        await trio.sleep(7)
        metrics.request_limit.set_function(lambda: 1.0)
        told = figures_of(status)
        nursery.cancel_scope.cancel()
    assert len(told["history"]) == 1


@in_trio
async def test_names_are_told_only_to_who_asked_for_them() -> None:
    metrics = Metrics()
    mount_info(metrics)
    with metrics.waits.add("get", "team/secret-plan/weights"):
        hidden = MountStatus(metrics, names=False).told().decode()
        shown = figures_of(MountStatus(metrics, names=True))
    assert "secret-plan" not in hidden
    assert "private" not in hidden
    assert json.loads(hidden)["mount"] == {"bucket": "models", "data_path": "cache"}
    assert json.loads(hidden)["waiting"]["calls"] == 1
    assert shown["mount"]["source"] == "models/team/secret-plan"
    assert shown["mount"]["mountpoint"] == "/mnt/private"
    assert shown["waiting"]["named"][0]["key"] == "team/secret-plan/weights"


@in_trio
async def test_the_ring_is_told_node_by_node() -> None:
    metrics = Metrics()
    shared = SharedCacheMetrics(metrics.registry)
    shared.nodes.labels("up").set(1)
    shared.nodes.labels("down").set(1)
    shared.received_bytes.labels("a:11211").inc(10)
    shared.received_bytes.labels("b:11211")
    status = MountStatus(metrics, names=False)
    shared.errors.labels("b:11211", "down").inc(2)
    told = figures_of(status)
    assert (told["ring"]["up"], told["ring"]["down"]) == (1, 1)
    by_node = {one["node"]: (one["received"], one["errors"]) for one in told["ring"]["nodes"]}
    assert by_node == {"a:11211": (10, 0), "b:11211": (0, 2)}
    assert told["problems"] == ["1 of the 2 nodes of the shared cache is down"]


@pytest.mark.parametrize(
    ("name", "labels", "value", "sentence"),
    [
        (
            "ossfs_kept_unsaved_files",
            (),
            2,
            "2 files could not be saved and are kept on this machine; see: ossfs-py recover",
        ),
        (
            "ossfs_store_errors_total",
            ("get",),
            1,
            "1 request to the store failed in the last 5 minutes (get 1)",
        ),
        (
            "ossfs_operation_errors_total",
            ("read", "EIO"),
            3,
            "programs got 3 input/output errors (EIO) in the last 5 minutes",
        ),
        (
            "ossfs_handler_failures_total",
            (),
            1,
            "1 unexpected exception since the mount began; the log has them",
        ),
        (
            "ossfs_store_longest_wait_seconds",
            (),
            41.6,
            "a call to the store has waited for 42 s",
        ),
        (
            "ossfs_store_retries_total",
            ("put",),
            7,
            "7 requests to the store were sent again in the last 5 minutes",
        ),
        (
            "ossfs_credential_refreshes_total",
            ("refused",),
            1,
            "the store refused the credentials 1 time in the last 5 minutes",
        ),
        (
            "ossfs_cache_skipped_bytes_total",
            ("slow_disk",),
            10,
            f"the disk cache skipped bytes in the last 5 minutes: {SLOW_DISK}",
        ),
        (
            "ossfs_cache_lost_reads_total",
            (),
            1,
            "1 block of the disk cache was damaged or gone in the last 5 minutes",
        ),
    ],
)
def test_each_problem_is_a_sentence(
    name: str, labels: tuple[str, ...], value: float, sentence: str
) -> None:
    assert problems(Stretch({(name, *labels): value}, {}, 300, 0)) == [sentence]


def test_what_is_over_or_of_no_concern_is_no_problem() -> None:
    past = {("ossfs_store_errors_total", "get"): 5.0, ("ossfs_store_longest_wait_seconds",): 2.0}
    asked_in_vain = {("ossfs_operation_errors_total", "lookup", "ENOENT"): 9.0}
    assert problems(Stretch(past | asked_in_vain, past, 300, 0)) == []


def test_a_store_that_asks_to_slow_down_is_told_by_its_limit() -> None:
    limit = {("ossfs_store_request_limit",): 8.0}
    assert problems(Stretch(limit, limit, 300, 64)) == [
        "the store asks to slow down: 8 requests at once instead of 64"
    ]

"""The metrics themselves, and how Prometheus is told."""

import math
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from time import perf_counter

import pytest
import trio
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families

from ossfs_py.config.values import listen_address
from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.fuse import tuning as kernel
from ossfs_py.telemetry import exposition
from ossfs_py.telemetry.exposition import exposed
from ossfs_py.telemetry.metrics import MEMORY, Metrics, Tally, Timings
from ossfs_py.telemetry.status import MountStatus
from tests.support.trio_tests import in_trio

CLIENTS = 20
PLACES = 8
"""Clients that are served at once."""


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    """The port that the endpoint has said it listens on."""
    caplog.set_level("INFO", "ossfs_py.telemetry.exposition")

    def port() -> int:
        return int(caplog.messages[-1].rsplit(":", 1)[1].removesuffix("/metrics"))

    return port


async def exchange(port: int, request: bytes) -> bytes:
    """What is answered to ``request``, to the end of the connection."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(request)
        answer = b""
        while piece := await stream.receive_some(65536):
            answer += piece
        return answer


def get(target: str, method: str = "GET") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: here\r\n\r\n".encode()


def families(answer: bytes) -> dict[str, float]:
    """Samples of a scrape by name and labels."""
    text = answer.partition(b"\r\n\r\n")[2].decode()
    return {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_tally_shows_known_labels_as_zero_and_counts_what_is_added() -> None:
    registry = CollectorRegistry()
    tally = Tally("eaten", "Eaten", ["fruit"], registry, [("apple",), ("pear",)])
    tally.values["apple",] += 3
    tally.values["plum",] += 1
    seen = [registry.get_sample_value("eaten_total", {"fruit": f}) for f in ("apple", "pear")]
    assert seen == [3, 0]
    assert registry.get_sample_value("eaten_total", {"fruit": "plum"}) == 1


def test_timings_tell_count_and_seconds_of_each_name() -> None:
    registry = CollectorRegistry()
    timings = Timings("calls_seconds", "Calls", "name", registry)
    timings.add_since(0.0, "read")
    timings.add_since(0.0, "read")
    assert registry.get_sample_value("calls_seconds_count", {"name": "read"}) == 2
    assert (registry.get_sample_value("calls_seconds_sum", {"name": "read"}) or 0) > 0


@in_trio
async def test_a_scrape_tells_every_figure(told: Callable[[], int]) -> None:
    metrics = Metrics()
    async with exposed("127.0.0.1:0", metrics.registry):
        metrics.bytes_read.values[MEMORY] += 7
        answer = await exchange(told(), get("/metrics?x=1"))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=")
    found = families(answer)
    assert found["ossfs_read_bytes_total['memory']"] == 7
    assert found["process_cpu_seconds_total[]"] > 0


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/metrics", "HEAD"), b"200 OK"),
        (get("/"), b"404 Not Found"),
        (get("/metrics/x"), b"404 Not Found"),
        (get("/metrics", "POST"), b"405 Method Not Allowed"),
        (b"\r\n\r\n", b"405 Method Not Allowed"),
        (b"\xff\x00 \r\n\r\n", b"405 Method Not Allowed"),
        (b"GET\r\n\r\n", b"404 Not Found"),
    ],
)
def test_other_requests_are_answered_in_order(
    told: Callable[[], int], request_: bytes, status: bytes
) -> None:
    async def main() -> None:
        async with exposed("127.0.0.1:0", Metrics().registry):
            answer = await exchange(told(), request_)
            assert answer.startswith(b"HTTP/1.1 " + status)
            if request_.startswith(b"HEAD"):
                assert answer.endswith(b"\r\n\r\n")

    trio.run(main)


@in_trio
async def test_clients_that_say_nothing_too_much_or_leave_hurt_nobody(
    told: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition, "_CLIENT_SECONDS", 1.0)
    async with exposed("127.0.0.1:0", Metrics().registry):
        port = told()
        await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
        assert (await exchange(port, b"x" * 40_000)).startswith(b"HTTP/1.1 405")
        silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(PLACES + 1)]
        # Served as soon as the silent ones, who hold every place, have been given up.
        assert (await exchange(port, get("/metrics"))).startswith(b"HTTP/1.1 200")
        for stream in silent:
            await stream.aclose()


@in_trio
async def test_connections_that_say_nothing_take_few_descriptors(
    told: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are closed at once but for those that may wait, however long they are waited for."""
    monkeypatch.setattr(exposition, "_CLIENT_SECONDS", 600.0)
    monkeypatch.setattr(exposition, "_WAITING_SECONDS", 600.0)
    closed = 0

    async def watch(stream: trio.SocketStream) -> None:
        nonlocal closed
        with suppress(trio.BrokenResourceError):
            assert await stream.receive_some(1) == b""
        closed += 1

    async with (
        exposed("127.0.0.1:0", Metrics().registry),
        AsyncExitStack() as opened,
        trio.open_nursery() as nursery,
    ):
        port = told()
        for _ in range(10 * CLIENTS):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await opened.enter_async_context(stream)
            nursery.start_soon(watch, stream)
        with trio.fail_after(60):
            while closed < 8 * CLIENTS:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


@in_trio
async def test_who_waits_for_a_place_is_given_up(
    told: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition, "_CLIENT_SECONDS", 600.0)
    monkeypatch.setattr(exposition, "_WAITING_SECONDS", 0.2)
    async with exposed("127.0.0.1:0", Metrics().registry), AsyncExitStack() as opened:
        for _ in range(PLACES):
            await opened.enter_async_context(await trio.open_tcp_stream("127.0.0.1", told()))
        with trio.fail_after(60):
            assert await exchange(told(), b"") == b""


class Slow:
    """A metric that takes its time to tell."""

    seconds = 0.0

    def collect(self) -> list[Metric]:
        began = perf_counter()
        while perf_counter() - began < 0.005:
            pass
        self.seconds += perf_counter() - began
        return []


@in_trio
async def test_who_scrapes_all_the_time_gets_a_small_share_of_the_loop(
    told: Callable[[], int],
) -> None:
    """Reads are answered on the same thread."""
    slow, registry = Slow(), CollectorRegistry()
    registry.register(slow)
    slow.seconds, answers = 0.0, 0
    enough = trio.Event()
    async with exposed("127.0.0.1:0", registry), trio.open_nursery() as nursery:

        async def scrape() -> None:
            nonlocal answers
            while True:
                await exchange(told(), get("/metrics"))
                answers += 1
                if answers == PLACES:
                    enough.set()

        began = perf_counter()
        for _ in range(PLACES):
            nursery.start_soon(scrape)
        await enough.wait()
        await trio.sleep(1.0)
        elapsed = perf_counter() - began
        nursery.cancel_scope.cancel()
    assert slow.seconds < elapsed / 10


@in_trio
async def test_page_and_metrics_share_their_part_of_the_loop(told: Callable[[], int]) -> None:
    slow, metrics = Slow(), Metrics()
    metrics.registry.register(slow)
    slow.seconds, answered = 0.0, {"/metrics": trio.Event(), "/status.json": trio.Event()}
    async with (
        exposed("127.0.0.1:0", metrics.registry, MountStatus(metrics, names=False)),
        trio.open_nursery() as nursery,
    ):

        async def ask(target: str) -> None:
            while True:
                assert (await exchange(told(), get(target))).startswith(b"HTTP/1.1 200")
                answered[target].set()

        began = perf_counter()
        for target in answered:
            nursery.start_soon(ask, target)
        for one in answered.values():
            await one.wait()
        await trio.sleep(1.0)
        elapsed = perf_counter() - began
        nursery.cancel_scope.cancel()
    assert slow.seconds < elapsed / 10


@in_trio
async def test_many_scrapers_at_once_are_all_answered(told: Callable[[], int]) -> None:
    answers: list[bytes] = []
    async with exposed("127.0.0.1:0", Metrics().registry), trio.open_nursery() as nursery:
        port = told()

        async def scrape() -> None:
            answers.append(await exchange(port, get("/metrics")))

        for _ in range(CLIENTS):
            nursery.start_soon(scrape)
        while len(answers) < CLIENTS:
            await trio.lowlevel.checkpoint()
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)


@in_trio
async def test_a_port_in_use_is_told_in_one_sentence(told: Callable[[], int]) -> None:
    async with exposed("127.0.0.1:0", Metrics().registry):
        address = f"127.0.0.1:{told()}"
        with pytest.raises(EnvironmentProblemError) as caught:
            async with exposed(address, Metrics().registry):
                pass
        assert str(caught.value) == (
            f"metrics cannot be served at {address}: address already in use (see --metrics-address)"
        )


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    async def main() -> None:
        with pytest.raises(EnvironmentProblemError, match=f"metrics cannot be served at {host}:1"):
            async with exposed(f"{host}:1", Metrics().registry):
                pass

    trio.run(main)


@in_trio
async def test_without_an_address_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    async with exposed(None, Metrics().registry):
        assert caplog.messages == []


@pytest.mark.parametrize(("content", "told"), [("17\n", 17.0), (None, math.nan)])
def test_the_kernel_s_queue_is_told_where_the_kernel_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, told: float
) -> None:
    monkeypatch.setattr(kernel, "_CONNECTIONS", tmp_path)
    monkeypatch.setattr(kernel, "device_of", lambda _mountpoint: "0:53")
    if content is not None:
        (tmp_path / "53").mkdir()
        (tmp_path / "53" / "waiting").write_text(content)
    ask = kernel.waiting_requests(Path("/mnt/models"))
    assert ask() == pytest.approx(told, nan_ok=True)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("9464", "127.0.0.1:9464"),
        (9464, "127.0.0.1:9464"),
        (":9464", "127.0.0.1:9464"),
        ("0.0.0.0:9464", "0.0.0.0:9464"),
        ("[::1]:9464", "[::1]:9464"),
        ("node7.example:80", "node7.example:80"),
    ],
)
def test_a_port_alone_is_open_to_this_machine_only(given: object, meant: str) -> None:
    assert listen_address(given) == meant


@pytest.mark.parametrize(
    "given", ["", "host", "host:", "1:65536", "1:-1", "http://x:1", "a:b", "٣"]
)
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="is not an address; write it like 9464"):
        listen_address(given)

"""Limits of bytes a second: kept by all connections together, used up, and free when not set."""

import os
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ossfs_py.model import CommitRequest, FileSlice, ObjectVersion
from ossfs_py.store.base import ObjectStore
from ossfs_py.store.http.connection import Connection
from ossfs_py.store.http.dialing import Dialer, Origin, Timeouts
from ossfs_py.store.http.limiting import BURST_SECONDS, LimitedConnection, Limits, RateLimit
from tests.support.authority import Authority
from tests.support.scripted_server import ETAG, ScriptedServer, ranged, reply, store_for

KIB, MIB = 1024, 1024**2
CONTENT = os.urandom(MIB)
VERSION = ObjectVersion("key", ETAG, len(CONTENT))
LIMIT = 4 * MIB
"""Bytes a second; all of CONTENT is a quarter of a second of it, as much as a burst."""
DONE = reply(200, headers={"etag": f'"{ETAG}"'})


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# -- the schedule ------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 500_000), st.floats(0, 2.0)), min_size=1, max_size=60))
def test_no_stretch_of_time_has_more_than_the_limit_and_a_burst(
    payments: list[tuple[int, float]],
) -> None:
    clock, done = Clock(), []
    limit = RateLimit(1_000_000, clock)
    for count, pause in payments:
        clock.now += pause
        done.append((clock.now + max(limit.charge(count), 0.0), count))
    for first in range(len(done)):
        for last in range(first, len(done)):
            # What is paid for is over at its moment, and began before it.
            moved = sum(count for _, count in done[first + 1 : last + 1])
            seconds = done[last][0] - done[first][0]
            assert moved <= 1_000_000 * (seconds + BURST_SECONDS) + 1


def test_who_is_late_by_less_than_a_burst_loses_nothing() -> None:
    clock = Clock()
    limit = RateLimit(1_000_000, clock)
    began = clock.now
    for _ in range(100):
        clock.now += max(limit.charge(200_000), 0.0) + 0.1
    assert clock.now - began == pytest.approx(20.0, abs=2 * BURST_SECONDS)


def test_what_was_not_used_is_not_saved_up() -> None:
    clock = Clock()
    limit = RateLimit(1_000_000, clock)
    clock.now += 3600
    assert limit.charge(10_000_000) == pytest.approx(10.0 - BURST_SECONDS)


def test_the_time_that_is_waited_is_counted() -> None:
    waited: list[float] = []
    limit = RateLimit(100 * MIB, count_waited=waited.append)
    assert limit.pay(1) == 0.0
    assert waited == []
    paid = limit.pay(30 * MIB)
    assert waited == [paid] != [0.0]


def test_closing_lets_go_who_waits() -> None:
    limit = RateLimit(64 * KIB)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(limit.pay, 100 * MIB) for _ in range(4)]
        limit.close()
        assert [one.result(timeout=60) for one in waiting] == [0.0] * 4


# -- requests ----------------------------------------------------------------------------------


def read(store: ObjectStore, start: int = 0, end: int = len(CONTENT)) -> bytes:
    buffer = bytearray(end - start)
    store.get_range_into(VERSION, start, memoryview(buffer))
    return bytes(buffer)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_readers_share_the_download_limit(tmp_path: Path, scheme: str) -> None:
    authority = Authority(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue("127.0.0.1"))
    with ScriptedServer(
        [[[ranged(CONTENT)]] * 4] * 4, tls if scheme == "https" else None
    ) as server:
        store = store_for(
            server.url,
            ca_bundle=authority.root,
            connect_timeout_seconds=30.0,
            download_limit_bytes=LIMIT,
        )
        began = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda _: read(store), range(4))) == [CONTENT] * 4
        took = time.monotonic() - began
        store.close()
    assert took > 4 * len(CONTENT) / LIMIT - BURST_SECONDS


@pytest.mark.parametrize("kind", ["memory", "file"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_writers_share_the_upload_limit(tmp_path: Path, scheme: str, kind: str) -> None:
    authority = Authority(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue("127.0.0.1"))
    (path := tmp_path / "body").write_bytes(CONTENT)
    with (
        path.open("rb") as file,
        ScriptedServer([[[DONE]] * 4] * 4, tls if scheme == "https" else None) as server,
    ):
        store = store_for(
            server.url,
            ca_bundle=authority.root,
            connect_timeout_seconds=30.0,
            stall_timeout_seconds=30.0,
            upload_limit_bytes=LIMIT,
            checksum="none",
        )
        body = CONTENT if kind == "memory" else FileSlice(file.fileno(), 0, len(CONTENT))
        began = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda name: store.put(CommitRequest(name), body), "abcd"))
        took = time.monotonic() - began
        store.close()
        bodies = [seen.body for seen in server.requests]
    assert bodies == [CONTENT] * 4
    assert took > 4 * len(CONTENT) / LIMIT - BURST_SECONDS


def test_the_other_direction_is_not_limited() -> None:
    with ScriptedServer([[[ranged(CONTENT)]]]) as server:
        store = store_for(server.url, upload_limit_bytes=64 * KIB)
        began = time.monotonic()
        assert read(store) == CONTENT
        assert time.monotonic() - began < len(CONTENT) / (64 * KIB) / 2
        store.close()


def test_waiting_by_our_own_will_is_no_stall_and_no_slow_answer() -> None:
    """Longer than everything that ends a request: the pauses are not the server's."""
    size = 128 * KIB
    with ScriptedServer([[[ranged(CONTENT)]]]) as server:
        store = store_for(
            server.url,
            stall_timeout_seconds=0.2,
            retry_budget_seconds=0.0,
            download_limit_bytes=64 * KIB,
        )
        assert read(store, 5, 5 + size) == CONTENT[5 : 5 + size]
        store.close()
        assert len(server.requests) == 1


def test_a_break_tells_all_that_has_come() -> None:
    """What came before the break is not fetched again."""
    size = 512 * KIB
    with ScriptedServer([[[ranged(CONTENT, stop_after=300 * KIB)]], [[ranged(CONTENT)]]]) as server:
        store = store_for(server.url, download_limit_bytes=4 * MIB)
        assert read(store, 0, size) == CONTENT[:size]
        store.close()
        ranges = [seen.headers["range"] for seen in server.requests]
    assert ranges == [f"bytes=0-{size - 1}", f"bytes={300 * KIB}-{size - 1}"]


def test_closing_the_store_ends_what_waits() -> None:
    with ScriptedServer([[[ranged(CONTENT)]]]) as server:
        store = store_for(server.url, download_limit_bytes=64 * KIB, retry_budget_seconds=0.0)
        with ThreadPoolExecutor(1) as pool:
            began = time.monotonic()
            reading = pool.submit(read, store)
            while not server.requests:
                threading.Event().wait(0.01)
            store.close()
            reading.exception(timeout=60)
        assert time.monotonic() - began < len(CONTENT) / (64 * KIB) / 2


# -- without limits ----------------------------------------------------------------------------


def dialled(limits: Limits | None) -> tuple[type[Connection], int, int]:
    """The kind of connection, and what the kernel buffers for it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        origin = Origin("127.0.0.1", listener.getsockname()[1], None)
        connection = Dialer(origin, Timeouts(30.0, 30.0), limits=limits).dial()
        sock = connection._sock
        sizes = [
            sock.getsockopt(socket.SOL_SOCKET, n) for n in (socket.SO_SNDBUF, socket.SO_RCVBUF)
        ]
        connection.close()
    return type(connection), *sizes


def test_nothing_is_there_of_limits_that_are_not_set() -> None:
    assert dialled(None) == dialled(Limits())
    assert dialled(None)[0] is Connection


def test_what_the_kernel_buffers_for_a_limited_connection_is_bounded() -> None:
    small = RateLimit(640 * KIB)
    kind, send, receive = dialled(Limits(small, small))
    assert kind is LimitedConnection
    # The kernel doubles what it is told, for its own bookkeeping.
    assert (send, receive) == (2 * 64 * KIB, 2 * 64 * KIB)
    assert dialled(Limits(download=small))[1] == dialled(None)[1]

"""Ranged GETs that take no thread, and what is left to the blocking request."""

import select
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import outcome
import pytest

from ossfs_py.model import ObjectVersion
from ossfs_py.store.base import InlineReads, ObjectStore
from tests.support.scripted_server import (
    ETAG,
    Peer,
    ScriptedServer,
    Step,
    error,
    hang_up,
    hold,
    ranged,
    raw,
    read_only,
    reply,
    reset,
    store_for,
)

CONTENT = bytes(range(256)) * 1024
VERSION = ObjectVersion("key", ETAG, len(CONTENT))
PATIENCE_SECONDS = 10.0


@dataclass
class Ends:
    """How requests ended."""

    results: list[outcome.Outcome[Any]] = field(default_factory=list)
    given_up: int = 0

    def give_up(self) -> None:
        self.given_up += 1

    @property
    def count(self) -> int:
        return len(self.results) + self.given_up


def warm(store: ObjectStore) -> InlineReads:
    """Its GETs without a thread, with one connection that a blocking GET has made."""
    store.get_range_into(VERSION, 0, memoryview(bytearray(10)))
    assert store.inline_reads is not None
    return store.inline_reads


def begin(
    reads: InlineReads, ends: Ends, start: int = 0, size: int = 100_000
) -> tuple[bool, bytearray]:
    buffer = bytearray(size)
    view = memoryview(buffer)
    return reads.begin(VERSION, start, view, ends.results.append, ends.give_up), buffer


def drive(reads: InlineReads, ends: Ends, count: int = 1) -> None:
    """Receive until so many have ended."""
    until = time.monotonic() + PATIENCE_SECONDS
    while ends.count < count:
        assert time.monotonic() < until, "it never ends"
        select.select([reads.fileno()], [], [], 0.2)
        reads.receive()
        reads.look()


@contextmanager
def over(turns: Sequence[Sequence[Step]], **options: object) -> Iterator[tuple[Any, ObjectStore]]:
    """A server that answers the blocking GET and then takes these turns, and a store over it."""
    with ScriptedServer([[[ranged(CONTENT)], *turns], *[[[ranged(CONTENT)]]] * 3]) as server:
        store = store_for(server.url, **options)
        try:
            yield server, store
        finally:
            store.close()


def test_bytes_come_over_a_kept_connection_pinned_to_their_version() -> None:
    with over([[ranged(CONTENT)]] * 3) as (server, store):
        reads, ends = warm(store), Ends()
        for number, start in enumerate((0, 1000, 77_000), start=1):
            begun, buffer = begin(reads, ends, start)
            assert begun
            drive(reads, ends, number)
            assert buffer == CONTENT[start : start + 100_000]
    assert [seen.connection for seen in server.requests] == [0] * 4
    assert server.requests[2].headers["range"] == "bytes=1000-100999"
    assert {seen.headers["if-match"] for seen in server.requests} == {f'"{ETAG}"'}
    assert ends.given_up == 0


def test_the_description_comes_with_the_first_bytes_only() -> None:
    told = {"etag": f'"{ETAG}"', "last-modified": "Sun, 06 Nov 1994 08:49:37 GMT"}
    told["x-amz-meta-color"] = "blue"

    def described(peer: Peer) -> None:
        size = peer.last.headers["range"].removeprefix("bytes=")
        span = {"content-range": f"bytes {size}/{len(CONTENT)}"}
        reply(206, CONTENT[:1000], {**told, **span})(peer)

    with over([[described], [ranged(CONTENT)]]) as (_, store):
        reads, ends = warm(store), Ends()
        assert begin(reads, ends, size=1000)[0]
        drive(reads, ends)
        assert begin(reads, ends, 1000, 1000)[0]
        drive(reads, ends, 2)
    info = ends.results[0].unwrap()()
    assert (info.size, info.metadata) == (len(CONTENT), {"color": "blue"})
    assert ends.results[1].unwrap() is None


def test_an_answer_in_pieces_is_put_together() -> None:
    body = CONTENT[:100_000]
    head = (
        f'HTTP/1.1 206 OK\r\netag: "{ETAG}"\r\ncontent-length: {len(body)}\r\n'
        f"content-range: bytes 0-{len(body) - 1}/{len(CONTENT)}\r\n\r\n"
    ).encode()
    pieces = [head[:9], head[9:-3], head[-3:] + body[:10], body[10:50_000], body[50_000:]]
    steps: list[Step] = []
    for piece in pieces:
        steps += [raw(piece), lambda _: time.sleep(0.02)]
    with over([steps]) as (_, store):
        reads, ends = warm(store), Ends()
        begun, buffer = begin(reads, ends)
        assert begun
        drive(reads, ends)
    assert ends.given_up == 0
    assert buffer == body


def _told(span: str = "0-99999", **more: str) -> dict[str, str]:
    return {"etag": f'"{ETAG}"', "content-range": f"bytes {span}/{len(CONTENT)}", **more}


LEFT_TO_A_THREAD: dict[str, list[Step]] = {
    "replaced": [error(412, "PreconditionFailed")],
    "bytes of another version": [ranged(CONTENT, etag="another")],
    "gone": [error(404, "NoSuchKey")],
    "slow down": [error(503, "SlowDown")],
    "broken off": [ranged(CONTENT, stop_after=70_000), hang_up],
    "closed": [hang_up],
    "reset": [reset],
    "another range": [reply(206, CONTENT[:100_000], _told("1-100000"))],
    "the whole object": [reply(200, CONTENT, {"etag": f'"{ETAG}"'})],
    "no HTTP": [raw(b"SSH-2.0 " + b"x" * 70_000 + b"\r\n\r\n")],
    "no status": [raw(b"HTTP/1.1 what\r\n\r\n")],
    "in chunks": [
        raw(
            b'HTTP/1.1 206 OK\r\netag: "%b"\r\ntransfer-encoding: chunked\r\n' % ETAG.encode()
            + b"content-length: 100000\r\n"
            + b"content-range: bytes 0-99999/%d\r\n\r\n" % len(CONTENT)
        ),
        hold,
    ],
    "more than announced": [
        raw(
            f'HTTP/1.1 206 OK\r\netag: "{ETAG}"\r\ncontent-length: 10\r\n'
            f"content-range: bytes 0-9/{len(CONTENT)}\r\n\r\n".encode()
            + b"x" * 11
        )
    ],
}


@pytest.mark.parametrize("steps", LEFT_TO_A_THREAD.values(), ids=LEFT_TO_A_THREAD)
def test_what_is_not_the_usual_answer_is_left_to_a_thread(steps: list[Step]) -> None:
    with over([steps]) as (_, store):
        reads, ends = warm(store), Ends()
        is_short = steps is LEFT_TO_A_THREAD["more than announced"]
        assert begin(reads, ends, size=10 if is_short else 100_000)[0]
        drive(reads, ends)
        assert (ends.given_up, ends.results) == (1, [])
        again = bytearray(100_000)
        store.get_range_into(VERSION, 0, memoryview(again))
        assert again == CONTENT[:100_000]


@pytest.mark.parametrize("steps", [[read_only, hold], [ranged(CONTENT, stop_after=9), hold]])
def test_a_store_that_stalls_is_left_to_a_thread(steps: list[Step]) -> None:
    with over([steps], stall_timeout_seconds=0.3) as (_, store):
        reads, ends = warm(store), Ends()
        assert begin(reads, ends)[0]
        drive(reads, ends)
    assert ends.given_up == 1


def test_too_few_bytes_to_wake_anybody_are_seen_before_it_counts_as_stalled() -> None:
    def slowly(peer: Peer) -> None:
        head = _told(**{"content-length": "100000"})
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        raw(f"HTTP/1.1 206 OK\r\n{lines}\r\n".encode())(peer)
        for position in range(0, 100_000, 10_000):
            time.sleep(0.1)
            raw(CONTENT[position : position + 10_000])(peer)

    with over([[slowly]], stall_timeout_seconds=0.5) as (_, store):
        reads, ends = warm(store), Ends()
        begun, buffer = begin(reads, ends)
        assert begun
        drive(reads, ends)
    assert ends.given_up == 0
    assert buffer == CONTENT[:100_000]


def test_without_a_kept_connection_it_does_not_begin_and_a_closed_store_ends_it() -> None:
    with over([[hold]]) as (_, store):
        reads, ends = warm(store), Ends()
        assert begin(reads, ends)[0]
        assert not begin(reads, ends)[0]
        assert ends.count == 0
        store.close()
        assert (ends.given_up, ends.results) == (1, [])  # in a thread, it fails
        reads.receive()


def test_a_kept_connection_that_the_server_closed_is_not_used() -> None:
    with over([]) as (_, store):
        reads, ends = warm(store), Ends()
        time.sleep(0.2)
        assert not begin(reads, ends)[0]


@pytest.mark.parametrize("choice", ["auto", "off"])
def test_a_store_that_may_ignore_if_match_is_read_in_threads(choice: str) -> None:
    with over([], conditional_reads=choice) as (server, store):
        assert store.inline_reads is not None
        assert not begin(store.inline_reads, Ends())[0]
    assert not server.requests


@pytest.mark.parametrize(
    "options",
    [
        {"download_limit_bytes": 10_000},
        {"read_endpoint": "http://127.0.0.1:2"},
    ],
)
def test_limits_and_a_read_endpoint_take_threads(options: dict[str, object]) -> None:
    store = store_for("http://127.0.0.1:1", **options)
    assert store.inline_reads is None
    store.close()

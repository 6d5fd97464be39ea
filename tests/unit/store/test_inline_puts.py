"""Small PUTs that take no thread, and what is left to the blocking request."""

import select
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import outcome
import pytest

from ossfs_py.model import CommitRequest, Condition, ObjectInfo, ObjectVersion
from ossfs_py.store.base import InlineWrites, ObjectStore
from tests.support.scripted_server import (
    ETAG,
    ScriptedServer,
    Step,
    error,
    hang_up,
    hold,
    raw,
    read_only,
    reply,
    reset,
    store_for,
)

BODY = bytes(range(256)) * 200
ABSENT = Condition(only_if_absent=True)
PATIENCE_SECONDS = 60.0
STORED = reply(200, headers={"etag": f'"{ETAG}"'})


@dataclass
class Ends:
    """How requests ended."""

    results: list[outcome.Outcome[Any]] = field(default_factory=list)
    given_up: list[bool] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.results) + len(self.given_up)


def asked(key: str = "key", **changes: Any) -> CommitRequest:
    return CommitRequest(key, {"mode": "33188"}, "a/b", **changes)


def warm(store: ObjectStore) -> InlineWrites:
    """Its PUTs without a thread, with one connection that a blocking PUT has made."""
    store.put(asked(), b"first")
    assert store.inline_writes is not None
    store.inline_writes.serve()
    return store.inline_writes


def begin(
    writes: InlineWrites, ends: Ends, request: CommitRequest | None = None, body: bytes = BODY
) -> bool:
    return writes.begin(request or asked(), body, ends.results.append, ends.given_up.append)


def drive(writes: InlineWrites, ends: Ends, count: int = 1) -> None:
    """Go on until so many have ended."""
    until = time.monotonic() + PATIENCE_SECONDS
    while ends.count < count:
        assert time.monotonic() < until, "it never ends"
        select.select([writes.fileno()], [], [], 0.2)
        writes.receive()
        writes.look()


@contextmanager
def over(turns: Sequence[Sequence[Step]], **options: object) -> Iterator[tuple[Any, ObjectStore]]:
    """A server that answers the blocking PUT and then takes these turns, and a store over it."""
    with ScriptedServer([[[STORED], *turns], *[[[STORED]]] * 3]) as server:
        store = store_for(server.url, **{"conditional_writes": "on", **options})
        try:
            yield server, store
        finally:
            store.close()


def test_small_objects_are_stored_over_a_kept_connection() -> None:
    with over([[STORED]] * 3) as (server, store):
        writes, ends = warm(store), Ends()
        for number, body in enumerate((BODY, b"", b"x"), start=1):
            assert begin(writes, ends, asked(f"k{number}", condition=ABSENT), body)
            drive(writes, ends, number)
    assert [result.unwrap() for result in ends.results] == [
        ObjectVersion("k1", ETAG, len(BODY)),
        ObjectVersion("k2", ETAG, 0),
        ObjectVersion("k3", ETAG, 1),
    ]
    assert [seen.connection for seen in server.requests] == [0] * 4
    assert [seen.body for seen in server.requests[1:]] == [BODY, b"", b"x"]
    sent = server.requests[1].headers
    assert (sent["if-none-match"], sent["x-amz-meta-mode"], sent["content-type"]) == (
        "*",
        "33188",
        "a/b",
    )
    assert "x-amz-checksum-crc32c" in sent


def test_a_request_that_the_connection_takes_in_pieces_is_sent_whole() -> None:
    body = bytes(4 * 1024**2)
    with over([[STORED]], stall_timeout_seconds=60.0) as (server, store):
        writes, ends = warm(store), Ends()
        assert begin(writes, ends, body=body)
        drive(writes, ends)
    assert server.requests[-1].body == body
    assert not ends.given_up


@pytest.mark.parametrize(
    "steps",
    [
        [reply(200)],
        [reply(200, b"<html>", {"etag": f'"{ETAG}"'})],
        [reply(200, headers={"etag": f'"{ETAG}"', "x-amz-checksum-crc32c": "AAAAAA=="})],
        [error(503, "SlowDown")],
        [error(500, "InternalError")],
        [raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")],
        [raw(b"SSH-2.0\r\n\r\n")],
        [raw(b"HTTP/1.1 200"), reset],
        [hang_up],
        [reset],
        [read_only, hold],
    ],
)
def test_after_an_answer_that_is_lost_or_odd_it_may_have_happened(steps: list[Step]) -> None:
    with over([steps]) as (_, store):
        writes, ends = warm(store), Ends()
        assert begin(writes, ends)
        drive(writes, ends)
    assert (ends.results, ends.given_up) == ([], [True])


@pytest.mark.parametrize(
    "step", [error(412, "PreconditionFailed"), error(403, "AccessDenied"), error(404, "NoSuchKey")]
)
def test_what_is_refused_has_not_happened(step: Step) -> None:
    with over([[step]]) as (_, store):
        writes, ends = warm(store), Ends()
        assert begin(writes, ends, asked(condition=ABSENT))
        drive(writes, ends)
    assert (ends.results, ends.given_up) == ([], [False])


def test_after_an_unusual_answer_threads_are_used_until_one_is_usual_again() -> None:
    with over([[error(503, "SlowDown")]]) as (_, store):
        writes, ends = warm(store), Ends()
        assert begin(writes, ends)
        drive(writes, ends)
        assert not begin(writes, ends)
        store.put(asked(), b"again")
        assert store.inline_writes is writes


@pytest.mark.parametrize(
    "request_",
    [
        asked(condition=Condition(only_if_absent=True, repeated=True)),
        asked(like=ObjectInfo("key", 1, ETAG, 0)),
        asked("directory/"),
    ],
)
def test_what_needs_a_question_before_takes_a_thread(request_: CommitRequest) -> None:
    with over([]) as (server, store):
        writes = warm(store)
        assert not begin(writes, Ends(), request_)
    assert len(server.requests) == 1


def test_a_condition_whose_form_is_not_known_takes_a_thread() -> None:
    with over([], conditional_writes="auto") as (_, store):
        writes = warm(store)
        assert not begin(writes, Ends(), asked(condition=ABSENT))


def test_the_end_of_the_loop_leaves_what_is_running_to_threads() -> None:
    with over([[hold]]) as (_, store):
        writes, ends = warm(store), Ends()
        assert begin(writes, ends)
        writes.end()
        assert ends.given_up == [True]
        assert not begin(writes, ends)


def test_nothing_begins_before_the_loop_and_a_blocking_put() -> None:
    with over([[STORED]]) as (_, store):
        assert store.inline_writes is not None
        store.inline_writes.serve()
        assert not begin(store.inline_writes, Ends())
        store.put(asked(), b"first")
        store.inline_writes.end()
        assert not begin(store.inline_writes, Ends())


def test_an_upload_limit_takes_threads() -> None:
    assert store_for("http://127.0.0.1:1", upload_limit_bytes=9).inline_writes is None

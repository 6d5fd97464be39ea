"""``--read-endpoint``: bytes come from nearer by where they can; nothing depends on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ossfs_py.errors import ObjectMissingError, UsageError, VersionChangedError
from ossfs_py.model import ObjectVersion
from ossfs_py.store import StoreOptions, open_store
from ossfs_py.store.base import FirstBytes, ObjectStore
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.s3.nearby import ReadEndpoint
from ossfs_py.store.s3.ranges import RangedGet
from ossfs_py.store.s3.readpins import pins_of_read_endpoint
from ossfs_py.store.s3.traits import KnownTraits
from ossfs_py.telemetry.metrics import Metrics
from tests.support.scripted_server import (
    ETAG,
    ScriptedServer,
    Step,
    error,
    hang_up,
    hold,
    ranged,
    reply,
    reset,
)
from tests.unit.store.quirky import RCLONE, Bucket, etag_of, opened, quirky

CONTENT = bytes(range(256)) * 2048
VERSION = ObjectVersion("key", ETAG, len(CONTENT))
OTHER = "0" * 32
NOTHING_LISTENS = "http://127.0.0.1:9"
NO_WIRE: Any = None
TRUSTING = pins_of_read_endpoint("near", NO_WIRE, KnownTraits("near", None), "on")

Script = list[list[list[Step]]]


@dataclass
class Pair:
    """A store with a read endpoint, and what each was asked."""

    store: ObjectStore
    metrics: Metrics
    near: ScriptedServer
    far: ScriptedServer

    def read(self, start: int = 0, size: int = len(CONTENT)) -> bytes:
        buffer = bytearray(size)
        self.store.get_range_into(VERSION, start, memoryview(buffer))
        return bytes(buffer)

    def outcomes(self) -> dict[str, float]:
        """How often the read endpoint gave, lacked or failed."""
        value = self.metrics.registry.get_sample_value
        found = {
            outcome: value("ossfs_read_endpoint_requests_total", {"outcome": outcome})
            for outcome in ("given", "lacking", "failed")
        }
        return {outcome: count for outcome, count in found.items() if count}


@contextmanager
def pair(near: Script, far: Script, reads: str = "on") -> Iterator[Pair]:
    with ScriptedServer(near) as near_server, ScriptedServer(far) as far_server:
        metrics = Metrics()
        options = StoreOptions(
            bucket="bucket",
            endpoint=far_server.url,
            read_endpoint=near_server.url,
            region="us-east-1",
            anonymous=True,
            conditional_reads=reads,  # type: ignore[arg-type]
        )
        store = open_store(options, metrics)
        try:
            yield Pair(store, metrics, near_server, far_server)
        finally:
            store.close()


def test_bytes_come_from_the_read_endpoint_pinned_to_their_version() -> None:
    with pair([[[ranged(CONTENT)]] * 2], []) as both:
        assert both.read() == CONTENT
        assert both.read(1000, 5) == CONTENT[1000:1005]
        assert both.outcomes() == {"given": 2}
        assert both.metrics.registry.get_sample_value("ossfs_read_endpoint_bytes_total") == (
            len(CONTENT) + 5
        )
    assert both.near.requests[1].headers["if-match"] == f'"{ETAG}"'
    assert both.far.requests == []


def test_what_else_is_asked_goes_to_the_store() -> None:
    headers = {
        "content-length": "1",
        "etag": f'"{ETAG}"',
        "last-modified": "Thu, 01 Jan 1970 00:00:00 GMT",
    }
    with pair([], [[[reply(200, headers=headers)]]]) as both:
        assert both.store.head("key").etag == ETAG
    assert both.near.requests == []


def test_nothing_but_bytes_is_believed() -> None:
    """A mirror's times and metadata are its own."""
    with pair([[[ranged(CONTENT)]]], []) as both:
        buffer = bytearray(len(CONTENT))
        assert both.store.get_range_into(VERSION, 0, memoryview(buffer)) is None


@pytest.mark.parametrize(
    "answer",
    [error(404, "NoSuchKey"), error(412, "PreconditionFailed"), ranged(CONTENT, etag=OTHER)],
    ids=["no such key", "another version", "another version, the condition ignored"],
)
def test_a_version_that_it_has_not_comes_from_the_store_and_is_not_asked_for_again(
    answer: Step,
) -> None:
    with pair([[[answer]], [[ranged(CONTENT)]]], [[[ranged(CONTENT)]] * 2]) as both:
        assert both.read() == CONTENT
        assert both.read() == CONTENT
        assert both.outcomes() == {"lacking": 1}
        assert len(both.near.requests) == 1
        assert len(both.far.requests) == 2


@pytest.mark.parametrize(
    "script",
    [[reset], [hang_up], [error(403, "AccessDenied")], [error(503, "SlowDown")], [error(500, "X")]],
    ids=["reset", "closed", "denied", "busy", "broken"],
)
def test_every_failure_goes_to_the_store(
    script: list[Step],
) -> None:
    with pair([[script]] * 3, [[[ranged(CONTENT)]] * 4]) as both:
        for _ in range(4):
            assert both.read() == CONTENT
        assert set(both.outcomes()) == {"failed"}
        assert len(both.far.requests) == 4


def test_the_store_gives_only_what_is_missing_of_a_body_that_broke_off() -> None:
    with pair([[[ranged(CONTENT, stop_after=300_000), hang_up]]], [[[ranged(CONTENT)]]]) as both:
        assert both.read() == CONTENT
    assert both.far.requests[0].headers["range"] == f"bytes=300000-{len(CONTENT) - 1}"


def test_its_silence_is_not_waited_for_longer_than_two_seconds() -> None:
    with pair([[[hold]]], [[[ranged(CONTENT)]]]) as both:
        assert both.read() == CONTENT
        assert both.outcomes() == {"failed": 1}


def test_an_answer_of_another_range_is_not_taken() -> None:
    lies = {"etag": f'"{ETAG}"', "content-range": f"bytes 0-4999/{len(CONTENT)}"}
    with pair([[[reply(206, CONTENT[:5000], lies)]]], [[[ranged(CONTENT)]]]) as both:
        assert both.read(1000, 5000) == CONTENT[1000:6000]


def test_what_the_store_says_of_the_object_counts_for_errors() -> None:
    # A HEAD, the second request, finds that it has changed indeed.
    gone = [[[error(412, "PreconditionFailed")]], [[reply(404)]], [[error(404, "NoSuchKey")]]]
    with pair([[[error(404, "NoSuchKey")]]], gone) as both:
        with pytest.raises(VersionChangedError):
            both.read()
        with pytest.raises(ObjectMissingError):
            both.read()


def test_a_version_without_an_etag_is_not_asked_for() -> None:
    """Nothing would tell whether the two have the same bytes."""
    unnamed = ObjectVersion("key", "", len(CONTENT))
    with pair([[[ranged(CONTENT)]]], [[[ranged(CONTENT)]]]) as both:
        both.store.get_range_into(unnamed, 0, memoryview(bytearray(10)))
        assert both.near.requests == []


def test_it_is_asked_again_after_pauses_that_double_and_by_one_reader_first() -> None:
    now = 0.0
    asked: list[float] = []
    is_up = False

    class Get(RangedGet):
        """Meets a read endpoint that is up or down."""

        def once(self, *_: object, **__: object) -> None:
            asked.append(now)
            if not is_up:
                raise NoAnswerError("down")

    metrics = Metrics()
    wire: Any = None
    endpoint = ReadEndpoint("near", wire, metrics, TRUSTING, clock=lambda: now)

    def read() -> None:
        buffer = memoryview(bytearray(1))
        endpoint.give(Get(VERSION, 0, buffer, metrics.bytes_received, FirstBytes()))

    for tenths in range(200):
        now = tenths / 10
        read()
    assert asked == [0.0, 1.0, 3.0, 7.0, 15.0]
    is_up = True
    now = 31.0
    for _ in range(3):
        read()
    assert asked[5:] == [31.0] * 3


def test_readers_that_fail_together_count_once() -> None:
    now = 0.0
    asked: list[float] = []
    metrics = Metrics()
    wire: Any = None
    endpoint = ReadEndpoint("near", wire, metrics, TRUSTING, clock=lambda: now)

    class Get(RangedGet):
        """Sixteen are under way at once; all fail."""

        def once(self, *_: object, **__: object) -> None:
            nonlocal now
            asked.append(now)
            if len(asked) < 16:
                read()
            now += 0.01
            raise NoAnswerError("down")

    def read() -> None:
        buffer = memoryview(bytearray(1))
        endpoint.give(Get(VERSION, 0, buffer, metrics.bytes_received, FirstBytes()))

    read()
    assert len(asked) == 16
    now = 1.02  # a second after the first of them failed
    read()
    assert len(asked) == 17


def test_a_cache_on_disk_is_not_shared_with_those_who_do_not_rely_on_it() -> None:
    with pair([], []) as both:
        assert both.store.place == f"{both.far.url} by way of {both.near.url}"


# -- one that gives bytes of another version than the one it is asked for ------------------------


def sent_to(bucket: Bucket) -> list[str]:
    """The requests since the last call, without those for bytes."""
    wrong = f'"{"0" * 32}"'
    sent = [
        "probe" if headers.get("if-match") == wrong else method
        for method, _, headers in bucket.requests
    ]
    bucket.requests.clear()
    return [one for one in sent if one != "GET"]


def read_all(store: ObjectStore, content: bytes) -> bytes:
    buffer = bytearray(len(content))
    store.get_range_into(
        ObjectVersion("key", etag_of(content), len(content)), 0, memoryview(buffer)
    )
    return bytes(buffer)


@pytest.mark.parametrize("choice", ["auto", "off"])
def test_bytes_of_another_version_under_the_right_etag_come_from_the_store_instead(
    choice: str,
) -> None:
    """A gateway looks the ETag up, and sends what is there by then."""
    with (
        quirky(RCLONE) as (near_url, near),
        quirky() as (url, far),
        opened(url, read_endpoint=near_url, conditional_reads=choice) as store,
    ):
        for number in range(2):
            old = far.objects["key"] = near.objects["key"] = b"old %d" % number
            near.told_of_reads["key"] = etag_of(old)
            near.replaced_while_read["key"] = b"new %d" % number
            assert read_all(store, old) == old
        assert [method for method, _, _ in far.requests].count("GET") >= 2


@pytest.mark.parametrize(
    ("quirks", "first", "later"),
    [(RCLONE, ["HEAD", "probe"], ["HEAD"]), (frozenset[str](), ["probe"], [])],
    ids=["unpinned", "pinned"],
)
def test_whether_its_reads_are_pinned_is_asked_once_a_day(
    quirks: frozenset[str], first: list[str], later: list[str], tmp_path: Path
) -> None:
    with quirky(quirks) as (near_url, near), quirky() as (url, far):
        near.objects["key"] = far.objects["key"] = b"content"
        for expected in (first, later):
            with opened(
                url, read_endpoint=near_url, conditional_reads="auto", traits_dir=tmp_path
            ) as store:
                assert read_all(store, b"content") == b"content"
                assert sorted(sent_to(near)) == expected
                assert read_all(store, b"content") == b"content"
                assert sent_to(near) == later
        assert far.requests == []


def test_one_that_lacks_the_object_is_not_asked_about_its_reads() -> None:
    with (
        quirky() as (near_url, near),
        quirky() as (url, far),
        opened(url, read_endpoint=near_url, conditional_reads="auto") as store,
    ):
        far.objects["key"] = b"content"
        assert read_all(store, b"content") == b"content"
        assert sent_to(near) == []


def test_the_beginning_of_a_body_that_nobody_verified_is_not_used() -> None:
    head = {
        "content-length": str(len(CONTENT)),
        "etag": f'"{ETAG}"',
        "last-modified": "Thu, 01 Jan 1970 00:00:00 GMT",
    }
    near: Script = [[[ranged(CONTENT, stop_after=300_000), hang_up]]]
    far: Script = [[[ranged(CONTENT)], [reply(200, headers=head)]]]
    with pair(near, far, reads="off") as both:
        assert both.read() == CONTENT
        assert both.outcomes() == {"failed": 1}
        assert both.metrics.registry.get_sample_value("ossfs_read_endpoint_bytes_total") == 0
    assert both.far.requests[0].headers["range"] == f"bytes=0-{len(CONTENT) - 1}"


def test_a_malformed_one_is_refused_at_once() -> None:
    options = StoreOptions(bucket="b", endpoint="http://h", read_endpoint="ftp://x", anonymous=True)
    with pytest.raises(UsageError):
        open_store(options, Metrics())


def test_one_where_nothing_listens_is_no_reason_to_fail() -> None:
    with ScriptedServer([[[ranged(CONTENT)]]]) as far:
        options = StoreOptions(
            bucket="bucket",
            endpoint=far.url,
            read_endpoint=NOTHING_LISTENS,
            region="us-east-1",
            anonymous=True,
            conditional_reads="on",
        )
        store = open_store(options, Metrics())
        buffer = bytearray(len(CONTENT))
        store.get_range_into(VERSION, 0, memoryview(buffer))
        store.close()
        assert buffer == CONTENT

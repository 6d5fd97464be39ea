"""Bytes of an answer that can be had before its end."""

import random
import threading
from pathlib import Path

import pytest

from ossfs_py.errors import StoreUnavailableError
from ossfs_py.model import CommitRequest, ObjectVersion
from ossfs_py.store.base import ObjectStore
from ossfs_py.store.http.arrival import Arrival
from tests.support.scripted_server import (
    ETAG,
    Peer,
    ScriptedServer,
    Step,
    hang_up,
    ranged,
    raw,
    reply,
    store_for,
)
from tests.unit.store.quirky import RCLONE, opened, quirky

MIB = 1024**2
SIZE = 5 * MIB
CONTENT = random.Random(7).randbytes(SIZE)
VERSION = ObjectVersion("key", ETAG, SIZE)


class Waiter:
    """A reader that waits for the first ``count`` bytes of a buffer."""

    def __init__(self, count: int) -> None:
        self.reached = threading.Event()
        self.arrival = Arrival(self.reached.set)
        assert not self.arrival.want(count)


def waited_for(event: threading.Event) -> Step:
    """Go on when ``event`` is set."""

    def step(_peer: Peer) -> None:
        assert event.wait(120)

    return step


def fetch(store: ObjectStore, buffer: bytearray, arrival: Arrival) -> Exception | None:
    try:
        store.get_range_gradually(VERSION, 0, memoryview(buffer), arrival)
    except StoreUnavailableError as exc:
        return exc
    return None


@pytest.mark.parametrize("count", [1, 4096, MIB, MIB + 1, 3 * MIB + 4096, SIZE - 1])
def test_who_waits_is_told_when_the_first_bytes_are_there(count: int) -> None:
    """The rest of the body is sent after that, so nobody can have waited for it. But for the last
    bytes of a body, the receiver is woken for 256 KiB at least.
    """
    waiter = Waiter(count)
    sent = count + 256 * 1024
    if sent > SIZE:
        sent = count
    more = [ranged(CONTENT, stop_after=sent), waited_for(waiter.reached), raw(CONTENT[sent:])]
    buffer = bytearray(SIZE)
    with ScriptedServer([[more]]) as server:
        store = store_for(server.url, stall_timeout_seconds=60.0)
        assert fetch(store, buffer, waiter.arrival) is None
        store.close()
    assert waiter.arrival.arrived == SIZE
    assert buffer == CONTENT


def test_who_begins_to_wait_later_is_told_when_the_receiver_looks_again() -> None:
    """It looks after each 2 MiB."""
    first, second = Waiter(MIB), threading.Event()

    def wait_for_more(_peer: Peer) -> None:
        assert first.reached.wait(120)
        first.reached.clear()
        first.arrival.want(2 * MIB)

    def then(_peer: Peer) -> None:
        assert first.reached.wait(120)
        second.set()

    turn = [
        *(ranged(CONTENT, stop_after=MIB + MIB // 2), wait_for_more),
        *(raw(CONTENT[MIB + MIB // 2 : 4 * MIB]), then, raw(CONTENT[4 * MIB :])),
    ]
    buffer = bytearray(SIZE)
    with ScriptedServer([[turn]]) as server:
        store = store_for(server.url, stall_timeout_seconds=60.0)
        assert fetch(store, buffer, first.arrival) is None
        store.close()
    assert second.is_set()
    assert buffer == CONTENT


def test_what_was_there_before_a_broken_body_stays_as_it_is() -> None:
    waiter = Waiter(MIB)
    buffer = bytearray(SIZE)
    seen: list[bytes] = []

    def keep(_peer: Peer) -> None:
        assert waiter.reached.wait(120)
        seen.append(bytes(buffer[:MIB]))

    cut = 2 * MIB + 1000
    broken = [ranged(CONTENT, stop_after=cut), keep, hang_up]
    with ScriptedServer([[broken], [[ranged(CONTENT)]]]) as server:
        store = store_for(server.url)
        assert fetch(store, buffer, waiter.arrival) is None
        store.close()
    assert seen == [CONTENT[:MIB]]
    assert server.requests[1].headers["range"] == f"bytes={cut}-{SIZE - 1}"
    assert waiter.arrival.arrived == SIZE
    assert buffer == CONTENT


def test_of_an_answer_that_is_another_range_nothing_is_told() -> None:
    waiter = Waiter(1)
    wrong = reply(206, CONTENT, {"content-range": f"bytes 1-{SIZE}/{SIZE + 1}", "etag": ETAG})
    with ScriptedServer([[[wrong]]] * 20) as server:
        store = store_for(server.url, retry_budget_seconds=0.2)
        assert fetch(store, bytearray(SIZE), waiter.arrival) is not None
        store.close()
    assert waiter.arrival.arrived == 0
    assert not waiter.reached.is_set()


def test_bytes_that_have_to_be_verified_are_told_of_at_the_end_only(tmp_path: Path) -> None:
    """Such a server may send another version's bytes with the ETag that was asked for."""
    with (
        quirky(RCLONE) as (url, _),
        opened(url, conditional_reads="off", traits_dir=tmp_path) as store,
    ):
        version = store.put(CommitRequest("key"), CONTENT)
        waiter, buffer = Waiter(1), bytearray(SIZE)
        store.get_range_gradually(version, 0, memoryview(buffer), waiter.arrival)
        assert buffer == CONTENT
        assert waiter.arrival.arrived == 0


def test_an_arrival_tells_once_and_of_the_first_who_waits() -> None:
    told: list[int] = []
    arrival = Arrival(lambda: told.append(arrival.arrived))
    assert arrival.want(0)
    assert not arrival.want(3 * MIB)
    assert not arrival.want(MIB)
    assert not arrival.want(4 * MIB)
    assert arrival.piece(8 * MIB) == MIB
    assert arrival.piece(1000) == 1000
    arrival.moved(1000)
    assert told == []
    assert arrival.piece(8 * MIB) == MIB - 1000
    arrival.moved(MIB - 1000)
    assert told == [MIB]
    assert arrival.want(MIB)
    arrival.moved(MIB)
    assert arrival.piece(8 * MIB) > MIB

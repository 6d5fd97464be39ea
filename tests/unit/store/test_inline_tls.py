"""Short requests without a thread over TLS: the same connections, certificates and bytes."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ossfs_py.store.base import ObjectStore
from ossfs_py.store.http import tls
from tests.support import scripted_server as scripted
from tests.support.tls_front import TlsFront, make_certificate
from tests.unit.store import test_inline as gets
from tests.unit.store import test_inline_puts as puts

MIB = 1024**2


def pause(_peer: scripted.Peer) -> None:
    """Let what was said travel alone."""
    time.sleep(0.02)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"), "store")


@pytest.fixture(params=["by OpenSSL", "from memory"], autouse=True)
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test reads in both ways."""
    if request.param == "from memory":
        monkeypatch.setattr(tls, "open_reader", lambda *_: None)


@contextmanager
def over(
    certificate: tuple[Path, Path], turns: Sequence[Sequence[scripted.Step]]
) -> Iterator[tuple[scripted.ScriptedServer, ObjectStore]]:
    """A server whose first connection takes these turns, and a store that reaches it by TLS."""
    with (
        scripted.ScriptedServer([turns]) as server,
        TlsFront(server.url.removeprefix("http://")) as front,
    ):
        front.show(*certificate)
        store = scripted.store_for(
            front.endpoint,
            ca_bundle=certificate[0],
            conditional_writes="on",
            stall_timeout_seconds=60.0,
        )
        try:
            yield server, store
        finally:
            store.close()


@pytest.mark.parametrize("size", [1, 4096, 100_000, len(gets.CONTENT)])
def test_bytes_come_over_the_kept_connection(certificate: tuple[Path, Path], size: int) -> None:
    answers = [[scripted.ranged(gets.CONTENT)]] * 6
    with over(certificate, answers) as (server, store):
        reads, ends = gets.warm(store), gets.Ends()
        for number in (1, 2, 3):
            begun, buffer = gets.begin(reads, ends, 0, size)
            assert begun
            gets.drive(reads, ends, number)
            assert buffer == gets.CONTENT[:size]
        # A thread goes on where the loop has ended, and the other way round.
        again = bytearray(size)
        store.get_range_into(gets.VERSION, 0, memoryview(again))
        assert again == gets.CONTENT[:size]
        assert gets.begin(reads, ends, 0, size)[0]
        gets.drive(reads, ends, 4)
    assert [seen.connection for seen in server.requests] == [0] * 6
    assert ends.given_up == 0


def test_an_answer_in_pieces_is_put_together(certificate: tuple[Path, Path]) -> None:
    body = gets.CONTENT[:100_000]
    head = (
        f'HTTP/1.1 206 OK\r\netag: "{scripted.ETAG}"\r\ncontent-length: {len(body)}\r\n'
        f"content-range: bytes 0-{len(body) - 1}/{len(gets.CONTENT)}\r\n\r\n"
    ).encode()
    pieces = [head[:9], head[9:] + body[:10], body[10:50_000], body[50_000:-1], body[-1:]]
    turns = [
        [scripted.ranged(gets.CONTENT)],
        [step for piece in pieces for step in (scripted.raw(piece), pause)],
    ]
    with over(certificate, turns) as (_, store):
        reads, ends = gets.warm(store), gets.Ends()
        begun, buffer = gets.begin(reads, ends)
        assert begun
        gets.drive(reads, ends)
    assert ends.given_up == 0
    assert buffer == body


def test_a_connection_that_ends_is_left_to_a_thread(certificate: tuple[Path, Path]) -> None:
    with over(certificate, [[scripted.ranged(gets.CONTENT)], [scripted.hang_up]]) as (_, store):
        reads, ends = gets.warm(store), gets.Ends()
        assert gets.begin(reads, ends)[0]
        gets.drive(reads, ends)
    assert (ends.given_up, ends.results) == (1, [])


def test_small_objects_are_stored_over_the_kept_connection(
    certificate: tuple[Path, Path],
) -> None:
    with over(certificate, [[puts.STORED]] * 4) as (server, store):
        writes, ends = puts.warm(store), puts.Ends()
        for number, body in enumerate((puts.BODY, b"", b"x"), start=1):
            assert puts.begin(writes, ends, puts.asked(f"k{number}"), body)
            puts.drive(writes, ends, number)
    assert [result.unwrap().etag for result in ends.results] == [scripted.ETAG] * 3
    assert [seen.body for seen in server.requests[1:]] == [puts.BODY, b"", b"x"]
    assert [seen.connection for seen in server.requests] == [0] * 4


def test_more_than_the_connection_takes_at_once_is_sent_whole(
    certificate: tuple[Path, Path],
) -> None:
    body = bytes(range(256)) * (4 * MIB // 256)
    with over(certificate, [[puts.STORED]] * 2) as (server, store):
        writes, ends = puts.warm(store), puts.Ends()
        assert puts.begin(writes, ends, body=body)
        puts.drive(writes, ends)
    assert ends.given_up == []
    assert server.requests[1].body == body

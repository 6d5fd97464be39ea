"""Answers made to take time or memory: each is given up, and would once have been taken."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import pytest

from ossfs_py.errors import StoreUnavailableError
from ossfs_py.model import ListQuery, ObjectVersion
from ossfs_py.store.http import connection, http1
from ossfs_py.store.http.connection import Connection
from ossfs_py.store.http.dialing import Dialer, Origin, Timeouts, Trust
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.s3.documents import upload_id
from ossfs_py.store.s3.list_xml import parse_list_page
from ossfs_py.store.s3.wire import Answer
from tests.support.scripted_server import ETAG, Peer, ScriptedServer, Step, ranged, raw, store_for

CONTENT = bytes(range(256)) * 256
VERSION = ObjectVersion("key", ETAG, len(CONTENT))
HEAD = (
    f'HTTP/1.1 206 X\r\netag: "{ETAG}"\r\n'
    f"content-range: bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}\r\n"
).encode()
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
LIST = b"<ListBucketResult>%s</ListBucketResult>"


def read(server: ScriptedServer, **options: object) -> bytes:
    store = store_for(server.url, retry_budget_seconds=0.0, **options)
    buffer = bytearray(len(CONTENT))
    try:
        store.get_range_into(VERSION, 0, memoryview(buffer))
    finally:
        store.close()
    return bytes(buffer)


def slowly(data: bytes) -> Step:
    """Sixteen bytes every now and then: 320 a second are no drip to the pace alone."""

    def step(peer: Peer) -> None:
        for start in range(0, len(data), 16):
            if peer.closing.wait(0.05):
                return
            peer.sock.sendall(data[start : start + 16])

    return step


@pytest.mark.parametrize(
    "steps",
    [
        [raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), ranged(CONTENT)],
        [raw(HEAD + b"x-more: " + b"x" * 100_000 + b"\r\ncontent-length: 65536\r\n\r\n" + CONTENT)],
        [raw(CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in CONTENT) + b"0\r\n\r\n")],
    ],
    ids=["interim answers", "a long head", "one-byte chunks"],
)
def test_more_around_the_bytes_than_any_store_sends_is_given_up(steps: list[Step]) -> None:
    with ScriptedServer([[steps]]) as server, pytest.raises(StoreUnavailableError):
        read(server)


def test_trailers_without_end_are_given_up() -> None:
    body = LIST % b""
    head = f"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n{len(body):x}\r\n".encode()
    trailers = b"trailer: x\r\n" * 50_000
    with ScriptedServer([[[raw(head + body + b"\r\n0\r\n" + trailers + b"\r\n")]]]) as server:
        store = store_for(server.url, retry_budget_seconds=0.0)
        with pytest.raises(StoreUnavailableError, match="trailers"):
            store.list_page(ListQuery(""))
        store.close()


def test_small_chunks_of_usual_servers_are_taken() -> None:
    pieces = (CONTENT[start : start + 100] for start in range(0, len(CONTENT), 100))
    chunks = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    with ScriptedServer([[[raw(CHUNKED + chunks + b"0\r\nt: v\r\n\r\n")]]]) as server:
        assert read(server) == CONTENT


def test_a_head_that_takes_its_time_is_given_up() -> None:
    answer = slowly(HEAD + b"x-more: " + b"x" * 800 + b"\r\ncontent-length: 65536\r\n\r\n")
    with (
        ScriptedServer([[[answer, raw(CONTENT)]]]) as server,
        pytest.raises(StoreUnavailableError, match="took too long"),
    ):
        read(server, stall_timeout_seconds=0.5)


def test_interim_answers_that_take_their_time_are_given_up() -> None:
    answer = slowly(b"HTTP/1.1 102 Wait a little while longer, please\r\nx: " + b"y" * 500)
    with (
        ScriptedServer([[[raw(b"HTTP/1.1 100 Continue\r\n\r\n"), answer]]]) as server,
        pytest.raises(StoreUnavailableError, match="took too long"),
    ):
        read(server, stall_timeout_seconds=0.25)


def test_a_listing_that_takes_its_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "_WHOLE_SECONDS", 0.2)
    body = LIST % (b" " * 1000)
    head = f"HTTP/1.1 200 X\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with ScriptedServer([[[raw(head), slowly(body)]]]) as server:
        store = store_for(server.url, retry_budget_seconds=0.0, stall_timeout_seconds=0.5)
        with pytest.raises(StoreUnavailableError, match="took too long"):
            store.list_page(ListQuery(""))
        store.close()


def test_a_request_that_is_taken_slowly_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_SLOWEST_BYTES_PER_SECOND", 1e9)
    data = bytes(16 * 1024**2)
    is_over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()

    def take() -> None:
        left = len(data)
        while left and not is_over.wait(0.01):
            left -= len(theirs.recv(65536))

    thread = threading.Thread(target=take)
    thread.start()
    with ours, theirs:
        with pytest.raises(NoAnswerError, match="too slowly") as caught:
            Connection(ours, 0.5).send(data)
        is_over.set()
        thread.join(120)
    assert caught.value.kind == "timeout"


@contextmanager
def answering(serve: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    """The port of a server that does ``serve`` with its first connection."""
    is_over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            sock, _ = listener.accept()
            with sock:
                try:
                    serve(sock, is_over)
                except OSError:
                    return  # the client gave up, as it should

        thread = threading.Thread(target=run)
        thread.start()
        yield listener.getsockname()[1]
        is_over.set()
        thread.join(120)


def dripping(data: bytes) -> Callable[[socket.socket, threading.Event], None]:
    def serve(sock: socket.socket, is_over: threading.Event) -> None:
        for byte in data:
            if is_over.wait(0.05):
                return
            sock.sendall(bytes([byte]))

    return serve


def dial_over_tls(port: int) -> NoAnswerError:
    origin = Origin("127.0.0.1", port, Trust(verify=False))
    with pytest.raises(NoAnswerError) as caught:
        Dialer(origin, Timeouts(0.5, 0.5)).dial()
    return caught.value


def test_a_tls_handshake_that_drips_is_given_up() -> None:
    record = b"\x16\x03\x03\x40\x00" + b"\x02" * 70
    with answering(dripping(record)) as port:
        assert dial_over_tls(port).kind == "timeout"


def test_an_answer_to_connect_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(dripping(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70)) as port:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("no_proxy", "")
        fault = dial_over_tls(1)
    assert fault.kind == "timeout"


def test_half_an_answer_to_connect_opens_no_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(sock: socket.socket, _: threading.Event) -> None:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass

    with answering(serve) as port:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("no_proxy", "")
        fault = dial_over_tls(1)
    assert fault.kind == "proxy"


def test_a_name_with_any_number_of_dead_addresses_is_given_up() -> None:
    now = time.monotonic()
    tried: list[object] = []

    def find(_: str, port: int, **__: object) -> list[tuple[object, ...]]:
        addresses = [(f"192.0.2.{number}", port) for number in range(200)]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    def connect(sock: socket.socket, address: object) -> None:
        nonlocal now
        tried.append(address)
        now += sock.gettimeout() or 0.0
        raise TimeoutError

    with (
        mock.patch.object(socket, "getaddrinfo", find),
        mock.patch.object(socket.socket, "connect", connect),
        mock.patch.object(time, "monotonic", lambda: now),
        pytest.raises(NoAnswerError, match="does not answer"),
    ):
        Dialer(Origin("store.test", 80, None), Timeouts(5.0, 10.0)).dial()
    assert 3 <= len(tried) <= 6


@pytest.mark.parametrize(
    "body",
    [
        LIST % (b"<a>" * 70_000 + b"</a>" * 70_000),
        LIST % (b"<a/>" * 140_000),
        LIST % (b"<a " + b" ".join(b'a%d = "x"' % number for number in range(140_000)) + b"/>"),
        b'<!DOCTYPE l [<!ENTITY e "x">]>' + LIST % b"",
        ('<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE l>' + (LIST % b"").decode()).encode(
            "utf-16"
        ),
    ],
    ids=["depth", "elements", "attributes", "type definition", "hidden type definition"],
)
def test_a_listing_that_would_fill_memory_is_not_parsed(body: bytes) -> None:
    with pytest.raises(NoAnswerError):
        parse_list_page(body)


def test_an_answer_about_an_upload_is_bounded_as_well() -> None:
    body = b"<InitiateMultipartUpload><UploadId>u</UploadId>%s</InitiateMultipartUpload>"
    assert upload_id(Answer(200, {}, body % b"")) == "u"
    with pytest.raises(NoAnswerError):
        upload_id(Answer(200, {}, body % (b"<a>" * 70_000 + b"</a>" * 70_000)))


def test_a_listing_of_more_bytes_than_any_page_has_is_given_up() -> None:
    body = LIST % (b" " * 9 * 1024**2)
    head = f"HTTP/1.1 200 X\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with ScriptedServer([[[raw(head), raw(body)]]]) as server:
        store = store_for(server.url, retry_budget_seconds=0.0)
        with pytest.raises(StoreUnavailableError):
            store.list_page(ListQuery(""))
        store.close()

"""TLS, read by OpenSSL itself or by Python's ssl: the same bytes, and a plain socket's ends."""

import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ossfs_py.store.http import openssl, tls
from ossfs_py.store.http.connection import Connection
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.http.tls import TlsStream

CONTENT = os.urandom(3 * 1024**2 + 17)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls")
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 "
        f"-keyout {directory}/key.pem -out {directory}/cert.pem -subj /CN=store.test "
        f"-addext subjectAltName=DNS:store.test"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return directory


@pytest.fixture(params=["by OpenSSL", "from memory"], autouse=True)
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test reads in both ways."""
    if request.param == "from memory":
        monkeypatch.setattr(tls, "open_reader", lambda *_: None)
    return str(request.param)


@contextmanager
def connected(
    certificate: Path, serve: Callable[[ssl.SSLSocket], None], version: ssl.TLSVersion
) -> Iterator[tuple[socket.socket, ssl.SSLContext]]:
    """A socket whose other end speaks TLS and does ``serve``."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname(), timeout=10)
        theirs, _ = listener.accept()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = version
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")

    def run() -> None:
        with suppress(OSError), context.wrap_socket(theirs, server_side=True) as peer:
            serve(peer)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield ours, ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    finally:
        ours.close()
        thread.join(120)
        theirs.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_is_sent_comes_back(certificate: Path, version: ssl.TLSVersion) -> None:
    def echo(peer: ssl.SSLSocket) -> None:
        got = bytearray()
        while len(got) < len(CONTENT):
            got += peer.recv(65536)
        peer.sendall(got)

    with connected(certificate, echo, version) as (sock, context):
        stream = TlsStream(sock, context, "store.test")
        stream.sendall(memoryview(CONTENT))
        buffer = memoryview(bytearray(len(CONTENT)))
        got = 0
        while got < len(buffer):
            count = stream.recv_into(buffer[got:])
            assert count
            got += count
        assert buffer == CONTENT


def test_it_is_read_in_the_way_that_is_asked_for(certificate: Path, reading: str) -> None:
    with connected(certificate, lambda _: None, ssl.TLSVersion.TLSv1_3) as (sock, context):
        stream = TlsStream(sock, context, "store.test")
        assert (stream._reader is not None) == (reading == "by OpenSSL")


@pytest.mark.parametrize("in_order", [True, False])
def test_an_end_is_told_after_the_last_byte(certificate: Path, in_order: bool) -> None:
    def say_and_leave(peer: ssl.SSLSocket) -> None:
        peer.sendall(b"all")
        if in_order:
            with suppress(OSError):
                peer.unwrap()
        else:
            peer.shutdown(socket.SHUT_RDWR)

    with connected(certificate, say_and_leave, ssl.TLSVersion.TLSv1_3) as (sock, context):
        stream = TlsStream(sock, context, "store.test")
        buffer = memoryview(bytearray(100))
        assert stream.recv_into(buffer) == 3
        assert stream.recv_into(buffer) == 0


def test_silence_ends_with_the_timeout_of_the_socket(certificate: Path) -> None:
    go_on = threading.Event()

    def say_nothing(_peer: ssl.SSLSocket) -> None:
        go_on.wait(120)

    with connected(certificate, say_nothing, ssl.TLSVersion.TLSv1_3) as (sock, context):
        stream = TlsStream(sock, context, "store.test")
        sock.settimeout(0.1)
        with pytest.raises(TimeoutError, match="no byte came"):
            stream.recv_into(memoryview(bytearray(100)))
        go_on.set()


def test_another_name_is_not_accepted(certificate: Path) -> None:
    with (
        connected(certificate, lambda _: None, ssl.TLSVersion.TLSv1_3) as (sock, context),
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        TlsStream(sock, context, "elsewhere.test")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_answers_of_any_size_are_whole_whatever_comes_with_them(
    certificate: Path, version: ssl.TLSVersion
) -> None:
    # Around what OpenSSL's filter buffers, a record, the low-water mark, and a block.
    sizes = [1, 4095, 4096, 4097, 16384, 65537, 256 * 1024 + 1, 700_000, len(CONTENT)]

    def answer(peer: ssl.SSLSocket) -> None:
        for size in sizes:
            peer.recv(1)
            head = b"%8d" % size
            # The head comes alone, or with the beginning of what follows.
            rest = 100 if size % 2 else 0
            peer.sendall(head + CONTENT[:rest][:size])
            peer.sendall(CONTENT[min(rest, size) : size])

    with connected(certificate, answer, version) as (sock, context):
        connection = Connection(sock, 5.0, TlsStream(sock, context, "store.test"))
        scratch = memoryview(bytearray(64 * 1024))
        for size in sizes:
            connection.send(b"?")
            got = 0
            while got < 8:
                got += connection.receive_some(scratch[got:])
            assert int(bytes(scratch[:8])) == size
            block = memoryview(bytearray(size))
            block[: got - 8] = scratch[8:got]
            if got - 8 < size:
                connection.receive_into(block[got - 8 :])
            assert block == CONTENT[:size]


def test_a_block_that_comes_slowly_is_no_silence(certificate: Path) -> None:
    """Less than the low-water mark comes within the timeout, again and again."""
    piece = 40_000

    def trickle(peer: ssl.SSLSocket) -> None:
        for start in range(0, 800_000, piece):
            peer.sendall(CONTENT[start : start + piece])
            threading.Event().wait(0.1)

    with connected(certificate, trickle, ssl.TLSVersion.TLSv1_3) as (sock, context):
        connection = Connection(sock, 1.0, TlsStream(sock, context, "store.test"))
        block = memoryview(bytearray(800_000))
        connection.receive_into(block)
        assert block == CONTENT[:800_000]


def test_silence_in_the_middle_of_a_block_tells_what_has_come(certificate: Path) -> None:
    go_on = threading.Event()

    def stop_halfway(peer: ssl.SSLSocket) -> None:
        peer.sendall(CONTENT[:1_000_000])
        go_on.wait(120)

    with connected(certificate, stop_halfway, ssl.TLSVersion.TLSv1_3) as (sock, context):
        connection = Connection(sock, 1.0, TlsStream(sock, context, "store.test"))
        block = memoryview(bytearray(2_000_000))
        with pytest.raises(NoAnswerError) as told:
            connection.receive_into(block)
        go_on.set()
        assert told.value.kind == "timeout"
        assert told.value.received == 1_000_000
        assert block[:1_000_000] == CONTENT[:1_000_000]


def test_a_record_that_only_drips_in_is_given_up(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "_RECORD_SECONDS", 0.3)

    def drip(peer: ssl.SSLSocket) -> None:
        raw = socket.socket(fileno=os.dup(peer.fileno()))
        with raw:
            raw.sendall(b"\x17\x03\x03\x40\x00")  # the head of a record of 16 KiB
            for _ in range(100):
                raw.sendall(b"x")
                threading.Event().wait(0.05)

    with connected(certificate, drip, ssl.TLSVersion.TLSv1_3) as (sock, context):
        sock.settimeout(60)
        stream = TlsStream(sock, context, "store.test")
        with pytest.raises(TimeoutError, match="dripped"):
            stream.recv_into(memoryview(bytearray(100_000)))


_FORGED = r"(?i)bad record mac|decryption failed|record layer failure"
"""As older and newer versions of OpenSSL put it."""


@pytest.mark.parametrize("size", [100, 100_000])
def test_bytes_that_the_peer_did_not_send_are_not_taken(certificate: Path, size: int) -> None:
    def forge(peer: ssl.SSLSocket) -> None:
        peer.sendall(b"true")
        os.write(peer.fileno(), b"\x17\x03\x03\x00\x40" + os.urandom(64))
        gone.wait(120)

    gone = threading.Event()
    with connected(certificate, forge, ssl.TLSVersion.TLSv1_3) as (sock, context):
        sock.settimeout(60)  # the failure is told at once, not after that
        stream = TlsStream(sock, context, "store.test")
        buffer = memoryview(bytearray(size))
        with pytest.raises(ssl.SSLError, match=_FORGED):
            for _ in range(2):  # the first bytes may be told before the failure is
                got = stream.recv_into(buffer)
                assert bytes(buffer[:got]) == b"true"
        gone.set()
        del stream
        # The next connection of this thread would take what is left there for its own failure.
        assert openssl._library().ERR_peek_last_error() == 0


def test_another_thread_can_end_a_wait(certificate: Path) -> None:
    go_on = threading.Event()

    def say_nothing(_peer: ssl.SSLSocket) -> None:
        go_on.wait(120)

    with connected(certificate, say_nothing, ssl.TLSVersion.TLSv1_3) as (sock, context):
        connection = Connection(sock, 10.0, TlsStream(sock, context, "store.test"))
        timer = threading.Timer(0.2, connection.shut)
        timer.start()
        with pytest.raises(NoAnswerError):
            connection.receive_into(memoryview(bytearray(1_000_000)))
        go_on.set()
        timer.join()


def test_objects_laid_out_in_another_way_are_left_alone(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openssl, "_CONTEXT_WORD", 5)

    def hello(peer: ssl.SSLSocket) -> None:
        peer.sendall(b"hello")

    with connected(certificate, hello, ssl.TLSVersion.TLSv1_3) as (sock, context):
        stream = TlsStream(sock, context, "store.test")
        assert stream._reader is None
        buffer = memoryview(bytearray(100))
        assert stream.recv_into(buffer) == 5
        assert buffer[:5] == b"hello"


def test_a_python_without_a_shared_openssl_reads_from_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(openssl._ssl, "__file__")
    openssl._library.cache_clear()
    try:
        assert openssl._library() is None
    finally:
        openssl._library.cache_clear()

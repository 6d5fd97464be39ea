"""TLS from memory: the same bytes both ways, and the same ends as a plain socket's."""

import os
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ossfs_py.store.tls import TlsStream

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


@contextmanager
def connected(
    certificate: Path, serve: Callable[[ssl.SSLSocket], None], version: ssl.TLSVersion
) -> Iterator[tuple[socket.socket, ssl.SSLContext]]:
    """A socket whose other end speaks TLS and does ``serve``."""
    ours, theirs = socket.socketpair()
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
        thread.join(10)
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
        go_on.wait(10)

    with connected(certificate, say_nothing, ssl.TLSVersion.TLSv1_3) as (sock, context):
        stream = TlsStream(sock, context, "store.test")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 100_000))
        with pytest.raises(BlockingIOError):
            stream.recv_into(memoryview(bytearray(100)))
        go_on.set()


def test_another_name_is_not_accepted(certificate: Path) -> None:
    with (
        connected(certificate, lambda _: None, ssl.TLSVersion.TLSv1_3) as (sock, context),
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        TlsStream(sock, context, "elsewhere.test")

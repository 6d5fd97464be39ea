"""TLS in front of a plain server: honest, or somebody in between who changes bytes."""

import socket
import ssl
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

PIECE_BYTES = 64 * 1024


def make_certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    certificate, key = directory / f"{name}.pem", directory / f"{name}-key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", f"/CN={name}", "-keyout", key, "-out", certificate),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


class TlsFront:
    """Listens on one port with TLS and hands everything on to ``upstream`` (``host:port``).

    ``forged`` maps bytes to others of the same length that the client gets in their place; what
    crosses the edge of a piece is missed, so keep objects small.
    """

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.rpartition(":")
        self._upstream = (host, int(port))
        self._context: ssl.SSLContext | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.forged: dict[bytes, bytes] = {}
        self.names: list[str | None] = []
        """The names that clients asked for, in order."""
        self._named: dict[str, ssl.SSLContext] = {}

    @property
    def endpoint(self) -> str:
        """URL of the front."""
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def show(self, certificate: Path, key: Path, name: str = "") -> None:
        """Answer with this certificate from the next connection on; with a ``name``, those only
        who ask for it.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        if name:
            self._named[name] = context
            return
        context.sni_callback = self._choose
        self._context = context

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone would leave accept(2) waiting.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _choose(self, sock: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        self.names.append(name)
        if context := self._named.get(name or ""):
            sock.context = context

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        assert self._context is not None, "no certificate to show"
        # One thread for both directions: an SSLSocket is no place for two.
        with (
            sock,
            suppress(OSError),
            self._context.wrap_socket(sock, server_side=True) as client,
            socket.create_connection(self._upstream) as server,
        ):
            self._relay(client, server)

    def _relay(self, client: ssl.SSLSocket, server: socket.socket) -> None:
        client.settimeout(0.01)
        server.settimeout(0.01)
        while True:
            with suppress(TimeoutError):
                if not (sent := client.recv(PIECE_BYTES)):
                    return
                server.sendall(sent)
            with suppress(TimeoutError):
                if not (answer := server.recv(PIECE_BYTES)):
                    return
                for true, false in self.forged.items():
                    answer = answer.replace(true, false)
                client.sendall(answer)

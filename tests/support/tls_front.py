"""TLS in front of a plain server: honest, or somebody in between who changes bytes."""

import socket
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.support.relay import PIECE_BYTES, Relay


def make_certificate(directory: Path, name: str, address: str = "127.0.0.1") -> tuple[Path, Path]:
    """A certificate for an address that vouches for itself, and its key."""
    certificate, key = directory / f"{name}.pem", directory / f"{name}-key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", f"/CN={name}", "-keyout", key, "-out", certificate),
            *("-addext", f"subjectAltName=IP:{address}"),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


class TlsFront(Relay):
    """Listens on one port with TLS and hands everything on to ``upstream`` (``host:port``).

    ``forged`` maps bytes to others of the same length that the client gets in their place; what
    crosses the edge of a piece is missed, so keep objects small.
    """

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self._context: ssl.SSLContext | None = None
        self.forged: dict[bytes, bytes] = {}
        self.names: list[str | None] = []
        """The names that clients asked for, in order."""
        self._named: dict[str, ssl.SSLContext] = {}

    @property
    def endpoint(self) -> str:
        """URL of the front."""
        return f"https://{self.address}"

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

    def _choose(self, sock: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        self.names.append(name)
        if context := self._named.get(name or ""):
            sock.context = context

    def serve(self, client: socket.socket) -> None:
        """Hand everything on, both ways."""
        assert self._context is not None, "no certificate to show"
        # One thread for both directions: an SSLSocket is no place for two.
        with (
            self._context.wrap_socket(client, server_side=True) as inside,
            socket.create_connection(self.upstream) as server,
        ):
            self._relay(inside, server)

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

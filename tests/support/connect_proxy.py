"""An http proxy that knows CONNECT only, and brings everybody to one server."""

import socket
import threading
from contextlib import suppress

from tests.support.relay import PIECE_BYTES, Relay


class ConnectProxy(Relay):
    """Opens tunnels to ``upstream`` (``host:port``), whatever name it is asked for.

    So a test may use any name for its server, and nothing needs to resolve it.
    """

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self.targets: list[str] = []
        """What tunnels were asked for, in order."""

    @property
    def url(self) -> str:
        """What https_proxy is set to."""
        return f"http://{self.address}"

    def serve(self, client: socket.socket) -> None:
        """Read the head, open the tunnel, wait until both ends have had enough."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            if not (byte := client.recv(1)):
                return
            head += byte
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        if method != "CONNECT":
            client.sendall(b"HTTP/1.1 405 CONNECT only\r\ncontent-length: 0\r\n\r\n")
            return
        self.targets.append(target)
        with socket.create_connection(self.upstream) as server:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(PIECE_BYTES):
            target.sendall(piece)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)

"""A server that does exactly what a script says: one list of steps for each connection."""

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from ossfs_py.store import open_store
from ossfs_py.store.base import ObjectStore
from ossfs_py.store.options import StoreOptions
from ossfs_py.telemetry.metrics import Metrics

ETAG = "0123456789abcdef0123456789abcdef"


@dataclass
class Seen:
    """One request as it arrived."""

    connection: int
    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""
    address: str = ""
    """The server's address that the client chose."""


@dataclass
class Peer:
    """One accepted connection while its script runs."""

    sock: socket.socket
    number: int
    closing: threading.Event
    requests: list[Seen]
    pending: bytes = b""
    last: Seen = field(default_factory=lambda: Seen(0, "", "", {}))

    def read_request(self) -> bool:
        while b"\r\n\r\n" not in self.pending:
            data = self.sock.recv(65536)
            if not data:
                return False
            self.pending += data
        head, _, rest = self.pending.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", "0"))
        while len(rest) < size:
            data = self.sock.recv(65536)
            if not data:
                return False
            rest += data
        address: str = self.sock.getsockname()[0]
        self.last = Seen(self.number, method, target, headers, rest[:size], address)
        self.pending = rest[size:]
        self.requests.append(self.last)
        return True


Step = Callable[[Peer], None]


def raw(data: bytes) -> Step:
    """Send these bytes."""
    return lambda peer: peer.sock.sendall(data)


def reply(
    status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, *, length: int = -1
) -> Step:
    """A whole answer; ``length`` may lie about the body's size."""
    fields = {"content-length": str(len(body) if length < 0 else length), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return raw(f"HTTP/1.1 {status} Scripted\r\n{lines}\r\n".encode() + body)


def error(
    status: int,
    code: str,
    headers: Mapping[str, str] | None = None,
    extra: str = "",
    said: str = "said so",
) -> Step:
    """An S3 error answer."""
    body = f"<Error><Code>{code}</Code><Message>{said}</Message>{extra}</Error>"
    return reply(status, body.encode(), {"x-amz-request-id": "REQ1", **(headers or {})})


def ranged(content: bytes, *, etag: str = ETAG, stop_after: int | None = None) -> Step:
    """The range that was asked for, cut off after ``stop_after`` bytes of body."""

    def step(peer: Peer) -> None:
        start, end = map(int, peer.last.headers["range"].removeprefix("bytes=").split("-"))
        body = content[start : end + 1]
        reply(
            206,
            body[:stop_after],
            {"etag": f'"{etag}"', "content-range": f"bytes {start}-{end}/{len(content)}"},
            length=len(body),
        )(peer)

    return step


def read_only(peer: Peer) -> None:
    """Take the request and say nothing."""


def hang_up(peer: Peer) -> None:
    """Close in the orderly way."""
    peer.sock.shutdown(socket.SHUT_RDWR)


def reset(peer: Peer) -> None:
    """Close with a TCP reset."""
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.sock.close()


def hold(peer: Peer) -> None:
    """Say nothing more until the test is over."""
    peer.closing.wait()


class ScriptedServer:
    """Accepts connections one after the other and plays the n-th script on the n-th.

    A script is a list of turns; each turn reads one request and then takes its steps. After the
    last turn the connection is closed.
    """

    def __init__(
        self,
        scripts: Sequence[Sequence[Sequence[Step]]],
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.requests: list[Seen] = []
        self._scripts = scripts
        self._tls = tls
        self._closing = threading.Event()
        self._listener = socket.create_server((host, 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._problems: list[BaseException] = []

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(120)
        assert not self._problems

    def _accept(self) -> None:
        for number, script in enumerate(self._scripts):
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._play, args=(sock, number, script), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _play(self, sock: socket.socket, number: int, script: Sequence[Sequence[Step]]) -> None:
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            with sock:
                peer = Peer(sock, number, self._closing, self.requests)
                for turn in script:
                    if not peer.read_request():
                        return
                    for step in turn:
                        step(peer)
        except OSError:
            return  # the client went away, which many tests make it do
        except BaseException as exc:  # noqa: BLE001 - shown when the server is left
            self._problems.append(exc)


def store_for(url: str, **changes: object) -> ObjectStore:
    """A store without credentials and with timeouts that are short, but not for a busy machine."""
    settings: dict[str, object] = {
        "bucket": "bucket",
        "endpoint": url,
        "region": "us-east-1",
        "anonymous": True,
        # No request that a test did not script.
        "conditional_reads": "on",
        "connect_timeout_seconds": 2.0,
        "stall_timeout_seconds": 1.0,
        "retry_budget_seconds": 5.0,
        **changes,
    }
    return open_store(StoreOptions(**settings), Metrics())  # type: ignore[arg-type]

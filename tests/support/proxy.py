"""A reverse proxy for S3 that counts, slows down and breaks what passes through it.

The proxy *is* the endpoint the client signs for: it hands the Host header on unchanged, so the
server behind it verifies the client's own signature. Bodies move by splice(2) through a pipe and
never enter Python, so that a gigabyte costs a fraction of a CPU second.

``python -m tests.support.proxy --upstream HOST:PORT [--port N] [--ttfb-ms N] [--mbps N]`` runs it
as a process of its own, which answers ``GET /__stats`` and resets on ``POST /__stats``.
"""

import argparse
import contextlib
import fcntl
import json
import os
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

PIPE_BYTES = 1 << 20
HEAD_LIMIT_BYTES = 1 << 20
SUBRESOURCES = {
    ("PUT", True, "partNumber"): "UploadPart",
    ("POST", True, "uploads"): "CreateMultipartUpload",
    ("POST", True, "uploadId"): "CompleteMultipartUpload",
    ("DELETE", True, "uploadId"): "AbortMultipartUpload",
    ("GET", True, "uploadId"): "ListParts",
    ("POST", False, "delete"): "DeleteObjects",
    ("GET", False, "uploads"): "ListMultipartUploads",
    ("GET", False, "location"): "GetBucketLocation",
}
PLAIN = {
    ("GET", True): "GetObject",
    ("HEAD", True): "HeadObject",
    ("PUT", True): "PutObject",
    ("DELETE", True): "DeleteObject",
    ("GET", False): "ListObjects",
    ("HEAD", False): "HeadBucket",
    ("PUT", False): "CreateBucket",
    ("DELETE", False): "DeleteBucket",
}


@dataclass(slots=True)
class Exchange:
    """One request and what became of it."""

    operation: str
    bucket: str
    key: str
    headers: dict[str, str]
    status: int = 0
    start: int = 0
    """Offset in the object of the first body byte sent."""
    sent: int = 0
    """Body bytes sent to the client."""
    received: int = 0
    """Body bytes taken from the client."""


@dataclass(slots=True)
class Fault:
    """What happens to matching requests, instead of or on top of the server's answer.

    Exactly one of the actions is set. ``skip`` requests pass first, then ``times`` are hit.
    """

    operation: str = "*"
    key: str | None = None
    skip: int = 0
    times: int | None = 1
    status: int | None = None
    """Answer with this status; the server never hears of the request."""
    code: str = "SlowDown"
    retry_after: str | None = None
    delay_seconds: float | None = None
    """Wait before handing the request on."""
    reset_before: bool = False
    """Reset the connection before a byte of the answer."""
    reset_after: int | None = None
    """Reset the connection after this many body bytes."""
    short_after: int | None = None
    """Close in good order after this many body bytes, fewer than promised."""
    stall_after: int | None = None
    """Send this many body bytes, then nothing until the proxy stops or ``release`` is called."""
    etag: str | None = None
    """Replace the answer's ETag."""
    hits: int = field(default=0, init=False)


@dataclass(slots=True)
class Shape:
    """How slow the store seems: delay before each answer, and bandwidth of each connection."""

    ttfb_seconds: float = 0.0
    bytes_per_second: float = 0.0
    """0 means unlimited."""


class ClosedError(ConnectionError):
    """The peer closed where a message was expected."""


class Proxy:
    """A proxy on a free loopback port; use it as a context manager."""

    def __init__(self, upstream: str, shape: Shape | None = None, port: int = 0) -> None:
        host, _, number = upstream.partition(":")
        self._upstream = (host, int(number))
        self.shape = shape or Shape()
        self.exchanges: list[Exchange] = []
        self.faults: list[Fault] = []
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._stopping = False
        self.in_flight = self.peak_in_flight = 0
        self._listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.endpoint = f"http://{self.host}"

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._released.set()
        # shutdown wakes the thread in accept(2); close alone would leave it there.
        self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            open_sockets = list(self._sockets)
        for one in open_sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(30)
        self._listener.close()

    # -- what tests ask --------------------------------------------------------------------

    def reset(self) -> None:
        """Forget the exchanges so far."""
        with self._lock:
            self.exchanges.clear()
            self.peak_in_flight = self.in_flight

    def counts(self) -> Counter[str]:
        """Requests by operation since the last reset."""
        with self._lock:
            return Counter(one.operation for one in self.exchanges)

    def bytes_served(self, key: str | None = None) -> int:
        """Object bytes sent to clients, of one key or of all."""
        return sum(end - start for start, end in self._spans(key))

    def times_served(self, key: str) -> Counter[int]:
        """How many bytes of an object were served once, twice, …."""
        edges: Counter[int] = Counter()
        for start, end in self._spans(key):
            edges[start] += 1
            edges[end] -= 1
        result: Counter[int] = Counter()
        depth = previous = 0
        for position in sorted(edges):
            if depth:
                result[depth] += position - previous
            depth, previous = depth + edges[position], position
        return result

    def release(self) -> None:
        """Let stalled answers go on."""
        self._released.set()

    def stats(self) -> dict[str, object]:
        """Requests by operation, body bytes both ways, most requests in flight."""
        with self._lock:
            return {
                "ops": dict(Counter(one.operation for one in self.exchanges)),
                "bytes_out": sum(one.sent for one in self.exchanges),
                "bytes_in": sum(one.received for one in self.exchanges),
                "peak_in_flight": self.peak_in_flight,
            }

    def _spans(self, key: str | None) -> list[tuple[int, int]]:
        with self._lock:
            return [
                (one.start, one.start + one.sent)
                for one in self.exchanges
                if one.operation == "GetObject"
                and one.status in (200, 206)
                and key in (None, one.key)
            ]

    # -- connections -----------------------------------------------------------------------

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._spawn(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = _Session(self, client)
        with self._lock:
            self._sockets.add(client)
        try:
            while not self._stopping and session.exchange():
                pass
        except OSError:
            pass  # either side went away: the client sees exactly that
        finally:
            with self._lock:
                self._sockets -= {client, session.upstream}
            session.close()

    # -- used by sessions ------------------------------------------------------------------

    def connect(self) -> socket.socket:
        """A new connection to the server."""
        upstream = socket.create_connection(self._upstream)
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._sockets.add(upstream)
        return upstream

    def begin(self, exchange: Exchange) -> list[Fault]:
        """Record a request; the faults that hit it."""
        with self._lock:
            self.exchanges.append(exchange)
            self.in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
            return [fault for fault in self.faults if _hits(fault, exchange)]

    def end(self) -> None:
        """The request is over."""
        with self._lock:
            self.in_flight -= 1

    def wait_released(self) -> None:
        """Block until the proxy stops or ``release`` is called."""
        self._released.wait()


class _Session:
    """One client connection and its own connection to the server."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self.upstream: socket.socket | None = None
        self._pipe = os.pipe()
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._pipe[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def close(self) -> None:
        self._client.close()
        if self.upstream is not None:
            self.upstream.close()
        for end in self._pipe:
            os.close(end)

    def exchange(self) -> bool:
        """Serve one request; False when the connection ends with it."""
        try:
            first, headers, body = _read_head(self._client)
        except ClosedError:
            return False
        method, target, _ = first.split(" ", 2)
        if target.startswith("/__stats"):
            return self._answer_stats(method)
        exchange = _describe(method, target, headers)
        faults = self._proxy.begin(exchange)
        try:
            return self._relay(first, headers, body, exchange, faults)
        finally:
            self._proxy.end()

    def _relay(
        self,
        first: str,
        headers: list[tuple[str, str]],
        body: bytes,
        exchange: Exchange,
        faults: list[Fault],
    ) -> bool:
        shape = self._proxy.shape
        time.sleep(shape.ttfb_seconds + sum(fault.delay_seconds or 0 for fault in faults))
        if any(fault.reset_before for fault in faults):
            return self._reset()
        for fault in faults:
            if fault.status is not None:
                return self._refuse(fault, exchange)
        if exchange.headers.get("expect", "").lower() == "100-continue":
            self._client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            headers = [pair for pair in headers if pair[0].lower() != "expect"]
        if self.upstream is None:
            self.upstream = self._proxy.connect()
        upstream = self.upstream
        upstream.sendall(_head(first, headers) + body)
        length = int(exchange.headers.get("content-length") or 0)
        exchange.received = len(body)
        try:
            for moved in self._move(self._client, upstream, length - len(body)):
                exchange.received += moved
        except BrokenPipeError:
            pass  # refused early: the answer is there to be read
        return self._return_answer(first.split(" ", maxsplit=1)[0], exchange, faults)

    def _return_answer(self, method: str, exchange: Exchange, faults: list[Fault]) -> bool:
        assert self.upstream is not None
        while True:
            first, headers, body = _read_head(self.upstream)
            status = int(first.split(" ")[1])
            if status >= 200:
                break
        names = {name.lower(): value for name, value in headers}
        exchange.status = status
        if span := names.get("content-range", "").removeprefix("bytes "):
            exchange.start = int(span.split("-")[0]) if span[0].isdigit() else 0
        for fault in faults:
            if fault.etag is not None:
                headers = [
                    (name, f'"{fault.etag}"' if name.lower() == "etag" else value)
                    for name, value in headers
                ]
        self._client.sendall(_head(first, headers))
        keep = names.get("connection", "").lower() != "close"
        if method == "HEAD" or status in (204, 304):
            return keep
        cut = _cut(faults)
        if "content-length" in names:
            length = int(names["content-length"])
            if not self._send_body(exchange, body, length if cut is None else min(cut, length)):
                return False
            return keep if cut is None or cut >= length else self._break_off(exchange, faults)
        self._send_chunked(exchange, body)
        return keep

    def _send_body(self, exchange: Exchange, body: bytes, length: int) -> bool:
        assert self.upstream is not None
        # Counted before it leaves: who has received the last byte may ask for the count at once.
        exchange.sent += min(len(body), length)
        self._client.sendall(body[:length])
        for moved in self._move(self.upstream, self._client, length - len(body)):
            exchange.sent += moved
        return True

    def _send_chunked(self, exchange: Exchange, body: bytes) -> None:
        """Hand a chunked answer on as it comes; LIST answers are, and they are small."""
        assert self.upstream is not None
        buffered = body
        while True:
            while b"\r\n" not in buffered:
                buffered += _receive(self.upstream)
            line, _, buffered = buffered.partition(b"\r\n")
            size = int(line.split(b";")[0], 16)
            while len(buffered) < size + 2:
                buffered += _receive(self.upstream)
            exchange.sent += size
            self._client.sendall(line + b"\r\n" + buffered[: size + 2])
            buffered = buffered[size + 2 :]
            if size == 0:
                return

    def _move(self, source: socket.socket, target: socket.socket, count: int) -> Iterable[int]:
        """Move ``count`` bytes between sockets in the kernel, at the shape's pace.

        Each step is yielded before it reaches ``target``.
        """
        rate = self._proxy.shape.bytes_per_second
        step = PIPE_BYTES if not rate else 256 * 1024
        began, total = time.monotonic(), 0
        while total < count:
            taken = os.splice(source.fileno(), self._pipe[1], min(step, count - total))
            if taken == 0:
                raise ClosedError("the peer closed within a body")
            # Told before it leaves, so that the count is there when its receiver asks for it.
            total += taken
            yield taken
            left = taken
            while left:
                left -= os.splice(self._pipe[0], target.fileno(), left)
            if rate and (ahead := total / rate - (time.monotonic() - began)) > 0:
                time.sleep(ahead)

    # -- faults and the proxy's own answers ------------------------------------------------

    def _reset(self) -> bool:
        # SO_LINGER with zero seconds makes close(2) send RST instead of FIN.
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    def _break_off(self, exchange: Exchange, faults: list[Fault]) -> bool:
        if any(fault.stall_after is not None for fault in faults):
            self._proxy.wait_released()
        if any(fault.reset_after is not None for fault in faults):
            return self._reset()
        return False

    def _refuse(self, fault: Fault, exchange: Exchange) -> bool:
        exchange.status = fault.status or 0
        text = f"<Error><Code>{fault.code}</Code><Message>injected</Message></Error>".encode()
        headers = [
            ("Content-Type", "application/xml"),
            ("Content-Length", str(len(text))),
            ("Date", formatdate(usegmt=True)),
            ("x-amz-request-id", "INJECTED"),
            ("Connection", "close"),
        ]
        if fault.retry_after is not None:
            headers.append(("Retry-After", fault.retry_after))
        body = b"" if exchange.operation.startswith("Head") else text
        self._client.sendall(_head(f"HTTP/1.1 {fault.status} Injected", headers) + body)
        # The request's body is left unread; closing with unread data would send RST over it.
        self._client.shutdown(socket.SHUT_WR)
        while self._client.recv(PIPE_BYTES):
            pass
        return False

    def _answer_stats(self, method: str) -> bool:
        text = json.dumps(self._proxy.stats()).encode()
        if method == "POST":
            self._proxy.reset()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(text)))]
        self._client.sendall(_head("HTTP/1.1 200 OK", headers) + text)
        return True


def _hits(fault: Fault, exchange: Exchange) -> bool:
    if fault.operation not in ("*", exchange.operation) or fault.key not in (None, exchange.key):
        return False
    fault.hits += 1
    return fault.skip < fault.hits <= fault.skip + (fault.times or fault.hits)


def _cut(faults: list[Fault]) -> int | None:
    cuts = [
        cut
        for fault in faults
        for cut in (fault.reset_after, fault.short_after, fault.stall_after)
        if cut is not None
    ]
    return min(cuts, default=None)


def _receive(source: socket.socket) -> bytes:
    data = source.recv(64 * 1024)
    if not data:
        raise ClosedError("the peer closed")
    return data


def _read_head(source: socket.socket) -> tuple[str, list[tuple[str, str]], bytes]:
    """First line, headers in order, and the body bytes that came along."""
    data = b""
    while b"\r\n\r\n" not in data:
        if len(data) > HEAD_LIMIT_BYTES:
            raise ConnectionError("a header without end")
        data += _receive(source)
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first, [(name, value.strip()) for name, _, value in pairs], body


def _head(first: str, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{first}\r\n{lines}\r\n".encode("latin-1")


def _describe(method: str, target: str, headers: list[tuple[str, str]]) -> Exchange:
    url = urlsplit(target)
    bucket, _, key = unquote(url.path.lstrip("/")).partition("/")
    query = parse_qs(url.query, keep_blank_values=True)
    names = {name.lower(): value for name, value in headers}
    operation = PLAIN.get((method, bool(key)), method)
    if not bucket:
        operation = "ListBuckets"
    for (verb, has_key, parameter), name in SUBRESOURCES.items():
        if verb == method and has_key == bool(key) and parameter in query:
            operation = name
    if "x-amz-copy-source" in names:
        operation = {"PutObject": "CopyObject", "UploadPart": "UploadPartCopy"}[operation]
    return Exchange(operation, bucket, key, names)


def main() -> None:
    """Run one proxy until the process is told to end."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.proxy")
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ttfb-ms", type=float, default=0)
    parser.add_argument("--mbps", type=float, default=0)
    options = parser.parse_args()
    shape = Shape(options.ttfb_ms / 1000, options.mbps * 1e6)
    with Proxy(options.upstream, shape, options.port) as proxy:
        print(proxy.endpoint, flush=True)  # noqa: T201 - whoever started the process reads it
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()

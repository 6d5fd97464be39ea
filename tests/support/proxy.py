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
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.faults import Fault, Headers, cut_of, with_a_bit_flipped

__all__ = ["Exchange", "Fault", "Proxy", "Shape"]

PIPE_BYTES = 1 << 20
HEAD_LIMIT_BYTES = 1 << 20
TRICKLE_SECONDS = 0.02
"""Pause between the bytes of an answer that trickles."""
REFUSED_SECONDS = 5.0
"""How long a refused client may take to stop sending its body."""
LISTEN_TRIES = 100
TICK_SECONDS = 0.05
"""How often somebody who stalls looks whether that has an end."""
SUBRESOURCES = {
    ("PUT", True, "partNumber"): "UploadPart",
    ("POST", True, "uploads"): "CreateMultipartUpload",
    ("POST", True, "uploadId"): "CompleteMultipartUpload",
    ("DELETE", True, "uploadId"): "AbortMultipartUpload",
    ("GET", True, "uploadId"): "ListParts",
    ("GET", True, "tagging"): "GetObjectTagging",
    ("PUT", True, "tagging"): "PutObjectTagging",
    ("GET", True, "acl"): "GetObjectAcl",
    ("POST", False, "delete"): "DeleteObjects",
    ("GET", False, "uploads"): "ListMultipartUploads",
    ("GET", False, "location"): "GetBucketLocation",
    ("GET", False, "versioning"): "GetBucketVersioning",
    ("GET", False, "versions"): "ListObjectVersions",
}
PROBE = "GetObject of no version"
"""What a mount sends once a day for each endpoint, beside its first read. The state directories of
tests are new, so it would be one GET more in each: it is no GetObject, and not counted."""
_NO_VERSION = f'"{"0" * 32}"'
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
    query: dict[str, list[str]]
    status: int = 0
    start: int = 0
    """Offset in the object of the first body byte sent."""
    sent: int = 0
    """Body bytes sent to the client."""
    received: int = 0
    """Body bytes taken from the client."""


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
        self.keep_exchanges = True
        """False where a test goes on for so long that they would fill the memory."""
        self.faults: list[Fault] = []
        self.choose: Callable[[Exchange], list[Fault]] = _no_fault
        """Asked about each request, one after the other: what hits it beside ``faults``."""
        self.revoked: set[str] = set()
        """Access key ids that the store no longer knows."""
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.stopping = False
        """The context has ended; nothing is answered any more."""
        self.in_flight = self.peak_in_flight = 0
        self._listener = _listen(port)
        self._port = self._listener.getsockname()[1]
        self.host = f"127.0.0.1:{self._port}"
        self.endpoint = f"http://{self.host}"

    def __enter__(self) -> Self:
        self._spawn(self._accept, self._listener)
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping = True
        self._released.set()
        self.refuse()
        for thread in self._threads:
            thread.join(120)

    # -- the store as a whole --------------------------------------------------------------

    def refuse(self) -> None:
        """Break every connection and refuse new ones."""
        with self._lock:
            listener, self._listener = self._listener, None
            open_sockets = list(self._sockets)
        if listener is not None:
            # shutdown wakes the thread in accept(2); close alone would leave it there.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for one in open_sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def accept_again(self) -> None:
        """End :meth:`refuse`."""
        with self._lock:
            if self._listener is not None or self.stopping:
                return
            listener = self._listener = _listen(self._port)
        self._spawn(self._accept, listener)

    def refuse_for(self, seconds: float) -> None:
        """:meth:`refuse`, and :meth:`accept_again` after a while."""
        self.refuse()
        self._spawn(self._accept_after, seconds)

    def _accept_after(self, seconds: float) -> None:
        self._released.wait(seconds)
        self.accept_again()

    # -- what tests ask --------------------------------------------------------------------

    def reset(self) -> None:
        """Forget the exchanges so far."""
        with self._lock:
            self.exchanges.clear()
            self.peak_in_flight = self.in_flight

    def counts(self) -> Counter[str]:
        """Requests by operation since the last reset."""
        with self._lock:
            return Counter(one.operation for one in self.exchanges if one.operation != PROBE)

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
        with self._lock:
            self._threads = [one for one in self._threads if one.is_alive() or one.ident is None]
            self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self._spawn(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        session = _Session(self, client)
        with self._lock:
            self._sockets.add(client)
        try:
            while not self.stopping and session.exchange():
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
            if self.keep_exchanges:
                self.exchanges.append(exchange)
            self.in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
            if access_key_of(exchange) in self.revoked:
                return [Fault(times=None, status=403, code="InvalidAccessKeyId")]
            laid = [fault for fault in self.faults if _hits(fault, exchange)]
            return laid + self.choose(exchange)

    def end(self) -> None:
        """The request is over."""
        with self._lock:
            self.in_flight -= 1

    def hold(self, until: threading.Event | None) -> None:
        """Block until the event is set, or the proxy stops."""
        while until is not None and not (until.wait(TICK_SECONDS) or self.stopping):
            pass

    def wait_released(self, client: socket.socket) -> None:
        """Block until the proxy stops, ``release`` is called or the client goes away."""
        poller = select.poll()
        poller.register(client, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        while not self._released.wait(TICK_SECONDS) and not poller.poll(0):
            pass


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
        for fault in faults:
            self._proxy.hold(fault.held_until)
            if fault.reset_before:
                return self._reset()
            if fault.refuse_seconds is not None:
                self._proxy.refuse_for(fault.refuse_seconds)
                return self._reset()
            if fault.stall_head is not None or fault.trickle_head or fault.garbage:
                return self._mumble(fault)
            if fault.status is not None:
                return self._refuse(fault, exchange)
        if any(fault.ignore_range for fault in faults):
            headers = [pair for pair in headers if pair[0].lower() != "range"]
        if exchange.headers.get("expect", "").lower() == "100-continue":
            self._client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            headers = [pair for pair in headers if pair[0].lower() != "expect"]
        if self.upstream is None:
            self.upstream = self._proxy.connect()
        upstream = self.upstream
        length = int(exchange.headers.get("content-length") or 0)
        if any(fault.corrupt_request for fault in faults):
            while len(body) < length:
                body += _receive(self._client)
            body = with_a_bit_flipped(body)
        cuts = [fault.cut_request for fault in faults if fault.cut_request is not None]
        if cuts and min(cuts) < length:
            upstream.sendall(_head(first, headers) + body[: min(cuts)])
            for moved in self._move(self._client, upstream, min(cuts) - len(body)):
                exchange.received += moved
            upstream.close()
            return self._reset()
        upstream.sendall(_head(first, headers) + body)
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
            headers = fault.rewrite_headers(headers)
        keep = names.get("connection", "").lower() != "close"
        has_body = method != "HEAD" and status not in (204, 304)
        if any(fault.lose_answer for fault in faults):
            return self._reset()
        cut = cut_of(faults)
        if has_body and (
            any(fault.rewrites_body for fault in faults)
            or (cut is not None and "content-length" not in names)
        ):
            return self._rewrite_body(first, headers, body, exchange, faults)
        self._client.sendall(_head(first, headers))
        if not has_body:
            return keep if cut is None else self._break_off(faults, b"")
        if "content-length" in names:
            length = int(names["content-length"])
            if not self._send_body(exchange, body, length if cut is None else min(cut, length)):
                return False
            if cut is None or cut >= length:
                return keep
            return self._break_off(faults, body[cut:])
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

    def _rewrite_body(
        self, first: str, headers: Headers, body: bytes, exchange: Exchange, faults: list[Fault]
    ) -> bool:
        """Send the answer with another body, or with less of it than promised."""
        assert self.upstream is not None
        names = {name.lower(): value for name, value in headers}
        if "content-length" in names:
            while len(body) < int(names["content-length"]):
                body += _receive(self.upstream)
        else:
            body = _unchunked(self.upstream, body)
        for fault in faults:
            body = fault.rewrite(body)
        framing = ("content-length", "transfer-encoding")
        headers = [pair for pair in headers if pair[0].lower() not in framing]
        headers.append(("Content-Length", str(len(body))))
        sent = body[: cut_of(faults)]
        exchange.sent = len(sent)
        self._client.sendall(_head(first, headers) + sent)
        return len(sent) == len(body) or self._break_off(faults, body[len(sent) :])

    def _mumble(self, fault: Fault) -> bool:
        """Answer with something that is no head, or not all of one."""
        head = b"HTTP/1.1 200 OK\r\nx-amz-request-id: INJECTED\r\nx-slow: "
        if fault.garbage:
            self._client.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
            return False
        if fault.trickle_head:
            self._client.sendall(head)
            self._trickle(lambda: b"a")
        else:
            self._client.sendall(head[: fault.stall_head])
            self._proxy.wait_released(self._client)
        return self._reset()

    def _trickle(self, more: Callable[[], bytes]) -> None:
        """Send a byte every now and then until the client has enough."""
        with contextlib.suppress(OSError):
            while not self._proxy.stopping and (byte := more()):
                self._client.sendall(byte)
                time.sleep(TRICKLE_SECONDS)

    def _break_off(self, faults: list[Fault], rest: bytes) -> bool:
        """End an answer before its end; ``rest`` of the body has come from the server."""
        upstream = self.upstream
        assert upstream is not None
        if any(fault.trickle_after is not None for fault in faults):
            left = iter(rest)
            self._trickle(lambda: bytes((one,)) if (one := next(left, None)) is not None else b"")
            self._trickle(lambda: upstream.recv(1))
        if any(fault.stall_after is not None for fault in faults):
            self._proxy.wait_released(self._client)
        if any(fault.reset_after is not None for fault in faults):
            return self._reset()
        return False

    def _refuse(self, fault: Fault, exchange: Exchange) -> bool:
        exchange.status = fault.status or 0
        text = f"<Error><Code>{fault.code}</Code><Message>injected</Message></Error>".encode()
        headers = [
            ("Content-Type", "application/xml"),
            ("Content-Length", str(len(text))),
            ("Date", fault.date or formatdate(usegmt=True)),
            ("x-amz-request-id", "INJECTED"),
            ("Connection", "close"),
        ]
        if fault.retry_after is not None:
            headers.append(("Retry-After", fault.retry_after))
        body = b"" if exchange.operation.startswith("Head") else text
        self._client.sendall(_head(f"HTTP/1.1 {fault.status} Injected", headers) + body)
        # The request's body is left unread; closing with unread data would send RST over it.
        self._client.shutdown(socket.SHUT_WR)
        self._client.settimeout(REFUSED_SECONDS)
        with contextlib.suppress(TimeoutError):
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


def _no_fault(_exchange: Exchange) -> list[Fault]:
    return []


def access_key_of(exchange: Exchange) -> str:
    """The access key id that a request was signed with; empty for none."""
    authorization = exchange.headers.get("authorization", "")
    return authorization.partition("Credential=")[2].partition("/")[0]


def _hits(fault: Fault, exchange: Exchange) -> bool:
    if fault.operation not in ("*", exchange.operation) or fault.key not in (None, exchange.key):
        return False
    fault.hits += 1
    return fault.skip < fault.hits <= fault.skip + (fault.times or fault.hits)


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


def _unchunked(source: socket.socket, data: bytes) -> bytes:
    """The content of a chunked body of which ``data`` has come."""
    content = b""
    while True:
        while b"\r\n" not in data:
            data += _receive(source)
        line, _, data = data.partition(b"\r\n")
        size = int(line.split(b";")[0], 16)
        while len(data) < size + 2:
            data += _receive(source)
        content, data = content + data[:size], data[size + 2 :]
        if size == 0:
            return content


def _listen(port: int) -> socket.socket:
    for _ in range(LISTEN_TRIES):
        # Somebody's outgoing connection may have the port for a moment.
        with contextlib.suppress(OSError):
            return socket.create_server(("127.0.0.1", port), backlog=512)
        time.sleep(TICK_SECONDS)
    return socket.create_server(("127.0.0.1", port), backlog=512)


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
    if operation == "GetObject" and names.get("if-match") == _NO_VERSION:
        operation = PROBE
    return Exchange(operation, bucket, key, names, query)


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

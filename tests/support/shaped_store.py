"""A read-only bucket on local disk, shaped like a cloud: latency and bandwidth of each connection.

``python -m tests.support.shaped_store --root DIR [--port 9000] [--ttfb-ms 25] [--mbps 90]`` serves
each directory of DIR as a bucket, path-style, with sendfile, so that it takes little CPU beside
what is measured. It checks no signature: an instrument, not a store to rely on. With
``--certificate`` and ``--key`` it speaks HTTPS, as clouds do, and encrypts each byte itself.

``GET /__stats`` answers a JSON object with requests by operation (``ops``), body bytes sent
(``bytes_out``), requests under way (``running``), the most of them at once (``peak``), and the CPU
time of the store since it was started (``cpu_seconds``);
``POST /__stats`` begins anew, and ``POST /__shape?ttfb_ms=..&mbps=..`` changes the shape. Keys are
the paths of the files.
"""

import argparse
import email.utils
import json
import os
import re
import socket
import socketserver
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

_CHUNK_BYTES = 1024**2
_LEAST_PAUSE_SECONDS = 0.002
_RANGE = re.compile(r"bytes=(\d+)-(\d*)$")
_PAGE_KEYS = 1000


@dataclass
class Shape:
    """What each answer waits for (``ttfb_ms``), and 10^6 bytes a second of each connection (0: no
    limit)."""

    ttfb_ms: float = 0.0
    mbps: float = 0.0


@dataclass
class Counts:
    """What was served; guarded by ``lock``."""

    ops: Counter[str] = field(default_factory=Counter)
    bytes_out: int = 0
    running: int = 0
    peak: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class ShapedServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Serves the directories below ``root`` on a port of ``host`` (0: a free one)."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 512

    def __init__(
        self,
        root: Path,
        shape: Shape,
        port: int = 0,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.root = root
        self.shape = shape
        self.counts = Counts()
        self._tls = tls
        super().__init__((host, port), _Handler)

    def get_request(self) -> tuple[socket.socket, object]:
        """A connection; its handshake is left to the thread that serves it."""
        connection, address = super().get_request()
        if self._tls is not None:
            connection = self._tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: ShapedServer

    def log_message(
        self,
        format: str,  # noqa: A002 - the parent's name
        *args: object,
    ) -> None:
        """Nothing: a line for each request would cost more than the request."""

    def do_HEAD(self) -> None:
        self._counted("head", self._head)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/__stats":
            counts = self.server.counts
            with counts.lock:
                said = {"ops": counts.ops, "bytes_out": counts.bytes_out}
                said |= {"peak": counts.peak, "running": counts.running}
            said["bytes_in"], said["cpu_seconds"] = 0, time.process_time()
            self._answer(200, json.dumps(said).encode())
        elif "/" in url.path.strip("/"):
            self._counted("get", self._get)
        else:
            self._counted("list", self._list)

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        counts, shape = self.server.counts, self.server.shape
        if url.path == "/__shape":
            for name, values in parse_qs(url.query).items():
                setattr(shape, name, float(values[0]))
        elif url.path == "/__stats":
            with counts.lock:
                counts.ops.clear()
                counts.bytes_out, counts.peak = 0, counts.running
        self._answer(200, b"{}")

    def _counted(self, operation: str, serve: Callable[[], None]) -> None:
        counts = self.server.counts
        with counts.lock:
            counts.ops[operation] += 1
            counts.running += 1
            counts.peak = max(counts.peak, counts.running)
        time.sleep(self.server.shape.ttfb_ms / 1000)
        try:
            serve()
        except FileNotFoundError:
            self._refuse(404, "NoSuchKey")
        finally:
            with counts.lock:
                counts.running -= 1

    def _file(self) -> Path:
        path = self.server.root / unquote(urlsplit(self.path).path).strip("/")
        if not path.is_file():
            raise FileNotFoundError(path)
        return path

    def _head(self) -> None:
        status = self._file().stat()
        self._begin(200, status, status.st_size)

    def _get(self) -> None:
        with self._file().open("rb") as file:
            status = os.fstat(file.fileno())
            if self.headers.get("If-Match", _etag(status)) != _etag(status):
                self._refuse(412, "PreconditionFailed")
                return
            start, end, code = 0, status.st_size, 200
            if asked := _RANGE.match(self.headers.get("Range", "")):
                start, code = int(asked[1]), 206
                end = min(end, int(asked[2]) + 1) if asked[2] else end
                if start >= status.st_size:
                    self._refuse(416, "InvalidRange")
                    return
            self._begin(code, status, end - start, start)
            self.wfile.flush()
            self._send(file.fileno(), start, end)

    def _send(self, descriptor: int, start: int, end: int) -> None:
        counts, rate = self.server.counts, self.server.shape.mbps * 1e6
        position, began = start, time.monotonic()
        while position < end:
            size = min(end - position, _CHUNK_BYTES)
            if isinstance(self.connection, ssl.SSLSocket):
                sent = self.connection.send(os.pread(descriptor, size, position))
            else:
                sent = os.sendfile(self.connection.fileno(), descriptor, position, size)
            position += sent
            with counts.lock:
                counts.bytes_out += sent
            if rate:
                early_seconds = (position - start) / rate - (time.monotonic() - began)
                if early_seconds > _LEAST_PAUSE_SECONDS:
                    time.sleep(early_seconds)

    def _list(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        bucket = self.server.root / unquote(url.path).strip("/")
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = query.get("continuation-token") or query.get("start-after") or ""
        found: dict[str, Path | None] = {}
        for path in bucket.rglob("*"):
            key = str(path.relative_to(bucket))
            if path.is_file() and key.startswith(prefix):
                cut = key.find(delimiter, len(prefix)) if delimiter else -1
                name, kept = (key[: cut + 1], None) if cut >= 0 else (key, path)
                if name > after:
                    found[name] = kept
        names = sorted(found)[: int(query.get("max-keys", _PAGE_KEYS))]
        more = len(names) < len(found)
        encoded = query.get("encoding-type") == "url"
        body = "".join(_entry(n, found[n], encoded=encoded) for n in names)
        if more:
            body += f"<NextContinuationToken>{escape(names[-1])}</NextContinuationToken>"
        head = f"<IsTruncated>{str(more).lower()}</IsTruncated><KeyCount>{len(names)}</KeyCount>"
        head += "<EncodingType>url</EncodingType>" if encoded else ""
        self._answer(200, f"<ListBucketResult>{head}{body}</ListBucketResult>".encode())

    def _begin(self, code: int, status: os.stat_result, size: int, start: int = 0) -> None:
        self.send_response(code)
        self.send_header("ETag", _etag(status))
        self.send_header("Last-Modified", email.utils.formatdate(status.st_mtime, usegmt=True))
        self.send_header("Content-Length", str(size))
        if code == 206:
            self.send_header("Content-Range", f"bytes {start}-{start + size - 1}/{status.st_size}")
        self.end_headers()

    def _refuse(self, code: int, name: str) -> None:
        self._answer(code, f"<Error><Code>{name}</Code></Error>".encode())

    def _answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/xml")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _etag(status: os.stat_result) -> str:
    return f'"{status.st_size:x}x{status.st_mtime_ns:x}"'


def _entry(name: str, path: Path | None, *, encoded: bool) -> str:
    shown = quote(name) if encoded else escape(name)
    if path is None:
        return f"<CommonPrefixes><Prefix>{shown}</Prefix></CommonPrefixes>"
    status = path.stat()
    changed = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(status.st_mtime))
    return (
        f"<Contents><Key>{shown}</Key><LastModified>{changed}</LastModified>"
        f"<ETag>{escape(_etag(status))}</ETag><Size>{status.st_size}</Size></Contents>"
    )


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.shaped_store")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--ttfb-ms", type=float, default=0.0)
    parser.add_argument("--mbps", type=float, default=0.0)
    parser.add_argument("--certificate", type=Path, help="serve HTTPS with this certificate")
    parser.add_argument("--key", type=Path, help="its key")
    options = parser.parse_args()
    shape = Shape(options.ttfb_ms, options.mbps)
    root = options.root.absolute()
    tls = None
    if options.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.certificate, options.key)
    with ShapedServer(root, shape, options.port, options.host, tls) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()

"""A fake store as an S3 server, for mounts: pages of any size, answers as wrong as a test likes.

It speaks what reading takes: ListObjectsV2, HEAD and ranged GET. Signatures are not looked at.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from ossfs_py.errors import ObjectMissingError
from ossfs_py.model import ListPage, ListQuery, ObjectInfo
from tests.support.fake_store import NS_PER_SECOND, FakeStore

BUCKET = "bucket"

Rewrite = Callable[[bytes], bytes]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, store: FakeStore, rewrite: Rewrite) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store = store
        self.rewrite = rewrite


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Standard error belongs to the test run."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        key = unquote(url.path).removeprefix("/").partition("/")[2]
        if key:
            self._object(key)
        else:
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            self._answer(200, self.server.rewrite(_xml(self._page(query))))

    def do_HEAD(self) -> None:
        self.do_GET()

    def _page(self, query: dict[str, str]) -> ListPage:
        token = query.get("continuation-token")
        return self.server.store.list_page(
            ListQuery(
                query.get("prefix", ""),
                delimiter=query.get("delimiter", ""),
                token=unquote(token) if token is not None else None,
                start_after=query.get("start-after"),
                max_keys=int(query.get("max-keys", "1000")),
            )
        )

    def _object(self, key: str) -> None:
        try:
            info = self.server.store.head(key)
        except ObjectMissingError:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        headers = {
            "ETag": f'"{info.etag}"',
            "Last-Modified": formatdate(info.mtime_ns / NS_PER_SECOND, usegmt=True),
        }
        for name, value in (info.metadata or {}).items():
            headers[f"x-amz-meta-{name}"] = value
        if self.command == "HEAD":
            self._answer(200, b"", {**headers, "Content-Length": str(info.size)})
            return
        first, _, last = self.headers.get("Range", "bytes=0-").partition("=")[2].partition("-")
        start, end = int(first), min(int(last or info.size), info.size - 1) + 1
        body = memoryview(bytearray(end - start))
        self.server.store.get_range_into(info.version, start, body)
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{info.size}"
        self._answer(206, bytes(body), headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def serving(store: FakeStore, rewrite: Rewrite = bytes) -> Iterator[str]:
    """The endpoint at which ``BUCKET`` is the store; ``rewrite`` changes the XML of each page."""
    with _Server(store, rewrite) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _xml(page: ListPage) -> bytes:
    token = page.next_token
    parts = [
        "<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>",
        "<EncodingType>url</EncodingType>",
        f"<IsTruncated>{'true' if token is not None else 'false'}</IsTruncated>",
        *map(_contents, page.objects),
        *(f"<CommonPrefixes><Prefix>{quote(p)}</Prefix></CommonPrefixes>" for p in page.prefixes),
    ]
    if token is not None:
        parts.append(f"<NextContinuationToken>{quote(token)}</NextContinuationToken>")
    return "".join([*parts, "</ListBucketResult>"]).encode()


def _contents(info: ObjectInfo) -> str:
    changed = datetime.fromtimestamp(info.mtime_ns / NS_PER_SECOND, UTC).isoformat()
    return (
        f"<Contents><Key>{quote(info.key)}</Key><LastModified>{changed}</LastModified>"
        f"<ETag>&quot;{info.etag}&quot;</ETag><Size>{info.size}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
    )

"""A small S3 server whose faults are chosen by name: what real servers ignore, mistake or refuse.

It keeps one bucket in memory and speaks path addressing; signatures are not looked at.
"""

import hashlib
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

from ossfs_py.store.base import ObjectStore
from tests.support.scripted_server import store_for

MODIFIED = "Sun, 06 Nov 1994 08:49:37 GMT"

CEPH = frozenset(
    {"quoted if-match never matches", "completion condition ignored", "copy pin ignored"}
)
"""Ceph RGW 16.2.15."""
JUICEFS = frozenset({"if-none-match ignored", "if-match ignored", "completion condition ignored"})
SWIFT = frozenset({"if-match refused", "creating is not atomic"})
B2 = frozenset({"checksums refused"})
R2 = frozenset({"parts of one size"})
RCLONE = frozenset(
    {"markers are files", "if-none-match ignored", "if-match ignored", "reads unpinned"}
)
MINIO_FRONT_END = frozenset({"server is MinIO"})
"""JuiceFS's gateway: it looks the ETag up, and opens the file afterwards."""
MINIO = MINIO_FRONT_END | {"names its node"}
LOCALSTACK = frozenset({"tag counts untold"})


@dataclass
class Bucket:
    """What the server holds and what it was asked."""

    quirks: frozenset[str] = frozenset()
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    """As the header says them."""
    replaced_while_read: dict[str, bytes] = field(default_factory=dict)
    """What takes the place of an object between the look for it and the sending of its bytes."""
    told_of_reads: dict[str, str] = field(default_factory=dict)
    """ETags that the answer to a GET tells, whatever it gives."""
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    completions_lost: int = 0
    """How many are carried out and answered by 503."""
    lock: Any = field(default_factory=threading.RLock)
    meeting: Any = field(default_factory=lambda: threading.Barrier(2))
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    def methods(self) -> list[str]:
        return [method for method, _, _ in self.requests]


def etag_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class _RefusedError(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    bucket: Bucket

    def log_message(self, *_: Any) -> None:
        """Standard error belongs to the test run."""

    def version_string(self) -> str:
        """For the header Server."""
        return "MinIO" if "server is MinIO" in self.bucket.quirks else super().version_string()

    def _handle(self) -> None:
        url = urlsplit(self.path)
        key = unquote(url.path).removeprefix("/").partition("/")[2]
        query = {n: v[0] for n, v in parse_qs(url.query, keep_blank_values=True).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", "0")))
        with self.bucket.lock:
            self.bucket.requests.append((self.command, self.path, headers))
            try:
                status, content, etag = self._answer(key, query, headers, body)
                count = "" if "tag counts untold" in self.bucket.quirks else self._tag_count(key)
            except _RefusedError as refused:
                error = _xml("Error", Code=refused.code, Message=refused.message)
                status, content, etag, count = refused.status, error, "", ""
        self.send_response(status)
        if etag:
            self.send_header("ETag", f'"{etag}"')
            self.send_header("Last-Modified", MODIFIED)
        if count and self.command in ("GET", "HEAD"):
            self.send_header("x-amz-tagging-count", count)
        for name, value in self.bucket.metadata.get(key, {}).items():
            self.send_header(f"x-amz-meta-{name}", value)
        if "names its node" in self.bucket.quirks:
            self.send_header("X-Amz-Id-2", "f00d")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def _answer(
        self, key: str, query: dict[str, str], headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes, str]:
        bucket, quirks = self.bucket, self.bucket.quirks
        if "checksums refused" in quirks and any("x-amz-checksum" in name for name in headers):
            raise _RefusedError(400, "InvalidArgument")
        if "tagging denied" in quirks and "x-amz-tagging" in headers:
            raise _RefusedError(403, "AccessDenied")
        if "no bucket" in quirks:
            raise _RefusedError(404, "NoSuchBucket")
        match self.command:
            case "PUT" if "x-amz-copy-source" in headers:
                return self._copy(key, query, headers)
            case "PUT" if "uploadId" in query:
                bucket.uploads[query["uploadId"]][int(query["partNumber"])] = body
                return 200, b"", etag_of(body)
            case "PUT":
                self._require(key, headers, quirks)
                if "creating is not atomic" in quirks and "if-none-match" in headers:
                    self._let_others_look()
                if "markers are files" in quirks:
                    key = key.removesuffix("/")
                bucket.objects[key] = body
                bucket.tags[key] = "" if "no tags" in quirks else headers.get("x-amz-tagging", "")
                return 200, b"", etag_of(body)
            case "POST" if "uploads" in query:
                number = f"u{next(bucket.numbers)}"
                bucket.uploads[number] = {}
                return 200, _xml("InitiateMultipartUploadResult", UploadId=number), ""
            case "POST":
                if "completion condition ignored" not in quirks:
                    self._require(key, headers, quirks)
                if query["uploadId"] not in bucket.uploads:
                    raise _RefusedError(404, "NoSuchUpload")
                self._require_sizes(bucket.uploads[query["uploadId"]], quirks)
                parts = bucket.uploads.pop(query["uploadId"])
                content = b"".join(parts[number] for number in sorted(parts))
                bucket.objects[key] = content
                if bucket.completions_lost and ".ossfs-py-probe-" not in key:
                    bucket.completions_lost -= 1
                    raise _RefusedError(503, "ServiceUnavailable")
                if "etags know no parts" in quirks:
                    return 200, _xml("CompleteMultipartUploadResult", ETag="0-1"), ""
                return 200, _xml("CompleteMultipartUploadResult", ETag=etag_of(content)), ""
            case "DELETE" if "uploadId" in query:
                if bucket.uploads.pop(query["uploadId"], None) is None:
                    raise _RefusedError(404, "NoSuchUpload")
                return 204, b"", ""
            case "DELETE":
                bucket.objects.pop(key, None)
                return 204, b"", ""
        if key not in bucket.objects:
            raise _RefusedError(404, "NoSuchKey")
        content = bucket.objects[key]
        if "tagging" in query:
            if "no tags" in quirks:
                raise _RefusedError(500, "InternalError")
            return 200, _tagging(bucket.tags.get(key, "")), ""
        if self.command == "GET":
            self._require_read(headers, etag_of(content), quirks)
            bucket.objects[key] = bucket.replaced_while_read.pop(key, content)
            return 200, bucket.objects[key], bucket.told_of_reads.get(key, etag_of(content))
        return 200, content, etag_of(content)

    def _tag_count(self, key: str) -> str:
        said = self.bucket.tags.get(key)
        return str(said.count("=")) if said else ""

    @staticmethod
    def _require_read(headers: dict[str, str], etag: str, quirks: frozenset[str]) -> None:
        if "reads unpinned" not in quirks and headers.get("if-match", f'"{etag}"') != f'"{etag}"':
            status = 400 if "wrong reads fail" in quirks else 412
            raise _RefusedError(
                status, "InvalidArgument" if status == 400 else "PreconditionFailed"
            )

    def _copy(
        self, key: str, query: dict[str, str], headers: dict[str, str]
    ) -> tuple[int, bytes, str]:
        bucket, quirks = self.bucket, self.bucket.quirks
        if "whole copies refused" in quirks and "uploadId" not in query:
            raise _RefusedError(501, "NotImplemented")
        if "part copies unknown" in quirks and "uploadId" in query:
            raise _RefusedError(501, "NotImplemented")
        content = bucket.objects[unquote(headers["x-amz-copy-source"]).partition("/")[2]]
        pin = headers.get("x-amz-copy-source-if-match")
        if pin is not None and "copy pin refused" in quirks:
            raise _RefusedError(412, "PreconditionFailed")
        if pin not in (None, f'"{etag_of(content)}"') and "copy pin ignored" not in quirks:
            raise _RefusedError(412, "PreconditionFailed")
        if "uploadId" not in query:
            bucket.objects[key] = content
            return 200, _xml("CopyObjectResult", ETag=etag_of(content)), ""
        first, _, last = headers.get("x-amz-copy-source-range", "").partition("=")[2].partition("-")
        piece = content[int(first or 0) : int(last or len(content)) + 1]
        bucket.uploads[query["uploadId"]][int(query["partNumber"])] = piece
        return 200, _xml("CopyPartResult", ETag=etag_of(piece)), ""

    def _let_others_look(self) -> None:
        """Between the look for the key and the write, if somebody comes."""
        self.bucket.lock.release()
        try:
            self.bucket.meeting.wait(0.3)
        except threading.BrokenBarrierError:
            self.bucket.meeting.reset()
        finally:
            self.bucket.lock.acquire()

    @staticmethod
    def _require_sizes(parts: dict[int, bytes], quirks: frozenset[str]) -> None:
        *before, last = [len(parts[number]) for number in sorted(parts)]
        if "parts of one size" in quirks and (
            len({*before}) > 1 or last > max(before, default=last)
        ):
            raise _RefusedError(
                400, "InvalidPart", "All non-trailing parts must have the same length."
            )

    def _require(self, key: str, headers: dict[str, str], quirks: frozenset[str]) -> None:
        stored = self.bucket.objects.get(key)
        if "if-none-match" in headers and "if-none-match ignored" not in quirks:
            if "if-none-match refused" in quirks:
                raise _RefusedError(501, "NotImplemented")
            if "if-none-match always fails" in quirks or stored is not None:
                raise _RefusedError(412, "PreconditionFailed")
        if "x-oss-forbid-overwrite" in headers and "speaks oss" in quirks and stored is not None:
            raise _RefusedError(409, "FileAlreadyExists")
        wanted = headers.get("if-match")
        if wanted is None or "if-match ignored" in quirks:
            return
        if "if-match refused" in quirks:
            raise _RefusedError(501, "NotImplemented")
        etag = "" if stored is None else etag_of(stored)
        spelled = etag if "quoted if-match never matches" in quirks else f'"{etag}"'
        if wanted != spelled:
            raise _RefusedError(412, "PreconditionFailed")


def _tagging(said: str) -> bytes:
    listed = "".join(
        f"<Tag><Key>{key}</Key><Value>{value}</Value></Tag>" for key, value in parse_qsl(said)
    )
    return f"<Tagging><TagSet>{listed}</TagSet></Tagging>".encode()


def _xml(root: str, **fields: str) -> bytes:
    inside = "".join(f"<{name}>{text}</{name}>" for name, text in fields.items())
    return f"<{root}>{inside}</{root}>".encode()


@contextmanager
def quirky(quirks: frozenset[str] | set[str] = frozenset()) -> Iterator[tuple[str, Bucket]]:
    """The URL of a server with these faults, and what it holds."""
    bucket = Bucket(frozenset(quirks))
    handler = type("_BucketHandler", (_Handler,), {"bucket": bucket})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", bucket
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def opened(url: str, **options: object) -> Iterator[ObjectStore]:
    """A store over the server, closed at the end."""
    store = store_for(url, stall_timeout_seconds=5.0, **options)
    try:
        yield store
    finally:
        store.close()


def verdicts(store: ObjectStore) -> dict[str, str]:
    """What is found out of each feature, by its name."""
    return {one.name: one.verdict for one in store.capabilities().features}

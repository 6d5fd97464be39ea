"""A bucket store on local disk, shaped like a cloud, for reading and writing: "make bench" uses it.

``python -m tests.support.cloud_store --root DIR [--port 9000] [--ttfb-ms 25] [--mbps 90]
[--error-rate 0] [--reset-rate 0] [--stall-rate 0]`` serves S3 with sendfile, so that
it takes little CPU beside what is measured. It checks no signature and keeps no more than a
benchmark needs: an instrument, not a store to rely on; what is right is tested on real servers.

Rates are shares: of requests that are answered 503 SlowDown, of GETs that are cut off, or stop for
20 s, half-way. ``GET /__stats`` answers JSON: requests by operation (``ops``), ``bytes_out``,
``bytes_in``, requests under way (``running``) and the most of them at once (``peak``); ``POST
/__stats`` begins anew. ``POST /__shape?ttfb_ms=..&mbps=..`` changes the shape. ``POST /__reload``
looks at the files anew: each is an object, its name the key, percent-encoded without exceptions.
"""

import argparse
import base64
import bisect
import contextlib
import email.utils
import hashlib
import json
import os
import random
import re
import shutil
import socket
import socketserver
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

Headers = Sequence[tuple[str, str]]

_CHUNK_BYTES = 1024**2
_LEAST_PAUSE_SECONDS = 0.002
_STALL_SECONDS = 20.0
_PAGE_KEYS = 1000
_LEAST_PART_BYTES = 5 * 1024**2
_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_OWN_HOST = ".localhost"
"""``BUCKET.localhost`` is the bucket's own host, which clients of OSS insist on."""
_HIDDEN = ".store"
"""Directory of parts, temporary files and what is kept of headers."""


@dataclass
class Shape:
    """What answers wait for (``ttfb_ms``), 10^6 bytes a second of each connection (0: no limit),
    and the shares of requests that fail."""

    ttfb_ms: float = 0.0
    mbps: float = 0.0
    error_rate: float = 0.0
    reset_rate: float = 0.0
    stall_rate: float = 0.0


@dataclass
class Counts:
    """What was served; guarded by ``lock``."""

    ops: Counter[str] = field(default_factory=Counter)
    bytes_out: int = 0
    bytes_in: int = 0
    running: int = 0
    peak: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self) -> None:
        """Begin anew."""
        with self.lock:
            self.ops.clear()
            self.bytes_out = self.bytes_in = 0
            self.peak = self.running

    def told(self) -> bytes:
        """As JSON."""
        with self.lock:
            told = {field.name: getattr(self, field.name) for field in fields(self)[:-1]}
            return json.dumps(told).encode()

    @contextlib.contextmanager
    def running_one(self, operation: str) -> Iterator[None]:
        """A request for as long as the block lasts."""
        with self.lock:
            self.ops[operation] += 1
            self.running += 1
            self.peak = max(self.peak, self.running)
        try:
            yield
        finally:
            with self.lock:
                self.running -= 1


@dataclass(frozen=True)
class Kept:
    """What is known of an object beside its bytes."""

    etag: str
    headers: dict[str, str]


@dataclass
class Upload:
    """A multipart upload: its key, the headers it began with, and its parts with their digests."""

    key: str
    headers: dict[str, str]
    parts: dict[int, tuple[Path, str]] = field(default_factory=dict)


class Shelf:
    """The objects of all buckets, on disk. Safe for concurrent use."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uploads: dict[str, Upload] = {}
        self.lock = threading.Lock()
        self._keys: dict[str, list[str]] = {}
        self._described: dict[tuple[str, str], tuple[str, tuple[int, int], str]] = {}
        (root / _HIDDEN).mkdir(exist_ok=True)

    def path(self, bucket: str, key: str) -> Path:
        """Where an object's bytes are."""
        return self.root / bucket / quote(key, safe="", errors="surrogateescape")

    def temporary(self) -> Path:
        """A file of nobody yet."""
        return self.root / _HIDDEN / uuid.uuid4().hex

    def keys(self, bucket: str) -> list[str]:
        """The keys of a bucket, in order; not to be changed.

        Raises:
            FileNotFoundError: there is no such bucket.
        """
        with self.lock:
            if bucket not in self._keys:
                self._keys[bucket] = sorted(
                    unquote(path.name, errors="surrogateescape")
                    for path in (self.root / bucket).iterdir()
                )
            return self._keys[bucket]

    def reload(self) -> None:
        """Look at the directories anew."""
        with self.lock:
            self._keys.clear()

    def kept(self, bucket: str, key: str) -> Kept:
        """What was kept of an object, or made up for a file that was put there."""
        try:
            return Kept(**json.loads(self._about(bucket, key).read_text()))
        except FileNotFoundError:
            status = self.path(bucket, key).stat()
            # Without a dash: what follows one would be a number of parts.
            return Kept(f"{status.st_size:x}x{status.st_mtime_ns:x}", {})

    def described(self, bucket: str, key: str) -> str:
        """What a listing tells of an object beside its key.

        Remembered for a file of one size and time: a page took 41 ms of CPU without, and a listing
        of 100 of them was as slow as this process. It may be the answer of a version that is just
        being replaced, as anywhere.
        """
        known = self._described.get((bucket, key))
        path = str(self.path(bucket, key)) if known is None else known[0]
        status = os.stat(path)  # noqa: PTH116 - half of a page's time was making paths
        stamp = (status.st_size, status.st_mtime_ns)
        if known is None or known[1] != stamp:
            text = (
                f"<LastModified>{_moment(status.st_mtime)}</LastModified>"
                f'<ETag>"{self.kept(bucket, key).etag}"</ETag><Size>{status.st_size}</Size>'
                "<StorageClass>STANDARD</StorageClass>"
            )
            known = self._described[bucket, key] = (path, stamp, text)
        return known[2]

    def put(self, bucket: str, key: str, made: Path, kept: Kept) -> None:
        """Let ``made`` be the object. With the lock held."""
        self._about(bucket, key).write_text(json.dumps(vars(kept)))
        made.rename(self.path(bucket, key))
        if (keys := self._keys.get(bucket)) is not None:
            place = bisect.bisect_left(keys, key)
            if keys[place : place + 1] != [key]:
                keys.insert(place, key)

    def remove(self, bucket: str, key: str) -> None:
        """Forget an object, or do nothing."""
        with self.lock:
            self.path(bucket, key).unlink(missing_ok=True)
            self._about(bucket, key).unlink(missing_ok=True)
            if (keys := self._keys.get(bucket)) is not None:
                place = bisect.bisect_left(keys, key)
                if keys[place : place + 1] == [key]:
                    del keys[place]

    def _about(self, bucket: str, key: str) -> Path:
        digest = hashlib.sha256(f"{bucket}/{key}".encode("utf-8", "surrogateescape"))
        return self.root / _HIDDEN / digest.hexdigest()


class CloudServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Serves the buckets below ``root`` on a port of this machine (0: a free one)."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 512

    def __init__(self, root: Path, shape: Shape, port: int = 0) -> None:
        self.shelf = Shelf(root)
        self.shape = shape
        self.counts = Counts()
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Print what went wrong, unless the client has gone, as it may."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: CloudServer

    def log_message(
        self,
        format: str,  # noqa: A002 - the parent's name
        *args: object,
    ) -> None:
        """Nothing: a line for each request would cost more than the request."""

    # -- which request it is -------------------------------------------------------------------

    def _dispatch(self) -> None:
        url = urlsplit(self.path)
        self.asked = dict(parse_qsl(url.query, keep_blank_values=True))
        whole = unquote(url.path, errors="surrogateescape").lstrip("/")
        host = self.headers.get("Host", "").partition(":")[0]
        if host.endswith(_OWN_HOST):
            self.bucket, self.key = host.removesuffix(_OWN_HOST), whole
        else:
            self.bucket, _, self.key = whole.partition("/")
        if self.bucket.startswith("__"):
            self._control(self.bucket)
            return
        shape, counts = self.server.shape, self.server.counts
        what = f"{self.command.lower()}_{'object' if self.key else 'bucket'}"
        handler: Callable[[], None] | None = getattr(self, f"_{what}", None)
        with counts.running_one("list" if what == "get_bucket" else what):
            time.sleep(shape.ttfb_ms / 1000)
            try:
                if handler is None or random.random() < shape.error_rate:
                    self.close_connection = True  # its body was not read
                    self._refuse(503 if handler else 405, "SlowDown")
                    return
                handler()
            except FileNotFoundError:
                self.close_connection = self.command in ("PUT", "POST")
                self._refuse(404, "NoSuchKey" if self.key else "NoSuchBucket")
            except ConnectionError:
                self.close_connection = True
        self.wfile.flush()

    do_GET = do_HEAD = do_PUT = _dispatch  # noqa: N815 - the parent's names
    do_POST = do_DELETE = _dispatch  # noqa: N815

    def _control(self, name: str) -> None:
        if name == "__stats" and self.command == "POST":
            self.server.counts.reset()
        elif name == "__shape":
            for each, value in self.asked.items():
                setattr(self.server.shape, each, float(value))
        elif name == "__reload":
            self.server.shelf.reload()
        self._answer(200, self.server.counts.told())

    # -- buckets -------------------------------------------------------------------------------

    def _head_bucket(self) -> None:
        self.server.shelf.keys(self.bucket)
        self._answer(200)

    def _put_bucket(self) -> None:
        self._body()
        (self.server.shelf.root / self.bucket).mkdir(exist_ok=True)
        self._answer(200)

    def _get_bucket(self) -> None:
        if not self.bucket:
            names = sorted(path.name for path in self.server.shelf.root.iterdir())
            told = "".join(f"<Bucket><Name>{n}</Name></Bucket>" for n in names if n != _HIDDEN)
            self._xml("ListAllMyBucketsResult", f"<Buckets>{told}</Buckets>")
        elif "location" in self.asked:
            self._xml("LocationConstraint", "")
        elif "versioning" in self.asked:
            self._xml("VersioningConfiguration", "")
        elif "uploads" in self.asked:
            with self.server.shelf.lock:
                uploads = list(self.server.shelf.uploads.items())
            told = "".join(
                f"<Upload><Key>{escape(one.key)}</Key><UploadId>{ident}</UploadId></Upload>"
                for ident, one in uploads
            )
            self._xml("ListMultipartUploadsResult", f"<IsTruncated>false</IsTruncated>{told}")
        else:
            self._list()

    def _list(self) -> None:
        asked, is_second = self.asked, self.asked.get("list-type") == "2"
        after = asked.get("start-after" if is_second else "marker", "")
        if token := asked.get("continuation-token"):
            after = base64.urlsafe_b64decode(token).decode("utf-8", "surrogateescape")
        limit = min(int(asked.get("max-keys") or _PAGE_KEYS), _PAGE_KEYS)
        names, more = self._page(after, limit)
        encoded = asked.get("encoding-type") == "url"

        def shown(text: str) -> str:
            return quote(text, errors="surrogateescape") if encoded else escape(text)

        told = [
            f"<Name>{self.bucket}</Name><Prefix>{shown(asked.get('prefix', ''))}</Prefix>",
            f"<MaxKeys>{limit}</MaxKeys><IsTruncated>{str(more).lower()}</IsTruncated>",
            "<EncodingType>url</EncodingType>" if encoded else "",
            f"<KeyCount>{len(names)}</KeyCount>" if is_second else "",
        ]
        if more:
            last = names[-1][0]
            token = base64.urlsafe_b64encode(last.encode("utf-8", "surrogateescape")).decode()
            told.append(
                f"<NextContinuationToken>{token}</NextContinuationToken>"
                if is_second
                else f"<NextMarker>{shown(last)}</NextMarker>"
            )
        for name, is_key in names:
            if not is_key:
                told.append(f"<CommonPrefixes><Prefix>{shown(name)}</Prefix></CommonPrefixes>")
                continue
            with contextlib.suppress(FileNotFoundError):
                described = self.server.shelf.described(self.bucket, name)
                told.append(f"<Contents><Key>{shown(name)}</Key>{described}</Contents>")
        self._xml("ListBucketResult", "".join(told))

    def _page(self, after: str, limit: int) -> tuple[list[tuple[str, bool]], bool]:
        """Names behind ``after`` with whether each is a key, and whether there are more."""
        prefix, delimiter = self.asked.get("prefix", ""), self.asked.get("delimiter", "")
        keys = self.server.shelf.keys(self.bucket)
        found: list[tuple[str, bool]] = []
        place = bisect.bisect_left(keys, max(prefix, after))
        while place < len(keys) and keys[place].startswith(prefix):
            key = keys[place]
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            name = key[: cut + len(delimiter)] if cut >= 0 else key
            if not after or name > after:
                if len(found) >= limit:
                    return found, limit > 0
                found.append((name, cut < 0))
            # A common prefix ends behind all its keys.
            place = bisect.bisect_left(keys, _behind(name)) if cut >= 0 else place + 1
        return found, False

    def _post_bucket(self) -> None:
        body = self._body().decode("utf-8", "surrogateescape")
        keys = [unescape(key) for key in re.findall(r"<Key>(.*?)</Key>", body, re.DOTALL)]
        for key in keys:
            self.server.shelf.remove(self.bucket, key)
        told = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        self._xml("DeleteResult", told)

    # -- objects -------------------------------------------------------------------------------

    def _head_object(self) -> None:
        status = self.server.shelf.path(self.bucket, self.key).stat()
        self._begin(200, self._about(status), status.st_size)

    def _get_object(self) -> None:
        if "uploadId" in self.asked:
            parts = self.server.shelf.uploads[self.asked["uploadId"]].parts
            told = "".join(
                f'<Part><PartNumber>{number}</PartNumber><ETag>"{etag}"</ETag>'
                f"<Size>{path.stat().st_size}</Size></Part>"
                for number, (path, etag) in sorted(parts.items())
            )
            self._xml("ListPartsResult", f"<IsTruncated>false</IsTruncated>{told}")
            return
        with self.server.shelf.path(self.bucket, self.key).open("rb") as file:
            status = os.fstat(file.fileno())
            about = self._about(status)
            etag = about[0][1]
            if self.headers.get("If-Match", etag) not in (etag, "*"):
                self._refuse(412, "PreconditionFailed")
                return
            size, start, end, code = status.st_size, 0, status.st_size, 200
            if (asked := _RANGE.match(self.headers.get("Range", ""))) and asked[0] != "bytes=-":
                start = int(asked[1]) if asked[1] else max(0, size - int(asked[2]))
                end = min(size, int(asked[2]) + 1) if asked[1] and asked[2] else size
                code = 206
                if start >= size:
                    self._refuse(416, "InvalidRange")
                    return
                about.append(("Content-Range", f"bytes {start}-{end - 1}/{size}"))
            self._begin(code, about, end - start)
            self.wfile.flush()
            self._send(file, start, end)

    def _send(self, file: BinaryIO, start: int, end: int) -> None:
        counts, shape = self.server.counts, self.server.shape
        half = (start + end) // 2
        is_cut, stalls = (random.random() < rate for rate in (shape.reset_rate, shape.stall_rate))
        position, began = start, time.monotonic()
        while position < end:
            if is_cut and position >= half:
                self.connection.shutdown(socket.SHUT_RDWR)
                raise ConnectionError("cut off on purpose")
            if stalls and position >= half:
                time.sleep(_STALL_SECONDS)
                stalls = False
            most = min((half if position < half else end) - position, _CHUNK_BYTES)
            sent = os.sendfile(self.connection.fileno(), file.fileno(), position, most)
            if not sent:
                raise ConnectionError("the file has become shorter")
            position += sent
            with counts.lock:
                counts.bytes_out += sent
            _paced(position - start, shape.mbps, began)

    def _put_object(self) -> None:
        if self._header("copy-source"):
            self._copy()
            return
        made = self.server.shelf.temporary()
        with made.open("wb") as out:
            etag = self._received(out)
        wanted = self.headers.get("Content-MD5")
        if wanted and base64.b64decode(wanted).hex() != etag:
            made.unlink()
            self._refuse(400, "BadDigest")
        elif "uploadId" in self.asked:
            self._add_part(made, etag)
        elif self._stored(made, Kept(etag, _kept_headers(dict(self.headers)))):
            self._answer(200, headers=[("ETag", f'"{etag}"')])

    def _copy(self) -> None:
        self._body()
        source = unquote(self._header("copy-source"), errors="surrogateescape")
        bucket, _, key = source.lstrip("/").partition("?")[0].partition("/")
        shelf, made = self.server.shelf, self.server.shelf.temporary()
        kept, when = shelf.kept(bucket, key), _moment(time.time())
        if "uploadId" not in self.asked:
            shutil.copyfile(shelf.path(bucket, key), made)
            if self._header("metadata-directive").upper() == "REPLACE":
                kept = Kept(kept.etag, _kept_headers(dict(self.headers)))
            if not self._stored(made, kept):
                return
            tag, etag = "CopyObjectResult", kept.etag
        else:
            asked = _RANGE.match(self._header("copy-source-range"))
            with shelf.path(bucket, key).open("rb") as file:
                file.seek(int(asked[1]) if asked else 0)
                body = file.read(int(asked[2]) - int(asked[1]) + 1 if asked else -1)
            made.write_bytes(body)
            tag, etag = "CopyPartResult", hashlib.md5(body, usedforsecurity=False).hexdigest()
            shelf.uploads[self.asked["uploadId"]].parts[int(self.asked["partNumber"])] = made, etag
        self._xml(tag, f'<LastModified>{when}</LastModified><ETag>"{etag}"</ETag>')

    def _add_part(self, made: Path, etag: str) -> None:
        upload = self.server.shelf.uploads.get(self.asked["uploadId"])
        if upload is None:
            made.unlink()
            self._refuse(404, "NoSuchUpload")
            return
        upload.parts[int(self.asked["partNumber"])] = made, etag
        self._answer(200, headers=[("ETag", f'"{etag}"')])

    def _post_object(self) -> None:
        shelf, body = self.server.shelf, self._body().decode()
        if "uploads" in self.asked:
            ident = uuid.uuid4().hex
            shelf.uploads[ident] = Upload(self.key, _kept_headers(dict(self.headers)))
            told = f"<Key>{escape(self.key)}</Key><UploadId>{ident}</UploadId>"
            self._xml("InitiateMultipartUploadResult", f"<Bucket>{self.bucket}</Bucket>{told}")
            return
        upload = shelf.uploads.get(self.asked.get("uploadId", ""))
        numbers = [int(number) for number in re.findall(r"<PartNumber>(\d+)</PartNumber>", body)]
        if upload is None:
            self._refuse(404, "NoSuchUpload")
        elif not numbers or not set(numbers) <= set(upload.parts):
            self._refuse(400, "InvalidPart")
        elif any(upload.parts[n][0].stat().st_size < _LEAST_PART_BYTES for n in numbers[:-1]):
            self._refuse(400, "EntityTooSmall")
        else:
            self._complete(upload, numbers)

    def _complete(self, upload: Upload, numbers: list[int]) -> None:
        made, digest = self.server.shelf.temporary(), hashlib.md5(usedforsecurity=False)
        with made.open("wb") as out:
            for number in numbers:
                path, etag = upload.parts[number]
                with path.open("rb") as part:
                    shutil.copyfileobj(part, out, _CHUNK_BYTES)
                digest.update(bytes.fromhex(etag))
        etag = f"{digest.hexdigest()}-{len(numbers)}"
        if self._stored(made, Kept(etag, upload.headers)):
            self._drop_upload()
            told = f'<Key>{escape(self.key)}</Key><ETag>"{etag}"</ETag>'
            self._xml("CompleteMultipartUploadResult", f"<Bucket>{self.bucket}</Bucket>{told}")

    def _drop_upload(self) -> bool:
        upload = self.server.shelf.uploads.pop(self.asked["uploadId"], None)
        for path, _ in upload.parts.values() if upload else ():
            path.unlink(missing_ok=True)
        return upload is not None

    def _delete_object(self) -> None:
        if "uploadId" in self.asked and not self._drop_upload():
            self._refuse(404, "NoSuchUpload")
            return
        if "uploadId" not in self.asked:
            self.server.shelf.remove(self.bucket, self.key)
        self._answer(204)

    def _stored(self, made: Path, kept: Kept) -> bool:
        """Store it if the request's conditions hold; else refuse, and False."""
        shelf = self.server.shelf
        with shelf.lock:
            try:
                there = f'"{shelf.kept(self.bucket, self.key).etag}"'
            except FileNotFoundError:
                there = None
            is_new = self.headers.get("If-None-Match") != "*" or there is None
            wanted = self.headers.get("If-Match")
            if is_new and wanted in (None, there):
                shelf.put(self.bucket, self.key, made, kept)
                return True
        made.unlink()
        self._refuse(*((404, "NoSuchKey") if is_new and not there else (412, "PreconditionFailed")))
        return False

    # -- bodies and answers --------------------------------------------------------------------

    def _header(self, name: str) -> str:
        """A header of S3's or of OSS's name; empty without it."""
        return str(self.headers.get(f"x-amz-{name}") or self.headers.get(f"x-oss-{name}") or "")

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _received(self, out: BinaryIO) -> str:
        """Write the request's body; its MD5."""
        digest, counts = hashlib.md5(usedforsecurity=False), self.server.counts
        received, began = 0, time.monotonic()
        for piece in self._pieces():
            out.write(piece)
            digest.update(piece)
            received += len(piece)
            with counts.lock:
                counts.bytes_in += len(piece)
            _paced(received, self.server.shape.mbps, began)
        return digest.hexdigest()

    def _pieces(self) -> Iterator[bytes]:
        if self.headers.get("x-amz-content-sha256", "").startswith("STREAMING"):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass  # trailers
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self.rfile.read(min(left, _CHUNK_BYTES))
            if not piece:
                raise ConnectionError("the body ended early")
            left -= len(piece)
            yield piece

    def _about(self, status: os.stat_result) -> list[tuple[str, str]]:
        kept = self.server.shelf.kept(self.bucket, self.key)
        changed = email.utils.formatdate(status.st_mtime, usegmt=True)
        return [("ETag", f'"{kept.etag}"'), ("Last-Modified", changed), *kept.headers.items()]

    def _begin(self, code: int, headers: Headers, size: int) -> None:
        self.send_response(code)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def _answer(self, code: int, body: bytes = b"", headers: Headers = ()) -> None:
        self._begin(code, [*headers, ("Content-Type", "application/xml")], len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, code: int, name: str) -> None:
        self._answer(code, f"<Error><Code>{name}</Code><Message>{name}</Message></Error>".encode())

    def _xml(self, tag: str, inner: str) -> None:
        text = f'<?xml version="1.0" encoding="UTF-8"?><{tag} xmlns="{_NAMESPACE}">{inner}</{tag}>'
        self._answer(200, text.encode("utf-8", "surrogateescape"))


def _paced(done: int, mbps: float, began: float) -> None:
    """Sleep until ``done`` bytes may have passed."""
    if mbps:
        early_seconds = done / (mbps * 1e6) - (time.monotonic() - began)
        if early_seconds > _LEAST_PAUSE_SECONDS:
            time.sleep(early_seconds)


def _behind(prefix: str) -> str:
    """The least text behind all that begin with ``prefix``."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _kept_headers(headers: dict[str, str]) -> dict[str, str]:
    lower = {name.lower(): value for name, value in headers.items()}
    wanted = ("content-type", "cache-control")
    meta = ("x-amz-meta-", "x-oss-meta-")
    return {n: v for n, v in lower.items() if n.startswith(meta) or n in wanted}


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(seconds))


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.cloud_store")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--port", type=int, default=9000)
    for each in fields(Shape):
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=float, default=0.0)
    options = parser.parse_args()
    shape = Shape(**{each.name: getattr(options, each.name) for each in fields(Shape)})
    with CloudServer(options.root.absolute(), shape, options.port) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()

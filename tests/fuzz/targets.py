"""What outsiders can send: for each kind of bytes, what must hold whatever they are.

A target takes any bytes and returns, or raises an exception that is a bug. ``SEEDS`` are
well-formed beginnings for mutation, and inputs that were bugs once.
"""

import functools
import json
import socket
import ssl
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from ossfs_py.config.sources import BadOptionsError, CommandLine, load
from ossfs_py.control.server import Arguments, Progress, _ControlServer
from ossfs_py.errors import EnvironmentProblemError, RangeTooLargeError
from ossfs_py.foresight.belief import Belief
from ossfs_py.foresight.formats import table_of
from ossfs_py.foresight.layout import (
    MAX_TABLE_BYTES,
    Index,
    Layout,
    TableError,
    checked_layout,
)
from ossfs_py.model import ByteRange, ObjectVersion
from ossfs_py.namespace import metadata
from ossfs_py.store.auth.passwordfile import read_password_file
from ossfs_py.store.http.connection import Connection
from ossfs_py.store.http.dialing import open_tunnel
from ossfs_py.store.http.faults import NoAnswerError
from ossfs_py.store.http.http1 import Response
from ossfs_py.store.http.tls import TlsStream
from ossfs_py.store.s3.documents import completed_etag, copied, upload_id
from ossfs_py.store.s3.error_map import AnswerError, judge, parse_error
from ossfs_py.store.s3.heads import parse_head
from ossfs_py.store.s3.history import parse_history
from ossfs_py.store.s3.list_xml import parse_list_page
from ossfs_py.store.s3.wire import Answer
from ossfs_py.writing.records import DirtyRecord, RecordDamagedError
from tests.fuzz import neighbours
from tests.fuzz.neighbours import memory_directory
from tests.support.file_formats import archive, archive64, gguf, onnx, parquet, tar

Target = Callable[[bytes], None]

_BODY_BYTES = 64 * 1024
_FILE_BYTES = 1 << 30


def history(data: bytes) -> None:
    """A listing of versions is understood or refused; of each key the newest comes first."""
    try:
        page = parse_history(data)
    except NoAnswerError:
        return
    for entry in page.entries:
        assert entry.info is None or entry.info.version.version_id == entry.version_id
    assert [entry.key for entry in page.entries] == sorted(entry.key for entry in page.entries)


def listing(data: bytes) -> None:
    """A LIST answer is understood or refused, and a comment at its end changes nothing of that."""
    try:
        page = parse_list_page(data)
    except NoAnswerError:
        return
    assert parse_list_page(data + b"<!-- -->") == page


def object_metadata(data: bytes) -> None:
    """Whatever other tools wrote, what is understood of it survives being written again."""
    fields = _headers(data)
    decoded = metadata.decode(fields)
    for name in decoded.xattrs:
        name.encode()  # listxattr answers bytes
    try:
        written = metadata.encode(
            mode=decoded.mode or 0o100644,
            uid=decoded.uid or 0,
            gid=decoded.gid or 0,
            foreign=fields,
            mtime_ns=decoded.mtime_ns,
            atime_ns=decoded.atime_ns,
            ctime_ns=decoded.ctime_ns,
            symlink_target=decoded.symlink_target,
            link_in_body=decoded.link_in_body,
            xattrs=decoded.xattrs,
        )
    except RangeTooLargeError:
        return
    again = metadata.decode(written)
    assert again.xattrs == decoded.xattrs
    assert again.symlink_target == decoded.symlink_target
    assert (again.mtime_ns, again.ctime_ns) == (decoded.mtime_ns, decoded.ctime_ns)


def head_answer(data: bytes) -> None:
    """The headers of a HEAD answer describe an object or are refused."""
    try:
        info = parse_head("key", _headers(data, "latin-1"))
    except NoAnswerError:
        return
    assert info.size >= 0


def http_answer(data: bytes) -> None:
    """Bytes on a connection are an answer or none; nothing is read for ever or without bound."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        theirs.setblocking(False)
        try:
            theirs.sendall(data[: _BODY_BYTES * 2])
        except BlockingIOError:
            return  # more than a socket holds: not here
        theirs.close()
        try:
            response = Response(Connection(ours, 1.0), "GET")
            body = response.read_all(_BODY_BYTES)
        except NoAnswerError:
            return
        assert len(body) <= 2 * _BODY_BYTES
        parse_error(response.status, response.headers, body)


def tunnel_answer(data: bytes) -> None:
    """What a proxy answers to CONNECT opens a tunnel or does not; what follows belongs to TLS."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data[:_BODY_BYTES])
        theirs.shutdown(socket.SHUT_WR)
        ours.settimeout(1.0)
        try:
            open_tunnel(ours, "store.test:443", {}, "the proxy", time.monotonic() + 5.0)
        except NoAnswerError as fault:
            assert "\n" not in str(fault)
            return
        head, _, rest = data[:_BODY_BYTES].partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.")
        assert ours.recv(_BODY_BYTES * 2) == rest


def greeting(data: bytes) -> None:
    """What a proxy and then a TLS peer say ends in an error that a mount can tell, or in TLS."""
    context = _tls_context()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data[:_BODY_BYTES])
        theirs.shutdown(socket.SHUT_WR)
        ours.settimeout(1.0)
        ends_at = time.monotonic() + 5.0
        try:
            if data[:1] == b"H":
                open_tunnel(ours, "store.test:443", {}, "the proxy", ends_at)
            TlsStream(ours, context, "store.test", ends_at)
        except (NoAnswerError, OSError):
            return
        raise AssertionError("nobody has shown a certificate")


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """Trusts nobody; to read the system's certificates takes longer than all the rest."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def error_answer(data: bytes) -> None:
    """Every error answer has a meaning."""
    head, _, body = data.partition(b"\n\n")
    error = parse_error(200 + sum(data) % 400, _headers(head), body)
    judge(error)
    assert 0 <= error.retry_after_seconds < float("inf")
    str(error)


def multipart_answer(data: bytes) -> None:
    """An answer about an upload or a copy says what it is about, is an error, or is refused."""
    answer = Answer(200, {}, data)
    for read in (upload_id, completed_etag, copied):
        try:
            read(answer)
        except NoAnswerError:
            continue
        except AnswerError as error:
            judge(error)


def configuration(data: bytes) -> None:
    """Options, environment and file make settings, or sentences that say what is wrong."""
    toml, _, rest = data.partition(b"\0")
    options, _, variable = rest.partition(b"\0")
    with tempfile.NamedTemporaryFile(dir=memory_directory(), suffix=".toml") as file:
        file.write(toml)
        file.flush()
        line = CommandLine(
            {"bucket": "bucket", "mountpoint": "/mnt"},
            (options.decode("utf-8", "surrogateescape"),),
            config_file=file.name,
        )
        name, _, value = variable.decode("utf-8", "surrogateescape").partition("=")
        environ = {f"OSSFS_PY_{name.upper()}": value, "HOME": "/nonexistent"}
        try:
            load(line, environ)
        except BadOptionsError as exc:
            assert exc.problems


def password_file(data: bytes) -> None:
    """A password file gives a key or one sentence, which holds nothing of the file."""
    with tempfile.NamedTemporaryFile(dir=memory_directory()) as file:
        file.write(data)
        file.flush()
        try:
            key = read_password_file(Path(file.name), "bucket")
        except EnvironmentProblemError as exc:
            told = str(exc).replace(file.name, "")
            for word in data.replace(b":", b" ").split():
                if len(word) > 8:
                    assert word.decode("utf-8", "replace") not in told
        else:
            assert len(key.secret_key) < 8 or key.secret_key not in repr(key)


def table(suffix: str) -> Target:
    """A file's table of contents gives parts in order, apart and within the file, or is refused."""

    def target(data: bytes) -> None:
        contents = table_of("file" + suffix, len(data))
        steps = 0
        while contents is not None and contents.wants is not None:
            wants = contents.wants
            assert 0 <= wants.start < wants.end <= len(data)
            assert wants.size <= MAX_TABLE_BYTES
            steps += 1
            assert steps < 100
            try:
                found = contents.take(data[wants.start : wants.end])
                if isinstance(found, Index):
                    spans = [span for spans in found.parts.values() for span in spans]
                    found = checked_layout(spans, 0, len(data))
            except TableError:
                return
            position = 0
            for start, end in zip(found.starts, found.ends, strict=True) if found else ():
                assert position <= start < end <= len(data)
                position = end

    return target


def accesses(data: bytes) -> None:
    """Whatever is read in whatever order, what is believed lies in the file, and ends."""
    size = 1 << 30
    starts = sorted({int.from_bytes(data[i : i + 3], "big") << 6 for i in range(1, 40, 3)})
    layout = Layout(tuple(starts), (*starts[1:], size))
    belief = Belief(size, 8 << 20, (size if data[:1] > b"\x7f" else 64 << 20))
    belief.know(layout)
    for i in range(40, len(data) - 4, 4):
        start = int.from_bytes(data[i : i + 3], "big") << 6 & ~4095
        end = min(start + (data[i + 3] + 1 << 12), size)
        belief.observe(start, end)
        known_end = belief.known_end(start, end)
        assert known_end is None or 0 <= known_end <= size
        for _ in range(20):
            wanted = belief.course.next()
            if wanted is None:
                break
            assert 0 <= wanted.start < wanted.end <= size
            assert wanted.size <= 8 << 20
            belief.course.took(ByteRange(wanted.start, wanted.end))


def control_request(data: bytes) -> None:
    """Every request is answered with one result or one sentence, in JSON."""

    async def everything(arguments: Arguments, _: Progress) -> Mapping[str, Any]:
        arguments.texts("texts")
        return {
            "text": arguments.text("text", ""),
            "flag": arguments.flag("flag"),
            "number": arguments.number("number", 1),
        }

    async def ask() -> bytes:
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            ours.send(data[:_BODY_BYTES])
            ours.shutdown(socket.SHUT_WR)
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
            await _ControlServer({"do": everything}).serve(stream)
            return ours.recv(1 << 20)

    answer = trio.run(ask)
    if answer:  # none where the client is gone before its command ends
        told = json.loads(answer)
        assert set(told) <= {"result", "error"}
        assert "\n" not in told.get("error", "")
        assert told.get("error") != "the daemon failed at this; its log says why"


def unsaved_record(data: bytes) -> None:
    """A record in the state directory is read or refused."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    try:
        record = DirtyRecord.from_json(text)
    except RecordDamagedError:
        return
    assert DirtyRecord.from_json(record.to_json()) == record


def _headers(data: bytes, encoding: str = "utf-8") -> dict[str, str]:
    """Lines ``name: value`` as header fields, with the characters that headers can have."""
    pairs = (line.partition(b":") for line in data.splitlines())
    return {
        name.decode("latin-1").strip().lower(): value.decode(encoding, "replace").strip()
        for name, _, value in pairs
    }


TARGETS: Mapping[str, Target] = (
    {
        target.__name__: target
        for target in (
            history,
            listing,
            object_metadata,
            head_answer,
            http_answer,
            tunnel_answer,
            greeting,
            error_answer,
            multipart_answer,
            configuration,
            password_file,
            control_request,
            unsaved_record,
            accesses,
        )
    }
    | dict(neighbours.TARGETS)
    | {
        name: table(suffix)
        for name, suffix in {
            "safetensors": ".safetensors",
            "archive": ".pt",
            "gguf": ".gguf",
            "parquet": ".parquet",
            "onnx": ".onnx",
            "tar": ".tar",
        }.items()
    }
)

_ENTRY = (
    b"<Contents><Key>a%2Fb+c</Key><LastModified>2024-05-06T07:08:09.123Z</LastModified>"
    b"<ETag>&quot;0123&quot;</ETag><Size>12</Size><StorageClass>STANDARD</StorageClass></Contents>"
)
_OWNED = (
    b"<Contents><Key>d/</Key><LastModified>2024-05-06T07:08:09Z</LastModified><ETag>x</ETag>"
    b"<Size>0</Size><Owner><ID>i</ID></Owner></Contents>"
)
_LIST = (
    b'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3/"><Name>b</Name>'
    b"<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>"
    b"<NextContinuationToken>t</NextContinuationToken>" + _ENTRY * 2 + _OWNED + b"<CommonPrefixes>"
    b"<Prefix>p/</Prefix></CommonPrefixes></ListBucketResult>"
)
_TENSORS = json.dumps(
    {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]},
        "b": {"dtype": "F16", "shape": [2], "data_offsets": [4, 8]},
    }
).encode()

SEEDS: Mapping[str, tuple[bytes, ...]] = {
    **neighbours.SEEDS,
    "history": (
        (
            b"<ListVersionsResult><Version><Key>a</Key><VersionId>1</VersionId><IsLatest>true</IsLatest>"
            b"<LastModified>2026-01-01T00:00:00Z</LastModified><ETag>e</ETag><Size>1</Size></Version>"
            b"<DeleteMarker><Key>a</Key><VersionId>0</VersionId>"
            b"<LastModified>2025-01-01T00:00:00Z</LastModified></DeleteMarker></ListVersionsResult>"
        ),
        b"<ListVersionsResult><IsTruncated>true</IsTruncated></ListVersionsResult>",
    ),
    "listing": (
        _LIST,
        _LIST.replace(b"UTF-8", b"UDF-8"),
        _LIST.replace(b"UTF-8", b"UTF-7"),
        _LIST.replace(_ENTRY, b""),
        _LIST.replace(_OWNED, b"").replace(b"0123&quot;", b"0123&unknown;"),
        _LIST.replace(_OWNED, b"").replace(b"STANDARD", b"\r"),
        b"<ListBucketResult/>",
    ),
    "object_metadata": (
        b"mode: 33188\nuid: 1000\ngid: 1000\nmtime: 1700000000.000000001\natime: 1.5\nctime: -3",
        b"symlink-target: header:3:a%2Fb\nMode: 41471\nother: value",
        b"symlink-target: body:0:\nxattr: %7B%22user.a%22%3A%22YQ%3D%3D%22%7D",
        b"xattr: " + b"[" * 5000,
        b'xattr: {"\\ud800": "YQ=="}',
        b"mtime: 1e-400000",
        b"mtime: 1e9\nctime: 1E+5",
    ),
    "head_answer": (
        (
            b'content-length: 5\netag: "x"\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT\n'
            b'x-amz-meta-a: \xc3\xa4\nx-amz-restore: ongoing-request="false"'
        ),
        b"content-length: -1\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT",
        b"content-length: 1_0\nlast-modified: Sun, 06 Nov 99999999999999999999 08:49:37 GMT",
        b"content-length: " + b"9" * 5000 + b"\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT",
    ),
    "http_answer": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 206 X\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: t\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 503 No\r\nretry-after: 5\r\n\r\n<Error>",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: \xb2\r\n\r\n",
        b"HTTP/1.1 \xb2\xb2\xb2 OK\r\n\r\n",
    ),
    "tunnel_answer": (
        b"HTTP/1.1 200 Connection established\r\nx: y\r\n\r\n\x16\x03\x03",
        b"HTTP/1.0 407 No\r\nproxy-authenticate: Basic\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000,
        b"SSH-2.0-x 200\r\n\r\n",
        b"HTTP/1.1 20\0\n\x16\x03\x03",
    ),
    "greeting": (
        b"HTTP/1.1 200 Connection established\r\n\r\n\x15\x03\x03\x00\x02\x02\x28",
        b"\x16\x03\x03\x00\x31\x02\x00\x00\x2d\x03\x03"
        + bytes(32)
        + b"\0\xc0\x2f\0\0\5\xff\1\0\1\0",
        b"\x16\x03\x03\xff\xff" + bytes(3000),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ),
    "error_answer": (
        (
            b"retry-after: 5\ndate: Sun, 06 Nov 1994 08:49:37 GMT\n\n<Error><Code>NoSuchKey</Code>"
            b"<Message>m</Message><RequestId>r</RequestId><Region>x</Region></Error>"
        ),
        b"retry-after: Sun, 06 Nov 1994 08:49:47 GMT\ndate: Sun, 06 Nov 1994 08:49:37 GMT",
        b"retry-after: " + b"9" * 5000,
    ),
    "multipart_answer": (
        (
            b'<InitiateMultipartUploadResult xmlns="http://s3/"><Bucket>b</Bucket><Key>k</Key>'
            b"<UploadId>u</UploadId></InitiateMultipartUploadResult>"
        ),
        (
            b"<CompleteMultipartUploadResult><ETag>&quot;0123-2&quot;</ETag>"
            b"</CompleteMultipartUploadResult>"
        ),
        b"<Error><Code>InternalError</Code><Message>m</Message></Error>",
        b'<?xml version="1.0" encoding="UTF-7"?><InitiateMultipartUpload/>',
    ),
    "configuration": (
        b'cache-size = "5GiB"\nread_only = true\numask = "022"\0allow_other,uid=0\0METADATA_TTL=5m',
        b"a = " + b"[" * 5000,
        b'bucket = "s3://b/p"\0ro,noexec,prefix=a\\,b,umask=22\0MEMORY_LIMIT=9e99GiB',
        b'temp_dir = "a\\u0000b"',
        b"metadata_ttl = nan\nretry_budget = inf\nconcurrency = 1_000",
        b"date = 1979-05-27T07:32:00Z",
    ),
    "password_file": (
        b"AKIDEXAMPLE:wJalrXUtnFEMIK7MDENG\n",
        b"# c\nbucket:id:secret\nother:id2:secret2\n",
        b"id:\x00\xff:\n",
    ),
    "safetensors": (
        len(_TENSORS).to_bytes(8, "little") + _TENSORS + bytes(8),
        (5000).to_bytes(8, "little") + b"[" * 5000,
        (60).to_bytes(8, "little") + b'{"a":{"data_offsets":[0,' + b"9" * 36,
    ),
    "archive": (archive(3)[0], archive(3, comment=b"PK\5\6" * 9)[0], archive64(3, 10)),
    "gguf": (gguf([100, 200]), gguf([5], words=0)),
    "parquet": (parquet([(4, 50), (50, 90), (90, 200)], 300), parquet([(4, 5)] * 40, 9)),
    "onnx": (onnx([("w.bin", 0, 60), ("w.bin", 60, 30), ("./x/y", 4096, 9)]), onnx([])),
    "tar": (
        tar([700, 0, 5])[0],
        tar([5, 9], names="long-" * 60 + "{}", form=tarfile.GNU_FORMAT)[0],
        tar([5, 9], names="länger-" * 30 + "{}")[0],
        tar([600] * 12)[0],
    ),
    "accesses": (
        bytes(range(40)) + bytes(range(200)),
        b"\xff" * 40 + b"\0\0\0\xff\0\x40\0\xff\0\x80\0\xff" * 20,
        bytes(1)
        + b"".join((i << 10).to_bytes(3, "big") for i in range(13))
        + b"".join((i << 10).to_bytes(3, "big") + b"\xff" for i in range(13)),
    ),
    "control_request": (
        b'{"command": "do", "arguments": {"text": "a", "texts": ["b"], "flag": true}}\n',
        b'{"command": "do", "arguments": {"number": 5, "text": "\\ud800"}}\n',
        b"[" * 5000 + b"\n",
        b'{"command": "x\\ny", "arguments": []}\n',
        b'{"command": "x\\ny", "arguments": {}}\n',
    ),
    "unsaved_record": (
        DirtyRecord("id", "key", {"mode": "33188"}, base=ObjectVersion("k", "e", 5), size=9)
        .to_json()
        .encode(),
        b"[" * 5000,
        b'{"format": 1}',
        DirtyRecord("id", "key", {}, base=None, size=9)
        .to_json()
        .replace('"base": null', '"sent": "", "base": null')
        .encode(),
        DirtyRecord("id", "key", {}, base=None, size=9)
        .to_json()
        .replace('"size": 9', '"size": 1e999')
        .encode(),
    ),
}

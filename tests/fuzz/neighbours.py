"""What other users of the machine can send, or name: the targets about them.

As in ``targets``: a target takes any bytes and returns, or raises an exception that is a bug.
"""

import contextlib
import io
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from prometheus_client import CollectorRegistry

from ossfs_py.cli.mount_helper import remount_words
from ossfs_py.cli.terminal import console, printable
from ossfs_py.config.mount_options import parse_mount_options, split_options
from ossfs_py.config.sources import BadOptionsError, CommandLine, load
from ossfs_py.control.client import ControlClient
from ossfs_py.daemon.options import fuse_options
from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.fuse.session import libfuse_options
from ossfs_py.host.running import SOCKET_NAME, FoundDaemon, RunningMount, read_record
from ossfs_py.host.words import shown_source
from ossfs_py.model import ObjectVersion
from ossfs_py.sharedcache.blocks import BlockNames
from ossfs_py.sharedcache.cache import SharedCache, SharedCacheOptions
from ossfs_py.sharedcache.connection import NodeConnection
from ossfs_py.sharedcache.metrics import SharedCacheMetrics
from ossfs_py.sharedcache.node import Node
from ossfs_py.sharedcache.pace import SharedPace
from ossfs_py.writing.leftovers import count_unsaved

_MOST_BYTES = 64 * 1024


def memory_directory() -> str | None:
    """Where temporary files cost no disk, if there is such a place."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def running_record(data: bytes) -> None:
    """A record of a running mount is one that a daemon may have written, or nobody's."""
    directory = Path(memory_directory() or tempfile.gettempdir())
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        file.write(data)
        file.flush()
        mount = read_record(file.fileno(), os.geteuid())
    if mount is None:
        return
    for name, value in asdict(mount).items():
        assert name == "pid" or printable(value).isprintable()
    if mount.state_directory:
        # Relative, so that no input makes the search walk over this machine.
        below = directory / "no-such-directory" / mount.state_directory.replace("/", "_")
        assert count_unsaved(below, ended=True) == 0


def control_answer(data: bytes) -> None:
    """Whatever a daemon of somebody else answers is a result, or one sentence."""
    with tempfile.TemporaryDirectory(dir=memory_directory()) as name:
        directory = Path(name)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(directory / SOCKET_NAME))
            listener.listen()
            thread = threading.Thread(target=_answer_once, args=(listener, data[:_MOST_BYTES]))
            thread.start()
            progress: list[Mapping[str, Any]] = []
            record = os.open("/", os.O_RDONLY)
            mount = RunningMount(1, "/mnt", "bucket", "temp")
            with ControlClient(FoundDaemon(mount, directory, os.geteuid(), record)) as client:
                try:
                    result = client.call("stats", {}, progress.append)
                except EnvironmentProblemError as exc:
                    assert printable(str(exc)).isprintable()
                else:
                    assert isinstance(result, dict)
            thread.join()
    assert all(isinstance(one, dict) for one in progress)


def _answer_once(listener: socket.socket, data: bytes) -> None:
    # The look at who listens, and the request.
    for _ in range(2):
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(1.0)
            with contextlib.suppress(OSError):
                if connection.recv(4096):
                    connection.sendall(data)


def option_strings(data: bytes) -> None:
    """No option, bucket or prefix makes mount(8) or libfuse see an option that nobody gave."""
    text, _, source = data.decode("utf-8", "surrogateescape").partition("\0")
    found = parse_mount_options((text,))
    assert set(found.kernel_options) <= {"noexec", "nosuid", "nodev", "noatime"}
    assert set(remount_words(split_options(text))) <= _KERNELS_WORDS
    try:
        line = CommandLine({"bucket": source, "mountpoint": "/mnt"}, (text,))
        settings = load(line, {"HOME": "/nonexistent"}).settings
    except BadOptionsError as exc:
        assert exc.problems
        return
    wanted = libfuse_options(fuse_options(settings, settings.mountpoint))
    seen = _as_libfuse_splits(",".join(wanted))
    assert sorted(seen) == sorted(wanted)
    assert {"nosuid", "nodev", "default_permissions"} <= set(seen)
    assert not {"suid", "dev", "allow_root"} & set(seen)
    (name,) = [word.partition("=")[2] for word in seen if word.startswith("fsname=")]
    assert unquote(name, errors="surrogateescape") == settings.source


_KERNELS_WORDS = {
    *("ro", "rw", "exec", "noexec"),
    *("atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime"),
}


def _as_libfuse_splits(text: str) -> list[str]:
    """fuse_opt_parse: a comma ends an option, a backslash takes the next character as it is."""
    words, word, signs = [], "", iter(text)
    for sign in signs:
        if sign == ",":
            words.append(word)
            word = ""
        else:
            word += next(signs, "") if sign == "\\" else sign
    return [*words, word]


def names(data: bytes) -> None:
    """Whatever a file is called, a terminal is told letters, and mount tables one word."""
    name = data.decode("utf-8", "surrogateescape")
    shown = printable(name)
    assert shown.isprintable()
    assert shown == name or not name.isprintable()
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        console(soft_wrap=True).print(shown)
    assert out.getvalue() == shown + "\n"
    word = shown_source(name)
    assert unquote(word, errors="surrogateescape") == name
    assert not set(word) & set(",\\\"' \t\n\r#")


_SHARED = ObjectVersion("model", "etag", 150)
_SHARED_BLOCK = 64


class _Store:
    """The bucket behind a shared cache: zeros."""

    place = "http://store"

    def get_range_into(self, _version: ObjectVersion, _start: int, buffer: memoryview) -> None:
        buffer[:] = bytes(len(buffer))


def node_answer(data: bytes) -> None:
    """Whatever a node of the shared cache answers, the reader gets the object's bytes."""
    metrics = SharedCacheMetrics(CollectorRegistry())
    options = SharedCacheOptions("127.0.0.1:1", "bucket", _SHARED_BLOCK)
    cache = SharedCache(_Store(), options, metrics)  # type: ignore[arg-type]
    cache.pace = _NoWaiting()
    node = Node("127.0.0.1:1", ("127.0.0.1", 1), metrics, 1.0)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data[:_MOST_BYTES])
        theirs.shutdown(socket.SHUT_WR)
        node.memory_bytes, node.item_bytes, node._up = 1, 1024, True
        node._idle.append(NodeConnection(ours, 1.0))
        cache.nodes = (node,)
        buffer = memoryview(bytearray(b"x" * _SHARED.size))
        cache.get_range_into(_SHARED, 0, buffer)
        assert bytes(buffer) == bytes(_SHARED.size)
        cache.close()


class _NoWaiting(SharedPace):
    """Nobody delivers what others fetch."""

    @property
    def wait_seconds(self) -> float:
        """None at all."""
        return 0.0


def _node_values() -> bytes:
    names = BlockNames(_Store.place, "bucket", _SHARED, _SHARED_BLOCK)
    said = b""
    for index in range(names.count):
        block = bytes(names.size(index))
        value = names.head(index, memoryview(block), 1) + block
        said += b"VA %d s\r\n%b\r\n" % (len(value), value)
    return said


def _cut_value() -> bytes:
    names = BlockNames(_Store.place, "bucket", _SHARED, _SHARED_BLOCK)
    block = bytes(_SHARED_BLOCK)
    first = names.head(0, memoryview(block), 2) + block[:40]
    return (
        b"VA %d\r\n%b\r\nVA 0 W\r\n\r\nVA 0 Z\r\n\r\n" % (len(first), first)
        + b"VA 24\r\n%b\r\n" % block[:24]
    )


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (running_record, control_answer, option_strings, names, node_answer)
}

_RECORD = (
    b'{"pid": 1, "mountpoint": "/mnt", "source": "b", "data_path": "temp",'
    b' "state_directory": "/var/lib/x"}'
)
SEEDS: Mapping[str, tuple[bytes, ...]] = {
    "node_answer": (
        _node_values(),
        _cut_value(),
        b"EN\r\nVA 0 W\r\n\r\nVA 0 Z\r\n\r\n",
        b"SERVER_ERROR out of memory\r\n",
    ),
    "option_strings": (
        b"allow_other,ro,nosuid,x-systemd.automount,uid=0\0bucket/team,suid,dev",
        b"rw,suid,dev,exec,remount,cache_size=5GiB\0bucket/a\\,suid",
        b"prefix=a\\,suid\\,dev,noexec\0bucket/\xff\n\t #",
        b"data_path=direct,metadata_ttl=5m,umask=022\0bucket",
    ),
    "names": (
        b"x[/evil]\x1b]0;title\x07",
        "模型\u202e\u2028\x85".encode(),
        b":smile: [bold]\r\n\xff\xed\xa0\x80",
    ),
    "running_record": (
        _RECORD,
        b'{"pid": true, "mountpoint": "/m\\u001b", "source": "\\ud800", "data_path": "temp"}',
        _RECORD.replace(b"/var/lib/x", b"a\\u0000"),
        _RECORD.replace(b'"/var/lib/x"', b"5"),
        _RECORD.replace(b"state_directory", b"endpoint"),
        _RECORD.replace(b'"state_directory": "/var/lib/x"', b'"endpoint": ["x"]'),
        b"[" * 5000,
    ),
    "control_answer": (
        b'{"progress": {"done": 1}}\n{"result": {"files": []}}\n',
        b'{"error": "a\\u001b\\nb"}\n',
        b'{"error": [1], "progress": {}}\n',
        b'{"progress": 5, "result": {}}\n{"result": 1}\n',
        b"[" * 5000 + b"\n",
        b'{"result": {"x": ' + b"9" * 5000 + b"}}\n",
    ),
}

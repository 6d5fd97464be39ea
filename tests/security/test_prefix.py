"""A mount of ``bucket/prefix`` has nothing to do with any key outside it, whatever the name."""

# ruff: noqa: PTH101, PTH102, PTH104, PTH106, PTH108, PTH208, PTH211
# The names are bytes, which pathlib does not take.

import contextlib
import io
import os
import random
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from minio import Minio

from tests.conftest import MountFactory
from tests.support.proxy import Proxy

PREFIX = "tenants/ours/"
OUTSIDE = ("secret", "tenants/secret", "tenants/ours-not/secret", "tenants/theirs/secret")
NAMES = (
    b"..",
    b"../secret",
    b"../../secret",
    b"..%2f..%2fsecret",
    b"%2e%2e",
    b"%2e%2e%2fsecret",
    b"%2E%2E%5Csecret",
    b"..\\secret",
    b"..\\..\\secret",
    b"....//secret",
    b".%00./secret",
    b"a/../../secret",
    b"a//../../secret",
    b"%252e%252e%252fsecret",
    b"\xe2\x80\xa5/secret",
    b"\xef\xbc\x8e\xef\xbc\x8e/secret",
    b"?prefix=secret",
    b"#secret",
    b"a?delete",
    b"a&prefix=",
    b"a\r\nHost: evil",
    b"a\nx-amz-copy-source: /b/secret",
    b"+secret",
    b"%",
    b"%zz",
    b"\x7f",
    b"&lt;",
    b"<Key>secret</Key>",
    b"\xff\xfe",
)


def names(rng: random.Random) -> Iterator[bytes]:
    """The known tricks, and random mixtures of their pieces."""
    yield from NAMES
    pieces = (b"..", b".", b"/", b"%2e", b"%2f", b"\\", b"secret", b"tenants", b"a", b"%00", b"+")
    for _ in range(20):
        yield b"".join(rng.choices(pieces, k=rng.randrange(1, 7)))


def try_everything(top: bytes, name: bytes) -> None:
    """Every call that takes a name; what it answers does not matter here."""
    path = top + b"/" + name
    # The kernel resolves "..": stay below the mount, as a program inside it would.
    if not os.path.normpath(path).startswith(top + b"/"):
        return
    for call in (
        lambda: os.lstat(path),
        lambda: os.mkdir(path),
        lambda: os.listdir(path),
        lambda: os.close(os.open(path, os.O_RDWR | os.O_CREAT)),
        lambda: os.rename(path, path + b"2"),
        lambda: os.symlink(b"../../secret", path + b"3"),
        lambda: os.chmod(path + b"2", 0o600),
        lambda: os.unlink(path + b"2"),
        lambda: os.rmdir(path),
    ):
        with contextlib.suppress(OSError, ValueError):
            call()


def test_no_name_leads_out_of_the_prefix(
    proxy: Proxy, mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    for key in OUTSIDE:
        minio_client.put_object(bucket, key, io.BytesIO(b"not ours"), 8)
    mounted = mount(f"{bucket}/{PREFIX}", endpoint=proxy.endpoint, metadata_ttl="0s")
    proxy.reset()
    for name in names(random.Random(1)):
        try_everything(os.fsencode(mounted.path), name)
    assert len(proxy.exchanges) > 200
    for exchange in proxy.exchanges:
        if exchange.operation == "ListObjects":
            assert exchange.query["prefix"][0].startswith(PREFIX)
        else:
            assert exchange.key.startswith(PREFIX), exchange
        if "x-amz-copy-source" in exchange.headers:
            source = unquote(exchange.headers["x-amz-copy-source"])
            assert source.startswith(f"{bucket}/{PREFIX}"), exchange
    found = {item.object_name for item in minio_client.list_objects(bucket, recursive=True)}
    assert {key for key in found if not str(key).startswith(PREFIX)} == set(OUTSIDE)


def test_a_symlink_is_never_followed_by_the_daemon(
    mount: MountFactory, bucket: str, minio_client: Minio, tmp_path: Path
) -> None:
    """Where it leads is the reader's business, with the reader's rights."""
    target = tmp_path / "on the daemon's machine"
    target.write_text("private")
    minio_client.put_object(
        bucket,
        "link",
        io.BytesIO(b""),
        0,
        metadata={"symlink-target": f"header:{len(str(target))}:{target}", "mode": "41471"},
    )
    mounted = mount(bucket)
    link = mounted.path / "link"
    assert link.readlink() == target
    link.unlink()
    assert target.read_text() == "private"
    assert not list(minio_client.list_objects(bucket, recursive=True))

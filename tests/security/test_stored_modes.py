"""Others see a mount (allow_other): what is stored says who may do what, never a guess."""

import errno
import io
import itertools
import os
import stat
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from minio import Minio
from moto.server import ThreadedMotoServer

from tests.support.commands import NOBODY
from tests.support.faults import Fault
from tests.support.mounting import Mount
from tests.support.proxy import Proxy
from tests.support.strangers import as_stranger

_numbers = itertools.count(1)
OWNER = {"uid": str(os.geteuid()), "gid": str(os.getegid())}
THEIRS = {"uid": str(NOBODY), "gid": str(NOBODY)}


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """A store that keeps the metadata of directories' markers, which SeaweedFS does not."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    address, port = server.get_host_and_port()
    yield f"{address}:{port}"
    server.stop()


@pytest.fixture
def endpoint(host: str) -> str:
    return f"http://{host}"


@pytest.fixture
def proxy(host: str) -> Iterator[Proxy]:
    with Proxy(host) as running:
        yield running


@pytest.fixture(scope="module")
def client(host: str) -> Minio:
    return Minio(host, "any", "secret", secure=False, region="us-east-1")


@pytest.fixture
def bucket(client: Minio) -> str:
    name = f"modes-{next(_numbers)}"
    client.make_bucket(name)
    return name


def put(
    client: Minio, bucket: str, key: str, content: bytes, mode: int | None, **more: str
) -> None:
    metadata = {**OWNER, **more, "mode": str(mode)} if mode is not None else {}
    client.put_object(bucket, key, io.BytesIO(content), len(content), metadata=dict(metadata))


def fill(client: Minio, bucket: str) -> None:
    """What a user keeps there, written by other clients than the mount."""
    put(client, bucket, "secret", b"only mine", 0o100600)
    put(client, bucket, "open", b"for all", 0o100644)
    put(client, bucket, "theirs", b"their own", 0o100600, **THEIRS)
    put(client, bucket, "model", b"weights", None)
    put(client, bucket, "closed/", b"", 0o40700)
    put(client, bucket, "closed/inside", b"behind a door", 0o100644)
    put(client, bucket, "public/", b"", 0o40755)
    put(client, bucket, "public/inside", b"for all", 0o100644)
    put(client, bucket, "plain/inside", b"weights", None)


def listed(top: Path) -> None:
    """The owner lists everything, so that the kernel and the mount know names from LIST."""
    assert subprocess.run(["ls", "-lR", top], capture_output=True, check=True).stdout


@pytest.mark.parametrize("by", ["the owner", "find", "the stranger"])
def test_nobody_reads_after_a_listing_what_is_stored_for_its_owner_only(
    shared: Callable[..., Mount], bucket: str, client: Minio, by: str
) -> None:
    fill(client, bucket)
    top = shared().path
    if by == "the owner":
        listed(top)
    elif by == "find":
        subprocess.run(["find", top, top / "closed"], capture_output=True, check=True)
    else:
        as_stranger(("list", top))
    assert as_stranger(
        ("read", top / "secret"),
        ("list", top / "closed"),
        ("read", top / "closed" / "inside"),
        ("read", top / "open"),
        ("read", top / "theirs"),
        ("read", top / "model"),
        ("list", top / "public"),
        ("read", top / "public" / "inside"),
        ("list", top / "plain"),
        ("read", top / "plain" / "inside"),
    ) == [
        *(errno.EACCES, errno.EACCES, errno.EACCES),
        *("for all", "their own", "weights", ["inside"], "for all", ["inside"], "weights"),
    ]


def test_what_stat_shows_after_a_listing_is_what_is_stored(
    shared: Callable[..., Mount], bucket: str, client: Minio
) -> None:
    fill(client, bucket)
    top = shared().path
    me = os.geteuid()
    names = ("secret", "open", "theirs", "model", "closed", "plain")
    expected = [[0o600, me], [0o644, me], [0o600, NOBODY], [0o644, me], [0o700, me], [0o755, me]]
    assert as_stranger(("list", top), *(("mode", top / name) for name in names))[1:] == expected
    listed(top)
    assert [[stat.S_IMODE(s.st_mode), s.st_uid] for s in ((top / n).stat() for n in names)] == (
        expected
    )
    assert as_stranger(("chmod", top / "theirs"), ("chmod", top / "open")) == [0, errno.EPERM]


def test_a_directory_that_is_closed_later_is_closed_within_the_metadata_ttl(
    shared: Callable[..., Mount], bucket: str, client: Minio
) -> None:
    fill(client, bucket)
    top = shared(metadata_ttl="1s").path
    assert as_stranger(("list", top), ("list", top / "public"))[1] == ["inside"]
    put(client, bucket, "public/", b"", 0o40700)
    # Listing the directory around it again and again keeps its name fresh, and nothing else.
    deadline = 40
    while as_stranger(("list", top), ("list", top / "public"))[1] != errno.EACCES:
        deadline -= 1
        assert deadline, "it stays open"


def test_default_modes_may_be_trusted_for_buckets_that_nobody_chmods(
    shared: Callable[..., Mount], bucket: str, client: Minio, proxy: Proxy
) -> None:
    for number in range(50):
        put(client, bucket, f"d/{number}", b"weights", None)
    top = shared(trust_default_modes=True, endpoint=proxy.endpoint).path
    proxy.reset()
    names = [str(number) for number in range(50)]
    as_stranger(("list", top), ("list", top / "d"))
    assert as_stranger(*(("mode", top / "d" / name) for name in names)) == (
        [[0o644, os.geteuid()]] * 50
    )
    assert proxy.counts()["HeadObject"] == 0


def test_each_mode_is_asked_once_and_only_if_somebody_looks(
    shared: Callable[..., Mount], bucket: str, client: Minio, proxy: Proxy
) -> None:
    for number in range(50):
        put(client, bucket, f"d/{number:02}", b"weights", None)
    top = shared(endpoint=proxy.endpoint).path
    proxy.reset()
    subprocess.run(["find", top], capture_output=True, check=True)
    asked = Counter(proxy.counts())
    assert asked["HeadObject"] <= 2, "a walk asks for the directories only"
    looks = [("mode", top / "d" / f"{number:02}") for number in range(50)]
    for _ in range(3):
        assert as_stranger(*looks) == [[0o644, os.geteuid()]] * 50
        as_stranger(("list", top / "d"))
    heads = [one.key for one in proxy.exchanges if one.operation == "HeadObject"]
    assert sorted(key for key in heads if key != "d/") == [f"d/{number:02}" for number in range(50)]


def test_who_may_list_and_not_ask_grants_nothing_to_others(
    shared: Callable[..., Mount], bucket: str, client: Minio, proxy: Proxy
) -> None:
    fill(client, bucket)
    top = shared(endpoint=proxy.endpoint).path
    proxy.faults.append(Fault("HeadObject", status=403, code="AccessDenied", times=None))
    assert (
        as_stranger(
            ("list", top),
            ("read", top / "secret"),
            ("read", top / "open"),
            ("list", top / "public"),
        )[1:]
        == [errno.EACCES] * 3
    )
    listed(top)

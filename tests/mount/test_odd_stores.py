"""A mount of a store that keeps what SeaweedFS bends: odd keys, and metadata of directories."""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import S3Backend, s3_backends
from moto.server import ThreadedMotoServer

from tests.conftest import MountFactory
from tests.support.mounting import Mount

BUCKET = "odd"
MIB = 1024**2
OLD_NS = 1_000_000_000_123_456_789
UNNAMEABLE = ["double//slash", "./dot", "up/../file", f"long/{'x' * 256}", "//"]
NAMEABLE = {"back\\slash": b"1", "double/file": b"2", "up/file": b"3", "carriage\rreturn": b"4"}


@pytest.fixture(scope="module")
def backend() -> S3Backend:
    """The store's own memory: no client sends such keys as they are."""
    return s3_backends[DEFAULT_ACCOUNT_ID]["aws"]


@pytest.fixture(scope="module")
def endpoint(backend: S3Backend) -> Iterator[str]:
    """A store with one empty bucket."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    backend.create_bucket(BUCKET, "us-east-1")
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def remount(mount: MountFactory, endpoint: str, tmp_path: Path) -> Callable[[str], Mount]:
    """Mounts a part of the bucket, as often as it is called."""
    keys = tmp_path / "keys"
    keys.touch(0o600)
    keys.write_text("MOTO:moto-secret\n")

    def start(prefix: str) -> Mount:
        return mount(
            f"{BUCKET}/{prefix}",
            endpoint=endpoint,
            credentials_file=keys,
            posix_metadata=True,
            data_path="direct",
        )

    return start


def test_keys_that_no_path_can_name_are_hidden_and_told_once(
    remount: Callable[[str], Mount], backend: S3Backend
) -> None:
    for key in UNNAMEABLE:
        backend.put_object(BUCKET, f"odd/{key}", b"hidden")
    for key, content in NAMEABLE.items():
        backend.put_object(BUCKET, f"odd/{key}", content)
    mounted = remount("odd")
    for _ in range(2):
        found = {
            str(path.relative_to(mounted.path)): path.read_bytes()
            for path in mounted.path.rglob("*")
            if path.is_file()
        }
        assert found == NAMEABLE
    told = re.findall(r"key '(.*)' is hidden: no path can name it", mounted.log)
    assert len(told) == len(set(told)) == len(UNNAMEABLE)
    for key in UNNAMEABLE:
        # A listing by directories shows a key up to the name that cannot be.
        assert any(f"odd/{key}".startswith(hidden) for hidden in told), key


def test_modes_owners_and_times_of_directories_survive_a_remount(
    remount: Callable[[str], Mount], backend: S3Backend
) -> None:
    backend.put_object(BUCKET, "dirs/implicit/file", b"content")
    first = remount("dirs")
    for name, mode in (("made", 0o2770), ("implicit", 0o700)):
        directory = first.path / name
        directory.mkdir(exist_ok=True)
        directory.chmod(mode)
        os.setxattr(directory, "user.key", b"value")
        os.utime(directory, ns=(OLD_NS, OLD_NS))
    (first.path / "made").rename(first.path / "renamed")
    assert first.unmount() == 0
    second = remount("dirs")
    for name, mode in (("renamed", 0o2770), ("implicit", 0o700)):
        directory = second.path / name
        info = directory.stat()
        assert info.st_mode == stat.S_IFDIR | mode
        assert (info.st_uid, info.st_gid) == (os.geteuid(), os.getegid())
        assert info.st_mtime_ns == OLD_NS
        assert os.getxattr(directory, "user.key") == b"value"
    assert (second.path / "implicit/file").read_bytes() == b"content"


def test_an_object_replaced_while_it_is_changed_is_not_mixed_though_copies_know_no_pin(
    remount: Callable[[str], Mount], backend: S3Backend
) -> None:
    old, new = b"o" * (64 * MIB), b"n" * (64 * MIB)
    backend.put_object(BUCKET, "mixed/model", old)
    mounted = remount("mixed")
    file = (mounted.path / "model").open("r+b", buffering=0)
    assert file.read(17 * MIB) == old[: 17 * MIB]
    file.seek(5)
    file.write(b"XXXXX")
    backend.put_object(BUCKET, "mixed/model", new)
    with pytest.raises(OSError, match=r"Stale") as told:
        file.close()
    assert told.value.errno == errno.ESTALE
    assert backend.get_object(BUCKET, "mixed/model").value == new
    assert "copies of parts: unpinned" in mounted.log

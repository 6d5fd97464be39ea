"""``mv`` of a directory with ``--write-back``: it returns before the store has copied anything."""

import io
import subprocess
import threading
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.commands import ossfs
from tests.support.mounting import wait_for_log
from tests.support.proxy import Fault, Proxy
from tests.support.recovering import Recovering, kill, names, stored
from tests.support.seaweed import SeaweedServer

CONTENTS = {"a": b"a", "b": b"bb", "deep/c": b"ccc", "deep/er/d": b"dddd"}
REFUSED = Fault("CopyObject", times=None, status=403, code="AccessDenied")


@pytest.fixture
def filled(bucket: str, minio_client: Minio) -> str:
    """A bucket with a directory that other clients have made."""
    for name, content in CONTENTS.items():
        minio_client.put_object(bucket, f"old/{name}", io.BytesIO(content), len(content))
    return bucket


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def tree(root: Path) -> dict[str, bytes]:
    """What programs see below a directory."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def in_bucket(client: Minio, bucket: str) -> dict[str, bytes]:
    """What other clients see, but for markers and what the mount tries the store with."""
    keys = [key for key in names(client, bucket) if not key.endswith("/")]
    return {key: stored(client, bucket, key) for key in keys if ".ossfs-py-probe-" not in key}


def below(name: str, contents: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}/{key}": content for key, content in contents.items()}


@pytest.mark.parametrize("data_path", ["temp", "cache", "direct"])
def test_mv_returns_before_the_copies_and_all_is_there_under_the_new_name(
    mount: MountFactory,
    seaweed: SeaweedServer,
    proxy: Proxy,
    filled: str,
    minio_client: Minio,
    data_path: str,
) -> None:
    mounted = mount(filled, write_back=True, data_path=data_path, endpoint=proxy.endpoint)
    gate = threading.Event()
    proxy.faults.append(Fault("CopyObject", times=None, held_until=gate))
    with (mounted.path / "old" / "b").open("rb", buffering=0) as opened:
        subprocess.run(["mv", mounted.path / "old", mounted.path / "new"], check=True)
        assert names_in(mounted.path) == ["new"]
        assert tree(mounted.path / "new") == CONTENTS
        assert not (mounted.path / "old").exists()
        assert in_bucket(minio_client, filled) == below("old", CONTENTS)
        gate.set()
        assert ossfs("sync", mounted.path, environment=seaweed.environment).code == 0
        assert in_bucket(minio_client, filled) == below("new", CONTENTS)
        assert opened.read() == b"bb"
    assert tree(mounted.path / "new") == CONTENTS
    (mounted.path / "new" / "a").write_bytes(b"changed")
    assert mounted.unmount() == 0
    assert in_bucket(minio_client, filled) == below("new", CONTENTS | {"a": b"changed"})


def test_a_killed_daemon_leaves_the_rename_to_the_next_mount(
    mount: MountFactory, seaweed: SeaweedServer, proxy: Proxy, filled: str, minio_client: Minio
) -> None:
    mounted = mount(filled, write_back=True, endpoint=proxy.endpoint)
    proxy.faults.append(Fault("CopyObject", times=None, status=500, code="InternalError"))
    (mounted.path / "old" / "new file").write_bytes(b"waits")
    (mounted.path / "old").rename(mounted.path / "new")
    kill(mounted)
    proxy.faults.clear()
    mounted.start()
    assert names_in(mounted.path) == ["new"]
    assert tree(mounted.path / "new").items() >= CONTENTS.items()
    assert mounted.unmount() == 0
    mounted.close()
    # The end of the mount may have come before the file.
    Recovering(mounted, seaweed)("--upload")
    assert in_bucket(minio_client, filled) == below("new", CONTENTS | {"new file": b"waits"})


def test_a_rename_that_the_store_refuses_is_told_by_sync_and_taken_back(
    mount: MountFactory, seaweed: SeaweedServer, proxy: Proxy, filled: str, minio_client: Minio
) -> None:
    mounted = mount(filled, write_back=True, endpoint=proxy.endpoint)
    proxy.faults.append(REFUSED)
    (mounted.path / "old").rename(mounted.path / "new")
    wait_for_log(mounted, "has its old name 'old/' again")
    told = ossfs("sync", mounted.path, environment=seaweed.environment)
    assert told.code == 1
    assert "directory 'new/' has its old name 'old/' again" in told.err
    assert names_in(mounted.path) == ["old"]
    assert tree(mounted.path / "old") == CONTENTS
    assert not (mounted.path / "new").exists()
    proxy.faults.clear()
    (mounted.path / "old").rename(mounted.path / "new")
    assert mounted.unmount() == 0
    assert in_bucket(minio_client, filled) == below("new", CONTENTS)

"""A mount of the past: what the bucket held at a time, over each data path, and when it cannot."""

import io
import json
import os
import pwd
import shutil
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from minio import Minio
from minio.commonconfig import ENABLED
from minio.versioningconfig import SUSPENDED, VersioningConfig

from tests.conftest import MountFactory
from tests.support.commands import ossfs
from tests.support.mounting import Mount, MountFailedError

MIB = 1024**2
FILES = int(os.environ.get("OSSFS_PY_TREE_FILES", "20"))
"""Of the tree that is deleted and brought back; 2,000 take some minutes."""
TICK_SECONDS = 1.1
"""Stores tell whole seconds."""


@pytest.fixture
def kept(minio_client: Minio, bucket: str) -> Iterator[str]:
    """A bucket that keeps versions, and nothing at the end."""
    minio_client.set_bucket_versioning(bucket, VersioningConfig(ENABLED))
    yield bucket
    for item in minio_client.list_objects(bucket, recursive=True, include_version=True):
        minio_client.remove_object(bucket, str(item.object_name), version_id=item.version_id)


def put(client: Minio, bucket: str, key: str, content: bytes) -> None:
    client.put_object(bucket, key, io.BytesIO(content), len(content))


def now() -> str:
    """This moment, when the second it is in is over."""
    told = datetime.now(UTC).isoformat()
    time.sleep(TICK_SECONDS)
    return told


def tree(mounted: Mount) -> dict[str, bytes]:
    return {
        str(path.relative_to(mounted.path)): path.read_bytes()
        for path in mounted.path.rglob("*")
        if path.is_file()
    }


def test_each_data_path_shows_names_sizes_and_bytes_of_the_moment(
    mount: MountFactory, minio_client: Minio, kept: str
) -> None:
    weights = os.urandom(9 * MIB)
    then = {"model/a": weights, "model/b": b"first", "gone/file": b"was here", "top": b"top"}
    for key, content in then.items():
        put(minio_client, kept, key, content)
    moment = now()
    put(minio_client, kept, "model/a", b"replaced")
    put(minio_client, kept, "new/file", b"later")
    minio_client.remove_object(kept, "gone/file")
    minio_client.remove_object(kept, "top")
    for path in ("direct", "temp", "cache"):
        mounted = mount(kept, at=moment, data_path=path)
        assert tree(mounted) == then
        assert sorted(each.name for each in mounted.path.iterdir()) == ["gone", "model", "top"]
        assert (mounted.path / "model/a").stat().st_size == len(weights)
        assert abs((mounted.path / "model/a").stat().st_mtime - time.time()) < 60
        with pytest.raises(OSError, match="Read-only"):
            (mounted.path / "new").write_bytes(b"")
        with pytest.raises(FileNotFoundError):
            (mounted.path / "new/file").stat()
        assert mounted.unmount() == 0, mounted.log


def test_a_bucket_that_keeps_no_versions_or_did_not_then_is_refused(
    mount: MountFactory, minio_client: Minio, bucket: str
) -> None:
    put(minio_client, bucket, "file", b"early")
    moment = now()
    with pytest.raises(MountFailedError, match="the bucket keeps no versions"):
        mount(bucket, at="1s")
    minio_client.set_bucket_versioning(bucket, VersioningConfig(ENABLED))
    put(minio_client, bucket, "file", b"late")
    with pytest.raises(MountFailedError, match="no version that is as old as --at says"):
        mount(bucket, at=moment)
    for item in minio_client.list_objects(bucket, recursive=True, include_version=True):
        minio_client.remove_object(bucket, "file", version_id=item.version_id)


def test_versions_without_an_id_are_shown_and_a_suspended_bucket_is_told(
    mount: MountFactory, minio_client: Minio, kept: str
) -> None:
    """Objects from before versioning, and those of while it is suspended, have the id "null"."""
    minio_client.set_bucket_versioning(kept, VersioningConfig(SUSPENDED))
    put(minio_client, kept, "early", b"without an id")
    minio_client.set_bucket_versioning(kept, VersioningConfig(ENABLED))
    put(minio_client, kept, "proof", b"that versions were kept")
    first = now()
    put(minio_client, kept, "early", b"replaced")
    past = mount(kept, at=first)
    assert tree(past) == {"early": b"without an id", "proof": b"that versions were kept"}
    assert "suspended" not in past.log
    minio_client.set_bucket_versioning(kept, VersioningConfig(SUSPENDED))
    put(minio_client, kept, "proof", b"kept as null")
    second = now()
    put(minio_client, kept, "proof", b"in its place")
    past = mount(kept, at=second)
    assert tree(past) == {"early": b"replaced", "proof": b"that versions were kept"}
    assert "versioning of the bucket is suspended: what was overwritten" in past.log


def test_what_the_present_brought_into_the_cache_serves_the_past(
    mount: MountFactory, minio_client: Minio, kept: str, tmp_path: Path
) -> None:
    content = os.urandom(4 * MIB)
    put(minio_client, kept, "model", content)
    moment = now()
    shared = {"data_path": "cache", "cache_dir": tmp_path / "shared"}
    (tmp_path / "shared").mkdir(mode=0o700)
    present = mount(kept, **shared)
    assert tree(present) == {"model": content}
    assert present.unmount() == 0, present.log
    put(minio_client, kept, "model", b"replaced")
    past = mount(kept, at=moment, **shared)
    assert tree(past) == {"model": content}
    stats = json.loads(ossfs("stats", past.path, "--json", environment={}).out)
    (hits,) = stats["metrics"]["ossfs_cache_hit_bytes"]["samples"]
    assert hits["value"] == len(content)


def test_the_commands_show_versions_and_bring_them_back(
    mount: MountFactory, minio_client: Minio, kept: str
) -> None:
    mounted = mount(f"{kept}/team", record_writer=True, metadata_ttl="1h")
    config, tree_there = mounted.path / "config", {}
    config.write_bytes(b"first")
    config.write_bytes(b"second one")
    for number in range(FILES):
        path = mounted.path / f"tree/{number % 3}/{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
        path.chmod(0o640)
        tree_there[path] = path.stat()
    shutil.rmtree(mounted.path / "tree")
    assert not (mounted.path / "tree").exists()

    told = json.loads(ossfs("versions", config, "--json", environment={}).out)
    assert [row["bytes"] for row in told["versions"] if not row["deleted"]][-2:] == [10, 5]
    user, host = pwd.getpwuid(os.getuid()).pw_name, socket.gethostname()
    assert {row["writer"] for row in told["versions"]} == {f"{user}@{host}"}
    table = ossfs("versions", config, environment={}).out
    assert "WRITTEN BY" in table
    assert f"{user}@{host}" in table
    assert f"Written by      {user}@{host}" in ossfs("info", config, environment={}).out

    assert ossfs("restore", config, environment={}).code == 0
    assert config.read_bytes() == b"first"
    assert minio_client.get_object(kept, "team/config").read() == b"first"
    wrong = ossfs("restore", config, "--version", "none", environment={})
    assert (wrong.code, wrong.sentence) == (1, "'config' has no version 'none'")

    dry = ossfs("undelete", mounted.path / "tree", "--dry-run", environment={})
    assert "to bring back" in dry.out
    assert not (mounted.path / "tree").exists()
    done = ossfs("undelete", mounted.path / "tree", environment={})
    assert done.code == 0, done.err + mounted.log
    for path, before in tree_there.items():
        assert path.read_bytes() == path.name.encode()
        assert path.stat().st_mode == before.st_mode
        assert int(path.stat().st_mtime) == int(before.st_mtime)
    mistyped = ossfs("undelete", mounted.path / "treee", environment={})
    assert "Nothing there is deleted" in mistyped.out


def test_cp_copies_a_tree_between_two_mounts_of_a_bucket_without_moving_its_bytes(
    mount: MountFactory, minio_client: Minio, bucket: str
) -> None:
    one, other = mount(f"{bucket}/one"), mount(f"{bucket}/other", metadata_ttl="1h")
    content = os.urandom(9 * MIB)
    (one.path / "model/sub").mkdir(parents=True)
    (one.path / "model/weights").write_bytes(content)
    (one.path / "model/sub/config").write_bytes(b"{}")
    (other.path / "models").mkdir()
    done = ossfs("cp", "-r", one.path / "model", other.path / "models", environment={})
    assert done.code == 0, done.err + other.log
    stats = json.loads(ossfs("stats", other.path, "--json", environment={}).out)
    (received,) = stats["metrics"]["ossfs_store_received_bytes"]["samples"]
    assert received["value"] < MIB
    assert tree(other) == {"models/model/weights": content, "models/model/sub/config": b"{}"}
    assert minio_client.get_object(bucket, "other/models/model/weights").read() == content
    again = ossfs("cp", "-r", one.path / "model", other.path / "models", environment={})
    assert again.code == 0, again.err
    assert ossfs("cp", one.path / "model", other.path / "x", environment={}).code == 2

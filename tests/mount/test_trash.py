"""A mount with --trash: what programs delete and overwrite comes back as it was."""

import io
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from minio import Minio

from ossfs_py.cli.trash import trash
from tests.conftest import MountFactory
from tests.support.commands import ossfs
from tests.support.faults import Fault
from tests.support.mounting import MountFailedError
from tests.support.proxy import Proxy

FILES = int(os.environ.get("OSSFS_PY_TREE_FILES", "20"))
"""Of the tree that is removed and restored; 2,000 take some minutes."""


def tree_made(root: Path) -> dict[Path, os.stat_result]:
    """Files with modes and times of their own, and a link."""
    made = {}
    for number in range(FILES):
        path = root / f"{number % 3}/file {number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
        path.chmod(0o600 + number % 8)
        os.utime(path, ns=(10**18, 10**18 + number * 10**9))
        made[path] = path.stat()
    (root / "link").symlink_to("0/file 0")
    return made


def told(command: str, *arguments: str | Path) -> dict[str, object]:
    """What a command says; in this process, as a new one takes longer than what it asks."""
    outcome = CliRunner().invoke(trash, [command, *map(str, arguments), "--json"])
    assert outcome.exception is None, outcome.exception
    answer: dict[str, object] = json.loads(outcome.stdout)
    return answer


def keys(client: Minio, bucket: str) -> list[str]:
    return [str(each.object_name) for each in client.list_objects(bucket, recursive=True)]


@pytest.mark.parametrize("write_back", [False, True], ids=["", "write-back"])
def test_a_tree_that_was_removed_comes_back_with_all_that_described_it(
    mount: MountFactory, minio_client: Minio, bucket: str, *, write_back: bool
) -> None:
    mounted = mount(f"{bucket}/team", trash=True, posix_metadata=True, write_back=write_back)
    made = tree_made(mounted.path / "tree")
    if write_back:  # what the bucket never had is not kept
        assert ossfs("sync", mounted.path, environment={}).code == 0, mounted.log
    shutil.rmtree(mounted.path / "tree")
    assert list(mounted.path.iterdir()) == [], "what is kept is not seen"
    listed = told("list", mounted.path / "tree")
    assert listed["files"] == FILES + 1
    assert "REMOVED" in CliRunner().invoke(trash, ["list", str(mounted.path)]).stdout
    kept = keys(minio_client, bucket)
    assert len(kept) == FILES + 1
    assert all(key.startswith("team/.ossfs-py-trash/") for key in kept)

    assert told("restore", mounted.path, "--dry-run")["files"] == FILES + 1
    assert not (mounted.path / "tree").exists()
    (mounted.path / "tree/0").mkdir(parents=True)
    (mounted.path / "tree/0/file 0").write_bytes(b"since then")
    back = told("restore", mounted.path / "tree")
    assert (back["files"], back["there_already"]) == (FILES, 1)
    assert (mounted.path / "tree/0/file 0").read_bytes() == b"since then"
    assert told("restore", mounted.path / "tree/0/file 0", "--overwrite")["files"] == 1
    for path, before in made.items():
        after = path.stat()
        assert path.read_bytes() == path.name.split()[1].encode()
        assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert (mounted.path / "tree/link").readlink() == Path("0/file 0")

    assert told("list", mounted.path)["files"] == 1, "what was restored over is kept in turn"
    assert told("empty", mounted.path, "--older-than", "1d")["files"] == 0
    assert told("empty", mounted.path)["files"] == 1
    assert not [key for key in keys(minio_client, bucket) if ".ossfs-py-trash" in key]
    mistyped = CliRunner().invoke(trash, ["restore", str(mounted.path / "treee")]).stdout
    assert "The trash has no such copy" in mistyped


def test_overwritten_content_is_kept_and_protection_goes_first(
    mount: MountFactory, minio_client: Minio, bucket: str
) -> None:
    minio_client.put_object(bucket, "shown/file", io.BytesIO(b"first"), 5)
    mounted = mount(f"{bucket}/shown", trash="bin/of mine", data_path="temp")
    file = mounted.path / "file"
    file.write_bytes(b"second")
    with file.open("ab") as opened:
        opened.write(b", longer")
    (mounted.path / "draft").write_bytes(b"third")
    (mounted.path / "draft").rename(file)
    assert mounted.unmount() == 0, mounted.log
    kept = sorted(key for key in keys(minio_client, bucket) if key.startswith("bin/of mine/"))
    contents = [minio_client.get_object(bucket, key).read() for key in kept]
    assert sorted(contents) == [b"first", b"second, longer"]
    protected = mount(f"{bucket}/shown", trash="bin/of mine", protect="delete,overwrite")
    with pytest.raises(PermissionError):
        (protected.path / "file").unlink()
    done = ossfs("trash", "empty", protected.path, environment={})
    assert done.code == 1
    assert "the mount is protected" in done.err
    over = told("restore", "--overwrite", protected.path / "file")
    assert "the mount is protected" in str(over["failed"])
    assert len(told("list", protected.path)["paths"]) == 2  # type: ignore[arg-type]


def test_a_full_quota_lets_nothing_be_deleted_until_there_is_room(
    mount: MountFactory, minio_client: Minio, bucket: str, proxy: Proxy
) -> None:
    for number in range(20):
        minio_client.put_object(bucket, f"d/{number}", io.BytesIO(b"kept"), 4)
    mounted = mount(bucket, endpoint=proxy.endpoint, trash=True)
    proxy.faults.append(Fault("CopyObject", times=None, status=403, code="QuotaExceeded"))
    first = mounted.path / "d/0"
    first.unlink()  # the store is asked behind
    ossfs("sync", mounted.path, environment={})
    assert first.read_bytes() == b"kept", "it is there again"
    command = ["rm", "-rf", str(mounted.path / "d")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode
    assert "quota exceeded" in done.stderr.lower()
    assert sorted(keys(minio_client, bucket)) == sorted(f"d/{number}" for number in range(20))
    assert "no copy of it can be kept" in mounted.log
    proxy.faults.clear()
    subprocess.run(command, check=True)
    assert not (mounted.path / "d").exists()
    assert mounted.unmount() == 0, mounted.log
    assert len(keys(minio_client, bucket)) == 20
    assert all(key.startswith(".ossfs-py-trash/") for key in keys(minio_client, bucket))


def test_what_a_killed_mount_had_removed_is_kept_by_the_next_one_even_without_a_trash(
    mount: MountFactory, minio_client: Minio, bucket: str, proxy: Proxy
) -> None:
    minio_client.put_object(bucket, "team/file", io.BytesIO(b"kept"), 4)
    mounted = mount(f"{bucket}/team", endpoint=proxy.endpoint, trash="bin")
    proxy.faults.append(Fault("CopyObject", times=None, status=503))
    (mounted.path / "file").unlink()
    mounted.terminate(signal.SIGKILL)
    mounted.close()
    proxy.faults.clear()
    del mounted.options["trash"]
    mounted.start()
    assert ossfs("sync", mounted.path, environment={}).code == 0, mounted.log
    (key,) = keys(minio_client, bucket)
    assert key.startswith("bin/")
    assert minio_client.get_object(bucket, key).read() == b"kept"


def test_a_trash_in_what_is_mounted_is_refused(mount: MountFactory, bucket: str) -> None:
    with pytest.raises(MountFailedError, match="where programs would see and delete the copies"):
        mount(f"{bucket}/team", trash="team/bin")
    with pytest.raises(MountFailedError, match="the mounted prefix is the trash, or is inside it"):
        mount(f"{bucket}/team/bin/x", trash="team/bin")

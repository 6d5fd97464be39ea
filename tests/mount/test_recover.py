"""What a killed daemon or a refusing store leaves behind, and ``ossfs-py recover``."""

import os
import stat
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.commands import ossfs
from tests.support.mounting import Mount
from tests.support.proxy import Fault, Proxy
from tests.support.recovering import Recovering, kill, names, stored
from tests.support.seaweed import SeaweedServer

MIB = 1024**2
GONE = r"not connected|abort"
"""What a descriptor says whose daemon was killed."""


def write_unsaved(mounted: Mount, name: str, content: bytes) -> None:
    """Write through the mount without closing, kill the daemon."""
    fd = os.open(mounted.path / name, os.O_RDWR | os.O_CREAT)
    try:
        os.write(fd, content)
        kill(mounted)
    finally:
        # The descriptor outlives its file system; closing it tells so.
        with pytest.raises(OSError, match=GONE):
            os.close(fd)


@pytest.fixture
def killed(mount: MountFactory, bucket: str) -> Mount:
    """A mount whose daemon was killed while a file was open."""
    mounted = mount(bucket, data_path="temp")
    write_unsaved(mounted, "half.bin", b"x" * 100_000)
    return mounted


def test_files_of_a_killed_daemon_are_listed_and_uploaded(
    killed: Mount, seaweed: SeaweedServer, bucket: str, minio_client: Minio
) -> None:
    recover = Recovering(killed, seaweed)
    (entry,) = recover.list()
    assert (entry["bucket"], entry["key"], entry["size"]) == (bucket, "half.bin", 100_000)
    assert entry["mountpoint"] == str(killed.path)
    shown = recover()
    assert shown.code == 0
    assert str(entry["id"])[:8] in shown.out
    assert "half.bin" in shown.out
    done = recover("--upload")
    assert (done.code, done.out) == (0, f"{bucket}/half.bin: uploaded\n"), done
    assert stored(minio_client, bucket, "half.bin") == b"x" * 100_000
    assert recover().out == "Nothing is waiting to be recovered.\n"
    assert recover("--upload").code == 0


def test_files_are_listed_and_recovered_while_the_mount_is_used_again(
    killed: Mount, seaweed: SeaweedServer, bucket: str, minio_client: Minio
) -> None:
    killed.start()
    try:
        assert list(killed.path.iterdir()) == []
        assert "ossfs-py recover" in killed.log
        recover = Recovering(killed, seaweed)
        assert recover("--upload", str(recover.list()[0]["id"])[:6]).code == 0
        assert killed.unmount() == 0
    finally:
        killed.close()
    assert stored(minio_client, bucket, "half.bin") == b"x" * 100_000


def test_an_object_that_others_wrote_since_is_replaced_on_demand_only(
    killed: Mount, seaweed: SeaweedServer, bucket: str, minio_client: Minio, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"theirs")
    minio_client.fput_object(bucket, "half.bin", str(other))
    recover = Recovering(killed, seaweed)
    refused = recover("--upload")
    assert refused.code == 1
    assert refused.sentence == (
        f"{bucket}/half.bin: another client has written the object since: --overwrite replaces it"
    )
    assert stored(minio_client, bucket, "half.bin") == b"theirs"
    assert recover("--upload", "--overwrite").code == 0
    assert stored(minio_client, bucket, "half.bin") == b"x" * 100_000


def test_files_are_exported_and_dropped(
    killed: Mount, seaweed: SeaweedServer, bucket: str, minio_client: Minio, tmp_path: Path
) -> None:
    recover = Recovering(killed, seaweed)
    target = tmp_path / "rescued"
    target.mkdir()
    assert recover("--export", target).code == 0
    assert (target / "half.bin").read_bytes() == b"x" * 100_000
    # As it was kept: the directory may be everybody's.
    assert stat.S_IMODE((target / "half.bin").stat().st_mode) == 0o600
    assert len(recover.list()) == 1
    assert recover("--discard", "--all").code == 0
    assert recover.list() == []
    assert names(minio_client, bucket) == []


def test_a_changed_object_is_finished_over_its_unchanged_bytes(
    mount: MountFactory,
    seaweed: SeaweedServer,
    bucket: str,
    data_path: str,
    minio_client: Minio,
    tmp_path: Path,
) -> None:
    content = os.urandom(20 * MIB)
    local = tmp_path / "content"
    local.write_bytes(content)
    minio_client.fput_object(bucket, "model.bin", str(local))
    mounted = mount(bucket, data_path=data_path)
    fd = os.open(mounted.path / "model.bin", os.O_RDWR)
    os.pwrite(fd, b"changed", 10 * MIB)
    kill(mounted)
    with pytest.raises(OSError, match=GONE):
        os.close(fd)
    assert Recovering(mounted, seaweed)("--upload").code == 0
    expected = content[: 10 * MIB] + b"changed" + content[10 * MIB + 7 :]
    assert stored(minio_client, bucket, "model.bin") == expected


def test_a_file_the_store_refused_is_kept_and_uploaded_later(
    mount: MountFactory,
    seaweed: SeaweedServer,
    proxy: Proxy,
    bucket: str,
    data_path: str,
    minio_client: Minio,
) -> None:
    mounted = mount(bucket, data_path=data_path, endpoint=proxy.endpoint)
    proxy.faults.append(
        Fault("PutObject", key="model.bin", times=None, status=403, code="AccessDenied")
    )
    fd = os.open(mounted.path / "model.bin", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"precious")
    with pytest.raises(PermissionError):
        os.fsync(fd)
    with pytest.raises(PermissionError):
        os.close(fd)
    # 1 if the end of the mount came before the file was set aside.
    assert mounted.unmount() in (0, 1)
    recover = Recovering(mounted, seaweed)
    assert [entry["key"] for entry in recover.list()] == ["model.bin"]
    assert recover("--upload").code == 1
    proxy.faults.clear()
    assert recover("--upload").code == 0
    assert stored(minio_client, bucket, "model.bin") == b"precious"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("--upload", "--discard"),
            "only one of --list, --upload, --export and --discard can be used",
        ),
        (("--discard",), "--discard: name the files to discard by their ids, or use --all"),
        (("--overwrite",), "--overwrite: works with --upload only"),
        (("--all",), "--all: works with --discard only"),
    ],
)
def test_wrong_usage_of_recover(arguments: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    outcome = ossfs("recover", "--state-dir", tmp_path, *arguments, environment={})
    assert outcome.code == 2
    assert outcome.sentence == sentence


def test_recover_says_what_it_cannot_find(tmp_path: Path) -> None:
    state = ("recover", "--state-dir", tmp_path)
    assert ossfs(*state, "--upload", "abc", environment={}).sentence == (
        "no unsaved file begins with 'abc'"
    )
    assert ossfs(*state, "--export", tmp_path / "none", environment={}).sentence == (
        f"--export: {tmp_path / 'none'} is not a directory"
    )
    nowhere = ossfs("recover", "--state-dir", tmp_path / "none", environment={})
    told = f"Nothing is waiting to be recovered: there is no {tmp_path / 'none'}.\n"
    assert (nowhere.code, nowhere.out) == (0, told)

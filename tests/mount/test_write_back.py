"""``--write-back``: close returns when the data is safe on local disk, uploads follow."""

import io
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from minio import Minio

from ossfs_py.writing.segments import count_files
from tests.conftest import MountFactory, make_bucket
from tests.support.commands import ossfs
from tests.support.mounting import Mount, wait_for_log
from tests.support.proxy import Fault, Proxy
from tests.support.recovering import Recovering, kill, names, stored
from tests.support.seaweed import SeaweedServer


def hold_uploads(proxy: Proxy) -> None:
    """The store takes no upload until the fault is cleared; the daemon goes on trying.

    It does not ask to slow down: then lookups would wait for their turn behind uploads, and for
    longer than the retry budget on a server that is slow by itself.
    """
    proxy.faults.append(Fault("PutObject", times=None, status=500, code="InternalError"))


def pending(mounted: Mount) -> int:
    """Files that the next mount would find."""
    of_their_own = len(list(mounted.state_dir.glob("*/staging/*.json")))
    return of_their_own + sum(map(count_files, mounted.state_dir.glob("*/segments")))


def test_close_does_not_wait_for_the_store_and_sync_does(
    mount: MountFactory,
    seaweed: SeaweedServer,
    proxy: Proxy,
    bucket: str,
    data_path: str,
    minio_client: Minio,
) -> None:
    mounted = mount(bucket, data_path=data_path, write_back=True, endpoint=proxy.endpoint)
    hold_uploads(proxy)
    for number in range(5):
        (mounted.path / f"file-{number}").write_bytes(b"%d" % number * 1000)
    assert names(minio_client, bucket) == []
    assert pending(mounted) == 5
    assert (mounted.path / "file-3").read_bytes() == b"3" * 1000
    assert (mounted.path / "file-3").stat().st_size == 1000
    proxy.faults.clear()
    outcome = ossfs("sync", mounted.path, environment=seaweed.environment)
    assert (outcome.code, outcome.out, outcome.err) == (0, "", ""), outcome
    assert names(minio_client, bucket) == [f"file-{number}" for number in range(5)]
    assert stored(minio_client, bucket, "file-4") == b"4" * 1000
    assert pending(mounted) == 0


def test_fsync_waits_for_the_store_even_with_write_back(
    mount: MountFactory, bucket: str, data_path: str, minio_client: Minio
) -> None:
    mounted = mount(bucket, data_path=data_path, write_back=True)
    with (mounted.path / "file").open("wb") as file:
        file.write(b"content")
        file.flush()
        os.fsync(file.fileno())
        assert stored(minio_client, bucket, "file") == b"content"


def test_unmounting_waits_for_pending_uploads(
    mount: MountFactory, bucket: str, data_path: str, minio_client: Minio
) -> None:
    mounted = mount(bucket, data_path=data_path, write_back=True)
    big = os.urandom(20 * 1024**2)
    (mounted.path / "big").write_bytes(big)
    for number in range(30):
        (mounted.path / f"small-{number:02}").write_bytes(b"%d" % number)
    assert mounted.unmount() == 0
    assert stored(minio_client, bucket, "big") == big
    assert len(names(minio_client, bucket)) == 31


def test_a_pending_file_can_be_changed_renamed_and_removed(
    mount: MountFactory, bucket: str, data_path: str, minio_client: Minio
) -> None:
    mounted = mount(bucket, data_path=data_path, write_back=True)
    for name in ("changed", "moved", "removed"):
        (mounted.path / name).write_bytes(b"first")
    with (mounted.path / "changed").open("r+b") as file:
        file.seek(5)
        file.write(b", second")
    (mounted.path / "moved").rename(mounted.path / "there")
    (mounted.path / "removed").unlink()
    assert (mounted.path / "there").read_bytes() == b"first"
    assert mounted.unmount() == 0
    assert names(minio_client, bucket) == ["changed", "there"]
    assert stored(minio_client, bucket, "changed") == b"first, second"


def test_closed_files_of_a_killed_daemon_are_uploaded_by_the_next_mount(
    mount: MountFactory,
    seaweed: SeaweedServer,
    proxy: Proxy,
    bucket: str,
    data_path: str,
    minio_client: Minio,
    tmp_path: Path,
) -> None:
    base = tmp_path / "base"
    base.write_bytes(b"base " * 1000)
    minio_client.fput_object(bucket, "changed", str(base))
    mounted = mount(bucket, data_path=data_path, write_back=True, endpoint=proxy.endpoint)
    hold_uploads(proxy)
    (mounted.path / "new").write_bytes(b"new" * 1000)
    with (mounted.path / "changed").open("r+b") as file:
        file.write(b"BASE")
    assert pending(mounted) == 2
    mounted.terminate(signal.SIGKILL)
    mounted.close()
    proxy.faults.clear()
    mounted.start()
    assert mounted.unmount() == 0
    mounted.close()
    # What the end of the mount cut short is still there for the command.
    assert Recovering(mounted, seaweed)("--upload").code == 0
    assert stored(minio_client, bucket, "new") == b"new" * 1000
    assert stored(minio_client, bucket, "changed") == b"BASE" + (b"base " * 1000)[4:]


def test_who_opened_a_file_again_is_told_that_its_upload_failed(
    mount: MountFactory, proxy: Proxy, bucket: str, data_path: str, minio_client: Minio
) -> None:
    """fsync(2) never returns 0 without the object, whatever became of an earlier close."""
    mounted = mount(bucket, data_path=data_path, write_back=True, endpoint=proxy.endpoint)
    proxy.faults.append(Fault("PutObject", times=None, status=403, code="AccessDenied"))
    first = os.open(mounted.path / "file", os.O_WRONLY | os.O_CREAT)
    second = os.open(mounted.path / "file", os.O_WRONLY | os.O_APPEND)
    os.write(first, b"first")
    os.close(first)
    wait_for_log(mounted, "AccessDenied")
    os.write(second, b", second")
    with pytest.raises(PermissionError):
        os.fsync(second)
    proxy.faults.clear()
    os.fsync(second)
    assert stored(minio_client, bucket, "file") == b"first, second"
    os.close(second)
    assert mounted.unmount() == 0


def test_sync_says_what_is_not_in_the_bucket(
    mount: MountFactory, proxy: Proxy, bucket: str, minio_client: Minio
) -> None:
    mounted = mount(bucket, endpoint=proxy.endpoint)
    proxy.faults.append(Fault("PutObject", times=None, status=403, code="AccessDenied"))
    with (mounted.path / "file").open("wb", buffering=0) as file:
        file.write(b"content")
        outcome = ossfs("sync", mounted.path, environment={})
        assert outcome.code == 1
        assert outcome.sentence.startswith("a file is not in the bucket: PutObject 'file': ")
        proxy.faults.clear()
        assert ossfs("sync", mounted.path, environment={}).code == 0
        assert stored(minio_client, bucket, "file") == b"content"


def test_sync_outside_of_a_mount_says_so(tmp_path: Path) -> None:
    outcome = ossfs("sync", tmp_path, environment={})
    assert outcome.code == 1
    assert outcome.sentence == f"{tmp_path} is outside every ossfs-py mount (see 'ossfs-py list')"


def test_removing_a_tree_waits_for_nothing_and_takes_few_requests(
    mount: MountFactory, seaweed: SeaweedServer, proxy: Proxy, bucket: str, minio_client: Minio
) -> None:
    for number in range(60):
        minio_client.put_object(bucket, f"tree/{number:02}", io.BytesIO(b"x"), 1)
    mounted = mount(bucket, write_back=True, endpoint=proxy.endpoint, negative_ttl=60)
    subprocess.run(["ls", mounted.path / "tree"], check=True, capture_output=True)
    proxy.reset()
    # However slow programs are here: the store does the first removal when all have been asked for.
    through = threading.Event()
    for operation in ("DeleteObject", "DeleteObjects"):
        proxy.faults.append(Fault(operation, held_until=through))
    for number in range(60):
        (mounted.path / "tree" / f"{number:02}").unlink()
    (mounted.path / "tree").rmdir()
    assert list(mounted.path.iterdir()) == []
    through.set()
    assert ossfs("sync", mounted.path, environment=seaweed.environment).code == 0
    assert names(minio_client, bucket) == []
    counts = proxy.counts()
    assert counts["DeleteObject"] + counts["DeleteObjects"] < 10
    assert counts.total() < 20


def test_removed_files_stay_removed_over_a_kill_and_others_may_use_their_names(
    mount: MountFactory, seaweed: SeaweedServer, proxy: Proxy, bucket: str, minio_client: Minio
) -> None:
    for number in range(20):
        minio_client.put_object(bucket, f"d/{number:02}", io.BytesIO(b"old"), 3)
    mounted = mount(bucket, write_back=True, endpoint=proxy.endpoint)
    keep = [Fault(name, times=None, status=503) for name in ("DeleteObject", "DeleteObjects")]
    proxy.faults.extend(keep)
    for path in sorted((mounted.path / "d").iterdir())[1:]:
        path.unlink()
    assert [path.name for path in (mounted.path / "d").iterdir()] == ["00"]
    assert not (mounted.path / "d" / "07").exists()
    (mounted.path / "d" / "08").write_bytes(b"new here")
    assert (mounted.path / "d" / "08").read_bytes() == b"new here"
    mounted.terminate(signal.SIGKILL)
    mounted.close()
    time.sleep(1.1)  # the store's clock tells seconds
    minio_client.put_object(bucket, "d/09", io.BytesIO(b"another's"), 9)
    mounted.start()
    assert sorted(path.name for path in (mounted.path / "d").iterdir()) == ["00", "09"]
    proxy.faults.clear()
    assert mounted.unmount() == 0
    # The file written anew had been closed: it is found, and finished by the next mount.
    Recovering(mounted, seaweed)("--upload")
    # Where the upload began before the kill, its look at what the store can do could not tidy up.
    left = [name for name in names(minio_client, bucket) if ".ossfs-py-probe-" not in name]
    assert left == ["d/00", "d/08", "d/09"]
    assert stored(minio_client, bucket, "d/08") == b"new here"
    assert stored(minio_client, bucket, "d/09") == b"another's"


def markers(minio_client: Minio, bucket: str) -> list[str]:
    """Keys of the markers in the bucket."""
    return [name for name in names(minio_client, bucket) if name.endswith("/")]


def sent_markers(proxy: Proxy, key: str) -> list[Mapping[str, str]]:
    """The headers that a marker was sent with; SeaweedFS keeps no metadata of one."""
    puts = [one for one in proxy.exchanges if one.operation == "PutObject"]
    return [one.headers for one in puts if one.key == key]


def test_a_directory_is_sent_with_all_that_was_done_to_it(
    mount: MountFactory, seaweed: SeaweedServer, proxy: Proxy, bucket: str, minio_client: Minio
) -> None:
    mounted = mount(bucket, write_back=True, endpoint=proxy.endpoint)
    for name in ("made", "short", "moved"):
        (mounted.path / name).mkdir()
    (mounted.path / "made" / "inner").mkdir(mode=0o700)
    (mounted.path / "made").chmod(0o750)
    os.utime(mounted.path / "made", (1e9, 1e9))
    (mounted.path / "short").rmdir()
    (mounted.path / "moved").rename(mounted.path / "there")
    assert sorted(path.name for path in mounted.path.iterdir()) == ["made", "there"]
    assert ossfs("sync", mounted.path, environment=seaweed.environment).code == 0
    assert markers(minio_client, bucket) == ["made/", "made/inner/", "there/"]
    sent = sent_markers(proxy, "made/")[-1]
    assert (sent["x-amz-meta-mode"], sent["x-amz-meta-mtime"]) == (str(0o40750), "1000000000")
    inner = sent_markers(proxy, "made/inner/")[-1]
    assert inner["x-amz-meta-mode"] == str(0o40700)


def test_what_waits_for_one_bucket_comes_to_no_other(
    mount: MountFactory,
    seaweed: SeaweedServer,
    proxy: Proxy,
    bucket: str,
    minio_client: Minio,
) -> None:
    mounted = mount(bucket, write_back=True, endpoint=proxy.endpoint)
    hold_uploads(proxy)
    (mounted.path / "file").write_bytes(b"content")
    (mounted.path / "directory").mkdir()
    kill(mounted)
    proxy.faults.clear()
    other = make_bucket(seaweed)
    mounted.source = other
    mounted.start()
    assert list(mounted.path.iterdir()) == []
    assert mounted.unmount() == 0
    mounted.close()
    assert names(minio_client, other) == []
    assert pending(mounted) == 1
    mounted.source = bucket
    mounted.start()
    assert (mounted.path / "directory").is_dir()
    assert mounted.unmount() == 0
    mounted.close()
    assert Recovering(mounted, seaweed)("--upload").code == 0
    assert stored(minio_client, bucket, "file") == b"content"
    minio_client.remove_bucket(other)


def test_directories_of_a_killed_daemon_are_made_by_the_next_mount(
    mount: MountFactory, proxy: Proxy, bucket: str, minio_client: Minio
) -> None:
    mounted = mount(bucket, write_back=True, endpoint=proxy.endpoint)
    hold_uploads(proxy)
    # Each change at once: what is on its way to the store after three seconds is waited for.
    (mounted.path / "d00").mkdir()
    (mounted.path / "d00").chmod(0o711)
    (mounted.path / "d01").mkdir()
    (mounted.path / "d01").rmdir()
    (mounted.path / "d02").mkdir()
    (mounted.path / "d02").rename(mounted.path / "moved")
    for number in range(3, 20):
        (mounted.path / f"d{number:02}").mkdir()
    mounted.terminate(signal.SIGKILL)
    mounted.close()
    proxy.faults.clear()
    mounted.start()
    wanted = ["d00", *(f"d{number:02}" for number in range(3, 20)), "moved"]
    assert sorted(path.name for path in mounted.path.iterdir()) == wanted
    assert markers(minio_client, bucket) == [f"{name}/" for name in wanted]
    assert sent_markers(proxy, "d00/")[-1]["x-amz-meta-mode"] == str(0o40711)


def test_directories_that_the_store_does_not_take_are_told(
    mount: MountFactory, seaweed: SeaweedServer, proxy: Proxy, bucket: str, minio_client: Minio
) -> None:
    mounted = mount(bucket, write_back=True, endpoint=proxy.endpoint)
    proxy.faults.append(Fault("PutObject", times=None, status=403, code="AccessDenied"))
    (mounted.path / "d").mkdir()
    outcome = ossfs("sync", mounted.path, environment=seaweed.environment)
    assert outcome.code == 1
    assert "a directory or link is not in the bucket" in outcome.sentence
    assert mounted.unmount() == 1
    assert "the next mount makes them" in mounted.log
    mounted.close()
    proxy.faults.clear()
    mounted.start()
    assert markers(minio_client, bucket) == ["d/"]


@pytest.mark.parametrize("is_killed", [False, True], ids=["", "killed"])
def test_what_is_made_in_place_of_a_removed_directory_or_file_stays(
    mount: MountFactory,
    seaweed: SeaweedServer,
    bucket: str,
    minio_client: Minio,
    *,
    is_killed: bool,
) -> None:
    """SeaweedFS has one entry for a directory and a file of a name: one must go before the other
    comes.
    """
    mounted = mount(bucket, data_path="temp", write_back=True)
    for name in ("to-file", "to-link", "to-synced"):
        (mounted.path / name / "below").mkdir(parents=True)
    (mounted.path / "to-directory").touch()
    assert ossfs("sync", mounted.path, environment=seaweed.environment).code == 0
    for name in ("to-file", "to-link", "to-synced"):
        (mounted.path / name / "below").rmdir()
        (mounted.path / name).rmdir()
    (mounted.path / "to-file").touch()
    (mounted.path / "to-link").symlink_to("anywhere")
    with (mounted.path / "to-synced").open("wb") as file:
        os.fsync(file.fileno())
    (mounted.path / "to-directory").unlink()
    (mounted.path / "to-directory").mkdir()
    if is_killed:
        kill(mounted)
        mounted.start()
    assert ossfs("sync", mounted.path, environment=seaweed.environment).code == 0
    assert sorted(path.name for path in mounted.path.iterdir()) == [
        "to-directory",
        "to-file",
        "to-link",
        "to-synced",
    ]
    assert mounted.unmount() == 0
    assert names(minio_client, bucket) == ["to-directory/", "to-file", "to-link", "to-synced"]

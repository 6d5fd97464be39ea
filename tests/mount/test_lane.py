"""The fast lane and pyfuse3 alone answer the same to one program that asks for everything."""

import mmap
import os
import threading
from pathlib import Path

import pytest
from minio import Minio

from tests.support.mounting import Mount
from tests.support.seaweed import SeaweedServer

MIB = 1024**2


def seen_by_programs(root: Path) -> list[object]:
    """What a program is told that makes, reads, lists and removes."""
    told: list[object] = []
    content = os.urandom(3 * MIB)
    (root / "dir").mkdir()
    names = [f"entry-{number:04}-{'x' * 200}" for number in range(3)]
    for name in names:
        (root / "dir" / name).write_bytes(name.encode())
    (root / "link").symlink_to("dir/" + names[0])
    (root / "file").write_bytes(content)
    told += [
        (root / "file").stat().st_size,
        (root / "link").read_text(),
        str((root / "link").readlink()),
    ]
    descriptor = os.open(root / "file", os.O_RDWR)
    told.append(os.pread(descriptor, 2 * MIB, MIB // 2) == content[MIB // 2 : MIB // 2 + 2 * MIB])
    told.append(os.pread(descriptor, MIB, 3 * MIB - 7) == content[-7:])
    os.pwrite(descriptor, b"changed", MIB)
    os.fsync(descriptor)
    os.ftruncate(descriptor, 2 * MIB)
    os.close(descriptor)
    content = (content[:MIB] + b"changed" + content[MIB + 7 :])[: 2 * MIB]
    with (root / "file").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        told.append(mapped[:] == content)
        mapped[5:8] = b"map"
        mapped.flush()
    content = content[:5] + b"map" + content[8:]
    told.append((root / "file").read_bytes() == content)
    os.setxattr(root / "file", "user.note", b"value")
    told += [os.getxattr(root / "file", "user.note"), os.listxattr(root / "file")]
    for name in ("user.absent", "security.capability"):
        with pytest.raises(OSError, match="No data"):
            os.getxattr(root / "file", name)
    (root / "file").rename(root / "renamed")
    told.append(sorted(entry.name for entry in root.iterdir()))
    told.append(sorted(entry.stat().st_size for entry in os.scandir(root / "dir")))
    for missing in (root / "file", root / "dir" / "absent"):
        with pytest.raises(FileNotFoundError):
            missing.stat()
    appended = [threading.Thread(target=_append, args=(root / "log",)) for _ in range(8)]
    for thread in appended:
        thread.start()
    for thread in appended:
        thread.join()
    told.append((root / "log").read_bytes() == b"line\n" * 80)
    (root / "renamed").unlink()
    (root / "link").unlink()
    told.append(os.statvfs(root).f_namemax)
    return told


def _append(path: Path) -> None:
    with path.open("ab", buffering=0) as file:
        for _ in range(10):
            file.write(b"line\n")


@pytest.mark.parametrize("lane", ["auto", "off"])
def test_programs_are_told_the_same_with_the_lane_and_without(
    lane: str, tmp_path: Path, seaweed: SeaweedServer, bucket: str, minio_client: Minio
) -> None:
    with Mount(
        bucket,
        tmp_path,
        endpoint=seaweed.endpoint,
        environment=seaweed.environment,
        fuse_lane=lane,
        log_level="debug",
    ) as mount:
        told = seen_by_programs(mount.path)
        assert mount.unmount() == 0, mount.log
    assert ("the fast lane answers" in mount.log) == (lane == "auto")
    assert "Traceback" not in mount.log
    assert told[:5] == [
        3 * MIB,
        "entry-0000-" + "x" * 200,
        "dir/entry-0000-" + "x" * 200,
        True,
        True,
    ]
    assert told[5:9] == [True, True, b"value", ["user.note"]]
    assert told[9:] == [["dir", "link", "renamed"], [211, 211, 211], True, 255]
    answer = minio_client.get_object(bucket, "log")
    assert answer.read() == b"line\n" * 80
    answer.close()
    answer.release_conn()

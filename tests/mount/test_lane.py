"""The fast lane and pyfuse3 alone answer the same to one program that asks for everything."""

import io
import json
import mmap
import os
import random
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
from minio import Minio

from tests.support.mounting import Mount
from tests.support.seaweed import SeaweedServer

MIB = 1024**2
KNOWS_NO_FLUSH = tuple(map(int, os.uname().release.split(".")[:2])) >= (5, 16)
"""Whether the kernel can be told that close(2) of what is only read need not be told."""


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
    for name in ("security.selinux", "system.posix_acl_access"):
        with pytest.raises(OSError, match="not supported"):
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
        access_log=tmp_path / "asked",
    ) as mount:
        told = seen_by_programs(mount.path)
        only_read = next((mount.path / "dir").iterdir())
        only_read.read_bytes()
        asked = [json.loads(line) for line in (tmp_path / "asked").read_text().splitlines()]
        assert mount.unmount() == 0, mount.log
    assert ("the fast lane answers" in mount.log) == (lane == "auto")
    assert "Traceback" not in mount.log
    # Mount.start and the program asked; the daemon, which could not be killed meanwhile, did not.
    assert [line["operation"] for line in asked].count("statfs") == 2
    about = [line["operation"] for line in asked if line.get("path") == f"/dir/{only_read.name}"]
    if KNOWS_NO_FLUSH:
        since = about[about.index("open") :]
        assert since.count("flush") == (since.count("open") if lane == "off" else 0)
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


@pytest.mark.parametrize("lane", ["auto", "off"])
def test_trees_are_removed_alike_with_the_lane_and_without(
    lane: str, tmp_path: Path, seaweed: SeaweedServer, bucket: str, minio_client: Minio
) -> None:
    """With write-back the lane removes most files without a handler."""
    stored = [f"tree/{folder}/{number:02}" for folder in "ab" for number in range(30)]
    for key in (*stored, "tree/b/open", "lone/file"):
        minio_client.put_object(bucket, key, io.BytesIO(b"content"), 7)
    with Mount(
        bucket,
        tmp_path,
        endpoint=seaweed.endpoint,
        environment=seaweed.environment,
        fuse_lane=lane,
        write_back=True,
    ) as mount:
        tree = mount.path / "tree"
        (tree / "a" / "new").write_bytes(b"not sent yet")
        with (tree / "b" / "open").open("rb") as read:
            for name in ("open", "00", "01"):
                (tree / "b" / name).unlink()
                with pytest.raises(FileNotFoundError):
                    (tree / "b" / name).unlink()
            with pytest.raises(IsADirectoryError):
                (tree / "b").unlink()
            with pytest.raises(OSError, match="not empty"):
                tree.rmdir()
            assert read.read() == b"content"
        (tree / "b" / "01").write_bytes(b"made anew")
        shutil.rmtree(tree / "a")
        (mount.path / "lone" / "file").unlink()
        left = {place: {each.name for each in place.iterdir()} for place in (tree, tree / "b")}
        assert left == {tree: {"b"}, tree / "b": {f"{number:02}" for number in range(1, 30)}}
        assert list((mount.path / "lone").iterdir()) == []
        assert mount.unmount() == 0, mount.log
    there = {each.object_name for each in minio_client.list_objects(bucket, recursive=True)}
    assert {key for key in there if not key.endswith("/")} == {
        f"tree/b/{number:02}" for number in range(1, 30)
    }
    answer = minio_client.get_object(bucket, "tree/b/01")
    assert answer.read() == b"made anew"
    answer.close()
    answer.release_conn()


class MountWithoutHands(Mount):
    """Its reply threads die of the first answer that is worth a thread."""

    @property
    def arguments(self) -> list[str]:
        """Runs the daemon in an interpreter where copying a long answer raises."""
        code = (
            "import runpy, sys; from ossfs_py.fuse import lane, replying\n"
            "def die(*_): raise MemoryError('no memory for an answer')\n"
            "replying.write_answer = die; runpy.run_module('ossfs_py', run_name='__main__')"
        )
        _python, _m, _name, *rest = super().arguments
        return [sys.executable, "-c", code, *rest]


def test_a_daemon_whose_reply_threads_die_says_so_and_keeps_what_was_written(
    tmp_path: Path, seaweed: SeaweedServer, bucket: str, minio_client: Minio
) -> None:
    content = os.urandom(MIB)
    with MountWithoutHands(
        bucket, tmp_path, endpoint=seaweed.endpoint, environment=seaweed.environment
    ) as mount:
        (mount.path / "file").write_bytes(content)
        changed = os.open(mount.path / "file", os.O_RDWR | os.O_DIRECT)
        try:
            buffer = mmap.mmap(-1, MIB)
            buffer[:] = bytes(MIB)
            os.pwritev(changed, [buffer], 0)
            with pytest.raises(OSError, match=r"abort|not connected"):
                os.preadv(changed, [buffer], 0)
        finally:
            with pytest.raises(OSError, match="not connected"):
                os.close(changed)
        assert mount.wait() == 1
    assert "no memory for an answer" in mount.log
    assert f"{mount.path} is taken down: a thread that answers the kernel died" in mount.log
    answer = minio_client.get_object(bucket, "file")
    assert answer.read() == bytes(MIB)
    answer.close()
    answer.release_conn()


class MountThatCutsAnswers(Mount):
    """Each answer to a READ that begins at the fourth MiB is a page too short."""

    @property
    def arguments(self) -> list[str]:
        """Runs the daemon in an interpreter where bytes in memory and fetched bytes are cut."""
        code = (
            "import runpy; from ossfs_py.filesystem.operations import Filesystem as F\n"
            f"def cut(at, data): return data if data is None or at != {4 * MIB} else data[:-4096]\n"
            "soon, later = F.read_nowait, F.read\n"
            "F.read_nowait = lambda self, fh, at, size: cut(at, soon(self, fh, at, size))\n"
            "async def read(self, fh, at, size): return cut(at, await later(self, fh, at, size))\n"
            "F.read = read; runpy.run_module('ossfs_py', run_name='__main__')"
        )
        _python, _m, _name, *rest = super().arguments
        return [sys.executable, "-c", code, *rest]


@pytest.mark.parametrize("lane", ["auto", "off"])
@pytest.mark.parametrize("how", ["whole", "in parts"])
def test_a_short_answer_before_the_end_of_a_file_is_noticed_by_whoever_compares(
    how: str, lane: str, tmp_path: Path, seaweed: SeaweedServer, bucket: str
) -> None:
    """The kernel reports none: it takes the answer for the end of the file. So both ways in which
    the suites read files must show it. (With O_DIRECT it asks for the rest itself.)"""
    content = random.Random(3).randbytes(6 * MIB)
    (tmp_path / "source").write_bytes(content)
    seaweed.put_file(bucket, "file", tmp_path / "source")
    with MountThatCutsAnswers(
        bucket,
        tmp_path,
        endpoint=seaweed.endpoint,
        environment=seaweed.environment,
        fuse_lane=lane,
        data_path="direct",
    ) as mount:
        path = mount.path / "file"
        assert _read_from(path, 0, 3 * MIB, "in parts") == content[: 3 * MIB]
        # At the fourth MiB the kernel begins a READ of its own: nothing is read ahead of a jump.
        assert _read_from(path, 4 * MIB, 6 * MIB, how) != content[4 * MIB :]


def _read_from(path: Path, start: int, end: int, how: str) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        step = end - start if how == "whole" else MIB // 4
        return b"".join(os.pread(fd, step, at) for at in range(start, end, step))
    finally:
        os.close(fd)


class MountNearPrograms(Mount):
    """Takes it for faster to wait on a program's own processor."""

    @property
    def arguments(self) -> list[str]:
        """Runs the daemon in an interpreter where no measurement speaks against that."""
        code = (
            "import runpy; from ossfs_py.fuse import nearness\n"
            "nearness._WORTHWHILE = nearness._RARE_SECONDS = 1e9\n"
            "runpy.run_module('ossfs_py', run_name='__main__')"
        )
        _python, _m, _name, *rest = super().arguments
        return [sys.executable, "-c", code, *rest]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one processor")
def test_a_lone_program_is_answered_on_its_processor_and_threads_run_on_any(
    tmp_path: Path, seaweed: SeaweedServer, bucket: str
) -> None:
    with MountNearPrograms(
        bucket, tmp_path, endpoint=seaweed.endpoint, environment=seaweed.environment
    ) as mount:
        written, seen = 0, set[int]()
        with (mount.path / "lines").open("wb", buffering=0) as file:
            deadline = time.monotonic() + 60
            while len(seen) != 1 and time.monotonic() < deadline:
                written += sum(file.write(b"x") for _ in range(200))
                seen = os.sched_getaffinity(mount.pid)
            assert len(seen) == 1
            (mount.path / "long").write_bytes(bytes(24 * MIB))  # threads are started
            written += sum(file.write(b"x") for _ in range(200))
        for task in Path(f"/proc/{mount.pid}/task").iterdir():
            if task.name != str(mount.pid):
                assert os.sched_getaffinity(int(task.name)) == os.sched_getaffinity(0)
        assert (mount.path / "lines").stat().st_size == written
        assert mount.unmount() == 0, mount.log

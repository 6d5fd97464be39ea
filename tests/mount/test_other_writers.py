"""Changes that other clients make while programs work here: seen right, and nothing lost.

``place.put`` and the minio client are the other client. The mounts of this module remember what
they were told for a minute, so that a change is seen sooner only if something tells of it.
"""

import contextlib
import errno
import io
import os
import stat
import subprocess
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.commands import ossfs
from tests.support.errnos import refused, refused_as
from tests.support.faults import Fault
from tests.support.patience import PATIENCE_SECONDS, wait_until
from tests.support.proxy import Proxy
from tests.support.workplace import Workplace

MIB = 1024**2


@pytest.mark.parametrize("meeting", ["utimens", "chmod", "truncate", "setfattr", "cat"])
def test_what_is_written_after_others_deleted_the_file_is_stored(
    place: Workplace, meeting: str
) -> None:
    place.put("status.json", b"{}")
    path = place.path / "status.json"
    path.stat()
    place.erase("status.json")
    meet = {
        "utimens": lambda: os.utime(path),
        "chmod": lambda: path.chmod(0o600),
        "truncate": lambda: os.truncate(path, 1),
        "setfattr": lambda: os.setxattr(path, "user.colour", b"blue"),
        "cat": path.read_bytes,
    }[meeting]
    with refused_as(errno.ENOENT, errno.ESTALE):
        meet()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.write(fd, b"precious")
    os.fsync(fd)
    os.close(fd)
    assert place.stored("status.json") == b"precious"
    assert path.read_bytes() == b"precious"


def test_a_name_that_was_found_gone_is_free_at_once_also_for_others(place: Workplace) -> None:
    place.put("f", b"1")
    path = place.path / "f"
    path.stat()
    place.erase("f")
    with refused_as(errno.ENOENT):
        os.utime(path)
    wait_until(lambda: not path.exists())  # the kernel is told of names by a thread
    place.put("f", b"made anew by others")
    assert path.read_bytes() == b"made anew by others"


def test_a_writer_whose_file_others_replaced_is_refused_and_their_bytes_stay(
    place: Workplace,
) -> None:
    place.put("f", b"x" * 8_000_000)
    path = place.path / "f"
    with path.open("r+b", buffering=0) as writer:
        assert writer.read(10) == b"x" * 10
        place.put("f", b"theirs")
        with refused(errno.ESTALE):
            os.pread(writer.fileno(), 10, 7_900_000)
        with refused(errno.ESTALE):
            writer.write(b"ours")
    assert place.stored("f") == b"theirs"
    wait_until(lambda: path.read_bytes() == b"theirs")


# -- the version that is there now ----------------------------------------------------------------


@pytest.mark.parametrize("new", [b"step 2\n", b"2\n", b"step 2 of many\n" * 3])
def test_a_file_replaced_before_it_was_opened_is_read_as_it_is_now(
    place: Workplace, new: bytes
) -> None:
    place.put("latest", b"step 1\n")
    place.run("ls", "-l")
    place.put("latest", new)
    assert place.run("cat", "latest").encode() == new


def test_a_large_file_replaced_before_it_was_opened_is_read_as_it_is_now(place: Workplace) -> None:
    place.put("model", b"1" * 9_000_000)
    place.run("ls", "-l")
    place.put("model", b"2" * 9_500_000)
    assert (place.path / "model").read_bytes() == b"2" * 9_500_000


def copy_by_the_kernel(how: str, source: Path, target: Path) -> None:
    """Without read(2): the kernel moves the bytes up to the end that it knows."""
    if how == "cp":
        subprocess.run(["cp", source, target], check=True)
        return
    with source.open("rb") as theirs, target.open("wb") as ours:
        step = {
            "sendfile": lambda: os.sendfile(ours.fileno(), theirs.fileno(), None, 1 << 30),
            "copy_file_range": lambda: os.copy_file_range(theirs.fileno(), ours.fileno(), 1 << 30),
        }[how]
        while step():
            pass


@pytest.mark.parametrize("how", ["cp", "sendfile", "copy_file_range"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"step 1\n", b"step 2 of many\n" * 3),
        (b"1" * 4095, b"2" * 4097),
        (b"1" * 9_000_000, b"2" * 9_500_000),
        (b"step 1 of many\n", b"step 2\n"),
    ],
    ids=["one page", "one page more", "large", "shorter"],
)
def test_a_file_replaced_before_it_was_opened_is_copied_whole(
    place: Workplace, how: str, old: bytes, new: bytes
) -> None:
    place.put("latest", old)
    place.run("ls", "-l")
    place.put("latest", new)
    copy_by_the_kernel(how, place.path / "latest", place.path / "copy")
    assert place.stored("copy") == new
    place.put("again", old)
    place.run("ls", "-l")
    place.put("again", new)
    if how != "copy_file_range":  # it stays within a file system
        copy_by_the_kernel(how, place.path / "again", place.local / "copy")
        assert (place.local / "copy").read_bytes() == new


@pytest.mark.parametrize("how", ["cp", "sendfile"])
def test_a_file_replaced_before_it_was_opened_is_copied_whole_without_the_lane(
    mount: MountFactory, bucket: str, minio_client: Minio, tmp_path: Path, how: str
) -> None:
    mounted = mount(bucket, fuse_lane="off", write_back=True)
    for old, new in ((b"1" * 10, b"2" * 20), (b"1" * 9_000_000, b"2" * 9_500_000)):
        for content in (old, new):
            minio_client.put_object(bucket, f"f{len(old)}", io.BytesIO(content), len(content))
            (mounted.path / f"f{len(old)}").stat()
        copy_by_the_kernel(how, mounted.path / f"f{len(old)}", tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == new


def test_a_file_deleted_before_it_was_opened_is_not_there(place: Workplace) -> None:
    place.put("gone", b"1")
    place.run("ls", "-l")
    place.erase("gone")
    with refused(errno.ENOENT):
        (place.path / "gone").read_bytes()


@pytest.mark.parametrize("known", ["read", "seen"])
def test_shells_that_append_in_turn_with_others_lose_no_line(place: Workplace, known: str) -> None:
    place.put("log", b"a\n")
    expected = b"a\n"
    for number in range(5):
        place.run("cat" if known == "read" else "ls", "log")
        expected += b"theirs %d\n" % number
        place.put("log", expected)
        place.run("sh", "-c", f"echo ours {number} >> log")
        expected += b"ours %d\n" % number
        assert place.stored("log") == expected
        assert (place.path / "log").read_bytes() == expected


def test_lines_appended_while_others_append_are_all_there(place: Workplace) -> None:
    place.put("log", b"a\n")
    with (place.path / "log").open("ab", buffering=0) as ours:
        ours.write(b"ours 1\n")
        place.put("log", b"a\ntheirs\n")
        os.fsync(ours.fileno())
        assert place.stored("log") == b"a\ntheirs\nours 1\n"
        ours.write(b"ours 2\n")
        ours.write(b"ours 3\n")
    assert place.stored("log") == b"a\ntheirs\nours 1\nours 2\nours 3\n"
    assert (place.path / "log").read_bytes() == place.stored("log")


def test_a_change_in_the_middle_of_what_others_replaced_is_refused(place: Workplace) -> None:
    place.put("f", b"0123456789")
    ours = os.open(place.path / "f", os.O_RDWR)
    os.pwrite(ours, b"xx", 3)
    place.put("f", b"theirs")
    with refused(errno.ESTALE):
        os.close(ours)
    assert place.stored("f") == b"theirs"
    wait_until(lambda: (place.path / "f").read_bytes() == b"theirs")


@pytest.mark.parametrize("how", ["seen", "read", "listed"])
def test_refresh_of_a_file_that_others_deleted_takes_it_out_of_sight(
    place: Workplace, how: str
) -> None:
    place.put("gone", b"x" * 100)
    path = place.path / "gone"
    if how == "read":
        path.read_bytes()
    elif how == "listed":
        place.run("ls", "-l")
    assert path.stat().st_size == 100
    place.erase("gone")
    assert path.exists()
    outcome = ossfs("refresh", path, environment={})
    assert outcome.code == 0
    assert "it is gone from the bucket" in outcome.out
    assert not path.exists()


@pytest.mark.parametrize("lane", ["auto", "off"])
def test_links_and_pipes_never_replace_what_others_stored_meanwhile(
    mount: MountFactory, bucket: str, minio_client: Minio, lane: str
) -> None:
    mounted = mount(bucket, negative_ttl="60s", fuse_lane=lane)
    for name, make in (
        ("link", lambda path: path.symlink_to("target")),
        ("pipe", os.mkfifo),
        ("socket", lambda path: os.mknod(path, stat.S_IFSOCK | 0o600)),
    ):
        path = mounted.path / name
        assert not path.exists()
        minio_client.put_object(bucket, name, io.BytesIO(b"theirs"), 6)
        with refused(errno.EEXIST):
            make(path)
        answer = minio_client.get_object(bucket, name)
        assert answer.read() == b"theirs"
        answer.close()
        answer.release_conn()


@pytest.mark.parametrize("size", [10, 9_000_000])
def test_a_link_takes_the_name_of_a_removed_file_that_is_read(place: Workplace, size: int) -> None:
    path = place.path / "f"
    place.put("f", b"x" * size)
    with path.open("rb", buffering=0) as reader:
        assert reader.read(1) == b"x"
        path.unlink()
        path.symlink_to("target")
        assert str(path.readlink()) == "target"
        assert os.pread(reader.fileno(), 5, size - 5) == b"xxxxx"
    wait_until(lambda: "symlink-target" in place.stored_metadata("f"))
    path.unlink()
    os.mkfifo(path)
    assert "f" in place.stored_names()


# -- numbers -------------------------------------------------------------------------------------


def test_inode_numbers_and_handles_outlive_a_remount(mount: MountFactory, bucket: str) -> None:
    one = mount(bucket, data_path="direct")
    for n in range(20):
        (one.path / f"d{n}").mkdir()
        (one.path / f"d{n}" / "f").write_bytes(b"%d" % n)
    numbers = {n: (one.path / f"d{n}" / "f").stat().st_ino for n in range(20)}
    assert one.unmount() == 0
    one.start()
    assert {n: (one.path / f"d{n}" / "f").stat().st_ino for n in reversed(range(20))} == numbers


# -- what other tools keep -----------------------------------------------------------------------


def test_pipes_and_sockets_are_kept_as_s3fs_keeps_them(place: Workplace) -> None:
    pipe, bound = place.path / "pipe", place.path / "socket"
    os.mkfifo(pipe, 0o640)
    os.mknod(bound, stat.S_IFSOCK | 0o600)
    assert place.stored("pipe") == b""
    assert place.stored_metadata("pipe")["mode"] == str(stat.S_IFIFO | 0o640)
    assert place.stored_metadata("socket")["mode"] == str(stat.S_IFSOCK | 0o600)
    place.put("theirs", b"", {"mode": str(stat.S_IFIFO | 0o600), "uid": "0", "gid": "0"})
    assert pipe.is_fifo()
    assert bound.is_socket()
    assert (place.path / "theirs").is_fifo()
    writer = subprocess.Popen(["sh", "-c", f"echo through > {pipe}"])
    assert pipe.read_text() == "through\n"
    assert writer.wait(PATIENCE_SECONDS) == 0
    pipe.chmod(0o600)
    pipe.rename(place.path / "other")
    assert stat.filemode((place.path / "other").stat().st_mode) == "prw-------"
    (place.path / "other").unlink()
    assert "other" not in place.stored_names()


# -- short views ---------------------------------------------------------------------------------


@pytest.fixture
def brief(mount: MountFactory, bucket: str, data_path: str, minio_client: object) -> Workplace:
    """A workplace on a mount that asks again after a tenth of a second."""
    one = mount(bucket, data_path=data_path, metadata_ttl="100ms")
    return Workplace.make(one, minio_client, one.path)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1_000_000, 4_000_000], ids=["shorter", "longer"])
def test_a_reader_of_a_file_that_was_replaced_meets_no_early_end_and_no_zeros(
    brief: Workplace, size: int
) -> None:
    old, new = b"o" * 2_000_000, b"n" * size
    brief.put("f", old)
    path = brief.path / "f"
    with path.open("rb", buffering=0) as reader:
        assert reader.read(4096) == old[:4096]
        brief.put("f", new)
        wait_until(lambda: path.stat().st_size == size)
        assert os.fstat(reader.fileno()).st_size == len(old)
        assert os.fstat(reader.fileno()).st_ino != path.stat().st_ino
        try:
            got = b"".join(iter(lambda: reader.read(100_000), b""))
        except OSError as exc:
            assert exc.errno == errno.ESTALE
        else:
            assert got == old[4096:]
        assert os.pread(reader.fileno(), 10, len(old)) == b""
        assert path.read_bytes() == new


def test_a_reader_at_the_old_end_goes_on_with_what_others_append_and_with_nothing_else(
    brief: Workplace,
) -> None:
    log = b"".join(b"step %d\n" % number for number in range(3000))
    brief.put("log", log[:5000])
    path = brief.path / "log"
    with path.open("rb", buffering=0) as reader:
        seen = reader.read(MIB)
        for end in (12_000, 12_001, 20_480, len(log)):
            brief.put("log", log[:end])
            wait_until(lambda end=end: os.fstat(reader.fileno()).st_size == end)  # type: ignore[misc]
            while data := reader.read(MIB):
                seen += data
            assert seen == log[:end]
        brief.put("log", b"another log\n" + bytes(2 * len(log)))
        wait_until(lambda: path.stat().st_size > 2 * len(log))
        assert reader.read(100) == b""
        assert os.fstat(reader.fileno()).st_size == len(log)
        assert path.read_bytes().startswith(b"another log\n")


def test_a_reader_in_the_middle_goes_on_when_others_append(brief: Workplace) -> None:
    """The store refuses the version that it reads: it has one that begins with all of it."""
    content = os.urandom(4 * MIB)
    brief.put("log", content)
    with (brief.path / "log").open("rb", buffering=0) as reader:
        os.posix_fadvise(reader.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(reader.fileno(), 1000, 0) == content[:1000]
        brief.put("log", content + b"more")
        assert os.pread(reader.fileno(), 1000, 3 * MIB) == content[3 * MIB :][:1000]


def test_the_time_of_a_directory_moves_when_others_add_a_file(brief: Workplace) -> None:
    brief.put("models/one.safetensors", b"x")
    directory = brief.path / "models"
    list(directory.iterdir())
    before = directory.stat().st_mtime_ns
    brief.put("models/two.safetensors", b"y")
    wait_until(lambda: len(list(directory.iterdir())) == 2)
    wait_until(lambda: directory.stat().st_mtime_ns > before)

    def links() -> int:
        list(directory.iterdir())  # a listing that has grown old says nothing of subdirectories
        return directory.stat().st_nlink

    wait_until(lambda: links() == 2)


def test_a_bucket_that_is_deleted_and_made_again(
    proxy: Proxy, mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    """What is written is told to be unsaved while there is no bucket, and is stored in the new one;
    nothing of the old one is seen there. No call is tried again for long.

    The proxy says that there is no bucket: SeaweedFS makes a missing one when it is written to.
    """
    mounted = mount(
        bucket,
        endpoint=proxy.endpoint,
        metadata_ttl="100ms",
        negative_ttl="0s",
        retry_budget="2s",
    )
    place = Workplace.make(mounted, minio_client, mounted.path)
    place.put("old", b"of the first bucket")
    assert (place.path / "old").read_bytes() == b"of the first bucket"
    kept = os.open(place.path / "kept", os.O_WRONLY | os.O_CREAT)
    os.write(kept, b"precious")
    log = os.open(place.path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(log, b"a line\n")
    place.erase("old")
    proxy.faults = [Fault(status=404, code="NoSuchBucket", times=None)]
    wait_until(lambda: not (place.path / "old").exists())
    with refused(errno.ENOENT):
        (place.path / "directory").mkdir()
    with refused(errno.EIO):  # readdir(3) takes ENOENT for the end: all would seem to be deleted
        list(mounted.path.iterdir())
    for fd, name in ((kept, "kept"), (log, "log")):
        proxy.reset()
        with refused(errno.ENOENT):
            os.fsync(fd)
        asked = [each for each in proxy.exchanges if each.key == place.key(name)]
        assert 1 <= len(asked) <= 12, "nobody else has written it: not ten times"
    proxy.faults = []
    for fd in (kept, log):
        os.fsync(fd)
        os.close(fd)
    assert place.stored("kept") == b"precious"
    assert place.stored("log") == b"a line\n"
    (place.path / "directory").mkdir()
    (place.path / "directory/new").write_bytes(b"new")
    assert place.stored("directory/new") == b"new"
    assert {path.name for path in place.path.iterdir()} == {"directory", "kept", "log"}
    assert mounted.unmount() == 0


def test_a_reader_of_an_empty_file_goes_on_with_what_others_write_but_not_with_a_link(
    brief: Workplace,
) -> None:
    for name in ("log", "linked"):
        brief.put(name, b"")
    with (
        (brief.path / "log").open("rb", buffering=0) as log,
        (brief.path / "linked").open("rb", buffering=0) as linked,
    ):
        assert (log.read(10), linked.read(10)) == (b"", b"")
        brief.put("linked", b"log", {"mode": str(stat.S_IFLNK | 0o777)})
        brief.put("log", b"one\n")
        wait_until(lambda: log.read(10) == b"one\n")
        brief.run("ls", "-l")
        with contextlib.suppress(OSError):
            assert linked.read(10) == b""

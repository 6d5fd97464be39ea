"""Names on a mount and keys in a bucket: which become which, and what a prefix keeps apart."""

import ctypes
import errno
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory, make_bucket
from tests.support.errnos import refused
from tests.support.mounting import Mount
from tests.support.proxy import Proxy
from tests.support.seaweed import SeaweedServer
from tests.support.workplace import Workplace

MAX_KEY_BYTES = 1024
IN_CREATE, IN_DELETE, IN_MOVED_TO, IN_CLOSE_WRITE = 0x100, 0x200, 0x80, 0x8
"""sys/inotify.h."""
AWKWARD = [
    " space before and after ",
    "per%20cent",
    "plus+sign",
    "question?mark=1&other",
    "hash#tag",
    "quotes'\"`",
    "<xml> & co.",
    "new\nline",
    "tab\there",
    "star*[x]{y}|$HOME;!",
    "~tilde",
    "-dash",
    ".hidden",
    "..two dots",
    "数据 données",
    "e\u0301 decomposed",
    "\u00e9 composed",
    "😀",
]


@pytest.fixture(scope="module")
def mounted(
    seaweed: SeaweedServer, module_bucket: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mount]:
    """One mount for all; it must end well and have had no accident."""
    with Mount(
        module_bucket,
        tmp_path_factory.mktemp("names"),
        endpoint=seaweed.endpoint,
        environment=seaweed.environment,
        data_path="direct",
    ) as one:
        yield one
        assert one.unmount() == 0, one.log
    assert "Traceback" not in one.log, one.log


def names_in(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


# -- names --------------------------------------------------------------------------------------


def test_any_name_is_the_key_byte_for_byte(place: Workplace) -> None:
    (place.path / "ours").mkdir()
    (place.path / "theirs").mkdir()
    for name in AWKWARD:
        (place.path / "ours" / name).write_text(name)
        place.put(f"theirs/{name}", name.encode())
    keys = {f"{side}/{name}" for side in ("ours", "theirs") for name in AWKWARD}
    assert place.stored_names() == keys
    for side in ("ours", "theirs"):
        assert names_in(place.path / side) == sorted(AWKWARD)
        for name in AWKWARD:
            assert (place.path / side / name).read_text() == name
            (place.path / side / name).unlink()
    assert place.stored_names() == set()


def test_a_name_that_is_not_utf8_is_refused(place: Workplace) -> None:
    path = place.path / os.fsdecode(b"latin-\xe9")
    for attempt in (
        lambda: os.open(path, os.O_WRONLY | os.O_CREAT, 0o644),
        path.mkdir,
        lambda: path.symlink_to("target"),
        path.stat,
    ):
        with refused(errno.EILSEQ):
            attempt()
    assert place.stored_names() == set()


def test_names_have_255_bytes_and_keys_1024(place: Workplace) -> None:
    longest = "é" * 127 + "x"
    (place.path / longest).write_bytes(b"fits")
    assert place.stored(longest) == b"fits"
    for name in ("é" * 128, "x" * 256):
        with refused(errno.ENAMETOOLONG):
            (place.path / name).write_bytes(b"too long")
    deep, room = place.path, MAX_KEY_BYTES - len(place.prefix)
    while room > 300:
        deep, room = deep / ("d" * 199), room - 200
        deep.mkdir()
    name = "k" * min(room, 255)
    if room > 255:
        deep, room = deep / ("d" * 99), room - 100
        deep.mkdir()
        name = "k" * room
    (deep / name).write_bytes(b"1024")
    key = str((deep / name).relative_to(place.path))
    assert len(place.key(key)) == MAX_KEY_BYTES
    assert place.stored(key) == b"1024"
    for longer in (
        lambda: (deep / f"{name}k").write_bytes(b"1025"),
        # The key of a directory ends with a slash.
        (deep / ("m" * len(name))).mkdir,
        lambda: (deep / name).rename(deep / f"{name}k"),
    ):
        with refused(errno.ENAMETOOLONG):
            longer()
    with refused(errno.ENOENT):
        (deep / f"{name[1:]}x").stat()


def test_a_symlink_target_may_have_any_bytes_and_two_thousand_of_them(place: Workplace) -> None:
    for number, target in enumerate((b"/abs/olute", b"../rel", b"latin-\xe9", b"t" * 1900)):
        link = place.path / f"link{number}"
        link.symlink_to(os.fsdecode(target))
        assert os.fsencode(link.readlink()) == target
        assert link.lstat().st_size == len(target)
    with refused(errno.ENAMETOOLONG):
        (place.path / "long").symlink_to("x" * 4000)


# -- directories --------------------------------------------------------------------------------


def test_an_empty_directory_persists_over_a_remount(
    mount: MountFactory, bucket: str, minio_client: Minio
) -> None:
    first = mount(bucket)
    (first.path / "made/inside").mkdir(parents=True)
    (first.path / "emptied").mkdir()
    (first.path / "emptied/file").touch()
    (first.path / "emptied/file").unlink()
    (first.path / "removed").mkdir()
    (first.path / "removed").rmdir()
    assert first.unmount() == 0
    keys = [item.object_name for item in minio_client.list_objects(bucket, recursive=True)]
    assert keys == ["emptied/", "made/", "made/inside/"]
    second = mount(bucket)
    assert names_in(second.path) == ["emptied", "made"]
    assert names_in(second.path / "made") == ["inside"]
    (second.path / "made/inside").rmdir()
    with refused(errno.ENOENT):
        (second.path / "made/inside").stat()


def test_directories_need_no_marker_and_stay_when_they_are_emptied(place: Workplace) -> None:
    place.put("implicit/deep/file", b"content")
    assert names_in(place.path / "implicit") == ["deep"]
    with refused(errno.ENOTEMPTY):
        (place.path / "implicit").rmdir()
    (place.path / "implicit/deep/file").unlink()
    assert names_in(place.path / "implicit/deep") == []
    (place.path / "implicit/deep").rmdir()
    (place.path / "implicit").rmdir()
    assert place.stored_names() == set()


def test_nothing_of_a_renamed_directory_stays_behind_in_the_store(place: Workplace) -> None:
    place.put("implicit/deep/file", b"content")
    (place.path / "implicit").rename(place.path / "moved")
    listed = place.client.list_objects(place.bucket, place.prefix)
    names = {str(item.object_name).removeprefix(place.prefix) for item in listed}
    assert names - {""} == {"moved/"}
    (place.path / "implicit").mkdir()
    assert names_in(place.path) == ["implicit", "moved"]
    assert place.stored("moved/deep/file") == b"content"


def test_a_directory_hides_an_object_of_its_name_with_one_warning(
    place: Workplace, mounted: Mount
) -> None:
    place.put("both", b"hidden")
    place.put("both/inside", b"seen")
    for _ in range(2):
        assert names_in(place.path) == ["both"]
        assert names_in(place.path / "both") == ["inside"]
    assert (place.path / "both").is_dir()
    assert (place.path / "both/inside").read_bytes() == b"seen"
    warnings = [line for line in mounted.log.splitlines() if f"{place.prefix}both" in line]
    assert len(warnings) == 1
    assert "hidden" in warnings[0]
    # The object is nobody's loss: it is seen again when the directory is gone.
    assert place.stored("both") == b"hidden"


def test_ls_shows_the_directory_itself_and_its_parent(place: Workplace) -> None:
    (place.path / "dir").mkdir()
    listed = place.run("ls", "-la", "dir").splitlines()
    assert [line.split()[-1] for line in listed[1:]] == [".", ".."]
    numbers = [int(line.split()[0]) for line in place.run("ls", "-aiU1", "dir").splitlines()]
    assert numbers == [(place.path / name).stat().st_ino for name in ("dir", ".")]


def test_a_directory_is_read_whole_while_entries_come_and_go(place: Workplace) -> None:
    stay = [f"stay{number:03}" for number in range(60)]
    go = [f"go{number:03}" for number in range(60)]
    for name in stay + go:
        place.put(name, b"")
    seen = []
    with os.scandir(place.path) as entries:
        for number, entry in enumerate(entries):
            seen.append(entry.name)
            if number % 2 == 0 and go:
                (place.path / go.pop()).unlink()
                (place.path / f"new{number:03}").touch()
    assert len(seen) == len(set(seen))
    assert set(stay) <= set(seen)
    assert names_in(place.path) == sorted(place.stored_names())


def test_inotify_tells_of_changes_made_on_this_host(place: Workplace) -> None:
    with watching(place.path, IN_CREATE | IN_DELETE | IN_MOVED_TO | IN_CLOSE_WRITE) as events:
        (place.path / "file").write_bytes(b"content")
        (place.path / "file").rename(place.path / "renamed")
        (place.path / "renamed").unlink()
        assert list(events()) == [
            (IN_CREATE, "file"),
            (IN_CLOSE_WRITE, "file"),
            (IN_MOVED_TO, "renamed"),
            (IN_DELETE, "renamed"),
        ]


@contextmanager
def watching(directory: Path, mask: int) -> Iterator[object]:
    """Yield what reads the events of a directory that have come so far: mask and name."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK)

    def events() -> Iterator[tuple[int, str]]:
        data = os.read(fd, 4096)
        while data:
            _, what, _, size = struct.unpack_from("iIII", data)
            yield what, data[16 : 16 + size].rstrip(b"\0").decode()
            data = data[16 + size :]

    try:
        assert libc.inotify_add_watch(fd, os.fsencode(directory), mask) >= 0
        yield events
    finally:
        os.close(fd)


# -- symlinks -----------------------------------------------------------------------------------


def test_a_symlink_is_stored_as_ossfs_does(place: Workplace) -> None:
    (place.path / "link").symlink_to("dir/the target")
    assert place.stored("link") == b""
    assert place.stored_metadata("link")["symlink-target"] == "header:14:dir/the%20target"
    (place.path / "dir").mkdir()
    (place.path / "dir/the target").write_bytes(b"reached")
    assert (place.path / "link").read_bytes() == b"reached"
    assert "link -> dir/the target" in place.run("ls", "-l", "link")
    (place.path / "link").unlink()
    assert place.stored_names() == {"dir/the target"}


def test_symlinks_of_ossfs_and_s3fs_are_followed(
    mount: MountFactory, bucket: str, minio_client: Minio, tmp_path: Path
) -> None:
    source = Workplace(tmp_path, tmp_path, bucket, "", minio_client)
    source.put("target", b"reached")
    source.put("of-ossfs", b"", {"symlink-target": "header:6:target"})
    source.put("of-ossfs-too", b"target", {"symlink-target": "body:0:", "mode": "41471"})
    source.put("of-s3fs", b"target", {"mode": "41471"})
    mounted = mount(bucket, posix_metadata=True)
    for name in ("of-ossfs", "of-ossfs-too", "of-s3fs"):
        assert str((mounted.path / name).readlink()) == "target"
        assert (mounted.path / name).read_bytes() == b"reached"


# -- prefixes -----------------------------------------------------------------------------------


def test_a_prefix_mount_never_touches_a_key_outside(
    mount: MountFactory, proxy: Proxy, seaweed: SeaweedServer, minio_client: Minio, tmp_path: Path
) -> None:
    bucket = make_bucket(seaweed)
    outside = {"model": b"1", "models.txt": b"2", "models2/file": b"3", "other/file": b"4"}
    whole = Workplace(tmp_path, tmp_path, bucket, "", minio_client)
    for key, content in outside.items():
        whole.put(key, content)
    mounted = mount(f"{bucket}/models", endpoint=proxy.endpoint)
    root = mounted.path
    assert names_in(root) == []
    (root / "dir").mkdir()
    (root / "dir/file").write_bytes(b"content")
    (root / "dir").rename(root / "renamed")
    (root / "link").symlink_to("../models2/file")
    with (root / "open").open("wb") as file:
        file.write(b"unlinked while open")
        (root / "open").unlink()
    with (root / "renamed/file").open("r+b") as file:
        file.write(b"C")
        (root / "renamed/file").unlink()
    subprocess.run(["find", root, "-type", "f"], check=True, capture_output=True)
    with refused(errno.ENOENT):
        (root / "file").stat()
    assert mounted.unmount() == 0
    assert whole.stored_names() == {*outside, "models/link"}
    assert {key: whole.stored(key) for key in outside} == outside
    touched = {exchange.key for exchange in proxy.exchanges if exchange.key}
    sources = {
        exchange.headers["x-amz-copy-source"].lstrip("/")
        for exchange in proxy.exchanges
        if "x-amz-copy-source" in exchange.headers
    }
    assert touched
    assert all(key.startswith("models/") for key in touched), touched
    assert sources
    assert all(source.startswith(f"{bucket}/models/") for source in sources), sources

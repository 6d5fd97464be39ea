"""Modes, owners, times and extended attributes on a mount, in the bucket, and for other users."""

import errno
import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.commands import NOBODY, allow_other_permitted, as_root
from tests.support.errnos import refused
from tests.support.mounting import Mount
from tests.support.seaweed import SeaweedServer
from tests.support.workplace import Workplace

MIB = 1024**2
WRITE_ONLY, READ_WRITE, CREATE = os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT


@pytest.fixture(scope="module")
def mounted(seaweed: SeaweedServer, module_bucket: str) -> Iterator[Mount]:
    """One mount for all, open to other users; it must end well and have had no accident."""
    with (
        allow_other_permitted(),
        # Not below pytest's own directory, which others cannot enter.
        tempfile.TemporaryDirectory() as work,
    ):
        Path(work).chmod(0o711)
        with Mount(
            module_bucket,
            Path(work),
            endpoint=seaweed.endpoint,
            environment=seaweed.environment,
            data_path="direct",
            posix_metadata=True,
            allow_other=True,
        ) as one:
            yield one
            assert one.unmount() == 0, one.log
            assert "Traceback" not in one.log, one.log


# -- modes, owners, times -----------------------------------------------------------------------


def test_modes_owners_and_times_survive_a_remount_in_the_formats_of_s3fs(
    mount: MountFactory, bucket: str, minio_client: Minio, tmp_path: Path
) -> None:
    source = Workplace(tmp_path, tmp_path, bucket, "", minio_client)
    mine = {"uid": str(os.geteuid()), "gid": str(os.getegid())}
    source.put("theirs", b"content", {**mine, "mode": "33188", "mtime": "5.25"})
    with allow_other_permitted():  # root gives files away
        first = mount(bucket, posix_metadata=True, allow_other=True)
    ours = first.path / "ours"
    ours.write_bytes(b"content")
    for path, mtime_ns in ((ours, 1_600_000_000_123_456_789), (first.path / "theirs", 9 * 10**9)):
        path.chmod(0o640)
        os.utime(path, ns=(10**18, mtime_ns))
        as_root("chown", "12:34", path)
    assert first.unmount() == 0
    assert source.stored_metadata("ours")["mode"] == str(0o100640)
    assert source.stored_metadata("ours")["uid"] == "12"
    assert source.stored_metadata("ours")["gid"] == "34"
    assert source.stored_metadata("ours")["mtime"] == "1600000000.123456789"
    assert source.stored("theirs") == b"content"
    second = mount(bucket, posix_metadata=True)
    for name, mtime_ns in (("ours", 1_600_000_000_123_456_789), ("theirs", 9 * 10**9)):
        info = (second.path / name).stat()
        assert stat.S_IMODE(info.st_mode) == 0o640
        assert (info.st_uid, info.st_gid) == (12, 34)
        assert (info.st_atime_ns, info.st_mtime_ns) == (10**18, mtime_ns)
        assert (second.path / name).read_bytes() == b"content"


def test_attributes_changed_while_a_file_is_written_are_stored_with_it(place: Workplace) -> None:
    path = place.path / "file"
    with path.open("wb", buffering=0) as file:
        file.write(b"content")
        os.fchmod(file.fileno(), 0o600)
        os.utime(file.fileno(), ns=(10**18, 2 * 10**18))
        os.setxattr(file.fileno(), "user.key", b"value")
    assert place.stored("file") == b"content"
    assert place.stored_metadata("file")["mode"] == str(0o100600)
    assert place.stored_metadata("file")["mtime"].startswith("2000000000")
    assert os.getxattr(path, "user.key") == b"value"
    assert path.stat().st_mtime_ns == 2 * 10**18


def test_attributes_of_a_large_object_change_without_moving_its_bytes(place: Workplace) -> None:
    content = os.urandom(20 * MIB)
    place.put("file", content)
    path = place.path / "file"
    with path.open("rb") as reader:
        assert reader.read(100) == content[:100]
        path.chmod(0o600)
        os.setxattr(path, "user.key", b"value")
        # The bytes are those that were opened, although their object has another version now.
        assert reader.read() == content[100:]
    assert place.stored("file") == content
    assert place.stored_metadata("file")["mode"] == str(0o100600)


# -- extended attributes ------------------------------------------------------------------------


def test_user_attributes_are_set_listed_and_removed(place: Workplace) -> None:
    path = place.path / "file"
    path.touch()
    assert os.listxattr(path) == []
    os.setxattr(path, "user.text", b"value")
    os.setxattr(path, "user.bytes \xe9", bytes(range(256)))
    os.setxattr(path, "user.empty", b"")
    assert sorted(os.listxattr(path)) == ["user.bytes \xe9", "user.empty", "user.text"]
    assert os.getxattr(path, "user.bytes \xe9") == bytes(range(256))
    assert os.getxattr(path, "user.empty") == b""
    os.removexattr(path, "user.empty")
    with refused(errno.ENODATA):
        os.getxattr(path, "user.empty")
    with refused(errno.ENODATA):
        os.removexattr(path, "user.empty")
    with refused(errno.EEXIST):
        os.setxattr(path, "user.text", b"new", os.XATTR_CREATE)
    with refused(errno.ENODATA):
        os.setxattr(path, "user.none", b"new", os.XATTR_REPLACE)
    os.setxattr(path, "user.text", b"new", os.XATTR_REPLACE)
    path.rename(place.path / "moved")
    assert os.getxattr(place.path / "moved", "user.text") == b"new"
    assert "xattr" in place.stored_metadata("moved")


def test_what_the_store_says_of_an_object_is_read_as_attributes(place: Workplace) -> None:
    path = place.path / "file"
    path.write_bytes(b"content")
    etag = place.client.stat_object(place.bucket, place.key("file")).etag
    assert os.getxattr(path, "user.ossfs.etag").decode().strip('"') == etag
    with refused(errno.EPERM):
        os.setxattr(path, "user.ossfs.etag", b"mine")
    with refused(errno.EOPNOTSUPP):
        os.setxattr(path, "system.key", b"value")
    with refused(errno.E2BIG):
        os.setxattr(path, "user.large", bytes(4000))
    assert os.listxattr(path) == []


# -- programs that look -------------------------------------------------------------------------


def test_df_du_and_find_tell_what_is_there(place: Workplace, mounted: Mount) -> None:
    (place.path / "dir").mkdir()
    (place.path / "dir/large").write_bytes(bytes(3 * MIB))
    (place.path / "old").write_bytes(b"x" * 1000)
    os.utime(place.path / "old", (10**9, 10**9))
    title, line = place.run("df", "--output=source,pcent,target", ".").splitlines()
    assert title.split() == ["Filesystem", "Use%", "Mounted", "on"]
    assert line.split() == [mounted.source, "0%", str(mounted.path)]
    assert os.statvfs(place.path).f_namemax == 255
    assert place.run("du", "-s", "--apparent-size", "-B1", "dir/large").split()[0] == str(3 * MIB)
    assert place.run("du", "-s", "-B1", "dir/large").split()[0] == str(3 * MIB)
    assert place.run("find", ".", "-newer", "old", "-type", "f").split() == ["./dir/large"]
    assert place.run("find", ".", "-mmin", "+60", "-type", "f").split() == ["./old"]
    assert place.run("find", ".", "-type", "f", "-size", "2").split() == ["./old"]
    assert place.run("stat", "-c", "%F %s %h", "old").split("\n")[0] == "regular file 1000 1"


# -- other users --------------------------------------------------------------------------------

# Each line: a call of the module os, the path it is about, its other arguments, the error.
FOREIGN: list[tuple[str, str, list[object], int]] = [
    ("open", "readable", [os.O_RDONLY], 0),
    ("open", "readable", [WRITE_ONLY], errno.EACCES),
    ("open", "readable", [os.O_RDONLY | os.O_TRUNC], errno.EACCES),
    ("open", "secret", [os.O_RDONLY], errno.EACCES),
    ("open", "secret", [READ_WRITE], errno.EACCES),
    ("open", "writable", [READ_WRITE], 0),
    ("open", "new", [CREATE], errno.EACCES),
    ("open", "closed/inside", [os.O_RDONLY], errno.EACCES),
    ("open", "shared/new", [CREATE], 0),
    ("open", "own", [READ_WRITE], 0),
    ("open", "group", [os.O_RDONLY], 0),
    ("open", "group", [WRITE_ONLY], errno.EACCES),
    ("stat", "secret", [], 0),
    ("stat", "closed/inside", [], errno.EACCES),
    ("listdir", "closed", [], errno.EACCES),
    ("listdir", "shared", [], 0),
    ("mkdir", "newdir", [], errno.EACCES),
    ("mkdir", "shared/newdir", [], 0),
    ("rmdir", "shared/newdir", [], 0),
    ("rmdir", "empty", [], errno.EACCES),
    ("unlink", "writable", [], errno.EACCES),
    ("unlink", "shared/theirs", [], 0),
    ("unlink", "sticky/theirs", [], errno.EPERM),
    ("rename", "writable", ["moved"], errno.EACCES),
    ("rename", "sticky/theirs", ["sticky/moved"], errno.EPERM),
    ("rename", "shared/new", ["shared/moved"], 0),
    ("rename", "shared/moved", ["moved"], errno.EACCES),
    ("truncate", "readable", [0], errno.EACCES),
    ("truncate", "writable", [3], 0),
    ("chmod", "writable", [0o600], errno.EPERM),
    ("chmod", "own", [0o644], 0),
    ("chown", "writable", [NOBODY, NOBODY], errno.EPERM),
    ("chown", "own", [1, -1], errno.EPERM),
    # "Now" needs the right to write, a time of one's own choice needs the file.
    ("utime", "writable", [], 0),
    ("utime", "readable", [], errno.EACCES),
    ("utime", "writable", [[1, 1]], errno.EPERM),
    ("utime", "own", [[1, 1]], 0),
    ("symlink", "shared/link", ["../own"], 0),
    ("setxattr", "readable", ["user.key", ""], errno.EACCES),
    ("setxattr", "own", ["user.key", ""], 0),
]
AS_SOMEBODY_ELSE = """
import json, os, sys
cases = json.load(sys.stdin)
os.chdir(sys.argv[1])
os.setgroups([])
os.setresgid(*[int(sys.argv[2])] * 3)
os.setresuid(*[int(sys.argv[2])] * 3)
codes = []
for call, path, arguments, _ in cases:
    if call == 'symlink':
        path, arguments = arguments[0], [path]
    elif call == 'utime' and arguments:
        arguments = [tuple(arguments[0])]
    elif call == 'setxattr':
        arguments[1] = arguments[1].encode()
    try:
        result = getattr(os, call)(path, *arguments)
        if call == 'open':
            os.close(result)
        codes.append(0)
    except OSError as exc:
        codes.append(exc.errno)
print(json.dumps(codes))
"""


def test_another_user_may_do_what_modes_and_owners_allow(place: Workplace) -> None:
    top = place.path
    top.chmod(0o755)
    modes = {"readable": 0o644, "secret": 0o600, "writable": 0o666, "own": 0o600, "group": 0o640}
    for name, mode in modes.items():
        (top / name).write_bytes(b"content")
        (top / name).chmod(mode)
    as_root("chown", str(NOBODY), top / "own")
    as_root("chgrp", str(NOBODY), top / "group")
    for name, mode in {"closed": 0o700, "shared": 0o777, "sticky": 0o1777, "empty": 0o777}.items():
        (top / name).mkdir()
        (top / name).chmod(mode)
    for name in ("closed/inside", "shared/theirs", "sticky/theirs"):
        (top / name).touch()
        (top / name).chmod(0o666)
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    done = subprocess.run(
        [*root, sys.executable, "-c", AS_SOMEBODY_ELSE, str(top), str(NOBODY)],
        input=json.dumps(FOREIGN),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    told = [(*case[:3], code) for case, code in zip(FOREIGN, json.loads(done.stdout), strict=True)]
    assert told == [(*case[:3], case[3]) for case in FOREIGN]
    assert (top / "shared/moved").stat().st_uid == NOBODY
    assert (top / "shared/link").lstat().st_uid == NOBODY
    assert place.stored_metadata("shared/moved")["uid"] == str(NOBODY)


@pytest.mark.parametrize("late", [False, True], ids=["before opening", "while open"])
def test_writes_of_others_take_away_the_rights_that_a_program_lends(
    place: Workplace, late: bool
) -> None:
    program = place.path / "program"
    program.write_bytes(b"as it was")
    program.chmod(0o777 if late else 0o6777)
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    writing = (
        "import os, sys; os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]));"
        "fd = os.open(sys.argv[1], os.O_WRONLY); print(flush=True); sys.stdin.readline();"
        "os.write(fd, b'other')"
    )
    with subprocess.Popen(
        [*root, sys.executable, "-c", writing, str(program), str(NOBODY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as somebody:
        assert somebody.stdout is not None
        assert somebody.stdout.readline()
        if late:
            program.chmod(0o6777)
        somebody.communicate(b"\n")
    assert somebody.returncode == 0
    assert stat.S_IMODE(program.stat().st_mode) == 0o777
    assert place.stored("program") == b"other was"
    assert stat.S_IMODE(int(place.stored_metadata("program")["mode"])) == 0o777


CHANGED_BY_OTHERS = """
import os, sys
os.chdir(sys.argv[1])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
paged = os.open('paged', os.O_RDWR)
os.write(paged, b'other')
assert os.fstat(paged).st_mode & 0o7777 == 0o777
os.write(os.open('emptied', os.O_WRONLY | os.O_TRUNC), b'other')
os.truncate('cut', 2)
os.ftruncate(os.open('cut-open', os.O_RDWR), 2)
os.write(os.open('locked', os.O_RDWR), b'other')
"""


def test_rights_that_a_program_lends_go_with_each_change_and_cost_no_question(
    mount: MountFactory, bucket: str, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    top = mount(bucket, posix_metadata=True, allow_other=True, access_log=asked).path
    lent = {"paged": 0o6777, "emptied": 0o6777, "cut": 0o6777, "cut-open": 0o6777, "given": 0o6777}
    modes = {**lent, "locked": 0o2766}
    for name, mode in modes.items():
        (top / name).write_bytes(b"as it was")
        (top / name).chmod(mode)
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    as_root("chown", str(NOBODY), top / "given")
    subprocess.run(
        [*root, sys.executable, "-c", CHANGED_BY_OTHERS, str(top), str(NOBODY)], check=True
    )
    told = {name: stat.S_IMODE((top / name).stat().st_mode) for name in modes}
    # Without the right to be run by its group, the bit means that locks are mandatory.
    assert told == {**dict.fromkeys(lent, 0o777), "locked": 0o2766}
    with (top / "asking").open("w+b", buffering=0) as file:
        for _ in range(20):
            file.write(b"x")
    questions = [json.loads(line) for line in asked.read_text().splitlines()]
    about = [line["operation"] for line in questions if line["path"] == "/asking"]
    assert about.count("write") == 20
    assert about.count("getxattr") <= 1


def test_a_shared_directory_hands_its_group_on(place: Workplace) -> None:
    shared = place.path / "shared"
    shared.mkdir()
    as_root("chown", ":1234", shared)
    as_root("chmod", "2775", shared)
    (shared / "below").mkdir()
    (shared / "below/file").touch()
    (shared / "below/link").symlink_to("file")
    for path in (shared / "below", shared / "below/file", shared / "below/link"):
        assert (path.lstat().st_uid, path.lstat().st_gid) == (os.geteuid(), 1234)
    assert (shared / "below").stat().st_mode & stat.S_ISGID


def test_another_user_sees_nothing_unless_that_is_asked_for(
    mount: MountFactory, bucket: str
) -> None:
    mounted = mount(bucket)
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    done = subprocess.run(
        [*root, sys.executable, "-c", AS_SOMEBODY_ELSE, str(mounted.path.parent), str(NOBODY)],
        input=json.dumps([("stat", mounted.path.name, [], 0), ("listdir", "mnt", [], 0)]),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == [errno.EACCES] * 2


@pytest.mark.parametrize("lane", ["auto", "off"])
def test_ls_learns_at_the_first_file_that_there_are_no_labels_and_no_acls(
    mount: MountFactory, bucket: str, tmp_path: Path, lane: str
) -> None:
    asked = tmp_path / "asked"
    mounted = mount(bucket, access_log=asked, fuse_lane=lane)
    for number in range(20):
        (mounted.path / f"file-{number}").touch()
    subprocess.run(["ls", "-l", mounted.path], check=True, capture_output=True)
    operations = [json.loads(line)["operation"] for line in asked.read_text().splitlines()]
    assert operations.count("getxattr") <= 3  # touch(1) and the label of the directory


@pytest.mark.parametrize("lane", ["auto", "off"])
def test_without_extended_attributes_the_kernel_asks_for_them_once(
    mount: MountFactory, bucket: str, tmp_path: Path, lane: str
) -> None:
    asked = tmp_path / "asked"
    mounted = mount(bucket, xattrs="off", access_log=asked, fuse_lane=lane)
    for number in range(20):
        (mounted.path / f"file-{number}").touch()
    subprocess.run(["ls", "-l", mounted.path], check=True, capture_output=True)
    path = mounted.path / "file-1"
    for call in (
        lambda: os.getxattr(path, "user.key"),
        lambda: os.setxattr(path, "user.key", b"value"),
        lambda: os.removexattr(path, "user.key"),
        lambda: os.listxattr(path),
    ):
        with refused(errno.EOPNOTSUPP):
            call()
    with refused(errno.ENODATA):
        os.getxattr(path, "system.posix_acl_access")
    operations = [json.loads(line)["operation"] for line in asked.read_text().splitlines()]
    assert operations.count("getxattr") == 1

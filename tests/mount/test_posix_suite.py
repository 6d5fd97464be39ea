"""What POSIX test suites ask of a file system, as far as a bucket can: error numbers and times.

The cases follow the groups of pjdfstest (open, mkdir, rmdir, unlink, rename, symlink, truncate,
chmod, chown, utimensat). docs/semantics.md names what cannot be.
"""

import ctypes
import errno
import os
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import MountFactory
from tests.support.errnos import refused
from tests.support.mounting import Mount
from tests.support.seaweed import SeaweedServer

AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
"""linux/fcntl.h, linux/fs.h."""
NAME_256, PATH_4096 = "x" * 256, "y/" * 2048
FIVE_TIB = 5 * 1024**4
OLD_NS = 1_000_000_000_123_456_789
CLOCK_TICK_NS = 10_000_000
"""The kernel's coarse clock moves every 4 ms."""
CREATE = os.O_WRONLY | os.O_CREAT
EXCLUSIVE = CREATE | os.O_EXCL
STANDING = {"file", "dir", "full", "full/child", "link", "dangling", "dirlink", "loop1", "loop2"}


@pytest.fixture(scope="module")
def root(
    seaweed: SeaweedServer, module_bucket: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The mountpoint of one mount for all; it must end well and have had no accident."""
    with Mount(
        module_bucket,
        tmp_path_factory.mktemp("posix"),
        endpoint=seaweed.endpoint,
        environment=seaweed.environment,
        data_path="direct",
        posix_metadata=True,
    ) as one:
        yield one.path
        assert one.unmount() == 0, one.log
    assert "Traceback" not in one.log, one.log


@pytest.fixture(scope="module")
def tree(root: Path) -> Path:
    """One entry of every kind."""
    top = root / "tree"
    top.mkdir()
    (top / "file").write_bytes(b"content")
    (top / "dir").mkdir()
    (top / "full").mkdir()
    (top / "full/child").touch()
    (top / "link").symlink_to("file")
    (top / "dangling").symlink_to("nothing")
    (top / "dirlink").symlink_to("dir")
    (top / "loop1").symlink_to("loop2")
    (top / "loop2").symlink_to("loop1")
    return top


def entries_below(top: Path) -> set[str]:
    return {str(path.relative_to(top)) for path in top.rglob("*")}


def open_and_close(path: Path, flags: int) -> None:
    os.close(os.open(path, flags, 0o644))


def write_at(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"!")


def truncate_read_only(path: Path) -> None:
    with path.open("rb") as file:
        os.ftruncate(file.fileno(), 1)


def rename_with(old: Path, new: Path, flags: int) -> None:
    """renameat2(2), which Python does not have."""
    call = ctypes.CDLL(None, use_errno=True).renameat2
    if call(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def raw(call: Callable[..., None], path: Path, last: str) -> None:
    """A call with a path that pathlib would tidy up."""
    call(f"{path}/{last}")


Call = Callable[[Path], object]
Case = tuple[str, int, Call]

ON_NAMES: dict[str, Call] = {
    "open": lambda path: open_and_close(path, CREATE),
    "mkdir": lambda path: path.mkdir(),
    "rmdir": lambda path: path.rmdir(),
    "unlink": lambda path: path.unlink(),
    "symlink": lambda path: path.symlink_to("target"),
    "readlink": lambda path: path.readlink(),
    "truncate": lambda path: os.truncate(path, 1),
    "chmod": lambda path: path.chmod(0o600),
    "chown": lambda path: os.chown(path, 1, 1),
    "utimensat": os.utime,
    "stat": lambda path: path.stat(),
}
"""Every group is asked about paths that lead nowhere."""

NOWHERE: list[tuple[str, int, str]] = [
    ("a component is missing", errno.ENOENT, "none/entry"),
    ("a component is a file", errno.ENOTDIR, "file/entry"),
    ("a component is a loop", errno.ELOOP, "loop1/entry"),
    ("a component is a dangling link", errno.ENOENT, "dangling/entry"),
    ("a name of 256 bytes", errno.ENAMETOOLONG, NAME_256),
    ("a component of 256 bytes", errno.ENAMETOOLONG, f"{NAME_256}/entry"),
    ("a path of 4096 bytes", errno.ENAMETOOLONG, f"{PATH_4096}entry"),
]

CASES: list[Case] = [
    ("open a missing file", errno.ENOENT, lambda top: open_and_close(top / "none", os.O_RDONLY)),
    ("open a directory to write", errno.EISDIR, lambda top: open_and_close(top / "dir", 1)),
    ("open a directory to change", errno.EISDIR, lambda top: open_and_close(top / "dir", 2)),
    ("empty a directory", errno.EISDIR, lambda top: open_and_close(top / "dir", os.O_TRUNC)),
    ("create a directory's name", errno.EISDIR, lambda top: open_and_close(top / "dir", CREATE)),
    ("list a file", errno.ENOTDIR, lambda top: open_and_close(top / "file", os.O_DIRECTORY)),
    ("open a loop", errno.ELOOP, lambda top: open_and_close(top / "loop1", os.O_RDONLY)),
    ("open a link itself", errno.ELOOP, lambda top: open_and_close(top / "link", os.O_NOFOLLOW)),
    ("O_EXCL on a file", errno.EEXIST, lambda top: open_and_close(top / "file", EXCLUSIVE)),
    ("O_EXCL on a directory", errno.EEXIST, lambda top: open_and_close(top / "dir", EXCLUSIVE)),
    ("O_EXCL on a link", errno.EEXIST, lambda top: open_and_close(top / "dangling", EXCLUSIVE)),
    ("mkdir on a file", errno.EEXIST, lambda top: (top / "file").mkdir()),
    ("mkdir on a directory", errno.EEXIST, lambda top: (top / "dir").mkdir()),
    ("mkdir on a dangling link", errno.EEXIST, lambda top: (top / "dangling").mkdir()),
    ("rmdir of nothing", errno.ENOENT, lambda top: (top / "none").rmdir()),
    ("rmdir of a file", errno.ENOTDIR, lambda top: (top / "file").rmdir()),
    ("rmdir of a link", errno.ENOTDIR, lambda top: (top / "dirlink").rmdir()),
    ("rmdir of a full directory", errno.ENOTEMPTY, lambda top: (top / "full").rmdir()),
    ("rmdir of .", errno.EINVAL, lambda top: raw(os.rmdir, top / "dir", ".")),
    ("rmdir of ..", errno.ENOTEMPTY, lambda top: raw(os.rmdir, top / "dir", "..")),
    ("rmdir of the mountpoint", errno.EBUSY, lambda top: top.parent.rmdir()),
    ("unlink of nothing", errno.ENOENT, lambda top: (top / "none").unlink()),
    ("unlink of a directory", errno.EISDIR, lambda top: (top / "dir").unlink()),
    ("rename of nothing", errno.ENOENT, lambda top: (top / "none").rename(top / "new")),
    ("rename into nothing", errno.ENOENT, lambda top: (top / "file").rename(top / "none/new")),
    ("rename below a file", errno.ENOTDIR, lambda top: (top / "file").rename(top / "link/new")),
    ("rename into a loop", errno.ELOOP, lambda top: (top / "file").rename(top / "loop1/new")),
    ("file over directory", errno.EISDIR, lambda top: (top / "file").rename(top / "dir")),
    ("link over directory", errno.EISDIR, lambda top: (top / "link").rename(top / "dir")),
    ("directory over file", errno.ENOTDIR, lambda top: (top / "dir").rename(top / "file")),
    ("directory over link", errno.ENOTDIR, lambda top: (top / "dir").rename(top / "dirlink")),
    ("directory over full", errno.ENOTEMPTY, lambda top: (top / "dir").rename(top / "full")),
    ("into itself", errno.EINVAL, lambda top: (top / "full").rename(top / "full/below")),
    ("deeper into itself", errno.EINVAL, lambda top: top.rename(top / "full/below")),
    ("rename of .", errno.EBUSY, lambda top: os.rename(f"{top}/dir/.", top / "new")),  # noqa: PTH104
    (
        "rename to a long name",
        errno.ENAMETOOLONG,
        lambda top: (top / "file").rename(top / NAME_256),
    ),
    ("to another mount", errno.EXDEV, lambda top: (top / "file").rename(top.parents[1] / "new")),
    (
        "RENAME_NOREPLACE",
        errno.EEXIST,
        lambda top: rename_with(top / "file", top / "full/child", RENAME_NOREPLACE),
    ),
    (
        "RENAME_EXCHANGE",
        errno.EINVAL,
        lambda top: rename_with(top / "file", top / "full/child", RENAME_EXCHANGE),
    ),
    ("symlink on a file", errno.EEXIST, lambda top: (top / "file").symlink_to("target")),
    ("symlink on a link", errno.EEXIST, lambda top: (top / "dangling").symlink_to("target")),
    ("symlink to nothing", errno.ENOENT, lambda top: os.symlink("", top / "new")),  # noqa: PTH211
    ("readlink of a file", errno.EINVAL, lambda top: (top / "file").readlink()),
    ("truncate a directory", errno.EISDIR, lambda top: os.truncate(top / "dir", 0)),
    ("truncate nothing", errno.ENOENT, lambda top: os.truncate(top / "none", 0)),
    ("truncate below zero", errno.EINVAL, lambda top: os.truncate(top / "file", -1)),
    ("truncate a reader", errno.EINVAL, lambda top: truncate_read_only(top / "file")),
    ("truncate too far", errno.EFBIG, lambda top: os.truncate(top / "file", FIVE_TIB + 1)),
    ("a hard link", errno.EPERM, lambda top: (top / "hard").hardlink_to(top / "file")),
    ("a device", errno.EPERM, lambda top: os.mknod(top / "null", stat.S_IFCHR | 0o600, 0x103)),
]


@pytest.mark.parametrize("group", [*ON_NAMES, "rename from", "rename to"])
def test_paths_that_lead_nowhere_are_refused(tree: Path, group: str) -> None:
    calls: dict[str, Call] = {
        **ON_NAMES,
        "rename from": lambda path: path.rename(tree / "new"),
        "rename to": (tree / "file").rename,
    }
    for what, code, path in NOWHERE:
        with refused(code):
            calls[group](tree / path)
            pytest.fail(f"{group} was not refused where {what}")
    assert entries_below(tree) == STANDING


@pytest.mark.parametrize(("code", "call"), [pytest.param(*case[1:], id=case[0]) for case in CASES])
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    tree: Path, code: int, call: Call
) -> None:
    with refused(code):
        call(tree)
    assert entries_below(tree) == STANDING
    assert (tree / "file").read_bytes() == b"content"


def test_a_running_program_is_not_written_to(root: Path) -> None:
    program = root / "program"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with subprocess.Popen([program, "60"]) as running:
        try:
            with refused(errno.ETXTBSY):
                program.open("r+b")
            with refused(errno.ETXTBSY):
                os.truncate(program, 0)
        finally:
            running.kill()


def test_names_are_replaced_as_rename_promises(root: Path) -> None:
    top = root / "replaced"
    (top / "from").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "from/file").write_bytes(b"moved")
    (top / "from").rename(top / "empty")
    assert entries_below(top) == {"empty", "empty/file"}
    (top / "link").symlink_to("nothing")
    (top / "empty/file").rename(top / "link")
    assert not (top / "link").is_symlink()
    (top / "other").symlink_to("link")
    (top / "other").rename(top / "link")
    assert (top / "link").is_symlink()
    (top / "link").rename(top / "link")
    assert entries_below(top) == {"empty", "link"}


def test_new_entries_belong_to_their_maker_and_obey_the_umask(root: Path) -> None:
    top = root / "made"
    before = os.umask(0o027)
    try:
        top.mkdir(0o777)
        os.close(os.open(top / "file", CREATE, 0o666))
        os.mknod(top / "node", stat.S_IFREG | 0o644)
        (top / "link").symlink_to("file")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in (top, *top.iterdir())}
    assert modes == {"made": 0o750, "file": 0o640, "node": 0o640, "link": 0o777}
    for path in (top, *top.iterdir()):
        assert (path.lstat().st_uid, path.lstat().st_gid) == (os.geteuid(), os.getegid())


# -- times --------------------------------------------------------------------------------------

TIMES: list[tuple[str, Call, str | None, str]] = [
    # What is done to a file, which of its times move (if it is still there), which of its
    # directory's do: a for access, m for content, c for attributes.
    ("stat", lambda file: file.stat(), "", ""),
    ("read", lambda file: file.read_bytes(), "", ""),
    ("write", lambda file: write_at(file, 2), "mc", ""),
    ("open with O_TRUNC", lambda file: open_and_close(file, os.O_WRONLY | os.O_TRUNC), "mc", ""),
    ("truncate", lambda file: os.truncate(file, 3), "mc", ""),
    ("extend", lambda file: os.truncate(file, 30), "mc", ""),
    ("chmod", lambda file: file.chmod(0o600), "c", ""),
    ("chown", lambda file: os.chown(file, os.geteuid(), os.getegid()), "c", ""),
    ("set an attribute", lambda file: os.setxattr(file, "user.a", b"1"), "c", ""),
    ("utimensat with UTIME_NOW", os.utime, "amc", ""),
    ("rename", lambda file: file.rename(file.with_name("moved")), None, "mc"),
    ("unlink", lambda file: file.unlink(), None, "mc"),
    ("create", lambda file: file.with_name("new").touch(), "", "mc"),
    ("mkdir", lambda file: file.with_name("new").mkdir(), "", "mc"),
    ("symlink", lambda file: file.with_name("new").symlink_to("file"), "", "mc"),
    ("replace", lambda file: file.with_name("other").rename(file), None, "mc"),
]


@pytest.mark.parametrize(
    ("call", "of_file", "of_directory"), [pytest.param(*row[1:], id=row[0]) for row in TIMES]
)
def test_times_move_with_what_they_tell_of(
    root: Path,
    request: pytest.FixtureRequest,
    call: Call,
    of_file: str | None,
    of_directory: str,
) -> None:
    directory = root / f"times {request.node.callspec.id}"
    directory.mkdir()
    file = directory / "file"
    for path in (file, directory / "other"):
        path.write_bytes(b"some content")
    for path in (file, directory):
        os.utime(path, ns=(OLD_NS, OLD_NS))
    before = times_of(file), times_of(directory)
    while time.time_ns() <= before[1]["c"] + CLOCK_TICK_NS:
        time.sleep(CLOCK_TICK_NS / 1e9)
    call(file)
    if of_file is not None:
        assert moved_times(before[0], times_of(file)) == of_file
    # An access time of directories is not kept up; it goes with the others.
    assert moved_times(before[1], times_of(directory)).replace("a", "") == of_directory


def times_of(path: Path) -> dict[str, int]:
    info = path.stat()
    return {"a": info.st_atime_ns, "m": info.st_mtime_ns, "c": info.st_ctime_ns}


def moved_times(before: dict[str, int], after: dict[str, int]) -> str:
    """Letters of the times that are later now; none may be earlier."""
    assert all(after[name] >= before[name] for name in before)
    return "".join(name for name in before if after[name] > before[name])


def test_given_times_are_kept_to_the_nanosecond_also_beyond_2038(
    mount: MountFactory, bucket: str
) -> None:
    mounted = mount(bucket, posix_metadata=True)
    given = {
        "first": (123_456_789_012_345_678, 987_654_321_098_765_432),
        "late": (2**32 * 10**9, 7),
    }
    for name, times in given.items():
        (mounted.path / name).touch()
        os.utime(mounted.path / name, ns=times)
    (mounted.path / "link").symlink_to("first")
    os.utime(mounted.path / "link", ns=(5 * 10**9 + 5, 6 * 10**9 + 6), follow_symlinks=False)
    assert mounted.unmount() == 0
    again = mount(bucket, posix_metadata=True)
    for name, times in given.items():
        info = (again.path / name).stat()
        assert (info.st_atime_ns, info.st_mtime_ns) == times
    assert (again.path / "link").lstat().st_mtime_ns == 6 * 10**9 + 6

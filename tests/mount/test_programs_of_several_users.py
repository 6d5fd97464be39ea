"""Programs of several users on a mount with write-back, and on a local directory: alike in all.

With write-back most calls are answered at once by the lane, without a coroutine
(``ossfs_py/filesystem/atonce.py``). So the same calls are made on a mount with the lane, on one
without, and on a local disk, by several programs at a time, as root and as others. Every answer,
then the trees, then what is in the bucket and what another mount shows of it are compared.
``OSSFS_PY_SOAK_CALLS`` asks for more calls, ``OSSFS_PY_SOAK_SEED`` for others.
"""

# ruff: noqa: PTH101, PTH102, PTH104, PTH106, PTH108, PTH115, PTH116, PTH208, PTH211

import ctypes
import errno
import os
import random
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from minio import Minio

from tests.conftest import MountFactory
from tests.support.commands import NOBODY, ossfs
from tests.support.mounting import Option
from tests.support.recovering import kill, names, stored
from tests.support.seaweed import SeaweedServer

CALLS = int(os.environ.get("OSSFS_PY_SOAK_CALLS", "120"))
SEED = int(os.environ.get("OSSFS_PY_SOAK_SEED", "4"))
TOLD = int(os.environ.get("OSSFS_PY_SOAK_TOLD", "25"))
"""Calls before a difference that are shown."""
PROGRAMS = 3
_CLONE_FS = 0x200
_LIBC = ctypes.CDLL(None, use_errno=True)
_IS_ROOT = os.geteuid() == 0
USERS = ((0, 0), (1001, 1001), (1002, 1001), (NOBODY, NOBODY))
NAMES = ("a", "b", "c", "n" * 255)
TOO_LONG = "n" * 256
SIZES = (0, 1, 100, 5000, 70_000)
_SHOWN = 0o7777 if _IS_ROOT else 0o777
MODES = tuple(
    mode & _SHOWN for mode in (0o644, 0o600, 0o755, 0o777, 0o4755, 0o2755, 0o6777, 0o000, 0o444)
)
DIRECTORY_MODES = tuple(mode & _SHOWN for mode in (0o755, 0o777, 0o1777, 0o2777, 0o700, 0o3777))
OWNERS = ((-1, 0), (0, -1), (1001, 1001), (1002, -1), (-1, 1001))
"""Not -1 and -1: the kernel tells no FUSE daemon to clear set-id bits then."""
PAUSES = (0.05, 0.3, 1.5)
MOST_OPEN = 8
UMASKS = (0o022, 0o000, 0o077, 0o027)
GIVEN_SECONDS = 10**9
"""Times that programs set are around this one, and no others."""
OPERATIONS = {
    "unpack": 14,
    "save": 4,
    "open": 8,
    "close": 5,
    "write": 6,
    "read": 3,
    "ftruncate": 2,
    "fchmod": 2,
    "fchown": 1,
    "futime": 2,
    "fsync": 1,
    "fstat": 2,
    "mkdir": 9,
    "rmdir": 2,
    "unlink": 6,
    "rename": 6,
    "symlink": 2,
    "mknod": 1,
    "truncate": 2,
    "chmod": 4,
    "chown": 3,
    "utime": 2,
    "stat": 4,
    "listdir": 2,
    "setxattr": 2,
    "getxattr": 1,
    "rmtree": 1,
    "pause": 1,
}
OF_DESCRIPTORS = (
    "close",
    "write",
    "read",
    "ftruncate",
    "fchmod",
    "fchown",
    "futime",
    "fsync",
    "fstat",
)

Answer = tuple[str, object]


@contextmanager
def acting_as(user: tuple[int, int]) -> Iterator[None]:
    """This thread's calls on files are made by a user; root's rights on files are gone with it."""
    _LIBC.setfsgid(user[1])
    _LIBC.setfsuid(user[0])
    try:
        yield
    finally:
        _LIBC.setfsuid(0)
        _LIBC.setfsgid(0)


def answer(call: Callable[[], object]) -> Answer:
    """What a call gave, or the name of its error."""
    try:
        return "gave", call()
    except OSError as exc:
        return "failed", errno.errorcode[exc.errno or 0]


def shown(info: os.stat_result) -> tuple[object, ...]:
    """What must be alike; directories have sizes and links of their own."""
    is_directory = stat.S_ISDIR(info.st_mode)
    given = info.st_mtime_ns if abs(info.st_mtime - GIVEN_SECONDS) < GIVEN_SECONDS / 4 else None
    return (
        oct(info.st_mode),
        info.st_uid,
        info.st_gid,
        None if is_directory else (info.st_size, info.st_nlink, given),
    )


def tree(top: Path) -> dict[str, tuple[object, ...]]:
    """All that is below a directory."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(top.rglob("*")):
        info = path.lstat()
        content: object = None
        if stat.S_ISREG(info.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(info.st_mode):
            content = os.readlink(path)
        attributes = () if stat.S_ISLNK(info.st_mode) else xattrs(path)
        found[str(path.relative_to(top))] = (*shown(info), attributes, content)
    return found


def xattrs(path: Path) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, os.getxattr(path, name)) for name in sorted(os.listxattr(path)))


@dataclass(frozen=True)
class Asked:
    """One call, or a few that belong together, on the same places below each directory."""

    path: str
    other: str
    data: bytes
    offset: int
    mode: int
    flags: int
    owner: int
    group: int
    given_ns: int
    steps: tuple[str, ...]
    umask: int
    fds: tuple[int, ...] = ()

    def __str__(self) -> str:
        words = (
            f"{self.path} {self.other} {len(self.data)}@{self.offset} {self.mode:o} {self.umask:o}"
            f" {self.flags:#o} {self.owner}:{self.group} {self.steps} {self.fds}"
        )
        return words.replace("n" * 255, "N")

    def call(self, operation: str, number: int, top: str) -> object:
        """Make it below one of the directories, the one of that number."""
        at, other, size, mode = (
            f"{top}/{self.path}",
            f"{top}/{self.other}",
            len(self.data),
            self.mode,
        )
        fd = self.fds[number] if self.fds else -1
        # Of no other file: truncated to the size that it has, one with bytes keeps its time.
        other_size = size and size + self.given_ns % 1000
        times, kind = (self.given_ns, self.given_ns), stat.S_IFIFO if self.offset else stat.S_IFREG
        calls: dict[str, Callable[[], object]] = {
            "unpack": lambda: self._unpack(at),
            "save": lambda: self._save(at, other + "~"),
            "open": lambda: os.open(at, self.flags, mode & 0o777),
            "close": lambda: os.close(fd),
            "write": lambda: os.pwrite(fd, self.data, self.offset),
            "read": lambda: os.pread(fd, size, self.offset),
            "ftruncate": lambda: os.ftruncate(fd, other_size),
            "fchmod": lambda: os.fchmod(fd, mode),
            "fchown": lambda: os.fchown(fd, self.owner, self.group),
            "futime": lambda: os.utime(fd, ns=times),
            "fsync": lambda: os.fsync(fd),
            "fstat": lambda: shown(os.fstat(fd)),
            "mkdir": lambda: os.mkdir(at, mode),
            "rmdir": lambda: os.rmdir(at),
            "unlink": lambda: os.unlink(at),
            "rename": lambda: os.rename(at, other),
            "symlink": lambda: os.symlink(self.other, at),
            "mknod": lambda: os.mknod(at, kind | (mode & 0o777)),
            "truncate": lambda: os.truncate(at, other_size),
            "chmod": lambda: os.chmod(at, mode),
            "chown": lambda: os.chown(at, self.owner, self.group, follow_symlinks=False),
            "utime": lambda: os.utime(at, ns=times),
            "stat": lambda: shown(os.stat(at)),
            "listdir": lambda: sorted(os.listdir(at)),
            "setxattr": lambda: os.setxattr(at, "user.b", self.data[:20]),
            "getxattr": lambda: xattrs(Path(at)),
            "rmtree": lambda: removed(at),
        }
        return calls[operation]()

    def _unpack(self, at: str) -> object:
        """As tar, rsync and pip make a file."""
        times = (self.given_ns, self.given_ns)
        fd = os.open(at, os.O_WRONLY | os.O_CREAT | os.O_EXCL, self.mode & 0o777)
        calls: dict[str, Callable[[], object]] = {
            "write": lambda: os.write(fd, self.data),
            "chmod": lambda: os.fchmod(fd, self.mode),
            "chown": lambda: os.fchown(fd, self.owner, self.group),
            "utime": lambda: os.utime(fd, ns=times),
            "xattr": lambda: os.setxattr(fd, "user.a", self.data[:20]),
            "stat": lambda: shown(os.fstat(fd)),
        }
        try:
            done = [answer(calls[step]) for step in ("write", *self.steps, "stat")]
        finally:
            os.close(fd)
        if self.offset:  # without the descriptor
            done.append(answer(lambda: os.chmod(at, self.mode)))
            done.append(answer(lambda: os.utime(at, ns=times)))
        return [*done, answer(lambda: shown(os.lstat(at)))]

    def _save(self, at: str, new: str) -> object:
        """As editors replace a file."""
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, self.mode & 0o777)
        with os.fdopen(fd, "wb") as file:
            file.write(self.data)
        try:
            os.rename(new, at)
        except OSError:
            os.unlink(new)
            raise
        return None


def removed(at: str) -> object:
    """As rm -r."""
    done = []
    for directory, directories, files in os.walk(at, topdown=False):
        for call, found in ((os.unlink, files), (os.rmdir, directories)):
            done += [answer(partial(call, f"{directory}/{name}"))[1] for name in sorted(found)]
    return sorted(map(str, done)), answer(lambda: os.rmdir(at))


class Program:
    """Makes the same calls below several directories; each step has all the answers."""

    def __init__(self, tops: list[Path], seed: int) -> None:
        # Others than root may not pass the directories above.
        self._tops = [f"/proc/self/fd/{os.open(top, os.O_PATH)}" for top in tops]
        self._random = random.Random(seed)
        self._open: list[tuple[int, ...]] = []

    def steps(self, count: int) -> Iterator[tuple[str, list[Answer]]]:
        assert _LIBC.unshare(_CLONE_FS) == 0, "no umask of this thread's own"
        operations = self._random.choices(list(OPERATIONS), list(OPERATIONS.values()), k=count)
        for number, chosen in enumerate(operations):
            operation = "close" if chosen == "open" and len(self._open) > MOST_OPEN else chosen
            user = self._random.choice(USERS)
            if operation == "write" and user[0] == 0:
                # Root's leave set-id bits alone, and a daemon is not told whose it is.
                user = USERS[1]
            asked = self._asked(number, DIRECTORY_MODES if operation == "mkdir" else MODES)
            if operation == "pause":
                time.sleep(self._random.choice(PAUSES))
            elif asked.fds or operation not in OF_DESCRIPTORS:
                yield f"{operation} by {user} {asked}", self._answers(operation, user, asked)

    def close(self) -> None:
        for group in self._open:
            for fd in group:
                os.close(fd)
        for top in self._tops:
            os.close(int(top.rpartition("/")[2]))

    # -- inside ---------------------------------------------------------------------------------

    def _answers(self, operation: str, user: tuple[int, int], asked: Asked) -> list[Answer]:
        os.umask(asked.umask)
        with acting_as(user):
            answers = [
                answer(partial(asked.call, operation, number, top))
                for number, top in enumerate(self._tops)
            ]
        if operation == "close":
            self._open.remove(asked.fds)
        if operation != "open":
            return answers
        fds = tuple(fd for _, fd in answers if isinstance(fd, int))
        if len(fds) == len(answers):
            self._open.append(fds)
        else:
            for fd in fds:
                os.close(fd)
        return [(how, told if how == "failed" else "a descriptor") for how, told in answers]

    def _asked(self, number: int, modes: Sequence[int]) -> Asked:
        dice = self._random
        flags = dice.choice((os.O_RDONLY, os.O_WRONLY, os.O_RDWR)) | os.O_NONBLOCK
        flags |= dice.choice((0, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL))
        flags |= dice.choice((0, 0, 0, os.O_TRUNC, os.O_APPEND, os.O_NOFOLLOW))
        owner, group = dice.choice(OWNERS)
        return Asked(
            path=self._path(),
            other=self._path(),
            data=dice.randbytes(dice.choice(SIZES)),
            offset=dice.choice((0, 0, 5, 4096, 70_000)),
            mode=dice.choice(modes),
            flags=flags,
            owner=owner,
            group=group,
            given_ns=(GIVEN_SECONDS + number) * 10**9 + number,
            steps=tuple(dice.sample(("chmod", "chown", "utime", "xattr"), k=dice.randrange(5))),
            umask=dice.choice(UMASKS),
            fds=dice.choice(self._open) if self._open else (),
        )

    def _path(self) -> str:
        rest = self._random.choices(NAMES, [6, 6, 4, 1], k=self._random.choice([1, 1, 2, 2, 3]))
        if self._random.randrange(100) == 0:
            rest[-1] = TOO_LONG
        return "/".join(rest)


def run(tops: list[Path], seed: int, stop: threading.Event) -> str:
    """Have one program run; what differed, or nothing."""
    program = Program(tops, seed)
    asked: list[str] = []
    try:
        for what, answers in program.steps(CALLS):
            asked.append(f"{what}: {answers[0][0]}")
            if any(each != answers[0] for each in answers):
                stop.set()
                return "\n".join(asked[-TOLD:] + [str(each)[:600] for each in answers])
            if stop.is_set():
                break
    finally:
        program.close()
    return ""


def is_directory(what: tuple[object, ...]) -> bool:
    return str(what[0]).startswith("0o4")


def differs(
    wanted: dict[str, tuple[object, ...]], found: dict[str, tuple[object, ...]], where: str
) -> None:
    """Fail if they do."""
    told = [
        f"{path}: {str(wanted.get(path))[:200]} is {str(found.get(path))[:200]}"
        for path in sorted(wanted.keys() | found.keys())
        if wanted.get(path) != found.get(path)
    ]
    assert not told, f"seed {SEED}, {where}: " + "\n".join(told)


@pytest.mark.parametrize(
    ("data_path", "is_killed"), [("temp", False), ("direct", True)], ids=["temp", "direct-killed"]
)
def test_they_are_answered_as_by_a_local_disk(
    mount: MountFactory,
    bucket: str,
    seaweed: SeaweedServer,
    minio_client: Minio,
    tmp_path: Path,
    data_path: str,
    *,
    is_killed: bool,
) -> None:
    options: dict[str, Option] = {
        "data_path": data_path,
        "posix_metadata": True,
        "special_modes": _IS_ROOT,
        "allow_other": _IS_ROOT,
    }
    mounts = [
        mount(f"{bucket}/{lane}", fuse_lane=lane, write_back=True, **options)
        for lane in ("off", "auto")
    ]
    local = tmp_path / "local"
    local.mkdir()
    tops = [local, *(each.path for each in mounts)]
    for top in tops:
        for number in range(PROGRAMS):
            (top / f"{number}").mkdir()
            (top / f"{number}").chmod((0o777, 0o1777, 0o3777)[number % 3] & _SHOWN)
    stop = threading.Event()
    with ThreadPoolExecutor(PROGRAMS) as programs:
        running = [
            programs.submit(run, [top / f"{number}" for top in tops], SEED * 1000 + number, stop)
            for number in range(PROGRAMS)
        ]
        differences = [one.result() for one in running]
    assert not any(differences), f"seed {SEED}: " + "\n\n".join(differences)
    wanted = tree(local)
    for each in mounts:
        differs(wanted, tree(each.path), f"{each.options['fuse_lane']}")
        if is_killed:
            kill(each)
            each.start()
        done = ossfs("sync", each.path, environment=seaweed.environment)
        assert done.code == 0, done
    for each in mounts:
        lane = f"{each.options['fuse_lane']}/"
        keys = {key for key in names(minio_client, bucket) if key.startswith(lane)}
        kept = {lane + path + "/" * is_directory(what): what for path, what in wanted.items()}
        assert keys == kept.keys(), f"seed {SEED} {lane}: {keys ^ kept.keys()}"
        contents = {key: what[-1] for key, what in kept.items() if isinstance(what[-1], bytes)}
        assert {key: stored(minio_client, bucket, key) for key in contents} == contents, SEED
        assert each.unmount() == 0
    files = {path: what for path, what in wanted.items() if not is_directory(what)}
    for each in mounts:
        again = mount(f"{bucket}/{each.options['fuse_lane']}", **options)
        # SeaweedFS keeps no modes of directories.
        found = {path: what for path, what in tree(again.path).items() if not is_directory(what)}
        differs(files, found, f"mounted again {each.options['fuse_lane']}")

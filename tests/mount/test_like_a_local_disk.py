"""A mount and a local directory are asked the same things, at random, and must answer alike.

Results and error numbers are compared call by call. ``OSSFS_PY_SOAK_CALLS`` asks for more calls
than the few of an ordinary run, ``OSSFS_PY_SOAK_SEED`` for others.
"""

import errno
import os
import random
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import MountFactory

CALLS = int(os.environ.get("OSSFS_PY_SOAK_CALLS", "250"))
SEED = int(os.environ.get("OSSFS_PY_SOAK_SEED", "11"))
NAMES = "abcd"
TARGETS = ["a", "b", "c", "c/d", "x", "a/b"]
"""Of symbolic links: none leads out of the directory that is compared, not even with "/.."."""
SIZES = [0, 1, 100, 5000, 200_000]
OFFSETS = [0, 0, 5, 100, 4096, 70_000, 300_000]
OPEN_FILES = 12
SECOND_NS = 10**9
WEIGHTS = {
    "open": 6,
    "close": 3,
    "write": 5,
    "read": 4,
    "ftruncate": 2,
    "fchmod": 1,
    "fsync": 1,
    "fstat": 1,
    "mkdir": 9,
    "rmdir": 2,
    "unlink": 6,
    "rename": 8,
    "symlink": 2,
    "truncate": 2,
    "chmod": 1,
    "utime": 1,
    "stat": 2,
    "lstat": 1,
    "listdir": 1,
    "readlink": 1,
    "append": 1,
    "walk": 1,
}

Answer = tuple[str, object]


def answer(call: Callable[[], object]) -> Answer:
    """What a call gave, or the name of its error."""
    try:
        return "gave", call()
    except OSError as exc:
        return "failed", errno.errorcode[exc.errno or 0]


def shown(info: os.stat_result) -> tuple[object, ...]:
    """What must be alike; directories have sizes and links of their own."""
    directory = stat.S_ISDIR(info.st_mode)
    return info.st_mode, info.st_uid, info.st_gid, None if directory else info.st_size


def contents(top: str) -> list[object]:
    """Every directory's entries and every file's bytes."""
    found: list[object] = []
    for directory, directories, files in os.walk(top):
        directories.sort()
        found.append((directory.removeprefix(top), list(directories), sorted(files)))
        plain = (Path(directory, name) for name in sorted(files))
        found += [path.read_bytes() for path in plain if not path.is_symlink()]
    return found


class Twins:
    """The same calls on two directories; each step returns what was asked and both answers."""

    def __init__(self, tops: tuple[str, str], seed: int) -> None:
        self._tops = tops
        self._random = random.Random(seed)
        self._open: list[tuple[int, int]] = []
        self._step = 0

    def steps(self, count: int) -> Iterator[tuple[str, Answer, Answer]]:
        """Ask ``count`` times."""
        operations = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count)
        for self._step, operation in enumerate(operations):
            if operation in ("close", "write", "read", "ftruncate", "fchmod", "fsync", "fstat"):
                if self._open:
                    yield self._on_descriptors(operation)
            elif operation == "open":
                if len(self._open) < OPEN_FILES:
                    yield self._open_both()
            else:
                yield self._on_paths(operation)

    def close(self) -> None:
        """Close what is still open."""
        for pair in self._open:
            for fd in pair:
                os.close(fd)

    def _path(self) -> str:
        """A relative path of up to three names, now and then with something odd at its end."""
        names = "/".join(self._random.choices(NAMES, k=self._random.choice([1, 1, 2, 2, 3])))
        return names + (self._random.choice(["/", "/.", "/.."]) if self._one_in(10) else "")

    def _one_in(self, count: int) -> bool:
        return self._random.randrange(count) == 0

    def _open_both(self) -> tuple[str, Answer, Answer]:
        flags = self._random.choice([os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
        flags |= self._random.choice([0, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL])
        for flag, seldom in (
            (os.O_TRUNC, 4),
            (os.O_APPEND, 3),
            (os.O_NOFOLLOW, 7),
            (os.O_DIRECTORY, 9),
        ):
            flags |= flag if self._one_in(seldom) else 0
        path, mode = self._path(), self._random.choice([0o644, 0o600, 0o755])
        one, two = (answer(partial(os.open, f"{top}/{path}", flags, mode)) for top in self._tops)
        if one[0] == two[0] == "gave":
            self._open.append((int(str(one[1])), int(str(two[1]))))
            one = two = ("gave", "a descriptor")
        return f"open {path} {flags:#o}", one, two

    def _on_descriptors(self, operation: str) -> tuple[str, Answer, Answer]:
        pair = self._random.choice(self._open)
        offset, size = self._random.choice(OFFSETS), self._random.choice(SIZES)
        mode, data = self._random.choice([0o600, 0o644, 0o400]), self._random.randbytes(size)
        calls: dict[str, Callable[[int], object]] = {
            "close": os.close,
            "write": lambda fd: os.pwrite(fd, data, offset),
            "read": lambda fd: os.pread(fd, size, offset),
            "ftruncate": lambda fd: os.ftruncate(fd, size),
            "fchmod": lambda fd: os.fchmod(fd, mode),
            "fsync": os.fsync,
            "fstat": lambda fd: (shown(os.fstat(fd)), os.fstat(fd).st_nlink == 0),
        }
        if operation == "close":
            self._open.remove(pair)
        one, two = (answer(partial(calls[operation], fd)) for fd in pair)
        return f"{operation} {pair} at {offset} size {size} mode {mode:o}", one, two

    def _on_paths(self, operation: str) -> tuple[str, Answer, Answer]:
        path, other = self._path(), self._path()
        target, size = self._random.choice(TARGETS), self._random.choice(SIZES)
        mode = self._random.choice([0o600, 0o644, 0o755, 0o700])
        given_ns = (10**9 + self._step) * SECOND_NS + self._step

        def append(where: str) -> None:
            with Path(where).open("ab") as file:
                file.write(b"%d" % self._step)

        def utime(where: str) -> int:
            os.utime(where, ns=(given_ns, given_ns))
            return Path(where).stat().st_mtime_ns

        calls: dict[str, Callable[[str], object]] = {
            "mkdir": os.mkdir,
            "rmdir": os.rmdir,
            "unlink": os.unlink,
            "symlink": lambda where: os.symlink(target, where),  # noqa: PTH211 - as it is
            "truncate": lambda where: os.truncate(where, size),
            "chmod": lambda where: os.chmod(where, mode),  # noqa: PTH101
            "utime": utime,
            "stat": lambda where: shown(os.stat(where)),  # noqa: PTH116
            "lstat": lambda where: shown(os.lstat(where)),
            "listdir": lambda where: sorted(os.listdir(where)),  # noqa: PTH208
            "readlink": os.readlink,
            "append": append,
        }
        one, two = (
            answer(
                partial(os.rename, f"{top}/{path}", f"{top}/{other}")
                if operation == "rename"
                else partial(contents, top)
                if operation == "walk"
                else partial(calls[operation], f"{top}/{path}")
            )
            for top in self._tops
        )
        return f"{operation} {path} ({other}, {target}, {size}, {mode:o})", one, two


def test_random_calls_are_answered_as_by_a_local_disk(
    mount: MountFactory, bucket: str, data_path: str, tmp_path: Path
) -> None:
    # By turns, so that neither way to answer the kernel goes untried.
    lane = "off" if data_path == "direct" else "auto"
    mounted = mount(bucket, data_path=data_path, posix_metadata=True, fuse_lane=lane)
    local = tmp_path / "local"
    local.mkdir()
    # The directories above are compared by "..", too.
    local.chmod(stat.S_IMODE(mounted.path.stat().st_mode))
    twins = Twins((str(mounted.path), str(local)), SEED)
    asked: list[str] = []
    try:
        for what, here, there in twins.steps(CALLS):
            asked.append(f"{what}: {here[0]}")
            if here != there:
                last = "\n".join(asked[-10:])
                pytest.fail(f"seed {SEED}: {last}\n{str(here)[:500]}\nlocally {str(there)[:500]}")
    finally:
        twins.close()
    assert contents(str(mounted.path)) == contents(str(local))
    assert mounted.unmount() == 0
    again = mount(bucket, data_path=data_path, posix_metadata=True)
    assert contents(str(again.path)) == contents(str(local))

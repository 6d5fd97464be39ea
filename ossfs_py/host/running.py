"""The register of running mounts: who serves which mountpoint on this host.

One small JSON file for each mount in a private runtime directory, locked with flock(2) by its
daemon for as long as the process lives. The lock, not the file, says whether a daemon is alive,
so a killed daemon leaves nothing that could be mistaken for a running one.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ossfs_py.config.machine import runtime_dirs
from ossfs_py.errors import EnvironmentProblemError

_ATTEMPTS = 20
_PAUSE_SECONDS = 0.02
"""Somebody who looks at a record locks it for an instant; a daemon holds it for good."""
_HURRY_SECONDS = 0.2
"""Time for a daemon to take note of a signal."""


@dataclass(frozen=True, slots=True)
class RunningMount:
    """What a daemon says about itself."""

    pid: int
    mountpoint: str
    source: str
    data_path: str


@contextlib.contextmanager
def registered(mount: RunningMount, directories: tuple[Path, ...] | None = None) -> Iterator[Path]:
    """Claim the mountpoint for this process until the end of the block.

    Yields a directory for the mount alone, gone at the end: private, always writable, in memory
    on most machines. What killed daemons left beside it is removed.

    The lock itself lasts until the process ends, so that who waits for it sees the daemon gone.

    Raises:
        EnvironmentProblemError: another daemon serves or is about to serve the mountpoint, or
            no runtime directory can be used.
    """
    path, fd = _lock(mount.mountpoint, directories or runtime_dirs(os.geteuid()))
    own = _directory_of(path)
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(asdict(mount)).encode(), 0)
        _sweep(path.parent)
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(0o700)
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        path.unlink(missing_ok=True)
        # Succeeds for the last mount of the user.
        with contextlib.suppress(OSError):
            path.parent.rmdir()


class FoundDaemon:
    """A running daemon as seen by another process."""

    def __init__(self, mount: RunningMount, runtime_dir: Path, fd: int) -> None:
        self.mount = mount
        self.runtime_dir = runtime_dir
        self._fd = fd

    def wait_gone(self, timeout_seconds: float) -> bool:
        """Block until the process has ended; whether it did in time."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            if not _is_locked(self._fd) and not _is_alive(self.mount.pid):
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE_SECONDS)

    def hurry(self, timeout_seconds: float) -> bool:
        """Make it keep unsaved data and go at once; whether it has gone in time.

        The second SIGTERM means that. Two at once would be seen as one.
        """
        deadline = time.monotonic() + timeout_seconds
        while not self.wait_gone(_HURRY_SECONDS):
            if time.monotonic() >= deadline:
                return False
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.mount.pid, signal.SIGTERM)
        return True

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)


def find_daemon(
    mountpoint: Path, owner: int | None = None, directories: tuple[Path, ...] | None = None
) -> FoundDaemon | None:
    """The live daemon that serves ``mountpoint``; close it after use.

    ``owner`` is the user the mount belongs to (by default the caller).
    """
    uid = os.geteuid() if owner is None else owner
    for directory in directories or runtime_dirs(uid):
        if not _is_private(directory, uid):
            continue
        record = directory / _record_name(str(mountpoint))
        try:
            fd = os.open(record, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        if _is_locked(fd):
            with contextlib.suppress(ValueError, TypeError), open(fd, closefd=False) as file:
                return FoundDaemon(RunningMount(**json.load(file)), _directory_of(record), fd)
        os.close(fd)
    return None


def _record_name(mountpoint: str) -> str:
    return hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:24] + ".json"


def _directory_of(record: Path) -> Path:
    return record.with_suffix(".d")


def _sweep(directory: Path) -> None:
    """Remove the records of daemons that were killed."""
    for record in directory.glob("*.json"):
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(record, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                # Held while the record goes, so that a daemon just starting there notices.
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_ino == record.stat().st_ino:
                    shutil.rmtree(_directory_of(record), ignore_errors=True)
                    record.unlink()
            except BlockingIOError:
                pass  # its daemon lives
            finally:
                os.close(fd)


def _usable(directories: tuple[Path, ...]) -> Path:
    for directory in directories:
        with contextlib.suppress(OSError):
            directory.mkdir(0o700, exist_ok=True)
            if _is_private(directory, os.geteuid()) and os.access(directory, os.W_OK | os.X_OK):
                return directory
    names = " nor ".join(map(str, directories))
    raise EnvironmentProblemError(f"neither {names} can be used to register the mount")


def _is_private(directory: Path, uid: int) -> bool:
    """Whether nobody but ``uid`` (and root) can have put something there."""
    try:
        info = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == uid and not info.st_mode & 0o022


def _lock(mountpoint: str, directories: tuple[Path, ...]) -> tuple[Path, int]:
    for _ in range(_ATTEMPTS):
        path = _usable(directories) / _record_name(mountpoint)
        # A daemon that ends at this moment removes its record, and the directory if it was the
        # last one: then the file is missing, or another one than was opened.
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(fd).st_ino == path.stat().st_ino:
                    return path, fd
            except BlockingIOError:
                time.sleep(_PAUSE_SECONDS)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
    raise EnvironmentProblemError(
        f"the mountpoint {mountpoint} is busy: another ossfs-py serves it or is about to"
    )


def _is_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def _is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie that waits for its parent."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in ("Z", "X")

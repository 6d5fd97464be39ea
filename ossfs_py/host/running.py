"""The register of running mounts: who serves which mountpoint on this host.

What stands in a record or behind a socket of another user is believed by nobody: root reads it,
too. Records are read bounded and without following or waiting; which process a daemon is, the
kernel says (the credentials of its control socket), and signals go to that process alone.

One small JSON file for each mount in a private runtime directory, locked with flock(2) by its
daemon for as long as the process lives. The lock, not the file, says whether a daemon is alive,
so a killed daemon leaves nothing that could be mistaken for a running one.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import select
import shutil
import signal
import socket
import stat
import struct
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ossfs_py.errors import EnvironmentProblemError

SPARE_ROOT = Path("/tmp")  # noqa: S108 (directories there are made 0700, their owner is checked)
"""The register of running mounts for users without a runtime directory of their own."""
_PAUSE_SECONDS = 0.02
BUSY_SECONDS = 0.4
"""Somebody who looks at a record locks it for an instant; a daemon holds it for good."""
LEFT_SECONDS = 10.0
"""Another process closes the files of a daemon that was killed, and so releases its lock: at once,
unless the machine is very busy."""
_HURRY_SECONDS = 0.2
"""Time for a daemon to take note of a signal."""

SOCKET_NAME = "control.sock"
"""Name of the control socket, in the runtime directory of the mount."""
_MAX_RECORD_BYTES = 64 * 1024
"""A path has 4 KiB at most and a key one; ours are far below that."""
_CONNECT_SECONDS = 1.0
"""A local socket connects at once, or its backlog is full."""
CREDENTIALS = struct.Struct("3i")
"""struct ucred of unix(7): pid, uid, gid."""


@dataclass(frozen=True, slots=True)
class RunningMount:
    """The record that a daemon writes about itself."""

    pid: int
    mountpoint: str
    source: str
    data_path: str
    state_directory: str = ""
    """Directory of its unsaved files; empty for a read-only mount."""
    endpoint: str = ""
    """The store's URL; empty for the one that the region names."""


def runtime_dirs(uid: int) -> tuple[Path, ...]:
    """Directories, best first, where the running mounts of a user are registered.

    Independent of the environment, so that root finds the daemon of any user's mount. Anybody may
    have made the ones in ``/tmp``: whoever uses one checks whose it is.
    """
    first = Path("/run/ossfs-py" if uid == 0 else f"/run/user/{uid}/ossfs-py")
    spare = sorted(SPARE_ROOT.glob(f"{spare_prefix(uid)}*"))
    return first, SPARE_ROOT / f"ossfs-py-{uid}", *spare


def spare_prefix(uid: int) -> str:
    """How directories in ``/tmp`` begin that stand in for those that a stranger has made."""
    return f"ossfs-py-{uid}-"


@contextlib.contextmanager
def registered(
    mount: RunningMount,
    directories: tuple[Path, ...] | None = None,
    busy_seconds: float = BUSY_SECONDS,
) -> Iterator[Path]:
    """Claim the mountpoint for this process until the end of the block.

    ``busy_seconds``: how long to wait while another process has it; :data:`LEFT_SECONDS` if the
    daemon before is known to have ended.

    Yields a directory for the mount alone, gone at the end: private, always writable, in memory
    on most machines. What killed daemons left beside it is removed.

    The lock itself lasts until the process ends, so that who waits for it sees the daemon gone.

    Raises:
        EnvironmentProblemError: another daemon serves or is about to serve the mountpoint, or
            no runtime directory can be used.
    """
    path, fd = _lock(mount.mountpoint, directories, busy_seconds)
    own = _directory_of(path)
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(asdict(mount)).encode(), 0)
        _sweep(path.parent)
        shutil.rmtree(own, ignore_errors=True)
        _note_of(path).unlink(missing_ok=True)
        own.mkdir(0o700)
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        path.unlink(missing_ok=True)
        # Succeeds for the last mount of the user.
        with contextlib.suppress(OSError):
            path.parent.rmdir()


@dataclass(frozen=True, slots=True)
class GivenUp:
    """A mount that was ended because its daemons died one after the other."""

    mountpoint: str
    source: str
    why: str


def note_given_up(given_up: GivenUp, directories: tuple[Path, ...] | None = None) -> None:
    """Let ``ossfs-py list`` tell of it until something is mounted there again.

    Raises:
        EnvironmentProblemError: no runtime directory can be used.
        OSError: it cannot be written.
    """
    note = _note_of(_usable(directories) / _record_name(given_up.mountpoint))
    fd = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, json.dumps(asdict(given_up)).encode())
    finally:
        os.close(fd)


def given_up_mounts(directories: tuple[Path, ...] | None = None) -> list[GivenUp]:
    """Notes of :func:`note_given_up` about this user's mounts, by mountpoint."""
    uid = os.geteuid()
    found = []
    for directory in directories or runtime_dirs(uid):
        if not _is_private(directory, uid):
            continue
        for note in directory.glob("*.ended"):
            with contextlib.suppress(OSError, ValueError, TypeError):
                found.append(GivenUp(**json.loads(note.read_bytes())))
    return sorted(found, key=lambda given_up: given_up.mountpoint)


class FoundDaemon:
    """A running daemon as seen by another process."""

    def __init__(self, mount: RunningMount, runtime_dir: Path, owner: int, fd: int) -> None:
        """``mount`` is what it says about itself, ``owner`` whose process it must be."""
        self.mount = mount
        self.runtime_dir = runtime_dir
        self.owner = owner
        self._fd = fd
        self._process = _process_behind(runtime_dir / SOCKET_NAME, owner)

    def wait_gone(self, timeout_seconds: float) -> bool:
        """Block until the process has ended; whether it did in time."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            if not _is_locked(self._fd) and not self._is_alive():
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
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._process, signal.SIGTERM)
        return True

    def _is_alive(self) -> bool:
        """Whether the process has not ended; one that waits for its parent has."""
        if self._process is None:
            return False
        poll = select.poll()
        poll.register(self._process, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)
        if self._process is not None:
            os.close(self._process)


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """Process id and user of whoever listens at the other end of a connected unix socket.

    The id is 0 for a process that this one's namespace does not show.
    """
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid, uid, _ = CREDENTIALS.unpack(raw)
    return pid, uid


def _process_behind(path: Path, owner: int) -> int | None:
    """A descriptor of the process that listens at ``path``; None unless it is ``owner``'s."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_CONNECT_SECONDS)
        try:
            sock.connect(str(path))
            pid, uid = peer_of(sock)
            if pid <= 0 or uid != owner:
                return None
            process = os.pidfd_open(pid)
        except OSError:
            return None
    # Looked at when the descriptor is held: had the id gone to another process meanwhile, it
    # would have to be one of the same user.
    if _user_of(pid) != owner:
        os.close(process)
        return None
    return process


def _user_of(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("Uid:")), None)


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
            fd = os.open(record, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        mount = read_record(fd, uid)
        if mount is not None and _is_locked(fd):
            return FoundDaemon(mount, _directory_of(record), uid, fd)
        os.close(fd)
    return None


def running_mounts(directories: tuple[Path, ...] | None = None) -> list[RunningMount]:
    """Records of the live daemons of this user, by mountpoint."""
    uid = os.geteuid()
    found: dict[str, RunningMount] = {}
    for directory in directories or runtime_dirs(uid):
        if not _is_private(directory, uid):
            continue
        for record in directory.glob("*.json"):
            with contextlib.suppress(OSError):
                fd = os.open(record, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    mount = read_record(fd, uid)
                    if mount is not None and _is_locked(fd):
                        found.setdefault(mount.mountpoint, mount)
                finally:
                    os.close(fd)
    return [found[name] for name in sorted(found)]


def read_record(fd: int, uid: int) -> RunningMount | None:
    """Parse a record; None for a file that no daemon of ``uid`` has written."""
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode) or info.st_uid != uid or info.st_nlink != 1:
        return None
    raw = os.pread(fd, _MAX_RECORD_BYTES + 1, 0)
    if len(raw) > _MAX_RECORD_BYTES:
        return None
    try:
        told = json.loads(raw)
        mount = RunningMount(**told)
    except (ValueError, TypeError, RecursionError):
        return None
    texts = [value for name, value in asdict(mount).items() if name != "pid"]
    if type(mount.pid) is not int or not all(isinstance(text, str) for text in texts):
        return None
    if any("\0" in text for text in texts):
        return None  # no path of anything
    return mount


def _record_name(mountpoint: str) -> str:
    return hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:24] + ".json"


def _directory_of(record: Path) -> Path:
    return record.with_suffix(".d")


def _note_of(record: Path) -> Path:
    return record.with_suffix(".ended")


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


def _usable(directories: tuple[Path, ...] | None) -> Path:
    uid = os.geteuid()
    candidates = directories or runtime_dirs(uid)
    for directory in candidates:
        with contextlib.suppress(OSError):
            directory.mkdir(0o700, exist_ok=True)
            if _is_private(directory, uid) and os.access(directory, os.W_OK | os.X_OK):
                return directory
    if directories is None:
        # A stranger has made the one in /tmp; nobody can guess this one's name.
        with contextlib.suppress(OSError):
            return Path(tempfile.mkdtemp(prefix=spare_prefix(uid), dir=SPARE_ROOT))
    names = " nor ".join(map(str, candidates))
    raise EnvironmentProblemError(f"neither {names} can be used to register the mount")


def _is_private(directory: Path, uid: int) -> bool:
    """Whether nobody but ``uid`` (and root) can have put something there."""
    try:
        info = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == uid and not info.st_mode & 0o022


def _lock(
    mountpoint: str, directories: tuple[Path, ...] | None, busy_seconds: float
) -> tuple[Path, int]:
    for _ in range(round(busy_seconds / _PAUSE_SECONDS)):
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
        f"the mountpoint {mountpoint} is busy: another ossfs-py serves it or is about to;"
        " 'ossfs-py umount' ends that"
    )


def _is_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False

"""The other end of the control socket: finds the mount of a path and asks its daemon. Blocks."""

import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeAlias

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.host.mountpoint import FILESYSTEM_TYPE, THIS_MACHINE, Machine
from ossfs_py.host.mounttable import MountEntry
from ossfs_py.host.running import SOCKET_NAME, FoundDaemon, RunningMount, find_daemon, peer_of
from ossfs_py.host.standing import Standing, look_at

OnProgress: TypeAlias = Callable[[Mapping[str, Any]], None]

_MAX_ANSWER_BYTES = 64 * 1024**2
"""One line. The longest there are list what is cached, some 100 bytes a file."""
_FOREIGN_SECONDS = 60.0
"""How long another user's daemon may say nothing; one's own may take its time."""


def mount_of(path: Path, machine: Machine = THIS_MACHINE) -> tuple[MountEntry, str]:
    """The ossfs-py mount that ``path`` lies in, and the path below its mountpoint (``""`` for
    the mountpoint itself).

    Symbolic links are followed; what does not exist counts as written.

    Raises:
        EnvironmentProblemError: it lies in none.
    """
    real = Path(os.path.realpath(path))
    around = [entry for entry in machine.mounts() if real.is_relative_to(entry.mountpoint)]
    deepest = max((len(entry.mountpoint.parts) for entry in around), default=0)
    # Of several mounts on one mountpoint the last one is seen.
    visible = [entry for entry in around if len(entry.mountpoint.parts) == deepest]
    if not visible or visible[-1].filesystem_type != FILESYSTEM_TYPE:
        raise EnvironmentProblemError(
            f"{path} is outside every ossfs-py mount (see 'ossfs-py list')"
        )
    below = real.relative_to(visible[-1].mountpoint)
    return visible[-1], "" if below == Path() else str(below)


class DaemonGoneError(EnvironmentProblemError):
    """The mount is there and its daemon is not, or not for this user."""


class ControlClient:
    """A running mount that can be asked. Use as a context manager."""

    def __init__(self, daemon: FoundDaemon) -> None:
        self._daemon = daemon

    @classmethod
    def of(cls, entry: MountEntry) -> Self:
        """The client of a mount.

        Raises:
            DaemonGoneError: its daemon is gone, somebody else's, or in another container.
        """
        daemon = find_daemon(entry.mountpoint, entry.owner)
        if daemon is not None:
            return cls(daemon)
        raise DaemonGoneError(_unreachable(entry))

    @property
    def mount(self) -> RunningMount:
        """The description that the daemon gives of itself."""
        return self._daemon.mount

    def call(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """Ask for ``command`` and wait for its result, however long that takes.

        Raises:
            EnvironmentProblemError: the daemon says why it cannot do it, or is gone.
        """
        request = {"command": command, "arguments": arguments or {}}
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                if self._daemon.owner != os.geteuid():
                    sock.settimeout(_FOREIGN_SECONDS)
                sock.connect(str(self._daemon.runtime_dir / SOCKET_NAME))
                if peer_of(sock)[1] != self._daemon.owner:
                    raise EnvironmentProblemError(self._silent())
                sock.sendall(json.dumps(request).encode() + b"\n")
                with sock.makefile("rb") as answers:
                    while line := answers.readline(_MAX_ANSWER_BYTES):
                        answer = _parsed(line)
                        if "progress" not in answer:
                            return _result(answer)
                        if on_progress is not None:
                            on_progress(answer["progress"])
        except PermissionError as exc:
            raise EnvironmentProblemError(
                f"only the owner of the mount at {self.mount.mountpoint} and root may do this"
            ) from exc
        except (OSError, ValueError) as exc:
            raise EnvironmentProblemError(self._silent()) from exc
        raise EnvironmentProblemError(self._silent())

    def _silent(self) -> str:
        return f"the daemon of the mount at {self.mount.mountpoint} is gone or does not answer"

    def close(self) -> None:
        """Stop watching the daemon."""
        self._daemon.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _unreachable(entry: MountEntry) -> str:
    """Why a mount has no daemon that this process could ask, and what to do."""
    if os.geteuid() not in (0, entry.owner):
        return (
            f"the mount at {entry.mountpoint} belongs to another user: only its owner and"
            " root may ask its daemon"
        )
    seen = look_at(entry.mountpoint)
    if seen.standing is Standing.DEAD:
        return (
            f"the daemon of the mount at {entry.mountpoint} is gone:"
            f" run 'ossfs-py umount {entry.mountpoint}', then mount again"
        )
    if seen.standing is Standing.SERVED_ELSEWHERE:
        return (
            f"the mount at {entry.mountpoint} is alive, but its daemon runs in another container,"
            " or outside of this one: run the command there"
        )
    return f"the mount at {entry.mountpoint} has no daemon that can be reached from here"


def _parsed(line: bytes) -> Mapping[str, Any]:
    """One answer: an object with an error, or with progress or a result that are objects.

    Raises:
        ValueError: no daemon of ours says such a thing.
    """
    try:
        answer = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if isinstance(answer, dict):
        told: dict[str, Any] = answer
        if "error" in told or isinstance(told.get("progress", told.get("result")), dict):
            return told
    raise ValueError("neither an error, nor progress, nor a result")


def _result(answer: Mapping[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        raise EnvironmentProblemError(str(answer["error"]))
    result: dict[str, Any] = answer["result"]
    return result

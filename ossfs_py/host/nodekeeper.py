"""The node's keeper: holds mounts while the containers that serve them are replaced.

It does not know buckets. For each mountpoint it holds the descriptors that a mount's keeper gave it
(the table of open files, the kernel's descriptor, locks), and gives them to the next keeper as soon
as the connection of the first one has ended. Until then programs wait. If no keeper comes in time,
or daemons die one after the other, it closes the descriptors, so that the kernel tells programs
that the mount is dead.

It belongs to one thread, which waits only for events of the kernel.
"""

import json
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.host.deposit import (
    ENDED,
    FREE,
    KEEP,
    KEPT,
    LEFT,
    LONGEST_WORD_BYTES,
    MOST_DESCRIPTORS,
    MOUNT,
    REFUSED,
    SERVES,
    TAKE,
    WAIT,
    peer_of,
)
from ossfs_py.host.kernelside import is_gone, mountpoint_of
from ossfs_py.host.mountpoint import THIS_MACHINE, unmount
from ossfs_py.host.running import GivenUp, note_given_up

_WINDOW_SECONDS = 60.0
_MOST_DEATHS = 5
"""After so many unexpected ends within a minute, the mount still gets another try."""
_LINGER_SECONDS = 2.0
"""Containers of a pod are told to end at the same time."""
_SOCKET_MASK = 0o177
_DIRECTORY_MODE = 0o700
_DEVICE = 1
"""Its index among the descriptors, after the table."""
_FEWEST = 2


@dataclass(eq=False, slots=True)
class _HeldMount:
    """One mount."""

    mountpoint: str
    source: str = ""
    descriptors: list[int] = field(default_factory=list)
    owner: socket.socket | None = None
    waiting: list[socket.socket] = field(default_factory=list)
    has_served: bool = False
    """Whether a daemon of the owner has answered the kernel."""
    is_left: bool = False
    """Whether the owner has said that it leaves the mount."""
    why: str = ""
    deadline: float | None = None
    """The time when the mount is given up, unless a daemon serves it."""
    deaths: list[float] = field(default_factory=list)


class NodeKeeper:
    """Listens on a socket for keepers of mounts."""

    def __init__(self, wait_seconds: float, tell: Callable[[str], None]) -> None:
        """``tell`` gets messages for people about mounts."""
        self._wait_seconds = wait_seconds
        self._tell = tell
        self._poll = select.poll()
        self._places: dict[str, _HeldMount] = {}
        self._connections: dict[int, tuple[socket.socket, _HeldMount | None]] = {}
        self._devices: dict[int, _HeldMount] = {}
        """The kernel's descriptors of mounts without a daemon, to detect their end."""
        self._told_to_end = os.eventfd(0, os.EFD_CLOEXEC)
        self._ends_at: float | None = None

    def serve(self, listener: socket.socket) -> None:
        """Returns after :meth:`end`."""
        for descriptor in (listener.fileno(), self._told_to_end):
            self._poll.register(descriptor, select.POLLIN)
        while True:
            ready = self._poll.poll(self._patience_ms())
            for number, _ in ready:
                if number == listener.fileno():
                    self._welcome(listener)
                elif number in self._connections:
                    self._hear(number)
                elif number in self._devices:
                    self._drop(self._devices[number])
                elif number == self._told_to_end:
                    os.eventfd_read(number)
                    self._ends_at = time.monotonic() + _LINGER_SECONDS
            self._give_up_late()
            if self._ends_at is not None and self._has_ended(self._ends_at):
                break
        for connection, _ in self._connections.values():
            connection.close()

    def end(self) -> None:
        """Give up mounts without a daemon, and leave the others alone. For signal handlers."""
        os.eventfd_write(self._told_to_end, 1)

    def _has_ended(self, at: float) -> bool:
        for place in list(self._places.values()):
            if place.owner is None:
                self._give_up(place, "its keeper was told to end")
                self._forget(place)
        return not self._places or time.monotonic() >= at

    def _patience_ms(self) -> float | None:
        deadlines = [p.deadline for p in self._places.values() if p.owner is None and p.deadline]
        if self._ends_at is not None:
            deadlines.append(self._ends_at)
        if not deadlines:
            return None
        return max(0.0, min(deadlines) - time.monotonic()) * 1000 + 1

    def _welcome(self, listener: socket.socket) -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            if peer_of(connection) not in (0, os.geteuid()):
                connection.close()
                return
            connection.setblocking(False)
            self._connections[connection.fileno()] = (connection, None)
            self._poll.register(connection, select.POLLIN)

    def _hear(self, number: int) -> None:
        connection, place = self._connections[number]
        descriptors: list[int] = []
        try:
            word, descriptors, _, _ = socket.recv_fds(
                connection, LONGEST_WORD_BYTES, MOST_DESCRIPTORS
            )
            if word.startswith(MOUNT) and place is None:
                self._claim(connection, word.removeprefix(MOUNT))
            elif word and place is not None and place.owner is connection:
                if word == KEEP and len(descriptors) >= _FEWEST:
                    self._keep(place, descriptors)
                    descriptors = []
                    connection.send(KEPT)
                else:
                    self._note(place, word)
            else:
                self._end(connection)
        except BlockingIOError:
            return
        except (OSError, ValueError, RecursionError):
            self._end(connection)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _claim(self, connection: socket.socket, told: bytes) -> None:
        """
        Raises:
            ValueError: the message is no claim.
        """
        claim = json.loads(told)
        if not isinstance(claim, dict) or not {"mountpoint", "source"} <= claim.keys():
            raise ValueError("a claim has a mountpoint and a source")
        mountpoint, source = str(claim["mountpoint"]), str(claim["source"])
        place = self._places.setdefault(mountpoint, _HeldMount(mountpoint, source))
        if place.source != source:
            why = f"it holds the mount of {place.source} at {mountpoint}, not of {source}"
            connection.send(REFUSED + why.encode())
            self._end(connection)
            return
        self._connections[connection.fileno()] = (connection, place)
        if place.owner is None:
            self._give(place, connection)
        else:
            place.waiting.append(connection)
            connection.send(WAIT + f"the daemon that serves {mountpoint} to let go of it".encode())

    def _give(self, place: _HeldMount, connection: socket.socket) -> None:
        place.owner, place.has_served, place.is_left = connection, False, False
        if place.descriptors:
            self._unwatch(place)
            self._tell(f"the mount at {place.mountpoint} goes to the next daemon")
        try:
            socket.send_fds(connection, [TAKE if place.descriptors else FREE], place.descriptors)
        except OSError:
            self._end(connection)

    def _keep(self, place: _HeldMount, descriptors: list[int]) -> None:
        is_new = not place.descriptors
        self._let_go(place)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        place.descriptors, place.has_served, place.deadline = descriptors, True, None
        if is_new:
            self._tell(f"the mount of {place.source} at {place.mountpoint} is kept")

    @staticmethod
    def _note(place: _HeldMount, word: bytes) -> None:
        if word == SERVES:
            place.has_served, place.deadline = True, None
        elif word.startswith(LEFT):
            place.is_left, place.why = True, word.removeprefix(LEFT).decode(errors="replace")
        elif word == ENDED:
            NodeKeeper._let_go(place)
        else:
            raise ValueError("an unknown word")

    def _end(self, connection: socket.socket) -> None:
        """A connection has ended: the next one gets its mount."""
        _, place = self._connections.pop(connection.fileno())
        self._poll.unregister(connection)
        connection.close()
        if place is None:
            return
        if place.owner is not connection:
            place.waiting.remove(connection)
            return
        place.owner = None
        if place.descriptors and is_gone(place.descriptors[_DEVICE]):
            self._let_go(place)
        if place.descriptors:
            self._wait_for_next(place)
        if place.waiting:
            self._give(place, place.waiting.pop(0))
        elif not place.descriptors:
            del self._places[place.mountpoint]

    def _wait_for_next(self, place: _HeldMount) -> None:
        now = time.monotonic()
        if place.has_served or place.deadline is None:
            # A side that only tried to take over does not prolong the wait of programs.
            place.deadline = now + self._wait_seconds
        if not place.is_left:
            place.why = "its daemon died"
            place.deaths = [when for when in place.deaths if when > now - _WINDOW_SECONDS] + [now]
            if len(place.deaths) > _MOST_DEATHS:
                self._give_up(place, f"its daemon died {len(place.deaths)} times within a minute")
                return
        device = place.descriptors[_DEVICE]
        self._devices[device] = place
        self._poll.register(device, 0)
        reason = f" ({place.why})" if place.why else ""
        self._tell(f"the mount at {place.mountpoint} waits for its next daemon{reason}")

    def _give_up_late(self) -> None:
        now = time.monotonic()
        for place in list(self._places.values()):
            if place.owner is None and place.deadline is not None and place.deadline <= now:
                reason = f"; {place.why}" if place.why else ""
                why = f"no other daemon served it within {self._wait_seconds:g} s{reason}"
                self._give_up(place, why)
                self._forget(place)

    def _give_up(self, place: _HeldMount, why: str) -> None:
        """Tell programs that the mount is dead; unmount it if this process may."""
        self._unwatch(place)
        where = mountpoint_of(place.descriptors[_DEVICE])
        is_here = bool(THIS_MACHINE.mounts_at(where))
        self._let_go(place)
        place.deaths = []
        self._tell(f"the mount at {place.mountpoint} is given up: {why}")
        with suppress(OSError, EnvironmentProblemError):
            note_given_up(GivenUp(place.mountpoint, place.source, why))
        if is_here:
            try:
                unmount(where, lazy=True)
            except EnvironmentProblemError as exc:
                self._tell(f"the next mount has to clean up: {exc}")

    def _drop(self, place: _HeldMount) -> None:
        """A mount without a daemon was unmounted."""
        self._unwatch(place)
        self._let_go(place)
        self._tell(f"the mount at {place.mountpoint} was unmounted")
        self._forget(place)

    def _forget(self, place: _HeldMount) -> None:
        if place.owner is None and not place.waiting:
            self._places.pop(place.mountpoint, None)

    def _unwatch(self, place: _HeldMount) -> None:
        for device in place.descriptors[_DEVICE:_FEWEST]:
            if self._devices.pop(device, None) is not None:
                self._poll.unregister(device)

    @staticmethod
    def _let_go(place: _HeldMount) -> None:
        for descriptor in place.descriptors:
            os.close(descriptor)
        place.descriptors, place.deadline = [], None


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A socket that only this user (and root) may use; removed at the end.

    Raises:
        EnvironmentProblemError: it cannot be made.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        try:
            if not path.parent.exists():
                path.parent.mkdir(mode=_DIRECTORY_MODE, parents=True)
            _clear(path)
            mask = os.umask(_SOCKET_MASK)
            try:
                listener.bind(str(path))
            finally:
                os.umask(mask)
            listener.listen()
        except OSError as exc:
            raise EnvironmentProblemError(f"--socket: {path}: {exc.strerror or exc}") from None
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _clear(path: Path) -> None:
    """Remove the socket of a killed keeper.

    Raises:
        EnvironmentProblemError: a keeper listens there.
    """
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise EnvironmentProblemError(f"--socket: another keeper listens at {path}")

"""The descriptors that the node's keeper holds for a mount, so that it outlives its container.

A mount's keeper names a mountpoint to the node's keeper (``ossfs-py keeper``, ``nodekeeper.py``)
over a unix socket. The answer has the descriptors held for it, if there are any. A connection lasts
while its side serves the mount. Its end, for any reason, lets the next side have the mount.

    MOUNT                the side, and the mountpoint that it wants to serve
      WAIT               another side serves it; the next answer follows when that has ended
      FREE               nothing is held
      TAKE               with table, kernel's descriptor and locks
      REFUSED            with the reason
    KEEP                 with table, kernel's descriptor and locks
      KEPT
    SERVES, LEFT, ENDED  the state of the mount

Only Python's standard library is imported: the keeper uses this module.
"""

import json
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

MOUNT: Final = b"mount "
"""Mountpoint and source as JSON follow."""
WAIT: Final = b"wait "
"""A description of the side that serves it follows."""
FREE: Final = b"free"
TAKE: Final = b"take"
REFUSED: Final = b"refused "
"""The reason follows."""
KEEP: Final = b"keep"
KEPT: Final = b"kept"
SERVES: Final = b"serves"
LEFT: Final = b"left "
"""The reason follows, unless it is that the container was told to end."""
ENDED: Final = b"ended"
LONGEST_WORD_BYTES: Final = 64 * 1024
MOST_DESCRIPTORS: Final = 8
"""A table, the kernel's descriptor, and a lock or two."""
PEER: Final = struct.Struct("3i")
"""struct ucred of unix(7): pid, uid, gid."""

_PATIENCE_SECONDS = 30.0
"""Containers of a pod start in any order."""
_PAUSE_SECONDS = 0.1
_ANSWER_SECONDS = 5.0


class DepositError(Exception):
    """The reason why the node's keeper cannot be used, as a sentence."""


class Deposit:
    """The place of one mount at the node's keeper. Belongs to the keeper of the mount."""

    def __init__(
        self,
        path: str,
        told: dict[str, str],
        channel: socket.socket,
        descriptors: Sequence[int] = (),
    ) -> None:
        self._path = path
        self._told = told
        self._channel: socket.socket | None = channel
        self.descriptors = list(descriptors)
        """Table, kernel's descriptor and locks: those held when it was claimed, then the present
        ones.
        """
        self._is_taken = bool(descriptors)

    @classmethod
    def claimed(
        cls,
        path: str,
        told: dict[str, str],
        warn: Callable[[str], None],
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> "Deposit":
        """The place of the mount in ``told``. Blocks while another daemon serves it, and reports
        that to ``warn``.

        Raises:
            DepositError: the node's keeper cannot be used.
        """
        channel = _connected(path, patience_seconds)
        try:
            channel.send(MOUNT + json.dumps(told).encode())
            while True:
                word, descriptors, _, _ = socket.recv_fds(
                    channel, LONGEST_WORD_BYTES, MOST_DESCRIPTORS
                )
                if word.startswith(WAIT):
                    warn(f"waiting for {word.removeprefix(WAIT).decode()}")
                elif word in (FREE, TAKE):
                    return cls(path, told, channel, descriptors)
                elif word.startswith(REFUSED):
                    raise DepositError(
                        f"the keeper at {path}: {word.removeprefix(REFUSED).decode()}"
                    )
                else:
                    raise DepositError(f"the keeper at {path} ended")
        except OSError as exc:
            channel.close()
            raise DepositError(f"the keeper at {path}: {exc.strerror}") from None
        except BaseException:
            channel.close()
            raise

    def handed_on(self) -> str:
        """The state for the program that replaces this one in the process."""
        number = -1 if self._channel is None else self._channel.detach()
        for descriptor in (number, *self.descriptors):
            os.set_inheritable(descriptor, True)
        return json.dumps([self._path, self._told, number, self.descriptors])

    @classmethod
    def from_text(cls, text: str) -> "Deposit":
        """Restore the state from :meth:`handed_on`."""
        path, told, number, descriptors = json.loads(text)
        for descriptor in (number, *descriptors):
            os.set_inheritable(descriptor, False)
        return cls(path, told, socket.socket(fileno=number), descriptors)

    @property
    def is_taken(self) -> bool:
        """Whether the mount outlives this process: the node's keeper holds all its descriptors."""
        return self._is_taken and self._channel is not None and not _has_ended(self._channel)

    def keep(self, descriptors: Sequence[int]) -> None:
        """Give the node's keeper the descriptors that the mount needs from now on."""
        self.descriptors = list(descriptors)
        self._is_taken = False
        if self._channel is None:
            self.look_after()
        else:
            self._give()

    def look_after(self) -> None:
        """If the node's keeper has ended, give the descriptors to its successor. Does not wait for
        one.
        """
        if self._channel is not None and not _has_ended(self._channel):
            return
        self._lose()
        if not self.descriptors:
            return
        with suppress(DepositError, OSError):
            self._channel = _connected(self._path, patience_seconds=0)
            self._channel.settimeout(_ANSWER_SECONDS)
            self._channel.send(MOUNT + json.dumps(self._told).encode())
            word, descriptors, _, _ = socket.recv_fds(
                self._channel, LONGEST_WORD_BYTES, MOST_DESCRIPTORS
            )
            for descriptor in descriptors:
                os.close(descriptor)  # the local one is newer
            if word in (FREE, TAKE):
                self._give()
                return
        self._lose()

    def serves(self) -> None:
        """Report that a daemon answers the kernel now."""
        self._say(SERVES)

    def left(self, why: str = "") -> None:
        """Report that this side leaves the mount, and that the next one has to continue."""
        self._say(LEFT + why.encode())

    def ended(self) -> None:
        """Report that the mount has ended, and no descriptor need be held."""
        self.descriptors = []
        self._is_taken = False
        self._say(ENDED)

    def _give(self) -> None:
        if self._channel is None:
            return
        try:
            self._channel.settimeout(_ANSWER_SECONDS)
            socket.send_fds(self._channel, [KEEP], self.descriptors)
            self._is_taken = self._channel.recv(LONGEST_WORD_BYTES) == KEPT
        except OSError:
            self._lose()

    def _say(self, word: bytes) -> None:
        if self._channel is not None:
            with suppress(OSError):
                self._channel.send(word[:LONGEST_WORD_BYTES])

    def _lose(self) -> None:
        self._is_taken = False
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def _connected(path: str, patience_seconds: float) -> socket.socket:
    """A connection to the node's keeper, which must belong to this user or root.

    Raises:
        DepositError: there is none.
    """
    deadline = time.monotonic() + patience_seconds
    while True:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            channel.connect(path)
            break
        except OSError as exc:
            channel.close()
            if time.monotonic() >= deadline:
                raise DepositError(
                    f"no keeper answers at {path} ({exc.strerror}): start 'ossfs-py keeper"
                    " --socket' first"
                ) from None
        time.sleep(_PAUSE_SECONDS)
    owner = peer_of(channel)
    if owner not in (0, os.geteuid()):
        channel.close()
        raise DepositError(f"the keeper at {path} is user {owner}'s, neither root's nor yours")
    return channel


def peer_of(channel: socket.socket) -> int:
    """The user at the other end, according to the kernel."""
    told = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size)
    _pid, uid, _gid = PEER.unpack(told)
    return int(uid)


def _has_ended(channel: socket.socket) -> bool:
    poll = select.poll()
    poll.register(channel, 0)
    return bool(poll.poll(0))

"""The daemon's side of its keeper: the process that outlives it, and starts the next one.

The keeper is the daemon's parent (``cli/keeper.py``). It holds a descriptor for what the next
daemon must know, and once the mount answers it is sent the kernel's descriptor as well. It reads
what it was sent when a child of it has ended, or when it is told that one has: until then that
lies in the socket.
"""

import json
import logging
import os
import signal
import socket
import struct
import time
from collections.abc import Mapping
from typing import Final

log = logging.getLogger(__name__)

DEVICE: Final = b"device"
"""Comes with the kernel's descriptor: from now on the mount can be taken over."""
HELD: Final = b"held"
"""Comes with a descriptor that the keeper is to hold as long as it lives."""
ENDED: Final = b"ended"
"""The daemon ends the mount: nobody is to be started again."""
REFUSED: Final = b"refused"
"""The daemon cannot go on for the one before, nor could another one."""
NEXT: Final = b"next "
"""Changed settings as JSON follow; comes with the socket over which the next daemon speaks with
this one. It is to be started now."""
HANDED: Final = b"handed"
"""The daemon lets go of the mount: the one that was started goes on with it."""
SERVES: Final = b"serves"
"""The daemon goes on with a mount that it was given."""
ENDING: Final = (signal.SIGTERM, signal.SIGINT)
"""Signals that end the mount. A daemon that takes one over is started with them blocked."""
LONGEST_WORD_BYTES: Final = 64 * 1024
_BEAT = struct.Struct("=Q")
_BEAT_AT = 16
"""Where in the table that outlives the daemon it writes when it ran last, in ns."""


class KeeperGoneError(Exception):
    """Nobody would start another daemon."""


def seconds_since_beat(ledger: int) -> float:
    """How long ago the daemon ran; 0 if it has not told since :func:`forget_beat`."""
    told = os.pread(ledger, _BEAT.size, _BEAT_AT)
    if len(told) < _BEAT.size or not any(told):
        return 0.0
    (at_ns,) = _BEAT.unpack(told)
    return float(time.monotonic_ns() - at_ns) / 1e9


def forget_beat(ledger: int) -> None:
    """Another daemon is to tell."""
    if os.fstat(ledger).st_size:
        os.pwrite(ledger, bytes(_BEAT.size), _BEAT_AT)


class MountKeeper:
    """The keeper that started this process.

    ``ledger`` is the descriptor of what outlives the daemon, ``device`` the kernel's if there was a
    daemon before; both stay open as long as the process lives. ``given_up`` is why the keeper wants
    the mount to be ended and not served.
    """

    def __init__(
        self, channel: socket.socket, ledger: int, device: int | None = None, given_up: str = ""
    ) -> None:
        self._channel = channel
        self.ledger = ledger
        self.device = device
        self.given_up = given_up
        for descriptor in (ledger, device):
            if descriptor is not None:
                os.set_inheritable(descriptor, False)

    def beat(self) -> None:
        """This daemon runs. For who has made a table of the ledger."""
        os.pwrite(self.ledger, _BEAT.pack(time.monotonic_ns()), _BEAT_AT)

    def hand_over(self, device: int) -> None:
        """The next daemon can go on with the kernel's descriptor."""
        try:
            socket.send_fds(self._channel, [DEVICE], [device])
            self._wake()
        except OSError as exc:
            log.warning(
                "the keeper is gone (%s): the mount will not survive its daemon", exc.strerror
            )

    def goes_on(self) -> None:
        """This daemon serves the mount that it was given. For the main thread: signals that came
        meanwhile reach it now, as nothing can be brought to the store before that.
        """
        self._tell(SERVES)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)

    def hold(self, descriptor: int) -> None:
        """Whatever hangs on a descriptor outlives the daemon."""
        try:
            socket.send_fds(self._channel, [HELD], [descriptor])
            self._wake()
        except OSError as exc:
            log.debug("the keeper is gone: %s", exc.strerror)

    def start_next(self, changes: Mapping[str, object], channel: socket.socket) -> None:
        """Have a daemon started that is to take over, with ``changes`` to its settings; ``channel``
        becomes its own.

        Raises:
            KeeperGoneError: the keeper has died.
        """
        word = NEXT + json.dumps(dict(changes)).encode()
        try:
            socket.send_fds(self._channel, [word], [channel.fileno()])
            self._wake()
        except OSError as exc:
            raise KeeperGoneError(exc.strerror) from None

    @staticmethod
    def _wake() -> None:
        """It waits for its children only; the socket has told that it lives."""
        os.kill(os.getppid(), signal.SIGCHLD)

    def handed(self) -> None:
        """This daemon is about to end, and the next one to go on."""
        self._tell(HANDED)

    def ended(self) -> None:
        """The mount ends."""
        self._tell(ENDED)

    def refused(self) -> None:
        """What the daemon before has left cannot be gone on with."""
        self._tell(REFUSED)

    def _tell(self, word: bytes) -> None:
        try:
            self._channel.send(word)
            self._wake()
        except OSError as exc:
            log.debug("the keeper is gone: %s", exc.strerror)

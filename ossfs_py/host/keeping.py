"""The daemon's side of its keeper: the process that outlives it, and starts the next one.

The keeper is the daemon's parent (``cli/keeper.py``). It holds a descriptor for what the next
daemon must know, and once the mount answers it is sent the kernel's descriptor as well. It reads
what it was sent only when its daemon is dead: until then that lies in the socket.
"""

import logging
import os
import socket
from typing import Final

log = logging.getLogger(__name__)

DEVICE: Final = b"device"
"""Comes with the kernel's descriptor: from now on the mount can be taken over."""
ENDED: Final = b"ended"
"""The daemon ends the mount: nobody is to be started again."""
REFUSED: Final = b"refused"
"""The daemon cannot go on for the one before, nor could another one."""


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

    def hand_over(self, device: int) -> None:
        """The next daemon can go on with the kernel's descriptor."""
        try:
            socket.send_fds(self._channel, [DEVICE], [device])
        except OSError as exc:
            log.warning("the keeper is gone (%s): a restart will not be survived", exc.strerror)

    def ended(self) -> None:
        """The mount ends."""
        self._tell(ENDED)

    def refused(self) -> None:
        """What the daemon before has left cannot be gone on with."""
        self._tell(REFUSED)

    def _tell(self, word: bytes) -> None:
        try:
            self._channel.send(word)
        except OSError as exc:
            log.debug("the keeper is gone: %s", exc.strerror)

"""Choice of the address for the next connection, and of our own address for it."""

import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from ossfs_py.errors import EnvironmentProblemError

_AVOID_SECONDS = 30.0
"""About as long as a store takes to drop a dead front end from its DNS."""

Entry = tuple[Any, Any, int, str, Any]
"""An entry of ``getaddrinfo``: family, kind, protocol, name, address with port."""


class AddressBook:
    """Spreads connections over the addresses of a name, and over our own addresses.

    Within the family that the system prefers, the address that was dialled longest ago comes first,
    so that each gets as many connections. A failed address comes last for a while. Safe for
    concurrent use.
    """

    def __init__(self, own: Sequence[str] = ()) -> None:
        """``own``: the addresses of this machine to connect from in turn; none: the system chooses.

        Raises:
            EnvironmentProblemError: this machine does not have one of them.
        """
        self._own = [(_family_of(address), address) for address in own]
        for family, address in self._own:
            try:
                with socket.socket(family, socket.SOCK_STREAM) as probe:
                    probe.bind((address, 0))
            except OSError as exc:
                raise EnvironmentProblemError(
                    f"--bind: no connection can come from {address}: {exc.strerror}"
                ) from None
        self._lock = threading.Lock()
        self._avoided: dict[str, float] = {}
        """By address: the time until which others are tried first."""
        self._dialled: dict[str, int] = {}
        """By address: the number of its last dial; only addresses of the last lookup."""
        self._dials = 0

    def avoid(self, address: str) -> None:
        """Try the other addresses first for a while, as this one failed."""
        self._avoided[address] = time.monotonic() + _AVOID_SECONDS

    def in_turn(self, found: Sequence[Entry]) -> list[Entry]:
        """The entries in the order to try them, without those that our own addresses cannot reach.
        The first one counts as dialled.
        """
        families = {family for family, _ in self._own}
        usable = [entry for entry in found if not families or entry[0] in families]
        if not usable:
            return []
        preferred, now = usable[0][0], time.monotonic()
        with self._lock:
            known = {_address(entry): self._dialled.get(_address(entry), 0) for entry in usable}
            usable.sort(
                key=lambda entry: (
                    self._avoided.get(_address(entry), 0.0) > now,
                    entry[0] != preferred,
                    known[_address(entry)],
                )
            )
            self._dials += 1
            known[_address(usable[0])] = self._dials
            self._dialled = known
        return usable

    def bind(self, sock: socket.socket) -> None:
        """Bind the socket to the next of our own addresses of its family.

        Raises:
            OSError: the machine does not have it any more.
        """
        own = [address for family, address in self._own if family == sock.family]
        if own:
            # The port is chosen when the destination is known, so that ports do not run out.
            sock.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
            sock.bind((own[self._dials % len(own)], 0))


_BIND_ADDRESS_NO_PORT = 24
"""IP_BIND_ADDRESS_NO_PORT of linux/in.h, which Python does not define; valid for IPv6, too."""


def _address(entry: Entry) -> str:
    return str(entry[4][0])


def _family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET

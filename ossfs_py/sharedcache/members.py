"""The list of nodes: fixed, the addresses of a name, or a file that may change."""

import socket
from dataclasses import dataclass
from pathlib import Path

DEFAULT_PORT = 11211
"""memcached's own."""

FILE_PREFIX = "file:"


class MembersUnknownError(Exception):
    """The nodes cannot be told now; the text says why. Those known before stay."""


@dataclass(frozen=True, slots=True)
class Member:
    """A node: the name that every machine knows it by, and where it is reached."""

    name: str
    address: tuple[str, int]


def parse_member(text: str) -> tuple[str, int]:
    """Host and port of ``HOST[:PORT]`` (``[::1]:11211`` for IPv6).

    Raises:
        ValueError: it is none.
    """
    text = text.strip()
    if text.startswith("["):
        host, closing, rest = text[1:].partition("]")
        port = rest.removeprefix(":") if rest else str(DEFAULT_PORT)
        good = bool(closing) and (not rest or rest.startswith(":"))
    else:
        host, _, port = text.partition(":")
        port, good = port or str(DEFAULT_PORT), not text.endswith(":")
    if not (good and host and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise ValueError(f"{text!r} is not HOST:PORT")
    if any(c.isspace() or c in "/@," or not c.isprintable() for c in host):
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def find_members(described: str) -> tuple[Member, ...]:
    """The nodes that ``HOST:PORT,HOST:PORT…``, ``NAME:PORT`` or ``file:PATH`` describes now.

    One name stands for all its addresses, each of which is a node. Of several, each is one node,
    known by how it is written. Blocks while names are looked up.

    Raises:
        MembersUnknownError: a name does not resolve, or the file cannot be read.
    """
    if described.startswith(FILE_PREFIX):
        try:
            text = Path(described.removeprefix(FILE_PREFIX)).read_text()
        except (OSError, UnicodeDecodeError) as exc:
            raise MembersUnknownError(f"the file of nodes cannot be read: {exc}") from None
        lines = [line.split("#")[0].strip() for line in text.splitlines()]
        return _listed([line for line in lines if line])
    hosts = [part for part in described.split(",") if part.strip()]
    if len(hosts) == 1:
        return _addresses(hosts[0])
    return _listed(hosts)


def is_this_machine_only(described: str, members: tuple[Member, ...]) -> bool:
    """Whether a name that says something else led to loopback addresses only: as it may on every
    machine, each of which then has a cache of its own.
    """
    return (
        bool(members)
        and not any(_is_loopback(part.strip().strip("[]")) for part in described.split(","))
        and all(_is_loopback(member.address[0]) for member in members)
    )


def _is_loopback(host: str) -> bool:
    return host.startswith(("127.", "::1", "localhost"))


def _listed(hosts: list[str]) -> tuple[Member, ...]:
    found: dict[str, Member] = {}
    for text in hosts:
        try:
            host, port = parse_member(text)
        except ValueError as exc:
            raise MembersUnknownError(str(exc)) from None
        name = _named(host, port)
        found[name] = Member(name, (host, port))
    return tuple(sorted(found.values(), key=lambda member: member.name))


def _addresses(text: str) -> tuple[Member, ...]:
    try:
        host, port = parse_member(text)
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError, UnicodeError) as exc:
        raise MembersUnknownError(f"{text!r} cannot be resolved: {exc}") from None
    found = {str(answer[4][0]) for answer in answers}
    return tuple(Member(_named(ip, port), (ip, port)) for ip in sorted(found))


def _named(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

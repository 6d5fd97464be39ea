"""Which addresses connections go to, and come from."""

import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.store.http.addresses import AddressBook, Entry
from ossfs_py.store.http.dialing import Dialer, Origin, Timeouts
from ossfs_py.store.http.faults import NoAnswerError

FOUR = [f"192.0.2.{number}" for number in range(4)]
SIX = [f"2001:db8::{number}" for number in range(1, 3)]
NOT_OURS = "192.0.2.7"
"""Of the block for documentation (RFC 5737)."""


def entries(addresses: list[str]) -> list[Entry]:
    return [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, 80, 0, 0))
        if ":" in address
        else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))
        for address in addresses
    ]


def first(book: AddressBook, addresses: list[str]) -> str:
    return str(book.in_turn(entries(addresses))[0][4][0])


def test_as_many_connections_go_to_each_address_whatever_order_they_are_found_in() -> None:
    book = AddressBook()
    orders = [FOUR, FOUR[::-1], FOUR[2:] + FOUR[:2]]
    gone = Counter(first(book, orders[number % 3]) for number in range(40))
    assert gone == dict.fromkeys(FOUR, 10)


def test_the_kind_of_address_that_the_system_prefers_stays_first() -> None:
    book = AddressBook()
    assert {first(book, SIX + FOUR) for _ in range(8)} == set(SIX)
    assert {first(book, FOUR + SIX) for _ in range(8)} == set(FOUR)


def test_an_address_that_failed_comes_last() -> None:
    book = AddressBook()
    book.avoid(FOUR[1])
    for _ in range(8):
        tried = [entry[4][0] for entry in book.in_turn(entries([*FOUR, *SIX]))]
        assert tried[-1] == FOUR[1]
        assert set(tried) == {*FOUR, *SIX}


def test_connections_opened_at_once_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    found = socket.getaddrinfo
    names = [f"127.0.0.{number}" for number in range(1, 4)]

    def several(host: str, port: int, **more: int) -> list[tuple[object, ...]]:
        (entry,) = found("127.0.0.1", port, **more)  # type: ignore[arg-type]
        return [(*entry[:4], (name, port)) for name in names]

    monkeypatch.setattr(socket, "getaddrinfo", several)
    with socket.create_server(("0.0.0.0", 0)) as listener:
        dialer = Dialer(Origin("store.test", listener.getsockname()[1], None), Timeouts(30.0, 30.0))
        with ThreadPoolExecutor(6) as pool:
            made = list(pool.map(lambda _: dialer.dial(), range(6)))
        assert Counter(one.address for one in made) == dict.fromkeys(names, 2)
        for one in made:
            one.close()


def peers_of(count: int, **options: object) -> list[str]:
    """Where so many connections of one dialer come from."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        origin = Origin("127.0.0.1", listener.getsockname()[1], None)
        dialer = Dialer(origin, Timeouts(30.0, 30.0), **options)  # type: ignore[arg-type]
        made = [dialer.dial() for _ in range(count)]
        peers = []
        for one in made:
            sock, (address, _) = listener.accept()
            peers.append(address)
            sock.close()
            one.close()
    return peers


def test_connections_come_from_the_addresses_to_bind_to_in_turn() -> None:
    own = ("127.0.0.2", "127.0.0.3")
    assert Counter(peers_of(6, bind=own)) == dict.fromkeys(own, 3)
    assert peers_of(2) == ["127.0.0.1"] * 2


def test_an_address_of_the_other_kind_reaches_no_address_of_the_store() -> None:
    with pytest.raises(NoAnswerError, match="no address of the kind of those to come from"):
        peers_of(1, bind=("::1",))


def test_ipv6_addresses_can_be_bound_to() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        origin = Origin("::1", listener.getsockname()[1], None)
        connection = Dialer(origin, Timeouts(30.0, 30.0), bind=("127.0.0.2", "::1")).dial()
        sock, (address, *_) = listener.accept()
        assert address == "::1"
        sock.close()
        connection.close()


def test_an_address_that_is_not_of_this_machine_is_told_before_anything_is_sent() -> None:
    with pytest.raises(EnvironmentProblemError, match=f"--bind: .* from {NOT_OURS}"):
        AddressBook([NOT_OURS])

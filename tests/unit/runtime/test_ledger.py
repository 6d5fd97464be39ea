"""Records that outlive who wrote them."""

import os
import random
from collections.abc import Iterator

import pytest

from ossfs_py.runtime.ledger import LedgerError, StateTable


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = os.memfd_create("test")
    yield descriptor
    os.close(descriptor)


def contents(descriptor: int) -> list[tuple[int, bytes]]:
    """What whoever comes next finds."""
    ledger = StateTable(descriptor)
    found = sorted((record.kind, record.content) for record in ledger.take_found())
    assert ledger.take_found() == []
    ledger.close()
    return found


def test_what_was_put_changed_and_dropped_is_found_as_it_was_left(memory: int) -> None:
    ledger = StateTable(memory)
    rng = random.Random(1)
    kept: dict[int, tuple[int, bytes]] = {}
    for _ in range(20_000):
        if kept and rng.random() < 0.4:
            place = rng.choice(list(kept)) if rng.random() < 0.01 else next(iter(kept))
            del kept[place]
            ledger.drop(place)
            continue
        kind, size = rng.randint(1, 255), rng.choice((8, 30, 56, 57, 90, 300, 900, 8000))
        content = rng.randbytes(size)
        place = ledger.put(kind, content)
        assert place not in kept
        if rng.random() < 0.5:
            ledger.set_number(place, 7)
            content = (7).to_bytes(8, "little") + content[8:]
        kept[place] = kind, content
    ledger.close()
    assert contents(memory) == sorted(kept.values())
    again = StateTable(memory)
    before = os.fstat(memory).st_size
    for place in [record.place for record in again.take_found()]:
        again.drop(place)
    for _ in range(100):
        again.put(1, bytes(8000))
    assert os.fstat(memory).st_size == before, "what was freed is not used again"
    again.close()


def test_a_record_that_was_not_written_to_its_end_is_not_there(memory: int) -> None:
    ledger = StateTable(memory)
    ledger.put(1, b"whole")
    place = ledger.put(2, b"half")
    ledger.close()
    os.pwrite(memory, b"\0", place)
    assert contents(memory) == [(1, b"whole")]


def test_a_record_longer_than_any_slot_is_refused(memory: int) -> None:
    with pytest.raises(ValueError, match="too long"):
        StateTable(memory).put(1, bytes(33_000))


@pytest.mark.parametrize(
    ("place", "bytes_there", "told"),
    [
        (0, b"X", "does not begin as it must"),
        (8, b"\x09", "version 9"),
        (64 * 1024, b"\x11", "slots of"),
        (64 * 1024 + 16 + 4, b"\xff\xff", "bytes in a slot of 64"),
    ],
)
def test_what_is_damaged_or_of_another_version_is_refused(
    memory: int, place: int, bytes_there: bytes, told: str
) -> None:
    ledger = StateTable(memory)
    for _ in range(2000):
        ledger.put(1, b"record")
    ledger.close()
    os.pwrite(memory, bytes_there, place)
    with pytest.raises(LedgerError, match=told):
        StateTable(memory)


def test_a_file_of_another_length_is_refused(memory: int) -> None:
    os.ftruncate(memory, 100)
    with pytest.raises(LedgerError, match="100 bytes"):
        StateTable(memory)


def test_damage_anywhere_is_refused_or_read_past_but_never_anything_else(memory: int) -> None:
    rng = random.Random(2)
    ledger = StateTable(memory)
    for _ in range(300):
        ledger.put(rng.randint(1, 9), rng.randbytes(rng.choice((20, 100, 1000))))
    ledger.close()
    whole = os.pread(memory, os.fstat(memory).st_size, 0)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        os.pwrite(memory, damaged, 0)
        try:
            contents(memory)
        except LedgerError:
            continue

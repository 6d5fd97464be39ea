"""Records in memory that outlives the process: a table in a descriptor that somebody else keeps.

The file has pages of slots of one size, so that a record is written and taken away in place, and
nothing is ever compacted:

    page 0    magic, version; eight bytes from 16 on are its keeper's (``host.keeping``)
    page N    size of its slots (u32), then the slots: kind (u8; 0: free), length (u32), the bytes

A record is there from the moment its kind is written, which is last: whoever is killed while
writing leaves a free slot.
"""

import mmap
import os
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

_MAGIC = b"ossfs-py"
VERSION: Final = 3
"""The version of the file, and of the records that ``filesystem.survival`` writes into it."""
_HEAD = struct.Struct("=8sI")
_PAGE_BYTES = 64 * 1024
_PAGE_HEAD = struct.Struct("=I12x")
_SLOT_HEAD = struct.Struct("=BxxxI")
_SLOT_BYTES = (64, 128, 320, 1280, 4096, 32768)
_FREE = 0
_GROWTH_PAGES = 16
_NUMBER = struct.Struct("=Q")


class LedgerError(Exception):
    """Why a file cannot be read, as the end of a sentence about it."""


class Record(NamedTuple):
    """One record; ``place`` is how it is changed and dropped."""

    place: int
    kind: int
    content: bytes


class StateTable:
    """The table behind a descriptor, which stays the caller's. Belongs to one thread."""

    def __init__(self, descriptor: int, *, reads: bool = True) -> None:
        """An empty file becomes an empty table. ``reads`` False: for :meth:`first` only.

        Raises:
            LedgerError: it is of another version, damaged, or too large.
        """
        self._free: dict[int, list[int]] = {size: [] for size in _SLOT_BYTES}
        size = os.fstat(descriptor).st_size
        if size:
            self._pages = size // _PAGE_BYTES
            if not self._pages or size % _PAGE_BYTES:
                raise LedgerError(f"is damaged: it has {size} bytes")
            try:
                self._map = mmap.mmap(descriptor, size)
            except (OSError, ValueError, OverflowError):
                raise LedgerError(f"is too large: it has {size} bytes") from None
            self._check()
        else:
            os.ftruncate(descriptor, _PAGE_BYTES)
            self._pages = 1
            self._map = mmap.mmap(descriptor, _PAGE_BYTES)
            _HEAD.pack_into(self._map, 0, _MAGIC, VERSION)
        self._used_pages = 1
        self._found = list(self._read()) if size and reads else []

    def close(self) -> None:
        """Unmap the memory; the records stay."""
        self._map.close()

    @classmethod
    def first(cls, descriptor: int, kind: int) -> bytes | None:
        """The first record of a kind, without the time that it takes to read all of them. Another
        process may be writing others.

        Raises:
            LedgerError: the table cannot be read.
        """
        if not os.fstat(descriptor).st_size:
            return None
        table = cls(descriptor, reads=False)
        try:
            return next((each.content for each in table._read() if each.kind == kind), None)
        finally:
            table.close()

    def take_found(self) -> list[Record]:
        """The records that were there at the beginning; once."""
        found, self._found = self._found, []
        return found

    def put(self, kind: int, content: bytes) -> int:
        """Write a record of a ``kind`` from 1 to 255; its place.

        Raises:
            ValueError: it is longer than any slot.
            OSError: there is no memory for it.
        """
        needed = _SLOT_HEAD.size + len(content)
        for size in _SLOT_BYTES:
            if needed <= size:
                break
        else:
            raise ValueError(f"a record of {len(content)} bytes is too long")
        free = self._free[size]
        if not free:
            self._add_page(size)
        place = free.pop()
        start = place + _SLOT_HEAD.size
        self._map[start : start + len(content)] = content
        _SLOT_HEAD.pack_into(self._map, place, _FREE, len(content))
        self._map[place] = kind
        return place

    def set_number(self, place: int, value: int) -> None:
        """Overwrite the first eight bytes of a record's content."""
        _NUMBER.pack_into(self._map, place + _SLOT_HEAD.size, value)

    def drop(self, place: int) -> None:
        """Take a record away."""
        self._map[place] = _FREE
        (size,) = _PAGE_HEAD.unpack_from(self._map, place - place % _PAGE_BYTES)
        self._free[size].append(place)

    def _check(self) -> None:
        magic, version = _HEAD.unpack_from(self._map, 0)
        if magic != _MAGIC:
            raise LedgerError("is damaged: it does not begin as it must")
        if version != VERSION:
            raise LedgerError(f"is of version {version}, and this program knows {VERSION}")

    def _read(self) -> Iterator[Record]:
        for page in range(1, self._pages):
            start = page * _PAGE_BYTES
            (size,) = _PAGE_HEAD.unpack_from(self._map, start)
            if not size:
                break  # never used
            if size not in self._free:
                raise LedgerError(f"is damaged: slots of {size} bytes")
            self._used_pages = page + 1
            for place in _slots(start, size):
                kind, length = _SLOT_HEAD.unpack_from(self._map, place)
                if kind == _FREE:
                    self._free[size].append(place)
                    continue
                if length > size - _SLOT_HEAD.size:
                    raise LedgerError(f"is damaged: {length} bytes in a slot of {size}")
                content = place + _SLOT_HEAD.size
                yield Record(place, kind, self._map[content : content + length])

    def _add_page(self, size: int) -> None:
        if self._used_pages == self._pages:
            pages = self._pages + max(_GROWTH_PAGES, self._pages // 4)
            self._map.resize(pages * _PAGE_BYTES)
            self._pages = pages
        start = self._used_pages * _PAGE_BYTES
        self._used_pages += 1
        _PAGE_HEAD.pack_into(self._map, start, size)
        self._free[size].extend(reversed(_slots(start, size)))


class NumberedRecords:
    """Records of one kind in a table, each of a number: the last one written of it counts."""

    def __init__(self, table: StateTable, kind: int) -> None:
        self._table = table
        self._kind = kind
        self._places: dict[int, int] = {}

    def __contains__(self, number: int) -> bool:
        return number in self._places

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def write(self, number: int, content: bytes) -> None:
        """Write a record in place of the one there is; killed in between, both are there."""
        place = self._table.put(self._kind, content)
        self.found(number, place)

    def found(self, number: int, place: int) -> None:
        """The record at a place, in place of the one there is."""
        self.drop(number)
        self._places[number] = place

    def set_number(self, number: int, value: int) -> bool:
        """Overwrite the first eight bytes of a record; whether there is one."""
        place = self._places.get(number)
        if place is not None:
            self._table.set_number(place, value)
        return place is not None

    def drop(self, number: int) -> None:
        """Take a record away, if there is one."""
        place = self._places.pop(number, None)
        if place is not None:
            self._table.drop(place)


def _slots(start: int, size: int) -> range:
    """The offsets of the slots of a page."""
    count = (_PAGE_BYTES - _PAGE_HEAD.size) // size
    first = start + _PAGE_HEAD.size
    return range(first, first + count * size, size)

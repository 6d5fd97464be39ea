"""The places of the parts of a file: tensors, records of an archive, column chunks."""

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from ossfs_py.model import ByteRange

MAX_TABLE_BYTES = 16 * 1024**2
"""Longer tables are read like any other bytes. safetensors allows 100 MB; the largest published
models stay below 1 MB for each shard, and a GGUF vocabulary below 10 MB."""

MAX_PARTS = 1 << 18
"""A file of more parts is not looked into: its parts are too small to know one from another, and
the table would take more memory than a block."""


class TableError(ValueError):
    """The bytes are no table, or one that lies or exceeds the bounds: nothing is believed."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Parts in the order of the file, without overlap, none empty; all offsets in bytes."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    is_walked: bool = False
    """Whether readers go from one part's beginning to the next to find out what there is, as in a
    tar archive: who looks at a part says nothing of reading it."""

    def __len__(self) -> int:
        return len(self.starts)

    def number_at(self, offset: int) -> int | None:
        """The part that holds the byte at ``offset``."""
        i = bisect_right(self.starts, offset) - 1
        return i if i >= 0 and offset < self.ends[i] else None

    def begins_in(self, start: int, end: int) -> int | None:
        """The first part that begins in ``[start, end)``."""
        i = bisect_left(self.starts, start)
        return i if i < len(self.starts) and self.starts[i] < end else None

    def first_from(self, start: int) -> int | None:
        """The first part that begins at ``start`` or behind it."""
        i = bisect_left(self.starts, start)
        return i if i < len(self.starts) else None

    def part(self, number: int) -> ByteRange:
        """The bytes of a part."""
        return ByteRange(self.starts[number], self.ends[number])


@dataclass(frozen=True, slots=True)
class Index:
    """Where parts of other files lie, as ``(start, end)`` by the file's path from this one's
    directory on. Nothing of it was checked: those files' sizes are not known.
    """

    parts: Mapping[str, tuple[tuple[int, int], ...]]


class Table(Protocol):
    """A file's table of contents on its way to being understood.

    The same steps for every format: ``wants`` names bytes, ``take`` is given exactly those, until
    nothing more is wanted. ``take`` may run on a thread, one call at a time.
    """

    wants: ByteRange | None
    """Bytes it needs next, ``MAX_TABLE_BYTES`` at most; None if it knows all it will know."""

    def take(self, data: bytes) -> Layout | Index | None:
        """Understand the bytes that were wanted: the layout as far as it is known, or None if more
        bytes are needed for that.

        Raises:
            TableError: there will be no layout, or none that goes further.
        """
        ...


def checked_layout(
    spans: Iterable[tuple[int, int]], first: int, file_size: int, *, is_walked: bool = False
) -> Layout:
    """A layout of ``(start, end)`` in any order; empty ones are left out.

    Raises:
        TableError: they overlap, lie outside ``[first, file_size)``, are too many, or none.
    """
    parts = sorted(span for span in spans if span[0] != span[1])
    if not parts:
        raise TableError("the file has no parts")
    if len(parts) > MAX_PARTS:
        raise TableError("the file has too many parts")
    if parts[0][0] < first or any(start > end for start, end in parts):
        raise TableError("a part has no valid place in the file")
    for (_, end), (start, _) in itertools.pairwise(parts):
        if start < end:
            raise TableError("parts overlap")
    if parts[-1][1] > file_size:
        raise TableError("a part lies behind the end of the file")
    starts, ends = tuple(start for start, _ in parts), tuple(end for _, end in parts)
    return Layout(starts, ends, is_walked)

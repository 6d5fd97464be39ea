"""The central directory of a zip archive, as ``torch.save`` and ``numpy.savez`` write it.

It lies at the end, before a comment of up to 64 KiB. Each record's local header counts as the
record's beginning: readers look at it before they read the content.
"""

import struct
from collections.abc import Iterator

from ossfs_py.foresight.layout import MAX_PARTS, MAX_TABLE_BYTES, Layout, TableError, checked_layout
from ossfs_py.model import ByteRange

TAIL_BYTES = 256 * 1024
"""Holds the end record and the central directory of an archive of some 3,000 records."""

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s4B4HL2L5H2L")
_MAX_COMMENT_BYTES = 65_535
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_EXTRA_ZIP64 = 1


class ArchiveTable:
    """Implements :class:`ossfs_py.foresight.layout.Table`."""

    def __init__(self, file_size: int) -> None:
        self.wants: ByteRange | None = ByteRange(max(0, file_size - TAIL_BYTES), file_size)
        self._file_size = file_size

    def take(self, data: bytes) -> Layout | None:
        """See the protocol."""
        assert self.wants is not None  # noqa: S101 - the protocol
        before, self.wants = self.wants.start, None
        size, offset, directory_end = _directory(data, before)
        start = directory_end - size  # where it is, whatever was put before the archive
        shift = start - offset
        if not 0 <= shift <= start or size > MAX_TABLE_BYTES:
            raise TableError("the directory has no valid place in the file")
        if start < before:
            if self._file_size - start > MAX_TABLE_BYTES:
                raise TableError("the directory is too long")
            self.wants = ByteRange(start, self._file_size)
            return None
        starts = sorted(
            {shift + s for s in _entries(data[start - before : directory_end - before])}
        )
        if not starts:
            raise TableError("the directory names no record")
        spans = zip(starts, [*starts[1:], start], strict=True)
        return checked_layout(spans, 0, self._file_size)


def _directory(tail: bytes, before: int) -> tuple[int, int, int]:
    """Size of the central directory, its offset within the archive, and where it ends."""
    low = len(tail) - _END.size - _MAX_COMMENT_BYTES
    at = len(tail)
    while (at := tail.rfind(b"PK\5\6", max(0, low), at)) >= 0:
        if at + _END.size > len(tail):
            continue
        *_, size, offset, comment = _END.unpack_from(tail, at)
        if at + _END.size + comment <= len(tail):
            break
    else:
        raise TableError("the archive has no end record")
    end = before + at
    locator = at - _LOCATOR64.size
    if locator >= 0 and tail.startswith(b"PK\6\7", locator):
        at64 = locator - _END64.size
        if at64 < 0 or not tail.startswith(b"PK\6\6", at64):
            raise TableError("the zip64 end record is not where it should be")
        *_, size, offset = _END64.unpack_from(tail, at64)
        end = before + at64
    return size, offset, end


def _entries(directory: bytes) -> Iterator[int]:
    """Offsets of the local headers within the archive."""
    at = count = 0
    while at < len(directory):
        if at + _ENTRY.size > len(directory) or not directory.startswith(b"PK\1\2", at):
            raise TableError("the directory is damaged")
        fields = _ENTRY.unpack_from(directory, at)
        stored, size, name, extra, comment, offset = (*fields[10:15], fields[18])
        behind = at + _ENTRY.size + name + extra
        if offset == _FULL32:
            longs = (size == _FULL32) + (stored == _FULL32)
            offset = _offset64(directory[behind - extra : behind], longs)
        yield offset
        at = behind + comment
        count += 1
        if count > MAX_PARTS:
            raise TableError("the archive has too many records")


def _offset64(extra: bytes, longs_before: int) -> int:
    """The local header's offset from a record's extra fields."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        if kind == _EXTRA_ZIP64 and size >= 8 * (longs_before + 1):
            place = at + 4 + 8 * longs_before
            if place + 8 <= len(extra):
                return int(struct.unpack_from("<Q", extra, place)[0])
        at += 4 + size
    raise TableError("a record's place is missing")

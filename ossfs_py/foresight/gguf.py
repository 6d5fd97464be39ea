"""The tensor table of a GGUF file: magic, counts, metadata, then a place for each tensor."""

import struct

from ossfs_py.foresight.layout import MAX_PARTS, MAX_TABLE_BYTES, Layout, TableError, checked_layout
from ossfs_py.model import ByteRange

_FIRST_BYTES = 64 * 1024
_GROWTH = 4
"""Vocabularies make a table of some megabytes: it is tried again when so much more has passed."""

_MAX_VALUES = 1 << 20
"""Values looked at: each takes a few steps of Python. A vocabulary has 0.6 million at most."""

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by its type; 8 is a string, 9 an array."""
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_MAX_DIMENSIONS = 8
_ALIGNMENT_KEY = b"general.alignment"
_DEFAULT_ALIGNMENT = 32
_MAX_ALIGNMENT = 1 << 20
_UINT32 = 4


class _TooShortError(Exception):
    """The table continues after the available bytes."""


class GgufTable:
    """Implements :class:`ossfs_py.foresight.layout.Table`."""

    def __init__(self, file_size: int) -> None:
        self._file_size = file_size
        self.wants: ByteRange | None = ByteRange(0, min(_FIRST_BYTES, file_size))

    def take(self, data: bytes) -> Layout | None:
        """See the protocol."""
        self.wants = None
        try:
            return _Reader(data).layout(self._file_size)
        except _TooShortError:
            more = min(len(data) * _GROWTH, MAX_TABLE_BYTES, self._file_size)
            if more <= len(data):
                raise TableError("the table does not end") from None
            self.wants = ByteRange(0, more)
            return None


class _Reader:
    """Takes fields from the beginning of a file, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._values_left = _MAX_VALUES

    def layout(self, file_size: int) -> Layout:
        if not self._data.startswith(b"GGUF"):
            raise TableError("it is no GGUF file")
        self._skip(4)
        version, tensors, keys = self._fields("<I2Q")
        if version not in _VERSIONS or not 0 < tensors <= MAX_PARTS or keys > _MAX_VALUES:
            raise TableError("the counts cannot be true")
        alignment = _DEFAULT_ALIGNMENT
        for _ in range(keys):
            key = self._string()
            (kind,) = self._fields("<I")
            if key == _ALIGNMENT_KEY and kind == _UINT32:
                (alignment,) = self._fields("<I")
            else:
                self._skip_value(kind)
        offsets = [self._tensor_offset() for _ in range(tensors)]
        if not 0 < alignment <= _MAX_ALIGNMENT:
            raise TableError("the alignment cannot be true")
        base = -(-self._at // alignment) * alignment
        starts = sorted({base + offset for offset in offsets})
        if starts[-1] >= file_size:
            raise TableError("a tensor lies behind the end of the file")
        return checked_layout(zip(starts, [*starts[1:], file_size], strict=True), base, file_size)

    def _fields(self, form: str) -> tuple[int, ...]:
        at = self._at
        self._skip(struct.calcsize(form))
        return struct.unpack_from(form, self._data, at)

    def _skip(self, count: int) -> None:
        self._at += count
        if self._at > len(self._data):
            if self._at > MAX_TABLE_BYTES:
                raise TableError("the table is too long")
            raise _TooShortError

    def _string(self) -> bytes:
        (size,) = self._fields("<Q")
        at = self._at
        self._skip(size)
        return self._data[at : at + size]

    def _skip_value(self, kind: int) -> None:
        count = 1
        if kind == _ARRAY:
            kind, count = self._fields("<IQ")
        if kind == _STRING:
            self._skip_strings(count)
        elif kind in _SIZES:
            self._skip(_SIZES[kind] * count)
        else:
            raise TableError("a value has an unknown type")  # an array of arrays, too

    def _skip_strings(self, count: int) -> None:
        self._values_left -= count
        if self._values_left < 0:
            raise TableError("the table has too many values")
        data, at, size = self._data, self._at, len(self._data)
        for _ in range(count):
            at += 8 + int.from_bytes(data[at : at + 8], "little")
            if at > size:
                break
        self._at = 0
        self._skip(at)

    def _tensor_offset(self) -> int:
        self._string()
        (dimensions,) = self._fields("<I")
        if dimensions > _MAX_DIMENSIONS:
            raise TableError("a tensor has too many dimensions")
        self._skip(8 * dimensions)
        _, offset = self._fields("<IQ")
        return offset

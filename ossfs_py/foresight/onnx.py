"""The index of an ONNX model whose weights lie in other files ("external data").

The model is one protobuf message. Of it only the way to the initializers is walked: model, graph
(field 7), initializer (5), external_data (13), whose entries name the file, the offset and the
length. Weights of subgraphs and constant nodes are left out: they are few and small.
"""

import posixpath
from collections import defaultdict
from collections.abc import Iterator

from ossfs_py.foresight.layout import MAX_PARTS, MAX_TABLE_BYTES, Index, TableError
from ossfs_py.model import ByteRange

_GRAPH, _INITIALIZER, _EXTERNAL_DATA, _KEY, _VALUE = 7, 5, 13, 1, 2
_VARINT, _LONG, _BYTES, _SHORT = 0, 1, 2, 5
"""Wire types; groups (3 and 4) are in no ONNX file."""

_MAX_FIELDS = 1 << 20
"""Fields looked at: a few steps of Python each. A model of 10,000 nodes has some 100,000."""

_MAX_FILES = 1024
_MAX_VARINT_BITS = 63
_MAX_DIGITS = 18


class OnnxTable:
    """Implements :class:`ossfs_py.foresight.layout.Table`.

    A model of more than ``MAX_TABLE_BYTES`` holds its weights itself and is read in order.
    """

    def __init__(self, file_size: int) -> None:
        fits = 0 < file_size <= MAX_TABLE_BYTES
        self.wants: ByteRange | None = ByteRange(0, file_size) if fits else None

    def take(self, data: bytes) -> Index:
        """See the protocol."""
        self.wants = None
        parts: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for location, offset, length in _Message(data).places():
            parts[location].append((offset, offset + length))
            if len(parts) > _MAX_FILES:
                raise TableError("the weights lie in too many files")
        if not parts:
            raise TableError("the model's weights lie in no other file")
        return Index({name: tuple(sorted(set(spans))) for name, spans in parts.items()})


class _Message:
    """Three levels of one message, without recursion."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._fields = 0

    def places(self) -> Iterator[tuple[str, int, int]]:
        """File, offset and length of each initializer that lies elsewhere."""
        count = 0
        for graph in self._messages(0, len(self._data), _GRAPH):
            for tensor in self._messages(*graph, _INITIALIZER):
                place = self._place(*tensor)
                if place is not None:
                    count += 1
                    if count > MAX_PARTS:
                        raise TableError("the model has too many weights")
                    yield place

    def _place(self, start: int, end: int) -> tuple[str, int, int] | None:
        entries = {}
        for entry in self._messages(start, end, _EXTERNAL_DATA):
            key = value = b""
            for number, at, upto in self._fields_of(*entry):
                if number == _KEY:
                    key = self._data[at:upto]
                elif number == _VALUE:
                    value = self._data[at:upto]
            entries[key] = value
        if b"location" not in entries:
            return None
        length = _number(entries.get(b"length", b"0"))
        try:
            location = posixpath.normpath(entries[b"location"].decode())
        except UnicodeDecodeError:
            raise TableError("a file's name is no text") from None
        if posixpath.isabs(location) or location.split("/")[0] == "..":
            raise TableError("a weight lies outside the model's directory")
        return (location, _number(entries.get(b"offset", b"0")), length) if length else None

    def _messages(self, start: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
        for number, at, upto in self._fields_of(start, end):
            if number == wanted:
                yield at, upto

    def _fields_of(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Number and content of each field of bytes in ``[start, end)``."""
        at = start
        while at < end:
            self._fields += 1
            if self._fields > _MAX_FIELDS:
                raise TableError("the model has too many fields")
            tag, at = self._varint(at, end)
            kind = tag & 7
            if kind == _BYTES:
                size, at = self._varint(at, end)
                if size > end - at:
                    raise TableError("a field ends behind its message")
                yield tag >> 3, at, at + size
                at += size
            elif kind == _VARINT:
                _, at = self._varint(at, end)
            elif kind in (_LONG, _SHORT):
                at += 8 if kind == _LONG else 4
            else:
                raise TableError("it is no protobuf message")
        if at > end:
            raise TableError("a field ends behind its message")

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while at < end:
            byte = self._data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, at
            shift += 7
            if shift > _MAX_VARINT_BITS:
                break
        raise TableError("a number is too long")


def _number(text: bytes) -> int:
    if not text.isdigit() or len(text) > _MAX_DIGITS:
        raise TableError("a place is no number")
    return int(text)

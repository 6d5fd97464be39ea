"""The footer of a Parquet file: thrift in its compact encoding, which says where columns lie.

Only what places a column chunk is kept: in ``FileMetaData`` the row groups (field 4), in those the
columns (1), their metadata (3), and there the compressed size (7), the first data page (9) and the
dictionary page (11).
"""

from ossfs_py.foresight.layout import MAX_PARTS, MAX_TABLE_BYTES, Layout, TableError, checked_layout
from ossfs_py.model import ByteRange

TAIL_BYTES = 64 * 1024
"""The bytes that pyarrow reads at once from the end."""

_MAGIC = b"PAR1"
_END_BYTES = 8
"""The footer's length and the magic word."""

_MAX_DEPTH = 16
_MAX_FIELDS = 1 << 20
_COLUMN_METADATA = (4, 1, 3)
_COMPRESSED_SIZE, _DATA_PAGE, _DICTIONARY_PAGE = 7, 9, 11
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_LONG_LIST = 15
_MAX_VARINT_BITS = 63


class ParquetTable:
    """Implements :class:`ossfs_py.foresight.layout.Table`."""

    def __init__(self, file_size: int) -> None:
        self._file_size = file_size
        self.wants: ByteRange | None = ByteRange(max(0, file_size - TAIL_BYTES), file_size)

    def take(self, data: bytes) -> Layout | None:
        """See the protocol."""
        assert self.wants is not None  # noqa: S101 - the protocol
        before, self.wants = self.wants.start, None
        if not data.endswith(_MAGIC) or len(data) < _END_BYTES:
            raise TableError("it is no Parquet file")
        size = int.from_bytes(data[-_END_BYTES:-4], "little")
        start = self._file_size - _END_BYTES - size
        if size > MAX_TABLE_BYTES - _END_BYTES or start < len(_MAGIC):
            raise TableError("the footer's length cannot be true")
        if start < before:
            self.wants = ByteRange(start, self._file_size)
            return None
        footer = data[start - before : len(data) - _END_BYTES]
        try:
            spans = _Footer(footer).column_chunks()
        except IndexError:
            raise TableError("the footer ends too early") from None
        return checked_layout(spans, len(_MAGIC), start)


class _Footer:
    """Walks thrift's compact encoding with an explicit stack."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._fields = 0

    def column_chunks(self) -> set[tuple[int, int]]:
        chunks: set[tuple[int, int]] = set()
        # Each open structure: its path, the last field's number, and the numbers it holds.
        path: list[int] = []
        stack: list[tuple[int, dict[int, int]]] = [(0, {})]
        # Lists of structures: how many are still to come, by depth.
        lists: list[int] = [0]
        while stack:
            number, values = stack.pop()
            header = self._byte()
            if header == 0:
                if tuple(path) == _COLUMN_METADATA:
                    chunks.add(_place(values))
                left = lists.pop()
                if left:
                    lists.append(left - 1)
                    stack.append((0, {}))
                elif path:
                    path.pop()
                continue
            kind = header & 15
            number = number + (header >> 4) if header >> 4 else self._integer()
            stack.append((number, values))
            count = 0
            if kind in (_LIST, _SET):
                count, kind = self._list_header()
                if kind != _STRUCT:
                    self._skip_many(kind, count)
                    continue
                if count == 0:
                    continue
                count -= 1
            if kind == _STRUCT:
                if len(stack) > _MAX_DEPTH:
                    raise TableError("the footer is nested too deeply")
                path.append(number)
                lists.append(count)
                stack.append((0, {}))
            elif kind in (_I16, _I32, _I64):
                values[number] = self._integer()
            else:
                self._skip_many(kind, 1, in_list=False)
        return chunks

    def _byte(self) -> int:
        self._count(1)
        self._at += 1
        return self._data[self._at - 1]

    def _count(self, fields: int) -> None:
        self._fields += fields
        if self._fields > _MAX_FIELDS:
            raise TableError("the footer has too many fields")

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > _MAX_VARINT_BITS:
                raise TableError("a number in the footer is too long")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _list_header(self) -> tuple[int, int]:
        header = self._byte()
        count = header >> 4
        return (self._varint() if count == _LONG_LIST else count), header & 15

    def _skip_many(self, kind: int, count: int, *, in_list: bool = True) -> None:
        """Pass over plain values."""
        if kind in (_TRUE, _FALSE):
            self._at += count if in_list else 0
        elif kind == _BYTE:
            self._at += count
        elif kind == _DOUBLE:
            self._at += 8 * count
        elif kind in (_I16, _I32, _I64, _BINARY):
            self._count(count)
            for _ in range(count):
                size = self._varint()
                self._at += size if kind == _BINARY else 0
        else:
            raise TableError("the footer holds what no footer holds")
        if self._at > len(self._data):
            raise TableError("the footer ends too early")


def _place(column: dict[int, int]) -> tuple[int, int]:
    """The place of a column chunk: its dictionary, if there is one, comes first."""
    pages = [column[n] for n in (_DICTIONARY_PAGE, _DATA_PAGE) if column.get(n, 0) > 0]
    size = column.get(_COMPRESSED_SIZE, -1)
    if not pages or size < 0 or len(column) > MAX_PARTS:
        raise TableError("a column has no place")
    return min(pages), min(pages) + size

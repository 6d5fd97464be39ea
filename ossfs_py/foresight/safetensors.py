"""The header of a safetensors file: its length in 8 bytes, then JSON that names each tensor."""

import itertools
import re

from ossfs_py.foresight.layout import MAX_PARTS, MAX_TABLE_BYTES, Layout, TableError, checked_layout
from ossfs_py.model import ByteRange

LENGTH_BYTES = 8

_OFFSETS = re.compile(
    rb'"data_offsets"\s{0,64}:\s{0,64}\[\s{0,64}(\d{1,18})\s{0,64},\s{0,64}(\d{1,18})'
)
"""A pattern, not a parser: whatever the header holds, it takes neither a stack nor more memory than
the offsets. Inside a string the quotes would be escaped, so that it finds no other ones."""


class SafetensorsTable:
    """Implements :class:`ossfs_py.foresight.layout.Table`."""

    def __init__(self, file_size: int) -> None:
        self.wants: ByteRange | None = ByteRange(0, min(LENGTH_BYTES, file_size))
        self._file_size = file_size

    def take(self, data: bytes) -> Layout | None:
        """See the protocol."""
        wanted, self.wants = self.wants, None
        if wanted is not None and wanted.start == 0:
            size = int.from_bytes(data[:LENGTH_BYTES], "little")
            if not 2 <= size <= min(MAX_TABLE_BYTES, self._file_size - LENGTH_BYTES):
                raise TableError("the header's length cannot be true")
            self.wants = ByteRange(LENGTH_BYTES, LENGTH_BYTES + size)
            return None
        if not data.startswith(b"{"):
            raise TableError("the header is no JSON object")
        base = LENGTH_BYTES + len(data)
        found = itertools.islice(_OFFSETS.finditer(data), MAX_PARTS + 1)
        spans = ((base + int(match[1]), base + int(match[2])) for match in found)
        return checked_layout(spans, base, self._file_size)

"""The members of a tar archive, header by header as they pass.

There is no table: each header says where the next one lies, so that the layout grows with what was
read, and nothing is asked for. It tells where a large member ends (a checkpoint packed into a
``.tar`` or ``.nemo``), and the last part of the layout is what no header was read of yet. Small
members (webdataset) are read in the archive's order, as one stream: following their headers would
cost more than it tells.
"""

import re

from ossfs_py.foresight.layout import Layout, TableError, checked_layout
from ossfs_py.model import ByteRange

_RECORD_BYTES = 512
_SIZE, _TYPE, _MAGIC, _CHECKSUM = slice(124, 136), slice(156, 157), slice(257, 262), slice(148, 156)
_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK = b"x", b"g", b"L", b"K"
_BEFORE_MEMBER = (_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK)
"""Types whose content describes the member that follows: it begins with them."""
_WITHOUT_CONTENT = (b"1", b"2", b"3", b"4", b"5", b"6")
"""Links, devices, directories, FIFOs."""

_MAX_PAX_BYTES = 64 * 1024
_PAX_SIZE = re.compile(rb"(?:^|\n)\d{1,6} size=(\d{1,18})\n")
_BINARY = 0x80
_MAX_OFFSET_BITS = 63

_LEAST_MEAN_BYTES = 8 * 1024**2
"""Smaller members on the average are read as a stream: a reader that hops over such small ones is
read ahead as one, see ``reading.streams``."""
_JUDGED_AT = 8
_MAX_MEMBERS = 4096

_STEPS_EACH = 4
"""Headers and descriptions looked at for so much of the archive: a file of nothing else is not
followed."""


class TarTable:
    """Implements :class:`ossfs_py.foresight.layout.Table`; its layout grows."""

    def __init__(self, file_size: int) -> None:
        self._file_size = file_size
        self.wants: ByteRange | None = None
        self._spans: list[tuple[int, int]] = []
        self._steps = 0
        self._begun: int | None = None
        """The start of the member whose header records were read."""
        self._pax_content: int | None = None
        """The end of the wanted range, if it is the content of a pax header."""
        self._pax_size: int | None = None
        self._want(0)

    def take(self, data: bytes) -> Layout | None:
        """See the protocol."""
        assert self.wants is not None  # noqa: S101 - the protocol
        start = self.wants.start
        self.wants = None
        self._steps += 1
        if self._steps > _STEPS_EACH * (_JUDGED_AT + start // _LEAST_MEAN_BYTES):
            raise TableError("the members are too small to be told apart")
        if self._pax_content is not None:
            said = _PAX_SIZE.search(data)
            self._pax_size = int(said[1]) if said else None
            following, self._pax_content = self._pax_content, None
            self._want(following)
            return None
        if not any(data):
            return self._known(self._spans)  # the end of the archive
        size = _size_of(data)
        kind = data[_TYPE]
        if kind in _BEFORE_MEMBER:
            self._described(start, kind, size)
            return None
        return self._member(start, kind, size)

    def _described(self, start: int, kind: bytes, size: int) -> None:
        if self._begun is None:
            self._begun = start
        content = start + _RECORD_BYTES
        following = content + _padded(size)
        if kind == _PAX and 0 < size <= _MAX_PAX_BYTES and content + size <= self._file_size:
            self._pax_content = following
            self.wants = ByteRange(content, content + size)
        else:
            self._want(following)

    def _member(self, start: int, kind: bytes, size: int) -> Layout | None:
        if self._pax_size is not None:
            size, self._pax_size = self._pax_size, None
        if kind in _WITHOUT_CONTENT:
            size = 0
        begun, self._begun = self._begun, None
        end = start + _RECORD_BYTES + _padded(size)
        self._spans.append((start if begun is None else begun, end))
        count = len(self._spans)
        is_large = end >= count * _LEAST_MEAN_BYTES
        if count == _JUDGED_AT and not is_large:
            raise TableError("the members are too small to be told apart")
        if (is_large or count < _JUDGED_AT) and count < _MAX_MEMBERS:
            self._want(end)
        if self.wants is None:
            return self._known(self._spans)
        return self._known([*self._spans, (end, self._file_size)]) if count >= _JUDGED_AT else None

    def _known(self, spans: list[tuple[int, int]]) -> Layout:
        return checked_layout(spans, 0, self._file_size, is_walked=True)

    def _want(self, start: int) -> None:
        if start + _RECORD_BYTES <= self._file_size:
            self.wants = ByteRange(start, start + _RECORD_BYTES)


def _padded(size: int) -> int:
    return -(-size // _RECORD_BYTES) * _RECORD_BYTES


def _size_of(header: bytes) -> int:
    """Bytes of the member's content.

    Raises:
        TableError: it is no header.
    """
    if header[_MAGIC] != b"ustar":
        raise TableError("it is no tar header")
    if _octal(header[_CHECKSUM]) != sum(header) - sum(header[_CHECKSUM]) + 8 * ord(" "):
        raise TableError("a tar header is damaged")
    field = header[_SIZE]
    if field[0] != _BINARY:
        return _octal(field)
    size = int.from_bytes(field[1:], "big")
    if size.bit_length() > _MAX_OFFSET_BITS:
        raise TableError("a member's size cannot be true")
    return size


def _octal(field: bytes) -> int:
    text = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", text):
        raise TableError("a tar header is damaged")
    return int(text or b"0", 8)

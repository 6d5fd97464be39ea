"""The layout of a block file. Pure.

One sparse file per object version::

    0               header: magic, block size, object size, digest, place, bucket, key, ETag
    records_offset  one 64-bit checksum per block; 0 says the block is not here
    data_offset     the object's bytes, block ``i`` at ``data_offset + i * block_size``

The bytes of an object of more than ``PLAIN_FROM_BYTES`` are in a file of their own beside it, from
offset 0 on and without anything else, so that the kernel can read it instead of the mount. The
first file ends with a seal (``seal.py``).

The header never changes after its creation, and a reader compares it byte by byte with the one it
expects. It holds the key in readable form for tools only.
"""

import re
import struct
from hashlib import blake2b

import xxhash

from ossfs_py.model import ObjectVersion

FORMAT = 3
"""Format 1 named the place by the endpoint as typed, without the accepted certificates. Format 2
had the bytes of large objects after their header.
"""

PLAIN_FROM_BYTES = 64 * 1024**2
"""Larger objects have their bytes in a plain file. Readers of smaller ones follow the appends of
other hosts (``filesystem/growth.py``), which the kernel could not.
"""
PLAIN_SUFFIX = ".plain"
SEAL_BYTES = 64

_MAGIC = b"ossfspy\x01"
_FIXED = struct.Struct("<8sIQ20s")
_LENGTH = struct.Struct("<H")
_MAX_TEXT_BYTES = 0xFFFF
_RECORD_BYTES = 8
PAGE_BYTES = 4096
"""Data begins on a page, so that reflinks and direct reads stay possible."""
_MASK = 2**64 - 1

_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{40}")
_SHELF = re.compile(r"[0-9a-f]{2}")


def is_block_file_name(name: str) -> bool:
    """Whether a directory entry has the name of a block file."""
    return _NAME.fullmatch(name) is not None


def plain_of(name: str) -> str:
    """The name of the file with the bytes of a large object."""
    return name + PLAIN_SUFFIX


def is_plain_name(name: str) -> bool:
    """Whether a directory entry has the name of a file with the bytes of a large object."""
    return name.endswith(PLAIN_SUFFIX) and is_block_file_name(name.removesuffix(PLAIN_SUFFIX))


def is_shelf_name(name: str) -> bool:
    """Whether a directory entry has the name of a directory of block files."""
    return _SHELF.fullmatch(name) is not None


def key_id(name: str) -> str:
    """The part of a file name that all versions of one key share."""
    return name[:16]


class Identity:
    """Whose bytes a block file holds, and everything that follows from it.

    ``name`` and ``shelf`` say where the file is: all versions of a key share a shelf (one of 256
    directories; a million objects are 4,000 names in each).
    """

    __slots__ = (
        "block_count",
        "block_size_bytes",
        "data_offset",
        "head_bytes",
        "header",
        "is_plain",
        "name",
        "records_offset",
        "seal_offset",
        "seed",
        "shelf",
        "version",
    )

    def __init__(
        self, place: str, bucket: str, version: ObjectVersion, block_size_bytes: int
    ) -> None:
        self.version = version
        self.block_size_bytes = block_size_bytes
        texts = _pack(place, bucket, version.key, version.etag)
        numbers = struct.pack("<QI", version.size, block_size_bytes)
        digest = blake2b(texts + numbers, digest_size=20).digest()
        key_digest = blake2b(_pack(place, bucket, version.key), digest_size=8).hexdigest()
        self.seed = int.from_bytes(digest[:8], "little")
        self.name = f"{key_digest}-{digest.hex()}"
        self.shelf = key_digest[:2]
        self.header = _FIXED.pack(_MAGIC, block_size_bytes, version.size, digest) + texts
        self.block_count = -(-version.size // block_size_bytes)
        self.records_offset = round_up(len(self.header), _RECORD_BYTES)
        self.is_plain = version.size > PLAIN_FROM_BYTES
        self.seal_offset = self.records_offset + _RECORD_BYTES * self.block_count
        self.head_bytes = round_up(self.seal_offset + SEAL_BYTES * self.is_plain, PAGE_BYTES)
        self.data_offset = 0 if self.is_plain else self.head_bytes

    @property
    def records_bytes(self) -> int:
        """Bytes of all checksums together."""
        return _RECORD_BYTES * self.block_count

    def record_offset(self, index: int) -> int:
        """The offset of a block's checksum."""
        return self.records_offset + _RECORD_BYTES * index

    def block_offset(self, index: int) -> int:
        """The offset of a block's bytes."""
        return self.data_offset + index * self.block_size_bytes

    def span(self, first: int, last: int) -> tuple[int, int]:
        """The bytes of the object that blocks ``[first, last)`` hold."""
        size = self.block_size_bytes
        return min(first * size, self.version.size), min(last * size, self.version.size)

    def whole_blocks(self, start: int, end: int) -> tuple[int, int]:
        """The blocks ``[first, last)`` that lie completely in ``[start, end)`` of the object."""
        first = -(-start // self.block_size_bytes)
        last = self.block_count if end >= self.version.size else end // self.block_size_bytes
        return first, max(first, last)

    def checksum(self, index: int, view: memoryview) -> int:
        """The record of block ``index`` holding ``view``; never 0.

        The seed makes a record of another version or another block a mismatch.
        """
        return xxhash.xxh3_64_intdigest(view, seed=(self.seed + index) & _MASK) or 1


def parse_header(raw: bytes) -> Identity | None:
    """The identity that a file's beginning claims; None if it is damaged.

    Callers compare ``name`` with the file's own: the header is what a disk says, no more.
    """
    try:
        magic, block_size, size, digest = _FIXED.unpack_from(raw)
        texts = []
        position = _FIXED.size
        for _ in range(4):
            (length,) = _LENGTH.unpack_from(raw, position)
            position += _LENGTH.size
            if position + length > len(raw):
                return None
            texts.append(raw[position : position + length].decode())
            position += length
    except (struct.error, UnicodeDecodeError):
        return None
    if magic != _MAGIC or block_size == 0:
        return None
    place, bucket, key, etag = texts
    identity = Identity(place, bucket, ObjectVersion(key, etag, size), block_size)
    return identity if raw.startswith(identity.header) and digest in identity.header else None


MAX_HEADER_BYTES = _FIXED.size + 4 * _LENGTH.size + 8192
"""More than a place, a bucket, a 1,024-byte key and an ETag ever take."""


def is_cacheable(version: ObjectVersion) -> bool:
    """Whether a version can be told from others at all, and has bytes to keep."""
    return version.has_etag and version.size > 0


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple that is not below ``value``."""
    return -(-value // multiple) * multiple


def _pack(*texts: str) -> bytes:
    parts = []
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        if len(raw) > _MAX_TEXT_BYTES:
            raise ValueError("a name of over 65,535 bytes is no object key")
        parts.append(_LENGTH.pack(len(raw)) + raw)
    return b"".join(parts)

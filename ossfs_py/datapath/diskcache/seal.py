"""A seal says that all bytes of a large object were verified at a time, and are unchanged since.

Readers through the daemon need no seal: it checks each block when it is read. The kernel checks
nothing when it reads a plain file for programs. So it gets only files whose blocks all matched
recently, and which nobody has written to since, as inode, size and times show.
"""

import os
import struct
import time
from typing import Final, TypeAlias

import xxhash

from ossfs_py.datapath.diskcache.blockfile import BlockFile
from ossfs_py.datapath.diskcache.layout import SEAL_BYTES
from ossfs_py.reading.secondhome import BlockLostError

VALID_SECONDS: Final = 24 * 3600.0
"""How long verified bytes are trusted to be unchanged on disk."""
_SETTLED_NS = 1_000_000_000
"""A file with later times than this may change once more without a sign of it (a tick of the
kernel's clock is 1 to 10 ms).
"""
_FIELDS = struct.Struct("<QQQQQ")
"""The time of verification, in ns; then the stamp."""
_SUM = struct.Struct("<Q")

Stamp: TypeAlias = tuple[int, int, int, int]
"""Inode, size, time of the last write and of the last change."""


def stamp_of(file: BlockFile) -> Stamp | None:
    """Changes with every write to the bytes; None if it cannot show a write yet.

    Raises:
        OSError: the disk failed.
    """
    info = os.fstat(file.data_fd)
    if info.st_size != file.identity.version.size or info.st_nlink == 0:
        return None
    if time.time_ns() - max(info.st_mtime_ns, info.st_ctime_ns) < _SETTLED_NS:
        return None
    return info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def verify(file: BlockFile, first: int, last: int, buffer: memoryview) -> bool:
    """Whether the blocks ``[first, last)`` match; ``buffer`` has room for them. Bad blocks are
    forgotten.
    """
    start, end = file.identity.span(first, last)
    try:
        file.read(start, buffer[: end - start])
    except BlockLostError:
        return False
    return True


def put(file: BlockFile, stamp: Stamp, verified_ns: int) -> bool:
    """Seal a file that had ``stamp`` at ``verified_ns``, when its verification began. False if it
    has changed in the meantime.

    Raises:
        OSError: the disk failed.
    """
    if not file.complete or stamp_of(file) != stamp:
        return False
    fields = _FIELDS.pack(verified_ns, *stamp)
    file.write_seal((fields + _SUM.pack(_sum(file, fields))).ljust(SEAL_BYTES, b"\0"))
    return True


def verified_at(file: BlockFile) -> float | None:
    """When all of a file was verified, in seconds since the epoch; None if it was not, if that is
    too long ago, or if it may have been written to since.
    """
    if not (file.identity.is_plain and file.complete):
        return None
    try:
        seal, stamp = file.read_seal(), stamp_of(file)
    except OSError:
        return None
    fields = seal[: _FIELDS.size]
    verified_ns, *sealed = _FIELDS.unpack(fields)
    if stamp is None or tuple(sealed) != stamp:
        return None
    if _SUM.unpack_from(seal, _FIELDS.size)[0] != _sum(file, fields):
        return None
    seconds = verified_ns / 1e9
    return seconds if 0 <= time.time() - seconds < VALID_SECONDS else None


def _sum(file: BlockFile, fields: bytes) -> int:
    # It includes the records, so that a seal of other blocks does not match.
    digest = xxhash.xxh3_64(seed=file.identity.seed)
    digest.update(fields)
    digest.update(file.records.tobytes())
    return digest.intdigest()

"""A seal says that all bytes of a large object were right at a moment, and are untouched since.

Whoever reads through the daemon needs none: each block is compared as it is read. The kernel, which
reads a plain file for programs by itself, compares nothing. So it is given files only whose blocks
all matched not long ago, and which nobody has written to since, as inode, size and times say.
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
"""For so long what matched is believed to be on disk still."""
_SETTLED_NS = 1_000_000_000
"""A file whose times are younger may change once more without showing it (a tick of the kernel's
clock is 1 to 10 ms)."""
_FIELDS = struct.Struct("<QQQQQ")
"""When it was verified, in ns; then the stamp."""
_SUM = struct.Struct("<Q")

Stamp: TypeAlias = tuple[int, int, int, int]
"""Inode, size, time of the last write and of the last change."""


def stamp_of(file: BlockFile) -> Stamp | None:
    """What changes when anybody writes to the bytes; None if that cannot be told yet.

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
    """Whether the blocks ``[first, last)`` match; ``buffer`` has room for them. Those that do not
    are forgotten.
    """
    start, end = file.identity.span(first, last)
    try:
        file.read(start, buffer[: end - start])
    except BlockLostError:
        return False
    return True


def put(file: BlockFile, stamp: Stamp, verified_ns: int) -> bool:
    """Seal a file of which all was verified from ``verified_ns`` on, when it had ``stamp``; False
    if it has changed meanwhile.

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
    too long ago, or if anybody may have written to it since.
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
    # Of the records as well: a seal of other blocks is none.
    digest = xxhash.xxh3_64(seed=file.identity.seed)
    digest.update(fields)
    digest.update(file.records.tobytes())
    return digest.intdigest()

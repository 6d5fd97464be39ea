"""Whether an object has the bytes of a local file; also for commands that load little."""

import os

from ossfs_py.errors import ObjectMissingError, VersionChangedError
from ossfs_py.model import ByteRange, ObjectVersion
from ossfs_py.store.base import ObjectStore

_COMPARED_BYTES = 8 * 1024**2


def same_bytes(store: ObjectStore, version: ObjectVersion, span: ByteRange, fd: int) -> bool:
    """Whether the object and the file have the same bytes in the span. Blocks.

    Raises:
        StoreError: the object could not be read.
    """
    buffer = memoryview(bytearray(min(_COMPARED_BYTES, span.size)))
    for start in range(span.start, span.end, _COMPARED_BYTES):
        piece = buffer[: min(_COMPARED_BYTES, span.end - start)]
        try:
            store.get_range_into(version, start, piece)
        except (VersionChangedError, ObjectMissingError):
            return False
        if os.pread(fd, len(piece), start) != piece:
            return False
    return True

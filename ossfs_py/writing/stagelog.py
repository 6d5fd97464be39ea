"""The log of a staging file that began as an object: the writes since its record. Pure."""

import struct

from ossfs_py.writing.records import DirtyRecord

_LOG_ENTRY = struct.Struct("<qq")
ENTRY_BYTES = _LOG_ENTRY.size
_TRUNCATED = -1
"""First field of a log entry whose second one is a new file size."""


def written_entry(start: int, end: int) -> bytes:
    """The log entry of a write."""
    return _LOG_ENTRY.pack(start, end)


def truncated_entry(size: int) -> bytes:
    """The log entry of a truncation."""
    return _LOG_ENTRY.pack(_TRUNCATED, size)


def log_number(record: DirtyRecord) -> int:
    """Number of logs that a staging file has had, including that of the record."""
    return 0 if record.log is None else int(record.log.split(".")[-2])


def replayed(record: DirtyRecord, log: bytes) -> DirtyRecord:
    """The record with the changes in its log, whose last entry may be incomplete."""
    size, base_valid, dirty = record.size, record.base_valid, record.dirty.copy()
    for start, end in _LOG_ENTRY.iter_unpack(log[: len(log) - len(log) % ENTRY_BYTES]):
        if start == _TRUNCATED:
            size = end
            base_valid = min(base_valid, end)
            dirty.truncate(end)
        else:
            size = max(size, end)
            dirty.add(start, end)
    return record.replaced(size=size, base_valid=base_valid, dirty=dirty, log=None)

"""Answers and wishes in pyfuse3's own types."""

import stat

import pyfuse3

from ossfs_py.filesystem.replies import EntryReply, OpenReply
from ossfs_py.fuse.wire import Wish
from ossfs_py.model import AttributeChange

_BLOCK_BYTES = 512
"""The unit of st_blocks, independent of st_blksize (stat(2))."""

PREFERRED_IO_BYTES = 128 * 1024
"""The size of reads by tools such as cat and Python's open: they follow st_blksize. With more,
Python's zipfile and torch would read that much for each look at a record.
"""


def entry_of(reply: EntryReply) -> pyfuse3.EntryAttributes:
    """A reply in its type."""
    entry = pyfuse3.EntryAttributes()
    fill(entry, reply)
    return entry


def asked_for(
    attr: pyfuse3.EntryAttributes | Wish, fields: pyfuse3.SetattrFields | None
) -> tuple[AttributeChange, int | None]:
    """The changes of a SETATTR, and the requested size."""
    if isinstance(attr, Wish):
        return attr.change, attr.size
    if fields is None:
        raise TypeError("pyfuse3 says what is to change")
    change = AttributeChange(
        mode=stat.S_IMODE(attr.st_mode) if fields.update_mode else None,
        uid=attr.st_uid if fields.update_uid else None,
        gid=attr.st_gid if fields.update_gid else None,
        atime_ns=attr.st_atime_ns if fields.update_atime else None,
        mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
    )
    return change, attr.st_size if fields.update_size else None


def absence_of(seconds: float) -> pyfuse3.EntryAttributes:
    """ENOENT that the kernel may cache: no inode has the number 0."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = 0
    entry.entry_timeout = seconds
    return entry


def fill(entry: pyfuse3.EntryAttributes, reply: EntryReply) -> None:
    """As :func:`entry_of`, into an object that exists."""
    attributes = reply.attributes
    entry.st_ino = attributes.ino
    entry.generation = reply.generation
    entry.st_mode = attributes.mode
    entry.st_nlink = attributes.nlink
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    entry.st_size = attributes.size
    entry.st_blksize = PREFERRED_IO_BYTES
    entry.st_blocks = -(-attributes.size // _BLOCK_BYTES)
    entry.st_atime_ns = attributes.atime_ns
    entry.st_mtime_ns = attributes.mtime_ns
    entry.st_ctime_ns = attributes.ctime_ns
    entry.entry_timeout = reply.name_seconds
    entry.attr_timeout = reply.attributes_seconds


def file_info_of(reply: OpenReply) -> pyfuse3.FileInfo:
    """A new descriptor in its type."""
    return pyfuse3.FileInfo(
        fh=reply.handle, keep_cache=reply.keep_cache, direct_io=reply.past_pages
    )

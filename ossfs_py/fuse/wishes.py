"""What a SETATTR asks for, in the form of pyfuse3 or in the lane's."""

import stat

import pyfuse3

from ossfs_py.fuse.wire import Wish
from ossfs_py.model import AttributeChange


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

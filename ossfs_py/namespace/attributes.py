"""From an inode to the attributes for stat(2), and to those that are stored with the object.
Pure."""

import stat
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from ossfs_py.model import Attributes
from ossfs_py.namespace import metadata
from ossfs_py.namespace.inode import Inode, Kind
from ossfs_py.namespace.policy import NamespaceOptions

_TYPE_BITS = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.FIFO: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
}
KIND_OF_TYPE = {bits: kind for kind, bits in _TYPE_BITS.items()}
"""By the type bits of st_mode."""
_TYPES = 0o170000
_OWNERS = 0o7700
"""The bits of a mode that grant rights only to the owner: the special bits of directories grant
nothing."""
SYMLINK_PERMISSIONS = 0o777
"""The mode of every symlink on Linux."""


def resolve(
    inode: Inode, options: NamespaceOptions, mounted_ns: int, subdirectories: int | None = None
) -> Attributes:
    """The attributes in memory: set here, else stored as metadata, else the mount's defaults.

    ``mounted_ns`` is the time of what has none: directories without a marker. ``subdirectories``
    is how many a directory has, None where nobody knows.
    """
    info = inode.info
    guessed = options.guessed_for_uid is not None and is_guess(inode, options)
    if info is not None and inode.is_plain:
        # Most files of most buckets, and so most of what a listing costs.
        modified_ns = info.mtime_ns
        return Attributes(
            inode.number,
            stat.S_IFREG | (options.file_mode & _OWNERS if guessed else options.file_mode),
            info.size,
            (options.guessed_for_uid or 0) if guessed else options.uid,
            options.gid,
            modified_ns,
            modified_ns,
            modified_ns,
        )
    stored = inode.decoded
    mtime_ns = inode.mtime_ns
    if mtime_ns is None and (mtime_ns := mtime_of(inode)) is None:
        mtime_ns = mounted_ns
    mode = full_mode(inode, options)
    uid, gid, atime_ns, ctime_ns = inode.uid, inode.gid, inode.atime_ns, inode.ctime_ns
    if guessed:
        mode, uid = mode & (_TYPES | _OWNERS), options.guessed_for_uid
    # Without loops and keywords: the kernel asks for a directory after each change of its names.
    return Attributes(
        inode.number,
        mode,
        inode.size,
        uid if uid is not None else _first(stored.uid, options.uid) or 0,
        gid if gid is not None else _first(stored.gid, options.gid) or 0,
        atime_ns if atime_ns is not None else _first(stored.atime_ns, mtime_ns) or 0,
        mtime_ns,
        ctime_ns if ctime_ns is not None else _first(stored.ctime_ns, mtime_ns) or 0,
        _links(inode, subdirectories),
    )


def is_guess(inode: Inode, options: NamespaceOptions) -> bool:
    """Whether the store has still to say who may do what with it, and somebody could mind.

    A guess grants nothing to anybody but the mount's owner. The mountpoint's attributes are the
    mount's options, and those of symbolic links grant nothing.
    """
    if options.guessed_for_uid is None:
        return False
    return (
        inode.metadata is None
        and (inode.mode is None or inode.uid is None)
        and inode.parent is not None
        and inode.kind is not Kind.SYMLINK
    )


def _links(inode: Inode, subdirectories: int | None) -> int:
    """A directory has one link by its name, one by its ".", and one by each ".." below it.

    Where these are not known it says one, as other file systems that do not count them: "find"
    takes any other number for a count, and skips what it then believes to be files.
    """
    if inode.removed:
        return 0
    return 1 if subdirectories is None else 2 + subdirectories


def full_mode(inode: Inode, options: NamespaceOptions) -> int:
    """Type and permission bits as stat(2) shows them."""
    from_others = None if inode.mode is not None else _from_others(inode, options)
    return _mode(inode, options, from_others)


def stored_mode(inode: Inode, options: NamespaceOptions) -> int:
    """Type and permission bits to store: what is not shown of them is kept."""
    return _mode(inode, options, _permissions(inode.decoded.mode))


def _mode(inode: Inode, options: NamespaceOptions, from_metadata: int | None) -> int:
    if inode.kind is Kind.SYMLINK:
        return stat.S_IFLNK | SYMLINK_PERMISSIONS
    permissions = from_metadata if inode.mode is None else inode.mode
    if permissions is None:
        permissions = options.dir_mode if inode.kind is Kind.DIRECTORY else options.file_mode
    return _TYPE_BITS[inode.kind] | permissions


def _from_others(inode: Inode, options: NamespaceOptions) -> int | None:
    """The permissions that metadata tells, without those that would lend somebody's rights.

    Whoever may write to the bucket could store a set-user-ID root program. Directories lend none:
    their sticky bit takes rights away, and their set-group-ID bit names the group of new entries,
    which a writer of the bucket could store with each of them as well.
    """
    permissions = _permissions(inode.decoded.mode)
    if permissions is None or options.special_modes:
        return permissions
    return permissions & (0o3777 if inode.kind is Kind.DIRECTORY else 0o777)


def stored_metadata(
    inode: Inode, options: NamespaceOptions, *, with_times: bool
) -> Mapping[str, str]:
    """The metadata to store with the object: this inode's attributes, and those that other tools
    stored.

    Raises:
        RangeTooLargeError: over 2 KiB.
    """
    stored = inode.decoded
    mode, is_file = inode.mode, inode.kind is Kind.FILE
    if stored is metadata.NOTHING and is_file and mode is not None and not inode.xattrs:
        # The same in short, for a file that is new: several times while it is made.
        return _of_new_file(
            stat.S_IFREG | mode,
            _first(inode.uid, options.uid) or 0,
            _first(inode.gid, options.gid) or 0,
            (mtime_of(inode), inode.atime_ns, inode.ctime_ns) if with_times else _NO_TIMES,
        )
    return metadata.encode(
        foreign=inode.metadata,
        mode=stored_mode(inode, options),
        uid=_first(inode.uid, stored.uid, options.uid) or 0,
        gid=_first(inode.gid, stored.gid, options.gid) or 0,
        mtime_ns=mtime_of(inode) if with_times else None,
        atime_ns=_first(inode.atime_ns, stored.atime_ns) if with_times else None,
        ctime_ns=_first(inode.ctime_ns, stored.ctime_ns) if with_times else None,
        symlink_target=stored.symlink_target,
        link_in_body=stored.link_in_body,
        xattrs=user_xattrs(inode),
    )


_NO_TIMES = (None, None, None)


@lru_cache(maxsize=256)
def _of_new_file(
    mode: int, uid: int, gid: int, times: tuple[int | None, int | None, int | None]
) -> Mapping[str, str]:
    """Kept, as the close of a file and its upload ask for the same. ``times``: mtime, atime and
    ctime.
    """
    mtime_ns, atime_ns, ctime_ns = times
    return MappingProxyType(
        metadata.encode(
            mode=mode, uid=uid, gid=gid, mtime_ns=mtime_ns, atime_ns=atime_ns, ctime_ns=ctime_ns
        )
    )


def is_changed_since(inode: Inode, carried: Mapping[str, str], options: NamespaceOptions) -> bool:
    """Whether the inode's attributes are other than those that an upload has ``carried``. Times
    count if a program has set them.
    """
    mode, uid, gid, mtime_ns = inode.mode, inode.uid, inode.gid, inode.mtime_ns
    if (
        mode is not None
        and uid is not None
        and gid is not None
        and mtime_ns is not None
        and inode.kind is Kind.FILE
        and not (inode.xattrs or "xattr" in carried)
    ):
        # The same in short, for a file that was new.
        return (
            carried.get("mode") != str(stat.S_IFREG | mode)
            or carried.get("uid") != str(uid)
            or carried.get("gid") != str(gid)
            or (inode.mtime_explicit and carried.get("mtime") != metadata.format_time(mtime_ns))
        )
    now = stored_metadata(inode, options, with_times=inode.mtime_explicit)
    names = {"mode", "uid", "gid", "xattr"} | ({"mtime"} if inode.mtime_explicit else set())
    return any(now.get(name) != carried.get(name) for name in names)


def user_xattrs(inode: Inode) -> dict[str, bytes]:
    """The extended attributes programs have set."""
    return dict(inode.decoded.xattrs) if inode.xattrs is None else inode.xattrs


def mtime_of(inode: Inode) -> int | None:
    """The time of the last change, if anything tells it."""
    object_mtime_ns = None if inode.info is None else inode.info.mtime_ns
    return _first(inode.mtime_ns, inode.decoded.mtime_ns, object_mtime_ns)


def _permissions(mode: int | None) -> int | None:
    # A bare zero has not even a type and is nobody's chmod.
    return stat.S_IMODE(mode) if mode else None


def _first(*values: int | None) -> int | None:
    for value in values:  # three times as fast as a generator, and asked for all the time
        if value is not None:
            return value
    return None

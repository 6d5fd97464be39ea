"""Encoding of the FUSE protocol for the lane (linux/fuse.h, 7.31 and later).

All fields are in the machine's byte order, and aligned as in C. Malformed input raises
:class:`struct.error` or ValueError; nothing is read past the end of a request.
"""

import struct
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from ossfs_py.filesystem.directories import TakesFiles
from ossfs_py.filesystem.replies import EntryReply, OpenReply
from ossfs_py.model import AttributeChange

LEAST_MINOR: Final = 31
"""Minor version of the protocol 7.x: Linux 5.2 (2019). The structures below are unchanged since."""


class Opcode:
    """Kinds of requests (enum fuse_opcode)."""

    LOOKUP: Final = 1
    FORGET: Final = 2
    GETATTR: Final = 3
    SETATTR: Final = 4
    READLINK: Final = 5
    UNLINK: Final = 10
    SYMLINK: Final = 6
    MKNOD: Final = 8
    MKDIR: Final = 9
    RMDIR: Final = 11
    RENAME: Final = 12
    REMOVEXATTR: Final = 24
    RENAME2: Final = 45
    OPEN: Final = 14
    READ: Final = 15
    WRITE: Final = 16
    RELEASE: Final = 18
    GETXATTR: Final = 22
    LISTXATTR: Final = 23
    FLUSH: Final = 25
    INIT: Final = 26
    OPENDIR: Final = 27
    RELEASEDIR: Final = 29
    CREATE: Final = 35
    INTERRUPT: Final = 36
    IOCTL: Final = 39
    BATCH_FORGET: Final = 42
    READDIRPLUS: Final = 44
    COPY_FILE_RANGE: Final = 47
    COPY_FILE_RANGE_64: Final = 53
    """The same from Linux 6.18 on, with more than 4 GiB at once."""


HEADER: Final = struct.Struct("=IIQQIIII")
"""struct fuse_in_header: length, opcode, unique, node, uid, gid, pid, length of extensions."""
WRITE_IN: Final = struct.Struct("=QQIIQII")
"""struct fuse_write_in: handle, offset, size, flags, lock owner, open flags, padding; the bytes
follow."""
READ_IN: Final = struct.Struct("=QQI")
"""The beginning of struct fuse_read_in, also of READDIRPLUS: handle, offset, size."""
HANDLE_IN: Final = struct.Struct("=Q")
"""The beginning of struct fuse_flush_in and fuse_release_in."""
OPEN_IN: Final = struct.Struct("=II")
"""struct fuse_open_in: flags, and whether to clear set-id bits (``OPEN_KILLS``)."""
XATTR_IN: Final = struct.Struct("=II")
"""struct fuse_getxattr_in: room for the value, padding; for GETXATTR the name follows."""
COPY_IN: Final = struct.Struct("=QQQQQQQ")
"""struct fuse_copy_file_range_in: handle and offset of the source; node, handle and offset of the
target; length, flags."""
FORGET_IN: Final = struct.Struct("=Q")
"""struct fuse_forget_in: number of references."""
_COUNT_IN = struct.Struct("=II")
"""struct fuse_batch_forget_in: number of pairs of node and references that follow."""
_FORGET_ONE = struct.Struct("=QQ")

OUT_HEADER: Final = struct.Struct("=IiQ")
"""struct fuse_out_header: length, negative errno or kind of notification, unique."""
_ATTRIBUTES = "QQQqqqIIIIIIIIII"
"""struct fuse_attr: inode, size, blocks; atime, mtime and ctime in seconds; the same in
nanoseconds; mode, links, uid, gid, device, preferred size, flags.
"""
_ENTRY = "QQQQII" + _ATTRIBUTES
"""struct fuse_entry_out: node, generation; seconds that name and attributes may be cached; the same
in nanoseconds; the attributes.
"""
_ENTRY_ANSWER = struct.Struct("=IiQ" + _ENTRY)
_ATTRIBUTES_ANSWER = struct.Struct("=IiQQII" + _ATTRIBUTES)
_OPEN_ANSWER = struct.Struct("=IiQQII")
_NUMBER_ANSWER = struct.Struct("=IiQII")
"""struct fuse_write_out and fuse_getxattr_out: a number and padding."""
_LONG_NUMBER_ANSWER = struct.Struct("=IiQQ")
"""struct fuse_copy_file_range_out."""
_DIRECTORY_ENTRY = "=" + _ENTRY + "QQII"
"""struct fuse_direntplus without the name: the entry; inode, offset of the next, length of the
name, type."""

_DIRECT_IO, _KEEP_CACHE, _NO_FLUSH = 1 << 0, 1 << 1, 1 << 5
"""FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE, FOPEN_NOFLUSH (Linux 5.16; older kernels ignore it)."""

_PASSTHROUGH = 1 << 7
"""FOPEN_PASSTHROUGH (Linux 6.9); then the last field of struct fuse_open_out is the number of a
local file.
"""

_BLOCK_BYTES = 512
"""The unit of st_blocks, independent of st_blksize (stat(2))."""
_NANO = 10**9
_MOST_SECONDS = 2**63 - 1
_ALIGNMENT = 8
_TYPE_SHIFT = 12
"""From the mode to d_type (IFTODT in dirent.h)."""

_INIT_ANSWER = struct.Struct("=IIIIHHIIHHI")
"""The beginning of struct fuse_init_out: major, minor, readahead, flags, background requests,
congestion, longest write, granularity of time, pages a request, alignment, more flags."""
_INIT_REQUEST = struct.Struct("=IIII")
"""The beginning of struct fuse_init_in: major, minor, readahead, flags."""
_MORE_FLAGS = struct.Struct("=I")
"""The field after that in the request: more flags."""
_STACK_DEPTH = struct.Struct("=I")
"""The field after that in the answer: the depth of stacked file systems."""
_SETATTR_IN = struct.Struct("=IIQQQqqqIIIIIIII")
"""struct fuse_setattr_in: fields to change, padding, handle, size, lock owner, three times in
seconds and in nanoseconds, mode, unused, uid, gid, unused.
"""
_MODE, _UID, _GID, _SIZE, _ATIME, _MTIME, _HANDLE = (1 << bit for bit in range(7))
"""FATTR_MODE and so on: the fields that a SETATTR sets, and whether it has a handle."""
_ATIME_NOW, _MTIME_NOW, _KILLS = 1 << 7, 1 << 8, 1 << 11
"""FATTR_ATIME_NOW, FATTR_MTIME_NOW, FATTR_KILL_SUIDGID."""
_PERMISSIONS = 0o7777
MKDIR_IN: Final = struct.Struct("=II")
"""struct fuse_mkdir_in: mode, umask; the name follows."""
MKNOD_IN: Final = struct.Struct("=IIII")
"""struct fuse_mknod_in: mode, device, umask, padding; the name follows."""
RENAME_IN: Final = struct.Struct("=Q")
"""struct fuse_rename_in: the new directory; both names follow."""
RENAME2_IN: Final = struct.Struct("=QII")
"""struct fuse_rename2_in: the same with flags and padding."""
CREATE_IN: Final = struct.Struct("=IIII")
"""struct fuse_create_in: flags, mode, umask, and whether to clear set-id bits; the name follows."""
WRITE_KILLS: Final = 1 << 2
"""FUSE_WRITE_KILL_SUIDGID: the set-id bits of the file have to be cleared."""
OPEN_KILLS: Final = 1 << 0
"""FUSE_OPEN_KILL_SUIDGID: the same for O_TRUNC."""
_HANDLE_KILLPRIV_V2 = 1 << 28
"""FUSE_HANDLE_KILLPRIV_V2 (7.33, Linux 5.11): the kernel says when to clear set-id bits, and does
not ask for security.capability before each write.
"""
_INIT_EXT = 1 << 30
"""FUSE_INIT_EXT: there are more flags."""
_PASSES_THROUGH = 1 << (37 - 32)
"""FUSE_PASSTHROUGH, in the second word of flags."""
_DEEPEST = 1
"""The depth for local files on an ordinary file system. So the mount can lie below an overlay."""
_MAX_PAGES = 1 << 22
"""FUSE_MAX_PAGES: the answer has the most pages of a request."""

_NOTIFY_INODE, _NOTIFY_ENTRY, _NOTIFY_STORE = 2, 3, 4
"""FUSE_NOTIFY_INVAL_INODE, FUSE_NOTIFY_INVAL_ENTRY, FUSE_NOTIFY_STORE."""
_NODE_NOTICE = struct.Struct("=IiQQqq")
"""struct fuse_notify_inval_inode_out: node, first byte, number of bytes (0: up to the end)."""
_ENTRY_NOTICE = struct.Struct("=IiQQII")
"""struct fuse_notify_inval_entry_out: directory, length of the name, flags."""
_STORE_NOTICE = struct.Struct("=IiQQQII")
"""struct fuse_out_header and struct fuse_notify_store_out: node, offset, size, padding."""

Buffer = memoryview | bytes | bytearray


class Caller(NamedTuple):
    """The caller of a request; replaces pyfuse3.RequestContext, which only pyfuse3 can make."""

    uid: int
    gid: int
    pid: int
    umask: int = 0


# -- requests ------------------------------------------------------------------------------------


def name_at(request: Buffer, start: int, end: int) -> bytes:
    """The name between two offsets of a request, without its final zero byte.

    Raises:
        ValueError: there is no name.
    """
    name, zero, _rest = bytes(request[start:end]).partition(b"\0")
    if not name or not zero:
        raise ValueError("a request without a name")
    return name


def two_names_at(request: Buffer, start: int) -> tuple[bytes, bytes]:
    """Two names in succession, from an offset of a request to its end.

    Raises:
        ValueError: there are not two names.
    """
    first = name_at(request, start, len(request))
    return first, name_at(request, start + len(first) + 1, len(request))


def forgotten(request: Buffer) -> list[tuple[int, int]]:
    """Node and references of each pair that BATCH_FORGET names.

    Raises:
        struct.error: the request is shorter than it says.
    """
    count, _ = _COUNT_IN.unpack_from(request, HEADER.size)
    start = HEADER.size + _COUNT_IN.size
    if start + count * _FORGET_ONE.size > len(request):
        raise struct.error("a request that is shorter than it says")
    pairs = request[start : start + count * _FORGET_ONE.size]
    return list(_FORGET_ONE.iter_unpack(pairs))


# -- answers -------------------------------------------------------------------------------------


def refused(unique: int, errno: int) -> bytes:
    """An answer with an errno; 0 is success without data."""
    return OUT_HEADER.pack(OUT_HEADER.size, -errno, unique)


def data_header(unique: int, size: int) -> bytes:
    """The header before ``size`` bytes of data."""
    return OUT_HEADER.pack(OUT_HEADER.size + size, 0, unique)


def number(unique: int, value: int) -> bytes:
    """An answer with a number: of bytes written, or the length of an attribute."""
    return _NUMBER_ANSWER.pack(_NUMBER_ANSWER.size, 0, unique, value, 0)


def long_number(unique: int, value: int) -> bytes:
    """An answer with a long number: of bytes copied, for COPY_FILE_RANGE_64."""
    return _LONG_NUMBER_ANSWER.pack(_LONG_NUMBER_ANSWER.size, 0, unique, value)


def opened(unique: int, reply: OpenReply, *, no_flush: bool) -> bytes:
    """The answer to OPEN. ``no_flush``: the kernel need not report close(2) of the descriptor."""
    flags = _KEEP_CACHE * reply.keep_cache | _DIRECT_IO * reply.past_pages | _NO_FLUSH * no_flush
    if reply.local is not None:
        flags |= _PASSTHROUGH
    return _OPEN_ANSWER.pack(
        _OPEN_ANSWER.size, 0, unique, reply.handle, flags, 0 if reply.local is None else reply.local
    )


def entry(unique: int, reply: EntryReply, preferred_bytes: int) -> bytes:
    """The answer to LOOKUP; ``preferred_bytes`` is the st_blksize."""
    name_s, name_ns = _duration(reply.name_seconds)
    if reply.attributes_seconds == reply.name_seconds:
        kept_s, kept_ns = name_s, name_ns
    else:
        kept_s, kept_ns = _duration(reply.attributes_seconds)
    shown = reply.attributes
    return _ENTRY_ANSWER.pack(
        *(_ENTRY_ANSWER.size, 0, unique, shown.ino, reply.generation),
        *(name_s, kept_s, name_ns, kept_ns, *_shown(reply, preferred_bytes)),
    )


def created(unique: int, entered: bytes, opened_as: bytes) -> bytes:
    """The answer to CREATE, from the answers to LOOKUP and OPEN."""
    head = OUT_HEADER.size
    size = len(entered) + len(opened_as) - head
    return OUT_HEADER.pack(size, 0, unique) + entered[head:] + opened_as[head:]


def absent(unique: int, seconds: float) -> bytes:
    """The answer to LOOKUP of a name that the kernel may cache as absent for so long."""
    whole, rest = _duration(seconds)
    return _ENTRY_ANSWER.pack(
        _ENTRY_ANSWER.size, 0, unique, 0, 0, whole, 0, rest, 0, *_NO_ATTRIBUTES
    )


def attributes(unique: int, reply: EntryReply, preferred_bytes: int) -> bytes:
    """The answer to GETATTR."""
    whole, rest = _duration(reply.attributes_seconds)
    return _ATTRIBUTES_ANSWER.pack(
        _ATTRIBUTES_ANSWER.size, 0, unique, whole, rest, 0, *_shown(reply, preferred_bytes)
    )


_NO_ATTRIBUTES = (0,) * len(_ATTRIBUTES)


def _shown(reply: EntryReply, preferred_bytes: int) -> tuple[int, ...]:
    ino, mode, size, uid, gid, atime_ns, mtime_ns, ctime_ns, nlink = reply.attributes
    modified, modified_ns = divmod(mtime_ns, _NANO)
    if atime_ns == mtime_ns == ctime_ns:  # most files of most buckets
        accessed, accessed_ns = changed, changed_ns = modified, modified_ns
    else:
        accessed, accessed_ns = divmod(atime_ns, _NANO)
        changed, changed_ns = divmod(ctime_ns, _NANO)
    return (
        ino,
        size,
        -(-size // _BLOCK_BYTES),
        accessed,
        modified,
        changed,
        accessed_ns,
        modified_ns,
        changed_ns,
        mode,
        nlink,
        uid,
        gid,
        0,
        preferred_bytes,
        0,
    )


def _duration(seconds: float) -> tuple[int, int]:
    """Whole seconds and nanoseconds; durations too long for a timer become the longest one."""
    if not 0 < seconds < _MOST_SECONDS:
        return (_MOST_SECONDS, 0) if seconds > 0 else (0, 0)
    whole = int(seconds)
    return whole, int((seconds - whole) * _NANO)


@lru_cache(256)  # lengths of names
def _named_entry(length: int) -> struct.Struct:
    """The entry of a name of so many bytes, up to where the next one begins."""
    before = struct.calcsize(_DIRECTORY_ENTRY)
    return struct.Struct(f"{_DIRECTORY_ENTRY}{length + -(before + length) % _ALIGNMENT}s")


class DirectoryAnswer(TakesFiles):
    """The answer to READDIRPLUS, filled with entries as far as ``room`` bytes hold them."""

    __slots__ = ("_parts", "_preferred_bytes", "_room", "_seconds", "_timeouts")

    def __init__(self, room: int, preferred_bytes: int) -> None:
        self._room = room
        self._preferred_bytes = preferred_bytes
        self._parts: list[bytes] = []
        self._seconds = (0.0, 0.0)
        self._timeouts = (0, 0, 0, 0)
        """The same as the kernel counts it. Entries that were listed together have one duration."""

    def __call__(self, name: bytes, reply: EntryReply, following: int) -> bool:
        """Add an entry, and the offset of the next one; False if it has no room."""
        length = len(name)
        form = _named_entry(length)
        if form.size > self._room:
            return False
        self._room -= form.size
        ino, mode, *_ = reply.attributes
        timeouts = self._timeouts_of(reply)
        self._parts.append(
            form.pack(
                *(ino, reply.generation, *timeouts, *_shown(reply, self._preferred_bytes)),
                *(ino, following, length, (mode >> _TYPE_SHIFT) & 0xF, name),
            )
        )
        return True

    @property
    def most(self) -> int:
        """No more entries than this have room, whatever their names."""
        return self._room // _named_entry(1).size

    def count_fitting(self, names: Sequence[bytes]) -> int:
        """How many of the next entries have room, with these names."""
        lengths = set(map(len, names))
        if len(lengths) == 1:  # numbered files
            return min(len(names), self._room // _named_entry(lengths.pop()).size)
        room = self._room
        for count, name in enumerate(names):
            room -= _named_entry(len(name)).size
            if room < 0:
                return count
        return len(names)

    def take_files(
        self,
        first: EntryReply,
        names: Sequence[bytes],
        files: Iterable[tuple[int, int, int, int]],
        following: int,
    ) -> None:
        """Add files that look like the first one but for what ``files`` tells of them."""
        _ino, mode, _size, uid, gid, _atime, _mtime, _ctime, nlink = first.attributes
        name_s, kept_s, name_ns, kept_ns = self._timeouts_of(first)
        kind, preferred = (mode >> _TYPE_SHIFT) & 0xF, self._preferred_bytes
        form, length = _named_entry(0), 0
        for name, (ino, generation, size, mtime_ns) in zip(names, files, strict=False):
            if len(name) != length:
                length = len(name)
                form = _named_entry(length)
            self._room -= form.size
            changed, changed_ns = divmod(mtime_ns, _NANO)
            self._parts.append(
                form.pack(
                    ino,
                    generation,
                    name_s,
                    kept_s,
                    name_ns,
                    kept_ns,
                    ino,
                    size,
                    -(-size // _BLOCK_BYTES),
                    changed,
                    changed,
                    changed,
                    changed_ns,
                    changed_ns,
                    changed_ns,
                    mode,
                    nlink,
                    uid,
                    gid,
                    0,
                    preferred,
                    0,
                    ino,
                    following,
                    length,
                    kind,
                    name,
                )
            )
            following += 1

    def _timeouts_of(self, reply: EntryReply) -> tuple[int, int, int, int]:
        seconds = reply.name_seconds, reply.attributes_seconds
        if seconds != self._seconds:
            self._seconds = seconds
            (name_s, name_ns), (kept_s, kept_ns) = map(_duration, seconds)
            self._timeouts = name_s, kept_s, name_ns, kept_ns
        return self._timeouts

    def answer(self, unique: int) -> bytes:
        """The answer with the entries taken."""
        data = b"".join(self._parts)
        return data_header(unique, len(data)) + data


# -- the beginning -------------------------------------------------------------------------------


def minor_of_init(request: Buffer) -> int:
    """The minor version of the kernel's protocol 7.x; 0 for another major version."""
    major, minor, _readahead, _flags = _INIT_REQUEST.unpack_from(request, HEADER.size)
    return int(minor) if major == 7 else 0


def offers_killing(request: Buffer) -> bool:
    """Whether the kernel can say with each change that set-id bits have to be cleared."""
    return bool(_INIT_REQUEST.unpack_from(request, HEADER.size)[3] & _HANDLE_KILLPRIV_V2)


def with_killing(answer: bytes) -> bytes:
    """pyfuse3's answer to INIT, with a request for that."""
    head = OUT_HEADER.size
    told = list(_INIT_ANSWER.unpack_from(answer, head))
    told[3] |= _HANDLE_KILLPRIV_V2
    return answer[:head] + _INIT_ANSWER.pack(*told) + answer[head + _INIT_ANSWER.size :]


def offers_passthrough(request: Buffer) -> bool:
    """Whether the kernel can read local files itself for programs."""
    end = HEADER.size + _INIT_REQUEST.size
    if len(request) < end + _MORE_FLAGS.size:
        return False
    extended = _INIT_REQUEST.unpack_from(request, HEADER.size)[3] & _INIT_EXT
    return bool(extended and _MORE_FLAGS.unpack_from(request, end)[0] & _PASSES_THROUGH)


def with_passthrough(answer: bytes) -> bytes:
    """pyfuse3's answer to INIT, with permission for that."""
    head = OUT_HEADER.size
    told = list(_INIT_ANSWER.unpack_from(answer, head))
    told[3] |= _INIT_EXT
    told[10] |= _PASSES_THROUGH
    end = head + _INIT_ANSWER.size
    return (
        answer[:head]
        + _INIT_ANSWER.pack(*told)
        + _STACK_DEPTH.pack(_DEEPEST)
        + answer[end + _STACK_DEPTH.size :]
    )


class Wish(NamedTuple):
    """The content of a SETATTR."""

    change: AttributeChange
    size: int | None
    handle: int | None
    """The handle of the descriptor that it uses."""
    kills: bool
    """Set-id bits have to be cleared, by a change that does not set the mode."""


def wish(request: Buffer) -> Wish:
    """Parse a SETATTR. Nobody can set its time of change."""
    changes, _, handle, size, _, *times = _SETATTR_IN.unpack_from(request, HEADER.size)
    accessed, modified, _, accessed_ns, modified_ns, _, mode, _, uid, gid, _ = times
    asked = AttributeChange(
        mode=mode & _PERMISSIONS if changes & _MODE else None,
        uid=uid if changes & _UID else None,
        gid=gid if changes & _GID else None,
        atime_ns=_time(accessed, accessed_ns, changes & _ATIME_NOW) if changes & _ATIME else None,
        mtime_ns=_time(modified, modified_ns, changes & _MTIME_NOW) if changes & _MTIME else None,
    )
    return Wish(
        asked,
        size if changes & _SIZE else None,
        handle if changes & _HANDLE else None,
        bool(changes & _KILLS and not changes & _MODE),
    )


def _time(seconds: int, nanoseconds: int, is_now: int) -> int:
    return time.time_ns() if is_now else seconds * _NANO + nanoseconds


def with_longer_requests(answer: bytes, pages: int, page_bytes: int) -> bytes:
    """pyfuse3's answer to INIT, with requests of up to ``pages`` pages."""
    head = OUT_HEADER.size
    told = list(_INIT_ANSWER.unpack_from(answer, head))
    if not told[3] & _MAX_PAGES:
        return answer
    told[6], told[8] = pages * page_bytes, pages
    return answer[:head] + _INIT_ANSWER.pack(*told) + answer[head + _INIT_ANSWER.size :]


def with_longer_queue(answer: bytes, requests: int, congested: int) -> bytes:
    """pyfuse3's answer to INIT, with up to ``requests`` background requests (readahead) at once;
    none is skipped before ``congested`` are in flight.
    """
    head = OUT_HEADER.size
    told = list(_INIT_ANSWER.unpack_from(answer, head))
    told[4], told[5] = requests, congested
    return answer[:head] + _INIT_ANSWER.pack(*told) + answer[head + _INIT_ANSWER.size :]


def longest_write(answer: bytes) -> int:
    """The longest WRITE in bytes that an answer to INIT allows."""
    return int(_INIT_ANSWER.unpack_from(answer, OUT_HEADER.size)[6])


# -- notices to the kernel -------------------------------------------------------------------------


def forget_pages(node: int) -> bytes:
    """Makes the kernel drop an inode's attributes and pages."""
    return _NODE_NOTICE.pack(_NODE_NOTICE.size, _NOTIFY_INODE, 0, node, 0, 0)


def forget_attributes(node: int) -> bytes:
    """Makes the kernel drop an inode's attributes."""
    return _NODE_NOTICE.pack(_NODE_NOTICE.size, _NOTIFY_INODE, 0, node, -1, 0)


def forget_name(directory: int, name: bytes) -> bytes:
    """Makes the kernel look a name up again."""
    size = _ENTRY_NOTICE.size + len(name) + 1
    return _ENTRY_NOTICE.pack(size, _NOTIFY_ENTRY, 0, directory, len(name), 0) + name + b"\0"


def store(node: int, offset: int, data: bytes) -> bytes:
    """Puts bytes into an inode's pages, and makes the inode that long if it is shorter."""
    size = _STORE_NOTICE.size + len(data)
    return _STORE_NOTICE.pack(size, _NOTIFY_STORE, 0, node, offset, len(data), 0) + data

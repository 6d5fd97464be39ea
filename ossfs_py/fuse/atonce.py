"""Answers to requests about small files that wait for nothing, without a coroutine.

Each method here answers a request, or returns None: then nothing has happened that may not happen
again, and the lane calls the handler, which also finds out what is wrong with it.
"""

import stat
from collections.abc import Callable
from time import perf_counter
from typing import Protocol, TypeAlias

from ossfs_py.errors import UNKNOWN_REQUEST
from ossfs_py.filesystem.atonce import AtOnce
from ossfs_py.fuse import wire
from ossfs_py.fuse.callers import Callers
from ossfs_py.fuse.wire import Opcode
from ossfs_py.telemetry.metrics import Timings

Known: TypeAlias = Callable[[int, int, memoryview], bytes | None]
"""Answers a request without a coroutine, or not: unique, node, and the request. An answer without
bytes has been sent, or none is expected.
"""


class Around(Protocol):
    """What of the handlers is the same here."""

    callers: Callers
    timings: Timings

    def lacks_xattr(self, inode: int, name: bytes) -> int | None:
        """The errno for an extended attribute that no file has; None: a handler is needed."""
        ...


class AnswersAtOnce:
    """Belongs to the trio thread."""

    def __init__(self, calls: AtOnce, around: Around, preferred_bytes: int) -> None:
        """``preferred_bytes`` is the st_blksize."""
        self._calls = calls
        self._callers = around.callers
        self._timings = around.timings
        self._lacks_xattr = around.lacks_xattr
        self._preferred_bytes = preferred_bytes
        self.by_opcode: dict[int, Known] = {
            Opcode.OPEN: self._open,
            Opcode.CREATE: self._create,
            Opcode.SETATTR: self._setattr,
            Opcode.FLUSH: self._flush,
            Opcode.RELEASE: self._release,
            Opcode.MKDIR: self._mkdir,
            Opcode.GETXATTR: self._getxattr,
            Opcode.IOCTL: self._ioctl,
        }

    def _open(self, unique: int, node: int, request: memoryview) -> bytes | None:
        began = perf_counter()
        try:
            flags, more = wire.OPEN_IN.unpack_from(request, wire.HEADER.size)
            if more & wire.OPEN_KILLS:
                return None
            uid = wire.HEADER.unpack_from(request)[4]
            opened = self._calls.open(node, flags, uid)
        except Exception:  # noqa: BLE001 - the handler meets it again, and reports it
            return None
        if opened is None:
            return None
        self._timings.add_since(began, "open")
        return wire.opened(unique, opened, no_flush=True)

    def _create(self, unique: int, node: int, request: memoryview) -> bytes | None:
        began = perf_counter()
        try:
            *_, uid, gid, pid, _ = wire.HEADER.unpack_from(request)
            flags, mode, umask, _ = wire.CREATE_IN.unpack_from(request, wire.HEADER.size)
            name = wire.name_at(request, wire.HEADER.size + wire.CREATE_IN.size, len(request))
            made = self._calls.create(node, name, stat.S_IMODE(mode & ~umask), flags, uid, gid)
        except Exception:  # noqa: BLE001 - as above
            return None
        if made is None:
            return None
        opened, entered = made
        self._callers.opened(opened.handle, pid)
        self._timings.add_since(began, "create")
        return wire.created(
            unique,
            wire.entry(unique, entered, self._preferred_bytes),
            wire.opened(unique, opened, no_flush=False),
        )

    def _mkdir(self, unique: int, node: int, request: memoryview) -> bytes | None:
        began = perf_counter()
        try:
            *_, uid, gid, _pid, _ = wire.HEADER.unpack_from(request)
            mode, umask = wire.MKDIR_IN.unpack_from(request, wire.HEADER.size)
            name = wire.name_at(request, wire.HEADER.size + wire.MKDIR_IN.size, len(request))
            made = self._calls.make_directory(node, name, stat.S_IMODE(mode & ~umask), uid, gid)
        except Exception:  # noqa: BLE001 - as above
            return None
        if made is None:
            return None
        self._timings.add_since(began, "mkdir")
        return wire.entry(unique, made, self._preferred_bytes)

    def _getxattr(self, unique: int, node: int, request: memoryview) -> bytes | None:
        """chown(2) makes the kernel ask for security.capability."""
        named = bytes(request[wire.HEADER.size + wire.XATTR_IN.size :])
        name, zero, _ = named.partition(b"\0")
        missing = self._lacks_xattr(node, name) if zero else None
        return None if missing is None else wire.refused(unique, missing)

    @staticmethod
    def _ioctl(unique: int, _node: int, _request: memoryview) -> bytes:
        """Python makes one for each file that it opens; there are none here."""
        return wire.refused(unique, UNKNOWN_REQUEST)

    def _setattr(self, unique: int, node: int, request: memoryview) -> bytes | None:
        began = perf_counter()
        try:
            asked = wire.wish(request)
            if asked.size is not None:
                return None
            reply = self._calls.set_attributes(node, asked.change, kills=asked.kills)
        except Exception:  # noqa: BLE001 - as above
            return None
        if reply is None:
            return None
        self._timings.add_since(began, "setattr")
        return wire.attributes(unique, reply, self._preferred_bytes)

    def _flush(self, unique: int, _node: int, request: memoryview) -> bytes | None:
        began = perf_counter()
        try:
            (handle,) = wire.HANDLE_IN.unpack_from(request, wire.HEADER.size)
            if not self._calls.flush(handle):
                return None
        except Exception:  # noqa: BLE001 - as above
            return None
        self._timings.add_since(began, "flush")
        return wire.refused(unique, 0)

    def _release(self, unique: int, _node: int, request: memoryview) -> bytes | None:
        began = perf_counter()
        try:
            (handle,) = wire.HANDLE_IN.unpack_from(request, wire.HEADER.size)
            if not self._calls.release(handle):
                return None
        except Exception:  # noqa: BLE001 - as above
            return None
        self._callers.released(handle)
        self._timings.add_since(began, "release")
        return wire.refused(unique, 0)

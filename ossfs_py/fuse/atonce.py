"""Answers to requests about small files that wait for nothing, without a coroutine.

Each method here answers a request, or returns None: then nothing has happened that may not happen
again, and the lane calls the handler, which also finds out what is wrong with it.
"""

import stat
from collections.abc import Callable
from time import perf_counter
from typing import TypeAlias

from ossfs_py.filesystem.atonce import AtOnce
from ossfs_py.fuse import wire
from ossfs_py.fuse.callers import Callers
from ossfs_py.fuse.wire import Opcode
from ossfs_py.telemetry.metrics import Timings

Known: TypeAlias = Callable[[int, int, memoryview], bytes | None]
"""Answers a request without a coroutine, or not: unique, node, and the request. An answer without
bytes has been sent, or none is expected.
"""


class AnswersAtOnce:
    """Belongs to the trio thread."""

    def __init__(
        self,
        calls: AtOnce,
        callers: Callers,
        timings: Timings,
        preferred_bytes: int,
    ) -> None:
        """``preferred_bytes`` is the st_blksize."""
        self._calls = calls
        self._callers = callers
        self._timings = timings
        self._preferred_bytes = preferred_bytes
        self.by_opcode: dict[int, Known] = {
            Opcode.CREATE: self._create,
            Opcode.SETATTR: self._setattr,
            Opcode.FLUSH: self._flush,
            Opcode.RELEASE: self._release,
        }

    def _create(self, unique: int, node: int, request: memoryview) -> bytes | None:
        began = perf_counter()
        try:
            *_, uid, gid, pid, _ = wire.HEADER.unpack_from(request)
            flags, mode, umask, _ = wire.CREATE_IN.unpack_from(request, wire.HEADER.size)
            name = wire.name_at(request, wire.HEADER.size + wire.CREATE_IN.size, len(request))
            made = self._calls.create(node, name, stat.S_IMODE(mode & ~umask), flags, uid, gid)
        except Exception:  # noqa: BLE001 - the handler meets it again, and reports it
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

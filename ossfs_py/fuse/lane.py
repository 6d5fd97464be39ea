"""The lane: the most frequent requests are answered here, all others by pyfuse3.

This module has the kernel's descriptor. The trio thread reads each request and runs its handler at
once, up to its first wait: an answer from memory needs no task switch. Threads copy long answers
into the kernel (``replying.py``). Other requests go to pyfuse3 unchanged, through a socket that
libfuse takes for the kernel's descriptor, and its answers come back the same way.

A handler is a coroutine that is driven by hand. At its first wait another task takes over reading,
and this one goes on waiting. So there is a task for each waiting request, as in pyfuse3.
"""

import logging
import os
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import pyfuse3
import trio

from ossfs_py.errors import (
    COPY_YOURSELF,
    NO_ROOM_FOR_VALUE,
    UNINTELLIGIBLE,
    UNKNOWN_REQUEST,
    is_mount_gone,
    is_withdrawn,
)
from ossfs_py.filesystem.replies import Absent, EntryReply, OpenReply
from ossfs_py.fuse import wire
from ossfs_py.fuse.adapter import Adapter
from ossfs_py.fuse.atonce import Known
from ossfs_py.fuse.driving import Serve, driven
from ossfs_py.fuse.forpyfuse3 import PREFERRED_IO_BYTES
from ossfs_py.fuse.later import LaterReads, Read
from ossfs_py.fuse.receiving import Receiver
from ossfs_py.fuse.relay import Relay
from ossfs_py.fuse.replying import ReplyThreads, write_answer
from ossfs_py.fuse.tuning import CONGESTED_BACKGROUND, MAX_BACKGROUND
from ossfs_py.fuse.waiting import ShortWait
from ossfs_py.fuse.wire import Caller, Opcode
from ossfs_py.runtime.scattered import Answer

log = logging.getLogger(__name__)

_Hot: TypeAlias = Callable[[int, int, Caller, memoryview], Serve]
"""Serves one request: unique, node, caller, and the request without the bytes behind it."""

_MIB = 1024**2
_LIBFUSE_BYTES = _MIB
"""The longest WRITE that libfuse allows if the kernel reports no limit of its own."""
_PAGE_BYTES = os.sysconf("SC_PAGESIZE")
"""64 KiB on some aarch64 kernels."""
_MOST_PAGES = 4 * _MIB // _PAGE_BYTES
"""4 MiB a request: longer ones were not faster, and each buffer for WRITEs is as long."""
_IN_A_ROW = 32
"""Requests answered before other tasks run, if they come without a wait: about a millisecond of
answers from memory.
"""
_SINGLY = 4
"""So many waits in a row that brought one request each are believed to go on: nobody looks for a
second one then, which is a system call, but after one wait in 16.
"""
_MOST_IDLE = 8
"""Tasks kept for the next waiting requests; starting one costs some microseconds."""
_MOST_TOLD = 2**32 - 1
"""The answer to COPY_FILE_RANGE has 32 bits."""


class Lane:
    """Answers the requests of one mount. Belongs to the trio thread.

    ``device`` is the kernel's descriptor, non-blocking, and ``to_pyfuse3`` our end of the socket
    that pyfuse3 takes for it; the caller keeps both. ``page_limit``: the most pages that the kernel
    allows in a request; 0: unknown, and left to libfuse. With ``passes_through``, the kernel reads
    registered local files itself.
    """

    def __init__(
        self,
        adapter: Adapter,
        device: int,
        to_pyfuse3: socket.socket,
        *,
        threads: int,
        page_limit: int = 0,
        passes_through: bool = False,
    ) -> None:
        self._adapter = adapter
        self.passes_through = passes_through
        """Whether to ask the kernel to read registered local files itself."""
        self._device = device
        self._pages = min(page_limit, _MOST_PAGES)
        self._pyfuse3 = Relay(to_pyfuse3, self._answered_by_pyfuse3)
        self._token = trio.lowlevel.current_trio_token()
        self._replies = ReplyThreads(device, threads, self._thread_died)
        # Until INIT tells more.
        longest = max(_LIBFUSE_BYTES, page_limit * _PAGE_BYTES)
        self._receiver = Receiver(device, longest, adapter.room_to_land)
        self._idle: list[trio.Event] = []
        self.begun = trio.Event()
        """Set when INIT has been answered."""
        self.ended = trio.Event()
        """Set when no further request is read."""
        self.failure: BaseException | None = None
        """The exception that ended a reply thread."""
        self._init: int | None = None
        """The unique of INIT, until it is answered."""
        self._kills = False
        """Whether the kernel can say with each change that set-id bits have to be cleared."""
        self._nursery: trio.Nursery | None = None
        self._waits = ShortWait(device)
        self._nearness = self._waits.nearness
        self._later = LaterReads(adapter, self._answer_read, self._read_by_handler)
        self._known: dict[int, Known] = {
            Opcode.LOOKUP: self._lookup_known,
            Opcode.GETATTR: self._getattr_known,
            Opcode.READ: self._read_known,
            Opcode.WRITE: self._write_known,
            Opcode.UNLINK: self._unlink_known,
            Opcode.FORGET: self._forget_known,
            **adapter.at_once,
        }
        """Most of these requests wait for nothing: no coroutine is made for them."""
        self._hot: dict[int, _Hot] = {
            Opcode.LOOKUP: self._lookup,
            Opcode.GETATTR: self._getattr,
            Opcode.SETATTR: self._setattr,
            Opcode.CREATE: self._create,
            Opcode.MKDIR: self._mkdir,
            Opcode.UNLINK: self._unlink,
            Opcode.RMDIR: self._rmdir,
            Opcode.READ: self._read,
            Opcode.WRITE: self._write,
            Opcode.OPEN: self._open,
            Opcode.FLUSH: self._flush,
            Opcode.RELEASE: self._release,
            Opcode.OPENDIR: self._opendir,
            Opcode.RELEASEDIR: self._releasedir,
            Opcode.READDIRPLUS: self._readdir,
            Opcode.GETXATTR: self._getxattr,
            Opcode.LISTXATTR: self._listxattr,
            Opcode.READLINK: self._readlink,
            Opcode.FORGET: self._forget,
            Opcode.BATCH_FORGET: self._batch_forget,
            Opcode.INTERRUPT: self._unknown,
            Opcode.IOCTL: self._unknown,
            Opcode.COPY_FILE_RANGE: partial(self._copy, wire.number),
            Opcode.COPY_FILE_RANGE_64: partial(self._copy, wire.long_number),
        }

    # -- life -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Answer until the kernel has released the mount or :meth:`end` is called, and every
        request in progress here is done. Requests that pyfuse3 works on then are left to it.
        """
        try:
            with self._waits:
                async with trio.open_nursery() as watching:
                    watching.start_soon(self._later.watch)
                    async with trio.open_nursery() as nursery:
                        self._nursery = nursery
                        nursery.start_soon(self._serve)
                    watching.cancel_scope.cancel()
        finally:
            self._later.drop()

    async def relay(self) -> None:
        """Send pyfuse3's answers to the kernel, until cancelled."""
        await self._pyfuse3.run()

    def end(self) -> None:
        """Read no further request."""
        if not self.ended.is_set():
            self.ended.set()
            self._later.end()
            trio.lowlevel.notify_closing(self._device)
            for idle in self._idle:
                idle.set()

    def close(self) -> None:
        """Return when every answer is written."""
        self._pyfuse3.drain()
        self._replies.close()
        self._receiver.drop()

    def _thread_died(self, exc: BaseException) -> None:
        self.failure = exc
        try:
            self._token.run_sync_soon(self._fail)
        except trio.RunFinishedError:
            log.debug("it died after the mount had ended")

    def _fail(self) -> None:
        """The answers of READs cannot be sent any more."""
        self.end()
        self._adapter.reads.end()

    # -- reading --------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Read requests and answer them; a task that has to wait leaves reading to another."""
        while not self.ended.is_set():
            self._nearness.roam()
            try:
                await trio.lowlevel.wait_readable(self._device)
            except trio.ClosedResourceError:
                return
            left = _IN_A_ROW
            singles = 0
            while left:
                looks = left == _IN_A_ROW or singles < _SINGLY or not singles % 16
                request = self._receive() if looks else None
                if request is None:
                    if self._replies.send_held():
                        singles = 0
                        continue
                    if self.ended.is_set() or not self._waits.brings_one():
                        break
                    singles = singles + 1 if left == _IN_A_ROW - 1 else 0
                    left = _IN_A_ROW  # nobody else had anything to do
                    continue
                left -= 1
                served = self._taken_up(request)
                if (
                    served is not None
                    and await driven(served, self._hand_over)
                    and not await self._has_turn()
                ):
                    return
            self._replies.pass_held()

    def _hand_over(self) -> None:
        self._replies.pass_held()
        if self._idle:
            self._idle.pop().set()
        elif self._nursery is not None:
            self._nursery.start_soon(self._serve)

    async def _has_turn(self) -> bool:
        """Wait until this task has to read again; False if it is not needed any more."""
        if self.ended.is_set() or len(self._idle) >= _MOST_IDLE:
            return False
        turn = trio.Event()
        self._idle.append(turn)
        await turn.wait()
        return not self.ended.is_set()

    def _receive(self) -> memoryview | None:
        """The next request; None if there is none now."""
        try:
            request = self._receiver.receive()
        except OSError as exc:
            if is_mount_gone(exc):
                self.end()
            elif not is_withdrawn(exc):
                raise
            return None
        if request is not None and len(request) < wire.HEADER.size:
            self.end()
            return None
        return request

    def _taken_up(self, request: memoryview) -> Serve | None:
        """Answer a request at once from what is known, or else the coroutine that serves it."""
        _size, opcode, unique, node, uid, gid, pid, _ = wire.HEADER.unpack_from(request)
        nearness = self._nearness
        nearness.asker = pid
        nearness.asked += 1
        known = self._known.get(opcode)
        if known is not None and (answer := known(unique, node, request)) is not None:
            if answer:
                self._send(answer)
            return None
        nearness.roam()  # a handler may start a thread
        serve = self._hot.get(opcode)
        if serve is None:
            return self._pass_on(opcode, unique, node, Caller(uid, gid, pid), request)
        return self._answered(unique, serve(unique, node, Caller(uid, gid, pid), request))

    def _pass_on(
        self,
        opcode: int,
        unique: int,
        node: int,  # noqa: ARG002 - for who does not pass it on
        caller: Caller,  # noqa: ARG002
        request: memoryview,
    ) -> Serve:
        """Pass a request on to pyfuse3."""
        if opcode == Opcode.INIT:
            self._begin(unique, request)
        self._pyfuse3.pass_on(bytes(request))
        return _nothing()

    async def _answered(self, unique: int, served: Serve) -> None:
        try:
            await served
        except pyfuse3.FUSEError as exc:
            self._send(wire.refused(unique, exc.errno))
        except (struct.error, ValueError):
            log.exception("a request of the kernel was not understood")
            self._send(wire.refused(unique, UNINTELLIGIBLE))

    def _send(self, answer: bytes) -> None:
        write_answer(self._device, answer)

    # -- the beginning --------------------------------------------------------------------------

    def _begin(self, unique: int, request: memoryview) -> None:
        minor = wire.minor_of_init(request)
        if minor < wire.LEAST_MINOR:
            raise RuntimeError(f"the kernel speaks FUSE 7.{minor}: mount with --fuse-lane off")
        self._init = unique
        self._kills = wire.offers_killing(request)
        if self.passes_through and not wire.offers_passthrough(request):
            log.info("the kernel does not read cached files itself: it was built without that")
            self.passes_through = False

    def _answered_by_pyfuse3(self, answer: memoryview) -> None:
        if self._init is not None:
            _size, error, unique = wire.OUT_HEADER.unpack_from(answer)
            if unique == self._init and not error:
                self._init = None
                told = self._told_of(bytes(answer))
                self._receiver.set_longest(wire.longest_write(told))
                self._send(told)
                self.begun.set()
                return
        write_answer(self._device, b"", answer)

    def _told_of(self, answer: bytes) -> bytes:
        """pyfuse3's answer to INIT, changed for the kernel."""
        told = wire.with_longer_queue(answer, MAX_BACKGROUND, CONGESTED_BACKGROUND)
        if self._kills:
            told = wire.with_killing(told)
        if self.passes_through:
            told = wire.with_passthrough(told)
        if self._pages:
            told = wire.with_longer_requests(told, self._pages, _PAGE_BYTES)
        return told

    # -- the most frequent requests -------------------------------------------------------------

    def _lookup_known(self, unique: int, node: int, request: memoryview) -> bytes | None:
        name, zero, _ = bytes(request[wire.HEADER.size :]).partition(b"\0")
        found = self._adapter.lookup_known(node, name) if zero else None
        if isinstance(found, float):
            return wire.absent(unique, found)
        return None if found is None else wire.entry(unique, found, PREFERRED_IO_BYTES)

    def _getattr_known(self, unique: int, node: int, _request: memoryview) -> bytes | None:
        found = self._adapter.getattr_known(node)
        return None if found is None else wire.attributes(unique, found, PREFERRED_IO_BYTES)

    def _unlink_known(self, unique: int, node: int, request: memoryview) -> bytes | None:
        name, zero, _ = bytes(request[wire.HEADER.size :]).partition(b"\0")
        try:
            is_done = zero and self._adapter.unlink_known(node, name)
        except pyfuse3.FUSEError as exc:
            return wire.refused(unique, exc.errno)
        return wire.refused(unique, 0) if is_done else None

    def _forget_known(self, _unique: int, node: int, request: memoryview) -> bytes | None:
        try:
            (count,) = wire.FORGET_IN.unpack_from(request, wire.HEADER.size)
        except struct.error:
            return None  # the handler reports it
        self._adapter.forgotten([(node, count)])
        return b""

    async def _lookup(self, unique: int, node: int, caller: Caller, request: memoryview) -> None:
        name = wire.name_at(request, wire.HEADER.size, len(request))
        found = await self._adapter.lookup(node, name, caller)
        if isinstance(found, Absent):
            self._send(wire.absent(unique, found.seconds))
        else:
            self._send(wire.entry(unique, _reply(found), PREFERRED_IO_BYTES))

    async def _getattr(self, unique: int, node: int, caller: Caller, _request: memoryview) -> None:
        found = await self._adapter.getattr(node, caller)
        self._send(wire.attributes(unique, _reply(found), PREFERRED_IO_BYTES))

    async def _setattr(self, unique: int, node: int, caller: Caller, request: memoryview) -> None:
        asked = wire.wish(request)
        if asked.kills and (mode := self._adapter.mode_without_rights(node)) is not None:
            asked = asked._replace(change=asked.change._replace(mode=mode))
        found = await self._adapter.setattr(node, asked, None, asked.handle, caller)
        self._send(wire.attributes(unique, _reply(found), PREFERRED_IO_BYTES))

    async def _create(self, unique: int, node: int, caller: Caller, request: memoryview) -> None:
        flags, mode, umask, _ = wire.CREATE_IN.unpack_from(request, wire.HEADER.size)
        name = wire.name_at(request, wire.HEADER.size + wire.CREATE_IN.size, len(request))
        info, made = await self._adapter.create(
            node, name, mode, flags, caller._replace(umask=umask)
        )
        reply = _opened(info)
        self._note_opened(unique, reply.handle)
        entered = wire.entry(unique, _reply(made), PREFERRED_IO_BYTES)
        opened = wire.opened(unique, reply, no_flush=False)
        self._send(wire.created(unique, entered, opened))

    async def _mkdir(self, unique: int, node: int, caller: Caller, request: memoryview) -> None:
        mode, umask = wire.MKDIR_IN.unpack_from(request, wire.HEADER.size)
        name = wire.name_at(request, wire.HEADER.size + wire.MKDIR_IN.size, len(request))
        made = await self._adapter.mkdir(node, name, mode, caller._replace(umask=umask))
        self._send(wire.entry(unique, _reply(made), PREFERRED_IO_BYTES))

    async def _unlink(self, unique: int, node: int, caller: Caller, request: memoryview) -> None:
        name = wire.name_at(request, wire.HEADER.size, len(request))
        await self._adapter.unlink(node, name, caller)
        self._send(wire.refused(unique, 0))

    async def _rmdir(self, unique: int, node: int, caller: Caller, request: memoryview) -> None:
        name = wire.name_at(request, wire.HEADER.size, len(request))
        await self._adapter.rmdir(node, name, caller)
        self._send(wire.refused(unique, 0))

    async def _open(self, unique: int, node: int, caller: Caller, request: memoryview) -> None:
        flags, more = wire.OPEN_IN.unpack_from(request, wire.HEADER.size)
        reply = _opened(await self._adapter.open(node, flags, caller))
        if more & wire.OPEN_KILLS:
            try:
                await self._adapter.take_rights(reply.handle)
            except pyfuse3.FUSEError:
                await self._adapter.release(reply.handle)  # the kernel knows of no handle
                raise
        self._note_opened(unique, reply.handle)
        # Its close(2) has nothing to store: this saves one of the four requests for a small file.
        no_flush = not flags & (os.O_ACCMODE | os.O_TRUNC)
        self._send(wire.opened(unique, reply, no_flush=no_flush))

    def _note_opened(self, unique: int, handle: int) -> None:
        """A request is about to be answered with a handle: a subclass records it."""

    def _read_known(self, unique: int, _node: int, request: memoryview) -> bytes | None:
        try:
            handle, offset, size = wire.READ_IN.unpack_from(request, wire.HEADER.size)
        except struct.error:
            return None  # the handler reports it
        data = self._adapter.read_known(handle, offset, size)
        if data is not None:
            self._replies.hold(wire.data_header(unique, len(data)), data)
            return b""
        self._nearness.roam()  # a request to the store may start a thread
        return b"" if self._later.begin(unique, handle, offset, size) else None

    async def _read(self, unique: int, _node: int, _caller: Caller, request: memoryview) -> None:
        handle, offset, size = wire.READ_IN.unpack_from(request, wire.HEADER.size)
        self._answer_read(unique, await self._adapter.read(handle, offset, size))

    def _read_by_handler(self, unique: int, read: Read) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._answered, unique, self._read_again(unique, read))

    async def _read_again(self, unique: int, read: Read) -> None:
        data = await self._adapter.read(read.handle, read.offset, read.size)
        self._answer_read(unique, data)

    def _answer_read(self, unique: int, data: Answer) -> None:
        self._replies.put(wire.data_header(unique, len(data)), data)

    def _write_known(self, unique: int, _node: int, request: memoryview) -> bytes | None:
        try:
            handle, offset, size, flags, *_ = wire.WRITE_IN.unpack_from(request, wire.HEADER.size)
            data = self._receiver.written(request, size)
        except (struct.error, ValueError):
            return None  # the handler reports it
        try:
            if flags & wire.WRITE_KILLS or not self._adapter.write_known(handle, offset, data):
                return None
        except pyfuse3.FUSEError as exc:
            return wire.refused(unique, exc.errno)
        self._receiver.stored(data)
        return wire.number(unique, size)

    async def _write(self, unique: int, _node: int, _caller: Caller, request: memoryview) -> None:
        handle, offset, size, flags, *_ = wire.WRITE_IN.unpack_from(request, wire.HEADER.size)
        data = self._receiver.written(request, size)
        with self._receiver.held(data):
            if flags & wire.WRITE_KILLS:
                await self._adapter.take_rights(handle)
            written = await self._adapter.write(handle, offset, data)
        self._send(wire.number(unique, written))

    async def _copy(
        self,
        told: Callable[[int, int], bytes],
        unique: int,
        _node: int,
        _caller: Caller,
        request: memoryview,
    ) -> None:
        source, begin, _, target, start, size, _ = wire.COPY_IN.unpack_from(
            request, wire.HEADER.size
        )
        if told is wire.number:
            size = min(size, _MOST_TOLD)
        copied = await self._adapter.copy_range(target, start, source, begin, size)
        self._send(told(unique, copied) if copied else wire.refused(unique, COPY_YOURSELF))

    async def _flush(self, unique: int, _node: int, _caller: Caller, request: memoryview) -> None:
        (handle,) = wire.HANDLE_IN.unpack_from(request, wire.HEADER.size)
        self._receiver.drop()  # perhaps that was the last WRITE for a long time
        await self._adapter.flush(handle)
        self._send(wire.refused(unique, 0))

    async def _release(self, unique: int, _node: int, _caller: Caller, request: memoryview) -> None:
        (handle,) = wire.HANDLE_IN.unpack_from(request, wire.HEADER.size)
        await self._adapter.release(handle)
        self._send(wire.refused(unique, 0))

    async def _opendir(self, unique: int, node: int, caller: Caller, _request: memoryview) -> None:
        reply = OpenReply(
            await self._adapter.opendir(node, caller), keep_cache=False, past_pages=False
        )
        self._send(wire.opened(unique, reply, no_flush=False))

    async def _releasedir(
        self, unique: int, _node: int, _caller: Caller, request: memoryview
    ) -> None:
        (handle,) = wire.HANDLE_IN.unpack_from(request, wire.HEADER.size)
        await self._adapter.releasedir(handle)
        self._send(wire.refused(unique, 0))

    async def _readdir(self, unique: int, _node: int, _caller: Caller, request: memoryview) -> None:
        handle, offset, size = wire.READ_IN.unpack_from(request, wire.HEADER.size)
        entries = wire.DirectoryAnswer(size, PREFERRED_IO_BYTES)
        await self._adapter.readdir(handle, offset, entries)
        self._send(entries.answer(unique))

    async def _getxattr(self, unique: int, node: int, caller: Caller, request: memoryview) -> None:
        room, _ = wire.XATTR_IN.unpack_from(request, wire.HEADER.size)
        name = wire.name_at(request, wire.HEADER.size + wire.XATTR_IN.size, len(request))
        if (missing := self._adapter.lacks_xattr(node, name)) is not None:
            self._send(wire.refused(unique, missing))
            return
        self._value(unique, room, await self._adapter.getxattr(node, name, caller))

    async def _listxattr(self, unique: int, node: int, caller: Caller, request: memoryview) -> None:
        room, _ = wire.XATTR_IN.unpack_from(request, wire.HEADER.size)
        names = await self._adapter.listxattr(node, caller)
        self._value(unique, room, b"".join(name + b"\0" for name in names))

    def _value(self, unique: int, room: int, value: bytes) -> None:
        """Answer with an attribute, or with its length if the caller only asks for that."""
        if room == 0:
            self._send(wire.number(unique, len(value)))
        elif len(value) > room:
            self._send(wire.refused(unique, NO_ROOM_FOR_VALUE))
        else:
            write_answer(self._device, wire.data_header(unique, len(value)), value)

    async def _readlink(self, unique: int, node: int, caller: Caller, _request: memoryview) -> None:
        target = await self._adapter.readlink(node, caller)
        write_answer(self._device, wire.data_header(unique, len(target)), target)

    async def _forget(self, _unique: int, node: int, _caller: Caller, request: memoryview) -> None:
        (count,) = wire.FORGET_IN.unpack_from(request, wire.HEADER.size)
        await self._adapter.forget([(node, count)])

    async def _batch_forget(
        self, _unique: int, _node: int, _caller: Caller, request: memoryview
    ) -> None:
        await self._adapter.forget(wire.forgotten(request))

    async def _unknown(
        self, unique: int, _node: int, _caller: Caller, _request: memoryview
    ) -> None:
        # After this answer, the kernel sends no INTERRUPT any more. It still sends each ioctl:
        # Python makes one for each file that it opens, and pyfuse3 would give the same answer.
        self._send(wire.refused(unique, UNKNOWN_REQUEST))


def _reply(found: pyfuse3.EntryAttributes | EntryReply) -> EntryReply:
    if not isinstance(found, EntryReply):
        raise TypeError("the lane's adapter answers with replies")
    return found


def _opened(found: pyfuse3.FileInfo | OpenReply) -> OpenReply:
    if not isinstance(found, OpenReply):
        raise TypeError("the lane's adapter answers with replies")
    return found


async def _nothing() -> None:
    """The rest of the work for a request that was passed on: none."""

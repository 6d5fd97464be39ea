"""Handing a mount from a dead daemon to the next one, with the kernel's descriptor.

libfuse believes that it has just been mounted: it gets the INIT of the first daemon once more. Its
answer must be the same one that the kernel has had long ago. Then the kernel is asked to send the
requests again that the dead daemon had not answered (FUSE_NOTIFY_RESEND, Linux 6.9). Such requests
have a mark, and their answers have it too.

Most repeated requests can be done twice; an open directory that nobody knows costs a few hundred
bytes. OPEN and CREATE are answered with the existing handle, as nobody would release it. Changes of
names are answered by what is found done (``again.py``).
"""

import logging
import socket
import struct
import time
from typing import NoReturn

import pyfuse3
import trio

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.filesystem.handle import Handle
from ossfs_py.filesystem.replies import OpenReply
from ossfs_py.filesystem.survival import Negotiated, Survival, SurvivalError
from ossfs_py.filesystem.surviving import SurvivingFilesystem
from ossfs_py.fuse import wire
from ossfs_py.fuse.adapter import Adapter
from ossfs_py.fuse.again import DATED, Again
from ossfs_py.fuse.driving import Serve
from ossfs_py.fuse.forpyfuse3 import PREFERRED_IO_BYTES
from ossfs_py.fuse.lane import Lane
from ossfs_py.fuse.replying import write_answer
from ossfs_py.fuse.wire import Caller, Opcode
from ossfs_py.host.keeping import MountKeeper

log = logging.getLogger(__name__)

_ANSWER_SECONDS = 30.0
"""libfuse answers INIT in microseconds; on a machine that swaps, in seconds."""
_RESENT = 1 << 63
"""FUSE_UNIQUE_RESEND."""
_RESEND = wire.OUT_HEADER.pack(wire.OUT_HEADER.size, 7, 0)
"""FUSE_NOTIFY_RESEND."""
_FLAGS = struct.Struct("=II")
_FLAGS_OFFSET = wire.HEADER.size + 12
"""Offset of the flags in INIT, after versions and readahead; more flags follow them."""
_INIT_EXT, _HAS_RESEND = 1 << 30, 1 << (39 - 32)


class Heir:
    """The parts of a mount that let it replace a dead daemon, and be replaced.

    ``survival`` has the records; ``keeper`` holds the mount.
    """

    def __init__(self, survival: Survival, keeper: MountKeeper) -> None:
        self.survival = survival
        self._keeper = keeper
        self.device = keeper.device
        """The kernel's descriptor, if there was an earlier daemon."""
        self.own_device: int | None = None
        """The kernel's descriptor of this daemon's own mount, if it can be handed over."""
        self.is_kept = self.device is not None
        """Whether another daemon continues when this one dies."""
        self.filesystem: SurvivingFilesystem | None = None
        """The mounted file system; set by the session."""

    def beat(self) -> None:
        """This daemon runs: its keeper watches it, and kills one that hangs."""
        self._keeper.beat()

    def hand_over(self) -> bool:
        """The mount answers, and another daemon may now take it over; returns whether one can."""
        if self.device is not None:
            self._keeper.goes_on()
        elif not self.is_kept and self.own_device is not None:
            self._keeper.hand_over(self.own_device)
            self.is_kept = True
            if self.survival.lock is not None:
                self._keeper.hold(self.survival.lock)
        return self.is_kept

    def ended(self) -> None:
        """The mount is about to end."""
        self._keeper.ended()

    def refused(self) -> None:
        """No daemon can continue for the earlier one."""
        self._keeper.refused()


class InheritedLane(Lane):
    """A lane whose mount may have had an earlier daemon, and may get a later one."""

    def __init__(
        self,
        adapter: Adapter,
        device: int,
        to_pyfuse3: socket.socket,
        heir: Heir,
        *,
        threads: int,
        page_limit: int,
    ) -> None:
        super().__init__(adapter, device, to_pyfuse3, threads=threads, page_limit=page_limit)
        # Names wait for those that an earlier daemon has left.
        self._known.pop(Opcode.UNLINK, None)
        # One that makes an entry is recorded on its way to pyfuse3.
        del self._hot[Opcode.MKDIR]
        self._known.pop(Opcode.MKDIR, None)
        self._heir = heir
        self._again = None if heir.filesystem is None else Again(adapter, heir.filesystem)
        self._dated: set[int] = set()
        """Running requests whose beginning is recorded."""
        self._init_request = b""
        self._replayed: Negotiated | None = None

    async def run(self) -> None:
        """Answer until the kernel has released the mount or :meth:`end` is called."""
        if self._heir.device is not None:
            await self._begin_again()
        await super().run()

    async def _begin_again(self) -> None:
        self._replayed = self._heir.survival.negotiated
        if self._replayed is None:
            self._refuse("the start of the mount is not recorded")
        self._pyfuse3.pass_on(self._replayed.request)
        with trio.move_on_after(_ANSWER_SECONDS):
            await self.begun.wait()
        if not self.begun.is_set():
            raise EnvironmentProblemError("libfuse does not begin again")
        write_answer(self._device, _RESEND)

    @staticmethod
    def _refuse(why: str) -> NoReturn:
        raise SurvivalError(f"the mount of the daemon before cannot be taken over: {why}")

    def _begin(self, unique: int, request: memoryview) -> None:
        super()._begin(unique, request)
        self._init_request = bytes(request)

    def _answered_by_pyfuse3(self, answer: memoryview) -> None:
        replayed = self._replayed
        if replayed is not None and not self.begun.is_set():
            if bytes(answer) != replayed.answered:
                self._refuse("this libfuse or pyfuse3 begins otherwise")
            self._receiver.set_longest(wire.longest_write(replayed.told))
            self.begun.set()
            return
        if self._init is not None and _succeeds(answer, self._init):
            self._note_beginning(bytes(answer))
        super()._answered_by_pyfuse3(answer)
        if self._dated:
            _size, _error, unique = wire.OUT_HEADER.unpack_from(answer)
            if unique in self._dated:
                self._dated.discard(unique)
                self._heir.survival.answered(unique)

    def _note_beginning(self, answered: bytes) -> None:
        if not _resends(self._init_request):
            log.warning("the mount will not survive its daemon: Linux 6.9 is needed")
            return
        told = self._told_of(answered)
        self._heir.survival.note_negotiated(Negotiated(self._init_request, answered, told))
        self._heir.own_device = self._device

    async def _open(self, unique: int, node: int, caller: Caller, request: memoryview) -> None:
        before = self._opened_before(unique)
        if before is None:
            await super()._open(unique, node, caller, request)
        else:
            self._send(self._told_handle(unique, *before))

    async def _create(self, unique: int, node: int, caller: Caller, request: memoryview) -> None:
        before = self._opened_before(unique)
        if before is None or self._heir.filesystem is None:
            await super()._create(unique, node, caller, request)
            return
        number = before[1].opened.inode.number
        # Its reference was counted when it was made.
        reply = await self._heir.filesystem.attributes(number)
        entered = wire.entry(unique, reply, PREFERRED_IO_BYTES)
        self._send(wire.created(unique, entered, self._told_handle(unique, *before)))

    def _opened_before(self, unique: int) -> tuple[int, Handle] | None:
        """The descriptor that the earlier daemon has made for a request."""
        filesystem = self._heir.filesystem
        if not unique & _RESENT or filesystem is None:
            return None
        number = self._heir.survival.opened_for(unique & ~_RESENT)
        handle = None if number is None else filesystem.handle(number)
        return None if number is None or handle is None else (number, handle)

    @staticmethod
    def _told_handle(unique: int, number: int, handle: Handle) -> bytes:
        reply = OpenReply(number, keep_cache=False, past_pages=handle.past_pages)
        return wire.opened(unique, reply, no_flush=not handle.changes)

    def _note_opened(self, unique: int, handle: int) -> None:
        self._heir.survival.asked_by(handle, unique & ~_RESENT)

    async def _unlink(self, unique: int, node: int, caller: Caller, request: memoryview) -> None:
        if unique & _RESENT and self._again is not None:
            await self._repeat(self._again, Opcode.UNLINK, unique, node, caller, request)
        else:
            await super()._unlink(unique, node, caller, request)

    async def _rmdir(self, unique: int, node: int, caller: Caller, request: memoryview) -> None:
        if unique & _RESENT and self._again is not None:
            await self._repeat(self._again, Opcode.RMDIR, unique, node, caller, request)
        else:
            await super()._rmdir(unique, node, caller, request)

    def _pass_on(
        self, opcode: int, unique: int, node: int, caller: Caller, request: memoryview
    ) -> Serve:
        if self._again is not None and self._again.knows(opcode):
            if unique & _RESENT:
                held = memoryview(bytes(request))
                repeat = self._repeat(self._again, opcode, unique, node, caller, held)
                return self._answered(unique, repeat)
            if opcode in DATED:
                self._dated.add(unique)
                self._heir.survival.asked(unique, time.time_ns())
        return super()._pass_on(opcode, unique, node, caller, request)

    async def _repeat(
        self,
        again: Again,
        opcode: int,
        unique: int,
        node: int,
        caller: Caller,
        request: memoryview,
    ) -> None:
        survival, first = self._heir.survival, unique & ~_RESENT
        since_ns = survival.asked_at_ns(first)
        if since_ns is None and opcode in DATED:
            survival.asked(first, time.time_ns())
        try:
            with trio.CancelScope(shield=True):
                answer = await again.answer(opcode, unique, node, caller, request, since_ns)
        except pyfuse3.FUSEError as exc:
            answer = wire.refused(unique, exc.errno)
        self._send(answer)
        survival.answered(first)


def _succeeds(answer: memoryview, unique: int) -> bool:
    """Whether it is a successful answer to the request of that number."""
    _size, error, answered = wire.OUT_HEADER.unpack_from(answer)
    return bool(answered == unique and not error)


def _resends(request: bytes) -> bool:
    """Whether a kernel with this INIT can send requests again."""
    if len(request) < _FLAGS_OFFSET + _FLAGS.size:
        return False
    flags, more = _FLAGS.unpack_from(request, _FLAGS_OFFSET)
    return bool(flags & _INIT_EXT and more & _HAS_RESEND)

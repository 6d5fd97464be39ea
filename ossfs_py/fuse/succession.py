"""A mount that goes from a daemon that died to the next one, with the kernel's descriptor.

libfuse believes that it has just been mounted: it is sent the INIT of the first daemon once more,
and its answer, which the kernel has had long ago, must be the same. Then the kernel is asked to
send again what the dead daemon had not answered (FUSE_NOTIFY_RESEND, Linux 6.9). Such requests are
marked, and are answered with the mark.

Only what a mount for reading asks comes: all of it can be done twice, but for OPEN and OPENDIR,
which made a handle that nobody would release. OPEN is answered with the handle that there is; an
open directory that nobody knows of costs a few hundred bytes.
"""

import logging
import socket
import struct
from typing import NoReturn

import trio

from ossfs_py.errors import EnvironmentProblemError
from ossfs_py.filesystem.survival import Negotiated, Survival, SurvivalError
from ossfs_py.fuse import wire
from ossfs_py.fuse.adapter import Adapter
from ossfs_py.fuse.lane import Lane, room_for
from ossfs_py.fuse.replying import write_answer
from ossfs_py.fuse.wire import Caller
from ossfs_py.host.keeping import MountKeeper

log = logging.getLogger(__name__)

_ANSWER_SECONDS = 30.0
"""libfuse answers INIT in microseconds, on a machine that swaps in seconds."""
_RESENT = 1 << 63
"""FUSE_UNIQUE_RESEND."""
_RESEND = wire.OUT_HEADER.pack(wire.OUT_HEADER.size, 7, 0)
"""FUSE_NOTIFY_RESEND."""
_FLAGS = struct.Struct("=II")
_FLAGS_OFFSET = wire.HEADER.size + 12
"""Of the flags in INIT, behind versions and readahead; more flags follow them."""
_INIT_EXT, _HAS_RESEND = 1 << 30, 1 << (39 - 32)


class Heir:
    """What a mount needs to go on for a dead daemon, and to be gone on with.

    ``survival`` is what is written, ``keeper`` who holds it.
    """

    def __init__(self, survival: Survival, keeper: MountKeeper) -> None:
        self.survival = survival
        self._keeper = keeper
        self.device = keeper.device
        """The kernel's descriptor, if a daemon was there before."""
        self.own_device: int | None = None
        """The kernel's descriptor of this daemon's own mount, if it can be handed over."""
        self.is_kept = self.device is not None
        """Whether another daemon goes on when this one dies."""

    def hand_over(self) -> bool:
        """The mount answers: from now on another daemon may go on with it; whether one can."""
        if not self.is_kept and self.own_device is not None:
            self._keeper.hand_over(self.own_device)
            self.is_kept = True
        return self.is_kept

    def ended(self) -> None:
        """The mount is about to end."""
        self._keeper.ended()

    def refused(self) -> None:
        """No daemon can go on for the one before."""
        self._keeper.refused()


class InheritedLane(Lane):
    """A lane whose mount may have had a daemon before, and may have one afterwards."""

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
        self._heir = heir
        self._init_request = b""
        self._replayed: Negotiated | None = None

    async def run(self) -> None:
        """Answer until the kernel has let go of the mount or :meth:`end` is called."""
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
            self._buffer = room_for(replayed.told)
            self.begun.set()
            return
        if self._init is not None and _succeeds(answer, self._init):
            self._note_beginning(bytes(answer))
        super()._answered_by_pyfuse3(answer)

    def _note_beginning(self, answered: bytes) -> None:
        if not _resends(self._init_request):
            log.warning("the mount will not survive its daemon: Linux 6.9 is needed")
            return
        told = self._told_of(answered)
        self._heir.survival.note_negotiated(Negotiated(self._init_request, answered, told))
        self._heir.own_device = self._device

    async def _open(self, unique: int, node: int, caller: Caller, request: memoryview) -> None:
        survival = self._heir.survival
        before = survival.opened_for(unique & ~_RESENT) if unique & _RESENT else None
        if before is not None:
            # Such mounts are for reading: nothing is stored at a close(2).
            self._send(
                wire.opened(unique, before, keep_cache=False, direct_io=False, no_flush=True)
            )
            return
        await super()._open(unique, node, caller, request)

    def _note_opened(self, unique: int, handle: int) -> None:
        self._heir.survival.asked_by(handle, unique & ~_RESENT)


def _succeeds(answer: memoryview, unique: int) -> bool:
    """Whether it answers the request of that number, and well."""
    _size, error, answered = wire.OUT_HEADER.unpack_from(answer)
    return bool(answered == unique and not error)


def _resends(request: bytes) -> bool:
    """Whether a kernel that has sent this INIT can send requests again."""
    if len(request) < _FLAGS_OFFSET + _FLAGS.size:
        return False
    flags, more = _FLAGS.unpack_from(request, _FLAGS_OFFSET)
    return bool(flags & _INIT_EXT and more & _HAS_RESEND)

"""Repeated requests that change names: the answer depends on what is found done.

All other repeated requests are answered as if they came for the first time: setting attributes,
writing at an offset, truncating, storing and releasing have the same effect when done twice.
"""

import stat
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import pyfuse3

from ossfs_py.filesystem.repeated import Repeated
from ossfs_py.filesystem.replies import EntryReply
from ossfs_py.filesystem.surviving import SurvivingFilesystem
from ossfs_py.fuse import wire
from ossfs_py.fuse.adapter import Adapter
from ossfs_py.fuse.forpyfuse3 import PREFERRED_IO_BYTES
from ossfs_py.fuse.subjects import Subject
from ossfs_py.fuse.wire import Caller, Opcode
from ossfs_py.model import AttributeChange

_MAKING: Final = {Opcode.MKDIR, Opcode.MKNOD, Opcode.SYMLINK}
DATED: Final = _MAKING | {Opcode.RENAME, Opcode.RENAME2}
"""Requests whose first arrival has to be recorded with its time."""
_PERMISSIONS = 0o777
_Answer: TypeAlias = Callable[[int, int, Caller, memoryview, int | None], Awaitable[bytes]]
"""Answers a request: unique, node, caller, the request, and when it was first taken up."""


class Again:
    """Answers repeated requests. Belongs to the trio thread."""

    def __init__(self, adapter: Adapter, filesystem: SurvivingFilesystem) -> None:
        self._adapter = adapter
        self._fs = filesystem
        self._answers: dict[int, tuple[_Answer, Subject]] = {
            Opcode.MKDIR: (self._make_directory, Subject(Adapter.mkdir)),
            Opcode.MKNOD: (self._make_node, Subject(Adapter.mknod)),
            Opcode.SYMLINK: (self._make_symlink, Subject(Adapter.symlink)),
            Opcode.UNLINK: (self._unlink, Subject(Adapter.unlink)),
            Opcode.RMDIR: (self._remove_directory, Subject(Adapter.rmdir)),
            Opcode.RENAME: (self._rename, Subject(Adapter.rename)),
            Opcode.RENAME2: (self._rename2, Subject(Adapter.rename)),
            Opcode.REMOVEXATTR: (self._remove_xattr, Subject(Adapter.removexattr)),
        }

    def knows(self, opcode: int) -> bool:
        """Whether the opcode is one of those."""
        return opcode in self._answers

    async def answer(
        self,
        opcode: int,
        unique: int,
        node: int,
        caller: Caller,
        request: memoryview,
        since_ns: int | None,
    ) -> bytes:
        """The answer to a request that was first taken up at ``since_ns``, or never (None).

        Raises:
            FUSEError: the error for the program.
        """
        answer, subject = self._answers[opcode]
        try:
            return await answer(unique, node, caller, request, since_ns)
        except (pyfuse3.FUSEError, ValueError):
            raise
        except Exception as exc:  # noqa: BLE001 - one request fails, the mount lives on
            raise self._adapter.refusal(subject, (node,), exc) from None

    @property
    def _repeated(self) -> Repeated:
        return self._fs.repeated

    async def _make_directory(
        self, unique: int, node: int, caller: Caller, request: memoryview, since_ns: int | None
    ) -> bytes:
        mode, umask = wire.MKDIR_IN.unpack_from(request, wire.HEADER.size)
        name = wire.name_at(request, wire.HEADER.size + wire.MKDIR_IN.size, len(request))
        bits = stat.S_IMODE(mode & ~umask)

        async def make() -> EntryReply:
            return await self._fs.make_directory(node, name, bits, caller.uid, caller.gid)

        reply = await self._repeated.make(node, name, caller.uid, since_ns, make)
        shown = reply.attributes
        if (shown.mode & _PERMISSIONS, shown.uid) != (bits & _PERMISSIONS, caller.uid):
            change = AttributeChange(mode=bits, uid=caller.uid, gid=caller.gid)
            reply = await self._fs.set_attributes(reply.inode, change, None, None)
        return wire.entry(unique, reply, PREFERRED_IO_BYTES)

    async def _make_node(
        self, unique: int, node: int, caller: Caller, request: memoryview, since_ns: int | None
    ) -> bytes:
        mode, _, umask, _ = wire.MKNOD_IN.unpack_from(request, wire.HEADER.size)
        name = wire.name_at(request, wire.HEADER.size + wire.MKNOD_IN.size, len(request))

        async def make() -> EntryReply:
            return await self._fs.make_node(node, name, mode & ~umask, caller.uid, caller.gid)

        return await self._made(unique, node, name, caller.uid, since_ns, make)

    async def _make_symlink(
        self, unique: int, node: int, caller: Caller, request: memoryview, since_ns: int | None
    ) -> bytes:
        name, target = wire.two_names_at(request, wire.HEADER.size)

        async def make() -> EntryReply:
            return await self._fs.make_symlink(node, name, target, caller.uid, caller.gid)

        return await self._made(unique, node, name, caller.uid, since_ns, make)

    async def _made(
        self,
        unique: int,
        node: int,
        name: bytes,
        uid: int,
        since_ns: int | None,
        make: Callable[[], Awaitable[EntryReply]],
    ) -> bytes:
        reply = await self._repeated.make(node, name, uid, since_ns, make)
        return wire.entry(unique, reply, PREFERRED_IO_BYTES)

    async def _unlink(
        self, unique: int, node: int, _caller: Caller, request: memoryview, _since: int | None
    ) -> bytes:
        await self._repeated.unlink(node, _only_name(request))
        return wire.refused(unique, 0)

    async def _remove_directory(
        self, unique: int, node: int, _caller: Caller, request: memoryview, _since: int | None
    ) -> bytes:
        await self._repeated.remove_directory(node, _only_name(request))
        return wire.refused(unique, 0)

    async def _remove_xattr(
        self, unique: int, node: int, _caller: Caller, request: memoryview, _since: int | None
    ) -> bytes:
        await self._repeated.remove_xattr(node, _only_name(request))
        return wire.refused(unique, 0)

    async def _rename(
        self, unique: int, node: int, _caller: Caller, request: memoryview, since_ns: int | None
    ) -> bytes:
        (target,) = wire.RENAME_IN.unpack_from(request, wire.HEADER.size)
        return await self._renamed(unique, node, target, request, wire.RENAME_IN.size, 0, since_ns)

    async def _rename2(
        self, unique: int, node: int, _caller: Caller, request: memoryview, since_ns: int | None
    ) -> bytes:
        target, flags, _ = wire.RENAME2_IN.unpack_from(request, wire.HEADER.size)
        return await self._renamed(
            unique, node, target, request, wire.RENAME2_IN.size, flags, since_ns
        )

    async def _renamed(
        self,
        unique: int,
        node: int,
        target: int,
        request: memoryview,
        skipped: int,
        flags: int,
        since_ns: int | None,
    ) -> bytes:
        old, new = wire.two_names_at(request, wire.HEADER.size + skipped)
        Adapter.check_rename(flags)
        await self._repeated.rename(
            node,
            old,
            target,
            new,
            no_replace=bool(flags & pyfuse3.RENAME_NOREPLACE),
            since_ns=since_ns,
        )
        return wire.refused(unique, 0)


def _only_name(request: memoryview) -> bytes:
    return wire.name_at(request, wire.HEADER.size, len(request))

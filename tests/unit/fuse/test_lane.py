"""The lane, with a socket for the kernel's descriptor: each packet is a request, or an answer."""

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pyfuse3
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from ossfs_py.errors import (
    COPY_YOURSELF,
    NO_ROOM_FOR_VALUE,
    UNINTELLIGIBLE,
    UNKNOWN_REQUEST,
    MountEndedError,
    NoAttributeError,
    NoSuchEntryError,
    errno_of,
)
from ossfs_py.filesystem.replies import Absent, EntryReply, OpenReply
from ossfs_py.fuse import lane as lane_module
from ossfs_py.fuse import replying
from ossfs_py.fuse.adapter import Adapter
from ossfs_py.fuse.atonce import Known
from ossfs_py.fuse.ending import EndableReads
from ossfs_py.fuse.lane import Lane
from ossfs_py.fuse.relay import socket_pair
from ossfs_py.fuse.tuning import CONGESTED_BACKGROUND, MAX_BACKGROUND
from ossfs_py.fuse.wire import HEADER, Caller, Opcode, Wish
from ossfs_py.model import Attributes
from ossfs_py.runtime.arrived import Arrived, Written, parted
from ossfs_py.runtime.buffers import Buffer, BufferPool, NothingEvictable
from ossfs_py.runtime.scattered import Answer, Scattered
from ossfs_py.telemetry.metrics import Metrics

MIB = 1024**2
SHOWN = EntryReply(Attributes(7, 0o100644, 5, 1, 2, 3, 4, 5), 1.0, 1.0)
MADE_DIRECTORY = (1, b"dir", 0o40777, 0o22)
FROM_MEMORY = EntryReply(Attributes(9, 0o100600, 6, 1, 2, 3, 4, 5), 1.0, 1.0)
LENT = 8
"""A node with set-id bits."""
PROMPT, KEEPING = 20, 21
"""Handles: what is written to the first waits for nothing, the second keeps the memory of WRITEs.
"""
UNKNOWN_OPCODE = 17
"""STATFS: pyfuse3's."""


class Handlers:
    """Stands for the adapter; node 1 has everything, and what ``gate`` holds up waits for it."""

    def __init__(self) -> None:
        self.gate = trio.Event()
        self.data: memoryview | bytes = b""
        self.scattered: Scattered | None = None
        self.written: list[bytes] = []
        self.dropped: list[tuple[int, int]] = []
        self.reads = EndableReads()
        self.reads_handled = 0
        self.rights_taken: list[int] = []
        self.wishes: list[Wish] = []
        self.made: list[tuple[object, ...]] = []
        self.pool: BufferPool | None = None
        self.kept: list[tuple[Buffer, bytes]] = []
        self.at_once: dict[int, Known] = {}

    async def lookup(self, _parent: int, name: bytes, _ctx: object) -> EntryReply | Absent:
        if name == b"slow":
            await self.gate.wait()
        if name == b"gone":
            return Absent(2.5)
        if name == b"missing":
            raise pyfuse3.FUSEError(errno_of(NoSuchEntryError("no")))
        return SHOWN

    async def getattr(self, _inode: int, _ctx: object) -> EntryReply:
        return SHOWN

    def lookup_known(self, _parent: int, name: bytes) -> EntryReply | None:
        return FROM_MEMORY if name == b"known" else None

    def getattr_known(self, inode: int) -> EntryReply | None:
        return FROM_MEMORY if inode == FROM_MEMORY.inode else None

    def read_known(self, fh: int, _off: int, size: int) -> Answer | None:
        if self.scattered is not None:
            return self.scattered
        return self.data[:size] if fh == PROMPT else None

    def ask(self, _fh: int, _off: int, _size: int, _then: Callable[[], None]) -> bool:
        return False

    async def read(self, _fh: int, _off: int, size: int) -> memoryview | bytes:
        self.reads_handled += 1
        return self.data[:size]

    async def write(self, fh: int, _off: int, buf: Written) -> int:
        await self.gate.wait()
        if isinstance(buf, Arrived) and fh == KEEPING:
            data = bytes(buf.view)
            self.kept.append((buf.keep(), data))
        self.written.append(bytes(parted(buf)[0]))
        return len(buf)

    def write_known(self, fh: int, _off: int, data: Written) -> bool:
        if fh == PROMPT:
            self.written.append(bytes(parted(data)[0]))
        return fh == PROMPT

    def room_to_land(self, size: int) -> Buffer | None:
        return None if self.pool is None else self.pool.try_acquire(size)

    def mode_without_rights(self, inode: int) -> int | None:
        return 0o755 if inode == LENT else None

    async def take_rights(self, fh: int) -> None:
        self.rights_taken.append(fh)

    async def copy_range(
        self, _fh: int, _off: int, _source: int, _source_off: int, size: int
    ) -> int:
        return size if size >= LONG_BYTES else 0

    async def forget(self, pairs: list[tuple[int, int]]) -> None:
        self.dropped += pairs

    def forgotten(self, pairs: list[tuple[int, int]]) -> None:
        self.dropped += pairs

    def lacks_xattr(self, _inode: int, name: bytes) -> int | None:
        return errno_of(NoAttributeError("no")) if name == b"security.selinux" else None

    async def getxattr(self, _inode: int, _name: bytes, _ctx: object) -> bytes:
        return b"value"

    async def listxattr(self, _inode: int, _ctx: object) -> list[bytes]:
        return [b"a", b"b"]

    async def readlink(self, _inode: int, _ctx: object) -> bytes:
        return b"target"

    async def open(self, _inode: int, _flags: int, _ctx: object) -> OpenReply:
        return OpenReply(3, keep_cache=True, past_pages=False)

    async def setattr(
        self, _inode: int, asked: Wish, _fields: object, _fh: int | None, _ctx: object
    ) -> EntryReply:
        self.wishes.append(asked)
        return SHOWN

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, ctx: Caller
    ) -> tuple[OpenReply, EntryReply]:
        self.made.append((parent, name, mode, flags, ctx.umask))
        return OpenReply(4, keep_cache=False, past_pages=True), SHOWN

    async def mkdir(self, parent: int, name: bytes, mode: int, ctx: Caller) -> EntryReply:
        self.made.append((parent, name, mode, ctx.umask))
        return SHOWN

    async def unlink(self, parent: int, name: bytes, _ctx: object) -> None:
        self.made.append((parent, name))

    def unlink_known(self, parent: int, name: bytes) -> bool:
        if name == b"broken":
            raise pyfuse3.FUSEError(errno_of(RuntimeError("unexpected")))
        if name == b"prompt":
            self.made.append((parent, name, "at once"))
        return name == b"prompt"

    async def rmdir(self, parent: int, name: bytes, _ctx: object) -> None:
        self.made.append((parent, name))

    async def opendir(self, _inode: int, _ctx: object) -> int:
        return 5

    async def releasedir(self, _fh: int) -> None: ...

    async def flush(self, _fh: int) -> None: ...

    async def release(self, _fh: int) -> None: ...

    async def readdir(self, _fh: int, start: int, token: Any) -> None:
        token(b"name", SHOWN, start + 1)


class Kernel:
    """The other side of the descriptor."""

    def __init__(self, end: socket.socket, pyfuse3_end: socket.socket) -> None:
        self.socket = trio.socket.from_stdlib_socket(end)
        self.pyfuse3 = trio.socket.from_stdlib_socket(pyfuse3_end)
        self._unique = 0

    async def ask(self, opcode: int, body: bytes = b"", node: int = 1) -> int:
        await self.socket.send(self._request(opcode, body, node))
        return self._unique

    def ask_at_once(self, opcode: int, bodies: list[bytes]) -> list[int]:
        """Several requests, before the lane sees the first of them."""
        first = self._unique + 1
        for body in bodies:
            os.write(self.socket.fileno(), self._request(opcode, body, 1))
        return list(range(first, self._unique + 1))

    def _request(self, opcode: int, body: bytes, node: int) -> bytes:
        self._unique += 1
        header = HEADER.pack(HEADER.size + len(body), opcode, self._unique, node, 0, 0, 1, 0)
        return header + body

    def passed_on(self) -> list[bytes]:
        """The requests that are on their way to pyfuse3."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(os.read(self.pyfuse3.fileno(), MIB))
        return found

    async def answer(self) -> tuple[int, int, bytes]:
        """Unique, errno and body."""
        with trio.fail_after(10):
            said = await self.socket.recv(2 * MIB)
        size, error, unique = struct.unpack_from("=IiQ", said)
        assert size == len(said)
        return unique, -error, said[16:]


def on_lane(
    test: Callable[[Kernel, Handlers, Lane], Awaitable[None]], page_limit: int = 256
) -> None:
    """Run a test with a lane that ends well after it."""

    async def main() -> None:
        device, kernel_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        device.setblocking(False)
        ours, theirs = socket_pair()
        theirs.setblocking(False)
        handlers = Handlers()
        lane = Lane(
            cast(Adapter, handlers), device.fileno(), ours, threads=2, page_limit=page_limit
        )
        kernel = Kernel(kernel_end, theirs)
        with device, ours, kernel.socket, kernel.pyfuse3:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lane.relay)
                async with trio.open_nursery() as serving:
                    serving.start_soon(lane.run)
                    await test(kernel, handlers, lane)
                    handlers.gate.set()
                    lane.end()
                nursery.cancel_scope.cancel()
            lane.close()

    trio.run(main)


LONG_BYTES = 128 * 1024
"""Long enough for a thread, and short enough for any socket."""
READ = struct.pack("=QQIIQII", 1, 0, LONG_BYTES, 0, 0, 0, 0)


def write_body(data: bytes, handle: int = 1) -> bytes:
    return struct.pack("=QQIIQII", handle, 0, len(data), 0, 0, 0, 0) + data


def test_each_hot_request_is_answered() -> None:
    async def test(kernel: Kernel, handlers: Handlers, _lane: Lane) -> None:
        handlers.data = b"bytes"
        handlers.gate.set()
        asked = {
            Opcode.LOOKUP: (b"name\0", 128),
            Opcode.GETATTR: (bytes(16), 104),
            Opcode.SETATTR: (bytes(88), 104),
            Opcode.CREATE: (struct.pack("=IIII", os.O_RDWR, 0o100666, 0o27, 0) + b"new\0", 144),
            Opcode.MKDIR: (struct.pack("=II", 0o40777, 0o22) + b"dir\0", 128),
            Opcode.UNLINK: (b"old\0", 0),
            Opcode.RMDIR: (b"empty\0", 0),
            Opcode.OPENDIR: (bytes(8), 16),
            Opcode.RELEASEDIR: (bytes(24), 0),
            Opcode.READLINK: (b"", 6),
            Opcode.OPEN: (bytes(8), 16),
            Opcode.READ: (READ, 5),
            Opcode.WRITE: (write_body(b"data"), 8),
            Opcode.RELEASE: (bytes(24), 0),
            Opcode.FLUSH: (bytes(24), 0),
            Opcode.GETXATTR: (struct.pack("=II", 9, 0) + b"user.a\0", 5),
            Opcode.LISTXATTR: (struct.pack("=II", 0, 0), 8),
            Opcode.READDIRPLUS: (READ, 160),
        }
        for opcode, (body, size) in asked.items():
            unique = await kernel.ask(opcode, body)
            answered, refusal, said = await kernel.answer()
            assert (answered, refusal, len(said)) == (unique, 0, size), opcode
            if opcode == Opcode.OPENDIR:
                assert struct.unpack("=QII", said) == (5, 0, 0)
            if opcode == Opcode.CREATE:
                assert struct.unpack_from("=Q", said) == (7,)
                assert struct.unpack_from("=QII", said, 128) == (4, 1, 0)
        assert handlers.written == [b"data"]
        assert handlers.made == [
            (1, b"new", 0o100666, os.O_RDWR, 0o27),
            MADE_DIRECTORY,
            (1, b"old"),
            (1, b"empty"),
        ]
        await kernel.ask(Opcode.FORGET, struct.pack("=Q", 2), node=8)
        await kernel.ask(Opcode.BATCH_FORGET, struct.pack("=IIQQ", 1, 0, 9, 3))
        for opcode in (Opcode.INTERRUPT, Opcode.IOCTL):
            unique = await kernel.ask(opcode, bytes(8))
            assert await kernel.answer() == (unique, UNKNOWN_REQUEST, b"")
        assert handlers.dropped == [(8, 2), (9, 3)]
        for opcode, size, told in (
            (Opcode.COPY_FILE_RANGE, MIB, struct.pack("=II", MIB, 0)),
            (Opcode.COPY_FILE_RANGE, 2**40, struct.pack("=II", 2**32 - 1, 0)),
            (Opcode.COPY_FILE_RANGE_64, 2**40, struct.pack("=Q", 2**40)),
            (Opcode.COPY_FILE_RANGE_64, 5, b""),
        ):
            unique = await kernel.ask(opcode, struct.pack("=QQQQQQQ", 1, 0, 2, 2, 0, size, 0))
            assert await kernel.answer() == (unique, 0 if told else COPY_YOURSELF, told)
        unique = await kernel.ask(Opcode.LOOKUP, b"missing\0")
        assert await kernel.answer() == (unique, errno_of(NoSuchEntryError("no")), b"")
        label = struct.pack("=II", 255, 0) + b"security.selinux\0"
        unique = await kernel.ask(Opcode.GETXATTR, label)
        assert await kernel.answer() == (unique, errno_of(NoAttributeError("no")), b"")
        unique = await kernel.ask(Opcode.LOOKUP, b"gone\0")
        assert (await kernel.answer())[2][:40] == struct.pack("=QQQQII", 0, 0, 2, 0, 500_000_000, 0)

    on_lane(test)


def test_a_name_that_can_be_removed_at_once_needs_no_handler() -> None:
    async def test(kernel: Kernel, handlers: Handlers, _lane: Lane) -> None:
        for name in (b"prompt", b"other"):
            unique = await kernel.ask(Opcode.UNLINK, name + b"\0")
            assert await kernel.answer() == (unique, 0, b"")
        assert handlers.made == [(1, b"prompt", "at once"), (1, b"other")]
        unique = await kernel.ask(Opcode.UNLINK, b"broken\0")
        assert await kernel.answer() == (unique, errno_of(RuntimeError("unexpected")), b"")
        unique = await kernel.ask(Opcode.UNLINK, b"prompt")
        assert (await kernel.answer())[1] == UNINTELLIGIBLE
        assert len(handlers.made) == 2

    on_lane(test)


def test_what_is_known_is_answered_from_memory() -> None:
    async def test(kernel: Kernel, handlers: Handlers, _lane: Lane) -> None:
        unique = await kernel.ask(Opcode.LOOKUP, b"known\0")
        answered, refusal, said = await kernel.answer()
        assert (answered, refusal, len(said)) == (unique, 0, 128)
        assert struct.unpack_from("=Q", said) == (FROM_MEMORY.inode,)
        handlers.data = bytes(range(256)) * (LONG_BYTES // 256)
        for size in (100, LONG_BYTES):
            read = struct.pack("=QQIIQII", PROMPT, 0, size, 0, 0, 0, 0)
            unique = await kernel.ask(Opcode.READ, read)
            assert await kernel.answer() == (unique, 0, handlers.data[:size])
        assert handlers.reads_handled == 0
        unique = await kernel.ask(Opcode.GETATTR, bytes(16), node=FROM_MEMORY.inode)
        answered, refusal, said = await kernel.answer()
        assert (answered, refusal, len(said)) == (unique, 0, 104)
        assert struct.unpack_from("=Q", said, 16) == (FROM_MEMORY.inode,)
        for name in (b"known", b"\0", b""):  # it does not end, or there is none
            unique = await kernel.ask(Opcode.LOOKUP, name)
            assert await kernel.answer() == (unique, UNINTELLIGIBLE, b"")

    on_lane(test)


def test_who_asks_one_thing_after_the_other_costs_one_look_each_and_a_crowd_is_not_missed() -> None:
    found: list[bool] = []

    async def test(kernel: Kernel, _handlers: Handlers, lane: Lane) -> None:
        receive = lane._receive
        counts = [*[1] * 40, 5, 1, 40, *[1] * 20, 2, 1]
        sent = iter(counts)

        def counted() -> memoryview | None:
            request = receive()
            found.append(request is not None)
            return request

        def brings_some() -> bool:
            count = next(sent, 0)
            kernel.ask_at_once(Opcode.LOOKUP, [b"known\0"] * count)
            return count > 0

        lane._receive = counted  # type: ignore[method-assign]
        lane._waits.brings_one = brings_some  # type: ignore[method-assign]
        first = await kernel.ask(Opcode.LOOKUP, b"known\0")
        answered = [(await kernel.answer())[:2] for _ in range(1 + sum(counts))]
        assert answered == [(first + number, 0) for number in range(1 + sum(counts))]
        assert found.count(False) < len(counts) // 2

    on_lane(test)


@pytest.mark.parametrize(
    ("flags", "no_flush"),
    [
        (os.O_RDONLY, True),
        (os.O_RDONLY | os.O_TRUNC, False),
        (os.O_WRONLY, False),
        (os.O_RDWR, False),
    ],
)
def test_close_is_not_told_of_what_was_open_for_reading(flags: int, no_flush: bool) -> None:
    async def test(kernel: Kernel, _handlers: Handlers, _lane: Lane) -> None:
        await kernel.ask(Opcode.OPEN, struct.pack("=II", flags, 0))
        _unique, _error, told = await kernel.answer()
        assert struct.unpack("=QII", told) == (3, 1 << 1 | no_flush << 5, 0)

    on_lane(test)


def test_what_waits_holds_up_nobody_and_keeps_its_bytes() -> None:
    async def test(kernel: Kernel, handlers: Handlers, _lane: Lane) -> None:
        slow = [await kernel.ask(Opcode.LOOKUP, b"slow\0") for _ in range(20)]
        sent = [bytes([number]) * LONG_BYTES for number in range(6)]
        writes = [await kernel.ask(Opcode.WRITE, write_body(data)) for data in sent]
        known = await kernel.ask(Opcode.GETATTR, bytes(16))
        assert (await kernel.answer())[0] == known
        handlers.gate.set()
        assert {(await kernel.answer())[0] for _ in slow + writes} == {*slow, *writes}
        assert sorted(handlers.written) == sent

    on_lane(test)


@pytest.mark.parametrize("budget", [2 * MIB, 128 * MIB], ids=["short", "enough"])
@pytest.mark.parametrize("waits", [False, True])
def test_bytes_of_long_writes_arrive_where_they_are_kept(waits: bool, budget: int) -> None:
    async def test(kernel: Kernel, handlers: Handlers, lane: Lane) -> None:
        handlers.pool = BufferPool(budget, MIB, Metrics(), NothingEvictable())
        lane._receiver.set_longest(LONG_BYTES)
        sent, asked = [], []
        if not waits:
            handlers.gate.set()
        for number in range(8):
            for handle in (KEEPING, PROMPT, 1):
                for size in (LONG_BYTES, LONG_BYTES // 2, 4096, 1):
                    sent.append(
                        bytes([number, handle, size % 255]) * (size // 3) + b"e" * (size % 3)
                    )
                    asked.append(await kernel.ask(Opcode.WRITE, write_body(sent[-1], handle)))
                    if not waits:
                        assert (await kernel.answer())[:2] == (asked[-1], 0)
            known = await kernel.ask(Opcode.LOOKUP, b"known\0")
            while (answered := await kernel.answer())[0] != known:
                assert answered[:2] == (answered[0], 0)
                asked.remove(answered[0])
            assert struct.unpack_from("=Q", answered[2]) == (FROM_MEMORY.inode,)
        handlers.gate.set()
        if waits:
            while asked:
                unique, refusal, _said = await kernel.answer()
                asked.remove(unique)
                assert not refusal
        assert sorted(handlers.written) == sorted(sent)
        assert handlers.kept
        for buffer, data in handlers.kept:  # whatever has arrived since
            assert buffer.view[: len(data)] == data
        await kernel.ask(Opcode.FLUSH, bytes(24))
        await kernel.answer()
        for buffer, _data in handlers.kept:
            buffer.release()
        assert handlers.pool.used_bytes == 0

    on_lane(test)


def test_memory_serves_again_only_when_the_kernel_has_its_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_copy, copied = threading.Event(), []

    def copy(_device: int, _header: bytes, data: memoryview | bytes = b"") -> None:
        may_copy.wait(10)
        copied.append(bytes(data))

    monkeypatch.setattr(replying, "write_answer", copy)

    async def test(kernel: Kernel, handlers: Handlers, _lane: Lane) -> None:
        pool = BufferPool(MIB, MIB, Metrics(), NothingEvictable())
        buffer = pool.try_acquire(MIB)
        assert buffer is not None
        buffer.view[:] = b"x" * MIB
        handlers.data = buffer.view
        asked = 3
        for _ in range(asked):
            await kernel.ask(Opcode.READ, READ)
        known = await kernel.ask(Opcode.GETATTR, bytes(16))
        assert (await kernel.answer())[0] == known
        assert buffer.is_lent
        handlers.data = b""
        buffer.release()
        assert pool.try_acquire(MIB) is None
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def take_again() -> None:
                again = await pool.acquire(MIB)
                again.view[:] = b"y" * MIB
                again.release()

            await trio.testing.wait_all_tasks_blocked()
            may_copy.set()
        assert copied == [b"x" * LONG_BYTES] * asked
        assert pool.used_bytes == 0

    on_lane(test)


def test_an_answer_in_two_places_is_sent_as_one_and_keeps_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_copy, write = threading.Event(), replying.write_answer

    def copy(device: int, header: bytes, data: Answer = b"") -> None:
        if threading.current_thread() is not threading.main_thread():
            may_copy.wait(10)
        write(device, header, data)

    monkeypatch.setattr(replying, "write_answer", copy)

    async def test(kernel: Kernel, handlers: Handlers, _lane: Lane) -> None:
        pool = BufferPool(2 * MIB, MIB, Metrics(), NothingEvictable())
        one, other = pool.try_acquire(MIB), pool.try_acquire(MIB)
        assert one is not None
        assert other is not None
        one.view[-LONG_BYTES:], other.view[:5] = b"x" * LONG_BYTES, b"other"
        handlers.scattered = Scattered([one.view[-LONG_BYTES:], other.view[:5]])
        first, last = kernel.ask_at_once(Opcode.READ, [READ, READ])
        # The last one needs no thread, as nothing comes behind it.
        assert await kernel.answer() == (last, 0, b"x" * LONG_BYTES + b"other")
        assert one.is_lent
        assert other.is_lent
        may_copy.set()
        assert await kernel.answer() == (first, 0, b"x" * LONG_BYTES + b"other")
        one.release()
        other.release()
        with trio.fail_after(10):
            (await pool.acquire(2 * MIB)).release()

    on_lane(test)


def test_the_trio_thread_sends_an_answer_while_no_other_request_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    senders: list[threading.Thread] = []

    def send(device: int, header: bytes, data: Answer = b"") -> None:
        senders.append(threading.current_thread())
        replying_write(device, header, data)

    replying_write = replying.write_answer
    monkeypatch.setattr(replying, "write_answer", send)

    async def test(kernel: Kernel, handlers: Handlers, _lane: Lane) -> None:
        handlers.data = bytes(range(256)) * (LONG_BYTES // 256)
        read = struct.pack("=QQIIQII", PROMPT, 0, LONG_BYTES, 0, 0, 0, 0)
        for _ in range(3):
            unique = await kernel.ask(Opcode.READ, read)
            assert await kernel.answer() == (unique, 0, handlers.data)
        assert senders == [threading.main_thread()] * 3
        # A request that waits does not keep the answer before it waiting.
        (read_one,) = kernel.ask_at_once(Opcode.READ, [read])
        (written,) = kernel.ask_at_once(Opcode.WRITE, [write_body(b"waits")])
        assert await kernel.answer() == (read_one, 0, handlers.data)
        handlers.gate.set()
        assert (await kernel.answer())[0] == written
        assert senders.pop() is not threading.main_thread()

    on_lane(test)


def test_no_answer_waits_longer_than_a_turn_of_the_trio_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, sent = 70, set[bytes]()
    """More than are answered before other tasks run."""
    all_sent = threading.Event()

    def send(_device: int, header: bytes, _data: Answer = b"") -> None:
        sent.add(header)
        if len(sent) == asked:
            all_sent.set()

    monkeypatch.setattr(replying, "write_answer", send)

    async def test(kernel: Kernel, handlers: Handlers, _lane: Lane) -> None:
        handlers.data = bytes(LONG_BYTES)
        read = struct.pack("=QQIIQII", PROMPT, 0, LONG_BYTES, 0, 0, 0, 0)
        kernel.ask_at_once(Opcode.READ, [read] * asked)
        assert await trio.to_thread.run_sync(all_sent.wait, 10)

    on_lane(test)


def test_an_answer_that_the_trio_thread_cannot_send_ends_the_mount(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    died_of = MemoryError()

    def die(*_: object) -> None:
        raise died_of

    monkeypatch.setattr(replying, "write_answer", die)

    async def test(kernel: Kernel, handlers: Handlers, lane: Lane) -> None:
        handlers.data = bytes(LONG_BYTES)
        await kernel.ask(Opcode.READ, struct.pack("=QQIIQII", PROMPT, 0, LONG_BYTES, 0, 0, 0, 0))
        with trio.fail_after(10):
            await lane.ended.wait()
        assert lane.failure is died_of

    on_lane(test)


def test_what_is_not_hot_goes_to_pyfuse3_and_back() -> None:
    async def test(kernel: Kernel, _handlers: Handlers, _lane: Lane) -> None:
        uniques = [await kernel.ask(UNKNOWN_OPCODE) for _ in range(3)]
        for unique in uniques:
            request = await kernel.pyfuse3.recv(MIB)
            assert HEADER.unpack(request)[1:3] == (UNKNOWN_OPCODE, unique)
            await kernel.pyfuse3.send(struct.pack("=IiQ", 16, 0, unique))
            assert await kernel.answer() == (unique, 0, b"")

    on_lane(test)


def test_pyfuse3_never_has_more_to_answer_than_the_way_back_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered: set[int] = set()

    def note(_device: int, _header: bytes, data: memoryview | bytes = b"") -> None:
        answered.add(struct.unpack_from("=IiQ", data)[2])

    monkeypatch.setattr(lane_module, "write_answer", note)

    async def test(kernel: Kernel, _handlers: Handlers, _lane: Lane) -> None:
        uniques = {await kernel.ask(UNKNOWN_OPCODE) for _ in range(1500)}
        while answered < uniques:
            await trio.testing.wait_all_tasks_blocked()
            requests = kernel.passed_on()
            assert 0 < len(requests) <= 1024
            # All at once, and nobody takes them off meanwhile: libfuse could wait for nobody.
            for request in requests:
                answer = struct.pack("=IiQ", 144, 0, HEADER.unpack(request)[2]) + bytes(128)
                assert os.write(kernel.pyfuse3.fileno(), answer) == 144
            await trio.testing.wait_all_tasks_blocked()

    on_lane(test)


@given(st.integers(0, 60), st.binary(max_size=120))
@settings(max_examples=60)
def test_whatever_a_request_holds_the_lane_lives_on(opcode: int, body: bytes) -> None:
    async def test(kernel: Kernel, handlers: Handlers, _lane: Lane) -> None:
        handlers.gate.set()
        if opcode != Opcode.INIT:
            await kernel.ask(opcode, body)
        known = await kernel.ask(Opcode.GETATTR, bytes(16))
        while (answer := await kernel.answer())[0] != known:
            assert answer[1] in {
                *(0, UNINTELLIGIBLE, UNKNOWN_REQUEST, NO_ROOM_FOR_VALUE, COPY_YOURSELF)
            }

    on_lane(test)


@pytest.mark.parametrize(("limit", "pages"), [(0, 256), (256, 256), (1024, 1024), (65535, 1024)])
def test_requests_are_as_long_as_the_kernel_allows_and_no_longer_than_pays(
    limit: int, pages: int
) -> None:
    async def test(kernel: Kernel, _handlers: Handlers, _lane: Lane) -> None:
        unique = await kernel.ask(Opcode.INIT, struct.pack("=IIII", 7, 45, 0, 0))
        await kernel.pyfuse3.recv(MIB)
        flags, write_bytes = 1 << 22, 256 * 4096
        said = struct.pack("=IIIIHHIIHHI", 7, 38, 131072, flags, 12, 9, write_bytes, 1, 256, 0, 0)
        header = struct.pack("=IiQ", 80, 0, unique)
        await kernel.pyfuse3.send(header + said + bytes(64 - len(said)))
        _unique, _error, told = await kernel.answer()
        assert struct.unpack_from("=I", told, 20) == (pages * os.sysconf("SC_PAGESIZE"),)
        assert struct.unpack_from("=H", told, 28) == (pages,)
        # Where fusectl is not mounted nobody else says so.
        assert struct.unpack_from("=HH", told, 16) == (MAX_BACKGROUND, CONGESTED_BACKGROUND)

    on_lane(test, limit)


def test_set_id_bits_go_when_the_kernel_says_so() -> None:
    kills, size, mode = 1 << 11, 1 << 3, 1 << 0
    killing = 1 << 28

    def setattr_body(changes: int) -> bytes:
        return struct.pack("=II", changes, 0).ljust(68, b"\0") + struct.pack("=5I", 0, 0, 1, 2, 0)

    async def test(kernel: Kernel, handlers: Handlers, _lane: Lane) -> None:
        for offered in (0, killing):
            unique = await kernel.ask(Opcode.INIT, struct.pack("=IIII", 7, 45, 0, offered))
            await kernel.pyfuse3.recv(MIB)
            said = struct.pack("=IIIIHHIIHHI", 7, 38, 131072, 1, 12, 9, MIB, 1, 256, 0, 0)
            await kernel.pyfuse3.send(struct.pack("=IiQ", 80, 0, unique) + said + bytes(28))
            assert struct.unpack_from("=I", (await kernel.answer())[2], 12) == (1 | offered,)
        for node, changes, wanted in (
            (LENT, kills | size, 0o755),
            (LENT, size, None),
            (LENT, kills | mode, 0),
            (1, kills | size, None),
        ):
            await kernel.ask(Opcode.SETATTR, setattr_body(changes), node=node)
            await kernel.answer()
            asked = handlers.wishes.pop()
            assert (asked.change.mode, asked.size) == (wanted, 0 if changes & size else None)
        handlers.gate.set()
        handle, plain, flagged = 5, 0, 1 << 2
        for flags in (plain, flagged):
            await kernel.ask(
                Opcode.WRITE, struct.pack("=QQIIQII", handle, 0, 1, flags, 0, 0, 0) + b"x"
            )
            await kernel.answer()
        for flags in (plain, 1):
            await kernel.ask(Opcode.OPEN, struct.pack("=II", os.O_TRUNC, flags))
            await kernel.answer()
        assert handlers.rights_taken == [handle, 3]

    on_lane(test)


def test_an_old_kernel_is_told_apart() -> None:
    async def test(kernel: Kernel, _handlers: Handlers, _lane: Lane) -> None:
        await kernel.ask(Opcode.INIT, struct.pack("=IIII", 7, 30, 0, 0))
        await trio.sleep_forever()

    with pytest.RaisesGroup(
        pytest.RaisesExc(RuntimeError, match="--fuse-lane off"), flatten_subgroups=True
    ):
        on_lane(test)


def test_a_thread_that_dies_ends_the_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    died_of = MemoryError()

    def die(*_: object) -> None:
        raise died_of

    monkeypatch.setattr(replying, "write_answer", die)

    async def test(kernel: Kernel, handlers: Handlers, lane: Lane) -> None:
        pool = BufferPool(MIB, MIB, Metrics(), NothingEvictable())
        buffer = pool.try_acquire(MIB)
        assert buffer is not None
        handlers.data = buffer.view
        for _ in range(4):  # two threads, so two answers that nobody will write
            await kernel.ask(Opcode.READ, READ)
        with trio.fail_after(10):
            await lane.ended.wait()
        assert lane.failure is died_of
        with pytest.raises(MountEndedError):
            await handlers.reads.waited_for(trio.Event().wait())
        handlers.data = b""
        buffer.release()
        lane.close()
        with trio.fail_after(10):
            (await pool.acquire(MIB)).release()

    on_lane(test)


def test_the_end_of_the_connection_is_the_end_of_the_lane() -> None:
    async def test(kernel: Kernel, _handlers: Handlers, lane: Lane) -> None:
        kernel.socket.close()
        with trio.fail_after(10):
            await lane.ended.wait()

    on_lane(test)

"""A lane that goes on for another daemon's, with sockets for the kernel and for pyfuse3."""

import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import NamedTuple, cast

import pytest
import trio

from ossfs_py.filesystem.handle import Handle
from ossfs_py.filesystem.replies import OpenReply
from ossfs_py.filesystem.survival import (
    FoundOut,
    MountIdentity,
    Negotiated,
    Survival,
    SurvivalError,
    open_survival,
)
from ossfs_py.filesystem.surviving import SurvivingFilesystem
from ossfs_py.fuse import wire
from ossfs_py.fuse.adapter import Adapter
from ossfs_py.fuse.atonce import Known
from ossfs_py.fuse.relay import socket_pair
from ossfs_py.fuse.succession import Heir, InheritedLane
from ossfs_py.fuse.tuning import CONGESTED_BACKGROUND, MAX_BACKGROUND
from ossfs_py.fuse.wire import HEADER, Opcode
from ossfs_py.host.keeping import DEVICE, MountKeeper
from ossfs_py.model import ObjectVersion
from ossfs_py.namespace.inode import InodeTable

MIB = 1024**2
RESENT = 1 << 63
RESEND = struct.pack("=IiQ", 16, 7, 0)
INIT_FLAGS = 1 << 30
RESENDS = 1 << 7
INIT_UNIQUE = 2


def init_request(more_flags: int) -> bytes:
    body = struct.pack("=IIIII44x", 7, 45, 0, INIT_FLAGS, more_flags)
    return HEADER.pack(HEADER.size + len(body), Opcode.INIT, INIT_UNIQUE, 0, 0, 0, 0, 0) + body


INIT_ANSWER = struct.pack(
    "=IiQIIIIHHIIHHI28x", 80, 0, INIT_UNIQUE, 7, 38, 131072, 0, 12, 9, MIB, 1, 0, 0, 0
)
TOLD = wire.with_longer_queue(INIT_ANSWER, MAX_BACKGROUND, CONGESTED_BACKGROUND)
"""What the kernel is told instead."""


class Openings:
    """Stands for the adapter: each open(2) is another handle."""

    def __init__(self, survival: Survival) -> None:
        self._survival = survival
        self.handles = 40
        self.at_once: dict[int, Known] = {}

    def room_to_land(self, _size: int) -> None: ...

    async def open(self, _inode: int, _flags: int, _ctx: object) -> OpenReply:
        self.handles += 1
        self._survival.opened(self.handles, a_reader())
        return OpenReply(self.handles, keep_cache=True, past_pages=False)


def a_reader() -> Handle:
    """What is written of a descriptor, and no more."""

    class Told(NamedTuple):
        version: ObjectVersion
        info: None = None
        number: int = 5

    class Opened(NamedTuple):
        file: Told
        inode: Told
        may_be_link: bool = False

    class Reader(NamedTuple):
        opened: Opened
        uid: int = 0
        changes: bool = False
        past_pages: bool = False

    told = Told(ObjectVersion("key", "etag", 7))
    return cast(Handle, Reader(Opened(told, told)))


class Descriptors:
    """Stands for a file system that knows every descriptor."""

    def handle(self, _number: int) -> Handle:
        return a_reader()


class Life(NamedTuple):
    """One daemon's lane, and both its sides."""

    lane: InheritedLane
    heir: Heir
    kernel: socket.socket
    pyfuse3: socket.socket
    keeper: socket.socket

    async def passed_on(self) -> bytes:
        await trio.lowlevel.wait_readable(self.pyfuse3)
        return self.pyfuse3.recv(MIB)

    async def told(self) -> bytes:
        with trio.fail_after(30):
            await trio.lowlevel.wait_readable(self.kernel)
        return self.kernel.recv(MIB)


def live(memory: int, test: Callable[[Life], Awaitable[None]], *, is_second: bool = False) -> None:
    """Run a test with a daemon's lane, which ends after it."""

    async def main() -> None:
        device, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        device.setblocking(False)
        ours, theirs = socket_pair()
        channel, keeper = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with device, kernel, ours, theirs, channel, keeper:
            survival = open_survival(memory)
            survival.serve(MountIdentity("bucket", "/m", ""), FoundOut("/m", None))
            survival.begin(InodeTable(10))
            survival.files()
            heir = Heir(
                survival, MountKeeper(channel, memory, device.fileno() if is_second else None)
            )
            heir.filesystem = cast(SurvivingFilesystem, Descriptors())
            lane = InheritedLane(
                cast(Adapter, Openings(survival)),
                device.fileno(),
                ours,
                heir,
                threads=1,
                page_limit=0,
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lane.relay)
                async with trio.open_nursery() as serving:
                    serving.start_soon(lane.run)
                    await test(Life(lane, heir, kernel, theirs, keeper))
                    lane.end()
                nursery.cancel_scope.cancel()
            lane.close()

    trio.run(main)


@pytest.fixture
def memory() -> int:
    return os.memfd_create("test")


async def begin(life: Life, more_flags: int = RESENDS) -> None:
    life.kernel.send(init_request(more_flags))
    assert await life.passed_on() == init_request(more_flags)
    life.pyfuse3.send(INIT_ANSWER)
    assert await life.told() == TOLD


async def begin_again(life: Life) -> None:
    assert await life.passed_on() == init_request(RESENDS)
    life.pyfuse3.send(INIT_ANSWER)
    assert await life.told() == RESEND


async def ask_open(life: Life, unique: int) -> int:
    """Open node 5; the handle."""
    life.kernel.send(HEADER.pack(HEADER.size + 8, Opcode.OPEN, unique, 5, 0, 0, 1, 0) + bytes(8))
    answer = await life.told()
    assert struct.unpack_from("=IiQ", answer) == (32, 0, unique)
    return int(struct.unpack_from("=Q", answer, 16)[0])


def test_libfuse_begins_again_and_the_kernel_hears_nothing_of_it(memory: int) -> None:
    async def first(life: Life) -> None:
        assert not life.heir.hand_over()
        await begin(life)
        assert life.heir.hand_over()
        word, descriptors, _, _ = socket.recv_fds(life.keeper, 100, 1)
        assert (word, len(descriptors)) == (DEVICE, 1)
        os.close(descriptors[0])

    live(memory, first)
    assert open_survival(memory).negotiated == Negotiated(
        init_request(RESENDS),
        INIT_ANSWER,
        TOLD,
    )

    async def second(life: Life) -> None:
        await begin_again(life)
        assert life.heir.is_kept
        assert life.lane.begun.is_set()

    live(memory, second, is_second=True)


def test_an_open_that_comes_again_is_answered_with_its_handle(memory: int) -> None:
    async def first(life: Life) -> None:
        await begin(life)
        assert [await ask_open(life, unique) for unique in (10, 12)] == [41, 42]

    live(memory, first)

    async def second(life: Life) -> None:
        await begin_again(life)
        assert await ask_open(life, RESENT | 12) == 42
        assert await ask_open(life, RESENT | 14) == 41, "a new one: nobody had answered it"

    live(memory, second, is_second=True)


def test_a_libfuse_that_begins_otherwise_is_refused(memory: int) -> None:
    live(memory, begin)

    async def second(life: Life) -> None:
        await life.passed_on()
        life.pyfuse3.send(INIT_ANSWER[:-1] + b"x")
        await trio.sleep_forever()

    refused = pytest.RaisesExc(SurvivalError, match="begins otherwise")
    with pytest.RaisesGroup(refused, flatten_subgroups=True):
        live(memory, second, is_second=True)


def test_a_mount_that_never_began_is_refused(memory: int) -> None:
    async def second(_life: Life) -> None:
        await trio.sleep_forever()

    refused = pytest.RaisesExc(SurvivalError, match="the start of the mount is not recorded")
    with pytest.RaisesGroup(refused, flatten_subgroups=True):
        live(memory, second, is_second=True)


def test_a_kernel_that_cannot_send_again_is_told_apart(memory: int) -> None:
    async def first(life: Life) -> None:
        await begin(life, more_flags=0)
        assert not life.heir.hand_over()

    live(memory, first)
    assert open_survival(memory).negotiated is None

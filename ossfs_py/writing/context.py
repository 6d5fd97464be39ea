"""The parts of a mount that all of its dirty files share."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import trio

from ossfs_py.model import ObjectVersion
from ossfs_py.runtime.buffers import Buffer
from ossfs_py.runtime.diskroom import DiskRoom
from ossfs_py.runtime.pageroom import PageRoom
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import InlineWrites, ObjectStore
from ossfs_py.writing.groupsync import GroupSync
from ossfs_py.writing.journal import Journal
from ossfs_py.writing.parts import EQUAL_PART_BYTES, PartLimits
from ossfs_py.writing.uploadpace import UploadPace

_ENTRY_BYTES = 1024
"""What a remembered version takes beside its bytes."""


class PartBuffer(Protocol):
    """Budgeted memory."""

    @property
    def view(self) -> memoryview:
        """The bytes, writable; invalid after ``release``."""
        ...

    def release(self) -> None:
        """Give the memory back."""
        ...


class PartMemory(Protocol):
    """The mount's memory budget."""

    def try_acquire(self, size: int, *, headroom_bytes: int = 0) -> Buffer | None:
        """``size`` bytes if the budget has as many, and ``headroom_bytes`` besides."""
        ...

    async def acquire(self, size: int) -> PartBuffer:
        """``size`` bytes; waits while the budget is used up, first come first served."""
        ...


@dataclass(frozen=True, slots=True)
class WriteLimits:
    """Limits of a dirty file's use of the mount's memory and of the store."""

    parts: PartLimits = field(default_factory=PartLimits)
    parts_in_flight: int = 16
    """Parts of one file in flight at a time: enough for 1.4 GB/s at a cloud's 90 MB/s each."""
    parts_waiting: int = 8
    """Full parts of one file that wait in memory for their turn. More would not be sent sooner, and
    fresh memory costs page faults: with it, 512 MiB took 0.45 CPU-s instead of 0.85.
    """
    memory_part_bytes: int = 64 * 1024**2
    """Largest part held in memory; must fit the memory budget. With it a file streamed from
    memory may grow to 490 GiB before it continues on disk."""
    piece_bytes: int = 1024**2
    """Memory taken at a time for bytes that have to be copied: as long as most requests, so that
    one of a few sizes is free again soon.
    """
    rest_bytes: int = 4096
    """Memory taken for what is left of a long write. The kernel sends whole pages of a program's
    memory, which seldom begins on one: 4 MiB came as 1 MiB less 48 bytes, three times 1 MiB, and
    48 bytes.
    """
    first_buffer_bytes: int = 256 * 1024
    """Memory taken for a file's first bytes, so that many small files fit the budget at once."""
    small_bytes: int = 64 * 1024
    """A new file of up to this size waits in memory and in the journal's segments; a larger one
    gets a file of its own.
    """
    zeros_bytes: int = 64 * 1024**3
    """Most bytes of holes in a sparse file that a commit sends as zeros, for the store has no
    holes: ten minutes at 1 Gbit/s. A commit of more is refused before it sends any.
    """
    twin_bytes: int = 1024**2
    """A smaller file is sent even if the store has its bytes: a copy takes three requests."""
    memory_wait_seconds: float = 2.0
    """How long a file with nothing in flight waits for memory before it continues on disk: idle
    files may hold the whole budget, and would never release it.
    """


class Tidying:
    """Counts background requests (aborted uploads, deleted scratch objects), so that a mount that
    ends can give them a moment. Belongs to the trio thread.
    """

    def __init__(self) -> None:
        self._pending = 0
        self._lot = trio.lowlevel.ParkingLot()

    def begin(self) -> None:
        """Count one more request."""
        self._pending += 1

    def end(self) -> None:
        """A request is done, or never will be."""
        self._pending -= 1
        if not self._pending:
            self._lot.unpark_all()

    async def settled(self) -> None:
        """Wait until none is left. If cancelled, the requests go on; the journal knows of them."""
        while self._pending:
            await self._lot.park()


class SmallRoom:
    """Memory for small files that wait for the store, beside the budget. Belongs to the trio
    thread.

    The part of it that no waiting file needs has the bytes of small files that were stored: git,
    pip and compilers read back what they have just written, and each read would be a request.
    """

    def __init__(self, most_bytes: int = 16 * 1024**2) -> None:
        """Without room left, files wait on disk."""
        self._left = most_bytes
        self._short_below = most_bytes // 4
        self._stored: OrderedDict[ObjectVersion, bytes] = OrderedDict()
        """The version used last is the last one."""
        self._stored_bytes = 0

    @property
    def is_short(self) -> bool:
        """Whether waiting files should be sent soon, or else the next files wait on disk."""
        return self._left < self._short_below

    def take(self, size: int) -> bool:
        """Take ``size`` bytes if there is room, and return whether; below 0: give some back."""
        if size > self._left:
            return False
        self._left -= size
        if self._stored_bytes > self._left:
            self._make_room()
        return True

    def remember(self, version: ObjectVersion, data: bytes) -> None:
        """Keep the bytes of a stored version while there is room for them."""
        if not (version.has_etag and data):
            return
        self._forget(version)
        self._stored[version] = data
        self._stored_bytes += len(data) + _ENTRY_BYTES
        self._make_room()

    def recall(self, version: ObjectVersion) -> bytes | None:
        """The bytes of a version that was stored here, if they are still kept."""
        data = self._stored.get(version)
        if data is not None:
            self._stored.move_to_end(version)
        return data

    def copied(self, version: ObjectVersion, copy: ObjectVersion) -> None:
        """The store has copied a version, which will be gone soon: remember its bytes as the
        copy's.
        """
        data = self._stored.get(version)
        if data is not None and copy.size == len(data):
            self._forget(version)
            self.remember(copy, data)

    def _make_room(self) -> None:
        while self._stored_bytes > self._left:
            self._forget(next(iter(self._stored)))

    def _forget(self, version: ObjectVersion) -> None:
        data = self._stored.pop(version, None)
        if data is not None:
            self._stored_bytes -= len(data) + _ENTRY_BYTES


class Streams:
    """Whether files may be kept in memory only at first: not while the daemon is about to be
    replaced. Belongs to the trio thread.
    """

    may_begin = True


@dataclass(frozen=True, slots=True)
class WriteContext:
    """The parts that the write side uses. One for each mount."""

    store: ObjectStore
    network: Workers
    """Threads for store calls."""
    local: Workers
    """Threads for files on local disk."""
    memory: PartMemory
    journal: Journal
    group_sync: GroupSync
    """Syncs the journal's records that write-back relies on."""
    spill_key: Callable[[], str]
    """A new hidden key (``.ossfs-py-spill-<uuid>`` under the mount's prefix)."""
    limits: WriteLimits = field(default_factory=WriteLimits)
    room: DiskRoom = field(default_factory=DiskRoom)
    """Free space on the local disk."""
    tidying: Tidying = field(default_factory=Tidying)
    small: SmallRoom = field(default_factory=SmallRoom)
    streams: Streams = field(default_factory=Streams)
    pace: UploadPace = field(default_factory=UploadPace)
    """How many parts of a file are in flight."""
    page_room: PageRoom = field(default_factory=PageRoom)
    """Whether long writes to the local disk need a thread."""
    puts: InlineWrites | None = None
    """Small PUTs that take no thread; a loop runs beside."""

    @property
    def parts_in_flight(self) -> int:
        """Parts of one file to send at a time."""
        return self.pace.in_flight(self.limits.parts_in_flight)

    @property
    def parts_kept(self) -> int:
        """Full parts of one file in memory, those that wait for their turn included."""
        limits, sent = self.limits, self.parts_in_flight
        return sent + -(-limits.parts_waiting * sent // limits.parts_in_flight)

    @property
    def parts(self) -> PartLimits:
        """The store's limits, as far as they are known by now."""
        if not self.store.equal_parts:
            return self.limits.parts
        part_bytes = max(
            self.limits.parts.first_part, min(EQUAL_PART_BYTES, self.limits.memory_part_bytes)
        )
        return replace(self.limits.parts, equal_part=part_bytes)

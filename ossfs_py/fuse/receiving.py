"""Requests from the kernel's descriptor, and the memory that they arrive in.

Most are read into one buffer, again and again. While programs write long pieces, a WRITE is read in
two: its head, and its bytes into memory of the budget, where whoever stores them may keep them. So
they are copied once, by the kernel, and begin on a page of their own.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from typing import Final, TypeAlias

from ossfs_py.fuse import wire
from ossfs_py.fuse.wire import Opcode
from ossfs_py.runtime.arrived import Arrived, Written
from ossfs_py.runtime.buffers import Buffer

RoomToLand: TypeAlias = Callable[[int], Buffer | None]
"""Memory of so many bytes that may be kept by whoever stores them; None: there is none now."""

_ROOM_BYTES: Final = 4096
"""Bytes that libfuse adds to the longest WRITE for its headers (FUSE_BUFFER_HEADER_SIZE)."""
_HEAD_BYTES = wire.HEADER.size + wire.WRITE_IN.size
_MOST_SPARE = 4
"""Buffers kept for the next WRITEs."""


class Receiver:
    """Reads requests. Belongs to the trio thread.

    A request stays in its memory until the next one is read, those inside :meth:`held` longer.
    """

    def __init__(self, device: int, longest_write: int, room_to_land: RoomToLand) -> None:
        """``device`` is not blocking."""
        self._device = device
        # Finding no request is no exception to it, as for os.readv.
        self._requests = FileIO(device, closefd=False)
        self._room_to_land = room_to_land
        self._spare: list[memoryview] = []
        self._head = memoryview(bytearray(_HEAD_BYTES))
        self._land: Buffer | None = None
        """Where the bytes of the next WRITE arrive."""
        self._arrived: Arrived | None = None
        """The bytes of the present request, if they have arrived there."""
        self.set_longest(longest_write)

    def set_longest(self, longest_write: int) -> None:
        """The kernel sends WRITEs of at most so many bytes."""
        self.drop()
        self._longest = longest_write
        # Pages of it that are not touched take no memory.
        self._buffer = memoryview(bytearray(longest_write + _ROOM_BYTES))
        self._spare.clear()

    def receive(self) -> memoryview | None:
        """The next request; None if there is none now.

        Raises:
            OSError: the kernel has none, for other reasons.
        """
        self._arrived = None
        land = self._land
        if land is None:
            size = self._requests.readinto(self._buffer)
            return None if size is None else self._buffer[:size]
        try:
            size = os.readv(self._device, (self._head, land.view))
        except BlockingIOError:
            return None
        count = size - _HEAD_BYTES
        if self._is_long(count) and wire.HEADER.unpack_from(self._head)[1] == Opcode.WRITE:
            self._arrived = Arrived(land, count)
            return self._head
        self._buffer[:_HEAD_BYTES] = self._head
        if count > 0:
            self._buffer[_HEAD_BYTES:size] = land.view[:count]
        return self._buffer[:size]

    def written(self, request: memoryview, size: int) -> Written:
        """The ``size`` bytes of the present request, a WRITE.

        Raises:
            ValueError: it has fewer.
        """
        arrived = self._arrived
        if size > (len(request) - _HEAD_BYTES if arrived is None else len(arrived)):
            raise ValueError("a WRITE that is shorter than it says")
        if arrived is None:
            return request[_HEAD_BYTES : _HEAD_BYTES + size]
        return arrived if size == len(arrived) else arrived.view[:size]

    def stored(self, data: Written) -> None:
        """The present request's bytes are stored: nobody needs its memory."""
        if isinstance(data, Arrived) and data.left is None:
            self._land = None
        self._land_next(data)

    @contextmanager
    def held(self, data: Written) -> Iterator[None]:
        """The present request's bytes stay in their memory until the block ends."""
        arrived, self._arrived = self._arrived, None
        buffer = None
        if arrived is not None:
            self._land = None
        else:
            buffer = self._buffer
            self._buffer = self._spare.pop() if self._spare else memoryview(bytearray(len(buffer)))
        self._land_next(data)
        try:
            yield
        finally:
            if buffer is not None and len(self._spare) < _MOST_SPARE:
                self._spare.append(buffer)
            left = None if arrived is None else arrived.left
            if left is not None and self._land is None:
                self._land = left
            elif left is not None:
                left.release()

    def drop(self) -> None:
        """Give back the memory for the next WRITE: perhaps there is none."""
        land, self._land = self._land, None
        if land is not None:
            land.release()

    def _is_long(self, size: int) -> bool:
        """Whether bytes are worth memory of their own."""
        return 2 * size >= self._longest

    def _land_next(self, data: Written) -> None:
        if self._land is None and self._is_long(len(data)):
            self._land = self._room_to_land(self._longest)

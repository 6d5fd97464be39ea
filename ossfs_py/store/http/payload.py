"""The body of a request: its size, and how to send it on a connection.

A body may be sent any number of times (retries).
"""

import os
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from ossfs_py.store.http.connection import Connection

_READ_BYTES = 1024**2


class BufferPayload:
    """Bytes in memory, which must not change until the request is over."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._view = memoryview(data).cast("B") if len(data) else memoryview(b"")
        self.size = len(self._view)

    def send(self, connection: Connection) -> None:
        """Send all of it without copying it.

        Raises:
            NoAnswerError: the connection broke or stalled.
        """
        if self.size:
            connection.send(self._view)

    def chunks(self) -> Iterator[memoryview]:
        """The bytes, for checksums."""
        yield self._view


class PiecesPayload:
    """Bytes in several places of memory, which must not change until the request is over."""

    def __init__(self, views: Sequence[memoryview]) -> None:
        self._views = views
        self.size = sum(map(len, views))

    def send(self, connection: Connection) -> None:
        """Send all of them without copying them.

        Raises:
            NoAnswerError: the connection broke or stalled.
        """
        connection.send_pieces(self._views)

    def chunks(self) -> Iterator[memoryview]:
        """The bytes, for checksums."""
        yield from self._views


class FilePayload:
    """``size`` bytes at ``offset`` of a descriptor, which the caller keeps open and unchanged."""

    def __init__(self, fd: int, offset: int, size: int, crc32c: int | None = None) -> None:
        self._fd = fd
        self._offset = offset
        self.size = size
        self.crc32c = crc32c
        """The CRC-32C of the bytes, if it is known."""

    def send(self, connection: Connection) -> None:
        """Send all of it; on plain http it never leaves the kernel.

        Raises:
            NoAnswerError: the connection broke or stalled.
            OSError: the file could not be read, or is shorter than promised.
        """
        connection.send_file(self._fd, self._offset, self.size)

    def chunks(self) -> Iterator[memoryview]:
        """The bytes, for checksums; each chunk is overwritten by the next.

        Raises:
            OSError: as :meth:`send`.
        """
        buffer = memoryview(bytearray(min(_READ_BYTES, self.size)))
        done = 0
        while done < self.size:
            count = os.preadv(self._fd, [buffer[: self.size - done]], self._offset + done)
            if not count:
                raise OSError("the file to upload is shorter than its promised size")
            yield buffer[:count]
            done += count


Payload: TypeAlias = BufferPayload | PiecesPayload | FilePayload

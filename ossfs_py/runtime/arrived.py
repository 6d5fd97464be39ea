"""Bytes of a program that have arrived in memory which whoever stores them may keep."""

from typing import TypeAlias

from ossfs_py.runtime.buffers import Buffer


class Arrived:
    """The first ``size`` bytes of a buffer of the memory budget. Belongs to the trio thread.

    Its receiver uses the buffer again, unless somebody has kept it.
    """

    __slots__ = ("_buffer", "view")

    def __init__(self, buffer: Buffer, size: int) -> None:
        self._buffer: Buffer | None = buffer
        self.view = buffer.view[:size]
        """The bytes; valid until the receiver's handler is done, or as long as the buffer is
        kept.
        """

    def __len__(self) -> int:
        """Number of bytes."""
        return len(self.view)

    @property
    def is_worth_keeping(self) -> bool:
        """Whether they fill at least half of the memory that they take."""
        return self._buffer is not None and 2 * len(self.view) >= self._buffer.capacity

    @property
    def left(self) -> Buffer | None:
        """The buffer, if nobody has kept it."""
        return self._buffer

    def keep(self) -> Buffer:
        """Take the buffer over, to release it later.

        Raises:
            RuntimeError: somebody has done that before.
        """
        buffer, self._buffer = self._buffer, None
        if buffer is None:
            raise RuntimeError("the buffer was kept before")
        return buffer


Written: TypeAlias = bytes | memoryview | Arrived
"""What a program writes."""


def parted(data: Written) -> tuple[memoryview, Arrived | None]:
    """The bytes, and the memory that they have arrived in if it may be kept."""
    return (data.view, data) if isinstance(data, Arrived) else (memoryview(data), None)

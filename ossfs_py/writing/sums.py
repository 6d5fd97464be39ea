"""Checksums of the parts of a file that is written in order, while its bytes are in memory."""

from collections.abc import Callable

from ossfs_py.model import ByteRange
from ossfs_py.store.checksum import crc32c
from ossfs_py.writing.parts import PartSchedule


class PartSums:
    """CRC-32C of each part, as long as every byte is written once, behind the one before.

    Otherwise a part would be read back from disk for its checksum, which takes another copy of it.
    Any thread may use it, one at a time.
    """

    def __init__(
        self, schedule: PartSchedule, summed: Callable[[memoryview, int], int] = crc32c
    ) -> None:
        self._schedule = schedule
        self._summed = summed
        self._of_full: dict[ByteRange, int] = {}
        self._number = 1
        self._span = schedule.span(1)
        self._position = 0
        self._value = 0
        self._is_over = False

    def add(self, offset: int, data: memoryview) -> None:
        """Bytes were written."""
        if self._is_over or offset != self._position:
            self.give_up()
            return
        while data:
            count = min(len(data), self._span.end - self._position)
            self._value = self._summed(data[:count], self._value)
            self._position += count
            data = data[count:]
            if self._position == self._span.end:
                self._of_full[self._span] = self._value
                self._number += 1
                self._span = self._schedule.span(self._number)
                self._value = 0

    def give_up(self) -> None:
        """Bytes were changed, or cut off: nothing is known from now on."""
        self._is_over = True
        self._of_full.clear()

    def of(self, span: ByteRange) -> int | None:
        """The sum of a whole part, or of the last one as far as it goes; None if not known."""
        if not self._is_over and span == ByteRange(self._span.start, self._position):
            return self._value
        return self._of_full.get(span)

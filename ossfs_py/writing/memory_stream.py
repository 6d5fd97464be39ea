"""Bytes written in order, held in memory only until the store has them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import trio

from ossfs_py.runtime.copying import copy_unlocked
from ossfs_py.writing.context import PartBuffer, PartMemory, WriteLimits
from ossfs_py.writing.parts import PartSchedule
from ossfs_py.writing.upload import PartsUpload
from ossfs_py.writing.uses import Uses


class _MemoryPart:
    """One part whose bytes are in memory; ``filled`` of them are the file's."""

    __slots__ = ("buffer", "filled", "number", "start", "uses")

    def __init__(self, number: int, start: int, buffer: PartBuffer) -> None:
        self.number = number
        self.start = start
        self.buffer = buffer
        self.filled = 0
        self.uses = Uses(buffer.release)

    @property
    def capacity(self) -> int:
        return len(self.buffer.view)

    @property
    def end(self) -> int:
        return self.start + self.filled

    @property
    def content(self) -> memoryview:
        return self.buffer.view[: self.filled]


class MemoryStream:
    """The content ``[0, size)`` of a file written from its beginning.

    Full parts are sent at once; when the store has one, its memory is freed. Only the first part is
    kept, because formats that rewrite a header do it there. A byte that is neither in memory nor
    readable elsewhere is *lost* until the upload is completed; :meth:`view` returns None for it.
    All methods belong to the trio thread and to one task at a time, except :meth:`view`.
    """

    def __init__(
        self,
        memory: PartMemory,
        schedule: PartSchedule,
        limits: WriteLimits,
        new_upload: Callable[[], PartsUpload | None],
    ) -> None:
        self.size = 0
        self._upload: PartsUpload | None = None
        self._memory = memory
        self._schedule = schedule
        self._limits = limits
        self._new_upload = new_upload
        self._parts: dict[int, _MemoryPart] = {}
        self._tail: _MemoryPart | None = None

    @property
    def upload(self) -> PartsUpload | None:
        """The upload of the parts that were sent; None if none was."""
        return self._upload

    @property
    def has_lost(self) -> bool:
        """Whether some bytes are only in the unfinished upload."""
        return sum(part.filled for part in self._parts.values()) < self.size

    def view(self, start: int, end: int) -> memoryview | None:
        """Bytes from ``start``, as far as one part in memory holds them; None for lost ones."""
        part = self._part_at(start)
        if part is None or start >= part.end:
            return None
        return part.buffer.view[start - part.start : min(end, part.end) - part.start]

    @contextmanager
    def kept(self) -> Iterator[Sequence[tuple[int, memoryview]]]:
        """Everything in memory, in order: offset and bytes.

        The bytes stay in memory until the block ends, including parts that the store accepts in the
        meantime: a caller that copies them waits for a disk in between.
        """
        parts = [self._parts[number] for number in sorted(self._parts)]
        for part in parts:
            part.uses.enter()
        try:
            yield [(part.start, part.content) for part in parts]
        finally:
            for part in parts:
                part.uses.leave()
                self._free_sent(part)

    async def append(self, data: memoryview) -> int:
        """Take bytes at the end; fewer than given when there is no memory for the rest.

        Waits for memory while parts are in flight.

        Raises:
            StoreError: a part could not be sent. It is kept, and tried again from now on.
        """
        self._report_failure()
        taken = 0
        while taken < len(data):
            part = await self._part_with_room()
            if part is None:
                break
            count = min(part.capacity - part.filled, len(data) - taken)
            self._changes(part)
            room = part.buffer.view[part.filled : part.filled + count]
            copy_unlocked(room, data[taken : taken + count])
            part.filled += count
            self.size += count
            taken += count
        return taken

    def patch(self, offset: int, data: memoryview) -> bool:
        """Overwrite bytes in memory, or write a little behind the end; False if it cannot."""
        end = offset + len(data)
        part = self._part_at(offset)
        if part is None or end > part.start + (
            part.capacity if part is self._tail else part.filled
        ):
            return False
        self._changes(part)
        start = offset - part.start
        if start > part.filled:
            part.buffer.view[part.filled : start] = bytes(start - part.filled)
        part.buffer.view[start : start + len(data)] = data
        part.filled = max(part.filled, start + len(data))
        self.size = max(self.size, end)
        if part is not self._tail and part.number != 1:
            # If they were left for later, such parts would pile up in memory.
            self._submit(part)
        return True

    def shorten(self, size: int) -> bool:
        """Truncate to ``size`` (below the present one, above 0); False if that cuts lost bytes."""
        part = self._part_at(size - 1)
        if part is None:
            return False
        if self._upload is not None:
            self._upload.withdraw_from(part.number)
        for number in [number for number in self._parts if number > part.number]:
            self._parts.pop(number).uses.close()
        part.filled = size - part.start
        self._tail = part
        self.size = size
        return True

    def whole(self) -> memoryview | bytes:
        """The whole content of a stream that has not begun an upload."""
        return self._tail.content if self._tail is not None else b""

    def send_anew(self, upload: PartsUpload) -> None:
        """Drop the parts sent so far, if none is lost, and send everything with ``upload``."""
        if self._upload is not None:
            self._upload.abandon()
        self._upload = upload

    def take_upload(self) -> PartsUpload | None:
        """Hand the upload over; bytes in memory stay there."""
        upload, self._upload = self._upload, None
        return upload

    def submit_rest(self) -> int:
        """Send every part that the store does not have; returns the number of parts."""
        if self._upload is not None and self._upload.made is None:
            for number in sorted(self._parts):
                if not self._upload.has(number):
                    self._submit(self._parts[number])
        return self._schedule.number_at(self.size - 1)

    def edges(self) -> tuple[int, ...]:
        """The end of each part."""
        last = self._schedule.number_at(self.size - 1)
        return tuple(min(self._schedule.span(n).end, self.size) for n in range(1, last + 1))

    def close(self) -> None:
        """Free the memory, that of parts in flight when they have settled."""
        parts, self._parts, self._tail = self._parts, {}, None
        for part in parts.values():
            part.uses.close()

    # -- inside --------------------------------------------------------------------------------

    def _part_at(self, offset: int) -> _MemoryPart | None:
        if offset >= self._schedule.capacity:
            return None
        return self._parts.get(self._schedule.number_at(offset))

    def _changes(self, part: _MemoryPart) -> None:
        """The sent bytes of the part, if any, are not its present ones."""
        if self._upload is not None:
            self._upload.withdraw(part.number)

    def _report_failure(self) -> None:
        failure = self._upload.failure() if self._upload is not None else None
        if failure is not None:
            self._submit_failed()
            raise failure

    def _submit_failed(self) -> None:
        """Try failed parts once more."""
        if self._upload is not None:
            for number in self._upload.failed_numbers:
                if number in self._parts:
                    self._submit(self._parts[number])

    async def _part_with_room(self) -> _MemoryPart | None:
        tail = self._tail
        if tail is not None and tail.filled < tail.capacity:
            return tail
        number = self._schedule.number_at(self.size)
        if number > self._schedule.max_parts:
            return None
        span = self._schedule.span(number)
        if tail is not None and tail.number != number:
            if self._upload is None:
                self._upload = self._new_upload()
            if self._upload is None:
                return None
            self._tail = None
            self._submit(tail)
            tail = None
        await self._queue_shortened()
        wanted = span.size if tail is not None or number > 1 else self._limits.first_buffer_bytes
        buffer = await self._memory_for(min(wanted, span.size))
        if buffer is None:
            return None
        part = _MemoryPart(number, span.start, buffer)
        if tail is not None:
            buffer.view[: tail.filled] = tail.content
            part.filled = tail.filled
            self._changes(tail)
            tail.uses.close()
        self._parts[number] = self._tail = part
        return part

    async def _queue_shortened(self) -> None:
        """Block the writer while enough full parts wait, so that their memory can be reused."""
        most = self._limits.parts_in_flight + self._limits.parts_waiting
        while self._upload is not None and self._upload.busy and len(self._parts) > most:
            await self._upload.changed()

    async def _memory_for(self, size: int) -> PartBuffer | None:
        while True:
            # Own parts in flight will free memory, though perhaps for another file first.
            hopeful = self._upload is not None and self._upload.busy
            with trio.move_on_after(self._limits.memory_wait_seconds):
                return await self._memory.acquire(size)
            if not (self._release_first() or hopeful):
                return None

    def _release_first(self) -> bool:
        """Free the memory of the first part if the store has its bytes."""
        part = self._parts.get(1)
        if part is None or part is self._tail or part.uses.busy:
            return False
        if self._upload is None or not self._upload.accepted(1):
            return False
        del self._parts[1]
        part.uses.close()
        return True

    def _submit(self, part: _MemoryPart) -> None:
        upload = self._upload
        if upload is None:
            raise RuntimeError("no upload to send parts to")

        def settled() -> None:
            part.uses.leave()
            if self._upload is upload:
                self._free_sent(part)

        part.uses.enter()
        upload.submit(part.number, part.content, settled)

    def _free_sent(self, part: _MemoryPart) -> None:
        """Free the memory of a part that the store has, unless it must be kept."""
        if part.number == 1 or part is self._tail or part.uses.busy or part.uses.closed:
            return
        if self._upload is not None and self._upload.accepted(part.number):
            self._parts.pop(part.number, None)
            part.uses.close()

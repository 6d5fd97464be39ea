"""Bytes written in order, held in memory only until the store has them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import trio

from ossfs_py.model import Body, ByteRange, Pieces
from ossfs_py.runtime.arrived import Arrived
from ossfs_py.runtime.copying import copy_unlocked
from ossfs_py.writing.context import PartBuffer, WriteContext
from ossfs_py.writing.parts import PartSchedule
from ossfs_py.writing.upload import PartsUpload
from ossfs_py.writing.uses import Uses


class _Piece:
    """Bytes from ``start`` of the file on: the first ``filled`` ones of a buffer."""

    __slots__ = ("buffer", "filled", "start")

    def __init__(self, start: int, buffer: PartBuffer, filled: int = 0) -> None:
        self.start = start
        self.buffer = buffer
        self.filled = filled

    @property
    def end(self) -> int:
        return self.start + self.filled

    @property
    def room(self) -> int:
        return len(self.buffer.view) - self.filled

    @property
    def content(self) -> memoryview:
        return self.buffer.view[: self.filled]


class _MemoryPart:
    """One part whose bytes are in memory, in pieces without gaps."""

    __slots__ = ("_cut_off", "number", "pieces", "span", "uses")

    def __init__(self, number: int, span: ByteRange) -> None:
        self.number = number
        self.span = span
        self.pieces: list[_Piece] = []
        self._cut_off: list[PartBuffer] = []
        """Not part of the file any more, but perhaps still sent."""
        self.uses = Uses(self._release)

    @property
    def start(self) -> int:
        return self.span.start

    @property
    def end(self) -> int:
        return self.pieces[-1].end if self.pieces else self.start

    @property
    def filled(self) -> int:
        return self.end - self.start

    @property
    def room(self) -> int:
        """Bytes that are missing until the part is full."""
        return self.span.end - self.end

    def ends_longer(self, rest_bytes: int) -> bool:
        """Whether there is a last piece of more bytes, and it is full."""
        last = self.pieces[-1] if self.pieces else None
        return last is not None and not last.room and last.filled > rest_bytes

    @property
    def body(self) -> Body:
        views = tuple(piece.content for piece in self.pieces)
        return views[0] if len(views) == 1 else Pieces(views)

    def adopts(self, arrived: Arrived, rest_bytes: int) -> bool:
        """Keep bytes that follow, if little memory is wasted by that; whether they were kept."""
        last = self.pieces[-1] if self.pieces else None
        if (
            len(arrived) > self.room
            or not arrived.is_worth_keeping
            or (last is not None and last.room > max(last.filled, rest_bytes))
        ):
            return False
        size = len(arrived)
        self.pieces.append(_Piece(self.end, arrived.keep(), size))
        return True

    def fill(self, data: memoryview) -> int:
        """Copy as many of the bytes that follow as the last piece has room for; their number."""
        last = self.pieces[-1] if self.pieces else None
        if last is None:
            return 0
        count = min(last.room, self.room, len(data))
        if count:
            copy_unlocked(last.buffer.view[last.filled : last.filled + count], data[:count])
            last.filled += count
        return count

    def view(self, start: int, end: int) -> memoryview | None:
        """Bytes from ``start``, as far as one piece holds them."""
        for piece in reversed(self.pieces):
            if piece.start <= start:
                return piece.content[start - piece.start : end - piece.start]
        return None

    def overwrite(self, offset: int, data: memoryview) -> None:
        """Replace bytes; all of them are here."""
        end = offset + len(data)
        for piece in self.pieces:
            first, last = max(offset, piece.start), min(end, piece.end)
            if first < last:
                room = piece.buffer.view[first - piece.start : last - piece.start]
                room[:] = data[first - offset : last - offset]

    def cut(self, end: int) -> None:
        """Give up the bytes from ``end`` on; at least one stays."""
        while self.pieces[-1].start >= end:
            buffer = self.pieces.pop().buffer
            if self.uses.busy:
                self._cut_off.append(buffer)
            else:
                buffer.release()
        self.pieces[-1].filled = end - self.pieces[-1].start

    def _release(self) -> None:
        for buffer in (*self._cut_off, *(piece.buffer for piece in self.pieces)):
            buffer.release()


class MemoryStream:
    """The content ``[0, size)`` of a file written from its beginning.

    Full parts are sent at once; when the store has one, its memory is freed. Only the first part is
    kept, because formats that rewrite a header do it there. A byte that is neither in memory nor
    readable elsewhere is *lost* until the upload is completed; :meth:`view` returns None for it.
    All methods belong to the trio thread and to one task at a time, except :meth:`view`.
    """

    def __init__(
        self,
        context: WriteContext,
        schedule: PartSchedule,
        new_upload: Callable[[], PartsUpload | None],
    ) -> None:
        self.size = 0
        self._upload: PartsUpload | None = None
        self._context = context
        self._memory = context.memory
        self._schedule = schedule
        self._limits = context.limits
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
        return part.view(start, end) if part is not None and start < part.end else None

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
            yield [(piece.start, piece.content) for part in parts for piece in part.pieces]
        finally:
            for part in parts:
                part.uses.leave()
                self._free_sent(part)

    async def append(self, data: memoryview, arrived: Arrived | None = None) -> int:
        """Take bytes at the end; fewer than given when there is no memory for the rest.

        Waits for memory while parts are in flight. ``arrived``: where ``data`` has arrived, to be
        kept instead of copied.

        Raises:
            StoreError: a part could not be sent. It is kept, and tried again from now on.
        """
        self._report_failure()
        taken = 0
        while taken < len(data):
            part = await self._part_with_room()
            if part is None:
                break
            whole = arrived if not taken else None
            count = self._put(part, data[taken:], whole)
            if not count:
                buffer = await self._memory_for(self._piece_bytes(part, len(data) - taken))
                if buffer is None:
                    break
                part.pieces.append(_Piece(part.end, buffer))
                count = self._put(part, data[taken:], None)
            taken += count
        return taken

    def append_nowait(self, data: memoryview, arrived: Arrived | None = None) -> bool:
        """As :meth:`append`, all or nothing, if that needs little memory; whether it was done."""
        tail = self._tail
        if tail is None or (self._upload is not None and self._upload.failure() is not None):
            return False
        if len(data) > tail.room:
            return False
        if arrived is not None and tail.adopts(arrived, self._limits.rest_bytes):
            self._grew(tail, len(data))
            return True
        if len(data) > tail.pieces[-1].room:
            size = self._piece_bytes(tail, len(data))
            is_little = len(data) <= size <= self._limits.rest_bytes
            rest = self._memory.try_acquire(size) if is_little else None
            if rest is None:
                return False
            tail.pieces.append(_Piece(tail.end, rest))
        self._grew(tail, tail.fill(data))
        return True

    def _piece_bytes(self, part: _MemoryPart, size: int) -> int:
        """How much memory to take for ``size`` bytes that have to be copied behind a part's."""
        limits = self._limits
        if part.number == 1 and not part.pieces:
            wanted = limits.first_buffer_bytes
        elif size < limits.rest_bytes and part.ends_longer(limits.rest_bytes):
            wanted = limits.rest_bytes
        else:
            wanted = limits.piece_bytes
        return min(wanted, part.room)

    def _put(self, part: _MemoryPart, data: memoryview, arrived: Arrived | None) -> int:
        """Take bytes at the end, as far as there is memory for them; their number."""
        is_kept = arrived is not None and part.adopts(arrived, self._limits.rest_bytes)
        count = len(data) if is_kept else part.fill(data)
        if count:
            self._grew(part, count)
        return count

    def _grew(self, part: _MemoryPart, count: int) -> None:
        self._changes(part)
        self._parts[part.number] = self._tail = part
        self.size += count

    def patch(self, offset: int, data: memoryview) -> bool:
        """Overwrite bytes that are in memory; False if not all of them are, or in several parts."""
        part = self._part_at(offset)
        if part is None or offset + len(data) > part.end:
            return False
        self._changes(part)
        part.overwrite(offset, data)
        if part is not self._tail and part.number != 1:
            # If they were left for later, such parts would pile up in memory.
            self._submit(part)
        return True

    def is_near(self, end: int) -> bool:
        """Whether a place behind the end is in the last part, and memory for much of it is used."""
        tail = self._tail
        return (
            tail is not None
            and end <= tail.span.end
            and (tail.number > 1 or tail.filled > self._limits.first_buffer_bytes)
        )

    def shorten(self, size: int) -> bool:
        """Truncate to ``size`` (below the present one, above 0); False if that cuts lost bytes."""
        part = self._part_at(size - 1)
        if part is None:
            return False
        if self._upload is not None:
            self._upload.withdraw_from(part.number)
        for number in [number for number in self._parts if number > part.number]:
            self._parts.pop(number).uses.close()
        part.cut(size)
        self._tail = part
        self.size = size
        return True

    def whole(self) -> Body:
        """The whole content of a stream that has not begun an upload."""
        return self._tail.body if self._tail is not None else b""

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
        """The last part, or the next one, which has no bytes yet; None if it may not begin."""
        tail = self._tail
        if tail is not None and tail.room:
            return tail
        number = self._schedule.number_at(self.size)
        if number > self._schedule.max_parts:
            return None
        if tail is not None:
            if self._upload is None:
                self._upload = self._new_upload()
            if self._upload is None:
                return None
            self._tail = None
            self._submit(tail)
        await self._queue_shortened()
        return _MemoryPart(number, self._schedule.span(number))

    async def _queue_shortened(self) -> None:
        """Block the writer while enough full parts wait, so that their memory can be reused."""
        while (
            self._upload is not None
            and self._upload.busy
            and len(self._parts) > self._context.parts_kept
        ):
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
        upload.submit(part.number, part.body, settled)

    def _free_sent(self, part: _MemoryPart) -> None:
        """Free the memory of a part that the store has, unless it must be kept."""
        if part.number == 1 or part is self._tail or part.uses.busy or part.uses.closed:
            return
        if self._upload is not None and self._upload.accepted(part.number):
            self._parts.pop(part.number, None)
            part.uses.close()

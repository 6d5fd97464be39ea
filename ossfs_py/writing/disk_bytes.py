"""The bytes of a changed file: a staging file over an object."""

from collections.abc import Awaitable, Callable, Iterable

from ossfs_py.errors import IntegrityError
from ossfs_py.extents import ExtentSet
from ossfs_py.model import ByteRange, FileSlice
from ossfs_py.writing.content import Base, ReadBase
from ossfs_py.writing.staging import Staging
from ossfs_py.writing.sums import PartSums

_FILL_BYTES = 8 * 1024**2
"""Clean bytes are fetched into the staging file in steps of this: one block of most readers."""


class DiskBytes:
    """Bytes of ``[0, size)``: staged ones are local, others below ``base_valid`` are in the base,
    and the rest are zeros.

    ``new_staging`` makes the staging file, of the present size, when the first byte has to be kept
    locally. Changes come from one task at a time; :meth:`piece` from any. All methods belong to the
    trio thread.
    """

    def __init__(
        self,
        base: Base | None,
        read_base: ReadBase,
        new_staging: Callable[[], Awaitable[Staging]],
        sums: PartSums | None = None,
    ) -> None:
        self.size = base.version.size if base is not None else 0
        self.base = base
        self.base_valid = self.size
        self.staging: Staging | None = None
        self.staged = ExtentSet()
        """The bytes in the staging file, including clean ones that were fetched."""
        self.dirty = ExtentSet()
        """The bytes written since the base was made."""
        self.sums = sums
        """Those of parts, if the store wants such sums and all bytes are new."""
        self._read_base = read_base
        self._new_staging: Callable[[], Awaitable[Staging]] | None = new_staging

    @property
    def hole_bytes(self) -> int:
        """Bytes that were never written, and that no object has: they read as zeros."""
        return sum(gap.size for gap in self.staged.gaps(self.base_valid, self.size))

    async def piece(self, position: int, end: int) -> bytes | memoryview:
        """Bytes from ``position``, at most up to ``end`` (within the file); empty if the file was
        truncated in the meantime.
        """
        staging = self.staging
        staged, until = self.staged.run_at(position, end)
        if staged and staging is not None:
            return await staging.read(position, until - position)
        if position >= self.base_valid:
            return bytes(until - position)
        return await self._clean(position, min(until, self.base_valid) - position)

    async def write(self, offset: int, data: memoryview) -> OSError | None:
        """Take ``data``; bytes that went in count even if the disk is full before their end."""
        staging = await self.need_staging()
        done, error = await staging.write(offset, data, sums=self.sums)
        end = offset + done
        self.staged.add(offset, end)
        self.dirty.add(offset, end)
        self.size = max(self.size, end)
        return error

    def write_nowait(self, offset: int, data: memoryview) -> bool:
        """As :meth:`write`, on this thread; False: the disk did not take all of ``data``."""
        if self.staging is None or not self.staging.write_promptly(offset, data, self.sums):
            return False
        end = offset + len(data)
        self.staged.add(offset, end)
        self.dirty.add(offset, end)
        self.size = max(self.size, end)
        return True

    async def truncate(self, size: int) -> None:
        """Truncate or extend with zeros.

        Raises:
            OSError: nothing has changed.
        """
        staging = await self.need_staging()
        if self.sums is not None:
            self.sums.give_up()
        await staging.truncate(size)
        self.staged.truncate(size)
        self.dirty.truncate(size)
        self.base_valid = min(self.base_valid, size)
        self.size = size

    async def fill(self, spans: Iterable[ByteRange]) -> None:
        """Fetch clean bytes into the staging file. If cancelled, bytes that arrived stay.

        Raises:
            StoreError: they could not be read.
            OSError: the disk is full.
        """
        staging = await self.need_staging()
        for span in spans:
            for gap in list(self.staged.gaps(span.start, span.end)):
                position = gap.start
                while position < gap.end:
                    wanted = min(_FILL_BYTES, gap.end - position)
                    data = bytes(await self._clean(position, wanted))
                    if not data:
                        raise IntegrityError("the object ended early", operation="GetObject")
                    done, error = await staging.write(position, data, dirty=False)
                    self.staged.add(position, position + done)
                    if error is not None:
                        raise error
                    position += done

    async def need_staging(self) -> Staging:
        """The staging file, of this content's size."""
        if self.staging is None:
            if self._new_staging is None:
                raise RuntimeError("a change of bytes that were given up")
            self.staging = await self._new_staging()
        return self.staging

    def give_up(self) -> Staging | None:
        """No byte changes any more. The staging file, if there was one, is the caller's now."""
        # What makes staging files refers to this: a circle would wait for Python's collector.
        self._new_staging = None
        staging, self.staging = self.staging, None
        return staging

    def hold(self, span: ByteRange) -> tuple[FileSlice, Callable[[], None]]:
        """A span of the staging file to send, and the function to call after that."""
        if self.staging is None:
            raise RuntimeError("no staging file to send from")
        self.staging.uses.enter()
        known = None if self.sums is None else self.sums.of(span)
        return self.staging.body(span, known), self.staging.uses.leave

    def made(self, base: Base) -> None:
        """All bytes are in ``base`` now; staged bytes stay readable here."""
        self.dirty.clear()
        self.base = base
        self.size = self.base_valid = base.version.size

    async def _clean(self, position: int, size: int) -> bytes | memoryview:
        if self.base is None:
            raise RuntimeError("a valid range of no base")
        return await self._read_base(self.base.version, position, size)

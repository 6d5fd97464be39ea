"""The content of a file written in order, streaming from memory into a multipart upload."""

from collections.abc import Callable

from ossfs_py.errors import IntegrityError, UnsavedDataError
from ossfs_py.extents import ExtentSet
from ossfs_py.model import CommitRequest, Condition, ObjectVersion
from ossfs_py.writing.context import WriteContext
from ossfs_py.writing.memory_stream import MemoryStream
from ossfs_py.writing.parts import PartSchedule
from ossfs_py.writing.records import DirtyRecord, SentParts
from ossfs_py.writing.staged import put_object, with_metadata
from ossfs_py.writing.staging import Staging
from ossfs_py.writing.upload import PartsUpload

_ZEROS_BYTES = 1024**2
"""A gap up to this is written as zeros into the stream; a longer one becomes a hole on disk."""


class StreamedContent:
    """Bytes of ``[0, size)`` in memory or already sent, and nowhere else.

    ``target`` says under which key the upload is to begin, or None when none may; ``hidden``
    whether that is a key of our own that nobody sees. One task at a time, except :meth:`view`.
    """

    def __init__(
        self, context: WriteContext, target: Callable[[], tuple[CommitRequest, bool] | None]
    ) -> None:
        limits = context.limits
        self.schedule = PartSchedule(limits.parts, limits.memory_part_bytes)
        self._context = context
        self._target = target
        self._hidden = False
        self._stream = MemoryStream(context.memory, self.schedule, limits, self._begin)

    @property
    def size(self) -> int:
        """Present size in bytes."""
        return self._stream.size

    @property
    def begun(self) -> bool:
        """Whether parts have left."""
        return self._stream.upload is not None

    @property
    def has_lost(self) -> bool:
        """Whether some bytes are in the unfinished upload only."""
        return self._stream.has_lost

    @property
    def bound(self) -> bool:
        """Whether those can be completed under the file's own key only."""
        return self.has_lost and not self._hidden

    def view(self, position: int, end: int) -> memoryview | None:
        """Bytes from ``position``, as far as they are in one piece of memory; None if sent."""
        return self._stream.view(position, end)

    def pieces(self) -> list[tuple[int, memoryview]]:
        """Offsets and bytes of everything in memory."""
        return list(self._stream.pieces())

    async def write(self, offset: int, data: memoryview) -> int:
        """Take ``data``; returns how much of it fits a stream, the rest has to go elsewhere.

        Raises:
            StoreError: a part that left earlier could not be sent; nothing was taken.
        """
        stream = self._stream
        gap = offset - stream.size
        if gap < 0 or gap > _ZEROS_BYTES:
            return len(data) if stream.patch(offset, data) else 0
        if gap and await stream.append(memoryview(bytes(gap))) < gap:
            return 0
        return await stream.append(data)

    async def truncate(self, size: int) -> bool:
        """Cut off or extend; False if a stream cannot. ``size`` is above 0."""
        stream = self._stream
        gap = size - stream.size
        if gap < 0:
            return stream.shorten(size)
        return gap <= _ZEROS_BYTES and await stream.append(memoryview(bytes(gap))) == gap

    async def commit(self, request: CommitRequest, condition: Condition) -> ObjectVersion | None:
        """Make the object; None if that cannot be done from here: :meth:`recall` then.

        Raises:
            UnsavedDataError: the store dropped the upload, and with it bytes sent before.
            StoreError: call again; what the store has accepted counts.
        """
        stream = self._stream
        upload = stream.upload
        if upload is None:
            return await put_object(self._context, request, stream.whole(), condition)
        if upload.request.key != request.key or upload.gone:
            if stream.has_lost:
                if upload.gone:
                    raise _dropped(request.key)
                return None
            upload.abandon()
            upload = stream.upload = PartsUpload(self._context, request)
            self._hidden = False
        version = await self._complete(upload, condition)
        return await with_metadata(self._context, version, upload.request, request)

    async def recall(self, expected_key: str | None) -> tuple[ObjectVersion, bool]:
        """Complete the upload now; the version made of it, and whether it is a hidden object.

        ``expected_key`` is where the file belongs now, None for an unlinked file.

        Raises:
            UnsavedDataError: the bytes cannot be had without showing an unlinked file again, or
                the store dropped the upload.
        """
        upload = self._stream.upload
        if upload is None:
            raise RuntimeError("nothing was sent")
        if upload.gone:
            raise _dropped(upload.request.key)
        condition, hidden = upload.request.condition, self._hidden
        if not hidden and expected_key is None:
            raise UnsavedDataError("the file was unlinked while its bytes streamed away")
        if not hidden and expected_key != upload.request.key:
            # Renamed meanwhile: the old name may hold somebody else's object by now.
            condition, hidden = Condition(only_if_absent=True), True
        version = await self._complete(upload, condition)
        if version.size != self.size:
            raise IntegrityError("the object has another size than the file", key=version.key)
        return version, hidden

    def leave(self, request: CommitRequest | None, schedule: PartSchedule) -> PartsUpload | None:
        """Give the upload to a successor that has all bytes, if it can go on with it."""
        upload, self._stream.upload = self._stream.upload, None
        if upload is None:
            return None
        fits = schedule.agrees(self.schedule, self.size)
        if request is not None and upload.request.key == request.key and fits:
            return upload
        upload.abandon()
        return None

    def stop_sending(self) -> None:
        """Nobody wants the object any more. Bytes already lost stay in the upload until close."""
        upload = self._stream.upload
        if upload is not None and not self._stream.has_lost:
            upload.abandon()
            self._stream.upload = None

    def write_down(self, staging: Staging, record: DirtyRecord) -> DirtyRecord:
        """Put what is in memory into a file, at once; the record says where the rest is.

        Raises:
            OSError: the disk is full, among others.
        """
        stream = self._stream
        held = ExtentSet()
        for start, view in stream.pieces():
            staging.write_now(start, view)
            held.add(start, start + len(view))
        record = record.replaced(base=None, base_valid=0, size=stream.size, dirty=held)
        begun = stream.upload.snapshot() if stream.upload is not None else None
        if begun is None or not stream.has_lost:
            return record
        upload, parts = begun
        return record.replaced(sent=SentParts(upload, tuple(parts), stream.edges()))

    def keep_upload(self) -> None:
        """A record leads to the upload now."""
        if self._stream.upload is not None:
            self._stream.upload.keep()

    def close(self) -> None:
        """Free the memory and give the upload up, unless it is complete or kept."""
        if self._stream.upload is not None:
            self._stream.upload.abandon()
        self._stream.close()

    def _begin(self) -> PartsUpload | None:
        target = self._target()
        if target is None:
            return None
        request, self._hidden = target
        return PartsUpload(self._context, request, scratch=self._hidden)

    async def _complete(self, upload: PartsUpload, condition: Condition) -> ObjectVersion:
        count = self._stream.submit_rest()
        await upload.settled()
        return await upload.complete(count, condition)


def _dropped(key: str) -> UnsavedDataError:
    return UnsavedDataError(f"the store dropped the upload of {key!r} and the bytes sent with it")

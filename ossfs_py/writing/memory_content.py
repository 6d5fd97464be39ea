"""The content of a file written in order, streaming from memory into a multipart upload."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ossfs_py.errors import IntegrityError, UnsavedDataError
from ossfs_py.extents import ExtentSet
from ossfs_py.model import CommitRequest, Condition, ObjectVersion
from ossfs_py.runtime.arrived import Arrived
from ossfs_py.writing.content import Base, LentFile, Target
from ossfs_py.writing.context import WriteContext
from ossfs_py.writing.disk_content import DiskContent, NewDiskContent
from ossfs_py.writing.memory_stream import MemoryStream
from ossfs_py.writing.parts import PartSchedule
from ossfs_py.writing.records import DirtyRecord, SentParts
from ossfs_py.writing.requests import put_object, with_metadata
from ossfs_py.writing.staging import Staging
from ossfs_py.writing.upload import PartsUpload

_ZEROS_BYTES = 1024**2
"""A gap up to this is written as zeros into the stream; a longer one becomes a hole on disk."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How a content in memory may store its bytes."""

    schedule: PartSchedule
    """The cut of the file into parts, each small enough for memory."""
    disk_schedule: PartSchedule
    """The cut of the file if it continues on disk."""
    target: Target
    new_upload: Callable[[], PartsUpload | None]
    """Returns the upload for its parts; None while none may be sent."""
    new_disk: NewDiskContent
    writer: Callable[[], int]
    """Returns the user whose bytes are being written."""


class MemoryContent:
    """Implements :class:`Content`: bytes in memory or already sent, and nowhere else.

    ``is_new`` is False for a file that is in the store as an empty object.
    """

    def __init__(self, context: WriteContext, plan: MemoryPlan, *, is_new: bool = True) -> None:
        self._context = context
        self._plan = plan
        self._is_new = is_new
        self._stream = MemoryStream(context, plan.schedule, plan.new_upload)

    @property
    def size(self) -> int:
        """Present size in bytes."""
        return self._stream.size

    @property
    def changed(self) -> bool:
        """Whether the store has other bytes, or none, under the file's key."""
        return self._is_new or self._stream.size > 0

    @property
    def base(self) -> Base | None:
        """None: none of its bytes are in an object."""
        return None

    @property
    def made(self) -> ObjectVersion | None:
        """The object that a commit made under the file's key although it failed afterwards."""
        upload = self._stream.upload
        return None if upload is None or upload.hidden else upload.made

    @property
    def bound(self) -> bool:
        """Whether parts were sent, or are being sent, for the file's own key."""
        upload = self._stream.upload
        return upload is not None and not upload.hidden

    @property
    def lost(self) -> bool:
        """Whether some bytes are only in an unfinished upload to the file's own key."""
        return self.bound and self._stream.has_lost

    @property
    def streaming(self) -> bool:
        """Whether parts were sent."""
        return self._stream.upload is not None

    @property
    def all_here(self) -> bool:
        """Whether no part was sent."""
        return not self.streaming

    # -- reading -------------------------------------------------------------------------------

    def view(self, position: int, end: int) -> memoryview | None:
        """Bytes from ``position``, as far as they are in one piece of memory; None if sent."""
        return self._stream.view(position, end)

    async def piece(self, position: int, end: int) -> bytes | memoryview | None:
        """As :meth:`view`: bytes that are not in memory cannot be read from here."""
        return self._stream.view(position, end)

    # -- changing ------------------------------------------------------------------------------

    async def write(self, offset: int, data: memoryview, arrived: Arrived | None = None) -> int:
        """Take ``data``; returns the number of bytes that fit a stream.

        Raises:
            StoreError: a part could not be sent earlier; nothing was taken.
        """
        stream = self._stream
        if self._is_over or self._must_leave:
            return 0
        gap = offset - stream.size
        if gap < 0:
            inside = min(-gap, len(data))
            if not stream.patch(offset, data[:inside]):
                return 0
            return inside + await stream.append(data[inside:])
        if gap > _ZEROS_BYTES and not stream.is_near(offset + len(data)):
            return 0
        if gap and await stream.append(memoryview(bytes(gap))) < gap:
            return 0
        return await stream.append(data, arrived)

    def write_nowait(self, offset: int, data: memoryview, arrived: Arrived | None = None) -> bool:
        """Take ``data`` at the end, if there is memory for it; see the protocol."""
        stream = self._stream
        return (
            offset == stream.size
            and not self._is_over
            and not self._must_leave
            and stream.append_nowait(data, arrived)
        )

    async def truncate(self, size: int) -> bool:
        """Truncate or extend; False if a stream cannot. ``size`` is above 0.

        Raises:
            StoreError: as :meth:`write`.
        """
        stream = self._stream
        if self._is_over or self._must_leave:
            return False
        gap = size - stream.size
        if gap < 0:
            return stream.shorten(size)
        return gap <= _ZEROS_BYTES and await stream.append(memoryview(bytes(gap))) == gap

    # -- continuing on disk --------------------------------------------------------------------

    async def on_disk(self) -> DiskContent:
        """The same bytes in a content that accepts any change; close this one then.

        Bytes that were sent are made readable again by completing the upload: its object is the
        base. If this is cancelled or fails, this content is unchanged.

        Raises:
            OSError: the disk is full.
            UnsavedDataError: the bytes cannot be read without showing an unlinked file again, or
                the store dropped the upload.
            StoreError: the upload could not be completed; call again.
        """
        if self._stream.has_lost or self._is_over:
            return self._plan.new_disk(await self._recall(), changed=True)
        content = self._plan.new_disk(None, changed=True)
        try:
            with self._stream.kept() as pieces:
                await content.take_over(pieces, self._stream.size)
        except BaseException:
            content.disown()
            content.close()
            raise
        upload = self._leave_upload()
        if upload is not None:
            content.continue_upload(upload)
        return content

    @property
    def _is_over(self) -> bool:
        """Whether the upload is complete, so that no part can be sent again."""
        upload = self._stream.upload
        return upload is not None and upload.made is not None

    @property
    def _must_leave(self) -> bool:
        """Whether it has to continue on disk, and can without a partial object under its key."""
        return not self._context.streams.may_begin and not self.lost

    async def _recall(self) -> Base:
        upload = self._stream.upload
        if upload is None:
            raise RuntimeError("nothing was sent")
        if upload.gone:
            raise _dropped(upload.request.key)
        count = self._stream.submit_rest()
        await upload.settled()
        request = self._plan.target()  # the file may have lost its name in the meantime
        condition, hidden = upload.request.condition, upload.hidden
        if not hidden and request is None:
            raise UnsavedDataError("the file was unlinked while its bytes streamed away")
        if not hidden and request is not None and request.key != upload.request.key:
            # It was renamed in the meantime: another program may have stored an object under the
            # old name.
            condition, hidden = Condition(only_if_absent=True), True
        version = await upload.complete(count, condition)
        if version.size != self.size:
            raise IntegrityError("the object has another size than the file", key=version.key)
        return Base(version, hidden)

    def _leave_upload(self) -> PartsUpload | None:
        """The upload, if a content on disk that has all bytes can continue it."""
        upload = self._stream.take_upload()
        if upload is None:
            return None
        request = self._plan.target()
        fits = self._plan.disk_schedule.agrees(self._plan.schedule, self.size)
        if request is not None and upload.request.key == request.key and fits:
            return upload
        upload.abandon()
        return None

    # -- storing -------------------------------------------------------------------------------

    async def secure(self, request: CommitRequest) -> bool:  # noqa: ARG002 - the protocol's
        """False: memory survives nothing."""
        return False

    async def redescribe(self, request: CommitRequest) -> None:
        """Nothing is kept from here."""

    async def commit(self, request: CommitRequest, condition: Condition) -> ObjectVersion | None:
        """Make the object; None if bytes were sent for another key: then call :meth:`on_disk`.

        Raises:
            UnsavedDataError: the store dropped the upload with bytes sent before.
            StoreError: call again; parts that the store has accepted count.
        """
        upload = self._stream.upload
        if upload is None:
            return await put_object(self._context, request, self._stream.whole(), condition)
        if upload.request.key != request.key or upload.gone:
            if self._stream.has_lost:
                if upload.gone:
                    raise _dropped(request.key)
                return None
            upload = PartsUpload(self._context, request)
            self._stream.send_anew(upload)
        count = self._stream.submit_rest()
        await upload.settled()
        version = await upload.complete(count, condition)
        return await with_metadata(self._context, version, upload.request, request)

    def committed(self, version: ObjectVersion) -> "MemoryContent | DiskContent":
        """The object is now ``version``, and its bytes are read from there. A small file's bytes
        are remembered while nobody needs their room, as programs read back what they have written.
        """
        if self.all_here and version.size <= self._context.limits.small_bytes:
            with self._stream.kept() as pieces:
                self._context.small.remember(version, b"".join(view for _, view in pieces))
        self.close()
        if version.size:
            return self._plan.new_disk(Base(version), changed=False)
        return MemoryContent(self._context, self._plan, is_new=False)

    def rebase(self, version: ObjectVersion) -> None:
        """Does nothing: no byte here is read from an object."""

    def lend(self) -> LentFile | None:
        """None: no byte is in a file."""
        return None

    # -- giving up -------------------------------------------------------------------------------

    def disown(self) -> None:
        """The object is not needed any more. Bytes already lost stay in the upload until close."""
        if not self._stream.has_lost:
            upload = self._stream.take_upload()
            if upload is not None:
                upload.abandon()

    def set_aside(self, request: CommitRequest, seen: ObjectVersion | None) -> Path:
        """Write the bytes in memory to a file; the record says where the rest is."""
        journal, upload = self._context.journal, self._stream.upload
        staging = Staging(
            journal,
            self._context.local,
            journal.create_staging(),
            self._context.room,
            self._plan.writer,
        )
        try:
            held = self._written_down(staging)
            record = DirtyRecord.of(staging.ident, request).replaced(
                base=seen, size=self.size, dirty=held
            )
            begun = upload.snapshot() if upload is not None else None
            if begun is not None and self._stream.has_lost:
                sent = SentParts(begun[0], tuple(begun[1]), self._stream.edges())
                record = record.replaced(sent=sent)
            path = staging.set_aside(record)
        finally:
            staging.close()
        if upload is not None and record.sent is not None:
            upload.keep()
            journal.forget_upload(record.sent.upload)
        return path

    def _written_down(self, staging: Staging) -> ExtentSet:
        held = ExtentSet()
        with self._stream.kept() as pieces:
            for start, view in pieces:
                staging.write_now(start, view)
                held.add(start, start + len(view))
        return held

    def close(self) -> None:
        """Free the memory and give up the upload, unless it is complete or kept."""
        if self._stream.upload is not None:
            self._stream.upload.abandon()
        self._stream.close()


def _dropped(key: str) -> UnsavedDataError:
    return UnsavedDataError(f"the store dropped the upload of {key!r} and the bytes sent with it")

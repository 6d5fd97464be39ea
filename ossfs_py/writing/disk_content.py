"""The content of a dirty file whose new bytes are in a staging file, over an optional base."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

from ossfs_py.errors import FileTooLargeError
from ossfs_py.model import ByteRange, CommitRequest, Condition, ObjectVersion
from ossfs_py.runtime.arrived import Arrived
from ossfs_py.writing.builder import ObjectBuilder
from ossfs_py.writing.comparing import same_bytes
from ossfs_py.writing.content import Base, LentFile, ReadBase, Target
from ossfs_py.writing.context import WriteContext
from ossfs_py.writing.disk_bytes import DiskBytes
from ossfs_py.writing.local_content import LocalContent
from ossfs_py.writing.parts import PartSchedule
from ossfs_py.writing.records import DirtyRecord
from ossfs_py.writing.staging import Staging
from ossfs_py.writing.sums import PartSums
from ossfs_py.writing.upload import PartsUpload

_PROMPT_BYTES = 16 * 1024
"""So many bytes are written to the page cache in less time than a thread takes to begin. More take
as long as their way from the kernel did, unless the kernel lets the writer wait.
"""


class NewDiskContent(Protocol):
    """Makes the content that continues after memory."""

    def __call__(self, base: Base | None, *, changed: bool, ident: str = "") -> "DiskContent":
        """Make a content with the bytes of ``base``. ``changed`` is the initial value of its
        property. ``ident`` is the id of a small file that continues there.
        """
        ...


class DiskCommitter(Protocol):
    """The part of :class:`~ossfs_py.writing.content.Committer` that a content on disk needs."""

    @property
    def owner(self) -> str:
        """See there."""
        ...

    def largest_twin(self) -> int:
        """See there."""
        ...


class DiskContent(LocalContent):
    """Implements :class:`Content`; accepts any change.

    The journal knows of the staging file from its first byte on, so that it is found after a crash,
    unless ``target`` says that nobody will commit the file.
    """

    def __init__(
        self,
        context: WriteContext,
        schedule: PartSchedule,
        base: Base | None,
        read_base: ReadBase,
        target: Target,
        writer: Callable[[], int],
        committer: "DiskCommitter",
        *,
        changed: bool,
        ident: str = "",
    ) -> None:
        """``committer`` is the file's own; ``ident`` as of :meth:`Journal.create_staging`."""
        super().__init__(context, target, writer, changed=changed)
        self._ident = ident
        self._first_part_end = schedule.span(1).end
        self._committer = committer
        self._held_back: int | None = None
        """No part below this offset is sent early: the store may turn out to have the bytes."""
        sums = PartSums(schedule) if base is None and context.store.wants_crc32c else None
        self._bytes = DiskBytes(base, read_base, self._new_staging, sums)
        self._builder = ObjectBuilder(context, schedule, self._bytes, target)
        self._recorded_request: CommitRequest | None = None
        self._changes_begun = 0
        self._committed_at: int | None = None

    @property
    def size(self) -> int:
        """Present size in bytes."""
        return self._bytes.size

    @property
    def base(self) -> Base | None:
        """The object that bytes are read from, if any."""
        return self._bytes.base

    @property
    def made(self) -> ObjectVersion | None:
        """The object that a commit made under the file's key although it failed afterwards."""
        return self._builder.made

    @property
    def all_here(self) -> bool:
        """Whether nothing is read from the base."""
        return not self._bytes.base_valid

    # -- reading -------------------------------------------------------------------------------

    def view(self, position: int, end: int) -> memoryview | None:  # noqa: ARG002 - the protocol's
        """None: nothing is in memory."""
        return None

    async def piece(self, position: int, end: int) -> bytes | memoryview | None:
        """Bytes from ``position``, at most up to ``end``; see the protocol."""
        return await self._bytes.piece(position, end)

    # -- changing ------------------------------------------------------------------------------

    async def write(
        self,
        offset: int,
        data: memoryview,
        arrived: Arrived | None = None,  # noqa: ARG002 - the protocol's
    ) -> int:
        """Take all of ``data``.

        Raises:
            OSError: the disk is full; bytes that went in before are kept.
        """
        await self._begin_change(offset, offset + len(data))
        sequential = offset == self._bytes.size
        error = await self._bytes.write(offset, data)
        self._changed = True
        if error is not None:
            raise error
        if sequential and self._may_leave_early():
            self._builder.send_full_parts()
        return len(data)

    def write_nowait(
        self,
        offset: int,
        data: memoryview,
        arrived: Arrived | None = None,  # noqa: ARG002 - the protocol's
    ) -> bool:
        """Take bytes, if the next mount knows of the file and the page cache takes them at once."""
        staging, pages = self._bytes.staging, self._context.page_room
        if staging is None or self._secured or not staging.is_prompt:
            return False
        if not (staging.recorded or (self._disowned and not self._committer.owner)):
            return False
        is_long = len(data) > _PROMPT_BYTES
        if is_long and not pages.take(len(data)):
            return False
        began = time.monotonic()
        self._changes_begun += 1
        self._builder.changes(offset, offset + len(data))
        sequential = offset == self._bytes.size
        is_done = self._bytes.write_nowait(offset, data)
        if is_long:
            pages.note_write(began)
        if not is_done:
            return False
        self._changed = True
        if sequential and self._may_leave_early():
            self._builder.send_full_parts()
        return True

    async def truncate(self, size: int) -> bool:
        """Truncate or extend with zeros.

        Raises:
            OSError: nothing has changed.
        """
        before = self._bytes.size
        await self._begin_change(min(size, before), max(size, before))
        await self._bytes.truncate(size)
        self._builder.cut(size)
        self._changed = True
        return True

    def borrow(self, size: int) -> bool:
        """Become the first ``size`` bytes of a borrowed base; False if anything was written."""
        if self._bytes.staging is not None:
            return False
        self._builder.drop()
        self._bytes.size = self._bytes.base_valid = size
        self._changed = True
        return True

    async def take_over(self, pieces: Iterable[tuple[int, memoryview]], size: int) -> None:
        """Take the bytes of a content in memory, in place of none.

        Raises:
            OSError: the disk is full; close this content then.
        """
        staging = await self._bytes.need_staging()
        for start, view in pieces:
            _done, error = await staging.write(start, view, sums=self._bytes.sums)
            if error is not None:
                raise error
        self._bytes.size = size
        self._bytes.staged.add(0, size)
        self._bytes.dirty.add(0, size)

    def adopt(self, staging: Staging, record: DirtyRecord) -> None:
        """Continue with the bytes that an earlier daemon had written, over the same base."""
        content = self._bytes
        content.staging, content.sums = staging, None
        content.size, content.base_valid = record.size, record.base_valid
        content.dirty, content.staged = record.dirty.copy(), record.dirty.copy()
        self._changed = True
        self._disowned = record.unlinked
        self._secured = record.complete

    async def is_in(self, version: ObjectVersion) -> bool | None:
        """Whether an object has every byte that was written here, and the same size. None: the size
        is the same, and no byte was written, as the file was only cut or made longer.

        Raises:
            StoreError
        """
        content = self._bytes
        if version.size != content.size:
            return False
        if content.staging is None or not content.size:
            return not content.size
        body, give_back = content.hold(ByteRange(0, content.size))
        try:
            for span in content.dirty:
                end = min(span.end, content.size)
                same = partial(
                    same_bytes, self._context.store, version, ByteRange(span.start, end), body.fd
                )
                if not await self._context.network.run_to_end(same):
                    return False
        finally:
            give_back()
        return True if content.dirty else None

    def continue_upload(self, upload: PartsUpload) -> None:
        """Continue the upload of the bytes that were taken over."""
        self._builder.continue_upload(upload)

    def rebase(self, version: ObjectVersion) -> None:
        """The base's bytes are under another key now."""
        self._bytes.base = Base(version)
        self._builder.drop()

    # -- storing -------------------------------------------------------------------------------

    async def on_disk(self) -> "DiskContent":
        """This content."""
        return self

    async def secure(self, request: CommitRequest) -> bool:
        """Keep everything, as a whole file, until it is committed or changed: across a crash at
        once, across a power loss within about a second.

        Raises:
            FileTooLargeError: its commit would be refused.
            OSError: the disk is full, among others.
        """
        self._check_holes(request)
        staging = await self._bytes.need_staging()
        record = self._description(staging.ident, request).replaced(complete=True)
        await staging.record(record)
        self._context.group_sync.add(staging)
        self._recorded_request = request
        self._secured = True
        return True

    async def redescribe(self, request: CommitRequest) -> None:
        """Change the journal's record of the file to ``request``.

        Raises:
            OSError: the disk is full, among others.
        """
        staging = self._bytes.staging
        if self._secured:
            await self.secure(request)
        elif staging is not None and staging.recorded:
            await self._record(staging, request)

    async def commit(self, request: CommitRequest, condition: Condition) -> ObjectVersion | None:
        """Make the object; see the protocol.

        Raises:
            FileTooLargeError: too much of it consists of holes; nothing was sent for this commit.
        """
        self._check_holes(request)
        staging = self._bytes.staging
        if staging is not None and staging.recorded and request != self._recorded_request:
            if self._secured:
                await self.secure(request)
            else:
                await self._record(staging, request)
        return await self._builder.build(request, condition)

    def committed(self, version: ObjectVersion) -> "DiskContent":
        """The object is now ``version``; staged bytes stay readable here."""
        self._builder.drop()
        self._bytes.made(Base(version))
        self._changed = False
        self._committed_at = self._changes_begun
        if self._bytes.staging is not None:
            self._bytes.staging.forget_record()
        self._secured = False
        return self

    def lend(self) -> LentFile | None:
        """The local bytes of the latest committed version; None without any, or after a change."""
        lent_at = self._changes_begun
        if self._bytes.staging is None or not self._bytes.staged or lent_at != self._committed_at:
            return None
        body, give_back = self._bytes.hold(ByteRange(0, self._bytes.size))
        return LentFile(
            body.fd, self._bytes.staged.copy(), lambda: self._changes_begun == lent_at, give_back
        )

    # -- giving up -------------------------------------------------------------------------------

    def disown(self) -> None:
        """The file was unlinked: its bytes are not needed after a crash."""
        self._builder.drop()
        self._disowned = True
        staging = self._bytes.staging
        if staging is not None:
            if self._committer.owner:
                staging.mark_unlinked()
            else:
                staging.unlink()

    def set_aside(self, request: CommitRequest, seen: ObjectVersion | None) -> Path:
        """Move the bytes to ``unsaved/``; see the protocol."""
        context, base = self._context, self._bytes.base
        staging = self._bytes.staging
        if staging is None:
            staging = self._staging_now()
        try:
            record = self._description(staging.ident, request).replaced(owner="")
            if not record.base_valid:
                record = record.replaced(base=seen)
            path = staging.set_aside(record)
        except OSError:
            if self._bytes.staging is None:
                staging.close()
            raise
        self._bytes.staging = staging
        self._builder.drop()  # nobody completes it, and readers may keep the file open for long
        if base is not None and base.hidden:
            # From now on the record refers to the hidden object, which must outlive this file.
            self._bytes.base = replace(base, hidden=False)
            context.journal.forget_scratch(base.version.key)
        return path

    def close(self) -> None:
        """Close the staging file; it stays on disk if it was recorded and not committed."""
        self._builder.drop()
        staging = self._bytes.give_up()
        if staging is not None:
            if self._disowned:
                staging.unlink()
            staging.close()

    # -- inside ----------------------------------------------------------------------------------

    def _check_holes(self, request: CommitRequest) -> None:
        """Refuse a file with too many holes: they cost no disk, but are sent like other bytes."""
        holes, limit = self._bytes.hole_bytes, self._context.limits.zeros_bytes
        if holes > limit:
            raise FileTooLargeError(
                f"{request.key!r} is sparse: {holes} bytes that nobody wrote would be sent as"
                f" zeros, and --max-zeros allows {limit}"
            )

    def _may_leave_early(self) -> bool:
        """Whether a part is full, and the file is too long to be a copy of a known object."""
        size = self._bytes.size
        if size <= self._first_part_end:
            return False
        if self._held_back is None:
            self._held_back = self._committer.largest_twin()
        return size > self._held_back

    async def _begin_change(self, start: int, end: int) -> None:
        """Record that the file is not whole any more, and withdraw parts with the changed bytes."""
        staging = await self._bytes.need_staging()
        await self._record_once(staging)
        if self._secured and self._recorded_request is not None:
            self._secured = False
            await self._record(staging, self._recorded_request)
        self._changes_begun += 1
        self._builder.changes(start, end)

    async def _new_staging(self) -> Staging:
        context = self._context
        staging = await Staging.create(
            context.journal, context.local, context.room, self._writer, self._ident
        )
        if self._disowned and not self._committer.owner:
            staging.unlink()
        if self._bytes.size:
            await staging.truncate(self._bytes.size)
        await self._record_once(staging)
        return staging

    async def _record_once(self, staging: Staging) -> None:
        """Record the file for the next mount if it is going to be stored, and for the next daemon
        of this mount if it is open.
        """
        if staging.recorded:
            return
        if not self._disowned:
            request = self._target()
            if request is not None:
                await self._record(staging, request)
        elif self._committer.owner:
            await self._record(staging, CommitRequest(""))

    async def _record(self, staging: Staging, request: CommitRequest) -> None:
        await staging.record(self._description(staging.ident, request))
        self._recorded_request = request

    def _description(self, ident: str, request: CommitRequest) -> DirtyRecord:
        """The journal's record of this content."""
        content = self._bytes
        return DirtyRecord.of(ident, request).replaced(
            base=content.base and content.base.version,
            base_valid=content.base_valid,
            size=content.size,
            dirty=content.dirty.copy(),
            scratch=content.base is not None and content.base.hidden,
            owner=self._committer.owner,
            unlinked=self._disowned,
        )

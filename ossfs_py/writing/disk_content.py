"""The content of a dirty file whose new bytes are in a staging file, over an optional base."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

from ossfs_py.errors import FileTooLargeError
from ossfs_py.model import ByteRange, CommitRequest, Condition, ObjectVersion
from ossfs_py.writing.builder import ObjectBuilder
from ossfs_py.writing.comparing import same_bytes
from ossfs_py.writing.content import Base, LentFile, ReadBase, Target
from ossfs_py.writing.context import WriteContext
from ossfs_py.writing.disk_bytes import DiskBytes
from ossfs_py.writing.local_content import LocalContent
from ossfs_py.writing.parts import PartSchedule
from ossfs_py.writing.records import DirtyRecord
from ossfs_py.writing.staging import Staging
from ossfs_py.writing.upload import PartsUpload


class NewDiskContent(Protocol):
    """Makes the content that goes on where memory ends."""

    def __call__(self, base: Base | None, *, changed: bool, ident: str = "") -> "DiskContent":
        """All bytes are those of ``base``; ``changed`` as the content will tell it; ``ident`` is
        that of a small file which goes on there.
        """
        ...


class DiskCommitter(Protocol):
    """What a content on disk needs of :class:`~ossfs_py.writing.content.Committer`."""

    @property
    def owner(self) -> str:
        """See there."""
        ...

    def largest_twin(self) -> int:
        """See there."""
        ...


class DiskContent(LocalContent):
    """Implements :class:`Content`; takes any change.

    The journal knows of the staging file from its first byte on, so that a crash leaves it to be
    found, unless ``target`` says that nobody will commit the file.
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
        """Bytes up to which no part leaves early: the store may turn out to have them."""
        self._bytes = DiskBytes(base, read_base, self._new_staging)
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
        """What a commit made under the file's key although it failed afterwards."""
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

    async def write(self, offset: int, data: memoryview) -> int:
        """Take all of ``data``.

        Raises:
            OSError: the disk is full; what went in before is kept.
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

    async def truncate(self, size: int) -> bool:
        """Cut off or extend with zeros.

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
        """Be the first ``size`` bytes of a borrowed base; False if anything was written here."""
        if self._bytes.staging is not None:
            return False
        self._builder.drop()
        self._bytes.size = self._bytes.base_valid = size
        self._changed = True
        return True

    async def take_over(self, pieces: Iterable[tuple[int, memoryview]], size: int) -> None:
        """Become what a content in memory holds, in place of nothing.

        Raises:
            OSError: the disk is full; close this content then.
        """
        staging = await self._bytes.need_staging()
        for start, view in pieces:
            _done, error = await staging.write(start, view)
            if error is not None:
                raise error
        self._bytes.size = size
        self._bytes.staged.add(0, size)
        self._bytes.dirty.add(0, size)

    def adopt(self, staging: Staging, record: DirtyRecord) -> None:
        """Go on with what an earlier daemon had written, over the same base."""
        content = self._bytes
        content.staging = staging
        content.size, content.base_valid = record.size, record.base_valid
        content.dirty, content.staged = record.dirty.copy(), record.dirty.copy()
        self._changed = True
        self._disowned = record.unlinked
        self._secured = record.complete

    async def is_in(self, version: ObjectVersion) -> bool:
        """Whether an object has every byte that was written here, and as many others.

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
        return bool(content.dirty)

    def continue_upload(self, upload: PartsUpload) -> None:
        """Go on with the upload of what was taken over."""
        self._builder.continue_upload(upload)

    def rebase(self, version: ObjectVersion) -> None:
        """The base's bytes are under another key now."""
        self._bytes.base = Base(version)
        self._builder.drop()

    # -- bringing it to the store --------------------------------------------------------------

    async def on_disk(self) -> "DiskContent":
        """This one."""
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
        """What the journal knows of the file is to become what ``request`` says.

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
            FileTooLargeError: too much of it are holes; nothing was sent for this commit.
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
        """The object is ``version`` now; staged bytes stay readable here."""
        self._builder.drop()
        self._bytes.made(Base(version))
        self._changed = False
        self._committed_at = self._changes_begun
        if self._bytes.staging is not None:
            self._bytes.staging.forget_record()
        self._secured = False
        return self

    def lend(self) -> LentFile | None:
        """What is local of the version committed last; None if nothing is, or it has changed."""
        lent_at = self._changes_begun
        if self._bytes.staging is None or not self._bytes.staged or lent_at != self._committed_at:
            return None
        body, give_back = self._bytes.hold(ByteRange(0, self._bytes.size))
        return LentFile(
            body.fd, self._bytes.staged.copy(), lambda: self._changes_begun == lent_at, give_back
        )

    # -- giving it up ----------------------------------------------------------------------------

    def disown(self) -> None:
        """The file was unlinked: nobody will look for its bytes after a crash."""
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
        if base is not None and base.hidden:
            # The record leads to the hidden object from now on; it must outlive this file.
            self._bytes.base = replace(base, hidden=False)
            context.journal.forget_scratch(base.version.key)
        return path

    def close(self) -> None:
        """Close the staging file; it stays on disk if it was recorded and not committed."""
        self._builder.drop()
        staging, self._bytes.staging = self._bytes.staging, None
        if staging is not None:
            if self._disowned:
                staging.unlink()
            staging.close()

    # -- inside ----------------------------------------------------------------------------------

    def _check_holes(self, request: CommitRequest) -> None:
        """A sparse file costs nothing on disk, and at the store as much as any other."""
        holes, limit = self._bytes.hole_bytes, self._context.limits.zeros_bytes
        if holes > limit:
            raise FileTooLargeError(
                f"{request.key!r} is sparse: {holes} bytes that nobody wrote would be sent as"
                f" zeros, and --max-zeros allows {limit}"
            )

    def _may_leave_early(self) -> bool:
        """Whether a part is full, and the file longer than all it could be a copy of."""
        size = self._bytes.size
        if size <= self._first_part_end:
            return False
        if self._held_back is None:
            self._held_back = self._committer.largest_twin()
        return size > self._held_back

    async def _begin_change(self, start: int, end: int) -> None:
        """Make the staging file known as one of a file that is not whole, and parts worthless."""
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
        """Make the file known to the next mount if it is going to be stored, and to the next daemon
        of this one if it is open.
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
        """This content as the journal writes it down."""
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

"""The content of a dirty file whose new bytes are in a staging file, over an optional base."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import trio

from ossfs_py.errors import IntegrityError, ObjectMissingError, VersionChangedError
from ossfs_py.extents import ExtentSet
from ossfs_py.model import ByteRange, CommitRequest, Condition, FileSlice, ObjectVersion
from ossfs_py.writing.context import WriteContext
from ossfs_py.writing.parts import CopyPart, LocalPart, PartPlan, PartSchedule, plan_commit
from ossfs_py.writing.records import DirtyRecord
from ossfs_py.writing.staging import Staging
from ossfs_py.writing.upload import PartsUpload

ReadBase: TypeAlias = Callable[[int, int], Awaitable[bytes | memoryview]]
"""Bytes of the base: offset and size."""

_FILL_BYTES = 8 * 1024**2
"""Clean bytes are brought to the staging file in steps of this: one block of most readers."""


@dataclass(frozen=True, slots=True)
class LentFile:
    """Committed bytes in a local file, for somebody to copy. ``give_back`` ends the loan."""

    fd: int
    spans: ExtentSet
    """Which bytes of the object are in the file, at the same offsets."""
    unchanged: Callable[[], bool]
    """False from before the first byte of the file changes; for any thread."""
    give_back: Callable[[], None]


class StagedContent:
    """Bytes of ``[0, size)``: staged ones locally, others below ``base_valid`` in the base, the
    rest zeros.

    ``target`` tells how the file would be committed now; None for one that nobody will commit or
    whose key is not known yet: nothing of it leaves, and a crash leaves nothing of it. Changes
    (write, truncate, commit) come from one task at a time; :meth:`piece` from any. All methods
    belong to the trio thread.
    """

    def __init__(
        self,
        context: WriteContext,
        schedule: PartSchedule,
        base: ObjectVersion | None,
        read_base: ReadBase,
        target: Callable[[], CommitRequest | None],
    ) -> None:
        self.size = base.size if base is not None else 0
        self.base = base
        self.base_valid = self.size
        self.read_base = read_base
        self.scratch = False
        """Whether the base is a hidden object of ours."""
        self.staging: Staging | None = None
        self._context = context
        self._schedule = schedule
        self._target = target
        self._staged = ExtentSet()
        self._dirty = ExtentSet()
        self._upload: PartsUpload | None = None
        self._plan: list[PartPlan] | None = None
        self._next_eager = 1
        self._recorded_request: CommitRequest | None = None
        self._disowned = False
        self._secured = False
        self._changes_begun = 0
        self._committed_at: int | None = None

    # -- reading -------------------------------------------------------------------------------

    async def piece(self, position: int, end: int) -> bytes | memoryview:
        """Bytes from ``position``, at least one, at most up to ``end`` (within the file)."""
        staging = self.staging
        staged, until = self._staged.run_at(position, end)
        if staged and staging is not None:
            return await staging.read(position, until - position)
        if position >= self.base_valid:
            return bytes(until - position)
        return await self.read_base(position, min(until, self.base_valid) - position)

    # -- changing ------------------------------------------------------------------------------

    async def write(self, offset: int, data: memoryview) -> OSError | None:
        """Take ``data``; what went in counts even when the disk is full before its end."""
        staging = await self._changing()
        sequential = offset == self.size
        self._changes(offset, offset + len(data))
        done, error = await staging.write(offset, data)
        end = offset + done
        self._staged.add(offset, end)
        self._dirty.add(offset, end)
        self.size = max(self.size, end)
        if sequential and error is None:
            self._send_full_parts()
        return error

    async def truncate(self, size: int) -> None:
        """Cut off or extend with zeros."""
        staging = await self._changing()
        self._changes(min(size, self.size), max(size, self.size))
        await staging.truncate(size)
        self._staged.truncate(size)
        self._dirty.truncate(size)
        self.base_valid = min(self.base_valid, size)
        self.size = size
        number = self._schedule.number_at(size)
        self._next_eager = min(self._next_eager, number)
        if self._upload is not None:
            self._upload.withdraw_from(number)

    async def adopt(self, pieces: list[tuple[int, memoryview]], size: int) -> None:
        """Become the content of a stream that was in memory until now, in place of nothing.

        Raises:
            OSError: nothing is adopted.
        """
        self._changes_begun += 1
        staging = await self.need_staging()
        # An earlier try that met a full disk may have left bytes that were cut off since.
        await staging.truncate(0)
        for start, view in pieces:
            _done, error = await staging.write(start, view)
            if error is not None:
                raise error
        self.size = size
        self._staged.add(0, size)
        self._dirty.add(0, size)

    def adopt_upload(self, upload: PartsUpload) -> None:
        """Go on with the upload that a stream has begun."""
        self._upload = upload

    def adopt_base(self, base: ObjectVersion, read_base: ReadBase, *, scratch: bool) -> None:
        """Everything is in ``base`` now."""
        self.drop_upload()
        self._staged.clear()
        self._dirty.clear()
        self.base, self.read_base, self.scratch = base, read_base, scratch
        self.size = self.base_valid = base.size

    def rebase(self, base: ObjectVersion) -> None:
        """The base's bytes are under another key now."""
        self.base = base
        self.drop_upload()

    async def need_staging(self, request: CommitRequest | None = None) -> Staging:
        """The staging file, made known to the next mount if the file is going to be stored."""
        if self.staging is None:
            self.staging = await Staging.create(self._context.journal, self._context.local)
            if self._disowned:
                self.staging.unlink()
            await self.staging.truncate(self.size)
        if not (self.staging.recorded or self._disowned):
            request = request or self._target()
            if request is not None:
                await self._record(self.staging, request)
        return self.staging

    async def secure(self, request: CommitRequest) -> None:
        """Keep everything across a power loss, as a whole file, until it is committed or changed.

        Raises:
            OSError: the disk is full, among others.
        """
        staging = await self.need_staging(request)
        record = self.description(staging.ident, request).replaced(complete=True)
        await staging.record(record, durable=True)
        self._recorded_request = request
        self._secured = True

    async def _changing(self) -> Staging:
        """The staging file, whose record no longer speaks of a whole file."""
        staging = await self.need_staging()
        if self._secured and self._recorded_request is not None:
            self._secured = False
            await self._record(staging, self._recorded_request)
        return staging

    async def _record(self, staging: Staging, request: CommitRequest) -> None:
        await staging.record(self.description(staging.ident, request))
        self._recorded_request = request

    def description(self, ident: str, request: CommitRequest) -> DirtyRecord:
        """This content as the journal writes it down."""
        return DirtyRecord.of(ident, request).replaced(
            base=self.base,
            base_valid=self.base_valid,
            size=self.size,
            dirty=self._dirty.copy(),
            scratch=self.scratch,
        )

    # -- bringing it to the store --------------------------------------------------------------

    async def commit(self, request: CommitRequest, condition: Condition) -> ObjectVersion:
        """Make the object; nothing here changes but which parts the store has already.

        Raises:
            VersionChangedError: the base is no longer what it was.
            StoreError, OSError: it could not be done; call again.
        """
        if self.staging is not None and self.staging.recorded and request != self._recorded_request:
            if self._secured:
                await self.secure(request)
            else:
                await self._record(self.staging, request)
        try:
            return await self._commit_once(request, condition)
        except ObjectMissingError:
            # The store forgot the upload (a lifecycle rule, another client): begin a new one.
            self.drop_upload()
        try:
            return await self._commit_once(request, condition)
        except ObjectMissingError as exc:
            if self.base_valid and exc.operation != "CompleteMultipartUpload":
                raise VersionChangedError(
                    "the object was removed while it was being changed", key=request.key
                ) from exc
            raise

    def committed(self, version: ObjectVersion, read_base: ReadBase) -> None:
        """The object is ``version`` now; staged bytes stay readable here."""
        self._upload = self._plan = None
        self._dirty.clear()
        self.base, self.read_base, self.scratch = version, read_base, False
        self.size = self.base_valid = version.size
        self._next_eager = 1
        self._committed_at = self._changes_begun
        if self.staging is not None:
            self.staging.forget_record()
        self._secured = False

    def lend(self) -> LentFile | None:
        """What is local of the version committed last; None if nothing is, or it has changed."""
        staging, lent_at = self.staging, self._changes_begun
        if staging is None or not self._staged or lent_at != self._committed_at:
            return None
        staging.uses.enter()
        return LentFile(
            staging.body(ByteRange(0, self.size)).fd,
            self._staged.copy(),
            lambda: self._changes_begun == lent_at,
            staging.uses.leave,
        )

    def disown(self) -> None:
        """The file was unlinked: nobody will look for its bytes after a crash."""
        self.drop_upload()
        self._disowned = True
        if self.staging is not None:
            self.staging.unlink()

    def drop_upload(self) -> None:
        """Parts sent so far count no more."""
        self._plan = None
        self._next_eager = 1
        if self._upload is not None:
            self._upload.abandon()
            self._upload = None

    def close(self) -> None:
        """Close the staging file; it stays on disk if it was recorded and not committed."""
        self.drop_upload()
        if self.staging is not None:
            self.staging.close()
            self.staging = None

    # -- inside ----------------------------------------------------------------------------------

    def _changes(self, start: int, end: int) -> None:
        """Parts that hold ``[start, end)`` have to be sent again, and a short last part too."""
        self._changes_begun += 1
        if self._plan is not None or (self._upload is not None and self._upload.finished):
            # A plan speaks of one state of the file; its parts fit no other.
            self.drop_upload()
        if self._upload is not None:
            first = self._schedule.number_at(min(start, self.size))
            for number in range(first, self._schedule.number_at(max(start, end - 1)) + 1):
                self._upload.withdraw(number)

    def _send_full_parts(self) -> None:
        """Let full parts of a file that is written in order leave before the commit."""
        if self.base_valid or (self._upload is not None and self._upload.failure() is not None):
            return
        while (span := self._schedule.span(self._next_eager)).end < self.size:
            if self._staged.covers(span.start, span.end):
                if self._upload is None:
                    request = self._target()
                    if request is None:
                        return
                    self._upload = PartsUpload(self._context, request)
                if not self._upload.has(self._next_eager):
                    self._send(self._upload, self._next_eager, span)
            self._next_eager += 1

    def _send(self, upload: PartsUpload, number: int, span: ByteRange) -> None:
        if self.staging is None:
            raise RuntimeError("no staging file to send from")
        self.staging.uses.enter()
        upload.submit(number, self.staging.body(span), self.staging.uses.leave)

    async def _commit_once(self, request: CommitRequest, condition: Condition) -> ObjectVersion:
        if self._upload is not None and self._upload.request.key != request.key:
            self.drop_upload()
        if self.base_valid:
            return await self._commit_changed(request, condition)
        return await self._commit_fresh(request, condition)

    async def _commit_fresh(self, request: CommitRequest, condition: Condition) -> ObjectVersion:
        if not self.size or (self._upload is None and self.size <= self._schedule.span(1).size):
            self.drop_upload()
            return await self._put(request, condition)
        upload = self._upload
        if upload is None:
            upload = self._upload = PartsUpload(self._context, request)
        await self.need_staging(request)
        last = self._schedule.number_at(self.size - 1)
        upload.withdraw_from(last + 1)
        for number in range(1, last + 1):
            if not upload.has(number):
                span = self._schedule.span(number)
                self._send(upload, number, ByteRange(span.start, min(span.end, self.size)))
        return await self._finish(upload, last, request, condition)

    async def _commit_changed(self, request: CommitRequest, condition: Condition) -> ObjectVersion:
        base, context = self.base, self._context
        if base is None:
            raise RuntimeError("a valid range of no base")
        if self._plan is None:
            capabilities = await context.network.run(context.store.capabilities)
            self._plan = plan_commit(
                self.size,
                self.base_valid,
                self._dirty,
                part_copy=capabilities.part_copy,
                limits=context.limits.parts,
            )
        plan = self._plan
        if len(plan) == 1 and isinstance(plan[0], LocalPart):
            await self._fill(plan[0])
            return await self._put(request, condition)
        upload = self._upload
        if upload is None:
            upload = self._upload = PartsUpload(self._context, request)
        # Copies first: the store works on them while clean bytes are fetched here.
        for number, part in enumerate(plan, 1):
            if isinstance(part, CopyPart) and not upload.has(number):
                upload.submit_copy(number, base, part.span)
        for number, part in enumerate(plan, 1):
            if isinstance(part, LocalPart) and not upload.has(number):
                await self._fill(part)
                self._send(upload, number, part.span)
        return await self._finish(upload, len(plan), request, condition)

    async def _fill(self, part: LocalPart) -> None:
        """Bring the clean bytes of a part to the staging file."""
        staging = await self.need_staging()
        for fill in part.fills:
            for gap in list(self._staged.gaps(fill.start, fill.end)):
                position = gap.start
                while position < gap.end:
                    wanted = min(_FILL_BYTES, gap.end - position)
                    data = bytes(await self.read_base(position, wanted))
                    if not data:
                        raise IntegrityError("the object ended early", operation="GetObject")
                    done, error = await staging.write(position, data, dirty=False)
                    self._staged.add(position, position + done)
                    if error is not None:
                        raise error
                    position += done

    async def _put(self, request: CommitRequest, condition: Condition) -> ObjectVersion:
        body: bytes | FileSlice = b""
        if self.size:
            body = (await self.need_staging(request)).body(ByteRange(0, self.size))
        return await put_object(self._context, request, body, condition)

    async def _finish(
        self, upload: PartsUpload, count: int, request: CommitRequest, condition: Condition
    ) -> ObjectVersion:
        await upload.settled()
        version = await upload.complete(count, condition)
        return await with_metadata(self._context, version, upload.request, request)


async def put_object(
    context: WriteContext,
    request: CommitRequest,
    body: bytes | memoryview | FileSlice,
    condition: Condition,
) -> ObjectVersion:
    """One PUT, waited for even when cancelled: its answer decides what the base is."""
    with trio.CancelScope(shield=True):
        version = await context.network.run(
            partial(context.store.put, replace(request, condition=condition), body)
        )
    return version  # noqa: RET504 - a return inside the scope is one mypy cannot see


async def with_metadata(
    context: WriteContext, version: ObjectVersion, begun: CommitRequest, request: CommitRequest
) -> ObjectVersion:
    """Give a completed upload the metadata of its commit, where it began with other ones."""
    if begun.metadata == request.metadata and begun.content_type == request.content_type:
        return version
    with trio.CancelScope(shield=True):
        version = await context.network.run(
            partial(
                context.store.copy,
                version,
                request.key,
                metadata=request.metadata,
                content_type=request.content_type,
            )
        )
    return version  # noqa: RET504 - a return inside the scope is one mypy cannot see

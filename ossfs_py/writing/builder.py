"""Turns a file on disk into an object: by one PUT, or by parts that are sent or copied."""

from ossfs_py.errors import ObjectMissingError, UnequalPartsError, VersionChangedError
from ossfs_py.model import ByteRange, CommitRequest, Condition, ObjectVersion
from ossfs_py.writing.content import Target
from ossfs_py.writing.context import WriteContext
from ossfs_py.writing.disk_bytes import DiskBytes
from ossfs_py.writing.parts import CopyPart, LocalPart, PartPlan, PartSchedule, plan_commit
from ossfs_py.writing.requests import put_object, with_metadata
from ossfs_py.writing.upload import PartsUpload


class ObjectBuilder:
    """Stores the parts of ``content``; full ones before the commit asks for them.

    A new file is cut by ``schedule``. A file that changes an object is cut by a plan, which is
    valid for one state of the file. All methods belong to the trio thread and to the task that
    changes the content.
    """

    def __init__(
        self, context: WriteContext, schedule: PartSchedule, content: DiskBytes, target: Target
    ) -> None:
        self._context = context
        self._schedule = schedule
        self._content = content
        self._target = target
        self._upload: PartsUpload | None = None
        self._plan: list[PartPlan] | None = None
        self._next_eager = 1

    @property
    def made(self) -> ObjectVersion | None:
        """The object that completing the present upload made, if it did."""
        return None if self._upload is None else self._upload.made

    def continue_upload(self, upload: PartsUpload) -> None:
        """Continue an upload of the same bytes, cut by the same schedule."""
        self._upload = upload

    def changes(self, start: int, end: int) -> None:
        """``[start, end)`` is about to change: parts with bytes of it have to be sent again, as
        does a last part that was short until now.
        """
        if self._plan is not None or (self._upload is not None and self._upload.made):
            # A plan is valid for one state of the file: its parts fit no other state.
            self.drop()
        if self._upload is not None:
            first = self._schedule.number_at(min(start, self._content.size))
            for number in range(first, self._schedule.number_at(max(start, end - 1)) + 1):
                self._upload.withdraw(number)

    def cut(self, size: int) -> None:
        """The file now ends at ``size``."""
        number = self._schedule.number_at(size)
        self._next_eager = min(self._next_eager, number)
        if self._upload is not None:
            self._upload.withdraw_from(number)

    def send_full_parts(self) -> None:
        """Send full parts of a file that is written in order before the commit."""
        content = self._content
        if content.base_valid or (self._upload is not None and self._upload.failure() is not None):
            return
        while (span := self._schedule.span(self._next_eager)).end < content.size:
            if content.staged.covers(span.start, span.end):
                if self._upload is None:
                    request = self._target()
                    if request is None:
                        return
                    self._upload = PartsUpload(self._context, request)
                if not self._upload.has(self._next_eager):
                    self._send(self._upload, self._next_eager, span)
            self._next_eager += 1

    async def build(self, request: CommitRequest, condition: Condition) -> ObjectVersion:
        """Make the object; bytes that the store has already are not sent again.

        If this is cancelled, the next call continues with the parts in flight. A request that makes
        the object is waited for.

        Raises:
            ConditionFailedError: nothing was written.
            VersionChangedError: the base is another version now.
            StoreError, OSError: the object could not be made; call again.
        """
        try:
            return await self._build_once(request, condition)
        except ObjectMissingError:
            # The store forgot the upload (a lifecycle rule, another client): begin a new one.
            self.drop()
        except UnequalPartsError:
            self.drop()
            self._schedule = PartSchedule(self._context.parts)
        try:
            return await self._build_once(request, condition)
        except ObjectMissingError as exc:
            if self._content.base_valid and exc.operation != "CompleteMultipartUpload":
                raise VersionChangedError(
                    "the object was removed while it was being changed", key=request.key
                ) from exc
            raise

    def drop(self) -> None:
        """Forget the parts sent so far."""
        self._plan = None
        self._next_eager = 1
        if self._upload is not None:
            self._upload.abandon()
            self._upload = None

    # -- inside ----------------------------------------------------------------------------------

    async def _build_once(self, request: CommitRequest, condition: Condition) -> ObjectVersion:
        if self._upload is not None and self._upload.request.key != request.key:
            self.drop()
        if self._content.base_valid:
            return await self._build_changed(request, condition)
        return await self._build_new(request, condition)

    async def _build_new(self, request: CommitRequest, condition: Condition) -> ObjectVersion:
        size = self._content.size
        if not size or (self._upload is None and size <= self._schedule.span(1).size):
            self.drop()
            return await self._put(request, condition)
        await self._content.need_staging()
        upload = self._need_upload(request)
        last = self._schedule.number_at(size - 1)
        upload.withdraw_from(last + 1)
        for number in range(1, last + 1):
            if not upload.has(number):
                span = self._schedule.span(number)
                self._send(upload, number, ByteRange(span.start, min(span.end, size)))
        return await self._finish(upload, last, request, condition)

    async def _build_changed(self, request: CommitRequest, condition: Condition) -> ObjectVersion:
        content, context = self._content, self._context
        if content.base is None:
            raise RuntimeError("a valid range of no base")
        if self._plan is None:
            capabilities = await context.network.run(context.store.capabilities)
            self._plan = plan_commit(
                content.size,
                content.base_valid,
                content.dirty,
                part_copy=capabilities.part_copy,
                limits=context.parts,
            )
        plan, base = self._plan, content.base.version
        if len(plan) == 1 and isinstance(plan[0], LocalPart):
            await content.fill(plan[0].fills)
            return await self._put(request, condition)
        upload = self._need_upload(request)
        # Copies first: the store works on them while clean bytes are fetched here.
        for number, part in enumerate(plan, 1):
            if isinstance(part, CopyPart) and not upload.has(number):
                upload.submit_copy(number, base, part.span)
        for number, part in enumerate(plan, 1):
            if isinstance(part, LocalPart) and not upload.has(number):
                await content.fill(part.fills)
                self._send(upload, number, part.span)
        return await self._finish(upload, len(plan), request, condition)

    def _need_upload(self, request: CommitRequest) -> PartsUpload:
        if self._upload is None:
            self._upload = PartsUpload(self._context, request)
        return self._upload

    def _send(self, upload: PartsUpload, number: int, span: ByteRange) -> None:
        body, sent = self._content.hold(span)
        upload.submit(number, body, sent)

    async def _put(self, request: CommitRequest, condition: Condition) -> ObjectVersion:
        size = self._content.size
        if not size:
            return await put_object(self._context, request, b"", condition)
        await self._content.need_staging()
        body, sent = self._content.hold(ByteRange(0, size))
        try:
            return await put_object(self._context, request, body, condition)
        finally:
            sent()

    async def _finish(
        self, upload: PartsUpload, count: int, request: CommitRequest, condition: Condition
    ) -> ObjectVersion:
        await upload.settled()
        version = await upload.complete(count, condition)
        return await with_metadata(self._context, version, upload.request, request)

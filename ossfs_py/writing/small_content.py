"""The content of a small new file: in memory, and in the journal's segments until it is stored."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ossfs_py.extents import ExtentSet
from ossfs_py.model import ByteRange, CommitRequest, Condition, ObjectVersion
from ossfs_py.runtime.arrived import Arrived
from ossfs_py.writing.content import Base, Content, LentFile, Target
from ossfs_py.writing.context import WriteContext
from ossfs_py.writing.disk_content import DiskContent, NewDiskContent
from ossfs_py.writing.local_content import LocalContent
from ossfs_py.writing.records import DirtyRecord, SmallRecord
from ossfs_py.writing.requests import put_object
from ossfs_py.writing.segments import new_ident


class SmallContent(LocalContent):
    """Implements :class:`Content`; longer files, and files with holes, need another content.

    Each change is in the journal when it returns, unless ``target`` says that nobody will commit
    the file. The bytes are one immutable object, so that a change does not disturb its readers.
    """

    def __init__(
        self,
        context: WriteContext,
        longest_bytes: int,
        target: Target,
        new_disk: NewDiskContent,
        writer: Callable[[], int],
    ) -> None:
        super().__init__(context, target, writer, changed=True)
        self._longest_bytes = longest_bytes
        self._new_disk = new_disk
        self._account = context.room.account()
        self._ident = new_ident()
        self._data = b""
        self._base: Base | None = None
        self._kept = False
        """Whether the journal has the file."""
        self._kept_request: CommitRequest | None = None

    @property
    def size(self) -> int:
        """Present size in bytes."""
        return len(self._data)

    @property
    def base(self) -> Base | None:
        """The object that was stored last, if any: it has the bytes if nothing has changed."""
        return self._base

    @property
    def made(self) -> ObjectVersion | None:
        """None: one PUT makes the object, or does not."""
        return None

    @property
    def all_here(self) -> bool:
        """Always True."""
        return True

    # -- reading -------------------------------------------------------------------------------

    def view(self, position: int, end: int) -> memoryview | None:
        """Bytes from ``position``."""
        return memoryview(self._data)[position:end]

    async def piece(self, position: int, end: int) -> bytes | memoryview | None:
        """As :meth:`view`."""
        return self.view(position, end)

    # -- changing ------------------------------------------------------------------------------

    async def write(
        self,
        offset: int,
        data: memoryview,
        arrived: Arrived | None = None,  # noqa: ARG002 - the protocol's
    ) -> int:
        """Take all of ``data``, or nothing if the file is not small any more.

        Raises:
            OSError: the disk is full; nothing was taken.
        """
        before, end = self._data, offset + len(data)
        size = max(end, len(before))
        if offset > len(before) or size > self._longest_bytes:
            return 0
        if not self._context.small.take(size - len(before)):
            return 0
        try:
            written = bytes(data)
            after = b"".join((before[:offset], written, before[end:]))
            writer = self._writer()
            await self._change(
                after, lambda ident: self._write_small(ident, offset, written, writer)
            )
        except BaseException:
            self._context.small.take(len(before) - size)
            raise
        return len(data)

    def write_nowait(
        self,
        offset: int,
        data: memoryview,
        arrived: Arrived | None = None,  # noqa: ARG002 - the protocol's
    ) -> bool:
        """Take all of ``data`` if the journal takes entries at once."""
        before, end = self._data, offset + len(data)
        grown = max(end - len(before), 0)
        context = self._context
        request = None if self._kept or self._disowned else self._target()
        if (
            self._secured
            or offset > len(before)
            or len(before) + grown > self._longest_bytes
            or context.journal.is_slow
            or not (self._kept or self._disowned or request is not None)
            or not context.small.take(grown)
        ):
            return False
        written, writer = bytes(data), self._writer()
        after = b"".join((before[:offset], written, before[end:])) if before else written
        if self._kept:
            try:
                self._write_small(self._ident, offset, written, writer)
            except OSError:
                context.small.take(-grown)
                return False
        elif request is not None and not self._record_nowait(request, after, complete=False):
            context.small.take(-grown)
            return False
        self._data = after
        self._changed = True
        self._account.is_now(len(after), writer)
        return True

    async def truncate(self, size: int) -> bool:
        """Truncate; False if the file has to be longer.

        Raises:
            OSError: nothing has changed.
        """
        before = self._data
        if size > len(before):
            return False
        journal = self._context.journal
        await self._change(before[:size], lambda ident: journal.cut_small(ident, size))
        self._context.small.take(size - len(before))
        return True

    def _write_small(self, ident: str, offset: int, data: bytes, writer: int) -> None:
        context = self._context
        context.room.require(context.journal.descriptor, writer, len(data))
        context.journal.write_small(ident, offset, data)

    async def _change(self, after: bytes, change: Callable[[str], None]) -> None:
        """Record a change in the journal, and make it."""
        if self._kept:
            if self._secured and self._kept_request is not None:
                # The file is not whole any more.
                self._secured = False
                await self._describe(self._kept_request)
            await self._context.group_sync.keep(partial(change, self._ident))
        elif not self._disowned:
            request = self._target()
            if request is not None:
                await self._keep(request, after)
        self._data = after
        self._changed = True
        self._account.is_now(len(after), self._writer())

    # -- continuing on disk --------------------------------------------------------------------

    async def on_disk(self) -> DiskContent:
        """The same bytes in a content that accepts any change; close this one then.

        Raises:
            OSError: the disk is full.
        """
        if self._base is not None and not self._changed:
            return self._new_disk(self._base, changed=False)
        content = self._new_disk(None, changed=True, ident=self._ident if self._kept else "")
        try:
            pieces = [(0, memoryview(self._data))] if self._data else []
            await content.take_over(pieces, len(self._data))
        except BaseException:
            content.disown()
            content.close()
            raise
        self._forget()
        return content

    def take_over(self, memory: Content) -> bool:
        """Continue with the bytes of a content in memory, and close that one. False if they are too
        many: nothing has changed, and this content is closed.
        """
        data = bytes(memory.view(0, memory.size) or b"")
        fits = memory.size <= self._longest_bytes and len(data) == memory.size
        if not (fits and self._context.small.take(len(data))):
            self.close()
            return False
        self._data = data
        self._account.is_now(len(data), self._writer())
        memory.close()
        return True

    # -- storing -------------------------------------------------------------------------------

    async def secure(self, request: CommitRequest) -> bool:
        """Keep it as a whole file, until it is committed or changed: across a crash at once, across
        a power loss within about a second.

        Raises:
            OSError: the disk is full, among others.
        """
        if self._kept:
            await self._describe(request, complete=True)
        else:
            await self._keep(request, self._data, complete=True)
        self._secured = self._kept
        if self._kept:
            self._context.group_sync.add_small(self._ident)
        return True

    def secure_nowait(self, request: CommitRequest) -> bool:
        """As :meth:`secure`, if the journal takes entries at once; False: nothing has happened."""
        if not self._record_nowait(request, self._data, complete=True):
            return False
        self._secured = True
        self._context.group_sync.add_small(self._ident)
        return True

    async def redescribe(self, request: CommitRequest) -> None:
        """Change the journal's record of the file to ``request``.

        Raises:
            OSError: the disk is full, among others.
        """
        if self._kept and self._is_news(request):
            await self._describe(request, complete=self._secured)
            if self._secured:
                self._context.group_sync.add_small(self._ident)

    def redescribe_nowait(self, request: CommitRequest) -> bool:
        """As :meth:`redescribe`, in the same way."""
        if self._kept and self._is_news(request):
            if not self._record_nowait(request, self._data, complete=self._secured):
                return False
            if self._secured:
                self._context.group_sync.add_small(self._ident)
        return True

    async def commit(self, request: CommitRequest, condition: Condition) -> ObjectVersion | None:
        """Make the object; see the protocol."""
        await self.redescribe(request)
        return await put_object(self._context, request, self._data, condition)

    def committed(self, version: ObjectVersion) -> "SmallContent":
        """The object is now ``version``; the bytes stay readable here."""
        self._forget()
        self._base = Base(version)
        self._changed = False
        return self

    def rebase(self, version: ObjectVersion) -> None:
        """The bytes stored last are under another key now."""
        if self._base is not None:
            self._base = Base(version)

    def lend(self) -> LentFile | None:
        """A copy of the committed bytes, in a file in memory; None if there are none, or they have
        changed.
        """
        if self._changed or not self._data:
            return None
        fd = os.memfd_create("ossfs-py-lent")
        try:
            os.write(fd, self._data)
        except BaseException:
            os.close(fd)
            raise
        spans = ExtentSet([ByteRange(0, len(self._data))])
        return LentFile(fd, spans, lambda: True, partial(os.close, fd))

    # -- giving up -------------------------------------------------------------------------------

    def disown(self) -> None:
        """The file was unlinked: its bytes are not needed after a crash."""
        self._disowned = True
        self._forget()

    def set_aside(self, request: CommitRequest, seen: ObjectVersion | None) -> Path:
        """Move the bytes to ``unsaved/``; see the protocol."""
        staging = self._staging_now(self._ident)
        try:
            staging.write_now(0, memoryview(self._data))
            record = DirtyRecord.of(self._ident, request)
            path = staging.set_aside(record.replaced(base=seen, size=len(self._data)))
        finally:
            staging.close()
        self._forget()
        return path

    def close(self) -> None:
        """Free the memory; the journal's entry stays for the next mount. The bytes of a stored
        file are remembered while nobody needs their room.
        """
        small, base = self._context.small, self._base
        small.take(-len(self._data))
        if base is not None and not (self._changed or base.hidden):
            small.remember(base.version, self._data)
        self._data = b""
        self._account.close()

    # -- inside ----------------------------------------------------------------------------------

    async def _keep(self, request: CommitRequest, data: bytes, *, complete: bool = False) -> None:
        context = self._context
        context.room.require(context.journal.descriptor, self._writer(), len(data))
        record = SmallRecord(self._ident, request, complete)
        await context.group_sync.keep(partial(context.journal.keep_small, record, data))
        self._kept = True
        self._kept_request = request
        if self._disowned:
            self._forget()  # it was removed while a thread recorded it

    def _record_nowait(self, request: CommitRequest, data: bytes, *, complete: bool) -> bool:
        """Record the file, with ``data`` if the journal does not have it, unless that has to wait
        for the disk, or fails.
        """
        context = self._context
        journal = context.journal
        if self._disowned or journal.is_slow:
            return False
        record = SmallRecord(self._ident, request, complete)
        try:
            if self._kept:
                journal.describe_small(record)
            else:
                context.room.require(journal.descriptor, self._writer(), len(data))
                journal.keep_small(record, data)
        except OSError:
            return False
        self._kept = True
        self._kept_request = request
        return True

    def _is_news(self, request: CommitRequest) -> bool:
        """Whether the journal has another request."""
        known = self._kept_request
        # What it replaces does not count when requests are compared.
        return known is None or request != known or request.replaces != known.replaces

    async def _describe(self, request: CommitRequest, *, complete: bool = False) -> None:
        context = self._context
        record = SmallRecord(self._ident, request, complete)
        await context.group_sync.keep(partial(context.journal.describe_small, record))
        self._kept_request = request

    def _forget(self) -> None:
        """Drop the journal's entry."""
        if self._kept:
            self._kept = self._secured = False
            self._context.group_sync.drop_small(self._ident)
            self._context.journal.forget_small(self._ident)

"""One file that somebody writes: its bytes until they are an object, and their way there."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import trio

from ossfs_py.errors import (
    FileTooLargeError,
    IntegrityError,
    StoreError,
    StoreUnavailableError,
    VersionChangedError,
)
from ossfs_py.model import ALWAYS, CommitRequest, Condition, ObjectVersion
from ossfs_py.writing.context import WriteContext, WriteLimits
from ossfs_py.writing.parts import PartSchedule
from ossfs_py.writing.staged import LentFile, ReadBase, StagedContent
from ossfs_py.writing.staging import Staging
from ossfs_py.writing.streamed import StreamedContent

__all__ = ["DirtyFile", "ReadBase", "WriteContext", "WriteLimits"]

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Attempt:
    """One commit that later callers may share."""

    request: CommitRequest
    done: trio.Event = field(default_factory=trio.Event)
    version: ObjectVersion | None = None
    error: Exception | None = None


class DirtyFile:
    """What a data path's open file delegates to once somebody writes.

    With ``memory_first`` a file written in order from its beginning is held in memory only and
    streams up; otherwise, and after any other change, new bytes wait in a staging file. Either
    way full parts of a new file leave while the program goes on writing, provided that ``hint``
    tells the key.

    ``hint`` answers under which key and with which metadata a commit would happen now. It is
    asked when an upload begins and when the journal takes note of the file. An upload that turns
    out to have begun with another key is done again at commit, one with other metadata costs a
    server-side copy: leave out of it what changes with every write (mtime).

    Bytes that a stream has sent are nowhere readable. When they are needed after all (read back,
    written over, cut), the upload is completed early and its object becomes the base. It is
    completed under a hidden key if ``expects_rereads`` was set before the first part left, and
    copied to the file's own key at commit; otherwise under the file's own key, as an fsync at
    that moment would have done it, and ``on_stored`` is told.

    Writes, truncations and commits take turns: a commit sees one state of the file, and a write
    that comes during a commit waits for it (as a write to a page under writeback does) and makes
    the file dirty again. Reads never wait for a commit. All methods belong to the trio thread.
    """

    def __init__(
        self,
        context: WriteContext,
        base: ObjectVersion | None,
        read_base: ReadBase,
        *,
        memory_first: bool,
        hint: Callable[[], CommitRequest] | None = None,
        on_stored: Callable[[ObjectVersion], None] | None = None,
    ) -> None:
        self.expects_rereads = False
        """Whether what is written will likely be read back before close (opened for both)."""
        self._context = context
        self._read_base = read_base
        self._memory_first = memory_first
        self._hint = hint
        self._on_stored = on_stored
        self._schedule = PartSchedule(context.limits.parts)
        self._content = self._new_content(base)
        self._stream: StreamedContent | None = None
        if memory_first and self._content.size == 0:
            self._stream = StreamedContent(context, self._target)
        # A file that is not in the store yet has to be brought there even if it stays empty.
        self._changed = base is None
        self._unlinked = False
        self._early: ObjectVersion | None = None
        self._unanswered: CommitRequest | None = None
        """A commit that was given up and may have been carried out, metadata and all."""
        self._lock = trio.Lock()
        self._attempt: _Attempt | None = None

    # -- what is known without waiting -----------------------------------------------------------

    @property
    def size(self) -> int:
        """Present size in bytes."""
        return self._stream.size if self._stream is not None else self._content.size

    @property
    def dirty(self) -> bool:
        """Whether a commit would have to bring anything to the store."""
        return self._changed and not self._unlinked

    @property
    def bound(self) -> bool:
        """Whether bytes are in an unfinished upload of the file's key only."""
        return self._stream is not None and self._stream.bound

    @property
    def base(self) -> ObjectVersion | None:
        """The version the file was last committed as, or began as; None for a new file.

        May be a hidden object of this mount while the file is dirty.
        """
        return self._content.base

    def rebase(self, version: ObjectVersion) -> None:
        """The committed bytes are under another key now; ``read_base`` reads from there."""
        if not self._content.scratch:
            self._early = None
            self._content.rebase(version)
            self._content.read_base = self._read_base

    def lend(self) -> LentFile | None:
        """The committed bytes that are in a local file; None if there are none, or a change of
        them has begun.
        """
        return self._content.lend() if self._stream is None else None

    # -- reading ---------------------------------------------------------------------------------

    def read_nowait(self, offset: int, size: int) -> memoryview | bytes | None:
        """The bytes, clipped at the end of file, if they are in one piece of memory.

        A memoryview is valid until the caller's next checkpoint.
        """
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        if self._stream is None:
            return None
        view = self._stream.view(offset, end)
        return view if view is not None and len(view) == end - offset else None

    async def read(self, offset: int, size: int) -> memoryview | bytes:
        """The bytes, clipped at the end of file.

        Raises:
            StoreError: they could not be had from the store.
            UnsavedDataError: the file was unlinked while it streamed; they are gone.
        """
        pieces: list[bytes] = []
        position = offset
        while position < (end := min(offset + size, self.size)):
            piece = await self._piece(position, end)
            if not piece:
                raise IntegrityError("the object ended early", operation="GetObject")
            position += len(piece)
            if not pieces and position >= end:
                return piece
            # A view lives until the next checkpoint only.
            pieces.append(bytes(piece))
        return b"".join(pieces)

    # -- changing --------------------------------------------------------------------------------

    async def write(self, offset: int, data: bytes | memoryview) -> int:
        """Take ``data`` at any offset; returns its length.

        Raises:
            OSError: ENOSPC; what was taken before, part of ``data`` included, is kept.
            FileTooLargeError: nothing was taken.
            StoreError: a part that left earlier could not be sent; it is kept and tried again.
        """
        view = memoryview(data)
        self._check_size(offset + len(view))
        async with self._lock:
            if not view:
                return 0
            taken = 0
            if self._stream is not None:
                self._changed = True
                taken = await self._stream.write(offset, view)
            if taken < len(view):
                await self._leave_memory()
                error = await self._content.write(offset + taken, view[taken:])
                self._changed = True
                if error is not None:
                    raise error
        return len(view)

    async def truncate(self, size: int) -> None:
        """Cut off or extend with zeros.

        Raises:
            As :meth:`write`.
        """
        self._check_size(size)
        async with self._lock:
            if size == self.size:
                return
            if size == 0:
                await self._empty()
            elif self._stream is None or not await self._stream.truncate(size):
                await self._leave_memory()
                await self._content.truncate(size)
            self._changed = True

    # -- bringing it to the store ------------------------------------------------------------------

    async def commit(self, request: CommitRequest) -> ObjectVersion | None:
        """Make everything written so far the object; None when nothing was dirty.

        Concurrent callers with one request share one upload and its outcome. On error everything
        stays dirty, what the store has accepted counts, and the next call tries the rest again.
        Cancelled, parts under way go on for the next call; a PUT or completion under way is
        waited for.

        Raises:
            ConditionFailedError: the request's condition does not hold; the data is kept.
            VersionChangedError: the object under the changes is another one now.
            StoreError, OSError: it could not be done.
        """
        while (running := self._attempt) is not None:
            await running.done.wait()
            if running.request == request:
                if running.error is not None:
                    raise running.error
                if running.version is not None:
                    return running.version
        if not self.dirty:
            return None
        attempt = self._attempt = _Attempt(request)
        try:
            async with self._lock:
                attempt.version = await self._commit(request)
        except Exception as exc:
            attempt.error = exc
            raise
        finally:
            self._attempt = None
            attempt.done.set()
            if self._unlinked:
                self._disown()
        return attempt.version

    async def secure(self, request: CommitRequest) -> bool:
        """Keep everything written so far on local disk, across a power loss, to be committed as
        ``request`` says; False if that cannot be: commit then.

        Raises:
            OSError: the disk is full, among others.
        """
        async with self._lock:
            if not self.dirty:
                return True
            if self._stream is not None and self._stream.begun:
                return False  # most of it is at the store already
            await self._leave_memory()
            await self._content.secure(request)
            return True

    def abandon(self) -> None:
        """The file was unlinked: never bring it to the store.

        It stays readable and writable until closed. A commit under way may still make the object:
        call :meth:`commit` after this (it returns None when no commit is under way any more)
        before deleting the key. Bytes that had streamed out of memory under the file's own key
        are gone.
        """
        self._unlinked = True
        if self._attempt is None:
            self._disown()

    def set_aside(self, request: CommitRequest) -> str:
        """Move uncommitted data to ``unsaved/``; returns its path there.

        Blocks for the time of writing what is in memory to disk. Parts that only the store has
        stay there in their upload, which the record names. The file is of no use afterwards but
        to be closed.

        Raises:
            OSError: the disk is full; nothing is changed.
        """
        context, content, stream = self._context, self._content, self._stream
        staging = content.staging
        if staging is None:
            staging = Staging(context.journal, context.local, context.journal.create_staging())
        try:
            record = content.description(staging.ident, request)
            if stream is not None:
                record = stream.write_down(staging, record)
            path = staging.set_aside(record)
        except OSError:
            if content.staging is None:
                staging.close()
            raise
        content.staging = staging
        if stream is not None and record.sent is not None:
            stream.keep_upload()
            context.journal.forget_upload(record.sent.upload)
        if content.scratch and content.base is not None:
            # The record leads to the hidden object from now on; it must outlive this file.
            content.scratch = False
            context.journal.forget_scratch(content.base.key)
        self._unlinked = True
        return str(path)

    async def close(self) -> None:
        """Free memory and files. Never uploads.

        What is dirty and in a staging file stays there for the next mount to find.
        """
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self._content.scratch and not self.dirty:
            self._delete_scratch(self._content.base)
        self._content.close()
        await trio.lowlevel.checkpoint()

    # -- inside: reading -------------------------------------------------------------------------

    async def _piece(self, position: int, end: int) -> memoryview | bytes:
        while True:
            stream = self._stream
            if stream is None:
                base = self._content.base
                try:
                    return await self._content.piece(position, end)
                except VersionChangedError:
                    # Our own commit may have replaced the version while it was being read.
                    if self._content.base == base:
                        raise
                    continue
            view = stream.view(position, end)
            if view is not None:
                return view
            async with self._lock:
                if self._stream is stream and stream.view(position, end) is None:
                    await self._recall(stream)

    async def _read_version(self, version: ObjectVersion, offset: int, size: int) -> memoryview:
        buffer = memoryview(bytearray(min(size, version.size - offset)))
        context = self._context
        await context.network.run(context.store.get_range_into, version, offset, buffer)
        return buffer

    # -- inside: out of memory -------------------------------------------------------------------

    def _target(self) -> tuple[CommitRequest, bool] | None:
        """What a stream's upload begins with, and whether under a hidden key."""
        request = self._request_if_stored()
        if request is None:
            return None
        if self.expects_rereads:
            return CommitRequest(self._context.spill_key()), True
        return request, False

    def _new_content(self, base: ObjectVersion | None) -> StagedContent:
        return StagedContent(
            self._context, self._schedule, base, self._read_base, self._request_if_stored
        )

    def _request_if_stored(self) -> CommitRequest | None:
        return None if self._unlinked or self._hint is None else self._hint()

    async def _leave_memory(self) -> None:
        """Continue on disk."""
        stream = self._stream
        if stream is None:
            return
        if stream.has_lost:
            await self._recall(stream)
            return
        await self._content.adopt(stream.pieces(), stream.size)
        self._stream = None
        upload = stream.leave(self._request_if_stored(), self._schedule)
        if upload is not None:
            self._content.adopt_upload(upload)
        stream.close()

    async def _recall(self, stream: StreamedContent) -> None:
        """Make the bytes a stream has sent readable again, as the base."""
        request = self._request_if_stored()
        version, hidden = await stream.recall(request.key if request is not None else None)
        self._content.adopt_base(version, partial(self._read_version, version), scratch=hidden)
        self._stream = None
        stream.close()
        if not hidden:
            self._early = version
            if self._on_stored is not None:
                self._on_stored(version)

    # -- inside: changing --------------------------------------------------------------------------

    def _check_size(self, size: int) -> None:
        if size > min(self._context.limits.parts.max_object, self._schedule.capacity):
            raise FileTooLargeError(f"{size} bytes are more than one object can hold")

    async def _empty(self) -> None:
        if self._content.scratch:
            self._delete_scratch(self._content.base)
            self._content.scratch = False
        if self._stream is not None:
            self._stream.close()
        elif not self._memory_first:
            self._content.drop_upload()
            await self._content.truncate(0)
            return
        base = self._content.base
        self._content.disown()
        self._content.close()
        self._content = self._new_content(base)
        self._content.size = self._content.base_valid = 0
        if self._unlinked:
            self._content.disown()
        self._stream = StreamedContent(self._context, self._target)

    def _disown(self) -> None:
        if self._stream is not None:
            self._stream.stop_sending()
        self._content.disown()

    # -- inside: committing ------------------------------------------------------------------------

    async def _commit(self, request: CommitRequest) -> ObjectVersion | None:
        if not self.dirty:
            return None if self._unlinked else self._content.base
        try:
            version = None
            if self._stream is not None:
                version = await self._stream.commit(request, await self._condition(request))
                if version is None:
                    await self._recall(self._stream)
            if version is None:
                version = await self._content.commit(request, await self._condition(request))
        except StoreUnavailableError:
            self._unanswered = request
            raise
        if version.size != self.size:
            raise IntegrityError(
                f"the store keeps {version.size} bytes of {self.size}", key=version.key
            )
        scratch = self._content.base if self._content.scratch else None
        self._content.committed(version, self._read_base)
        if self._stream is not None:
            self._stream.close()
            again = self._memory_first and not version.size
            self._stream = StreamedContent(self._context, self._target) if again else None
        self._changed = False
        self._early = None
        self._unanswered = None
        self._delete_scratch(scratch)
        return version

    async def _condition(self, request: CommitRequest) -> Condition:
        """The request's condition, seen past what we stored ourselves meanwhile."""
        condition = await self._condition_now(request)
        return replace(condition, repeated=self._unanswered == request)

    async def _condition_now(self, request: CommitRequest) -> Condition:
        if self._early is None or request.condition == ALWAYS or self._early.key != request.key:
            return request.condition
        context = self._context
        capabilities = await context.network.run(context.store.capabilities)
        if capabilities.conditional_replace:
            return Condition(only_if_etag=self._early.etag)
        return ALWAYS

    def _delete_scratch(self, version: ObjectVersion | None) -> None:
        if version is None:
            return
        context = self._context
        context.tidying.begin()
        try:
            context.network.submit(
                partial(_delete_scratch, context, version.key),
                lambda _result: context.tidying.end(),
                urgent=False,
            )
        except RuntimeError:
            # The mount has closed its threads; the journal leads the next one to the object.
            context.tidying.end()


def _delete_scratch(context: WriteContext, key: str) -> None:
    try:
        context.store.delete(key)
        context.journal.forget_scratch(key)
    except (StoreError, OSError) as exc:
        log.warning("a hidden object of this mount stays for the next mount to delete: %s", exc)

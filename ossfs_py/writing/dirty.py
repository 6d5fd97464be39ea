"""One file that is being written: its bytes until they are an object, and how they are stored."""

from dataclasses import replace

from ossfs_py.errors import (
    FileTooLargeError,
    IntegrityError,
    SourceChangedError,
    StoreError,
    StoreUnavailableError,
    UnsavedDataError,
    VersionChangedError,
)
from ossfs_py.model import CommitRequest, Condition, ObjectVersion
from ossfs_py.runtime.arrived import Written, parted
from ossfs_py.runtime.locks import PromptLock
from ossfs_py.writing.committing import CommitAttempt, condition_past
from ossfs_py.writing.content import Base, Committer, Content, LentFile, ReadBase
from ossfs_py.writing.contents import Contents
from ossfs_py.writing.context import WriteContext
from ossfs_py.writing.disk_content import DiskContent
from ossfs_py.writing.memory_content import MemoryContent
from ossfs_py.writing.requests import delete_hidden
from ossfs_py.writing.small_content import SmallContent
from ossfs_py.writing.twins import copied_from_twin
from ossfs_py.writing.vanished_content import VanishedContent


class DirtyFile:
    """A file that is written. The open file of a data path delegates to it after the first change.

    It chooses where new bytes wait, and lets changes take turns. With ``memory_first`` a file
    written in order from its beginning is held in memory only, and streams to the store; otherwise,
    and after any other change, new bytes wait in a staging file. In both cases full parts of a new
    file are sent while the program goes on writing.

    Bytes that a stream has sent cannot be read from anywhere. If they are needed after all (to
    read, overwrite or truncate them), the upload is completed early and its object becomes the
    base. Before the first part is sent, the key is chosen. If rereads are expected, or the file's
    own key is about to change, it is a hidden key, and the object is copied to the file's key at
    commit. Otherwise it is the file's own key, as if fsync had been called at that moment, and
    ``committer`` is told.

    Writes, truncations and commits take turns. A commit sees one state of the file. A write during
    a commit waits for it (as a write to a page under writeback does), and makes the file dirty
    again. Reads never wait for a commit. All methods belong to the trio thread.
    """

    def __init__(
        self,
        context: WriteContext,
        base: ObjectVersion | None,
        read_base: ReadBase,
        committer: Committer,
        *,
        memory_first: bool,
        expects_rereads: bool = False,
    ) -> None:
        self._context = context
        self._committer = committer
        self._memory_first = memory_first
        self._contents = Contents(context, read_base, committer, expects_rereads=expects_rereads)
        self._most_bytes = self._contents.most_bytes
        self._seen = base
        self._early: ObjectVersion | None = None
        self._unanswered: CommitRequest | None = None
        """A commit that was given up and may have been carried out, including its metadata."""
        self.adopted = False
        """Whether an earlier daemon may have sent the bytes of the next commit. Also kept by
        :class:`~ossfs_py.writing.inherited.InheritedFile`.
        """
        self._lock = PromptLock()
        self._attempt: CommitAttempt | None = None
        self._content: Content
        if memory_first and (base is None or not base.size):
            self._content = self._contents.memory(is_new=base is None)
        elif base is None:
            self._content = self._contents.small()
        else:
            self._content = self._contents.disk(Base(base), changed=False)

    # -- state known without waiting -------------------------------------------------------------

    @property
    def size(self) -> int:
        """Present size in bytes."""
        return self._content.size

    @property
    def dirty(self) -> bool:
        """Whether a commit would have anything to store."""
        return self._content.changed and not self._contents.unlinked

    @property
    def unstored(self) -> bool:
        """Whether the store has other bytes, or none, under the file's key."""
        return self._content.changed

    @property
    def bound(self) -> bool:
        """Whether bytes that were sent can become an object only under the file's present key."""
        return self._content.bound

    @property
    def lost(self) -> bool:
        """Whether bytes can be read only after an upload to the file's present key has ended."""
        return self._content.lost

    @property
    def fleeting(self) -> bool:
        """Whether bytes of it are lost with this process, or were lost with the earlier one."""
        content = self._content
        return self.vanished or (isinstance(content, MemoryContent) and content.size > 0)

    @property
    def vanished(self) -> bool:
        """Whether its bytes were lost with the earlier daemon."""
        return isinstance(self._content, VanishedContent)

    @property
    def seen(self) -> ObjectVersion | None:
        """The version the file was last stored as, or began as; None for a new file."""
        return self._seen

    def expect_rereads(self) -> None:
        """The written bytes will probably be read back before close (opened for both)."""
        self._contents.expects_rereads = True

    def rebase(self, version: ObjectVersion) -> None:
        """The bytes stored last are under another key now, or have another ETag."""
        self._seen = version
        base = self._content.base
        if base is None or not (base.hidden or base.borrowed):
            self._early = None
            self._content.rebase(version)

    def lend(self) -> LentFile | None:
        """The committed bytes that are in a local file, if any are, and until they change."""
        return self._content.lend()

    # -- reading ---------------------------------------------------------------------------------

    def read_nowait(self, offset: int, size: int) -> memoryview | bytes | None:
        """The bytes, clipped at the end of file, if they are in one piece of memory.

        A memoryview is valid until the caller's next checkpoint.
        """
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        view = self._content.view(offset, end)
        return view if view is not None and len(view) == end - offset else None

    async def read(self, offset: int, size: int) -> memoryview | bytes:
        """The bytes, clipped at the end of file.

        Raises:
            StoreError: they could not be read from the store.
            UnsavedDataError: the file was unlinked while it streamed; the bytes are gone.
        """
        pieces: list[bytes] = []
        position = offset
        while position < (end := min(offset + size, self.size)):
            piece = await self._piece(position, end)
            if not piece:
                break  # it was truncated in the meantime
            position += len(piece)
            if not pieces and position >= end:
                return piece
            # A view is valid only until the next checkpoint.
            pieces.append(bytes(piece))
        return b"".join(pieces)

    # -- changing --------------------------------------------------------------------------------

    async def write(self, offset: int, data: Written) -> int:
        """Take ``data`` at any offset; returns its length.

        If this is cancelled, some bytes may have been taken.

        Raises:
            OSError: ENOSPC; bytes taken before, also of ``data``, are kept.
            FileTooLargeError: nothing was taken.
            UnsavedDataError: the file was set aside; nothing was taken.
            StoreError: a part could not be sent earlier; it is kept and tried again.
        """
        view, arrived = parted(data)
        self._check_size(offset + len(view))
        async with self._lock:
            self._check_in_use()
            if not view:
                return 0
            await self._settle()
            taken = await self._content.write(offset, view, arrived)
            if taken < len(view):
                await self._continue_on_disk()
                await self._content.write(offset + taken, view[taken:])
        return len(view)

    def write_nowait(self, offset: int, data: Written) -> bool:
        """As :meth:`write`, if nothing has to be waited for; False: nothing has happened."""
        if self._lock.locked() or self._contents.kept is not None or self._borrows or not data:
            return False
        view, arrived = parted(data)
        within = offset + len(view) <= self._most_bytes
        return within and self._content.write_nowait(offset, view, arrived)

    async def stay_readable(self) -> None:
        """Keep the written bytes on disk, so that none are only in the upload of a failed commit.

        Raises:
            OSError: the disk is full.
            StoreError: bytes were sent, and no readable object could be made of them.
        """
        async with self._lock:
            if not isinstance(self._content, SmallContent | VanishedContent):
                await self._continue_on_disk()

    async def truncate(self, size: int) -> None:
        """Truncate or extend with zeros.

        Raises:
            As :meth:`write`.
        """
        self._check_size(size)
        async with self._lock:
            if size == 0 and self.vanished:
                self._contents.kept = None  # later writes make another file
                await self._begin_anew()
            if size == self.size:
                return
            self._check_in_use()
            if size == 0 and (self._memory_first or self._borrows or self._may_be_small):
                await self._begin_anew()
                return
            await self._settle()
            if not await self._content.truncate(size):
                await self._continue_on_disk()
                await self._content.truncate(size)

    async def borrow(self, source: ObjectVersion, start: int, size: int) -> bool:
        """Become the first ``size`` bytes of another file's object, from being the first ``start``
        bytes of it. False, and nothing has changed, if the file has anything else. Moves no byte.

        Commit soon: until then its owner may remove the object, and the bytes are gone.
        """
        capabilities = await self._context.network.run(self._context.store.capabilities)
        async with self._lock:
            self._check_in_use()
            if self._contents.unlinked or self.size != start or not capabilities.part_copy:
                return False
            base = Base(source, borrowed=True)
            content = self._content
            if start:
                return (
                    isinstance(content, DiskContent)
                    and content.base == base
                    and content.borrow(size)
                )
            new = self._contents.disk(base, changed=True)
            new.borrow(size)
            self._replace(new)
        return True

    # -- storing -----------------------------------------------------------------------------------

    async def commit(self, request: CommitRequest) -> ObjectVersion | None:
        """Make an object of everything written so far; None if nothing was dirty.

        Concurrent callers with one request share one upload and its result. After an error
        everything is still dirty, parts that the store has accepted count, and the next call tries
        the rest again. If this is cancelled, the next call continues with the parts in flight; a
        PUT or completion in flight is waited for.

        Raises:
            ConditionFailedError: the request's condition does not hold; the data is kept.
            VersionChangedError: the object under the changes is another one now.
            SourceChangedError: the object that was borrowed is another one now, or gone.
            FileTooLargeError: holes would have to be sent as too many zeros; none was sent.
            UnsavedDataError: the file was set aside, or the store dropped an upload with bytes sent
                before.
            StoreError, OSError: the object could not be made.
        """
        while (running := self._attempt) is not None:
            await running.done.wait()
            if running.request == request:
                if running.error is not None:
                    raise running.error
                if running.version is not None:
                    return running.version
        if self._contents.unlinked:
            async with self._lock:
                return None  # the bytes read back from the store are there, or will never be
        if not self.dirty:
            return None
        self._check_in_use()
        attempt = self._attempt = CommitAttempt(request)
        try:
            async with self._lock:
                attempt.version = await self._commit(request)
        except Exception as exc:
            attempt.error = exc
            raise
        finally:
            self._attempt = None
            attempt.done.set()
            if self._contents.unlinked:
                self._content.disown()
        return attempt.version

    async def secure(self, request: CommitRequest) -> bool:
        """Keep everything here until it is committed as ``request`` says: across a crash at once,
        across a power loss within about a second. False if that is not possible: commit then.

        Raises:
            OSError: the disk is full, among others.
        """
        async with self._lock:
            if not self.dirty:
                return True
            self._check_in_use()
            if self._content.streaming or self._borrows:
                return False  # all or most of it is at the store already
            if await self._content.secure(request):
                return True
            small = self._contents.small()
            if isinstance(small, SmallContent) and small.take_over(self._content):
                self._content = small
            else:
                await self._continue_on_disk()
            return await self._content.secure(request)

    def secure_nowait(self, request: CommitRequest) -> bool:
        """As :meth:`secure`, for a small file, if nothing has to be waited for; False: nothing has
        happened.
        """
        content = self._content
        return (
            isinstance(content, SmallContent)
            and self.dirty
            and not (self._lock.locked() or self._contents.kept is not None)
            and content.secure_nowait(request)
        )

    async def redescribe(self, request: CommitRequest) -> None:
        """Commit the unchanged bytes that :meth:`secure` has kept as ``request`` says.

        Raises:
            OSError: the disk is full, among others; the former request stays valid.
        """
        async with self._lock:
            if self.dirty and self._contents.kept is None:
                await self._content.redescribe(request)

    def redescribe_nowait(self, request: CommitRequest) -> bool:
        """As :meth:`redescribe`, in the same way as :meth:`secure_nowait`."""
        content = self._content
        return (
            isinstance(content, SmallContent)
            and self.dirty
            and not (self._lock.locked() or self._contents.kept is not None)
            and content.redescribe_nowait(request)
        )

    def abandon(self) -> None:
        """The file was unlinked: never store it.

        It stays readable and writable until closed. A running commit may still make the object:
        call :meth:`commit` after this (it returns None when no commit is running) before deleting
        the key. Bytes that had streamed out of memory under the file's own key are gone.
        """
        self._contents.unlinked = True
        # A running commit reads a staging file. The bytes of a small file are in memory, and their
        # entry in the journal would bring the file back if the daemon died before the answer.
        if self._attempt is None or isinstance(self._content, SmallContent):
            self._content.disown()

    def set_aside(self, request: CommitRequest) -> str | None:
        """Move uncommitted data to ``unsaved/``; returns its path there, None if that was done
        before.

        Blocks while bytes in memory are written to disk. Parts that only the store has stay there
        in their upload, which the record names. The file stays dirty for ever: every further write
        and commit of an open descriptor fails.

        Raises:
            OSError: the disk is full; nothing is changed.
        """
        if self._contents.kept is not None:
            return None
        self._contents.kept = self._content.set_aside(request, self._seen)
        return str(self._contents.kept)

    def _check_in_use(self) -> None:
        kept = self._contents.kept
        if kept is not None and not self.vanished:
            raise UnsavedDataError(f"the file could not be saved and is kept in {kept}")

    async def close(self) -> None:
        """Free memory and files. Never uploads.

        Dirty bytes in a staging file stay there for the next mount.
        """
        if not self.dirty:
            self._drop_hidden(self._content.base)
        self._content.close()

    # -- inside: choice of the content -------------------------------------------------------------

    async def _continue_on_disk(self) -> None:
        """Continue on disk with the bytes that are in memory, or have left it."""
        old = self._content
        if old.streaming and not self._contents.unlinked:
            await self._committer.before_replacing()
        content = await old.on_disk()
        if content is old:
            return
        self._content = content
        old.close()
        if self._contents.unlinked:
            content.disown()
        base = content.base
        if base is not None and not base.hidden:
            self._note_early(base.version)

    @property
    def _borrows(self) -> bool:
        """Whether bytes of the file are in another file's object, and in none of its own."""
        base = self._content.base
        return base is not None and base.borrowed

    async def _settle(self) -> None:
        """Let the store make an object of borrowed bytes before any of them change."""
        if not self._borrows:
            return
        request = self._contents.target()
        if request is None:
            return
        version = await self._content.commit(request, await self._condition(request))
        if version is None:
            raise RuntimeError("a content on disk can always be committed")
        self._content = self._content.committed(version)
        self._note_early(version)

    def _note_early(self, version: ObjectVersion) -> None:
        """The object exists, but the file will still become another one."""
        self._seen = self._early = version
        self._committer.stored_early(version)

    @property
    def _may_be_small(self) -> bool:
        return self._context.limits.small_bytes > 0 and not isinstance(self._content, SmallContent)

    async def _begin_anew(self) -> None:
        """Drop all bytes: the file is written from its beginning.

        Raises:
            OSError: the disk is full; nothing has changed.
        """
        if self._memory_first:
            self._replace(self._contents.memory(is_new=True))
            return
        content = self._contents.small()
        try:
            await content.truncate(0)  # the journal gets this before the old state goes
        except BaseException:
            content.disown()
            content.close()
            raise
        self._replace(content)

    def _replace(self, content: Content) -> None:
        """Continue with ``content``, and drop the former one."""
        old, self._content = self._content, content
        self._drop_hidden(old.base)
        old.disown()
        old.close()

    def _drop_hidden(self, base: Base | None) -> None:
        if base is not None and base.hidden:
            delete_hidden(self._context, base.version.key)

    # -- inside: reading -------------------------------------------------------------------------

    async def _piece(self, position: int, end: int) -> memoryview | bytes:
        """Bytes from ``position``; empty if the file ends there by now."""
        while True:
            content, base = self._content, self._content.base
            try:
                piece = await content.piece(position, end)
            except VersionChangedError:
                # Our own commit may have replaced the version while it was being read.
                if self._content is content and content.base == base:
                    raise
                continue
            if piece:
                return piece
            async with self._lock:
                # A running change is over, and no other begins.
                if position >= self.size:
                    return b""
                if self._content is not content:
                    continue
                piece = await content.piece(position, min(end, self.size))
                if piece:
                    return piece
                if piece is not None:
                    raise IntegrityError("bytes of the file are gone", operation="read")
                await self._continue_on_disk()

    def _check_size(self, size: int) -> None:
        if size > self._most_bytes:
            raise FileTooLargeError(f"{size} bytes are more than one object can hold")

    # -- inside: committing ------------------------------------------------------------------------

    async def _commit(self, request: CommitRequest) -> ObjectVersion | None:
        if not self.dirty:
            return None if self._contents.unlinked else self._seen
        self._check_in_use()
        try:
            condition = await self._condition(request)
            version = await copied_from_twin(
                self._context, self._content, self._committer.twins, request, condition
            )
            if version is None:
                version = await self._content.commit(request, condition)
            if version is None:
                await self._continue_on_disk()
                version = await self._content.commit(request, await self._condition(request))
        except StoreError as exc:
            if isinstance(exc, StoreUnavailableError):
                self._unanswered = request
            made = self._content.made
            if made is not None and made != self._early:
                self._note_early(made)
            if isinstance(exc, VersionChangedError) and self._borrows:
                raise SourceChangedError(
                    "the object that is copied was replaced", key=request.key
                ) from exc
            raise
        if version is None:
            raise RuntimeError("a content on disk can always be committed")
        if version.size != self.size:
            raise IntegrityError(
                f"the store keeps {version.size} bytes of {self.size}", key=version.key
            )
        base = self._content.base
        self._committer.made(version)
        self._content = self._content.committed(version)
        self._seen = version
        self._early = None
        self._unanswered = None
        self.adopted = False
        self._drop_hidden(base)
        return version

    async def _condition(self, request: CommitRequest) -> Condition:
        """The request's condition, with our own stores in the meantime taken into account."""
        condition = await condition_past(self._early, request, self._context)
        if not (self.adopted or self._unanswered == request):
            return condition
        return replace(condition, repeated=True)

"""The bytes of one open inode: a shared reader, and a dirty file once somebody writes.

Every data path hands out this class; they differ in the backend of their readers and in where
dirty bytes wait.
"""

import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from ossfs_py.datapath.base import PlainFile
from ossfs_py.model import CommitRequest, ObjectInfo, ObjectVersion
from ossfs_py.reading.reader import VersionReader
from ossfs_py.reading.readers import ReaderCache
from ossfs_py.runtime.arrived import Written
from ossfs_py.runtime.scattered import Answer
from ossfs_py.writing.content import Committer
from ossfs_py.writing.context import WriteContext
from ossfs_py.writing.dirty import DirtyFile
from ossfs_py.writing.inherited import InheritedFile
from ossfs_py.writing.records import DirtyRecord

CommittedHook = Callable[[DirtyFile, ObjectVersion], None]
"""Called with every version that this mount wrote, while its dirty file is still open."""

OpenPlain: TypeAlias = Callable[[ObjectVersion], Awaitable[PlainFile | None]]
"""Opens the local file of a version that others may read."""


class ObjectFile:
    """Implements :class:`ossfs_py.datapath.base.OpenFile`, and is its dirty file's committer."""

    def __init__(
        self,
        version: ObjectVersion | None,
        committer: Committer,
        readers: ReaderCache,
        writes: WriteContext,
        *,
        memory_first: bool,
        on_committed: CommittedHook | None = None,
        open_plain: OpenPlain | None = None,
    ) -> None:
        self._version = version
        self._committer = committer
        self._readers = readers
        self._writes = writes
        self._memory_first = memory_first
        self._on_committed = on_committed
        self._open_plain = open_plain
        self._reader: VersionReader | None = None
        self._expects_rereads = False
        self._abandoned = False
        self._dirty = self._new_dirty() if version is None else None

    def expect_rereads(self) -> None:
        """Somebody opened the file for reading and writing both."""
        self._expects_rereads = True
        if self._dirty is not None:
            self._dirty.expect_rereads()

    @property
    def version(self) -> ObjectVersion | None:
        """The version last read from or committed to the store."""
        return self._version

    @property
    def size(self) -> int:
        """Current size, uncommitted writes included."""
        if self._dirty is not None:
            return self._dirty.size
        return self._version.size if self._version is not None else 0

    @property
    def dirty(self) -> bool:
        """Whether a commit would have to bring anything to the store."""
        return self._dirty is not None and self._dirty.dirty

    @property
    def unstored(self) -> bool:
        """Whether it has bytes that no object has, whether or not anybody wants them stored."""
        return self._dirty is not None and self._dirty.unstored

    @property
    def bound(self) -> bool:
        """Whether bytes that have left can become an object under the file's present key only."""
        return self._dirty is not None and self._dirty.bound

    @property
    def lost(self) -> bool:
        """Whether bytes can be had only by finishing an upload to the file's present key."""
        return self._dirty is not None and self._dirty.lost

    @property
    def fleeting(self) -> bool:
        """Whether bytes of it end with this process, or have ended with the one before."""
        return self._dirty is not None and self._dirty.fleeting

    @property
    def vanished(self) -> bool:
        """Whether its bytes have ended with the daemon before."""
        return self._dirty is not None and self._dirty.vanished

    # -- reading ---------------------------------------------------------------------------------

    def read_nowait(self, offset: int, size: int) -> Answer | None:
        """Bytes in memory, clipped at the end of file; None if they are not all there."""
        if self._dirty is not None:
            return self._dirty.read_nowait(offset, size)
        reader = self._reader
        if reader is None:
            if self._version is None:
                return None
            if not self._readers.has(self._version):
                written = self._writes.small.recall(self._version)
                return None if written is None else memoryview(written)[offset : offset + size]
            reader = self._reader_of(self._version)  # others read it, or it was fetched ahead
        end = min(offset + size, reader.version.size)
        return reader.read_nowait(offset, end) if end > offset else b""

    def ask(self, offset: int, size: int, then: Callable[[], None]) -> bool:
        """Have bytes of a small file fetched without a task that waits; see the protocol."""
        if self._dirty is not None or self._version is None:
            return False
        end = min(offset + size, self._version.size)
        return end > offset and self._reader_of(self._version).ask(offset, end, then)

    async def read(self, offset: int, size: int) -> memoryview | bytes:
        """Bytes, clipped at the end of file; waits for what is missing."""
        if self._dirty is not None:
            return await self._dirty.read(offset, size)
        if self._version is None:
            return b""
        return await self._read_version(self._version, offset, size)

    async def plain(self) -> PlainFile | None:
        """A local file that others may read in this one's place; see the protocol."""
        if self._open_plain is None or self._dirty is not None or self._version is None:
            return None
        return await self._open_plain(self._version)

    async def told(self) -> ObjectInfo | None:
        """The description that came with the first bytes of a small object; see the protocol."""
        if self._dirty is not None or self._version is None or not self._version.size:
            return None
        return await self._reader_of(self._version).told()

    async def _read_version(
        self, version: ObjectVersion, offset: int, size: int
    ) -> memoryview | bytes:
        reader = self._reader_of(version)
        end = min(offset + size, version.size)
        return await reader.read(offset, end) if end > offset else b""

    def _reader_of(self, version: ObjectVersion) -> VersionReader:
        if self._reader is None or self._reader.version != version:
            self._release_reader()
            self._reader = self._readers.acquire(version)
        return self._reader

    def _release_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            self._readers.release(reader)

    # -- changing --------------------------------------------------------------------------------

    async def write(self, offset: int, data: Written) -> int:
        """Take ``data`` at ``offset``; returns len(data)."""
        await self._writable().write(offset, data)
        return len(data)

    def write_nowait(self, offset: int, data: Written) -> bool:
        """Take ``data`` at once, if that is possible; see the protocol."""
        return self._dirty is not None and self._dirty.write_nowait(offset, data)

    async def stay_readable(self) -> None:
        """Keep what is written on local disk; see the protocol."""
        await self._writable().stay_readable()

    async def truncate(self, size: int) -> None:
        """Cut off or extend with zeros."""
        if self._dirty is None and size == self.size:
            return
        await self._writable().truncate(size)

    async def borrow(self, source: ObjectVersion, start: int, size: int) -> bool:
        """Be the first ``size`` bytes of another file's object; see the protocol."""
        return await self._writable().borrow(source, start, size)

    def _writable(self) -> InheritedFile:
        if self._dirty is None:
            self._dirty = self._new_dirty()
        return self._dirty

    def _new_dirty(self) -> InheritedFile:
        dirty = InheritedFile(
            self._writes,
            self._version,
            self._read_version,
            self,
            memory_first=self._memory_first,
            expects_rereads=self._expects_rereads,
        )
        if self._abandoned:
            dirty.abandon()
        return dirty

    # -- bringing it to the store ------------------------------------------------------------------

    @property
    def key_settled(self) -> bool:
        """Whether the file keeps its key until it is committed next, for its dirty file."""
        return self._committer.key_settled

    @property
    def writer(self) -> int:
        """See :class:`Committer`."""
        return self._committer.writer

    def twins(self, size: int) -> Sequence[ObjectVersion]:
        """See :class:`Committer`."""
        return self._committer.twins(size)

    def largest_twin(self) -> int:
        """See :class:`Committer`."""
        return self._committer.largest_twin()

    def request(self) -> CommitRequest:
        """How the file would be committed now, for its dirty file."""
        return self._committer.request()

    @property
    def owner(self) -> str:
        """See :class:`Committer`."""
        return self._committer.owner

    def made(self, version: ObjectVersion) -> None:
        """See :class:`Committer`."""
        self._committer.made(version)

    async def before_replacing(self) -> None:
        """See the protocol."""
        await self._committer.before_replacing()

    def stored_early(self, version: ObjectVersion) -> None:
        """The dirty file had to complete its object before a commit requested it."""
        self._version = version
        self._committer.stored_early(version)

    async def commit(self, request: CommitRequest) -> ObjectVersion | None:
        """Bring everything written so far to the store; None when nothing was dirty."""
        if self._dirty is None or not self._dirty.dirty:
            return None
        version = await self._dirty.commit(request)
        if version is not None:
            self._release_reader()
            self._version = version
            if self._on_committed is not None:
                self._on_committed(self._dirty, version)
        return version

    async def secure(self, request: CommitRequest) -> bool:
        """Keep everything written so far on local disk; False if it has to be committed."""
        return self._dirty is None or await self._dirty.secure(request)

    def secure_nowait(self, request: CommitRequest) -> bool:
        """As :meth:`secure`, if nothing has to be waited for; see the protocol."""
        return self._dirty is None or self._dirty.secure_nowait(request)

    async def redescribe(self, request: CommitRequest) -> None:
        """Data on local disk will be committed as ``request`` says."""
        if self._dirty is not None:
            await self._dirty.redescribe(request)

    def redescribe_nowait(self, request: CommitRequest) -> bool:
        """As :meth:`redescribe`, if nothing has to be waited for; see the protocol."""
        return self._dirty is None or self._dirty.redescribe_nowait(request)

    async def preserve(self, replacement: ObjectVersion) -> None:
        """Read on from a server-side copy of the same bytes."""
        if self._reader is not None and self._reader.version == self._version:
            self._readers.rebase(self._reader, replacement)
        self._version = replacement
        if self._dirty is not None:
            self._dirty.rebase(replacement)

    def abandon(self) -> None:
        """Drop uncommitted data, and whatever will be written yet, on purpose."""
        self._abandoned = True
        if self._dirty is not None:
            self._dirty.abandon()

    def adopt(self, record: DirtyRecord) -> None:
        """Go on with what an earlier daemon has left in a staging file; see the protocol."""
        dirty = self._writable()
        dirty.adopt(record)
        self._abandoned = record.unlinked

    def adopt_emptied(self) -> None:
        """An earlier daemon had cut it to nothing; see the protocol."""
        if self._version is not None:
            self._writable().adopt_emptied()

    def adopt_vanished(self, size: int, request: CommitRequest | None) -> None:
        """Its bytes have ended with an earlier daemon; see the protocol."""
        self._writable().adopt_vanished(size, request)

    @property
    def adopted(self) -> bool:
        """Whether an earlier daemon may have sent what the next commit sends."""
        return self._dirty is not None and self._dirty.adopted

    async def is_in(self, version: ObjectVersion) -> bool | None:
        """Whether an object is what a commit of an earlier daemon would have made of it. None: it
        has the same size, and there are no bytes to compare.
        """
        return self._dirty is not None and await self._dirty.is_in(version)

    def found_stored(self, version: ObjectVersion) -> None:
        """An earlier daemon has committed it, and did not live to know."""
        if self._dirty is not None:
            self._dirty.found_stored(version)
            self._version = version

    def set_aside(self, request: CommitRequest) -> str | None:
        """Move uncommitted data to ``unsaved/``; returns its path, None if that was done before."""
        return self._writable().set_aside(request)

    def close_nowait(self) -> bool:
        """As :meth:`close`, of a file that nobody has written to; see the protocol."""
        if self._dirty is not None:
            return False
        self._release_reader()
        # As below.
        self._committer = weakref.proxy(self._committer)
        return True

    async def close(self) -> None:
        """Free memory and temporary files; never uploads."""
        self._release_reader()
        dirty, self._dirty = self._dirty, None
        if dirty is not None:
            await dirty.close()
        # The open inode refers to this file: such a circle would wait for Python's collector.
        self._committer = weakref.proxy(self._committer)

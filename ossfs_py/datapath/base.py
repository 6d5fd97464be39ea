"""The protocol of a data path: how the bytes of open files are read and written.

One :class:`OpenFile` exists per inode and object version, shared by every descriptor of that
inode, so that N readers of one model cost one download and every descriptor sees every write.
"""

from collections.abc import Callable
from typing import Protocol

from ossfs_py.model import CommitRequest, ObjectInfo, ObjectVersion
from ossfs_py.runtime.arrived import Written
from ossfs_py.runtime.buffers import Buffer
from ossfs_py.runtime.scattered import Answer
from ossfs_py.writing.content import Committer
from ossfs_py.writing.records import DirtyRecord


class PlainFile:
    """A file on local disk that holds the bytes of a stored version and nothing else, verified not
    long ago. Nobody changes it while it is open here, nor cuts it off later.
    """

    def __init__(self, fd: int, size: int, closed: "Callable[[PlainFile], None]") -> None:
        self.fd = fd
        self.size = size
        self._closed = closed

    def close(self) -> None:
        """Let it go; once."""
        self.fd = -1
        self._closed(self)


class OpenFile(Protocol):
    """The bytes of one inode while somebody has it open.

    All methods belong to the trio thread. Offsets and sizes are bytes.
    """

    @property
    def version(self) -> ObjectVersion | None:
        """The version last read from or committed to the store; None for a file never stored."""
        ...

    @property
    def size(self) -> int:
        """Current size, uncommitted writes included."""
        ...

    @property
    def dirty(self) -> bool:
        """Whether a commit would have anything to upload."""
        ...

    @property
    def unstored(self) -> bool:
        """Whether it has bytes that no object has, whether or not anybody wants them stored."""
        ...

    @property
    def bound(self) -> bool:
        """Whether bytes were uploaded, or are about to be, under the committer's key.

        Commit before the file is renamed.
        """
        ...

    @property
    def lost(self) -> bool:
        """Whether the only way to get some bytes is to finish an upload to that key.

        Commit before the file is removed while others have it open.
        """
        ...

    @property
    def fleeting(self) -> bool:
        """Whether bytes of it are in this process's memory only, or are :attr:`vanished`."""
        ...

    @property
    def vanished(self) -> bool:
        """Whether its bytes were in the memory of an earlier daemon only: until it is truncated to
        nothing, reads, writes and commits raise UnsavedDataError.
        """
        ...

    def expect_rereads(self) -> None:
        """Tell the file that a program opened it for both reading and writing."""
        ...

    def read_nowait(self, offset: int, size: int) -> Answer | None:
        """The bytes, clipped at the end of file, if they are in memory; None if they are not.

        A memoryview is valid until the caller's next checkpoint: use it before any await.
        """
        ...

    def ask(self, offset: int, size: int, then: Callable[[], None]) -> bool:
        """Begin to fetch a small file that nobody has read yet, for somebody who waits for these
        bytes without a task.

        ``then``, which must not raise, is called once when the request is over: the bytes are in
        memory, or :meth:`read` says why not. False: it is no such file, and nothing has happened.
        """
        ...

    async def read(self, offset: int, size: int) -> memoryview | bytes:
        """The bytes, clipped at the end of file; waits for missing bytes.

        Cancellation leaves downloads running for other readers.

        Raises:
            VersionChangedError: the object changed under the reader.
            StoreError: the bytes could not be fetched.
        """
        ...

    async def plain(self) -> PlainFile | None:
        """A local file that others may read in this one's place; None if there is none. The caller
        closes it. It may take a request to find out whether the store allows it.
        """
        ...

    async def told(self) -> ObjectInfo | None:
        """The description of a stored object that came with its first bytes.

        Meant for small objects: it fetches the whole object, and a later read finds it in memory.
        None if the bytes did not come from the store, or if the file is being written.

        Raises:
            VersionChangedError, StoreError: as of :meth:`read`.
        """
        ...

    async def write(self, offset: int, data: Written) -> int:
        """Take ``data`` at any offset (a gap reads as zeros); returns len(data).

        The caller reuses the memory of ``data`` after the call has returned.

        Waits while the memory or disk budget is used up. Cancelled before it returns, the write
        may or may not have happened.

        Raises:
            OSError: ENOSPC when the local disk is full; the data taken before is kept.
            FileTooLargeError: past the store's largest object.
        """
        ...

    def write_nowait(self, offset: int, data: Written) -> bool:
        """As :meth:`write`, if nothing has to be waited for; False: nothing has happened."""
        ...

    async def stay_readable(self) -> None:
        """From now on, keep every written byte readable, whatever a commit does.

        Raises:
            OSError: the local disk is full.
        """
        ...

    async def truncate(self, size: int) -> None:
        """Cut the file off, or extend it with zeros."""
        ...

    async def borrow(self, source: ObjectVersion, start: int, size: int) -> bool:
        """Make this file, which equals the first ``start`` bytes of another file's object, equal to
        its first ``size`` bytes. Returns False, and changes nothing, if the file is different.

        Commit soon: until then the object may be removed, and the bytes are lost.
        """
        ...

    async def commit(self, request: CommitRequest) -> ObjectVersion | None:
        """Upload everything written so far; returns None if nothing was dirty.

        Idempotent; concurrent calls share one upload. On error everything stays dirty and the
        next call tries again. After a cancellation, the next call continues the upload.

        Raises:
            FileTooLargeError: the holes of a sparse file are larger than may be sent as zeros.
        """
        ...

    async def secure(self, request: CommitRequest) -> bool:
        """Keep everything written so far on local disk, safe from a crash and a power loss, until
        it is committed. Returns False if it has to be committed now.

        Raises:
            OSError: the disk is full, among others.
        """
        ...

    def secure_nowait(self, request: CommitRequest) -> bool:
        """As :meth:`secure`, if nothing has to be waited for; False: nothing has happened."""
        ...

    async def redescribe(self, request: CommitRequest) -> None:
        """Change how the data that :meth:`secure` has kept will be committed, after its name or its
        attributes have changed.

        Raises:
            OSError: the disk is full, among others.
        """
        ...

    def redescribe_nowait(self, request: CommitRequest) -> bool:
        """As :meth:`redescribe`, if nothing has to be waited for; False: nothing has happened."""
        ...

    async def preserve(self, replacement: ObjectVersion) -> None:
        """Continue to read from ``replacement``, a server-side copy of the bytes under another key.

        Used before this file's key is deleted, or overwritten by a rename.
        """
        ...

    def abandon(self) -> None:
        """Drop uncommitted data on purpose (the file was unlinked): dirty becomes False."""
        ...

    def adopt(self, record: DirtyRecord) -> None:
        """Go on with the dirty bytes that an earlier daemon has left in a staging file. Before
        anything else is done with the file; blocks shortly.

        Raises:
            OSError: they cannot be opened.
        """
        ...

    def adopt_emptied(self) -> None:
        """Be empty, as an earlier daemon had made it, and has not stored. As :meth:`adopt`."""
        ...

    def adopt_vanished(self, size: int, request: CommitRequest | None) -> None:
        """Be a file whose bytes, so many, were in an earlier daemon's memory only, and were to
        become what ``request`` says; None: nobody wants them. As :meth:`adopt`.

        Raises:
            OSError: the disk is full, so that it is not told as unsaved.
        """
        ...

    @property
    def adopted(self) -> bool:
        """Whether an earlier daemon may have sent what the next commit sends."""
        ...

    async def is_in(self, version: ObjectVersion) -> bool | None:
        """Whether an object is what a commit of an earlier daemon would have made of what is dirty.
        None: it has the same size, and there are no bytes to compare.

        Raises:
            StoreError
        """
        ...

    def found_stored(self, version: ObjectVersion) -> None:
        """An earlier daemon committed what is dirty as ``version``, and did not live to know."""
        ...

    def set_aside(self, request: CommitRequest) -> str | None:
        """Move uncommitted data to the state directory's ``unsaved/``. Returns its path there, or
        None if that was done before.

        The file stays dirty: every further write and commit raises UnsavedDataError.
        """
        ...

    def close_nowait(self) -> bool:
        """As :meth:`close`, if nobody has written to the file; False: nothing has happened."""
        ...

    async def close(self) -> None:
        """Free memory and temporary files. Never uploads; uncommitted data is not touched
        (call commit, set_aside or abandon first)."""
        ...


class DataPath(Protocol):
    """One of temp, cache, direct."""

    def open(self, version: ObjectVersion | None, committer: Committer) -> OpenFile:
        """An open file over ``version``; None for a file that is not in the store yet.

        ``committer`` knows the key and the metadata that a commit would use at this moment, because
        parts are uploaded while the program still writes.
        """
        ...

    def prefetch(self, version: ObjectVersion) -> int | None:
        """Begin to fetch a whole small object that may be opened soon, after urgent work.

        Returns the bytes to fetch: 0 if nothing is missing, None if there is no free memory. An
        object that nobody opens is dropped after some seconds.
        """
        ...

    def copied(self, version: ObjectVersion, copy: ObjectVersion) -> None:
        """The store has made a copy, and the version will be gone soon: what is remembered of its
        bytes is the copy's from now on.
        """
        ...

    def room_to_land(self, size: int) -> Buffer | None:
        """Memory for bytes that a program is about to write, if they could stay there."""
        ...

    async def run(self) -> None:
        """Background work of the data path, until cancelled."""
        ...

    async def aclose(self) -> None:
        """Stop background work and free everything."""
        ...

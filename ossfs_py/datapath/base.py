"""The protocol of a data path: how the bytes of open files are read and written.

One :class:`OpenFile` exists per inode and object version, shared by every descriptor of that
inode, so that N readers of one model cost one download and every descriptor sees every write.
"""

from typing import Protocol

from ossfs_py.model import CommitRequest, ObjectInfo, ObjectVersion
from ossfs_py.writing.content import Committer
from ossfs_py.writing.records import DirtyRecord


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
        """Whether there is anything a commit would have to bring to the store."""
        ...

    @property
    def unstored(self) -> bool:
        """Whether it has bytes that no object has, whether or not anybody wants them stored."""
        ...

    @property
    def bound(self) -> bool:
        """Whether bytes were uploaded, or are about to be, under the key that the committer told.

        Commit before the file is renamed.
        """
        ...

    @property
    def lost(self) -> bool:
        """Whether bytes can be had only by finishing an upload to that key.

        Commit before the file is removed while others have it open.
        """
        ...

    def expect_rereads(self) -> None:
        """Somebody opened the file for reading and writing both."""
        ...

    def read_nowait(self, offset: int, size: int) -> memoryview | bytes | None:
        """The bytes, clipped at the end of file, if they are in memory; None if they are not.

        A memoryview is valid until the caller's next checkpoint: use it before any await.
        """
        ...

    async def read(self, offset: int, size: int) -> memoryview | bytes:
        """The bytes, clipped at the end of file; waits for what is missing.

        Cancellation leaves downloads running for other readers.

        Raises:
            VersionChangedError: the object changed under the reader.
            StoreError: the bytes could not be had.
        """
        ...

    async def told(self) -> ObjectInfo | None:
        """What the store said of a stored object beside its first bytes.

        Meant for small objects: it fetches the whole one, which a later read finds in memory. None
        if its bytes came from elsewhere, or if it is written.

        Raises:
            VersionChangedError, StoreError: as of :meth:`read`.
        """
        ...

    async def write(self, offset: int, data: bytes | memoryview) -> int:
        """Take ``data`` at any offset (a gap reads as zeros); returns len(data).

        ``data`` serves something else once it has returned.

        Waits while the memory or disk budget is used up. Cancelled before it returns, the write
        may or may not have happened.

        Raises:
            OSError: ENOSPC when the local disk is full; the data taken before is kept.
            FileTooLargeError: past the store's largest object.
        """
        ...

    async def stay_readable(self) -> None:
        """From now on every byte that is written can be read back, whatever a commit did.

        Raises:
            OSError: the local disk is full.
        """
        ...

    async def truncate(self, size: int) -> None:
        """Cut off or extend with zeros."""
        ...

    async def borrow(self, source: ObjectVersion, start: int, size: int) -> bool:
        """Be the first ``size`` bytes of another file's object, having been the first ``start`` of
        them; False, and nothing has changed, if the file is not just that.

        Commit soon: until then its owner may remove the object, and the bytes are gone.
        """
        ...

    async def commit(self, request: CommitRequest) -> ObjectVersion | None:
        """Bring everything written so far to the store; None when nothing was dirty.

        Idempotent; concurrent calls share one upload. On error everything stays dirty and the
        next call tries again. Cancelled, the upload is taken up again by the next call.

        Raises:
            FileTooLargeError: more of a sparse file are holes than may be sent as zeros.
        """
        ...

    async def secure(self, request: CommitRequest) -> bool:
        """Keep everything written so far on local disk, across a crash and a power loss, until it
        is committed; False if it has to be committed now.

        Raises:
            OSError: the disk is full, among others.
        """
        ...

    async def redescribe(self, request: CommitRequest) -> None:
        """What :meth:`secure` has kept is to be committed as ``request`` says: its name or its
        attributes are others now.

        Raises:
            OSError: the disk is full, among others.
        """
        ...

    async def preserve(self, replacement: ObjectVersion) -> None:
        """Read on from ``replacement``, a server-side copy of the same bytes under another key.

        Used before the key this file reads from is deleted or overwritten by rename.
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

    @property
    def adopted(self) -> bool:
        """Whether an earlier daemon may have sent what the next commit sends."""
        ...

    async def is_in(self, version: ObjectVersion) -> bool:
        """Whether an object is what a commit of an earlier daemon would have made of what is dirty.

        Raises:
            StoreError
        """
        ...

    def found_stored(self, version: ObjectVersion) -> None:
        """An earlier daemon committed what is dirty as ``version``, and did not live to know."""
        ...

    def set_aside(self, request: CommitRequest) -> str | None:
        """Move uncommitted data to the state directory's ``unsaved/``; returns its path there, None
        if that was done before.

        The file stays dirty: every further write and commit raises UnsavedDataError.
        """
        ...

    async def close(self) -> None:
        """Free memory and temporary files. Never uploads; uncommitted data is not touched
        (call commit, set_aside or abandon first)."""
        ...


class DataPath(Protocol):
    """One of temp, cache, direct."""

    def open(self, version: ObjectVersion | None, committer: Committer) -> OpenFile:
        """An open file over ``version``; None for a file that is not in the store yet.

        ``committer`` knows under which key and with which metadata a commit would happen at a
        moment: parts upload while the program still writes.
        """
        ...

    def prefetch(self, version: ObjectVersion) -> int | None:
        """Begin to fetch a whole small object that may be opened soon, behind urgent work.

        Returns the bytes fetched: 0 if nothing has to be, None if there is no memory to spare.
        What nobody opens is dropped after some seconds.
        """
        ...

    async def run(self) -> None:
        """Background work of the data path, until cancelled."""
        ...

    async def aclose(self) -> None:
        """Stop background work and free everything."""
        ...

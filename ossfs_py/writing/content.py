"""The content of a dirty file, and the interface to its owner."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from ossfs_py.extents import ExtentSet
from ossfs_py.model import CommitRequest, Condition, ObjectVersion
from ossfs_py.runtime.arrived import Arrived

ReadBase: TypeAlias = Callable[[ObjectVersion, int, int], Awaitable[bytes | memoryview]]
"""Reads bytes of a version, at least one: by offset and size."""

Target: TypeAlias = Callable[[], CommitRequest | None]
"""Returns the commit request for the file as of now; None if nobody will commit it."""


class Committer(Protocol):
    """The owner of a dirty file: knows its key, and is told of its commits.

    All methods are called on the trio thread; only :meth:`before_replacing` may raise.
    """

    @property
    def key_settled(self) -> bool:
        """Whether the file keeps its key until its next commit, as far as is known now.

        If the key is about to change, bytes that are sent for it can be read back only after an
        object appeared under it.
        """
        ...

    @property
    def writer(self) -> int:
        """The user of the latest write."""
        ...

    def twins(self, size: int) -> Sequence[ObjectVersion]:
        """Known objects of so many bytes in the file's directory, under other names; none if the
        mount does not look for equal ones.
        """
        ...

    def largest_twin(self) -> int:
        """Bytes of the largest object that may be one of them; 0 if there is none."""
        ...

    def request(self) -> CommitRequest:
        """Key and metadata of a commit, as of now.

        It is called when an upload begins, and when the journal records the file. An upload that
        began with another key is repeated at commit, one with other metadata costs a server-side
        copy. So leave out metadata that changes with every write (mtime).
        """
        ...

    @property
    def owner(self) -> str:
        """The journal's name for the program that has the file open; "" unless the open file
        outlives the daemon.
        """
        ...

    def made(self, version: ObjectVersion) -> None:
        """The object is now ``version``, with all bytes; called before the journal forgets them."""
        ...

    async def before_replacing(self) -> None:
        """The object under the key is about to be replaced before a commit asked for it.

        Raises:
            OssfsError: it must not be replaced.
        """
        ...

    def stored_early(self, version: ObjectVersion) -> None:
        """The upload had to be completed before a commit asked for it."""
        ...


@dataclass(frozen=True, slots=True)
class Base:
    """The object that a file's unchanged bytes are read from."""

    version: ObjectVersion
    hidden: bool = False
    """A hidden object of this mount, deleted after its last reader."""
    borrowed: bool = False
    """Another file's object: the owner of that file may remove it at any time."""


@dataclass(frozen=True, slots=True)
class LentFile:
    """Committed bytes in a local file, for another file to copy. ``give_back`` ends the loan."""

    fd: int
    spans: ExtentSet
    """The bytes of the object that are in the file, at the same offsets."""
    unchanged: Callable[[], bool]
    """False from before the first byte of the file changes; callable on any thread."""
    give_back: Callable[[], None]


class Content(Protocol):
    """The bytes ``[0, size)`` of one dirty file, and how they are stored.

    Changes (write, truncate, commit and their preparation) come from one task at a time; ``view``
    and ``piece`` from any. Offsets and sizes are bytes. All methods belong to the trio thread.
    """

    @property
    def size(self) -> int:
        """Present size."""
        ...

    @property
    def changed(self) -> bool:
        """Whether the store has other bytes, or none, under the file's key."""
        ...

    @property
    def base(self) -> Base | None:
        """The object that bytes are read from, if any."""
        ...

    @property
    def made(self) -> ObjectVersion | None:
        """The object that a commit made under the file's key although it failed afterwards."""
        ...

    @property
    def bound(self) -> bool:
        """Whether bytes that were sent, or are about to be, can become an object only under the
        file's present key.
        """
        ...

    @property
    def lost(self) -> bool:
        """Whether some bytes can be read only after an upload to the file's present key is
        finished.
        """
        ...

    @property
    def streaming(self) -> bool:
        """Whether bytes were sent that are kept nowhere here: to finish is faster than to stop."""
        ...

    @property
    def all_here(self) -> bool:
        """Whether every byte is kept here: none is in an object only, or was sent and dropped."""
        ...

    def view(self, position: int, end: int) -> memoryview | None:
        """Bytes from ``position``, as far as one piece of memory holds them; None if none does.

        Valid until the caller's next checkpoint.
        """
        ...

    async def piece(self, position: int, end: int) -> bytes | memoryview | None:
        """Bytes from ``position``, at most up to ``end`` (within the file).

        None: they were sent and cannot be read back from here. An empty result: the file was
        truncated in the meantime. If this is cancelled, nothing has happened.

        Raises:
            StoreError: they could not be read from the base.
        """
        ...

    async def write(self, offset: int, data: memoryview, arrived: Arrived | None = None) -> int:
        """Take ``data``; returns the number of bytes taken. The rest is for another content.

        If this is cancelled, some bytes may have been taken. ``arrived``: the memory that ``data``
        has arrived in, which may be kept.

        Raises:
            OSError: the disk is full; bytes that went in before are kept.
            StoreError: a part could not be sent earlier; it is tried again.
        """
        ...

    def write_nowait(self, offset: int, data: memoryview, arrived: Arrived | None = None) -> bool:
        """As :meth:`write`, if nothing has to be waited for; False: nothing has happened."""
        ...

    async def truncate(self, size: int) -> bool:
        """Truncate or extend with zeros; False if another content has to do it.

        Raises:
            As :meth:`write`.
        """
        ...

    async def on_disk(self) -> "Content":
        """A content with the same bytes that accepts any change; this one if it does.

        If it is another one, it replaces this one, and the caller closes this one. If this is
        cancelled or fails, this content is unchanged.

        Raises:
            OSError: the disk is full.
            UnsavedDataError: bytes were sent and cannot be read back.
            StoreError: bytes were sent, and no readable object could be made of them; call again.
        """
        ...

    async def secure(self, request: CommitRequest) -> bool:
        """Keep everything as a whole file until it is committed as ``request`` says or changed:
        across a crash at once, across a power loss within about a second. False if another content
        has to do it.

        Raises:
            OSError: the disk is full.
        """
        ...

    async def redescribe(self, request: CommitRequest) -> None:
        """Replace the request of the unchanged file that :meth:`secure` has kept by ``request``.

        Raises:
            OSError: the disk is full.
        """
        ...

    async def commit(self, request: CommitRequest, condition: Condition) -> ObjectVersion | None:
        """Make the object; None if it cannot be made from here.

        Only the record of the parts that the store has changes: call again after an error. If this
        is cancelled, parts in flight go on; a request that makes the object is waited for.

        Raises:
            ConditionFailedError: nothing was written.
            VersionChangedError: the base is another version now.
            UnsavedDataError: the store dropped an upload with bytes sent before.
            FileTooLargeError: holes would have to be sent as too many zeros.
            StoreError, OSError: the object could not be made.
        """
        ...

    def committed(self, version: ObjectVersion) -> "Content":
        """The file is now the object that :meth:`commit` made; returns the content to continue
        with.
        """
        ...

    def rebase(self, version: ObjectVersion) -> None:
        """The bytes of the base are under another key now."""
        ...

    def lend(self) -> LentFile | None:
        """The committed bytes that are in a local file, if there are any, and unchanged."""
        ...

    def disown(self) -> None:
        """The file was unlinked: nothing of it is stored, and a crash leaves nothing."""
        ...

    def set_aside(self, request: CommitRequest, seen: ObjectVersion | None) -> Path:
        """Move the bytes to ``unsaved/``; returns their path there.

        ``seen`` is the object that the file's key held when the writer last knew. Blocks while
        bytes in memory are written to disk. After that, the content can only be closed.

        Raises:
            OSError: the disk is full; nothing has changed.
        """
        ...

    def close(self) -> None:
        """Free memory and files; give up an upload that is neither complete nor kept.

        A file on disk that a record of the journal names stays there for the next mount.
        """
        ...

"""What a dirty file is made of, and what it asks of its owner."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from ossfs_py.extents import ExtentSet
from ossfs_py.model import CommitRequest, Condition, ObjectVersion

ReadBase: TypeAlias = Callable[[ObjectVersion, int, int], Awaitable[bytes | memoryview]]
"""Bytes of a version, at least one: offset and size."""

Target: TypeAlias = Callable[[], CommitRequest | None]
"""How the file would be committed now; None for one that nobody will commit."""


class Committer(Protocol):
    """The owner of a dirty file: knows its key and hears what became of it.

    Everything is asked on the trio thread; only :meth:`before_replacing` may raise.
    """

    @property
    def key_settled(self) -> bool:
        """Whether the file keeps its key until it is committed next, as far as is known now.

        What leaves for a key that is about to change can be read back only after an object
        appeared there.
        """
        ...

    @property
    def writer(self) -> int:
        """The user who wrote last, or writes now."""
        ...

    def twins(self, size: int) -> Sequence[ObjectVersion]:
        """Objects of so many bytes that are known to be in the file's directory, under other
        names; none if equal ones are not to be looked for.
        """
        ...

    def largest_twin(self) -> int:
        """Bytes of the largest object that may turn out to be one of them; 0 if there is none."""
        ...

    def request(self) -> CommitRequest:
        """Under which key and with which metadata a commit would happen now.

        Asked when an upload begins and when the journal takes note of the file. An upload that
        turns out to have begun with another key is done again at commit, one with other metadata
        costs a server-side copy: leave out of it what changes with every write (mtime).
        """
        ...

    @property
    def owner(self) -> str:
        """What the journal writes down of who has the file open; "" unless that outlives the
        daemon.
        """
        ...

    def made(self, version: ObjectVersion) -> None:
        """The object is ``version`` now, with all bytes; told before the journal forgets them."""
        ...

    async def before_replacing(self) -> None:
        """What the key holds is about to be replaced before a commit asked for it.

        Raises:
            OssfsError: it must not be.
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
    """A hidden object of this mount, deleted when nothing is read from it any more."""
    borrowed: bool = False
    """Another file's object: whoever owns that one may remove it at any time."""


@dataclass(frozen=True, slots=True)
class LentFile:
    """Committed bytes in a local file, for somebody to copy. ``give_back`` ends the loan."""

    fd: int
    spans: ExtentSet
    """Which bytes of the object are in the file, at the same offsets."""
    unchanged: Callable[[], bool]
    """False from before the first byte of the file changes; for any thread."""
    give_back: Callable[[], None]


class Content(Protocol):
    """The bytes ``[0, size)`` of one dirty file, and their way to the store.

    Changes (write, truncate, commit and what prepares them) come from one task at a time; ``view``
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
        """What a commit made under the file's key although it failed afterwards."""
        ...

    @property
    def bound(self) -> bool:
        """Whether bytes that have left, or are about to, can become an object under the present
        key of the file only.
        """
        ...

    @property
    def lost(self) -> bool:
        """Whether bytes can be had only by finishing an upload to the present key of the file."""
        ...

    @property
    def streaming(self) -> bool:
        """Whether bytes have left that are kept nowhere here: to finish is faster than to stop."""
        ...

    @property
    def all_here(self) -> bool:
        """Whether every byte is kept here: none is in an object only, or was sent away."""
        ...

    def view(self, position: int, end: int) -> memoryview | None:
        """Bytes from ``position``, as far as one piece of memory holds them; None if none does.

        Valid until the caller's next checkpoint.
        """
        ...

    async def piece(self, position: int, end: int) -> bytes | memoryview | None:
        """Bytes from ``position``, at most up to ``end`` (within the file).

        None: they have left and cannot be read back from here. Nothing: the file was cut off
        there meanwhile. Cancelled, nothing has happened.

        Raises:
            StoreError: they could not be had from the base.
        """
        ...

    async def write(self, offset: int, data: memoryview) -> int:
        """Take ``data``; returns how much of it, the rest is for another content.

        Cancelled, some of it may have been taken.

        Raises:
            OSError: the disk is full; what went in before is kept.
            StoreError: a part that left earlier could not be sent; it is tried again.
        """
        ...

    async def truncate(self, size: int) -> bool:
        """Cut off or extend with zeros; False if that is for another content.

        Raises:
            As :meth:`write`.
        """
        ...

    async def on_disk(self) -> "Content":
        """A content with the same bytes that takes any change, this one if it does.

        Another one replaces this one, which is to be closed then. Cancelled or failed, this one
        is what it was.

        Raises:
            OSError: the disk is full.
            UnsavedDataError: bytes have left and cannot be had back.
            StoreError: bytes have left and could not be made an object to read from; call again.
        """
        ...

    async def secure(self, request: CommitRequest) -> bool:
        """Keep everything as a whole file that is to become what ``request`` says, until it is
        committed or changed: across a crash at once, across a power loss within about a second.
        False if that is for another content.

        Raises:
            OSError: the disk is full.
        """
        ...

    async def redescribe(self, request: CommitRequest) -> None:
        """What :meth:`secure` has kept, if it is unchanged, is to become what ``request`` says.

        Raises:
            OSError: the disk is full.
        """
        ...

    async def commit(self, request: CommitRequest, condition: Condition) -> ObjectVersion | None:
        """Make the object; None if it cannot be made from here.

        Nothing changes but which parts the store has already: call again after an error.
        Cancelled, parts under way go on; a request that makes the object is waited for.

        Raises:
            ConditionFailedError: nothing was written.
            VersionChangedError: the base is no longer what it was.
            UnsavedDataError: the store dropped an upload, and with it bytes sent before.
            FileTooLargeError: more of it are holes than may be sent as zeros.
            StoreError, OSError: it could not be done.
        """
        ...

    def committed(self, version: ObjectVersion) -> "Content":
        """What :meth:`commit` made is the file now; returns the content to go on with."""
        ...

    def rebase(self, version: ObjectVersion) -> None:
        """The bytes of the base are under another key now."""
        ...

    def lend(self) -> LentFile | None:
        """The committed bytes that are in a local file, if any are and nothing has changed."""
        ...

    def disown(self) -> None:
        """The file was unlinked: nothing of it goes to the store, and a crash leaves nothing."""
        ...

    def set_aside(self, request: CommitRequest, seen: ObjectVersion | None) -> Path:
        """Move the bytes to ``unsaved/``; returns their path there.

        ``seen`` is the object that the file's key held when the writer last knew. Blocks for the
        time of writing what is in memory to disk. The content is of no use afterwards but to be
        closed.

        Raises:
            OSError: the disk is full; nothing has changed.
        """
        ...

    def close(self) -> None:
        """Free memory and files, and give an upload up that is neither complete nor kept.

        A file on disk that a record of the journal names stays there for the next mount.
        """
        ...

"""Directory handles: opendir(3) makes them, and readdir(3) reads them."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeAlias, TypeVar

import trio

from ossfs_py.errors import (
    BadHandleError,
    BucketMissingError,
    ListingFailedError,
    ObjectMissingError,
    StoreError,
)
from ossfs_py.filesystem.replies import EntryReply, Replies
from ossfs_py.model import ObjectInfo
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.namespace import Namespace

T = TypeVar("T")

TakeEntry: TypeAlias = Callable[[bytes, EntryReply, int], bool]
"""Takes a name, its entry, and the offset of the next entry; False if it has no room."""

_DOTS = 2
"""Offsets 0 and 1 are ``.`` and ``..``; the listing follows."""


class TakesFiles(ABC):
    """Takes entries, as any :data:`TakeEntry` does, and many files at once."""

    __slots__ = ()

    @abstractmethod
    def __call__(self, name: bytes, reply: EntryReply, following: int) -> bool:
        """Take one entry."""

    @property
    @abstractmethod
    def most(self) -> int:
        """No more entries than this have room, whatever their names."""

    @abstractmethod
    def count_fitting(self, names: Sequence[bytes]) -> int:
        """How many of the next entries have room, with these names."""

    @abstractmethod
    def take_files(
        self,
        first: EntryReply,
        names: Sequence[bytes],
        files: Iterable[tuple[int, int, int, int]],
        following: int,
    ) -> None:
        """Take files that differ from the first one, of which ``first`` tells, only in their names
        and in what ``files`` tells of each: number, generation, size, and time of change (ns).

        ``following`` is the offset behind the first. Precondition: there is room for them.
        """


class ReadDirectory(Protocol):
    """An open directory's entries; see :class:`~ossfs_py.namespace.namespace.DirectoryListing`."""

    @property
    def directory(self) -> Inode:
        """The directory that is listed."""
        ...

    def rewind(self) -> None:
        """Start again; later changes are seen."""
        ...

    async def entries_from(self, offset: int) -> list[tuple[int, str, Inode]]:
        """A batch of (next offset, name, inode) from ``offset`` on; empty at the end."""
        ...

    async def new_files_from(self, offset: int, most: int) -> list[tuple[str, ObjectInfo]]:
        """At most so many files from ``offset`` on that can be adopted, if there are any."""
        ...

    def adopt(self, files: list[tuple[str, ObjectInfo]]) -> list[Inode]:
        """The inodes of these, each with a reference of the kernel."""
        ...


class DirectoryWitness(Protocol):
    """Is told of directory handles before the kernel is."""

    def directory_opened(self, number: int, directory: Inode) -> None:
        """A directory handle was made."""
        ...

    def directory_passed(self, number: int, offset: int, name: str) -> None:
        """The entries up to ``name`` were read; the next entry is at ``offset``."""
        ...

    def directory_released(self, number: int) -> None:
        """A directory handle was released."""
        ...


class Directories:
    """The directory handles of a mount. Belongs to the trio thread.

    ``numbers`` supplies the handle numbers.
    """

    def __init__(self, namespace: Namespace, replies: Replies, numbers: Iterator[int]) -> None:
        self._namespace = namespace
        self._replies = replies
        self._numbers = numbers
        self._listings: dict[int, ReadDirectory] = {}
        self.witness: DirectoryWitness | None = None

    def open(self, directory: Inode) -> int:
        """opendir(3); returns a handle number."""
        listing = self._namespace.list_directory(directory)
        number = next(self._numbers)
        self._listings[number] = listing
        if self.witness is not None:
            self.witness.directory_opened(number, directory)
        return number

    def adopt(self, number: int, listing: ReadDirectory) -> None:
        """Add a handle that an earlier daemon made."""
        self._listings[number] = listing

    def get(self, number: int) -> Inode:
        """The directory behind a handle.

        BadHandleError: the handle is unknown.
            BadHandleError: unknown.
        """
        return self._listing(number).directory

    async def read(self, number: int, start: int, take: TakeEntry) -> None:
        """readdir(3) from an offset on, until the end or until ``take`` has no room.

        Each entry taken gives the kernel a reference, except ``.`` and ``..``.

        Raises:
            ListingFailedError: there is no such bucket.
            StoreError: nothing was taken but ``.`` and ``..``.
        """
        listing = self._listing(number)
        began = trio.current_time()
        if start == 0:
            listing.rewind()
        if not await self._took_dots(listing.directory, start, take, began):
            return
        position = first = max(0, start - _DOTS)
        last, goes_on = "", True
        try:
            while goes_on:
                position, name, goes_on = await self._take_batch(listing, position, take, began)
                last = name or last
        except StoreError:
            # The kernel has references only to what it is told of. It asks for the next entry
            # then, and gets the error.
            if position == first:
                raise
        finally:
            if self.witness is not None and last:
                self.witness.directory_passed(number, position, last)

    async def _take_batch(
        self, listing: ReadDirectory, position: int, take: TakeEntry, began: float
    ) -> tuple[int, str, bool]:
        """The position behind the entries that were taken, the name of the last one (not of files
        that are taken together), and whether there may be more that have room.
        """
        if isinstance(take, TakesFiles) and self.witness is None:
            files = await _named(listing.new_files_from(position, 1 + take.most))
            if files:
                taken = self._take_files(listing, files, take, position, began)
                return position + taken, "", taken == len(files)
        batch = await _named(listing.entries_from(position))
        now, name = trio.current_time(), ""
        known, remember = self._replies.known, self._namespace.remember
        for following, text, inode in batch:
            if not take(text.encode(), known(inode, now, began), following + _DOTS):
                return position, name, False
            remember(inode)
            position, name = following, text
        return position, name, bool(batch)

    async def _took_dots(self, directory: Inode, start: int, take: TakeEntry, began: float) -> bool:
        """Whether there was room for ``.`` and ``..``, as far as they are wanted."""
        for offset, name, inode in (
            (0, b".", directory),
            (1, b"..", directory.parent or directory),
        ):
            if start <= offset and not take(
                name, await self._replies.fresh(inode, began), offset + 1
            ):
                return False
        return True

    def _take_files(
        self,
        listing: ReadDirectory,
        files: list[tuple[str, ObjectInfo]],
        many: TakesFiles,
        position: int,
        began: float,
    ) -> int:
        """How many of the files at ``position`` had room."""
        names = [name.encode() for name, _info in files]
        taken = many.count_fitting(names)
        if not taken:
            return 0
        inodes = listing.adopt(files[:taken])
        first = self._replies.known_files(inodes, trio.current_time(), began)
        generation = self._namespace.generation
        many.take_files(
            first,
            names,
            (
                (inode.number, inode.generation or generation(inode), info.size, info.mtime_ns)
                for inode, (_name, info) in zip(inodes, files, strict=False)
            ),
            position + 1 + _DOTS,
        )
        return taken

    def release(self, number: int) -> None:
        """closedir(3)."""
        if self._listings.pop(number, None) is not None and self.witness is not None:
            self.witness.directory_released(number)

    def _listing(self, number: int) -> ReadDirectory:
        try:
            return self._listings[number]
        except KeyError:
            raise BadHandleError(f"unknown directory handle {number}") from None


async def _named(asked: Awaitable[T]) -> T:
    """What a listing tells; that there is no bucket is no ENOENT of the directory."""
    try:
        return await asked
    except (BucketMissingError, ObjectMissingError) as exc:
        raise ListingFailedError(
            str(exc.args[0]),
            operation=exc.operation,
            key=exc.key,
            request_id=exc.request_id,
            attempts=exc.attempts,
        ) from exc

"""What the kernel has cached of the mount: of which version, and how it is made to let go.

Made before anything that may want the kernel to forget. A session attaches its way to the kernel
for as long as the mount is there; without one nothing is cached, and nothing has to be dropped.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio

from ossfs_py.model import ObjectVersion
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.news import KernelNews

_QUEUED_SECONDS = 0.5
"""A READ does not lie longer in the kernel's queue before it is taken up, unless the machine hangs:
this daemon does nothing on its trio thread that takes longer."""

_FORGOTTEN_SECONDS = 0.1
"""Longest wait of a program for the kernel to forget. It takes microseconds but for pages, which
wait for READs under way."""


class KernelChannel(Protocol):
    """The way to the kernel that has the mount. Never raises: what it does not know is dropped."""

    def invalidate_pages(self, inode: int, done: Callable[[], None]) -> None:
        """Ask for the pages and the attributes of an inode to be dropped soon; never blocks.

        ``done`` is called, on the trio thread, when they are: pages wait for READs in flight.
        """
        ...

    def invalidate_attributes(self, inode: int, done: Callable[[], None]) -> None:
        """Ask for the attributes of an inode to be dropped soon; never blocks, its pages stay.

        ``done`` is called, on the trio thread, when they are.
        """
        ...

    async def told(self) -> None:
        """Return when everything asked for up to now is done, or takes too long to wait for."""
        ...

    async def expire_attributes(self, inode: int) -> None:
        """Return when the kernel will ask for an inode's attributes before it uses them."""
        ...

    def invalidate_entry(self, directory: int, name: bytes) -> None:
        """Ask for a name in a directory to be forgotten soon; never blocks."""
        ...

    async def drop_pages(self, inode: int) -> None:
        """Return when the kernel has no page of an inode that it was given before the call.

        Waits for READs in flight, so whoever calls must not hold what a READ needs.
        """
        ...

    def back(self, fd: int) -> int | None:
        """What the kernel calls a local file that it is to read itself for programs; None if it
        does not.
        """
        ...

    def unback(self, local: int) -> None:
        """Nobody is to open the local file of that number any more."""
        ...


@dataclass(slots=True)
class _Expiry:
    """The kernel is made to forget the attributes of an inode.

    It heeds neither the end of an answer to a READ, nor the size that it is told, if the call was
    under way when it did (``attr_version`` of fs/fuse/inode.c): up to the size that it knows, what
    the READ leaves open is filled up with zeros.
    """

    under_way: int = 0
    """How often it has been asked, and is not known to have done it."""
    over_at: float = 0.0
    """When it was last known to have done it, on trio's clock."""
    over: trio.Event | None = None
    """Set once it has done all that it was asked for, if somebody waits."""


class KernelCache:
    """The caches of the kernel that has the mount. Belongs to the trio thread.

    ``news`` is what a namespace tells of changes that others made.
    """

    def __init__(self) -> None:
        self._channel: KernelChannel | None = None
        self._etags: dict[int, str] = {}
        """The version of each inode that the kernel may have pages of; "" of one never stored."""
        self._behind: set[int] = set()
        """Inodes of which the kernel was told, and was not yet told of their present version."""
        self._expiries: dict[int, _Expiry] = {}
        """Inodes whose attributes the kernel is asked to forget, or was lately."""
        self._postponed: set[int] = set()
        self._given: set[int] = set()
        """Inodes of which it has been given bytes of that version, and may have kept them."""
        self._written: set[int] = set()
        """Inodes that programs here have changed the bytes of, and not closed since."""
        self.news = KernelNews(
            self.replaced, self.name_taken, self.attributes_changed, self.name_appeared
        )

    @contextmanager
    def attached(self, channel: KernelChannel) -> Iterator[None]:
        """The kernel is reached through ``channel`` in the block."""
        self._channel = channel
        try:
            yield
        finally:
            self._channel = None

    # -- letting go -----------------------------------------------------------------------------

    def invalidate_attributes(self, number: int) -> None:
        """What the kernel was told of the inode is to be asked again, from soon on."""
        if self._channel is not None:
            self._channel.invalidate_attributes(number, self._expires(number))

    def _invalidate_pages(self, number: int) -> None:
        if self._channel is not None:
            self._channel.invalidate_pages(number, self._expires(number))

    async def drop_pages(self, number: int) -> None:
        """Return when the kernel has no page of the inode that it was given before the call.

        Waits for READs in flight, so whoever calls must not hold what a READ needs.
        """
        if self._channel is not None:
            over = self._expires(number)
            try:
                await self._channel.drop_pages(number)
            finally:
                over()
        else:
            await trio.lowlevel.checkpoint()

    def _expires(self, number: int) -> Callable[[], None]:
        """The kernel is asked to forget the attributes of the inode; call what this returns when it
        has done so.
        """
        expiry = self._expiries.setdefault(number, _Expiry())
        expiry.under_way += 1
        return partial(self._expired, expiry)

    @staticmethod
    def _expired(expiry: _Expiry) -> None:
        expiry.under_way -= 1
        expiry.over_at = trio.current_time()
        if expiry.over is not None and not expiry.under_way:
            expiry.over.set()
            expiry.over = None

    def reads_itself(self, fd: int) -> int | None:
        """Let the kernel read a local file for programs: its number for it, None if it does not."""
        return None if self._channel is None else self._channel.back(fd)

    def reads_no_more(self, local: int) -> None:
        """Nobody has the local file of that number open any more."""
        if self._channel is not None:
            self._channel.unback(local)

    # -- the version of its pages ---------------------------------------------------------------

    def keeps_pages(self, inode: Inode, version: ObjectVersion | None, *, dirty: bool) -> bool:
        """Whether the kernel may keep its pages at an open; notes what they will be of."""
        etag = version.etag if version is not None else ""
        # Without an ETag a version cannot be told from those of the same second.
        told_apart = version is None or version.has_etag
        same = told_apart and self._etags.get(inode.number) == etag
        self._etags[inode.number] = etag
        if not (same or dirty):
            self._given.discard(inode.number)
        return same or dirty

    def gave_bytes(self, inode: Inode) -> None:
        """The kernel was answered a READ, or sent a write, through its pages."""
        self._given.add(inode.number)

    def wrote(self, inode: Inode) -> None:
        """A program changed bytes of the inode."""
        self._written.add(inode.number)

    def was_written(self, inode: Inode) -> bool:
        """Whether programs here changed bytes of the inode since it was last closed."""
        return inode.number in self._written

    def closed(self, inode: Inode) -> None:
        """Nobody has the inode open any more.

        Pages from before it was changed are dropped at the next open, so that nobody who opens it
        then is held to what others have replaced. The kernel drops them anyway when it learns the
        time of the change.
        """
        if inode.number in self._written:
            self._written.discard(inode.number)
            self._given.discard(inode.number)
            self._etags.pop(inode.number, None)

    def was_given_bytes(self, inode: Inode) -> bool:
        """Whether whoever opens the inode now may be given bytes that nobody asks us for."""
        return inode.number in self._given

    def has_pages(self, inode: Inode, etag: str) -> bool:
        """Whether the kernel was given pages of that version since it knows the inode."""
        return self._etags.get(inode.number) == etag

    def note_pages(self, inode: Inode, version: ObjectVersion) -> None:
        """What the kernel has of the inode are the bytes of that version, too."""
        self._etags[inode.number] = version.etag

    def replaced(self, inode: Inode) -> None:
        """Another client replaced the object: pages of the old one are worth nothing."""
        self._behind.add(inode.number)
        if inode.number in self._postponed:
            return
        pages = self._etags.get(inode.number)
        if inode.info is None or pages is None or pages == inode.info.etag:
            self.invalidate_attributes(inode.number)
            return
        del self._etags[inode.number]
        self._given.discard(inode.number)
        if inode.open_count:
            self._invalidate_pages(inode.number)
        else:
            self.invalidate_attributes(inode.number)  # the next open drops the pages

    # -- what others changed --------------------------------------------------------------------

    def name_taken(self, directory: Inode, name: str, inode: Inode) -> None:
        """The name does not stand for the inode any more."""
        if self._channel is not None:
            self._channel.invalidate_entry(directory.number, name.encode())
            if inode.number not in self._postponed:
                self.invalidate_attributes(inode.number)

    def name_appeared(self, directory: Inode, name: str) -> None:
        """The name is not absent any more."""
        if self._channel is not None:
            self._channel.invalidate_entry(directory.number, name.encode())

    def attributes_changed(self, inode: Inode) -> None:
        """What was told of the inode is to be asked again."""
        self.invalidate_attributes(inode.number)

    def forget(self, number: int) -> None:
        """The kernel has forgotten the inode, and its pages with it."""
        self._etags.pop(number, None)
        self._given.discard(number)
        self._written.discard(number)
        self._behind.discard(number)
        expiry = self._expiries.get(number)
        if expiry is not None and not expiry.under_way:
            del self._expiries[number]

    # -- the version of its attributes ----------------------------------------------------------

    def is_behind(self, inode: Inode) -> bool:
        """Whether the kernel may take the size of an older version for the inode's."""
        return inode.number in self._behind

    def is_forgetting(self, inode: Inode) -> bool:
        """Whether the kernel was asked to forget the inode's attributes, and may not have yet."""
        expiry = self._expiries.get(inode.number) if self._expiries else None
        return expiry is not None and expiry.under_way > 0

    async def forgotten(self, inode: Inode) -> None:
        """Return when the kernel has forgotten of the inode what it was asked to, or takes long.

        Told its attributes before, it could end a READ with what it forgets afterwards; told them
        after, it asks again.
        """
        expiry = self._expiries.get(inode.number)
        if expiry is None or not expiry.under_way:
            return
        if expiry.over is None:
            expiry.over = trio.Event()
        with trio.move_on_after(_FORGOTTEN_SECONDS):
            await expiry.over.wait()

    def answered(self, inode: Inode, size_bytes: int, began: float) -> None:
        """The kernel is told the inode's attributes as they are. ``began``: when its question was
        taken up, on trio's clock.
        """
        if self._behind:
            self._behind.discard(inode.number)
        if self._expiries and inode.number in self._expiries:
            expiry = self._expiries[inode.number]
            if expiry.under_way or began < expiry.over_at:
                inode.size_told = max(inode.size_told, size_bytes)  # it may not heed it
                return
            if expiry.over_at <= trio.current_time() - _QUEUED_SECONDS:
                del self._expiries[inode.number]
        inode.size_told = size_bytes

    def emptied(self, inode: Inode) -> None:
        """A program opens the file with O_TRUNC: the kernel knows by itself that nothing is left"""
        inode.size_told = 0

    def must_not_end(self, inode: Inode, end: int, since: float, opened_at: float) -> bool:
        """Whether the answer to a READ taken up at ``since``, which is shorter than asked for and
        has its last byte before the offset ``end``, may be filled up with zeros. Its descriptor
        was made at ``opened_at``: the READ was sent later.

        Not if the kernel knows of no more bytes: what programs write through it never makes the
        file longer for it than it is here.
        """
        expiry = self._expiries.get(inode.number)
        if expiry is None:
            return False
        if not expiry.under_way and expiry.over_at <= max(since - _QUEUED_SECONDS, opened_at):
            return False
        return inode.size_told > end

    @contextmanager
    def postponed(self, inode: Inode) -> Iterator[None]:
        """In the block, the kernel is not told that the inode is of another version now.

        The caller answers a READ, and sees to it that the kernel learns the size: from the end of
        the answer, which it heeds as long as its attributes are not expired meanwhile, or by
        :meth:`expire_attributes`.
        """
        self._postponed.add(inode.number)
        try:
            yield
        finally:
            self._postponed.discard(inode.number)

    async def told(self) -> None:
        """Return when the kernel has been told everything up to now, or is busy for too long."""
        if self._channel is not None:
            await self._channel.told()
        else:
            await trio.lowlevel.checkpoint()

    async def told_soon(self) -> None:
        """As :meth:`told`, for a program that waits: it may be held up by others' calls."""
        with trio.move_on_after(_FORGOTTEN_SECONDS):
            await self.told()

    async def expire_attributes(self, number: int) -> None:
        """Return when the kernel will ask for the inode's attributes before it uses them."""
        if self._channel is not None:
            over = self._expires(number)
            try:
                await self._channel.expire_attributes(number)
            finally:
                over()
        else:
            await trio.lowlevel.checkpoint()

    def contents_changed(self, inode: Inode) -> None:
        """This mount itself stored other bytes than the kernel has: they follow those of others."""
        self._behind.add(inode.number)
        self._etags.pop(inode.number, None)
        self._given.discard(inode.number)
        self._invalidate_pages(inode.number)

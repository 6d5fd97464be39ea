"""The kernel's caches of the mount: the versions in them, and their invalidation.

This is made before anything that may have to invalidate the caches. A session attaches its channel
to the kernel while the mount exists. Without a channel nothing is cached, and nothing has to be
dropped.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio

from ossfs_py.model import ObjectVersion
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.news import KernelNews

_QUEUED_SECONDS = 0.5
"""A READ waits no longer than this in the kernel's queue, unless the machine hangs: this daemon
does nothing on its trio thread that takes longer.
"""

_FORGOTTEN_SECONDS = 0.1
"""Longest wait of a program for an invalidation. That takes microseconds, except for pages, which
wait for READs in flight.
"""


_MOST_PAST = 1024
"""Invalidations remembered of inodes that the kernel has forgotten before they were done. A request
that was taken up before may still be answered with the number, by another inode.
"""


class KernelChannel(Protocol):
    """The way to the kernel that has the mount. Never raises; ignores inodes it does not know."""

    def invalidate_pages(self, inode: int, done: Callable[[], None]) -> None:
        """Ask for the pages and the attributes of an inode to be dropped soon; never blocks.

        ``done`` is called on the trio thread after that: pages wait for READs in flight.
        """
        ...

    def invalidate_attributes(self, inode: int, done: Callable[[], None]) -> None:
        """Ask for the attributes of an inode to be dropped soon; never blocks, its pages stay.

        ``done`` is called on the trio thread after that.
        """
        ...

    async def told(self) -> None:
        """Return when all invalidations so far are done, or take too long to wait for."""
        ...

    async def expire_attributes(self, inode: int) -> None:
        """Return when the kernel will ask for an inode's attributes before it uses them."""
        ...

    async def lengthen(self, inode: int, size_bytes: int, last: bytes) -> None:
        """Return when the kernel knows that the file is ``size_bytes`` long, or takes too long.
        ``last`` are its last bytes.
        """
        ...

    def invalidate_entry(self, directory: int, name: bytes) -> None:
        """Ask the kernel to forget a name in a directory soon; never blocks."""
        ...

    async def drop_pages(self, inode: int) -> None:
        """Return when the kernel has dropped all pages of an inode that it had before the call.

        Waits for READs in flight, so the caller must not hold a lock that a READ needs.
        """
        ...

    def back(self, fd: int) -> int | None:
        """Register a local file that the kernel reads itself for programs. Returns the kernel's
        number for it; None if the kernel refuses.
        """
        ...

    def unback(self, local: int) -> None:
        """Release the local file of that number: no later open uses it."""
        ...


@dataclass(slots=True)
class _Expiry:
    """An invalidation of an inode's attributes.

    While one is running, the kernel ignores the end of an answer to a READ, and the size in a reply
    (``attr_version`` of fs/fuse/inode.c). If the answer is short, the kernel fills the rest with
    zeros, up to the size that it knows.
    """

    under_way: int = 0
    """Requests to the kernel that are not known to be done."""
    over_at: float = 0.0
    """Time of the latest one known to be done, on trio's clock."""
    over: trio.Event | None = None
    """Set once all of them are done, if somebody waits."""
    is_forgotten: bool = False
    """Whether the kernel has forgotten the inode meanwhile, and has not asked for it again."""


@dataclass(slots=True)
class _Replacement:
    """A version of an inode that the kernel was not told the size of yet."""

    expired: bool = False
    """Whether the kernel will ask for the attributes before it uses them again."""


class KernelCache:
    """The caches of the kernel that has the mount. Belongs to the trio thread.

    ``news`` is how a namespace reports changes that others made.
    """

    def __init__(self) -> None:
        self._channel: KernelChannel | None = None
        self._etags: dict[int, str] = {}
        """The version of each inode whose pages the kernel may have; "" for one never stored."""
        self._behind: dict[int, _Replacement] = {}
        """Inodes that the kernel knows, but not in their present version."""
        self._expiries: dict[int, _Expiry] = {}
        """Inodes whose attributes the kernel is asked to forget, or was asked recently."""
        self._past: dict[int, None] = {}
        """Those of them that nobody but a request from before may need; the oldest first."""
        self._postponed: set[int] = set()
        self._given: dict[int, bool] = {}
        """Inodes with bytes that the kernel was given, and may have kept; whether of that version.
        """
        self._written: set[int] = set()
        """Inodes whose bytes programs here have changed, and not closed since."""
        self.news = KernelNews(
            self.replaced, self.name_taken, self.attributes_changed, self.name_appeared
        )

    @contextmanager
    def attached(self, channel: KernelChannel) -> Iterator[None]:
        """Inside the block, ``channel`` reaches the kernel."""
        self._channel = channel
        try:
            yield
        finally:
            self._channel = None

    # -- invalidation ---------------------------------------------------------------------------

    def invalidate_attributes(self, number: int) -> None:
        """Make the kernel ask again soon for the inode's attributes."""
        if self._channel is not None:
            self._channel.invalidate_attributes(number, self._expires(number))

    def _invalidate_pages(self, number: int) -> None:
        if self._channel is not None:
            self._channel.invalidate_pages(number, self._expires(number))

    async def drop_pages(self, number: int) -> None:
        """Return when the kernel has dropped all pages of the inode that it had before the call.

        Waits for READs in flight, so the caller must not hold a lock that a READ needs.
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
        """The kernel is asked to forget the inode's attributes. Call the result when it has done
        so.
        """
        expiry = self._expiries.setdefault(number, _Expiry())
        expiry.under_way += 1
        return partial(self._expired, number, expiry, self._behind.get(number))

    def _expired(self, number: int, expiry: _Expiry, replacement: _Replacement | None) -> None:
        if replacement is not None:
            replacement.expired = True
        expiry.under_way -= 1
        expiry.over_at = trio.current_time()
        if expiry.under_way:
            return
        if expiry.over is not None:
            expiry.over.set()
            expiry.over = None
        if expiry.is_forgotten:
            self._past[number] = None
            while len(self._past) > _MOST_PAST:
                self._drop_past(next(iter(self._past)))

    def _drop_past(self, number: int) -> None:
        del self._past[number]
        expiry = self._expiries.get(number)
        if expiry is not None and expiry.is_forgotten and not expiry.under_way:
            del self._expiries[number]

    def reads_itself(self, fd: int) -> int | None:
        """Let the kernel read a local file for programs: its number for it, None if it refuses."""
        return None if self._channel is None else self._channel.back(fd)

    def reads_no_more(self, local: int) -> None:
        """No descriptor uses the local file of that number any more."""
        if self._channel is not None:
            self._channel.unback(local)

    # -- the version of its pages ---------------------------------------------------------------

    def keeps_pages(self, inode: Inode, version: ObjectVersion | None, *, dirty: bool) -> bool:
        """Whether the kernel may keep its pages at an open; records their version."""
        number = inode.number
        etag = version.etag if version is not None else ""
        # Without an ETag, versions of the same second cannot be told apart.
        told_apart = version is None or version.has_etag
        same = told_apart and self._etags.get(number) == etag
        self._etags[number] = etag
        if dirty:
            return True
        # The kernel drops pages when the program goes on. That may be long after others opened the
        # file, too: those must not find old pages, nor lose new ones if there was nothing to drop.
        if not same:
            self._outdate(number)
        return self._given.get(number, True)

    def _outdate(self, number: int) -> None:
        """What the kernel was given of the inode is of another version, if it was given any."""
        if number in self._given:
            self._given[number] = False

    def had_pages(self, numbers: Iterable[int]) -> None:
        """Earlier daemons may have given bytes of these inodes, of whatever version."""
        self._given.update(dict.fromkeys(numbers, False))

    def gave_bytes(self, inode: Inode) -> None:
        """The kernel's page cache took part in a READ or a write."""
        self._given[inode.number] = True

    def wrote(self, inode: Inode) -> None:
        """A program changed bytes of the inode."""
        self._written.add(inode.number)

    def was_written(self, inode: Inode) -> bool:
        """Whether programs here changed bytes of the inode since it was last closed."""
        return inode.number in self._written

    def closed(self, inode: Inode) -> None:
        """The inode has no open descriptor any more.

        Pages from before a change are dropped at the next open, so that the program that opens the
        file then is not kept on a version that others have replaced. The kernel drops them anyway
        when it learns the time of the change.
        """
        if inode.number in self._written:
            self._written.discard(inode.number)
            self._outdate(inode.number)
            self._etags.pop(inode.number, None)

    def was_given_bytes(self, inode: Inode) -> bool:
        """Whether an open of the inode now may get bytes from the page cache, without a READ."""
        return self._given.get(inode.number, False)

    def has_pages(self, inode: Inode, etag: str) -> bool:
        """Whether the kernel was given pages of that version since it knows the inode."""
        return self._etags.get(inode.number) == etag

    def note_pages(self, inode: Inode, version: ObjectVersion) -> None:
        """The kernel's pages of the inode are bytes of that version, too."""
        self._etags[inode.number] = version.etag

    def replaced(self, inode: Inode) -> None:
        """Another client replaced the object: pages of the old one are useless."""
        self._behind[inode.number] = _Replacement()
        if inode.number in self._postponed:
            return
        pages = self._etags.get(inode.number)
        if inode.info is None or pages is None or pages == inode.info.etag:
            self.invalidate_attributes(inode.number)
            return
        del self._etags[inode.number]
        self._outdate(inode.number)
        if inode.open_count:
            self._invalidate_pages(inode.number)
        else:
            self.invalidate_attributes(inode.number)  # the next open drops the pages

    # -- changes by others ----------------------------------------------------------------------

    def name_taken(self, directory: Inode, name: str, inode: Inode) -> None:
        """The name does not lead to the inode any more."""
        if self._channel is not None:
            self._channel.invalidate_entry(directory.number, name.encode())
            if inode.number not in self._postponed:
                self.invalidate_attributes(inode.number)

    def name_appeared(self, directory: Inode, name: str) -> None:
        """The name exists now."""
        if self._channel is not None:
            self._channel.invalidate_entry(directory.number, name.encode())

    def attributes_changed(self, inode: Inode) -> None:
        """The attributes of the inode changed: the kernel has to ask again."""
        self.invalidate_attributes(inode.number)

    def forget(self, number: int) -> None:
        """The kernel has forgotten the inode, and its pages with it."""
        self._etags.pop(number, None)
        self._given.pop(number, None)
        self._written.discard(number)
        self._behind.pop(number, None)
        expiry = self._expiries.get(number)
        if expiry is not None:
            expiry.is_forgotten = True
            if not expiry.under_way:
                del self._expiries[number]

    # -- the version of its attributes ----------------------------------------------------------

    def is_behind(self, inode: Inode) -> bool:
        """Whether the kernel may have the size of an older version of the inode."""
        return inode.number in self._behind

    def would_cut(self, inode: Inode, size_bytes: int) -> bool:
        """Whether the kernel may take the end of an older version for the end of the bytes of a
        version of ``size_bytes``, if it is given bytes of that one now.
        """
        replacement = self._behind.get(inode.number) if self._behind else None
        if replacement is None or replacement.expired:
            return False
        return inode.size_told < size_bytes or self.is_forgetting(inode)

    async def caught_up(self, inode: Inode) -> None:
        """Return when the kernel uses no attributes of an older version of the inode any more."""
        replacement = self._behind.get(inode.number)
        if replacement is None:
            return
        if not replacement.expired:
            await self.expire_attributes(inode.number)
        await self.forgotten(inode)

    def is_forgetting(self, inode: Inode) -> bool:
        """Whether the kernel was asked to forget the inode's attributes, and may not have yet."""
        expiry = self._expiries.get(inode.number) if self._expiries else None
        return expiry is not None and expiry.under_way > 0

    @property
    def is_calm(self) -> bool:
        """Whether the kernel has not been asked lately to forget the attributes of any inode."""
        return not self._expiries

    async def forgotten(self, inode: Inode) -> None:
        """Return when the kernel has done the invalidations of the inode, or takes too long.

        If it got the attributes earlier, it could end a READ by attributes that it then forgets. If
        it gets them afterwards, it asks again.
        """
        expiry = self._expiries.get(inode.number)
        if expiry is None or not expiry.under_way:
            return
        if expiry.over is None:
            expiry.over = trio.Event()
        with trio.move_on_after(_FORGOTTEN_SECONDS):
            await expiry.over.wait()

    def answered(self, inode: Inode, size_bytes: int, began: float) -> None:
        """The kernel gets the inode's present attributes. ``began`` is when its request was taken
        up, on trio's clock.
        """
        if self._expiries and inode.number in self._expiries:
            expiry = self._expiries[inode.number]
            expiry.is_forgotten = False
            if expiry.under_way or began < expiry.over_at:
                inode.size_told = max(inode.size_told, size_bytes)  # it may ignore them
                return
            if expiry.over_at <= trio.current_time() - _QUEUED_SECONDS:
                del self._expiries[inode.number]
        if self._behind:
            self._behind.pop(inode.number, None)
        inode.size_told = size_bytes

    def answered_files(self, inodes: Iterable[Inode], began: float) -> None:
        """As :meth:`answered`, for many files at once, as long as the store says they are."""
        is_calm = not (self._expiries or self._behind)
        for inode in inodes:
            info = inode.info
            size_bytes = 0 if info is None else info.size
            if is_calm:
                inode.size_told = size_bytes
            else:
                self.answered(inode, size_bytes, began)

    def truncated(self, inode: Inode, size_bytes: int) -> None:
        """A program truncates the file or opens it with O_TRUNC: the kernel takes the new size,
        whatever it is asked to forget meanwhile (``fuse_do_setattr``).
        """
        inode.size_told = size_bytes

    def must_not_end(self, inode: Inode, end: int, since: float, opened_at: float) -> bool:
        """Whether the kernel may fill up a short answer to a READ with zeros. The READ was taken up
        at ``since``, and the answer ends before the offset ``end``. Its descriptor was made at
        ``opened_at``, before the READ was sent.

        It does not if it knows of no more bytes: writes through the kernel never make the file
        longer there than it is here.
        """
        expiry = self._expiries.get(inode.number)
        if expiry is None:
            return False
        if not expiry.under_way and expiry.over_at <= max(since - _QUEUED_SECONDS, opened_at):
            return False
        return inode.size_told > end

    @contextmanager
    def postponed(self, inode: Inode) -> Iterator[None]:
        """Inside the block, the kernel is not told that the inode has another version now.

        The caller answers a READ, and makes sure that the kernel learns the size: from the end of
        the answer, which the kernel accepts if its attributes are not expired in the meantime, or
        by :meth:`expire_attributes`.
        """
        self._postponed.add(inode.number)
        try:
            yield
        finally:
            self._postponed.discard(inode.number)

    async def told(self) -> None:
        """Return when all invalidations so far are done, or the kernel is busy for too long."""
        if self._channel is not None:
            await self._channel.told()
        else:
            await trio.lowlevel.checkpoint()

    async def told_soon(self) -> None:
        """As :meth:`told`, for a waiting program: calls of others may delay the kernel."""
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

    def is_too_short(self, inode: Inode, size_bytes: int) -> bool:
        """Whether the kernel was told of fewer bytes than a version has."""
        return self._channel is not None and inode.size_told < size_bytes

    async def lengthen(self, inode: Inode, size_bytes: int, last: bytes) -> None:
        """Return when the kernel knows that the file is ``size_bytes`` long, or takes too long.
        ``last`` are its last bytes.

        It asks by itself only when read(2) comes to the end that it knows. sendfile(2), splice(2)
        and copy_file_range(2) end there, so that cp(1) would copy a part of the file.
        """
        if self._channel is None:
            await trio.lowlevel.checkpoint()
            return
        self._given.setdefault(inode.number, False)
        over = self._expires(inode.number)
        try:
            await self._channel.lengthen(inode.number, size_bytes, last)
        finally:
            over()
        inode.size_told = max(inode.size_told, size_bytes)

    def contents_changed(self, inode: Inode) -> None:
        """This mount stored bytes that the kernel does not have: they follow those of others."""
        self._behind[inode.number] = _Replacement()
        self._etags.pop(inode.number, None)
        self._outdate(inode.number)
        self._invalidate_pages(inode.number)

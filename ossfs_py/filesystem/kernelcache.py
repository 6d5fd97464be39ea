"""What the kernel has cached of the mount: of which version, and how it is made to let go.

Made before anything that may want the kernel to forget. A session attaches its way to the kernel
for as long as the mount is there; without one nothing is cached, and nothing has to be dropped.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

from ossfs_py.model import ObjectVersion
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.news import KernelNews

_TOLD_SECONDS = 0.5
"""By then the thread that tells the kernel has done so, unless the machine hangs."""


class KernelChannel(Protocol):
    """The way to the kernel that has the mount. Never raises: what it does not know is dropped."""

    def invalidate_pages(self, inode: int) -> None:
        """Ask for the pages and the attributes of an inode to be dropped soon; never blocks."""
        ...

    def invalidate_attributes(self, inode: int) -> None:
        """Ask for the attributes of an inode to be dropped soon; never blocks, its pages stay."""
        ...

    def invalidate_span(self, inode: int, start: int, end: int) -> None:
        """Ask for an inode's pages of ``[start, end)`` to be dropped soon; never blocks."""
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
        self._expired: dict[int, float] = {}
        """When it was asked last to forget the attributes of an inode that others replaced. The end
        of an answer to a READ under way when it does so, which may be later, is not the end of the
        file for it: up to the size that it was told, it is filled up with zeros
        (fuse_read_update_size)."""
        self._sizes_told: dict[int, int] = {}
        """The size in bytes that it was told last of some of those, since then."""
        self._postponed: set[int] = set()
        self._given: set[int] = set()
        """Inodes of which it has been given bytes of that version, and may have kept them."""
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
            self._channel.invalidate_attributes(number)

    def drop_span_soon(self, number: int, start: int, end: int) -> None:
        """The kernel is to let go of the inode's pages of ``[start, end)``, from soon on."""
        if self._channel is not None:
            self._channel.invalidate_span(number, start, end)

    async def drop_pages(self, number: int) -> None:
        """Return when the kernel has no page of the inode that it was given before the call.

        Waits for READs in flight, so whoever calls must not hold what a READ needs.
        """
        if self._channel is not None:
            await self._channel.drop_pages(number)
        else:
            await trio.lowlevel.checkpoint()

    # -- the version of its pages ---------------------------------------------------------------

    def keeps_pages(self, inode: Inode, version: ObjectVersion | None, *, dirty: bool) -> bool:
        """Whether the kernel may keep its pages at an open; notes what they will be of."""
        etag = version.etag if version is not None else ""
        same = self._etags.get(inode.number) == etag
        self._etags[inode.number] = etag
        if not (same or dirty):
            self._given.discard(inode.number)
        return same or dirty

    def gave_bytes(self, inode: Inode) -> None:
        """The kernel was answered a READ, or sent a write, through its pages."""
        self._given.add(inode.number)

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
        self._expired[inode.number] = trio.current_time()
        self._sizes_told.pop(inode.number, None)
        pages = self._etags.get(inode.number)
        if inode.info is None or pages is None or pages == inode.info.etag:
            self.invalidate_attributes(inode.number)
            return
        del self._etags[inode.number]
        self._given.discard(inode.number)
        if self._channel is not None:
            self._channel.invalidate_pages(inode.number)

    # -- what others changed --------------------------------------------------------------------

    def name_taken(self, directory: Inode, name: str, inode: Inode) -> None:
        """The name does not stand for the inode any more."""
        if self._channel is not None:
            self._channel.invalidate_entry(directory.number, name.encode())
            if inode.number not in self._postponed:
                self._channel.invalidate_attributes(inode.number)

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
        self._behind.discard(number)
        self._expired.pop(number, None)
        self._sizes_told.pop(number, None)

    # -- the version of its attributes ----------------------------------------------------------

    def is_behind(self, inode: Inode) -> bool:
        """Whether the kernel may take the size of an older version for the inode's."""
        return inode.number in self._behind

    def answered(self, inode: Inode, size_bytes: int) -> None:
        """The kernel is told the inode's attributes as they are."""
        if self._behind:
            self._behind.discard(inode.number)
        if self._expired and inode.number in self._expired:
            self._sizes_told[inode.number] = size_bytes

    def must_not_end(self, inode: Inode, end: int, since: float) -> bool:
        """Whether the answer to a READ taken up at ``since``, which is shorter than asked for and
        has its last byte before the offset ``end``, may be filled up with zeros.

        Not if the kernel was told of no more bytes. That it was told the size since it was asked to
        forget it says nothing alone: it may forget later, and the file be a shorter one by then.
        """
        expired = self._expired.get(inode.number)
        if expired is None or expired <= since - _TOLD_SECONDS:
            return False
        told = self._sizes_told.get(inode.number)
        return told is None or told > end

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

    async def expire_attributes(self, number: int) -> None:
        """Return when the kernel will ask for the inode's attributes before it uses them."""
        if self._channel is not None:
            await self._channel.expire_attributes(number)
        else:
            await trio.lowlevel.checkpoint()

    def contents_changed(self, inode: Inode) -> None:
        """This mount itself stored other bytes than the kernel has: they follow those of others."""
        self._behind.add(inode.number)
        self._etags.pop(inode.number, None)
        self._given.discard(inode.number)
        if self._channel is not None:
            self._channel.invalidate_pages(inode.number)

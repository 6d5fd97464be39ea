"""What the kernel is answered: the types, and how an inode becomes one of them."""

from typing import NamedTuple

import trio

from ossfs_py.filesystem.kernelcache import KernelCache
from ossfs_py.model import Attributes
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.namespace import Namespace


class EntryReply(NamedTuple):
    """An inode as stat(2) shows it, and how long that may be believed without asking again.

    ``generation`` tells inodes apart that had one number in turn. A tuple for the same
    reason as ``Attributes``.
    """

    attributes: Attributes
    name_seconds: float
    """That the name leads to this inode."""
    attributes_seconds: float
    generation: int = 0

    @property
    def inode(self) -> int:
        """The inode's number."""
        return self.attributes.ino


class OpenReply(NamedTuple):
    """A new descriptor."""

    handle: int
    keep_cache: bool
    """What the kernel has in its page cache is of the version that was opened."""
    past_pages: bool
    """Reads and writes go past the kernel's page cache."""
    local: int | None = None
    """What the kernel calls the local file that it reads in this one's place, if it does."""


class Replies:
    """Makes replies. Takes no reference to an inode in the kernel's name."""

    def __init__(self, namespace: Namespace, kernel: KernelCache) -> None:
        self._namespace = namespace
        self._kernel = kernel

    async def fresh(self, inode: Inode, began: float) -> EntryReply:
        """From memory where that is fresh, else the store is asked. ``began``: when the kernel's
        question was taken up, on trio's clock.

        Raises:
            NoSuchEntryError, StaleInodeError, StoreError
        """
        await self._kernel.forgotten(inode)
        reply = self.fresh_nowait(inode, began)
        if reply is not None:
            return reply
        attributes = await self._namespace.attributes(inode)
        await self._kernel.forgotten(inode)
        return self._reply(inode, attributes, trio.current_time(), began)

    def fresh_nowait(self, inode: Inode, began: float) -> EntryReply | None:
        """From memory, or None if the store has to be asked, or the kernel forgets the inode."""
        attributes = self._namespace.attributes_nowait(inode)
        if attributes is None or self._kernel.is_forgetting(inode):
            return None
        return self._reply(inode, attributes, trio.current_time(), began)

    def known(self, inode: Inode, now: float, began: float) -> EntryReply:
        """What memory says ``now``, of an inode that was looked up or listed just before."""
        return self._reply(inode, self._namespace.attributes_known(inode), now, began)

    def _reply(self, inode: Inode, attributes: Attributes, now: float, began: float) -> EntryReply:
        self._kernel.answered(inode, attributes.size, began)
        seconds = self._namespace.fresh_seconds(inode, now)
        return EntryReply(attributes, seconds, seconds, self._namespace.generation(inode))

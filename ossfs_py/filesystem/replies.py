"""Answers to the kernel: the types, and how an inode is turned into one."""

from collections.abc import Sequence
from typing import NamedTuple

import trio

from ossfs_py.filesystem.kernelcache import KernelCache
from ossfs_py.model import Attributes
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.namespace import Namespace


class EntryReply(NamedTuple):
    """An inode as stat(2) shows it, and how long the kernel may cache that.

    ``generation`` tells apart inodes that had the same number at different times. It is a tuple for
    the same reason as ``Attributes``.
    """

    attributes: Attributes
    name_seconds: float
    """How long the kernel may cache that the name leads to this inode."""
    attributes_seconds: float
    generation: int = 0

    @property
    def inode(self) -> int:
        """The inode's number."""
        return self.attributes.ino


class Absent(NamedTuple):
    """A name that the kernel may cache as absent for so long."""

    seconds: float


class OpenReply(NamedTuple):
    """A new descriptor."""

    handle: int
    keep_cache: bool
    """The kernel's page cache has bytes of the version that was opened."""
    past_pages: bool
    """Reads and writes bypass the kernel's page cache."""
    local: int | None = None
    """The kernel's number for the local file that it reads instead, if any."""


class Replies:
    """Makes replies. Takes no reference to an inode on behalf of the kernel."""

    def __init__(self, namespace: Namespace, kernel: KernelCache) -> None:
        self._namespace = namespace
        self._kernel = kernel
        self.unseen: trio.Event | None = None
        """Set once all files acknowledged by an earlier daemon are in the store; until then names
        wait.
        """

    async def fresh(self, inode: Inode, began: float) -> EntryReply:
        """From memory if that is fresh, else from the store. ``began`` is when the kernel's request
        was taken up, on trio's clock.

        Raises:
            NoSuchEntryError, StaleInodeError, StoreError
        """
        await self._kernel.forgotten(inode)
        reply = self.fresh_nowait(inode, began)
        if reply is not None:
            return reply
        attributes = await self._namespace.attributes(inode)
        if self._kernel.is_forgetting(inode):
            await self._kernel.forgotten(inode)
            # It may be of another version since then, and the kernel would end READs by the old
            # size.
            attributes = self._namespace.attributes_known(inode)
        return self._reply(inode, attributes, trio.current_time(), began)

    def fresh_nowait(
        self, inode: Inode, began: float, now: float | None = None
    ) -> EntryReply | None:
        """From memory, or None if the store has to be asked, or the kernel forgets the inode.
        ``now`` saves a look at trio's clock, which takes 0.3 us.
        """
        if now is None:
            now = trio.current_time()
        attributes = self._namespace.attributes_nowait(inode, now)
        if attributes is None or self._kernel.is_forgetting(inode):
            return None
        return self._reply(inode, attributes, now, began)

    def attributes_nowait(self, number: int) -> EntryReply | None:
        """As :meth:`Filesystem.attributes`, or None if that would wait or raise an error."""
        inode = self._namespace.inodes.find(number)
        if inode is None or inode.stale:
            return None
        now = trio.current_time()
        return self.fresh_nowait(inode, now, now)

    def lookup_nowait(self, parent: int, name: bytes) -> EntryReply | float | None:
        """As :meth:`Filesystem.lookup`, or for how many seconds the kernel may take the name for
        absent; None if that would wait or raise another error.
        """
        found = None if self.unseen is not None else self._namespace.entry_nowait(parent, name)
        if not isinstance(found, Inode):
            return found
        now = trio.current_time()
        reply = self.fresh_nowait(found, now, now)
        if reply is not None:
            self._namespace.remember(found)
        return reply

    def known(self, inode: Inode, now: float, began: float) -> EntryReply:
        """The reply from memory as of ``now``, for an inode that was looked up or listed just
        before.
        """
        return self._reply(inode, self._namespace.attributes_known(inode), now, began)

    def known_files(self, inodes: Sequence[Inode], now: float, began: float) -> EntryReply:
        """The reply for the first of some files that were made for a listing just now. Those for
        the others differ only in number, generation, size and times.
        """
        self._kernel.answered_files(inodes, began)
        return self.known(inodes[0], now, began)

    def _reply(self, inode: Inode, attributes: Attributes, now: float, began: float) -> EntryReply:
        self._kernel.answered(inode, attributes.size, began)
        seconds = self._namespace.fresh_seconds(inode, now)
        return EntryReply(attributes, seconds, seconds, self._namespace.generation(inode))

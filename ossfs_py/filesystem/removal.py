"""Removed files and directories of which the store has not heard yet, one by one.

``removals`` decides what becomes of them.
"""

from collections.abc import Sequence
from typing import Protocol

import trio

from ossfs_py.filesystem.openinode import OpenInode
from ossfs_py.model import ObjectInfo
from ossfs_py.runtime.locks import PromptLock
from ossfs_py.writing.removals import RemovalRecord


class RemovalOwner(Protocol):
    """The part of :class:`ossfs_py.filesystem.removals.Removals` that frees keys."""

    async def give_way(self, removal: "Removal") -> None:
        """Free the key of a removed file.

        Raises:
            StoreError: that failed; the object is where it was.
        """
        ...

    async def give_marker_way(self, marker: "RemovedMarker") -> None:
        """The directory is about to exist again."""
        ...


class Removal:
    """A removed file. The store may still have an object of it, or get one.

    Implements :class:`~ossfs_py.namespace.removed.RemovedObject`.
    """

    def __init__(
        self,
        record: RemovalRecord,
        opened: OpenInode | None,
        owner: "RemovalOwner",
        settled: trio.Event | None = None,
    ) -> None:
        self.record = record
        self.opened = opened
        """The open file that reads it; None for a removal that an earlier mount has left."""
        self.settled = trio.Event() if settled is None else settled
        """Set when no running request can make another object of it."""
        self.lock = PromptLock()
        """Held while the object is deleted."""
        self.is_over = False
        self.markers: list[RemovedMarker] = []
        self._owner = owner

    @property
    def key(self) -> str:
        """The key where the object is, or may appear."""
        return self.record.key

    def hides(self, info: ObjectInfo) -> bool:
        """Whether it is the removed object, or may be."""
        return self.record.unheard_size is not None or self.record.is_of(info)

    async def give_way(self) -> None:
        """See the protocol."""
        await self._owner.give_way(self)

    @property
    def trash(self) -> str:
        """The prefix below which a copy is made first; "": no copy."""
        return self.record.trash

    @property
    def removed_ns(self) -> int:
        """The time of the removal."""
        return self.record.at_ns

    @property
    def size(self) -> int:
        """Size of the object that may be read, in bytes."""
        version = None if self.opened is None else self.opened.file.version
        return 0 if version is None else version.size

    def is_read(self) -> bool:
        """Whether a program may read bytes of the object."""
        version = None if self.opened is None else self.opened.file.version
        return version is not None and version.key == self.key and version.size > 0


class RemovedMarker:
    """The marker of a directory that still has removed objects: a store may have kept it.

    Implements :class:`~ossfs_py.namespace.removed.RemovedObject`.
    """

    def __init__(self, key: str, removals: "Sequence[Removal]", owner: "RemovalOwner") -> None:
        self._key = key
        self.removals = removals
        self._owner = owner

    @property
    def key(self) -> str:
        """The marker's key."""
        return self._key

    def hides(self, info: ObjectInfo) -> bool:  # noqa: ARG002 - whatever it is
        """Always true."""
        return True

    async def give_way(self) -> None:
        """The directory exists again: its marker must not be deleted."""
        await self._owner.give_marker_way(self)

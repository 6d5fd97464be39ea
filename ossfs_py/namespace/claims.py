"""Claims on parts of the tree: a rename never runs beside changes below it. No I/O.

A rename of a directory lists the keys below it, copies them, and deletes the old keys. A key that
appeared in between would be deleted without a copy, or left behind.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import trio

from ossfs_py.namespace.inode import Inode


class Claims:
    """The changes in progress. Belongs to the trio thread.

    A task takes one claim at a time, before any lock, so that nobody waits in a circle.
    """

    def __init__(self) -> None:
        # How often each is claimed. A Counter removes its keys in Python.
        self._places: dict[Inode, int] = {}
        self._trees: dict[Inode, int] = {}
        self._waiting = trio.lowlevel.ParkingLot()

    def place(self, inode: Inode) -> "PlaceClaim":
        """Change an inode, or the names in a directory, while nothing above it moves."""
        return PlaceClaim(self, inode)

    async def begin(self, inode: Inode) -> None:
        """Wait until nothing above an inode moves, and claim its place."""
        while self.moves(inode):
            await self._waiting.park()
        self._places[inode] = self._places.get(inode, 0) + 1

    def end(self, inode: Inode) -> None:
        """Give up what :meth:`begin` claimed."""
        self._drop(self._places, (inode,))

    @asynccontextmanager
    async def move(self, trees: Iterable[Inode], places: Iterable[Inode]) -> AsyncIterator[None]:
        """Move ``trees`` between the directories ``places`` while nobody changes a thing there."""
        moved, changed = tuple(trees), tuple(places)
        while not self._is_free(moved, changed):
            await self._waiting.park()
        for claims, inodes in ((self._trees, moved), (self._places, changed)):
            for inode in inodes:
                claims[inode] = claims.get(inode, 0) + 1
        try:
            yield
        finally:
            self._drop(self._places, changed)
            self._drop(self._trees, moved)

    def moves(self, inode: Inode) -> bool:
        """Whether the inode, or a directory above it, is being moved."""
        return bool(self._trees) and any(node in self._trees for node in _upwards(inode))

    def _is_free(self, trees: tuple[Inode, ...], places: tuple[Inode, ...]) -> bool:
        if any(self.moves(inode) for inode in (*trees, *places)):
            return False
        wanted = set(trees)
        under_way = (*self._places, *self._trees)
        return not any(node in wanted for inode in under_way for node in _upwards(inode))

    def _drop(self, claims: dict[Inode, int], inodes: tuple[Inode, ...]) -> None:
        for inode in inodes:
            left = claims.pop(inode) - 1
            if left:
                claims[inode] = left
        if self._waiting:
            self._waiting.unpark_all()


class PlaceClaim:
    """A claim on a place, for a block. Made for each change: a generator would take three times as
    long.
    """

    __slots__ = ("_claims", "_inode")

    def __init__(self, claims: Claims, inode: Inode) -> None:
        self._claims = claims
        self._inode = inode

    async def __aenter__(self) -> None:
        """Wait for the claim."""
        await self._claims.begin(self._inode)

    async def __aexit__(self, *_exception: object) -> None:
        """Give it up."""
        self._claims.end(self._inode)


def _upwards(inode: Inode) -> Iterable[Inode]:
    node: Inode | None = inode
    while node is not None:
        yield node
        node = node.parent

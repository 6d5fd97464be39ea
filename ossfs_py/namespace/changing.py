"""Inodes whose objects this mount is replacing or moving at the moment."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from ossfs_py.namespace.inode import Inode


class Changing:
    """Belongs to the trio thread.

    The store may have carried out a request before its answer is here: other answers that tell of
    it are no news of other clients.
    """

    def __init__(self) -> None:
        self._numbers: Counter[int] = Counter()

    @contextmanager
    def during(self, inode: Inode) -> Iterator[None]:
        """Inside the block this mount replaces or removes the object of the inode, and those below
        it.
        """
        self._numbers[inode.number] += 1
        try:
            yield
        finally:
            self._numbers[inode.number] -= 1
            if not self._numbers[inode.number]:
                del self._numbers[inode.number]

    def covers(self, inode: Inode) -> bool:
        """Whether a change of the inode's object is under way."""
        node: Inode | None = inode if self._numbers else None
        while node is not None and node.number not in self._numbers:
            node = node.parent
        return node is not None

"""The known objects beside a file: one of them may have the same bytes (``--dedup``).

The store is not asked: only objects that were listed or written here count, while they are
remembered.
"""

from collections.abc import Iterator
from itertools import islice

from ossfs_py.model import ObjectInfo, ObjectVersion
from ossfs_py.namespace.inode import Inode, Kind
from ossfs_py.namespace.namespace import Namespace

_MOST_LOOKED_AT = 4000
"""Names examined in a directory for each file that is large enough: all programs wait for that
(10,000 took 10 ms at a load of 20).
"""


class Twins:
    """Finds none unless ``is_on``. Belongs to the trio thread."""

    def __init__(self, namespace: Namespace, *, is_on: bool) -> None:
        self._namespace = namespace
        self._is_on = is_on

    def of_size(self, inode: Inode, size: int) -> list[ObjectVersion]:
        """Objects of so many bytes beside it, under other names."""
        return [info.version for info in self._beside(inode) if info.size == size]

    def largest(self, inode: Inode) -> int:
        """Bytes of the largest one; 0 if there is none."""
        return max((info.size for info in self._beside(inode)), default=0)

    def _beside(self, inode: Inode) -> Iterator[ObjectInfo]:
        directory = inode.parent
        if not self._is_on or directory is None or inode.removed:
            return
        newest_first = reversed(directory.children.values())
        for child in islice(newest_first, _MOST_LOOKED_AT):
            if child is not inode and child.kind is Kind.FILE and child.info is not None:
                yield child.info
        listed = self._namespace.listed(directory)
        if listed is not None:
            for name, info in islice(listed.entries.items(), _MOST_LOOKED_AT):
                if name not in directory.children:
                    yield info

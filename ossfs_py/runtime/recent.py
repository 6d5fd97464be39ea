"""A bounded dictionary for what is asked and noted several times in every request."""

from collections import OrderedDict
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(OrderedDict[K, V]):
    """The entries that were put last, up to ``most``.

    An ``LRUCache`` of cachetools is written in Python: it takes 2 to 4 us for what takes 0.2 here,
    and a small file that is made and stored needs twenty of them. It also keeps what was read last;
    this one does not. Entries are only added by :meth:`put`.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def put(self, key: K, value: V) -> None:
        """Add or replace an entry; of too many the one that was put first goes."""
        self[key] = value
        self.move_to_end(key)
        if len(self) > self._most:
            self.popitem(last=False)

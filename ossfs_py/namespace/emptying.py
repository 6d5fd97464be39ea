"""Whether directories are empty that a program removes one after the other, as rm -r does.

Each rmdir(2) has to know what others have stored in its directory within the lifetime of an
absence. One flat LIST from the directory on tells it of up to a thousand keys, and so of the
directories behind it, too. Keys that were removed here since, and are still in the store, do not
count.

Nothing else uses these answers: what is listed or looked up is not concerned.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from itertools import pairwise

import trio

from ossfs_py.errors import StoreError
from ossfs_py.model import ListPage, ListQuery
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.removed import RemovedKeys, RemovedObject
from ossfs_py.namespace.tree import Tree
from ossfs_py.runtime.workers import Workers

_SOON_SECONDS = 2.0
"""A directory removed so soon after the one beside it: a tree is being removed."""


class _Answer:
    """One page of a flat listing."""

    def __init__(
        self,
        base: str,
        prefix: str,
        asked_at: float,
        hiding: Mapping[str, tuple[RemovedObject, ...]],
    ) -> None:
        """``hiding``: the removals below ``base`` at that time. They may end while the store
        answers, or before the answer is used.
        """
        self.base = base
        """All keys below it from ``prefix`` on were asked for."""
        self.asked_at = asked_at
        self.added: list[str] = []
        """Keys of entries made or stored by this mount since."""
        self._prefix = prefix
        self._hiding = hiding
        self._keys: list[str] = []
        self._page: ListPage | None = None

    def take_in(self, page: ListPage) -> None:
        """The store's answer; it is not used if the store does not keep the order."""
        keys = [info.key for info in page.objects]
        in_order = all(before < after for before, after in pairwise(keys))
        if in_order and (not keys or (keys[0] >= self._prefix and keys[0].startswith(self.base))):
            self._keys, self._page = keys, page

    def tells(self, prefix: str, removed: RemovedKeys) -> bool:
        """Whether all keys below ``prefix`` are known, and were removed here. A marker without
        content does not count.
        """
        page = self._page
        if page is None or not (prefix.startswith(self.base) and prefix >= self._prefix):
            return False
        if any(key.startswith(prefix) for key in self.added):
            return False
        place = bisect_left(self._keys, prefix)
        while place < len(self._keys) and self._keys[place].startswith(prefix):
            info = page.objects[place]
            is_marker = info.key == prefix and not info.size
            hiding = (*self._hiding.get(info.key, ()), *removed.hiding(info.key))
            if not (is_marker or any(each.hides(info) for each in hiding)):
                return False
            place += 1
        return place < len(self._keys) or page.next_token is None


class Emptying:
    """Spares questions while a tree is removed. Belongs to the trio thread."""

    def __init__(
        self,
        list_page: Callable[[ListQuery], ListPage],
        workers: Workers,
        tree: Tree,
        removed: RemovedKeys,
    ) -> None:
        """``list_page`` asks the store, on a thread."""
        self._list_page = list_page
        self._workers = workers
        self._tree = tree
        self._removed = removed
        self._answer: _Answer | None = None
        self._last: tuple[Inode, float] | None = None
        """The directory in which one was removed last, and when."""
        self._useless: Inode | None = None
        """A directory of which an answer told nothing: what is in it is asked for one by one."""

    async def is_empty(self, directory: Inode) -> bool:
        """Whether the store has nothing in a directory that is about to be removed; False: ask for
        it alone.
        """
        parent, last = directory.parent, self._last
        if parent is None:
            return False
        now = trio.current_time()
        self._last = parent, now
        if directory.children:
            return False
        prefix = self._tree.keys.marker_key_of(directory)
        if self._tells(prefix, now):
            return True
        goes_on = last is not None and last[0] is parent and now - last[1] < _SOON_SECONDS
        ttl_seconds = self._tree.options.negative_ttl_seconds
        if not goes_on or parent is self._useless or ttl_seconds <= 0:
            return False
        await self._ask(self._tree.keys.marker_key_of(parent), prefix, now)
        if directory.children:
            return False
        is_told = self._tells(prefix, trio.current_time())
        if not is_told:
            self._useless = parent
        return is_told

    async def _ask(self, base: str, prefix: str, now: float) -> None:
        hiding = {key: self._removed.hiding(key) for key in self._removed.below(base)}
        answer = self._answer = _Answer(base, prefix, now, hiding)
        self._tree.on_added = self._added
        query = ListQuery(base, delimiter="", start_after=prefix.removesuffix("/"))
        try:
            answer.take_in(await self._workers.run(self._list_page, query))
        except StoreError:
            self._forget()  # who asks alone gets the reason if that fails, too

    def _tells(self, prefix: str, now: float) -> bool:
        answer = self._answer
        if answer is None or not self._is_young(answer, now):
            self._forget()
            return False
        return answer.tells(prefix, self._removed)

    def _is_young(self, answer: _Answer, now: float) -> bool:
        return now - answer.asked_at < self._tree.options.negative_ttl_seconds

    def _added(self, key: str) -> None:
        answer = self._answer
        if answer is None or not self._is_young(answer, trio.current_time()):
            self._forget()
        else:
            answer.added.append(key)

    def _forget(self) -> None:
        self._answer = self._tree.on_added = None

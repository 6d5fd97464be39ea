"""Whether directories are empty that a program removes one after the other, as rm -r does.

Each rmdir(2) has to know what others have stored in its directory within the lifetime of an
absence. One flat LIST from the directory on tells it of up to a thousand keys, and so of the
directories behind it, too; the next one, of those behind these, is requested before the program
gets there. Keys that were removed here since, and are still in the store, do not count. Of the
directory above, in which thousands of them may be, several pages are requested at once.

Nothing else uses these answers: what is listed or looked up is not concerned.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise

import trio

from ossfs_py.errors import StoreError
from ossfs_py.model import ListPage, ListQuery, ObjectInfo
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.pending import Pending
from ossfs_py.namespace.removed import RemovedKeys, RemovedObject
from ossfs_py.namespace.tree import Tree
from ossfs_py.runtime.workers import Workers

_SOON_SECONDS = 2.0
"""A directory removed so soon after the one beside it: a tree is being removed."""
_HALF_WAY = 0.5
"""Share of an answer's keys after which the one behind it is requested: with a hundred files in
each, five directories before it is needed. rm -r takes an eighth of a second for these, which is
several round trips."""
_NEAR_THE_END = 0.7
"""As much of its keys, or of its lifetime, and it is requested anew from here on: it will be too
old before the program comes to its end."""
_PART_KEYS = 900
"""Removed keys for which a page is requested: others may have stored some between them."""


Hiding = Mapping[str, tuple[RemovedObject, ...]]
"""The removals of keys at the time of a request. They may end while the store answers, or before
the answer is used.
"""


class _Answer:
    """One page of a flat listing: of the keys below ``base`` from ``prefix`` on."""

    def __init__(
        self, base: str, prefix: str, asked_at: float, hiding: Hiding, page: Pending[ListPage]
    ) -> None:
        self.base = base
        self.asked_at = asked_at
        self.added: list[str] = []
        """Keys of entries made or stored by this mount since."""
        self._prefix = prefix
        self._hiding = hiding
        self._asked = page
        self._keys: list[str] = []
        self._page: ListPage | None = None
        self._is_taken_in = False

    async def arrived(self) -> None:
        """Wait for the store's answer, however it ends."""
        await self._asked.wait_settled()

    def _known(self) -> ListPage | None:
        """The answer; None if it is still to come, or not used: the store does not keep the order,
        or refuses, and who asks alone is told why.
        """
        if not self._is_taken_in and self._asked.settled:
            self._is_taken_in = True
            self._take_in()
        return self._page

    def _take_in(self) -> None:
        try:
            page = self._asked.result()
        except StoreError:
            return
        keys = [info.key for info in page.objects]
        in_order = all(before < after for before, after in pairwise(keys))
        if in_order and (not keys or (keys[0] >= self._prefix and keys[0].startswith(self.base))):
            self._keys, self._page = keys, page

    def may_tell(self, prefix: str) -> bool:
        """Whether keys below ``prefix`` were asked for."""
        return prefix.startswith(self.base) and prefix >= self._prefix

    def tells(self, prefix: str, removed: RemovedKeys) -> bool | None:
        """Whether all keys below ``prefix`` were removed here; None: not all are known. A marker
        without content does not count.
        """
        page = self._known()
        if page is None or not self.may_tell(prefix):
            return None
        if any(key.startswith(prefix) for key in self.added):
            return False
        place = bisect_left(self._keys, prefix)
        while place < len(self._keys) and self._keys[place].startswith(prefix):
            if not _is_gone(page.objects[place], prefix, self._hiding, removed):
                return False
            place += 1
        return True if place < len(self._keys) or page.next_token is None else None

    def last_directory(self) -> str:
        """The prefix of the last directory in the answer, of which it may not tell all; "": there
        is none.
        """
        last = self._keys[-1] if self._known() is not None and self._keys else ""
        return last[: last.find("/", len(self.base)) + 1]

    def share_passed(self, prefix: str) -> float:
        """The share of its keys that come before ``prefix``; 1: there is nothing behind them."""
        page = self._known()
        if page is None or not self._keys or prefix > self._keys[-1]:
            return 1.0
        is_last = page.next_token is None
        return 0.0 if is_last else bisect_left(self._keys, prefix) / len(self._keys)


def _is_gone(info: ObjectInfo, prefix: str, hiding: Hiding, removed: RemovedKeys) -> bool:
    """Whether an object below a directory does not keep it from being removed."""
    if info.key == prefix and not info.size:
        return True
    return any(each.hides(info) for each in (*hiding.get(info.key, ()), *removed.hiding(info.key)))


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
        self._answers: list[_Answer] = []
        """The latest last; two at most."""
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
            self._look_ahead(parent, prefix, now)
            return True
        goes_on = last is not None and last[0] is parent and now - last[1] < _SOON_SECONDS
        ttl_seconds = self._tree.options.negative_ttl_seconds
        if not goes_on or parent is self._useless or ttl_seconds <= 0:
            return await self._is_emptied(directory, prefix)
        latest = self._answers[-1] if self._answers else None
        if latest is not None and latest.may_tell(prefix):
            await latest.arrived()
        if not self._tells(prefix, trio.current_time()):
            await self._ask(self._tree.keys.marker_key_of(parent), prefix).arrived()
            if not self._tells(prefix, trio.current_time()):
                self._useless = parent
                return await self._is_emptied(directory, prefix)
        return not directory.children

    def _ask(self, base: str, prefix: str) -> _Answer:
        query = ListQuery(base, delimiter="", start_after=prefix.removesuffix("/"))
        page = Pending(self._workers, partial(self._list_page, query))
        hidden = [key for key in self._removed.below(base) if key >= prefix]
        answer = _Answer(base, prefix, trio.current_time(), self._hiding(hidden), page)
        self._answers = [*self._answers[-1:], answer]
        self._tree.on_added = self._added
        return answer

    def _look_ahead(self, parent: Inode, prefix: str, now: float) -> None:
        """Request the next answer in time: for the directories behind those of the latest one, or
        for the same ones if that is about to be too old.
        """
        latest = self._answers[-1]
        passed = latest.share_passed(prefix)
        if not latest.may_tell(prefix) or passed >= 1:
            return
        age = (now - latest.asked_at) / self._tree.options.negative_ttl_seconds
        following = latest.last_directory()
        if passed > _HALF_WAY and age < passed and following > prefix:
            self._ask(latest.base, following)
        elif max(passed, age) > _NEAR_THE_END:
            self._ask(self._tree.keys.marker_key_of(parent), prefix)

    async def _is_emptied(self, directory: Inode, prefix: str) -> bool:
        """Whether all that the store has in a directory was removed here, if that is more than one
        LIST of the directory would tell.
        """
        hidden = sorted(self._removed.below(prefix))
        is_deep = any("/" in key[len(prefix) :] for key in hidden)
        if not is_deep and len(hidden) < _PART_KEYS:
            return False
        hiding = self._hiding(hidden)
        bounds = hidden[_PART_KEYS::_PART_KEYS]
        parts = [
            (start, end, Pending(self._workers, partial(self._list_page, _part(prefix, start))))
            for start, end in pairwise(["", *bounds, ""])
        ]
        for start, end, asked in parts:
            try:
                page = await asked.wait()
            except StoreError:
                return False  # who asks alone gets the reason if that fails, too
            if not self._tells_of_none(page, prefix, start, end, hiding):
                return False
        return not directory.children

    def _tells_of_none(
        self, page: ListPage, prefix: str, start: str, end: str, hiding: Hiding
    ) -> bool:
        """Whether a page has all keys below ``prefix`` that come after ``start``, up to ``end`` (or
        all, if that is empty), and they were removed here.
        """
        keys = [start, *(info.key for info in page.objects)]
        is_whole = page.next_token is None or (end != "" and keys[-1] >= end)
        in_order = all(before < after for before, after in pairwise(keys))
        return (
            is_whole
            and in_order
            and all(_is_gone(info, prefix, hiding, self._removed) for info in page.objects)
        )

    def _hiding(self, keys: Sequence[str]) -> Hiding:
        return {key: self._removed.hiding(key) for key in keys}

    def _tells(self, prefix: str, now: float) -> bool:
        self._forget_old(now)
        for answer in reversed(self._answers):
            if (is_told := answer.tells(prefix, self._removed)) is not None:
                return is_told
        return False

    def _forget_old(self, now: float) -> None:
        ttl_seconds = self._tree.options.negative_ttl_seconds
        self._answers = [each for each in self._answers if now - each.asked_at < ttl_seconds]
        if not self._answers:
            self._tree.on_added = None

    def _added(self, key: str) -> None:
        self._forget_old(trio.current_time())
        for answer in self._answers:
            answer.added.append(key)


def _part(prefix: str, start: str) -> ListQuery:
    """The keys behind ``start``; "": from the first on."""
    return ListQuery(prefix, delimiter="", start_after=start or None)

"""Whether directories are empty that a program removes one after the other, as rm -r does.

Each rmdir(2) has to know what others have stored in its directory within the lifetime of an
absence. One flat LIST from the directory on tells it of up to a thousand keys, and so of the
directories behind it, too; the next one, of those behind these, is requested before the program
gets there. Keys that were removed here since, and are still in the store, do not count. Of the
directory above, in which thousands of them may be, several pages are requested at once.

The directory above them is removed last. It has to be known then that nothing was stored in what
was removed before, and all these keys are still in the store: they are requested again in parts,
ahead while the last directories are removed. The last part is requested when it fits one page with
the keys that are still to be removed: by the end, all that it tells was removed here, or it is not.

Nothing else uses these answers: what is listed or looked up is not concerned.
"""

import math
from bisect import bisect_left, bisect_right
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
from ossfs_py.store.keyorder import is_behind

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
_LAST_STRETCH = 0.7
"""The part of the lifetime of an absence before the end of a tree in which its keys are requested
once more: the first answers must not be too old at the end."""
_MANY_DIRECTORIES = 8
"""After so many, what is left is asked for ahead: the answer about a few more would often tell of
the directory above them, too."""
_PARTS_AT_ONCE = 2
"""Each takes processor time from the program that removes the tree."""
_MAX_RUNS = 16
"""Directories whose directories are being removed: those above one another in a deep tree."""


Hiding = Mapping[str, tuple[RemovedObject, ...]]
"""The removals of keys at the time of a request. They may end while the store answers, or before
the answer is used.
"""


class _Answer:
    """One page of a flat listing: of the keys below ``base`` that come behind ``start``.

    That is a key of a file, or all that a directory's keys begin with: its marker is not told. Not
    the same without the slash: SeaweedFS goes on behind the whole directory then, and the keys of
    ``foo-bar`` come between ``foo`` and those in it.
    """

    def __init__(
        self, base: str, start: str, asked_at: float, hiding: Hiding, page: Pending[ListPage]
    ) -> None:
        self.base = base
        self.asked_at = asked_at
        self.added: list[str] = []
        """Keys of entries made or stored by this mount since."""
        self.has_told = False
        """Whether it has told of a directory."""
        self._start = start
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
        if in_order and (not keys or (keys[0] > self._start and keys[0].startswith(self.base))):
            self._keys, self._page = keys, page

    def may_tell(self, prefix: str) -> bool:
        """Whether all keys below ``prefix`` were asked for, that of its marker, too."""
        return prefix.startswith(self.base) and is_behind(prefix, self._start)

    def tells(self, prefix: str, removed: RemovedKeys) -> bool | None:
        """Whether all keys below ``prefix`` were removed here; None: not all are known. A marker
        without content does not count.
        """
        page = self._known()
        if page is None or not self.may_tell(prefix):
            return None
        is_empty = self._is_empty(page, prefix, removed)
        self.has_told = self.has_told or is_empty is not None
        return is_empty

    def _is_empty(self, page: ListPage, prefix: str, removed: RemovedKeys) -> bool | None:
        if any(key.startswith(prefix) for key in self.added):
            return False
        place = bisect_left(self._keys, prefix)
        while place < len(self._keys) and self._keys[place].startswith(prefix):
            if not _is_gone(page.objects[place], prefix, self._hiding, removed):
                return False
            place += 1
        if page.next_token is None:
            return True
        is_passed = place < len(self._keys) and is_behind(self._keys[-1], prefix)
        return True if is_passed else None

    def last_directory(self) -> str:
        """The prefix of the last directory in the answer, of which it may not tell all; "": there
        is none.
        """
        last = self._keys[-1] if self._known() is not None and self._keys else ""
        return last[: last.find("/", len(self.base)) + 1]

    def key_before(self, prefix: str) -> str:
        """The last key before those of a directory; "": there is none."""
        place = bisect_left(self._keys, prefix) if self._known() is not None else 0
        return self._keys[place - 1] if place else ""

    def share_passed(self, prefix: str) -> float:
        """The share of its keys that come before ``prefix``; 1: there is nothing behind them."""
        page = self._known()
        if page is None or not self._keys or prefix > self._keys[-1]:
            return 1.0
        is_last = page.next_token is None
        return 0.0 if is_last else bisect_left(self._keys, prefix) / len(self._keys)


def _is_gone(info: ObjectInfo, prefix: str, hiding: Hiding, removed: RemovedKeys) -> bool:
    """Whether an object below a directory does not keep it from being removed."""
    key = info.key
    if key == prefix and not info.size:
        return True
    # Not by any(): a thousand keys of a page are looked at one after the other.
    for each in hiding.get(key, ()):
        if each.hides(info):
            return True
    return any(each.hides(info) for each in removed.hiding(key))


class _Stretch:
    """One page of the keys below a directory that come behind ``start``, of which those up to
    ``end`` count; "": from the first on, or all.
    """

    def __init__(self, start: str, end: str, hiding: Hiding, page: Pending[ListPage]) -> None:
        self.start = start
        self.end = end
        self.asked_at = trio.current_time()
        self.page = page
        self._hiding = hiding

    async def is_last(self) -> bool:
        """Whether the store told that nothing is behind this page."""
        try:
            return (await self.page.wait()).next_token is None
        except StoreError:
            return False  # as below

    async def tells_of_none(self, prefix: str, removed: RemovedKeys) -> bool:
        """Whether the store told all keys in this part, and they were removed here."""
        try:
            page = await self.page.wait()
        except StoreError:
            return False  # who asks alone gets the reason if that fails, too
        keys = [self.start, *(info.key for info in page.objects)]
        count = bisect_right(keys, self.end) - 1 if self.end else len(page.objects)
        return (
            (page.next_token is None or (self.end != "" and keys[-1] >= self.end))
            and all(before < after for before, after in pairwise(keys))
            and all(_is_gone(each, prefix, self._hiding, removed) for each in page.objects[:count])
        )


class _Clearing:
    """The removal of the directories in one directory, one after the other."""

    def __init__(self, prefix: str, now: float, additions: int) -> None:
        """``additions``: how many removals there have been, those in the first directory too."""
        self.prefix = prefix
        self.parts: list[_Stretch] = []
        """In their order, without gaps, from the first key on."""
        self.hidden: list[str] = []
        """Removed keys behind those, in order."""
        self.additions = 0
        """How many removals there had been when these were noted."""
        self.tail: _Stretch | None = None
        """The page of all keys behind those parts, also of what is still to be removed."""
        self.last = now
        self._began = now
        self._began_at = additions
        self._count = 0

    def goes_on(self, now: float, left: int) -> float:
        """One more is removed; returns how many seconds those that are left will take."""
        self.last = now
        self._count += 1
        passed = self._count - 1
        return (now - self._began) / passed * left if passed else math.inf

    def keys_in(self, left: int, additions: int) -> float:
        """How many keys directories have that are left, if they are like those before."""
        if self._count < _MANY_DIRECTORIES:
            return math.inf
        return (additions - self._began_at) / (self._count - 1) * left

    @property
    def has_asked(self) -> bool:
        """Whether answers are kept."""
        return bool(self.parts) or self.tail is not None

    def forget(self) -> None:
        """What the parts tell is not all any more."""
        self.parts.clear()
        self.hidden.clear()
        self.additions = 0
        self.tail = None

    @property
    def reached(self) -> str:
        """The last key of the parts; "": there is none."""
        return self.parts[-1].end if self.parts else ""


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
        self._runs: dict[Inode, _Clearing] = {}
        """By the directory in which directories are removed, the latest last."""
        self._useless: Inode | None = None
        """A directory of which an answer told nothing: what is in it is asked for one by one."""

    async def is_empty(self, directory: Inode) -> bool:
        """Whether the store has nothing in a directory that is about to be removed; False: ask for
        it alone.
        """
        parent = directory.parent
        if parent is None:
            return False
        now, prefix = trio.current_time(), self._tree.keys.marker_key_of(directory)
        own = self._runs.pop(directory, None)
        goes_on = self._goes_on(parent, now)
        if self._tree.is_known_empty(directory):
            return True
        if directory.children:
            return False
        is_told = self._told(prefix, now)
        if is_told:
            self._look_ahead(parent, prefix, now)
            return True
        if is_told is None and goes_on and await self._is_told(parent, prefix):
            return not directory.children
        return await self._is_emptied(directory, prefix, own)

    async def _is_told(self, parent: Inode, prefix: str) -> bool:
        """Whether an answer for several directories in ``parent``, which is waited for, says that
        one of them is empty.
        """
        if parent is self._useless or self._tree.options.negative_ttl_seconds <= 0:
            return False
        latest = self._answers[-1] if self._answers else None
        if latest is not None and latest.may_tell(prefix):
            await latest.arrived()
            is_empty = self._told(prefix, trio.current_time())
            if is_empty is not None:
                return is_empty
            if latest in self._answers and not latest.has_told:
                self._useless = parent
                return False
        # For those behind it: what is in this one is asked for meanwhile, and its marker.
        self._ask(self._tree.keys.marker_key_of(parent), prefix)
        return False

    def _goes_on(self, parent: Inode, now: float) -> bool:
        """A directory in ``parent`` is about to be removed; whether another one just was. Ask for
        the keys below ``parent`` if it will be removed soon, too.
        """
        prefix, run = self._tree.keys.marker_key_of(parent), self._runs.pop(parent, None)
        goes_on = run is not None and now - run.last < _SOON_SECONDS and run.prefix == prefix
        if run is None or not goes_on:
            run = _Clearing(prefix, now, self._removed.additions)
        self._runs[parent] = run
        if len(self._runs) > _MAX_RUNS:
            del self._runs[next(iter(self._runs))]
        left = len(parent.children)
        if run.goes_on(now, left) < _LAST_STRETCH * self._tree.options.negative_ttl_seconds:
            self._ask_part_ahead(run)
            if run.tail is None:
                self._ask_tail_ahead(run, run.keys_in(left, self._removed.additions))
        return goes_on

    def _ask_part_ahead(self, run: _Clearing) -> None:
        additions = self._removed.additions
        if len(run.hidden) <= _PART_KEYS < len(run.hidden) + additions - run.additions:
            run.additions = additions
            run.hidden = self._hidden_between(run.prefix, run.reached, "")
        while (
            len(run.hidden) > _PART_KEYS
            and sum(1 for each in run.parts if not each.page.settled) < _PARTS_AT_ONCE
        ):
            (part,) = self._ask_parts(run.prefix, run.reached, run.hidden[: _PART_KEYS + 1])
            part.page.when_settled(partial(self._part_arrived, run))
            del run.hidden[: _PART_KEYS + 1]
            run.parts.append(part)
            self._tree.on_added = self._added

    def _ask_tail_ahead(self, run: _Clearing, left_keys: float) -> None:
        """Ask for all that is behind the parts, once it fits one page with what is still to be
        removed, so that nobody waits for it at the end.
        """
        removed_since = self._removed.additions - run.additions
        if len(run.hidden) + removed_since + left_keys > _PART_KEYS:
            return
        hidden = self._hidden_between(run.prefix, run.reached, "")
        if len(hidden) + left_keys <= _PART_KEYS:
            (run.tail,) = self._ask_parts(run.prefix, run.reached, hidden, to_end=True)
            self._tree.on_added = self._added

    def _part_arrived(self, run: _Clearing) -> None:
        if run in self._runs.values() and not self._workers.closed:
            self._ask_part_ahead(run)

    def _ask(self, base: str, start: str) -> None:
        query = ListQuery(base, delimiter="", start_after=start)
        page = Pending(self._workers, partial(self._list_page, query))
        hidden = [key for key in self._removed.below(base) if key > start]
        answer = _Answer(base, start, trio.current_time(), self._hiding(hidden), page)
        self._answers = [*self._answers[-1:], answer]
        self._tree.on_added = self._added

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
            self._ask(latest.base, latest.key_before(following) or prefix)
        elif max(passed, age) > _NEAR_THE_END:
            self._ask(self._tree.keys.marker_key_of(parent), prefix)

    async def _is_emptied(self, directory: Inode, prefix: str, run: _Clearing | None) -> bool:
        """Whether all that the store has in a directory was removed here, if that is more than one
        LIST of the directory would tell.
        """
        oldest = trio.current_time() - self._tree.options.negative_ttl_seconds
        parts: list[_Stretch] = []
        for part in run.parts if run is not None and run.prefix == prefix else ():
            if part.asked_at > oldest:
                parts.append(part)
            else:
                between = self._hidden_between(prefix, part.start, part.end)
                parts += self._ask_parts(prefix, part.start, [*between, part.end])
        reached = parts[-1].end if parts else ""
        tail = None if run is None or run.prefix != prefix else run.tail
        if (
            tail is not None
            and tail.asked_at > oldest
            and tail.start == reached
            and await tail.is_last()
        ):
            parts.append(tail)
        else:
            hidden = self._hidden_between(prefix, reached, "")
            is_deep = any("/" in key[len(prefix) :] for key in hidden)
            if not parts and not is_deep and len(hidden) < _PART_KEYS:
                return False
            parts += self._ask_parts(prefix, reached, hidden, to_end=True)
        for part in parts:
            if not await part.tells_of_none(prefix, self._removed):
                return False
        return not directory.children

    def _hidden_between(self, prefix: str, start: str, end: str) -> list[str]:
        """The removed keys below ``prefix`` behind ``start`` and before ``end``, in order; "": no
        bound.
        """
        keys = self._removed.below(prefix)
        return sorted(key for key in keys if key > start and (not end or key < end))

    def _ask_parts(
        self, prefix: str, start: str, hidden: Sequence[str], *, to_end: bool = False
    ) -> list[_Stretch]:
        """Ask for the keys behind ``start``, of which ``hidden`` were removed, up to the last of
        those, or ``to_end``.
        """
        parts: list[_Stretch] = []
        for at in range(0, max(1, len(hidden)), _PART_KEYS + 1):
            those = hidden[at : at + _PART_KEYS + 1]
            is_last = at + len(those) == len(hidden)
            query = ListQuery(prefix, delimiter="", start_after=start or None)
            page = Pending(self._workers, partial(self._list_page, query))
            end = "" if is_last and to_end else those[-1]
            parts.append(_Stretch(start, end, self._hiding(those), page))
            start = end
        return parts

    def _hiding(self, keys: Sequence[str]) -> Hiding:
        return {key: self._removed.hiding(key) for key in keys}

    def _told(self, prefix: str, now: float) -> bool | None:
        """Whether an answer says that a directory is empty, or not; None: there is none."""
        self._forget_old(now)
        for answer in reversed(self._answers):
            if (is_told := answer.tells(prefix, self._removed)) is not None:
                return is_told
        return None

    def _forget_old(self, now: float) -> None:
        ttl_seconds = self._tree.options.negative_ttl_seconds
        self._answers = [each for each in self._answers if now - each.asked_at < ttl_seconds]
        for run in self._runs.values():
            if run.parts and now - run.parts[-1].asked_at >= ttl_seconds:
                run.forget()
            elif run.tail is not None and now - run.tail.asked_at >= ttl_seconds:
                run.tail = None
        if not (self._answers or any(run.has_asked for run in self._runs.values())):
            self._tree.on_added = None

    def _added(self, key: str) -> None:
        self._forget_old(trio.current_time())
        for answer in self._answers:
            answer.added.append(key)
        for run in self._runs.values():
            if run.has_asked and key.startswith(run.prefix):
                run.forget()  # they do not tell of it

"""Removals that the store has still to carry out: one request for many keys, in the background.

With a trash, each file is copied first.
"""

import logging
import math
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import trio

from ossfs_py.errors import (
    AccessDeniedError,
    ObjectMissingError,
    OssfsError,
    StoreError,
    StoreUnavailableError,
    UnsavedDataError,
    UnsupportedByStoreError,
)
from ossfs_py.filesystem.rounds import Rounds
from ossfs_py.filesystem.trash import Trash
from ossfs_py.model import ListQuery, ObjectInfo
from ossfs_py.runtime.locks import PromptLock
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import MAX_DELETED_KEYS, ObjectStore
from ossfs_py.writing.removals import is_bare_marker

log = logging.getLogger(__name__)

MAX_PUT_OFF = 20_000
"""Removals that may wait; the next one waits for room. Each is hidden in every listing."""
_COPIES_AT_ONCE = 16
_CALM_SECONDS = 0.2
_LONGEST_CALM_SECONDS = 5.0
_LONGEST_CALM_OF_COPIES_SECONDS = 10.0
"""Removals are sent when none was made for some time, at the latest after this: most runs of rm -r
are done sooner, and their batches are full. Batches that are sent meanwhile take processor time
from rm. Copies wait longer, as they take the store's time too.
"""
_MANY = 15_000
"""With so many waiting, they are sent without a pause in removals."""
_WORTH_A_FLAT_LISTING = 3
"""With at least this many directories, one listing of the directory above them replaces one each.
"""
_RETRY_SECONDS = 5.0
"""Pause between tries while the store does not answer; each has the store's own retry budget."""


class PutOffRemoval(Protocol):
    """A removed file that is not open, or a directory; see
    :class:`~ossfs_py.filesystem.removal.Removal`.
    """

    @property
    def key(self) -> str:
        """The key of its object."""
        ...

    @property
    def trash(self) -> str:
        """The prefix below which a copy of the object is made first; "": no copy."""
        ...

    @property
    def removed_ns(self) -> int:
        """The time of the removal."""
        ...

    @property
    def lock(self) -> PromptLock:
        """Held while the object is deleted."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether the removal was completed in another way."""
        ...

    def hides(self, info: ObjectInfo) -> bool:
        """Whether ``info`` is the removed object."""
        ...


Forget = Callable[[Sequence[PutOffRemoval]], Awaitable[None]]


class PutOffRemovals:
    """The removals that wait for the store. Belongs to the trio thread.

    Removals that gather while one batch is running form the next batch. An object that others have
    stored in the meantime under a removed name is left alone.
    """

    def __init__(
        self,
        store: ObjectStore,
        workers: Workers,
        forget: Forget,
        trash: Trash,
        came_back: Callable[[], None],
        before: Callable[[Sequence[str]], Awaitable[None]],
    ) -> None:
        """``forget`` gets completed removals; ``came_back`` is called if files of theirs stay.
        ``before`` is awaited with the keys of each batch.
        """
        self._trash = trash
        self._came_back = came_back
        self._before = before
        self._store = store
        self._workers = workers
        self._forget = forget
        self._waiting: dict[PutOffRemoval, None] = {}
        self._old: set[PutOffRemoval] = set()
        """Those that an earlier mount left."""
        self._rounds = Rounds()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether too many removals wait for another one."""
        return len(self._waiting) >= MAX_PUT_OFF

    async def wait_for_room(self) -> None:
        """Wait while too many removals wait."""
        await self._rounds.wait_while(lambda: self.is_full)

    def add(self, removal: PutOffRemoval, *, is_old: bool = False) -> None:
        """Delete its object soon; ``is_old``: an earlier mount has left it."""
        self._waiting[removal] = None
        if is_old:
            self._old.add(removal)
        self._rounds.hurry()

    async def tried_below(self, prefix: str) -> None:
        """Wait until the waiting removals below a prefix are done, or have failed once."""
        if any(removal.key.startswith(prefix) for removal in self._waiting):
            await self.tried()

    async def tried(self) -> None:
        """Wait until the removals that wait now are done, or have failed once."""
        wanted = set(self._waiting)
        await self._rounds.tried(
            lambda: bool(wanted & self._waiting.keys()), 1 + len(wanted) // MAX_DELETED_KEYS
        )

    async def done(self) -> None:
        """Wait until the removals that wait now are done.

        Raises:
            UnsavedDataError: some failed; they are tried again later.
        """
        await self.tried()
        if self._waiting:
            count = len(self._waiting)
            which = "a removed file is" if count == 1 else f"{count} removed files are"
            raise UnsavedDataError(f"{which} still in the bucket")

    async def run(self) -> None:
        """Delete objects as removals come, until cancelled."""
        goes_on = False  # with removals that did not fit into the last batch
        while True:
            await self._rounds.hurried()
            if not goes_on and len(self._waiting) < _MANY:
                copies = any(removal.trash for removal in self._waiting)
                longest = _LONGEST_CALM_OF_COPIES_SECONDS if copies else _LONGEST_CALM_SECONDS
                await self._rounds.calm(lambda: len(self._waiting), _CALM_SECONDS, longest)
            batch = list(self._waiting)[:MAX_DELETED_KEYS]
            if not batch:
                continue
            with self._rounds.round():
                await self._before([removal.key for removal in batch])
                await self._delete(batch)
            self._old.update(removal for removal in batch if removal in self._waiting)
            if batch[0] in self._waiting:
                await self._rounds.hurried(_RETRY_SECONDS)
            goes_on = bool(self._waiting)
            if goes_on:
                self._rounds.hurry()

    # -- inside ----------------------------------------------------------------------------------

    async def _delete(self, batch: Sequence[PutOffRemoval]) -> None:
        """Delete the objects of a batch; those that could not be deleted go on waiting."""
        ours: list[PutOffRemoval] = []
        try:
            for removal in batch:
                await removal.lock.acquire()
                ours.append(removal)
            owed = [removal for removal in ours if not removal.is_over]
            try:
                copies = await self._copied([removal for removal in owed if removal.trash])
                kept = await self._workers.run_to_end(self._delete_present, owed, copies)
                await self._forget([removal for removal in owed if removal not in kept])
                if copies.refused:
                    self._came_back()
            except (StoreError, OSError, RuntimeError) as exc:
                # OSError: the journal. All are looked at again, deleted or not.
                log.warning("%d removed files are still in the bucket: %s", len(owed), exc)
                return
            for removal in ours:
                if removal not in kept:
                    del self._waiting[removal]
                    self._old.discard(removal)
        finally:
            for removal in ours:
                removal.lock.release()

    async def _copied(self, owed: Sequence[PutOffRemoval]) -> "_Copies":
        """Copy the objects that are about to be deleted, several at a time.

        Raises:
            StoreError: the state of the objects could not be read.
        """
        copies = _Copies()
        if not owed:
            return copies
        by_key = {removal.key: removal for removal in owed}
        limit = trio.CapacityLimiter(_COPIES_AT_ONCE)

        async def copy(removal: PutOffRemoval, info: ObjectInfo) -> None:
            async with limit:
                try:
                    copied = await self._trash.keep_object(removal.trash, info, removal.removed_ns)
                except (StoreUnavailableError, RuntimeError) as exc:
                    log.warning("%r, removed here, is still in the bucket: %s", info.key, exc)
                    copies.missing.add(removal)
                except OssfsError as exc:
                    log.debug("%r is there again: %s", info.key, exc)
                    copies.refused = True
                else:
                    if copied is not None and removal.hides(copied):
                        copies.etags[removal] = copied.etag

        there = await self._workers.run_to_end(self._present, list(by_key))
        async with trio.open_nursery() as nursery:
            for info in there:
                if by_key[info.key].hides(info):
                    nursery.start_soon(copy, by_key[info.key], info)
        return copies

    def _delete_present(
        self, owed: Sequence[PutOffRemoval], copies: "_Copies"
    ) -> set[PutOffRemoval]:
        """On a thread: delete the objects that are still there; returns those that failed for now.

        Markers are deleted after the objects of their directories, the deepest first: SeaweedFS
        silently keeps the marker of a directory that is not empty.

        Raises:
            StoreError: the state of the objects could not be read.
        """
        levels: dict[int, dict[str, PutOffRemoval]] = defaultdict(dict)
        for removal in owed:
            is_marker = removal.key.endswith("/")
            levels[removal.key.count("/") if is_marker else sys.maxsize][removal.key] = removal
        kept = set(copies.missing)
        for depth in sorted(levels, reverse=True):
            by_key = levels[depth]
            for key, removal in list(by_key.items()):
                if key.endswith("/") and any(each.key.startswith(key) for each in kept):
                    kept.add(by_key.pop(key, removal))
            kept |= self._delete_level(by_key, copies)
        return kept

    def _delete_level(
        self, by_key: Mapping[str, PutOffRemoval], copies: "_Copies"
    ) -> set[PutOffRemoval]:
        markers = [key for key in by_key if key.endswith("/")]
        files = [key for key in by_key if not key.endswith("/")]
        left = [info.key for info in self._present(files) if copies.allow(by_key[info.key], info)]
        left += [key for key in markers if not self._must_stay(by_key[key])]
        if len(left) > 1:
            try:
                left = self._store.delete_many(left)
            except UnsupportedByStoreError:
                log.debug("this store deletes one object at a time")
        kept = set()
        for key in left:
            try:
                self._store.delete(key)
            except AccessDeniedError as exc:
                # If it stayed hidden, all clients would see it but those of the mount that could
                # handle it.
                log.error("%r was removed here, but the store keeps it: %s", key, exc)  # noqa: TRY400
            except StoreError as exc:
                log.warning("%r, removed here, is still in the bucket: %s", key, exc)
                kept.add(by_key[key])
        return kept

    def _must_stay(self, removal: PutOffRemoval) -> bool:
        """Whether a directory was made anew, or has a file again that could not be copied."""
        if self._is_another(removal):
            return True
        return self._trash.is_on and not is_bare_marker(self._store, removal.key)

    def _is_another(self, removal: PutOffRemoval) -> bool:
        """Whether others have made a directory anew since. SeaweedFS does not report a marker, and
        lists the empty directory until it is deleted.
        """
        if removal not in self._old:
            return False
        try:
            return not removal.hides(self._store.head(removal.key))
        except ObjectMissingError:
            return False

    def _present(self, keys: Sequence[str]) -> list[ObjectInfo]:
        """The present objects of keys: from listings that cover several keys, else one by one."""
        found, left = self._present_in_tree(keys)
        for prefix, wanted in _by_directory(left).items():
            # A page costs as much as a request for one key: fetch no more pages than keys.
            pages = len(wanted) if len(wanted) > 1 else 0
            here, unseen, is_whole = self._listed(ListQuery(prefix), wanted, pages)
            found += here
            for key in () if is_whole else unseen:
                try:
                    found.append(self._store.head(key))
                except ObjectMissingError:
                    continue
        return found

    def _present_in_tree(self, keys: Sequence[str]) -> tuple[list[ObjectInfo], Sequence[str]]:
        """The result of flat listings of all directories together, and the keys that have to be
        asked for otherwise. For a tree that is removed the listings are short; for others they are
        given up early.
        """
        directories = _by_directory(keys)
        if len(directories) < _WORTH_A_FLAT_LISTING:
            return [], keys
        query = ListQuery(_common_directory(directories), delimiter="")
        pages = 1 + math.ceil(len(keys) / MAX_DELETED_KEYS)
        found, unseen, is_whole = self._listed(query, keys, pages)
        # Some servers lose keys between pages of a flat listing: trust only a single page.
        return found, [] if is_whole else unseen

    def _listed(
        self, query: ListQuery, keys: Sequence[str], pages: int
    ) -> tuple[list[ObjectInfo], list[str], bool]:
        """The keys that a listing has, the keys that it lacks, and whether the latter are gone."""
        found: list[ObjectInfo] = []
        left = dict.fromkeys(keys)
        for number in range(pages):
            page = self._store.list_page(query)
            here = [info for info in page.objects if info.key in left]
            found += here
            for info in here:
                del left[info.key]
            if page.next_token is None:
                return found, list(left), number == 0 or query.delimiter != ""
            if not left:
                break
            query = replace(query, token=page.next_token)
        return found, list(left), not left


class _Copies:
    """The copies of a batch."""

    def __init__(self) -> None:
        self.etags: dict[PutOffRemoval, str] = {}
        """The ETags of copied objects."""
        self.missing: set[PutOffRemoval] = set()
        """Removals whose copies are not made yet."""
        self.refused = False
        """Whether the store refused to copy some objects; those stay."""

    def allow(self, removal: PutOffRemoval, info: ObjectInfo) -> bool:
        """Whether an object may be deleted. Copies may take long, and others may store objects in
        the meantime.
        """
        if removal.trash and self.etags.get(removal) != info.etag:
            return False
        return removal.hides(info)


def _common_directory(directories: Collection[str]) -> str:
    """The longest prefix of all of them that is a directory's."""
    first, last = min(directories), max(directories)
    while not last.startswith(first):
        first = first[: first.rfind("/", 0, -1) + 1]
    return first


def _by_directory(keys: Sequence[str]) -> Mapping[str, list[str]]:
    grouped = defaultdict(list)
    for key in keys:
        grouped[key[: key.rfind("/") + 1]].append(key)
    return grouped

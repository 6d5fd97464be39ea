"""Removals that write-back owes the store: many keys by one request, behind who removed them."""

import logging
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import trio

from ossfs_py.errors import (
    AccessDeniedError,
    ObjectMissingError,
    StoreError,
    UnsavedDataError,
    UnsupportedByStoreError,
)
from ossfs_py.filesystem.rounds import Rounds
from ossfs_py.model import ListQuery, ObjectInfo
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import MAX_DELETED_KEYS, ObjectStore

log = logging.getLogger(__name__)

MAX_PUT_OFF = 10_000
"""Removals that may wait; the next one waits for them. Each is hidden in every listing."""
_RETRY_SECONDS = 5.0
"""Between tries while the store does not answer; each has the store's own retry budget."""


class PutOffRemoval(Protocol):
    """A removed file that nobody has open; see :class:`~ossfs_py.filesystem.removals.Removal`."""

    @property
    def key(self) -> str:
        """Where its object is."""
        ...

    @property
    def lock(self) -> trio.Lock:
        """Held while the object is deleted."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether somebody else has seen to it."""
        ...

    def hides(self, info: ObjectInfo) -> bool:
        """Whether it is the removed object."""
        ...


Forget = Callable[[Sequence[PutOffRemoval]], Awaitable[None]]


class PutOffRemovals:
    """The removals that wait for the store. Belongs to the trio thread.

    What gathers while one batch is under way is the next. An object that others have stored since
    under a removed name is left alone.
    """

    def __init__(self, store: ObjectStore, workers: Workers, forget: Forget) -> None:
        """``forget`` is told which ones are over."""
        self._store = store
        self._workers = workers
        self._forget = forget
        self._waiting: dict[PutOffRemoval, None] = {}
        self._old: set[PutOffRemoval] = set()
        """Those of them that do not come from a moment ago."""
        self._rounds = Rounds()

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait_for_room(self) -> None:
        """Wait while too many wait."""
        await self._rounds.wait_while(lambda: len(self._waiting) >= MAX_PUT_OFF)

    def add(self, removal: PutOffRemoval, *, is_old: bool = False) -> None:
        """Let its object be deleted soon; ``is_old``: an earlier mount has left it."""
        self._waiting[removal] = None
        if is_old:
            self._old.add(removal)
        self._rounds.hurry()

    async def tried_below(self, prefix: str) -> None:
        """Wait until what waits below a prefix is done, or could not be."""
        if any(removal.key.startswith(prefix) for removal in self._waiting):
            await self.tried()

    async def tried(self) -> None:
        """Wait until what waits now is done, or could not be."""
        wanted = set(self._waiting)
        await self._rounds.tried(
            lambda: bool(wanted & self._waiting.keys()), 1 + len(wanted) // MAX_DELETED_KEYS
        )

    async def done(self) -> None:
        """Wait until what waits now is done.

        Raises:
            UnsavedDataError: some of it could not be; it is tried again later.
        """
        await self.tried()
        if self._waiting:
            count = len(self._waiting)
            which = "a removed file is" if count == 1 else f"{count} removed files are"
            raise UnsavedDataError(f"{which} still in the bucket")

    async def run(self) -> None:
        """Delete what comes, until cancelled."""
        while True:
            await self._rounds.hurried()
            batch = list(self._waiting)[:MAX_DELETED_KEYS]
            if not batch:
                continue
            with self._rounds.round():
                await self._delete(batch)
            self._old.update(removal for removal in batch if removal in self._waiting)
            if batch[0] in self._waiting:
                await self._rounds.hurried(_RETRY_SECONDS)
            if self._waiting:
                self._rounds.hurry()

    # -- inside ----------------------------------------------------------------------------------

    async def _delete(self, batch: Sequence[PutOffRemoval]) -> None:
        """Delete the objects of a batch; those that could not be go on waiting."""
        ours: list[PutOffRemoval] = []
        try:
            for removal in batch:
                await removal.lock.acquire()
                ours.append(removal)
            owed = [removal for removal in ours if not removal.is_over]
            try:
                kept = await self._workers.run_to_end(self._delete_present, owed)
                await self._forget([removal for removal in owed if removal not in kept])
            except (StoreError, OSError, RuntimeError) as exc:
                # OSError: the journal. Deleted or not, all of them are looked at again.
                log.warning("%d removed files are still in the bucket: %s", len(owed), exc)
                return
            for removal in ours:
                if removal not in kept:
                    del self._waiting[removal]
                    self._old.discard(removal)
        finally:
            for removal in ours:
                removal.lock.release()

    def _delete_present(self, owed: Sequence[PutOffRemoval]) -> set[PutOffRemoval]:
        """On a thread: delete what is there still; returns those that could not be, for now.

        Markers go after what was in their directories, the deepest first: SeaweedFS keeps one,
        silently, whose directory has anything in it.

        Raises:
            StoreError: nothing could be found out.
        """
        levels: dict[int, dict[str, PutOffRemoval]] = defaultdict(dict)
        for removal in owed:
            is_marker = removal.key.endswith("/")
            levels[removal.key.count("/") if is_marker else sys.maxsize][removal.key] = removal
        kept: set[PutOffRemoval] = set()
        for depth in sorted(levels, reverse=True):
            by_key = levels[depth]
            for key, removal in list(by_key.items()):
                if key.endswith("/") and any(each.key.startswith(key) for each in kept):
                    kept.add(by_key.pop(key, removal))
            kept |= self._delete_level(by_key)
        return kept

    def _delete_level(self, by_key: Mapping[str, PutOffRemoval]) -> set[PutOffRemoval]:
        markers = [key for key in by_key if key.endswith("/")]
        files = [key for key in by_key if not key.endswith("/")]
        left = [info.key for info in self._present(files) if by_key[info.key].hides(info)]
        left += [key for key in markers if not self._is_another(by_key[key])]
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
                # Hidden it would be there for everybody but for those who could see to it.
                log.error("%r was removed here, but the store keeps it: %s", key, exc)  # noqa: TRY400
            except StoreError as exc:
                log.warning("%r, removed here, is still in the bucket: %s", key, exc)
                kept.add(by_key[key])
        return kept

    def _is_another(self, removal: PutOffRemoval) -> bool:
        """Whether others have made a directory anew since. SeaweedFS tells of no marker and lists
        the empty directory until it is deleted.
        """
        if removal not in self._old:
            return False
        try:
            return not removal.hides(self._store.head(removal.key))
        except ObjectMissingError:
            return False

    def _present(self, keys: Sequence[str]) -> list[ObjectInfo]:
        """What is under the keys now: by listings where one tells of several, else one by one."""
        found: list[ObjectInfo] = []
        for prefix, wanted in _by_directory(keys).items():
            left = dict.fromkeys(wanted)
            query = ListQuery(prefix)
            # A page costs as much as the question about one key: no more of them than keys.
            for _page in range(len(wanted) if len(wanted) > 1 else 0):
                page = self._store.list_page(query)
                here = [info for info in page.objects if info.key in left]
                found += here
                for info in here:
                    del left[info.key]
                if page.next_token is None:
                    left.clear()  # what no page has is gone
                if not left:
                    break
                query = ListQuery(prefix, token=page.next_token)
            for key in left:
                try:
                    found.append(self._store.head(key))
                except ObjectMissingError:
                    continue
        return found


def _by_directory(keys: Sequence[str]) -> Mapping[str, list[str]]:
    grouped = defaultdict(list)
    for key in keys:
        grouped[key[: key.rfind("/") + 1]].append(key)
    return grouped

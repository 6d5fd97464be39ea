"""Removals that write-back owes the store: many keys by one request, behind who removed them."""

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
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
from ossfs_py.filesystem.trash import Trash
from ossfs_py.model import ListQuery, ObjectInfo
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import MAX_DELETED_KEYS, ObjectStore

log = logging.getLogger(__name__)

MAX_PUT_OFF = 10_000
"""Removals that may wait; the next one waits for them. Each is hidden in every listing."""
_COPIES_AT_ONCE = 16
_CALM_SECONDS = 0.2
_LONGEST_CALM_SECONDS = 10.0
"""Copies begin when nothing was removed for so long, at the latest after that: of rm -r they would
take the machine's time, and the store's."""
_RETRY_SECONDS = 5.0
"""Between tries while the store does not answer; each has the store's own retry budget."""


class PutOffRemoval(Protocol):
    """A removed file that nobody has open; see :class:`~ossfs_py.filesystem.removals.Removal`."""

    @property
    def key(self) -> str:
        """Where its object is."""
        ...

    @property
    def trash(self) -> str:
        """The prefix below which a copy of the object is kept first; "": none is."""
        ...

    @property
    def removed_ns(self) -> int:
        """When it was removed."""
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

    def __init__(
        self,
        store: ObjectStore,
        workers: Workers,
        forget: Forget,
        trash: Trash,
        came_back: Callable[[], None],
    ) -> None:
        """``forget`` is told which ones are over, then ``came_back`` if files of theirs stay."""
        self._trash = trash
        self._came_back = came_back
        self._store = store
        self._workers = workers
        self._forget = forget
        self._waiting: dict[PutOffRemoval, None] = {}
        self._rounds = 0
        """Batches that have ended, well or not."""
        self._is_under_way = False
        self._hurry = trio.Event()
        self._awaited = trio.Event()
        """Set while somebody waits."""
        self._ended = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait_for_room(self) -> None:
        """Wait while too many wait."""
        while len(self._waiting) >= MAX_PUT_OFF:
            await self._ended.park()

    def add(self, removal: PutOffRemoval) -> None:
        """Let its object be deleted soon."""
        self._waiting[removal] = None
        self._hurry.set()

    async def tried_below(self, prefix: str) -> None:
        """Wait until what waits below a prefix is done, or could not be."""
        if any(removal.key.startswith(prefix) for removal in self._waiting):
            await self.tried()

    async def tried(self) -> None:
        """Wait until what waits now is done, or could not be."""
        wanted = set(self._waiting)
        begun = self._rounds + self._is_under_way
        rounds = begun + 1 + len(wanted) // MAX_DELETED_KEYS
        while wanted & self._waiting.keys() and self._rounds < rounds:
            self._hurry.set()
            self._awaited.set()
            await self._ended.park()

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
            await self._hurry.wait()
            self._hurry = trio.Event()
            if any(removal.trash for removal in self._waiting):
                await self._calm()
            batch = list(self._waiting)[:MAX_DELETED_KEYS]
            if not batch:
                continue
            self._is_under_way = True
            try:
                await self._delete(batch)
            finally:
                self._is_under_way = False
                self._rounds += 1
                self._ended.unpark_all()
            if batch[0] not in self._waiting:
                if self._waiting:
                    self._hurry.set()
                continue
            with trio.move_on_after(_RETRY_SECONDS):
                await self._hurry.wait()
            self._hurry.set()

    # -- inside ----------------------------------------------------------------------------------

    async def _calm(self) -> None:
        """Wait until who removes files is done, or somebody waits for them to be gone."""
        end = trio.current_time() + _LONGEST_CALM_SECONDS
        count = 0
        while count != len(self._waiting) and trio.current_time() < end:
            count = len(self._waiting)
            with trio.move_on_after(_CALM_SECONDS):
                await self._awaited.wait()
                break
        self._awaited = trio.Event()

    async def _delete(self, batch: Sequence[PutOffRemoval]) -> None:
        """Delete the objects of a batch; those that could not be go on waiting."""
        ours: list[PutOffRemoval] = []
        try:
            for removal in batch:
                await removal.lock.acquire()
                ours.append(removal)
            owed = [removal for removal in ours if not removal.is_over]
            try:
                by_key = {removal.key: removal for removal in owed}
                left = await self._workers.run_to_end(self._present, list(by_key))
                wanted = [info for info in left if by_key[info.key].hides(info)]
                left, kept = await self._copied(by_key, wanted)
                stay = len(wanted) - len(left) - len(kept)
                if any(removal.trash for removal in owed):
                    # Copies may take long, and others store what they like meanwhile.
                    left = await self._workers.run_to_end(self._unchanged, left)
                kept |= await self._workers.run_to_end(self._delete_present, by_key, left)
                await self._forget([removal for removal in owed if removal not in kept])
                if stay:
                    self._came_back()
            except (StoreError, OSError, RuntimeError) as exc:
                # OSError: the journal. Deleted or not, all of them are looked at again.
                log.warning("%d removed files are still in the bucket: %s", len(owed), exc)
                return
            for removal in ours:
                if removal not in kept:
                    del self._waiting[removal]
        finally:
            for removal in ours:
                removal.lock.release()

    async def _copied(
        self, by_key: Mapping[str, PutOffRemoval], there: Sequence[ObjectInfo]
    ) -> tuple[list[ObjectInfo], set[PutOffRemoval]]:
        """Let copies be kept of what is to be deleted, several at a time.

        Returns what may be deleted now, and the removals that have to wait. What the store will
        not copy is neither: it stays.
        """
        kept: set[PutOffRemoval] = set()
        deletable = []
        limit = trio.CapacityLimiter(_COPIES_AT_ONCE)

        async def copy(removal: PutOffRemoval, info: ObjectInfo) -> None:
            async with limit:
                try:
                    copied = await self._trash.keep_object(removal.trash, info, removal.removed_ns)
                except StoreUnavailableError as exc:
                    log.warning("%r, removed here, is still in the bucket: %s", info.key, exc)
                    kept.add(removal)
                except OssfsError as exc:
                    log.debug("%r is there again: %s", info.key, exc)
                else:
                    if copied is not None and removal.hides(copied):
                        deletable.append(copied)

        async with trio.open_nursery() as nursery:
            for info in there:
                if by_key[info.key].trash:
                    nursery.start_soon(copy, by_key[info.key], info)
                else:
                    deletable.append(info)
        return deletable, kept

    def _unchanged(self, known: Sequence[ObjectInfo]) -> list[ObjectInfo]:
        """On a thread: what of the objects is still there as it is known."""
        now = {info.key: info.etag for info in self._present([info.key for info in known])}
        return [info for info in known if now.get(info.key) == info.etag]

    def _delete_present(
        self, by_key: Mapping[str, PutOffRemoval], there: Sequence[ObjectInfo]
    ) -> set[PutOffRemoval]:
        """On a thread: delete what is there; returns those that could not be, for now."""
        left = [info.key for info in there]
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

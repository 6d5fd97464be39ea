"""Names that were removed here although the store still has their objects: nobody here sees them.

The object of a removed file that somebody still reads stays in the bucket until the last close,
and an upload that was under way may still make one.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeAlias

from ossfs_py.errors import ObjectMissingError
from ossfs_py.model import ListPage, ListQuery, ObjectInfo, ObjectVersion

_WORTH_A_FLAT_LISTING = 3
"""Directories: one listing of all that is in them costs as much as the question about one."""

PutOff: TypeAlias = Callable[[ObjectVersion], Awaitable[None]]
"""Hides an object, and deletes it later. Raises OSError if the journal cannot be written."""


class RemovedObject(Protocol):
    """A removal of which the store has not heard yet."""

    @property
    def key(self) -> str:
        """The key where the object is, or may appear."""
        ...

    def hides(self, info: ObjectInfo) -> bool:
        """Whether it is the removed object; asked on any thread."""
        ...

    async def give_way(self) -> None:
        """Let the key be free at the store; what is still read from it goes on elsewhere.

        Raises:
            StoreError: it could not be done; nothing has changed.
        """
        ...


class Waitable(Protocol):
    """The part of :class:`~ossfs_py.namespace.moves.Moves` that makes room."""

    async def left(self, key: str) -> None:
        """Wait until nothing of a moved directory has the key, or one below it.

        Raises:
            StoreError: it stays.
        """
        ...

    async def left_below(self, prefix: str) -> None:
        """As :meth:`left`, of all keys that begin with ``prefix``."""
        ...


class RemovedKeys:
    """The removals of a mount that are not over. Belongs to the trio thread, but for
    :meth:`hiding`, :meth:`hiding_below` and :meth:`below`.
    """

    def __init__(self, moves: Waitable | None = None) -> None:
        """``moves``: directories that were moved away, for which those who need the keys wait."""
        self._moves = moves
        self._by_key: dict[str, tuple[RemovedObject, ...]] = {}
        self.additions = 0
        """How many there have been."""
        self.put_off: PutOff | None = None
        """For the objects of files that were copied to their new names; None: who renames waits
        until they are deleted."""

    def add(self, removed: RemovedObject) -> None:
        """From now on, the name is hidden here."""
        self.additions += 1
        self._by_key[removed.key] = (*self.hiding(removed.key), removed)

    def discard(self, removed: RemovedObject) -> None:
        """It is over: what the key holds is seen again."""
        left = tuple(each for each in self.hiding(removed.key) if each is not removed)
        if left:
            self._by_key[removed.key] = left
        else:
            self._by_key.pop(removed.key, None)

    def hiding(self, key: str) -> tuple[RemovedObject, ...]:
        """The removals of a key, the oldest first."""
        return self._by_key.get(key, ())

    def below(self, prefix: str) -> list[str]:
        """The keys that begin with ``prefix`` and have removals."""
        return [key for key in tuple(self._by_key) if key.startswith(prefix)]

    def hiding_below(self, prefix: str) -> dict[str, tuple[RemovedObject, ...]]:
        """As :meth:`hiding`, of all those; asked for each listing, when thousands may wait."""
        return {key: some for key, some in self._by_key.copy().items() if key.startswith(prefix)}

    def __len__(self) -> int:
        """How many keys have removals."""
        return len(self._by_key)

    async def make_room(self, key: str) -> None:
        """Something else is about to be stored under the key.

        What was a file there, and now is a directory, has another key, and the other way round. But
        SeaweedFS and others that keep a tree have one entry for both: the late deletion of a marker
        would take the empty file or link that has the name now.

        Raises:
            StoreError: what was removed there is still in the way.
        """
        if self._moves is not None:
            await self._moves.left(key)
        await self._give_way(key)
        if key.endswith("/"):
            await self._give_way(key[:-1])
        elif self.hiding(key + "/"):
            for below in sorted(self.below(key + "/"), key=len, reverse=True):
                await self._give_way(below)  # a directory after what is in it

    async def _give_way(self, key: str) -> None:
        for removed in self.hiding(key):
            await removed.give_way()

    async def make_room_of_moved(self, prefix: str) -> None:
        """As :meth:`make_room_below`, but only of what is moved away."""
        if self._moves is not None:
            await self._moves.left_below(prefix)

    async def make_room_below(self, prefix: str) -> None:
        """As :meth:`make_room`, of all keys that begin with ``prefix``."""
        await self.make_room_of_moved(prefix)
        if prefix.endswith("/"):
            await self._give_way(prefix[:-1])
        for key in self.below(prefix):
            await self.make_room(key)


class Catalogue(Protocol):
    """The content of a bucket: the part of :class:`~ossfs_py.store.base.ObjectStore` that resolves
    names.
    """

    def head(self, key: str) -> ObjectInfo:
        """See :meth:`ObjectStore.head`."""
        ...

    def list_page(self, query: ListQuery) -> ListPage:
        """See :meth:`ObjectStore.list_page`."""
        ...


class CatalogueWithoutRemoved:
    """Implements :class:`Catalogue`: what there is but for what was removed here."""

    def __init__(self, store: Catalogue, removed: RemovedKeys) -> None:
        self._store = store
        self._removed = removed

    def head(self, key: str) -> ObjectInfo:
        """See the protocol; ObjectMissingError for a removed object."""
        # Before the request: a removal that ends in the meantime has deleted the object that the
        # answer describes.
        hiding = self._removed.hiding(key)
        info = self._store.head(key)
        if _is_hidden(info, (*hiding, *self._removed.hiding(key))):
            raise ObjectMissingError("the object was removed here", operation="HeadObject", key=key)
        return info

    def list_page(self, query: ListQuery) -> ListPage:
        """See the protocol; more than ``max_keys`` may be told while something is hidden.

        A page may be empty, with more to come.
        """
        before = self._removed.hiding_below(query.prefix)
        page = self._store.list_page(
            replace(query, max_keys=min(1000, query.max_keys + len(before))) if before else query
        )
        hiding = {**before, **self._removed.hiding_below(query.prefix)}
        if not hiding:
            return page
        while True:
            page = replace(
                page,
                objects=tuple(
                    info for info in page.objects if not _is_hidden(info, hiding.get(info.key, ()))
                ),
                prefixes=self._with_others(query.prefix, page.prefixes, hiding),
            )
            if page.objects or page.prefixes or page.next_token is None:
                return page
            # A caller that wants one key only would take an empty page for an empty directory.
            page = self._store.list_page(replace(query, token=page.next_token, start_after=None))

    def _with_others(
        self,
        base: str,
        prefixes: Sequence[str],
        hiding: Mapping[str, tuple[RemovedObject, ...]],
    ) -> tuple[str, ...]:
        """The prefixes of which something but removed objects makes a directory."""
        if not prefixes:
            return ()
        hidden = {_directory_in(base, key) for key in hiding}
        doubtful = [each for each in prefixes if each in hidden]
        empty: set[str] = set()
        if len(doubtful) >= _WORTH_A_FLAT_LISTING:
            page = self._store.list_page(ListQuery(base, delimiter=""))
            hiding = {**hiding, **self._removed.hiding_below(base)}
            seen = {
                _directory_in(base, info.key)
                for info in page.objects
                if not _is_hidden(info, hiding.get(info.key, ()))
            }
            doubtful = [each for each in doubtful if each not in seen]
            if page.next_token is None:
                empty.update(doubtful)
                doubtful = []
        empty.update(each for each in doubtful if not self._has_others(each))
        return tuple(each for each in prefixes if each not in empty)

    def _has_others(self, prefix: str) -> bool:
        return bool(self.list_page(ListQuery(prefix, delimiter="", max_keys=1)).objects)


def _directory_in(base: str, key: str) -> str:
    """What stands for a key in a listing of ``base`` by directories, if it is deeper."""
    return key[: key.find("/", len(base)) + 1]


def _is_hidden(info: ObjectInfo, hiding: tuple[RemovedObject, ...]) -> bool:
    return any(removed.hides(info) for removed in hiding)

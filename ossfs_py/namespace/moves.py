"""Directories that have a new name here, while their objects still have the old one.

With write-back, rename(2) of a directory returns when the journal has it. Until the objects are
copied, what is asked about the new prefix is answered from the old one; until they are deleted,
nothing of the old prefix is seen. What would need the old name at the store waits.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import trio

from ossfs_py.errors import ObjectMissingError, StoreUnavailableError, UnsavedDataError
from ossfs_py.model import ListPage, ListQuery, ObjectInfo
from ossfs_py.namespace.removed import Catalogue

_MOST_KEYS = 1000
"""Of one page of a listing. Who asks for fewer wants to know what comes first."""


@dataclass(frozen=True, slots=True)
class DirectoryMove:
    """A renamed directory that the store still has under its old name. Prefixes end in a slash."""

    old_prefix: str
    new_prefix: str
    is_copied: bool = False
    """All objects are below the new prefix, too: those below the old one are being deleted."""

    def old_key(self, key: str) -> str:
        """The old key for a key below the new prefix."""
        return self.old_prefix + key[len(self.new_prefix) :]

    def new_key(self, key: str) -> str:
        """The new key for a key below the old prefix."""
        return self.new_prefix + key[len(self.old_prefix) :]


class Moves:
    """The renames that the store has still to carry out. Belongs to the trio thread, but for
    ``current``.
    """

    def __init__(self) -> None:
        self.current: tuple[DirectoryMove, ...] = ()
        """Replaced at each change; read on any thread. No prefix is below another one."""
        self._failures: dict[str, int] = {}
        self._scopes: dict[str, trio.CancelScope] = {}
        self._refused: list[str] = []
        self._changed = trio.lowlevel.ParkingLot()
        self._hurry = trio.Event()
        self._is_given_up = False

    def __len__(self) -> int:
        return len(self.current)

    def is_read(self, key: str) -> bool:
        """Whether the object of an old key is what has the new name."""
        return any(key.startswith(each.old_prefix) and not each.is_copied for each in self.current)

    # -- who carries one out ----------------------------------------------------------------------

    def begin(self, old_prefix: str, new_prefix: str) -> trio.CancelScope:
        """From now on, the directory has its new name here. The scope is cancelled when what is
        promised is left to the next mount.
        """
        self._failures[old_prefix] = 0
        scope = self._scopes[old_prefix] = trio.CancelScope()
        self._set((*self.current, DirectoryMove(old_prefix, new_prefix)))
        return scope

    def copied(self, old_prefix: str) -> None:
        """From now on, the objects are read from below the new prefix."""
        self._set(
            tuple(
                replace(each, is_copied=True) if each.old_prefix == old_prefix else each
                for each in self.current
            )
        )

    def end(self, old_prefix: str) -> None:
        """The store has carried it out, or it is taken back."""
        del self._failures[old_prefix], self._scopes[old_prefix]
        self._set(tuple(each for each in self.current if each.old_prefix != old_prefix))

    def refused(self, what: str) -> None:
        """One is taken back, as the store refused it: :meth:`require_none` reports it."""
        self._refused.append(what)

    async def wait_after_failure(self, old_prefix: str, pause_seconds: float) -> None:
        """Wait before it is tried again."""
        self._failures[old_prefix] += 1
        self._changed.unpark_all()
        with trio.move_on_after(pause_seconds):
            await self._hurry.wait()

    # -- who waits for them -----------------------------------------------------------------------

    async def left(self, key: str) -> None:
        """Wait until the store has nothing any more that was moved away from a key, from below it,
        or with a directory that it is in.

        Raises:
            StoreUnavailableError: this mount does not carry it out any more.
        """
        await self._wait_while(
            lambda move: key.startswith(move.old_prefix) or move.old_prefix == key + "/", key
        )

    async def left_below(self, prefix: str) -> None:
        """As :meth:`left`, for all keys that begin with ``prefix``."""
        await self._wait_while(
            lambda move: move.old_prefix.startswith(prefix) or prefix.startswith(move.old_prefix),
            prefix,
        )

    async def tried(self) -> None:
        """Wait until those of now are carried out, or have failed once more."""
        failures = dict(self._failures)
        self._hurry.set()
        self._hurry = trio.Event()
        while any(self._failures.get(prefix) == count for prefix, count in failures.items()):
            await self._changed.park()

    def require_none(self, hint: str = "") -> None:
        """Raise UnsavedDataError if a directory has its old name in the bucket; the message
        includes ``hint``.
        """
        refused, self._refused = self._refused, []
        if refused:
            raise UnsavedDataError("; ".join(refused))
        if self.current:
            count = len(self.current)
            which = "a renamed directory has" if count == 1 else f"{count} renamed directories have"
            raise UnsavedDataError(f"{which} the old name in the bucket{hint}")

    async def finish(self) -> None:
        """Wait until those of now are carried out or have failed once more; leave the latter to the
        next mount.
        """
        await self.tried()
        self.give_up()

    def give_up(self) -> None:
        """Leave those that are not over to the next mount."""
        self._is_given_up = True
        for scope in self._scopes.values():
            scope.cancel()
        self._changed.unpark_all()

    # -- inside -----------------------------------------------------------------------------------

    def _set(self, moves: tuple[DirectoryMove, ...]) -> None:
        self.current = moves
        self._changed.unpark_all()

    async def _wait_while(self, is_in_the_way: Callable[[DirectoryMove], bool], what: str) -> None:
        while any(is_in_the_way(move) for move in self.current):
            if self._is_given_up:
                raise StoreUnavailableError(
                    "a directory that was renamed is still there", operation="CopyObject", key=what
                )
            await self._changed.park()


class CatalogueOfMoved:
    """Implements :class:`Catalogue`: what there is, under the names that it has here.

    An answer that a change of the moves has overtaken is not used: the store is asked again.
    """

    def __init__(self, store: Catalogue, moves: Moves) -> None:
        self._store = store
        self._moves = moves

    def head(self, key: str) -> ObjectInfo:
        """See the protocol."""
        while True:
            moves = self._moves.current
            try:
                info = self._head(key, moves)
            except ObjectMissingError:
                if self._moves.current is moves:
                    raise
            else:
                if self._moves.current is moves:
                    return info

    def list_page(self, query: ListQuery) -> ListPage:
        """See the protocol. A page may be longer than the store's.

        Raises:
            StoreUnavailableError: keys of several directories are asked for, and one is being
                moved.
        """
        while True:
            moves = self._moves.current
            page = self._list(query, moves)
            if self._moves.current is moves:
                return page

    def _head(self, key: str, moves: tuple[DirectoryMove, ...]) -> ObjectInfo:
        for move in moves:
            if key.startswith(move.old_prefix):
                raise ObjectMissingError("it was renamed here", operation="HeadObject", key=key)
            if key.startswith(move.new_prefix) and not move.is_copied:
                return _moved(self._store.head(move.old_key(key)), move)
        return self._store.head(key)

    def _list(self, query: ListQuery, moves: tuple[DirectoryMove, ...]) -> ListPage:
        prefix = query.prefix
        for move in moves:
            if prefix.startswith(move.old_prefix):
                return ListPage((), (), None)
            if prefix.startswith(move.new_prefix) and not move.is_copied:
                return self._list_moved(query, move)
            if not query.delimiter and move.old_prefix.startswith(prefix):
                raise _unknown(prefix)
            if not query.delimiter and move.new_prefix.startswith(prefix):
                raise _unknown(prefix)
        page = self._store.list_page(query)
        hidden = {move.old_prefix for move in moves}
        while not hidden.isdisjoint(page.prefixes):
            left = tuple(each for each in page.prefixes if each not in hidden)
            page = replace(page, prefixes=left)
            if page.objects or left or page.next_token is None:
                break
            # A caller that wants one key only would take an empty page for an empty directory.
            page = self._store.list_page(replace(query, token=page.next_token, start_after=None))
        return page

    def _list_moved(self, query: ListQuery, move: DirectoryMove) -> ListPage:
        """All that is left of a listing, as its next page may have to come from the new prefix."""
        after = query.start_after
        if after is not None:
            after = move.old_key(after) if after.startswith(move.new_prefix) else None
        asked = replace(query, prefix=move.old_key(query.prefix), token=None, start_after=after)
        objects: list[ObjectInfo] = []
        prefixes: list[str] = []
        token: str | None = None
        while True:
            page = self._store.list_page(replace(asked, token=token))
            objects += (_moved(info, move) for info in page.objects)
            prefixes += (move.new_key(each) for each in page.prefixes)
            token = page.next_token
            if token is None or query.max_keys < _MOST_KEYS:
                return ListPage(tuple(objects), tuple(prefixes), token)


def _moved(info: ObjectInfo, move: DirectoryMove) -> ObjectInfo:
    return info._replace(key=move.new_key(info.key), stored_at=info.key)


def _unknown(prefix: str) -> StoreUnavailableError:
    return StoreUnavailableError(
        "a directory is being renamed below", operation="ListObjectsV2", key=prefix
    )

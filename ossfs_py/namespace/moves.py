"""What has a new name here, while the store still has it under the old one.

With write-back, rename(2) of a directory or a stored file returns when the journal has it. Until
the objects are copied, what is asked about the new name is answered from the old one; until they
are deleted, nothing of the old name is seen. What would need the old name at the store waits.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TypeAlias

import trio

from ossfs_py.errors import ObjectMissingError, StoreUnavailableError, UnsavedDataError
from ossfs_py.model import ListPage, ListQuery, ObjectInfo
from ossfs_py.namespace.removed import Catalogue

_MOST_KEYS = 1000
"""Of one page of a listing. Who asks for fewer wants to know what comes first."""


@dataclass(frozen=True, slots=True)
class DirectoryMove:
    """A renamed directory that the store still has under its old name. Prefixes end in a slash."""

    old_name: str
    new_name: str
    is_copied: bool = False
    """All objects are below the new prefix, too: those below the old one are being deleted."""

    def had(self, key: str) -> bool:
        """Whether the key is that of something that is moved."""
        return key.startswith(self.old_name)

    def gets(self, key: str) -> bool:
        """Whether the key is that of something that is moved, when it has its new name."""
        return key.startswith(self.new_name)

    def needs(self, key: str) -> bool:
        """Whether something else may not be stored under the key yet."""
        return self.had(key) or self.old_name == key + "/"

    def needs_below(self, prefix: str) -> bool:
        """As :meth:`needs`, of any key that begins with ``prefix``."""
        return self.old_name.startswith(prefix) or self.had(prefix)

    def old_key(self, key: str) -> str:
        """The old key for a key below the new prefix."""
        return self.old_name + key[len(self.new_name) :]

    def new_key(self, key: str) -> str:
        """The new key for a key below the old prefix."""
        return self.new_name + key[len(self.old_name) :]


@dataclass(frozen=True, slots=True)
class FileMove:
    """A renamed file that the store still has under its old name, a key as the new one is."""

    old_name: str
    new_name: str
    info: ObjectInfo
    """The object, with its new key."""
    is_copied: bool = False
    """It has its new key, too, and the object of the old one is hidden or deleted."""

    def had(self, key: str) -> bool:
        """See :meth:`DirectoryMove.had`."""
        return key == self.old_name

    def gets(self, key: str) -> bool:
        """See :meth:`DirectoryMove.gets`."""
        return key == self.new_name

    def needs(self, key: str) -> bool:
        """See :meth:`DirectoryMove.needs`. Some stores keep a tree, where a file and a directory
        cannot have one name.
        """
        return self.had(key) or key.startswith(self.old_name + "/")

    def needs_below(self, prefix: str) -> bool:
        """See :meth:`DirectoryMove.needs_below`."""
        return self.old_name.startswith(prefix) or prefix.startswith(self.old_name + "/")

    def old_key(self, _key: str) -> str:
        """The old key."""
        return self.old_name

    def new_key(self, _key: str) -> str:
        """The new key."""
        return self.new_name


Move: TypeAlias = DirectoryMove | FileMove


class Moves:
    """The renames that the store has still to carry out. Belongs to the trio thread, but for
    ``current``.
    """

    def __init__(self) -> None:
        self.current: tuple[Move, ...] = ()
        """Replaced at each change; read on any thread. None is below another one."""
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
        return any(each.had(key) and not each.is_copied for each in self.current)

    # -- who carries one out ----------------------------------------------------------------------

    def begin(self, move: Move) -> trio.CancelScope:
        """From now on, it has its new name here. The scope is cancelled when what is promised is
        left to the next mount.
        """
        self._failures[move.old_name] = 0
        scope = self._scopes[move.old_name] = trio.CancelScope()
        self._set((*self.current, move))
        return scope

    def copied(self, old_name: str) -> None:
        """From now on, the objects are read under the new name."""
        self._set(
            tuple(
                replace(each, is_copied=True) if each.old_name == old_name else each
                for each in self.current
            )
        )

    def end(self, old_name: str) -> None:
        """The store has carried it out, or it is taken back."""
        del self._failures[old_name], self._scopes[old_name]
        self._set(tuple(each for each in self.current if each.old_name != old_name))

    def refused(self, what: str) -> None:
        """One is taken back, as the store refused it: :meth:`require_none` reports it."""
        self._refused.append(what)

    async def wait_after_failure(self, old_name: str, pause_seconds: float) -> None:
        """Wait before it is tried again."""
        self._failures[old_name] += 1
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
        await self._wait_while(lambda move: move.needs(key), key)

    async def left_below(self, prefix: str) -> None:
        """As :meth:`left`, for all keys that begin with ``prefix``."""
        await self._wait_while(lambda move: move.needs_below(prefix), prefix)

    async def arrived(self, key: str) -> None:
        """Wait until the store has a renamed file under its new key; not for what is in a renamed
        directory.

        Raises:
            StoreUnavailableError: as of :meth:`left`.
        """
        await self._wait_while(lambda move: move.new_name == key, key)

    async def tried(self) -> None:
        """Wait until those of now are carried out, or have failed once more."""
        failures = dict(self._failures)
        self._hurry.set()
        self._hurry = trio.Event()
        while any(self._failures.get(name) == count for name, count in failures.items()):
            await self._changed.park()

    def require_none(self, hint: str = "") -> None:
        """Raise UnsavedDataError if something has its old name in the bucket; the message includes
        ``hint``.
        """
        refused, self._refused = self._refused, []
        if refused:
            raise UnsavedDataError("; ".join(refused))
        if self.current:
            count = len(self.current)
            is_file = any(isinstance(each, FileMove) for each in self.current)
            one, many = ("file", "files") if is_file else ("directory", "directories")
            which = f"a renamed {one} has" if count == 1 else f"{count} renamed {many} have"
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

    def _set(self, moves: tuple[Move, ...]) -> None:
        self.current = moves
        self._changed.unpark_all()

    async def _wait_while(self, is_in_the_way: Callable[[Move], bool], what: str) -> None:
        while any(is_in_the_way(move) for move in self.current):
            if self._is_given_up:
                raise StoreUnavailableError(
                    "what was renamed still has its old name", operation="CopyObject", key=what
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

    def _head(self, key: str, moves: tuple[Move, ...]) -> ObjectInfo:
        for move in moves:
            if move.had(key):
                raise ObjectMissingError("it was renamed here", operation="HeadObject", key=key)
            if move.gets(key) and not move.is_copied:
                return _moved(self._store.head(move.old_key(key)), move)
        return self._store.head(key)

    def _list(self, query: ListQuery, moves: tuple[Move, ...]) -> ListPage:
        prefix = query.prefix
        directories = [move for move in moves if isinstance(move, DirectoryMove)]
        for move in directories:
            if prefix.startswith(move.old_name):
                return ListPage((), (), None)
            if prefix.startswith(move.new_name) and not move.is_copied:
                return self._list_moved(query, move)
            if not query.delimiter and move.old_name.startswith(prefix):
                raise _unknown(prefix)
            if not query.delimiter and move.new_name.startswith(prefix):
                raise _unknown(prefix)
        files = [move for move in moves if isinstance(move, FileMove)]
        page = _with_moved(self._store.list_page(query), query, files)
        hidden = {move.old_name for move in directories}
        while not hidden.isdisjoint(page.prefixes) or _may_mislead(page, files):
            left = tuple(each for each in page.prefixes if each not in hidden)
            page = replace(page, prefixes=left)
            if page.objects or left or page.next_token is None:
                break
            # A caller that wants one key only would take an empty page for an empty directory.
            query = replace(query, token=page.next_token, start_after=None)
            page = _with_moved(self._store.list_page(query), query, files)
        return page

    def _list_moved(self, query: ListQuery, move: DirectoryMove) -> ListPage:
        """All that is left of a listing, as its next page may have to come from the new prefix."""
        after = query.start_after
        if after is not None:
            after = move.old_key(after) if after.startswith(move.new_name) else None
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


def _moved(info: ObjectInfo, move: Move) -> ObjectInfo:
    return info._replace(key=move.new_key(info.key), stored_at=info.key)


def _with_moved(page: ListPage, query: ListQuery, files: list[FileMove]) -> ListPage:
    """The page with renamed files under their new names, and not under the old ones.

    Which keys are before those of a later page is not known: a file that might be among them is
    left out. What lists a directory knows its renamed files without that.
    """
    for move in files:
        if any(info.key == move.old_name for info in page.objects):
            left = tuple(info for info in page.objects if info.key != move.old_name)
            page = replace(page, objects=left)
        if not move.is_copied and _belongs(move.new_name, page, query):
            place = bisect_left(page.objects, move.new_name, key=attrgetter("key"))
            before, behind = page.objects[:place], page.objects[place:]
            if not (behind and behind[0].key == move.new_name):
                page = replace(page, objects=(*before, move.info, *behind))
    return page


def _belongs(key: str, page: ListPage, query: ListQuery) -> bool:
    prefix = query.prefix
    if not key.startswith(prefix) or query.token is not None:
        return False
    if query.delimiter and query.delimiter in key[len(prefix) :]:
        return False
    if query.start_after is not None and key <= query.start_after:
        return False
    last = max((*(info.key for info in page.objects[-1:]), *page.prefixes[-1:]), default="")
    return page.next_token is None or key < last


def _may_mislead(page: ListPage, files: list[FileMove]) -> bool:
    """Whether a page is empty, perhaps without a renamed file, and not the last one."""
    return bool(files) and not (page.objects or page.prefixes or page.next_token is None)


def _unknown(prefix: str) -> StoreUnavailableError:
    return StoreUnavailableError(
        "a directory is being renamed below", operation="ListObjectsV2", key=prefix
    )

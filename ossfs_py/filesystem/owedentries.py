"""Directories and symlinks that write-back has not stored yet: made here at once, stored later."""

import logging
from collections.abc import Iterable

import trio

from ossfs_py.errors import OssfsError, StoreUnavailableError, UnsavedDataError
from ossfs_py.filesystem.calm import Calm
from ossfs_py.filesystem.openinode import OpenInode
from ossfs_py.filesystem.rounds import Rounds
from ossfs_py.filesystem.writeback import WriteBackQueue
from ossfs_py.model import AttributeChange
from ossfs_py.namespace.claims import Claims
from ossfs_py.namespace.inode import Inode, Kind
from ossfs_py.namespace.namespace import Namespace
from ossfs_py.namespace.setattr import SavedAttributes
from ossfs_py.runtime.locks import PromptLock
from ossfs_py.writing.groupsync import GroupSync
from ossfs_py.writing.markers import MarkerRecord
from ossfs_py.writing.segments import new_ident

log = logging.getLogger(__name__)

_GATHER_SECONDS = 1.0
"""How long an entry waits for changes to store with it: tar and rsync set the mode and times of a
directory when all its files are done.
"""
_RETRY_SECONDS = 5.0
"""Pause between tries while the store does not answer; each has the store's own retry budget."""
_AT_ONCE = 16
_LONGEST_TARGET_BYTES = 512
"""Stores differ in how much metadata they keep: a longer target is left to the store's answer."""
MAX_OWED = 1000
"""Entries that may wait; the next mkdir or symlink waits for some of them."""


class _Owed:
    """One entry whose empty object is not in the store."""

    def __init__(self, ident: str) -> None:
        self.ident = ident
        self.lock = PromptLock()
        """Held while the object is written or the entry removed."""
        self.is_told = False
        """Whether the log has the reason why it could not be stored."""


class OwedEntries:
    """The directories and symlinks of a mount that are not in the store yet. Belongs to the trio
    thread.

    The journal has each entry with its attributes, so that the next mount stores the entries of a
    killed daemon.
    """

    def __init__(
        self,
        namespace: Namespace,
        claims: Claims,
        group_sync: GroupSync | None,
        write_back: WriteBackQueue[OpenInode] | None,
    ) -> None:
        """``write_back``: the files that wait; without it every entry is stored at once."""
        self._namespace = namespace
        self._claims = claims
        self._group_sync = None if write_back is None else group_sync
        self._calm = Calm() if write_back is None else write_back.calm
        self._owed: dict[Inode, _Owed] = {}
        self._rounds = Rounds()
        self._some = trio.Event()

    def __len__(self) -> int:
        return len(self._owed)

    def resume(self, records: Iterable[MarkerRecord]) -> bool:
        """Continue with the entries of an earlier daemon that are known here; returns whether those
        are all.
        """
        inodes = self._namespace.inodes
        local = {
            self._namespace.key_of_empty(inode): inode
            for inode in inodes.below(inodes.root)
            if inode.local and inode.kind is not Kind.FILE
        }
        for inode in local.values():
            # It may be in the store, if that daemon was killed before it noted so (or while it was
            # renaming a directory above): who removes or renames it deletes the object, too. A
            # directory's marker is deleted in any case.
            inode.shadows = inode.kind is Kind.SYMLINK
        is_all = True
        for record in records:
            known = local.get(record.key)
            if known is None or self._group_sync is None:
                is_all = False
                continue
            known.metadata = dict(record.metadata)
            self._owed[known] = _Owed(record.ident)
            self._some.set()
        return is_all

    async def make_directory(
        self, parent: Inode, name: str, mode: int, uid: int, gid: int
    ) -> Inode:
        """mkdir(2); with write-back it returns when the journal has the directory.

        Raises:
            OSError: the journal cannot be written.
            As :meth:`Namespace.make_directory`.
        """
        sync = self._group_sync
        await self._wait_for_room()
        made = await self._namespace.make_directory(
            parent, name, mode, uid, gid, put_off=sync is not None
        )
        if sync is not None:
            await self._owe(made, sync)
        return made

    def make_directory_nowait(
        self, parent: Inode, name: str, mode: int, uid: int, gid: int
    ) -> Inode | None:
        """As :meth:`make_directory`, with write-back, if that waits for nothing; None: nothing has
        happened.

        Raises:
            FilesystemError: nothing has happened.
        """
        sync = self._group_sync
        if sync is None or len(self._owed) >= MAX_OWED:
            return None
        made = self._namespace.make_directory_nowait(parent, name, mode, uid, gid)
        if made is None:
            return None
        owed = _Owed(new_ident())
        if not sync.record_marker_nowait(self._described(made, owed)):
            self._namespace.note_unlinked(made)
            return None
        self._owed[made] = owed
        self._some.set()
        self._calm.disturb()
        return made

    async def make_symlink(
        self, parent: Inode, name: str, target: bytes, uid: int, gid: int
    ) -> Inode:
        """symlink(2); with write-back it returns when the journal has the link.

        Raises:
            OSError: the journal cannot be written.
            As :meth:`Namespace.make_symlink`.
        """
        sync = None if len(target) > _LONGEST_TARGET_BYTES else self._group_sync
        await self._wait_for_room()
        made = await self._namespace.make_symlink(
            parent, name, target, uid, gid, put_off=sync is not None
        )
        if sync is not None:
            await self._owe(made, sync)
        return made

    async def keep_visible(self, directory: Inode) -> None:
        """Something in a directory was removed: the directory itself stays. Never fails.

        With write-back a marker that it needs for that comes behind, as rm -r removes the directory
        next.
        """
        sync = self._group_sync if len(self._owed) < MAX_OWED else None
        if await self._namespace.keep_visible(directory, put_off=sync is not None):
            assert sync is not None  # noqa: S101 - only then is anything put off
            try:
                await self._owe(directory, sync)
            except OSError as exc:
                log.warning("the journal does not know of directory %r: %s", directory.name, exc)

    async def store_above_keys(self, keys: Iterable[str]) -> None:
        """Bring the directories that keys are in to the store, before it hears that the keys are
        gone: other clients would see no directory meanwhile. For who holds no claim and no lock.
        """
        if not self._owed:
            return
        wanted = {key[: key.rfind("/", 0, -1) + 1] for key in keys}
        for inode, owed in list(self._owed.items()):
            if self._namespace.key_of_empty(inode) in wanted:
                await self.store_above(inode)
                await self._store(inode, owed, unless_locked=True)

    async def changed(self, inode: Inode) -> None:
        """The attributes or the name of an inode changed."""
        owed = self._owed.get(inode)
        if owed is not None and self._group_sync is not None:
            await self._record(inode, owed, self._group_sync)

    def change_nowait(self, inode: Inode, change: AttributeChange) -> bool:
        """Change attributes of an entry that is not stored, if that waits for nothing; False:
        nothing has happened.
        """
        owed, sync = self._owed.get(inode), self._group_sync
        if owed is None or sync is None or not inode.local:
            return False
        before = SavedAttributes(inode)
        self._namespace.defer_attributes(inode, change)
        if not sync.record_marker_nowait(self._described(inode, owed)):
            before.restore(inode)
            return False
        return True

    async def moved(self, tree: Inode) -> None:
        """The keys at and below an inode changed."""
        for inode in list(self._owed):
            if tree in _upwards(inode):
                await self.changed(inode)

    def lock_of(self, inode: Inode | None) -> PromptLock:
        """Hold it while an entry is removed, so that nothing of it is written then."""
        owed = None if inode is None else self._owed.get(inode)
        return PromptLock() if owed is None else owed.lock

    def holds(self, inode: Inode) -> bool:
        """Whether an entry is not in the store yet."""
        return inode in self._owed

    async def removed(self, inode: Inode | None) -> None:
        """The entry need not be stored any more."""
        owed = None if inode is None else self._owed.pop(inode, None)
        if owed is not None and self._group_sync is not None:
            await self._group_sync.forget_marker(owed.ident)

    async def store(self, inode: Inode) -> None:
        """Store an entry now, if it is not in the store. The caller holds a claim on its place.

        Raises:
            StoreError, OSError: it is still not stored.
        """
        owed = self._owed.get(inode)
        if owed is None:
            return
        async with owed.lock:
            if self._owed.get(inode) is owed:
                if not inode.removed:
                    await self._namespace.store_empty(inode)
                await self.removed(inode)

    async def store_above(self, inode: Inode) -> None:
        """Store the directories above an inode, from the top. The caller holds no claim. A failure
        is logged, and tried again later.

        SeaweedFS sometimes (1 of 150) loses a marker that arrives while it makes the directory by
        itself for an object in it.
        """
        if self._owed:
            for directory in reversed(_upwards(inode)[1:]):
                owed = self._owed.get(directory)
                if owed is not None:
                    await self._store(directory, owed)

    async def tried(self) -> None:
        """Wait until the waiting entries are in the store, or could not be stored."""
        wanted = set(self._owed)
        await self._rounds.tried(lambda: bool(wanted & self._owed.keys()))

    async def done(self) -> None:
        """Wait until the waiting entries are in the store.

        Raises:
            UnsavedDataError: some are not; they are tried again later.
        """
        await self.tried()
        self.require_none()

    def require_none(self, hint: str = "") -> None:
        """Raise UnsavedDataError if entries are not in the store; the message includes ``hint``."""
        if self._owed:
            count = len(self._owed)
            which = "a directory or link is" if count == 1 else f"{count} directories or links are"
            raise UnsavedDataError(f"{which} not in the bucket{hint}")

    async def run(self) -> None:
        """Store entries as they come, until cancelled."""
        while True:
            await self._some.wait()
            await self._gathered()
            self._some = trio.Event()
            with self._rounds.round():
                await self._store_all()
            if any(owed.is_told for owed in self._owed.values()):
                await self._rounds.hurried(_RETRY_SECONDS)
            if self._owed:
                self._some.set()

    # -- inside ----------------------------------------------------------------------------------

    async def _gathered(self) -> None:
        """Wait for changes to store with the entries, and while programs go on making more."""
        began, pause_seconds = trio.current_time(), _GATHER_SECONDS
        while pause_seconds > 0 and not await self._rounds.hurried(pause_seconds):
            pause_seconds = self._calm.begins_at(began) - trio.current_time()

    async def _wait_for_room(self) -> None:
        await self._rounds.wait_while(lambda: len(self._owed) >= MAX_OWED)

    async def _owe(self, inode: Inode, sync: GroupSync) -> None:
        owed = self._owed[inode] = _Owed(new_ident())
        self._some.set()
        self._calm.disturb()
        await self._record(inode, owed, sync)

    async def _store_all(self) -> None:
        limit = trio.CapacityLimiter(_AT_ONCE)

        async def store(inode: Inode, owed: _Owed) -> None:
            async with limit:
                await self.store_above(inode)
                await self._store(inode, owed)

        async with trio.open_nursery() as nursery:
            for inode, owed in list(self._owed.items()):
                nursery.start_soon(store, inode, owed)

    async def _store(self, inode: Inode, owed: _Owed, *, unless_locked: bool = False) -> None:
        """``unless_locked``: who removes it may wait for the caller."""
        try:
            async with self._claims.place(inode):
                if not (unless_locked and owed.lock.locked()):
                    await self.store(inode)
        except (OssfsError, OSError, RuntimeError) as exc:
            level = logging.WARNING if isinstance(exc, StoreUnavailableError) else logging.ERROR
            if not owed.is_told:
                what = inode.kind.value
                log.log(level, "%s %r is not in the bucket: %s", what, inode.name, exc)
            owed.is_told = True

    async def _record(self, inode: Inode, owed: _Owed, sync: GroupSync) -> None:
        await sync.record_marker(self._described(inode, owed))

    def _described(self, inode: Inode, owed: _Owed) -> MarkerRecord:
        return MarkerRecord(
            owed.ident,
            self._namespace.key_of_empty(inode),
            self._namespace.commit_metadata(inode, explicit_mtime_only=False),
        )


def _upwards(inode: Inode) -> list[Inode]:
    found = [inode]
    while (parent := found[-1].parent) is not None:
        found.append(parent)
    return found

"""Directories that write-back owes the store: made here at once, their markers behind."""

import logging
import uuid

import trio

from ossfs_py.errors import OssfsError, StoreUnavailableError, UnsavedDataError
from ossfs_py.filesystem.rounds import Rounds
from ossfs_py.namespace.claims import Claims
from ossfs_py.namespace.inode import Inode
from ossfs_py.namespace.namespace import Namespace
from ossfs_py.runtime.workers import Workers
from ossfs_py.writing.groupsync import GroupSync
from ossfs_py.writing.journal import Journal
from ossfs_py.writing.markers import MarkerRecord

log = logging.getLogger(__name__)

_GATHER_SECONDS = 1.0
"""How long a marker waits for what is to be written with it: tar and rsync set mode and times of a
directory when they are done with what is in it."""
_RETRY_SECONDS = 5.0
"""Between tries while the store does not answer; each has the store's own retry budget."""
_AT_ONCE = 16
MAX_OWED = 1000
"""Markers that may wait; the next mkdir waits for some of them."""


class _Owed:
    """One directory whose marker is not in the store."""

    def __init__(self) -> None:
        self.ident = uuid.uuid4().hex
        self.lock = trio.Lock()
        """Held while the marker is written, or the directory removed."""
        self.is_told = False
        """Whether the log has why it could not be written."""


class OwedDirectories:
    """The directories of a mount that the store has not heard of. Belongs to the trio thread.

    The journal has each with the attributes it shows, so that the next mount makes what a killed
    daemon owes.
    """

    def __init__(
        self,
        namespace: Namespace,
        claims: Claims,
        workers: Workers,
        journal: Journal,
        group_sync: GroupSync | None,
    ) -> None:
        """``group_sync``: write-back; without it nothing is ever owed."""
        self._namespace = namespace
        self._claims = claims
        self._workers = workers
        self._journal = journal
        self._group_sync = group_sync
        self._owed: dict[Inode, _Owed] = {}
        self._rounds = Rounds()
        self._some = trio.Event()

    def __len__(self) -> int:
        return len(self._owed)

    async def make(self, parent: Inode, name: str, mode: int, uid: int, gid: int) -> Inode:
        """mkdir(2); with write-back it returns when the journal has the directory.

        Raises:
            OSError: the journal cannot be written.
            As :meth:`Namespace.make_directory`.
        """
        if self._group_sync is None:
            return await self._namespace.make_directory(parent, name, mode, uid, gid)
        await self._rounds.wait_while(lambda: len(self._owed) >= MAX_OWED)
        made = await self._namespace.make_directory(parent, name, mode, uid, gid, put_off=True)
        owed = self._owed[made] = _Owed()
        self._some.set()
        await self._record(made, owed)
        return made

    async def changed(self, inode: Inode) -> None:
        """Attributes of an inode, or its name, are others now."""
        owed = self._owed.get(inode)
        if owed is not None:
            await self._record(inode, owed)

    async def moved(self, tree: Inode) -> None:
        """All at or below an inode have other keys now."""
        for directory in list(self._owed):
            if tree in _upwards(directory):
                await self.changed(directory)

    def lock_of(self, directory: Inode | None) -> trio.Lock:
        """Hold it while a directory is removed: no marker of it is written meanwhile."""
        owed = None if directory is None else self._owed.get(directory)
        return trio.Lock() if owed is None else owed.lock

    async def removed(self, directory: Inode | None) -> None:
        """It needs no marker any more."""
        owed = None if directory is None else self._owed.pop(directory, None)
        if owed is not None:
            await self._workers.run(self._journal.forget_marker, owed.ident)

    async def tried(self) -> None:
        """Wait until what waits now is in the store, or could not be brought there."""
        wanted = set(self._owed)
        await self._rounds.tried(lambda: bool(wanted & self._owed.keys()))

    async def done(self) -> None:
        """Wait until what waits now is in the store.

        Raises:
            UnsavedDataError: some of it is not; it is tried again later.
        """
        await self.tried()
        self.require_none()

    def require_none(self, hint: str = "") -> None:
        """Raise UnsavedDataError if the store has not heard of some; ``hint`` is told as well."""
        if self._owed:
            count = len(self._owed)
            which = "a directory is" if count == 1 else f"{count} directories are"
            raise UnsavedDataError(f"{which} not in the bucket{hint}")

    async def run(self) -> None:
        """Write the markers of what comes, until cancelled."""
        while True:
            await self._some.wait()
            await self._rounds.hurried(_GATHER_SECONDS)
            self._some = trio.Event()
            with self._rounds.round():
                await self._store_all()
            if any(owed.is_told for owed in self._owed.values()):
                await self._rounds.hurried(_RETRY_SECONDS)
            if self._owed:
                self._some.set()

    # -- inside ----------------------------------------------------------------------------------

    async def _store_all(self) -> None:
        limit = trio.CapacityLimiter(_AT_ONCE)

        async def store(directory: Inode, owed: _Owed) -> None:
            async with limit:
                await self._store(directory, owed)

        async with trio.open_nursery() as nursery:
            for directory, owed in list(self._owed.items()):
                nursery.start_soon(store, directory, owed)

    async def _store(self, directory: Inode, owed: _Owed) -> None:
        async with self._claims.place(directory), owed.lock:
            if self._owed.get(directory) is not owed:
                return  # removed meanwhile
            try:
                if not directory.removed:
                    await self._namespace.store_directory(directory)
                await self.removed(directory)
            except (OssfsError, OSError, RuntimeError) as exc:
                level = logging.WARNING if isinstance(exc, StoreUnavailableError) else logging.ERROR
                if not owed.is_told:
                    log.log(level, "directory %r is not in the bucket: %s", directory.name, exc)
                owed.is_told = True

    async def _record(self, directory: Inode, owed: _Owed) -> None:
        record = MarkerRecord(
            owed.ident,
            self._namespace.marker_key_of(directory),
            self._namespace.commit_metadata(directory, explicit_mtime_only=False),
        )
        await self._workers.run(self._journal.record_marker, record)
        if self._group_sync is not None:
            self._group_sync.add_marker(owed.ident)


def _upwards(inode: Inode) -> list[Inode]:
    found = [inode]
    while (parent := found[-1].parent) is not None:
        found.append(parent)
    return found

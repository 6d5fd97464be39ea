"""The ``cache`` data path: a persistent, bounded, checksummed store of blocks on local disk.

Fetched bytes are answered from memory at once and land on disk behind; every later read of the
same version, also after a restart, comes from there, verified, once the store has given a byte of
it to this mount (see ``reading.leave``). Files written through the mount enter the cache when they
are committed.
"""

import logging
from functools import partial
from weakref import WeakValueDictionary

import outcome
import trio

from ossfs_py.datapath.diskcache.openversion import CachedVersion
from ossfs_py.datapath.diskcache.store import BlockStore
from ossfs_py.datapath.filling import Filler
from ossfs_py.datapath.objectfile import CommittedHook, ObjectFile
from ossfs_py.datapath.plainfiles import PlainFiles
from ossfs_py.model import ObjectVersion
from ossfs_py.reading.context import ReadContext
from ossfs_py.reading.leave import Grants
from ossfs_py.reading.readers import ReaderCache
from ossfs_py.runtime.buffers import Buffer
from ossfs_py.writing.content import Committer, LentFile
from ossfs_py.writing.context import WriteContext
from ossfs_py.writing.dirty import DirtyFile

log = logging.getLogger(__name__)

_SHRINK_SECONDS = 5.0
"""How often the disk is checked while nobody writes to the cache: other programs may be filling it.
"""

_TAKE_IN_SECONDS = 10.0
"""How long a mount that ends waits for written files to enter the cache: some GiB."""


class CacheDataPath:
    """Opens files whose readers keep their bytes in a :class:`BlockStore`, which it owns."""

    def __init__(
        self,
        reads: ReadContext,
        writes: WriteContext,
        blocks: BlockStore,
        *,
        keep_writes: bool = True,
        on_committed: CommittedHook | None = None,
        lends: bool = False,
    ) -> None:
        """``on_committed`` is called for written files as well; with ``lends``, verified files are
        for others to read."""
        self._files = reads.files
        self._writes = writes
        self.blocks = blocks
        self._grants = Grants()
        self._readers = ReaderCache(reads, self._backend, self._grants)
        self.filler = Filler(reads, self._readers)
        self._plain = PlainFiles(blocks, reads.files, self._readers.may_read) if lends else None
        self._keep_writes = keep_writes
        self._on_committed = on_committed
        self._being_taken_in = 0
        self._taken = trio.lowlevel.ParkingLot()
        self._being_read: WeakValueDictionary[ObjectVersion, CachedVersion] = WeakValueDictionary()

    def open(self, version: ObjectVersion | None, committer: Committer) -> ObjectFile:
        """An open file over ``version``; None for a file that is not in the store yet."""
        return ObjectFile(
            version,
            committer,
            self._readers,
            self._writes,
            memory_first=False,
            on_committed=self._committed,
            open_plain=None if self._plain is None else self._plain.open,
        )

    def prefetch(self, version: ObjectVersion) -> int | None:
        """Begin to fetch a whole small object; see the protocol."""
        if self._writes.small.recall(version) is not None:
            return 0
        return self._readers.prefetch(version)

    def copied(self, version: ObjectVersion, copy: ObjectVersion) -> None:
        """What was written here lately is read back without a request; see the protocol."""
        self._writes.small.copied(version, copy)

    def room_to_land(self, size: int) -> Buffer | None:  # noqa: ARG002 - the protocol's
        """None: what is written goes to a file."""
        return None

    async def run(self) -> None:
        """Background work of the data path, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._readers.run)
            if self._plain is not None:
                nursery.start_soon(self._plain.run)
            while True:
                await self._files.run(self.blocks.shrink, urgent=False)
                await trio.sleep(_SHRINK_SECONDS)

    async def aclose(self) -> None:
        """Free everything; what is on disk stays for the next mount."""
        self._readers.close()
        with trio.move_on_after(_TAKE_IN_SECONDS):
            while self._being_taken_in:
                await self._taken.park()
        await self._files.run(self.blocks.close)

    async def note_metrics(self) -> None:
        """Store hits and misses, for anybody who asks about the directory."""
        await self._files.run(self.blocks.note_metrics)

    async def evict(self, version: ObjectVersion) -> int:
        """Forget a version unless somebody reads it; returns the bytes freed."""
        self._readers.close_idle(version)
        return await self._files.run(self.blocks.forget, version)

    def _backend(self, version: ObjectVersion) -> CachedVersion | None:
        identity = self.blocks.identity(version)
        if identity is None:
            return None
        closed = None if self._plain is None else partial(self._plain.want, identity)
        backend = self._being_read[version] = CachedVersion(self.blocks, identity, closed)
        return backend

    # -- written files ---------------------------------------------------------------------------

    def _committed(self, dirty: DirtyFile, version: ObjectVersion) -> None:
        # The writer knows the bytes, so the mount may give them out.
        self._grants.add(version)
        if self._keep_writes:
            self._take_in(dirty, version)
        if self._on_committed is not None:
            self._on_committed(dirty, version)

    def _take_in(self, dirty: DirtyFile, version: ObjectVersion) -> None:
        """Copy a committed file's bytes into the cache, behind the program that wrote them."""
        lent = dirty.lend()
        if lent is None:
            return
        call = partial(self.blocks.ingest, version, lent.fd, lent.unchanged, lent.spans)
        self._being_taken_in += 1
        self._files.submit(call, partial(self._taken_in, lent, version), urgent=False)

    def _taken_in(
        self, lent: LentFile, version: ObjectVersion, result: outcome.Outcome[int]
    ) -> None:
        lent.give_back()
        self._being_taken_in -= 1
        self._taken.unpark_all()
        if isinstance(result, outcome.Error):
            log.error("taking %r into the cache failed", version.key, exc_info=result.error)
            return
        reading = self._being_read.get(version)
        if reading is not None:
            reading.look_again()

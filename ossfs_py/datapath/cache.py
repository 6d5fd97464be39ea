"""The ``cache`` data path: a persistent, bounded, checksummed store of blocks on local disk.

Fetched bytes are answered from memory at once and land on disk behind; every later read of the
same version, also after a restart, comes from there, verified.
"""

import trio

from ossfs_py.datapath.blockstore.backend import CachedVersion
from ossfs_py.datapath.blockstore.store import BlockStore
from ossfs_py.model import ObjectVersion
from ossfs_py.transfer.dirty import WriteContext
from ossfs_py.transfer.engine import TransferEngine
from ossfs_py.transfer.openfile import ObjectFile
from ossfs_py.transfer.readers import ReaderCache

_SHRINK_SECONDS = 5.0
"""How often the disk is looked at while nobody writes to the cache: others may be filling it."""


class CacheDataPath:
    """Opens files whose readers keep their bytes in a :class:`BlockStore`, which it owns."""

    def __init__(self, engine: TransferEngine, writes: WriteContext, blocks: BlockStore) -> None:
        self._engine = engine
        self._writes = writes
        self._blocks = blocks
        self._readers = ReaderCache(engine, self._backend)

    def open(self, version: ObjectVersion | None) -> ObjectFile:
        """An open file over ``version``; None for a file that is not in the store yet."""
        return ObjectFile(version, self._readers, self._writes, memory_first=False)

    async def run(self) -> None:
        """Background work of the data path, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._readers.run)
            while True:
                await self._engine.files.run(self._blocks.shrink, urgent=False)
                await trio.sleep(_SHRINK_SECONDS)

    async def aclose(self) -> None:
        """Free everything; what is on disk stays for the next mount."""
        self._readers.close()
        await self._engine.files.run(self._blocks.close)

    def _backend(self, version: ObjectVersion) -> CachedVersion | None:
        identity = self._blocks.identity(version)
        return CachedVersion(self._blocks, identity) if identity is not None else None

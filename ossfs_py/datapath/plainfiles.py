"""Plain files of the disk cache, which the kernel may read for programs, and their verification.

A large object that is completely in the cache is one plain file there. It is verified block by
block in the background, once no program reads it through the mount, and again each day. The kernel
gets only verified files (``diskcache/seal.py``).
"""

import logging
import mmap
import time
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from ossfs_py.datapath.base import PlainFile
from ossfs_py.datapath.diskcache import seal
from ossfs_py.datapath.diskcache.blockfile import BlockFile
from ossfs_py.datapath.diskcache.layout import Identity
from ossfs_py.datapath.diskcache.store import BlockStore
from ossfs_py.model import ObjectVersion
from ossfs_py.runtime.workers import Workers

log = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0
"""Pause between checks for files to verify. A file must be unchanged for a second before that."""
_STEP_BYTES = 8 * 1024**2
"""Bytes verified at once: some milliseconds of one of the threads for local files."""


class PlainFiles:
    """The plain files of a mount. Belongs to the trio thread. ``may_read`` tells whether the store
    lets this mount read a version, which may take a request.
    """

    def __init__(
        self,
        blocks: BlockStore,
        workers: Workers,
        may_read: Callable[[ObjectVersion], Awaitable[bool]],
    ) -> None:
        self._blocks = blocks
        self._workers = workers
        self._may_read = may_read
        self._wanted: dict[ObjectVersion, Identity] = {}
        """The versions to verify."""
        self._lent: dict[PlainFile, tuple[Identity, float]] = {}
        """The lent files, each with the time on trio's clock at which its seal expires."""

    def want(self, identity: Identity) -> None:
        """A program has read the version, and may do so again: verify it if it is complete."""
        if identity.is_plain:
            self._wanted[identity.version] = identity

    async def open(self, version: ObjectVersion) -> PlainFile | None:
        """The plain file of a version; None if there is no verified one. The caller closes it. It
        is not evicted until then.
        """
        identity = self._blocks.identity(version)
        if identity is None or not identity.is_plain:
            return None
        file = self._blocks.open(identity)
        if file is None:
            return None
        try:
            verified_at = seal.verified_at(file)
            # O_DIRECT of a program needs the same on the cache's disk.
            if verified_at is None or not file.takes_direct or not await self._may_read(version):
                return None
            lent = PlainFile(file.data_fd, version.size, partial(self._given_back, file))
            left = verified_at + seal.VALID_SECONDS - time.time()
            self._lent[lent], file = (identity, trio.current_time() + left), None
            return lent
        finally:
            if file is not None:
                self._blocks.release(file)

    def _given_back(self, file: BlockFile, lent: PlainFile) -> None:
        del self._lent[lent]
        self._blocks.release(file)

    async def run(self) -> None:
        """Verify requested files, and lent files whenever their seal has expired."""
        while True:
            await trio.sleep(_LOOK_SECONDS)
            now = trio.current_time()
            for lent, (identity, until) in self._lent.items():
                if until <= now:
                    self._lent[lent] = identity, now + seal.VALID_SECONDS
                    self.want(identity)
            wanted, self._wanted = self._wanted, {}
            for identity in wanted.values():
                await self._verify(identity)

    async def _verify(self, identity: Identity) -> None:
        file = self._blocks.look(identity)
        if file is None:
            return
        try:
            if not file.complete or seal.verified_at(file) is not None:
                return
            stamp, began_ns = seal.stamp_of(file), time.time_ns()
            if stamp is None:
                self._wanted[identity.version] = identity  # it was written to just now
                return
            file.past_page_cache()
            if not await self._matches(file):
                self._tell_damage(identity)
            elif seal.put(file, stamp, began_ns):
                log.debug("all of %r was verified on disk", identity.version.key)
        except OSError as exc:
            log.warning("%r cannot be verified on disk: %s", identity.version.key, exc.strerror)
        finally:
            with trio.CancelScope(shield=True):
                await self._workers.run(partial(self._blocks.release, file), urgent=False)

    async def _matches(self, file: BlockFile) -> bool:
        identity = file.identity
        step = max(1, _STEP_BYTES // identity.block_size_bytes)
        # Aligned, as reads past the page cache require.
        buffer = memoryview(mmap.mmap(-1, step * identity.block_size_bytes))
        for first in range(0, identity.block_count, step):
            last = min(first + step, identity.block_count)
            check = partial(seal.verify, file, first, last, buffer)
            if not await self._workers.run(check, urgent=False):
                return False
        return True

    def _tell_damage(self, identity: Identity) -> None:
        if any(lent.version == identity.version for lent, _ in self._lent.values()):
            log.error(
                "the cached bytes of %r are damaged on disk, and programs have them open that the "
                "kernel serves: what they read since the last verification may be wrong",
                identity.version.key,
            )
        else:
            log.warning("some cached bytes of %r are damaged on disk", identity.version.key)

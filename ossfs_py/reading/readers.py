"""Readers by version: shared while open, kept a moment after, freed for certain."""

import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from math import inf

import outcome
import trio

from ossfs_py.foresight.formats import next_shard
from ossfs_py.foresight.layout import MAX_PARTS, Index, TableError, checked_layout
from ossfs_py.model import ObjectInfo, ObjectVersion
from ossfs_py.reading.context import ReadContext
from ossfs_py.reading.leave import Grants, Leave
from ossfs_py.reading.reader import VersionReader
from ossfs_py.reading.secondhome import BlockBackend

log = logging.getLogger(__name__)

_LINGER_SECONDS = 5.0
"""A loader that opens a file twice (header, then body) finds what was read ahead in between."""

_TICK_SECONDS = 1.0

_PREFETCHED_SECONDS = 10.0
"""How long a file that was fetched ahead waits to be opened."""

_SHARD_HEAD_BYTES = 128 * 1024**2
"""Of the next shard, what its loader finds in memory at once: it keeps the link busy while the
loader looks at the tensors and until its streams run. 4 shards of 256 MiB took 1.05 times as long
as one file with it, 1.17 times with half of it."""
_SHARD_HEAD_SHARE = 8
"""One part in this many of the memory budget, if that is less."""

_MAX_INDEXED = 64
"""Files whose parts are known from another file's index: a model keeps its weights in one, mostly.
All of them together have no more parts than one file may have."""


class _Use:
    __slots__ = ("count", "expires")

    def __init__(self) -> None:
        self.count = 0
        self.expires = inf


class ReaderCache:
    """One reader per version, whoever opens it. Belongs to the trio thread.

    Versions without an ETag cannot be told from those of the same second: each has a reader of its
    own, and none for longer than it is used.
    """

    def __init__(
        self,
        context: ReadContext,
        make_backend: Callable[[ObjectVersion], BlockBackend | None],
        grants: Grants | None = None,
    ) -> None:
        """``grants``: what backends have may be somebody else's; None if it is this mount's own."""
        self._context = context
        self._grants = grants
        self._make_backend = make_backend
        self._by_version: dict[ObjectVersion, VersionReader] = {}
        self._uses: dict[VersionReader, _Use] = {}
        self._indexed: OrderedDict[str, tuple[tuple[int, int], ...]] = OrderedDict()
        """The parts of a key's object, as another object described them."""
        self._closed = False

    def has(self, version: ObjectVersion) -> bool:
        """Whether somebody reads ``version``, did a moment ago, or has it fetched ahead."""
        return version in self._by_version

    def acquire(self, version: ObjectVersion) -> VersionReader:
        """The reader of ``version``; pair with :meth:`release`."""
        reader = self._by_version.get(version) if version.has_etag else None
        if reader is None:
            follow = self._fetch_next_shard if self._context.options.model_hints else None
            backend = self._make_backend(version)
            leave = self._leave(version) if backend is not None else None
            reader = VersionReader(self._context, version, backend, follow, leave, self._remember)
            if version.has_etag:
                self._by_version[version] = reader
            self._uses[reader] = _Use()
            self._tell(reader)
        else:
            reader.look_again()
        use = self._uses[reader]
        use.count += 1
        use.expires = inf
        return reader

    def _leave(self, version: ObjectVersion) -> Leave | None:
        if self._grants is None:
            return None
        context = self._context
        return Leave(version, self._grants, context.store.get_range_into, context.network)

    async def may_read(self, version: ObjectVersion) -> bool:
        """Whether the store gives the version to this mount; it is asked if that is not known."""
        leave = self._leave(version)
        return leave is None or leave.granted or await leave.wait() is None

    def release(self, reader: VersionReader, *, linger: bool = True) -> None:
        """One user less; the last one's reader is closed a few seconds later, or at once."""
        use = self._uses.get(reader)
        if use is None:
            return  # everything was closed meanwhile
        use.count -= 1
        if use.count == 0 and linger and reader.version.has_etag:
            use.expires = trio.current_time() + _LINGER_SECONDS
        elif use.count == 0:
            self._close(reader)

    def close_idle(self, version: ObjectVersion) -> None:
        """Close the reader of a version that only lingers."""
        reader = self._by_version.get(version)
        if reader is not None and self._uses[reader].count == 0:
            self._close(reader)

    def _close(self, reader: VersionReader) -> None:
        del self._uses[reader]
        if self._by_version.get(reader.version) is reader:
            del self._by_version[reader.version]
        reader.close()

    def prefetch(self, version: ObjectVersion) -> int | None:
        """Begin to fetch a whole version that nobody has open, behind urgent work.

        Returns the bytes fetched: 0 if they are there already, None if memory is short.
        """
        if version in self._by_version or not version.has_etag:
            return 0
        reader = self.acquire(version)
        size = reader.fetch_head(version.size)
        self.release(reader)
        self._uses[reader].expires = trio.current_time() + (_PREFETCHED_SECONDS if size else 0)
        return size

    def _fetch_next_shard(self, version: ObjectVersion) -> None:
        """A shard of a model is nearly read: its loader opens the next one in a moment."""
        folder, slash, name = version.key.rpartition("/")
        following = next_shard(name)
        if following is not None:
            ask = partial(self._context.store.head, f"{folder}{slash}{following}")
            found = partial(self._next_shard_found, version)
            self._context.network.submit(ask, found, urgent=False)

    def _next_shard_found(self, before: ObjectVersion, result: outcome.Outcome[ObjectInfo]) -> None:
        if isinstance(result, outcome.Error):
            log.info("the next shard is not read ahead: %s", result.error)
            return
        version = result.unwrap().version
        known = version in self._by_version
        if not self._closed and not known and version.has_etag and version.size:
            reader = self.acquire(version)
            if before in self._by_version:
                reader.follow(self._by_version[before])
            share = self._context.memory.limit_bytes // _SHARD_HEAD_SHARE
            reader.fetch_head(min(_SHARD_HEAD_BYTES, share))
            self.release(reader)
            self._uses[reader].expires = trio.current_time() + _PREFETCHED_SECONDS

    def _remember(self, version: ObjectVersion, index: Index) -> None:
        """An object says where the parts of others lie: believed when those are read."""
        folder, slash, _ = version.key.rpartition("/")
        for name, spans in index.parts.items():
            key = f"{folder}{slash}{name}"
            self._indexed[key] = spans
            self._indexed.move_to_end(key)
            while len(self._indexed) > _MAX_INDEXED or self._indexed_parts() > MAX_PARTS:
                self._indexed.popitem(last=False)
            for reader in [r for v, r in self._by_version.items() if v.key == key]:
                self._tell(reader)

    def _indexed_parts(self) -> int:
        return sum(len(spans) for spans in self._indexed.values())

    def _tell(self, reader: VersionReader) -> None:
        spans = self._indexed.get(reader.version.key)
        if spans is None:
            return
        try:
            reader.know(checked_layout(spans, 0, reader.version.size))
        except TableError as error:
            log.info("what another file says of %r is not used: %s", reader.version.key, error)

    def rebase(self, reader: VersionReader, version: ObjectVersion) -> None:
        """Let every user of ``reader`` read on from ``version``, which holds the same bytes."""
        if reader.version == version:
            return
        if self._by_version.get(reader.version) is reader:
            del self._by_version[reader.version]
        reader.rebase(version)
        if version.has_etag:
            self._by_version.setdefault(version, reader)

    async def run(self) -> None:
        """Close lingering readers and unmap idle memory, until cancelled."""
        while True:
            await trio.sleep(_TICK_SECONDS)
            now = trio.current_time()
            for reader in [r for r, use in self._uses.items() if use.expires <= now]:
                self._close(reader)
            self._context.memory.trim(now)

    def close(self) -> None:
        """Free everything at unmount."""
        self._closed = True
        for reader in self._uses:
            reader.close()
        self._uses.clear()
        self._by_version.clear()

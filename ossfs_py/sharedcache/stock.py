"""The blocks of a version that the nodes have, and how blocks get there before they are read."""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice

from ossfs_py.model import ObjectVersion
from ossfs_py.reading.shared import Owed, Stocked, StockNodes
from ossfs_py.sharedcache.blocks import BlockNames, pieces
from ossfs_py.sharedcache.cache import SharedCache
from ossfs_py.sharedcache.connection import Found, NodeConnection, NodeFaultError
from ossfs_py.sharedcache.metrics import WON
from ossfs_py.sharedcache.node import Node
from ossfs_py.sharedcache.placement import STRIPE_BYTES

_LOOKS = 256
"""Blocks asked about at once: answers of some 3 KB, which no socket is too small for."""
_TRIES = 2
"""Nodes that are asked about a block: its own and, if that one fails, the next."""

_NOBODY = "no node of the shared cache answers"
_REFUSED = "a node of the shared cache does not take it (see memcached's options -m and -I)"
_NO_ETAG = "the store gives no ETag for it, so it is never shared"


class Stock:
    """``reading.shared.SharedStock`` over the nodes of a shared cache.

    A missing block is leased to who asks first, as when it is read: of mounts that fill the nodes
    at once each fetches what the others do not.
    """

    def __init__(self, cache: SharedCache) -> None:
        self._cache = cache
        self.span_bytes = max(STRIPE_BYTES // cache.block_bytes, 1) * cache.block_bytes
        """A stripe has one node. Spans as small as this let many mounts fetch at once from a bucket
        that is slower than they are, and none takes as long as a lease."""

    def nodes(self) -> StockNodes:
        """See :meth:`~ossfs_py.reading.shared.SharedStock.nodes`."""
        nodes = self._cache.nodes
        return StockNodes(
            frozenset(node.name for node in nodes if node.up),
            frozenset(node.name for node in nodes if not node.up),
            sum(node.memory_bytes for node in nodes if node.up),
        )

    def share(self, version: ObjectVersion) -> int:
        """See :meth:`~ossfs_py.reading.shared.SharedStock.share`."""
        if not version.has_etag:
            return 0
        names = self._cache.names(version)
        found = self._look(names, range(names.count), lease_seconds=0)
        return sum(names.size(index) for index, what in found.items() if what is Found.VALUE)

    def fill(self, version: ObjectVersion, start: int, buffer: memoryview) -> Stocked:
        """See :meth:`~ossfs_py.reading.shared.SharedStock.fill`.

        Raises:
            StoreError: as of the store's own method.
        """
        if not version.has_etag:
            return Stocked(0, 0, (), _NO_ETAG)
        names = self._cache.names(version)
        blocks = names.whole_blocks(start, start + len(buffer))
        found = self._look(names, blocks, lease_seconds=self._cache.pace.lease_seconds)
        there = [index for index in blocks if found.get(index) is Found.VALUE]
        lost = [index for index in blocks if found.get(index) is Found.LOST]
        missing = [index for index in blocks if found.get(index) in (Found.WON, Found.NOTHING)]
        self._cache.count(WON, len(missing))
        problem = "" if len(found) == len(blocks) else _NOBODY
        fetched = 0
        owed = set(missing)
        try:
            for first, end in names.runs(missing):
                view = buffer[first - start : end - start]
                self._cache.fetch(version, first, view)
                fetched += end - first
                for index in names.whole_blocks(first, end):
                    at = index * names.block_bytes - first
                    if not self._cache.put(names, index, view[at : at + names.size(index)]):
                        problem = _REFUSED
                    owed.remove(index)
        except BaseException:
            for index in owed:
                self._cache.forgo(version, Owed(index, index + 1, 0, 0))
            raise
        return Stocked(
            sum(names.size(index) for index in there),
            fetched,
            tuple(names.runs(lost)),
            problem,
        )

    def _look(
        self, names: BlockNames, blocks: Iterable[int], *, lease_seconds: int
    ) -> dict[int, Found]:
        """The state of blocks on the nodes, without their bytes. Blocks for which no node answers
        are missing.
        """
        found: dict[int, Found] = {}
        waiting = iter(blocks)
        while some := list(islice(waiting, _LOOKS)):
            for _ in range(_TRIES):
                for node, indices in self._cache.by_node(names, some).items():
                    try:
                        found.update(node.use(partial(_seen, names, node, indices, lease_seconds)))
                    except NodeFaultError:
                        continue
                some = [index for index in some if index not in found]
                if not some:
                    break
        return found


def _seen(
    names: BlockNames,
    node: Node,
    indices: Sequence[int],
    lease_seconds: int,
    connection: NodeConnection,
) -> dict[int, Found]:
    connection.look([names.key(index) for index in indices], lease_seconds=lease_seconds)
    found = {index: connection.seen() for index in indices}
    # A block that was split has several items, each of which may have been evicted.
    cut = [
        (index, item)
        for index, what in found.items()
        if what is Found.VALUE
        for item in range(1, len(pieces(names.size(index), node.item_bytes)))
    ]
    if cut:
        connection.look([names.key(index, item) for index, item in cut], lease_seconds=0)
        for index, _ in cut:
            if connection.seen() is not Found.VALUE:
                found[index] = Found.NOTHING
    return found

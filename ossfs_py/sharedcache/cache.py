"""The blocks of a bucket's objects in the memory of several nodes; see the package."""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from ossfs_py.model import ObjectInfo, ObjectVersion
from ossfs_py.reading.shared import Owed, SharedAnswer
from ossfs_py.sharedcache.blocks import HEAD_BYTES, BlockNames, Head, ValueDamagedError, pieces
from ossfs_py.sharedcache.connection import Found, NodeConnection, NodeFaultError, Stored
from ossfs_py.sharedcache.metrics import (
    DROPPED,
    HIT,
    LATE,
    UNASKED,
    WAITED,
    WON,
    SharedCacheMetrics,
)
from ossfs_py.sharedcache.node import Node
from ossfs_py.sharedcache.pace import SharedPace
from ossfs_py.sharedcache.placement import STRIPE_BYTES, choose
from ossfs_py.store.base import ObjectStore

_TRIES = 2
"""Nodes that are asked for a block: its own and, if that one fails, the next."""


@dataclass(frozen=True, slots=True)
class SharedCacheOptions:
    """``nodes``: as ``members.find_members`` takes it. ``bucket`` and the store's place keep apart
    what mounts of several buckets leave on one node. ``patience_seconds``: the shortest time after
    which a node's silence is a fault; some tens of milliseconds are longer than any answer of a
    healthy node on one network, and no more than a reader may lose once.
    """

    nodes: str
    bucket: str
    block_bytes: int
    secret: bytes | None = field(default=None, repr=False)
    patience_seconds: float = 0.08


class SharedCache:
    """``reading.shared.SharedBlocks`` over memcached nodes."""

    def __init__(
        self, store: ObjectStore, options: SharedCacheOptions, metrics: SharedCacheMetrics
    ) -> None:
        self.block_bytes = options.block_bytes
        self.nodes: tuple[Node, ...] = ()
        """Replaced as a whole, by the trio thread."""
        self.pace = SharedPace()
        self.metrics = metrics
        self._store = store
        self._options = options
        self._closed = threading.Event()

    def get_range_into(
        self, version: ObjectVersion, start: int, buffer: memoryview
    ) -> SharedAnswer:
        """See :meth:`~ossfs_py.reading.shared.SharedBlocks.get_range_into`.

        Raises:
            StoreError: as of the store's own method.
        """
        names = self.names(version)
        # A version without an ETag cannot be told from others.
        blocks = names.whole_blocks(start, start + len(buffer)) if version.has_etag else range(0)
        if not blocks:
            return SharedAnswer(self.fetch(version, start, buffer), from_store=True)
        if not any(node.up for node in self.nodes) or not self.pace.worth_asking():
            self.count(UNASKED, len(blocks))
            return SharedAnswer(self.fetch(version, start, buffer), from_store=True)
        return _Request(self, names, start, buffer).answer(blocks)

    def hand_on(self, version: ObjectVersion, owed: Owed, view: memoryview) -> None:
        """See :meth:`~ossfs_py.reading.shared.SharedBlocks.hand_on`."""
        names = self.names(version)
        for index in range(owed.first, owed.last):
            start = index * names.block_bytes - owed.start
            self.put(names, index, view[start : start + names.size(index)])

    def forgo(self, version: ObjectVersion, owed: Owed) -> None:
        """See :meth:`~ossfs_py.reading.shared.SharedBlocks.forgo`."""
        names = self.names(version)
        self.count(DROPPED, owed.last - owed.first)
        for node, indices in self.by_node(names, range(owed.first, owed.last)).items():
            keys = [names.key(index) for index in indices]
            try:
                node.use(partial(_delete, keys))
            except NodeFaultError:
                continue  # it is left alone now, and the lease ends by itself

    def close(self) -> None:
        """Wait for nothing any more, and close all connections."""
        self._closed.set()
        for node in self.nodes:
            node.close()

    # -- what requests use ----------------------------------------------------------------------

    def by_node(self, names: BlockNames, indices: Iterable[int]) -> dict[Node, list[int]]:
        """Blocks by the node that has them; those without a node are left out."""
        found: dict[Node, list[int]] = {}
        chosen: dict[bytes, Node | None] = {}
        nodes = self.nodes
        for index in indices:
            stripe = names.stripe(index, STRIPE_BYTES)
            if stripe not in chosen:
                chosen[stripe] = choose(stripe, nodes)
            node = chosen[stripe]
            if node is not None:
                found.setdefault(node, []).append(index)
        return found

    def fetch(self, version: ObjectVersion, start: int, view: memoryview) -> ObjectInfo | None:
        """Fill ``view`` from the bucket."""
        began = time.monotonic()
        told = self._store.get_range_into(version, start, view)
        self.pace.store_took(len(view), time.monotonic() - began)
        return told

    def rest(self, seconds: float) -> bool:
        """Let time pass; False if the mount ends."""
        return not self._closed.wait(seconds)

    def count(self, outcome: str, blocks: int = 1) -> None:
        """Count blocks."""
        if blocks:
            self.metrics.blocks.labels(outcome).inc(blocks)

    # -- values -----------------------------------------------------------------------------------

    def names(self, version: ObjectVersion) -> BlockNames:
        """The names of a version's blocks on the nodes."""
        options = self._options
        return BlockNames(
            self._store.place, options.bucket, version, options.block_bytes, options.secret
        )

    def put(self, names: BlockNames, index: int, view: memoryview) -> bool:
        """Store a block on its node; False if that one does not take it. True also if it failed
        at this, or if there is none: then the block's place is another one from now on.
        """
        for node in self.by_node(names, (index,)):
            spans = pieces(len(view), node.item_bytes)
            if not spans:
                node.refused(too_large=False)
                self.count(DROPPED)
                return False
            items = [view[start:end] for start, end in spans]
            head = names.head(index, view, len(items))
            try:
                stored = node.use(partial(_send_items, names, index, head, items))
            except NodeFaultError:
                self.count(DROPPED)
                return True
            if stored is not Stored.KEPT:
                node.refused(too_large=stored is Stored.TOO_LARGE)
                self.count(DROPPED)
                return False
            node.took(len(view))
        return True


def _delete(keys: Sequence[bytes], connection: NodeConnection) -> None:
    connection.delete(keys)


def _send_items(
    names: BlockNames,
    index: int,
    head: bytes,
    items: Sequence[memoryview],
    connection: NodeConnection,
) -> Stored:
    """Store a block; its first item comes last, when all others are there."""
    stored = Stored.KEPT
    for number in range(len(items) - 1, -1, -1):
        parts: list[bytes | memoryview] = [items[number]]
        if number == 0:
            parts.insert(0, head)
        stored = connection.store(names.key(index, number), parts)
        if stored is not Stored.KEPT:
            connection.delete([names.key(index)])
            return stored
    return stored


class _Request:
    """One span of a version on its way into ``buffer``. Belongs to one thread."""

    def __init__(
        self, cache: SharedCache, names: BlockNames, start: int, buffer: memoryview
    ) -> None:
        self._cache = cache
        self._names = names
        self._version = names.version
        self._start = start
        self._end = start + len(buffer)
        self._buffer = buffer
        self._told: ObjectInfo | None = None
        self._from_store = False

    def answer(self, blocks: range) -> SharedAnswer:
        """Fill the buffer: what nodes have, what nobody has, what others are fetching."""
        found = self._ask(blocks)
        here = [index for index, what in found.items() if what is Found.VALUE]
        lost = [index for index, what in found.items() if what is Found.LOST]
        won = [index for index, what in found.items() if what is Found.WON]
        self._cache.count(HIT, len(here))
        self._cache.count(WON, len(won))
        owed = self._fetch(self._gaps(here + lost), won)
        if not lost:
            return self._answered(owed, was_there=not self._from_store)
        # Others may wait for what was fetched here while they fetch what is waited for here.
        self._hand_on_now(owed)
        late = self._wait(lost)
        self._cache.count(LATE, len(late))
        return self._answered(self._fetch(self._names.runs(late), late))

    def _answered(self, owed: list[Owed], *, was_there: bool = False) -> SharedAnswer:
        return SharedAnswer(self._told, self._from_store, was_there, tuple(owed))

    # -- the bucket -------------------------------------------------------------------------------

    def _fetch(self, spans: list[tuple[int, int]], leased: list[int]) -> list[Owed]:
        """Fetch spans from the bucket; returns which blocks others may wait for. When it fails,
        the leases are given up.
        """
        owed: list[Owed] = []
        try:
            for start, end in spans:
                view = self._buffer[start - self._start : end - self._start]
                told = self._cache.fetch(self._version, start, view)
                self._told = self._told or told
                self._from_store = True
                whole = self._names.whole_blocks(start, end)
                if whole:
                    first, last, size = whole.start, whole.stop, self._names.block_bytes
                    until = min(last * size, self._version.size)
                    owed.append(Owed(first, last, first * size, until))
        except BaseException:
            for index in leased:
                self._cache.forgo(self._version, Owed(index, index + 1, 0, 0))
            raise
        return owed

    def _gaps(self, blocks: list[int]) -> list[tuple[int, int]]:
        """The span without ``blocks``."""
        size = self._names.block_bytes
        gaps = []
        position = self._start
        for index in sorted(blocks):
            if position < index * size:
                gaps.append((position, index * size))
            position = index * size + self._names.size(index)
        if position < self._end:
            gaps.append((position, self._end))
        return gaps

    # -- other mounts -----------------------------------------------------------------------------

    def _wait(self, lost: list[int]) -> list[int]:
        """Wait for blocks that others fetch; those that did not come in time."""
        cache = self._cache
        pace = cache.pace
        began = time.monotonic()
        polls = 0
        while (
            lost
            and time.monotonic() - began < pace.wait_seconds
            and cache.rest(pace.poll_seconds(polls))
        ):
            polls += 1
            found = self._ask(lost)
            came = sum(what is Found.VALUE for what in found.values())
            if came:
                cache.count(WAITED, came)
                pace.another_took(time.monotonic() - began)
            won = [index for index in lost if found[index] in (Found.WON, Found.NOTHING)]
            if won:  # who had the lease gave it up, or its node is gone
                cache.count(WON, len(won))
                self._hand_on_now(self._fetch(self._names.runs(won), won))
            lost = [index for index in lost if found[index] is Found.LOST]
        return lost

    def _hand_on_now(self, owed: list[Owed]) -> None:
        for one in owed:
            view = self._buffer[one.start - self._start : one.end - self._start]
            self._cache.hand_on(self._version, one, view)

    # -- nodes ------------------------------------------------------------------------------------

    def _ask(self, blocks: Iterable[int]) -> dict[int, Found]:
        """Ask the nodes of ``blocks``; found values are in the buffer."""
        found: dict[int, Found] = {}
        left = list(blocks)
        for _ in range(_TRIES):
            for node, indices in self._cache.by_node(self._names, left).items():
                try:
                    node.use(partial(self._converse, node, indices, found))
                except NodeFaultError:
                    continue
            left = [index for index in left if index not in found]
            if not left:
                break
        found.update(dict.fromkeys(left, Found.NOTHING))
        return found

    def _converse(
        self, node: Node, indices: list[int], found: dict[int, Found], connection: NodeConnection
    ) -> None:
        wanted = [index for index in indices if index not in found]
        began = time.monotonic()
        lease_seconds = self._cache.pace.lease_seconds
        connection.ask([self._names.key(index) for index in wanted], lease_seconds=lease_seconds)
        cut: list[tuple[int, Head, int]] = []
        received = 0
        for index in wanted:
            what, size = connection.found()
            if index == wanted[0]:
                node.answered(time.monotonic() - began)
            if what is not Found.VALUE:
                found[index] = what
                continue
            try:
                head, count = self._receive(connection, index, size)
                if head.items > 1:
                    cut.append((index, head, count))
                    continue
                self._names.check(head, index, self._view(index))
            except ValueDamagedError as exc:
                node.lied(str(exc))
                found[index] = Found.NOTHING
            else:
                found[index] = Found.VALUE
                received += count
        for index, head, count in cut:
            found[index] = self._receive_rest(node, connection, index, head, count)
            received += count
        if received:
            node.gave(received)
            self._cache.pace.cache_took(received, time.monotonic() - began)

    def _receive(self, connection: NodeConnection, index: int, size: int) -> tuple[Head, int]:
        """The head of a block's first item, and how many of the block's bytes came with it."""
        view = self._view(index)
        left = size
        try:
            if size < HEAD_BYTES:
                raise ValueDamagedError("foreign bytes")
            raw = memoryview(bytearray(HEAD_BYTES))
            connection.fill(raw)
            left -= HEAD_BYTES
            head = self._names.understood(raw, index)
            if (left != len(view)) if head.items == 1 else (left >= len(view)):
                raise ValueDamagedError("another size")
        except ValueDamagedError:
            connection.drain(left)
            connection.end_value()
            raise
        connection.fill(view[:left])
        connection.end_value()
        return head, left

    def _receive_rest(
        self, node: Node, connection: NodeConnection, index: int, head: Head, count: int
    ) -> Found:
        """The further items of a block, ``count`` bytes of which are there."""
        view = self._view(index)
        connection.ask(
            [self._names.key(index, number) for number in range(1, head.items)],
            lease_seconds=0,
        )
        whole = True
        for _ in range(1, head.items):
            what, size = connection.found()
            fits = what is Found.VALUE and whole and count + size <= len(view)
            if fits:
                connection.fill(view[count : count + size])
                count += size
            elif size:
                connection.drain(size)
            if size:
                connection.end_value()
            whole = fits
        if not whole or count != len(view):
            return Found.NOTHING  # some of it was evicted
        try:
            self._names.check(head, index, view)
        except ValueDamagedError as exc:
            node.lied(str(exc))
            return Found.NOTHING
        return Found.VALUE

    def _view(self, index: int) -> memoryview:
        start = index * self._names.block_bytes - self._start
        return self._buffer[start : start + self._names.size(index)]

"""Mounts' parts in a shared cache, over a bucket whose bytes are known."""

import threading
from typing import ClassVar

from ossfs_py.model import ObjectVersion
from ossfs_py.sharedcache.blocks import BLOCK_BYTES
from ossfs_py.sharedcache.cache import SharedCache, SharedCacheOptions
from ossfs_py.sharedcache.metrics import SharedCacheMetrics
from ossfs_py.sharedcache.node import Node
from ossfs_py.telemetry.metrics import Metrics
from tests.support.pattern_store import PatternStore

MIB = 1024**2
SIZE = 8 * MIB + 4321
VERSION = ObjectVersion("model", "etag", SIZE)
PATIENT = 20.0
"""For tests in which no node is slow, on however busy a machine."""
SECRET = b"a secret of the group"


class Bucket(PatternStore):
    """The bucket behind the cache."""

    place = "http://store"

    def __init__(self) -> None:
        super().__init__()
        self.gate: threading.Event | None = None
        self.asked = threading.Event()

    def get_range_into(self, version: ObjectVersion, start: int, buffer: memoryview) -> None:
        self.asked.set()
        if self.gate is not None:
            assert self.gate.wait(30)
        super().get_range_into(version, start, buffer)


class Machine:
    """One mount's part in a shared cache, with its own view of the nodes."""

    made: ClassVar[list["Machine"]] = []

    def __init__(
        self,
        bucket: Bucket,
        *nodes: str,
        secret: bytes | None = None,
        patience: float = PATIENT,
        block: int = BLOCK_BYTES,
    ) -> None:
        self.options = SharedCacheOptions(",".join(nodes), "bucket", block, secret, patience)
        self.metrics = SharedCacheMetrics(Metrics().registry)
        self.cache = SharedCache(bucket, self.options, self.metrics)  # type: ignore[arg-type]
        self.cache.nodes = tuple(
            Node(
                name,
                (name.rpartition(":")[0], int(name.rpartition(":")[2])),
                self.metrics,
                patience,
            )
            for name in nodes
        )
        for node in self.cache.nodes:
            node.look()
        Machine.made.append(self)

    def read(self, start: int = 0, end: int = SIZE, version: ObjectVersion = VERSION) -> bytes:
        """Read a span, and hand on what is owed."""
        buffer = memoryview(bytearray(end - start))
        answer = self.cache.get_range_into(version, start, buffer)
        for owed in answer.owed:
            self.cache.hand_on(version, owed, buffer[owed.start - start : owed.end - start])
        return bytes(buffer)

    def counted(self, outcome: str) -> int:
        return int(self.metrics.blocks.labels(outcome)._value.get())

    def errors(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for sample in next(iter(self.metrics.errors.collect())).samples:
            if sample.name.endswith("_total"):
                reason = sample.labels["reason"]
                found[reason] = found.get(reason, 0) + int(sample.value)
        return found

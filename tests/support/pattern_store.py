"""Objects of any size whose bytes are known without being kept, and readers over them."""

import random
from collections.abc import Callable
from threading import Lock

from ossfs_py.model import ObjectVersion
from ossfs_py.reading.context import ReadContext
from ossfs_py.reading.hedging import Hedging
from ossfs_py.reading.planning import ReadOptions
from ossfs_py.reading.resident import Resident
from ossfs_py.reading.streams import MIB
from ossfs_py.runtime.buffers import BufferPool
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.http.arrival import Arrival
from ossfs_py.telemetry.metrics import Metrics

PATTERN = random.Random(1).randbytes(256 * 1024 + 13)


class PatternStore:
    """An object of any size whose bytes are known without being kept."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.spans: list[tuple[int, int]] = []
        self.fail: Callable[[int], Exception | None] = lambda _start: None

    def get_range_into(self, version: ObjectVersion, start: int, buffer: memoryview) -> None:
        with self.lock:
            self.spans.append((start, start + len(buffer)))
            error = self.fail(start)
        if error is not None:
            raise error
        buffer[:] = pattern(start, len(buffer))

    def get_range_gradually(
        self, version: ObjectVersion, start: int, buffer: memoryview, _arrival: Arrival
    ) -> None:
        self.get_range_into(version, start, buffer)

    @property
    def served(self) -> int:
        return sum(end - start for start, end in self.spans)


def pattern(start: int, size: int) -> bytes:
    offset = start % len(PATTERN)
    copies = (offset + size) // len(PATTERN) + 1
    return (PATTERN * copies)[offset : offset + size]


def reading_over(
    store: PatternStore, limit: int = 64 * MIB, block: int = MIB, hedge_seconds: float = 3.0
) -> ReadContext:
    metrics = Metrics()
    files = Workers("files", 2)
    resident = Resident(limit, files, metrics)
    return ReadContext(
        store=store,  # type: ignore[arg-type]
        network=Workers("net", 8),
        files=files,
        memory=BufferPool(limit, block, metrics, resident),
        resident=resident,
        metrics=metrics,
        options=ReadOptions(block_size_bytes=block),
        hedging=Hedging(hedge_seconds),
    )

"""The parts of a mount that all of its readers share."""

from dataclasses import dataclass, field

from ossfs_py.reading.hedging import Hedging
from ossfs_py.reading.planning import ReadOptions
from ossfs_py.reading.resident import Resident
from ossfs_py.reading.shared import HandingOn
from ossfs_py.runtime.buffers import BufferPool
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import FirstBytes, InlineReads, ObjectStore
from ossfs_py.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadContext:
    """Everything readers share. Plain wiring: each part has its own rules."""

    store: ObjectStore
    network: Workers
    files: Workers
    memory: BufferPool
    resident: Resident
    """The evictor of ``memory``."""
    metrics: Metrics
    options: ReadOptions = field(default_factory=ReadOptions)
    hedging: Hedging = field(default_factory=Hedging)
    shared: HandingOn | None = None
    """Blocks that several machines share, if the mount has a part in them."""
    first_bytes: FirstBytes = field(default_factory=FirstBytes)
    """How near the store is."""
    inline: InlineReads | None = None
    """Short requests that take no thread; :func:`~ossfs_py.reading.inline.receive` runs beside."""

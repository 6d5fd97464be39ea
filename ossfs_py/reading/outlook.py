"""How one version is read, and what follows for requests; see :class:`Outlook`."""

from collections.abc import Callable
from dataclasses import replace

from ossfs_py.foresight.belief import Belief
from ossfs_py.foresight.formats import is_model
from ossfs_py.foresight.layout import Index
from ossfs_py.model import ObjectVersion
from ossfs_py.reading.chunks import Chunk, ChunkIndex
from ossfs_py.reading.context import ReadContext
from ossfs_py.reading.planning import OnDisk, Planner
from ossfs_py.reading.streams import MIB, StreamTable
from ossfs_py.reading.tables import TableReading

_MODEL_WINDOW_BYTES = 64 * MIB
"""Read ahead at the second read of a model file: eight blocks in flight instead of one."""


class Outlook:
    """The streams, the table, and what is believed of one version, and the planner that asks them.

    Belongs to the trio thread. Where a file is read at once, nobody needs any of it: it is made at
    the first read that is not so.
    """

    __slots__ = ("belief", "planner", "streams", "table")

    def __init__(
        self,
        context: ReadContext,
        version: ObjectVersion,
        index: ChunkIndex,
        on_disk: OnDisk,
        on_index: Callable[[ObjectVersion, Index], None] | None,
    ) -> None:
        """``on_index`` is told where the file says that parts of other files lie."""
        options, resident = context.options, context.resident
        self.belief = Belief(
            version.size, options.block_size_bytes, resident.limit_bytes - resident.headroom_bytes
        )
        self.table = TableReading(
            version, context.files, self.belief, on_index, enabled=options.model_hints
        )
        limits = options.streams
        if options.model_hints and is_model(version.key):
            limits = replace(limits, first_window=_MODEL_WINDOW_BYTES)
        self.streams = StreamTable(limits)
        self.planner = Planner(version.size, options, index, self.streams, self.belief, on_disk)
        for chunk in index:
            if chunk.ready:
                self.landed(chunk, index)

    def landed(self, chunk: Chunk, index: ChunkIndex) -> None:
        """A chunk holds its bytes."""
        self.table.learn(index)
        self.streams.near = chunk.near

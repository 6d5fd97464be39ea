"""A file's table of contents, read as it passes; what is believed follows from it."""

import logging
from collections.abc import Callable
from functools import partial

import outcome

from ossfs_py.foresight.archive import TAIL_BYTES
from ossfs_py.foresight.belief import Belief
from ossfs_py.foresight.formats import opens_at_its_end, table_of
from ossfs_py.foresight.layout import Index, Layout
from ossfs_py.model import ByteRange, ObjectVersion
from ossfs_py.reading.chunks import ChunkIndex
from ossfs_py.runtime.workers import Workers

log = logging.getLogger(__name__)

_SHORT_BYTES = 512
"""A header's length, or one header of a tar archive: it is understood on the spot."""


class TableReading:
    """Gives the table of one version to ``belief``. Belongs to the trio thread.

    It takes what readers have fetched; only the directory at the end of a checkpoint is asked for,
    whose readers look there next.
    """

    def __init__(
        self,
        version: ObjectVersion,
        files: Workers,
        belief: Belief,
        on_index: Callable[[ObjectVersion, Index], None] | None,
        *,
        enabled: bool,
    ) -> None:
        """``on_index`` is told what the file says of others."""
        self._version = version
        self._on_index = on_index
        self._files = files
        self._belief = belief
        self._table = table_of(version.key, version.size) if enabled else None
        self._opening: list[ByteRange] = []
        if self._table is not None and opens_at_its_end(version.key):
            self._opening = [ByteRange(max(0, version.size - TAIL_BYTES), version.size)]
        self._wanted = self._table.wants if self._table is not None else None

    def opening(self) -> list[ByteRange]:
        """The ranges to fetch right after the first bytes. Once."""
        opening, self._opening = self._opening, []
        return opening

    def learn(self, index: ChunkIndex) -> None:
        """Go on with the table if what it wants is in memory."""
        if self._wanted is None or self._table is None:
            return
        data = _gathered(index, self._wanted)
        if data is not None:
            if self._wanted.size <= _SHORT_BYTES:
                # Before whoever waits for the same bytes goes on; it takes microseconds.
                self._learned(index, outcome.capture(self._table.take, data))
                return
            self._wanted = None
            # A table of many thousand parts takes milliseconds to understand.
            self._files.submit(
                partial(self._table.take, data), partial(self._learned, index), urgent=False
            )

    def _learned(self, index: ChunkIndex, result: outcome.Outcome[Layout | Index | None]) -> None:
        if isinstance(result, outcome.Error):
            log.debug("the table of %r is not used further: %s", self._version.key, result.error)
            self._table = None
            return
        found = result.unwrap()
        if isinstance(found, Layout):
            self._belief.know(found)
        elif found is not None and self._on_index is not None:
            self._on_index(self._version, found)
        if self._table is not None:
            self._wanted = self._table.wants
            if self._wanted is not None and self._wanted.start <= _SHORT_BYTES:
                self._belief.expect_table(self._wanted.end)
            self.learn(index)


def _gathered(index: ChunkIndex, span: ByteRange) -> bytes | None:
    """The bytes of ``span`` if all of them are in memory."""
    chunks = []
    position = span.start
    while position < span.end:
        chunk = index.at(position)
        if chunk is None or not chunk.ready:
            return None
        chunks.append(chunk)
        position = chunk.end
    return b"".join(
        chunk.view(max(chunk.start, span.start), min(chunk.end, span.end)) for chunk in chunks
    )

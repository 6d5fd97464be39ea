"""Reads that go straight on in a block that is in memory: most reads, and nothing is to decide."""

from typing import Final

import trio

from ossfs_py.reading.chunks import Chunk
from ossfs_py.reading.resident import Resident
from ossfs_py.reading.streams import Stream, StreamTable

_PLANNED_SHARE: Final = 8
"""What is read ahead is planned anew after one part in this many of the window. Requests ahead are
a quarter of it at the most."""


class Straight:
    """A reader that has just read a part of ``chunk`` up to ``at``, where nothing was believed of
    the file. Belongs to the trio thread.

    The stream, the counters and the chunk know of each read at once; what is believed of the file
    and what is planned, once for all of ``[begun, at)``.
    """

    __slots__ = ("_chunk", "_resident", "_stream", "_streams", "_until", "at", "begun")

    def __init__(
        self, streams: StreamTable, stream: Stream, resident: Resident, chunk: Chunk, at: int
    ) -> None:
        self._streams = streams.streams
        self._stream = stream
        self._resident = resident
        self._chunk = chunk
        self.begun = self.at = at
        # The chunk's last bytes are its end as well: what was read is given up.
        self._until = min(chunk.end - 1, at + stream.window // _PLANNED_SHARE)

    def read_on(self, end: int) -> memoryview | None:
        """``[at, end)``; None: nothing has happened, and it has to be asked for as usual."""
        chunk, stream, at = self._chunk, self._stream, self.at
        if (
            end > self._until
            or not chunk.ready
            or chunk.awaited
            or stream.position != at
            or self._streams[0] is not stream
            or not self._resident.gave_more(chunk, end - at)
        ):
            return None
        self.at = stream.position = end
        stream.hits += 1
        stream.last_used = trio.current_time()
        return chunk.view(at, end)

"""How a model file will be read, guessed from its name and its first bytes."""

import logging
from dataclasses import replace
from functools import partial

import outcome

from ossfs_py.model import ObjectVersion
from ossfs_py.transfer.chunks import ChunkIndex
from ossfs_py.transfer.models import (
    LENGTH_BYTES,
    ZIP_SUFFIXES,
    ZIP_TAIL_BYTES,
    TensorLayout,
    header_size,
    is_model,
    parse_layout,
)
from ossfs_py.transfer.streams import MIB, Stream, StreamLimits
from ossfs_py.transfer.workers import Workers

log = logging.getLogger(__name__)

_FIRST_WINDOW_BYTES = 32 * MIB
"""Read ahead at the second read of a model file: four blocks in flight instead of one."""

_KERNEL_OVERRUN_BYTES = 2 * MIB
"""How far the kernel's own readahead may run past the end of what a program reads."""


class ModelHints:
    """What is believed of one object version. Belongs to the trio thread.

    For files that are no models, or with ``enabled`` False, it believes nothing.
    """

    def __init__(
        self, version: ObjectVersion, limits: StreamLimits, files: Workers, *, enabled: bool
    ) -> None:
        key = version.key
        known = enabled and is_model(key)
        self.limits = replace(limits, first_window=_FIRST_WINDOW_BYTES) if known else limits
        self.tail_start: int | None = None
        """Where a zip archive's directory is expected: asked for right after the head."""
        if known and key.endswith(ZIP_SUFFIXES):
            self.tail_start = max(0, version.size - ZIP_TAIL_BYTES)
        self._version = version
        self._files = files
        self._wants_layout = known and key.endswith(".safetensors")
        self._layout: TensorLayout | None = None

    def known_end(self, stream: Stream) -> int | None:
        """Where the tensor a stream reads ends, as long as the stream stays inside it.

        Tensors may be read in any order, so one stream says nothing about the next tensor; a
        stream that crosses into it reads the file in order and is read ahead as any other.
        """
        layout = self._layout
        if layout is None or stream.crossed:
            return None
        if stream.home_end is None:
            span = layout.span_at(stream.position - 1)
            if span is None:
                return None
            stream.home_end = span.end
        if stream.position > stream.home_end + _KERNEL_OVERRUN_BYTES:
            stream.crossed = True
            return None
        return stream.home_end

    def learn(self, index: ChunkIndex) -> None:
        """Read the tensor table of a safetensors file once all of its header is in memory."""
        first = index.at(0) if self._wants_layout else None
        if first is None or not first.ready or first.size < LENGTH_BYTES:
            return
        size = header_size(first.view(0, LENGTH_BYTES), self._version.size)
        if size is None:
            self._wants_layout = False
            log.info("%r has no usable safetensors header", self._version.key)
            return
        pieces: list[bytes] = []
        position, end = LENGTH_BYTES, LENGTH_BYTES + size
        while position < end:
            chunk = index.at(position)
            if chunk is None or not chunk.ready:
                return
            upto = min(end, chunk.end)
            pieces.append(bytes(chunk.view(position, upto)))
            position = upto
        self._wants_layout = False
        # A header of many thousand tensors takes milliseconds to parse.
        self._files.submit(
            partial(parse_layout, b"".join(pieces), self._version.size),
            self._learned,
            urgent=False,
        )

    def _learned(self, result: outcome.Outcome[TensorLayout]) -> None:
        if isinstance(result, outcome.Error):
            log.info("the header of %r is not used: %s", self._version.key, result.error)
        else:
            self._layout = result.unwrap()

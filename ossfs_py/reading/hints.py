"""How a model file will be read, guessed from its name and its first bytes."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import outcome

from ossfs_py.model import ByteRange, ObjectVersion
from ossfs_py.reading.chunks import ChunkIndex
from ossfs_py.reading.models import (
    LENGTH_BYTES,
    ZIP_SUFFIXES,
    ZIP_TAIL_BYTES,
    TensorLayout,
    header_size,
    is_model,
    parse_archive,
    parse_layout,
)
from ossfs_py.reading.streams import MIB, Stream, StreamLimits
from ossfs_py.runtime.workers import Workers

log = logging.getLogger(__name__)

_FIRST_WINDOW_BYTES = 64 * MIB
"""Read ahead at the second read of a model file: four blocks in flight instead of one."""

_LARGE_TENSOR_BYTES = 8 * MIB
"""1 MiB more than such a tensor is little."""

_KERNEL_OVERRUN_BYTES = 8 * MIB
"""How far the kernel's own readahead may run past the end of what a program reads: two windows of
4 MiB, as one that begins before the end asks for the next."""

_HEAD_BYTES = 256 * 1024
"""Holds what a program reads that looks at the beginning of a record: Python reads st_blksize at
once, 128 KiB here, from any byte of a page."""

_AROUND_BYTES = MIB + 4096
"""The kernel reads around a page fault, from up to 1 MiB before the page on. (A program that calls
read begins where it wants to; its tensor's end comes a little later then.)"""

_BEGINNING_BYTES = MIB
"""A reader that began within these first bytes of a file reads it in order."""

_LOOK_BYTES = 8192
"""A record's header lies this far into the read at most that looks at it: reads begin on pages."""

_MOST_HEADS = 16
"""Beginnings of records fetched ahead: as many requests as fill a link."""

_MANY_LOOKS = 4
"""After so many, as many beginnings as ever are fetched ahead."""

_IN_ORDER = 2
"""Tensors begun in the order of the file, one after the other, that make a habit."""

_PROBE_HITS = 5
"""Reads after a look at a record's header until its content is read ahead: the kernel's own
readahead makes the first three of them."""


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
        self._opening: list[ByteRange] = []
        if known and key.endswith(ZIP_SUFFIXES):
            tail_start = max(0, version.size - ZIP_TAIL_BYTES)
            self._opening = [ByteRange(tail_start, tail_start + ZIP_TAIL_BYTES)]
        self._version = version
        self._files = files
        self._find_layout: Callable[[ChunkIndex], None] | None = None
        self._is_archive = bool(self._opening)
        if self._is_archive:
            self._find_layout = self._find_archive
        elif known and key.endswith(".safetensors"):
            self._find_layout = self._find_header
        self._layout: TensorLayout | None = None
        self._ordered = _IN_ORDER
        """Tensors begun in order so far; a reader is believed to begin with the first one."""
        self._begun = ByteRange(0, 0)
        """The tensor that was begun last."""
        self._reached = 0
        """Where the last read ended."""
        self._looked_at: int | None = None
        self._looks = 0
        self._expects_looks = False
        self.looked = False
        """Whether beginnings of tensors were looked at, one after the other."""

    def expect_looks(self) -> None:
        """The program that will read this file has just looked at each tensor of another one."""
        self._expects_looks = True

    def opening(self) -> list[ByteRange]:
        """What is wanted right after the first bytes: a zip archive's directory. Once."""
        opening, self._opening = self._opening, []
        return opening

    def known_end(self, stream: Stream) -> int | None:
        """Where the tensor a stream reads ends, as long as the stream stays inside it.

        Tensors may be read in any order, so one stream says nothing about the next tensor; a
        stream that crosses into it, began with the file, or continues tensors read in order is
        read ahead as any other.
        """
        reached, self._reached = self._reached, stream.position
        layout = self._layout
        if layout is None or stream.crossed:
            return None
        if stream.start < _BEGINNING_BYTES:
            stream.crossed = True
            return None
        if stream.home_end is None:
            if stream.opens_at == _PROBE_HITS and stream.hits == 1:
                return None  # a look at a record says nothing of the order
            span = layout.span_at(min(stream.start + _AROUND_BYTES, self._version.size - 1))
            if span is None:
                return None
            stream.home_end = span.end
            if span.size >= _LARGE_TENSOR_BYTES:
                # The kernel reads on to a multiple of 1 MiB, and would have to wait for the rest.
                stream.home_end = min(-(-span.end // MIB) * MIB, self._version.size)
            stream.crossed = self._continues(span, reached)
        if stream.position > stream.home_end + _KERNEL_OVERRUN_BYTES:
            stream.crossed = True
        elif max(stream.home_end, self._begun.start) < stream.position < self._begun.end:
            # Several threads copy the next tensor by now, and this stream is one of them.
            stream.crossed = True
        return None if stream.crossed else stream.home_end

    def _continues(self, tensor: ByteRange, reached: int) -> bool:
        """Whether a stream that begins in ``tensor`` continues a reading in the file's order.

        Several threads that copy a tensor begin at several places inside it. Small tensors may
        come out of the page cache, unseen.
        """
        front = self._begun.end
        before = max(front, reached)
        if tensor.start <= before + _KERNEL_OVERRUN_BYTES and tensor.end >= front:
            self._ordered += tensor.end > front
        else:
            self._ordered = 0
        self._begun = tensor
        return self._ordered >= _IN_ORDER

    def heads(self, stream: Stream) -> list[ByteRange]:
        """What should be fetched because beginnings of tensors will be looked at soon.

        ``torch.load`` with ``mmap`` looks at the header of each record of the archive, one after
        the other, before it reads any content, and ``load_file`` touches the first page of each
        tensor: each look would wait for a request.
        """
        layout = self._layout
        if layout is None:
            return []
        reach = _LOOK_BYTES if self._is_archive else _AROUND_BYTES + _LOOK_BYTES
        number = layout.begins_in(stream.start, stream.start + reach)
        if number is None:
            return []
        if self._looked_at is None:
            self._looks = _MANY_LOOKS if self._expects_looks else 0
        else:
            self._looks = self._looks + 1 if self._looked_at == number - 1 else 0
        self._looked_at = number
        if self._is_archive or self._looks:
            stream.opens_at = _PROBE_HITS
        if not self._looks:
            return []
        # Looks say nothing of the order in which the contents will be read.
        self._ordered, self._begun = _IN_ORDER, ByteRange(0, 0)
        self.looked = True
        count = min(1 << self._looks, _MOST_HEADS)
        return [self._head(start) for start in layout.starts[number + 1 : number + 1 + count]]

    def _head(self, start: int) -> ByteRange:
        """What the kernel reads of a tensor that begins at ``start`` when it is looked at."""
        if self._is_archive:
            return ByteRange(start, start + _HEAD_BYTES)
        return ByteRange((start - MIB // 2) // MIB * MIB, -(-(start + MIB // 2) // MIB) * MIB)

    def learn(self, index: ChunkIndex) -> None:
        """Read the table of tensors once all of it is in memory."""
        if self._find_layout is not None:
            self._find_layout(index)

    def _find_header(self, index: ChunkIndex) -> None:
        first = index.at(0)
        if first is None or not first.ready or first.size < LENGTH_BYTES:
            return
        size = header_size(first.view(0, LENGTH_BYTES), self._version.size)
        if size is None:
            self._find_layout = None
            log.info("%r has no usable safetensors header", self._version.key)
            return
        self._parse(parse_layout, _gathered(index, LENGTH_BYTES, LENGTH_BYTES + size))

    def _find_archive(self, index: ChunkIndex) -> None:
        start = max(0, self._version.size - ZIP_TAIL_BYTES)
        self._parse(parse_archive, _gathered(index, start, self._version.size))

    def _parse(self, parser: Callable[[bytes, int], TensorLayout], table: bytes | None) -> None:
        if table is None:
            return
        self._find_layout = None
        # A table of many thousand tensors takes milliseconds to parse.
        self._files.submit(partial(parser, table, self._version.size), self._learned, urgent=False)

    def _learned(self, result: outcome.Outcome[TensorLayout]) -> None:
        if isinstance(result, outcome.Error):
            log.info("the table of tensors of %r is not used: %s", self._version.key, result.error)
        else:
            self._layout = result.unwrap()


def _gathered(index: ChunkIndex, start: int, end: int) -> bytes | None:
    """``[start, end)`` if all of it is in memory."""
    pieces: list[bytes] = []
    while start < end:
        chunk = index.at(start)
        if chunk is None or not chunk.ready:
            return None
        upto = min(end, chunk.end)
        pieces.append(bytes(chunk.view(start, upto)))
        start = upto
    return b"".join(pieces)

"""What is known about model files: which they are, where their tensors lie, what comes next. Pure.

Nothing here is trusted: a header that lies costs readahead, never bytes.
"""

import io
import itertools
import json
import re
import struct
import zipfile
from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from ossfs_py.model import ByteRange

MODEL_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf")
"""Files that are read to their end, mostly in order: they are read ahead from the first byte."""

ZIP_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
"""torch.save writes zip archives: readers look at the directory at the end before the records."""

ZIP_TAIL_BYTES = 256 * 1024
"""Holds the end record and the central directory of an archive of some 3,000 records."""

LENGTH_BYTES = 8
"""A safetensors file begins with its header's length, little-endian."""

MAX_HEADER_BYTES = 16 * 1024**2
"""Longer headers are read like any other bytes. The format allows 100 MB; the largest published
models stay below 1 MB for each shard."""

_SHARD = re.compile(r"^(?P<stem>.+-)(?P<number>\d{5})(?P<of>-of-)(?P<count>\d{5})(?P<rest>\.\w+)$")


def is_model(key: str) -> bool:
    """Whether the key names a model file."""
    return key.endswith(MODEL_SUFFIXES)


def next_shard(name: str) -> str | None:
    """The file that a loader opens after ``model-00001-of-00004.safetensors``; None if no more."""
    match = _SHARD.match(name)
    if match is None or not name.endswith(MODEL_SUFFIXES):
        return None
    number = int(match["number"]) + 1
    if number > int(match["count"]):
        return None
    return f"{match['stem']}{number:05d}{match['of']}{match['count']}{match['rest']}"


@dataclass(frozen=True, slots=True)
class TensorLayout:
    """Where the tensors of a file begin and end, in order and without overlap."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def span_at(self, offset: int) -> ByteRange | None:
        """The tensor that holds the byte at ``offset``."""
        i = bisect_right(self.starts, offset) - 1
        if i < 0 or offset >= self.ends[i]:
            return None
        return ByteRange(self.starts[i], self.ends[i])

    def begins_in(self, start: int, end: int) -> int | None:
        """The number of the first tensor that begins in ``[start, end)``."""
        i = bisect_left(self.starts, start)
        return i if i < len(self.starts) and self.starts[i] < end else None


def header_size(first_bytes: bytes | memoryview, file_size: int) -> int | None:
    """Length of a safetensors header from the file's first 8 bytes; None if it cannot be one."""
    size = int.from_bytes(bytes(first_bytes[:LENGTH_BYTES]), "little")
    if not 2 <= size <= min(MAX_HEADER_BYTES, file_size - LENGTH_BYTES):
        return None
    return size


def parse_layout(header: bytes, file_size: int) -> TensorLayout:
    """The layout that a safetensors header (without its length) describes.

    Raises:
        ValueError: it is no such header, or its tensors overlap or lie outside the file.
    """
    try:
        described = json.loads(header)
    except RecursionError:
        raise ValueError("the header is nested too deeply") from None
    if not isinstance(described, dict):
        raise ValueError("the header is no JSON object")  # noqa: TRY004 - one error for bad bytes
    base = LENGTH_BYTES + len(header)
    spans: list[tuple[int, int]] = []
    for name, tensor in described.items():
        if name == "__metadata__":
            continue
        offsets = tensor.get("data_offsets") if isinstance(tensor, dict) else None
        if (
            not isinstance(offsets, list)
            or len(offsets) != 2
            or not all(type(offset) is int for offset in offsets)
            or not 0 <= offsets[0] <= offsets[1] <= file_size - base
        ):
            raise ValueError("a tensor has no valid place in the file")
        if offsets[0] < offsets[1]:
            spans.append((base + offsets[0], base + offsets[1]))
    spans.sort()
    for (_, end), (start, _) in itertools.pairwise(spans):
        if start < end:
            raise ValueError("tensors overlap")
    return TensorLayout(tuple(start for start, _ in spans), tuple(end for _, end in spans))


class _Tail(io.RawIOBase):
    """A file of which only the end is at hand."""

    def __init__(self, tail: bytes, file_size: int) -> None:
        super().__init__()
        self._tail = tail
        self._before = file_size - len(tail)
        self._position = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {
            io.SEEK_SET: 0,
            io.SEEK_CUR: self._position,
            io.SEEK_END: self._before + len(self._tail),
        }[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        start = self._position - self._before
        if start < 0:
            raise ValueError("the archive's directory is longer than what is at hand")
        data = self._tail[start:] if size is None or size < 0 else self._tail[start : start + size]
        self._position += len(data)
        return data


def parse_archive(tail: bytes, file_size: int) -> TensorLayout:
    """The layout of a zip archive from the last bytes of its file; each record's header counts
    as its beginning.

    Raises:
        ValueError: it is no zip archive, or its directory does not fit into ``tail``.
    """
    try:
        with zipfile.ZipFile(_Tail(tail, file_size)) as archive:
            starts = sorted({info.header_offset for info in archive.infolist()})
            end = archive.start_dir
    except (
        zipfile.BadZipFile,
        EOFError,
        IndexError,
        NotImplementedError,
        OSError,
        OverflowError,
        struct.error,
        UnicodeDecodeError,
    ) as exc:
        raise ValueError(f"it is no archive: {exc}") from None
    if not starts or starts[0] < 0 or not starts[-1] < end <= file_size:
        raise ValueError("records lie outside the archive")
    return TensorLayout(tuple(starts), (*starts[1:], end))

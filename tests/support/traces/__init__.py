"""Reads that the kernel asked a mount for while real loaders read a file, in their order.

Recorded with ``--access-log`` on Linux 6.18, readahead 1 MiB, two cores; safetensors 0.8.0, torch
2.13.0, numpy 2.4.6, gguf 0.19.0, and the libraries as pinned in the extra ``loaders``, by
``python -m tests.support.traces``. Each JSON file holds the file's size, its parts (``starts`` and
``ends``, or ``tensors``: first start, bytes of each, count) and ``reads``: first page and number
of pages of 4 KiB.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from ossfs_py.foresight.layout import Layout

_PAGE_BYTES = 4096


@dataclass(frozen=True)
class Trace:
    """One loader's reads of one file, in bytes."""

    file_size: int
    layout: Layout
    reads: tuple[tuple[int, int], ...]
    """``(start, end)`` of each."""

    @property
    def read_bytes(self) -> int:
        """What the kernel asked for, in all."""
        return sum(end - start for start, end in self.reads)


def trace(name: str) -> Trace:
    """The recorded reads of one loader."""
    kept = json.loads(Path(__file__).with_name(f"{name}.json").read_text())
    size = kept["file_size"]
    if "tensors" in kept:
        first, each, count = kept["tensors"]
        starts = [first + number * each for number in range(count)]
        layout = Layout(tuple(starts), tuple(start + each for start in starts))
    else:
        layout = Layout(tuple(kept["starts"]), tuple(kept["ends"]))
    reads = tuple(
        (page * _PAGE_BYTES, min((page + count) * _PAGE_BYTES, size))
        for page, count in kept["reads"]
    )
    return Trace(size, layout, reads)

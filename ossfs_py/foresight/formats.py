"""Which files are looked into, and by what; which are read whole; what comes after a file."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from ossfs_py.foresight.archive import ArchiveTable
from ossfs_py.foresight.gguf import GgufTable
from ossfs_py.foresight.layout import Table
from ossfs_py.foresight.onnx import OnnxTable
from ossfs_py.foresight.parquet import ParquetTable
from ossfs_py.foresight.safetensors import SafetensorsTable
from ossfs_py.foresight.tar import TarTable

MODEL_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".npz")
"""Files that are read to their end, mostly in order: they are read ahead from the first byte."""

_TORCH_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
"""torch.save writes zip archives: readers look at the directory at the end before the records."""

_TABLES: Mapping[str, Callable[[int], Table]] = MappingProxyType(
    {
        ".safetensors": SafetensorsTable,
        **dict.fromkeys((*_TORCH_SUFFIXES, ".npz"), ArchiveTable),
        ".gguf": GgufTable,
        ".parquet": ParquetTable,
        ".onnx": OnnxTable,
        **dict.fromkeys((".tar", ".nemo"), TarTable),
    }
)

_WITH_TABLE = tuple(_TABLES)

_SHARD = re.compile(r"^(?P<stem>.+-)(?P<number>\d{5})(?P<of>-of-)(?P<count>\d{5})(?P<rest>\.\w+)$")


def is_model(key: str) -> bool:
    """Whether the key names a model file."""
    return key.endswith(MODEL_SUFFIXES)


def opens_at_its_end(key: str) -> bool:
    """Whether a reader of the first bytes looks at the table at the end next."""
    return key.endswith(_TORCH_SUFFIXES)


def has_table(key: str) -> bool:
    """Whether the key names a file with a table of contents that is understood here."""
    return key.endswith(_WITH_TABLE)


def table_of(key: str, size: int) -> Table | None:
    """The parser for the file's table of contents; None if there is none."""
    _, dot, suffix = key.rpartition(".")
    make = _TABLES.get(dot + suffix)
    return None if make is None or size == 0 else make(size)


def next_shard(name: str) -> str | None:
    """The file that a loader opens after ``model-00001-of-00004.safetensors``; None if no more."""
    match = _SHARD.match(name)
    if match is None or not name.endswith(MODEL_SUFFIXES):
        return None
    number = int(match["number"]) + 1
    if number > int(match["count"]):
        return None
    return f"{match['stem']}{number:05d}{match['of']}{match['count']}{match['rest']}"

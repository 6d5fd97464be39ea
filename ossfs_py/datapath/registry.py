"""The literal table of data paths."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ossfs_py.datapath.base import DataPath
from ossfs_py.datapath.cache import CacheDataPath
from ossfs_py.datapath.direct import DirectDataPath
from ossfs_py.datapath.diskcache.store import BlockStore
from ossfs_py.datapath.objectfile import CommittedHook
from ossfs_py.datapath.sharing import sharing_written
from ossfs_py.datapath.temp import TempDataPath
from ossfs_py.reading.context import ReadContext
from ossfs_py.runtime.descriptors import Descriptors
from ossfs_py.writing.context import WriteContext


@dataclass(frozen=True, slots=True)
class DataPathContext:
    """The parts that a data path may be built from."""

    reads: ReadContext
    writes: WriteContext
    temp_dir: Path
    open_blocks: Callable[[], BlockStore]
    """Opens the persistent disk cache; called by the data path that has one."""
    cache_writes: bool = True
    """Whether written files enter the disk cache and the shared one."""
    lends: bool = False
    """Whether the kernel may read verified files of the disk cache itself."""
    descriptors: Descriptors = field(default_factory=Descriptors)

    @property
    def on_committed(self) -> CommittedHook | None:
        """Shares written files with other machines."""
        return sharing_written(self.reads.shared) if self.cache_writes else None


FACTORIES: dict[str, Callable[[DataPathContext], DataPath]] = {
    "temp": lambda context: TempDataPath(
        context.reads, context.writes, context.temp_dir, context.descriptors, context.on_committed
    ),
    "cache": lambda context: CacheDataPath(
        context.reads,
        context.writes,
        context.open_blocks(),
        keep_writes=context.cache_writes,
        on_committed=context.on_committed,
        lends=context.lends,
    ),
    "direct": lambda context: DirectDataPath(context.reads, context.writes, context.on_committed),
}
"""Every data path by the name that ``--data-path`` takes."""


def create(name: str, context: DataPathContext) -> DataPath:
    """The data path called ``name``."""
    return FACTORIES[name](context)

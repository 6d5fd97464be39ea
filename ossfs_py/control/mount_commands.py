"""The commands that a running mount answers through its control socket.

A command is a function of its arguments and a way to send progress. The parts of the mount that it
needs are bound here.
"""

import logging
import math
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio
from prometheus_client.metrics_core import Metric

from ossfs_py.control.cache_commands import CacheCommands
from ossfs_py.control.copy_commands import CopyCommands, CopyPlace
from ossfs_py.control.server import Arguments, Command, ControlError, Progress
from ossfs_py.control.shared_commands import SharedCommands
from ossfs_py.control.trash_commands import TrashCommands
from ossfs_py.control.version_commands import VersionCommands
from ossfs_py.control.warming import WarmUps
from ossfs_py.datapath.base import DataPath
from ossfs_py.datapath.cache import CacheDataPath
from ossfs_py.datapath.sharedfilling import SharedFiller
from ossfs_py.errors import (
    NoSuchEntryError,
    NotADirectoryPathError,
    StoreError,
    UnsavedDataError,
)
from ossfs_py.filesystem.operations import Filesystem
from ossfs_py.filesystem.writers import WRITER, WRITTEN
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import ObjectStore
from ossfs_py.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_SYNC_REPORT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class MountFacts:
    """The description that a mount gives of itself. ``concurrency`` is its number of parallel
    requests."""

    source: str
    bucket: str
    prefix: str
    reserved: str
    """The prefix of the mount's own keys."""
    trash: str
    """Below which keys copies of what is deleted or overwritten are, if any are kept."""
    is_past: bool
    """It shows the bucket as it was."""
    data_path: str
    concurrency: int


@dataclass(frozen=True, slots=True)
class MountParts:
    """The parts of a mount that commands may need."""

    facts: MountFacts
    metrics: Metrics
    filesystem: Filesystem
    data_path: DataPath
    files: Workers
    """Threads for local files."""
    store: ObjectStore
    network: Workers
    """Threads for calls to the store."""
    jobs: trio.Nursery
    """For work that outlives its request; cancelled before the mount ends."""
    shared: SharedFiller | None
    """Fills the memory of the machines that share blocks, if there are any."""


def control_commands(parts: MountParts) -> dict[str, Command]:
    """Every command by its name."""
    cache = parts.data_path if isinstance(parts.data_path, CacheDataPath) else None
    warm_ups = WarmUps(parts.filesystem, parts.jobs, parts.facts.concurrency)
    cached = CacheCommands(warm_ups, cache, parts.files)
    shared = SharedCommands(warm_ups, parts.shared)
    versioned = VersionCommands(
        parts.filesystem,
        parts.store,
        parts.network,
        prefix=parts.facts.prefix,
        reserved=parts.facts.reserved,
    )
    copies = CopyCommands(
        parts.filesystem,
        parts.store,
        parts.network,
        CopyPlace(
            parts.store.place,
            parts.facts.bucket,
            parts.facts.prefix,
            parts.facts.reserved,
            is_past=parts.facts.is_past,
        ),
    )
    trash = TrashCommands(
        parts.filesystem,
        parts.store,
        parts.network,
        prefix=parts.facts.prefix,
        trash=parts.facts.trash,
    )
    return {
        "stats": partial(_stats, parts.facts, parts.metrics),
        "info": partial(_info, parts, cache),
        "sync": partial(_sync, parts.filesystem),
        "refresh": partial(_refresh, parts.filesystem),
        **cached.table(),
        **shared.table(),
        **versioned.table(),
        **copies.table(),
        **trash.table(),
    }


async def _refresh(
    filesystem: Filesystem, arguments: Arguments, _progress: Progress
) -> Mapping[str, Any]:
    path = arguments.text("path")
    try:
        refreshed = await filesystem.refresh(path)
    except (NoSuchEntryError, NotADirectoryPathError) as exc:
        raise ControlError(f"{path!r} does not exist in this mount") from exc
    return {"forgotten_entries": refreshed.forgotten_entries, "gone": refreshed.is_gone}


async def _sync(
    filesystem: Filesystem, _arguments: Arguments, progress: Progress
) -> Mapping[str, Any]:
    async def report() -> None:
        while True:
            await progress({"pending_files": filesystem.pending_uploads})
            await trio.sleep(_SYNC_REPORT_SECONDS)

    unsaved: UnsavedDataError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(report)
        try:
            await filesystem.sync()
        except UnsavedDataError as exc:
            unsaved = exc  # raised in here, it would come out in an exception group
        finally:
            nursery.cancel_scope.cancel()
    if unsaved is not None:
        raise unsaved
    return {}


async def _info(
    parts: MountParts, cache: CacheDataPath | None, arguments: Arguments, _progress: Progress
) -> Mapping[str, Any]:
    path = arguments.text("path")
    try:
        found = await parts.filesystem.describe(path)
    except (NoSuchEntryError, NotADirectoryPathError) as exc:
        raise ControlError(f"{path!r} does not exist in this mount") from exc
    info, attributes = found.info, found.attributes
    owner = None
    if info is not None and found.metadata is not None:
        try:
            owner = await parts.network.run(parts.store.owner, info.key)
        except StoreError as exc:
            log.info("the owner of %r stays unknown: %s", path, exc)
    version = info.version if info is not None else None
    cached_bytes = None
    if cache is not None and version is not None and found.is_file:
        cached_bytes = await parts.files.run(cache.blocks.share, version)
    return {
        "kind": found.kind,
        "bucket": parts.facts.bucket,
        "key": found.key,
        "etag": version.etag if version is not None else None,
        "bytes": attributes.size,
        "modified": attributes.mtime_ns / 1e9,
        "mode": f"{stat.S_IMODE(attributes.mode):04o}",
        "version_id": info.version_id if info is not None else None,
        "content_type": info.content_type if info is not None else None,
        "storage_class": info.storage_class if info is not None else None,
        "owner": owner,
        "retention": info.retention if info is not None else None,
        "writer": (found.metadata or {}).get(WRITER),
        "written": (found.metadata or {}).get(WRITTEN),
        "metadata": None if found.metadata is None else dict(found.metadata),
        "data_path": parts.facts.data_path,
        "cached_bytes": cached_bytes,
        "open": found.is_open,
        "open_handles": found.open_handles,
        "unsaved": found.unsaved,
    }


async def _stats(
    facts: MountFacts, metrics: Metrics, _arguments: Arguments, _progress: Progress
) -> Mapping[str, Any]:
    return {
        "source": facts.source,
        "data_path": facts.data_path,
        "waiting": metrics.waits.told(),
        "metrics": {family.name: _samples(family) for family in metrics.registry.collect()},
    }


def _samples(family: Metric) -> dict[str, Any]:
    return {
        "type": family.type,
        "help": family.documentation,
        "samples": [
            {
                "name": sample.name,
                "labels": sample.labels,
                # Infinite bucket bounds are labels; infinite values do not occur.
                "value": sample.value,
            }
            for sample in family.samples
            # JSON knows no NaN, which a gauge of something unknown has.
            if not (sample.name.endswith("_created") or math.isnan(sample.value))
        ],
    }

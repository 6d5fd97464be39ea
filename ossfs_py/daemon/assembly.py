"""Builds the objects of one mount and takes them down again, innermost first."""

import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

import trio

from ossfs_py.config import Settings
from ossfs_py.control.mount_commands import MountParts, control_commands
from ossfs_py.control.server import Command
from ossfs_py.daemon.options import (
    DiskCacheOptions,
    disk_cache_options,
    filesystem_options,
    metadata_file,
    mount_facts,
    namespace_options,
    passes_through,
    passthrough_lacks,
    read_options,
    state_directory,
    write_limits,
)
from ossfs_py.daemon.sharing import Sharing, sharing
from ossfs_py.daemon.smallputs import serve_puts
from ossfs_py.datapath.base import DataPath
from ossfs_py.datapath.diskcache.store import BlockStore
from ossfs_py.datapath.registry import DataPathContext, create
from ossfs_py.datapath.sharedfilling import SharedFiller
from ossfs_py.errors import OssfsError
from ossfs_py.filesystem.kernelcache import KernelCache
from ossfs_py.filesystem.openinode import OpenInode
from ossfs_py.filesystem.operations import Filesystem
from ossfs_py.filesystem.siblings import OpenWatcher, ShardLookup, SiblingPrefetch
from ossfs_py.filesystem.survival import Survival
from ossfs_py.filesystem.surviving import SurvivingFilesystem
from ossfs_py.filesystem.writeback import WriteBackQueue
from ossfs_py.namespace.keys import RESERVED_PREFIX
from ossfs_py.namespace.namespace import Namespace
from ossfs_py.namespace.remembered import MetadataFile, MetadataKeeper
from ossfs_py.reading.context import ReadContext
from ossfs_py.reading.inline import receive
from ossfs_py.reading.resident import Resident
from ossfs_py.runtime.buffers import BufferPool
from ossfs_py.runtime.descriptors import Descriptors
from ossfs_py.runtime.diskroom import DiskRoom
from ossfs_py.runtime.workers import Workers
from ossfs_py.store.base import ObjectStore
from ossfs_py.telemetry.metrics import Metrics
from ossfs_py.writing.context import WriteContext
from ossfs_py.writing.groupsync import GroupSync
from ossfs_py.writing.journal import Journal
from ossfs_py.writing.leftovers import count_unsaved
from ossfs_py.writing.markers import MarkerRecord
from ossfs_py.writing.recovery import Recovery, tidy_leftovers

log = logging.getLogger(__name__)

_RESTART_SECONDS = 5.0
_TIDY_SECONDS = 5.0
"""How long a mount that ends lets background requests run; the journal has the rest."""
_FILE_THREADS = 4
"""Local reads and writes at once: enough to keep one disk's queue filled."""


@asynccontextmanager
async def assembled(
    settings: Settings,
    mountpoint: Path,
    store: ObjectStore,
    metrics: Metrics,
    runtime_dir: Path,
    survival: Survival | None = None,
) -> AsyncIterator[tuple[Filesystem, dict[str, Command]]]:
    """A file system over ``store``, and what can be asked of it through the control socket.

    Nothing of it is left at the end but what is unsaved. With ``survival`` it goes on where an
    earlier daemon ended, and is written for the next one.

    Raises:
        SurvivalError: what the earlier daemon has left makes no sense.
    """
    network = Workers("network", settings.concurrency)
    files = Workers("file", _FILE_THREADS)
    try:
        with (
            _journal(settings, mountpoint, runtime_dir) as journal,
            sharing(settings, store, metrics) as shared,
        ):
            resident = Resident(settings.memory_limit_bytes, files, metrics)
            pool = BufferPool(
                settings.memory_limit_bytes, settings.block_size_bytes, metrics, resident
            )
            reads = ReadContext(
                store=store,
                network=network,
                files=files,
                memory=pool,
                resident=resident,
                metrics=metrics,
                options=read_options(settings),
                shared=shared.handing_on,
                inline=store.inline_reads,
                first_bytes=store.first_bytes,
            )
            writes = WriteContext(
                store=store,
                network=network,
                local=files,
                memory=pool,
                journal=journal,
                group_sync=GroupSync(journal, files),
                spill_key=lambda: f"{settings.prefix}{RESERVED_PREFIX}spill-{uuid.uuid4().hex}",
                limits=write_limits(settings),
                room=DiskRoom(settings.min_free_bytes, shared=settings.allow_other),
                puts=store.inline_writes,
            )
            descriptors = Descriptors(shared=settings.allow_other)
            data_path = create(
                settings.data_path,
                DataPathContext(
                    reads,
                    writes,
                    settings.temp_dir,
                    partial(_open_blocks, disk_cache_options(settings, store.place), metrics),
                    cache_writes=settings.cache_writes,
                    lends=passes_through(settings),
                    descriptors=descriptors,
                ),
            )
            kernel = KernelCache()
            namespace = Namespace(
                store,
                network,
                namespace_options(settings),
                metrics,
                news=kernel.news,
                rename_log=journal,
                puts=store.inline_writes,
            )
            make = Filesystem if survival is None else SurvivingFilesystem
            filesystem = make(
                namespace,
                data_path,
                store,
                network,
                journal,
                kernel,
                filesystem_options(settings),
                write_back=_write_back(settings, metrics, writes, store),
                group_sync=_behind(settings, writes.group_sync),
                foresight=_foresight(settings, namespace, kernel, data_path, metrics),
                descriptors=descriptors,
            )
            if isinstance(filesystem, SurvivingFilesystem):
                filesystem.streams = writes.streams
            _watch(metrics, settings, mountpoint, filesystem, network, journal)
            settle = await _begin(settings, files, journal, store, filesystem, survival)
            keeper = _metadata_keeper(settings, store, namespace, files)
            async with trio.open_nursery() as nursery:
                gets = partial(receive, store.inline_reads)
                for work in (data_path.run, gets, partial(serve_puts, store.inline_writes)):
                    nursery.start_soon(_kept_running, work)
                await shared.begin(lambda work: nursery.start_soon(_kept_running, work))
                if keeper is not None:
                    nursery.start_soon(_kept_running, keeper.run)
                nursery.start_soon(_kept_running, filesystem.run)
                nursery.start_soon(_kept_running, writes.group_sync.run)
                if not settings.read_only:
                    nursery.start_soon(
                        _finish_in_background, files, journal, store, filesystem, settle
                    )
                try:
                    async with trio.open_nursery() as jobs:
                        parts = MountParts(
                            facts=mount_facts(settings),
                            metrics=metrics,
                            filesystem=filesystem,
                            data_path=data_path,
                            files=files,
                            store=store,
                            network=network,
                            jobs=jobs,
                            shared=_shared_filler(shared, network, pool),
                        )
                        yield filesystem, control_commands(parts)
                        jobs.cancel_scope.cancel()
                finally:
                    with trio.CancelScope(shield=True):
                        if keeper is not None:
                            await keeper.save()
                        await filesystem.close()
                        await data_path.aclose()
                        await _tidied(writes, shared)
                        if not shared.busy:  # what it hands on too slowly keeps its memory
                            _tell_leaks(pool, (network, files), filesystem)
                nursery.cancel_scope.cancel()
    finally:
        network.close()
        files.close()


def _shared_filler(shared: Sharing, network: Workers, pool: BufferPool) -> SharedFiller | None:
    return None if shared.stock is None else SharedFiller(shared.stock, network, pool)


def _write_back(
    settings: Settings, metrics: Metrics, writes: WriteContext, store: ObjectStore
) -> WriteBackQueue[OpenInode] | None:
    if not settings.write_back:
        return None

    def expect_files() -> None:
        # An fsync would wait for it: that of the index of a pack took 270 ms longer.
        writes.tidying.begin()
        try:
            writes.network.submit(
                store.expect_new_objects, lambda _result: writes.tidying.end(), urgent=False
            )
        except RuntimeError:  # the mount ends
            writes.tidying.end()

    return WriteBackQueue(metrics, is_short=lambda: writes.small.is_short, on_first=expect_files)


def _behind(settings: Settings, group_sync: GroupSync) -> GroupSync | None:
    """Parts for removals in the background: of write-back, or with copies for the trash."""
    return group_sync if settings.write_back or settings.trash is not None else None


def _foresight(
    settings: Settings,
    namespace: Namespace,
    kernel: KernelCache,
    data_path: DataPath,
    metrics: Metrics,
) -> list[OpenWatcher]:
    """The part that fetches files before they are opened."""
    watchers: list[OpenWatcher] = []
    if settings.small_file_prefetch:
        limit_bytes = settings.memory_limit_bytes
        watchers.append(SiblingPrefetch(namespace, kernel, data_path, metrics, limit_bytes))
    if settings.model_hints:
        watchers.append(ShardLookup(namespace))
    return watchers


def _tell_leaks(pool: BufferPool, workers: tuple[Workers, ...], filesystem: Filesystem) -> None:
    """At the end nothing may be left; what calls that still run hold is theirs for a moment."""
    if pool.used_bytes and not any(each.running for each in workers):
        log.error("%d bytes of the memory budget were not given back", pool.used_bytes)
    if filesystem.open_files:
        log.error("%d open files were not given back", filesystem.open_files)


async def _tidied(writes: WriteContext, shared: Sharing) -> None:
    """Give what nobody waits for a moment; what of it stays in the bucket is told."""
    with trio.move_on_after(_TIDY_SECONDS):
        await writes.tidying.settled()
        await shared.settled()
    await writes.local.run(_tell_left, writes.journal)


def _tell_left(journal: Journal) -> None:
    left = journal.leftover_scratch() + [record.key for record in journal.leftover_removals()]
    if left:
        log.warning("%d objects are left to the next mount to delete: %s", len(left), left)


def _watch(
    metrics: Metrics,
    settings: Settings,
    mountpoint: Path,
    filesystem: Filesystem,
    network: Workers,
    journal: Journal,
) -> None:
    """Let the metrics that are states rather than events be read when somebody asks."""
    if (lacks := passthrough_lacks(settings)) is not None:
        log.info("the kernel does not read cached files itself: %s", lacks)
    metrics.mount.info(
        {
            "source": settings.source,
            "mountpoint": str(mountpoint),
            "data_path": settings.data_path,
            "version": version("ossfs-py"),
        }
    )
    metrics.open_files.set_function(lambda: filesystem.open_files)
    metrics.kept_files.set_function(lambda: count_unsaved(journal.directory, ended=False))
    metrics.unsaved_files.set_function(lambda: filesystem.unsaved_files)
    metrics.store_jobs.labels("running").set_function(lambda: network.running)
    metrics.store_jobs.labels("waiting").set_function(lambda: network.waiting)


async def _kept_running(work: Callable[[], Awaitable[None]]) -> None:
    """Background work whose failure must not end the mount: it is logged and begun again."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("background work failed; it starts again in %g s", _RESTART_SECONDS)
        await trio.sleep(_RESTART_SECONDS)


@contextmanager
def _journal(settings: Settings, mountpoint: Path, runtime_dir: Path) -> Iterator[Journal]:
    if settings.read_only:
        # Nothing will be written, and the machine may have no state directory to write to.
        yield from _closing(Journal(runtime_dir / "journal"))
    else:
        yield from _closing(Journal(state_directory(settings, mountpoint)))


def _closing(journal: Journal) -> Iterator[Journal]:
    try:
        yield journal
    finally:
        journal.close()


def _open_blocks(options: DiskCacheOptions, metrics: Metrics) -> BlockStore:
    return BlockStore(
        options.directory,
        options.place,
        options.bucket,
        limit_bytes=options.limit_bytes,
        min_free_bytes=options.min_free_bytes,
        metrics=metrics,
        block_size_bytes=options.block_size_bytes,
    )


def _metadata_keeper(
    settings: Settings, store: ObjectStore, namespace: Namespace, files: Workers
) -> MetadataKeeper | None:
    """Keeps what HEAD told, where it is worth that."""
    path = metadata_file(settings, store.place)
    if path is None:
        return None
    file = MetadataFile(path, namespace_options(settings).max_entries)
    return MetadataKeeper(namespace.metadata_memory, file, files)


async def _begin(
    settings: Settings,
    files: Workers,
    journal: Journal,
    store: ObjectStore,
    filesystem: Filesystem,
    survival: Survival | None,
) -> Callable[[], Awaitable[None]]:
    """Take over what a daemon that died has left: files that programs have open go on, other dirty
    files are kept for ``ossfs-py recover``. What is to be done about the rest before anything is
    changed is returned, as the store may be away.
    """
    if survival is None or not isinstance(filesystem, SurvivingFilesystem):
        if not settings.read_only:
            await files.run(_claim, journal)
            await files.run(tidy_leftovers, journal, store)
            filesystem.take_over()
        return trio.lowlevel.checkpoint
    records, left = survival.writers, survival.left
    known = survival.known_before()
    owned = await files.run(journal.owned_records, records.dirty_owners(left))
    dirty = {each: told for each, told in owned.items() if records.goes_on(left, told, known)}
    owed: list[MarkerRecord] = []
    is_all = True
    if not settings.read_only:
        kept = {record.ident for record in dirty.values()}
        await files.run(_claim, journal, kept, partial(records.drops, left))
        if survival.negotiated is not None:
            owed = journal.leftover_markers()
            is_all = not any(record.complete for record in journal.unsaved_records())
    resumed = filesystem.resume(survival, dirty, owed, is_all=is_all)
    if not settings.read_only:
        survival.lock = journal.lock_for_keeper()

    async def tidy() -> None:
        await files.run(tidy_leftovers, journal, store, filesystem.read_keys())
        filesystem.take_over()

    if survival.negotiated is None:
        if not settings.read_only:
            await tidy()
        return trio.lowlevel.checkpoint
    log.warning(
        "the daemon before has ended; its mount goes on with %d names, %d open files and"
        " %d open directories",
        *resumed,
    )
    renaming = bool(await files.run(journal.leftover_renames))
    return partial(filesystem.settle, tidy, renaming=renaming)


def _claim(
    journal: Journal,
    kept: Container[str] = (),
    dropped: Callable[[str], bool] = lambda _owner: False,
) -> None:
    for ident in journal.claim_leftovers(kept, dropped):
        log.warning(
            "a file that a killed daemon had not saved yet is kept as %s (see: ossfs-py recover)",
            journal.unsaved_path(ident),
        )


async def _finish_in_background(
    files: Workers,
    journal: Journal,
    store: ObjectStore,
    filesystem: Filesystem,
    settle: Callable[[], Awaitable[None]],
) -> None:
    """Finish what programs had closed, after the deletion of what had the same names before."""
    recovery = Recovery(journal, trash=filesystem.trash.prefix)
    await settle()
    try:
        await filesystem.removals_tried()
        await files.run(partial(_finish_complete, recovery, store), urgent=False)
    except Exception:
        log.exception("files of a killed daemon could not be finished (see: ossfs-py recover)")
    if isinstance(filesystem, SurvivingFilesystem):
        filesystem.show_names()


def _finish_complete(recovery: Recovery, store: ObjectStore) -> None:
    """Upload files that write-back owes: their programs had closed them, so they are whole.

    What a program was still writing when its daemon died is left to ``ossfs-py recover``: under
    its own name it would be taken for whole.
    """
    for record in recovery.list():
        if not record.complete:
            continue
        try:
            recovery.upload(record.ident, store)
        except (OssfsError, OSError) as exc:
            log.error("%r stays unsaved: %s (see: ossfs-py recover)", record.key, exc)  # noqa: TRY400
        else:
            log.info("%r, closed before its daemon died, is uploaded", record.key)

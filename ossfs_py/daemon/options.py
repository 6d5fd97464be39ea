"""Settings of a mount, as the options of each layer: the only place that turns one into the other.

Which parts a mount has is decided where they are built (``assembly``); how they are set, here.
"""

import hashlib
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ossfs_py.config import Settings
from ossfs_py.config.units import MIB
from ossfs_py.control.mount_commands import MountFacts
from ossfs_py.filesystem.commits import ConflictPolicy
from ossfs_py.filesystem.options import FilesystemOptions
from ossfs_py.fuse.options import FuseOptions
from ossfs_py.host.directories import LocalDirectories, OwnDirectory
from ossfs_py.host.kernelside import given_descriptor
from ossfs_py.host.mountpoint import THIS_MACHINE
from ossfs_py.host.passthrough import why_not
from ossfs_py.namespace.keys import RESERVED_PREFIX
from ossfs_py.namespace.policy import NamespaceOptions
from ossfs_py.reading.planning import ReadOptions
from ossfs_py.sharedcache.blocks import BLOCK_BYTES
from ossfs_py.store.options import StoreOptions
from ossfs_py.telemetry.logs import LogOptions
from ossfs_py.writing.context import WriteLimits

if TYPE_CHECKING:
    from ossfs_py.sharedcache.cache import SharedCacheOptions

_PART_SHARE = 8
"""One part in this many of the memory budget is the most that one upload part may take, so that
several files can be written while others are read."""


@dataclass(frozen=True, slots=True)
class DiskCacheOptions:
    """Directory, bucket and limits of the disk cache.

    ``place`` (the store's) and ``bucket`` keep apart what mounts of several buckets, and of
    several degrees of trust, leave in one directory.
    """

    directory: Path
    place: str
    bucket: str
    limit_bytes: int
    min_free_bytes: int | None
    block_size_bytes: int


def store_options(settings: Settings) -> StoreOptions:
    """How the bucket is reached and how hard is tried."""
    return StoreOptions(
        bucket=settings.bucket,
        endpoint=settings.endpoint,
        read_endpoint=settings.read_endpoint,
        region=settings.region,
        addressing=settings.addressing,
        profile=settings.profile,
        credentials_file=settings.credentials_file,
        anonymous=settings.anonymous,
        ca_bundle=settings.ca_bundle,
        verify_tls=settings.verify_tls,
        concurrency=settings.concurrency,
        connect_timeout_seconds=settings.connect_timeout_seconds,
        stall_timeout_seconds=settings.stall_timeout_seconds,
        retry_budget_seconds=settings.retry_budget_seconds,
        upload_limit_bytes=settings.upload_limit_bytes,
        download_limit_bytes=settings.download_limit_bytes,
        bind=settings.bind,
        checksum=settings.checksum,
        conditional_reads=settings.conditional_reads,
        conditional_writes=settings.conditional_writes,
        part_copy=settings.part_copy,
        storage_class=settings.storage_class,
        sse=settings.sse,
        sse_kms_key_id=settings.sse_kms_key_id,
        sse_key_file=settings.sse_key_file,
        request_payer=settings.request_payer,
        acl=settings.acl,
        scratch_prefix=settings.prefix,
        traits_dir=settings.state_dir / "stores",
    )


def read_options(settings: Settings) -> ReadOptions:
    """How objects are fetched."""
    grain = 1 if settings.shared_cache is None else _shared_block_bytes(settings)
    return ReadOptions(
        block_size_bytes=settings.block_size_bytes,
        grain_bytes=grain,
        model_hints=settings.model_hints,
    )


def shared_cache_options(settings: Settings) -> "SharedCacheOptions | None":
    """Whom blocks are shared with; None for nobody.

    Raises:
        EnvironmentProblemError: the secret cannot be used.
    """
    if settings.shared_cache is None:
        return None
    # Mounts that share nothing do not load any of it.
    from ossfs_py.sharedcache.cache import SharedCacheOptions  # noqa: PLC0415
    from ossfs_py.sharedcache.secret import read_secret  # noqa: PLC0415

    path = settings.shared_cache_secret
    return SharedCacheOptions(
        nodes=settings.shared_cache,
        bucket=settings.bucket,
        block_bytes=_shared_block_bytes(settings),
        secret=None if path is None else read_secret(path),
        patience_seconds=settings.shared_cache_timeout_seconds,
    )


def _shared_block_bytes(settings: Settings) -> int:
    return min(BLOCK_BYTES, settings.block_size_bytes)


def write_limits(settings: Settings) -> WriteLimits:
    """How large the parts of uploads may be, and how many zeros may be sent."""
    limits = WriteLimits()
    part_bytes = min(limits.memory_part_bytes, settings.memory_limit_bytes // _PART_SHARE)
    return WriteLimits(
        memory_part_bytes=part_bytes,
        zeros_bytes=settings.max_zeros_bytes,
        # The next daemon goes on from staging files.
        small_bytes=0 if settings.outlives_daemon else limits.small_bytes,
    )


def disk_cache_options(settings: Settings, place: str) -> DiskCacheOptions:
    """Options of a mount with the ``cache`` data path."""
    return DiskCacheOptions(
        directory=settings.cache_dir,
        place=place,
        bucket=settings.bucket,
        limit_bytes=settings.cache_size_bytes or sys.maxsize,
        min_free_bytes=settings.min_free_bytes,
        # A block is kept when all of it was fetched.
        block_size_bytes=min(MIB, settings.block_size_bytes),
    )


def metadata_file(settings: Settings, place: str) -> Path | None:
    """File for answers to HEAD, if the mount asks objects and has a persistent cache."""
    asks_modes = settings.allow_other and not settings.trust_default_modes
    if settings.at_ns is not None:
        return None  # what it would keep is of versions that the next mount does not show
    if settings.data_path != "cache" or not (settings.posix_metadata or asks_modes):
        return None
    identity = f"{place}\0{settings.bucket}"
    name = f"metadata-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.sqlite3"
    return settings.cache_dir / name


def namespace_options(settings: Settings) -> NamespaceOptions:
    """How keys become names and attributes, and for how long answers are believed."""
    return NamespaceOptions(
        prefix=settings.prefix,
        metadata_ttl_seconds=settings.metadata_ttl_seconds,
        negative_ttl_seconds=settings.negative_ttl_seconds,
        posix_metadata=settings.posix_metadata,
        uid=settings.uid,
        gid=settings.gid,
        file_mode=settings.effective_file_mode,
        dir_mode=settings.effective_dir_mode,
        read_only=settings.read_only,
        at_ns=settings.at_ns,
        special_modes=settings.special_modes,
        guessed_for_uid=(
            os.geteuid() if settings.allow_other and not settings.trust_default_modes else None
        ),
    )


def filesystem_options(settings: Settings) -> FilesystemOptions:
    """Which changes are allowed, and what happens if others write, too."""
    protect = frozenset(settings.protect)
    return FilesystemOptions(
        read_only=settings.read_only,
        protect=protect,
        record_writer=settings.record_writer,
        passthrough=passes_through(settings),
        xattrs=settings.xattrs == "on",
        dedup=settings.dedup,
        # A mount that may not overwrite loses against a client that took the name first.
        conflicts=ConflictPolicy(fail=settings.on_conflict == "fail" or "overwrite" in protect),
        trash_prefix="" if settings.trash is None else settings.trash_prefix,
        scratch_prefix=f"{settings.prefix}{RESERVED_PREFIX}deleted-",
    )


def passes_through(settings: Settings) -> bool:
    """Whether the kernel reads files itself that are verified in the disk cache."""
    return _wants_passthrough(settings) and _passthrough_lacks() is None


def passthrough_lacks(settings: Settings) -> str | None:
    """Why the kernel cannot do so for a mount that would have it; None if nothing is missing."""
    return _passthrough_lacks() if _wants_passthrough(settings) else None


def _wants_passthrough(settings: Settings) -> bool:
    # Not a mount that is written to: who reads past the daemon would not see it. Nor one that
    # survives its daemon: the next one does not know which files the kernel reads.
    return (
        settings.passthrough == "auto"
        and settings.data_path == "cache"
        and settings.read_only
        and settings.fuse_lane == "auto"
        and not settings.restarts
    )


def _passthrough_lacks() -> str | None:
    return why_not(THIS_MACHINE, platform.release(), os.geteuid())


def fuse_options(settings: Settings, mountpoint: Path) -> FuseOptions:
    """How the kernel mounts it."""
    return FuseOptions(
        mountpoint=mountpoint,
        source=settings.source,
        read_only=settings.read_only,
        allow_other=settings.allow_other,
        readahead_bytes=settings.readahead_bytes,
        descriptor=given_descriptor(settings.mountpoint),
        lane=settings.fuse_lane == "auto",
        passthrough=passes_through(settings),
        kernel_options=settings.kernel_options,
    )


def local_directories(settings: Settings) -> LocalDirectories:
    """The directories of the mount on this machine."""
    given = settings.model_fields_set
    cache = OwnDirectory("cache-dir", settings.cache_dir, is_default="cache_dir" not in given)
    return LocalDirectories(
        temp=settings.temp_dir,
        cache=cache if settings.data_path == "cache" else None,
        state=OwnDirectory("state-dir", settings.state_dir, is_default="state_dir" not in given),
        # The direct data path needs it for writes that are out of order only.
        writes_temp=settings.data_path == "temp" or not settings.read_only,
        writes_state=not settings.read_only,
    )


def state_directory(settings: Settings, mountpoint: Path) -> Path:
    """The state of one mount, below the state directory.

    The mountpoint is part of its name: one bucket may be mounted twice on a host, and each daemon
    keeps its own journal.
    """
    identity = (settings.endpoint or "", settings.bucket, settings.prefix, str(mountpoint))
    text = "\0".join(identity).encode(errors="surrogateescape")
    return settings.state_dir / hashlib.sha256(text).hexdigest()[:16]


def log_options(settings: Settings) -> LogOptions:
    """Destination, format and levels of the log."""
    return LogOptions(
        levels=settings.log_level,
        is_json=settings.log_format == "json",
        file=settings.log_file,
        file_size_bytes=settings.log_file_size_bytes,
        access_log=settings.access_log,
        foreground=settings.foreground,
        state_dir=local_directories(settings).state,
    )


def mount_facts(settings: Settings) -> MountFacts:
    """Identity of the mount, for commands that ask it."""
    return MountFacts(
        source=settings.source,
        bucket=settings.bucket,
        prefix=settings.prefix,
        reserved=f"{settings.prefix}{RESERVED_PREFIX}",
        trash=settings.trash_prefix,
        is_past=settings.at_ns is not None,
        data_path=settings.data_path,
        concurrency=settings.concurrency,
    )

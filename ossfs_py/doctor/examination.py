"""The checks in order: machine, way to the store, bucket, shared cache, mountpoint."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ossfs_py.doctor.bucket import Bucket, credentials
from ossfs_py.doctor.directories import check_directories
from ossfs_py.doctor.findings import Finding, Status, failed, skipped
from ossfs_py.doctor.host import Host, check_host
from ossfs_py.doctor.mounts import check_mountpoint
from ossfs_py.doctor.nearby import check_read_endpoint
from ossfs_py.doctor.network import Way
from ossfs_py.doctor.sharing import check_shared_cache
from ossfs_py.errors import EnvironmentProblemError, UsageError
from ossfs_py.host.directories import LocalDirectories
from ossfs_py.store import open_store
from ossfs_py.store.auth.credentials import CredentialSource
from ossfs_py.store.auth.region import configured_region
from ossfs_py.store.options import StoreOptions
from ossfs_py.store.s3.endpoint import resolve_endpoint
from ossfs_py.store.s3.probing import scratch_key
from ossfs_py.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Examined:
    """The subject of an examination: a mount that exists, or a planned one.

    ``store`` and ``mountpoint`` are None where nobody has named them. ``write``: a key of a moment
    may be written to the bucket.
    """

    store: StoreOptions | None
    write: bool
    directories: LocalDirectories
    mountpoint: Path | None
    nonempty: bool
    allow_other: bool
    has_lane: bool
    shared_cache: str | None = None
    """The nodes, as ``--shared-cache`` says."""


def examine(examined: Examined) -> Iterator[Finding]:
    """Every finding as it is made."""
    yield from check_host(Host(), allow_other=examined.allow_other, has_lane=examined.has_lane)
    yield from check_directories(examined.directories)
    if examined.store is not None:
        afresh = replace(examined.store, probe_afresh=True)
        yield from _check_store(afresh, write=examined.write)
        if examined.store.read_endpoint is not None:
            yield check_read_endpoint(examined.store)
    if examined.shared_cache is not None:
        yield from check_shared_cache(examined.shared_cache)
    if examined.mountpoint is not None:
        yield from check_mountpoint(examined.mountpoint, nonempty=examined.nonempty)


def _check_store(options: StoreOptions, *, write: bool) -> Iterator[Finding]:
    metrics = Metrics()
    try:
        region = configured_region(options.profile) if options.region is None else None
        endpoint = resolve_endpoint(options, region)
        store = open_store(options, metrics)
    except (EnvironmentProblemError, UsageError) as exc:
        yield failed("settings", str(exc), "see 'ossfs-py mount --help'")
        return
    try:
        reached = True
        way = Way(endpoint, ca_bundle=options.ca_bundle, verify_tls=options.verify_tls)
        for finding in way.check():
            yield finding
            reached = reached and (finding.status is not Status.FAILED or finding.check == "clock")
        known = credentials(CredentialSource(options, metrics, oss_first=endpoint.is_oss))
        yield known
        if not reached or known.status is Status.FAILED:
            yield skipped("list", "as the store cannot be asked")
            return
        scratch = scratch_key(options) if write else None
        yield from Bucket(store, options.scratch_prefix, scratch=scratch).check()
    finally:
        store.close()

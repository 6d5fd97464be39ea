"""The checks in order: machine, way to the store, bucket, mountpoint."""

from collections.abc import Iterator

from ossfs_py.config import Settings
from ossfs_py.doctor.bucket import Bucket, credentials
from ossfs_py.doctor.directories import check_directories
from ossfs_py.doctor.findings import Finding, Status, failed, skipped
from ossfs_py.doctor.host import Host, check_host
from ossfs_py.doctor.mounts import check_mountpoint
from ossfs_py.doctor.network import Way
from ossfs_py.errors import EnvironmentProblemError, UsageError
from ossfs_py.store import open_store
from ossfs_py.store.auth.credentials import CredentialSource
from ossfs_py.store.auth.session import make_session
from ossfs_py.store.options import StoreOptions, store_options
from ossfs_py.store.s3.conditions import scratch_key
from ossfs_py.store.s3.endpoint import resolve_endpoint
from ossfs_py.telemetry.metrics import Metrics


def examine(
    settings: Settings, *, bucket: bool, mountpoint: bool, write: bool
) -> Iterator[Finding]:
    """Every finding as it is made. ``bucket`` and ``mountpoint``: whether they were named."""
    yield from check_host(Host(), allow_other=settings.allow_other)
    yield from check_directories(settings)
    if bucket:
        yield from _check_store(store_options(settings), settings, write=write)
    if mountpoint:
        yield from check_mountpoint(settings.mountpoint, nonempty=settings.nonempty)


def _check_store(options: StoreOptions, settings: Settings, *, write: bool) -> Iterator[Finding]:
    metrics = Metrics()
    try:
        region = None
        if options.region is None:
            region = make_session(options.profile).region_name
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
        yield from Bucket(store, settings.prefix, scratch=scratch).check()
    finally:
        store.close()

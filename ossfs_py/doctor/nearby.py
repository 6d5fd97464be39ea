"""The read endpoint: whether it answers for the bucket."""

from dataclasses import replace

from ossfs_py.doctor.findings import Finding, good, warning
from ossfs_py.errors import StoreError, UserError
from ossfs_py.store import open_store
from ossfs_py.store.options import StoreOptions
from ossfs_py.telemetry.metrics import Metrics

_PATIENCE_SECONDS = 5.0


def check_read_endpoint(options: StoreOptions) -> Finding:
    """Ask the read endpoint what a store is asked before it is mounted.

    It may fail here and give bytes all the same, as many gateways only hand out objects.
    """
    check, url = "read endpoint", options.read_endpoint
    try:
        store = open_store(replace(options, endpoint=url, read_endpoint=None), Metrics())
        try:
            store.check(options.scratch_prefix, _PATIENCE_SECONDS)
        finally:
            store.close()
    except (StoreError, UserError) as exc:
        return warning(check, f"{url}: {exc}", "reads go to the store itself while it fails")
    return good(check, f"{url} has the bucket, too")

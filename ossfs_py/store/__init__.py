"""The object store: the protocol in :mod:`base`, S3 and OSS in :mod:`s3`.

It works with keys and versions, raises only subclasses of ``StoreError``, and is safe for
concurrent use. ``http`` is the client under all requests. ``auth`` finds credentials (boto3's
session and its chain) and signs. Only this package imports boto3, botocore and awscrt.
"""

from typing import TYPE_CHECKING

from ossfs_py.store.options import StoreOptions

if TYPE_CHECKING:
    from ossfs_py.store.base import ObjectStore
    from ossfs_py.telemetry.metrics import Metrics

__all__ = ["StoreOptions", "open_store"]


def open_store(options: StoreOptions, metrics: "Metrics") -> "ObjectStore":
    """The bucket that ``options`` name. Sends nothing yet; ask ``ObjectStore.check``.

    Raises:
        UsageError: the endpoint is malformed.
        EnvironmentProblemError: the profile, the CA bundle, the SSE-C key file, the proxy settings
            or an address to bind to are broken.
    """
    # Commands that only look at what mounts have left know options, and need no store.
    from ossfs_py.store.s3.objectstore import open_bucket  # noqa: PLC0415

    return open_bucket(options, metrics)

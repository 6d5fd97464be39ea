"""The object store: the protocol in :mod:`base`, S3 and OSS in :mod:`s3`.

It speaks keys and versions, raises only subclasses of ``StoreError`` and is safe for concurrent
use. ``http`` is the client under all requests, ``auth`` finds credentials (boto3's session and its
chain) and signs. Only this room knows boto3, botocore and awscrt.
"""

from ossfs_py.store.options import StoreOptions
from ossfs_py.store.s3.objectstore import open_store

__all__ = ["StoreOptions", "open_store"]
